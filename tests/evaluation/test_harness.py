"""The adapter in lmms-eval itself, by the command of evaluation/README.md. Run by an interpreter that has lmms-eval."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from evaluation.generate import generate, load_model

ROOT = Path(__file__).resolve().parents[2]
TASK = """
task: figures
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function pictures.of
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_new_tokens: 12}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
PICTURES = """
from PIL import Image


def of(doc):
    return [Image.open(doc["picture"])] if doc["picture"] else []
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task of five questions, two of them with a picture; it needs neither the hub nor a judge."""
    pytest.importorskip("lmms_eval")
    folder = tmp_path_factory.mktemp("figures")
    with open(folder / "rows.jsonl", "w") as file:
        for k in range(5):
            picture = str(folder / f"{k}.png") if k % 2 else ""
            if picture:
                Image.new("RGB", (96, 96), (40 * k, 200, 10)).save(picture)
            question = f"In triangle ABC, angle A = {30 + 10 * k} and angle B = {90 - 5 * k}. Find angle C."
            row = {"question": question, "picture": picture, "answer": str(60 - 5 * k)}
            file.write(json.dumps(row) + "\n")
    (folder / "figures.yaml").write_text(TASK.replace("FOLDER", str(folder)))
    (folder / "pictures.py").write_text(PICTURES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_lmms_eval_runs_the_documented_command(task: Path, tmp_path: Path, ranks: int) -> None:
    """Two ranks by torchrun, which sets the variables that accelerate sets: on a CPU that starts one rank alone."""
    shown = re.search(r"^    (LMMS_EVAL_PLUGINS=.*)\\\n(.*)", (ROOT / "evaluation/README.md").read_text(), re.M)
    words = shlex.split(shown[1] + shown[2])
    start = words.index("python")
    assert words[start : start + 3] == ["python", "-m", "lmms_eval"]
    variables = dict(word.split("=") for word in words[:start])
    flags = words[start + 3 :]
    flags[flags.index("--model_args") + 1] = f"pretrained={ROOT / 'tiny'}"
    flags[flags.index("--tasks") + 1] = "figures"
    flags += ["--include_path", task, "--log_samples", "--output_path", tmp_path / "out"]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    ended = subprocess.run(
        [sys.executable, *launcher, "-m", "lmms_eval", *map(str, flags)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **variables, "ACCELERATE_USE_CPU": "1", "HF_HOME": str(tmp_path / "hub")}, timeout=500,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0 and "Traceback" not in said, said[-3000:]
    for share in {1: [5], 2: [3, 2]}[ranks]:  # documents that a rank says it prepares
        assert f"| 0/{share} [" in said
    samples = [json.loads(line) for path in (tmp_path / "out").rglob("*_samples_figures.jsonl")
               for line in path.read_text().splitlines()]
    assert sorted(sample["doc_id"] for sample in samples) == [0, 1, 2, 3, 4]

    model, processor = load_model(str(ROOT / "tiny"))
    rows = [json.loads(line) for line in (task / "rows.jsonl").read_text().splitlines()]
    messages = [[*([{"type": "image", "value": row["picture"]}] if row["picture"] else []),
                 {"type": "text", "value": row["question"]}] for row in rows]
    expected = generate(model, processor, messages, max_new_tokens=12)
    assert len(set(expected)) >= 4  # so that an answer in another's place would show
    assert {sample["doc_id"]: sample["filtered_resps"] for sample in samples} == dict(enumerate(expected))
