"""augment_data.py from public folders to training files: reading, refusing, resuming, the same bytes everywhere."""

import gzip
import hashlib
import io
import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment import blocks, recipe, report
from benchmarks import question_hash
from common import shards
from errors import UserError
from llm_server import Server, completion

ROOT = Path(__file__).parents[2]
SETS = Path(__file__).parent / "public_sets"
GEO = SETS / "Geo170K" / "qa_tuning.json"


def command(out, *flags, stage=2, data=GEO, image_root=SETS / "Geo170K" / "images"):
    return [sys.executable, str(ROOT / "augment_data.py"), "--stage", str(stage), "--data", str(data), "--image_root",
            str(image_root), "--out_dir", str(out), *map(str, flags)]


def make(out, *flags, workers=1, **options):
    """What the script does, in this process: (rows, counts)."""
    arguments = command(out, *flags, **options)[2:]
    sys.argv, before = ["augment_data.py", *arguments], sys.argv
    try:
        import augment_data

        plan = recipe.make_plan(augment_data.parse_arguments())
    finally:
        sys.argv = before
    with shards.told_in_one_line(out):
        blocks.claim(plan, str(out))
        blocks.work(plan, str(out), 0, 1, workers)
        manifest = blocks.merge(plan, str(out))
        report.write(plan, str(out), manifest)
    return rows_of(out, plan.stage), manifest["counts"]


def rows_of(out, stage=2):
    with open(Path(out) / f"stage{stage}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def digest(folder):
    """Of every file that matters to a user, by name and bytes; not of the parts and their plan."""
    files = [path for path in sorted(Path(folder).rglob("*.*")) if path.suffix in (".png", ".jpg", ".jsonl")]
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).digest())
            for path in files if "parts" not in path.parts]


def text_problem(number):
    a, b = number % 97 + 2, number % 53 + 3
    question = f"A box holds {a} pens and {b} pencils. How many things are in {number + 200} such boxes?"
    return {"query": question, "response": f"One box holds {a} + {b} = {a + b} things. {number + 200} boxes hold "
            f"{(number + 200) * (a + b)} of them.\nThe answer is: {(number + 200) * (a + b)}"}


# -- the three files


def test_pairs_are_the_problem_and_its_page(tmp_path):
    rows, counts = make(tmp_path, "--expand", 4)
    assert counts["rows read"] == 4 and counts["dropped: answer only"] == 1
    assert len(rows) == 12 == counts["rows written"]
    assert [row["id"] for row in rows[:4]] == [f"qa_tuning.json:1/{variant}" for variant in range(4)]
    source = {row["source"]: row for row in rows if row["methods"] == ["original"]}
    for row in rows:
        assert row["output"] == row["output_2"] and (row["level"], row["level_2"]) == ("original", "rendered")
        assert row["instruction_2"] != row["instruction"]
        assert "picture" in row["instruction_2"] or "image" in row["instruction_2"]
        strong, weak = (Image.open(tmp_path / row[key]) for key in ("image_url", "image_url_2"))
        assert min(strong.size) >= 90 and min(weak.size) >= 120
        assert np.asarray(weak.convert("L")).std() > 8
        assert row["source"] in source and row["seed"] == 0
    original = source["qa_tuning.json:1"]
    assert "angle A = 70.0, angle B = 65.0" in original["instruction"] and "<image>" not in original["instruction"]
    assert original["answer"] == "B" and os.path.samefile(tmp_path / original["image_url"],
                                                          SETS / "Geo170K" / "images" / "geoqa_plus" / "7.png")
    assert all(len(set(row["methods"])) == len(row["methods"]) for row in rows), "a variant has its own changes"
    methods = {method for row in rows for method in row["methods"]}
    assert {"backward", "reworded", "question_first"} & methods and len({row["instruction"] for row in rows}) > 8
    html = (tmp_path / "report.html").read_text()
    assert all(f"<h2>{method}</h2>" in html for method in methods)
    for url in [part.split('"')[0] for part in html.split('src="')[1:]]:
        assert (tmp_path / url).exists()


def test_the_trainer_reads_what_is_written(tmp_path):
    """data.py's own dialect reader takes the pairs; of stage 3, rows of their own for both sides."""
    from sources import STRONG, WEAK, conversations

    rows, _ = make(tmp_path / "pairs", "--expand", 2)
    for row in rows:
        sides = conversations(row, pairs=True)
        assert [side for side, _ in sides] == [STRONG, WEAK]
    singles, counts = make(tmp_path / "singles", stage=3, data=tmp_path / "pairs" / "stage2.jsonl", image_root="")
    assert len(singles) == 2 * len(rows) and counts["rows read"] == len(rows)
    for strong, weak, row in zip(singles[::2], singles[1::2], rows, strict=True):
        assert (strong["instruction"], weak["instruction"]) == (row["instruction"], row["instruction_2"])
        assert weak["id"].endswith("/weak/0") and "instruction_2" not in weak
        for single, key in ((strong, "image_url"), (weak, "image_url_2")):
            assert os.path.samefile(tmp_path / "singles" / single["image_url"], tmp_path / "pairs" / row[key])


def test_stage_1_takes_text_only(tmp_path):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(3)])
    rows, counts = make(tmp_path / "out", "--expand", 2, stage=1, data=f"{data},{GEO}")
    assert counts["dropped: has a picture (stage 1 is text)"] == 4
    assert {row["source"] for row in rows} == {f"text.jsonl:{n}" for n in (1, 2, 3)} and len(rows) == 6
    assert all(row["image_url"] == "" and "instruction_2" not in row for row in rows)


def test_every_variant_names_its_own_changes(tmp_path):
    rows, _ = make(tmp_path, "--expand", 4, "--transform_pages", 1)
    pages = [[method for method in row["methods"] if method.startswith("page ")] for row in rows]
    assert all(1 <= len(page) <= 3 for page in pages) and len({tuple(page) for page in pages}) > 4


def test_a_hint_stays_in_the_prompt_and_out_of_the_page(tmp_path):
    rows, _ = make(tmp_path, data=SETS / "MathV360K" / "train_samples_all_tuning.json",
                   image_root=SETS / "MathV360K" / "data_images")
    hinted = next(row for row in rows if row["instruction"].startswith("Hint:"))
    assert "\nHint: Please answer the question and provide the correct option" in hinted["instruction_2"]
    assert all("Hint" not in row["instruction_2"] for row in rows if not row["instruction"].startswith("Hint:"))


def test_selection_and_counts(tmp_path):
    rows, counts = make(tmp_path / "a", "--select", "image=^(GEOS|Geometry3K|GeoQA\\+|UniGeo)/", stage=3,
                        data=SETS / "MathV360K" / "train_samples_all_tuning.json",
                        image_root=SETS / "MathV360K" / "data_images")
    assert counts["dropped: not selected"] == 1 and len(rows) == 3
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(200)])
    for amount, expected in (("50", 50), ("0.25", 50), ("1k", 200)):
        rows, counts = make(tmp_path / amount, stage=1, data=f"{data}:{amount}")
        assert counts["rows read"] == expected == len(rows)
    assert len({row["source"] for row in rows_of(tmp_path / "50", 1)}) == 50


def test_pictures_embedded_in_parquet_are_read_and_kept(tmp_path):
    """As Hugging Face's Image feature stores them; a JPEG is known by its bytes, whatever its name."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    image, held = Image.open(SETS / "Geo170K" / "images" / "geoqa_plus" / "7.png").convert("RGB"), {}
    for kind in ("PNG", "JPEG"):
        image.save(buffer := io.BytesIO(), kind)
        held[kind] = buffer.getvalue()
    problem = text_problem(3)
    rows = [{"image": {"bytes": held[kind], "path": name}, "question": f"{number}. {problem['query']}",
             "answer": problem["response"]} for number, (kind, name) in enumerate([("PNG", "a.jpg"), ("JPEG", None)])]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for stage, kinds in ((3, ["png", "jpg"]), (2, ["png", "jpg"])):
        written, counts = make(tmp_path / str(stage), "--transform_pages", 0, stage=stage, data=tmp_path / "a.parquet",
                               image_root="")
        assert len(written) == 2 == counts["rows read"], counts
        assert [row["image_url"].rpartition(".")[2] for row in written] == kinds
        for row in written:
            assert np.array_equal(np.asarray(Image.open(tmp_path / str(stage) / row["image_url"])).shape[:2],
                                  np.asarray(image).shape[:2])
    again, _ = make(tmp_path / "again", "--expand", 3, "--seed", 1, data=tmp_path / "a.parquet", image_root="")
    assert len(again) == 6 and all((tmp_path / "again" / row["image_url"]).is_file() for row in again)


def test_large_embedded_pictures_make_small_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    rows = [("a", "", {"image": {"bytes": b"x" * 400, "path": None}})] * 7 + [("b", "", {"query": "q"})] * 300
    monkeypatch.setattr(blocks, "read_rows", lambda plan: iter(rows))
    assert [len(block) for _, block in blocks.read_blocks(None)] == [3, 3, 256, 45]


def test_what_a_row_stands_on_reaches_the_question_and_the_page(tmp_path):
    """Options, an index as answer, a table, the work beside the answer: all of it, or a reason with the first row."""
    work = "Read the numbers off and compare them one by one, then take the largest of all."
    rows = [{"question": "Which is the largest?", "choices": ["41", "57"], "answer": 1, "solution": work},
            {"question": "How many pens?", "table": "box | pens\n1 | 9", "table_title": "Pens", "answer": "9",
             "rationale": work},
            {"question": "How many pens?", "tabel_picture": "a.png", "answer": work},
            {"system": "Answer in French.", "query": "How many pens?", "response": work},
            {"query": "How many pens?", "response": work, "image": "https://pictures.example/a.png"},
            {"query": "How many pens?", "response": float("nan")},
            {"query": "How many pens?", "response": work, "image": "\ud800\r.png"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    written, counts = make(tmp_path / "out", data=tmp_path / "a.jsonl")
    assert [row["instruction"] for row in written] == [
        "Which is the largest?\nChoices:\n(A) 41\n(B) 57", "Pens\n| box | pens |\n| 1 | 9 |\nHow many pens?"]
    assert [row["output"] for row in written] == [f"{work}\nAnswer: B", f"{work}\nAnswer: 9"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    first = {reason: place for reason, place in manifest["first"].items() if reason.startswith("dropped")}
    assert set(first) == {reason for reason in counts if reason.startswith("dropped")} and len(first) == 5
    assert first["dropped: unknown key"].startswith(
        "a.jsonl:3: unknown key 'tabel_picture' holds a picture, 'a.png'; name it")
    assert first["dropped: image is a URL"].startswith("a.jsonl:5: ") and "download" in first["dropped: image is a URL"]
    assert first["dropped: empty response"].startswith("a.jsonl:6: ")
    assert "\\ud800 .png: " in first["dropped: image unreadable"], "one line, and it can be printed"
    assert first["dropped: has a system prompt, for which the written form has no place"] == "a.jsonl:4"


def test_a_figure_that_is_not_there_is_counted_or_drops_the_row(tmp_path, capsys):
    problem = text_problem(2)
    rows = [problem, {**problem, "query": f"As shown in the figure, the boxes stand in a row. {problem['query']}"}]
    data = write(tmp_path / "a.jsonl", rows)
    written, counts = make(tmp_path / "kept", stage=1, data=data)
    assert len(written) == 2 and counts["speaks of a figure that is not there"] == 1
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    blocks.summarize(recipe.Plan(**manifest["plan"]), str(tmp_path / "kept"), manifest)
    assert "speaks of a figure that is not there: 1 (first: a.jsonl:2)" in capsys.readouterr().out
    written, counts = make(tmp_path / "dropped", "--drop_figure_text", stage=1, data=data)
    assert len(written) == 1 and counts["dropped: speaks of a figure that is not there"] == 1
    geo, counts = make(tmp_path / "geo", "--drop_figure_text")
    assert len(geo) == 3 and not any("figure" in reason for reason in counts), "these have their pictures"


def test_a_folder_is_read_as_a_file(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(2):
        write(tmp_path / "set" / f"{number}.jsonl", [text_problem(number)])
    written, counts = make(tmp_path / "out", stage=1, data=tmp_path / "set")
    assert counts["rows read"] == 2 and [row["source"] for row in written] == ["set:1", "set:2"]


# -- one result, whatever the machine (also tests/problems/test_shards.py: ranks, kills, full disks)


def test_blocks_and_workers_do_not_change_a_byte_and_finished_blocks_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 7)
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(40)])
    for name, workers in (("one", 1), ("two", 2)):
        make(tmp_path / name, "--expand", 1.5, data=data, workers=workers)
    assert len(rows_of(tmp_path / "one")) > 50
    before = digest(tmp_path / "one")
    assert digest(tmp_path / "two") == before
    parts = sorted((tmp_path / "one" / "parts").glob("0*.jsonl"))
    assert len(parts) == 6
    parts[2].unlink()
    stamps = [path.stat().st_mtime_ns for path in parts if path.exists()]
    make(tmp_path / "one", "--expand", 1.5, data=data)
    assert [path.stat().st_mtime_ns for path in parts if path != parts[2]] == stamps
    assert digest(tmp_path / "one") == before
    make(tmp_path / "other", "--expand", 1.5, "--seed", 1, data=data)
    assert digest(tmp_path / "other") != before
    with pytest.raises(UserError, match="other settings"):
        make(tmp_path / "one", "--seed", 9, data=data)


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    """A gzipped file passes through as a stream: the reader holds a piece of at most 16 MB, and one block."""
    path = tmp_path / "text.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(20_000):
            file.write(json.dumps(text_problem(number) | {"padding": "x" * 2000}) + "\n")
    import augment_data

    monkeypatch.setattr(sys, "argv", command(tmp_path / "out", stage=1, data=path)[1:])
    plan = recipe.make_plan(augment_data.parse_arguments())
    tracemalloc.start()
    try:
        assert sum(len(rows) for _, rows in blocks.read_blocks(plan)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 24_000_000, "the file holds 44 MB"
    finally:
        tracemalloc.stop()


# -- what is refused


def test_benchmark_rows_end_the_run_with_file_and_row(tmp_path):
    for number, row in enumerate([
        {"sample_index": "1", "problem_version": "Text Lite", "question": "q", "answer": "a", "image": ""},
        {"pid": "3", "question": "q", "answer": "a", "metadata": {}, "question_type": "free_form", "precision": 1},
        {"ID": "1", "knowledge concept": "k", "question": "q", "option": "A. 1", "answer": "a"},
        {"problem_id": "p", "version": "text-only", "instruction": "q", "output": "a", "family": "f", "key": "k"},
    ]):
        data = write(tmp_path / f"{number}.jsonl", [text_problem(1), row])
        with pytest.raises(UserError, match=f"{number}.jsonl:2: a row of .*never train on it"):
            make(tmp_path / f"out{number}", stage=1, data=data)


def test_questions_of_benchmarks_are_known_by_their_words(tmp_path, monkeypatch):
    """Whatever keys a copy has: no row of it is written, and the others are."""
    rows = [text_problem(number) for number in range(3)]
    hashed = question_hash(rows[1]["query"])
    monkeypatch.setattr("benchmarks.known", lambda: {hashed: "MathVerse"})
    written, counts = make(tmp_path / "out", stage=1, data=write(tmp_path / "a.jsonl", rows))
    assert [row["source"] for row in written] == ["a.jsonl:1", "a.jsonl:3"]
    assert counts["dropped: a question of MathVerse"] == 1


def test_rows_of_evaluation_files_are_dropped(tmp_path):
    held_out = text_problem(5)["query"]
    data = write(tmp_path / "train.jsonl", [text_problem(n) for n in range(10)])
    bench = write(tmp_path / "bench.jsonl",
                  [{"id": "1", "problem_id": "p", "version": "text-only", "question": held_out}])
    rows, counts = make(tmp_path / "out", "--avoid", bench, stage=1, data=data)
    assert counts["dropped: question stands in an evaluation file"] == 1
    assert {row["source"] for row in rows} == {f"train.jsonl:{n}" for n in range(1, 11) if n != 6}
    picture = write(tmp_path / "eval.jsonl", [{"question": "Find x.", "image": "geoqa_plus/9.png"}])
    rows, counts = make(tmp_path / "out2", "--answer_only", "keep", "--avoid", picture, "--avoid_image_root",
                        SETS / "Geo170K" / "images", stage=3)
    assert counts["dropped: picture stands in an evaluation file"] == 2 and len(rows) == 2


def test_characters_without_glyphs_are_counted_or_drawn(tmp_path):
    rows = [text_problem(1),
            {"query": "已知 x = 3, 求 x + 2 的值。", "response": "x 加 2 等于 3 + 2, 所以 x + 2 = 5, 答案是 5 。"}]
    data = write(tmp_path / "zh.jsonl", rows)
    written, counts = make(tmp_path / "a", "--min_reasoning", 4, data=data)
    assert len(written) == 1 and counts["dropped: characters that no font has (--font)"] == 1
    assert counts["character without a glyph: U+5DF2"] == 1
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "LastResortHE-Regular.ttf"
    written, counts = make(tmp_path / "b", "--min_reasoning", 4, "--font", font, data=data)
    assert len(written) == 2


def test_too_long_for_a_picture_is_counted(tmp_path):
    row = {"query": "Find the sum. " + "It is known that the number seven is odd. " * 200,
           "response": "Add them all up, one after another, and the sum is 7.\nThe answer is: 7"}
    rows, counts = make(tmp_path / "out", data=write(tmp_path / "a.jsonl", [row]))
    assert rows == [] and counts["dropped: too much text for one picture"] == 1
    rows, _ = make(tmp_path / "large", "--resolution", 1024, data=tmp_path / "a.jsonl")
    assert len(rows) == 1


@pytest.mark.parametrize("flags, words", [
    (["--data", "none.jsonl"], "none.jsonl: no such file"), (["--select", "image"], "KEY=REGEX"),
    (["--select", "image=("], "regular expression"), (["--methods", "reworded,telepathy"], "unknown telepathy"),
    (["--transforms", "mirror"], "unknown mirror"), (["--expand", "0.5"], "--expand 0.5"),
    (["--font", str(GEO)], "not a font"),
    (["--rephrase", "http://127.0.0.1:9"], "--rephrase_model"), (["--avoid", "none.json"], "none.json: no such file"),
    (["--explain", "http://127.0.0.1:9", "--explain_model", "m"], "does not answer")])
def test_wrong_flags_are_one_clear_line(tmp_path, flags, words):
    with pytest.raises(UserError, match=words.replace("(", "\\(")):
        make(tmp_path / "out", *flags)
    assert not (tmp_path / "out" / "parts").exists(), "nothing was begun"


# -- servers


@pytest.fixture
def server():
    servers = []

    def start(answer):
        servers.append(Server(answer=answer))
        return servers[-1]

    yield start
    for started in servers:
        started.http.shutdown()
        started.http.server_close()


def test_answer_only_rows_are_explained_where_the_answers_agree(tmp_path, server):
    def answer(body):
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        assert "Find its diameter" in text or "Say OK" in text
        assert isinstance(content, str) or content[0]["image_url"]["url"].startswith("data:image/png;base64,")
        return completion("Double the radius: 2 times 6 is 12, which is choice B.\nAnswer: B")

    started = server(answer)
    rows, counts = make(tmp_path / "out", "--explain", started.url, "--explain_model", "m", stage=3)
    assert counts["explained by the server"] == 1 and len(rows) == 4
    explained = next(row for row in rows if "explained" in row["methods"])
    assert explained["output"].startswith("Double the radius") and explained["answer"] == "B"
    wrong = server(lambda body: completion("Halve it.\nAnswer: A"))
    rows, counts = make(tmp_path / "wrong", "--explain", wrong.url, "--explain_model", "m", stage=3)
    assert counts["dropped: answer only, and the server's answer differs"] == 1 and len(rows) == 3
    assert len(wrong.requests) == 1 + recipe.EXPLAIN_TRIES


def test_a_server_rewords_and_only_what_survives_is_kept(tmp_path, server):
    def answer(body):
        text = body["messages"][0]["content"]
        if text.startswith("Rewrite"):
            question = text.split("\n\n")[1]
            return completion(question.replace("A box holds", "Inside a box there are").replace("202", "203"))
        if text.startswith("Solve"):
            numbers = [int(part) for part in text.replace("?", "").split() if part.isdigit()]
            total = (numbers[0] + numbers[1]) * numbers[2]
            return completion(f"Multiply.\nAnswer: {total + (numbers[2] == 203)}")
        return completion("OK")

    started = server(answer)
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(6)])
    flags = ["--rephrase", started.url, "--rephrase_model", "m", "--expand", 2, "--methods", ""]
    rows, counts = make(tmp_path / "out", *flags, stage=1, data=data)
    by_server = [row for row in rows if "server" in row["methods"]]
    assert len(by_server) == 4 and all(row["instruction"].startswith("Inside a box") for row in by_server)
    assert counts["rewording refused: a number changed"] == 1 and counts["rewording refused: the answer changed"] == 1
    assert counts["variants wanted, no further method applies"] == 2
    asked = len(started.requests)
    (tmp_path / "out" / "parts" / "000000.jsonl").unlink()
    again, _ = make(tmp_path / "out", *flags, stage=1, data=data)
    assert again == rows and len(started.requests) == asked + 1, "the replies came from the cache; one is the check"


# -- anything at all


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_malformed_rows_are_counted_by_reason(tmp_path, stage):
    """malformed.jsonl: rows broken in every way that we have met, a line each; a NUL and a whole row after them."""
    lines = (SETS.parent / "malformed.jsonl").read_bytes() + b"\n\x00\n" + json.dumps(text_problem(99)).encode()
    data = tmp_path / "text.jsonl"
    data.write_bytes(lines)
    rows, counts = make(tmp_path / "out", "--expand", 1.3, stage=stage, data=data, image_root=tmp_path)
    dropped = {reason: count for reason, count in counts.items() if reason.startswith("dropped")}
    originals = {row["source"] for row in rows}
    assert len(dropped) >= 8 and "text.jsonl:74" in originals
    assert counts["rows read"] == 73, "all but the blank line"
    assert counts["rows read"] <= sum(dropped.values()) + len(originals)
