"""macOS and Windows, as far as their differences can be played on Linux."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import data
from common.files import num_cores

ROOT = Path(__file__).resolve().parents[1]


def test_cores_are_counted_where_the_system_does_not_tell_which_are_ours(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert num_cores() == 10


@pytest.mark.parametrize("most, asked", [(resource.RLIM_INFINITY, 10240), (4096, 4096)])
def test_loader_processes_may_open_what_the_system_allows(monkeypatch, most, asked):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, most))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    data.allow_open_files()
    assert limits == [(asked, most)]


@pytest.mark.parametrize("program", ["gen_data.py", "train_stage2.py", "eval.py"])
def test_windows_is_told_of_wsl(program):
    code = (f"import runpy, sys; sys.modules['fcntl'] = sys.modules['resource'] = None; "
            f"runpy.run_path({program!r}, run_name='__main__')")
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == "error: nanoPUMA runs on Linux and macOS; on Windows, run it inside WSL"
