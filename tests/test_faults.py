"""train_stage2.py as clusters treat it: killed at random moments, told to stop, started twice, fed bad numbers.

Slow on purpose (whole runs of two processes); `make test-all` runs them. RANDOM_KILLS changes how many lives are taken.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
STEPS = 60


def write_pairs(folder: Path, number: int = 90) -> Path:
    """Sums in words (strong, every third with its picture too) and in pictures (weak)."""
    generator = random.Random(0)
    rows = []
    for index in range(number):
        first, second = generator.randrange(10, 99), generator.randrange(10, 99)
        picture = Image.new("RGB", (96, 96), "white")
        ImageDraw.Draw(picture).text((10, 40), f"{first} + {second} = ?", fill="black")
        picture.save(folder / f"{index}.png")
        answer = f"{first} + {second} = {first + second}.\nAnswer: {first + second}"
        rows.append({
                        "image_url": "" if index % 3 else f"{index}.png",
                        "instruction": f"What is {first} + {second}?",
                        "output": answer,
                        "image_url_2": f"{index}.png",
                        "instruction_2": "What is the sum in the picture?",
                        "output_2": answer,
                    })
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def command(pairs: Path, out_dir: Path, *arguments: str, ranks: int = 2, restarts: int = 0) -> list:
    launcher = [sys.executable]
    if ranks:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        launcher += [f"--max_restarts={restarts}", "--monitor_interval=0.2"]
    return [
        *launcher, "train_stage2.py", "--preset", "tiny", "--model", "", "--random_weights", "--data", pairs,
        "--out_dir", out_dir, "--global_batch", "4", "--pack_tokens", "768", "--num_workers", "0", "--save_every", "2",
        "--max_steps", str(STEPS), *arguments,
    ]


def start(*arguments: object, **options: object) -> subprocess.Popen:
    """A run in a session of its own, so that all of it can be killed at once."""
    return subprocess.Popen(command(*arguments, **options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(run: subprocess.Popen, code: int = 0) -> str:
    output, _ = run.communicate(timeout=900)
    assert run.returncode == code, output
    return output


def rows(out_dir: Path) -> list[dict]:
    path = out_dir / "log.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def curve(out_dir: Path) -> list[tuple]:
    return [(row["step"], row["loss"], row["fkl"], row["ce"], row["grad_norm"], row["lr"]) for row in rows(out_dir)]


def wait_for_step(out_dir: Path, step: int, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not any(row["step"] >= step for row in rows(out_dir)):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers(run: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def uninterrupted(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    out_dir = tmp_path_factory.mktemp("uninterrupted")
    finish(start(pairs, out_dir))
    assert len(curve(out_dir)) == STEPS
    return curve(out_dir)


@pytest.mark.slow
def test_twenty_random_kills_do_not_change_the_curve(pairs: Path, uninterrupted: list, tmp_path: Path) -> None:
    """Half of them take the whole job (a host that dies), half one rank, after which torchrun starts over by itself."""
    kills = int(os.environ.get("RANDOM_KILLS", "20"))
    generator = random.Random(11)
    out_dir = tmp_path / "run"
    reached = 0
    for kill in range(kills):
        whole_job = kill % 2 == 0
        run = start(pairs, out_dir, restarts=1)
        # late enough to have made a step in most lives, early enough never to reach the end
        step = min(reached + generator.randrange(0, 4), STEPS - 6)
        if step > reached:
            wait_for_step(out_dir, step, run)
        time.sleep(generator.uniform(0.0, 1.0))
        if whole_job:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
        else:
            deadline = time.monotonic() + 60
            while len(workers(run)) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            os.kill(generator.choice(workers(run)), signal.SIGKILL)
            wait_for_step(out_dir, min(max((row["step"] for row in rows(out_dir)), default=0) + 1, STEPS - 5), run)
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
        reached = max((row["step"] for row in rows(out_dir)), default=0)
        lived = curve(out_dir)
        assert lived == uninterrupted[: len(lived)], f"after kill {kill}"
    finish(start(pairs, out_dir))
    assert curve(out_dir) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_leaves_a_marker_and_the_restart_goes_on(
    pairs: Path, uninterrupted: list, tmp_path: Path, name: str
) -> None:
    run = start(pairs, tmp_path, "--save_every", "1000")
    wait_for_step(tmp_path, 3, run)
    run.send_signal(signal.Signals[name])  # to torchrun, which passes it on
    output, _ = run.communicate(timeout=60)
    assert "stopped by request after step" in output
    assert output.count(f"{name}: ends when") == 1 and "torchrun kills its ranks after 30 s" in output
    assert f"touch {tmp_path}/STOP instead" in output
    marker = (tmp_path / "STOPPED").read_text()
    assert name in marker
    step = int(marker.split()[1].rstrip(","))
    output = finish(start(pairs, tmp_path, "--save_every", "1000"))
    assert f"step {step}, {name}" in output and f"{step} steps done" in output
    assert not (tmp_path / "STOPPED").exists()
    assert curve(tmp_path) == uninterrupted


@pytest.mark.slow
def test_sigusr1_to_one_rank_stops_both(pairs: Path, tmp_path: Path) -> None:
    run = start(pairs, tmp_path)
    wait_for_step(tmp_path, 2, run)
    os.kill(workers(run)[1], signal.SIGUSR1)
    finish(run)
    assert (tmp_path / "STOPPED").exists()


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_at_once_with_the_reason(pairs: Path, tmp_path: Path) -> None:
    run = start(pairs, tmp_path)
    wait_for_step(tmp_path, 2, run)
    os.kill(workers(run)[1], signal.SIGKILL)
    began = time.monotonic()
    output = finish(run, code=1)
    assert time.monotonic() - began < 40
    assert "SIGKILL" in output and "exitcode  : -9" in output
    assert "[rank0]" not in output, "the rank that is left has a traceback"


@pytest.mark.slow
def test_a_killed_loader_process_ends_the_run_with_one_line(pairs: Path, tmp_path: Path) -> None:
    """Three times, at some moment of some step: torch raises in whatever line of the training loop is then running."""
    generator = random.Random(5)
    for life in range(3):
        run = start(pairs, tmp_path, "--num_workers", "2", ranks=0)
        wait_for_step(tmp_path, max((row["step"] for row in rows(tmp_path)), default=0) + 2, run)
        time.sleep(generator.uniform(0.0, 0.3))
        os.kill(generator.choice(workers(run)), signal.SIGKILL)
        output = finish(run, code=1)
        assert "error: a loader process died (DataLoader worker" in output, life
        assert "Traceback" not in output and "Exception" not in output, output


@pytest.mark.slow
def test_a_killed_loader_process_of_one_rank_is_one_line_of_each_rank(pairs: Path, tmp_path: Path) -> None:
    run = start(pairs, tmp_path, "--num_workers", "1")
    wait_for_step(tmp_path, 2, run)
    rank = workers(run)[1]
    [loader_process] = map(int, Path(f"/proc/{rank}/task/{rank}/children").read_text().split())
    os.kill(loader_process, signal.SIGKILL)
    output = finish(run, code=1)
    assert "error: a loader process died (DataLoader worker" in output
    assert "[rank0]" not in output and "[rank1]" not in output, output


@pytest.mark.slow
def test_no_rank_outlives_a_killed_launcher(pairs: Path, tmp_path: Path) -> None:
    run = start(pairs, tmp_path)
    wait_for_step(tmp_path, 1, run)
    ranks = workers(run)
    assert len(ranks) == 2
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=20)  # returns when nobody holds the pipe any more
    deadline = time.monotonic() + 20  # its files are closed first; the rest of a process's end may take a while yet
    while any(is_alive(rank) for rank in ranks):
        assert time.monotonic() < deadline, f"alive: {[rank for rank in ranks if is_alive(rank)]}"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return not Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_one_line(pairs: Path, tmp_path: Path) -> None:
    first = start(pairs, tmp_path, ranks=0)
    wait_for_step(tmp_path, 1, first)
    output = finish(start(pairs, tmp_path, ranks=0), code=1)
    assert f"error: {tmp_path}: process {first.pid}" in output and "Traceback" not in output
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


@pytest.mark.slow
def test_an_unreadable_picture_is_fatal_or_counted(tmp_path: Path) -> None:
    """It is found when its turn comes, in the middle of the run, on one of the ranks."""
    pairs = write_pairs(tmp_path, 40)
    picture = tmp_path / "17.png"
    picture.write_bytes(picture.read_bytes()[:90])  # the header still reads
    output = finish(start(pairs, tmp_path / "fatal", "--max_steps", "10"), code=1)
    assert "17.png" in output and "--skip_bad_rows" in output
    assert "[rank0]" not in output and "[rank1]" not in output, "a rank has a traceback"
    finish(start(pairs, tmp_path / "counted", "--max_steps", "10", "--skip_bad_rows"))
    assert sum(row["unreadable"] for row in rows(tmp_path / "counted")) == 1
    assert len(rows(tmp_path / "counted")) == 10


@pytest.mark.slow
def test_any_checkpoint_can_be_exported(pairs: Path, tmp_path: Path) -> None:
    """`model.py export`, one process, from what two ranks wrote: the folder that the run itself exports."""
    from safetensors.torch import load_file

    finish(start(pairs, tmp_path / "run", "--max_steps", "2"))
    export = [sys.executable, "model.py", "export", tmp_path / "run" / "step_00000002", tmp_path / "export"]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("export", "run"))
    assert ours.keys() == theirs.keys() and len(ours) > 100
    assert all(ours[name].dtype == torch.bfloat16 for name in ours)
    assert all(torch.equal(ours[name], theirs[name].to(torch.bfloat16)) for name in ours)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoModelForImageTextToText.from_pretrained(tmp_path / "export")
    AutoProcessor.from_pretrained(tmp_path / "export")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_and_checkpointed_layers_have_the_same_curve(pairs: Path, tmp_path: Path) -> None:
    finish(start(pairs, tmp_path / "plain", "--max_steps", "3", ranks=0))
    flags = ("--max_steps", "3", "--compile", "--activation_checkpointing")
    finish(start(pairs, tmp_path / "compiled", *flags, "--sync_every_pack", "false"))
    for one, two in zip(curve(tmp_path / "compiled"), curve(tmp_path / "plain"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
