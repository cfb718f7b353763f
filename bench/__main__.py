"""The measurements behind the tables: one subcommand per part, each writing CSV, Markdown and a chart into bench/.

    python bench.py kernel      time and memory of the PUMA loss and of cross entropy, beside their peers
    python bench.py products    the linear op in pieces: its matrix products and its row kernel, timed (CUDA)
    python bench.py tune        the Triton kernel's block shapes, timed (CUDA)
    python bench.py compile     the Triton kernels compiled for A100 and H100: registers, spills (no GPU needed)
    python bench.py accuracy    the linear op's gradient error for bfloat16 and float32 logits (no GPU needed)
    python bench.py step        whole training steps on random weights, and the plain way beside them
    python bench.py loader      pairs that data.py prepares per second, beside what the plan's GPUs take (CPU)
    python bench.py data        generated pairs per second, where the time goes, and matplotlib's figures; then pages
    python bench.py pages       questions rendered to pictures per second, and by matplotlib (CPU)

Peers that are not requirements of the project come from requirements-bench.txt; a peer that is not installed, or cannot
run on this device, is named and left out. `python bench.py kernel --help` lists the options.
"""

import argparse
import importlib

from errors import run_main

# name -> module with add_arguments(parser) and run(args)
SUBCOMMANDS = {
    "kernel": "kernels.benchmark",
    "products": "kernels.benchmark_products",
    "tune": "kernels.benchmark_tune",
    "compile": "kernels.compile_report",
    "accuracy": "kernels.benchmark_accuracy",
    "step": "runs.benchmark_step",
    "loader": "runs.benchmark_loader",
    "data": "problems.benchmark",
    "pages": "augment.benchmark",
}


def main() -> None:
    """Hand the remaining options to the subcommand's own parser, and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subcommand", choices=SUBCOMMANDS)
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="the subcommand's own; see `bench.py SUBCOMMAND --help`"
    )
    chosen = parser.parse_args()
    module = importlib.import_module(SUBCOMMANDS[chosen.subcommand])
    subparser = argparse.ArgumentParser(prog=f"bench.py {chosen.subcommand}", description=module.__doc__)
    module.add_arguments(subparser)
    module.run(subparser.parse_args(chosen.options))


if __name__ == "__main__":
    run_main(main, resumes=False)
