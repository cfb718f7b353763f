"""checkpoint.py in one process: bit-for-bit resume, atomic writes, checksums, other settings, a full disk, kill -9."""

import errno
import importlib
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import runtime_toy
from runtime_toy import DATA, ToyConfig, build, train
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import checkpoint
import runtime
from errors import run_main
from runtime import UserError

ROOT = Path(__file__).resolve().parent.parent


def load(folder: Path | str, config: object = None, data: object = DATA, width: int = 16) -> int:
    process = runtime.setup(0, device="cpu")
    config = config or ToyConfig()
    return checkpoint.load_checkpoint(folder, *build(process, 8, config, width), config=config, data_fingerprint=data)


def test_the_newest_are_kept_and_nothing_half_written_is_taken(tmp_path: Path) -> None:
    train(tmp_path, 5, keep=2)
    assert [folder.name for folder in checkpoint.complete_checkpoints(tmp_path)] == ["step_00000005", "step_00000004"]
    unsealed, other = tmp_path / "step_00000009", tmp_path / "step_00000008.tmp"
    unsealed.mkdir()  # no manifest
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    assert checkpoint.latest_checkpoint(tmp_path).name == "step_00000005"
    assert len(train(tmp_path, 6)) == 1
    assert not other.exists()
    assert not list(tmp_path.glob("*.tmp"))
    assert checkpoint.latest_checkpoint(tmp_path / "nowhere") is None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink])
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "rng_0.pt"])
def test_damage_names_the_file_and_the_older_checkpoint(tmp_path_factory: pytest.TempPathFactory, damage: object,
                                                        name: str) -> None:
    out_dir = tmp_path_factory.mktemp("run")
    train(out_dir, 2)
    damage(out_dir / "step_00000002" / name)
    with pytest.raises(UserError, match=f"step_00000002/{name}: (damaged|missing).*--resume .*step_00000001"):
        load(out_dir / "step_00000002")


def test_a_damaged_manifest_is_seen(tmp_path: Path) -> None:
    train(tmp_path, 1)
    manifest = tmp_path / "step_00000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 1', '"step": 7'))
    with pytest.raises(UserError, match="manifest.json: damaged.*no older one"):
        load(tmp_path / "step_00000001")
    manifest.write_text("{")
    with pytest.raises(UserError, match="manifest.json: damaged"):
        load(tmp_path / "step_00000001")


def test_auto_falls_back_loudly_and_a_named_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = train(tmp_path / "whole", 6)
    train(tmp_path / "run", 4)
    flip_a_bit(tmp_path / "run" / "step_00000004" / "__0_0.distcp")
    with pytest.raises(UserError, match="checksum differs"):
        train(tmp_path / "run", 6, resume=str(tmp_path / "run" / "step_00000004"))
    capsys.readouterr()
    assert train(tmp_path / "run", 6) == whole[3:]
    printed = capsys.readouterr().out
    assert "!!!!" in printed and "__0_0.distcp: damaged" in printed and "going back to" in printed
    for step in (4, 5, 6):  # each was damaged or lies ahead: all were written again
        assert checkpoint.verify_checkpoint(tmp_path / "run" / f"step_{step:08d}")["step"] == step


def test_starting_anew_over_checkpoints_is_refused(tmp_path: Path) -> None:
    train(tmp_path, 1)
    with pytest.raises(UserError, match="--resume auto"):
        train(tmp_path, 2, resume="none")
    with pytest.raises(UserError, match="no manifest.json"):
        train(tmp_path, 2, resume=str(tmp_path / "step_00000077"))


@dataclass
class OtherConfig(ToyConfig):
    global_batch: int = 4


def test_another_configuration_model_or_data_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(tmp_path, 1)
    folder = tmp_path / "step_00000001"
    with pytest.raises(UserError, match="seed was 3, now 4"):
        load(folder, ToyConfig(seed=4))
    with pytest.raises(UserError, match=r"data changed.*rows"):
        load(folder, data={"rows": "other"})
    with pytest.raises(UserError, match="another model: frozen.bias is 16 frozen there, 12 frozen here"):
        load(folder, width=12)
    capsys.readouterr()
    assert load(folder, ToyConfig(learning_rate=5e-3, save_every=9)) == 1
    printed = capsys.readouterr().out
    assert "learning_rate was 0.01, now 0.005" in printed and "save_every" not in printed
    assert load(folder, OtherConfig()) == 1  # a setting that the old script did not have


def test_changed_pictures_are_refused_and_copied_ones_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = {"rows": "1", "pictures": "2", "picture_times": "3"}
    monkeypatch.setattr(runtime_toy, "DATA", now)
    train(tmp_path / "new", 1)
    folder = tmp_path / "new" / "step_00000001"
    for changed in ("rows", "pictures"):
        with pytest.raises(UserError, match=rf"data changed since \({changed}\), so its position is void"):
            load(folder, data=now | {changed: "other"})
    capsys.readouterr()
    assert load(folder, data=now) == 1 and "!!!" not in capsys.readouterr().out
    assert load(folder, data=now | {"picture_times": "other"}) == 1
    assert "! If they were changed, the run goes on with other pictures" in capsys.readouterr().out

    monkeypatch.setattr(runtime_toy, "DATA", "0a1b")  # as older versions wrote it
    train(tmp_path / "old", 1)
    capsys.readouterr()
    assert load(tmp_path / "old" / "step_00000001", data=now) == 1
    assert "fingerprint cannot be compared" in capsys.readouterr().out


def test_a_changed_learning_rate_is_used(tmp_path: Path) -> None:
    train(tmp_path, 2)
    config = ToyConfig(learning_rate=5e-3)
    process = runtime.setup(0, device="cpu")
    state = build(process, 8, config)
    checkpoint.resume("auto", tmp_path, *state, config=config, data_fingerprint=DATA)
    expected = build(process, 8, config)[2]
    for _ in range(2):
        expected.optimizer.step()
        expected.step()
    assert state[1].param_groups[0]["lr"] == expected.get_last_lr()[0]


def test_parameters_that_had_no_gradient_yet_have_no_state_after_a_resume(tmp_path: Path) -> None:
    process, config = runtime.setup(0, device="cpu"), ToyConfig()
    state = build(process, 8, config)
    model, optimizer, _, _ = state
    model.language_model.layers[0][1].weight.grad = torch.ones_like(model.language_model.layers[0][1].weight)
    optimizer.step()
    identity = {"config": config, "data_fingerprint": DATA}
    checkpoint.save_checkpoint(tmp_path, 1, *state, **identity, wait=True)
    other = build(process, 8, config)
    checkpoint.resume("auto", tmp_path, *other, **identity)
    assert {tuple(parameter.shape) for parameter in other[1].state} == {(16, 16)}
    saved, loaded = (next(iter(one.state.values())) for one in (optimizer, other[1]))
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)


class FullWriter(checkpoint.FileSystemWriter):
    def write_data(self, *arguments: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_in_one_line_and_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 2)
    monkeypatch.setattr(checkpoint, "FileSystemWriter", FullWriter)
    with pytest.raises(
        UserError, match="step_00000003: checkpoint not written: the disk is full.*step_00000002"
    ) as raised:
        train(tmp_path, 3)
    assert "\n" not in str(raised.value)
    assert [folder.name for folder in checkpoint.complete_checkpoints(tmp_path)] == ["step_00000002", "step_00000001"]
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.undo()
    assert len(train(tmp_path, 3)) == 1


def test_a_loaders_death_during_a_save_is_not_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises it from a signal handler, wherever the main thread is."""

    def killed_meanwhile(*arguments: object, **options: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(checkpoint.dcp, "async_save", killed_meanwhile)
    with pytest.raises(UserError, match=r"^a loader process died \(DataLoader worker \(pid 7\)"):
        train(tmp_path, 1)


def test_a_disk_full_at_the_very_end_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are on the disk, the manifest finds no room."""

    def no_room(path: Path) -> None:
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_sync", no_room)
    with pytest.raises(UserError, match="disk is full.*no checkpoint is complete yet"):
        train(tmp_path, 1)
    assert not list(tmp_path.glob("step_*"))


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        (small / "filler").write_bytes(b"x" * 24_000)
        with pytest.raises(UserError, match="step_0000000.: checkpoint not written: the disk is full"):
            train(small / "run", 8, keep=8)
        for folder in checkpoint.complete_checkpoints(small / "run"):
            checkpoint.verify_checkpoint(folder)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


SAVE_FOREVER = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from runtime_toy import train, ToyConfig
import torch
torch.set_num_threads(1)
for line in sys.stdin:  # one life for each line; this process only forks, so the imports are paid once
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        train(sys.argv[3], 10**6, total_steps=10**6)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


def test_kill_9_at_any_moment_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_FOREVER, ROOT, ROOT / "tests", tmp_path / "run"]
    lives = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    generator = random.Random(5)
    steps, child = [], 0
    try:
        for _ in range(5):
            before = checkpoint.latest_checkpoint(tmp_path / "run")
            print(file=lives.stdin, flush=True)
            child = int(lives.stdout.readline())
            deadline = time.monotonic() + 60
            while checkpoint.latest_checkpoint(tmp_path / "run") == before and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(generator.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)
            child = 0
            found = checkpoint.complete_checkpoints(tmp_path / "run")
            for folder in found:
                checkpoint.verify_checkpoint(folder)
            steps.append(int(found[0].name[5:]) if found else 0)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        lives.stdin.close()
        lives.wait()
        lives.stdout.close()
    assert steps == sorted(set(steps)), steps  # it went on every time
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()[: steps[-1]]
    ]
    assert losses == train(tmp_path / "whole", steps[-1], total_steps=10**6, config=ToyConfig(save_every=10**6))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, output) of checkpoint_worker.py."""
    out = tmp_path_factory.mktemp("two_ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*torchrun, ROOT / "tests" / "checkpoint_worker.py", out], cwd=ROOT, capture_output=True,
                          text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_a_forward_pass_alone_changes_neither_checkpoint_nor_export(two_ranks: tuple[Path, str]) -> None:
    """Two ranks, bf16 policy: after it FSDP2's root holds gathered bf16 copies, as after a validation."""
    out, _ = two_ranks
    saved, exported = [], []
    for name in ("without", "with"):
        dcp_to_torch_save(out / name / "step_00000001", out / f"{name}.pt")
        saved.append(torch.load(out / f"{name}.pt", weights_only=True))
        exported.append(load_file(out / name / "model.safetensors"))
        manifest = checkpoint.verify_checkpoint(out / name / "step_00000001")
        trained = [f"model.{key}" for key, kind in manifest["parameters"].items() if kind.endswith("trained")]
        assert len(trained) > 20 and all(saved[-1][key].dtype == torch.float32 for key in trained)
        assert len([key for key in saved[-1] if key.startswith("optimizer.")]) == 3 * len(trained)
    checkpoint.export_checkpoint(out / "with" / "step_00000001", out / "export", dtype=torch.float32)
    for one, two in (saved, exported, (exported[0], load_file(out / "export" / "model.safetensors"))):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_failure_of_one_rank_is_known_to_all(two_ranks: tuple[Path, str]) -> None:
    """checkpoint_worker.py checks that both ranks raise; here, what a user reads."""
    assert "__0_0.distcp: damaged" in two_ranks[1] and "going back to the one before" in two_ranks[1]


def names(out_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in out_dir.glob("*/manifest.json"))


EVERY_2, LOWER = ToyConfig(save_every=2), ToyConfig(save_every=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of steps 5 to 12 at the lower rate, of a run that never went further than step 4 before."""
    out_dir = tmp_path_factory.mktemp("branch")
    train(out_dir, 4, total_steps=12, config=EVERY_2)
    return train(out_dir, 12, total_steps=12, config=LOWER)


@pytest.mark.parametrize("keep", [1, 9])
def test_going_back_sets_the_newer_ones_aside_and_the_branch_goes_on(branch: list[float], tmp_path: Path, keep: int,
                                                                      capsys: pytest.CaptureFixture) -> None:
    whole = train(tmp_path, 12, total_steps=12, config=EVERY_2, keep=9)
    capsys.readouterr()
    back = {"total_steps": 12, "config": LOWER, "keep": keep}
    assert train(tmp_path, 9, resume=f"{tmp_path}/step_00000004", **back) == branch[:5] != whole[4:9]
    said = [line for line in capsys.readouterr().out.splitlines() if "set aside" in line]
    assert len(said) == 1 and ".aside: step_00000012, step_00000010, step_00000008, step_00000006" in said[0]
    aside = [f"step_000000{step}.aside" for step in ("06", "08", "10", "12")]
    kept = ["step_00000002", "step_00000004", "step_00000006", "step_00000008"][-keep:]
    assert names(tmp_path) == sorted(kept + aside)
    assert train(tmp_path, 12, **back) == branch[4:], "auto goes on from the branch"
    assert set(aside) <= set(names(tmp_path)) and checkpoint.latest_checkpoint(tmp_path).name == "step_00000012"
    for folder in aside:
        checkpoint.verify_checkpoint(tmp_path / folder)


@pytest.mark.parametrize("keep", [1, 9])
def test_a_requeued_job_that_went_back_does_not_go_back_again(branch: list[float], tmp_path: Path, keep: int,
                                                              capsys: pytest.CaptureFixture) -> None:
    """keep=1: by then the checkpoint that its command names is pruned. Elsewhere: a checkpoint of another out_dir."""
    for elsewhere in (False, True):
        first, out_dir = tmp_path / f"first{elsewhere}", tmp_path / f"{'second' if elsewhere else 'first'}{elsewhere}"
        train(first, 12, total_steps=12, config=EVERY_2, keep=9)
        job = {"resume": f"{first}/step_00000004", "total_steps": 12, "config": LOWER, "keep": keep}
        assert train(out_dir, 7, **job) == branch[:3]
        capsys.readouterr()
        assert train(out_dir, 9, **job) == branch[2:5]
        said = capsys.readouterr().out
        assert f"going on from {out_dir}/step_00000006, saved since" in said and "rename or remove step_0000000" in said
        assert "set aside" not in said
        assert train(out_dir, 10, **job | {"resume": "auto"}) == branch[4:6]  # what it went back to is handed on
        assert train(out_dir, 12, **job) == branch[6:]


def test_going_back_again_with_other_settings_is_no_requeue(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(tmp_path, 12, total_steps=12, config=EVERY_2, keep=9)
    job = {"resume": f"{tmp_path}/step_00000004", "total_steps": 12, "keep": 9}
    once = train(tmp_path, 8, config=LOWER, **job)
    twice = train(tmp_path, 8, config=ToyConfig(save_every=2, learning_rate=2e-3), **job)
    assert once[0] == twice[0] and once[1] != twice[1] and len(twice) == 4
    assert {"step_00000006.aside", "step_00000006.aside1", "step_00000008.aside1"} <= set(names(tmp_path))


def test_a_checkpoint_of_another_run_does_not_mix_with_those_of_out_dir(tmp_path: Path) -> None:
    train(tmp_path / "one", 4, config=EVERY_2)
    train(tmp_path / "two", 4, config=EVERY_2)
    found = names(tmp_path / "two")
    for other in (tmp_path / "one" / "step_00000002", tmp_path / "one" / "step_00000004"):
        with pytest.raises(UserError, match=f"two: holds checkpoints of another run than {other}; .*--out_dir"):
            train(tmp_path / "two", 6, resume=str(other))
    assert names(tmp_path / "two") == found


def test_what_was_set_aside_is_not_called_another_run(tmp_path: Path) -> None:
    train(tmp_path / "run", 6, config=EVERY_2, keep=9)
    train(tmp_path / "run", 4, resume=f"{tmp_path}/run/step_00000002", config=LOWER, keep=9)
    aside = tmp_path / "run" / "step_00000006.aside"
    with pytest.raises(UserError, match="was set aside; copy it to another --out_dir as step_00000006, and"):
        train(tmp_path / "run", 8, resume=str(aside), config=EVERY_2)
    copy = shutil.copytree(aside, tmp_path / "other" / "step_00000006")
    assert len(train(tmp_path / "other", 8, resume=str(copy), config=EVERY_2)) == 2


def test_a_damaged_checkpoint_that_auto_passed_over_is_set_aside(tmp_path: Path) -> None:
    """Else --keep would count it, and delete good ones in its favour."""
    train(tmp_path, 6, keep=9)
    flip_a_bit(tmp_path / "step_00000006" / "__0_0.distcp")
    train(tmp_path, 7, config=EVERY_2, keep=9)  # step 7 is not saved
    assert names(tmp_path)[-2:] == ["step_00000006", "step_00000006.aside"]
    assert checkpoint.verify_checkpoint(tmp_path / "step_00000006")["step"] == 6


SCRIPT = """
from dataclasses import dataclass
from runtime_toy import ToyConfig

@dataclass
class Config(ToyConfig):
    pass
"""


def test_changed_code_is_boxed_with_its_files_and_both_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "kernels").mkdir()
    script, loss = tmp_path / "train_mine.py", tmp_path / "kernels" / "loss.py"
    script.write_text(SCRIPT)
    loss.write_text("loss = 1\n")
    (tmp_path / "model.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "checkpoint.py"))
    commits = iter(("aaaa", "bbbb", "cccc"))
    monkeypatch.setattr(checkpoint, "git_commit", lambda: next(commits))
    config = importlib.import_module("train_mine").Config()
    checkpoint.code_version.cache_clear()
    train(tmp_path / "run", 1, config=config)
    manifest = checkpoint.read_manifest(tmp_path / "run" / "step_00000001")
    assert manifest["code"]["commit"] == "aaaa" and set(manifest["code"]["files"]) == {
        "train_mine.py", "kernels/loss.py", "model.py"}
    checkpoint.code_version.cache_clear()
    capsys.readouterr()
    train(tmp_path / "run", 2, config=config)
    assert "the code" not in capsys.readouterr().out, "another commit of the same files computes the same"
    script.write_text(SCRIPT + "# another loss\n")
    loss.write_text("loss = 2\n")
    checkpoint.code_version.cache_clear()
    train(tmp_path / "run", 3, config=config)
    text = "the code: kernels/loss.py, train_mine.py (commit bbbb, now cccc)"
    printed = capsys.readouterr().out
    assert f"! {text}" in printed and "!!!!" in printed
    history = checkpoint.read_manifest(tmp_path / "run" / "step_00000003")["history"]
    assert history["changes"] == [{"step": 2, "change": text}]
    checkpoint.code_version.cache_clear()
    monkeypatch.setattr(checkpoint, "git_commit", lambda: "dddd")
    state, facts = build(runtime.setup(0, device="cpu"), 2, config), {"config": config, "data_fingerprint": DATA}
    checkpoint.resume("auto", tmp_path / "new", *state, **facts)
    found = checkpoint._checksum_and_size(loss)[0][:16]
    loss.write_text("loss = 3\n")  # while it trains, long before its first checkpoint
    folder = checkpoint.save_checkpoint(tmp_path / "new", 1, *state, **facts, wait=True)
    assert checkpoint.read_manifest(folder)["code"]["files"]["kernels/loss.py"] == found
    checkpoint.code_version.cache_clear()


@dataclass
class LossConfig(ToyConfig):
    alpha: float = 0.2
    lam: float = 0.1
    tau: float = 1.0
    loss_backend: str = "auto"
    warmup: float = 0.02
    allow_changed: str = ""


CHANGES = {"alpha": 0.5, "lam": 0.5, "tau": 2.0, "loss_backend": "torch", "warmup": 0.1, "seed": 4}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fixed_setting_changes_only_where_it_is_meant(tmp_path: Path, name: str,
                                                        capsys: pytest.CaptureFixture) -> None:
    train(tmp_path, 2, config=LossConfig())
    other = {name: CHANGES[name]}
    with pytest.raises(UserError, match=f"{name} was .*, now {CHANGES[name]!r}; .*--allow_changed {name}") as raised:
        train(tmp_path, 3, config=LossConfig(**other))
    assert "\n" not in str(raised.value)
    capsys.readouterr()
    train(tmp_path, 3, config=LossConfig(**other, allow_changed=f"epochs, {name}"))
    train(tmp_path, 4, config=LossConfig(**other))  # now the checkpoint's own value
    text = f"{name} was {getattr(LossConfig, name, 3)!r}, now {CHANGES[name]!r}"
    assert capsys.readouterr().out.count(f"! {text} ") == 1
    history = checkpoint.read_manifest(tmp_path / "step_00000004")["history"]
    assert history["changes"] == [{"step": 2, "change": text}]


@dataclass
class ScheduleConfig(ToyConfig):
    schedule: str = "refuse"
    max_steps: int = 0
    epochs: int = 1
    allow_changed: str = ""


def rate(step: int, total: int) -> float:
    """The learning rate of the step after `step` steps, by the formula (tenth of warm-up)."""
    warmup = -(-total // 10)
    cosine = math.cos(math.pi * (step - warmup) / (total - warmup))
    return 1e-2 * ((step + 1) / warmup if step < warmup else (1 + cosine) / 2)


def resumed_rate(out_dir: Path, total: int, schedule: str) -> float:
    config = ScheduleConfig(schedule=schedule, max_steps=total)
    state = build(runtime.setup(0, device="cpu"), total, config)
    checkpoint.resume("auto", out_dir, *state, config=config, data_fingerprint=DATA)
    assert state[2].get_last_lr()[0] == state[1].param_groups[0]["lr"]
    state[1].step()
    state[2].step()
    assert state[2].get_last_lr()[0] == pytest.approx(rate(5, total if schedule == "restretch" else 12))
    return state[2].base_lrs[0] * state[2].lr_lambdas[0](4)


def test_another_number_of_steps_never_makes_the_learning_rate_jump_unasked(tmp_path: Path,
                                                                           capsys: pytest.CaptureFixture) -> None:
    train(tmp_path, 4, total_steps=12, config=ScheduleConfig(max_steps=12))
    before, stretched = f"{rate(4, 12):.2e}", f"{rate(4, 30):.2e}"
    for schedule in ("refuse", "keep"):  # the old curve has no steps 13 to 30
        with pytest.raises(UserError, match="12 steps, this run has 30") as raised:
            resumed_rate(tmp_path, 30, schedule)
        for part in ("--schedule restretch", "or keep", f"from {before} to {stretched}"):
            assert part in str(raised.value)
    with pytest.raises(UserError, match="12 steps, this run has 9"):
        resumed_rate(tmp_path, 9, "refuse")
    assert resumed_rate(tmp_path, 12, "refuse") == pytest.approx(rate(4, 12))
    assert "schedule" not in capsys.readouterr().out
    assert resumed_rate(tmp_path, 9, "keep") == pytest.approx(rate(4, 12))
    assert "! the schedule had 12 steps, this run has 9; --schedule keep goes on" in capsys.readouterr().out
    assert resumed_rate(tmp_path, 30, "restretch") == pytest.approx(rate(4, 30))
    assert f"from {before} to {stretched}" in capsys.readouterr().out


def test_the_schedules_length_goes_from_checkpoint_to_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, 4, total_steps=12, config=ScheduleConfig())
    train(tmp_path, 5, total_steps=9, config=ScheduleConfig(schedule="keep"))
    with pytest.raises(UserError, match="12 steps, this run has 9"):
        train(tmp_path, 6, total_steps=9, config=ScheduleConfig())
    train(tmp_path, 6, total_steps=30, config=ScheduleConfig(schedule="restretch"))
    assert len(train(tmp_path, 7, total_steps=30, config=ScheduleConfig())) == 1
    manifest = checkpoint.read_manifest(tmp_path / "step_00000007")
    assert manifest["schedule_length"] == 30 and [entry["step"] for entry in manifest["history"]["changes"]] == [4, 5]


@pytest.mark.parametrize("max_steps", [12, 0])
def test_a_checkpoint_of_an_older_version_still_resumes(tmp_path: Path, max_steps: int) -> None:
    """Its manifest has no schedule_length, history or code; --max_steps tells the length, 0 that it was all epochs."""
    whole = train(tmp_path / "whole", 6, total_steps=12, config=ScheduleConfig(max_steps=max_steps))
    train(tmp_path / "run", 4, total_steps=12, config=ScheduleConfig(max_steps=max_steps))
    for folder in checkpoint.complete_checkpoints(tmp_path / "run"):
        manifest = checkpoint.read_manifest(folder)
        for key in ("schedule_length", "history", "code"):
            del manifest[key]
        manifest["checksum"] = checkpoint._manifest_checksum(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    message = "12 steps, this run has 30" if max_steps else "all epochs; leave --max_steps out"
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", 6, total_steps=30, config=ScheduleConfig(max_steps=30))
    if not max_steps:
        longer = ScheduleConfig(epochs=2, allow_changed="epochs")
        with pytest.raises(UserError, match="all epochs; leave --max_steps out, and epochs as before"):
            train(tmp_path / "run", 6, total_steps=30, config=longer)
    assert train(tmp_path / "run", 6, total_steps=12, config=ScheduleConfig(max_steps=max_steps)) == whole[4:]


def test_a_checkpoint_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture) -> None:
    """Simulated: root may read everything. It is not taken for damaged, and nothing goes back."""
    train(tmp_path, 2)
    real = io.open

    def refuse(path: object, *arguments: object, **options: object) -> object:
        if Path(str(path)).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(io, "open", refuse)
    for name in ("__0_0.distcp", "manifest.json"):
        with pytest.raises(SystemExit) as ended:
            run_main(lambda: train(tmp_path, 3))
        line = capsys.readouterr().err.strip()
        assert ended.value.code == 1 and "\n" not in line
        assert f"{tmp_path}/step_00000002/{name}: Permission denied" in line
    assert names(tmp_path) == ["step_00000001", "step_00000002"]
