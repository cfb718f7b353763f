#!/usr/bin/env bash
# A long soak on a CPU: 2,000 steps of stage 2 with checkpoints, a worker process and two ranks, whose memory must stay
# flat: the last 200 steps may hold 3 % more than steps 300 to 500. About 15 minutes on 2 idle cores.
#
#   runs/soak.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-out/soak}
PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1
rm -rf "$OUT"; mkdir -p "$OUT/data"
PYTHONPATH=tests $PYTHON - "$OUT/data" <<'PAIRS'
import sys
from pathlib import Path
from test_faults import write_pairs
write_pairs(Path(sys.argv[1]), 300)
PAIRS
$PYTHON -m torch.distributed.run --standalone --nproc_per_node "${RANKS:-2}" train_stage2.py --preset tiny --model "" \
    --random_weights --data "$OUT/data/pairs.jsonl" --out_dir "$OUT/run" --global_batch 4 --pack_tokens 768 \
    --num_workers 1 --save_every 100 --max_steps 2000 --progress none > "$OUT/log" 2>&1 || { tail -n 30 "$OUT/log"; exit 1; }
$PYTHON - "$OUT/run/log.jsonl" <<'CHECK'
import json, statistics, sys
with open(sys.argv[1]) as file:
    memory = [row["memory_gib"] for row in map(json.loads, file)]
early, late = statistics.median(memory[300:500]), statistics.median(memory[-200:])
print(f"{len(memory)} steps; GiB of rank 0 in steps 300-500: {early:.3f}, in the last 200: {late:.3f} ({late / early - 1:+.2%})")
sys.exit(len(memory) != 2000 or late > 1.03 * early)
CHECK
