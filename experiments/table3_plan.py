"""Which runs Table 3 in miniature is made of, and the queue that trains each of them once.

An order of stages ("1→2→3") becomes a chain of steps; chains that begin alike share those runs. Every run is one call
of a training script or of eval.py, in a folder of its own with a task.json: what it was, and whether it is finished.
"""

import hashlib
import json
import math
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from files import read_json, write_atomically
from errors import UserError
from experiments.demo import FAMILIES as DEMO_FAMILIES

ORDERS = {  # as the paper's Table 3 groups them
    "123": "Standard pipeline",
    "23": "Effectiveness of stage 1 (text)",
    "13": "Effectiveness of stage 2 (PUMA)",
    "12": "Effectiveness of stage 3 (instruction tuning)",
    "132": "Sequential order of stages",
}
BUDGETS = ("equal", "paper")
SCRIPTS = {"base": 1, "1": 1, "align": 3, "2": 2, "3": 3}  # which train_stage*.py does it
EXTENDED = "experiments/table3_stage.py"  # what only this ablation needs
DEMO_START = "out/demo/aligned"  # what `make demo` leaves after its stage 1 and its captions
START = ("base", "align")  # a little text, then captions: what the paper's aligned pretrained parts stand for
SWEEPS = {
    "alpha": ("0", "0.2", "0.5", "1"),
    "lam": ("0", "0.1", "0.5", "0.9"),
    "tau": ("1", "2", "4"),
    "train": ("vision,projector", "vision,projector,llm"),
    "teacher": ("stronger", "text-only"),
    "loss": ("paper", "released"),
    "problems": (),  # the recipe's
}


def arrows(order: str) -> str:
    """ "123" -> "1→2→3"."""
    return "→".join(order)


# ----------------------------------------------------------------------------------------------------------------------
# The recipe of one size


@dataclass(frozen=True)
class Recipe:
    """One size of the experiment. Schedules are keyed by stage: base, 1, align, 2, 3 (0 steps: one epoch)."""

    preset: str
    generate: tuple[str, ...]  # flags of gen_data.py
    problems: int  # distinct multimodal problems, for stages 2 and 3 alike; 0: all
    problem_counts: tuple[str, ...]  # of the sweep over them; what the steps do not get to read makes no difference
    captions: int  # rows of the alignment, of problems that are not among those; 0: all
    steps: Mapping[str, int]
    batch: Mapping[str, int]
    learning_rate: Mapping[str, float]
    skipped: tuple[str, ...] = ()  # "base", "align"
    arithmetic: float = 0.0  # how much of the demo's arithmetic drill is in the text: its rows, as a share
    captions_in_text: float = 0.0  # captions among stage 1's text, as a share of theirs: text alone undoes reading
    align_train: str = "projector"
    puma_train: str = "vision,projector"  # what learns in stage 2
    align_text: float = 0.0  # text rows per caption in the alignment
    align_beside: bool = False  # and questions written out beside their picture (other problems than those trained on)
    text_share: float = 0.5  # text rows per multimodal row in stage 3
    train: tuple[str, ...] = ()  # flags of every training run
    evaluate: tuple[str, ...] = ()  # flags of eval.py
    nproc: int = 1
    start: str = ""  # the folder to start from; "": the preset's pretrained parts


TINY = Recipe(
    preset="tiny",
    generate=("--families", DEMO_FAMILIES, "--per_category", "3000", "--bench_per_family", "60", "--bench_copies", "2",
              "--picture_size", "96", "--small_numbers", "--seed", "1"),
    problems=1000,
    problem_counts=("100", "300", "1000", "4000"),
    captions=0,
    start=DEMO_START,
    skipped=("base",),
    steps={"align": 1000, "1": 150, "2": 100, "3": 100},
    batch={"align": 16, "1": 24, "2": 12, "3": 16},
    learning_rate={"align": 8e-4, "1": 4e-4, "2": 6e-4, "3": 5e-4},
    arithmetic=0.2,
    captions_in_text=0.5,
    align_train="vision,projector,llm",
    align_text=0.3,
    align_beside=True,
    puma_train="vision,projector,llm",  # as in the demo: its language model has never answered about a picture
    text_share=0.25,
    train=("--num_workers", "0", "--pack_tokens", "4096", "--save_every", "0", "--keep", "1", "--beta2", "0.95",
           "--warmup", "0.05"),
    evaluate=("--max_new_tokens", "72", "--batch_size", "128"),
)
SMALL = replace(
    TINY, preset="small",
    generate=("--per_category", "60000", "--bench_per_family", "20", "--picture_size", "96", "--small_numbers"),
    problems=10000, problem_counts=("500", "2000", "10000", "50000"), captions=40000, start="", skipped=(),
    align_text=0.5, steps={"base": 1000, "1": 3000, "align": 1000, "2": 600, "3": 600},
    batch={"base": 256, "1": 256, "align": 128, "2": 128, "3": 128},
    learning_rate={"base": 6e-4, "1": 6e-4, "align": 3e-4, "2": 3e-4, "3": 3e-4},
    train=("--num_workers", "3", "--pack_tokens", "32768", "--save_every", "0", "--keep", "1"),
    evaluate=("--max_new_tokens", "128", "--batch_size", "512"), arithmetic=0.0
)
PAPER = Recipe(preset="", generate=("--per_category", "40000"), problems=0, problem_counts=(), captions=0,
               steps={"1": 0, "align": 0, "2": 0, "3": 0}, batch={"1": 256, "align": 256, "2": 512, "3": 256},
               learning_rate={"1": 3e-5, "align": 1e-3, "2": 5e-5, "3": 3e-5}, skipped=("base",),
               evaluate=("--max_new_tokens", "768"), nproc=8)


def recipe_of(size: str, preset: str) -> Recipe:
    """The recipe of a size, or of one of the paper's presets at the paper's settings."""
    if preset and preset not in ("tiny", "small"):
        # the hybrid brings its own projector, which needs no alignment
        skipped = ("base", "align") if preset.startswith("puma-deepseek") else ("base",)
        return replace(PAPER, preset=preset, skipped=skipped)
    name = preset or size
    if name not in ("tiny", "small"):
        raise UserError(f"--size {size}: choose tiny (a CPU) or small (one GPU); --preset NAME for the paper's models")
    return TINY if name == "tiny" else SMALL


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe with every number of steps multiplied."""
    steps = {stage: max(1, round(count * scale)) if count else 0 for stage, count in recipe.steps.items()}
    return replace(recipe, steps=steps)


# ----------------------------------------------------------------------------------------------------------------------
# Orders and budgets


@dataclass(frozen=True)
class Step:
    """One stage of a chain: so many steps of so many rows. extra: further flags, and the label that they get."""

    stage: str
    steps: int
    batch: int
    label: str = ""
    extra: tuple[str, ...] = ()
    variant: str = ""  # "", or another data file or loss: "problems=500", "teacher=text-only", "loss=released"

    @property
    def name(self) -> str:
        parts = [self.stage, f"{self.steps}x{self.batch}", *filter(None, [self.label])]
        return "-".join(parts)


def one_epoch(recipe: Recipe, rows: Mapping[str, int]) -> Recipe:
    """The recipe with its 0 steps (one epoch) as numbers. rows: of an epoch, by stage."""
    steps = {s: n or math.ceil(rows[s] / recipe.batch[s]) for s, n in recipe.steps.items()}
    return replace(recipe, steps=steps)


def schedule(order: str, budget: str, recipe: Recipe, tokens: Mapping[str, float]) -> list[Step]:
    """The stages of an order. tokens: of a row, by stage.

    paper: every stage as long as in the whole pipeline, so an order without one trains less. equal: the steps of a
    stage that is left out go to the multimodal stages that stay (stage 1 stays as it is), in proportion to their own;
    then their rows per step are scaled together until the order has as many tokens as 1→2→3. The start and the
    alignment are the same for every order and count in neither.
    """
    whole = {stage: recipe.steps[stage] for stage in "123"}
    if budget not in BUDGETS:
        raise UserError(f"--budgets {budget}: choose {' and '.join(BUDGETS)}")
    if budget == "paper" or set(order) == set("123"):
        return [Step(stage, whole[stage], recipe.batch[stage]) for stage in order]
    kept = [stage for stage in order if stage != "1"]
    missing = sum(whole[stage] for stage in "123" if stage not in order)
    own = sum(whole[stage] for stage in kept)
    steps = {stage: whole[stage] + round(missing * whole[stage] / own) for stage in kept}
    steps[kept[-1]] += missing + own - sum(steps.values())  # what rounding left over
    wanted = sum(whole[s] * recipe.batch[s] * tokens[s] for s in "123")
    wanted -= sum(whole[s] * recipe.batch[s] * tokens[s] for s in order if s == "1")
    have = sum(steps[s] * recipe.batch[s] * tokens[s] for s in kept)
    batch = {stage: max(1, round(recipe.batch[stage] * wanted / have)) for stage in kept}
    return [Step(s, steps.get(s, whole[s]), batch.get(s, recipe.batch[s])) for s in order]


def with_start(steps: list[Step], recipe: Recipe) -> list[Step]:
    """The chain that trains: before the order's own stages the start, which is one folder for all orders and seeds."""
    start = [stage for stage in START if stage not in recipe.skipped]
    return [Step(stage, recipe.steps[stage], recipe.batch[stage]) for stage in start] + steps


def total_tokens(steps: Iterable[Step], tokens: Mapping[str, float]) -> float:
    """Tokens of these steps."""
    return sum(step.steps * step.batch * tokens[step.stage] for step in steps)


def usual_value(recipe: Recipe, sweep: str) -> str:
    """The value of a sweep that the plain 1→2→3 has."""
    values = {"alpha": "0.2", "lam": "0.1", "tau": "1", "teacher": "stronger", "loss": "paper"}
    return (values | {"train": recipe.puma_train, "problems": str(recipe.problems)})[sweep]


def varied(steps: list[Step], sweep: str, value: str, usual: str) -> list[Step]:
    """The chain with one thing changed: a flag of stage 2, its teacher, its loss, or the number of problems.

    With the usual value it is the chain that is there already.
    """
    if value == usual:
        return steps
    changed = []
    for step in steps:
        if sweep == "problems" and step.stage in "23":
            step = replace(step, label=f"problems{value}", variant=f"problems={value}")
        elif step.stage == "2" and sweep in ("teacher", "loss"):
            step = replace(step, label=value.replace("-", ""), variant=f"{sweep}={value}")
        elif step.stage == "2" and sweep != "problems":
            label = f"{sweep}{value}".replace(",", "+")
            step = replace(step, label=label, extra=(f"--{sweep}", value))
        changed.append(step)
    return changed


# ----------------------------------------------------------------------------------------------------------------------
# Tasks: one command each


@dataclass(frozen=True)
class Task:
    """One command. name: also its folder below --out_dir; parent: the task whose folder it starts from."""

    name: str
    command: tuple[str, ...]
    parent: str = ""


def chain_names(chain: list[Step], seed: int) -> list[str]:
    """The folder of each step. The start is the same for every seed; the rest of a chain belongs to its seed."""
    names, start, path = [], [], []
    for step in chain:
        (start if step.stage in START else path).append(step.name)
        names.append(f"seed{seed}/{'.'.join(path)}" if path else f"start/{'.'.join(start)}")
    return names


def chain_tasks(chain: list[Step], seed: int, recipe: Recipe, files: Callable[[Step], str], out: Path) -> list[Task]:
    """The training runs of a chain, each starting from the one before. files: the --data of a step."""
    tasks, parent, folder = [], "", recipe.start
    if recipe.preset == "small":
        parent = "start/random"
        folder = str(out / parent)
        command = (sys.executable, EXTENDED, "start", "--out_dir", folder)
        tasks.append(Task(parent, command))
    for step, name in zip(chain, chain_names(chain, seed), strict=True):
        released = step.variant == "loss=released"
        reads_captions = step.stage == "1" and recipe.captions_in_text
        number = 3 if reads_captions else SCRIPTS[step.stage]  # stage 1's script leaves the towers out
        script = (EXTENDED, "released") if released else (f"train_stage{number}.py",)
        launcher = ("torchrun", "--nproc_per_node", str(recipe.nproc)) if recipe.nproc > 1 else (sys.executable,)
        start = ("--model", folder) if folder else ("--model", "", "--preset", recipe.preset)
        command = [*launcher, *script, *start, "--data", files(step)]
        command += ["--max_steps", str(step.steps), "--global_batch", str(step.batch)]
        command += ["--learning_rate", str(recipe.learning_rate[step.stage])]
        command += ["--seed", "0" if step.stage in START else str(seed), "--out_dir", str(out / name), *recipe.train]
        if reads_captions:
            command += ["--train", "llm"]
        if step.stage == "align":
            command += ["--train", recipe.align_train]
        if step.stage == "2" and "--train" not in step.extra:
            command += ["--train", recipe.puma_train]
        command += step.extra
        tasks.append(Task(name, tuple(command), parent))
        parent, folder = name, str(out / name)
    return tasks


def evaluation(parent: str, recipe: Recipe, bench: tuple[str, ...], out: Path) -> Task:
    """The evaluation of a trained folder, with its blind score."""
    launcher = ("torchrun", "--nproc_per_node", str(recipe.nproc)) if recipe.nproc > 1 else (sys.executable,)
    name = f"eval/{parent}"
    folders = ("--model", str(out / parent), "--out_dir", str(out / name))
    command = (*launcher, "eval.py", *bench, *folders, "--name", parent)
    return Task(name, (*command, "--blind", *recipe.evaluate), parent)


# ----------------------------------------------------------------------------------------------------------------------
# The queue


def identity(task: Task, tasks: Mapping[str, Task]) -> str:
    """A hash of a task's command and of its parents' (the interpreter's own path left out)."""
    words = [word for word in task.command if word != sys.executable]
    if task.parent:
        words.append(identity(tasks[task.parent], tasks))
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def is_finished(task: Task, tasks: Mapping[str, Task], out: Path) -> bool:
    """Whether the task is done; UserError where its folder holds another run of the same name."""
    path = out / task.name / "task.json"
    if not path.exists():
        return False
    record = read_json(path)
    if record["identity"] != identity(task, tasks):
        raise UserError(f"{path.parent}: holds a run with other settings ({shlex.join(record['command'])}); "
                        "choose another --out_dir, or delete the folder and what was trained from it")
    return record["finished"]


def run_tasks(tasks: Mapping[str, Task], out: Path, jobs: int, environment: Mapping[str, str] | None = None,
              fork: bool = False) -> int:
    """Run what is not finished, parents first, `jobs` at a time; return how many were run. UserError when one fails.

    fork: scripts run in forks of this process, which has imported torch and transformers already: that saves seconds
    a run. Only without a GPU and with one thread a run (a fork has neither CUDA nor its parent's threads).
    """
    waiting = [task for task in tasks.values() if not is_finished(task, tasks, out)]
    finished = set(tasks) - {task.name for task in waiting}
    running: dict[int, tuple[Task, subprocess.Popen | None, float]] = {}
    count = 0
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what runs would go on without the queue
    try:
        while waiting or running:
            ready = [task for task in waiting if not task.parent or task.parent in finished]
            for task in ready[: jobs - len(running)]:
                waiting.remove(task)
                pid, process = _begin(task, tasks, out, environment or {}, fork)
                running[pid] = (task, process, time.time())
            if not running:
                raise UserError(f"{waiting[0].name}: its parent {waiting[0].parent} is not among the tasks")
            for pid in list(running):
                ended, status, usage = os.wait4(pid, os.WNOHANG)  # as Popen.poll, and what it used
                if ended == 0:
                    continue
                task, process, began = running.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                if process is not None:
                    process.returncode = code
                _end(task, code, time.time() - began, usage.ru_utime + usage.ru_stime, out)
                finished.add(task.name)
                count += 1
                print(f"{time.strftime('%H:%M:%S')}  {task.name}  {time.time() - began:.0f} s  "
                      f"({len(finished)} of {len(tasks)})", flush=True)
            time.sleep(0.1)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGTERM)
        for pid in running:
            os.waitpid(pid, 0)
        signal.signal(signal.SIGTERM, before)
    return count


def _begin(
    task: Task, tasks: Mapping[str, Task], out: Path, environment: Mapping[str, str], fork: bool
) -> tuple[int, subprocess.Popen | None]:
    """Start a task; its process number, and the process where it is no fork."""
    folder = out / task.name
    folder.mkdir(parents=True, exist_ok=True)
    record = {"identity": identity(task, tasks), "command": list(task.command), "finished": False}
    write_atomically(folder / "task.json", json.dumps(record, indent=1) + "\n")
    with open(folder / "output.txt", "a", encoding="utf-8") as output:
        if not fork:
            streams = {"stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(task.command, env={**os.environ, **environment}, **streams)
            return process.pid, process
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.environ.update(environment)
            os._exit(_run_script(task.command[1:]))
        return pid, None


def _run_script(arguments: tuple[str, ...]) -> int:
    """Run a Python script as the main program of this process; its exit code."""
    import torch

    torch.set_num_threads(1)
    sys.argv = list(arguments)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    code: object = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:  # the process ends here whatever it was; the queue reads the last line
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _end(task: Task, code: int, seconds: float, cpu_seconds: float, out: Path) -> None:
    folder = out / task.name
    if code != 0:
        lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{task.name} ended with {code}: {lines[-1] if lines else '(no output)'}; {folder}/output.txt")
    for checkpoint in folder.glob("step_*"):  # the folder that the next stage opens stays
        shutil.rmtree(checkpoint)
    record = read_json(folder / "task.json")
    record |= {"finished": True, "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
    write_atomically(folder / "task.json", json.dumps(record, indent=1) + "\n")


def totals(log: Path) -> dict[str, float]:
    """Sums over a training log: steps, rows, tokens, and the seconds of forward and backward passes."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {
        "steps": len(rows), "rows": sum(row["rows"] for row in rows), "tokens": sum(row["tokens"] for row in rows),
        "compute_seconds": sum(row.get("forward_backward_seconds", 0.0) for row in rows)
    }
