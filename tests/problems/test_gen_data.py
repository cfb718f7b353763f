"""The command: the same bytes from the same seed, going on after a stop, the split, the disk that fills up."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image

import files
from problems import store
from problems.families import solid_geometry
from problems.pairs import design

FLAGS = [
    "--families", "triangle_angle_sum,rectangle,cuboid,line_through_points", "--per_category", "40",
    "--bench_per_family", "3", "--seed", "5"
]


def generate(out, *more, env=None, check=True):
    command = [sys.executable, "gen_data.py", "--out_dir", str(out), *FLAGS, *more]
    return subprocess.run(command, check=check, capture_output=True, text=True, env={**os.environ, **(env or {})})


def digest(out):
    """{relative path: hash} of everything published."""
    found = {}
    for folder, _, names in os.walk(out):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, out)] = hashlib.sha256(file.read()).hexdigest()
    return found


def rows(out, name):
    with open(os.path.join(out, f"{name}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    generate(out, "--workers", "1")
    return str(out)


def test_files_and_fields(data):
    pairs = rows(data, "stage2")
    assert len(pairs) == 120 and len({row["id"] for row in pairs}) == 120
    order = ["text-only", "text-dominant", "vision-dominant", "vision-only"]
    for row in pairs:
        assert row["output"] == row["output_2"] and row["output"].endswith(f"Answer: {row['answer']}")
        assert order.index(row["level"]) < order.index(row["level_2"])
        for key in ("image_url", "image_url_2"):
            if row[key]:
                Image.open(os.path.join(data, row[key])).verify()
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


def test_any_number_of_workers_and_machines_gives_the_same_bytes(data, tmp_path):
    generate(tmp_path / "workers", "--workers", "3")
    assert digest(tmp_path / "workers") == digest(data)
    second = subprocess.Popen(
        [sys.executable, "gen_data.py", "--out_dir", str(tmp_path / "ranks"), *FLAGS, "--workers", "1"],
        env={**os.environ, "RANK": "1", "WORLD_SIZE": "2"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    generate(tmp_path / "ranks", "--workers", "1", env={"RANK": "0", "WORLD_SIZE": "2"})
    second.communicate()
    assert second.returncode == 0
    assert digest(tmp_path / "ranks") == digest(data)


def test_an_interrupted_run_goes_on(data, tmp_path):
    generate(tmp_path)
    os.remove(tmp_path / "shards" / "solid_geometry-00000.jsonl")
    os.remove(tmp_path / "stage2.jsonl")
    next((tmp_path / "pictures" / "solid_geometry").rglob("*.png")).unlink()
    generate(tmp_path)
    assert digest(tmp_path) == digest(data)


def test_other_settings_in_the_same_folder_are_refused(data):
    answer = generate(data, "--picture_size", "300", check=False)
    assert answer.returncode == 1 and "other settings" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(("flags", "message"),
                         [
                             (["--families", "no_such_family"], "no_such_family"),
                             (["--held_out_families", "no_such_family"], "no_such_family"),
                             (["--per_category", "0"], "--per_category 0: must be 1 or more"),
                             (["--workers", "-1"], "--workers -1"),
                             (["--picture_size", "40"], "--picture_size 40: must be 64 to 2048"),
                             (["--explain_model", "m"], "--explain URL"),
                             (["--out_dir", "gen_data.py"], "--out_dir gen_data.py"),
                         ])
def test_wrong_flags_are_one_clear_line(tmp_path, flags, message):
    answer = generate(tmp_path / "data", *flags, check=False)
    assert answer.returncode == 1 and message in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_a_plan_that_is_none_is_one_clear_line(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "plan.json").write_text("{")
    answer = generate(tmp_path, check=False)
    assert answer.returncode == 1 and "plan.json" in answer.stderr and "Traceback" not in answer.stderr


def test_a_family_with_too_few_problems_is_told(tmp_path):
    answer = generate(tmp_path, "--families", "cube", "--per_category", "400", "--bench_per_family", "0")
    assert re.search(r"fewer than asked for: solid_geometry: 2\d\d of 400", answer.stdout)


def test_no_benchmark_problem_is_in_training(data):
    plan = json.load(open(os.path.join(data, "manifest.json"), encoding="utf-8"))["plan"]
    trained, held_out = [], set()
    for path in sorted(os.listdir(os.path.join(data, "shards"))):
        if path.endswith(".jsonl"):
            with open(os.path.join(data, "shards", path), encoding="utf-8") as file:
                keys = [json.loads(line)["key"] for line in file]
            held_out.update(keys) if path.startswith("bench") else trained.extend(keys)
    assert held_out and not held_out & set(trained)
    assert len(trained) == len(set(trained)) and plan["copies"] == 1  # no duplicate was kept


def test_a_full_disk_leaves_no_truncated_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    real = open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def fileno(self):
            return self.file.fileno()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "open", lambda name, mode: Full(real(name, mode)), raising=False)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(str(path), b"x" * 1000)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_and_nothing_else(data, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(data, out)
    folder = out / "pictures" / "bench" / "00000"
    code = "import os, sys; import files; files.os.replace = lambda *_: os.kill(os.getpid(), 9)"
    code += "; files.write_atomically(sys.argv[1], b'x', durable=False)"
    for path in (folder / "000001-x.png", out / "shards" / "bench-00000.jsonl", out / "manifest.json"):
        assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert len(list(out.rglob("*.tmp"))) == 3
    own = [folder / "mine.tmp", folder / "a.png.tmp", out / "notes.txt.12.tmp", out / "mine" / "a.png.12.tmp"]
    (out / "mine").mkdir()
    for path in own:
        path.touch()
    held = folder / "000002-x.png.77.tmp"
    with files._held(str(held)):  # its writer lives
        generate(out)
        assert set(out.rglob("*.tmp")) == {*own, held}
    generate(out)
    assert set(out.rglob("*.tmp")) == set(own)
    for path in own:
        path.unlink()
    assert digest(out) == digest(data)


def test_a_writer_whose_file_was_swept_before_it_was_held_writes_it_again(tmp_path, monkeypatch):
    path, flock = tmp_path / "a.png", fcntl.flock

    def swept(file, how):
        monkeypatch.undo()
        os.remove(f"{path}.{os.getpid()}.tmp")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", swept)
    files.write_atomically(str(path), b"x")
    assert path.read_bytes() == b"x" and os.listdir(tmp_path) == ["a.png"]


def test_a_problem_without_a_legible_picture_is_replaced(tmp_path, monkeypatch):
    """The plan holds spares: as many problems come out as were asked for, and what was not needed leaves no picture."""
    construct = store.construct

    def fails_for_the_third(family, category, seed, **options):
        if seed.split("/")[2] == "2":  # the third place of the plan
            raise store.NoLayout("no place for its labels")
        return construct(family, category, seed, **options)

    monkeypatch.setattr(store, "construct", fails_for_the_third)
    plan = store.Plan(seed=1, per_category=6, bench_per_family=3, families={"solid_geometry": ("cuboid",)}, held_out=(),
                      picture_size=300, small=False, copies=1)
    out = str(tmp_path)
    store.claim(plan, out)
    store.draw_shards(plan, out, 0, 1, 1)
    store.merge(plan, out)
    names = [row["id"] for row in rows(out, "stage2")]
    assert names == [f"solid_geometry-{number:06d}" for number in (0, 1, 3, 4, 5, 6)]
    assert len({row["problem_id"] for row in rows(out, "bench")}) == 3
    with open(tmp_path / "manifest.json", encoding="utf-8") as file:
        assert json.load(file)["dropped"]["no legible picture"] == 2  # in training and in the benchmark
    published = rows(out, "stage2") + rows(out, "bench")
    used = {row.get(key) for row in published for key in ("image_url", "image_url_2")}
    found = {os.path.relpath(path, out) for path in tmp_path.glob("pictures/**/*.png")}
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
