"""The cost of the three stages on 8, 32 and 256 GPUs, by the plan of memory.py. Needs no GPU; about 2 minutes.

python runs/cost_table.py                              8, 32 and 256 x A100-80GB
python runs/cost_table.py --gpu h100-80gb --mfu 0.45   with a rate that was measured
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import memory
from errors import run_main


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="a100-80gb", help=", ".join(memory.GPUS))
    parser.add_argument("--mfu", type=float, help=f"a measured rate instead of the assumed {memory.ASSUMED_MFU}")
    parser.add_argument("--pack_tokens", type=int, default=16384)
    parser.add_argument("presets", nargs="*", help="all but tiny when none is named")
    arguments = parser.parse_args()
    memory.print_costs(
        [8, 32, 256], gpu=arguments.gpu, pack_tokens=arguments.pack_tokens, names=arguments.presets, mfu=arguments.mfu
    )


if __name__ == "__main__":
    run_main(main, resumes=False)
