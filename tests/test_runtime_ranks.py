"""Several ranks (gloo) against one: gradients of every stage, sharded checkpoints, decisions taken together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ranks_worker
import torch

import checkpoint
import runtime
from model import load_model

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def start(ranks: int, out: Path, *arguments: str) -> dict:
    done = subprocess.run([*TORCHRUN, str(ranks), ROOT / "tests" / "ranks_worker.py", out, *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(out / f"ranks_{ranks}.pt", weights_only=True)


@pytest.fixture(scope="module")
def one_rank() -> dict[str, dict[str, torch.Tensor]]:
    process = runtime.setup(0, device="cpu")
    found = {f"tiny {stage}": ranks_worker.stage_gradients(stage, process) for stage in ranks_worker.STAGES}
    return found | {f"hybrid {stage}": ranks_worker.stage_gradients(stage, process, "hybrid") for stage in (2, 3)}


def assert_same_gradients(one: dict, many: dict) -> None:
    for run, expected in one.items():
        found = many[run]
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            difference = (found[name] - gradient).norm()
            if "vision" in name and name.endswith("k_proj.bias"):
                # A key bias adds the same to all scores of a query: its gradient is 0, and what is there is rounding.
                assert max(difference, gradient.norm()) < 1e-6 * expected["norm"], f"{run}, {name}: {difference}"
            else:
                relative = difference / (gradient.norm() + 1e-9)
                assert relative < 1e-5, f"{run}, {name}: {relative}"


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("two")
    return start(2, out), out


def test_two_ranks_have_the_gradients_of_one_in_every_stage(one_rank: dict, two_ranks: tuple) -> None:
    assert_same_gradients(one_rank, two_ranks[0]["stages"])
    trained = {name.split(".")[2] for name in one_rank["tiny 2"] if "." in name}
    assert trained == {"vision_tower", "multi_modal_projector"}


def assert_about_the_same_in_bf16(one: dict, many: dict) -> None:
    """Frozen parts in bf16, trained ones in fp32 (also side by side in the hybrid's root group), bf16 computation."""
    for run, expected in one.items():
        found = many[f"bf16 {run}"]
        assert found.keys() == expected.keys()
        assert found["loss"] == pytest.approx(expected["loss"].item(), rel=0.01)
        assert found["norm"] == pytest.approx(expected["norm"].item(), rel=0.05)
        assert all(gradient.dtype == torch.float32 for gradient in found.values())


def test_mixed_precision_has_about_the_gradients_of_fp32(one_rank: dict, two_ranks: tuple) -> None:
    assert_about_the_same_in_bf16(one_rank, two_ranks[0]["stages"])


@pytest.mark.slow
def test_a_mesh_of_one_rank_has_the_gradients_of_an_unsharded_model(one_rank: dict, tmp_path: Path) -> None:
    """What a run on a single GPU is: FSDP2 over one rank, for its mixed precision."""
    found = start(1, tmp_path)["stages"]
    assert_same_gradients(one_rank, found)
    assert_about_the_same_in_bf16(one_rank, found)


def test_compiled_layers_are_checkpointed_too(two_ranks: tuple) -> None:
    plain, checkpointed, compiled, both = two_ranks[0]["saved"]
    assert compiled == pytest.approx(plain, rel=0.05) and both == pytest.approx(checkpointed, rel=0.05)
    assert checkpointed < plain / 5


def test_a_checkpoint_of_two_ranks_goes_on_in_one(two_ranks: tuple, tmp_path: Path) -> None:
    found, out = two_ranks
    process = runtime.setup(0, device="cpu")
    losses = ranks_worker.toy_steps(process, tmp_path) + ranks_worker.toy_steps(process, tmp_path)
    assert found["losses"] == pytest.approx(losses[:3], rel=1e-6)
    assert ranks_worker.toy_steps(process, out) == pytest.approx(losses[3:], rel=1e-6)
    manifest = checkpoint.verify_checkpoint(out / "run" / "step_00000003")
    assert manifest["world_size"] == 2
    assert {"__0_0.distcp", "__1_0.distcp", "rng_1.pt"} <= manifest["files"].keys()


def test_bad_rows_of_every_rank_are_written(two_ranks: tuple) -> None:
    rows = json.loads((two_ranks[1] / "nonfinite_rows.jsonl").read_text())["rows"]
    assert rows == ["row of rank 0", "row of rank 1"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--shard_size", "2")])
def test_four_ranks_have_the_gradients_of_one(one_rank: dict, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert_same_gradients(one_rank, start(4, tmp_path, *arguments)["stages"])


def test_groups_of_every_preset() -> None:
    """Layers that follow each other share a group, up to its size, where they train alike; the LLM's ends are left to
    the root."""
    for preset, trains, expected in (
        ("puma-qwen2-1.5b", ("vision", "projector"), [[8] * 3 + [2, 1], [2] * 14]),
        ("puma-deepseek-math-7b", ("vision", "projector", "llm"), [[10, 10, 4], [12], [1] * 30]),
    ):
        model = load_model(preset, random=True, device="meta", dtype=torch.bfloat16)
        model.set_trainable(trains)
        layers = {id(layer) for _, layer in runtime.transformer_layers(model)}
        groups = list(runtime.fsdp_groups(model))
        sizes = {}
        for group in groups:
            if id(group[0]) in layers:
                sizes.setdefault(type(group[0]), []).append(len(group))
            assert len(group) == 1 or {id(unit) for unit in group} <= layers
            assert len({parameter.requires_grad for unit in group for parameter in unit.parameters()}) == 1
        assert sorted(sizes.values(), key=len) == sorted(expected, key=len), sizes
        in_order = [id(unit) for group in groups for unit in group if id(unit) in layers]
        assert in_order == [id(layer) for _, layer in runtime.transformer_layers(model)]
        grouped = [parameter for group in groups for unit in group for parameter in unit.parameters()]
        assert len({id(parameter) for parameter in grouped}) == len(grouped)
        left = {name for name, parameter in model.named_parameters() if not any(parameter is one for one in grouped)}
        names = {name.split(".")[-2] for name in left if "language_model" in name or "lm_head" in name}
        assert {"embed_tokens", "norm"} <= names <= {"embed_tokens", "norm", "lm_head"}
        rest = {name for name in left if "language_model" not in name and "lm_head" not in name}
        assert rest <= {"hf.model.high_res_vision_alpha", "hf.model.high_res_vision_model.vision_encoder.pos_embed"}
