"""Table 3 in miniature: the loop's plan and how it resumes, the split of the problems, the statistics, the report."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data import MicroBatch
from errors import UserError
from evaluation.store import read_lines, write_rows
from experiments import table3_data, table3_report
from experiments.table3_report import Scores, mean_and_deviation, paired_bootstrap, read_scores, scores_from_weights

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("text_only", "text_dominant", "text_lite", "vision_intensive", "vision_dominant", "vision_only")


def table3(*flags, **variables) -> subprocess.CompletedProcess:
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = own | {"PYTHON": sys.executable} | {name: str(value) for name, value in variables.items()}
    return subprocess.run(["bash", "experiments/table3.sh", *flags], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


def plan(*flags, **variables) -> tuple[dict[str, str], list[str]]:
    """{folder: command} of the trainings below OUT, and the folders that are evaluated."""
    found = [(re.search(r"--out_dir \S+/tiny/(\S+)", line), line)
             for line in table3(*flags, DRY_RUN=1, **variables).stdout.splitlines()]
    trained = {folder[1]: line for folder, line in found if "--global_batch" in line}
    return trained, [folder[1].removesuffix("/eval") for folder, line in found if "--blind" in line]


def test_five_orders_in_two_budgets_share_what_they_begin_with():
    trained, evaluated = plan(SEEDS="0 2")
    assert len(trained) == 2 * 11 and len(evaluated) == len(set(evaluated)) == 2 * 8
    for name, command in trained.items():
        before, stage = str(Path(name).parent), Path(name).name[0]
        start = re.search(r"--model=(\S*)", command)[1]
        assert start.endswith(f"/tiny/{before}") if "/" in before else start == ""
        assert f"--seed {name[4]} " in command
        # stage 1 reads captions too, which its own script would leave out
        assert command.startswith("train_stage2.py" if stage == "2" else "train_stage3.py")
    tokens = {"1": 101, "2": 238, "3": 141}  # of a row, as tokens.json of the published data has them
    orders = []
    for name in evaluated[:8]:
        stages = [re.fullmatch(r"(\d)-(\d+)x(\d+)", part).groups() for part in name.split("/")[1:]]
        orders.append("".join(stage for stage, _, _ in stages))
        if not {"1-150x24", "2-100x12", "3-100x16"}.issuperset(name.split("/")[1:]):  # of equal budget
            assert sum(int(steps) for _, steps, _ in stages) == 350
            amount = sum(int(steps) * int(rows) * tokens[stage] for stage, steps, rows in stages)
            assert amount == pytest.approx(150 * 24 * 101 + 100 * 12 * 238 + 100 * 16 * 141, rel=0.05), name
    assert sorted(orders) == sorted(["123", "132", *2 * ["12", "13", "23"]])


@pytest.mark.parametrize(("flags", "variables", "changed", "expected"), [
    (["--lam", "0.5"], {}, "2-100x12-lam=0.5", "--lam 0.5"),
    (["--train", "vision,projector"], {}, "2-100x12-train=vision,projector", "--train vision,projector --preset"),
    ([], {"TEACHER": "text-only"}, "2-100x12-teacher=text-only", "pairs-1000-text-only.jsonl"),
    ([], {"LOSS": "released_loss"}, "2-100x12-loss=released_loss", "released_loss.py --train"),
    ([], {"PROBLEMS": "300"}, "2-100x12-problems=300", "pairs-300.jsonl"),
])
def test_a_sweep_changes_one_thing_and_keeps_what_comes_before_it(tmp_path, flags, variables, changed, expected):
    trained, evaluated = plan(*flags, SEEDS="0", OUT=tmp_path / "tiny", **variables)
    assert next(iter(trained)) == "seed0/1-150x24"
    assert expected in trained[f"seed0/1-150x24/{changed}"]
    ends = [f"{changed}/3-100x16"]
    if "PROBLEMS" in variables:
        ends = [f"{changed}/3-100x16-problems=300", "3-200x18-problems=300"]
    assert evaluated == [f"seed0/1-150x24/{end}" for end in ends]


def test_it_goes_on_where_it_stopped_and_never_mixes_two_settings(tmp_path):
    """With a stand-in for Python that only leaves each command's last file, or a checkpoint where `stop` is."""
    stub, ran, stop, out = (tmp_path / name for name in ("python", "ran", "stop", "out"))
    stub.write_text(f"""#!/usr/bin/env bash
echo "$*" >> {ran}
folder=$(sed -E 's/.*--out_dir ([^ ]*).*/\\1/' <<< "$*")
case $1 in
gen_data.py) touch "$folder/manifest.json" ;; eval.py) touch "$folder/report.json" ;; -m) touch "$3/singles-$4.jsonl" ;;
*) mkdir -p "$folder/step_9"; [[ -e {stop} && $folder == *2-200x11 ]] || touch "$folder/config.json" ;;
esac
""")
    stub.chmod(0o755)
    settings = {"PYTHON": stub, "OUT": out, "SEEDS": "0"}
    stop.touch()
    stopped = table3(**settings)
    assert stopped.returncode == 1 and "stopped before" in stopped.stderr
    assert [path.parent.name for path in out.glob("seed0/**/step_*")] == ["2-200x11"]  # what it can resume from
    stop.unlink()
    assert table3(**settings).returncode == 0
    commands = ran.read_text().splitlines()
    assert len(commands) == 2 + 11 + 8 + 1 + 1  # data, trainings, evaluations, the report, and what was stopped
    assert len(set(commands)) == len(commands) - 1 and not list(out.glob("seed0/**/step_*"))
    assert table3(**settings).returncode == 0
    assert ran.read_text().splitlines()[len(commands) :] == commands[-1:]  # the report alone
    refused = table3(**settings, FLAGS="--weight_decay 0")
    assert refused.returncode == 1 and refused.stderr.startswith("error: ") and "another command" in refused.stderr


def test_multimodal_problems_are_a_fixed_set_apart_from_the_text(tmp_path):
    names = [f"p-{number}" for number in range(40)]
    singles = [f"{name}/{level}" for name in names for level in ("text-dominant", "vision-only")]
    for file, ids in (("stage1", names), ("stage2", names), ("captions", names), ("stage3", singles)):
        write_rows(tmp_path / f"{file}.jsonl", [{"id": i, "instruction": f"{file} {i}", "image_url": "x"} for i in ids])
    table3_data.split(tmp_path, 10)
    table3_data.split(tmp_path, 15)

    def problems(name):
        return {row["id"].split("/")[0] for row in read_lines(tmp_path / f"{name}.jsonl")}

    text, ten, fifteen = problems("text"), problems("pairs-10"), problems("pairs-15")
    assert (len(text), len(ten), len(fifteen)) == (20, 10, 15) and ten < fifteen and not text & fifteen
    assert problems("text-captions") == text and problems("singles-10") == problems("pairs-10-text-only") == ten
    for row in read_lines(tmp_path / "pairs-10-text-only.jsonl"):
        assert row["image_url"] == "" and row["instruction"] == f"stage1 {row['id']}"
    with pytest.raises(UserError, match="PER_CATEGORY"):
        table3_data.split(tmp_path, 21)


def scores(text_dominant, vision_only, problems=100, seed=0):
    """Verdicts with these chances of being right."""
    draws, middle = np.random.default_rng(seed), (text_dominant + vision_only) / 2
    chances = dict.fromkeys(VERSIONS, middle) | {"text_only": text_dominant, "text_dominant": text_dominant,
                                                 "vision_only": vision_only}
    right = {version: (draws.random(problems) < chance).astype(float) for version, chance in chances.items()}
    return Scores({}, {}, right)


def test_gap_skewness_variation_and_deviation_by_hand():
    counts = dict(zip(VERSIONS[1:], (358, 322, 313, 304, 185), strict=True))
    right = {version: np.array([1.0] * count + [0.0] * (1000 - count)) for version, count in counts.items()}
    found = scores_from_weights(right, np.ones((1, 1000)))
    assert found["gap"][0] == pytest.approx(93.5, abs=0.05)  # Table 3, 1→2→3, Qwen2-1.5B
    five = np.array([35.8, 32.2, 31.3, 30.4, 18.5])
    assert found["all"][0] == pytest.approx(five.mean())
    assert found["coefficient_of_variation"][0] == pytest.approx(five.std() / five.mean())
    assert found["absolute_skewness"][0] == pytest.approx(abs(((five - five.mean()) ** 3).mean()) / five.std() ** 3)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_deviation([5.0]) == (5.0, 0.0)
    assert mean_and_deviation([1.0, None]) is None and mean_and_deviation([1.0, np.inf]) is None


def test_bootstrap_sees_a_real_difference_and_none_where_there_is_none():
    better = [scores(0.9, 0.7, seed=seed) for seed in range(3)]
    worse = [scores(0.9, 0.4, seed=10 + seed) for seed in range(3)]
    found = paired_bootstrap(worse, better, "vision_only", samples=500)
    assert found.value < -15 and found.low < found.value < found.high < 0 and found.p < 0.01
    gap = paired_bootstrap(worse, better, "gap", samples=500)
    assert gap.value > 20 and gap.low > 0
    same = paired_bootstrap(better, better, "vision_only", samples=500)
    assert same.value == 0 and same.p == 1.0
    assert paired_bootstrap([scores(0.5, 0.0)], [scores(0.5, 0.5)], "gap", samples=200) is None  # a gap over 0
    with pytest.raises(UserError, match="same problems"):
        paired_bootstrap([scores(0.5, 0.5, problems=90)], [scores(0.5, 0.5)], "all", samples=10)


def test_bootstrap_is_paired():
    # the same verdicts but for ten problems that got better: unpaired noise would drown them
    ours = scores(0.5, 0.5, problems=200, seed=1)
    right = {version: verdicts.copy() for version, verdicts in ours.right.items()}
    right["vision_only"][np.flatnonzero(right["vision_only"] == 0)[:10]] = 1
    found = paired_bootstrap([Scores({}, {}, right)], [ours], "vision_only", samples=1000)
    assert found.value == pytest.approx(5.0) and found.low > 0 and found.p < 0.01


def test_drawings_of_one_problem_are_one_problem_to_the_bootstrap(tmp_path):
    questions = [{"id": f"{n}/{version}", "problem_id": str(n), "version": version, "instruction": "Find x.",
                  "answer": "1", "key": "same" if n < 2 else "other"}
                 for n in range(3) for version in ("text-only", "vision-only")]
    write_rows(tmp_path / "bench.jsonl", questions)
    right_ones = ("0/vision-only", "2/vision-only")
    write_rows(tmp_path / "verdicts.jsonl", [{"id": q["id"], "correct": q["id"] in right_ones} for q in questions])
    (tmp_path / "report.json").write_text(json.dumps({"metrics": {"vision_only": 66.7}, "blind": None}))
    right = read_scores(tmp_path, "generated", str(tmp_path / "bench.jsonl")).right
    assert right["vision_only"].tolist() == [0.5, 1.0] and right["text_only"].tolist() == [0.0, 0.0]
    assert np.isnan(right["text_lite"]).all()


def test_report_of_finished_runs(tmp_path, monkeypatch, capsys):
    """Two seeds of three runs and one of a sweep's: right is all but vision-only, whose share is known."""
    questions = [{"id": f"{n}/{version}", "problem_id": str(n), "version": version.replace("_", "-"), "key": str(n),
                  "instruction": "Find x.", "answer": "1"} for n in range(10) for version in VERSIONS]
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data/bench.jsonl", questions)
    (tmp_path / "data/tokens.json").write_text('{"1": 1, "2": 2, "3": 1}')
    runs = {"1-2x3/2-2x3/3-2x3": (4, 6), "1-2x3/3-4x6": (6, 8), "1-2x3/3-2x3": (2, 4)}
    for run, counts in (runs | {"1-2x3/2-2x3-lam=0.5/3-2x3": (5,)}).items():
        for seed, right in enumerate(counts):
            folder = tmp_path / f"seed{seed}" / run / "eval"
            folder.mkdir(parents=True)
            metrics = {"all": 80 + 2 * right, "text_dominant": 100, "vision_only": 10 * right,
                       "gap": 1000 / right - 100}
            (folder / "report.json").write_text(json.dumps({"metrics": metrics, "blind": {"all": 12.5}}))
            (folder / "report.json.made_by").write_text("eval.py\n")
            write_rows(folder / "verdicts.jsonl", [
                {"id": q["id"], "correct": q["version"] != "vision-only" or int(q["problem_id"]) < right}
                for q in questions])
            for path in table3_report.prefixes(table3_report.parse_run(run)):
                steps, rows = map(int, path.split("/")[-1].split("-")[1].split("x"))
                step = {"rows": rows, "tokens": 5e5, "step_seconds": 30, "forward_backward_seconds": rows / 1000}
                write_rows(tmp_path / f"seed{seed}" / path / "log.jsonl", [step] * steps)
                (tmp_path / f"seed{seed}" / path / "config.json.made_by").write_text(f"train {path}\n")
    monkeypatch.setattr(sys, "argv", ["table3_report", str(tmp_path), "--samples", "200"])
    table3_report.main()
    text = (tmp_path / "table3.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| 1→")]
    assert rows[0][:9] == ["1→2→3", "both", "6", "3.00", "3.0", "90.0 ± 2.8", "100.0 ± 0.0", "50.0 ± 14.1",
                           "108.3 ± 58.9"]
    assert [row[:3] for row in rows[1:3]] == [["1→3", "equal", "6"], ["1→3", "paper", "4"]]
    assert "*Effectiveness of stage 2 (PUMA)*" in text and "| 1→3, equal | +4.0 (" in text and "+20.0 (" in text
    assert "{'1': 1.0, '2': 1.0, '3': 1.0}" in text  # milliseconds a row
    assert "warning: 1→3, equal: 1.25 times the computation of 1→2→3" in capsys.readouterr().out
    assert (tmp_path / "figure4.png").read_bytes()[:4] == b"\x89PNG"
    sweep = json.loads((tmp_path / "sweep-lam.json").read_text())
    assert sweep["seeds"] == [0] and list(sweep["scores"]) == ["1→2→3, lam as usual", "1→2→3, lam = 0.5"]
    for seed in (0, 1):  # the same order with other steps
        shutil.copytree(tmp_path / f"seed{seed}/1-2x3/3-4x6", tmp_path / f"seed{seed}/1-2x3/3-5x6")
    with pytest.raises(UserError, match="have one name"):
        table3_report.main()
    for report in tmp_path.glob("seed?/1-2x3/2-2x3/3-2x3/eval/report.json"):
        report.unlink()
    with pytest.raises(UserError, match="no finished run of 1→2→3"):
        table3_report.main()


def test_released_loss_is_of_standardised_logits_one_position_late(tmp_path):
    script = tmp_path / "released.py"
    patch = ROOT / "forks/released_loss.patch"
    subprocess.run(["patch", "-s", "-o", script, ROOT / "train_stage2.py", patch], check=True)
    fork = runpy.run_path(str(script))
    generator = torch.Generator().manual_seed(1)
    states = {side: torch.randn(12, 5, generator=generator) for side in ("weak", "strong")}
    lm_head = torch.randn(7, 5, generator=generator)
    labels, tau = torch.tensor([2, 4, 6]), 2.0
    weak, strong = (MicroBatch(None, None, None, 12, {}, False, torch.tensor(positions), labels, [side])
                    for side, positions in (("weak", [7, 8, 9]), ("strong", [3, 4, 5])))
    model = SimpleNamespace(lm_head=SimpleNamespace(weight=lm_head),
                            response_hidden_states=lambda batch: states[batch.row_ids[0]][batch.response_positions])
    found = fork["puma"](model, weak, strong, num_tokens=3, config=fork["Config"](alpha=0.2, lam=0.1, tau=tau))
    late = states["weak"][[8, 9, 10]] @ lm_head.T, states["strong"][[4, 5, 6]] @ lm_head.T
    q, p = (torch.softmax((z - z.mean(1, True)) / z.std(1, keepdim=True) / tau, 1) for z in late)
    fkl, rkl = (q * (q / p).log()).sum() * tau**2, (p * (p / q).log()).sum() * tau**2  # sums over the row's tokens
    ce = torch.nn.functional.cross_entropy(states["weak"][[7, 8, 9]] @ lm_head.T, labels)
    expected = 0.1 * (0.2 * fkl + 0.8 * rkl) * tau**2 + 0.9 * ce
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_all_of_it_at_two_steps(tmp_path):
    finished = table3(OUT=tmp_path / "tiny", SEEDS="0", PER_CATEGORY="750", FLAGS="--max_steps 2 --global_batch 2",
                      ASK="--limit 12 --max_new_tokens 2", OMP_NUM_THREADS="1")
    assert finished.returncode == 0, finished.stderr[-2000:]
    table = json.loads((tmp_path / "tiny/table3.json").read_text())
    assert len(table["scores"]) == 8 and (tmp_path / "tiny/figure4.png").exists()
