"""Makes training and test data: verified problems of plane geometry, solid geometry and functions, with their figures.

    python gen_data.py --out_dir data --per_category 40000               # the paper's 120K pairs, on all cores
    python gen_data.py --list                                        # the families
    torchrun --nproc_per_node 8 gen_data.py --out_dir data               # sharded by rank; the same bytes
    python gen_data.py --out_dir data --explain http://localhost:8000/v1 --explain_model NAME

Four roles, all in problems/: the Question Designer draws parameters and decides which facts stand in the text and
which in the picture, the Plotter draws, the Solver answers exactly and writes the checked solution, the Pair
Constructor joins two of the four levels. Written are stage1.jsonl (text), stage2.jsonl (pairs), stage3.jsonl (single
problems at every level), captions.jsonl, bench.jsonl (held-out problems in six versions), pictures/, manifest.json and
report.html (counts, answers and a gallery, to look at).

Work is cut into shards of a thousand problems, each a function of the seed alone, so neither the number of workers nor
of machines changes a byte; finished shards are kept, and the same command goes on where it stopped.

--explain asks an OpenAI-compatible server to explain every training problem, keeps what arrives at the program's answer
and leaves the program's solution elsewhere. Its replies are cached: the same command asks nothing twice.
"""

import argparse
import os

from common import shards
from common.files import remove_leftovers
from common.llm import Client
from errors import UserError
from problems import gallery, store
from problems.explain import Explainer
from problems.families import MODULES, families


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line; argparse ends the program where they are malformed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", default="data", help="folder to write to (default: data)")
    parser.add_argument("--per_category", type=int, default=1000, help="pairs of each category (the paper: 40000)")
    parser.add_argument("--bench_per_family", type=int, default=20, help="held-out problems of each family")
    parser.add_argument("--families", default="", help="only these families, separated by commas (default: all)")
    parser.add_argument("--held_out_families", default="", help="families that only the benchmark may use")
    parser.add_argument("--picture_size", type=int, default=400, help="side of the pictures in pixels")
    parser.add_argument("--small_numbers", action="store_true", help="small numbers, short texts: for the tiny preset")
    parser.add_argument("--copies", type=int, default=0,
                        help="how often one problem (family and parameters) may stand in the training data, each time "
                        "drawn anew; more are dropped and counted (default: 1, with --small_numbers 50)")
    parser.add_argument("--bench_copies", type=int, default=1, help="how often one held-out problem may stand in "
                        "bench.jsonl, each time drawn anew (default: 1)")
    parser.add_argument("--explain", default="", metavar="URL", help="OpenAI-compatible server that explains solutions")
    parser.add_argument("--explain_model", default="", metavar="NAME", help="its model")
    parser.add_argument("--llm_cache", default="", help="folder of the server's replies (default: OUT/llm_cache)")
    parser.add_argument("--llm_concurrency", type=int, default=32, help="calls at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes (default: the CPU cores)")
    parser.add_argument("--list", action="store_true", help="name the families and stop")
    return parser.parse_args()


def main() -> None:
    """Draw this process's shards; the first process then joins all shards into the data set.

    Raises:
        UserError: the flags are wrong, the folder holds other data, the disk is full, or the server does not answer.
    """
    arguments = parse_arguments()
    if arguments.list:
        list_families()
        return
    check_flags(arguments)
    plan = store.Plan(
        seed=arguments.seed, per_category=arguments.per_category, bench_per_family=arguments.bench_per_family,
        families=chosen_families(family_names("--families", arguments.families)),
        held_out=tuple(family_names("--held_out_families", arguments.held_out_families)),
        picture_size=arguments.picture_size, small=arguments.small_numbers,
        copies=arguments.copies or (50 if arguments.small_numbers else 1), bench_copies=arguments.bench_copies
    )
    rank, world_size, workers = shards.ranks(arguments.workers)
    client = explaining_client(arguments) if arguments.explain and rank == 0 else None
    with shards.told_in_one_line(arguments.out_dir):
        store.claim(plan, arguments.out_dir)
        store.draw_shards(plan, arguments.out_dir, rank, world_size, workers)
        if rank == 0:
            shards.wait_for(store.shard_path(arguments.out_dir, shard) for shard in store.all_shards(plan))
            remove_leftovers(arguments.out_dir, "shards")
            publish(plan, arguments.out_dir, client)


def publish(plan: store.Plan, out: str, client: Client | None) -> None:
    """Join the finished shards, explained if there is a client, write report.html and print what was made."""
    explainer = None
    if client is not None:
        explainer = Explainer(client)
    store.merge(plan, out, explainer)
    gallery.write(out)
    store.summarize(plan, out)
    if client is not None:
        print(f"this run asked {client.summary()}")


def explaining_client(arguments: argparse.Namespace) -> Client:
    """The client of --explain, once its server has answered: better now than after hours of drawing."""
    if not arguments.explain_model:
        raise UserError("--explain also needs --explain_model, the name the server knows its model by")
    cache = arguments.llm_cache or os.path.join(arguments.out_dir, "llm_cache")
    client = Client(arguments.explain, arguments.explain_model, cache=cache, concurrency=arguments.llm_concurrency)
    client.check()
    return client


def list_families() -> None:
    """Print every family with the first line of its docstring."""
    for category in MODULES:
        members = families(category)
        print(f"{category} ({len(members)})")
        for family in members:
            print(f"  {family.__name__:<28} {(family.__doc__ or '').strip().splitlines()[0]}")


def check_flags(arguments: argparse.Namespace) -> None:
    """Numbers that no data set can have are the user's mistake."""
    bounds = {"per_category": (1, None), "bench_per_family": (0, None), "copies": (0, None),
              "bench_copies": (1, None), "llm_concurrency": (1, None), "picture_size": (64, 2048)}
    for name, (low, high) in bounds.items():
        value = getattr(arguments, name)
        if value < low or high is not None and value > high:
            raise UserError(f"--{name} {value}: must be {low} " + ("or more" if high is None else f"to {high}"))
    if arguments.explain_model and not arguments.explain:
        raise UserError("--explain_model needs --explain URL, the server that explains")


def family_names(flag: str, names: str) -> list[str]:
    """The families that a flag names; an unknown one is the user's mistake."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - {family.__name__ for category in MODULES for family in families(category)})
    if unknown:
        raise UserError(f"{flag}: no family is called {', '.join(unknown)}; `python gen_data.py --list` names them")
    return wanted


def chosen_families(wanted: list[str]) -> dict[str, tuple[str, ...]]:
    """{category: names of its chosen families}; all of them where none is named."""
    everything = {category: tuple(family.__name__ for family in families(category)) for category in MODULES}
    if not wanted:
        return everything
    chosen = {category: tuple(n for n in members if n in wanted) for category, members in everything.items()}
    return {category: members for category, members in chosen.items() if members}


if __name__ == "__main__":
    shards.run(main)
