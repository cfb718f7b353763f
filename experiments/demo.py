"""The whole method in miniature, on a laptop: data, three stages, and what each can do.

    make demo                                        or: python -m experiments.demo
    python -m experiments.demo --out_dir out/demo    the same; started again, it goes on where it stopped

Writes report.md (the table), loss.png, examples.md and .png (pictures and what the model makes of them), and after each
stage a folder that transformers opens. Every step is one of the project's own commands, printed before it runs.
"""

import argparse
import html
import json
import textwrap
import time
from pathlib import Path

from common.files import num_cores, read_json, write_atomically
from errors import run_main
from tiny.make_start import FAMILIES, FOLDER, ROOT, run, warn_if_outdated

VERSIONS = ("text_only", "text_dominant", "vision_dominant", "vision_only")
TITLES = {"start": "the start", "stage1": "1: text", "stage2": "1 → 2: PUMA", "stage3": "1 → 2 → 3"}
READS = {"stage1": "stage1.jsonl", "stage2": "stage2.jsonl", "stage3": "stage3.jsonl and half of stage1.jsonl"}

# ----------------------------------------------------------------------------------------------------------------------
# The steps


def commands(out: Path, seed: int, quick: bool) -> list[tuple[str, Path, list]]:
    """(title, file that exists when the step is done, arguments) of every step that is a command, in order.

    As with the real presets, the parts are pretrained and aligned before (tiny/README.md tells how). Tiny departs from
    the real recipe in its high learning rates, and in that stage 2 trains the language model too: it is so small that
    it cannot yet answer what it reads off a picture.
    """
    data = out / "data"
    text, pairs, singles = (data / f"stage{number}.jsonl" for number in (1, 2, 3))
    generate = ["gen_data.py", "--out_dir", data, "--families", FAMILIES, "--per_category", 60 if quick else 2400,
                "--bench_per_family", 2 if quick else 20, "--picture_size", 96, "--small_numbers", "--seed", seed]

    def train(name: str, script: str, start: Path, files: str, steps: int, batch: int, rate: float, *rest: object):
        flags = ["--model", start, "--data", files, "--out_dir", out / name,
                 "--max_steps", 4 if quick else steps, "--global_batch", batch, "--learning_rate", rate, *rest,
                 "--seed", seed, "--beta2", 0.95, "--pack_tokens", 4096, "--num_workers", 0, "--save_every", 100,
                 "--keep", 1, "--progress", "bar"]
        return TITLES[name], out / name / "config.json", [script, *flags]

    return [("data", data / "manifest.json", generate),
            train("stage1", "train_stage1.py", FOLDER, text, 150, 16, 4e-4),
            train("stage2", "train_stage2.py", out / "stage1", pairs, 400, 12, 4e-4, "--train", "vision,projector,llm"),
            train("stage3", "train_stage3.py", out / "stage2", f"{singles},{text}:0.5", 500, 16, 3e-4)]


def evaluation(out: Path, stage: str) -> tuple[str, Path, list]:
    """The evaluation of one stage's folder on the held-out problems, once more with every picture white."""
    folder = out / "eval" / stage
    flags = ["--bench", "generated", "--data", out / "data" / "bench_four.jsonl", "--image_root", out / "data",
             "--model", FOLDER if stage == "start" else out / stage, "--out_dir", folder, "--blind",
             "--batch_size", 96, "--max_new_tokens", 72, "--name", TITLES[stage]]
    return f"evaluate {TITLES[stage]}", folder / "report.json", ["eval.py", *flags]


def four_versions(data: Path) -> None:
    """The rows of bench.jsonl in the paper's four levels."""
    rows = (data / "bench.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if json.loads(row)["version"].replace("-", "_") in VERSIONS]
    write_atomically(data / "bench_four.jsonl", "".join(kept))


# ----------------------------------------------------------------------------------------------------------------------
# The report


def rows_of(path: Path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cell(value: float | None) -> str:
    """A score with one digit, or a dash."""
    return "–" if value is None else f"{value:.1f}"


def table(out: Path) -> list[str]:
    """Accuracy per version after each stage, the gap as in the paper's Table 3, and the two baselines."""
    lines = [
        "| after stage | text-only | text-dominant | vision-dominant | vision-only | gap % | blind vision-only |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in TITLES:
        report = read_json(out / "eval" / stage / "report.json")
        scores, blind = report["metrics"], report["blind"] or {}
        dominant, only = scores["text_dominant"], scores["vision_only"]
        gap = f"{100 * (dominant - only) / only:.1f}" if only > 2 else "–"  # of next to nothing it says nothing
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

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6))
    for axis, stage in zip(axes, list(TITLES)[1:], strict=True):
        rows = rows_of(out / stage / "log.jsonl")
        for name in ("fkl", "rkl", "ce", "loss") if stage == "stage2" else ("loss",):
            style = {"color": "black", "linewidth": 0.7} if name == "loss" else {"linewidth": 1.2}  # over `ce`
            axis.plot([row["step"] for row in rows], [row[name] for row in rows], label=name, **style)
        axis.set(title=f"{TITLES[stage]}\n{READS[stage]}", xlabel="step", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("loss")
    axes[1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out / "loss.png", dpi=100)
    pyplot.close(figure)


def write_examples(out: Path) -> None:
    """The first vision-only problem of each family with picture, response and verdict: examples.md, examples.png."""
    questions, folder = rows_of(out / "data" / "bench_four.jsonl"), out / "eval" / "stage3"
    answers, verdicts = ({row["id"]: row for row in rows_of(folder / f"{name}.jsonl")}
                         for name in ("predictions", "verdicts"))
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
    write_atomically(out / "examples.md", "\n".join(lines))
    draw_examples(shown, out / "examples.png")


def draw_examples(shown: list[tuple[Path, str, bool, str]], target: Path) -> None:
    """Pictures four a row, each with the model's response below it; a wrong one names the right answer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    rows = -(-len(shown) // 4)
    figure, axes = pyplot.subplots(rows, 4, figsize=(12, 4.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (picture, response, right, answer) in zip(axes.flat, shown, strict=False):
        with Image.open(picture) as image:
            axis.imshow(image.convert("RGB"))
        axis.set_title("right" if right else f"wrong: {answer}", fontsize=13, color="tab:green" if right else "tab:red")
        text = "\n".join(textwrap.fill(line, 30) for line in response.splitlines())
        axis.text(0, -0.04, text, transform=axis.transAxes, va="top", fontsize=12, parse_math=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.16, wspace=0.1, hspace=0.5)
    figure.savefig(target, dpi=75)
    pyplot.close(figure)


def write_report(out: Path, minutes: float | None) -> None:
    """report.md: the table, the chart, how long it took, and what tiny does differently."""
    draw_losses(out)
    write_examples(out)
    problems = len({question["problem_id"] for question in rows_of(out / "data" / "bench_four.jsonl")})
    lines = ["# nanoPUMA in miniature", "", f"Accuracy in % on {problems} held-out problems in four versions each."]
    lines += ["", *table(out), "", "![](loss.png)", "", "![](examples.png)", "", "[examples](examples.md)"]
    if minutes is not None:
        lines += ["", f"{minutes:.1f} minutes on {num_cores()} CPU cores."]
    write_atomically(out / "report.md", "\n".join(lines) + "\n")


def main() -> None:
    """All steps, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", default="out/demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps of each: does it run, not does it learn")
    arguments = parser.parse_args()
    out = (ROOT / arguments.out_dir).resolve()
    began = time.monotonic()
    warn_if_outdated()
    generate, *stages = commands(out, arguments.seed, arguments.quick)
    fresh = not any(done.exists() for _, done, _ in (generate, *stages))  # else the time would be of a part
    run(*generate)
    four_versions(out / "data")
    run(*evaluation(out, "start"))
    for stage, step in zip(list(TITLES)[1:], stages, strict=True):
        run(*step)
        run(*evaluation(out, stage))
    write_report(out, (time.monotonic() - began) / 60 if fresh else None)
    print("\n" + (out / "report.md").read_text())
    folder = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    print(f"wrote {folder}/report.md, loss.png, examples.md, examples.png")
    question = "Triangle ABC. Angle A = 40° and angle B = 60°. Find angle C."
    print(f'ask it: source .venv/bin/activate; python sample.py --model {arguments.out_dir}/stage3 "{question}"')


if __name__ == "__main__":
    run_main(main)
