"""Makes training and test data: verified problems of plane geometry, solid geometry and functions, with their figures.

    python gen_data.py --out data --per_category 40000               # the paper's 120K pairs, on all cores
    python gen_data.py --list                                        # the families
    torchrun --nproc_per_node 8 gen_data.py --out data               # sharded by rank; the same bytes

Four roles, all in problems/: the Question Designer draws parameters and decides which facts stand in the text and
which in the picture, the Plotter draws, the Solver answers exactly and writes the checked solution, the Pair
Constructor joins two of the four levels. Written are stage1.jsonl (text), stage2.jsonl (pairs), stage3.jsonl (single
problems at every level), captions.jsonl, bench.jsonl (held-out problems in six versions), pictures/, manifest.json and
report.html (counts, answers and a gallery, to look at).

Work is cut into shards of a thousand problems, each a function of the seed alone, so neither the number of workers nor
of machines changes a byte; finished shards are kept, and the same command goes on where it stopped.
"""

import argparse
import multiprocessing
import os
import sys

from errors import UserError, run_main
from problems import MODULES, families, gallery, store


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="data", help="folder to write to (default: data)")
    parser.add_argument("--per_category", type=int, default=1000, help="pairs of each category (the paper: 40000)")
    parser.add_argument("--bench_per_family", type=int, default=20, help="held-out problems of each family")
    parser.add_argument("--families", default="", help="only these families, separated by commas (default: all)")
    parser.add_argument("--held_out_families", default="", help="families that only the benchmark may use")
    parser.add_argument("--picture_size", type=int, default=400, help="side of the pictures in pixels")
    parser.add_argument("--small_numbers", action="store_true", help="small numbers, short texts: for the tiny preset")
    parser.add_argument(
        "--copies",
        type=int,
        default=0,
        help="how often one problem (family and parameters) may stand in the training data, each time "
        "drawn anew; more are dropped and counted (default: 1, with --small_numbers 50)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes (default: the CPU cores)")
    parser.add_argument("--list", action="store_true", help="name the families and stop")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.list:
        list_families()
        return
    plan = store.Plan(
        seed=arguments.seed,
        per_category=arguments.per_category,
        bench_per_family=arguments.bench_per_family,
        families=chosen_families(arguments.families),
        held_out=tuple(name for name in arguments.held_out_families.split(",") if name),
        picture_size=arguments.picture_size,
        small=arguments.small_numbers,
        copies=arguments.copies or (50 if arguments.small_numbers else 1),
    )
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = arguments.workers or max(1, len(os.sched_getaffinity(0)) // local_world)
    os.makedirs(arguments.out, exist_ok=True)

    store.claim(plan, arguments.out)
    store.draw_shards(plan, arguments.out, rank, world_size, workers)
    if rank == 0:
        store.wait_for_shards(plan, arguments.out)
        store.merge(plan, arguments.out)
        gallery.write(arguments.out)
        store.summarize(plan, arguments.out)


def list_families() -> None:
    for category in MODULES:
        members = families(category)
        print(f"{category} ({len(members)})")
        for family in members:
            print(f"  {family.__name__:<28} {(family.__doc__ or '').strip().splitlines()[0]}")


def chosen_families(names: str) -> dict[str, tuple[str, ...]]:
    """{category: names of its chosen families}; an unknown name is the user's mistake."""
    everything = {category: tuple(family.__name__ for family in families(category)) for category in MODULES}
    wanted = [name for name in names.split(",") if name]
    unknown = set(wanted) - {name for members in everything.values() for name in members}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise UserError(f"--families: no family is called {names}; `python gen_data.py --list` names them")
    if not wanted:
        return everything
    chosen = {category: tuple(n for n in members if n in wanted) for category, members in everything.items()}
    return {category: members for category, members in chosen.items() if members}


if __name__ == "__main__":
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn")
    run_main(main)
