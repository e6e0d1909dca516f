#!/bin/bash
#SBATCH --job-name=tiny
#SBATCH --output=/shared/runs/slurm/tiny-0123abcd/logs/%j.log
#SBATCH --chdir=/shared/work
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=00:30:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120

# Written by moescale; identical for identical input.
# Sourced files exist only on the cluster, quoted text holds `$` and commas, traps call.
# shellcheck disable=SC1090,SC1091,SC2016,SC2054,SC2317
set -uo pipefail
job_dir=/shared/runs/slurm/tiny-0123abcd
code_dir=/shared/runs/slurm/code/0123456789ab
secrets=''
python=/shared/venv/bin/python
activate=''
launch=srun
processes_per_node=1
tasks_per_node=1
checkpoint_lead_s=120
continue_by=requeue
max_restarts=50
max_error_restarts=1
max_parallel=0
exclude=''
exclude_failed_nodes=1
health_check=''
health_check_timeout_s=60
setup_timeout_s=600
node_counts=(2)
srun_args=(--cpus-per-task=4)
runtime=()
command=(train a.toml --run-dir /shared/runs/tiny --resume)
export OMP_NUM_THREADS=4
export SRUN_CPUS_PER_TASK=4
of_ranks=(OMP_NUM_THREADS SRUN_CPUS_PER_TASK)
prepare() { :; }

