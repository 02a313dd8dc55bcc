#!/usr/bin/env bash
# A Ray cluster within one SLURM job, and a pretraining run on it: a head on the first node beside a
# worker machine on every node. Submit in the checkout:
#   sbatch ray_configs/clusters/slurm.sh --data /shared/store --out /shared/runs/mine
#SBATCH --job-name=ethoray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
# Two minutes before the time is up, SIGTERM: the run writes a checkpoint and ends (--resume).
#SBATCH --open-mode=append
set -euo pipefail

. .venv/bin/activate
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
gpus=4 port=$((20000 + SLURM_JOB_ID % 10000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Ray ends with this script: SLURM ends the job's steps, and nobody else's Ray is touched.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --num-cpus=0 --num-gpus=0 --port="$port" --include-dashboard=false \
  --disable-usage-stats --block &
srun --overlap --ntasks-per-node=1 bash -c "sleep 10; exec ray start --address='$head:$port' \
  --num-cpus=$SLURM_CPUS_PER_TASK --num-gpus=$gpus --disable-usage-stats --block" &

export RAY_ADDRESS="$head:$port"
wanted=$((SLURM_NNODES + 1))
until python -c "import ray; ray.init(log_to_driver=False); exit(len(ray.nodes()) < $wanted)" \
  2> /dev/null; do sleep 5; done

python pretrain/run.py --scale multi_node --set workers=$((SLURM_NNODES * gpus)) "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
status=0
wait "$run" || status=$?
trap - TERM
kill -0 "$run" 2> /dev/null && { wait "$run" || status=$?; }  # it was SIGTERM that woke us
exit "$status"
