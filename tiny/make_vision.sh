#!/usr/bin/env bash
# Makes tiny/vision.safetensors again, as tiny/README.md describes it: about half an hour on two idle cores with bf16.
# Interrupted and started again, it goes on where it stopped (out/tiny_vision/checkpoint.pt).
set -euo pipefail
cd "$(dirname "$0")/.."
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "${PYTHON:-.venv/bin/python}" tiny/make_vision.py --steps 1900 "$@"
