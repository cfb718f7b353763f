"""The training scripts as a user runs them: the tiny preset, a few rows, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import guard  # noqa: F401  (before transformers)
from transformers import AutoModelForImageTextToText, AutoProcessor

from checkpoint import read_manifest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--preset", "tiny", "--global_batch", "6", "--pack_tokens", "800", "--num_workers", "0", "--save_every", "2"]
ALL_PARTS = ["--train", "vision,projector,llm"]


def make_pairs(folder: Path, count: int) -> Path:
    """Angle sums, in text and as a picture, in the published dialect; every third strong side has the picture too."""
    lines = []
    for number in range(count):
        first, second = 20 + 5 * (number % 9), 30 + 5 * (number % 7)
        picture = Image.new("RGB", (96, 96), "white")
        pen = ImageDraw.Draw(picture)
        pen.polygon([(10, 80), (85, 80), (50, 15)], outline="black")
        pen.text((18, 66), str(first), fill="black")
        pen.text((62, 66), str(second), fill="black")
        picture.save(folder / f"{number}.png")
        output = f"{first} + {second} = {first + second}\nAnswer: {180 - first - second}"
        strong = {
            "image_url": f"{number}.png" if number % 3 == 0 else "",
            "instruction": f"Triangle ABC. Angle A = {first} and angle B = {second}. Find angle C.",
            "output": output,
        }
        weak = {"image_url_2": f"{number}.png", "instruction_2": "Find angle C.", "output_2": output}
        lines.append(json.dumps(strong | weak))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(script: str, *arguments: object, ranks: int = 0, check: bool = True) -> subprocess.CompletedProcess:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *launch, script, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert not check or finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]
    return finished


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def stage2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list]:
    """(pairs, out_dir, flags) of an uninterrupted stage-2 run: two epochs of 14 pairs, six a step: 6, 6, 2, twice."""
    folder = tmp_path_factory.mktemp("stage2")
    pairs = make_pairs(folder, 14)
    flags = [*SMALL, *ALL_PARTS, "--model", "", "--data", pairs, "--epochs", 2, "--lam", 0.5]
    run("train_stage2.py", *flags, "--out_dir", folder / "run")
    return pairs, folder / "run", flags


def test_a_step_is_the_configured_rows_and_the_last_batch_of_an_epoch_is_used(stage2):
    rows = log_of(stage2[1])
    assert [row["rows"] for row in rows] == [6, 6, 2, 6, 6, 2]
    assert all(row["unreadable"] == row["nonfinite"] == 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    for row in rows:
        mixed = 0.5 * (0.2 * row["fkl"] + 0.8 * row["rkl"]) + 0.5 * row["ce"]
        assert row["loss"] == pytest.approx(mixed, rel=1e-5)


def test_two_ranks_print_the_losses_of_one(stage2, tmp_path):
    run("train_stage2.py", *stage2[2], "--out_dir", tmp_path / "run", ranks=2)
    alone, together = log_of(stage2[1]), log_of(tmp_path / "run")
    assert len(alone) == len(together) == 6
    for one, two in zip(alone, together, strict=True):
        for name in ("loss", "fkl", "rkl", "ce", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-5), (one["step"], name)


def test_kill_9_and_a_restart_repeat_the_run_bit_for_bit(stage2, tmp_path):
    command = [sys.executable, "train_stage2.py", *map(str, stage2[2]), "--out_dir", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("step_*[0-9]/manifest.json")):  # not step_....tmp, which is none yet
        assert time.monotonic() < deadline and process.poll() is None, "no checkpoint came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = run("train_stage2.py", *stage2[2], "--out_dir", tmp_path / "run")
    assert "resumed from" in finished.stdout
    keys = ("step", "loss", "fkl", "rkl", "ce", "lr", "grad_norm", "rows", "tokens")
    once = [[row[key] for key in keys] for row in log_of(stage2[1])]
    twice = [[row[key] for key in keys] for row in log_of(tmp_path / "run")]
    assert once == twice


def test_the_stages_follow_one_another_and_the_result_opens_in_transformers(stage2, tmp_path):
    pairs, start, _ = stage2
    few = [*SMALL, "--data", pairs, "--max_steps", 2]
    run("train_stage1.py", *few, "--model", start, "--out_dir", tmp_path / "stage1")
    run("train_stage3.py", *few, "--model", tmp_path / "stage1", "--out_dir", tmp_path / "stage3")
    before = AutoModelForImageTextToText.from_pretrained(start).state_dict()
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "stage1").state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"language_model", "weight"} and changed, "stage 1 trains the language model alone"
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "stage3")
    processor = AutoProcessor.from_pretrained(tmp_path / "stage3")
    inputs = processor(text=["<image>Find angle C."], images=[Image.open(pairs.parent / "0.png")], return_tensors="pt")
    assert torch.isfinite(model(**inputs).logits).all()
    asked = run("sample.py", "--model", tmp_path / "stage3", "--image", pairs.parent / "0.png", "Find angle C.",
                "--max_new_tokens", 5)  # fmt: skip
    assert asked.stdout.strip()


def test_the_mix_drawn_is_printed_and_stands_in_the_checkpoint(stage2, tmp_path):
    pairs, start, _ = stage2
    text = tmp_path / "text.jsonl"
    rows = [{"query": f"{n} + 1?", "response": f"It is {n + 1}."} for n in range(10)] + [{"query": "", "response": "5"}]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [*SMALL, "--data", f"{pairs}:0.25,{text}:4", "--skip_bad_rows", "--model", start, "--out_dir"]
    finished = run("train_stage3.py", *flags, tmp_path / "run")
    expected = {
        "0 pairs.jsonl": {"asked": "0.25", "usable": 28, "drawn": 7, "dropped": {}},
        "1 text.jsonl": {"asked": "4", "usable": 10, "drawn": 4, "dropped": {"empty question": 1}},
    }
    checkpoint = sorted((tmp_path / "run").glob("step_*"))[-1]
    assert read_manifest(checkpoint)["mix"] == expected
    assert "pairs.jsonl: 7 of 28 usable (63.6 % of the mix), asked: 0.25" in finished.stdout
    assert "text.jsonl: 4 of 10 usable (36.4 % of the mix), asked: 4; dropped: empty question 1" in finished.stdout


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("train_stage2.py", [], "data/stage2.jsonl: no such file; make it with: python gen_data.py"),
        ("train_stage2.py", ["--train", "adapter"], "unknown part adapter"),
        ("train_stage3.py", ["--preset", "tiny", "--model", "nowhere", "--data", "PAIRS"], "nowhere: no config.json"),
        ("train_stage1.py", ["--learning_rat", "1"], "did you mean --learning_rate"),
        ("sample.py", ["--model", "nowhere", "hello"], "nowhere: no config.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(script, arguments, message, tmp_path):
    pairs = make_pairs(tmp_path, 1)
    arguments = [pairs if argument == "PAIRS" else argument for argument in arguments]
    out = [] if script == "sample.py" else ["--out_dir", tmp_path / "out"]
    finished = run(script, *arguments, *out, check=False)
    assert finished.returncode == 1
    assert finished.stderr.strip().startswith("error: ") and message in finished.stderr
    assert "Traceback" not in finished.stderr and len(finished.stderr.strip().splitlines()) == 1


def test_random_weights_at_true_size_need_no_network(tmp_path):
    """Every preset's processor and meta model come without a hub: --random_weights is what benchmarks run on."""
    from model import load_model, presets

    for name in presets():
        model = load_model(name, random=True, device="meta")
        assert all(parameter.is_meta for parameter in model.parameters())
        assert model.config.image_token_id == model.processor.image_token_id
