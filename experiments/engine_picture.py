"""Draws the README's picture of the data engine: one problem in its six versions, and other families below it.

    python experiments/engine_picture.py --out bench/engine.png
"""

import json
import subprocess
import sys
import textwrap
from argparse import ArgumentParser
from pathlib import Path

import matplotlib
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA = Path("out/engine_picture")
SIX_VERSIONS = "similar_triangles"  # the family of the first row
OTHERS = ("tangent", "intersecting_chords", "square_pyramid", "composite", "rational", "sine_wave")


def bench_rows(data: Path) -> list[dict]:
    """The rows of a small benchmark with one problem of every family (made where it is not there)."""
    if not (data / "manifest.json").exists():
        command = [sys.executable, "gen_data.py", "--out", str(data), "--per_category", "20", "--bench_per_family", "1"]
        subprocess.run(command, check=True)
    return [json.loads(line) for line in (data / "bench.jsonl").read_text(encoding="utf-8").splitlines()]


def show(axes: plt.Axes, row: dict, title: str, caption: str, data: Path) -> None:
    """One picture, its title above and its text below; a text-only row has an empty frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9)
    if row["image_url"]:
        axes.imshow(Image.open(data / row["image_url"]).convert("RGB"))
    else:
        axes.set_box_aspect(1)
    axes.set_xlabel(textwrap.fill(caption, 34), fontsize=7.5)


def main() -> None:
    """Two rows of six."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench/engine.png")
    out = parser.parse_args().out
    rows = bench_rows(DATA)
    first = [row for row in rows if row["family"] == SIX_VERSIONS]
    others = [row for name in OTHERS for row in rows if (row["family"], row["version"]) == (name, "vision-only")]
    figure, grid = plt.subplots(2, 6, figsize=(13, 6.2), layout="constrained")
    for axes, row in zip(grid[0], first, strict=True):
        show(axes, row, row["version"], row["instruction"], DATA)
    for axes, row in zip(grid[1], others, strict=True):
        show(axes, row, row["family"].replace("_", " "), f"answer: {row['answer']}", DATA)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
