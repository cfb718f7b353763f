"""runtime.py in one process: flags, schedule, groups, clipping, the log, stop requests, locks, bad steps."""

import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from runtime_toy import DATA, ToyConfig, build, train
from torch import nn

import checkpoint
import runtime
import train_stage2
from errors import run_main
from runtime import Log, UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def process() -> runtime.Process:
    return runtime.setup(0, device="cpu")


@dataclass
class Config:
    # model
    preset: str = "tiny"  # which model, 100 % of it
    learning_rate: float = 1e-3  # at its peak
    lam: float = 0.1
    # memory and speed
    steps: int = 5
    compile: bool = False  # a "slow" start
    sync: bool = True
    backend: Literal["auto", "torch"] = "auto"  # who computes: "auto" or not


def log_config(out_dir: Path, progress: str = "none") -> SimpleNamespace:
    return SimpleNamespace(out_dir=out_dir, progress=progress, wandb_project="")


def test_flags_are_read_and_overrides_printed(capsys: pytest.CaptureFixture) -> None:
    config = runtime.parse_config(Config, ["--learning_rate", "2e-4", "--compile"])
    assert (config.learning_rate, config.compile, config.steps) == (2e-4, True, 5)
    printed = capsys.readouterr().out
    assert "learning_rate = 0.0002" in printed and "0.001" in printed
    assert "steps" not in printed


def test_flags_may_be_turned_on_and_off() -> None:
    config = runtime.parse_config(Config, ["--compile", "True", "--sync", "false", "--backend", "torch"])
    assert (config.compile, config.sync, config.backend) == (True, False, "torch")
    assert runtime.parse_config(Config, ["--no_sync"]).sync is False
    assert runtime.parse_config(Config, []) == Config()


@pytest.mark.parametrize(
    "arguments",
    [["--learning_rat", "1"], ["--steps", "many"], ["--steps", "1.5"], ["stray"], ["--backend", "tritn"],
     ["--compile", "perhaps"]],
)
def test_a_wrong_flag_is_one_clear_error(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=f"(?s){arguments[0]}.*--help"):
        runtime.parse_config(Config, arguments)


def test_an_abbreviation_suggests_the_flag_of_those_initials() -> None:
    with pytest.raises(UserError, match="--lr.*did you mean --learning_rate"):
        runtime.parse_config(Config, ["--lr", "1e-4"])


def test_an_own_check_sees_the_value_of_its_field() -> None:
    def only_tiny(value: str) -> None:
        if value != "tiny":
            raise UserError(f"no such thing as {value}")

    assert runtime.parse_config(Config, [], preset=only_tiny).preset == "tiny"
    with pytest.raises(UserError, match="no such thing as huge"):
        runtime.parse_config(Config, ["--preset", "huge"], preset=only_tiny)


def help_of(config_class: type, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        runtime.parse_config(config_class, ["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_shows_comment_default_and_choices(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of(Config, capsys, monkeypatch)
    assert re.search(r"model:\n +--preset TEXT +which model, 100 % of it \[tiny\]\n", shown)
    assert re.search(r"--compile \[BOOL\] +a \"slow\" start \[False\]\n", shown)
    assert re.search(r'--backend \{auto,torch\}\s+who computes: "auto" or not \[auto\]\n', shown)
    assert re.search(r"memory and speed:\n +--steps N +\[5\]\n", shown)


@pytest.mark.parametrize("script", ["train_stage1", "train_stage2", "train_stage3"])
def test_each_flags_help_is_its_fields_comment(script: str, capsys: pytest.CaptureFixture,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Read here with the tokenizer, so that a comment that parse_config misses is seen."""
    config_class = importlib.import_module(script).Config
    lines = (ROOT / f"{script}.py").read_text().splitlines()
    shown = " ".join(help_of(config_class, capsys, monkeypatch).split())
    for field in fields(config_class):
        [line] = [line for line in lines if line.startswith(f"    {field.name}: ") and " = " in line]
        tokens = tokenize.generate_tokens(iter([line + "\n"]).__next__)
        [comment] = [token.string.removeprefix("# ") for token in tokens if token.type == tokenize.COMMENT]
        assert f"{comment} [" in shown, field.name


IMPOSSIBLE = [
    ("--alpha 2", "from 0 to 1"), ("--alpha nan", "from 0 to 1"), ("--lam -0.1", "from 0 to 1"), ("--tau 0", "above 0"),
    ("--tau inf", "above 0"), ("--warmup 100", "from 0 to 1"), ("--global_batch 0", "at least 1"),
    ("--max_steps -1", "at least 0"), ("--epochs 0", "at least 1"), ("--num_workers -1", "at least 0"),
    ("--pack_tokens 0", "at least 1"), ("--val_every -5", "at least 0"), ("--learning_rate -1", "above 0"),
    ("--loss_backend tritn", "choose from"), ("--progress dots", "choose from"), ("--train adapter", "the parts are"),
    ("--preset huge", "tiny"),
]


@pytest.mark.parametrize("flag, bounds", IMPOSSIBLE)
def test_impossible_values_are_one_line_before_anything_loads(
    flag: str, bounds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = flag.split()
    monkeypatch.setattr(sys, "argv", ["train_stage2.py", f"{name}={value}", "--data", "nowhere.jsonl"])
    with pytest.raises(UserError) as error:
        train_stage2.main()
    message = str(error.value)
    assert name.lstrip("-") in message and value in message and bounds in message and "\n" not in message


def test_a_rank_other_than_the_first_leaves_the_word_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit) as ended:
        runtime.parse_config(Config, ["--steps", "many"])
    assert ended.value.code == 1


def test_main_turns_a_user_error_into_one_line_and_exit_code_1() -> None:
    code = ("from errors import UserError, run_main\n\n"
            "def main():\n    raise UserError('a.jsonl:3: broken; fix it')\n\nrun_main(main)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: a.jsonl:3: broken; fix it\n"


def test_a_full_gpu_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def script() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79")

    with pytest.raises(SystemExit) as ended:
        run_main(script)
    assert ended.value.code == 1
    found = capsys.readouterr().err
    assert found.startswith("error: CUDA out of memory. Tried to allocate 2.00 GiB; add --activation_checkpointing")
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("total", [1, 2, 50, 1000])
def test_cosine_schedule(total: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = runtime.cosine_schedule(optimizer, total, 0.02)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    warmup = math.ceil(total * 0.02)
    assert all(rate > 0 for rate in rates)
    assert max(rates) == pytest.approx(2.0) == rates[warmup - 1]
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    for step in range(warmup, total):
        expected = 1 + math.cos(math.pi * (step - warmup) / (total - warmup))
        assert rates[step] == pytest.approx(expected)
    if total > warmup:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_weight_decay_spares_norms_biases_and_frozen_parts() -> None:
    model = nn.ModuleDict(
        {"a": nn.Linear(3, 2), "norm": nn.LayerNorm(2), "c": nn.Conv2d(3, 2, 2), "off": nn.Linear(2, 2)}
    )
    model["off"].requires_grad_(False)
    decayed, spared = runtime.parameter_groups(model, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(model["a"].weight), id(model["c"].weight)}
    assert len(spared["params"]) == 4
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    with pytest.raises(UserError, match="--train"):
        runtime.parameter_groups(model["off"], 0.1)


def test_the_gradient_norm_of_millions_of_numbers_keeps_its_digits() -> None:
    """Else it would depend on how they are dealt over ranks."""
    parameter = nn.Parameter(torch.empty(2_000_000))
    parameter.grad = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    exact = float(parameter.grad.double().norm())
    assert runtime.clip_grad_norm([parameter], 0).item() == pytest.approx(exact, rel=2e-7)


def test_clip_grad_norm_measures_then_scales() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0, 0]), torch.tensor([0.0, 4.0])
    assert runtime.clip_grad_norm(parameters, 0).item() == 5.0
    assert parameters[0].grad[0] == 3.0
    norm = runtime.clip_grad_norm(iter(parameters), 1.0)
    assert norm.shape == () and norm.dtype == torch.float32 and type(norm) is torch.Tensor and norm.item() == 5.0
    assert torch.allclose(parameters[0].grad, torch.tensor([0.6, 0, 0]))
    parameters[1].grad[0] = math.inf
    assert not torch.isfinite(runtime.clip_grad_norm(parameters, 1.0))
    assert torch.allclose(parameters[0].grad, torch.tensor([0.6, 0, 0]))  # not turned to nan or zero


def test_sum_over_ranks_keeps_the_kind(process: runtime.Process) -> None:
    assert runtime.sum_over_ranks(7, process) == 7
    assert runtime.sum_over_ranks(torch.tensor([1.5]), process).tolist() == [1.5]


def test_the_log_drops_what_a_resume_trains_again(tmp_path: Path, process: runtime.Process) -> None:
    log = Log(log_config(tmp_path), process, total_steps=6)
    for step in range(1, 5):
        log.mark("data")
        log.mark("forward_backward")
        row = log.step(step, num_tokens=100, loss=torch.tensor(1.0 / step), lr=0.1)
    log.close()
    assert {"tokens_per_second", "data_wait", "step_seconds", "memory_gib", "seconds_left", "loss", "lr"} <= row.keys()
    assert row["step_seconds"] >= row["data_seconds"] and row["memory_gib"] > 0
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    again = Log(log_config(tmp_path), process, total_steps=6, start_step=2)
    again.step(3, num_tokens=100, loss=7.0)
    again.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    Log(log_config(tmp_path), process, total_steps=6).close()
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_the_log_shows_a_line_a_step_or_a_bar(
    tmp_path: Path, process: runtime.Process, capsys: pytest.CaptureFixture
) -> None:
    log = Log(log_config(tmp_path, "lines"), process, total_steps=2, peak_flops=1e9)
    log.step(1, num_tokens=10, flops=1e6, loss=0.5, fkl=0.25, grad_norm=2.0, lr=1e-3)
    log.close()
    line = capsys.readouterr().out
    for part in ("step 1/2", "loss 0.5", "fkl 0.25", "grad_norm 2", "lr 1.00e-03", "tok/s", "MFU", "left"):
        assert part in line
    log = Log(log_config(tmp_path, "bar"), process, total_steps=2, start_step=1)
    log.step(2, num_tokens=10, loss=0.5)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == "" and str(tmp_path) in captured.err and "2/2" in captured.err


def test_mfu_is_flops_over_time_and_peak(tmp_path: Path, process: runtime.Process) -> None:
    process.world_size = 4
    log = Log(log_config(tmp_path), process, total_steps=1, peak_flops=1e12)
    time.sleep(0.05)
    row = log.step(1, num_tokens=1, flops=1e11)
    assert row["mfu"] == pytest.approx(1e11 / (row["step_seconds"] * 4 * 1e12), rel=0.02)


class FakeWandb:
    """What wandb does with ids, axes and rows: it drops what is logged at a step that it has had."""

    def __init__(self) -> None:
        self.runs, self.told, self.axes = {}, [], {}

    def init(self, *, project: str, id: str, resume: str, **options: object) -> "FakeWandb":
        assert resume == "allow" and options["allow_val_change"]
        self.told.append(("init", project, id))
        self.rows = self.runs.setdefault(id, [])
        self.last = len(self.rows)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict, step: int | None = None) -> None:
        step = self.last + 1 if step is None else step
        if step > self.last:
            self.rows.append(row)
        self.last = max(step, self.last)

    def finish(self) -> None:
        self.told.append("finish")


def test_a_resumed_run_goes_on_in_the_same_wandb_run_and_repeats_its_steps(
    tmp_path: Path, process: runtime.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = log_config(tmp_path)
    config.wandb_project = "puma"
    for start_step in (0, 2, 0):  # the last one is another run in the same folder
        log = Log(config, process, total_steps=9, start_step=start_step)
        for step in range(start_step + 1, start_step + 4):
            log.step(step, num_tokens=1, loss=float(start_step))
        log.close()
    first, second = wandb.runs.values()
    assert [(row["step"], row["loss"]) for row in first] == [(1, 0), (2, 0), (3, 0), (3, 2), (4, 2), (5, 2)]
    assert [row["step"] for row in second] == [1, 2, 3]
    assert wandb.axes == {"step": None, "*": "step"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_at_the_wandb_id_is_one_line_and_leaves_no_empty_id(
    tmp_path: Path, process: runtime.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config, id_file = log_config(tmp_path), tmp_path / "wandb_id"
    config.wandb_project = "puma"
    id_file.symlink_to("/dev/full")
    with pytest.raises(UserError, match="wandb_id: cannot be written: the disk is full"):
        Log(config, process, total_steps=9)
    id_file.unlink()
    id_file.touch()
    Log(config, process, total_steps=9, start_step=2).close()
    assert list(wandb.runs) == [id_file.read_text()] != [""]


def test_wandb_gets_every_row_or_is_said_to_be_missing(tmp_path: Path, process: runtime.Process,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    config = log_config(tmp_path)
    config.wandb_project = "puma"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = Log(config, process, total_steps=1)
    log.step(1, num_tokens=1, loss=torch.tensor(0.5))
    log.close()
    [(name, rows)] = wandb.runs.items()
    assert wandb.told == [("init", "puma", name), "finish"]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5)]
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    with pytest.raises(UserError, match="--wandb_project.*pip install wandb"):
        Log(config, process, total_steps=1)


def test_resume_takes_the_checkpoint_that_is_named(tmp_path: Path) -> None:
    whole = train(tmp_path, 4, keep=4)
    assert train(tmp_path, 4, keep=4, resume=str(tmp_path / "step_00000002")) == whole[2:]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next_step_done = threading.Event()

    class SlowWriter(checkpoint.FileSystemWriter):
        def write_data(self, *arguments: object) -> object:
            assert next_step_done.wait(5), "nothing was trained meanwhile"
            return super().write_data(*arguments)

    monkeypatch.setattr(checkpoint, "FileSystemWriter", SlowWriter)
    config = ToyConfig()
    state = build(runtime.setup(0, device="cpu"), 8, config)
    model, process = state[0], state[3]
    saved = [parameter.detach().clone() for parameter in model.parameters()]
    folder = checkpoint.save_checkpoint(tmp_path, 1, *state, config=config, data_fingerprint=DATA)
    assert not folder.exists()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    next_step_done.set()
    checkpoint.wait_for_save(process)
    assert checkpoint.resume("auto", tmp_path, *state, config=config, data_fingerprint=DATA) == 1
    assert all(torch.equal(one, two) for one, two in zip(saved, model.parameters(), strict=True))


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers as they were."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("launched", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_a_stop_request(
    tmp_path: Path, process: runtime.Process, handlers: None, number: int, launched: bool,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    stop = runtime.StopRequest(tmp_path, process)
    assert not stop.should_stop()
    os.kill(os.getpid(), number)
    assert stop.should_stop()
    said = capfd.readouterr().err
    assert signal.Signals(number).name in said and "done and saved" in said
    assert ("30 s" in said and f"touch {tmp_path}/STOP" in said) == launched
    ctrl_c = number == signal.SIGINT and not launched  # torchrun passes it on, and ends its ranks itself
    assert ("once more ends at once" in said) == ctrl_c
    assert (signal.getsignal(number) is signal.SIG_DFL) == ctrl_c
    stop.leave_marker(12)
    assert f"step 12, {signal.Signals(number).name}" in (tmp_path / "STOPPED").read_text()
    if ctrl_c:
        with pytest.raises(SystemExit) as ended:
            runtime.shutdown(process)
        assert ended.value.code == 130
    else:
        runtime.shutdown(process)


def test_ctrl_c_saves_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    """In a real process, whose step does not end the second time."""
    code = ("import signal, sys\nsys.path[:0] = sys.argv[1:3]\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "import runtime, time\nfrom errors import run_main\n"
            "def main():\n"
            "    process = runtime.setup(0, device='cpu')\n"
            "    stop = runtime.StopRequest(sys.argv[3], process)\n"
            "    print('ready', flush=True)\n"
            "    for step in range(1, 1000):\n"
            "        time.sleep(0.05 if len(sys.argv) == 4 else 60)\n"
            "        if stop.should_stop(): break\n"
            "    stop.leave_marker(step)\n"
            "    runtime.shutdown(process)\n"
            "run_main(main)\n")
    for hangs in (False, True):
        command = [sys.executable, "-c", code, ROOT, ROOT / "tests", tmp_path, *["hang"] * hangs]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "ready\n"
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        if hangs:
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
        assert run.returncode == (-signal.SIGINT if hangs else 130)
        assert (tmp_path / "STOPPED").exists() != hangs and ("stopped by request" in out) != hangs
        assert "Traceback" not in err and "SIGINT" in err
        (tmp_path / "STOPPED").unlink(missing_ok=True)


def test_what_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path, process: runtime.Process, handlers: None) -> None:
    """As a shell starts what it puts into the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = runtime.StopRequest(tmp_path, process)
    os.kill(os.getpid(), signal.SIGINT)
    assert not stop.should_stop()


FULL = Path("/dev/full")  # takes nothing: "No space left on device"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line_wherever_a_run_writes(tmp_path: Path, process: runtime.Process,
                                                       handlers: None) -> None:
    log = Log(log_config(tmp_path), process, total_steps=2)
    log.file.close()
    log.file = open(FULL, "ab", buffering=0)
    stop, guard = runtime.StopRequest(tmp_path, process), runtime.NonFiniteGuard(tmp_path, process)
    guard.path = stop.marker = FULL
    attempts = {
        "log.jsonl": lambda: log.step(1, num_tokens=1, loss=0.5),
        "full": lambda: stop.leave_marker(1),
        "/dev/full": lambda: guard.skip_nonfinite_step(1, math.nan, 1.0, []),
    }
    for name, attempt in attempts.items():
        with pytest.raises(UserError, match=f"{name}: cannot be written: the disk is full.*the same command") as raised:
            attempt()
        assert "\n" not in str(raised.value)
    log.close()


def test_what_cannot_be_written_is_one_line(tmp_path: Path, process: runtime.Process, handlers: None,
                                            capsys: pytest.CaptureFixture) -> None:
    """A folder stands where each file should be: root may write anywhere else."""
    guard = runtime.NonFiniteGuard(tmp_path, process)
    attempts = {
        "log.jsonl": lambda: Log(log_config(tmp_path), process, total_steps=1),
        "STOPPED": lambda: runtime.StopRequest(tmp_path, process),
        "STOP": lambda: runtime.StopRequest(tmp_path, process),
        "nonfinite_rows.jsonl": lambda: guard.skip_nonfinite_step(1, math.nan, 1.0, []),
        ".lock": lambda: runtime.lock_out_dir(tmp_path, process, patience=0.0),  # its folder is named
    }
    for name, attempt in attempts.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1, 1))
        with pytest.raises(SystemExit) as ended:
            run_main(attempt)
        [line] = capsys.readouterr().err.splitlines()
        assert ended.value.code == 1 and line.startswith("error: "), name
        assert str(tmp_path / name.removesuffix(".lock")) in line
        (tmp_path / name).rmdir()


DAMAGED = [b"{\n", b"\x00" * 20 + b"\n", b'{"loss": 1.0}\n', b"[3]\n", b'{"step": "3"}\n', b"\n"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_row_of_the_log_is_one_line_and_nothing_is_cut_off(tmp_path: Path, process: runtime.Process,
                                                                    damage: bytes) -> None:
    log = Log(log_config(tmp_path), process, total_steps=9)
    for step in range(1, 6):
        log.step(step, num_tokens=1, loss=1.0)
    log.close()
    path = tmp_path / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
    before = path.read_bytes()
    with pytest.raises(UserError, match="log.jsonl:3: damaged") as raised:
        Log(log_config(tmp_path), process, total_steps=9, start_step=4)
    assert "\n" not in str(raised.value) and path.read_bytes() == before
    Log(log_config(tmp_path), process, total_steps=9, start_step=1).close()  # step 2 and what follows is dropped
    assert path.read_bytes() == lines[0]
    path.write_bytes(damage + lines[0])
    Log(log_config(tmp_path), process, total_steps=9).close()
    assert path.read_bytes() == b""


def test_nothing_left_to_train_is_said(tmp_path: Path, process: runtime.Process, capsys: pytest.CaptureFixture) -> None:
    Log(log_config(tmp_path), process, total_steps=6, start_step=5).close()
    assert "nothing left" not in capsys.readouterr().out
    Log(log_config(tmp_path), process, total_steps=6, start_step=6).close()
    assert capsys.readouterr().out == "nothing left to train: all 6 steps were done\n"


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "dangling link"])
def test_a_lock_that_is_a_link_or_no_file_is_refused_and_left_alone(tmp_path: Path, process: runtime.Process,
                                                                    kind: str) -> None:
    """Where others can write too, somebody may have put it there."""
    victim, lock = tmp_path / "victim", tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    victim.write_text("dear")
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "hard link":
        lock.hardlink_to(victim)
    else:
        lock.symlink_to(victim if kind == "symlink" else tmp_path / "new")
    with pytest.raises(UserError, match=r"run/\.lock is (no plain file|a symbolic link).*remove it") as raised:
        runtime.lock_out_dir(lock.parent, process, patience=0.0)
    assert "\n" not in str(raised.value)
    assert victim.read_text() == "dear" and not (tmp_path / "new").exists()
    lock.unlink()
    runtime.lock_out_dir(lock.parent, process, patience=0.0)
    runtime.shutdown(process)


def test_a_stop_file_is_a_stop_request_and_a_restart_reads_the_marker(
    tmp_path: Path, process: runtime.Process, handlers: None, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "STOP").touch()
    os.utime(tmp_path / "STOP", (1, 1))  # of an earlier run: must not stop this one at once
    stop = runtime.StopRequest(tmp_path, process)
    assert not stop.should_stop()
    (tmp_path / "STOP").touch()
    stop = runtime.StopRequest(tmp_path, process)  # it came while this one was starting: still stands
    assert stop.should_stop()
    stop.leave_marker(3)
    capsys.readouterr()
    runtime.StopRequest(tmp_path, process)
    assert "step 3, the file STOP" in capsys.readouterr().out
    assert not (tmp_path / "STOPPED").exists() and not (tmp_path / "STOP").exists()


def test_bad_steps_are_skipped_counted_and_end_the_run(tmp_path: Path, process: runtime.Process) -> None:
    guard = runtime.NonFiniteGuard(tmp_path, process, max_in_a_row=3)
    micro_batches = [(["a:1", "a:2"], torch.tensor(0.1)), (["b:7"], torch.tensor(math.nan))]
    assert not guard.skip_nonfinite_step(1, torch.tensor(0.5), torch.tensor(1.0), micro_batches)
    assert guard.skip_nonfinite_step(2, math.nan, 1.0, micro_batches)
    assert guard.skip_nonfinite_step(3, 0.5, math.inf, micro_batches[:1])
    assert not guard.skip_nonfinite_step(4, 0.5, 1.0, micro_batches)
    assert guard.skip_nonfinite_step(5, math.inf, 1.0, micro_batches)
    assert guard.skip_nonfinite_step(6, math.inf, 1.0, micro_batches)
    with pytest.raises(UserError, match="3 steps in a row.*7.*go back to an older checkpoint: --resume FOLDER"):
        guard.skip_nonfinite_step(7, math.nan, math.nan, micro_batches)
    assert guard.skipped == 5
    rows = [json.loads(line) for line in (tmp_path / "nonfinite_rows.jsonl").read_text().splitlines()]
    assert [(row["step"], row["rows"]) for row in rows[:2]] == [(2, ["b:7"]), (3, ["a:1", "a:2"])]


def test_two_runs_cannot_share_an_out_dir(tmp_path: Path) -> None:
    first, second = runtime.setup(0, device="cpu"), runtime.setup(0, device="cpu")
    runtime.lock_out_dir(tmp_path, first)
    with pytest.raises(UserError, match=f"process {os.getpid()}.*--out_dir"):
        runtime.lock_out_dir(tmp_path, second, patience=0.0)
    runtime.shutdown(first)
    runtime.lock_out_dir(tmp_path, second, patience=0.0)
    runtime.shutdown(second)


def test_a_killed_run_gives_its_lock_back_though_its_workers_live(tmp_path: Path) -> None:
    code = ("import os, sys, time, runtime\n"
            "runtime.lock_out_dir(sys.argv[1], runtime.setup(0, device='cpu'))\n"
            "worker = os.fork()\n"
            "if worker: print(worker, flush=True)\n"
            "time.sleep(60)\n")
    run = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(run.stdout.readline())
    try:
        with pytest.raises(UserError, match="training here"):
            runtime.lock_out_dir(tmp_path, runtime.setup(0, device="cpu"), patience=0.0)
        run.send_signal(signal.SIGKILL)
        run.wait()
        os.kill(worker, 0)  # the worker is alive
        process = runtime.setup(0, device="cpu")
        runtime.lock_out_dir(tmp_path, process, patience=0.5)
        runtime.shutdown(process)
    finally:
        os.kill(worker, signal.SIGKILL)
        run.stdout.close()


def test_the_header_names_versions_and_boxes_slow_paths(
    process: runtime.Process, capsys: pytest.CaptureFixture
) -> None:
    with torch.device("meta"):
        large = nn.ModuleDict({"lm_head": nn.Linear(20_000, 20_000)})
    runtime.print_header(process, large, loss_backend="torch", trains="llm")
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and "!!!!" in printed and "! no GPU: 400M parameters" in printed
    for name, value in (("loss", "torch\n"), ("trains", "llm\n"), ("precision", "fp32"), ("commit", r"\w{12}|unknown")):
        assert re.search(f"^{name}: +({value})", printed, re.M)
    runtime.print_header(process, large, loss_backend="auto")
    assert re.search("^loss: +torch \\(the tensors are on meta", capsys.readouterr().out, re.M)


def test_a_gpu_without_triton_is_a_slow_path(process: runtime.Process, capsys: pytest.CaptureFixture,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "device", torch.device("cuda"))
    card = SimpleNamespace(name="H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    model = nn.ModuleDict({"lm_head": nn.Linear(2, 2)})
    for backend, boxed in (("torch", True), ("triton", False)):
        monkeypatch.setattr("kernels.choose_backend", lambda weight, backend=backend: (backend, f"why {backend}"))
        runtime.print_header(process, model, loss_backend="auto")
        printed = capsys.readouterr().out
        assert f"{backend} (why {backend})\n" in printed and "1 x H100, 80 GiB" in printed
        assert (f"! loss: why {backend} !" in printed) == boxed == ("!!!!" in printed)


def test_the_slurm_script_asks_for_a_checkpoint_and_requeues(tmp_path: Path) -> None:
    """With srun and scontrol replaced: the signal before the end becomes a STOP file, the marker puts the job back."""
    commands = tmp_path / "bin"
    commands.mkdir()
    srun = '#!/bin/sh\necho "$@" > srun.txt\nuntil [ -e out/STOP ]; do sleep 0.05; done\necho "step 7" > out/STOPPED\n'
    scontrol = '#!/bin/sh\nif [ "$1" = show ]; then echo node1; echo node2; else echo "$@" > scontrol.txt; fi\n'
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "OUT_DIR": "out"
    }
    job = subprocess.Popen(["bash", ROOT / "runs" / "slurm_stage2.sh", "--seed", "1"], env=environment)
    while not (tmp_path / "srun.txt").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 0
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"
    started = (tmp_path / "srun.txt").read_text()
    for part in ("--nnodes 2", "--rdzv_endpoint node1:29500", "train_stage2.py --out_dir out", "--seed 1"):
        assert part in started
