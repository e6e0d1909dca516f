# What follows is the same in every job. This shell runs on the first node, outside any container:
# it starts the ranks, passes a request to stop on to them, and sees that the run goes on.
# Never `set -x` here: it would print what the environment holds. Never a bare `return`: in a
# function that a trap called, it returns the status from before the trap.

unset POSIXLY_CORRECT # with it, commands of SLURM take `-o` behind other words for one of them

say() { printf '%(%FT%T%z)T moescale %s attempt %s: %s\n' -1 "$job" "$attempt" "$*"; }

# --- One attempt: a folder with `begin`, `end`, a log for each rank, and the marks of what happened.

begin_attempt() {
  state_dir="$job_dir/tasks/$task" attempt=1
  mkdir -p "$state_dir" || refuse_disk "$state_dir"
  rm -f "$state_dir/ended"
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
  printf '{"outcome": "%s", "exit_code": %d, "ended": %d, "step": %s}\n' "$1" "$2" "$EPOCHSECONDS" \
    "$(last_step)" >"$attempt_dir/end.part" && mv "$attempt_dir/end.part" "$attempt_dir/end"
  say "outcome: $1"
}

last_step() { # prints the last step that the run has recorded, or null
  local i rows step=null
  for ((i = 0; i + 1 < ${#command[@]}; i++)); do
    [[ ${command[i]} == --run-dir ]] || continue
    rows=$(tail -n 2 "${command[i + 1]}/metrics.jsonl" 2>/dev/null) # the last may be torn
    while [[ $rows =~ \"step\":\ ([0-9]+)(.*) ]]; do step=${BASH_REMATCH[1]} rows=${BASH_REMATCH[2]}; done
  done
  echo "$step"
}

# Restarts count since the last submission by hand. Of those after errors only the ones count behind
# which the run has not got yet: who trains for weeks between two errors makes progress.
count_restarts() { # sets restarts and error_restarts
  local since=0 number end step
  [[ -e $state_dir/since ]] && since=$(<"$state_dir/since")
  restarts=$((attempt - 1 - since)) error_restarts=0 step=$(last_step)
  for ((number = since + 1; number < attempt; number++)); do
    end=$(cat "$state_dir/attempt-$number/end" 2>/dev/null)
    [[ $end == *'"outcome": "error"'* ]] || continue
    if [[ $step != null && $end =~ \"step\":\ ([0-9]+) ]] && ((step > BASH_REMATCH[1])); then continue; fi
    error_restarts=$((error_restarts + 1))
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

show_nodes() { scontrol show node -o "${1:-$SLURM_JOB_NODELIST}" 2>/dev/null; }

is_open() { timeout 8 bash -c ": </dev/tcp/$1" 2>/dev/null; } # ADDRESS/PORT

ask_nodes() { # sets failed; fails where the question was ended before its answer
  mapfile -t failed < <(find_failed_nodes && echo .)
  ((${#failed[@]})) && [[ ${failed[-1]} == . ]] || return 1
  unset 'failed[-1]'
}

find_failed_nodes() { # prints nodes that SLURM calls failed, or whose slurmd is silent twice
  local text line name address port failed_state=' State=[A-Z_+]*(DOWN|FAIL|NOT_RESPONDING|[*])'
  text=$(answered show_nodes) || return 1
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
  done < <(echo "$text")
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
  [[ ${1:-} == error ]] || ask_nodes # else known
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
  local options=(--parsable) answer line id=''
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] && ((max_parallel)); then
    # An array limits its own tasks alone: those that go on wait for all of it, and follow each other
    # in as many lanes, by their name, as may run at once.
    options+=("--dependency=afterany:$SLURM_ARRAY_JOB_ID,singleton")
    options+=("--job-name=${job_dir##*/}.lane-$((task % max_parallel))")
  else
    options+=("--dependency=afterany:$job")
  fi
  [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] && options+=("--array=$task")
  [[ -n $excluded ]] && options+=("--exclude=$excluded")
  answer=$(sbatch "${options[@]}" "$job_dir/job.sh" 2>&1) || {
    echo "$answer"
    if [[ $excluded != "$exclude" && ${answer,,} == *'invalid node name'* ]]; then
      say "SLURM does not know all of $excluded any more: goes on without excluding failed nodes"
      excluded=$exclude
    fi
    return 1
  }
  while read -r line; do # among warnings
    if [[ $line =~ ^([0-9]+)(;|$) ]]; then id=${BASH_REMATCH[1]}; else echo "$line"; fi
  done < <(echo "$answer")
  say "continued by job $id"
  { # under a lock, as other tasks and submission_folder.py's record_job write here too
    flock 9
    printf '{"job": "%s", "tasks": "%s", "submitted": %d, "cluster": "%s"}\n' "$id" "$task" \
      "$EPOCHSECONDS" "${SLURM_CLUSTER_NAME:-}" >&9
  } 9>>"$job_dir/jobs" || say "job $id could not be added to $job_dir/jobs: moe slurm requeue does"
  return 0
}

exclude_nodes() { # NODE...: remember them for every later attempt of this task
  say "failed: $*"
  ((exclude_failed_nodes)) || return 0
  printf '%s\n' "$@" >>"$state_dir/excluded"
  read_excluded
}

read_excluded() { # sets excluded: failed nodes, then the list as given, in which brackets hold commas
  excluded=$exclude
  [[ -e $state_dir/excluded ]] || return 0
  excluded=$({ sort -u "$state_dir/excluded"; echo "$exclude"; } | grep . | paste -sd ,)
}

apply_exclusion() { # a requeued job is pending, so its list may change before this shell is ended
  [[ $excluded == "$exclude" ]] && return 0
  if scontrol update "JobId=$job" "ExcNodeList=$excluded"; then
    say "excludes $excluded"
  else
    say "goes on, but may return to a failed node: SLURM did not take ExcNodeList=$excluded"
  fi
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
    text=$(answered show_nodes "$first") || say "SLURM does not answer: ranks look for node $first by its name"
    [[ $text =~ NodeAddr=([^ ]+) ]] && MOESCALE_MASTER_ADDR=${BASH_REMATCH[1]}
  fi
  MOESCALE_MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + attempt) % 10000))
  export MOESCALE_MASTER_ADDR MOESCALE_MASTER_PORT
}

show_environment() { # prints what ranks are to have, as words for `export`: setup may have changed it
  local name
  for name in "${of_ranks[@]}"; do
    if [[ -v $name ]]; then printf '%s=%q ' "$name" "${!name}"; fi
  done
}

start_ranks() {
  export MOESCALE_ATTEMPT="$attempt_dir" MOESCALE_CODE="$code_dir" MOESCALE_SECRETS="$secrets"
  export MOESCALE_PYTHON="$python" MOESCALE_PROCESSES="$processes_per_node" MOESCALE_NODES="$nodes"
  export MOESCALE_ACTIVATE="$activate" MOESCALE_ENVIRONMENT
  MOESCALE_ENVIRONMENT=$(show_environment)
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
    [[ -e $attempt_dir/stopped && ! -e $attempt_dir/unsaved ]] ||
      say "ranks were ended before their checkpoint: steps since the last one are trained again"
    continue_run
  else
    say "ranks failed with exit code $code"
    fail "$code"
  fi
  leave
}

fail() { # EXIT_CODE: end this shell, or try once more where it may help
  local tried
  for tried in 1 2; do # what ends this job may have ended the question already, and soon tells it here
    ask_nodes && break
    sleep 1
  done
  ((asked)) && leave
  classify_stop # SLURM may have requeued or ended the job: then the error is a consequence
  count_restarts
  if ((${#failed[@]} == 0 && handled == 0 && error_restarts >= max_error_restarts)); then
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

clean_up() { # at the end of this shell: secrets go with the last task that nothing continues
  local ended
  [[ -n $secrets ]] && ((continued == 0)) && [[ ${outcome:-} != unknown ]] || return 0
  : >"$state_dir/ended"
  ended=("$job_dir"/tasks/*/ended)
  if ((${#ended[@]} == $(wc -l <"$job_dir/commands"))); then rm -f "$secrets"; fi
}

job=$SLURM_JOB_ID task=${SLURM_ARRAY_TASK_ID:-0}
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then job="${SLURM_ARRAY_JOB_ID}_$task"; fi
step='' stopping=0 asked=0 continued=0
give_up='' answer_s=15 # SECONDS at which asking SLURM ends; from a SIGTERM on: half of usual KillWait
export SLURM_TIME_FORMAT=standard # whatever the user likes to read
begin_attempt
trap clean_up EXIT
trap end_setup ALRM
for name in TERM USR2 USR1 INT HUP; do # who sends the last three to a whole job means it to stop too
  # shellcheck disable=SC2064  # the name of now
  trap "on_signal $name" "$name"
done
if ((${#command[@]} == 0)); then # an array's tasks: line N + 1 belongs to task N
  mapfile -t -s "$task" -n 1 line <"$job_dir/commands"
  eval "command=(${line[0]})"
fi
read_excluded
count_restarts
if ((restarts > max_restarts)); then
  end_attempt restart_cap 75
  say "not started: $restarts restarts, slurm.max_restarts=$max_restarts"
  exit 75
fi
if [[ -n $secrets && ! -r $secrets ]]; then
  say "not started: $secrets is gone, as the run had ended: moe slurm requeue, from a shell that has them"
  end_attempt error 1
  exit 1
fi
raise_limits
prepare || fail 1
choose_nodes
find_master
check_health
if ((stopping == 0)); then
  start_ranks
  if ((stopping)); then kill -USR2 "$step"; fi
  wait_for "$step"
  judge $?
fi
continue_run
leave
