"""Every container gives its rows as a stream; what cannot be read is named with its remedy."""

import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import pytest
from data_helpers import draw_image, write_lines
from growth import growth

from augment import containers
from augment.containers import count, files, pieces, rows, size
from errors import UserError
from sources import BadRow, open_image

ROWS = [{"query": f"{n} + 1? é∑", "response": f'It is {n + 1}.\n{{["x"]}}, {"y" * (n % 7)}'} for n in range(150)]
NEEDS_PYARROW = "pyarrow is not installed (it is no requirement): pip install pyarrow"


def read(path: object) -> list[dict | BadRow]:
    """The rows of a file, whose numbers rise and whose count is told."""
    found = list(rows(str(path)))
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers)) and count(str(path)) == len(found)
    return [row for _, row in found]


def error_of(path: object) -> str:
    """The UserError's message: one line that begins with the file."""
    with pytest.raises(UserError) as caught:
        list(rows(str(path)))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value)


def reasons(found: list) -> list[str | None]:
    return [row.reason if isinstance(row, BadRow) else None for row in found]


# ----------------------------------------------------------------------------------------------------------------------
# JSON


def write_as(path: Path, content: list[dict]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(("jsonl", "ndjson")):  # blank lines, no last newline
        text = "\n\n".join(json.dumps(row, ensure_ascii=len(row["query"]) % 2 == 0) for row in content)
    elif name == "ids.json":
        text = json.dumps({f"id {n}": row for n, row in enumerate(content)}, ensure_ascii=False, indent=1)
    elif name == "lines.json":
        text = "\r\n".join(map(json.dumps, content))
    elif name == "data.json":
        text = json.dumps({"info": {"year": 2024}, "tags": ["a"], "data": content, "version": "1.0"})
    elif name == "train.json":
        text = json.dumps({"test": content[:2], "train": content, "val": [{"x": 1}]}, indent=1)
    elif name == "pretty.json":
        text = "\n".join(json.dumps(row, indent=2) for row in content)
    elif name == "glued.json":
        text = "".join(map(json.dumps, content))
    elif name == "lists.json":
        text = json.dumps(content[:70]) + "\n" + json.dumps(content[70:])
    else:
        text = "\ufeff" + json.dumps(content, ensure_ascii=False, indent=2 if name == "wide.json" else None)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


LAYOUTS = ["a.jsonl", "a.ndjson", "dense.json", "dense.jsonl", "wide.json", "ids.json", "lines.json", "data.json",
           "train.json", "pretty.json", "glued.json", "lists.json"]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_every_layout_of_json_gives_the_same_rows(name: str, gz: str, tmp_path: Path) -> None:
    path = write_as(tmp_path / (name + gz), ROWS)
    if name == "dense.jsonl":
        path.write_bytes(write_as(tmp_path / ("dense.json" + gz), ROWS).read_bytes())
    assert read(path) == ROWS
    assert 0.5 < size(str(path)) / len(json.dumps(ROWS, ensure_ascii=False).encode()) < 2


def test_lines_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["", ROWS[0], "  ", "{broken", ROWS[1], "[1]"])
    found = list(rows(path))
    assert [number for number, _ in found] == [2, 4, 5, 6]
    assert reasons([row for _, row in found]) == [None, "broken JSON", None, "not a row"] and count(path) == 4


def test_which_splits_of_a_file_are_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    read(write_as(tmp_path / "train.json", ROWS))
    assert "train.json: reads the rows under 'train'; left out: 'val'" in capsys.readouterr().err
    for content, what in (({"test": ROWS}, "its rows stand under 'test'"),
                          ({"easy": ROWS, "hard": ROWS}, "rows stand under 'easy' and under 'hard'")):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert what in error_of(tmp_path / "a.json")


def test_a_row_alone_is_a_row(tmp_path: Path) -> None:
    """An object that holds a list of objects is no file of rows if these are turns, options or parts of one."""
    for row in ({"id": "1", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
                {"talk": [{"role": "user", "content": "q"}]}, {"question": "q", "choices": [{"a": "1"}, {"b": "2"}]},
                {"query": "q", "response": float("inf")}):
        for name, text in (("a.json", json.dumps(row)), ("b.json", json.dumps(row, indent=1) * 2)):
            (tmp_path / name).write_text(text)
        assert read(tmp_path / "a.json") == [row] and read(tmp_path / "b.json") == [row, row]


@pytest.mark.parametrize("rest", ["x", "}", "]", '"text"', ", 1", "\0", "1e5"])
def test_a_file_that_goes_on_behind_its_rows_is_said(rest: str, tmp_path: Path) -> None:
    for name in ("dense.json", "ids.json", "data.json", "pretty.json"):
        path = write_as(tmp_path / name, ROWS)
        path.write_text(path.read_text() + "\n" + rest)
        found = read(path)
        assert found[:150] == ROWS and reasons(found[150:]) == ["the file goes on after its rows"]


@pytest.mark.parametrize("name", ["dense.json", "ids.json", "wide.json", "data.json", "pretty.json", "lists.json"])
@pytest.mark.parametrize("end", ["", "}", "]", '"', ', {"query": tru'])
def test_json_that_breaks_off(name: str, end: str, tmp_path: Path) -> None:
    path = write_as(tmp_path / name, ROWS[:3])
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("response") + 15] + end)
    found = read(path)
    assert found[:2] == ROWS[:2] and reasons(found[2:]) == ["broken JSON, rest of the file unread"]


def test_large_json_is_read_through_a_window(tmp_path: Path) -> None:
    large = [{"query": f"{n}", "response": "é" * (n * 40_001 % 1_500_000)} for n in range(8)]
    for name in ("dense.json", "ids.json", "data.json", "glued.json"):
        assert read(write_as(tmp_path / name, large)) == large


def test_a_row_beyond_all_measure_is_dropped_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "MAX_ROW", 1000)
    path = write_lines(tmp_path / "a.jsonl", [{"a": "x" * 999 * n} for n in (0, 1, 7, 0)] + ["z" * 1000])
    assert reasons(read(path)) == [None, "row too long", "row too long", None, "row too long"]
    (tmp_path / "a.json").write_text(json.dumps({str(n): n for n in range(400)}))
    assert reasons(read(tmp_path / "a.json")) == ["broken JSON, rest of the file unread"]


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["[", '{"a":', " ", '{"a":[{"b":1},', '["\\\\', "[[],", '{"a":1}', '{"a":{},'])
def test_time_grows_with_the_file_alone(piece: str) -> None:
    def read_all(text: str) -> None:
        try:
            for _ in containers._values(containers._Window(io.BytesIO(text.encode())), "a.json"):
                pass
        except UserError:  # a file that begins so
            pass

    for opening in ("", "[", '{"data": ['):
        assert growth(read_all, lambda size, opening=opening: opening + piece * (size // len(piece)), 0.05) <= 2.6


def test_deeply_nested_json(tmp_path: Path) -> None:
    deep = '{"x": ' + "[" * 800 + "]" * 800 + "}"
    too_deep = "[" * 100_000
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(f"{deep}\n{too_deep}\n{deep}".encode()))
    assert reasons(read(tmp_path / "a.jsonl.gz")) == [None, "broken JSON", None]
    (tmp_path / "a.json").write_text(f"[{deep}, {too_deep}")
    assert reasons(read(tmp_path / "a.json")) == [None, "broken JSON, rest of the file unread"]


def test_encodings(tmp_path: Path) -> None:
    text = json.dumps(ROWS, ensure_ascii=False)
    (tmp_path / "a.json").write_bytes('[{"query": "é?", "response": "ü"}]'.encode("latin-1"))
    assert "cannot be read to its end ('utf-8' codec" in error_of(tmp_path / "a.json")
    assert "convert it to UTF-8" in error_of(tmp_path / "a.json")
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        for name in ("a.json", "b.jsonl"):
            (tmp_path / name).write_bytes(text.encode(codec))
            assert "iconv -f UTF-16 -t UTF-8" in error_of(tmp_path / name)
    (tmp_path / "a.jsonl").write_bytes("".join(json.dumps(row) + "\r\n" for row in ROWS).encode("utf-8-sig"))
    assert read(tmp_path / "a.jsonl") == ROWS
    write_lines(tmp_path / "c.jsonl", [ROWS[0]] * 2)
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "c.jsonl").read_bytes() + b'{"query": "\xff\xfe"}\n')
    assert reasons(read(tmp_path / "c.jsonl")) == [None, None, "broken JSON"]


def test_files_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.jsonl")
    for name, remedy in [
        ("a.zip", "unpack it"), ("a.7z", "unpack it"), ("a.tar.gz", "unpack it"), ("a.tgz", "unpack it"),
        ("a.jsonl.zst", "unpack it"), ("a.csv", "frame.to_json"), ("a.csv.gz", ".csv"), ("a.xlsx", "frame.to_json"),
        ("a.pkl", "any code"), ("a.parquet.gz", "unpack it"), ("a.docx", "unknown file type '.docx'"), ("a", "(none)")
    ]:
        (tmp_path / name).write_bytes(b"x")
        assert remedy in error_of(tmp_path / name)
    for start, what in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"), (b"PK\3\4", "zip"),
        (b"PAR1\1", "name it .parquet"), (gzip.compress(b"{}"), "name it .gz"), (b"\n<!DOCTYPE html>", "a web page")
    ]:
        for name in ("b.json", "b.jsonl"):
            (tmp_path / name).write_bytes(start)
            assert what in error_of(tmp_path / name)
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty" in error_of(tmp_path / "empty.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "none.json").write_text("[]")
    assert read(tmp_path / "blank.jsonl") == read(tmp_path / "none.json") == []
    (tmp_path / "text.json").write_text('"hello"')
    assert "a list of rows or an object of rows" in error_of(tmp_path / "text.json")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode() * 9)[:-20])
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode())[:-20])
    (tmp_path / "no.json.gz").write_bytes(b"not gzip at all")
    for name in ("cut.jsonl.gz", "cut.json.gz", "no.json.gz"):
        assert "download or make the file again" in error_of(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in error_of(tmp_path / "pipe.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_line(tmp_path: Path) -> None:
    path = Path(write_lines(tmp_path / "a.jsonl", ROWS))
    path.chmod(0)
    assert "Permission denied" in error_of(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_sparse_file_of_gigabytes_fills_no_memory(tmp_path: Path) -> None:
    code = """
import sys
from augment.containers import rows
print([row.reason for _, row in rows(sys.argv[1])])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    path = write_lines(tmp_path / "a.jsonl", ["{x"])
    with open(path, "ab") as file:
        file.truncate(600 << 20)
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    told, peak = run.stdout.splitlines()
    assert told == "['broken JSON', 'row too long']" and int(peak) < 400_000


# ----------------------------------------------------------------------------------------------------------------------
# Tables


def write_parquet(path: Path, content: list[dict], **options: object) -> Path:
    """Rows as a parquet file; skips the test, visibly, without pyarrow."""
    pytest.importorskip("pyarrow", reason=NEEDS_PYARROW)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path, **options)
    return path


def write_arrow(path: Path, content: list[dict], stream: bool) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason=NEEDS_PYARROW)
    table = pyarrow.Table.from_pylist(content)
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    return path


def with_pictures(tmp_path: Path, number: int = 40) -> list[dict]:
    png = draw_image(tmp_path / "a.png").read_bytes()
    return [{"question": f"{n}?", "answer": f"{n}", "image": {"bytes": png, "path": "a.png"} if n % 3 else None}
            for n in range(number)]


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # importing it fails
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(b"PAR1")
        assert "pip install pyarrow" in error_of(tmp_path / name)


def test_tables_give_their_rows_whatever_their_groups(tmp_path: Path) -> None:
    content = with_pictures(tmp_path)
    assert read(write_parquet(tmp_path / "small.parquet", content, row_group_size=7)) == content
    assert read(write_parquet(tmp_path / "one_group.parquet", content)) == content
    assert read(write_arrow(tmp_path / "file.arrow", content, stream=False)) == content
    assert read(write_arrow(tmp_path / "stream.arrow", content, stream=True)) == content
    text = [{"problem": f"{n}?", "solution": f"{n}", "bytes": b"\x00"} for n in range(9000)]
    assert read(write_parquet(tmp_path / "large.parquet", text)) == text
    assert [len(piece) for piece in pieces(str(tmp_path / "large.parquet"))] == [4096, 4096, 808]


def test_short_floats_are_the_numbers_that_they_mean(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"answer": pyarrow.array([0.1, None, 2.5], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [row["answer"] for row in read(tmp_path / "a.parquet")] == [0.1, None, 2.5]


def test_wanted_rows_alone_are_kept(tmp_path: Path) -> None:
    content = with_pictures(tmp_path, 100)
    path = write_parquet(tmp_path / "a.parquet", content, row_group_size=9)
    lines = write_lines(tmp_path / "a.jsonl", [{"n": n} for n in range(100)])
    for file, expected in ((str(path), content), (lines, [{"n": n} for n in range(100)])):
        wanted = (n % 10 == 3 for n in range(100))
        found = [pair for piece in pieces(file, wanted) for pair in piece.rows()]
        assert found == [(n + 1, expected[n]) for n in range(3, 100, 10)]


def test_a_value_that_cannot_be_read_spoils_its_row_alone(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason=NEEDS_PYARROW)
    texts = pyarrow.array([b"one", b"\xff\xfe", b"three"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    assert reasons(read(tmp_path / "a.parquet")) == [None, "row unreadable", None]
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "b.parquet")
    assert "two columns are named 'a'" in error_of(tmp_path / "b.parquet")


def column_start(path: Path, leaf: str) -> int:
    """Where the first page of a column lies in the file."""
    import pyarrow.parquet

    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == leaf)
    return column.dictionary_page_offset or column.data_page_offset


def test_damaged_tables_are_one_line(tmp_path: Path) -> None:
    content = with_pictures(tmp_path)
    whole = write_parquet(tmp_path / "whole.parquet", content)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "pointer.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-30])
    for name in ("broken", "cut"):
        assert "not a parquet file" in error_of(tmp_path / f"{name}.parquet")
    assert "a pointer to a file in Git LFS; fetch the file itself" in error_of(tmp_path / "pointer.parquet")
    for leaf in ("question", "image.bytes"):
        damaged = bytearray(whole.read_bytes())
        start = column_start(whole, leaf)
        damaged[start : start + 40] = b"\xff" * 40  # the page's header
        (tmp_path / f"{leaf}.parquet").write_bytes(damaged)
        assert "cannot be read to its end" in error_of(tmp_path / f"{leaf}.parquet")
    for stream in (True, False):
        data = write_arrow(tmp_path / "a.arrow", content, stream).read_bytes()
        for end in (len(data) - 8, len(data) // 2, 5):
            (tmp_path / "cut.arrow").write_bytes(data[:end])
            assert "download or make the file again" in error_of(tmp_path / "cut.arrow")

    import pyarrow.parquet

    pyarrow.parquet.ParquetWriter(tmp_path / "empty.parquet", pyarrow.parquet.read_schema(whole)).close()
    assert read(tmp_path / "empty.parquet") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_a_parquet_row_group(tmp_path: Path) -> None:
    """Files whose one row group holds 60 and 360 MB of pictures are read in about the same memory."""
    code = """
import sys
from augment.containers import rows
assert all(len(row["image"]["bytes"]) == 60_000 for _, row in rows(sys.argv[1]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peaks = []
    for copies in (1, 6):
        content = [{"question": "1?", "image": {"bytes": random.Random(n).randbytes(60_000), "path": ""}}
                   for n in range(1000)] * copies
        path = write_parquet(tmp_path / f"{copies}.parquet", content, use_dictionary=False, compression="none")
        assert path.stat().st_size > copies * 60_000_000
        run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout) / 1024)

    assert peaks[1] - peaks[0] < 150, peaks  # what the allocator keeps; 1 GB takes no more


# ----------------------------------------------------------------------------------------------------------------------
# Webdataset


def write_tar(path: Path, members: list[tuple[str, bytes]], **links: str) -> Path:
    """A .tar of (name, data) members, then symbolic links name=target."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def test_a_webdataset_is_read_in_place(tmp_path: Path) -> None:
    png, jpg = (draw_image(tmp_path / name, seed).read_bytes() for seed, name in enumerate(("a.png", "a.jpg")))
    path = write_tar(tmp_path / "a.tar", [
        ("./s/000.png", png), ("./s/000.json", b'{"question": "q", "answer": "a", "image": "x/000.png"}'),
        ("001.question.txt", "1é?".encode()), ("001.answer.txt", b"\xef\xbb\xbf1"), ("._001.png", b"of macOS"),
        ("002.0.jpg", jpg), ("002.1.PNG", png), ("002.txt", b"two"), ("003.json", b'{"id": "own", "messages": []}')
    ])
    one, two, three, four = read(path)
    assert one.pop("image").keys() == {"file", "offset", "length"}
    assert one == {"id": "./s/000", "question": "q", "answer": "a"}
    assert two == {"id": "001", "question": "1é?", "answer": "1"}
    assert three["text"] == "two" and four == {"id": "own", "messages": []}
    with open(path, "rb") as file:
        for place, data in zip(three["images"], (jpg, png), strict=True):
            assert place["file"] == str(path) and os.pread(file.fileno(), place["length"], place["offset"]) == data
    assert [open_image(place, "elsewhere").size for place in three["images"]] == [(120, 80)] * 2
    assert size(str(path)) < path.stat().st_size / 2


def test_a_webdataset_may_name_pictures_that_lie_elsewhere(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a", "image": "x/0.png"}, {"question": "q", "answer": "a", "images": 5},
            {"question": "q", "answer": "a", "images": ["x/0.png", None, {"path": "x/0.png"}]}]
    path = write_tar(tmp_path / "a.tar", [(f"{n}.json", json.dumps(row).encode()) for n, row in enumerate(rows)])
    assert [{**row, "id": None} for row in read(path)] == [{"id": None, **row} for row in rows]
    assert 0 < size(str(path)) <= path.stat().st_size


def test_members_that_cannot_be_used_spoil_their_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_ROW", 1000)
    whole = b'{"question": "q", "answer": "a"}'
    path = write_tar(tmp_path / "a.tar", [
        ("/etc/0.json", whole), ("1.json", b"{"), ("2.json", b"[1]"), ("3.json", b" " * 2000), ("4.json", whole),
        ("4.wav", b"x"), ("5.txt", b"\xff"), ("6.json", b'{"images": ["a.png", "b.png"]}'), ("6.png", b"x"),
        ("../../7.json", whole), ("8.json", whole)
    ], _8_png="/etc/passwd", a="b")
    with open(path, "rb") as file:
        assert file.read(10) == b"/etc/0.jso"
    assert reasons(read(path)) == [
        None, "broken JSON", "not a row", "row too long", "a member of unknown kind", "broken text",
        "pictures and members differ", None, None, "a link in a tar"]


def test_damaged_tars_are_one_line(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.txt", b"x" * 600) for n in range(9)])
    data = path.read_bytes()
    for damaged in (data[:4 * 1536], data[:4 * 1536 + 700], data[:4 * 1536 + 300], data[:300], b"x" * 2000,
                    data[:4 * 1536] + b"x" * 512 + data[4 * 1536 + 512 :], data + data):
        path.write_bytes(damaged)
        assert "download or make the file again" in error_of(path)


def test_memory_does_not_grow_with_a_tar(tmp_path: Path) -> None:
    import tracemalloc

    path = write_tar(tmp_path / "a.tar", [(f"{n:06d}.json", b'{"question": "q"}') for n in range(6000)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows(str(path))) == 6000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------------------------------------------------------------
# Folders and the hub


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for number, name in enumerate(("b.jsonl", "a.json", "c.jsonl.gz")):
        write_as(tmp_path / name, ROWS[number * 50 : number * 50 + 50])
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.json").write_text("[]")
    found = [row for _, row in rows(str(tmp_path))]
    assert found == ROWS[50:100] + ROWS[:50] + ROWS[100:]
    places = [piece.place(number) for piece in pieces(str(tmp_path)) for number in piece.numbers]
    assert places[49:52] == [f"{tmp_path}/a.json:50", f"{tmp_path}/b.jsonl:1", f"{tmp_path}/b.jsonl:3"]
    read(tmp_path)
    write_as(tmp_path / "b.json", ROWS)
    assert "b is there as more than one kind of file" in error_of(tmp_path)
    (tmp_path / "b.json").write_text("")
    (tmp_path / "c.jsonl.gz").unlink()
    with pytest.raises(UserError, match="no data file in this folder"):
        (tmp_path / "none").mkdir()
        files(str(tmp_path / "none"))


def test_of_several_splits_train_is_read_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    (tmp_path / "snapshot" / "dataset_infos.json").write_text("{}")
    for number, name in enumerate(("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-0.jsonl",
                                   "validation-0.jsonl")):
        write_as(tmp_path / "snapshot" / "data" / name, ROWS[number : number + 1])
    assert read(tmp_path / "snapshot") == ROWS[:2]
    said = capsys.readouterr().err
    assert "reads 2 files of the split train; left out: data/test-0.jsonl, data/validation-0.jsonl" in said
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"):
        (tmp_path / "snapshot" / "data" / name).unlink()
    assert "holds test, validation and no split to train on" in error_of(tmp_path / "snapshot")
    (tmp_path / "geometry(val)").mkdir()  # the name of a subset says nothing
    write_as(tmp_path / "geometry(val)" / "train-0.jsonl", ROWS)
    assert read(tmp_path / "geometry(val)") == ROWS


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    content = with_pictures(tmp_path)
    table = datasets.Dataset.from_list(content).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "one", num_shards=3)
    assert [row["question"] for row in read(tmp_path / "one")] == [row["question"] for row in content]
    assert [row["image"] for row in read(tmp_path / "one")] == [row["image"] for row in content]
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "both")
    assert len(read(tmp_path / "both")) == 40 and "left out: test" in files(str(tmp_path / "both"))[1]
    datasets.DatasetDict(test=table).save_to_disk(tmp_path / "test")
    assert "no split is named train, only test" in error_of(tmp_path / "test")
    next((tmp_path / "one").glob("data-00001*")).unlink()
    assert "data-00001-of-00003.arrow: no such file" in error_message(tmp_path / "one")


def error_message(path: object) -> str:
    with pytest.raises(UserError) as caught:
        list(rows(str(path)))
    return str(caught.value)


def test_a_name_of_the_hub_is_read_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` as far as it is used."""

    class Builder:
        hash = "1234"

        def __init__(self, name: str):
            if name != "some-org/some.set":
                raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub\nor cannot be accessed")
            self.info = types.SimpleNamespace(splits={"train": types.SimpleNamespace(num_examples=150, num_bytes=9)})

        def as_streaming_dataset(self, split: str) -> object:
            shown = ROWS if split == "train" else ROWS[:5]
            return types.SimpleNamespace(features=["query"], decode=lambda decode: [] if decode else list(shown))

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset_builder=Builder))
    assert read("some-org/some.set") == ROWS == [row for _, row in rows("some-org/some.set:train")]
    assert len(list(rows("some-org/some.set:test"))) == 5
    assert size("some-org/some.set") == 9 and size("some-org/some.set:test") != size("some-org/some.set:test")  # NaN
    with pytest.raises(UserError, match="how many rows it has is not known"):
        count("some-org/some.set:test")
    assert "(FileNotFoundError: Dataset 'some-org/other' doesn't exist on the Hub or" in error_of("some-org/other")
    for name in ("a/b.jsonl", "a/b/c", "b", "a/b.zip", "a/b.json.gz"):
        assert not containers.is_hub_name(name)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "no such file; for a data set of the Hugging Face hub: pip install datasets" in error_of("some-org/some.set")


def test_rows_that_hold_lists_of_objects_are_rows(tmp_path: Path) -> None:
    row = {"question": "q?", "answer": "a", "examples": [{"question": "e?", "answer": "b"}], "metadata": [{"k": 1}]}
    lines, pretty = tmp_path / "lines.json", tmp_path / "pretty.json"
    lines.write_text("\n".join(json.dumps({**row, "id": n}) for n in range(3)))
    pretty.write_text(json.dumps(row, indent=1) * 2)
    assert [found for _, found in containers.rows(str(lines))] == [{**row, "id": n} for n in range(3)]
    assert [found for _, found in containers.rows(str(pretty))] == [row] * 2
    pretty.write_text(json.dumps({"examples": row["examples"] * 2, "question": "q?"}, indent=1))
    with pytest.raises(UserError, match="'question' stands beside the rows under 'examples'"):
        list(containers.rows(str(pretty)))


def test_pictures_of_a_tar_stand_in_the_order_of_their_row(tmp_path: Path) -> None:
    """A tar has them by name: 10 before 2, and a.png before b.png where the row says b, a."""
    def places(*members: tuple[str, bytes]) -> list[bytes]:
        path = write_tar(tmp_path / "a.tar", list(members))
        [(_, row)] = containers.rows(str(path))
        return [path.read_bytes()[p["offset"] : p["offset"] + p["length"]] for p in row["images"]]

    named = b'{"images": ["x/b.png", "a.png"], "question": "<image> or <image>?"}'
    assert places(("1.a.png", b"A"), ("1.b.png", b"B"), ("1.json", named)) == [b"B", b"A"]
    assert places(("1.1.png", b"1"), ("1.10.png", b"10"), ("1.2.png", b"2"), ("1.json", b"{}")) == [b"1", b"2", b"10"]
    path = write_tar(tmp_path / "b.tar", [("1.c.png", b"C"), ("1.d.png", b"D"), ("1.json", named)])
    [(_, bad)] = containers.rows(str(path))
    assert isinstance(bad, BadRow) and bad.reason == "pictures and members differ"
    path = write_tar(tmp_path / "c.tar", [("1.json", b'{"image": "x/a.png", "question": "q"}')])
    assert containers.size(str(path)) > 0


def test_files_below_a_folder_that_are_not_read_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.jsonl", "below/b.jsonl"):
        (tmp_path / name).write_text('{"question": "q", "answer": "a"}\n')
    assert len(list(containers.rows(str(tmp_path)))) == 1
    assert "left out: below/b.jsonl" in capsys.readouterr().err
