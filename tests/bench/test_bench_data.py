"""python -m bench data at its smallest: what it writes adds up, and matplotlib draws the same figure."""

import csv
import io
import random
import subprocess
import sys

import numpy
import pytest
from PIL import Image

from bench import data as benchmark
from problems import figure, pairs
from problems.families import families


@pytest.mark.slow
def test_the_tables_are_written_and_add_up(tmp_path):
    command = [sys.executable, "-m", "bench", "data", "--out_dir", str(tmp_path)]
    command += ["--pairs", "48", "--figures", "3", "--workers", "1", "--pages", "2"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    assert {path.name for path in tmp_path.iterdir()} == {"data.csv", "data.md", "pages.csv", "pages.md"}
    text = (tmp_path / "data.md").read_text()
    assert text in answer.stdout and "Python 3" in text
    with open(tmp_path / "data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_table = {name: [row for row in rows if row["table"] == name] for name in ("speed", "stages", "memory")}
    assert by_table["speed"][0]["count"] == "48"
    *stages, total = by_table["stages"]
    assert {stage for _, _, stage in benchmark.STAGES} < {row["stage"] for row in stages}  # each was really called
    each = [float(row["CPU ms per pair"]) for row in stages]
    assert sum(each) == pytest.approx(float(total["CPU ms per pair"]), abs=0.1)
    assert [row["pairs"] for row in by_table["memory"]] == ["6", "12", "24", "48"]
    assert 20 < float(by_table["memory"][0]["peak MB"]) <= float(by_table["memory"][-1]["peak MB"])


def test_too_few_pairs_are_one_clear_line(tmp_path):
    command = [sys.executable, "-m", "bench", "data", "--pairs", "5", "--out_dir", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and "--pairs" in answer.stderr and "Traceback" not in answer.stderr


def test_inner_stages_do_not_count_twice(monkeypatch):
    clock = iter([0.0, 2.0, 5.0, 6.0])
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(clock))
    watch = benchmark.Stopwatch()
    with watch.stage("outer"), watch.stage("inner"):
        pass
    assert dict(watch.seconds) == {"outer": 2.0 + 1.0, "inner": 3.0}
    assert dict(watch.calls) == {"outer": 1, "inner": 1}


def test_matplotlib_draws_the_same_lines_at_the_same_size():
    family = next(one for one in families("plane_geometry") if one.__name__ == "rectangle")
    free = random.Random(0)
    problem = pairs.design(family, "plane_geometry", "1", small=False)
    style = figure.Style(400, 360, 24, 2.0, "sans")
    picture = pairs.draw_version(problem, pairs.word(problem, "text-dominant", free, ()), style, free)
    theirs = Image.open(io.BytesIO(benchmark.by_matplotlib(picture.layout))).convert("L")
    assert theirs.size == picture.image.size == (400, 360)
    ours, other = (numpy.asarray(image.convert("L")) < 128 for image in (picture.image, theirs))
    assert (ours & other).sum() > 0.6 * ours.sum() and other.sum() < 1.5 * ours.sum()


def test_dashes_become_one_line_and_words_one_text():
    dashes = [(((x, 0.0), (x + 6, 0.0)), 2.0) for x in (0.0, 11.0, 22.0)]
    assert benchmark.undashed(dashes) == [(((0, 0), (6, 0), (11, 0), (17, 0), (22, 0), (28, 0)), 2.0, True)]
    corner = [(((0.0, 0.0), (9.0, 0.0)), 2.0), (((9.0, 0.0), (9.0, 9.0)), 2.0)]
    assert [dashed for *_, dashed in benchmark.undashed(corner)] == [False, False]
    words = [("Find", (0, 0, 30, 12), 12.0), ("AB.", (36, 0, 60, 12), 12.0), ("A", (200, 90, 210, 102), 12.0)]
    assert [text for text, *_ in benchmark.joined(words)] == ["Find AB.", "A"]
