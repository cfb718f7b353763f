"""bench/lines.py on a project small enough to count by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.lines import Project, count

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "train_stage2.py": '''"""Two lines
of docstring."""
import torch
import runtime
from data import Rows
from kernels import loss as puma  # through the package


def main():
    """Train."""
    rows = Rows()  # a comment after code
    # a comment of its own
    unused = rows.read
    runtime.setup(unused)
    return puma(torch.zeros(1))


if __name__ == "__main__":
    main()
''',
    "data.py": '''from runtime import cached


class Rows:
    """Rows."""

    size = 3

    def __init__(self):
        self.first = 0

    @cached
    def read(self):
        return self.first + self._shift()

    def _shift(self):
        return 1

    def unreached(self):
        return helper()


def helper():
    return 2


class Others:
    def read(self):
        return helper()
''',
    "runtime.py": """LIMITS = {"all": lambda: limit}


def setup(reader):
    limit = LIMITS["all"]()

    def inner():
        return reader() + limit

    unused = inner
    return unused


def limit():
    return 1


def cached(function):
    return function


def unused(setup):
    return setup.read
""",
    "kernels/__init__.py": "from .op import loss\n",
    "kernels/op.py": """from . import fast, slow


def backend(quick):
    return fast if quick else None


def loss(logits):
    return backend(True).rows(logits)


def other():
    return slow.rows(None)
""",
    "kernels/fast.py": "def rows(logits):\n    return logits\n",
    "kernels/slow.py": "def rows(logits):\n    return logits\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_blanks_comments_and_docstrings_are_no_code():
    text = FILES["train_stage2.py"]
    assert count(text)[:2] == (19, 11)
    assert count('def f():\n    """Doc."""\n    return "a" + """b\n\nc"""  # why\n') == (5, 4, 9)
    assert count(text.replace("  # a comment after code", ""))[2] == count(text)[2]
    assert count(text.replace("return puma", "x = 1; return puma"))[2] == count(text)[2] + 4


def test_reach_is_what_a_script_can_call(project: Path):
    assert Project(project).reach("train_stage2") == {
        ("train_stage2", "main"): 7,
        ("data", "Rows"): 8,  # its 17 lines less those of all its methods
        ("data", "Rows.__init__"): 2,
        ("data", "Rows.read"): 3,  # by its name, uncalled; with its decorator
        ("data", "Rows._shift"): 2,
        ("runtime", "setup"): 8,  # inner is a part of it, and its own `unused` is not the module's
        ("runtime", "limit"): 2,  # through LIMITS
        ("runtime", "cached"): 2,
        ("kernels.op", "loss"): 2,
        ("kernels.op", "backend"): 2,
        ("kernels.fast", "rows"): 2,  # of a module that was a value
    }


def test_names_are_those_of_other_modules_that_the_script_uses(project: Path):
    assert Project(project).names("train_stage2") == {("data", "Rows"), ("runtime", "setup"), ("kernels.op", "loss")}


def test_the_command_prints_both_tables_and_leaves_out_what_is_not_there(project: Path, tmp_path_factory):
    command = [sys.executable, "-m", "bench", "lines", "--root"]
    printed = subprocess.run([*command, project], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = {fields[0]: fields[1:] for fields in map(str.split, printed.splitlines()) if fields}
    assert rows["train_stage2.py"] == ["11", "40", "3"]
    core = [count(FILES[name]) for name in ("train_stage2.py", "data.py", "runtime.py", "kernels/__init__.py")]
    assert rows["total"] == [str(sum(column)) for column in zip(*core, strict=True)]
    assert "model.py" not in rows
    wrong = subprocess.run([*command, tmp_path_factory.mktemp("empty")], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1 and "has no file of the core" in wrong.stderr
