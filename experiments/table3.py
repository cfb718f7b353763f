"""Does PUMA close the gap between text and vision? The paper's Table 3 in miniature, by one command.

    python experiments/table3.py                  tiny, on a CPU: five orders of stages, three seeds, two budgets
    python experiments/table3.py --size small     75M parameters, meant for one GPU; not run yet
    python experiments/table3.py --preset puma-qwen2-1.5b  the paper's models and settings (8 GPUs, --data FOLDER)
    python experiments/table3.py --sweep alpha    one more question; also lam, tau, train, teacher, loss, problems
    python experiments/table3.py --dry_run        the runs and their commands, nothing else

The regime is the paper's: the language model learns from many text problems; the multimodal problems are a fixed, much
smaller set, seen a few times, the same for stages 2 and 3. Every order and every seed starts from one and the same
folder, a language model that has read text, aligned with the tower on captions of other problems. It stands for the
pretrained and aligned parts that the paper starts from, which no order trains, and it counts in no budget. At size tiny
it is what `make demo` leaves after its captions (run first where it is not there).

It resumes: the same command again runs only what is not finished. Runs that orders share are trained once per seed.
"""

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import runtime
from evaluation.store import model_fingerprint
from files import read_json, write_atomically
from data import ChatFormat, open_rows
from errors import UserError, run_main
from bench.tables import cpu_name
from model import count_image_tokens, default_max_length, find_preset, load_processor
from experiments.demo import write_arithmetic
from experiments.table3_plan import (BUDGETS, DEMO_START, ORDERS, SWEEPS, Recipe, Step, Task, arrows, chain_names,
                                     chain_tasks, evaluation, is_finished, one_epoch, recipe_of, run_tasks, scaled,
                                     schedule, total_tokens, totals, usual_value, varied, with_start)
from experiments.table3_report import Row, difference_table, draw_chart, main_table, paper_table, read_scores

ROOT = Path(__file__).resolve().parents[1]
NOTE = (
    "Percent right, greedy decoding, judged by rules. ALL pools the five versions with a picture. Gap: (text-dominant "
    "− vision-only) / vision-only. Blind: every picture white. Steps, tokens read (the teacher's included) and minutes "
    "are those of the order's own stages, for one seed; start and alignment are the same for all. Budget equal: as "
    "many steps and as much computation as 1→2→3, where a token that the teacher reads counts a third, as it passes "
    "forward only; paper: a stage that is left out is simply left out."
)


@dataclass
class Config:
    """Which orders, budgets and seeds are trained, at which size: one flag per field."""

    size: str = "tiny"  # tiny (CPU) or small (one GPU)
    preset: str = ""  # one of the paper's presets instead
    # what
    orders: str = ",".join(ORDERS)
    budgets: str = ",".join(BUDGETS)  # equal: no order trains longer than another; paper: a left-out stage is left out
    seeds: str = "0,1,2"
    sweep: str = ""  # alpha, lam, tau, train, teacher, loss or problems: 1→2→3 with one thing varied
    values: str = ""  # of the sweep, separated by semicolons; "" takes its usual ones
    scale: float = 1.0  # multiplies every number of steps
    problems: int = 0  # distinct multimodal problems; 0: the recipe's
    per_category: int = 0  # problems drawn of each category; 0: the recipe's
    # where
    out_dir: str = ""  # runs; "" is out/table3/SIZE
    results: str = ""  # table and chart; "" is experiments/table3/SIZE
    model: str = ""  # a folder to start from; "" takes the demo's (tiny), random weights (small), pretrained parts
    data: str = ""  # a folder that gen_data.py wrote; "" makes one in --out_dir
    bench: str = "generated"  # or mathverse, with its file in --bench_data
    bench_data: str = ""
    # how
    jobs: int = 0  # runs at a time; 0: one per CPU core, or one on a GPU
    nproc: int = 0  # GPUs of a run; 0: the recipe's
    samples: int = 4000  # of the bootstrap
    report_only: bool = False  # no runs: tables of the seeds that are finished
    dry_run: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table to be: an order, its budget and its chain of steps."""

    group: str
    order: str
    budget: str
    steps: list[Step]


# ----------------------------------------------------------------------------------------------------------------------
# The story


def main() -> None:
    """Data, plan, runs, table."""
    config = runtime.parse_config(Config)
    os.chdir(ROOT)
    recipe = the_recipe(config)
    size = recipe.preset
    out, results = Path(config.out_dir or f"out/table3/{size}"), Path(config.results or f"experiments/table3/{size}")
    seeds = [int(seed) for seed in config.seeds.split(",")]
    folder = Path(config.data or out / "data")
    if recipe.start == DEMO_START:
        recipe = replace(recipe, start=str(copy_of_the_demos_start(out)))
    make_data(folder, recipe)
    files = data_files(folder, recipe)
    rows, tokens = measure(out, recipe, files)
    recipe = one_epoch(recipe, rows)
    lines = sweep_lines(config, recipe, tokens) if config.sweep else order_lines(config, recipe, tokens)
    bench = ("--bench", config.bench, "--data", config.bench_data or str(folder / "bench.jsonl"))
    tasks = all_tasks(lines, seeds, recipe, files, bench, out)
    show_plan(lines, tasks, tokens, out)
    if config.dry_run:
        for task in tasks.values():
            print(f"\n# {task.name}\n{shlex.join(task.command)}")
        return
    if not config.report_only:
        began = time.time()
        limits = thread_limits(config)
        count = run_tasks(tasks, out, jobs_of(config), limits, fork=limits.get("OMP_NUM_THREADS") == "1")
        print(f"{count} runs in {(time.time() - began) / 3600:.2f} hours")
    write_results(config, recipe, lines, tasks, seeds, bench, out, results)


def the_recipe(config: Config) -> Recipe:
    """The recipe of the flags."""
    recipe = scaled(recipe_of(config.size, config.preset), config.scale)
    recipe = replace(recipe, start=config.model or recipe.start)
    if config.problems:
        recipe = replace(recipe, problems=config.problems)
    if config.nproc:
        recipe = replace(recipe, nproc=config.nproc)
    if config.per_category:
        flags = list(recipe.generate)
        flags[flags.index("--per_category") + 1] = str(config.per_category)
        recipe = replace(recipe, generate=tuple(flags))
    return recipe


def jobs_of(config: Config) -> int:
    """Runs at a time."""
    return config.jobs or (1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)))


def thread_limits(config: Config) -> dict[str, str]:
    """The environment that keeps parallel runs on a CPU from each other's cores."""
    if torch.cuda.is_available():
        return {}
    threads = max(1, len(os.sched_getaffinity(0)) // jobs_of(config))
    return {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}


def copy_of_the_demos_start(out: Path) -> Path:
    """The demo's aligned folder, copied: a later demo must not change what these runs began from."""
    target = out / "start" / "aligned"
    if not (target / "config.json").exists():
        if not (Path(DEMO_START) / "config.json").exists():
            subprocess.run([sys.executable, "experiments/demo.py"], check=True)
        shutil.copytree(DEMO_START, target, ignore=shutil.ignore_patterns("step_*", "log.jsonl"), dirs_exist_ok=True)
    return target


# ----------------------------------------------------------------------------------------------------------------------
# Data: a fixed set of multimodal problems, many text problems, captions of other problems


def make_data(folder: Path, recipe: Recipe) -> None:
    """Run gen_data.py where its data are not there yet (it resumes by itself)."""
    if not (folder / "manifest.json").exists():
        subprocess.run([sys.executable, "gen_data.py", "--out_dir", str(folder), *recipe.generate], check=True)


def data_files(folder: Path, recipe: Recipe) -> Callable[[Step], str]:
    """What a step trains on, as its --data.

    The problems are halved at random: one half gives the text of stage 1 (and captions), the other the multimodal
    problems, of which the first so many are used; a smaller set is part of a larger one.
    """
    if not recipe.problems:
        for name in ("stage1", "stage2", "stage3", "captions"):
            if not (folder / f"{name}.jsonl").exists():
                raise UserError(f"{folder}/{name}.jsonl: no such file; make it with gen_data.py, or name --data FOLDER")
        whole = {"base": "stage1", "1": "stage1", "align": "captions", "2": "stage2", "3": "stage3"}
        return lambda step: str(folder / f"{whole[step.stage]}.jsonl")
    names = [row["id"] for row in read_rows(folder / "stage1.jsonl")]
    random.Random("table 3").shuffle(names)
    half = len(names) // 2
    text, captions = folder / "text.jsonl", folder / f"captions-{recipe.captions or half}.jsonl"
    arithmetic = folder / "arithmetic.jsonl"
    if recipe.arithmetic and not arithmetic.exists():
        write_arithmetic(arithmetic)
    copy_rows(folder / "stage1.jsonl", text, names[half:])
    copy_rows(folder / "captions.jsonl", captions, names[half:][: recipe.captions or None])
    beside = folder / "beside.jsonl"
    if recipe.align_beside:
        copy_rows(folder / "stage3.jsonl", beside, names[half:], level="text-dominant")

    def spec(step: Step) -> str:
        if step.stage in ("base", "1"):
            spec = f"{text},{arithmetic}:{recipe.arithmetic}" if recipe.arithmetic else str(text)
            with_captions = step.stage == "1" and recipe.captions_in_text
            return f"{spec},{captions}:{recipe.captions_in_text}" if with_captions else spec
        if step.stage == "align":
            files = [str(captions)]
            if recipe.align_text:
                files.append(f"{text}:{round(recipe.align_text * (recipe.captions or half))}")
            if recipe.align_beside:
                files.append(str(beside))
            return ",".join(files)
        kind, _, value = step.variant.partition("=")
        count = int(value) if kind == "problems" else recipe.problems
        if count > half:
            raise UserError(f"{folder} holds {half} of {count} multimodal problems; raise --per_category and --out_dir")
        if step.stage == "3":
            singles = folder / f"singles-{count}.jsonl"
            copy_rows(folder / "stage3.jsonl", singles, names[:count])
            return f"{singles},{text}:{round(recipe.text_share * 2 * count)}"
        pairs = folder / f"pairs-{count}.jsonl"
        copy_rows(folder / "stage2.jsonl", pairs, names[:count])
        return str(text_taught(pairs, folder / "stage1.jsonl") if kind == "teacher" else pairs)

    return spec


def read_rows(path: Path) -> list[dict]:
    """Rows of a JSONL file of our own."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def copy_rows(source: Path, target: Path, problems: Sequence[str], level: str = "") -> None:
    """The rows of these problems (of one level), in the source's order; nothing where the target exists."""
    if not target.exists():
        wanted, kept = set(problems), []
        for line in source.read_text(encoding="utf-8").splitlines(keepends=True):
            row = json.loads(line)
            if row["id"].split("/")[0] in wanted and level in ("", row["level"]):
                kept.append(line)
        write_atomically(target, "".join(kept))


def text_taught(pairs: Path, text: Path) -> Path:
    """The same pairs, each taught by its problem's text-only form."""
    target = pairs.with_name(pairs.name.replace("pairs-", "pairs-text-"))
    if not target.exists():
        strong = {row["id"]: row["instruction"] for row in read_rows(text)}
        plain = {"image_url": "", "level": "text-only"}
        rows = [row | plain | {"instruction": strong[row["id"]]} for row in read_rows(pairs)]
        write_atomically(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return target


def measure(out: Path, recipe: Recipe, files: Callable[[Step], str]) -> tuple[dict[str, int], dict[str, float]]:
    """(rows of an epoch, mean tokens of a row) by stage; kept in measured.json.

    A token that the teacher reads counts a third: it passes forward only. So equal tokens are equal computation.
    """
    path = out / "measured.json"
    specs = {stage: files(Step(stage, 1, 1)) for stage in recipe.steps}
    known = read_json(path) if path.exists() else {}
    if known.get("specs") != specs:
        preset = "tiny" if recipe.preset == "small" else recipe.preset
        chosen = find_preset(preset)
        chat_format = ChatFormat(load_processor(preset, recipe.start), count_image_tokens(chosen.config))
        max_length = default_max_length(chosen.config)
        known = {"specs": specs, "rows": {}, "tokens": {}}
        for stage, spec in specs.items():
            rows = open_rows(spec, pairs=stage == "2", chat_format=chat_format, max_length=max_length)
            order = rows.epoch_order(0, 0)
            known["rows"][stage] = len(rows)
            own, teacher = rows.entries["tokens"][order].mean(axis=0).tolist()
            known["tokens"][stage] = round(own + teacher / 3, 2)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(known, indent=1) + "\n")
    return known["rows"], known["tokens"]


# ----------------------------------------------------------------------------------------------------------------------
# Plan


def order_lines(config: Config, recipe: Recipe, tokens: dict[str, float]) -> list[Line]:
    """Every order under every budget; an order of all three stages is the same under each."""
    lines = []
    for order in config.orders.split(","):
        if order not in ORDERS:
            raise UserError(f"--orders {order}: the orders are {', '.join(ORDERS)}")
        whole = set(order) == set("123")
        for budget in config.budgets.split(",")[: 1 if whole else None]:
            steps = schedule(order, budget, recipe, tokens)
            lines.append(Line(ORDERS[order], arrows(order), "" if whole else budget, steps))
    return lines


def sweep_lines(config: Config, recipe: Recipe, tokens: dict[str, float]) -> list[Line]:
    """1→2→3 with one thing varied; for the number of problems, 1→3 of the same budget beside each."""
    if config.sweep not in SWEEPS:
        raise UserError(f"--sweep {config.sweep}: choose {', '.join(SWEEPS)}")
    values = config.values.split(";") if config.values else SWEEPS[config.sweep] or recipe.problem_counts
    if not values:
        raise UserError(f"--sweep {config.sweep}: not for {recipe.preset}, whose problems are all that --data holds")
    usual = usual_value(recipe, config.sweep)
    lines = []
    for value in values:
        title = f"{config.sweep} = {value}" + " (default)" * (value == usual)
        for order in ("123", "13") if config.sweep == "problems" else ("123",):
            steps = varied(schedule(order, "equal", recipe, tokens), config.sweep, value, usual)
            budget = "" if order == "123" else "equal"
            lines.append(Line("", f"{arrows(order)}, {title}", budget, steps))
    return lines


def all_tasks(lines: list[Line], seeds: list[int], recipe: Recipe, files: Callable[[Step], str], bench: tuple[str, ...],
              out: Path) -> dict[str, Task]:
    """Every run by name, seed after seed; shared ones once."""
    tasks: dict[str, Task] = {}
    for seed in seeds:
        for line in lines:
            chain = chain_tasks(with_start(line.steps, recipe), seed, recipe, files, out)
            chain.append(evaluation(chain[-1].name, recipe, bench, out))
            for task in chain:
                if tasks.setdefault(task.name, task) != task:
                    raise UserError(f"two different runs would be called {task.name}; leave one of them out")
    return tasks


def show_plan(lines: list[Line], tasks: dict[str, Task], tokens: dict[str, float], out: Path) -> None:
    """Print what each order does, and what is finished already."""
    for line in lines:
        steps = ", ".join(f"stage {step.stage} {step.steps} x {step.batch}" for step in line.steps)
        count = sum(step.steps for step in line.steps)
        print(f"{line.order:<32} {line.budget or 'both':<6} {steps}  = {count:,} steps, "
              f"{total_tokens(line.steps, tokens) / 1e6:.2f}M tokens")
    done = sum(is_finished(task, tasks, out) for task in tasks.values())
    print(f"{len(tasks)} runs, evaluations included; {done} are finished", flush=True)


# ----------------------------------------------------------------------------------------------------------------------
# Results


def finished_seeds(lines: list[Line], seeds: list[int], recipe: Recipe, tasks: dict[str, Task], out: Path) -> list[int]:
    """The seeds for which every line is trained and evaluated."""
    return [
        seed
        for seed in seeds
        if all(is_finished(tasks[f"eval/{chain_names(with_start(line.steps, recipe), seed)[-1]}"], tasks, out)
               for line in lines)
    ]


def table_rows(lines: list[Line], seeds: list[int], recipe: Recipe, bench: tuple[str, ...], out: Path) -> list[Row]:
    """One Row per line, with the scores of these seeds and what a seed's chain cost (start and alignment left out)."""
    rows = []
    for line in lines:
        chain = with_start(line.steps, recipe)
        scores, costs = [], []
        for seed in seeds:
            names = chain_names(chain, seed)
            scores.append(read_scores(out / "eval" / names[-1], bench[1], bench[3]))
            own = [name for name, step in zip(names, chain, strict=True) if step.stage in "123"]
            costs += [totals(out / name / "log.jsonl") | read_json(out / name / "task.json") for name in own]
        cost = {key: sum(run[key] for run in costs) / len(seeds) for key in ("steps", "rows", "tokens", "seconds")}
        clock = "seconds" if torch.cuda.is_available() else "cpu_seconds"  # shared cores do not change the latter
        cost["minutes"] = sum(run[clock] for run in costs) / len(seeds) / 60
        rows.append(Row(line.group, line.order, line.budget, scores, cost))
    return rows


def stage_costs(lines: list[Line], seeds: list[int], recipe: Recipe, out: Path) -> dict[str, float]:
    """Milliseconds of forward and backward pass per row, by stage (a pair is one row of stage 2)."""
    seconds, rows = {}, {}
    for line in lines:
        chain = with_start(line.steps, recipe)
        for seed in seeds:
            for name, step in zip(chain_names(chain, seed), chain, strict=True):
                found = totals(out / name / "log.jsonl")
                seconds[step.stage] = seconds.get(step.stage, 0.0) + found["compute_seconds"]
                rows[step.stage] = rows.get(step.stage, 0) + found["rows"]
    return {stage: round(1000 * seconds[stage] / rows[stage], 2) for stage in seconds}


def device_name() -> str:
    """The GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' * (cores > 1)} of {cpu_name()}"


def write_results(config: Config, recipe: Recipe, lines: list[Line], tasks: dict[str, Task], seeds: list[int],
                  bench: tuple[str, ...], out: Path, results: Path) -> None:
    """The table, the paired comparison, the chart and all that is needed to run it again."""
    done = finished_seeds(lines, seeds, recipe, tasks, out)
    if not done:
        raise UserError(f"{out}: no seed is finished for every line; run without --report_only")
    rows = table_rows(lines, done, recipe, bench, out)
    records = [read_json(out / task.name / "task.json") for task in tasks.values() if is_finished(task, tasks, out)]
    stem = f"sweep-{config.sweep}" if config.sweep else "table3"
    problems = len(next(iter(rows[0].seeds[0].right.values())))
    facts = {
        "command": shlex.join(["experiments/table3.sh", *sys.argv[1:]]), "commit": runtime.git_commit(),
        "device": device_name(), "torch": torch.__version__, "seeds": done, "test problems": problems,
        "hours": round(sum(record["seconds"] for record in records) / 3600, 2),
        "processor hours": round(sum(record["cpu_seconds"] for record in records) / 3600, 2),
        "runs at a time": jobs_of(config),
        "milliseconds per row, forward and backward": stage_costs(lines, done, recipe, out),
        "start": f"{recipe.start}, weights {model_fingerprint(recipe.start)}" if recipe.start else "trained here",
        "recipe": asdict(recipe)
    }
    reference = next((row for row in rows if "default" in row.order), rows[0])
    first = "Variant" if config.sweep else "Order"
    text = [f"# Table 3 in miniature: {recipe.preset}" + (f", {config.sweep}" if config.sweep else ""), ""]
    text += main_table(rows, first)
    text += ["", f"{len(done)} seeds, mean ± standard deviation; {problems} held-out problems. {NOTE}", ""]
    text += difference_table(rows, reference, first, config.samples)
    text += ["", f"Paired bootstrap over problems within seeds, {config.samples} samples; 95 % intervals.", ""]
    if not config.sweep:
        draw_chart(results / "figure4.png", rows)
        text += ["![text and vision averages, skewness and variation](figure4.png)", "", "The paper's Table 3:", ""]
        text += [*paper_table(), ""]
    text += ["## To run it again", ""] + [f"- {name}: {value}" for name, value in facts.items() if name != "recipe"]
    text += [f"- recipe, {name}: {value}" for name, value in facts["recipe"].items()]
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / f"{stem}.md", "\n".join(text) + "\n")
    scores = {row.label: [dict(seed.metrics) | {"blind": dict(seed.blind)} for seed in row.seeds] for row in rows}
    write_atomically(results / f"{stem}.json", json.dumps(facts | {"scores": scores}, indent=1,
                                                          ensure_ascii=False) + "\n")
    print("\n".join(text[2 : 2 + len(rows) + 8]))
    print(f"\n{results / stem}.md")


if __name__ == "__main__":
    run_main(main)
