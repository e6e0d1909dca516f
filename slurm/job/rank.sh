# Runs once for each SLURM task, inside the container if there is one. `stopped` marks that a rank
# was told to stop or exited with 75; it then exits with 0, so that srun and torchrun let the others
# finish their part of the checkpoint. `exit-<rank>` marks a failure; srun then ends the others with
# SIGTERM too, which is no request to stop.
read -r -d '' TASK <<'END_OF_TASK'
set -uo pipefail
main() {
  role=$1 child='' stopping=0
  trap stop TERM USR2 USR1 INT HUP
  shift
  eval "export MOESCALE_ENVIRONMENT $MOESCALE_ENVIRONMENT"
  ulimit -Sl "$(ulimit -Hl)" 2>/dev/null # where SLURM hands on no limits of the batch shell
  export PYTHONPATH="$MOESCALE_CODE" PYTHONUNBUFFERED=1
  # Where ranks wait for each other for too long, what each last did stays with the attempt.
  export TORCH_FR_DUMP_TEMP_FILE="${TORCH_FR_DUMP_TEMP_FILE:-$MOESCALE_ATTEMPT/flight-recorder-}"
  export MASTER_ADDR="$MOESCALE_MASTER_ADDR" MASTER_PORT="$MOESCALE_MASTER_PORT"
  case $role in
    srun)
      export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS"
      export LOCAL_WORLD_SIZE="$MOESCALE_PROCESSES"
      activate && run_rank "$@"
      ;;
    torchrun) activate && run_agent "$@" ;;
    rank)
      eval "set -- $MOESCALE_COMMAND"
      run_rank "$@"
      ;;
  esac
}
activate() { # scripts of conda and modules read unset variables
  set +u
  eval "$MOESCALE_ACTIVATE" || return 1
  set -u
}
run_rank() {
  exec >>"$MOESCALE_ATTEMPT/rank-$RANK.log" 2>&1
  echo "$BASHPID" >"$MOESCALE_ATTEMPT/pid-$RANK"
  if [ -n "$MOESCALE_SECRETS" ]; then . "$MOESCALE_SECRETS" || return 1; fi
  code=75 # where it is to stop before it began
  if ((stopping == 0)) && [ ! -e "$MOESCALE_ATTEMPT/asked" ]; then
    run "$MOESCALE_PYTHON" -m moescale "$@"
    code=$?
  fi
  if ((code == 75)) || { ((code && stopping)) && ! compgen -G "$MOESCALE_ATTEMPT/exit-*" >/dev/null; }; then
    ((code == 75)) || : >"$MOESCALE_ATTEMPT/unsaved"
    : >"$MOESCALE_ATTEMPT/stopped" && code=0
  elif ((code)); then
    echo "$code" >"$MOESCALE_ATTEMPT/exit-$RANK"
  fi
  rm -f "$MOESCALE_ATTEMPT/pid-$RANK"
  return "$code"
}
run_agent() {
  export MOESCALE_TASK="$BASH_EXECUTION_STRING" MOESCALE_COMMAND
  MOESCALE_COMMAND=$(printf '%q ' "$@") # not as arguments: torchrun replaces $$ and ${...} there
  run start_torchrun
}
# Some clusters signal every process of a step. torchrun kills the ranks 30 s after a signal that it
# handles, and dies of others: it ignores them, by a handler, as its ranks would inherit a mere trap.
start_torchrun() {
  trap '' TERM USR2 # until Python is up
  exec "$MOESCALE_PYTHON" -c 'from signal import *; [signal(n, lambda *_: 0) for n in (SIGTERM, SIGUSR2)]
from torch.distributed.run import main; main()' --signals-to-handle=SIGINT --no-python --nnodes="$MOESCALE_NODES" \
    --nproc-per-node="$MOESCALE_PROCESSES" --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
    bash -c 'eval "$MOESCALE_TASK"' moescale rank
}
run() { # in a process group of its own, so that only this shell hears what SLURM sends
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  if ((stopping)); then stop; fi
  while :; do
    wait "$child" && return 0
    code=$?
    if ((code <= 128)) || ! kill -0 "$child" 2>/dev/null; then break; fi
  done
  wait "$child" 2>/dev/null
  again=$?
  ((again == 127)) && return "$code"
  return "$again"
}
stop() {
  stopping=1
  if [ -z "$child" ]; then return 0; fi
  if [ "$role" != torchrun ]; then kill -USR2 "$child" 2>/dev/null; return 0; fi
  : >"$MOESCALE_ATTEMPT/asked" # for ranks that torchrun has yet to start
  first=$((SLURM_NODEID * MOESCALE_PROCESSES))
  for ((rank = first; rank < first + MOESCALE_PROCESSES; rank++)); do
    kill -USR2 "$(cat "$MOESCALE_ATTEMPT/pid-$rank" 2>/dev/null)" 2>/dev/null
  done
}
main "$@"
END_OF_TASK

