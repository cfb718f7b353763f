"""The command: its files, the split, what it refuses. What it shares with augment_data.py: test_shards.py."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image

from errors import UserError
from problems import store
from problems.families import solid_geometry
from problems.pairs import design
from tests.problems.command import generate, manifest, rows

FLAGS = ["--families", "triangle_angle_sum,rectangle,cuboid,line_through_points", "--per_category", 40,
         "--bench_per_family", 3, "--seed", 5]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    generate(out, *FLAGS)
    return out


def test_files_and_fields(data):
    pairs = rows(data, "stage2")
    assert len(pairs) == 120 and len({row["id"] for row in pairs}) == 120
    order = ["text-only", "text-dominant", "vision-dominant", "vision-only"]
    for row in pairs:
        assert row["output"] == row["output_2"] and row["output"].endswith(f"Answer: {row['answer']}")
        assert order.index(row["level"]) < order.index(row["level_2"])
        for key in ("image_url", "image_url_2"):
            if row[key]:
                Image.open(data / row[key]).verify()
    assert {row["level"] for row in rows(data, "stage3")} == set(order)
    assert all(not row["image_url"] for row in rows(data, "stage1"))
    assert all(row["image_url"] and row["output"] for row in rows(data, "captions"))
    versions = {}
    for row in rows(data, "bench"):
        assert row["id"] == f"{row['problem_id']}/{row['version']}"
        versions.setdefault(row["problem_id"], []).append((row["version"], row["answer"]))
    assert len(versions) == 12
    for members in versions.values():
        assert [version for version, _ in members] == list(store.VERSIONS)
        assert len({answer for _, answer in members}) == 1


@pytest.mark.parametrize(("flags", "message"), [
    (["--families", "no_such_family"], "--families: no family is called no_such_family"),
    (["--held_out_families", "no_such_family"], "--held_out_families: no family is called no_such_family"),
    (["--per_category", "0"], "--per_category 0: must be 1 or more"),
    (["--workers", "-1"], "--workers -1: must be 0 or more"),
    (["--picture_size", "40"], "--picture_size 40: must be 64 to 2048"),
    (["--explain_model", "m"], "--explain_model needs --explain URL"),
    (["--explain", "http://127.0.0.1:9", "--explain_model", "m"], "does not answer"),
    (["--explain", "http://127.0.0.1:9"], "--explain also needs --explain_model"),
    (["--explain", "localhost", "--explain_model", "m"], "not a server's address"),
])
def test_wrong_flags_are_one_line_before_anything_is_drawn(tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        generate(tmp_path / "data", *FLAGS, *flags)
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()


def test_a_family_with_too_few_problems_is_told(tmp_path, capsys):
    generate(tmp_path, "--families", "cube", "--per_category", 100, "--bench_per_family", 0, "--small_numbers",
             "--copies", 1, "--picture_size", 96)
    made = len(rows(tmp_path, "stage2"))
    assert 0 < made < 100 and f"fewer than asked for: solid_geometry: {made} of 100" in capsys.readouterr().out


def test_no_benchmark_problem_is_in_training(data):
    keys = {True: [], False: []}
    for path in sorted((data / "shards").glob("*.jsonl")):
        keys[path.name.startswith("bench")] += [row["key"] for row in rows(data / "shards", path.stem)]
    assert keys[True] and not set(keys[True]) & set(keys[False])
    assert len(keys[False]) == len(set(keys[False])) and manifest(data)["plan"]["copies"] == 1  # no duplicate was kept


def test_a_problem_without_a_legible_picture_is_replaced(tmp_path, monkeypatch):
    """The plan holds spares: as many problems come out as were asked for, and what was not needed leaves no picture."""
    construct = store.construct

    def fails_for_the_third(family, category, seed, **options):
        if seed.split("/")[2] == "2":  # the third place of the plan
            raise store.NoLayout("no place for its labels")
        return construct(family, category, seed, **options)

    monkeypatch.setattr(store, "construct", fails_for_the_third)
    generate(tmp_path, "--seed", 1, "--per_category", 6, "--bench_per_family", 3, "--families", "cuboid")
    names = [row["id"] for row in rows(tmp_path, "stage2")]
    assert names == [f"solid_geometry-{number:06d}" for number in (0, 1, 3, 4, 5, 6)]
    assert len({row["problem_id"] for row in rows(tmp_path, "bench")}) == 3
    assert manifest(tmp_path)["dropped"]["no legible picture"] == 2  # in training and in the benchmark
    published = rows(tmp_path, "stage2") + rows(tmp_path, "bench")
    used = {row.get(key) for row in published for key in ("image_url", "image_url_2")}
    found = {os.path.relpath(path, tmp_path) for path in tmp_path.glob("pictures/**/*.png")}
    assert found == {url for url in used if url}


def test_a_benchmark_of_few_problems_may_hold_several_drawings_of_each():
    """--bench_copies: drawings of one held-out problem, none of it in training."""
    plan = store.Plan(seed=1, per_category=60, bench_per_family=40, families={"solid_geometry": ("cube",)}, held_out=(),
                      picture_size=96, small=True, copies=50, bench_copies=3)
    used = {True: Counter(), False: Counter()}
    for item in store.walk(plan, Counter()):
        problem = design(solid_geometry.cube, item.category, item.seed, small=True)
        used[item.part == "bench"][problem.key] += 1
    assert set(used[True].values()) == {3} and not set(used[True]) & set(used[False])


def test_the_engine_loads_neither_torch_nor_transformers():
    """Its workers start in a hundredth of a second, not in 2.5."""
    code = "import gen_data, sys; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
