"""experiments/table3.py: the plan of runs and their budgets, the queue that resumes, the statistics and the table."""

import json
import math
import os
import re
import signal
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from errors import UserError
from model import load_model
from experiments import table3, table3_stage
from experiments.table3_plan import (ORDERS, PAPER, TINY, Step, Task, chain_names, chain_tasks, evaluation, is_finished,
                                     one_epoch, recipe_of, run_tasks, scaled, schedule, total_tokens, usual_value,
                                     varied, with_start)
from experiments.table3_report import (Row, Scores, difference_table, draw_chart, main_table, mean_and_deviation,
                                       paired_bootstrap, read_scores, scores_from_weights)

TOKENS = {"base": 60.0, "1": 60.0, "align": 170.0, "2": 260.0, "3": 150.0}
FULL = replace(  # a recipe that trains its start too
    TINY,
    start="",
    skipped=(),
    steps={"base": 200, "1": 300, "align": 100, "2": 60, "3": 60},
    batch={"base": 64, "1": 64, "align": 32, "2": 32, "3": 32},
    learning_rate=dict.fromkeys(("base", "1", "align", "2", "3"), 1e-3),
)

# ----------------------------------------------------------------------------------------------------------------------
# Orders and budgets


@pytest.mark.parametrize("order", ORDERS)
def test_equal_budget_gives_every_order_the_steps_and_tokens_of_the_whole(order):
    whole = schedule("123", "equal", TINY, TOKENS)
    steps = schedule(order, "equal", TINY, TOKENS)
    assert [step.stage for step in steps] == list(order)
    assert sum(step.steps for step in steps) == sum(step.steps for step in whole)
    assert total_tokens(steps, TOKENS) == pytest.approx(total_tokens(whole, TOKENS), rel=0.05)


def test_equal_budget_leaves_stage_1_alone_so_that_orders_share_it():
    first = {order: schedule(order, "equal", TINY, TOKENS)[0] for order in ("123", "13", "12", "132")}
    assert set(first.values()) == {Step("1", TINY.steps["1"], TINY.batch["1"])}


def test_paper_budget_only_leaves_the_stage_out():
    assert schedule("13", "paper", TINY, TOKENS) == [
        Step(stage, TINY.steps[stage], TINY.batch[stage]) for stage in "13"
    ]


def test_unknown_budget_is_named():
    with pytest.raises(UserError, match="fair"):
        schedule("13", "fair", TINY, TOKENS)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_and_seed_starts_from_the_same_folder(order):
    chain = with_start(schedule(order, "paper", FULL, TOKENS), FULL)
    assert [step.stage for step in chain] == ["base", "align", *order]
    start = [name for name in chain_names(chain, 7) if name.startswith("start/")]
    assert start == chain_names(with_start(schedule("123", "equal", FULL, TOKENS), FULL), 0)[:2]


def test_tiny_starts_from_the_aligned_folder_of_the_demo(tmp_path):
    tasks = chain_tasks(with_start(schedule("23", "paper", TINY, TOKENS), TINY), 0, TINY, files, tmp_path)
    assert tasks[0].parent == "" and tasks[0].command[tasks[0].command.index("--model") + 1] == "out/demo/aligned"


def test_paper_presets_take_one_epoch_at_the_papers_settings():
    recipe = one_epoch(recipe_of("tiny", "puma-qwen2-7b"), {"1": 1000, "align": 10, "2": 513, "3": 256})
    assert recipe.preset == "puma-qwen2-7b" and recipe.batch == PAPER.batch
    assert recipe.steps == {"1": 4, "align": 1, "2": 2, "3": 1}
    assert recipe.learning_rate == {"1": 3e-5, "align": 1e-3, "2": 5e-5, "3": 3e-5}
    hybrid = recipe_of("tiny", "puma-deepseek-math-7b")  # brings its projector
    assert [step.stage for step in with_start(schedule("123", "paper", hybrid, TOKENS), hybrid)] == ["1", "2", "3"]


def test_scale_multiplies_steps_and_never_reaches_none():
    assert scaled(TINY, 2).steps["3"] == 2 * TINY.steps["3"]
    assert min(scaled(TINY, 1e-6).steps.values()) == 1
    assert scaled(PAPER, 2).steps["2"] == 0  # still one epoch


def test_unknown_size_is_named():
    with pytest.raises(UserError, match="huge"):
        recipe_of("huge", "")


# ----------------------------------------------------------------------------------------------------------------------
# Tasks


def files(step):
    return f"{step.stage}-{step.variant}.jsonl"


def plan(tmp_path, orders, seeds=(0,), budget="paper"):
    lines = [table3.Line("", order, budget, schedule(order, budget, FULL, TOKENS)) for order in orders]
    return table3.all_tasks(lines, list(seeds), FULL, files, ("--bench", "generated", "--data", "b"), tmp_path)


def stages_trained(tasks):
    return [name.split(".")[-1].split("/")[-1].split("-")[0] for name in tasks if not name.startswith("eval/")]


def test_shared_runs_are_trained_once(tmp_path):
    tasks = plan(tmp_path, ["123", "12", "13", "132"])
    # the start; 1; 2 and 2→3; 3 and 3→2
    assert sorted(stages_trained(tasks)) == sorted(["base", "align", "1", "2", "3", "3", "2"])
    assert sum(name.startswith("eval/") for name in tasks) == 4


def test_seeds_share_the_start_alone(tmp_path):
    one, three = plan(tmp_path, ["123"]), plan(tmp_path, ["123"], seeds=(0, 1, 2))
    assert len(three) == 3 * (len(one) - 2) + 2
    seeds = {task.command[task.command.index("--seed") + 1] for name, task in three.items() if "seed2" in name
             and not name.startswith("eval/")}
    assert seeds == {"2"}


def test_each_run_starts_from_the_folder_of_the_one_before(tmp_path):
    chain = with_start(schedule("123", "paper", FULL, TOKENS), FULL)
    tasks = chain_tasks(chain, 0, FULL, files, tmp_path)
    # the base, the alignment, then stage 1 through stage 3's script, as captions stand among its text
    assert [task.command[1] for task in tasks] == [f"train_stage{number}.py" for number in "13323"]
    for before, task in zip(tasks, tasks[1:], strict=False):
        assert task.parent == before.name
        assert task.command[task.command.index("--model") + 1] == str(tmp_path / before.name)
    assert tasks[0].command[tasks[0].command.index("--model") + 1] == ""
    last = evaluation(tasks[-1].name, TINY, ("--bench", "generated"), tmp_path)
    assert "--blind" in last.command and last.parent == tasks[-1].name


def test_sweeps_change_stage_2_and_nothing_before_it(tmp_path):
    plain = schedule("123", "equal", TINY, TOKENS)
    half = varied(plain, "lam", "0.5", usual_value(TINY, "lam"))
    assert half[0] == plain[0] and half[2] == plain[2] and half[1].extra == ("--lam", "0.5")
    assert varied(plain, "lam", "0.1", "0.1") == plain  # the default is the run that is there already
    assert chain_names(half, 0)[:1] == chain_names(plain, 0)[:1] and chain_names(half, 0)[1] != chain_names(plain, 0)[1]
    frozen = chain_tasks(varied(plain, "train", "projector", "x"), 0, TINY, files, tmp_path)[1]
    assert frozen.command[-2:] == ("--train", "projector") and frozen.command.count("--train") == 1
    released = chain_tasks(varied(plain, "loss", "released", "paper"), 0, TINY, files, tmp_path)[1]
    assert released.command[1:3] == ("experiments/table3_stage.py", "released")
    fewer = varied(plain, "problems", TINY.problem_counts[0], "1000")
    assert [step.variant for step in fewer] == ["", "problems=100", "problems=100"]


def test_two_runs_of_one_name_are_refused(tmp_path):
    lines = [
        table3.Line("", "123", "", [Step("2", 5, 5, label="x", extra=("--lam", value))]) for value in ("0.5", "0.9")
    ]
    with pytest.raises(UserError, match="two different runs"):
        table3.all_tasks(lines, [0], TINY, files, (), tmp_path)


# ----------------------------------------------------------------------------------------------------------------------
# The queue


def counting(name, tmp_path, parent="", code="0"):
    """A task that leaves a mark each time it runs; code: an expression for its exit code."""
    script = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + '\\n'); import sys; sys.exit({code})"
    return Task(name, (sys.executable, "-c", script), parent)


def ran(tmp_path):
    return (tmp_path / "ran").read_text().split()


def test_forked_scripts_run_in_their_own_process_and_report_their_failure(tmp_path):
    (tmp_path / "good.py").write_text("import sys, os; print('said', sys.argv[1], os.environ['EXTRA'])")
    (tmp_path / "bad.py").write_text("raise ValueError('it broke')")
    tasks = {"a": Task("a", (sys.executable, str(tmp_path / "good.py"), "word"))}
    assert run_tasks(tasks, tmp_path, 1, {"EXTRA": "more"}, fork=True) == 1
    assert (tmp_path / "a" / "output.txt").read_text() == "said word more\n"
    tasks["b"] = Task("b", (sys.executable, str(tmp_path / "bad.py")), "a")
    with pytest.raises(UserError, match="b ended with 1: ValueError: it broke"):
        run_tasks(tasks, tmp_path, 1, {}, fork=True)


def test_a_finished_run_is_not_run_twice(tmp_path):
    tasks = {"b": counting("b", tmp_path, "a"), "a": counting("a", tmp_path), "c": counting("c", tmp_path)}
    assert run_tasks(tasks, tmp_path, jobs=2) == 3
    assert sorted(ran(tmp_path)) == ["a", "b", "c"] and ran(tmp_path).index("a") < ran(tmp_path).index("b")
    assert run_tasks(tasks, tmp_path, jobs=2) == 0
    assert len(ran(tmp_path)) == 3
    record = json.loads((tmp_path / "a" / "task.json").read_text())
    assert record["finished"] and record["seconds"] >= 0 and record["cpu_seconds"] >= 0


def test_a_failed_run_ends_the_queue_and_is_run_again(tmp_path):
    code = f"1 if __import__('os').path.exists({str(tmp_path / 'broken')!r}) else 0"
    tasks = {"a": counting("a", tmp_path, code=code), "b": counting("b", tmp_path, "a")}
    (tmp_path / "broken").touch()
    with pytest.raises(UserError, match="a ended with 1"):
        run_tasks(tasks, tmp_path, jobs=1)
    assert ran(tmp_path) == ["a"] and not is_finished(tasks["a"], tasks, tmp_path)
    (tmp_path / "broken").unlink()
    assert run_tasks(tasks, tmp_path, jobs=1) == 2
    assert ran(tmp_path) == ["a", "a", "b"]


@pytest.mark.parametrize("fork", [False, True])
def test_a_queue_that_is_ended_ends_what_it_runs(tmp_path, fork):
    script = tmp_path / "sleeper.py"
    script.write_text(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    queue = os.fork()
    if queue == 0:
        try:
            run_tasks({"a": Task("a", (sys.executable, str(script)))}, tmp_path, jobs=1, fork=fork)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(queue, signal.SIGTERM)
    os.waitpid(queue, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_folder_of_other_settings_is_refused_also_where_only_the_parent_changed(tmp_path):
    tasks = {"a": counting("a", tmp_path), "b": counting("b", tmp_path, "a")}
    run_tasks(tasks, tmp_path, jobs=1)
    changed = {"a": Task("a", (*tasks["a"].command, "more")), "b": tasks["b"]}
    for name in "ab":
        with pytest.raises(UserError, match="other settings"):
            is_finished(changed[name], changed, tmp_path)


def test_checkpoints_of_a_finished_run_are_removed_and_its_model_stays(tmp_path):
    script = f"import os; os.makedirs({str(tmp_path / 'a' / 'step_4')!r}); open({str(tmp_path / 'a' / 'm')!r}, 'w')"
    run_tasks({"a": Task("a", (sys.executable, "-c", script))}, tmp_path, jobs=1)
    assert not (tmp_path / "a" / "step_4").exists() and (tmp_path / "a" / "m").exists()


# ----------------------------------------------------------------------------------------------------------------------
# Data


def test_multimodal_problems_are_a_fixed_set_apart_from_the_text(tmp_path):
    names = [f"p-{number}" for number in range(40)]
    singles = [f"{name}/{level}" for name in names for level in ("text-dominant", "vision-only")]
    for file, ids in (("stage1", names), ("stage2", names), ("captions", names), ("stage3", singles)):
        rows = [
            {"id": i, "instruction": f"text of {i}", "image_url": "x", "level": i.partition("/")[2] or "text-only"}
            for i in ids
        ]
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = replace(TINY, problems=10, captions=8, text_share=0.5, align_text=0.5)
    spec = table3.data_files(tmp_path, recipe)

    def ids_of(path):
        return [row["id"].split("/")[0] for row in table3.read_rows(tmp_path / path)]

    spec(Step("2", 1, 1))
    single_spec = spec(Step("3", 1, 1))
    assert re.fullmatch(r".*singles-10\.jsonl,.*text\.jsonl:10", single_spec)
    pairs, text = set(ids_of("pairs-10.jsonl")), set(ids_of("text.jsonl"))
    assert len(pairs) == 10 and len(text) == 20 and not pairs & text
    assert set(ids_of("singles-10.jsonl")) == pairs and set(ids_of("captions-8.jsonl")) <= text
    # The start reads captions, text, and questions written out beside their picture, of other problems.
    assert re.fullmatch(r".*captions-8\.jsonl,.*text\.jsonl:4,.*beside\.jsonl", spec(Step("align", 1, 1)))
    beside = table3.read_rows(tmp_path / "beside.jsonl")
    assert {row["level"] for row in beside} == {"text-dominant"}
    assert {row["id"].split("/")[0] for row in beside} == text
    spec(Step("2", 1, 1, variant="problems=15"))
    assert pairs < set(ids_of("pairs-15.jsonl"))  # a smaller set is part of a larger one
    with pytest.raises(UserError, match="--per_category"):
        spec(Step("2", 1, 1, variant="problems=21"))

    taught = table3.read_rows(tmp_path / spec(Step("2", 1, 1, variant="teacher=text-only")).split("/")[-1])
    assert {row["id"] for row in taught} == pairs
    assert all(row["image_url"] == "" and row["instruction"] == f"text of {row['id']}" for row in taught)


# ----------------------------------------------------------------------------------------------------------------------
# Statistics


def scores(text_dominant, vision_only, problems=100, seed=0):
    """Verdicts with these chances of being right."""
    draws = np.random.default_rng(seed)
    middle = (text_dominant + vision_only) / 2
    chances = {"text_only": text_dominant, "text_dominant": text_dominant, "text_lite": middle,
               "vision_intensive": middle, "vision_dominant": middle, "vision_only": vision_only}
    right = {version: (draws.random(problems) < chance).astype(float) for version, chance in chances.items()}
    metrics = {name: float(values[0]) for name, values in scores_from_weights(right, np.ones((1, problems))).items()}
    return Scores(metrics, metrics, right)


def test_gap_skewness_and_variation_are_those_of_the_paper():
    right = {version: np.array([1.0] * count + [0.0] * (1000 - count)) for version, count in (
        ("text_dominant", 358), ("text_lite", 322), ("vision_intensive", 313), ("vision_dominant", 304),
        ("vision_only", 185))}
    found = scores_from_weights(right, np.ones((1, 1000)))
    assert found["gap"][0] == pytest.approx(93.5, abs=0.05)  # Table 3, 1→2→3, Qwen2-1.5B
    five = np.array([35.8, 32.2, 31.3, 30.4, 18.5])
    assert found["all"][0] == pytest.approx(five.mean())
    assert found["coefficient_of_variation"][0] == pytest.approx(five.std() / five.mean())
    skewness = abs(((five - five.mean()) ** 3).mean()) / five.std() ** 3
    assert found["absolute_skewness"][0] == pytest.approx(skewness)


def test_mean_and_deviation():
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_deviation([5.0]) == (5.0, 0.0)
    assert mean_and_deviation([1.0, None]) is None and mean_and_deviation([1.0, math.inf]) is None


def test_bootstrap_sees_a_real_difference_and_none_where_there_is_none():
    better = [scores(0.9, 0.7, seed=seed) for seed in range(3)]
    worse = [scores(0.9, 0.4, seed=10 + seed) for seed in range(3)]
    found = paired_bootstrap(worse, better, "vision_only", samples=500)
    assert found.value < -15 and found.high < 0 and found.p < 0.01
    assert found.low < found.value < found.high
    gap = paired_bootstrap(worse, better, "gap", samples=500)
    assert gap.value > 20 and gap.low > 0
    same = paired_bootstrap(better, better, "vision_only", samples=500)
    assert same.value == 0 and same.p == 1.0


def test_bootstrap_is_paired():
    # the same verdicts but for five problems that got better: unpaired noise would drown them
    ours = scores(0.5, 0.5, problems=200, seed=1)
    right = {version: verdicts.copy() for version, verdicts in ours.right.items()}
    wrong = np.flatnonzero(right["vision_only"] == 0)[:10]
    right["vision_only"][wrong] = 1
    found = paired_bootstrap([Scores({}, {}, right)], [ours], "vision_only", samples=1000)
    assert found.value == pytest.approx(5.0) and found.low > 0 and found.p < 0.01


def test_bootstrap_has_no_gap_over_a_score_of_nought():
    assert paired_bootstrap([scores(0.5, 0.0)], [scores(0.5, 0.5)], "gap", samples=200) is None


def test_drawings_of_one_problem_are_one_problem_to_the_bootstrap(tmp_path):
    questions = [
        {"id": f"{n}/{version}", "problem_id": str(n), "version": version, "instruction": "Find x.", "answer": "1",
         "key": "same" if n < 2 else "other"}
        for n in range(3) for version in ("text-only", "vision-only")
    ]
    verdicts = [{"id": row["id"], "correct": row["id"] in ("0/vision-only", "2/vision-only")} for row in questions]
    (tmp_path / "report.json").write_text(json.dumps({"metrics": {"vision_only": 66.7}, "blind": None}))
    for name, rows in (("verdicts", verdicts), ("bench", questions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = read_scores(tmp_path, "generated", str(tmp_path / "bench.jsonl")).right
    assert right["vision_only"].tolist() == [0.5, 1.0] and right["text_only"].tolist() == [0.0, 0.0]
    assert np.isnan(right["text_lite"]).all()


def test_bootstrap_refuses_other_problems():
    with pytest.raises(UserError, match="same problems"):
        paired_bootstrap([scores(0.5, 0.5, problems=90)], [scores(0.5, 0.5)], "all", samples=10)


# ----------------------------------------------------------------------------------------------------------------------
# The table and the chart


def two_rows():
    cost = {"steps": 420, "tokens": 2.5e6, "minutes": 3.21}
    return [
        Row("Standard pipeline", "1→2→3", "", [scores(0.9, 0.7, seed=seed) for seed in range(3)], cost),
        Row("Effectiveness of stage 2 (PUMA)", "1→3", "equal", [scores(0.9, 0.4, seed=5 + s) for s in range(3)], cost),
    ]


def test_table_has_the_papers_groups_and_a_cell_in_every_column():
    rows = two_rows()
    lines = main_table(rows)
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert columns[0] == "Order" and "Gap, % ↓" in columns
    assert all(line.count("|") == len(columns) + 1 for line in lines)
    assert [line for line in lines if line.startswith("| *")][1].startswith("| *Effectiveness of stage 2 (PUMA)*")
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:5] == ["1→3", "equal", "420", "2.50", "3.2"]
    values = [seed.metrics["vision_only"] for seed in rows[1].seeds]
    expected = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert cells[columns.index("Vision-only ↑")] == expected


def test_differences_are_signed_against_the_reference():
    rows = two_rows()
    lines = difference_table(rows, rows[0], samples=300)
    assert len(lines) == 3 and "minus 1→2→3" in lines[0]
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[0] == "1→3, equal" and cells[3].startswith("-") and cells[4].startswith("+")
    assert "p < 0.01" in cells[3] or "p = 0.00" in cells[3]


def test_chart_is_written(tmp_path):
    draw_chart(tmp_path / "new" / "figure4.png", two_rows())
    assert (tmp_path / "new" / "figure4.png").read_bytes()[:4] == b"\x89PNG"


# ----------------------------------------------------------------------------------------------------------------------
# What only the ablation needs


def test_released_divergence_is_of_standardised_logits_and_in_the_papers_directions():
    torch.manual_seed(0)
    weak, strong = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    fkl, rkl = table3_stage.released_divergences(weak, strong, tau=1.0)
    q, p = ((torch.softmax((z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True), -1)) for z in (weak, strong))
    assert fkl.item() == pytest.approx((q * (q / p).log()).sum().item(), rel=1e-4)
    assert rkl.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-4)
    scaled_weak, _ = table3_stage.released_divergences(7 * weak + 3, strong, tau=1.0)
    assert scaled_weak.item() == pytest.approx(fkl.item(), rel=1e-4)  # blind to scale: no next-token distribution


def test_released_loss_aligns_one_position_late_and_takes_the_cross_entropy_at_the_right_one():
    generator = torch.Generator().manual_seed(1)
    states = {side: torch.randn(12, 5, generator=generator) for side in ("weak", "strong")}
    lm_head = torch.randn(7, 5, generator=generator)

    def pack(side, positions):
        return table3_stage.MicroBatch(input_ids=torch.zeros(1, 12, dtype=torch.long), position_ids=None,
                                       cu_seqlens=None, max_seqlen=12, pixel_values={}, run_vision=False,
                                       response_positions=torch.tensor(positions),
                                       response_labels=torch.tensor([2, 4, 6]), row_ids=[side])

    model = SimpleNamespace(lm_head=SimpleNamespace(weight=lm_head),
                            response_hidden_states=lambda batch: states[batch.row_ids[0]][batch.response_positions])
    config = table3_stage.train_stage2.Config(alpha=0.2, lam=0.1, tau=1.0)
    sides = pack("weak", [7, 8, 9]), pack("strong", [3, 4, 5])
    found = table3_stage.released_puma(model, *sides, num_tokens=3, config=config)
    fkl, rkl = table3_stage.released_divergences(states["weak"][[8, 9, 10]] @ lm_head.T,
                                                 states["strong"][[4, 5, 6]] @ lm_head.T, 1.0)
    ce = torch.nn.functional.cross_entropy(states["weak"][[7, 8, 9]] @ lm_head.T, torch.tensor([2, 4, 6]))
    expected = 0.1 * (0.2 * fkl + 0.8 * rkl) + 0.9 * ce  # one row: the divergences are sums over its tokens
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_small_is_a_llava_of_50_to_150_million_parameters_behind_tinys_tower():
    small, tiny = table3_stage.small_model(), load_model("tiny")
    small_tower, tower = (one.config.vision_config.to_dict() | {"dtype": None} for one in (small, tiny))
    assert small_tower == tower
    assert 50e6 < sum(parameter.numel() for parameter in small.parameters()) < 150e6
    name = "hf.model.vision_tower.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(small.state_dict()[name], tiny.state_dict()[name])
