"""runtime.py and log.py in one process: flags, schedule, groups, clipping, the log, stop requests, locks, bad steps."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

import runtime
from log import Log, keep_log_rows
from runtime import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def process() -> runtime.Process:
    return runtime.setup(0, device="cpu")


@dataclass
class Config:
    preset: str = field(default="tiny", metadata={"help": "which model"})
    learning_rate: float = 1e-3
    steps: int = 5
    compile: bool = False


def test_flags_are_read_and_overrides_printed(capsys: pytest.CaptureFixture) -> None:
    config = runtime.parse_config(Config, ["--learning_rate", "2e-4", "--compile"])
    assert (config.learning_rate, config.compile, config.steps) == (2e-4, True, 5)
    printed = capsys.readouterr().out
    assert "learning_rate = 0.0002" in printed and "0.001" in printed
    assert "steps" not in printed


@pytest.mark.parametrize("arguments", [["--learning_rat", "1"], ["--steps", "many"], ["--steps", "1.5"], ["stray"]])
def test_a_wrong_flag_is_one_clear_error(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=f"(?s){arguments[0]}.*--help"):
        runtime.parse_config(Config, arguments)


def test_main_turns_a_user_error_into_one_line_and_exit_code_1() -> None:
    code = (
        "import runtime\n\ndef main():\n    raise runtime.UserError('a.jsonl:3: broken; fix it')\n\nruntime.main(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: a.jsonl:3: broken; fix it\n"


def test_a_full_gpu_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def script() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79")

    with pytest.raises(SystemExit) as ended:
        runtime.main(script)
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
    log = Log(tmp_path, process, total_steps=6, progress="none")
    for step in range(1, 5):
        log.mark("data")
        log.mark("forward_backward")
        row = log.step(step, num_tokens=100, loss=torch.tensor(1.0 / step), lr=0.1)
    log.close()
    assert {"tokens_per_second", "data_wait", "step_seconds", "memory_gib", "seconds_left", "loss", "lr"} <= row.keys()
    assert row["step_seconds"] >= row["data_seconds"] and row["memory_gib"] > 0
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    again = Log(tmp_path, process, total_steps=6, start_step=2, progress="none")
    again.step(3, num_tokens=100, loss=7.0)
    again.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    assert keep_log_rows(tmp_path / "log.jsonl", 0) == 0
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_the_log_shows_a_line_a_step_or_a_bar(
    tmp_path: Path, process: runtime.Process, capsys: pytest.CaptureFixture
) -> None:
    log = Log(tmp_path, process, total_steps=2, peak_flops=1e9)
    log.step(1, num_tokens=10, flops=1e6, loss=0.5, fkl=0.25, grad_norm=2.0, lr=1e-3)
    log.close()
    line = capsys.readouterr().out
    for part in ("step 1/2", "loss 0.5", "fkl 0.25", "grad_norm 2", "lr 1.00e-03", "tok/s", "MFU", "left"):
        assert part in line
    log = Log(tmp_path, process, total_steps=2, start_step=1, progress="bar", title="stage 2")
    log.step(2, num_tokens=10, loss=0.5)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "stage 2" in captured.err and "2/2" in captured.err
    with pytest.raises(UserError, match="--progress"):
        Log(tmp_path, process, total_steps=2, progress="dots")


def test_mfu_is_flops_over_time_and_peak(tmp_path: Path, process: runtime.Process) -> None:
    log = Log(tmp_path, process, total_steps=1, peak_flops=1e12, progress="none")
    time.sleep(0.05)
    row = log.step(1, num_tokens=1, flops=1e10)
    assert row["mfu"] == pytest.approx(1e10 / (row["step_seconds"] * 1e12), rel=0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_stop_request(tmp_path: Path, process: runtime.Process, number: int) -> None:
    before = signal.getsignal(number)
    try:
        stop = runtime.StopRequest(tmp_path, process)
        assert not stop.should_stop()
        os.kill(os.getpid(), number)
        assert stop.should_stop()
        stop.leave_marker(12)
    finally:
        signal.signal(number, before)
    assert f"step 12, {signal.Signals(number).name}" in (tmp_path / "STOPPED").read_text()


def test_a_stop_file_is_a_stop_request_and_a_restart_reads_the_marker(
    tmp_path: Path, process: runtime.Process, capsys: pytest.CaptureFixture
) -> None:
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)]
    try:
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
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    assert "step 3, the file STOP" in capsys.readouterr().out
    assert not (tmp_path / "STOPPED").exists() and not (tmp_path / "STOP").exists()


def test_bad_steps_are_skipped_counted_and_end_the_run(tmp_path: Path, process: runtime.Process) -> None:
    guard = runtime.NonFiniteGuard(tmp_path, process, max_in_a_row=3)
    micro_batches = [(["a:1", "a:2"], torch.tensor(0.1)), (["b:7"], torch.tensor(math.nan))]
    assert not guard.skip(1, torch.tensor(0.5), torch.tensor(1.0), micro_batches)
    assert guard.skip(2, math.nan, 1.0, micro_batches)
    assert guard.skip(3, 0.5, math.inf, micro_batches[:1])
    assert not guard.skip(4, 0.5, 1.0, micro_batches)
    assert guard.skip(5, math.inf, 1.0, micro_batches) and guard.skip(6, math.inf, 1.0, micro_batches)
    with pytest.raises(UserError, match="3 steps in a row.*7"):
        guard.skip(7, math.nan, math.nan, micro_batches)
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
    code = (
        "import os, sys, time, runtime\n"
        "runtime.lock_out_dir(sys.argv[1], runtime.setup(0, device='cpu'))\n"
        "worker = os.fork()\n"
        "if worker: print(worker, flush=True)\n"
        "time.sleep(60)\n"
    )
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


def test_a_device_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(UserError, match="--device tpu"):
        runtime.setup(0, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            runtime.setup(0, device="cuda")


def test_the_header_names_versions_and_boxes_slow_paths(
    process: runtime.Process, capsys: pytest.CaptureFixture
) -> None:
    header = runtime.print_header(process, Config(preset="puma-qwen2-7b"), slow_paths=["no triton"], loss="torch")
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and "no triton" in printed and "!!!!" in printed and "no GPU" in printed
    assert header["loss"] == "torch" and header["precision"].startswith("fp32") and header["commit"]


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
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "OUT_DIR": "out",
    }
    job = subprocess.Popen(["bash", ROOT / "runs" / "slurm_stage2.sh", "--seed", "1"], env=environment)
    while not (tmp_path / "srun.txt").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 0
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"
    started = (tmp_path / "srun.txt").read_text()
    for part in ("--nnodes 2", "--rdzv_endpoint node1:29500", "train_stage2.py --preset puma-qwen2-7b", "--seed 1"):
        assert part in started
