"""Files, dialects and images: every public format is read by its keys, and what is wrong is named."""

import gzip
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
from data_helpers import NUM_IMAGE_TOKENS, draw_image, tiny_processor, write_lines
from PIL import Image

import sources
from data import ChatFormat, Rows, make_loader, open_rows, steps_per_epoch
from errors import UserError
from sources import (SINGLE, STRONG, WEAK, BadRow, BenchmarkRow, ImageFinder, conversations, open_image, open_source)

FIXTURES = Path(__file__).parent / "fixtures" / "dialects"
# file: (rows as single ones, images in them, the first question's beginning, the first response's end)
DIALECTS = json.loads((FIXTURES.parent / "dialects.json").read_text())


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
# Dialects


def test_every_fixture_is_in_the_table() -> None:
    assert {path.name for path in FIXTURES.iterdir() if path.is_file()} == set(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect_is_read_by_its_keys(name: str, chat_format: ChatFormat) -> None:
    num_rows, num_images, question, response = DIALECTS[name]
    rows = open_fixture(FIXTURES / name, chat_format)
    assert len(rows) == num_rows and dropped_from(rows) == [{}]
    assert rows.entries["images"].sum() == num_images
    turns, other = rows.read(0)
    assert other is None
    assert next(turn for turn in turns if turn.role == "user").text.startswith(question)
    assert turns[-1].text.endswith(response)
    assert not any("<image>" in turn.text for turn in turns)
    [step] = make_loader(rows, global_batch=8, pack_tokens=2048, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1)
    assert len(step.row_ids) == num_rows and step.num_response_tokens > num_rows
    assert sum(len(batch.pixel_values.get("pixel_values", ())) for batch, _ in step) == num_images


def test_pairs_by_the_published_names(chat_format: ChatFormat) -> None:
    rows = open_fixture(FIXTURES / "puma_stage2.json", chat_format, pairs=True)
    assert len(rows) == 2
    weak, strong = rows.read(0)
    assert strong[0].text.startswith("In the right triangle") and strong[0].images == ["images/triangle.png"]
    assert weak[0].text == "Answer the question in the picture." and weak[0].images == ["images/circle.png"]
    assert weak[1].text == strong[1].text
    assert rows.entries["images"].tolist() == [[1, 1], [1, 0]]  # (weak, strong)
    assert len(open_fixture(FIXTURES / "mavis_geometry.json", chat_format, pairs=True)) == 1


def test_pair_rows_give_both_sides_as_single_rows(chat_format: ChatFormat) -> None:
    rows = open_fixture(FIXTURES / "puma_stage2.json", chat_format)
    names = [rows.row_id(index).rsplit(":", 1)[1] for index in range(4)]
    assert names == ["1/strong", "1/weak", "2/strong", "2/weak"]
    assert rows.read(1)[0][0].images == ["images/circle.png"]


def test_picture_values_of_every_kind(tmp_path: Path) -> None:
    png = draw_image(tmp_path / "a.png").read_bytes()
    held = {"bytes": png, "path": None}
    row = {"question": "q", "answer": "a"}
    for value, count in [
        ("a.png", 1), (["a.png", "a.png"], 2), (held, 1), ([held], 1), (Image.new("RGB", (4, 4)), 1),
        ({"bytes": None, "path": "a.png"}, 1), ({"bytes": None, "path": None}, 0), (None, 0), ("", 0), ([], 0)
    ]:
        [(side, turns)] = conversations({**row, "image": value}, pairs=False)
        assert side == SINGLE and len(turns[0].images) == count
        for image in turns[0].images:
            assert open_image(image, str(tmp_path)).mode == "RGB"
    for key in ("image", "images", "image_url", "image_path", "decoded_image"):
        assert conversations({**row, key: "a.png"}, pairs=False)[0][1][0].images == ["a.png"]


def test_pictures_go_to_the_turn_of_their_placeholder() -> None:
    row = {
        "image": ["a.png", "b.png"],
        "conversations": [
            {"from": "human", "value": "First: <image>"},
            {"from": "gpt", "value": "one"},
            {"from": "human", "value": "<image>\nsecond?"},
            {"from": "gpt", "value": "two"},
        ],
    }
    [(_, turns)] = conversations(row, pairs=False)
    assert [(turn.text, turn.images) for turn in turns] == [
        ("First:", ["a.png"]), ("one", []), ("second?", ["b.png"]), ("two", [])
    ]


def test_choices_are_shown_once() -> None:
    row = {"question": "The legs are 5 and 6. Find the area.", "choices": ["6", "15"], "answer": "(B)"}
    [(_, turns)] = conversations(row, pairs=False)
    assert turns[0].text == row["question"] + "\nChoices:\n(A) 6\n(B) 15"
    for marks in ("(A) 6 (B) 15", "A. 6\nB. 15", "A:6 B:15"):
        shown = {**row, "question": f"Find the area. {marks}"}
        assert conversations(shown, pairs=False)[0][1][0].text == shown["question"]


BENCHMARK_ROWS = json.loads((FIXTURES.parent / "benchmark_rows.json").read_text())


@pytest.mark.parametrize("name", BENCHMARK_ROWS)
@pytest.mark.parametrize("skip_bad_rows", [False, True])
def test_benchmark_rows_are_refused(name: str, skip_bad_rows: bool, tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "data.jsonl", [{"query": "1?", "response": "1"}, BENCHMARK_ROWS[name]])
    message = error_of(path, chat_format, skip_bad_rows=skip_bad_rows)
    assert f"{path}:2: a row of {name}" in message and "never train on it" in message
    with pytest.raises(BenchmarkRow):
        conversations(BENCHMARK_ROWS[name], pairs=True)


def test_the_published_form_needs_no_dialects(tmp_path: Path) -> None:
    """Rows as gen_data.py and augment_data.py write them are read by sources.py alone."""
    code = """
import sys
import sources
for path, pairs in ((sys.argv[1], False), (sys.argv[2], True)):
    source = sources.open_source(path)
    for _, offset, length, row in source.scan():
        assert sources.conversations(row, pairs) == sources.conversations(source.read_row(offset, length), pairs)
assert "augment.dialects" not in sys.modules
sources.conversations({"query": "q", "response": "a"}, False)
assert "augment.dialects" in sys.modules
"""
    single, pair = {"image_url": "", "instruction": "q", "output": "a", "answer": "a", "id": "1"}, PAIR
    paths = [write_lines(tmp_path / f"{n}.jsonl", [row] * 2) for n, row in enumerate((single, pair))]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, cwd=Path(__file__).parent.parent)


# ----------------------------------------------------------------------------------------------------------------------
# Files

ROWS = [{"query": f"{n} + 1? é∑", "response": f'It is {n + 1}.\n{{["x"]}}, {"y" * (n % 7)}'} for n in range(150)]


def write_as(path: Path, rows: list[dict]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        text = "\n\n".join(
            json.dumps(row, ensure_ascii=len(row["query"]) % 2 == 0) for row in rows
        )  # blank lines, no last newline
    elif name == "ids.json":
        text = json.dumps({f"id {n}": row for n, row in enumerate(rows)}, ensure_ascii=False, indent=1)
    elif name == "lines.json":
        text = "\n".join(map(json.dumps, rows))
    else:
        text = "\ufeff" + json.dumps(rows, ensure_ascii=False, indent=2 if name == "wide.json" else None)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "dense.json", "wide.json", "ids.json", "lines.json"])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_every_file_kind_reads_the_same_rows_again(name: str, gz: str, tmp_path: Path) -> None:
    source = open_source(str(write_as(tmp_path / (name + gz), ROWS)))
    places = [(offset, length, row) for _, offset, length, row in source.scan()]
    assert [row for _, _, row in places] == ROWS
    random.Random(0).shuffle(places)
    for offset, length, row in places:
        assert source.read_row(offset, length) == row


def test_large_json_array_is_read_through_a_window(tmp_path: Path) -> None:
    rows = [{"query": f"{n}", "response": "é" * (n * 40_001 % 1_500_000)} for n in range(8)]
    source = open_source(str(write_as(tmp_path / "big.json", rows)))
    for _, offset, length, row in source.scan():
        assert source.read_row(offset, length) == row


def test_a_deeply_nested_row_of_a_gzipped_file_is_a_row_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"x": ' + b"[" * 800 + b"]" * 800 + b"}"))
    source = open_source(str(tmp_path / "a.jsonl.gz"))
    [(_, offset, length, row)] = source.scan()
    assert isinstance(row, dict) and source.read_row(offset, length) == row


def test_json_array_in_another_encoding_is_one_line(tmp_path: Path, chat_format: ChatFormat) -> None:
    (tmp_path / "a.json").write_bytes('[{"query": "é?", "response": "ü"}]'.encode("latin-1"))
    assert "cannot be read to its end ('utf-8' codec" in error_of(tmp_path / "a.json", chat_format, skip_bad_rows=True)


NEEDS_PYARROW = "pyarrow is not installed (it is no requirement): pip install pyarrow"


def write_parquet(path: Path, rows: list[dict], **options: object) -> Path:
    """Rows as a parquet file; skips the test, visibly, without pyarrow."""
    pytest.importorskip("pyarrow", reason=NEEDS_PYARROW)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def column_start(path: Path, leaf: str) -> int:
    """Where the first page of a column lies in the file."""
    import pyarrow.parquet

    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == leaf)
    return column.dictionary_page_offset or column.data_page_offset


def test_parquet_without_pyarrow_is_one_line(
    tmp_path: Path, chat_format: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # importing it fails
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "pip install pyarrow" in error_of(tmp_path / "a.parquet", chat_format)


def test_parquet_rows_are_read_again_from_any_row_group(tmp_path: Path, chat_format: ChatFormat) -> None:
    png = draw_image(tmp_path / "a.png").read_bytes()
    rows = [
        {"question": f"{n}?", "answer": f"{n}", "image": {"bytes": png, "path": "a.png"} if n % 3 else None}
        for n in range(40)
    ]
    write_parquet(tmp_path / "small.parquet", rows, row_group_size=7)
    write_parquet(tmp_path / "one_group.parquet", rows)
    (tmp_path / "zip.parquet.gz").write_bytes(gzip.compress((tmp_path / "small.parquet").read_bytes()))
    text = [{"problem": f"{n}?", "solution": f"{n}"} for n in range(6000)]
    write_parquet(tmp_path / "large_group.parquet", text)
    files = {"small.parquet": rows, "one_group.parquet": rows, "zip.parquet.gz": rows, "large_group.parquet": text}
    for name, expected in files.items():
        source = open_source(str(tmp_path / name))
        places = [(number, offset, length) for number, offset, length, _ in source.scan()]
        assert [number for number, _, _ in places] == list(range(1, len(expected) + 1))
        for (_, offset, length), row in list(zip(places, expected, strict=True))[::-7]:
            assert source.read_row(offset, length) == row
    index = open_fixture(tmp_path / "small.parquet", chat_format)
    assert index.entries["images"][:, 0].tolist() == [int(n % 3 > 0) for n in range(40)]
    loader = make_loader(index, global_batch=40, pack_tokens=8192, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1)
    assert sum(len(batch.pixel_values["pixel_values"]) for batch, _ in next(loader)) == 26


def test_parquet_mixes_of_counts_and_shares_are_drawn_by_worker_processes(
    tmp_path: Path, chat_format: ChatFormat
) -> None:
    images = [{"bytes": draw_image(tmp_path / f"{n}.png", n).read_bytes(), "path": None} for n in range(12)]
    pairs = [
        {
            "image_url": None, "instruction": f"What is {n}?", "output": f"It is {n}.",
            "image_url_2": images[n], "instruction_2": "What is it?", "output_2": f"It is {n}.",
        }
        for n in range(12)
    ]
    dialogues = [
        {"images": images[n : n + 2], "texts": [{"user": "How many?", "assistant": f"{n} a {'z' * n}"}]}
        for n in range(10)
    ]
    write_parquet(tmp_path / "pairs.parquet", pairs, row_group_size=5)
    write_parquet(tmp_path / "dialogues.parquet", dialogues, row_group_size=4)
    spec = f"{tmp_path / 'pairs.parquet'}:0.5,{tmp_path / 'dialogues.parquet'}:4"
    rows = open_fixture(spec, chat_format)
    assert [file["drawn"] for file in rows.mix.values()] == [12, 4]  # half of 24 sides, and 4 of 10
    loader = make_loader(rows, global_batch=16, pack_tokens=4096, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1, num_workers=2)
    (step,) = loader
    assert sum("pairs.parquet" in row for row in step.row_ids) == 12
    for batch, _ in step:
        assert (batch.input_ids == chat_format.image_token_id).sum() == NUM_IMAGE_TOKENS * sum(
            map(len, batch.pixel_values.values())
        )
    both = open_fixture(tmp_path / "pairs.parquet", chat_format, pairs=True)
    assert len(both) == 12 and both.entries["images"].tolist() == [[1, 0]] * 12
    weak, strong = both.read(7)
    assert weak[0].images == [images[7]] and strong[0].text == "What is 7?"


def test_parquet_pictures_by_path_alone_are_looked_for(tmp_path: Path, chat_format: ChatFormat) -> None:
    draw_image(tmp_path / "here.png")
    rows = [
        {"question": "1?", "answer": "1", "image": {"bytes": None, "path": name}} for name in ("here.png", "gone.png")
    ]
    message = error_of(write_parquet(tmp_path / "a.parquet", rows), chat_format)
    assert "a.parquet:2: no image" in message and "gone.png" in message
    kept = open_fixture(tmp_path / "a.parquet", chat_format, skip_bad_rows=True)
    assert len(kept) == 1 and dropped_from(kept) == [{"image missing": 1}]


def test_damaged_parquet_is_one_line(tmp_path: Path, chat_format: ChatFormat) -> None:
    images = [draw_image(tmp_path / "a.png", n).read_bytes() for n in range(20)]
    rows = [{"question": f"{n}?", "answer": f"{n}", "image": {"bytes": images[n], "path": "a"}} for n in range(20)]
    whole = write_parquet(tmp_path / "whole.parquet", rows)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "pointer.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-30])
    for name in ("broken", "pointer", "cut"):
        assert "not a parquet file" in error_of(tmp_path / f"{name}.parquet", chat_format, skip_bad_rows=True)

    for leaf in ("question", "image.bytes"):
        damaged = bytearray(whole.read_bytes())
        start = column_start(whole, leaf)
        damaged[start : start + 40] = b"\xff" * 40  # the page's header
        (tmp_path / f"{leaf}.parquet").write_bytes(damaged)
    message = error_of(tmp_path / "question.parquet", chat_format, skip_bad_rows=True)
    assert "cannot be read to its end" in message and "download or make the file again" in message
    index = open_fixture(tmp_path / "image.bytes.parquet", chat_format)  # the index leaves images where they are
    loader = make_loader(index, global_batch=4, pack_tokens=4096, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=1)
    with pytest.raises(UserError, match="image.bytes.parquet: cannot be read to its end") as caught:
        next(loader)
    assert "\n" not in str(caught.value)

    import pyarrow.parquet

    pyarrow.parquet.ParquetWriter(tmp_path / "empty.parquet", pyarrow.parquet.read_schema(whole)).close()
    assert "it holds no row" in error_of(tmp_path / "empty.parquet", chat_format)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_a_parquet_row_group(tmp_path: Path) -> None:
    """Files whose one row group holds 60 and 360 MB of images: indexed and read, both in about the same memory."""
    code = """
import random, sys
import sources
source = sources.open_source(sys.argv[1])
places = [(offset, length) for _, offset, length, _ in source.scan()]
for offset, length in [places[-1], *random.Random(0).sample(places, 3)]:
    assert len(source.read_row(offset, length)["image"]["bytes"]) == 60_000
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peaks = []
    for copies in (1, 6):
        rows = [
            {"question": "1?", "answer": "1", "image": {"bytes": random.Random(n).randbytes(60_000), "path": ""}}
            for n in range(1000)
        ] * copies
        path = write_parquet(tmp_path / f"{copies}.parquet", rows, use_dictionary=False, compression="none")
        assert path.stat().st_size > copies * 60_000_000
        run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout) / 1024)

    assert peaks[1] - peaks[0] < 150, peaks


def test_a_replaced_file_is_another_file(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"query": "1?", "response": "one"}])
    assert open_fixture(path, chat_format).read(0)[0][1].text == "one"
    write_lines(tmp_path / "b.jsonl", [{"query": "2?", "response": "two, longer"}]) and (tmp_path / "b.jsonl").replace(
        path
    )
    assert open_fixture(path, chat_format).read(0)[0][1].text == "two, longer"


def test_a_file_that_changes_under_the_run_is_said(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"query": "1?", "response": "one"}, {"query": "2?", "response": "two"}])
    rows = open_fixture(path, chat_format)
    write_lines(tmp_path / "a.jsonl", [{"query": "a longer first line?", "response": "one"}])
    with pytest.raises(UserError, match="a.jsonl: the file has changed since this run began; restart it"):
        rows.read(1)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize("how", ["replaced", "edited"])
@pytest.mark.parametrize("was_read", [False, True])
def test_other_rows_of_the_same_size_are_never_served(
    name: str, how: str, was_read: bool, tmp_path: Path, chat_format: ChatFormat
) -> None:
    """A file that was replaced keeps its old rows where it is open; else, and where it was edited, the run ends."""
    old, new = ([{"query": f"{n} + {number}?", "response": f"{n}"} for n in range(9)] for number in (1, 2))
    path, other = tmp_path / name, tmp_path / "other" / name
    other.parent.mkdir()
    for file, content in ((path, old), (other, new)):
        write_parquet(file, content) if name.endswith("parquet") else write_as(file, content)
    assert path.stat().st_size == other.stat().st_size
    rows = open_fixture(path, chat_format)
    if was_read:
        assert rows.read(3)[0][0].text == "3 + 1?"
    if how == "edited":
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    if was_read and how == "replaced" and not name.endswith("parquet"):
        assert rows.read(4)[0][0].text == "4 + 1?"
    else:
        with pytest.raises(UserError, match=f"{name}: the file has changed since this run began"):
            rows.read(4)


def test_the_index_covers_all_that_was_read(tmp_path: Path, chat_format: ChatFormat) -> None:
    """The whole content of a data file, names and sizes of the pictures; when these were written, apart."""
    draw_image(tmp_path / "a.png"), draw_image(tmp_path / "b.png")
    rows = [{"query": f"{n}?", "response": "a", "image": "ab"[n % 2] + ".png", "id": "x" * 1500} for n in range(2000)]
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

GOOD = {"query": "1 + 1?", "response": "2"}
PAIR = {"image_url": "", "instruction": "q", "output": "a", "image_url_2": "", "instruction_2": "q2", "output_2": "a"}
BAD_ROWS = [json.loads(line) for line in (FIXTURES.parent / "bad_rows.jsonl").read_text().splitlines()]
BAD_ROWS += [{"pairs": False, "row": "[" * 100_000, "reason": "broken JSON", "detail": "RecursionError"}]


@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: case["reason"])
def test_bad_row_is_one_clear_line_or_counted(case: dict, tmp_path: Path, chat_format: ChatFormat) -> None:
    row, reason, detail, pairs = (case[key] for key in ("row", "reason", "detail", "pairs"))
    (tmp_path / "folder").mkdir()
    good = PAIR if pairs else GOOD
    path = tmp_path / "data.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in (good, row, good)))
    message = error_of(path, chat_format, pairs)
    assert message.startswith(f"{path}:2: ") and detail in message and len(message) < 500
    rows = open_fixture(path, chat_format, pairs, skip_bad_rows=True)
    assert len(rows) == 2 and dropped_from(rows) == [{reason: 1}]
    assert f"dropped: {reason} 1" in rows.summary()


@pytest.mark.parametrize("key", ["image_2", "image_url2", "img_url_2", "imgae_url_2", "Image_url_2", "picture"])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_misspelt_image_key_does_not_train_as_text(
    key: str, pairs: bool, tmp_path: Path, chat_format: ChatFormat
) -> None:
    row = {**PAIR, key: "a.png", "image_id": 7, "image_size": [4, 4], "img_note": ""}
    del row["image_url_2"]
    path = write_lines(tmp_path / "a.jsonl", [row, PAIR])
    assert f"a.jsonl:1: unknown key '{key}'; write image_url" in error_of(path, chat_format, pairs)
    assert dropped_from(open_fixture(path, chat_format, pairs, skip_bad_rows=True)) == [{"unknown key": 1}]
    single = {"instruction": "q", "output": "a", key: "a.png"}
    assert f"unknown key '{key}'" in error_of(write_lines(tmp_path / "b.jsonl", [single]), chat_format)


def test_not_utf8_line(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"query": "\xff\xfe", "response": "a"}\n' + json.dumps(GOOD).encode())
    assert f"{path}:1: the line is not JSON (UnicodeDecodeError" in error_of(path, chat_format)
    assert len(open_fixture(path, chat_format, skip_bad_rows=True)) == 1


def test_bad_files(tmp_path: Path, chat_format: ChatFormat) -> None:
    assert "no such file" in error_of(tmp_path / "none.jsonl", chat_format)
    (tmp_path / "a.csv").write_text("a,b")
    assert "unknown file type '.csv'" in error_of(tmp_path / "a.csv", chat_format)
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty" in error_of(tmp_path / "empty.jsonl", chat_format)
    (tmp_path / "blank.jsonl").write_text("\n \n")
    assert "no usable row" in error_of(tmp_path / "blank.jsonl", chat_format)
    (tmp_path / "text.json").write_text('"hello"')
    assert "a list of rows or an object of rows" in error_of(tmp_path / "text.json", chat_format)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 99)[:-20])
    assert "download or make the file again" in error_of(tmp_path / "cut.jsonl.gz", chat_format)
    (tmp_path / "no.json.gz").write_bytes(b"not gzip at all")
    assert "cannot be" in error_of(tmp_path / "no.json.gz", chat_format)
    (tmp_path / "short.jsonl").write_text(json.dumps(GOOD))
    message = error_of(tmp_path / "short.jsonl", chat_format, max_length=5)
    assert "no usable row: longer than 5 tokens 1" in message
    path = write_lines(tmp_path / "all_bad.jsonl", ["{", "}"])
    message = error_of(path, chat_format, skip_bad_rows=True)
    assert "no usable row: broken JSON 2" in message and ":1: the line is not JSON" in message


@pytest.mark.parametrize("name", ["dense.json", "ids.json", "wide.json"])
@pytest.mark.parametrize("end", ["", "}", "]", '"', ', {"query": tru'])
def test_json_array_that_breaks_off(name: str, end: str, tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_as(tmp_path / name, ROWS[:3])
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("response") + 15] + end)
    assert f"{path}:3: the file is not JSON from here on" in error_of(path, chat_format)
    rows = open_fixture(path, chat_format, skip_bad_rows=True)
    assert len(rows) == 2 and dropped_from(rows) == [{"broken JSON, rest of the file unread": 1}]


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
        rows = [{"query": "q", "response": "a", "image": file} for file in ("good.png", name, "good.png")]
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
            path = write_lines(tmp_path / "a.jsonl", [{"query": "q", "response": "a", "image": f"{name}.png"}])
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
    path = write_lines(data / "a.jsonl", [{"query": "q", "response": "a", "image": image} for image in images])
    rows = open_fixture(path, chat_format)
    assert len(rows) == len(images)
    assert f"    pictures outside of {data}: 6 rows, in {far} (3), {near}/b (3)" in rows.summary().splitlines()
    inside = write_lines(tmp_path / "b.jsonl", [{"query": "q", "response": "a", "image": "data/folder/c.png"}])
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


def damage(generator: random.Random, value: object) -> object:
    """The value with one thing in it broken."""
    junk = [
        None, 0, -1.5, True, "", " ", [], {}, [None], "<image>", "\ud800", "\0", "<|im_end|>", ["a.png", 3], "x" * 9000
    ]
    if isinstance(value, dict) and value and generator.random() < 0.8:
        key = generator.choice(list(value))
        change = generator.random()
        if change < 0.2:
            return {k: v for k, v in value.items() if k != key}
        if change < 0.3:
            return {**value, key + "_": value[key]}
        return {**value, key: damage(generator, value[key])}
    if isinstance(value, list) and value and generator.random() < 0.7:
        index = generator.randrange(len(value))
        if generator.random() < 0.3:
            return value[:index] + value[index + 1 :]
        return value[:index] + [damage(generator, value[index])] + value[index + 1 :]
    return generator.choice(junk)


def fuzzed_lines(count: int, seed: int) -> list[bytes]:
    generator = random.Random(seed)
    seeds = []
    for name in DIALECTS:
        text = (FIXTURES / name).read_text()
        rows = (json.loads(text)
                if text.startswith("[")
                else [json.loads(line) for line in text.splitlines()]
                if name[-1] == "l"
                else [])
        seeds += rows
    lines = []
    for _ in range(count):
        row = generator.choice(seeds)
        for _ in range(generator.randint(1, 3)):
            row = damage(generator, row)
        line = bytearray(json.dumps(row, ensure_ascii=True).encode())
        if generator.random() < 0.3:
            for _ in range(generator.randint(1, 4)):
                line[generator.randrange(len(line))] = generator.randrange(256)
        lines.append(bytes(line).replace(b"\n", b" "))
    return lines


@pytest.mark.parametrize("pairs", [False, True])
def test_malformed_rows_are_counted_without_a_traceback(pairs: bool, tmp_path: Path, chat_format: ChatFormat) -> None:
    lines = fuzzed_lines(5000, seed=pairs)
    (tmp_path / "fuzz.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    rows = open_fixture(tmp_path / "fuzz.jsonl", chat_format, pairs, skip_bad_rows=True, image_root=str(FIXTURES),
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
