"""bench/lines.py on a project small enough to count by hand."""

import sys
from pathlib import Path

import pytest

from bench import lines
from bench.lines import Project, count

# of each file "==> name", then its text
_, *PARTS = (Path(__file__).parent / "small_project.txt").read_text().split("==> ")
FILES = {name: text for name, _, text in (part.partition("\n") for part in PARTS)}


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


def test_both_tables_leave_out_what_is_not_there(project: Path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench/lines.py", "--root", str(project)])
    lines.main()
    rows = {fields[0]: fields[1:] for fields in map(str.split, capsys.readouterr().out.splitlines()) if fields}
    assert rows["train_stage2.py"] == ["11", "40", "3"]
    core = [count(FILES[name]) for name in ("train_stage2.py", "data.py", "runtime.py", "kernels/__init__.py")]
    assert rows["total"] == [str(sum(column)) for column in zip(*core, strict=True)]
    assert "model.py" not in rows
