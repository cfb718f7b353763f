"""eval.py as a user runs it: the tiny model, answers made elsewhere, servers, judges, interruptions."""

import base64
import functools
import io
import json
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import eval as evaluation
import runtime
from errors import UserError
from evaluation import BENCHMARKS, store
from evaluation.generate import generate, inputs_of, load_model, message_of, pictures_of, prompt_of, stream
from evaluation.question import Question
from evaluation.report import VERSION_COLUMNS, draw_chart
from llm_server import completion
from model import load_model as load_preset

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
DATA = {bench: f"{bench}.json{'l' if bench == 'generated' else ''}" for bench in BENCHMARKS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of random weights, as a stage would leave it."""
    folder = tmp_path_factory.mktemp("tiny")
    model = load_preset("tiny", random=True)
    model.hf.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict]:
    """Run eval.py's main with flags; returns report.json, {} where none was written."""

    def call(bench: str, *flags: object, out: str = "out") -> dict:
        words = ["eval.py", "--bench", bench, "--data", FIXTURES / DATA[bench], "--out_dir", tmp_path / out, *flags]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        evaluation.main()
        path = tmp_path / out / "report.json"
        return json.loads(path.read_text()) if path.exists() else {}

    return call


def write_answers(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gold(bench: str) -> dict[str, str]:
    return {question.id: question.answer for question in BENCHMARKS[bench].load(str(FIXTURES / DATA[bench]))}


# ----------------------------------------------------------------------------------------------------------------------
# the tiny model


FIRST = {"mathverse": [*VERSION_COLUMNS], "generated": [*VERSION_COLUMNS, "text_only"],
         "mathvista": ["all", "GPS", "ALG"], "wemath": ["strict.score", "strict.RM"]}


@pytest.mark.parametrize("bench", DATA)
def test_every_benchmark_runs_end_to_end(bench: str, run: Callable[..., dict], tiny: Path, tmp_path: Path) -> None:
    flags = ("--model", tiny, "--max_new_tokens", 4, "--allow_missing_images", "--blind", "--samples", 20)
    report = run(bench, *flags, "--protocol", "puma" if bench == "wemath" else "official")
    questions = BENCHMARKS[bench].load(str(FIXTURES / DATA[bench]))
    assert report["bench"] == bench and report["n"] == len(questions) and "all" in report["metrics"]
    assert report["missing_images"] == sum(bool(question.image) for question in questions) > 0
    assert report["blind"].keys() == report["metrics"].keys()
    assert list(report["metrics"])[: len(FIRST[bench])] == FIRST[bench], "in the paper's order"
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"not at hand: {report['missing_images']}" in text and "blind" in text and report["protocol"] in text
    if bench != "generated":
        assert "Math-PUMA-Qwen2-7B" in text and "paper's Table" in text
    assert (tmp_path / "out" / "browse.html").read_text().count("<article") == len(questions)
    rows = store.read_lines(tmp_path / "out" / "predictions.jsonl")
    assert sorted(row["id"] for row in rows) == sorted(question.id for question in questions)
    assert report["cut"] == sum(row["finish_reason"] == "length" for row in rows) > 0, "random weights"
    assert f"cut at max_new_tokens 4: {report['cut']} (finish_reason length)" in text


def test_missing_pictures_end_the_run_unless_allowed(run: Callable[..., dict], tiny: Path) -> None:
    with pytest.raises(UserError, match=r"15 of 15 pictures .*images/1.png.*--allow_missing_images"):
        run("mathverse", "--model", tiny)


def test_an_interrupted_run_goes_on(run: Callable[..., dict], tiny: Path, tmp_path: Path) -> None:
    flags = ("--model", tiny, "--max_new_tokens", 4, "--allow_missing_images", "--steps", "generate")
    run("generated", *flags)
    path = tmp_path / "out" / "predictions.jsonl"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:5]) + '{"id": "p2/vision-only", "resp')  # kill -9 here
    run("generated", *flags)
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(whole.splitlines())
    assert lines[:5] == whole.splitlines()[:5], "what was answered is not asked again"


def test_answers_to_other_questions_are_not_taken(run: Callable[..., dict], tiny: Path, tmp_path: Path) -> None:
    """The data file was made anew: its ids stand for other problems now."""
    rows = [json.loads(line) for line in (FIXTURES / "generated.jsonl").read_text().splitlines()][:3]
    data = tmp_path / "bench.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--model", tiny, "--max_new_tokens", 2, "--allow_missing_images", "--data", data)
    run("generated", *flags)
    run("generated", *flags)
    rows[1]["instruction"] = rows[1]["instruction"] + " Another question."
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=f"other questions under 1 of the same ids, the first {rows[1]['id']}.*--fresh"):
        run("generated", *flags)


def test_answers_of_another_model_are_not_mixed_in(run: Callable[..., dict], tiny: Path, tmp_path: Path) -> None:
    flags = ("--model", tiny, "--max_new_tokens", 2, "--allow_missing_images", "--limit", 2)
    run("generated", *flags)
    with pytest.raises(UserError, match="protocol 'official', now 'puma'.*--fresh"):
        run("generated", *flags, "--protocol", "puma")
    run("generated", *flags, "--protocol", "puma", "--fresh", "--steps", "generate")
    with pytest.raises(UserError, match="verdicts.jsonl: not there yet"):  # but those of the other protocol
        run("generated", *flags, "--protocol", "puma", "--steps", "report")
    assert run("generated", *flags, "--protocol", "puma")["protocol"] == "puma"
    before = store.model_fingerprint(str(tiny))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert store.model_fingerprint(str(copy)) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert store.model_fingerprint(str(copy)) != before


def test_batches_answer_as_single_rows_do(tiny: Path) -> None:
    model, processor = load_model(str(tiny))
    model.generation_config.eos_token_id = None  # random weights: the full length each time
    picture = Image.new("RGB", (96, 96), "white")
    picture.paste("black", (20, 30, 70, 60))
    with_picture = [[{"type": "image", "value": picture}, {"type": "text", "value": "Find x." * k}] for k in (1, 3, 2)]
    messages = [*with_picture, [{"type": "text", "value": "How much is 2 + 3?"}], [{"type": "text", "value": "2"}]]
    alone = [generate(model, processor, [message], max_new_tokens=6)[0] for message in messages]
    assert generate(model, processor, messages, batch_size=5, max_new_tokens=6) == alone
    assert generate(model, processor, messages, batch_size=2, max_new_tokens=6) == alone
    assert generate(model, processor, [], max_new_tokens=6) == []


def test_an_answer_is_cut_when_no_end_of_turn_is_in_it(tiny: Path) -> None:
    """Also in a batch whose other rows go on; one that ends with its very last token is whole."""
    model, processor = load_model(str(tiny))
    messages = [[{"type": "text", "value": text}] for text in ("How much is 2 + 3?", "2", "Find x. Find x.")]
    model.generation_config.eos_token_id = None
    written = []
    for message in messages:
        inputs = inputs_of(model, processor, [prompt_of(processor, message)], [])
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        written.append(ids.tolist())
    for end in {token for ids in written for token in ids}:
        model.generation_config.eos_token_id = [end, 10**6]
        places = [ids.index(end) + 1 if end in ids else 99 for ids in written]  # tokens that each answer takes
        for limit in {1, 12, *(place for place in places if place <= 12)}:
            found = {k: cut for k, _, cut in stream(model, processor, messages, batch_size=3, max_new_tokens=limit)}
            assert [found[k] for k in range(3)] == [place > limit for place in places], (end, limit)


def test_blind_pictures_are_white_and_of_the_same_size(tmp_path: Path) -> None:
    Image.new("RGB", (120, 80), "black").save(tmp_path / "a.png")
    question = Question("1", "Find x.", str(tmp_path / "a.png"), "", "")
    (seen,), (blind,) = (pictures_of(message_of(question, blind=blind)) for blind in (False, True))
    assert seen.size == blind.size == (120, 80)
    assert seen.getextrema() == ((0, 0),) * 3 and blind.getextrema() == ((255, 255),) * 3
    with pytest.raises(UserError, match="allow_missing_images"):
        pictures_of(message_of(Question("1", "", str(tmp_path / "none.png"), "", "")))


@pytest.mark.slow
def test_two_ranks_share_the_rows(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "eval.py"]
    command += ["--bench", "generated", "--data", FIXTURES / "generated.jsonl", "--model", tiny, "--out_dir", tmp_path,
                "--max_new_tokens", "2"]
    subprocess.run([*map(str, command), "--allow_missing_images"], cwd=ROOT, check=True, timeout=300)
    shares = [store.read_lines(path) for path in store.parts(tmp_path, "predictions")]
    assert [len(share) for share in shares] == [6, 6]
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 12
    command[-2:] = ["--steps", "extract,judge,report"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    assert done.stdout.count("Generated bench:") == 1, "what one process can do is done by one"


# ----------------------------------------------------------------------------------------------------------------------
# answers made elsewhere


@pytest.mark.parametrize("bench", DATA)
def test_right_answers_made_elsewhere_score_in_full(bench: str, run: Callable[..., dict], tmp_path: Path) -> None:
    rows = [{"id": key, "response": f"Well.\nAnswer: {answer}"} for key, answer in gold(bench).items()]
    report = run(bench, "--predictions", write_answers(tmp_path / "a.jsonl", rows), "--samples", 10)
    assert report["metrics"]["all"] == 100 and report["judged_by"] == report["extracted_by"] == "rules"
    assert report["n"] == len(rows) and report["errors"] == 0 and report["missing_images"] == 0
    assert "white picture was shown" not in (tmp_path / "out" / "browse.html").read_text(), "made elsewhere"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "**a.jsonl**" in text and "100.0 (100.0 to 100.0)" in text
    if bench == "wemath":
        assert report["metrics"]["strict.score"] == report["metrics"]["loose.score"] == 100
        assert report["metrics"]["strict.RM"] == 0


def test_pictures_are_in_the_page_once_and_small(run: Callable[..., dict], tmp_path: Path) -> None:
    """So that the page can be mailed; each row names who read and who judged it."""
    (tmp_path / "images").mkdir()
    Image.radial_gradient("L").resize((1200, 800)).save(tmp_path / "images" / "1.png")
    (tmp_path / "images" / "3.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    (tmp_path / "images" / "2.png").write_text("no picture")
    rows = [{"id": key, "response": f"Answer: {answer}"} for key, answer in gold("mathverse").items()]
    rows[1] |= {"extraction": "C"}
    flags = ("--predictions", write_answers(tmp_path / "a.jsonl", rows), "--image_root", tmp_path, "--samples", 0)
    run("mathverse", *flags)
    page = (tmp_path / "out" / "browse.html").read_text()
    pictures = json.loads(re.search(r"const pictures = (\[.*\]);", page)[1])
    shown = re.findall(r'<img alt="" data-picture="(\d+)">', page)
    assert shown == ["0"] * 10 and page.count("its picture cannot be read") == 5 and len(pictures) == 1
    assert pictures[0].startswith("data:image/jpeg;base64,") and len(pictures[0]) < 10_000
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2]))).size == (320, 213)
    assert not re.search(r"(?:src|href)=", page), "nothing beside the page is needed"
    assert page.count("Extracted (rules): ") == len(rows) - 1 and page.count("Extracted (given): <b>C</b>") == 1
    assert page.count("<b>right</b> (judged by rules)") == len(rows)
    assert page.count("Judged as the question<pre>") == 3, "of the vision-only rows it stands in the picture"


def sums(path: Path, count: int) -> Path:
    """A generated bench of `count` rows without pictures: 1 + 0, 1 + 1, …"""
    row = {"version": "text-dominant", "family": "sums", "category": "functions"}
    rows = [{**row, "id": str(k), "instruction": f"How much is {k} + 1?", "answer": k + 1} for k in range(count)]
    return write_answers(path, rows)


@pytest.mark.parametrize("failed, score, said", [
    (0, 100, "- rows judged: 200 of 200; failed (no answer or verdict): 0\n"),
    (1, 100, "- rows judged: 199 of 200; failed (no answer or verdict): 1; the scores are"),
    (2, None, "> **No score: this run is unfinished.** 2 of 200 rows failed (2 got no answer"),
    (200, None, "> **No score: this run is unfinished.** 200 of 200 rows failed"),
])
def test_beyond_half_a_percent_of_failed_rows_there_is_no_score(run, tmp_path: Path, failed, score, said) -> None:
    data = sums(tmp_path / "bench.jsonl", 200)
    rows = [{"id": str(k), "error": "busy | <b>"} if k < failed else {"id": str(k), "response": f"Answer: {k + 1}"}
            for k in range(200)]
    flags = ("--data", data, "--samples", 0, "--predictions", write_answers(tmp_path / "a.jsonl", rows))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chart.png").touch()
    if score is None:
        with pytest.raises(UserError, match=f"no score: {failed} of 200 .*; give the rows with an 'error' in .*a.js"):
            run("generated", *flags)
        with pytest.raises(UserError, match="that run has no score yet"):
            run("generated", *flags, "--compare", tmp_path / "out", out="other")
    else:
        run("generated", *flags)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["metrics"].get("all") == score and report["errors"] == failed and report["n"] == 200 - failed
    text = (tmp_path / "out" / "report.md").read_text()
    assert said in text and ("All scores" in text) is (score is not None) and "<b>" not in text
    assert not (tmp_path / "out" / "chart.png").exists(), "an earlier report's"
    page = (tmp_path / "out" / "browse.html").read_text()
    assert page.count('class="card error"') == page.count("<b>Failed</b>: busy | &lt;b&gt; · ") == failed


def test_failed_blind_rows_leave_no_score_either(run: Callable[..., dict], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    rows = [{"id": key, "response": f"Answer: {answer}"} for key, answer in gold("mathverse").items()]
    blind = write_answers(tmp_path / "out" / "predictions_blind.jsonl", rows)
    write_answers(tmp_path / "out" / "predictions.jsonl", rows)
    flags = ("--blind", "--steps", "extract,judge,report", "--samples", 0)
    assert run("mathverse", *flags)["blind"]["all"] == 100
    write_answers(blind, [{"id": rows[0]["id"], "error": "busy"}, *rows[1:]])
    with pytest.raises(UserError, match="without pictures, 1 of 15 rows failed .1 got no answer.*busy"):
        run("mathverse", *flags)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["metrics"] == {} and report["blind"] is None and report["errors"] == 0


UNREAD = "Rules could not read 50.0 % of the answers; not comparable with published scores; use --judge."


@pytest.mark.parametrize("other, found, warned", [  # what half of the rows are, the other half being right
    ({"response": "", "finish_reason": "length"}, {"cut": 20, "no_answer": 20, "unfinished_thinking": 0},
     f"{UNREAD} 20 of them were cut: raise --max_new_tokens."),
    ({"response": "<think>\nLet me see, first we", "finish_reason": "length"},
     {"cut": 20, "no_answer": 20, "unfinished_thinking": 20}, f"{UNREAD} 20 of them were cut"),
    ({"response": "A side is 3. So the other is 99.", "finish_reason": "length"}, {"cut": 20, "no_answer": 20}, UNREAD),
    ({"response": "So it is 3.\nAnswer: 99. Check: 9", "finish_reason": "length"}, {"cut": 20, "no_answer": 0}, ""),
    ({"response": "<think>hm</think> We look at it.\nWe look again.", "finish_reason": "stop"},
     {"cut": 0, "no_answer": 20, "unfinished_thinking": 0}, UNREAD),
    ({"response": "We look at it.\nWe look again."}, {"cut": None, "no_answer": 20, "unread": 20}, UNREAD),
    ({"extraction": " "}, {"cut": None, "no_answer": 20, "unread": 0}, ""),
    ({"response": "Answer: 99", "error": None, "extraction": None, "finish_reason": None},
     {"cut": None, "no_answer": 0}, ""),
    ({"response": None, "extraction": "99", "error": ""},
     {"cut": None, "no_answer": 0, "extracted_by": "rules (20), given (20)"}, ""),
])
def test_cut_and_unread_answers_are_wrong_and_counted(run, tmp_path: Path, capsys, other, found, warned) -> None:
    data = sums(tmp_path / "bench.jsonl", 40)
    rows = [{"id": k, **other} if k % 2 else {"id": k, "response": f"Answer: {k + 1}"} for k in range(40)]
    path = write_answers(tmp_path / "a.jsonl", rows)
    report = run("generated", "--data", data, "--samples", 0, "--predictions", path)
    assert report["metrics"]["all"] == 50 and report["errors"] == 0 and report["n"] == 40
    assert {key: report[key] for key in found} == found
    text, printed = (tmp_path / "out" / "report.md").read_text(), capsys.readouterr().out
    assert warned in printed and ("could not read" in text) is bool(warned)
    cut = "not known, since no answer has a finish_reason" if found["cut"] is None else f"{found['cut']} (finish_reason"
    assert f"counts as wrong: {report['no_answer']}\ncut at max_new_tokens: {cut}" in printed
    page = (tmp_path / "out" / "browse.html").read_text()
    assert page.count("wrong unread") == report["no_answer"] and page.count(" cut\">") == (report["cut"] or 0)


@pytest.mark.parametrize("change, message", [
    (lambda rows: [{**rows[0], "response": ["C"]}, *rows[1:]], r"'response' is \[\"C\"\]"),
    (lambda rows: [{**rows[0], "id": None}, *rows[1:]], r"row 1 has no 'id'"),
    (lambda rows: [{**rows[0], "id": [1]}, *rows[1:]], r"row 1: 'id' is \[1\]; make it text"),
    (lambda rows: [{"id": "1", "response": None, "error": None}, *rows[1:]],
     r"row 1 \(id 1\) has no 'response' text; write \"\" for .* an 'error' for a call"),
    (lambda rows: rows[1:], r"row 1 is missing"), (lambda rows: [*rows, rows[0]], r"row 1 stands twice"),
    (lambda rows: [*rows, {"id": "9999", "response": "x"}], r"row 9999 is unknown"),
    (lambda rows: rows[7:], r"rows 1, 2, 3, 4, 5 and 2 more are missing"),
])
def test_a_row_missing_twice_or_unknown_is_named(run, tmp_path: Path, change: Callable, message: str) -> None:
    rows = change([{"id": key, "response": answer} for key, answer in gold("mathverse").items()])
    with pytest.raises(UserError, match=message) as caught:
        run("mathverse", "--predictions", write_answers(tmp_path / "a.jsonl", rows))
    assert "a.jsonl" in str(caught.value)


def test_steps_run_alone(run: Callable[..., dict], tmp_path: Path) -> None:
    rows = [{"id": key, "response": f"Answer: {answer}"} for key, answer in gold("generated").items()]
    path = write_answers(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match="--steps extract first"):
        run("generated", "--predictions", path, "--steps", "judge")
    for step in ("extract", "judge"):
        assert run("generated", "--predictions", path, "--steps", step) == {}
    assert run("generated", "--predictions", path, "--steps", "report")["metrics"]["all"] == 100
    other = write_answers(tmp_path / "other.jsonl", [{"id": key, "response": "no idea"} for key in gold("generated")])
    for step in ("judge", "report"):
        with pytest.raises(UserError, match="made from other answers or questions in .* --steps extract,judge,report"):
            run("generated", "--predictions", other, "--steps", step)


def test_nothing_a_model_writes_reaches_the_pages_unescaped(run: Callable[..., dict], tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> </pre> | $rows \0 \ud800 **9**9**9**"
    rows = [{"id": key, "response": evil, "extraction": evil} for key in gold("mathvista")]
    name = "<b>me</b> | you"
    run("mathvista", "--predictions", write_answers(tmp_path / "a.jsonl", rows), "--name", name, "--samples", 0)
    page = (tmp_path / "out" / "browse.html").read_text()
    assert page.count("<script>") == 1 and "onerror=alert(1)>" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page and "<b>me</b>" not in page
    report = (tmp_path / "out" / "report.md").read_text()
    assert "<b>me" not in report and "&lt;b&gt;me&lt;/b&gt; \\| you" in report


def test_other_runs_join_the_table_and_the_chart(run: Callable[..., dict], tmp_path: Path) -> None:
    rows = [{"id": key, "response": f"Answer: {answer}"} for key, answer in gold("mathverse").items()]
    path = write_answers(tmp_path / "a.jsonl", rows)
    run("mathverse", "--predictions", path, "--name", "first", "--samples", 0, out="first")
    run("mathverse", "--predictions", path, "--name", "second", "--compare", tmp_path / "first", "--samples", 0)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| first |" in text and "**second**" in text and "chart.png" in text
    assert (tmp_path / "out" / "chart.png").stat().st_size > 5000
    assert not draw_chart(tmp_path / "none.png", [("x", {"text_only": 3.0})])
    with pytest.raises(UserError, match="no report.json"):
        run("mathverse", "--predictions", path, "--compare", tmp_path / "nowhere")
    (tmp_path / "first" / "report.json").write_text('{"model": "m", "metrics": {"all": 1}, "bench": "generated"}')
    with pytest.raises(UserError, match="a run of generated, and this one is of mathverse"):
        run("mathverse", "--predictions", path, "--compare", tmp_path / "first")


@pytest.mark.parametrize("flags, message", [
    (("--predictions", "a", "--model", "b"), "who answers"), ((), "who answers"),
    (("--api", "http://localhost:1/v1"), "--api_model go together"),
    (("--predictions", "a", "--judge_model", "m"), "--judge_model go together"),
    (("--model", "b", "--steps", "generate,bake"), "--steps bake"),
    (("--model", "b", "--protocol", "mine"), "--protocol mine"), (("--predictions", "a", "--blind"), "--blind"),
    (("--no_such_flag", "1"), "no_such_flag"), (("--model", "b", "--batch_size", "0"), "--batch_size 0: at least 1"),
    (("--predictions", "a", "--limit", "-1"), "--limit -1: at least 0"),
    (("--predictions", "nowhere.jsonl"), "nowhere.jsonl"),
    (("--model", "nowhere", "--allow_missing_images"), "nowhere"),
])
def test_wrong_flags_end_in_one_clear_line(run: Callable[..., dict], flags: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("generated", *flags)


# ----------------------------------------------------------------------------------------------------------------------
# two runs at once


def test_a_second_run_on_the_same_out_is_refused_until_the_first_is_gone(
    run: Callable[..., dict], serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def answer(body: dict) -> bytes:
        asked.set()
        go_on.wait(60)
        return completion("Answer: B")

    url = serve(answer=answer).url
    flags = ("--api", url, "--api_model", "m", "--allow_missing_images", "--samples", "0")
    command = [sys.executable, "eval.py", "--bench", "generated", "--data", FIXTURES / "generated.jsonl"]
    first = subprocess.Popen([*command, "--out_dir", tmp_path / "out", *flags], cwd=ROOT, stdout=subprocess.DEVNULL)
    monkeypatch.setattr(runtime, "lock_out_dir", functools.partial(runtime.lock_out_dir, patience=0.0))
    try:
        assert asked.wait(60)
        for steps in ("generate,extract,judge,report", "report"):
            refusal = rf"/out: process {first.pid} on .* is evaluating here; .*another --out_dir$"
            with pytest.raises(UserError, match=refusal):
                run("generated", *flags, "--steps", steps, "--fresh")
        assert (tmp_path / "out" / "settings.json").exists(), "--fresh threw away what the first run is writing"
    finally:
        first.kill()  # -9
        first.wait()
        go_on.set()
    assert run("generated", *flags)["n"] == 12
    assert run("generated", *flags, "--steps", "report")["n"] == 12, "a run that has ended holds nothing"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out_dir .*file: .*a folder that can be written to"):
        run("generated", *flags, out="file")


@pytest.mark.parametrize("damage", ["", "{", "[1]", "3"])
def test_damaged_settings_are_one_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / "settings.json").write_text(damage)
    with pytest.raises(UserError, match=r"settings\.json: damaged.*--fresh") as raised:
        store.check_settings(tmp_path / "settings.json", {"bench": "generated"})
    assert "\n" not in str(raised.value)


# ----------------------------------------------------------------------------------------------------------------------
# the adapters, with stand-ins for the harnesses they plug into


def test_the_lmms_eval_adapter_answers_requests(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.instance", "lmms_eval.api.model", "lmms_eval.api.registry")
    modules = {name: types.ModuleType(name) for name in names}
    modules["lmms_eval.api.instance"].Instance = object
    modules["lmms_eval.api.model"].lmms = type("lmms", (), {"__init__": lambda self: None})
    modules["lmms_eval.api.registry"].register_model = lambda name: lambda cls: cls
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    from evaluation.harness.models import AVAILABLE_MODELS, nanopuma

    model = getattr(nanopuma, AVAILABLE_MODELS["nanopuma"])(pretrained=str(tiny), batch_size="2")
    model.task_dict = {"task": {"test": [{"picture": Image.new("RGB", (96, 96), "white")}, {"picture": None}]}}

    def visual(doc: dict) -> list[Image.Image]:
        return [doc["picture"]] if doc["picture"] else []

    options = {"max_new_tokens": 3}
    requests = [types.SimpleNamespace(args=("Find x.", options, visual, k, "task", "test")) for k in (0, 1)]
    answers = model.generate_until(requests)
    alone = generate(model.model, model.processor, [model.message(requests[1])], max_new_tokens=3)[0]
    assert len(answers) == 2 and answers[1] == alone
    assert [part["type"] for part in model.message(requests[0])] == ["image", "text"]

    said = "x = 3\n\nAnswer: 3</s> and on"  # the default of a task that names no stop words is ["\n\n"]
    monkeypatch.setattr(nanopuma, "generate", lambda model, processor, messages, **options: [said] * len(messages))
    for until, kept in (["\n\n"], said), (["", "\n\n", "</s>"], "x = 3\n\nAnswer: 3"), ("\n", "x = 3"), (None, said):
        request = types.SimpleNamespace(args=("Find x.", {"until": until}, visual, 1, "task", "test"))
        assert model.generate_until([request]) == [kept]


def test_the_vlmevalkit_adapter_answers_a_message(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    names = ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base")
    modules = {name: types.ModuleType(name) for name in names}
    modules["vlmeval.vlm.base"].BaseModel = type("BaseModel", (), {"__init__": lambda self: None})
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    from evaluation.harness.vlmevalkit import NanoPuma

    model = NanoPuma(folder=str(tiny), max_new_tokens=3)
    message = [{"type": "text", "value": "Find x."}]
    assert (model.generate_inner(message, dataset="MathVista_MINI")
            == generate(model.model, model.processor, [message], max_new_tokens=3)[0])
    assert set(model.allowed_types) == {"text", "image"}  # by which VLMEvalKit refuses a video, not shown otherwise
