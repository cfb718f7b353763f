#!/usr/bin/env bash
# Does PUMA close the gap? The paper's Table 3 in miniature: five orders of the stages, three seeds, two budgets.
#   experiments/table3.sh                                  tiny, on a CPU; resumes
#   experiments/table3.sh --size small                     75M parameters, meant for one GPU; not run yet
#   experiments/table3.sh --preset puma-qwen2-1.5b         the paper's own sizes, 8 GPUs
#   experiments/table3.sh --sweep alpha                    then: lam, tau, train, teacher, loss, problems
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" experiments/table3.py "$@"
