#!/bin/bash
#SBATCH --job-name="a 'sweep' of \"$HOME\" \\ `x` #1 %j"
#SBATCH --output="/shared/runs dir/slurm/it's $5 100%%/logs/%A_%a.log"
#SBATCH --chdir=/shared/work
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gres=gpu:a100:4
#SBATCH --constraint=a100&nvlink
#SBATCH --comment="50% of \"all\" we have"
#SBATCH --array=0-19%16
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --mail-type=FAIL
#SBATCH --spread-job

# Written by moescale; identical for identical input.
# Sourced files exist only on the cluster, quoted text holds `$` and commas, traps call.
# shellcheck disable=SC1090,SC1091,SC2016,SC2054,SC2317
set -uo pipefail
job_dir='/shared/runs dir/slurm/it'"'"'s $5 100%'
code_dir=/shared/runs/slurm/code/0123456789ab
secrets=''
python=python
activate='. "$(conda info --base)/etc/profile.d/conda.sh" && conda activate '"'"'/opt/my env'"'"''
launch=torchrun
processes_per_node=4
tasks_per_node=1
checkpoint_lead_s=120
continue_by=submit
max_restarts=50
max_error_restarts=1
max_parallel=16
exclude=''
exclude_failed_nodes=1
health_check=''
health_check_timeout_s=60
setup_timeout_s=600
node_counts=(1)
srun_args=(--cpus-per-task=32 --gpu-bind=none --distribution=block:block)
runtime=(apptainer exec --nv --bind '/shared/runs dir,/shared/work,/shared/runs/slurm/code/0123456789ab' --pwd /shared/work '/images/moe scale.sif')
command=()
export FI_PROVIDER=efa
export FI_EFA_USE_DEVICE_RDMA=1
export FI_EFA_FORK_SAFE=1
export NCCL_DEBUG=WARN
export TORCH_FR_BUFFER_SIZE=2000
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export MOESCALE_GPUS=4
export OMP_NUM_THREADS=8
export SRUN_CPUS_PER_TASK=32
of_ranks=(FI_PROVIDER FI_EFA_USE_DEVICE_RDMA FI_EFA_FORK_SAFE NCCL_DEBUG TORCH_FR_BUFFER_SIZE TORCH_NCCL_DUMP_ON_TIMEOUT MOESCALE_GPUS OMP_NUM_THREADS SRUN_CPUS_PER_TASK)
prepare() {
  set +u
  define_module
  prepare_by 'module load cuda/12.8' || return
  prepare_by 'module load gcc' || return
  prepare_by 'ulimit -n 65536' || return
  set -u
}

