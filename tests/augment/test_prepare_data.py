"""runs/prepare_data.sh on a small tree in the sets' own layouts: three mixes that the trainer opens, or the reason."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from data_helpers import NUM_IMAGE_TOKENS, tiny_processor

from data import ChatFormat, open_rows
from tests.augment.test_augment_data import ROOT
from tests.augment.test_augment_pictures import figure

WORK = "There are {n} sheep, and 4 more come in. So we add the two numbers, and {n} + 4 = {sum} sheep stand there."


def worked(n, question_key, answer_key):
    return {question_key: f"A shepherd counts {n} sheep, then 4 more come in. How many sheep are there?",
            answer_key: WORK.format(n=n, sum=n + 4) + f"\nThe answer is: {n + 4}"}


def asked(n, image, answer, prompt="<image>\n"):
    """A row as LLaVA has them."""
    question = f"{prompt}The two sides of triangle {n} are {n + 3} and 4. What is the third at most, as a whole number?"
    return {"id": str(n), "image": image, "conversations": [{"from": "human", "value": question},
                                                            {"from": "gpt", "value": answer}]}


@pytest.fixture
def public(tmp_path):
    """Every set with a few rows; the geometry sets show answers and no work, so that nothing is left of them."""
    root = tmp_path / "public"

    def write(name, rows):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows))

    def draw(folder, names):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            figure(number).save(root / folder / name)

    write("MathInstruct/MathInstruct.json",
          [{"source": f"data/{kind}/a.json", **worked(n, "instruction", "output")}
           for n, kind in enumerate(["CoT", "CoT", "PoT"])])
    write("dart-math-hard/data/train-00000-of-00001.jsonl", [worked(n, "query", "response") for n in range(3)])
    write("orca-math-word-problems-200k/data/train-00000-of-00001.jsonl",
          [worked(n, "question", "answer") for n in range(3)])
    write("NuminaMath-CoT/data/train-00000-of-00001.jsonl", [worked(n, "problem", "solution") for n in range(3)])
    prompt = "<image>\nBased on the image, directly select the correct answer for the following question:\nQuestion: "
    draw("Geo170K/images", ["0.png", "1.png"])
    write("Geo170K/qa_tuning.json", [asked(n, f"{n}.png", "Answer: B", prompt) for n in range(2)])
    draw("VisualWebInstruct/imgs/images", ["0.png", "1.png", "2.png"])
    work = "The third is smaller than the sum of the other two, which we add up, and take one away.\nAnswer: 6"
    write("VisualWebInstruct/visualwebinstruct_conversation.jsonl",
          [asked(n, [f"images/{n}.png"], work) for n in range(3)])
    write("VisualWebInstruct/mixed_conversation.jsonl", [asked(n, [f"images/{n}.png"], work) for n in range(3)] * 4)
    draw("MathV360K/data_images/TabMWP/images", ["0.png", "1.png"])
    write("MathV360K/train_samples_all_tuning.json", [asked(n, f"TabMWP/images/{n}.png", work) for n in range(2)])
    return root


def prepare(public, out, **environment):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PER_CATEGORY": "6", "BENCH": "0", "WORKERS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "runs/prepare_data.sh", str(public), str(out)], cwd=ROOT, env={**env, **environment},
                          text=True, capture_output=True)


def test_the_chain_ends_in_three_mixes_that_the_trainer_opens(public, tmp_path):
    script = prepare(public, tmp_path / "out")
    assert script.returncode == 0, script.stderr[-2000:]
    mixes = dict(re.findall(r"^stage (\d): --data (\S+)$", script.stdout, re.MULTILINE))
    for name in ("pairs_geometry/stage2", "singles_geometry/stage3", "mathv_geometry/stage3"):
        assert f"left out: {tmp_path}/out/{name}.jsonl holds no rows" in script.stderr and name not in str(mixes)
    chat_format = ChatFormat(tiny_processor(), NUM_IMAGE_TOKENS)
    counts = {}
    for stage, mix in mixes.items():
        rows = open_rows(mix, pairs=stage == "2", chat_format=chat_format, max_length=4096)
        names = [Path(part).parent.name for part in mix.split(",")]
        counts[stage] = dict(zip(names, (part["drawn"] for part in rows.mix.values()), strict=True))
    assert counts["1"] == {"text_mathinstruct": 2, "text_dart": 3, "text_orca": 3, "text_numina": 3}
    assert counts["2"] == {"engine": 18, "pairs_web": 3}, "and nothing of mixed_conversation.jsonl"
    assert counts["3"] == {"mathv_other": 2, "singles_engine": 36, "singles_web": 6, **counts["1"]}
    again = prepare(public, tmp_path / "out")
    assert again.returncode == 0 and again.stdout.splitlines()[-3:] == script.stdout.splitlines()[-3:]


def test_pictures_that_lie_nowhere_are_named_before_a_row_is_lost(public, tmp_path):
    shutil.move(public / "VisualWebInstruct" / "imgs", tmp_path / "elsewhere")
    script = prepare(public, tmp_path / "out")
    assert script.returncode == 1 and not (tmp_path / "out").exists()
    assert re.fullmatch(r"error: \S+_conversation.jsonl: its pictures \(images/0.png, ...\) lie in none of .*; unpack "
                        "them there, or say WEB_IMAGES=FOLDER\n", script.stderr)
    script = prepare(public, tmp_path / "out", WEB_IMAGES=str(tmp_path / "elsewhere"), PYTHON="false")
    assert "pictures" not in script.stderr and (tmp_path / "out" / "engine").exists()
