#!/bin/bash
#SBATCH --job-name=moe-256
#SBATCH --output=/shared/runs/slurm/tiny-0123abcd/logs/%j.log
#SBATCH --chdir=/shared/work
#SBATCH --nodes=16-32
#SBATCH --mincpus=96
#SBATCH --cpus-per-task=12
#SBATCH --gpus-per-node=h100:8
#SBATCH --partition=h100
#SBATCH --account=research
#SBATCH --time=1-00:00:00
#SBATCH --mem=0
#SBATCH --exclude=node007
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@300

# Written by moescale; identical for identical input.
# Sourced files exist only on the cluster, quoted text holds `$` and commas, traps call.
# shellcheck disable=SC1090,SC1091,SC2016,SC2054,SC2317
set -uo pipefail
job_dir=/shared/runs/slurm/tiny-0123abcd
code_dir=/shared/runs/slurm/code/0123456789ab
secrets=/shared/runs/slurm/tiny-0123abcd/secrets
python=python3
activate=''
launch=srun
processes_per_node=8
tasks_per_node=8
checkpoint_lead_s=300
continue_by=requeue
max_restarts=50
max_error_restarts=1
max_parallel=0
exclude=node007
exclude_failed_nodes=1
health_check='nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total --format=csv,noheader | grep -qvx 0 && exit 1 || exit 0'
health_check_timeout_s=60
setup_timeout_s=600
node_counts=(16 32)
srun_args=(--cpus-per-task=12 --gpu-bind=none --distribution=block:block --mpi=pmix --container-image=/images/moescale-26.03.sqsh --container-mounts=/data/store:/data/store,/shared/runs:/shared/runs,/shared/work:/shared/work,/data,/scratch/cache:/cache --container-workdir=/shared/work --no-container-mount-home)
runtime=()
command=(train a.toml --run-dir /shared/runs/tiny --resume)
export NCCL_IB_TIMEOUT=22
export NCCL_IB_RETRY_CNT=13
export NCCL_DEBUG=WARN
export TORCH_FR_BUFFER_SIZE=2000
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export MOESCALE_GPUS=8
export NCCL_SOCKET_IFNAME=bond0
export GLOO_SOCKET_IFNAME=bond0
export OMP_NUM_THREADS=12
export SRUN_CPUS_PER_TASK=12
export HF_HOME=/cache/hf
of_ranks=(NCCL_IB_TIMEOUT NCCL_IB_RETRY_CNT NCCL_DEBUG TORCH_FR_BUFFER_SIZE TORCH_NCCL_DUMP_ON_TIMEOUT MOESCALE_GPUS NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME OMP_NUM_THREADS SRUN_CPUS_PER_TASK HF_HOME)
prepare() { :; }

