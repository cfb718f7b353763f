"""Public problems → training data: cleaned, rephrased, pictures transformed, text rendered to pictures, paired.

    python augment_data.py --stage 2 --data qa_tuning.json --image_root images --expand 3.875 --out_dir data/geo
    python augment_data.py --stage 3 --data data/geo/stage2.jsonl --out_dir data/geo3       # each side a row of its own
    python augment_data.py --stage 1 --data numina.parquet:50k,metamath.json --avoid testmini.json --out_dir data/text
    torchrun --nproc_per_node 8 augment_data.py ...               # sharded by rank over a shared folder; same bytes

Stage 1 writes text rows, stage 2 pairs (strong: the problem as it is; weak: the same on a page picture; equal
solutions), stage 3 single rows. What is read stands in augment/README.md. --expand 3.875 makes of 80K problems 310K:
every problem as it is, and on average 2.875 variants, each rephrased by another method, its picture transformed. Rows
that show an answer and no work are left out, or explained by a server (--explain) whose answer must agree. --avoid
drops what stands in an evaluation file. What is dropped is counted by reason, in manifest.json; report.html shows
every method's results.

Rows are worked off in blocks, each a function of the seed and the rows alone: neither the number of workers nor of
machines changes a byte, finished blocks are kept, and the same command goes on where it stopped.
"""

import argparse

from augment import blocks, recipe, report
from augment.pictures import TRANSFORMS
from augment.rephrase import METHODS
from common import shards
from common.files import remove_leftovers


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line; argparse ends the program where they are malformed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", type=int, required=True, choices=(1, 2, 3), help="which stage's training file to write")
    add("--data", required=True, help='files, with counts or fractions: "a.jsonl,b.parquet:0.3,c.json.gz:100k"')
    add("--out_dir", required=True, help="folder to write to")
    add("--image_root", default="", help="folder of the pictures (default: each file's own)")
    add("--select", default="", metavar="KEY=REGEX", help="only rows whose KEY matches, e.g. 'image=^geo3k/'")
    add("--expand", type=float, default=1.0, help="rows to make of one problem, on average (1: no variants)")
    add("--methods", default=",".join(METHODS), help="ways to rephrase (default: all)")
    add("--transforms", default=",".join(TRANSFORMS), help="changes of pictures (default: all)")
    add("--transform_pages", type=float, default=0.2, help="share of rendered pages that are transformed too")
    add("--font", default="", help="a font file for characters that the shipped fonts lack (Chinese, ...)")
    add("--resolution", type=int, default=384, help="side of the square at which the model sees a picture")
    add("--min_text", type=float, default=9.0, help="smallest text of a page at that resolution, pixels per em")
    add("--answer_only", choices=("drop", "keep"), default="drop", help="rows that show an answer and no work")
    add("--min_reasoning", type=int, default=8, help="words of work that make a response more than an answer")
    add("--avoid", nargs="*", default=[], metavar="FILE", help="evaluation files; rows found in them are dropped")
    add("--avoid_image_root", default="", help="folder of their pictures (default: each file's own)")
    add("--rephrase", default="", metavar="URL", help="OpenAI-compatible server that rewords questions")
    add("--rephrase_model", default="", metavar="NAME", help="its model")
    add("--explain", default="", metavar="URL", help="OpenAI-compatible server that explains answer-only rows")
    add("--explain_model", default="", metavar="NAME", help="its model")
    add("--drop_figure_text", action="store_true", help="drop text that speaks of a figure that is not there")
    add("--llm_cache", default="", help="folder of the servers' replies (default: OUT/llm_cache)")
    add("--llm_concurrency", type=int, default=32, help="calls at a time, all workers together")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=0, help="processes (default: the CPU cores)")
    return parser.parse_args()


def main() -> None:
    """Work off this process's blocks; the first process then joins all blocks into one training file.

    Raises:
        UserError: the flags or a source are wrong, the folder holds other data, the disk is full, or a server fails.
    """
    arguments = parse_arguments()
    plan = recipe.make_plan(arguments)
    out = arguments.out_dir
    rank, world_size, workers = shards.ranks(arguments.workers)
    with shards.told_in_one_line(out):
        blocks.claim(plan, out)
        blocks.work(plan, out, rank, world_size, workers)
        if rank == 0:
            shards.wait_for(blocks.parts(out))
            remove_leftovers(out, "parts")
            manifest = blocks.merge(plan, out)
            report.write(plan, out, manifest)
            blocks.summarize(plan, out, manifest)


if __name__ == "__main__":
    shards.run(main)
