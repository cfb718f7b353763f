"""The rows of Table 3 in miniature: a fixed, small set of multimodal problems apart from many that are only text.

    python -m experiments.table3_data FOLDER N --data SPEC1 SPEC2 SPEC3    FOLDER: what gen_data.py wrote

Half of the problems, drawn at random, only ever appear as text and captions (text.jsonl, text-captions.jsonl). The
first N of the other half make both the pairs of stage 2 (pairs-N.jsonl; pairs-N-text-only.jsonl, whose strong side is
always the text-only form) and the rows of stage 3 (singles-N.jsonl): a smaller set is part of a larger one. Files that
are there stay. tokens.json: what a row of each stage costs, of the first N that is asked for.
"""

import json
import random
from argparse import ArgumentParser
from pathlib import Path

from common.files import write_atomically
from data import ChatFormat, open_rows
from errors import UserError, run_main
from evaluation.store import read_lines, write_rows
from model import count_image_tokens, find_preset, load_processor, longest_row
from tiny.make_start import write_arithmetic


def split(folder: Path, count: int) -> None:
    """Write the files; UserError where the half that is shown in pictures holds fewer than `count` problems."""
    source = {name: read_lines(folder / f"{name}.jsonl") for name in ("stage1", "stage2", "stage3", "captions")}
    text = {row["id"]: row["instruction"] for row in source["stage1"]}
    names = list(text)
    random.Random("table 3").shuffle(names)
    half = len(names) // 2
    if count > half:
        raise UserError(f"{folder} holds {half} of {count} multimodal problems; raise PER_CATEGORY and set another OUT")
    only_text, shown = set(names[half:]), set(names[:count])

    def rows(name: str, problems: set[str]) -> list[dict]:
        return [row for row in source[name] if row["id"].split("/")[0] in problems]

    pairs, as_text = rows("stage2", shown), {"image_url": "", "level": "text-only"}
    files = {
        "text": rows("stage1", only_text),
        "text-captions": rows("captions", only_text),
        f"pairs-{count}": pairs,
        f"pairs-{count}-text-only": [row | as_text | {"instruction": text[row["id"]]} for row in pairs],
        f"singles-{count}": rows("stage3", shown),
    }
    for name, found in files.items():
        if not (folder / f"{name}.jsonl").exists():
            write_rows(folder / f"{name}.jsonl", found)
    if not (folder / "arithmetic.jsonl").exists():
        write_arithmetic(folder / "arithmetic.jsonl")


def tokens_a_row(spec: str, pairs: bool) -> float:
    """Mean tokens of a row of --data SPEC. A token that the teacher reads counts a third, for it only passes forward:
    so equal tokens are equal computation."""
    config = find_preset("tiny").config
    chat_format = ChatFormat(load_processor("tiny"), count_image_tokens(config))
    rows = open_rows(spec, pairs=pairs, chat_format=chat_format, max_length=longest_row(config))
    own, teacher = rows.entries["tokens"][rows.epoch_order(0, 0)].mean(axis=0).tolist()
    return round(own + teacher / 3, 2)


def main() -> None:
    """Split the problems, then measure what their rows cost."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("problems", type=int)
    parser.add_argument("--data", nargs=3, metavar="SPEC", required=True, help="what stages 1, 2 and 3 train on")
    arguments = parser.parse_args()
    split(arguments.folder, arguments.problems)
    if not (arguments.folder / "tokens.json").exists():
        tokens = {stage: tokens_a_row(spec, stage == "2") for stage, spec in zip("123", arguments.data, strict=True)}
        write_atomically(arguments.folder / "tokens.json", json.dumps(tokens) + "\n")


if __name__ == "__main__":
    run_main(main)
