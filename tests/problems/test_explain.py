"""--explain against servers that are right, wrong, talking nonsense, dying midway, or not there."""

import json
import shutil
from itertools import islice

import pytest

from common.llm import Client
from errors import UserError
from llm_server import completion
from problems import store
from problems.explain import TRIES, Explainer, question_of, without_last_line
from tests.problems.command import generate, manifest, rows

FLAGS = ["--families", "rectangle,cuboid,line_through_points", "--per_category", 16, "--bench_per_family", 1]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A data set with the program's own solutions."""
    out = tmp_path_factory.mktemp("own")
    generate(out, *FLAGS)
    return out


@pytest.fixture
def out(own, tmp_path):
    """Its shards alone, to be merged anew."""
    shutil.copytree(own / "shards", tmp_path / "data" / "shards")
    return tmp_path / "data"


def merge(out, server, **options):
    """Merge with explanations; the explainer."""
    settings = json.loads((out / "shards" / "plan.json").read_text())
    settings.pop("fingerprint")
    options = {"backoff": 0.001, "retries": 1, "timeout": 5, "concurrency": 2, **options}
    explainer = Explainer(Client(server.url, "m", cache=str(out / "cache"), **options))
    store.merge(store.Plan(**settings), str(out), explainer)
    return explainer


def asked(body):
    return body["messages"][0]["content"]


class Teacher:
    """Knows every problem's row; `reply(row, body)` says what it answers."""

    def __init__(self, own, reply):
        self.rows, self.reply = rows(own, "stage1"), reply

    def __call__(self, body):
        found = [row for row in self.rows if asked(body).endswith("\n\n" + row["instruction"])]
        return completion(self.reply(found[0], body) if found else "OK")


def right(row, body=None):
    return f"I look at what is given.\nSo it follows.\n\n**Answer:** {row['answer']}"


def expected(row):
    return f"I look at what is given.\nSo it follows.\nAnswer: {row['answer']}"


def test_an_explanation_that_is_right_stands_in_every_row(own, out, serve):
    explainer = merge(out, serve(answer=Teacher(own, right)))
    texts = {row["id"]: expected(row) for row in rows(own, "stage1")}
    assert len(texts) == 48 and {row["id"]: row["output"] for row in rows(out, "stage1")} == texts
    for row in rows(out, "stage2"):
        assert row["output"] == row["output_2"] == texts[row["id"]]
    for row in rows(out, "stage3"):
        assert row["output"] == texts[row["id"].split("/")[0]]
    assert rows(out, "bench") == rows(own, "bench") and rows(out, "captions") == rows(own, "captions")
    told = manifest(out)["explanations"]
    assert told == explainer.manifest()
    assert told["model"] == "m" and told["explained by the model"] == 48
    assert told["prompt tokens"] == 7 * 48 and told["completion tokens"] == 3 * 48


def test_the_model_is_told_neither_answer_nor_solution(own, out, serve):
    server = serve(answer=Teacher(own, right))
    merge(out, server)
    solutions = {row["instruction"]: row["output"] for row in rows(own, "stage1")}
    for _, body in server.requests:
        instruction = asked(body).split("\n\n", 1)[1]
        lines = solutions[instruction].splitlines()
        assert all(line not in asked(body) for line in lines)


def test_a_wrong_answer_is_asked_again_and_then_the_program_s_solution_stays(own, out, serve):
    def reply(row, body):
        if row["family"] == "rectangle":
            return "Because.\nAnswer: 123456789"
        if row["family"] == "cuboid" and body["temperature"] == 0:
            return f"Not sure, {row['answer']} or 5.\nAnswer: 5.0123"
        return right(row)

    server = serve(answer=Teacher(own, reply))
    explainer = merge(out, server)
    program = {row["id"]: row for row in rows(own, "stage2")}
    for row in rows(out, "stage2"):
        wanted = program[row["id"]]["output"] if row["family"] == "rectangle" else expected(row)
        assert row["output"] == row["output_2"] == wanted
    assert explainer.counts["explained by the model"] == 32
    assert explainer.counts["own solution: the model's answer differs"] == 16
    assert explainer.counts["own solution: the server failed"] == 0
    assert len(server.requests) == 16 * TRIES + 16 * 2 + 16


def test_garbage_and_bare_answers_are_not_explanations(own, out, serve):
    def reply(row, body):
        return {"rectangle": f"Answer: {row['answer']}", "cuboid": "~~ ?? ~~"}.get(row["family"], "I cannot tell.")

    explainer = merge(out, serve(answer=Teacher(own, reply)))
    assert explainer.counts["explained by the model"] == 0
    shutil.rmtree(out / "cache")
    explainer = merge(out, serve(behaviours=[("garbage",)] * 10_000), give_up_after=None)  # it speaks something else
    assert explainer.counts["own solution: the server failed"] == 48
    assert all(rows(out, name) == rows(own, name) for name in store.FILES)


def test_after_a_server_died_nothing_answered_is_asked_again(own, out, serve):
    teacher = Teacher(own, lambda row, body: right(row) if row["family"] != "cuboid" else "Hm.\nAnswer: -1")
    dying = serve(answer=teacher, behaviours=[("answer",)] * 20 + [("hang up",)] * 10_000)
    with pytest.raises(UserError, match="calls in a row failed") as error:
        merge(out, dying, give_up_after=5, retries=0)
    assert "\n" not in str(error.value) and "start again" in str(error.value)
    assert not [*out.glob("*.jsonl"), *out.glob("*.tmp")]  # nothing half made

    answered = [json.dumps(body, sort_keys=True) for _, body in dying.requests[:20]]
    living = serve(answer=teacher)
    explainer = merge(out, living)
    later = [json.dumps(body, sort_keys=True) for _, body in living.requests]
    # the second and third try of a problem are two requests of one wording
    first_tries = [body for body in later if '"temperature": 0.0' in body]
    assert not set(answered) & set(first_tries) and len(set(answered) | set(first_tries)) == 48
    assert len(answered) + len(later) == 48 + 16 * (TRIES - 1)
    assert explainer.counts["explained by the model"] == 32

    tables = {name: rows(out, name) for name in store.FILES}
    again = merge(out, living)
    assert len(living.requests) == len(later)  # all from the cache
    assert {name: rows(out, name) for name in store.FILES} == tables and again.manifest() == explainer.manifest()


def test_only_a_bounded_number_of_problems_is_held(serve):
    server = serve(answer=lambda body: completion("It is so.\nAnswer: 4"))
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            row = {"id": str(drawn), "instruction": "What is 2 + 2?", "output": "", "answer": "4"}
            yield ("plane_geometry", 0), {"rows": {"stage1": [row], "stage2": [], "stage3": []}}

    explainer = Explainer(Client(server.url, "m", concurrency=2))
    found = list(islice(explainer.explain(endless()), 3))
    assert [problem["rows"]["stage1"][0]["output"] for _, problem in found] == ["It is so.\nAnswer: 4"] * 3
    assert drawn <= 64


FOUR = "Find BC.\nA: 5\nB: 7\nC: 9\nD: 11"


@pytest.mark.parametrize(("instruction", "answer", "reply", "kept"), [
    ("Find BC.", "3√2 cm", "By Pythagoras.\nAnswer: $3\\sqrt{2}$ cm", True),
    ("Find BC.", "3√2 cm", "By Pythagoras, \\(BC = \\boxed{\\sqrt{18}}\\).", True),
    ("Find BC.", "3√2 cm", "By Pythagoras.\nAnswer: 4.24 cm", False),
    (FOUR, "B", "It is seven.\nAnswer: B", True),
    (FOUR, "B", "It is seven.\nAnswer: 7", True),
    (FOUR, "B", "Either A or B.\nAnswer: A or B", False),
    ("Find the range.", "(-∞, 3]", "It opens down.\nAnswer: (-\\infty, 3]", True),
    ("Find the range.", "(-∞, 3]", "It opens down.\nAnswer: (-\\infty, 3)", False),
])
def test_answers_are_compared_as_mathematics(serve, instruction, answer, reply, kept):
    row = {"id": "1", "instruction": instruction, "output": "own", "answer": answer}
    problem = {"rows": {"stage1": [row], "stage2": [], "stage3": []}}
    explainer = Explainer(Client(serve(answer=lambda body: completion(reply)).url, "m", concurrency=1))
    list(explainer.explain([(("plane_geometry", 0), problem)]))
    assert (row["output"] != "own") == kept
    assert row["output"] == "own" or row["output"].endswith(f"\nAnswer: {answer}")
    assert question_of(row).choices == (("5", "7", "9", "11") if "A:" in instruction else ())


def test_the_last_line_is_the_program_s():
    assert without_last_line("a = 1\n\n**Final Answer:** 3\n") == "a = 1"
    assert without_last_line("Answer: 3") == without_last_line(" \n") == ""
    assert without_last_line("The answer is near.\nSo x = 3.") == "The answer is near.\nSo x = 3."


def test_the_command_explains_and_goes_on(own, tmp_path, serve, capsys):
    server, out = serve(answer=Teacher(own, right)), tmp_path / "data"
    for told in ("m: 48 calls, 0 from the cache, 0 failed, 0 retries, 336 + 144 tokens",
                 "m: 48 calls, 48 from the cache"):
        generate(out, *FLAGS, "--explain", server.url, "--explain_model", "m", "--llm_concurrency", 4)
        printed = capsys.readouterr().out
        assert told in printed and "explained by the model: 48" in printed
    assert "explained by the model" in (out / "report.html").read_text()
    assert len(server.requests) == 48 + 2  # and once each whether it is there
