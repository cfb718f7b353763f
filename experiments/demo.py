"""The whole method in miniature, on a laptop: data, stage 1, alignment, stage 2, stage 3, and what each stage can do.

    make demo                              or: python experiments/demo.py
    python experiments/demo.py --out_dir out/demo     the same; started again, it goes on where it stopped

Writes report.md (the table), loss.png, examples.md and .png (pictures and what the model makes of them), and after each
stage a folder that transformers opens. Every step is one of the project's own commands, printed before it runs.
"""

import argparse
import html
import json
import os
import random
import shlex
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from errors import UserError, run_main  # noqa: E402

FAMILIES = "triangle_angle_sum,angles_on_a_line,rectangle,cuboid,cube,linear_value,line_through_points"
VERSIONS = ("text_only", "text_dominant", "vision_dominant", "vision_only")
STAGES = ("stage1", "aligned", "stage2", "stage3")
TITLES = {"stage1": "1: text", "aligned": "1, captions", "stage2": "1 → 2: PUMA", "stage3": "1 → 2 → 3"}

# ----------------------------------------------------------------------------------------------------------------------
# Arithmetic: the real presets start from a language model that knows it; tiny's starts from nothing


def write_arithmetic(path: Path, rows: int = 3000, facts_a_row: int = 8) -> None:
    """Rows of small sums, differences, products and quotients, each fact equally often, shuffled by seed 0."""
    facts = [f"{a} + {b} = {a + b}" for a in range(31) for b in range(10)]
    facts += [f"{a} - {b} = {a - b}" for a in range(10) for b in range(a + 1)]
    facts += [f"{a} × {b} = {a * b}" for a in range(2, 10) for b in range(2, 10)] * 2
    bases = sorted({a * b for a in range(2, 7) for b in range(2, 7)})
    facts += [f"{a} × {b} = {a * b}" for a in bases for b in range(2, 7)]
    facts += [f"{a} × {n} = {a * n}" for a in (2, 4) for n in range(10, 19)] * 2
    facts += [f"{n} × {n} = {n * n}" for n in range(2, 13)] * 3
    facts += [f"6 × {n * n} = {6 * n * n}" for n in range(2, 13)] * 5
    facts += [f"{a * b}/{a} = {b}" for a in range(1, 7) for b in range(1, 7)]
    facts += [f"{a}° + {b}° = {a + b}°" for a in range(20, 105, 5) for b in range(20, 105, 5) if a + b <= 165]
    facts += [f"180° - {a}° = {180 - a}°" for a in range(15, 170, 5)] * 6
    rng = random.Random(0)
    deck: list[str] = []
    lines = []
    for _ in range(rows):
        if len(deck) < facts_a_row:
            refill = facts[:]
            rng.shuffle(refill)
            deck += refill
        output = "\n".join(deck.pop(0) for _ in range(facts_a_row))
        lines.append(json.dumps({"image_url": "", "instruction": "Compute.", "output": output}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n")


# ----------------------------------------------------------------------------------------------------------------------
# The steps


def commands(out: Path, seed: int, quick: bool) -> list[tuple[str, Path, list[str]]]:
    """(title, file that exists when the step is done, arguments) of every step that is a command, in order.

    Tiny departs from the real recipe: its language model is not pretrained, so the learning rates are high, it reads
    arithmetic in stage 1, and it trains with the projector on captions, text beside them, and in stage 2.
    """
    data = out / "data"
    steps = {"stage1": 6, "aligned": 6, "stage2": 4, "stage3": 4} if quick else {}
    generate = [
        "gen_data.py", "--out_dir", data, "--families", FAMILIES, "--per_category", 60 if quick else 2400,
        "--bench_per_family", 2 if quick else 20, "--picture_size", 96, "--small_numbers", "--seed", seed,
    ]
    common = [
        "--seed", seed, "--beta2", 0.95, "--pack_tokens", 4096, "--num_workers", 0,
        "--progress", "bar", "--save_every", 100, "--keep", 1,
    ]
    text, captions, arithmetic = data / "stage1.jsonl", data / "captions.jsonl", data / "arithmetic.jsonl"

    def train(name: str, script: str, start: str, files: str, batch: int, rate: float, count: int, *rest: object):
        flags = ["--data", files, "--model", start, "--out_dir", out / name, "--global_batch", batch]
        flags += ["--learning_rate", rate, "--max_steps", steps.get(name, count)]
        return TITLES[name], out / name / "config.json", [script, *common, *flags, *rest]

    return [
        ("data", data / "manifest.json", generate),
        train("stage1", "train_stage1.py", "", f"{text},{arithmetic}:0.7", 16, 1.5e-3, 1200, "--preset", "tiny",
              "--warmup", 0.05),
        train(
            "aligned", "train_stage3.py", out / "stage1", f"{captions},{text}:0.2,{arithmetic}:0.3", 16, 1e-3, 1200,
            "--train", "projector,llm", "--warmup", 0.05,
        ),
        train(
            "stage2", "train_stage2.py", out / "aligned", str(data / "stage2.jsonl"), 12, 6e-4, 320,
            "--train", "vision,projector,llm",
        ),
        train("stage3", "train_stage3.py", out / "stage2", f"{data / 'stage3.jsonl'},{arithmetic}:0.5", 16, 6e-4, 500),
    ]


def evaluation(out: Path, stage: str) -> tuple[str, Path, list[str]]:
    """The evaluation of one stage's folder on the held-out problems, once more with every picture white."""
    folder = out / "eval" / stage
    flags = ["--bench", "generated", "--data", out / "data" / "bench_four.jsonl", "--image_root", out / "data"]
    flags += ["--model", out / stage, "--out_dir", folder, "--blind", "--batch_size", 96, "--max_new_tokens", 72]
    return f"evaluate {TITLES[stage]}", folder / "report.json", ["eval.py", *flags, "--name", TITLES[stage]]


def run(title: str, done: Path, arguments: list) -> None:
    """Run one of the project's commands unless its result exists; a failure ends the demo."""
    if done.exists():
        print(f"── {title}: done already")
        return
    command = [sys.executable, *map(str, arguments)]
    print(f"── {title}\n   {shlex.join(['python', *command[1:]])}", flush=True)
    began = time.monotonic()
    process = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, check=False)
    if process.returncode:
        raise UserError(f"the step {title!r} ended with code {process.returncode}; its message stands above")
    print(f"   {time.monotonic() - began:.0f} s", flush=True)


def four_versions(data: Path) -> None:
    """The rows of bench.jsonl in the paper's four levels."""
    rows = [line for line in (data / "bench.jsonl").read_text().splitlines() if line]
    kept = [line for line in rows if json.loads(line)["version"].replace("-", "_") in VERSIONS]
    (data / "bench_four.jsonl").write_text("\n".join(kept) + "\n")


# ----------------------------------------------------------------------------------------------------------------------
# The report


def cell(value: float | None) -> str:
    """A score with one digit, or a dash."""
    return "–" if value is None else f"{value:.1f}"


def table(out: Path) -> list[str]:
    """Accuracy per version after each stage, the gap as in the paper's Table 3, and the two baselines."""
    lines = [
        "| after stage | text-only | text-dominant | vision-dominant | vision-only | gap % | blind vision-only |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in STAGES:
        report = json.loads((out / "eval" / stage / "report.json").read_text())
        scores, blind = report["metrics"], report["blind"] or {}
        dominant, only = scores["text_dominant"], scores["vision_only"]
        gap = f"{100 * (dominant - only) / only:.1f}" if only else "–"
        values = [cell(scores.get(version)) for version in VERSIONS]
        lines.append(f"| {TITLES[stage]} | {' | '.join(values)} | {gap} | {cell(blind.get('vision_only'))} |")
    lines += ["", "Always a family's most frequent answer: " + cell(report["most_frequent"]["all"]) + " %."]
    lines += ["", "| family | most frequent answer in % |", "|---|---|"]
    for family, share in report["most_frequent"].items():
        if family != "all":
            lines.append(f"| {family} | {cell(share)} |")
    return lines


def draw_losses(out: Path) -> None:
    """The training loss of every stage, and stage 2's three terms, as loss.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(STAGES), figsize=(14, 3.2))
    for axis, stage in zip(axes, STAGES, strict=True):
        rows = [json.loads(line) for line in (out / stage / "log.jsonl").read_text().splitlines()]
        for name in ("loss", "ce", "fkl", "rkl"):
            if name in rows[0] and (name == "loss" or stage == "stage2"):
                axis.plot([row["step"] for row in rows], [row[name] for row in rows], label=name, linewidth=1)
        axis.set_title(TITLES[stage], fontsize=10)
        axis.set_xlabel("step")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss")
    axes[STAGES.index("stage2")].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "loss.png", dpi=120)
    pyplot.close(figure)


def write_examples(out: Path) -> None:
    """The first vision-only problem of each family with picture, response and verdict: examples.md, examples.png."""
    questions = [json.loads(line) for line in (out / "data" / "bench_four.jsonl").read_text().splitlines()]
    folder = out / "eval" / "stage3"
    answers = {row["id"]: row for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())}
    verdicts = {row["id"]: row for row in map(json.loads, (folder / "verdicts.jsonl").read_text().splitlines())}
    first = {row["family"]: row for row in reversed(questions) if row["version"] == "vision-only"}
    lines = ["# Solved by the final model from the picture alone", ""]
    shown = []
    for question in reversed(first.values()):
        right = bool(verdicts[question["id"]].get("correct"))
        response = answers[question["id"]].get("response") or ""
        lines += [f"## {question['family']}: {'right' if right else 'wrong'}", ""]
        lines += [f"![](data/{question['image_url']})", "", "```", html.escape(response), "```"]
        lines += [f"right answer: {question['answer']}", ""]
        shown.append((out / "data" / question["image_url"], response, right, question["answer"]))
    (out / "examples.md").write_text("\n".join(lines))
    draw_examples(shown, out / "examples.png")


def draw_examples(shown: list[tuple[Path, str, bool, str]], target: Path) -> None:
    """Pictures side by side, each with the model's response below it; a wrong one names the right answer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    figure, axes = pyplot.subplots(1, len(shown), figsize=(2.3 * len(shown), 3.2), squeeze=False)
    for axis, (picture, response, right, answer) in zip(axes[0], shown, strict=True):
        with Image.open(picture) as image:
            axis.imshow(image.convert("RGB"))
        axis.set_xticks([])
        axis.set_yticks([])
        verdict = "right" if right else f"wrong: {answer}"
        text = "\n".join(textwrap.fill(line, 30) for line in response.splitlines())
        axis.set_title(verdict, fontsize=9, color="tab:green" if right else "tab:red")
        axis.text(0, -0.06, text, transform=axis.transAxes, va="top", fontsize=7, parse_math=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.28, wspace=0.08)
    figure.savefig(target, dpi=100)
    pyplot.close(figure)


def write_report(out: Path, minutes: float | None) -> None:
    """report.md: the table, the chart, how long it took, and what tiny does differently."""
    draw_losses(out)
    write_examples(out)
    questions = [json.loads(line) for line in (out / "data" / "bench_four.jsonl").read_text().splitlines()]
    problems = len({question["problem_id"] for question in questions})
    lines = ["# nanoPUMA in miniature", "", f"Accuracy in % on {problems} held-out problems in four versions each."]
    lines += ["", *table(out), "", "![](loss.png)", "", "![](examples.png)", "", "[examples](examples.md)"]
    if minutes is not None:
        lines += ["", f"{minutes:.1f} minutes on {os.cpu_count()} CPU cores."]
    (out / "report.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """All steps, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", default="out/demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps of each: does it run, not does it learn")
    arguments = parser.parse_args()
    out = (ROOT / arguments.out_dir).resolve()
    began = time.monotonic()
    generate, *stages = commands(out, arguments.seed, arguments.quick)
    fresh = not any(done.exists() for _, done, _ in (generate, *stages))  # else the time would be of a part
    run(*generate)
    write_arithmetic(out / "data" / "arithmetic.jsonl", rows=200 if arguments.quick else 3000)
    four_versions(out / "data")
    for stage, step in zip(STAGES, stages, strict=True):
        run(*step)
        run(*evaluation(out, stage))
    write_report(out, (time.monotonic() - began) / 60 if fresh else None)
    print("\n" + (out / "report.md").read_text())
    folder = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    print(f"wrote {folder}/report.md, loss.png, examples.md, examples.png")
    question = "Triangle ABC. Angle A = 40° and angle B = 60°. Find angle C."
    print(f'ask it: python sample.py --model {arguments.out_dir}/stage3 "{question}"')


if __name__ == "__main__":
    run_main(main)
