"""The recipe of the paper on folders laid out as the public sets are, and the three stages trained on its files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.augment.test_augment_data import ROOT, SETS, make

# set: (file, picture folder, stage, rows it gives)
PUBLIC = {
    "Geo170K": ("Geo170K/qa_tuning.json", "Geo170K/images", 2, 3),
    "Geo170K alignment": ("Geo170K/alignment.json", "Geo170K/images", 3, 1),
    "MathV360K": ("MathV360K/train_samples_all_tuning.json", "MathV360K/data_images", 3, 4),
    "VisualWebInstruct": ("VisualWebInstruct/visualwebinstruct_conversation.jsonl", "", 2, 4),
    "MetaMathQA": ("MetaMathQA/MetaMathQA-395K.json", "", 1, 2),
    "MathInstruct": ("MathInstruct/MathInstruct.json", "", 1, 2),
    "NuminaMath-CoT": ("NuminaMath-CoT/data/train-00000-of-00001.jsonl", "", 1, 2),
    "Orca-Math": ("orca-math-word-problems-200k/data/train-00000-of-00001.jsonl", "", 1, 1),
    "DART-Math": ("dart-math-hard/data/train-00000-of-00001.jsonl", "", 1, 1),
}


@pytest.mark.parametrize("name", list(PUBLIC))
def test_every_public_set_is_read(tmp_path, name):
    file, pictures, stage, expected = PUBLIC[name]
    root = SETS / pictures if pictures else ""
    rows, counts = make(tmp_path, stage=stage, data=SETS / file, image_root=root)
    assert len(rows) == expected, counts
    for row in rows:
        assert row["output"].strip() and row["instruction"].strip() and "<image>" not in row["instruction"]
        for key in ("image_url", "image_url_2"):
            assert not row.get(key) or (tmp_path / row[key]).is_file()


def test_the_mixes_name_what_prepare_data_makes():
    made = set(re.findall(r"^augment (\w+) (\d)", (ROOT / "runs" / "prepare_data.sh").read_text(), re.MULTILINE))
    made = {(name, f"stage{stage}") for name, stage in made} | {("engine", "stage2")}
    text = (ROOT / "runs" / "mixes.sh").read_text()
    used = set(re.findall(r"\$OUT/(\w+)/(stage\d)\.jsonl", text))
    assert used == made
    counts = {stage: 0 for stage in "123"}
    for line in text.splitlines():
        stage = re.match(r"STAGE(\d)_DATA", line)
        if stage:
            counts[stage[1]] += sum(map(int, re.findall(r":(\d+)k", line)))
    assert counts == {"1": 200, "2": 692, "3": 996}, "the paper's sizes, in thousands"


def test_a_missing_set_is_named_before_anything_is_made(tmp_path):
    script = subprocess.run(["bash", "runs/prepare_data.sh", str(tmp_path), str(tmp_path / "out")], cwd=ROOT, text=True,
                            capture_output=True)
    assert script.returncode == 1 and "MathInstruct/MathInstruct.json is missing" in script.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_recipe_runs_and_every_stage_trains_on_it(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PER_CATEGORY": "6", "BENCH": "0", "WORKERS": "1", "CUDA_VISIBLE_DEVICES": "",
           "OMP_NUM_THREADS": "1"}
    prepared = tmp_path / "data"
    script = subprocess.run(["bash", "runs/prepare_data.sh", str(SETS), str(prepared)], cwd=ROOT, env=env, text=True,
                            capture_output=True)
    assert script.returncode == 0, script.stderr[-2000:]
    for stage in (1, 2, 3):
        data = re.search(rf"^stage {stage}: --data (\S+)$", script.stdout, re.MULTILINE)[1]
        out = tmp_path / f"stage{stage}"
        flags = ["--preset", "tiny", "--model", "", "--random_weights", "--data", data, "--max_steps", "1",
                 "--global_batch", "4", "--max_length", "768", "--pack_tokens", "4096", "--num_workers", "0",
                 "--out_dir", str(out)]
        trained = subprocess.run([sys.executable, f"train_stage{stage}.py", *flags], cwd=ROOT, env=env, text=True,
                                 capture_output=True)
        assert trained.returncode == 0, trained.stderr[-2000:]
        assert json.loads((out / "config.json").read_text()), "a folder that opens in transformers"
