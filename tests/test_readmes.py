"""Every command that a README shows, as typed: its program is there and knows its flags; those of a second are run."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from sources import STRONG, WEAK, conversations, parse_row

ROOT = Path(__file__).resolve().parents[1]
READMES = sorted({ROOT / "README.md", *(path for path in ROOT.glob("[a-z]*/README.md") if path.parent.name != "out")})
START = re.compile(r"((\.venv/bin/)?python3? |torchrun |make |bash |source |git apply |runs/\w+\.sh)")
QUICK = ("bench.lines", "gen_data.py --list")
OF_OTHERS = ("lmms_eval", "run.py")  # programs of the evaluation harnesses, in their own repositories


def commands(readme: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, words) of the commands in code blocks, fenced or indented, and in `code` within a line."""
    fenced, lines = False, enumerate(readme.read_text().splitlines(), 1)
    for number, line in lines:
        fenced ^= line.startswith("```")
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1].strip()
        block = fenced or line.startswith("    ")
        for text in [line.strip()] if block else re.findall(r"`([^`]+)`", line):
            assigned = re.match(r"(\$ )?([A-Z_]+=(\"[^\"]*\"|\S*) )*", text).end()  # GPUS=8 runs/align.sh ...
            text = re.split(r" {2,}", text[assigned:])[0]  # what is behind it says what it does
            if START.match(text) and "NAME" not in text.split("--")[0]:  # `python -m bench.NAME` speaks of several
                yield number, shlex.split(text, comments=True)


@functools.cache
def output_of(program: str, *arguments: str) -> str:
    """What the program prints, run in this process, where torch is imported already."""
    sys_argv, sys.argv, shown = sys.argv, [program, *arguments], io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit), \
                mock.patch("multiprocessing.set_start_method"):  # it can be set once in a process
            if program.endswith(".py"):
                runpy.run_path(str(ROOT / program), run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = sys_argv
    return shown.getvalue()


def fault(words: list[str]) -> str:
    """What is wrong with a command; "" where nothing is."""
    first, rest = words[0], words[1:]
    if first == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        return "".join(f"no target {word}" for word in rest if "=" not in word and word not in targets)
    if "python" not in first and first != "torchrun":  # bash, source, git apply, runs/...
        file = next((word for word in words if "/" in word), "Makefile")
        made = file == ".venv/bin/activate"  # by make, and not where PYTHON=... names another environment
        return "" if made or (ROOT / file).is_file() else f"no file {file}"
    if rest[:2] == ["-m", "pytest"]:
        return "".join(f"no {word}" for word in rest if word.startswith("tests") and not (ROOT / word).exists())
    at = rest.index("-m") + 1 if "-m" in rest else next(i for i, word in enumerate(rest) if word.endswith(".py"))
    program, arguments = rest[at], rest[at + 1 :]
    if program in OF_OTHERS:
        return ""
    name = program if program.endswith(".py") else program.replace(".", "/")
    if not any((ROOT / path).is_file() for path in (name, f"{name}.py", f"{name}/__main__.py")):
        return f"no program {program}"
    flags = {word.split("=")[0] for word in arguments if word.startswith("--")}
    if " ".join([program, *arguments]).startswith(QUICK):
        return "" if output_of(program, *arguments) else "printed nothing"
    known = output_of(program, *arguments[:1], "--help") if arguments and not flags & {*arguments[:1]} else ""
    known += output_of(program, "--help") if flags else ""
    unknown = sorted(flag for flag in flags if not re.search(rf"{re.escape(flag)}(?![\w-])", known))
    return f"{program} --help does not name {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_readme_can_be_typed(readme):
    found = [(line, words, fault(words)) for line, words in commands(readme)]
    assert not [f"{readme}:{line}: {shlex.join(words)}: {what}" for line, words, what in found if what]


def test_a_fault_is_found():
    assert fault("python train_stage1.py --learning_rat 1".split()).endswith("does not name --learning_rat")
    for command in ("python -m bench.nothing", "make tea", "git apply forks/no.patch", "runs/no.sh", "python no.py"):
        assert fault(command.split())
    assert fault("torchrun --nproc_per_node 8 train_stage2.py --alpha 1 --out_dir=x".split()) == ""


def test_every_test_that_is_named_exists():
    """In tests/README.md: file.py::test_a, ::test_b"""
    file, found = None, 0
    for path, name in re.findall(r"([\w/]+\.py)?::(test_\w+)", (ROOT / "tests/README.md").read_text()):
        file = path or file
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.M), f"{file}::{name}"
        found += 1
    assert found > 80


def test_the_rows_to_copy_are_read_as_the_readme_says():
    """README, "Your own data": a text row, a row with a picture, a pair, and turns with pictures in their places."""
    published, turns = re.findall(r"```json\n(.+?)```", (ROOT / "README.md").read_text(), re.S)
    text, picture, pair = map(parse_row, published.splitlines())
    assert [len(turns[0].images) for _, turns in conversations(text, False) + conversations(picture, False)] == [0, 1]
    sides = [(side, turns[0].images) for side, turns in conversations(pair, True)]
    assert sides == [(STRONG, []), (WEAK, ["a.png"])]
    [(_, (question, _))] = conversations(parse_row(turns), False)
    assert [next(iter(part.values())) for part in question.content] == ["Is", "a.png", "larger than", "b.png"]


def test_the_tree_in_the_readme_is_the_disk():
    """Each name of the tree exists, and each file and folder at the top stands in it (or is what any project has)."""
    tree = re.search(r"```\n(the core.+?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    shown = set(re.findall(r"(?<![\w/.])[\w]+(?:\.py|\.txt|/)", tree))
    assert not [name for name in shown if not (ROOT / name).exists()]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a checkout of git")
    top = {name.split("/")[0] + "/" * ("/" in name) for name in tracked}
    usual = {".ci/", ".gitignore", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
    assert top - usual == shown


def test_the_example_of_the_loss_runs():
    block = re.search(r"```python\n(.+?)```", (ROOT / "kernels/README.md").read_text(), re.S).group(1)
    names: dict = {}
    exec(block, names)
    assert names["weak_hidden"].grad.isfinite().all() and names["losses"].fkl > 0
