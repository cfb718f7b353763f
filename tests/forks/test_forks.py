"""forks/: each patch says why, applies to the script of today, and what comes out computes what it says and trains."""

import json
import math
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_train import SMALL, make_pairs

ROOT = Path(__file__).resolve().parents[2]
PATCHES = {path.stem: path for path in sorted((ROOT / "forks").glob("*.patch"))}


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """{name: the script with that patch applied}."""
    folder, made = tmp_path_factory.mktemp("forks"), {}
    for name, patch in PATCHES.items():
        (folder / name).mkdir()
        [script] = [line[6:] for line in patch.read_text().splitlines() if line.startswith("+++ b/")]
        made[name] = Path(shutil.copy(ROOT / script, folder / name))
        tool = ["git", "apply"] if shutil.which("git") else ["patch", "-p1", "-i"]
        applied = subprocess.run([*tool, patch], cwd=folder / name, capture_output=True, text=True)
        assert applied.returncode == 0, f"{patch.name}: {applied.stdout}{applied.stderr}"
    return made


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(script, *flags): two steps from tiny's random weights; (out_dir, rows of its log)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    data = make_pairs(tmp_path, 12)

    def run(script, *flags, steps=2):
        argv = [str(script), *SMALL, "--model", "", "--random_weights", "--data", str(data), "--max_steps", str(steps),
                "--warmup", "0", "--out_dir", str(tmp_path / "run"), *map(str, flags)]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(script), run_name="__main__")
        rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
        assert len(rows) == steps and all(math.isfinite(row["loss"]) and row["nonfinite"] == 0 for row in rows)
        return tmp_path / "run", rows

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_is_short_and_says_why(name):
    why, _, changes = PATCHES[name].read_text().partition("diff --git")
    assert why.startswith("Why: ") and 2 <= why.count("\n") <= 4
    assert sum(line.startswith(("+", "-")) for line in changes.splitlines()) - 2 <= 45
    assert f"`{name}.patch`" in (ROOT / "forks/README.md").read_text()


@pytest.mark.parametrize("name", sorted(PATCHES.keys() - {"jsd", "lora", "tensorboard", "two_rates"}))
def test_any_other_patch_trains(forks, train, name):
    out, rows = train(forks[name])
    assert rows[1]["loss"] < rows[0]["loss"] and (out / "model.safetensors").is_file()


def test_jsd_trains(forks, train):
    _, rows = train(forks["jsd"], "--lam", 0.5)
    for row in rows:
        assert 0 < row["fkl"] <= math.log(2) and math.isnan(row["rkl"])
        assert row["loss"] == pytest.approx(0.5 * row["fkl"] + 0.5 * row["ce"], rel=1e-5)


def test_lora_changes_the_language_models_matrices_and_exports_a_stock_model(forks, train):
    pytest.importorskip("peft", reason="pip install peft")
    out, _ = train(forks["lora"], "--learning_rate", 1e-2)
    from model import MathModel, load_model  # the same random weights as those that the run started from

    torch.manual_seed(0)
    before = load_model("tiny", random=True)
    after = load_model(source=str(out))
    assert isinstance(after, MathModel) and before.state_dict().keys() == after.state_dict().keys()
    changed = {name for name, tensor in after.state_dict().items() if not tensor.equal(before.state_dict()[name])}
    assert changed == {name for name in after.state_dict() if "language_model.layers" in name and "_proj.w" in name}


def test_tensorboard_shows_the_row_of_each_step(forks, train):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    out, rows = train(forks["tensorboard"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out)).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in rows]


def test_two_rates_moves_the_projector_ten_times_as_far(forks, train):
    out, _ = train(forks["two_rates"], "--learning_rate", 1e-4, "--weight_decay", 0, steps=1)
    from model import load_model

    torch.manual_seed(0)
    before, after = load_model("tiny", random=True).state_dict(), load_model(source=str(out)).state_dict()
    moved = {part: max((after[name] - tensor).abs().max().item()
                       for name, tensor in before.items() if part in name) for part in ("projector", "vision_tower")}
    # AdamW's first step moves every weight that has a gradient by the learning rate.
    assert moved == {"projector": pytest.approx(1e-3, rel=1e-2), "vision_tower": pytest.approx(1e-4, rel=1e-2)}


@pytest.mark.parametrize("alpha", [0.3, 0.0, 1.0])
def test_jsd_is_that_of_the_definition(forks, alpha):
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
    losses = runpy.run_path(str(forks["jsd"]))["puma"](model, *sides, num_tokens=num_tokens, config=config)

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
