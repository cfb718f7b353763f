#!/usr/bin/env bash
# Between stages 1 and 2: a projector that starts from random weights learns to name what a picture shows, on captions.
# Stage 3's script does it; text rows in turn keep what the language model knows when it trains too (tiny's case).
#   runs/align.sh PRESET CAPTIONS [flags]
#   GPUS=8 runs/align.sh puma-qwen2-7b data/captions.jsonl --activation_checkpointing
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-puma-qwen2-1.5b}
captions=${2:-data/captions.jsonl}
shift $(($# < 2 ? $# : 2))
torchrun --nproc_per_node "${GPUS:-8}" train_stage3.py --preset "$preset" --model out/stage1 --data "$captions" \
    --train projector --learning_rate 1e-3 --out_dir out/aligned "$@"
