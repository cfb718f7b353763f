"""Servers that answer and servers that judge: what is read of their replies, who gets which key, what a kill leaves."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as evaluation
from errors import UserError
from evaluation import BENCHMARKS, llm_judge, mathverse, mathvista, store
from evaluation.question import Question
from llm_server import completion

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
DATA = {bench: FIXTURES / f"{bench}.json{'l' if bench == 'generated' else ''}" for bench in BENCHMARKS}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, list[dict]]]:
    """Run eval.py's main with flags and no report; returns the rows that its steps left in `tmp_path`/out."""

    def call(bench: str, *flags: object, steps: str = "generate,extract,judge") -> dict[str, list[dict]]:
        words = ["eval.py", "--bench", bench, "--data", DATA[bench], "--out_dir", tmp_path / "out", "--steps", steps,
                 "--allow_missing_images", *flags]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        evaluation.main()
        return {path.stem: store.read_lines(path) for path in (tmp_path / "out").glob("*.jsonl")}

    return call


def answers(path: Path, bench: str, response: str) -> tuple[str, Path]:
    """The flag of a file in which every row of a benchmark has this response."""
    rows = [{"id": question.id, "response": response} for question in BENCHMARKS[bench].load(str(DATA[bench]))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "--predictions", path


def says(reply: Callable[[str], str | bytes]) -> Callable[[dict], bytes]:
    """For `serve`: what reply(the question's text) says, "OK" to the question whether anybody is there."""

    def answer(body: dict) -> bytes:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        said = "OK" if text == "Say OK." else reply(text)
        return said if isinstance(said, bytes) else completion(said)

    return answer


def judge_flags(server, *flags: object) -> tuple:
    return ("--judge", server.url, "--judge_model", "j", *flags)


# ----------------------------------------------------------------------------------------------------------------------
# what a judge's reply says

def row_of(choices: tuple = (), answer_type: str = "integer") -> Question:
    return Question("1", "", "", "", "", choices, row={"answer_type": answer_type})


ANGLES, WHOLE, LIST = row_of(("55°", "60°", "65°")), row_of(), row_of(answer_type="list")


@pytest.mark.parametrize("bench, question, extraction, replies", [
    (mathvista, ANGLES, "C", [
        "C", "c", "**C**", '"C"', "“C”", "`C`", "(C) 65°", "C: 65°", "Answer: C.", "\\boxed{C}",
        "<think>B, or no</think> C", "Extracted answer: **C**", "The extracted answer is C.", "**Extracted answer:** C",
        "The response chooses option C.", "C\n\nIt says B at first.", "Extracted answer: C\n\nIt says B at first.",
        "<think>\nIt says C twice.\nExtracted answer: C"]),
    (mathvista, ANGLES, "65°", ["65°", "**65°**"]),
    (mathvista, ANGLES, None, ["null", "N/A", "n/a.", "**None**", '"null"', "The extracted answer is null.",
                               "<think>C?</think>\nnone", "The response gives no final answer."]),
    (mathvista, ANGLES, "unread", ["B or C", "E", "17°", "", "I'm sorry, but I can't help with that.",
                                   "<think>\nSo it may mean C, but wait", "null\n\nExtracted answer: C"]),
    (mathvista, row_of(("None", "One")), "None", ["**None**"]), (mathvista, row_of(("(a)", "(b)")), "(b)", ["(b)"]),
    (mathvista, WHOLE, "14", ["14", "**14**", '"14"', "Answer: 14.", "The extracted answer is 14.", "14 trees",
                              "<think>13?</think>\n14", "14\n\nIt says: 14 trees."]),
    (mathvista, WHOLE, None, ["N/A"]), (mathvista, WHOLE, "unread", ["3 and 5", "The response is confused."]),
    (mathvista, row_of(answer_type="float"), "0.75", ["Extracted answer: 0.75"]),
    (mathvista, LIST, "[2003, 2005]", ["**[2003, 2005]**", "The list is [2003,2005]."]),
    (mathvista, LIST, None, ["null"]), (mathvista, LIST, "unread", ["in spring"]),
    (mathverse, row_of(), "y = -(x - 2)^2 + 3", ["**y = -(x - 2)^2 + 3**"]),
    (mathverse, row_of(), "down on (-3, 1)", ["The extracted answer is down on (-3, 1)."]),
    (mathverse, row_of(), "about 12.6 square cm", ["Extracted answer: about 12.6 square cm"]),
    (mathverse, row_of(), None, ["The extracted answer is `null`."]),
    (mathverse, row_of(), "5 cm", [
        "It considers 6 cm, but it says that the correct answer is:\nAnswer: 5 cm",
        "5 cm\n\n7.\nResponse: 'It is 6 cm.'\nExtracted answer: 6 cm"]),
    (mathverse, row_of(), "unread", [
        "I'm unable to open the picture.", "The response says 5 cm, but the correct answer is 7 cm.",
        "I cannot extract it; the response mentions 5 bars.",
        "It sets up two equations, solves neither of them, and then it stops in the middle of a line"]),
])
def test_an_answer_is_read_past_what_stands_around_it(bench, question, extraction, replies) -> None:
    expected = dict.fromkeys(replies, None if extraction == "unread" else {"extraction": extraction})
    assert {reply: llm_judge.read_extraction(bench, question, reply) for reply in replies} == expected


@pytest.mark.parametrize("verdict, replies", [
    (True, [" 1\n", "1.", "**1**", '"1"', "Judgement: 1", "judgment: **1**", "The judgement is 1.", "\\boxed{1}",
            "<think>0? No.</think>\n1", "◁think▷0? No.◁/think▷1", "<think>\nThey agree.\nJudgement: 1",
            "Both are 5 cm.\n1", "Judgement: 1\n\nBoth are 50 cm.", "1, because both are 5 cm.", "1 (they agree)",
            "Judgement: 1.0", "1\n\n[Question]: Which?\nJudgement: 0"]),
    (False, ["0", "Judgement: 0", "[Judgement]: 0", "Judgement: 0 because the units differ",
             "[Standard answer]: 1\n[Model answer]: 1\nJudgement: 0"]),
    (None, ["", "yes", "10", "1 or 0", "1\n0", "Judgement: 1 or 0", "Judgement: 0/1", "Judgement: 1. Judgement: 0",
            "Judgement: 1.5", "* " * 10**6 + "1", "Judgement: 1, no wait, 0",
            "1. One answer is 5 cm.\n2. The other is 6 cm.\nThey differ.", "The judgement is not 1.",
            "<think>\nIt may be 1 then"]),
])
def test_verdicts_of_a_judge(verdict: bool | None, replies: list[str]) -> None:
    assert {reply: llm_judge.parse_verdict(reply) for reply in replies} == dict.fromkeys(replies, verdict)


# ----------------------------------------------------------------------------------------------------------------------
# what becomes of the rows

CHATTY = {"marks": "<think>hm</think> **14**", "line fall": completion([{"type": "text", "text": "[2003, 2005]"}]),
          "mean": completion(None, reasoning_content='The response says so.\nExtracted answer: "2.75"')}


def vista_reply(text: str, opposite: str | bytes = "The extracted answer is B.") -> str | bytes:
    """A judge that extracts every right answer, and chats. opposite: its reply to the first question."""
    asked = text.rpartition("Question: ")[2]
    return next(reply for words, reply in {**CHATTY, "opposite": opposite}.items() if words in asked)


def test_a_chatty_judge_is_read_and_one_without_an_answer_asked_again_and_then_an_error(run, serve, tmp_path) -> None:
    flags = answers(tmp_path / "a.jsonl", "mathvista", "As I said above.")
    rows = run("mathvista", *flags, *judge_flags(serve(answer=says(vista_reply))))["verdicts"]
    assert [row["extraction"] for row in rows] == ["B", "14", "2.75", "[2003, 2005]"]
    assert all(row["correct"] and row["extracted_by"] == "llm" for row in rows)

    server = serve(answer=says(lambda text: vista_reply(text, "Let me see.")))
    error = "extraction: no answer of the row's kind in 3 replies, the last 'Let me see.'"
    with pytest.raises(UserError, match=rf"1 of 4 rows failed \(0 got no answer, 1 no verdict; the first, 1: {error}.*"
                                        "; give the same command again, with all its steps"):
        run("mathvista", *flags, "--judge", server.url, "--judge_model", "other", steps="extract,judge,report")
    rows = store.read_lines(tmp_path / "out" / "verdicts.jsonl")
    assert rows[0]["error"] == error and "correct" not in rows[0] and all(row["correct"] for row in rows[1:])
    assert [body["temperature"] for _, body in server.requests][-6:] == [0.0] * 4 + [0.7] * 2


def test_what_a_judge_quotes_is_the_answer_though_no_choice_or_number(run, serve, tmp_path: Path) -> None:
    """A faithful judge can do no better: the row is wrong, not failed, and the nearest choice is not credited."""
    flags = answers(tmp_path / "a.jsonl", "mathvista", "There are two or three, so 7.4 or so.")
    rows = run("mathvista", *flags, *judge_flags(serve(answer=says(lambda text: "Two or three"))))["verdicts"]
    assert [(row["extraction"], row["correct"]) for row in rows] == [(None, False)] * 4


def test_a_judge_is_asked_as_the_flags_say_and_its_cost_is_told(run, serve, tmp_path: Path, capsys) -> None:
    def reply(text: str) -> str:
        if text.endswith("Extracted answer: "):
            return "null" if "no idea" in text else "12.6"
        return "Judgement: 1"

    server = serve(answer=says(reply))
    name, path = answers(tmp_path / "a.jsonl", "mathverse", "It is 12.6.")
    path.write_text(path.read_text().replace("It is 12.6.", "I have no idea.", 1))
    flags = name, path, *judge_flags(server, "--judge_max_tokens", 99, "--judge_temperature", 0.6)
    rows = run("mathverse", *flags)["verdicts"]
    assert [row["correct"] for row in rows] == [False] + [True] * 14 and {row["by"] for row in rows} == {"llm"}
    assert {(body["max_tokens"], body["temperature"]) for _, body in server.requests} == {(99, 0.6)}
    printed = capsys.readouterr().out
    asked = len(server.requests)
    assert "extraction: j: " in printed and "verdicts: j: " in printed and " tokens" in printed
    assert run("mathverse", *flags)["verdicts"] == rows
    printed = capsys.readouterr().out
    assert len(server.requests) == asked and "verdicts: j: 14 calls, 14 from the cache" in printed, "nor is it checked"
    server.answer = says(lambda text: vista_reply(text, completion("Let me think about", "length")))
    rows = run("mathvista", *answers(tmp_path / "b.jsonl", "mathvista", "As I said."), *judge_flags(server))
    assert {body["max_tokens"] for _, body in server.requests[asked:]} == {4096}, "room for a judge that thinks"
    assert "cut off at 4096 tokens" in rows["verdicts"][0]["error"]


# ----------------------------------------------------------------------------------------------------------------------
# servers: whether they are there, which key they get


@pytest.mark.parametrize("steps", ["generate,extract,judge", "extract,judge"])
def test_a_judge_that_is_not_there_ends_the_run_before_anything_is_asked(run, serve, tmp_path: Path, steps) -> None:
    server = serve(answer=says(lambda text: "Answer: B"))
    given = answers(tmp_path / "a.jsonl", "mathvista", "B")
    who = ("--api", server.url, "--api_model", "m") if "generate" in steps else given
    for url, words in ("http://127.0.0.1:9", "no connection.*check the address"), ("http://[::1", "no.* address"):
        with pytest.raises(UserError, match=words):
            run("mathvista", *who, "--judge", url, "--judge_model", "j", steps=steps)
    assert len(server.requests) <= 2, "the answering server was asked whether it is there, no more"


def test_a_run_that_got_only_errors_ends_with_the_reason(run, serve, tmp_path: Path) -> None:
    refusing = serve(answer=lambda body: completion("OK") if "Say OK." in json.dumps(body) else None)
    with pytest.raises(UserError, match="all 4 rows failed, the last with: HTTP 400"):
        run("mathvista", "--api", refusing.url, "--api_model", "m")
    given = answers(tmp_path / "a.jsonl", "mathvista", "B")
    with pytest.raises(UserError, match="all 4 rows failed, the last with: extraction: HTTP 400"):
        run("mathvista", *given, *judge_flags(refusing))
    unclear = serve(answer=says(lambda text: "12.6" if text.endswith("Extracted answer: ") else "maybe"))
    with pytest.raises(UserError, match="all 15 rows failed, the last with: verdict: no 0 or 1 in 3 replies"):
        run("mathverse", *answers(tmp_path / "a.jsonl", "mathverse", "It is 12.6."), *judge_flags(unclear))

    server = serve(answer=says(lambda text: "Answer: 14" if "marks" in text else completion("", "content_filter")))
    rows = run("mathvista", "--api", server.url, "--api_model", "m", "--fresh")
    assert sum("error" in row for row in rows["predictions"]) == 3
    run("mathvista", "--api", server.url, "--api_model", "m")  # what failed fails again; what was answered is there
    assert len(server.requests) == 1 + 4 + 1 + 3


def test_a_failed_call_is_no_wrong_answer_and_is_asked_again(run, serve, tmp_path: Path) -> None:
    failed = completion("", "content_filter")
    server = serve(answer=says(lambda text: failed if "Solve" in text else "B" if "cube" in text else "Answer: 80°"))
    flags = ("--api", server.url, "--api_model", "m", "--samples", 0)
    every = "generate,extract,judge,report"
    with pytest.raises(UserError, match=r"2 of 12 rows failed \(2 got no .*no text.*; give the same command again"):
        run("generated", *flags, steps=every)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["errors"] == 2 and report["n"] == 10 and report["metrics"] == {}
    contents = [body["messages"][0]["content"] for _, body in server.requests]
    shown = [content for content in contents if isinstance(content, list)]
    assert 0 < len(shown) < len(contents)
    assert all(parts[0]["image_url"]["url"].startswith("data:image/png;base64,") for parts in shown)
    asked = len(server.requests)
    server.answer = says(lambda text: completion("Let us see, first we", "length"))  # cut off: all that the model said
    run("generated", *flags, steps=every)
    assert len(server.requests) == asked + 3, "only the failed rows are asked again, and whether the server is there"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["errors"] == 0 and report["metrics"]["vision_only"] == 0


def test_each_server_gets_its_own_key(run, serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, judge = serve(answer=says(lambda text: "B")), serve(answer=says(vista_reply))
    given = answers(tmp_path / "a.jsonl", "mathvista", "As I said.")
    asked = ("--api", model.url, "--api_model", "m", "--fresh")

    def keys(who: tuple, url: str = judge.url) -> list:
        judge.headers.clear(), model.headers.clear()
        run("mathvista", *who, "--judge", url, "--judge_model", f"j{time.monotonic()}")  # another cache key each time
        return [{headers.get("Authorization") for headers in server.headers} for server in (model, judge)]

    monkeypatch.setenv("OPENAI_API_KEY", "the model's")
    assert keys(asked) == [{"Bearer the model's"}, {None}], "the key of one server is never sent to another"
    later = ("--steps", "extract,judge,report")
    assert keys(later) == [set(), {None}], "nor by a later command"
    (tmp_path / "out" / "settings.json").write_text('{"weights": "of a checkpoint"}')
    assert keys(later) == [set(), {"Bearer the model's"}], "a checkpoint has no key of its own"
    assert keys(given) == [set(), {"Bearer the model's"}], "the only server"
    model.answer = says(lambda text: vista_reply(text) if text.endswith("answer: ") else "B")
    assert keys(asked, model.url) == [{"Bearer the model's"}, set()], "one server is both"
    monkeypatch.setenv("JUDGE_API_KEY", "the judge's")
    assert keys(asked) == [{"Bearer the model's"}, {"Bearer the judge's"}]
    assert keys(given) == [set(), {"Bearer the judge's"}]


# ----------------------------------------------------------------------------------------------------------------------
# kill -9


def test_what_is_paid_for_survives_a_kill(run, serve, tmp_path: Path) -> None:
    """One answer comes late; the others are on disk before the next is asked."""
    late, enough = threading.Event(), threading.Event()
    count = [0]

    def reply(text: str) -> str:
        count[0] += 1
        if count[0] == 1:
            late.wait(60)
        elif count[0] == 9:
            enough.set()
            late.wait(60)
        return "Answer: B" if count[0] % 2 else completion("It is clear that", "length")

    server = serve(answer=says(reply))
    flags = ("--api", server.url, "--api_model", "m", "--concurrency", "2", "--allow_missing_images")
    command = [sys.executable, "eval.py", "--bench", "generated", "--data", DATA["generated"], "--steps", "generate"]
    process = subprocess.Popen([*command, "--out_dir", tmp_path / "out", *flags], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        late.set()
    kept = store.read_lines(tmp_path / "out" / "predictions.jsonl")
    assert len(kept) == 7 and {row["finish_reason"] for row in kept} == {"stop", "length"}
    asked = len(server.requests)
    rows = run("generated", *flags, steps="generate")["predictions"]
    assert rows[:7] == kept and len(rows) == 12 and len(server.requests) == asked + 1 + 5
