"""checkpoint.py in one process: bit-for-bit resume, atomic writes, checksums, other settings, a full disk, kill -9."""

import errno
import json
import os
import random
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
