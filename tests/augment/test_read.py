"""The reader's command: any file becomes rows of the one form, once, whatever interrupts it."""

import base64
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from data_helpers import draw_image, write_lines
from test_containers import write_parquet, write_tar

from augment import containers, read
from common import shards
from errors import UserError
from sources import conversations, open_source

Patch = pytest.MonkeyPatch
TEXT = [{"query": f"What is {n} + {n}?", "response": f"It is {2 * n}.", "level": n % 5} for n in range(30)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture) -> Callable:
    """Runs the command here: the paths that it prints."""

    def run(data: object, *flags: object, out: object = tmp_path / "out") -> list[Path]:
        words = ["--data", data, "--out_dir", out, "--workers", 2, *flags]
        monkeypatch.setattr(sys, "argv", ["read", *map(str, words)])
        read.main()
        return [Path(line) for line in capsys.readouterr().out.splitlines()]

    return run


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest_of(path: Path) -> dict:
    return json.loads(path.with_name("manifest.json").read_text())


def contents(path: Path) -> dict[str, bytes]:
    """The files of a prepared folder by name."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def pictures_of(path: Path) -> list[object]:
    """All pictures of a prepared file, as the trainer reads it, each opened."""
    source = open_source(str(path))
    images = [image for *_, row in source.scan() for _, turns in conversations(row, False) for turn in turns
              for image in turn.images]
    assert all(source.image(image).mode == "RGB" for image in images)
    return images


# ----------------------------------------------------------------------------------------------------------------------
# What is written


def test_rows_of_text_in_the_one_form(run: Callable, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [TEXT[0], "", *TEXT[1:29], {**TEXT[29], "strong": 5, "row": 7}])
    [made] = run(path)
    assert re.fullmatch(r"a\.jsonl-[0-9a-f]{12}", made.parent.name) and made.name == "rows.jsonl"
    assert rows_of(made)[29]["row"] == 31
    assert rows_of(made)[1] == {
        "row": 3, "level": 1,
        "turns": [{"role": "user", "content": [{"text": "What is 1 + 1?"}]},
                  {"role": "assistant", "content": [{"text": "It is 2."}]}]}
    assert contents(made).keys() == {"rows.jsonl", "manifest.json", "lock"}
    told = manifest_of(made)
    assert told["counts"] == {"rows read": 30, "rows written": 30} and told["read_from"] == path
    assert [told[key] for key in ("image_root", "amount", "version")] == [str(tmp_path), "", read.VERSION]
    assert open_source(str(made)).name == path


def test_picture_files_stay_where_they_are(run: Callable, tmp_path: Path) -> None:
    """Rows name them as the file does, wherever the folder to write to lies: the same bytes in each."""
    draw_image(tmp_path / "set" / "images" / "a.png"), draw_image(tmp_path / "pictures" / "b.png")
    row = {"query": "What is shown?", "response": "A line."}
    path = write_lines(tmp_path / "set" / "a.jsonl", [
        {**row, "image": "images/a.png"}, {**row, "image": str(tmp_path / "pictures" / "b.png")}])
    (tmp_path / "deep" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "disk")
    [made] = run(path, out=tmp_path / "link" / "out")
    assert pictures_of(made) == ["images/a.png", str(tmp_path / "pictures" / "b.png")]
    [other] = run(path, out=tmp_path / "other")
    assert made.read_bytes() == other.read_bytes()
    path = write_lines(tmp_path / "set" / "b.jsonl", [{**row, "image": "b.png"}])
    [made] = run(path, "--image_root", tmp_path / "pictures")
    assert pictures_of(made) == ["b.png"]
    draw_image(tmp_path / "folder" / "train" / "1.png"), draw_image(tmp_path / "folder" / "images" / "2.png")
    for name, images in (("a.jsonl", ["1.png"]), ("b.jsonl", ["images/2.png"])):  # from the file, or from the folder
        write_lines(tmp_path / "folder" / "train" / name, [{**row, "image": image} for image in images])
    assert pictures_of(run(tmp_path / "folder")[0]) == ["train/1.png", "images/2.png"]


def test_embedded_pictures_are_packed(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    pngs = [draw_image(tmp_path / f"{n}.png", n).read_bytes() for n in range(5)]
    row = {"question": "What is shown?", "answer": "A line."}
    shared = [{**row, "image": {"bytes": pngs[n // 2], "path": "a"}} for n in range(10)]
    several = [{**row, "images": [{"bytes": png, "path": None} for png in pngs[:n]]} for n in range(4)]
    monkeypatch.setattr(containers, "PIECE_ROWS", 4)
    monkeypatch.setattr(containers, "BATCH_BYTES", 1)
    [made] = run(write_parquet(tmp_path / "a.parquet", shared))
    places = pictures_of(made)
    assert [place["file"] for place in places] == [f"pictures-{n // 4:05d}.bin" for n in range(10)]
    assert b"".join(contents(made)[f"pictures-{n:05d}.bin"] for n in range(3)) == b"".join(pngs)
    assert manifest_of(made)["bytes"]["pictures-00002.bin"] == len(pngs[4])
    [made] = run(write_parquet(tmp_path / "b.parquet", several))
    assert len(pictures_of(made)) == 6
    [made] = run(write_parquet(tmp_path / "c.parquet", [{**row, "bytes": png} for png in pngs]))
    assert len(pictures_of(made)) == 5
    [made] = run(write_lines(tmp_path / "d.jsonl", [{**row, "image": base64.b64encode(png).decode()} for png in pngs]))
    assert len(pictures_of(made)) == 5 and len(contents(made)["pictures-00000.bin"]) == sum(map(len, pngs[:4]))


def test_pictures_of_a_tar_are_named_in_place(run: Callable, tmp_path: Path) -> None:
    png = draw_image(tmp_path / "a.png").read_bytes()
    row = b'{"question": "What is shown?", "answer": "A."}'
    path = write_tar(tmp_path / "a.tar", [("0.json", row), ("0.png", png)])
    [made] = run(path)
    [place] = pictures_of(made)
    assert place["file"] == str(path) and contents(made).keys() == {"rows.jsonl", "manifest.json", "lock"}


def test_pairs_keep_both_sides(run: Callable, tmp_path: Path) -> None:
    draw_image(tmp_path / "a.png")
    pair = {"image_url": "", "instruction": "What is 1 + 1?", "output": "2", "image_url_2": "a.png",
            "instruction_2": "Answer it.", "output_2": "2", "id": "7"}
    [made] = run(write_lines(tmp_path / "a.json", [pair]))
    [row] = rows_of(made)
    assert row["id"] == "7" and row["weak"]["turns"][0]["content"][0] == {"image": "a.png"}
    assert pictures_of(made) == ["a.png"]


def test_a_share_is_drawn_before_anything_is_converted(run: Callable, tmp_path: Path) -> None:
    bad = [{"nothing": "here"}] * 30
    path = write_lines(tmp_path / "a.jsonl", TEXT + bad)
    [made] = run(f"{path}:20", "--skip_bad_rows")
    counts = manifest_of(made)["counts"]
    assert counts["rows read"] == 20 == counts["rows written"] + counts["dropped: unknown dialect"]
    assert 4 < counts["rows written"] < 16
    path = write_lines(tmp_path / "b.jsonl", TEXT)
    drawn = {amount: [row["row"] for row in rows_of(run(f"{path}:{amount}")[0])]
             for amount in ("0.3", "9", "1k", "1.0", "2.5")}
    assert drawn["0.3"] == drawn["9"] == sorted(set(drawn["9"])) and len(drawn["9"]) == 9
    assert drawn["1k"] == drawn["1.0"] == drawn["2.5"] == list(range(1, 31))
    gz = tmp_path / "b.jsonl.gz"
    gz.write_bytes(gzip.compress(Path(path).read_bytes()))
    assert len(rows_of(run(f"{gz}:0.5")[0])) == 15
    with pytest.raises(UserError, match="the share 0.001 draws no row; ask for more"):
        run(f"{gz}:0.001")


def test_a_row_of_a_folder_is_called_by_its_file(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(3):
        write_lines(tmp_path / "set" / f"train-{number}.jsonl", TEXT[:4])
    source = open_source(str(run(tmp_path / "set")[0]))
    assert [source.where(number) for number in (1, 4, 5, 12)] == [
        str(tmp_path / "set" / place) for place in ("train-0.jsonl:1", "train-0.jsonl:4", "train-1.jsonl:1",
                                                    "train-2.jsonl:4")]


def test_rows_that_are_too_long_are_counted_as_the_trainer_counts_its_own(run: Callable, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [*TEXT[:3], {"question": "q", "answer": "a " * 40_000}])
    counts = manifest_of(run(path)[0])["counts"]
    assert counts["rows written"] == 3 and counts["dropped: text above 64 KB"] == 1


def test_each_file_has_a_folder_of_its_own(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    paths = [write_lines(tmp_path / name, TEXT) for name in ("a.jsonl", "b.json", "folder/c d.jsonl")]
    made = run(f"{paths[0]}:5, {paths[1]},{tmp_path / 'folder'}")
    assert [path.parent.name[:-13] for path in made] == ["a.jsonl", "b.json", "folder"]
    assert [len(rows_of(path)) for path in made] == [5, 30, 30]


# ----------------------------------------------------------------------------------------------------------------------
# What is not


def test_the_first_bad_row_ends_it_or_all_are_counted(run: Callable, tmp_path: Path) -> None:
    half = '{"query": "\\ud800", "response": "a"}'
    rows = [*TEXT[:3], {"query": "q", "response": ""}, "{broken", *TEXT[3:6], {"x": 1}, half]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"a\.jsonl:4: the response is empty; ") as caught:
        run(path)
    assert "\n" not in str(caught.value) and os.listdir(next((tmp_path / "out").iterdir())) == ["lock"]
    [made] = run(path, "--skip_bad_rows")
    told = manifest_of(made)
    dropped = {reason: count for reason, count in told["counts"].items() if reason.startswith("dropped")}
    assert dropped == {"dropped: empty response": 1, "dropped: broken JSON": 1, "dropped: unknown dialect": 1,
                       "dropped: not Unicode": 1}
    assert told["first"]["dropped: broken JSON"].startswith("a.jsonl:5: the line is not JSON")
    assert [row["row"] for row in rows_of(made)] == [1, 2, 3, 6, 7, 8]
    with pytest.raises(UserError, match="no usable row: dropped: unknown dialect 3"):
        run(write_lines(tmp_path / "b.jsonl", [{"x": 1}] * 3), "--skip_bad_rows")
    with pytest.raises(UserError, match="it holds no row"):
        run(write_lines(tmp_path / "c.jsonl", ["", ""]))


def test_a_summary_says_what_was_dropped(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    said = []
    monkeypatch.setattr(read, "say", said.append)
    run(write_lines(tmp_path / "a.jsonl", [*TEXT, {"x": 1}]), "--skip_bad_rows")
    assert re.search(r"a.jsonl: is read into .*out \(below 0.1 GB, up to twice that on the way; [\d.]+ GB fr", said[0])
    assert said[1] == f"{tmp_path}/a.jsonl: 30 rows of 31 read"
    assert said[2].startswith("  dropped: unknown dialect: 1 (the first: a.jsonl:31: the keys are: x")


def test_embedded_pictures_that_are_none(run: Callable, tmp_path: Path) -> None:
    png = draw_image(tmp_path / "a.png").read_bytes()
    row = {"question": "What is shown?", "answer": "A line."}
    rows = [{**row, "image": {"bytes": data, "path": None}} for data in (png, b"nothing", png[:20])]
    path = write_parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(UserError, match=r"a\.parquet:2: an embedded picture: UnidentifiedImageError"):
        run(path)
    assert manifest_of(run(path, "--skip_bad_rows")[0])["counts"]["dropped: image unreadable"] == 2


def test_a_file_whose_answers_count_from_1_is_refused_whole(run: Callable, tmp_path: Path) -> None:
    rows = [{"question": f"Which is {n}?", "choices": ["w", "x", "y", "z"], "answer": n} for n in (1, 2, 3, 4)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    for flags in ([], ["--skip_bad_rows"]):  # three of the four would get another letter
        with pytest.raises(UserError, match=r"a\.jsonl:4: answer is 4, .* count from 0; .* letter in every row"):
            run(path, *flags)


def test_benchmarks_are_refused_by_key_and_content(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    row = {"sample_index": "1", "problem_version": "Text Lite", "question": "q", "answer": "a", "image": ""}
    path = write_lines(tmp_path / "a.jsonl", [*TEXT, row])
    for flags in ([], ["--skip_bad_rows"]):
        with pytest.raises(UserError, match=r"a\.jsonl:31: a row of MathVerse, an evaluation set; never train on it"):
            run(path, *flags)
    monkeypatch.setattr(read, "benchmark_of", lambda text: "MathVista" if re.search(r"is \d \+", text) else None)
    path = write_lines(tmp_path / "b.jsonl", TEXT)
    with pytest.raises(UserError, match=r"10 of 30 rows are questions of MathVista \(the first: b\.jsonl:1\); take "):
        run(path)
    [made] = run(path, "--skip_bad_rows")
    assert manifest_of(made)["counts"] == {"rows read": 30, "rows written": 20, "dropped: a question of MathVista": 10}
    path = write_lines(tmp_path / "c.jsonl", TEXT[:19])
    with pytest.raises(UserError, match="10 of 19 rows .* an evaluation set, never train on it"):
        run(path, "--skip_bad_rows")
    later = {"messages": [{"role": role, "content": text} for role, text in (
        ("user", "Hello."), ("assistant", "Hello."), ("user", "What is 1 + 1?"), ("assistant", "2"))]}
    draw_image(tmp_path / "a.png")
    around = {"query": "What is <image> 1 + 1?", "response": "2", "image": "a.png"}  # a picture in the midst of it
    for row in (later, around):
        with pytest.raises(UserError, match="1 of 21 rows"):
            run(write_lines(tmp_path / "d.jsonl", [*TEXT[10:], row]))


def test_a_figure_that_is_not_there_is_counted(run: Callable, tmp_path: Path) -> None:
    draw_image(tmp_path / "a.png")
    gone = ["As shown in the figure, find x.", "如图，求 x。"]
    stay = ["Find the image of 3 under f.", "Figure out x."]
    rows = [{"query": text, "response": "a"} for text in gone + stay]
    rows += [{"query": gone[0], "response": "a", "image": "a.png"}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    [made] = run(path)
    assert manifest_of(made)["counts"] == {"rows read": 5, "rows written": 5, read.NOT_THERE: 2}
    assert manifest_of(made)["first"] == {read.NOT_THERE: "a.jsonl:1"}
    [made] = run(path, "--drop_figure_text")
    assert [row["row"] for row in rows_of(made)] == [3, 4, 5]
    assert manifest_of(made)["counts"][f"dropped: {read.NOT_THERE}"] == 2


def test_flags_that_mean_nothing_are_one_line(run: Callable, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    for data, flags, what in (("", (), "--data is empty"), (f"{path}:many", (), "give a count"),
                              ("none.json", (), "no such"), (path, ("--workers", -1), "must be 0 or more")):
        with pytest.raises(UserError, match=what):
            run(data, *flags)
    assert not (tmp_path / "out").exists()


def test_too_large_a_result_names_the_command_to_run(run: Callable, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "it's.jsonl", TEXT)
    with pytest.raises(UserError, match="--max_gb is 1e-06; run this by hand") as caught:
        run(f"{path}:0.9", "--max_gb", 1e-6, "--skip_bad_rows")
    command = str(caught.value).rpartition("again: ")[2]
    assert not (tmp_path / "out").exists()
    run(f"{path}:0.9", "--max_gb", 1e-5)
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, stdout=subprocess.DEVNULL)
    run(f"{path}:0.9", "--max_gb", 1e-6, "--skip_bad_rows")  # is there by now


def test_a_folder_that_cannot_be_written_is_one_line(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    with pytest.raises(UserError, match="--out_dir .*a.jsonl/out: Not a directory; name a folder"):
        run(path, out=f"{path}/out")

    def full(path: str, data: object) -> None:
        raise OSError(28, "No space left on device", path)

    png = draw_image(tmp_path / "a.png").read_bytes()
    pictures = write_parquet(tmp_path / "a.parquet", [{"question": "q", "answer": "a", "image": {"bytes": png}}])
    with monkeypatch.context() as patch:
        patch.setattr(read, "write_atomically", full)
        with pytest.raises(UserError, match="pictures-00000.bin: No space left on device; fix it and run the same"):
            run(pictures)
    assert len(pictures_of(run(pictures)[0])) == 1


# ----------------------------------------------------------------------------------------------------------------------
# Once, and whole


def test_a_finished_folder_is_found_at_once(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    [made] = run(path)
    with monkeypatch.context() as patch:
        patch.setattr(read, "convert", None)
        patch.chdir(tmp_path)
        assert run("a.jsonl") == [made]  # and out is not written to
        made.parent.chmod(0o555)
        assert run("a.jsonl") == [made]
        made.parent.chmod(0o755)
    others = {run(path, *flags)[0] for flags in (
        ["--skip_bad_rows"], ["--drop_figure_text"], ["--image_root", tmp_path])} | {run(f"{path}:9")[0]}
    assert len(others | {made}) == 5
    monkeypatch.setattr(read, "VERSION", read.VERSION + 1)
    assert run(path) != [made]


def test_another_file_of_the_same_name_is_read_anew(run: Callable, tmp_path: Path) -> None:
    """Also one that differs in its middle alone, where the key does not look."""
    path = Path(write_lines(tmp_path / "a.jsonl", [{**row, "padding": "x" * 199_999} for row in TEXT]))
    [made] = run(path)
    text = path.read_text()
    assert len(text) > 5_000_000
    time.sleep(0.02)
    path.write_text(text.replace("What is 15 + 15?", "What is 16 + 16?"))
    assert run(path) == [made] and "16 + 16" in rows_of(made)[15]["turns"][0]["content"][0]["text"]
    path.write_text(text.replace("What is 0 + 0?", "What is 0 - 0?"))
    assert run(path) != [made]


@pytest.mark.parametrize("damage", ["{", "[]", '{"counts": {}}', '{"bytes": {"rows.jsonl": 5}, "stamps": [1]}', "pack"])
def test_a_damaged_folder_is_one_line(damage: str, run: Callable, tmp_path: Path) -> None:
    png = draw_image(tmp_path / "a.png").read_bytes()
    path = write_parquet(tmp_path / "a.parquet", [{"question": "q", "answer": "a", "image": {"bytes": png}}])
    [made] = run(path)
    if damage == "pack":
        made.with_name("pictures-00000.bin").unlink()
    else:
        made.with_name("manifest.json").write_text(damage)
    with pytest.raises(UserError, match=f"delete {made.parent} and run again") as caught:
        run(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_read_is_said(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    work = shards.work

    def changed(*arguments: object) -> None:
        work(*arguments)
        os.utime(path, (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(shards, "work", changed)
        with pytest.raises(UserError, match="a.jsonl: the file has changed while it was read; run the same"):
            run(path)
    assert len(rows_of(run(path)[0])) == 30


def test_pieces_of_an_older_file_are_not_taken_over(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(read, "publish", None)  # killed before it
        with pytest.raises(TypeError):
            run(path)
    [part] = (tmp_path / "out").glob("*/parts/000000.jsonl")
    part.write_bytes(part.read_bytes().replace(b"What is 3", b"What is 4"))
    assert "What is 4 + 3?" in run(path)[0].read_text()  # they are taken over
    [made] = run(path, "--skip_bad_rows")
    for name in ("rows.jsonl", "manifest.json"):
        made.with_name(name).unlink()
    parts = made.parent / "parts"
    parts.mkdir()
    (parts / "plan.json").write_text('{"fingerprint": "of an older file"}')
    (parts / "000000.jsonl").write_text('{"counts": {"rows read": 9, "rows written": 9}, "first": {}}\n')
    assert len(rows_of(run(path, "--skip_bad_rows")[0])) == 30


def test_pieces_of_other_rows_are_not_joined(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(containers, "PIECE_ROWS", 7)
        patch.setattr(read, "publish", None)
        with pytest.raises(TypeError):
            run(path)
    with pytest.raises(UserError, match="000000.jsonl: made of other rows; run the same command again"):
        run(path)
    assert len(rows_of(run(path)[0])) == 30


COMMAND = """
import sys, time
from augment import containers, dialects, read
from common import shards
containers.PIECE_ROWS, containers.BATCH_BYTES = 8, 1
normalise = dialects.normalise
dialects.normalise = lambda row, aside=None: time.sleep(0.004) or normalise(row)
shards.run(read.main)
"""


def start(data: object, out: Path, workers: int = 2) -> subprocess.Popen:
    words = [sys.executable, "-c", COMMAND, "--data", data, "--out_dir", out, "--workers", workers]
    return subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> Path:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return Path(out.splitlines()[-1])


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    pngs = [draw_image(tmp_path / "pictures" / f"{n}.png", n).read_bytes() for n in range(20)]
    rows = [{"question": f"{n}?", "answer": f"{n}", "image": {"bytes": pngs[n % 20], "path": None}} for n in range(300)]
    (tmp_path / "source").mkdir()
    return write_parquet(tmp_path / "source" / "a.parquet", rows)


def test_a_killed_command_goes_on_and_makes_the_same_bytes(tmp_path: Path, picture_file: Path) -> None:
    picture_file.parent.chmod(0o555)
    whole = contents(finish(start(picture_file, tmp_path / "whole", workers=1)))
    for wanted in (3, 12):
        process = start(picture_file, tmp_path / "out")
        while len(list((tmp_path / "out").glob("*/parts/0*.jsonl"))) < wanted:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    [folder] = (tmp_path / "out").iterdir()
    assert 12 <= len(list(folder.glob("parts/0*.jsonl"))) < 38 and not (folder / "rows.jsonl").exists()
    (folder / "pictures-00000.bin.99.tmp").write_bytes(b"of a killed writer")
    assert contents(finish(start(picture_file, tmp_path / "out"))) == whole
    assert os.listdir(picture_file.parent) == ["a.parquet"]


def test_two_commands_at_once_make_it_once(tmp_path: Path, picture_file: Path) -> None:
    first = start(picture_file, tmp_path / "out")
    while not list((tmp_path / "out").glob("*/parts/plan.json")):
        time.sleep(0.01)
    second = start(picture_file, tmp_path / "out")
    made = finish(first)
    stamp = made.stat().st_mtime_ns
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0 and out.splitlines()[-1] == str(made) and "another process is making it" in err
    assert made.stat().st_mtime_ns == stamp and "rows of" not in err


def test_a_file_system_without_locks_is_worked_on(run: Callable, tmp_path: Path, monkeypatch: Patch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    said = []
    monkeypatch.setattr(read, "say", said.append)
    monkeypatch.setattr(read.fcntl, "flock", refuse)
    assert len(rows_of(run(write_lines(tmp_path / "a.jsonl", TEXT))[0])) == 30
    assert any("no lock on this file system (Operation not supported)" in line for line in said)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peaks of memory from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """10,000 and 100,000 rows, and of pictures a tenth: parent and workers need about the same."""
    code = """
import resource, sys
from augment import read
read.main()
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""
    png = draw_image(tmp_path / "a.png", size=(400, 300)).read_bytes()
    peaks = []
    for scale in (1, 10):
        text = write_lines(tmp_path / f"{scale}.jsonl", [{**row, "id": n} for n in range(333 * scale) for row in TEXT])
        pictures = [{"question": f"{n}?", "answer": "a", "image": {"bytes": png + b"%d" % n, "path": None}}
                    for n in range(1000 * scale)]
        path = write_parquet(tmp_path / f"{scale}.parquet", pictures)
        for data in (text, path):
            run = subprocess.run([sys.executable, "-c", code, "--data", str(data), "--out_dir", str(tmp_path / "out"),
                                  "--workers", "2"], capture_output=True, text=True, check=True)
            peaks.append([int(line) for line in run.stdout.splitlines()[-2:]])
    for small, large in zip(peaks[:2], peaks[2:], strict=True):
        assert all(after < before + 100 for before, after in zip(small, large, strict=True)), peaks
