"""Pairs per second of the data engine with every gate on, and its figures beside matplotlib's.

The whole command (plan, drawing, gates, files, merging, report.html) by the clock and by the CPU; then figures by the
Plotter (searching places for labels, trying again, encoding PNG), and a sample of the very same figures by matplotlib
at the same pixel size, as plotting scripts do: pyplot, one call for each line and each text. It is told the places that
the Plotter has found, so the search for them costs it nothing. CPU times also hold on a busy machine; those by the
clock do not.
"""

import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from unittest import mock

from bench.tables import argument_parser, facts, write_table
from common.files import num_cores
from errors import UserError, run_main
from problems import pairs, store
from problems.families import MODULES, families
from problems.figure import Layout, NoLayout
from problems.problem import Reject

DPI = 100
GLYPH_SHARE = 0.73  # height of a capital or digit, as a share of the type's size


def make_pairs(folder: str | Path, number: int, *flags: str) -> Path:
    """Pairs of all families by the data engine in `folder`; the path of their file. Raises UserError."""
    command = [sys.executable, "gen_data.py", "--out_dir", str(folder), "--per_category", str(math.ceil(number / 3))]
    done = subprocess.run([*command, "--bench_per_family", "0", *flags], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"gen_data.py: {done.stderr.strip().splitlines()[-1]}")
    return Path(folder, "stage2.jsonl")


def time_command(number: int, workers: int) -> dict[str, object]:
    """What gen_data.py makes, by the clock and by the CPU of all its processes."""
    with tempfile.TemporaryDirectory() as out:
        cpu, start = _children_seconds(), time.perf_counter()
        make_pairs(out, number, "--workers", str(workers))
        seconds, cpu = time.perf_counter() - start, _children_seconds() - cpu
        made = json.loads(Path(out, "manifest.json").read_text())["files"]["stage2"]["rows"]
        size = sum(path.stat().st_size for path in Path(out, "pictures").rglob("*.png"))
    row = row_of(f"pairs, whole command, {workers} process(es)", made, cpu)
    return row | {"per second": f"{made / seconds:.1f}", "kB of pictures each": f"{size / made / 1000:.1f}"}


def _children_seconds() -> float:
    """CPU time of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row_of(what: str, number: int, cpu: float) -> dict[str, object]:
    """A row of the table: `number` things in `cpu` seconds."""
    return {"what": what, "count": number, "per second": "", "CPU ms each": f"{1000 * cpu / number:.2f}",
            "per CPU second": f"{number / cpu:.1f}", "kB of pictures each": ""}


def time_plotter(number: int) -> tuple[list[Layout], float]:
    """The layouts of so many figures or a few more, of all families in turn, and the CPU seconds that drawing and
    encoding them took."""
    layouts, seconds, draw_version = [], 0.0, pairs.draw_version

    def timed(*arguments: object) -> object:
        nonlocal seconds
        start = time.process_time()
        try:
            return draw_version(*arguments)
        finally:  # also where no legible picture was found
            seconds += time.process_time() - start

    all_families = [(family, category) for category in MODULES for family in families(category)]
    with mock.patch.object(pairs, "draw_version", timed):
        for seed in count():
            for family, category in all_families:
                if len(layouts) >= number:
                    return layouts, seconds
                try:
                    example = pairs.construct(family, category, str(seed), small=False, picture_size=400)
                except (Reject, NoLayout):
                    continue
                start = time.process_time()
                for picture in filter(None, example.pictures):
                    store.png(picture)
                    layouts.append(picture.layout)
                seconds += time.process_time() - start


def time_matplotlib(layouts: list[Layout]) -> float:
    """CPU seconds for all of them."""
    by_matplotlib(layouts[0])  # imports and fonts before the clock starts: the Plotter's are long loaded
    start = time.process_time()
    for layout in layouts:
        by_matplotlib(layout)
    return time.process_time() - start


def by_matplotlib(layout: Layout) -> bytes:
    """A figure's lines and texts as a PNG of the same size; shaded areas are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width, height = layout.size
    page = pyplot.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = page.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for points, size, dashed in undashed(layout.strokes):
        style = "--" if dashed else "-"
        axes.plot(*zip(*points, strict=True), color="black", linewidth=size * 72 / DPI, linestyle=style)
    for text, (left, _, _, bottom), glyph in joined(layout.labels):
        axes.text(left, bottom, text, fontsize=glyph / GLYPH_SHARE * 72 / DPI, va="bottom")
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", dpi=DPI)
    pyplot.close(page)
    return buffer.getvalue()


def undashed(strokes: list[tuple]) -> list[tuple]:
    """(points, width, whether dashed) of each line; the Plotter's layout holds every dash as a line of its own."""
    lines: list[tuple] = []
    for points, size in strokes:
        if lines and lines[-1][1] == size:
            before = lines[-1][0]
            if 0 < math.dist(before[-1], points[0]) < 4 * max(3.0, size * 2.4):  # the gap of figure.Sheet.line
                lines[-1] = ((*before, *points), size, True)
                continue
        lines.append((tuple(points), size, False))
    return lines


def joined(placed: list[tuple]) -> list[tuple]:
    """The words of a question's line as one text: the Plotter sets them one by one."""
    lines: list[tuple] = []
    for text, box, glyph in placed:
        if lines:
            before, (left, top, right, bottom), size = lines[-1]
            if 0 <= box[0] - right < glyph and box[1] < bottom and box[3] > top:
                joint = (left, min(top, box[1]), box[2], max(bottom, box[3]))
                lines[-1] = (f"{before} {text}", joint, max(size, glyph))
                continue
        lines.append((text, box, glyph))
    return lines


def main() -> None:
    """Measure, print, and write data.csv and data.md."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=6000, help="pairs, a third of each category")
    parser.add_argument("--figures", type=int, default=2000, help="figures that the Plotter draws")
    parser.add_argument("--sample", type=int, default=200, help="how many of them matplotlib draws too")
    parser.add_argument("--workers", type=int, default=num_cores())
    args = parser.parse_args()
    if args.workers < 1 or args.pairs < 3 or not 1 <= args.sample <= args.figures:
        raise UserError("give at least --workers 1 and --pairs 3, and as many --figures as --sample or more")
    rows = [time_command(args.pairs, args.workers)]
    layouts, seconds = time_plotter(args.figures)
    rows.append(row_of("figures by the Plotter: places searched, retries, PNG", len(layouts), seconds))
    sample = layouts[:: len(layouts) // args.sample][: args.sample]
    rows.append(row_of("a sample of them by matplotlib: places given, PNG", len(sample), time_matplotlib(sample)))
    measured = facts("cpu", "pillow", "numpy", "matplotlib")
    print(write_table(args.out_dir / "data", "The data engine", measured, rows))


if __name__ == "__main__":
    run_main(main, resumes=False)
