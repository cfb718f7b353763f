"""Files, the two forms of rows, and images: what is read is what stands there, and what is wrong is named."""

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_helpers import NUM_IMAGE_TOKENS, damage, draw_image, tiny_processor, write_lines
from PIL import Image

import sources
from data import ChatFormat, Rows, make_loader, open_rows, steps_per_epoch
from errors import UserError
from sources import SINGLE, STRONG, WEAK, BadRow, BenchmarkRow, ImageFinder
from sources import conversations, in_training_form, open_image

FIXTURES = Path(__file__).parent / "fixtures"
BENCHMARK_ROWS = json.loads((FIXTURES / "benchmark_rows.json").read_text())


@pytest.fixture(scope="module")
def chat_format() -> ChatFormat:
    return ChatFormat(tiny_processor(), NUM_IMAGE_TOKENS)


def open_fixture(path: object, chat_format: ChatFormat, pairs: bool = False, **options: object) -> object:
    return open_rows(str(path), pairs=pairs, chat_format=chat_format, max_length=options.pop("max_length", 2048),
                     **options)


def dropped_from(rows: Rows) -> list[dict[str, int]]:
    """The rows dropped of each file, by reason."""
    return [file["dropped"] for file in rows.mix.values()]


def error_of(path: object, chat_format: ChatFormat, pairs: bool = False, **options: object) -> str:
    """The UserError's message: one line that names the file."""
    with pytest.raises(UserError) as caught:
        open_fixture(path, chat_format, pairs, **options)
    assert "\n" not in str(caught.value) and str(path).split(",")[0] in str(caught.value)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------------------
# The two forms


def turn(role: str, *parts: str | dict) -> dict:
    return {"role": role, "content": [{"text": part} if isinstance(part, str) else part for part in parts]}


A, B = {"image": "a.png"}, {"image": "b.png"}
PLACE = {"file": "pack.bin", "offset": 3, "length": 70}
WEAK_KEYS = {"image_url_2": "a.png", "instruction_2": "q2", "output_2": "a"}
PAIR = {"image_url": "", "instruction": "q", "output": "a", **WEAK_KEYS}
SIDES = {"strong": {"turns": [turn("user", "q"), turn("assistant", "a")]},
         "weak": {"turns": [turn("user", A, "q2"), turn("assistant", "a")]}}
FORMS = [
    ({"turns": [turn("user", A, "q"), turn("assistant", "a")], "id": "x/1.png", "answer": "a", "level": 3},
     [[turn("user", A, "q"), turn("assistant", "a")]]),
    ({"turns": [turn("system", "s"), turn("user", "First: ", A, " Second: ", B, " same? "), turn("assistant", "no"),
                turn("user", B), turn("assistant", "\nyes ")]},
     [[turn("system", "s"), turn("user", "First: ", A, " Second: ", B, " same?"), turn("assistant", "no"),
       turn("user", B), turn("assistant", "yes")]]),
    ({"turns": [turn("user", {"image": PLACE}, " ", "\n q"), turn("assistant", "a")]},
     [[turn("user", {"image": PLACE}, "q"), turn("assistant", "a")]]),
    ({"instruction": "q", "output": 12}, [[turn("user", "q"), turn("assistant", "12")]]),
    ({"image_url": "a.png", "instruction": "<image>\nq", "output": "a"},
     [[turn("user", A, "q"), turn("assistant", "a")]]),
    ({"image_url": ["a.png", "b.png"], "instruction": "Is <image> in <image>?", "output": "a"},
     [[turn("user", "Is ", A, " in ", B, "?"), turn("assistant", "a")]]),
    ({"image_url": ["a.png", "b.png"], "instruction": "q", "output": "a"},
     [[turn("user", A, B, "q"), turn("assistant", "a")]]),
    ({"image_url": PLACE, "instruction": "", "output": "a"},
     [[turn("user", {"image": PLACE}), turn("assistant", "a")]]),
    (PAIR, [[turn("user", "q"), turn("assistant", "a")], [turn("user", A, "q2"), turn("assistant", "a")]]),
    (SIDES, [[turn("user", "q"), turn("assistant", "a")], [turn("user", A, "q2"), turn("assistant", "a")]]),
]


@pytest.mark.parametrize("row, expected", FORMS)
def test_both_forms_give_every_turn_and_every_picture_in_its_place(row: dict, expected: list) -> None:
    found = conversations(row, pairs=False)
    assert [[{"role": turn.role, "content": turn.content} for turn in turns] for _, turns in found] == expected
    assert [side for side, _ in found] == ([SINGLE] if len(expected) == 1 else [STRONG, WEAK])
    if len(expected) == 2:
        assert conversations(row, pairs=True) == found


def test_pair_rows_give_both_sides_as_single_rows(tmp_path: Path, chat_format: ChatFormat) -> None:
    draw_image(tmp_path / "a.png")
    path = write_lines(tmp_path / "a.jsonl", [PAIR, SIDES])
    rows = open_fixture(path, chat_format)
    names = [rows.row_id(index).rsplit(":", 1)[1] for index in range(4)]
    assert names == ["1/strong", "1/weak", "2/strong", "2/weak"]
    assert rows.read(1)[0][0].images == rows.read(3)[0][0].images == ["a.png"]
    assert open_fixture(path, chat_format, pairs=True).entries["images"].tolist() == [[1, 0]] * 2  # (weak, strong)


@pytest.mark.parametrize("name", BENCHMARK_ROWS)
@pytest.mark.parametrize("skip_bad_rows", [False, True])
def test_benchmark_rows_are_refused(name: str, skip_bad_rows: bool, tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "data.jsonl", [{"instruction": "1?", "output": "1"}, BENCHMARK_ROWS[name]])
    message = error_of(path, chat_format, skip_bad_rows=skip_bad_rows)
    assert f"{path}:2: a row of {name}" in message and "never train on it" in message
    with pytest.raises(BenchmarkRow):
        conversations(BENCHMARK_ROWS[name], pairs=True)


def test_questions_of_benchmarks_under_other_keys_are_refused(
    tmp_path: Path, chat_format: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.benchmark_of", lambda question: "MathVerse" if "known" in question else None)
    turns = [turn("user", "a new one?"), turn("assistant", "a"), turn("user", "a known one?"), turn("assistant", "a")]
    path = write_lines(tmp_path / "a.jsonl", [{"turns": turns}, {"instruction": "another", "output": "b"}])
    assert f"{path}:1: a question of MathVerse, an evaluation set; take it out" in error_of(path, chat_format)
    assert dropped_from(open_fixture(path, chat_format, skip_bad_rows=True)) == [{"a question of MathVerse": 1}]


def test_what_the_trainer_does_not_read_itself_is_told_by_the_first_row(tmp_path: Path) -> None:
    def is_read(first: object, name: str = "a.jsonl") -> bool:
        return in_training_form(write_lines(tmp_path / name, ["", "{broken", first, {"query": "q", "response": "a"}]))

    for row in ({"turns": []}, {"instruction": "q", "output": "a"}, PAIR, SIDES):
        assert is_read(row) and not is_read(row, "a.json")
    for row in ({"conversations": []}, {"instruction": "q", "input": "", "output": "a"}, {"problem": "q"}, "[1]",
                {"instruction": "q", "output": "a", "history": []}):
        assert not is_read(row)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("none.jsonl", "none.json", "a/none.parquet", "pipe.jsonl"):  # who opens it says what is wrong
        assert in_training_form(str(tmp_path / name) if "pipe" in name else name)
    for name in ("some-lab/some-data-1.5", "some-lab/some-data:validation", str(tmp_path)):
        assert not in_training_form(name) and sources.parse_spec(f"{name}:5k") == [(name, "5k")]


def test_rows_that_the_reader_made_are_called_by_their_old_file(tmp_path: Path, chat_format: ChatFormat) -> None:
    made = tmp_path / "data-1234"
    draw_image(made / "a.png")
    good = {"turns": [turn("user", A, "q"), turn("assistant", "a")]}
    path = write_lines(made / "rows.jsonl", [{**good, "row": 5}, {**good, "row": 9},
                                             {"turns": [turn("user", "q"), turn("assistant", "")], "row": 17}])
    counts = {"rows read": 30, "rows written": 3, "dropped: no answer": 27}
    manifest = {"read_from": "old/data.parquet", "image_root": str(made), "counts": counts}
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^old/data.parquet:17: the response is empty"):
        open_fixture(path, chat_format, image_root="elsewhere")
    rows = open_fixture(path, chat_format, skip_bad_rows=True, image_root="elsewhere")
    assert rows.row_id(1) == "old/data.parquet:9" and open_image("a.png", rows.sources[0].image_root).mode == "RGB"
    assert "old/data.parquet: 2 of 2 usable (100.0 % of the mix), asked: all; dropped: empty response 1, no answer 27" \
        in rows.summary()
    (made / "manifest.json").write_text('{"read_from')
    with pytest.raises(UserError, match="manifest.json: damaged"):
        open_fixture(path, chat_format)


def test_a_file_of_another_form_is_read_once_and_then_trained_on(
    tmp_path: Path, chat_format: ChatFormat, capfd: pytest.CaptureFixture
) -> None:
    """The reader runs as a command; every message names the file that was given, and its row."""
    draw_image(tmp_path / "images" / "a.png")
    asked = {"from": "human", "value": "<image>\nFind x."}
    rows = [{"image": "a.png", "conversations": [asked, {"from": "gpt", "value": f"x = {n}"}]} for n in range(20)]
    options = {"prepared": str(tmp_path / "prepared"), "image_root": str(tmp_path / "images")}
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(rows))
    read = open_fixture(path, chat_format, **options)
    assert "is not in the trainer's form: python -m augment.read --data" in capfd.readouterr().out
    assert read.row_id(4) == f"{path}:5" and read.read(4)[0][1].text == "x = 4"
    assert f"{path}: 20 of 20" in read.summary() and "outside" not in read.summary()
    [step] = make_loader(read, global_batch=20, pack_tokens=2048, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1)
    assert sum(len(batch.pixel_values["pixel_values"]) for batch, _ in step) == 20
    [made] = (tmp_path / "prepared").iterdir()
    written = (made / "rows.jsonl").stat().st_mtime_ns
    assert open_fixture(path, chat_format, **options).fingerprint == read.fingerprint
    assert (made / "rows.jsonl").stat().st_mtime_ns == written
    for amount, drawn in (("5", 5), ("0.25", 5), ("2.0", 40)):  # a share above one repeats rows
        assert len(open_fixture(f"{path}:{amount}", chat_format, **options)) == drawn
    path.write_text(json.dumps([*rows, {"image": "a.png", "conversations": [asked]}]))
    assert f"{path}:21: the turns must alternate" in error_of(path, chat_format, **options)
    read = open_fixture(path, chat_format, **options, skip_bad_rows=True)
    assert len(read) == 20 and dropped_from(read) == [{"turns do not alternate": 1}]


def test_pictures_in_a_large_file_are_read_from_their_place(tmp_path: Path, chat_format: ChatFormat) -> None:
    images = [draw_image(tmp_path / f"{n}.png", seed=n).read_bytes() for n in range(3)]
    (tmp_path / "pack.bin").write_bytes(b"###" + b"".join(images))
    starts = np.cumsum([3, *map(len, images)])
    places = [{"file": "pack.bin", "offset": int(start), "length": len(image)}
              for start, image in zip(starts, images, strict=False)]
    for number, (place, image) in enumerate(zip(places, images, strict=True)):
        expected = Image.open(tmp_path / f"{number}.png").tobytes()
        assert open_image(place, str(tmp_path)).tobytes() == open_image(image).tobytes() == expected
    path = write_lines(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a", "image_url": places[0]}])
    before = open_fixture(path, chat_format).fingerprint
    (tmp_path / "pack.bin").write_bytes(b"###" + b"".join(images) + b"!")
    assert open_fixture(path, chat_format).fingerprint["pictures"] != before["pictures"]
    for place in ({**places[0], "length": 20}, {**places[0], "offset": 10**9}):
        with pytest.raises(BadRow, match="pack.bin at"):
            open_image(place, str(tmp_path))
    for place in ({**places[0], "offset": -1}, {**places[0], "length": "9"}, {"file": "pack.bin"}, {"path": "x"}, 5):
        with pytest.raises(BadRow, match="an image is not a path"):
            open_image(place, str(tmp_path))
    path = write_lines(tmp_path / "b.jsonl", [{"instruction": "q", "output": "a", "image_url": {**PLACE, "file": "x"}}])
    assert "b.jsonl:1: no image" in error_of(path, chat_format)


# ----------------------------------------------------------------------------------------------------------------------
# Files


def test_a_replaced_file_is_another_file(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"instruction": "1?", "output": "one"}])
    assert open_fixture(path, chat_format).read(0)[0][1].text == "one"
    Path(write_lines(tmp_path / "b.jsonl", [{"instruction": "2?", "output": "two, longer"}])).replace(path)
    assert open_fixture(path, chat_format).read(0)[0][1].text == "two, longer"


def test_a_file_that_changes_under_the_run_is_said(tmp_path: Path, chat_format: ChatFormat) -> None:
    lines = [{"instruction": "1?", "output": "one"}, {"instruction": "2?", "output": "two"}]
    path = write_lines(tmp_path / "a.jsonl", lines)
    rows = open_fixture(path, chat_format)
    write_lines(tmp_path / "a.jsonl", [{"instruction": "a longer first line?", "output": "one"}])
    with pytest.raises(UserError, match="a.jsonl: the file has changed since this run began; restart it"):
        rows.read(1)


@pytest.mark.parametrize("how", ["replaced", "edited"])
@pytest.mark.parametrize("was_read", [False, True])
def test_other_rows_of_the_same_size_are_never_served(
    how: str, was_read: bool, tmp_path: Path, chat_format: ChatFormat
) -> None:
    """A file that was replaced keeps its old rows where it is open; else, and where it was edited, the run ends."""
    old, new = ([{"instruction": f"{n} + {number}?", "output": f"{n}"} for n in range(9)] for number in (1, 2))
    path, other = tmp_path / "a.jsonl", tmp_path / "other.jsonl"
    for file, content in ((path, old), (other, new)):
        write_lines(file, content)
    assert path.stat().st_size == other.stat().st_size
    rows = open_fixture(path, chat_format)
    if was_read:
        assert rows.read(3)[0][0].text == "3 + 1?"
    if how == "edited":
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    if was_read and how == "replaced":
        assert rows.read(4)[0][0].text == "4 + 1?"
    else:
        with pytest.raises(UserError, match="a.jsonl: the file has changed since this run began"):
            rows.read(4)


def test_the_index_covers_all_that_was_read(tmp_path: Path, chat_format: ChatFormat) -> None:
    """The whole content of a data file, names and sizes of the pictures; when these were written, apart."""
    draw_image(tmp_path / "a.png"), draw_image(tmp_path / "b.png")
    rows = [{"instruction": f"{n}?", "output": "a", "image_url": "ab"[n % 2] + ".png", "id": "x" * 1500}
            for n in range(2000)]
    path = Path(write_lines(tmp_path / "a.jsonl", rows))
    assert path.stat().st_size > 3_000_000

    def changed_by(change: Callable[[], object]) -> set[str]:
        before, _, after = fingerprint(), change(), fingerprint()
        return {name for name in before if before[name] != after[name]}

    def fingerprint() -> dict[str, str]:
        return open_fixture(path, chat_format).fingerprint

    def replace(old: bytes, new: bytes) -> None:
        path.write_bytes(path.read_bytes().replace(old, new))

    assert changed_by(lambda: None) == changed_by(lambda: os.utime(path, (1, 1))) == set()
    assert changed_by(lambda: replace(b'"999?"', b'"998?"')) == {"rows"}  # in the middle, and of the same size
    assert changed_by(lambda: os.utime(tmp_path / "a.png", (1, 1))) == {"picture_times"}
    bigger = partial(draw_image, tmp_path / "b.png", size=(200, 80))
    assert changed_by(bigger) == {"pictures", "picture_times"}
    assert changed_by(lambda: (tmp_path / "c.png").write_bytes(b"named by no row")) == set()


# ----------------------------------------------------------------------------------------------------------------------
# Bad input

GOOD = {"instruction": "1 + 1?", "output": "2"}
TEXT_PAIR = {**PAIR, "image_url_2": ""}
BAD_ROWS = [json.loads(line) for line in (FIXTURES / "bad_rows.jsonl").read_text().splitlines()]
BAD_ROWS += [{"pairs": False, "row": "[" * 100_000, "reason": "broken JSON", "detail": "RecursionError"}]


@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: case["reason"])
def test_bad_row_is_one_clear_line_or_counted(case: dict, tmp_path: Path, chat_format: ChatFormat) -> None:
    row, reason, detail, pairs = (case[key] for key in ("row", "reason", "detail", "pairs"))
    (tmp_path / "folder").mkdir()
    good = TEXT_PAIR if pairs else GOOD
    path = tmp_path / "data.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in (good, row, good)))
    message = error_of(path, chat_format, pairs)
    assert message.startswith(f"{path}:2: ") and detail in message and len(message) < 500
    rows = open_fixture(path, chat_format, pairs, skip_bad_rows=True)
    assert len(rows) == 2 and dropped_from(rows) == [{reason: 1}]
    assert f"dropped: {reason} 1" in rows.summary()


MISSPELT = ("image_2", "image_url2", "img_url_2", "imgae_url_2", "Image_url_2", "picture", "figure", "page_2", "url_2")


@pytest.mark.parametrize("key", MISSPELT)
@pytest.mark.parametrize("pairs", [False, True])
def test_a_key_that_holds_a_picture_does_not_train_as_text(
    key: str, pairs: bool, tmp_path: Path, chat_format: ChatFormat
) -> None:
    row = {**PAIR, key: "a.png", "image_id": 7, "image_size": [4, 4], "img_note": ""}
    del row["image_url_2"]
    path = write_lines(tmp_path / "a.jsonl", [TEXT_PAIR, row])  # the first row says which form the file is in
    assert f"a.jsonl:2: unknown key '{key}' with 'a.png'; write image_url" in error_of(path, chat_format, pairs)
    assert dropped_from(open_fixture(path, chat_format, pairs, skip_bad_rows=True)) == [{"unknown key": 1}]
    for single in ({"instruction": "q", "output": "a"}, {"turns": [turn("user", "q"), turn("assistant", "a")]}):
        path = write_lines(tmp_path / "b.jsonl", [single, {**single, key: ["a.png"]}])
        assert f"unknown key '{key}'" in error_of(path, chat_format)


CONTENT_KEYS = ["history", "system", "input", "options", "choices", "table", "context", "option_a", "B", "sys_prompt",
                "tools", "rejected", "objects"]


@pytest.mark.parametrize("key", CONTENT_KEYS)
def test_a_key_of_another_form_that_says_something(key: str, tmp_path: Path, chat_format: ChatFormat) -> None:
    rows = [GOOD, {**GOOD, key: ""}, {**GOOD, key: [["1?", "2"]]}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert f"a.jsonl:3: unknown key {key!r}" in (message := error_of(path, chat_format))
    assert "read the file with python -m augment.read" in message


def test_not_utf8_line(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"instruction": "\xff\xfe", "output": "a"}\n' + json.dumps(GOOD).encode())
    assert f"{path}:1: the line is not JSON (UnicodeDecodeError" in error_of(path, chat_format)
    assert len(open_fixture(path, chat_format, skip_bad_rows=True)) == 1


def test_bad_files(tmp_path: Path, chat_format: ChatFormat) -> None:
    assert "no such file" in error_of(tmp_path / "none.jsonl", chat_format)
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty" in error_of(tmp_path / "empty.jsonl", chat_format)
    (tmp_path / "blank.jsonl").write_text("\n \n")
    assert "no usable row" in error_of(tmp_path / "blank.jsonl", chat_format)
    (tmp_path / "short.jsonl").write_text(json.dumps(GOOD))
    message = error_of(tmp_path / "short.jsonl", chat_format, max_length=5)
    assert "no usable row: longer than 5 tokens 1" in message
    path = write_lines(tmp_path / "all_bad.jsonl", ["{", "}"])
    message = error_of(path, chat_format, skip_bad_rows=True)
    assert "no usable row: broken JSON 2" in message and ":1: the line is not JSON" in message


def write_png(path: Path, size: tuple[int, int], bits: int, colours: int, pixels: bytes) -> Path:
    """A PNG file that claims `size`; colours: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_pictures_that_cannot_be_used(tmp_path: Path, chat_format: ChatFormat) -> None:
    good = draw_image(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-60])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "nothing.png").write_bytes(b"")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    write_png(tmp_path / "bomb.png", (60_000, 60_000), 8, 2, b"\0" * 100)
    Image.new("L", (9000, 6000)).save(tmp_path / "large.png")
    for name, reason, detail in [
        ("cut.png", "image unreadable", "cut.png"), ("text.png", "image unreadable", "cannot identify"),
        ("nothing.png", "image unreadable", "cannot identify"), ("page.eps", "image unreadable", "cannot identify"),
        ("bomb.png", "image too large", "pixels"),
        ("large.png", "image too large", "9000 x 6000 pixels of 3 bytes, at most 50,000,000"),
        ("gone.png", "image missing", "gone.png")
    ]:
        with pytest.raises(BadRow) as caught:
            open_image(name, str(tmp_path))
        assert caught.value.reason == reason and detail in caught.value.detail

        (tmp_path / "gone.png").write_bytes(b"")  # present at the index, gone in the loader
        rows = [{"instruction": "q", "output": "a", "image_url": file} for file in ("good.png", name, "good.png")]
        path = write_lines(tmp_path / "data.jsonl", rows)
        options = dict(global_batch=3, pack_tokens=2048, rank=0, world_size=1, seed=0, start_step=0, total_steps=1)
        fatal = make_loader(open_fixture(path, chat_format), **options)
        skipping = make_loader(open_fixture(path, chat_format, skip_bad_rows=True), **options)
        (tmp_path / "gone.png").unlink()
        with pytest.raises(UserError, match="data.jsonl:2: ") as error:
            next(fatal)
        assert "\n" not in str(error.value)
        batches = next(skipping)
        assert len(batches.skipped) == 1 and len(batches.row_ids) == 2 and batches.global_rows == 3
        assert batches.skipped[0].startswith(f"{path}:2: ")
        assert len(batches.micro_batches[0][0].pixel_values["pixel_values"]) == 2


def test_pictures_are_bounded_by_pixels_channels_and_depth(tmp_path: Path) -> None:
    """From the header alone: none of these PNG files has pixels in it. 35 million of RGB are a page at 600 dpi."""
    for size, bits, kind, reason in [
        ((4961, 7016), 8, 2, "image unreadable"), ((7000, 7000), 8, 2, "image unreadable"),
        ((7000, 7000), 16, 0, "image unreadable"), ((7000, 7000), 16, 4, "image too large"),
        ((6100, 6100), 8, 6, "image unreadable"), ((7000, 7000), 8, 6, "image too large"),
        ((4961, 7016), 16, 2, "image too large"), ((4961, 7016), 16, 6, "image too large"),
        ((9000, 6000), 1, 0, "image too large"),
    ]:
        with pytest.raises(BadRow) as caught:
            open_image(str(write_png(tmp_path / "a.png", size, bits, kind, b"\0" * 100)))
        assert caught.value.reason == reason, (size, bits, kind)
    Image.new("F", (6200, 6200)).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(BadRow, match="6200 x 6200 pixels of 4 bytes, at most 37,500,000"):
        open_image(str(tmp_path / "a.tif"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("size, bits, kind", [((7000, 7000), 16, 0), ((6100, 6100), 8, 6)])
def test_the_largest_pictures_take_half_a_gigabyte(size: tuple[int, int], bits: int, kind: int, tmp_path: Path) -> None:
    """16-bit levels and transparency, of a file of 100 KB: 1.3 and 0.6 GB without strips."""
    channels = {0: 1, 6: 4}[kind]
    path = write_png(tmp_path / "a.png", size, bits, kind, b"\0" * (size[1] * (1 + size[0] * channels * bits // 8)))
    code = """
import sys
import sources
peak = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
before = peak()
sources.open_image(sys.argv[1])
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) / 1024 < 400


def test_strips_of_a_picture_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for shape, kind in (((40, 30), np.uint16), ((40, 30), np.int32), ((40, 30, 4), np.uint8), ((40, 30, 2), np.uint8)):
        image = Image.fromarray(generator.integers(0, 256 if kind == np.uint8 else 60_000, shape).astype(kind))
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        image.save(tmp_path / "a.tif", compression="tiff_lzw", exif=exif)
        whole = open_image("a.tif", str(tmp_path))
        monkeypatch.setattr(sources, "STRIP_PIXELS", 250)
        assert whole.size == (40, 30) and open_image("a.tif", str(tmp_path)).tobytes() == whole.tobytes()
        monkeypatch.undo()


def test_only_regular_files_are_opened_and_at_once(
    tmp_path: Path, chat_format: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO would wait for ever for a writer, and a device never ends."""
    os.mkfifo(tmp_path / "fifo.png"), (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero"), (tmp_path / "fifo_link.png").symlink_to("fifo.png")
    (tmp_path / "link.png").symlink_to(draw_image(tmp_path / "images" / "a.png"))
    held = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)
    held.bind("socket.png")  # the path of a socket has at most 104 characters on macOS

    def ring(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    try:
        for name in ("fifo", "folder", "device", "fifo_link", "socket"):
            with pytest.raises(BadRow) as caught:
                open_image(f"{name}.png", str(tmp_path))
            assert caught.value.reason == "image unreadable" and name in caught.value.detail
            path = write_lines(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a", "image_url": f"{name}.png"}])
            assert f"a.jsonl:1: no regular file '{tmp_path / name}.png'" in error_of(path, chat_format)
            os.rename(path, tmp_path / "kept.jsonl")
        os.mkfifo(tmp_path / "data.jsonl")
        assert "data.jsonl: not a regular file" in error_of(tmp_path / "data.jsonl", chat_format)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        held.close()
    assert open_image("link.png", str(tmp_path)).mode == "RGB" and ImageFinder(str(tmp_path)).check("link.png") == ""


def test_pictures_outside_of_their_root_are_said_and_picture_roots_keeps_them_out(
    tmp_path: Path, chat_format: ChatFormat
) -> None:
    data, far, near = (tmp_path / name for name in ("data", "far", "near"))
    draw_image(data / "in.png"), draw_image(far / "a.png"), draw_image(near / "b" / "c.png")
    (data / "link.png").symlink_to(far / "a.png"), (data / "folder").symlink_to(near / "b")
    (tmp_path / "alias").symlink_to(data)
    images = ["in.png", str(far / "a.png"), "../far/a.png", "folder/../b/c.png", "link.png", "folder/c.png",
              str(data / "in.png"), ["in.png", "../near/b/c.png"], str(tmp_path / "alias" / "in.png")]
    path = write_lines(data / "a.jsonl", [{"instruction": "q", "output": "a", "image_url": image} for image in images])
    rows = open_fixture(path, chat_format)
    assert len(rows) == len(images)
    assert f"    pictures outside of {data}: 6 rows, in {far} (3), {near}/b (3)" in rows.summary().splitlines()
    inside = write_lines(tmp_path / "b.jsonl", [{"instruction": "q", "output": "a", "image_url": "data/folder/c.png"}])
    assert "pictures outside" not in open_fixture(inside, chat_format).summary()

    kept = open_fixture(path, chat_format, skip_bad_rows=True, picture_roots=f"{data}, {near}")
    assert kept.entries["number"].tolist() == [1, 4, 6, 7, 8, 9]
    assert dropped_from(kept) == [{"image outside of --picture_roots": 3}]
    message = error_of(path, chat_format, picture_roots=str(tmp_path / "alias"))
    assert f"a.jsonl:2: the image '{far}/a.png' lies in {far}, outside of --picture_roots; add" in message
    (data / "in.png").unlink(), (data / "in.png").symlink_to(far / "a.png")  # since the index was made
    loader = make_loader(kept, global_batch=9, pack_tokens=2048, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1)
    skipped = next(loader).skipped
    assert len(skipped) == 4 and all("outside of --picture_roots" in text for text in skipped)


def test_transparent_pictures_lie_on_white_and_stand_upright(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image("clear.png", str(tmp_path)).getpixel((3, 3)) == (255, 255, 255)
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "palette.png", transparency=1)
    assert open_image("palette.png", str(tmp_path)).getpixel((3, 3)) == (255, 255, 255)
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")  # 16 bits a pixel
    assert np.array(open_image("deep.png", str(tmp_path)))[0, :, 0].tolist() == [0, 127, 255]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image("turned.jpg", str(tmp_path)).size == (4, 8)


def test_picture_finder_lists_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        draw_image(tmp_path / "images" / f"{n}.png", n)
    calls, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: calls.append(folder) or scandir(folder))
    finder = ImageFinder(str(tmp_path))
    for n in range(5):
        assert finder.check(f"images/{n}.png") == ""
    assert calls == [str(tmp_path / "images")]


# ----------------------------------------------------------------------------------------------------------------------
# Fuzz


JUNK = [None, 0, -1.5, True, "", " ", [], {}, [None], "<image>", "\ud800", "\0", "<|im_end|>", ["a.png", 3], "x" * 9000]


def fuzzed_lines(count: int, seed: int) -> list[bytes]:
    generator = random.Random(seed)
    seeds, lines = [row for row, _ in FORMS], []
    for _ in range(count):
        row = generator.choice(seeds)
        for _ in range(generator.randint(1, 3)):
            row = damage(generator, row, JUNK)
        line = bytearray(json.dumps(row, ensure_ascii=True).encode())
        if generator.random() < 0.3:
            for _ in range(generator.randint(1, 4)):
                line[generator.randrange(len(line))] = generator.randrange(256)
        lines.append(bytes(line).replace(b"\n", b" "))
    return lines


@pytest.mark.parametrize("pairs", [False, True])
def test_malformed_rows_are_counted_without_a_traceback(pairs: bool, tmp_path: Path, chat_format: ChatFormat) -> None:
    lines = fuzzed_lines(5000, seed=pairs)
    draw_image(tmp_path / "a.png"), draw_image(tmp_path / "b.png")
    (tmp_path / "fuzz.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    rows = open_fixture(tmp_path / "fuzz.jsonl", chat_format, pairs, skip_bad_rows=True, image_root=str(tmp_path),
                        max_length=1024)
    [reasons] = dropped_from(rows)
    dropped, total = sum(reasons.values()), sum(bool(line.strip()) for line in lines)
    assert dropped > total / 2 and len(reasons) >= 10
    if pairs:
        assert len(rows) + dropped == total
    else:  # a pair counts twice when it is used
        sides = np.unique(rows.entries["number"])
        assert total - dropped <= len(sides) + (rows.entries["side"] != SINGLE).sum() and len(sides) <= total
    loader = make_loader(rows, global_batch=64, pack_tokens=1024, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=steps_per_epoch(rows, 64))
    seen = sum(len(batches.row_ids) for batches in loader)
    assert seen == len(rows)
    assert {STRONG, WEAK} >= set(np.unique(rows.entries["side"]).tolist()) - {SINGLE}
