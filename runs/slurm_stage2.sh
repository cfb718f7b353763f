#!/usr/bin/env bash
# Stage 2 on 4 nodes of 8 GPUs under Slurm; stages 1 and 3: STAGE=3, or STAGE=1 PRESET=puma-qwen2-7b.
#
#   sbatch runs/slurm_stage2.sh                                  again and again until it is done: it goes on by itself
#   sbatch --nodes 1 runs/slurm_stage2.sh --global_batch 512     further flags go to the script
#   touch out/stage2/STOP                                        ends it cleanly from outside
#   sbatch runs/slurm_stage2.sh --resume out/stage2/step_00000400    goes back once; requeued, it goes on from there
#
# Ten minutes before its time is up Slurm signals this script (not the processes: torchrun would die of SIGUSR1). It
# touches OUT_DIR/STOP; every rank finishes its step, the job saves, leaves OUT_DIR/STOPPED and ends; then the job puts
# itself back into the queue. A node that fails requeues the job too; --resume auto, the default, finds the newest
# checkpoint. OUT_DIR, the data and this folder must lie on a file system that all nodes see.
#
# Without Slurm, the same on each of 4 nodes (HEAD: the name of one of them; start it there too):
#   export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 PYTORCH_ALLOC_CONF=expandable_segments:True
#   torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_id stage2 --rdzv_endpoint HEAD:29500 \
#       --max_restarts 3 train_stage2.py --activation_checkpointing
#SBATCH --job-name=puma-stage2
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

STAGE=${STAGE:-2}
PRESET=${PRESET:-}  # later stages start from a folder, which says what it is
OUT_DIR=${OUT_DIR:-out/stage$STAGE}
PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p "$OUT_DIR"
rm -f "$OUT_DIR/STOP" "$OUT_DIR/STOPPED"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else a restarted rank may read the addresses of dead ones (torch 2.13)
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}  # micro-batches differ in length
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

trap 'echo "the time is nearly up: asking for a checkpoint"; touch "$OUT_DIR/STOP"' USR1

srun --kill-on-bad-exit=1 "$PYTHON" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node 8 --max_restarts 3 \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$HEAD:29500" \
    "train_stage$STAGE.py" ${PRESET:+--preset "$PRESET"} --out_dir "$OUT_DIR" --activation_checkpointing "$@" &
JOB=$!
wait $JOB
CODE=$?
while kill -0 $JOB 2>/dev/null; do  # the signal ended `wait`, not the job
    wait $JOB
    CODE=$?
done

if [ -e "$OUT_DIR/STOPPED" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $CODE
