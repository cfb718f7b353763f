"""Make the start that `--preset tiny` loads: a language model, a projector and a tower that are aligned (config.json,
model.safetensors in fp16, start.json), as the real presets' pretrained parts are.

    python -m tiny.make_start                            three quarters of an hour on one core; goes on
    python -m tiny.make_start --tower out/tower.safetensors      with a tower of python -m tiny.make_tower

The tower stays as it is: by default it is the shipped one. Every step is one of the project's own commands, printed
before it runs. What comes out solves what is written, also beside a picture, and describes what is drawn, but does not
do both at once: that is what stage 2 is for. None of the problems it reads is a held-out one: those are held out by
their parameters, whatever the seed.
"""

import argparse
import hashlib
import json
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import guard  # noqa: F401  (before transformers)
import torch
from safetensors.torch import load_file

import model as models
from checkpoint import save_pretrained
from common.files import read_json, write_atomically
from errors import UserError, run_main
from problems.store import VERSION
from runtime import git_commit

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tiny"
FAMILIES = "triangle_angle_sum,angles_on_a_line,rectangle,cuboid,cube,linear_value,line_through_points"
SEED = 1000  # of the engine; the demo and Table 3 take others

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
    write_atomically(path, "\n".join(lines) + "\n")


# ----------------------------------------------------------------------------------------------------------------------
# The fingerprint


def made_for() -> dict[str, object]:
    """What the start must have been made with to fit this checkout: the engine's version and the tokenizer."""
    tokenizer = hashlib.sha256((FOLDER / "tokenizer.json").read_bytes()).hexdigest()
    return {"engine_version": VERSION, "tokenizer": tokenizer}


def warn_if_outdated() -> None:
    """One line where the shipped start was made with another engine or tokenizer than this checkout has."""
    start, now = read_json(FOLDER / "start.json"), made_for()
    changed = [f"{key} {start.get(key)!s:.12} (now {now[key]!s:.12})" for key in now if start.get(key) != now[key]]
    if changed:
        print(f"warning: tiny's start was made with {', '.join(changed)}; it may read today's problems worse: "
              "python -m tiny.make_start makes it anew", flush=True)


# ----------------------------------------------------------------------------------------------------------------------
# The steps


def run(title: str, done: Path, arguments: list) -> None:
    """Run one of the project's commands in the repository's root, unless `done`, its result, exists.

    Raises:
        UserError: the command failed.
    """
    if done.exists():
        print(f"── {title}: done already", flush=True)
        return
    command = [sys.executable, *map(str, arguments)]
    print(f"── {title}\n   {shlex.join(['python', *command[1:]])}", flush=True)
    began = time.monotonic()
    if code := subprocess.run(command, cwd=ROOT).returncode:
        raise UserError(f"the step {title!r} ended with code {code}; its message stands above")
    print(f"   {time.monotonic() - began:.0f} s", flush=True)


def write_untrained(out: Path, tower: str) -> None:
    """The preset's random language model and projector behind a trained tower, as a folder."""
    torch.manual_seed(0)
    model = models.load_model("tiny", random=True)
    if tower:
        trained = {f"hf.model.vision_tower.{name}": value for name, value in load_file(tower).items()}
    else:
        trained = {name: value for name, value in models.load_model("tiny").state_dict().items() if "vision" in name}
    _, unknown = model.load_state_dict(trained, strict=False)
    if unknown or not trained:
        raise UserError(f"--tower {tower}: not a tower of tiny's shape; python -m tiny.make_tower makes one")
    save_pretrained(model, out)


def write_start(trained: Path, folder: Path, command: str) -> None:
    """The trained folder's weights in fp16, and what they were made with, into `folder`."""
    hf = models.load_model(source=str(trained), dtype=torch.float16).hf
    hf.save_pretrained(folder)
    facts = made_for() | {"command": command, "commit": git_commit(), "seed": SEED}
    write_atomically(folder / "start.json", json.dumps(facts, indent=1) + "\n")


def main() -> None:
    """Data, three trainings, and the files that ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", default="out/tiny_start", help="data and trainings")
    parser.add_argument("--tower", default="", help="the tower's weights (default: the shipped tower)")
    parser.add_argument("--folder", default="", help="where config.json, model.safetensors, start.json go (default: "
                        "tiny/ itself; with --quick, OUT_DIR/start)")
    parser.add_argument("--quick", action="store_true", help="a few steps of each: does it run, not does it learn")
    arguments = parser.parse_args()
    out = Path(arguments.out_dir).resolve()
    folder = Path(arguments.folder or (out / "start" if arguments.quick else FOLDER))  # never a try over what ships
    data = out / "data"
    run("data", data / "manifest.json",
        ["gen_data.py", "--out_dir", data, "--families", FAMILIES, "--per_category", 60 if arguments.quick else 6000,
         "--bench_per_family", 0, "--picture_size", 96, "--small_numbers", "--seed", SEED])
    write_arithmetic(data / "arithmetic.jsonl", rows=200 if arguments.quick else 6000)
    singles = (data / "stage3.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    beside = [line for line in singles if json.loads(line)["level"] == "text-dominant"]
    write_atomically(data / "beside.jsonl", "".join(beside))  # written out, beside its picture
    write_untrained(out / "untrained", arguments.tower)

    def train(name: str, script: str, start: str, files: str, steps: int, rate: float, *rest: object) -> None:
        run(name, out / name / "config.json",
            [script, "--model", out / start, "--data", files, "--out_dir", out / name, *rest,
             "--max_steps", 4 if arguments.quick else steps, "--learning_rate", rate, "--global_batch", 16, "--seed", 0,
             "--warmup", 0.05, "--beta2", 0.95, "--pack_tokens", 4096, "--num_workers", 0, "--save_every", 100,
             "--keep", 1, "--progress", "bar"])

    text, captions, arithmetic = (data / f"{name}.jsonl" for name in ("stage1", "captions", "arithmetic"))
    both = ("--train", "projector,llm")
    train("text", "train_stage1.py", "untrained", f"{text},{arithmetic}:0.7", 1500, 1.5e-3)
    train("captions", "train_stage3.py", "text", f"{captions},{text}:0.2,{arithmetic}:0.3", 1400, 1e-3, *both)
    mix = f"{captions},{text}:0.3,{data / 'beside.jsonl'},{arithmetic}:0.2"
    train("aligned", "train_stage3.py", "captions", mix, 1000, 8e-4, *both)
    write_start(out / "aligned", folder, "python -m tiny.make_start")
    print(f"wrote {folder}: config.json, model.safetensors, start.json")


if __name__ == "__main__":
    run_main(main)
