"""python -m bench loader at its smallest: rates of true-size steps for every preset, beside the plan's."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_table_holds_every_preset_and_what_a_gpu_takes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "loader", "--pairs", "32", "--workers", "1", "--out_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "loader.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {row["preset"] for row in rows} == {
        "puma-qwen2-1.5b", "puma-qwen2-7b", "puma-deepseek-math-7b"
    }
    for row in rows:
        assert 1 < float(row["pictures_a_pair"]) <= 2
        one, needed = float(row["pairs/s_of_one_process"]), float(row["pairs/s_of_a_GPU"])
        assert float(row["processes_a_GPU_needs"]) == pytest.approx(needed / one, rel=0.1)
        # 3 bytes a pixel: 384 x 384, and 1024 x 1024 more for the hybrid
        image = 3 * 384**2 + (3 * 1024**2 if "deepseek" in row["preset"] else 0)
        size = 1000 * float(row["kB_a_pair"].replace(",", ""))
        assert size == pytest.approx(float(row["pictures_a_pair"]) * image, rel=0.1)
    text = (tmp_path / "loader.md").read_text()
    assert text in done.stdout and "ASSUMED" in text


def test_too_few_pairs_are_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "loader", "--pairs", "5", "--out_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "--pairs 5" in done.stderr and "Traceback" not in done.stderr
