"""Rendered pages per second: questions as the public sets write them, laid out, drawn, encoded as PNG and written.

The same questions (without tables and grids, which it cannot set) are also drawn with a matplotlib figure, as scripts
that render text usually do. Every process starts with empty caches, as augment_data.py's workers do.
"""

import argparse
import io
import os
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw

from augment import samples
from augment.page import draw, lay_out, random_style, split_choices, split_math
from augment.typeset import rewrite_latex
from bench.tables import markdown_table, write_csv
from files import write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench pages`."""
    parser.add_argument("--pages", type=int, default=2000, help="pages of each kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out_dir", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Measure pages per second and write the CSV and the table."""
    rows = measure(args.pages, args.workers)
    args.out_dir.mkdir(exist_ok=True)
    write_csv(args.out_dir / "pages.csv", rows)
    (args.out_dir / "pages.md").write_text(markdown_table(rows))
    print(markdown_table(rows))


def measure(num_pages: int, workers: int) -> list[dict[str, object]]:
    """One row per kind of page; pages/s is of all processes together, by the clock."""
    kinds = {"text": page_of_text, "text and a picture": page_with_picture, "text, by matplotlib": page_by_matplotlib}
    rows = []
    for kind, render in kinds.items():
        count = num_pages if render is not page_by_matplotlib else max(workers, num_pages // 20)
        shares = [range(worker, count, workers) for worker in range(workers)]
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(workers) as pool:
            list(pool.map(abs, range(workers)))  # the processes are up
            start = time.perf_counter()
            results = list(pool.map(_render_all, [render] * workers, shares, [folder] * workers))
            seconds = time.perf_counter() - start
        sizes, cpu_seconds = (sum(column) for column in zip(*results, strict=True))
        rows.append({"page": kind, "pages": count, "processes": workers, "pages/s": f"{count / seconds:.0f}",
                     "CPU ms per page": f"{1000 * cpu_seconds / count:.1f}",
                     "kB per page": f"{sizes / count / 1000:.0f}"})
    return rows


def _render_all(render: Callable[[int], bytes], seeds: range, folder: str) -> tuple[int, float]:
    """Bytes written and CPU seconds used: the latter also hold on a machine that is busy with other work."""
    total, start = 0, time.process_time()
    for seed in seeds:
        data = render(seed)
        write_atomically(os.path.join(folder, f"{seed}.png"), data, durable=False)
        total += len(data)
    return total, time.process_time() - start


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def page_of_text(seed: int) -> bytes:
    """A question typeset alone, as PNG bytes."""
    rng = random.Random(seed)
    style = random_style(rng)
    return _png(draw(lay_out(samples.question(rng), style), style))


def page_with_picture(seed: int) -> bytes:
    """A question typeset with a 480 x 360 picture, as PNG bytes."""
    rng = random.Random(seed)
    style = random_style(rng)
    picture = Image.new("RGB", (480, 360), "white")
    corners = [(rng.randrange(480), rng.randrange(360)) for _ in range(4)]
    ImageDraw.Draw(picture).polygon(corners, outline="black", width=2)
    return _png(draw(lay_out(samples.question(rng), style, picture.size), style, picture))


def page_by_matplotlib(seed: int) -> bytes:
    """The question as one text of a 5 x 5 inch figure at 100 dpi."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = random.Random(seed)
    style = random_style(rng)
    stem, choices = split_choices(samples.question(rng))
    pieces = []
    for kind, content in split_math("\n".join([stem, *(f"{label} {text}" for label, text in choices)])):
        if kind == "text":
            pieces.append(content.replace("$", r"\$"))
        elif "\\begin" not in content:
            pieces.append(f"${rewrite_latex(content)}$")
    figure = Figure(figsize=(5, 5), dpi=100)
    FigureCanvasAgg(figure)
    figure.text(0.05, 0.95, "".join(pieces), fontsize=style.size * 0.5, va="top", wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
