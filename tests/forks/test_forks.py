"""forks/: each patch applies to the script of today, and what it makes of it computes what it says and trains."""

import json
import math
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_train import SMALL, make_pairs

ROOT = Path(__file__).resolve().parents[2]
JSD = ROOT / "forks/jsd.patch"


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of train_stage2.py with jsd.patch applied to it."""
    folder = tmp_path_factory.mktemp("fork")
    shutil.copy(ROOT / "train_stage2.py", folder)
    commands = {"git": ["git", "apply", str(JSD)], "patch": ["patch", "-p1", "-i", str(JSD)]}
    command = next((command for tool, command in commands.items() if shutil.which(tool)), None)
    if command is None:
        pytest.skip("neither git nor patch is installed")
    applied = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert [file.name for file in folder.iterdir()] == ["train_stage2.py"]  # no .orig, no .rej
    return folder / "train_stage2.py"


def test_the_patch_is_a_few_lines_of_puma_alone(forked):
    lines = JSD.read_text().splitlines()
    assert [line for line in lines if line.startswith(("--- ", "+++ "))] == [
        "--- a/train_stage2.py", "+++ b/train_stage2.py"
    ]
    assert sum(line.startswith(("+", "-")) for line in lines) - 2 <= 14

    def around_puma(text: str) -> list[str]:
        before, found, after = text.partition("\ndef puma(")
        return [before, found, after[after.index("\ndef ") :]]

    assert around_puma(forked.read_text()) == around_puma((ROOT / "train_stage2.py").read_text())


@pytest.mark.parametrize("alpha", [0.3, 0.0, 1.0])
def test_jsd_is_that_of_the_definition(forked, alpha):
    """Against Python's own floats. An lm_head of ones on the diagonal makes the hidden states the logits."""
    weak = [[0.5, -1.0, 2.0, 0.0], [3.0, 0.1, -0.2, 1.0], [-400.0, 0.0, 1.0, 2.0]]
    strong = [[1.5, 0.0, -2.0, 0.3], [2.5, 0.2, 0.2, -1.0], [-500.0, 1.0, 1.0, -1.0]]
    labels, tau, lam, num_tokens = [2, 0, 3], 2.0, 0.6, 7
    weight = torch.eye(4, requires_grad=True)
    sides = [SimpleNamespace(hidden=torch.tensor(rows, requires_grad=True)) for rows in (weak, strong)]
    sides[0].response_labels = torch.tensor(labels)
    model = SimpleNamespace(response_hidden_states=lambda side: side.hidden * 1.0,
                            lm_head=SimpleNamespace(weight=weight))
    config = SimpleNamespace(alpha=alpha, lam=lam, tau=tau, loss_backend="auto")
    losses = runpy.run_path(str(forked))["puma"](model, *sides, num_tokens=num_tokens, config=config)

    def softmax(logits: list[float], temperature: float) -> list[float]:
        powers = [math.exp(logit / temperature) for logit in logits]
        return [power / sum(powers) for power in powers]

    jsd = ce = 0.0
    for weak_row, strong_row, label in zip(weak, strong, labels, strict=True):
        for q, p in zip(softmax(weak_row, tau), softmax(strong_row, tau), strict=True):
            m = alpha * q + (1 - alpha) * p
            jsd += alpha * q * math.log(q / m) if alpha else 0.0
            jsd += (1 - alpha) * p * math.log(p / m) if alpha < 1 else 0.0
        ce -= math.log(softmax(weak_row, 1.0)[label])
    jsd, ce = jsd / num_tokens, ce / num_tokens
    assert losses.fkl.item() == pytest.approx(jsd, rel=1e-5, abs=1e-7)
    assert losses.ce.item() == pytest.approx(ce, rel=1e-5)
    assert losses.loss.item() == pytest.approx(lam * jsd * tau**2 + (1 - lam) * ce, rel=1e-5)
    assert math.isnan(losses.rkl) and not losses.fkl.requires_grad

    # The teacher is fixed: nothing reaches its hidden states, and lm_head learns from the weak side alone.
    losses.loss.backward()
    assert sides[1].hidden.grad is None
    torch.testing.assert_close(weight.grad, sides[0].hidden.grad.T @ sides[0].hidden.detach())
    assert weight.grad.isfinite().all() and weight.grad.any()


def test_it_trains(forked, tmp_path):
    flags = [*SMALL, "--model", "", "--data", make_pairs(tmp_path, 12), "--max_steps", 2, "--warmup", 0, "--lam", 0.5]
    command = [sys.executable, forked, *map(str, flags), "--out_dir", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and rows[1]["loss"] < rows[0]["loss"]
    for row in rows:
        assert 0 < row["fkl"] <= math.log(2) and math.isnan(row["rkl"]) and row["nonfinite"] == 0
        assert row["loss"] == pytest.approx(0.5 * row["fkl"] + 0.5 * row["ce"], rel=1e-5)
