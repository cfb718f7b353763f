"""The training scripts as a user runs them: the tiny preset, a few rows, real processes."""

import errno
import importlib
import json
import os
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed.checkpoint as dcp
from PIL import Image, ImageDraw
from torch.distributed.checkpoint import FileSystemReader

import guard  # noqa: F401  (before transformers)
from transformers import AutoModelForImageTextToText, AutoProcessor

import train_stage3
from checkpoint import ALONE, complete_checkpoints, export_pretrained, read_manifest
from data import ChatFormat, open_rows
from errors import UserError, run_main
from model import MathModel, count_image_tokens, load_model, part_of

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
            "instruction": f"Triangle ABC. Angle A = {first} and angle B = {second}. Find angle C.", "output": output
        }
        weak = {"image_url_2": f"{number}.png", "instruction_2": "Find angle C.", "output_2": output}
        lines.append(json.dumps(strong | weak))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(script: str, *arguments: object, ranks: int) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    finished = subprocess.run([*launch, script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                              timeout=400)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]


def run_here(script: str, *arguments: object) -> None:
    """The script in this process: quicker, and what it calls can be replaced."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        with mock.patch.object(sys, "argv", [f"{script}.py", *map(str, arguments)]):
            run_main(importlib.import_module(script).main)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def stage2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list]:
    """(pairs, out_dir, flags) of an uninterrupted stage-2 run: two epochs of 14 pairs, six a step: 6, 6, 2, twice."""
    folder = tmp_path_factory.mktemp("stage2")
    pairs = make_pairs(folder, 14)
    flags = [*SMALL, *ALL_PARTS, "--model", "", "--data", pairs, "--epochs", 2, "--lam", 0.5]
    run_here("train_stage2", *flags, "--out_dir", folder / "run")
    return pairs, folder / "run", flags


def test_a_step_is_the_configured_rows_and_the_last_batch_of_an_epoch_is_used(stage2):
    rows = log_of(stage2[1])
    assert [row["rows"] for row in rows] == [6, 6, 2, 6, 6, 2]
    assert all(row["unreadable"] == row["nonfinite"] == 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    for row in rows:
        mixed = 0.5 * (0.2 * row["fkl"] + 0.8 * row["rkl"]) + 0.5 * row["ce"]
        assert row["loss"] == pytest.approx(mixed, rel=1e-5)


def test_kill_9_and_a_restart_repeat_the_run_bit_for_bit(stage2, tmp_path, capsys):
    command = [sys.executable, "train_stage2.py", *map(str, stage2[2]), "--out_dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("step_*[0-9]/manifest.json")):  # not step_....tmp, which is none yet
        assert time.monotonic() < deadline and process.poll() is None, "no checkpoint came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_here("train_stage2", *stage2[2], "--out_dir", tmp_path / "run")
    assert "resumed from" in capsys.readouterr().out
    keys = ("step", "loss", "fkl", "rkl", "ce", "lr", "grad_norm", "rows", "tokens")
    once = [[row[key] for key in keys] for row in log_of(stage2[1])]
    twice = [[row[key] for key in keys] for row in log_of(tmp_path / "run")]
    assert once == twice


def test_flags_do_what_their_help_says(tmp_path, capsys):
    """Row lengths, image paths, random weights, parts that train, steps and their schedule, checkpoints, screen."""
    (tmp_path / "images").mkdir()
    pairs = make_pairs(tmp_path / "images", 14).rename(tmp_path / "pairs.jsonl")
    flags = ["--preset", "tiny", "--random_weights", "--seed", 7, "--global_batch", 6, "--pack_tokens", 800]
    flags += ["--data", pairs, "--image_root", tmp_path / "images", "--num_workers", 2, "--train", "projector"]
    flags += ["--learning_rate", 1e-3, "--warmup", 0, "--max_steps", 3, "--save_every", 0, "--progress", "none"]
    run_here("train_stage3", *flags, "--max_length", 190, "--out_dir", tmp_path / "run")
    assert [row["lr"] for row in log_of(tmp_path / "run")] == pytest.approx([1e-3, 0.75e-3, 0.25e-3])
    assert [folder.name for folder in complete_checkpoints(tmp_path / "run")] == ["step_00000003"]
    printed = capsys.readouterr().out
    assert "longer than 190 tokens 5" in printed, "the strong rows with an image"
    assert "loss:           torch (" in printed and "step 3/3" not in printed
    torch.manual_seed(7)
    before, after = load_model("tiny", random=True), load_model("", str(tmp_path / "run"))
    pairs_of_tensors = zip(before.named_parameters(), after.named_parameters(), strict=True)
    assert {part_of(name) for (name, one), (_, two) in pairs_of_tensors if not torch.equal(one, two)} == {"projector"}


def test_without_divergences_no_teacher_runs_and_none_is_logged(tmp_path, monkeypatch):
    """--lam 0, the end of a sweep: cross entropy alone; 0 for a divergence would put a false point on its curve."""
    sides = []
    real = MathModel.response_hidden_states
    monkeypatch.setattr(MathModel, "response_hidden_states", lambda *args: sides.append(args[1]) or real(*args))
    pairs = make_pairs(tmp_path, 6)
    arguments = (*SMALL, "--model", "", "--data", pairs, "--val_data", pairs.rename(tmp_path / "val.jsonl"))
    make_pairs(tmp_path, 7)
    run_here("train_stage2", *arguments, "--val_every", 1, "--max_steps", 1, "--lam", 0, "--out_dir", tmp_path / "out")
    (row,) = log_of(tmp_path / "out")
    assert all(math.isnan(row[name]) for name in ("fkl", "rkl", "val_fkl", "val_rkl"))
    assert row["loss"] == row["ce"] > 0 and row["val_loss"] == row["val_ce"] > 0
    weak = [side for side in sides if side.pixel_values]
    assert len(sides) == len(weak) and row["tokens"] == sum(side.num_tokens for side in weak[:-2])


def test_a_step_that_is_not_finite_leaves_no_trace_in_the_weights(tmp_path, monkeypatch):
    """Else AdamW's moments, and with them every later step, would not be finite either."""
    calls, real = [], train_stage3.cross_entropy

    def nan_in_the_second_step(*arguments: object, **options: object) -> torch.Tensor:
        calls.append(1)
        return real(*arguments, **options) * (math.nan if len(calls) == 2 else 1.0)

    monkeypatch.setattr(train_stage3, "cross_entropy", nan_in_the_second_step)
    flags = [*SMALL, "--random_weights", "--pack_tokens", 8192, "--max_steps", 3, "--save_every", 0]
    run_here("train_stage3", *flags, "--data", make_pairs(tmp_path, 9), "--out_dir", tmp_path / "run")
    rows = log_of(tmp_path / "run")
    assert len(calls) == 3 and [row["nonfinite"] for row in rows] == [0, 1, 1]
    assert [math.isfinite(row["loss"]) for row in rows] == [True, False, True]
    assert all(parameter.isfinite().all() for parameter in load_model("", str(tmp_path / "run")).parameters())
    [record] = map(json.loads, (tmp_path / "run" / "nonfinite_rows.jsonl").read_text().splitlines())
    assert record["step"] == 2 and len(record["rows"]) == 6


@pytest.mark.parametrize("script, backbone", [("train_stage2", ["--lam", 0.5]), ("train_stage3", [])])
def test_a_step_of_unreadable_pictures_trains_nothing_and_too_many_end_the_run(script, backbone, tmp_path, capsys):
    pairs = make_pairs(tmp_path, 24)
    pairs.write_text("".join(line.replace('.png", "instruction_2', 'w.png", "instruction_2') + "\n"
                             for line in pairs.read_text().splitlines()))
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    if script == "train_stage3":  # the weak sides alone
        weak = [{name.removesuffix("_2"): row[name] for name in row if name.endswith("_2")} for row in rows]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in weak))
    for number in range(24):
        (tmp_path / f"{number}w.png").write_text("no picture")
    flags = [*SMALL, *backbone, "--random_weights", "--global_batch", 4, "--data", pairs, "--skip_bad_rows"]
    flags += ["--train", "projector", "--save_every", 1, "--keep", 9]
    run_here(script, *flags, "--max_steps", 2, "--out_dir", tmp_path / "run")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_here(script, *flags, "--out_dir", tmp_path / "more")
    out, error = capsys.readouterr()
    assert ended.value.code == 1 and error.count("error: ") == 1
    assert f"error: {pairs}:" in error and "12 of the last 12 rows have such pictures; make these files" in error
    assert out.count("left out: ") == 5 and "w.png: UnidentifiedImageError" in out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert len(lines) == 2 and all("loss nan" in line and "unreadable 4" in line for line in lines)
    for row in log_of(tmp_path / "run"):
        assert row["unreadable"] == row["rows"] == 4 and row["nonfinite"] == row["tokens"] == 0
        assert all(math.isnan(row[name]) for name in ("loss", "fkl", "rkl", "ce", "grad_norm") if name in row)
    states = [FileSystemReader(tmp_path / "run" / f"step_0000000{step}") for step in (1, 2)]
    assert not any(name.startswith("optimizer.") for name in states[1].read_metadata().state_dict_metadata)
    first, second = ({name: torch.empty(found.size, dtype=found.properties.dtype)
                      for name, found in state.read_metadata().state_dict_metadata.items()} for state in states)
    dcp.load(first, storage_reader=states[0], no_dist=True), dcp.load(second, storage_reader=states[1], no_dist=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ----------------------------------------------------------------------------------------------------------------------
# Going on, and what stands in its way


def fails(capsys: pytest.CaptureFixture, script: str, *arguments: object) -> str:
    """The one line with which a script ends with exit code 1. Without a lock: only the end of a process frees it."""
    capsys.readouterr()
    with mock.patch("runtime.lock_out_dir"), pytest.raises(SystemExit) as ended:
        run_here(script, *arguments)
    [line] = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 1 and line.startswith("error: ")
    return line


def test_a_run_that_is_done_says_so_and_writes_its_export_again(stage2, tmp_path, capsys, monkeypatch):
    """A full disk at the export is one line; the checkpoint is complete, and nothing of the export stays behind."""
    out, command = tmp_path / "run", [*stage2[2], "--out_dir", tmp_path / "run"]

    def full(weights: object, folder: Path, **options: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("huggingface_hub.save_torch_state_dict", full)
        line = fails(capsys, "train_stage2", *command)
    assert f"{out}: export not written: the disk is full" in line and "the same command writes it" in line
    assert complete_checkpoints(out)[0].name == "step_00000006" and not (out / "export.tmp").exists()
    assert not (out / "config.json").exists()
    run_here("train_stage2", *command)
    assert "nothing left to train: all 6 steps were done\n" in capsys.readouterr().out
    assert (out / "model.safetensors").read_bytes() == (stage2[1] / "model.safetensors").read_bytes()
    assert [row["loss"] for row in log_of(out)] == [row["loss"] for row in log_of(stage2[1])]


def test_an_export_to_a_disk_that_is_really_full(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        with pytest.raises(UserError, match=r"export not written: the disk is full \(0.00 GB free\); free some space"):
            export_pretrained(load_model("tiny"), small, ALONE, dtype=torch.float32)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_the_scripts_hold_a_resumed_run_to_its_loss_and_its_schedule(stage2, tmp_path, capsys):
    flags = [*stage2[2], "--out_dir", tmp_path / "run"]
    run_here("train_stage2", *flags, "--max_steps", 4)
    manifest = read_manifest(tmp_path / "run" / "step_00000004")
    assert manifest["schedule_length"] == 4
    assert {"train_stage2.py", "model.py", "sources.py", "kernels/puma_loss.py"} <= set(manifest["code"]["files"])
    for flag, value, was in (("alpha", 0.5, 0.2), ("lam", 0.25, 0.5), ("tau", 2.0, 1.0), ("warmup", 0.5, 0.02)):
        line = fails(capsys, "train_stage2", *flags, "--max_steps", 4, f"--{flag}", value)
        assert f"{flag} was {was}, now {value}" in line and f"--allow_changed {flag}" in line
    assert "loss_backend was 'auto'" in fails(capsys, "train_stage2", *flags, "--loss_backend", "torch")
    assert "alhpa is no fixed setting" in fails(capsys, "train_stage2", *flags, "--allow_changed", "lam,alhpa")
    line = fails(capsys, "train_stage2", *flags, "--max_steps", 6)
    assert "--schedule restretch" in line and " or keep, which" in line
    meant = ["--schedule", "restretch", "--alpha", 0.5, "--allow_changed", "alpha"]
    run_here("train_stage2", *flags, "--max_steps", 6, *meant)
    printed = capsys.readouterr().out
    assert "! alpha was 0.2, now 0.5" in printed and "the schedule had 4 steps, this run has 6" in printed
    once, again = log_of(stage2[1]), log_of(tmp_path / "run")
    assert [row["lr"] for row in again[4:]] == [row["lr"] for row in once[4:]]  # stretched: the curve of six steps
    assert again[4]["loss"] == pytest.approx(
        0.5 * (0.5 * again[4]["fkl"] + 0.5 * again[4]["rkl"]) + 0.5 * again[4]["ce"], rel=1e-5)
    history = read_manifest(tmp_path / "run" / "step_00000006")["history"]
    assert [change["step"] for change in history["changes"]] == [4, 4]


@pytest.mark.parametrize("damage", ["half", "{", "[]", ""])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_a_damaged_model_folder_is_one_line(tmp_path, name, damage):
    for file in (ROOT / "tiny").glob("*.*"):
        if file.suffix in (".json", ".jinja", ".safetensors"):
            (tmp_path / file.name).symlink_to(file)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content[: len(content) // 2] if damage == "half" else damage.encode())
    for preset in ("", "tiny"):
        with pytest.raises(UserError, match=str(tmp_path)) as raised:
            load_model(preset, str(tmp_path))
        assert "\n" not in str(raised.value)


def test_a_data_file_without_permission_is_one_line(tmp_path, monkeypatch, capsys):
    """Simulated: root may read everything."""
    data, real = tmp_path / "rows.jsonl", os.access
    data.write_text(json.dumps({"instruction": "1 + 1?", "output": "2", "image_url": ""}))
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(data) and real(path, mode))
    line = fails(capsys, "train_stage3", *SMALL, "--model", "", "--data", data, "--out_dir", tmp_path / "run")
    assert f"{data}: cannot be read (Permission denied)" in line


def test_ctrl_c_in_a_script_saves_and_the_same_command_goes_on(stage2, tmp_path, capsys):
    """Exit code 130, so that a shell script does not go on to the next stage."""
    command = [sys.executable, "train_stage2.py", *map(str, stage2[2]), "--out_dir", str(tmp_path), "--save_every", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for line in process.stdout:
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by request after step" in out, out + err
    assert "SIGINT: ends when" in err and "Traceback" not in err and (tmp_path / "STOPPED").exists()
    assert not (tmp_path / "config.json").exists()
    run_here("train_stage2", *stage2[2], "--out_dir", tmp_path, "--save_every", 0)
    assert "steps done" in capsys.readouterr().out
    assert [row["loss"] for row in log_of(tmp_path)] == [row["loss"] for row in log_of(stage2[1])]


PAPER = {
    1: {"learning_rate": 3e-5, "global_batch": 256},
    2: {"learning_rate": 5e-5, "global_batch": 512, "alpha": 0.2, "tau": 1.0, "lam": 0.1, "train": "vision,projector"},
    3: {"learning_rate": 3e-5, "global_batch": 256, "train": "vision,projector,llm"},
}


@pytest.mark.parametrize("stage", PAPER)
def test_the_defaults_are_the_papers(stage):
    config = vars(importlib.import_module(f"train_stage{stage}").Config())
    expected = {"epochs": 1, "warmup": 0.02, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.999} | PAPER[stage]
    assert {name: config[name] for name in expected} == expected


# ----------------------------------------------------------------------------------------------------------------------
# Validation


@pytest.fixture(scope="module")
def validated(stage2: tuple[Path, Path, list], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list, Path]:
    """(held-out pairs, flags, out_dir): the run of `stage2` with validation every two steps."""
    held_out = make_pairs(tmp_path_factory.mktemp("held_out"), 5)
    flags = [*stage2[2], "--val_data", held_out, "--val_every", 2]
    out = tmp_path_factory.mktemp("validated") / "run"
    run_here("train_stage2", *flags, "--out_dir", out)
    return held_out, flags, out


def test_validation_touches_no_training_number(stage2, validated):
    keys = ("step", "loss", "fkl", "rkl", "ce", "lr", "grad_norm", "rows", "tokens")
    without, with_validation = log_of(stage2[1]), log_of(validated[2])
    assert [[row[key] for key in keys] for row in without] == [[row[key] for key in keys] for row in with_validation]
    assert [row["step"] for row in log_of(validated[2]) if "val_loss" in row] == [2, 4, 6]


def test_val_losses_are_those_of_the_stock_model_row_by_row(validated):
    """Of the exported weights, by transformers' own forward and full logits."""
    held_out, _, out = validated
    model = load_model("", str(out)).eval()
    model.language_model.set_attn_implementation("sdpa")
    chat_format = ChatFormat(model.processor, count_image_tokens(model.config))
    rows = open_rows(str(held_out), pairs=True, chat_format=chat_format, max_length=768)
    sums, num_tokens = torch.zeros(3, dtype=torch.float64), 0
    for index in range(len(rows)):
        log_probs = []
        for turns in rows.read(index):
            tokens = chat_format.encode(turns)
            images = [chat_format.pixels(Image.open(held_out.parent / name).convert("RGB")) for name in turns[0].images]
            pixels = {name: model.normalize(name, value[None]) for image in images for name, value in image.items()}
            with torch.no_grad():
                logits = model.hf(input_ids=torch.from_numpy(tokens.input_ids)[None], **pixels).logits[0]
            log_probs.append(logits[tokens.positions].double().log_softmax(-1))
        weak, strong = log_probs
        fkl, rkl = (weak.exp() * (weak - strong)).sum(), (strong.exp() * (strong - weak)).sum()
        ce = -weak.gather(1, torch.from_numpy(tokens.input_ids[tokens.positions + 1])[:, None]).sum()
        sums += torch.stack([fkl, rkl, ce])
        num_tokens += len(tokens.positions)
    row = log_of(out)[-1]
    for name, expected in zip(("fkl", "rkl", "ce"), sums / num_tokens, strict=True):
        assert row[f"val_{name}"] == pytest.approx(expected.item(), rel=1e-4), name
    mixed = 0.5 * (0.2 * row["val_fkl"] + 0.8 * row["val_rkl"]) + 0.5 * row["val_ce"]
    assert row["val_loss"] == pytest.approx(mixed, rel=1e-5)


def test_two_ranks_have_the_losses_of_one(validated, tmp_path):
    """Of training and of validation."""
    run("train_stage2.py", *validated[1], "--out_dir", tmp_path / "run", ranks=2)
    alone, together = log_of(validated[2]), log_of(tmp_path / "run")
    assert len(alone) == len(together) == 6
    for one, two in zip(alone, together, strict=True):
        names = ["loss", "fkl", "rkl", "ce", "grad_norm", *(name for name in one if name.startswith("val_"))]
        assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names}, rel=1e-5)


@pytest.mark.slow
def test_a_checkpoint_saved_after_validation_holds_the_fp32_weights(stage2, validated, tmp_path):
    """On two ranks in bf16: a forward without a backward leaves FSDP2's root gathered, in bf16."""
    states = []
    for flags in (validated[1], stage2[2]):
        out = tmp_path / f"run{len(flags)}"
        arguments = [*flags, "--max_steps", 2, "--save_every", 2, "--out_dir", out]
        run("tests/bf16_script.py", "train_stage2", *arguments, ranks=2)
        reader = FileSystemReader(out / "step_00000002")
        metadata = reader.read_metadata().state_dict_metadata
        state = {name: torch.empty(found.size, dtype=found.properties.dtype) for name, found in metadata.items()}
        dcp.load(state, storage_reader=reader, no_dist=True)
        states.append(state)
    with_validation, without = states
    assert with_validation.keys() == without.keys()
    for name, tensor in without.items():
        assert tensor.dtype == with_validation[name].dtype and torch.equal(tensor, with_validation[name]), name
    trained = [name.split(".", 1)[1].removesuffix(".exp_avg") for name in without if name.endswith(".exp_avg")]
    assert len(trained) > 100 and all(without[f"model.{name}"].dtype == torch.float32 for name in trained)


# ----------------------------------------------------------------------------------------------------------------------
# From stage to stage


def test_the_stages_follow_one_another_and_the_result_opens_in_transformers(stage2, validated, tmp_path, capsys):
    pairs, start, _ = stage2
    few = [*SMALL[2:], "--data", pairs, "--max_steps", 2]  # no --preset: the folder says what it is
    few += ["--val_data", validated[0], "--val_every", 2]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"instruction": f"{n} + 1?", "output": f"{n + 1}"}) + "\n" for n in range(14)))
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"instruction": "20 + 1?", "output": "It is 21."}) + "\n")
    run_here("train_stage1", *few, "--data", text, "--val_data", held_out, "--model", start,
             "--out_dir", tmp_path / "stage1")
    run_here("train_stage3", *few, "--model", tmp_path / "stage1", "--out_dir", tmp_path / "stage3")
    for stage in ("stage1", "stage3"):
        assert [("val_loss" in row, "val_fkl" in row) for row in log_of(tmp_path / stage)] == [(0, 0), (1, 0)]
        last = log_of(tmp_path / stage)[-1]
        assert 0 < last["val_loss"] < 20 and last["val_loss"] != last["loss"]
    before = AutoModelForImageTextToText.from_pretrained(start).state_dict()
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "stage1").state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"language_model", "weight"} and changed, "stage 1 trains the language model alone"
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "stage3")
    processor = AutoProcessor.from_pretrained(tmp_path / "stage3")
    inputs = processor(text=["<image>Find angle C."], images=[Image.open(pairs.parent / "0.png")], return_tensors="pt")
    assert torch.isfinite(model(**inputs).logits).all()
    capsys.readouterr()
    run_here("sample", "--model", tmp_path / "stage3", "--image", pairs.parent / "0.png", "Find angle C.",
             "--max_new_tokens", 5)
    assert capsys.readouterr().out.strip()


def test_the_mix_drawn_is_printed_and_stands_in_the_checkpoint(stage2, tmp_path, capsys):
    pairs, start, _ = stage2
    text = tmp_path / "text.jsonl"
    rows = [{"instruction": f"{n} + 1?", "output": f"It is {n + 1}."} for n in range(10)]
    rows.append({"instruction": "", "output": "5"})
    text.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", f"{pairs}:0.25,{text}:4", "--skip_bad_rows", "--model", start, "--max_steps", 1]
    run_here("train_stage3", *SMALL, *flags, "--out_dir", tmp_path / "run")
    assert read_manifest(tmp_path / "run" / "step_00000001")["mix"] == {
        "0 pairs.jsonl": {"asked": "0.25", "usable": 28, "drawn": 7, "dropped": {}},
        "1 text.jsonl": {"asked": "4", "usable": 10, "drawn": 4, "dropped": {"empty question": 1}},
    }
    printed = capsys.readouterr().out
    assert "pairs.jsonl: 7 of 28 usable (63.6 % of the mix), asked: 0.25" in printed
    assert "text.jsonl: 4 of 10 usable (36.4 % of the mix), asked: 4; dropped: empty question 1" in printed


MISTAKES = [  # script, flags (PAIRS is a file of pairs, COPY one of the same bytes), what the line says
    ("train_stage2", "--data nowhere.jsonl", "nowhere.jsonl: no such file; make it with: python gen_data.py"),
    ("train_stage2", "--train adapter", "unknown part adapter"),
    ("train_stage3", "--preset tiny --model nowhere --data PAIRS", "nowhere: no config.json"),
    ("train_stage2", "--model nowhere --data PAIRS", "made by runs/align.sh"),
    ("train_stage1", "--learning_rat 1", "did you mean --learning_rate"),
    ("train_stage2", "--data PAIRS --val_data PAIRS --val_every 1", "pairs.jsonl"),
    ("train_stage2", "--data PAIRS --val_data COPY --val_every 1", "copy.jsonl"),
    ("train_stage1", "--preset tiny --data PAIRS", "pairs.jsonl:1/strong: a row with a picture (2 such), but stage 1"),
    ("train_stage2", "--preset tiny --model  --data TEXTS", "texts.jsonl: no weak row has a picture, so vision and"),
    ("train_stage3", "--preset tiny --model  --train projector --data TEXTS", "no row has a picture, so projector"),
    ("train_stage2", "--preset tiny --model  --data PAIRS --picture_roots nowhere", "outside of --picture_roots; add"),
    ("sample", "--model nowhere hello", "nowhere: no config.json"),
]


@pytest.mark.parametrize("script, flags, message", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_1(script, flags, message, tmp_path, capsys):
    pairs = make_pairs(tmp_path, 1)
    (tmp_path / "copy.jsonl").write_bytes(pairs.read_bytes())
    (tmp_path / "texts.jsonl").write_text(pairs.read_text().replace("0.png", ""))
    files = {"PAIRS": pairs, "COPY": tmp_path / "copy.jsonl", "TEXTS": tmp_path / "texts.jsonl"}
    arguments = [files.get(word, word) for word in flags.split(" ")]
    out = [] if script == "sample" else ["--out_dir", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended:
        run_here(script, *arguments, *out)
    [line] = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 1 and line.startswith("error: ") and message in line
    assert not (tmp_path / "out" / "log.jsonl").exists()
