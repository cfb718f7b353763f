"""Pairs per second of the data engine with every gate on, and where the time goes; matplotlib on the same figures.

Three tables: the whole command (plan, drawing, gates, files, merging, report.html) by the clock and by the CPU; the
same work in one process, split by stage; and that process's peak memory as the count grows. Beside the Plotter,
matplotlib draws a sample of the very same figures at the same pixel size, as plotting scripts do: pyplot, one call for
each line and each text. It is told the places that the Plotter has found, so the search for them costs it nothing. CPU
times also hold on a busy machine; those by the clock do not.

Then come rendered pages, as `python -m bench pages` measures them alone.
"""

import argparse
import datetime
import importlib.metadata
import io
import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError
from problems import figure, gallery, labels, pairs, solver, store
from problems.families import MODULES, families

# bench.pages and bench.tables are imported where they are used: they bring torch, whose memory is not the
# engine's.

DPI = 100
BUSY = 1.3  # clock over CPU time beyond which the report says that rates by the clock are too low
GLYPH_SHARE = 0.73  # height of a capital or digit, as a share of the type's size

# (where the function is looked up, its name, the stage that its time counts to)
STAGES: tuple[tuple[object, str, str], ...] = (
    (pairs, "design", "design and solve"),
    (solver, "require_hidden_answer", "gates: answer hidden, measured, equations"),
    (solver, "check", "gates: answer hidden, measured, equations"),
    (pairs, "draw_version", "plotting, without the search for places"),
    (labels, "place_all", "plotting: search for the labels' places"), (store, "png", "PNG"),
    (store, "write_atomically", "pictures' files")
)
PLAN, ROWS, MERGE = "plan: every problem drawn once, without its gate", "rows and JSON", "merging, report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench data`."""
    parser.add_argument("--pairs", type=int, default=6000, help="pairs, a third of each category")
    parser.add_argument("--figures", type=int, default=200, help="figures that matplotlib draws too")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pages", type=int, default=2000, help="pages of each kind; 0 leaves them out")
    parser.add_argument("--out_dir", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write data.csv and data.md (and pages.csv and pages.md)."""
    if min(args.pairs, args.figures, args.workers) < 1 or args.pairs < 8 * len(MODULES) or args.pages < 0:
        raise UserError(f"bench data: needs --pairs {8 * len(MODULES)} or more, --figures and --workers at least 1")
    from bench import pages
    from bench.tables import write_csv

    speed = [whole_command(args.pairs, args.workers)]
    alone = in_a_fresh_process(one_process, args.pairs, args.figures)
    tables = {"speed": speed + figure_rows(alone), "stages": stage_rows(alone), "memory": memory_rows(alone)}
    args.out_dir.mkdir(exist_ok=True)
    columns = dict.fromkeys(key for rows in tables.values() for row in rows for key in row)
    found = [(name, row) for name, rows in tables.items() for row in rows]
    own = environment()
    write_csv(args.out_dir / "data.csv",
              [{"table": name, **{column: row.get(column, "") for column in columns}, **own} for name, row in found])
    text = report(tables, own)
    (args.out_dir / "data.md").write_text(text)
    print(text)
    if args.pages:
        pages.run(args)


def plan_of(count: int) -> store.Plan:
    """Pairs of all families, no benchmark."""
    chosen = {category: tuple(family.__name__ for family in families(category)) for category in MODULES}
    return store.Plan(seed=0, per_category=count // len(chosen), bench_per_family=0, families=chosen, held_out=(),
                      picture_size=400, small=False, copies=1)


# ---------------------------------------------------------------------------------------------------------------------
# The whole command


def whole_command(count: int, workers: int) -> dict[str, object]:
    """What gen_data.py does, by the clock and by the CPU of all its processes."""
    plan = plan_of(count)
    with tempfile.TemporaryDirectory() as out:
        cpu, start = _cpu_seconds(), time.perf_counter()
        store.claim(plan, out)
        store.draw_shards(plan, out, 0, 1, workers)
        store.merge(plan, out)
        gallery.write(out)
        seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
        made = json.loads(Path(out, "manifest.json").read_text())["files"]["stage2"]["rows"]
        size = sum(path.stat().st_size for path in Path(out, "pictures").rglob("*.png"))
    return {"what": f"pairs, whole command, {workers} process(es)", "count": made,
            "per second": f"{made / seconds:.1f}",
            "per second and process": f"{made / seconds / workers:.1f}", "CPU ms each": f"{1000 * cpu / made:.2f}",
            "per CPU second": f"{made / cpu:.1f}", "kB of pictures each": f"{size / made / 1000:.1f}"}


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# ---------------------------------------------------------------------------------------------------------------------
# One process, stage by stage


class Stopwatch:
    """CPU seconds and calls of nested stages; the time of an inner stage does not count to the outer one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, function: Callable, stage: str) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            with self.stage(stage):
                return function(*arguments, **options)

        return call


def in_a_fresh_process(function: Callable[..., dict], *arguments: object) -> dict:
    """Run it in a new interpreter: its caches are empty and its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def one_process(count: int, num_figures: int) -> dict:
    """Make the pairs with a stopwatch round every stage, then let matplotlib draw every few figures of the same run.

    Returns {"pairs", "figures", "peaks" ({pairs: bytes}), "seconds" and "calls" by stage, "matplotlib" (CPU seconds),
    "matplotlib figures"}.
    """
    watch, plan, peaks = Stopwatch(), plan_of(count), {}
    sample: list[figure.Layout] = []
    every = max(1, count // num_figures)  # a pair has more than one picture on average
    for module, name, stage in STAGES:
        setattr(module, name, watch.timed(getattr(module, name), stage))
    encode = store.png

    def png(picture: figure.Picture) -> bytes:
        if watch.calls["PNG"] % every == 0 and len(sample) < num_figures:
            sample.append(picture.layout)
        return encode(picture)

    store.png = png
    with tempfile.TemporaryDirectory() as out:
        for made in _draw(plan, out, watch):
            if made in (count // 8, count // 4, count // 2):
                peaks[made] = _peak_bytes()
        with watch.stage(MERGE):
            store.merge(plan, out)
            gallery.write(out)
        kept = json.loads(Path(out, "manifest.json").read_text())["files"]["stage2"]["rows"]  # spares are drawn too
    peaks[kept] = _peak_bytes()
    return {"pairs": kept, "figures": watch.calls["PNG"], "peaks": peaks, "seconds": dict(watch.seconds),
            "calls": dict(watch.calls), "matplotlib": time_matplotlib(sample),
            "matplotlib figures": len(sample)}


def _draw(plan: store.Plan, out: str, watch: Stopwatch) -> Iterator[int]:
    """Every shard of the plan, as the workers draw them; yields how many were drawn, spares included."""
    store.claim(plan, out)
    counts: Counter[str] = Counter()
    items, shard, lines, made = store.walk(plan, counts), None, [], 0
    while True:
        with watch.stage(PLAN):
            item = next(items, None)
        if shard and (item is None or item.shard != shard):
            store.write_atomically(store.shard_path(out, shard), "".join(lines).encode())
            lines = []
        if item is None:
            break
        shard = item.shard
        with watch.stage(ROWS):
            row = store.draw_item(plan, out, item)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        made += "rows" in row
        yield made
    store.write_atomically(os.path.join(out, "shards", "counts.json"), json.dumps(counts).encode())


def _peak_bytes() -> int:
    """Highest resident memory of this process so far. Linux's ru_maxrss would begin with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def stage_rows(alone: dict) -> list[dict[str, object]]:
    """The table of where the time goes, the largest share first."""
    total = sum(alone["seconds"].values())
    rows = []
    for stage, seconds in sorted(alone["seconds"].items(), key=lambda item: -item[1]):
        rows.append({"stage": stage, "CPU ms per pair": f"{1000 * seconds / alone['pairs']:.2f}",
                     "share %": f"{100 * seconds / total:.1f}",
                     "calls per pair": f"{alone['calls'][stage] / alone['pairs']:.2f}"})
    rows.append({"stage": "all", "CPU ms per pair": f"{1000 * total / alone['pairs']:.2f}", "share %": "100",
                 "calls per pair": ""})
    return rows


def memory_rows(alone: dict) -> list[dict[str, object]]:
    """The table of the peak of memory after so many pairs."""
    return [{"pairs": pairs_made, "peak MB": f"{peak / 1e6:.0f}"} for pairs_made, peak in alone["peaks"].items()]


# ---------------------------------------------------------------------------------------------------------------------
# The same figures by matplotlib


def figure_rows(alone: dict) -> list[dict[str, object]]:
    """The Plotter beside matplotlib; and pairs as they are, and as they were with matplotlib's figures."""
    drawing = [stage for stage in alone["seconds"] if stage.startswith("plotting") or stage == "PNG"]
    ours = sum(alone["seconds"][stage] for stage in drawing) / alone["figures"]
    theirs = alone["matplotlib"] / alone["matplotlib figures"]
    pair = sum(alone["seconds"].values()) / alone["pairs"]
    others = pair + (theirs - ours) * alone["figures"] / alone["pairs"]
    each = {
        "figures by the Plotter: places searched, retries, PNG": (alone["figures"], ours),
        "a sample of them by matplotlib: places given, PNG": (alone["matplotlib figures"], theirs),
        "pairs in one process": (alone["pairs"], pair), "pairs in one process, had matplotlib drawn them": ("", others)
    }
    return [
        {"what": what, "count": count, "per second": "", "per second and process": "",
         "CPU ms each": f"{1000 * seconds:.2f}", "per CPU second": f"{1 / seconds:.1f}", "kB of pictures each": ""}
        for what, (count, seconds) in each.items()
    ]


def time_matplotlib(sample: list[figure.Layout]) -> float:
    """CPU seconds for the whole sample."""
    by_matplotlib(sample[0])  # imports and fonts before the clock starts: the Plotter's are long loaded
    start = time.process_time()
    for layout in sample:
        by_matplotlib(layout)
    return time.process_time() - start


def by_matplotlib(layout: figure.Layout) -> bytes:
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


# ---------------------------------------------------------------------------------------------------------------------
# Report


def report(tables: dict[str, list[dict]], own: dict[str, str]) -> str:
    """The Markdown file: the tables, and whether the machine was busy."""
    from bench.tables import markdown_table

    whole = tables["speed"][0]
    waiting = float(whole["per CPU second"]) / float(whole["per second and process"])
    busy = f"The machine was busy: by the clock each process took {waiting:.1f} times its CPU time.\n"
    return "\n".join([
        "# The data engine", "", markdown_table(tables["speed"]), *([busy] if waiting > BUSY else []),
        "Where the time goes (one process, CPU time; an inner stage does not count to its outer one):", "",
        markdown_table(tables["stages"]),
        "Peak memory of that process so far, bounded caches included (the last row also merges and reports):", "",
        markdown_table(tables["memory"]),
        f"{own['device']}; Python {own['python']}, Pillow {own['pillow']}, numpy {own['numpy']}, matplotlib "
        f"{own['matplotlib']}; {own['date']}; `python -m bench {' '.join(sys.argv[1:])}`. "
        "Pages of text (`python -m bench pages`): pages.md.",
    ]) + "\n"


def environment() -> dict[str, str]:
    """Device, versions and date, for the CSV and the last line of the report."""
    from bench.tables import cpu_name

    versions = {name: importlib.metadata.version(name) for name in ("pillow", "numpy", "matplotlib")}
    cores = len(os.sched_getaffinity(0))
    return {"device": f"{cores} core(s) of {cpu_name()}", "python": platform.python_version(), **versions,
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")}
