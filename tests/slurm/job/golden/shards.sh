#!/bin/bash
#SBATCH --job-name=data-build
#SBATCH --output=/shared/runs/slurm/tiny-0123abcd/logs/%A_%a.log
#SBATCH --chdir=/shared/work
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --partition=cpu
#SBATCH --qos=low
#SBATCH --reservation=maintenance
#SBATCH --dependency=afterok:1234
#SBATCH --mem=480G
#SBATCH --exclusive
#SBATCH --array=0-7
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120

# Written by moescale; identical for identical input.
# Sourced files exist only on the cluster, quoted text holds `$` and commas, traps call.
# shellcheck disable=SC1090,SC1091,SC2016,SC2054,SC2317
set -uo pipefail
job_dir=/shared/runs/slurm/tiny-0123abcd
code_dir=/shared/runs/slurm/code/0123456789ab
secrets=''
python=python
activate='. /shared/moescale/.venv/bin/activate'
launch=srun
processes_per_node=1
tasks_per_node=1
checkpoint_lead_s=120
continue_by=none
max_restarts=50
max_error_restarts=1
max_parallel=0
exclude=''
exclude_failed_nodes=1
health_check=''
health_check_timeout_s=60
setup_timeout_s=600
node_counts=(1)
srun_args=(--cpus-per-task=32 --distribution=block:block)
runtime=()
command=()
export NCCL_IB_DISABLE=1
export NCCL_DEBUG=WARN
export TORCH_FR_BUFFER_SIZE=2000
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export MOESCALE_GPUS=4
export NCCL_SOCKET_IFNAME=eno1
export GLOO_SOCKET_IFNAME=eno1
export OMP_NUM_THREADS=32
export SRUN_CPUS_PER_TASK=32
of_ranks=(NCCL_IB_DISABLE NCCL_DEBUG TORCH_FR_BUFFER_SIZE TORCH_NCCL_DUMP_ON_TIMEOUT MOESCALE_GPUS NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME OMP_NUM_THREADS SRUN_CPUS_PER_TASK)
prepare() { :; }

