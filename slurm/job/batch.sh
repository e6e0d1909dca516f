# What follows is the same in every job. This shell runs on the first node, outside any container:
# it starts the ranks, passes a request to stop on to them, and sees that the run goes on.
# Never `set -x` here: it would print what the environment holds. Never a bare `return`: in a
# function that a trap called, it returns the status from before the trap.

say() { printf '%(%FT%T%z)T moescale %s attempt %s: %s\n' -1 "$job" "$attempt" "$*"; }

# --- One attempt: a folder with `begin`, `end`, a log for each rank, and the marks of what happened.

begin_attempt() {
  state_dir="$job_dir/tasks/$task" attempt=1
  mkdir -p "$state_dir" || refuse_disk "$state_dir"
  while ! mkdir "$state_dir/attempt-$attempt" 2>/dev/null; do
    [[ -d $state_dir/attempt-$attempt ]] || refuse_disk "$state_dir"
    attempt=$((attempt + 1))
  done
  attempt_dir="$state_dir/attempt-$attempt"
  printf '{"job": "%s", "restart": %d, "nodes": "%s", "began": %d}\n' "$job" \
    "${SLURM_RESTART_COUNT:-0}" "$SLURM_JOB_NODELIST" "$EPOCHSECONDS" >"$attempt_dir/begin.part" ||
    refuse_disk "$attempt_dir"
  mv "$attempt_dir/begin.part" "$attempt_dir/begin" || refuse_disk "$attempt_dir"
  say "starts on $SLURM_JOB_NODELIST (SLURM restart ${SLURM_RESTART_COUNT:-0})"
}

refuse_disk() { # FOLDER
  say "cannot write to $1: make room, then moe slurm requeue"
  exit 1
}

end_attempt() { # OUTCOME EXIT_CODE: written once, the first outcome stays
  [[ -e $attempt_dir/end ]] && return 0
  printf '{"outcome": "%s", "exit_code": %d, "ended": %d}\n' "$1" "$2" "$EPOCHSECONDS" \
    >"$attempt_dir/end.part" && mv "$attempt_dir/end.part" "$attempt_dir/end"
  say "outcome: $1"
}

count_restarts() { # sets restarts and error_restarts, counted since the last submission by hand
  local since=0 number
  [[ -e $state_dir/since ]] && since=$(<"$state_dir/since")
  restarts=$((attempt - 1 - since)) error_restarts=0
  for ((number = since + 1; number < attempt; number++)); do
    grep -qs '"outcome": "error"' "$state_dir/attempt-$number/end" && error_restarts=$((error_restarts + 1))
  done
}

# --- What SLURM says.

query_job() { # sets job_state, job_reason, job_restarts, job_end; empty where slurmctld is silent
  local text
  job_state='' job_reason='' job_restarts=0 job_end=''
  text=$(scontrol show job -o "$job" 2>/dev/null) || return 1
  text=" ${text#*" JobName=${SLURM_JOB_NAME:-} UserId="}" # behind the name, which may hold anything
  [[ $text =~ \ JobState=([A-Z_]+) ]] && job_state=${BASH_REMATCH[1]}
  [[ $text =~ \ Reason=([A-Za-z_]+) ]] && job_reason=${BASH_REMATCH[1]}
  [[ $text =~ \ Restarts=([0-9]+) ]] && job_restarts=${BASH_REMATCH[1]}
  [[ $text =~ \ EndTime=([0-9][^ ]*) ]] && job_end=${BASH_REMATCH[1]}
  [[ $text =~ \ PreemptTime=[0-9] ]] && job_reason=Preempted
  [[ -n $job_state ]]
}

answered() { # COMMAND: run it until slurmctld answers: for a minute, or until give_up
  local start=$SECONDS
  until "$@"; do
    ((SECONDS < ${give_up:-$((start + 60))})) || return 1
    sleep 1
  done
}

show_nodes() { scontrol show node -o "$SLURM_JOB_NODELIST" 2>/dev/null; }

is_open() { timeout 8 bash -c ": </dev/tcp/$1" 2>/dev/null; } # ADDRESS/PORT

find_failed_nodes() { # prints nodes that SLURM calls failed, or whose slurmd is silent twice
  local line name address port failed_state=' State=[A-Z_+]*(DOWN|FAIL|NOT_RESPONDING|[*])'
  while read -r line; do
    [[ $line =~ NodeName=([^ ]+) ]] || continue
    name=${BASH_REMATCH[1]} address=${BASH_REMATCH[1]} port=6818
    [[ $line =~ NodeAddr=([^ ]+) ]] && address=${BASH_REMATCH[1]}
    [[ $line =~ \ Port=([0-9]+) ]] && port=${BASH_REMATCH[1]}
    if [[ $line =~ $failed_state ]]; then
      echo "$name"
    else
      { is_open "$address/$port" || { sleep 1; is_open "$address/$port"; } || echo "$name"; } &
    fi
  done < <(answered show_nodes)
  wait
}

# --- Going on: once for each attempt, whichever signal or end asks for it first.

classify_stop() { # sets outcome, and handled=1 where nothing is left to do
  local deadline
  outcome=preempted handled=0
  [[ -e $state_dir/cancelled ]] || answered query_job
  deadline=$(date -d "${job_end:-9999-01-01}" +%s 2>/dev/null) || deadline=253370764800
  if [[ -e $state_dir/cancelled || $job_state == CANCELLED ]]; then
    outcome=cancelled handled=1
  elif [[ -z $job_state && -n $give_up ]]; then
    outcome=unknown handled=1
    say "not continued: SLURM may have cancelled it, but does not answer; moe slurm requeue goes on"
  elif ((job_restarts > ${SLURM_RESTART_COUNT:-0})); then
    outcome=requeued handled=1 # SLURM did it: preemption, node failure or `scontrol requeue`
  elif [[ $job_reason == TimeLimit ]]; then
    outcome=time_limit
  elif [[ $job_state == COMPLETING && $job_reason != Preempted ]]; then
    outcome=cancelled handled=1 # a cancelled job shows no reason
  elif [[ $job_reason != Preempted ]] && ((EPOCHSECONDS >= deadline - checkpoint_lead_s - 65)); then
    outcome=time_limit # SLURM may send its signal up to 60 s early
  fi
}

continue_run() { # [OUTCOME]: see that the run goes on
  local tried
  ((asked++)) && return 0 # counted here and not on disk, which may be full
  classify_stop
  count_restarts # anew: moe slurm requeue may have reset it
  [[ ${1:-} == error ]] || mapfile -t failed < <(find_failed_nodes) # else known
  if ((${#failed[@]})) && [[ $outcome != @(cancelled|unknown) ]]; then
    outcome=node_failure
    exclude_nodes "${failed[@]}"
  elif [[ -n ${1:-} && $handled == 0 ]]; then
    outcome=$1
  fi
  end_attempt "$outcome" 75
  if [[ $outcome == @(cancelled|unknown) ]]; then
    return 0
  elif ((restarts >= max_restarts)); then
    say "not continued: $restarts restarts, slurm.max_restarts=$max_restarts"
    return 0
  elif ((handled)); then
    continued=1
    apply_exclusion
    return 0
  elif [[ $continue_by == none ]]; then
    say 'not continued: slurm.continue_by="none"; moe slurm requeue goes on'
    return 0
  fi
  for tried in 1 2 4 8 16; do
    if [[ $continue_by == requeue ]]; then requeue; else submit_next; fi && continued=1 && return 0
    say "$continue_by failed, trying again in $tried s"
    sleep "$tried"
  done
  say "could not be continued: run moe slurm requeue"
}

requeue() {
  query_job # it may have happened in the meantime
  [[ -n $job_state ]] || return 1
  if ((job_restarts <= ${SLURM_RESTART_COUNT:-0})); then scontrol requeue "$job" || return 1; fi
  say "requeued"
  apply_exclusion
}

submit_next() { # in a new job, which waits for the end of this one
  local options=(--parsable "--dependency=afterany:$job") id
  [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] && options+=("--array=$task")
  [[ -n $excluded ]] && options+=("--exclude=$excluded")
  id=$(sbatch "${options[@]}" "$job_dir/job.sh") || return 1
  say "continued by job ${id%%;*}"
  { # under a lock, as other tasks and submission_folder.py's record_job write here too
    flock 9
    printf '{"job": "%s", "tasks": "%s", "submitted": %d}\n' "${id%%;*}" "$task" "$EPOCHSECONDS" >&9
  } 9>>"$job_dir/jobs" || say "job ${id%%;*} could not be added to $job_dir/jobs: moe slurm requeue does"
  return 0
}

exclude_nodes() { # NODE...: remember them for every later attempt of this task
  say "failed: $*"
  ((exclude_failed_nodes)) || return 0
  printf '%s\n' "$@" >>"$state_dir/excluded"
  read_excluded
}

read_excluded() { # sets excluded, a comma-separated list
  excluded=$exclude
  [[ -e $state_dir/excluded ]] || return 0
  excluded=$({ tr ',' '\n' <<<"$exclude"; cat "$state_dir/excluded"; } | sort -u | grep . | paste -sd ,)
}

apply_exclusion() { # a requeued job is pending, so its list may change before this shell is ended
  [[ $excluded == "$exclude" ]] && return 0
  scontrol update "JobId=$job" "ExcNodeList=$excluded" || return 0 # it goes on all the same
  say "excludes $excluded"
}

on_signal() { # NAME
  say "SIG$1: asking the ranks to write a checkpoint and stop"
  stopping=1
  [[ -n $step ]] && kill -USR2 "$step" 2>/dev/null
  # SIGTERM on this shell means that SIGKILL follows: what must be done is done now.
  if [[ $1 == TERM ]]; then
    give_up=${give_up:-$((SECONDS + answer_s))}
    ((asked)) && return 0
    answered query_job || say "SLURM does not answer: asking again once the ranks have stopped"
    if [[ $job_state == RUNNING ]]; then give_up=''; elif [[ -n $job_state ]]; then continue_run; fi
  fi
}

# --- The ranks.

wait_for() { # PID: its exit status, however many signals come in between
  local code again
  while :; do
    wait "$1" && return 0
    code=$?
    if ((code <= 128)) || ! kill -0 "$1" 2>/dev/null; then break; fi
  done
  wait "$1" 2>/dev/null
  again=$? # the wait may have ended with a signal just as the process did
  ((again == 127)) && return "$code"
  return "$again"
}

choose_nodes() { # sets nodes: as many as were granted and the layout can use
  local count
  nodes=0
  for count in "${node_counts[@]}"; do
    if ((count <= SLURM_JOB_NUM_NODES)); then nodes=$count; fi
  done
  say "uses $nodes of $SLURM_JOB_NUM_NODES nodes"
}

find_master() { # sets where rank 0 listens; the port differs between jobs and attempts
  local first text
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  MOESCALE_MASTER_ADDR=$first
  if ! getent hosts "$first" >/dev/null; then
    text=$(scontrol show node -o "$first")
    [[ $text =~ NodeAddr=([^ ]+) ]] && MOESCALE_MASTER_ADDR=${BASH_REMATCH[1]}
  fi
  MOESCALE_MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + attempt) % 10000))
  export MOESCALE_MASTER_ADDR MOESCALE_MASTER_PORT
}

prepare_by() { # COMMAND of the profile
  eval "$1" && return
  say "failed: $1"
  return 1
}

check_health() {
  local sick
  [[ -n $health_check ]] || return 0
  # shellcheck disable=SC2016  # expands on the node
  mapfile -t sick < <(srun --ntasks-per-node=1 "--ntasks=$SLURM_JOB_NUM_NODES" --mpi=none bash -c \
    'eval "$1" >&2 || echo "$SLURMD_NODENAME"' moescale "$health_check" </dev/null)
  ((${#sick[@]})) || return 0
  say "health check failed on ${sick[*]}"
  exclude_nodes "${sick[@]}"
  return 1
}

# Runs once for each SLURM task, inside the container if there is one. `stopped` marks that a rank
# was told to stop or exited with 75; it then exits with 0, so that srun and torchrun let the others
# finish their part of the checkpoint. `exit-<rank>` marks a failure; srun then ends the others with
# SIGTERM too, which is no request to stop.
read -r -d '' TASK <<'END_OF_TASK'
set -uo pipefail
main() {
  role=$1 child='' stopping=0
  trap stop TERM USR2
  shift
  export PYTHONPATH="$MOESCALE_CODE" PYTHONUNBUFFERED=1
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

start_ranks() {
  export MOESCALE_ATTEMPT="$attempt_dir" MOESCALE_CODE="$code_dir" MOESCALE_SECRETS="$secrets"
  export MOESCALE_PYTHON="$python" MOESCALE_PROCESSES="$processes_per_node" MOESCALE_NODES="$nodes"
  export MOESCALE_ACTIVATE="$activate"
  srun "--nodes=$nodes" "--ntasks=$((nodes * tasks_per_node))" "--ntasks-per-node=$tasks_per_node" \
    --kill-on-bad-exit=1 "${srun_args[@]}" "${runtime[@]}" \
    bash -c "$TASK" moescale "$launch" "${command[@]}" </dev/null &
  step=$!
}

judge() { # EXIT_CODE of srun: end this shell, the run continued if it is not done
  local code=$1
  if ((code == 0)) && [[ ! -e $attempt_dir/stopped ]] && ((asked == 0)); then
    end_attempt finished 0
    exit 0
  elif ((restarts == 0)) && grep -qsx 2 "$attempt_dir"/exit-*; then # input that ran once is right
    end_attempt rejected 2
    exit 2
  elif ((stopping)) || { [[ -e $attempt_dir/stopped ]] && ! compgen -G "$attempt_dir/exit-*" >/dev/null; }; then
    continue_run
  else
    say "ranks failed with exit code $code"
    fail "$code"
  fi
  leave
}

fail() { # EXIT_CODE: end this shell, or try once more where it may help
  mapfile -t failed < <(find_failed_nodes)
  if ((${#failed[@]} == 0 && error_restarts >= max_error_restarts)); then
    end_attempt error "$1"
    say "not continued: slurm.max_error_restarts=$max_error_restarts; see moe slurm logs"
    exit "$1"
  fi
  continue_run error
  leave
}

leave() { # with 0 where the run goes on, else with 75: resume me
  exit $((continued ? 0 : 75))
}

job=$SLURM_JOB_ID task=${SLURM_ARRAY_TASK_ID:-0}
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then job="${SLURM_ARRAY_JOB_ID}_$task"; fi
step='' stopping=0 asked=0 continued=0
give_up='' answer_s=15 # SECONDS at which asking SLURM ends; from a SIGTERM on: half of usual KillWait
export SLURM_TIME_FORMAT=standard # whatever the user likes to read
begin_attempt
trap 'on_signal TERM' TERM
trap 'on_signal USR2' USR2
read_excluded
count_restarts
if ((restarts > max_restarts)); then
  end_attempt restart_cap 75
  say "not started: $restarts restarts, slurm.max_restarts=$max_restarts"
  exit 75
fi
if ((${#command[@]} == 0)); then # an array's tasks: line N + 1 belongs to task N
  mapfile -t -s "$task" -n 1 line <"$job_dir/commands"
  eval "command=(${line[0]})"
fi
prepare || fail 1
choose_nodes
find_master
if ! check_health; then
  continue_run node_failure
  leave
fi
if ((stopping == 0)); then
  start_ranks
  if ((stopping)); then kill -USR2 "$step"; fi
  wait_for "$step"
  judge $?
fi
continue_run
leave
