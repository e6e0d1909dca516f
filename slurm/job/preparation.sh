# Before the ranks start: limits, the profile's setup lines, the health of every node.

raise_limits() { # what RDMA and many open files need, as far as this shell may; no core dumps
  local open_files
  ulimit -Sl "$(ulimit -Hl)" 2>/dev/null
  open_files=$(ulimit -Hn)
  # Some programs walk through every number that a file could have: a million is enough.
  [[ $open_files == unlimited || $open_files -gt 1048576 ]] && open_files=1048576
  ulimit -Sn "$open_files" 2>/dev/null
  ulimit -Sc 0 # of thousands of ranks; a line of `setup` may allow them
  return 0
}

define_module() { # the command `module`, which only a login shell that is bash hands on
  local file
  type module >/dev/null 2>&1 && return 0
  for file in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" \
    /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
    if [[ -r $file ]]; then . "$file"; fi
    type module >/dev/null 2>&1 && return 0
  done
  say 'no command `module` here: source its init file, and load modules, in setup of the profile'
}

prepare_by() { # COMMAND of the profile, in this shell, ended where it takes too long
  local watchdog code
  preparing=$1
  watch_setup &
  watchdog=$!
  disown "$watchdog" # its end is not told
  eval "$1"
  code=$?
  kill "$watchdog" 2>/dev/null
  ((code)) || return 0
  say "failed: $1"
  return 1
}

watch_setup() { # the signal reaches a loop of this shell, or comes after the command that is ended here
  local pid
  trap - TERM
  exec {never}<> <(:)
  read -rt "$setup_timeout_s" -u "$never"
  kill -ALRM $$
  for pid in $(<"/proc/$$/task/$$/children"); do
    if ((pid != BASHPID)); then kill -KILL "$pid" 2>/dev/null; fi
  done
}

end_setup() {
  say "profile's setup_timeout_s=$setup_timeout_s is over: $preparing"
  fail 1
}

check_health() { # ends this shell where a node is sick, or the check itself wrong
  local node code sick=() silent=() unknown=() nodes_asked=() last="$state_dir/attempt-$((attempt - 1))"
  local -A codes=()
  [[ -n $health_check ]] || return 0
  ask_health
  ((stopping)) && return 0
  if [[ -n $health_ended && ! -s $attempt_dir/health ]]; then
    say "health check did not start on any node: srun ended with $health_ended"
    fail 1
  fi
  while read -r node code; do codes[$node]=$code; done <"$attempt_dir/health"
  mapfile -t nodes_asked < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  for node in "${nodes_asked[@]}"; do
    case ${codes[$node]:-} in
      0) continue ;;
      '') silent+=("$node") ;;
      126 | 127) unknown+=("$node") ;;
    esac
    sick+=("$node")
  done
  ((${#sick[@]})) || return 0
  : >"$attempt_dir/health-failed"
  if ((${#sick[@]} < ${#nodes_asked[@]})) ||
    { ((${#sick[@]} == 1 && ${#unknown[@]} == 0)) && [[ ! -e $last/health-failed ]]; }; then
    say "health check failed on ${sick[*]}"
    exclude_nodes "${sick[@]}"
    continue_run node_failure
    leave
  fi
  say "health check failed on every node: no node is excluded, as the check itself may be wrong: $health_check"
  if ((${#unknown[@]} == ${#sick[@]} && restarts == 0)); then
    say "health_check of the profile is no command there: correct it, and submit again"
    end_attempt rejected 2
    exit 2
  fi
  fail 1
}

# A command that hangs in the kernel, as nvidia-smi may on a lost GPU, is ended by no signal: its node
# is taken for sick where it has not answered in time, whatever srun waits for.
ask_health() { # writes lines of NODE EXIT_CODE; sets health_ended where srun ended by itself
  local check deadline=$((SECONDS + health_check_timeout_s + 15))
  # shellcheck disable=SC2016  # expands on the node
  srun --ntasks-per-node=1 "--ntasks=$SLURM_JOB_NUM_NODES" --mpi=none --kill-on-bad-exit=0 bash -c \
    'timeout -k 5 "$2" bash -c "$1" >&2; echo "$SLURMD_NODENAME $?"' moescale "$health_check" \
    "$health_check_timeout_s" </dev/null >"$attempt_dir/health" &
  check=$!
  while kill -0 "$check" 2>/dev/null && ((SECONDS < deadline && stopping == 0)); do sleep 0.1; done
  health_ended=''
  if kill -TERM "$check" 2>/dev/null; then
    disown "$check"
  else
    wait "$check"
    health_ended=$?
  fi
}

