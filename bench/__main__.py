"""The measurements behind the tables: one subcommand per part, each writing CSV, Markdown and a chart into bench/; and
the plan of a run, which only prints.

    python -m bench plan        memory, largest pack and hours of the stages, before anything is rented (no GPU needed)
    python -m bench kernel      time and memory of the PUMA loss and of cross entropy, beside their peers
    python -m bench products    the linear op in pieces: its matrix products and its row kernel, timed (CUDA)
    python -m bench tune        the Triton kernel's block shapes, timed (CUDA)
    python -m bench compile     the Triton kernels compiled for A100 and H100: registers, spills (no GPU needed)
    python -m bench accuracy    the linear op's gradient error for bfloat16 and float32 logits (no GPU needed)
    python -m bench step        whole training steps on random weights, and the plain way beside them
    python -m bench loader      pairs that data.py prepares per second, beside what the plan's GPUs take (CPU)
    python -m bench data        generated pairs per second, where the time goes, and matplotlib's figures; then pages
    python -m bench pages       questions rendered to pictures per second, and by matplotlib (CPU)
    python -m bench lines       lines, code lines and tokens of the core, and what each training script can reach

Peers that are not requirements of the project come from requirements-bench.txt; a peer that is not installed, or cannot
run on this device, is named and left out. `python -m bench kernel --help` lists the options.
"""

import argparse
import importlib

from errors import run_main

# name -> module with add_arguments(parser) and run(args)
SUBCOMMANDS = {
    "kernel": "bench.kernels", "products": "bench.products", "tune": "bench.tune", "compile": "bench.compile",
    "accuracy": "bench.accuracy", "step": "bench.step", "loader": "bench.loader", "data": "bench.data",
    "pages": "bench.pages", "lines": "bench.lines"
}


def main() -> None:
    """Hand the remaining options to the subcommand's own parser, and run it."""
    parser = argparse.ArgumentParser("python -m bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subcommand", choices=["plan", *SUBCOMMANDS])
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the subcommand's own: SUBCOMMAND --help lists them")
    chosen = parser.parse_args()
    if chosen.subcommand == "plan":  # which reads a training script's flags, too
        importlib.import_module("bench.plan").main(chosen.options)
        return
    module = importlib.import_module(SUBCOMMANDS[chosen.subcommand])
    subparser = argparse.ArgumentParser(f"python -m bench {chosen.subcommand}", description=module.__doc__)
    module.add_arguments(subparser)
    module.run(subparser.parse_args(chosen.options))


if __name__ == "__main__":
    run_main(main, resumes=False)
