"""Draws the picture of the data engine: one problem in its six versions, and other families below it.

    python -m experiments.engine_picture        writes bench/engine.png (--out FILE)
"""

import subprocess
import sys
import textwrap
from argparse import ArgumentParser
from pathlib import Path

import matplotlib
from PIL import Image

from evaluation.store import read_lines

matplotlib.use("Agg")
from matplotlib import pyplot

DATA = Path("out/engine_picture")  # a small benchmark with one problem of every family
SIX_VERSIONS = "similar_triangles"  # the family of the first row
OTHERS = ("tangent", "intersecting_chords", "square_pyramid", "composite", "rational", "sine_wave")


def show(axes: pyplot.Axes, row: dict, title: str, caption: str) -> None:
    """One picture, its title above and its text below; a text-only row has an empty frame."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    if row["image_url"]:
        axes.imshow(Image.open(DATA / row["image_url"]).convert("RGB"))
    else:
        axes.set_box_aspect(1)
    axes.set_xlabel(textwrap.fill(caption, 34), fontsize=7.5)


def main() -> None:
    """Two rows of six."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench/engine.png")
    out = parser.parse_args().out
    if not (DATA / "manifest.json").exists():
        flags = ["--out_dir", str(DATA), "--per_category", "20", "--bench_per_family", "1"]
        subprocess.run([sys.executable, "gen_data.py", *flags], check=True)
    rows = read_lines(DATA / "bench.jsonl")
    six = [row for row in rows if row["family"] == SIX_VERSIONS]
    others = [row for name in OTHERS for row in rows if (row["family"], row["version"]) == (name, "vision-only")]
    figure, grid = pyplot.subplots(2, 6, figsize=(13, 6.2), layout="constrained")
    for axes, row in zip(grid[0], six, strict=True):
        show(axes, row, row["version"], row["instruction"])
    for axes, row in zip(grid[1], others, strict=True):
        show(axes, row, row["family"].replace("_", " "), f"answer: {row['answer']}")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
