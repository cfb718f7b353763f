"""Rendered pages per second: questions as the public sets write them, laid out, drawn and encoded as PNG.

The same questions (without tables and grids, which it cannot set) are also drawn with a matplotlib figure, as scripts
that render text usually do. Every process starts with empty caches, as augment_data.py's workers do.
"""

import functools
import io
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from PIL import Image, ImageDraw

from augment import samples
from augment.page import draw, lay_out, random_style, split_choices, split_math
from augment.typeset import rewrite_latex
from bench.tables import argument_parser, facts, write_table
from common.files import num_cores
from errors import UserError, run_main


def page_of_text(seed: int, picture: Image.Image | None = None) -> bytes:
    """A question typeset alone, or with a picture, as PNG bytes."""
    rng = random.Random(seed)
    style = random_style(rng)
    layout = lay_out(samples.question(rng), style, picture and picture.size)
    buffer = io.BytesIO()
    draw(layout, style, picture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def page_with_picture(seed: int) -> bytes:
    """A question typeset with a 480 x 360 picture, as PNG bytes."""
    rng = random.Random(seed)
    picture = Image.new("RGB", (480, 360), "white")
    corners = [(rng.randrange(480), rng.randrange(360)) for _ in range(4)]
    ImageDraw.Draw(picture).polygon(corners, outline="black", width=2)
    return page_of_text(seed, picture)


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


KINDS = {"text": page_of_text, "text and a picture": page_with_picture, "text, by matplotlib": page_by_matplotlib}


def measure(kind: str, count: int, workers: int) -> dict[str, object]:
    """The row of one kind of page; pages/s is of all processes together, by the clock."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(abs, range(workers)))  # the processes are up
        start = time.perf_counter()
        pages = list(pool.map(functools.partial(_rendered, KINDS[kind]), range(count), chunksize=16))
        seconds = time.perf_counter() - start
    sizes, cpu_seconds = (sum(column) for column in zip(*pages, strict=True))
    return {"page": kind, "pages": count, "processes": workers, "pages/s": f"{count / seconds:.0f}",
            "CPU ms per page": f"{1000 * cpu_seconds / count:.1f}", "kB per page": f"{sizes / count / 1000:.0f}"}


def _rendered(render: Callable[[int], bytes], seed: int) -> tuple[int, float]:
    """Bytes of a page and the CPU seconds it took: the latter also hold on a machine that is busy with other work."""
    start = time.process_time()
    return len(render(seed)), time.process_time() - start


def main() -> None:
    """Measure pages per second and write pages.csv and pages.md; by matplotlib a twentieth as many."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pages", type=int, default=2000, help="pages of each kind")
    parser.add_argument("--workers", type=int, default=num_cores())
    args = parser.parse_args()
    if args.pages < 1 or args.workers < 1:
        raise UserError(f"--pages {args.pages} --workers {args.workers}: at least 1 of each")
    fewer = max(args.workers, args.pages // 20)
    rows = [measure(kind, fewer if "matplotlib" in kind else args.pages, args.workers) for kind in KINDS]
    measured = facts("cpu", "pillow", "numpy", "matplotlib")
    print(write_table(args.out_dir / "pages", "Questions rendered to pictures", measured, rows))


if __name__ == "__main__":
    run_main(main, resumes=False)
