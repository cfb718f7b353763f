"""--explain against servers that are right, wrong, talking nonsense, dying midway, or not there."""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice

import pytest

from errors import UserError
from llm import Client
from llm_server import Server, completion
from problems import store
from problems.explain import TRIES, Explainer, question_of, set_solution, without_last_line

FLAGS = ["--families", "rectangle,cuboid,line_through_points", "--per_category", "16", "--bench_per_family", "1"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A data set with the program's own solutions."""
    out = tmp_path_factory.mktemp("own")
    subprocess.run([sys.executable, "gen_data.py", "--out_dir", str(out), *FLAGS], check=True, capture_output=True)
    return str(out)


@pytest.fixture
def out(own, tmp_path):
    """Its shards alone, to be merged anew."""
    shutil.copytree(os.path.join(own, "shards"), tmp_path / "data" / "shards")
    return str(tmp_path / "data")


@pytest.fixture
def serve():
    servers = []

    def start(answer, behaviours=()):
        servers.append(Server(behaviours, answer))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def rows(out, name):
    with open(os.path.join(out, f"{name}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def merge(out, server, **options):
    """Merge with explanations; the explainer."""
    with open(os.path.join(out, "shards", "plan.json"), encoding="utf-8") as file:
        settings = json.load(file)
    settings.pop("fingerprint")
    options = {"backoff": 0.001, "retries": 1, "timeout": 5, "concurrency": 2, **options}
    explainer = Explainer(Client(server.url, "m", cache=os.path.join(out, "cache"), **options))
    store.merge(store.Plan(**settings), out, explainer)
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
    explainer = merge(out, serve(Teacher(own, right)))
    texts = {row["id"]: expected(row) for row in rows(own, "stage1")}
    assert len(texts) == 48 and {row["id"]: row["output"] for row in rows(out, "stage1")} == texts
    for row in rows(out, "stage2"):
        assert row["output"] == row["output_2"] == texts[row["id"]]
    for row in rows(out, "stage3"):
        assert row["output"] == texts[row["id"].split("/")[0]]
    assert rows(out, "bench") == rows(own, "bench") and rows(out, "captions") == rows(own, "captions")
    with open(os.path.join(out, "manifest.json"), encoding="utf-8") as file:
        told = json.load(file)["explanations"]
    assert told == explainer.manifest()
    assert told["model"] == "m" and told["explained by the model"] == 48
    assert told["prompt tokens"] == 7 * 48 and told["completion tokens"] == 3 * 48


def test_the_model_is_told_neither_answer_nor_solution(own, out, serve):
    server = serve(Teacher(own, right))
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

    server = serve(Teacher(own, reply))
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

    explainer = merge(out, serve(Teacher(own, reply)))
    assert explainer.counts["explained by the model"] == 0
    for name in store.FILES:
        assert rows(out, name) == rows(own, name)


def test_a_server_that_speaks_something_else_is_counted(own, out, serve):
    server = serve(Teacher(own, right), behaviours=[("garbage",)] * 10_000)
    explainer = merge(out, server, give_up_after=None)
    assert explainer.counts["own solution: the server failed"] == 48
    assert rows(out, "stage2") == rows(own, "stage2")


def test_after_a_server_died_nothing_answered_is_asked_again(own, out, serve):
    teacher = Teacher(own, lambda row, body: right(row) if row["family"] != "cuboid" else "Hm.\nAnswer: -1")
    dying = serve(teacher, behaviours=[("answer",)] * 20 + [("hang up",)] * 10_000)
    with pytest.raises(UserError, match="calls in a row failed") as error:
        merge(out, dying, give_up_after=5, retries=0)
    assert "\n" not in str(error.value) and "start again" in str(error.value)
    assert not [name for name in os.listdir(out) if name.endswith((".jsonl", ".tmp"))]  # nothing half made

    answered = [json.dumps(body, sort_keys=True) for _, body in dying.requests[:20]]
    living = serve(teacher)
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
    server = serve(lambda body: completion("It is so.\nAnswer: 4"))
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


@pytest.mark.parametrize(("instruction", "answer", "reply", "kept"),
                         [
                             ("Find BC.", "3√2 cm", "By Pythagoras.\nAnswer: $3\\sqrt{2}$ cm", True),
                             ("Find BC.", "3√2 cm", "By Pythagoras, \\(BC = \\boxed{\\sqrt{18}}\\).", True),
                             ("Find BC.", "3√2 cm", "By Pythagoras.\nAnswer: 4.24 cm", False),
                             ("Find BC.\nA: 5\nB: 7\nC: 9\nD: 11", "B", "It is seven.\nAnswer: B", True),
                             ("Find BC.\nA: 5\nB: 7\nC: 9\nD: 11", "B", "It is seven.\nAnswer: 7", True),
                             ("Find BC.\nA: 5\nB: 7\nC: 9\nD: 11", "B", "Either A or B.\nAnswer: A or B", False),
                             ("Find the range.", "(-∞, 3]", "It opens down.\nAnswer: (-\\infty, 3]", True),
                             ("Find the range.", "(-∞, 3]", "It opens down.\nAnswer: (-\\infty, 3)", False),
                         ])
def test_answers_are_compared_as_mathematics(serve, instruction, answer, reply, kept):
    row = {"id": "1", "instruction": instruction, "output": "own", "answer": answer}
    problem = {"rows": {"stage1": [row], "stage2": [], "stage3": []}}
    explainer = Explainer(Client(serve(lambda body: completion(reply)).url, "m", concurrency=1))
    list(explainer.explain([(("plane_geometry", 0), problem)]))
    assert (row["output"] != "own") == kept
    assert row["output"] == "own" or row["output"].endswith(f"\nAnswer: {answer}")
    assert question_of(row).choices == (("5", "7", "9", "11") if "A:" in instruction else ())


def test_the_last_line_is_the_program_s():
    assert without_last_line("a = 1\n\n**Final Answer:** 3\n") == "a = 1"
    assert without_last_line("Answer: 3") == without_last_line(" \n") == ""
    assert without_last_line("The answer is near.\nSo x = 3.") == "The answer is near.\nSo x = 3."


def test_a_pair_keeps_one_solution():
    pair = {"output": "own", "output_2": "own"}
    single = {"output": "own"}
    set_solution({"stage1": [single], "stage2": [pair], "stage3": [], "captions": [{"output": "A figure."}]}, "new")
    assert pair == {"output": "new", "output_2": "new"} and single == {"output": "new"}


def test_the_command_explains_and_goes_on(own, tmp_path, serve):
    server = serve(Teacher(own, right))
    command = [sys.executable, "gen_data.py", "--out_dir", str(tmp_path / "data"), *FLAGS]
    command += ["--explain", server.url, "--explain_model", "m"]
    first = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "explained by the model: 48" in first.stdout and "m: 48 calls, 0 from the cache" in first.stdout
    assert "336 + 144 tokens" in first.stdout
    assert "explained by the model" in (tmp_path / "data" / "report.html").read_text()
    second = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "m: 48 calls, 48 from the cache" in second.stdout
    assert len(server.requests) == 48 + 2  # and once each whether it is there


@pytest.mark.parametrize(("flags", "message"),
                         [
                             (["--explain", "http://127.0.0.1:9", "--explain_model", "m"], "does not answer"),
                             (["--explain", "http://127.0.0.1:9"], "--explain_model"),
                             (["--explain", "localhost", "--explain_model", "m"], "not a server's address"),
                         ])
def test_a_dead_server_is_one_clear_line_before_anything_is_drawn(tmp_path, flags, message):
    command = [sys.executable, "gen_data.py", "--out_dir", str(tmp_path / "data"), *FLAGS, *flags]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and message in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
