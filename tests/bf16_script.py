"""Started by torchrun from test_train.py: a training script on the CPU under FSDP2's bf16 policy, as on CUDA.

torchrun --nproc_per_node N tests/bf16_script.py train_stage2 [the script's flags]
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import runtime
from errors import run_main

if __name__ == "__main__":
    runtime.Process.dtype = torch.bfloat16
    script = importlib.import_module(sys.argv.pop(1))
    run_main(script.main)
