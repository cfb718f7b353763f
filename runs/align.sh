#!/usr/bin/env bash
# Between stages 1 and 2: a projector that starts from random weights learns to name what an image shows, on captions.
# Stage 3's script does it; text rows in turn keep what the language model knows when it trains too (tiny's case).
#   runs/align.sh [CAPTIONS] [flags]
#   GPUS=8 runs/align.sh data/captions.jsonl --activation_checkpointing
set -euo pipefail
cd "$(dirname "$0")/.."
captions=${1:-data/captions.jsonl}
shift $(($# < 1 ? $# : 1))
torchrun --nproc_per_node "${GPUS:-8}" train_stage3.py --model out/stage1 --data "$captions" \
    --train projector --learning_rate 1e-3 --out_dir out/aligned "$@"
