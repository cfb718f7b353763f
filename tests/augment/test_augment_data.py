"""augment_data.py from public folders to training files: reading, refusing, resuming, the same bytes everywhere."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment import blocks, recipe, report
from errors import UserError
from llm_server import Server, completion

ROOT = Path(__file__).parents[2]
SETS = Path(__file__).parent / "public_sets"
GEO = SETS / "Geo170K" / "qa_tuning.json"


def command(out, *flags, stage=2, data=GEO, image_root=SETS / "Geo170K" / "images"):
    return [sys.executable, str(ROOT / "augment_data.py"), "--stage", str(stage), "--data", str(data), "--image_root",
            str(image_root), "--out_dir", str(out), *map(str, flags)]


def run(out, *flags, **options):
    """The script as a user runs it; returns its process."""
    return subprocess.run(command(out, *flags, **options), capture_output=True, text=True, cwd=ROOT, timeout=120)


def make(out, *flags, workers=1, **options):
    """The same in this process, without its start-up."""
    arguments = command(out, *flags, **options)[2:]
    sys.argv, before = ["augment_data.py", *arguments], sys.argv
    try:
        import augment_data

        plan = recipe.make_plan(augment_data.parse_arguments())
    finally:
        sys.argv = before
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
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "parts" not in path.parts and path.suffix in (".png", ".jpg", ".jsonl"):
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def text_problem(number):
    a, b = number % 97 + 2, number % 53 + 3
    question = f"A box holds {a} pens and {b} pencils. How many things are in {number + 200} such boxes?"
    return {"query": question, "response": f"One box holds {a} + {b} = {a + b} things. {number + 200} boxes hold "
            f"{(number + 200) * (a + b)} of them.\nThe answer is: {(number + 200) * (a + b)}"}


# -- the three files


def test_pairs_are_the_problem_and_its_page(tmp_path):
    rows, counts = make(tmp_path, "--expand", 4)
    assert (
        counts["rows read"] == 4 and counts["dropped: answer only"] == 1 and len(rows) == 12 == counts["rows written"]
    )
    assert [row["id"] for row in rows[:4]] == [f"qa_tuning.json:1/{variant}" for variant in range(4)]
    source = {row["source"]: row for row in rows if row["methods"] == ["original"]}
    for row in rows:
        assert row["output"] == row["output_2"] and (row["level"], row["level_2"]) == ("original", "rendered")
        assert (row["instruction_2"] != row["instruction"]
                and "picture" in row["instruction_2"]
                or "image" in row["instruction_2"])
        strong, weak = (Image.open(tmp_path / row[key]) for key in ("image_url", "image_url_2"))
        assert min(strong.size) >= 90 and min(weak.size) >= 120
        assert np.asarray(weak.convert("L")).std() > 8
        assert row["source"] in source and row["seed"] == 0
    original = source["qa_tuning.json:1"]
    assert "angle A = 70.0, angle B = 65.0" in original["instruction"] and "<image>" not in original["instruction"]
    assert original["answer"] == "B" and os.path.samefile(tmp_path / original["image_url"],
                                                          SETS / "Geo170K" / "images" / "geoqa_plus" / "7.png")
    for row in rows:
        assert len(set(row["methods"])) == len(row["methods"]), "one variant's changes are not another's"
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
    assert (hinted["instruction_2"]
            .split("\n")[1]
            .startswith("Hint: Please answer the question and provide the correct option"))
    assert all("Hint" not in row["instruction_2"] for row in rows if not row["instruction"].startswith("Hint:"))


def test_selection_and_counts(tmp_path):
    flags = {
        "data": SETS / "MathV360K" / "train_samples_all_tuning.json", "image_root": SETS / "MathV360K" / "data_images"
    }
    rows, counts = make(tmp_path / "a", "--select", "image=^(GEOS|Geometry3K|GeoQA\\+|UniGeo)/", stage=3, **flags)
    assert counts["dropped: not selected"] == 1 and len(rows) == 3
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(200)])
    for amount, expected in (("50", 50), ("0.25", 50), ("1k", 200)):
        rows, counts = make(tmp_path / amount, stage=1, data=f"{data}:{amount}")
        assert counts["rows read"] == expected == len(rows)
    assert len({row["source"] for row in rows_of(tmp_path / "50", 1)}) == 50


# -- one result, whatever the machine


def test_workers_and_ranks_do_not_change_a_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 7)
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(40)])
    for name, workers in (("one", 1), ("two", 2)):
        make(tmp_path / name, "--expand", 1.5, data=data, workers=workers)
    assert len(rows_of(tmp_path / "one")) > 50
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    make(tmp_path / "other", "--expand", 1.5, "--seed", 1, data=data)
    assert digest(tmp_path / "other") != digest(tmp_path / "one")


def test_ranks_share_the_blocks(tmp_path):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(600)])
    make(tmp_path / "one", "--methods", "reworded", stage=1, data=data)
    ranks = []
    for rank in (1, 0):
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        ranks.append(subprocess.Popen(command(tmp_path / "two", "--methods", "reworded", stage=1, data=data),
                                      env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(520)])
    make(tmp_path / "whole", stage=2, data=data, workers=2)
    process = subprocess.Popen(command(tmp_path / "part", "--workers", 1, data=data), cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "part" / "parts").glob("0*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "part" / "parts").glob("0*.jsonl")}
    assert 1 <= len(finished) < 3 and not (tmp_path / "part" / "stage2.jsonl").exists()
    make(tmp_path / "part", stage=2, data=data)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items()), "finished blocks are kept"
    assert digest(tmp_path / "part") == digest(tmp_path / "whole")
    with pytest.raises(UserError, match="other settings"):
        make(tmp_path / "part", "--seed", 9, stage=2, data=data)


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(2000)])
    process = subprocess.Popen(command(tmp_path / "out", "--workers", 2, data=data), cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=20)  # returns when the last worker has closed its stderr
    assert process.returncode == -signal.SIGKILL


def test_what_a_killed_writer_left_is_removed(tmp_path):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(3)])
    out = tmp_path / "out"
    make(out, data=data)
    leftovers = [next(out.rglob("*.png")).parent / "0000-0.png.12.tmp", out / "parts" / "000000.jsonl.12.tmp"]
    for path in leftovers:
        path.touch()
    done = run(out, data=data)
    assert done.returncode == 0, done.stderr
    assert not list(out.rglob("*.tmp"))


def test_a_full_disk_leaves_no_broken_picture(tmp_path, monkeypatch):
    data = write(tmp_path / "text.jsonl", [text_problem(n) for n in range(30)])
    written = []
    whole = recipe.write_atomically

    def fill_up(path, content, durable=True):
        written.append(path)
        if len(written) > 10:
            raise OSError(28, "No space left on device", path)
        whole(path, content, durable)

    monkeypatch.setattr(recipe, "write_atomically", fill_up)
    with pytest.raises(UserError, match="No space left on device.*same command again"):
        make(tmp_path / "out", data=data)
    monkeypatch.undo()
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()
    assert len(make(tmp_path / "out", data=data)[0]) == 30


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A gzipped file of 40,000 rows passes through as a stream: the reader holds one block."""
    path = tmp_path / "text.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(40_000):
            row = text_problem(number)
            row["padding"] = "x" * 1000
            file.write(json.dumps(row) + "\n")
    code = ("import resource, sys; sys.path.insert(0, {root!r}); sys.argv = ['x', '--stage', '1', '--data', {path!r}, "
            "'--out_dir', {out!r}]; import augment_data; from augment import blocks, recipe; plan = recipe.make_plan("
            "augment_data.parse_arguments()); start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
            "n = sum(len(rows) for _, rows in blocks.read_blocks(plan)); "
            "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)")
    code = code.format(root=str(ROOT), path=str(path), out=str(tmp_path / "out"))
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    rows, kilobytes = map(int, printed.split())
    assert rows == 40_000 and kilobytes < 20_000, "the file holds 50 MB"


# -- what is refused


def test_benchmark_rows_end_the_run_with_file_and_row(tmp_path):
    for number, row in enumerate([
        {"sample_index": "1", "problem_version": "Text Lite", "question": "q", "answer": "a", "image": ""},
        {"pid": "3", "question": "q", "answer": "a", "metadata": {}},
        {"ID": "1", "knowledge concept": "k", "question": "q", "answer": "a"},
        {"id": "p/text-only", "problem_id": "p", "version": "text-only", "instruction": "q", "output": "a"},
    ]):
        data = write(tmp_path / f"{number}.jsonl", [text_problem(1), row])
        with pytest.raises(UserError, match=f"{number}.jsonl:2: a row of .*never trained on"):
            make(tmp_path / f"out{number}", stage=1, data=data)
    result = run(tmp_path / "x", stage=1, data=tmp_path / "0.jsonl")
    assert result.returncode == 1 and "error: 0.jsonl:2: a row of MathVerse" in result.stderr
    assert "Traceback" not in result.stderr


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


def malformed(rng, number):
    """A row that is broken in one of many ways, as a line of text."""
    row = text_problem(number)
    kind = rng.randrange(12)
    if kind == 0:
        return json.dumps(row)[: rng.randrange(1, 60)]
    if kind == 1:
        row[rng.choice(list(row))] = rng.choice([None, 3, [], {}, True, ["x"], "", " "])
    elif kind == 2:
        del row[rng.choice(list(row))]
    elif kind == 3:
        row["image"] = rng.choice(
            ["none.png", 5, ["a.png", "b.png"], {"bytes": "x"}, "http://x/y.png", "text.jsonl", "/"]
        )
    elif kind == 4:
        row = {
            "conversations": rng.choice(
                [
                    None,
                    [],
                    "x",
                    [{"from": "human"}],
                    [{"from": "alien", "value": "x"}],
                    [3],
                    [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "a"}],
                ]
            )
        }
    elif kind == 5:
        return rng.choice([
                              "",
                              "null",
                              "[]",
                              "3",
                              "{}",
                              '"x"',
                              "{" * 2000,
                              '{"a": NaN}',
                              "\x00",
                              '{"query": "\\ud800", "response": "x"}',
                          ])
    elif kind == 6:
        row["query"] = "".join(
            rng.choice("$\\{}^_&|%#()[]ABx12 \n°√中\u0301\u202e\x00") for _ in range(rng.randrange(60))
        )
    elif kind == 7:
        row["response"] = "".join(rng.choice("$\\{}boxedAnswer:#† 12\n") for _ in range(rng.randrange(60)))
    elif kind == 8:
        row = {"messages": [{"role": rng.choice(["user", "robot", None]), "content": rng.choice(["x", None, 4])}]}
    elif kind == 9:
        row = {
            "image_url_2": "x.png", "instruction": "q", "output": rng.choice(["a", ""]), "output_2": "b",
            "instruction_2": "?"
        }
    elif kind == 10:
        row["query"] = row["query"] * rng.choice([1, 200])
    else:
        row = {str(rng.random()): rng.choice([1, "x", None]) for _ in range(rng.randrange(4))}
    return json.dumps(row, ensure_ascii=rng.random() < 0.5).replace("\n", " ")


def fuzz(tmp_path, count, stage):
    rng = random.Random(count)
    lines = [
        malformed(rng, number) if rng.random() < 0.9 else json.dumps(text_problem(number)) for number in range(count)
    ]
    data = tmp_path / "text.jsonl"
    data.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    rows, counts = make(tmp_path / f"out{stage}", "--expand", 1.3, stage=stage, data=data, image_root=tmp_path)
    dropped = sum(value for reason, value in counts.items() if reason.startswith("dropped"))
    originals = len({row["source"] for row in rows})
    assert counts["rows read"] == sum(1 for line in lines if line.strip()) <= dropped + originals
    assert len([reason for reason in counts if reason.startswith("dropped")]) >= 8
    return counts


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_malformed_rows_are_counted_by_reason(tmp_path, stage):
    fuzz(tmp_path, 600, stage)


@pytest.mark.slow
def test_10000_malformed_rows_are_counted_by_reason(tmp_path):
    print(fuzz(tmp_path, 10_000, 2))
