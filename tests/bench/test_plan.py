"""bench/plan.py and model.py's FLOPs: the formula against torch's counter, the planned bytes against those of a real
step, the plan's text and its command line.
"""

import math
import os
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ranks_worker
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

import checkpoint
import model as model_module
import runtime
from bench import plan
from bench.memory import LiveBytes
from data import MicroBatch, Tokens, pack_rows
from errors import UserError
from model import (MathModel, blank_pixels, count_image_tokens, load_model, load_processor, model_costs, part_of,
                   pass_flops, peak_flops, presets)

ROOT = Path(__file__).resolve().parents[2]
STAGES = ranks_worker.STAGES


def tiny(stage: int, device: str = "cpu") -> MathModel:
    model = load_model("tiny", random=True, device=device)
    model.set_trainable(STAGES[stage])
    return model.train()


def make_packs(model: MathModel, stage: int) -> tuple:
    image_token = model.config.image_token_id
    weak = ranks_worker.make_pack(3, image_token, images=0 if stage == 1 else 2)
    strong = ranks_worker.make_pack(4, image_token, images=1) if stage == 2 else None
    weak.run_vision = stage != 1
    return weak, strong


def make_rows(model: MathModel, count: int, images: int, text: int, response: int) -> MicroBatch:
    """A pack of equal rows: images, then text, of which the last tokens are the response."""
    ids = [model.config.image_token_id] * (images * count_image_tokens(model.config)) + [100] * text
    tokens = Tokens(np.array(ids), np.arange(len(ids) - response, len(ids)) - 1)
    image = {name: pixels[0] for name, pixels in blank_pixels(model.config, 1, torch.uint8, "cpu").items()}
    return pack_rows([(tokens, [image] * images, "row")] * count, 0, run_vision=bool(images))


def peak_of_a_step(model: MathModel, *micro_batches: MicroBatch) -> int:
    """Live bytes at most in a step's forward and backward pass, as the plan counts them: a gradient goes at once."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda done: setattr(done, "grad", None))
    with LiveBytes((*model.parameters(), *model.buffers()), "cpu") as live:
        ranks_worker.pack_loss(model, *micro_batches, num_tokens=10).backward()
    return live.peak


@pytest.mark.parametrize("stage", STAGES)
def test_flops_are_those_that_torch_counts(stage: int) -> None:
    model = tiny(stage)
    weak, strong = make_packs(model, stage)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # its products are counted
        ranks_worker.pack_loss(model, weak, strong, num_tokens=10).backward()
    costs = model_costs(model)
    expected = model_module.step_flops(model, [(weak, strong)])
    # Here causal attention is computed like full attention: twice ours ...
    for batch, passes in ((weak, 3), (strong, 1)):
        if batch is not None:
            lengths = batch.cu_seqlens.diff().double()
            expected += passes * costs.squared_length * float((lengths**2).sum())
    # ... the op computes lm_head's product for R response rows in any case, also the top layer of the tower runs, one
    # of six, unread; and no gradient goes into pixels.
    images = 0 if stage == 1 else 2
    expected += costs.vision / 5 * (images + (stage == 2))
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.04)


PEAKS = {
    "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100 NVL": None, "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12, "A100-SXM4-40GB": 312e12, "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA GeForce RTX 4090": 165.2e12, "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA L4": 121e12, "NVIDIA A10": 125e12, "NVIDIA RTX A6000": 154.8e12, "NVIDIA L40S": 362e12,
    # other cards, slower than what their name contains
    "NVIDIA L40": None, "NVIDIA A10G": None, "NVIDIA GeForce RTX 4090 D": None, "NVIDIA GeForce RTX 3090 Ti": None,
    "NVIDIA GeForce RTX 4090 Laptop GPU": None, "NVIDIA H200 NVL": None, "NVIDIA A100-SXM4-80GB MIG 3g.40gb": None
}


def pretend_card(monkeypatch: pytest.MonkeyPatch, name: str, memory: int = 0) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory))


@pytest.mark.parametrize("name", PEAKS)
def test_the_peak_of_a_gpu_is_found_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pretend_card(monkeypatch, name)
    assert peak_flops(torch.device("cuda")) == PEAKS[name]
    note = "" if PEAKS[name] else f"note: {name.lower()} is not in model.GPUS; the log shows no MFU\n"
    assert capsys.readouterr().out == note
    assert peak_flops(torch.device("cpu")) is None


def test_parts_that_do_not_train_cost_less() -> None:
    costs = model_costs(tiny(3))
    pack = {"tokens": 1000, "squared_lengths": 1e5, "responses": 100, "images": 2}
    everything, frozen_llm, projector, forward = (
        pass_flops(costs, **pack, trains=trains)
        for trains in (("vision", "projector", "llm"), ("vision", "projector"), ("projector",), ())
    )
    assert everything > frozen_llm > projector > forward > 0
    assert everything == pytest.approx(3 * forward, rel=0.01)
    text = pack | {"images": 0}
    assert pass_flops(costs, **text, trains=("vision",)) == pass_flops(costs, **text, trains=())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_planned_bytes_are_those_of_a_real_step(stage: int, checkpointing: bool) -> None:
    """The plan's peak, on the meta device, against the live bytes of the same step that really runs (CPU, fp32)."""
    model, planned_model = tiny(stage), tiny(stage, "meta")
    if checkpointing:
        runtime.checkpoint_activations(model)
        runtime.checkpoint_activations(planned_model)
    weak, strong = make_packs(model, stage)
    peak = peak_of_a_step(model, weak, strong)
    images = len(weak.pixel_values.get("pixel_values", ()))
    sides = [(weak.num_tokens, images)] + ([] if strong is None else [(strong.num_tokens, 1)])
    planned = plan.pack_bytes(planned_model, weak.num_response_tokens, *sides)
    assert planned == pytest.approx(peak, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_planned_bytes_of_the_hybrid_are_those_of_a_real_step(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DeepSeek preset with towers of one layer, at their true image sizes, and a small decoder. SAM's attention
    adds a learned bias: on a CPU torch then holds all scores, so the plan's stand-in for CUDA's memory-efficient
    attention, which does not, takes its place in the real step; its outputs are of the right shape only.
    """
    preset = presets()["puma-deepseek-math-7b"]
    text = preset.config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size = 128, 256, 1, 2048
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 2, 2, 64
    preset.config.vision_config.num_hidden_layers = preset.config.high_res_vision_config.num_hidden_layers = 1
    preset.config.high_res_vision_config.global_attn_indexes = [0]

    def build(device: str) -> MathModel:
        processor = load_processor("puma-deepseek-math-7b", random=True)
        model = MathModel(model_module._random(preset.config, torch.float32, device), processor)
        model.set_trainable(STAGES[2])
        if checkpointing:
            runtime.checkpoint_activations(model)
        return model.train()

    real = build("cpu")
    batch = make_rows(real, count=1, images=1, text=60, response=19)
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", plan._vision_attention)
        peak = peak_of_a_step(real, batch)
    planned = plan.pack_bytes(build("meta"), 19, (batch.num_tokens, 1))
    assert planned == pytest.approx(peak, rel=0.05)


def test_the_plan_follows_packs_checkpointing_and_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def total(**changes: object) -> float:
        options = {"nproc": 8, "gpu": "a100-80gb", "pack_tokens": 4096, "activation_checkpointing": True} | changes
        return plan.plan("tiny", 3, **options)["memory"][plan.TOTAL]

    assert total(activation_checkpointing=False) > total()
    monkeypatch.setattr(plan, "pack_bytes", lambda model, responses, side: 10**5 * side[0])  # the rest is arithmetic
    usual = total()
    assert total(pack_tokens=8192) > usual
    assert total(nproc=1) > usual > total(nproc=64)
    assert total(nproc=64, shard_size=8) == usual
    assert total(sync_every_pack=False) > usual
    smaller, larger = (plan.plan("tiny", 3, nproc=8, gpu=gpu)["fits"] for gpu in ("a100-40gb", "a100-80gb"))
    assert larger > smaller > 16384


def folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass
class Settings:
    seed: int = 0


def take_a_step(model: MathModel) -> tuple:
    """(model, optimizer, scheduler) after a step, so that AdamW's moments are there."""
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, 0.1), lr=1e-5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return model, optimizer, runtime.cosine_schedule(optimizer, 2, 0.1)


@pytest.mark.parametrize("stage", STAGES)
def test_planned_copies_of_a_save_are_those_that_one_of_two_ranks_makes(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own stager copies; the other rank is torch's stand-in, for a copy asks nothing of it."""
    copies: dict[int, int] = {}

    def stage_only(state: dict, **_: object) -> Future:
        for tensor in DefaultStager(StagingOptions(False, False, False, False)).stage(state).values():
            storage = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).untyped_storage()
            copies[storage.data_ptr()] = storage.nbytes()
        return Future()

    monkeypatch.setattr(checkpoint.dcp, "async_save", stage_only)
    monkeypatch.setattr(checkpoint, "_publish", lambda *_: None)
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        process = runtime.Process(0, 0, 2, torch.device("cpu"), init_device_mesh("cpu", (2,)))
        model = tiny(stage)
        runtime.shard(model, process, unused=lambda name: part_of(name) not in plan.ON_GPU[stage])
        checkpoint.save_checkpoint(tmp_path, 1, *take_a_step(model), process, config=Settings(), data_fingerprint=0)
    finally:
        dist.destroy_process_group()

    def planned(**ranks: int) -> float:
        sizes = plan.plan_host(tiny(stage, "meta"), **ranks, on_gpu=plan.ON_GPU[stage], frozen_bytes=4)
        return sizes["copies of a checkpoint on its way to the disk"]

    assert planned(nproc=2, per_node=1) == pytest.approx(sum(copies.values()), rel=1e-3)
    assert planned(nproc=2, per_node=2) == 2 * planned(nproc=2, per_node=1)


@pytest.mark.parametrize("stage", STAGES)
def test_planned_disk_is_what_a_checkpoint_and_an_export_take(stage: int, tmp_path: Path) -> None:
    trained = take_a_step(tiny(stage))
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path / "run", step, *trained, checkpoint.ALONE, config=Settings(),
                                   data_fingerprint=0, keep=2, wait=True)
    checkpoint.export_pretrained(trained[0], tmp_path / "export", checkpoint.ALONE)
    one, all_of_them, export = plan.plan_disk(tiny(stage, "meta"), keep=1, frozen_bytes=4).values()
    assert one == pytest.approx(folder_size(tmp_path / "run" / "step_00000001"), rel=0.03)
    assert all_of_them == 2 * one == pytest.approx(folder_size(tmp_path / "run"), rel=0.03)
    assert export == pytest.approx(folder_size(tmp_path / "export"), rel=0.03)


EXPORT_ON_TWO_RANKS = """
import sys
import torch
import checkpoint, runtime
from bench import plan
from bench.memory import peak_bytes
from model import load_model

process = runtime.setup(0)
model = load_model("", sys.argv[1])
model.set_trainable(("vision", "projector"))
runtime.shard(model, process)
peak = peak_bytes(lambda: checkpoint.export_pretrained(model, sys.argv[1] + "/again", process), "cpu")
planned = plan.plan_host(model, nproc=2, per_node=2, on_gpu=(), frozen_bytes=4)["export, on the first node"]
runtime.print0(f"{peak / planned:.4f} of the plan")
runtime.shutdown(process)
"""


def larger_tiny(dtype: torch.dtype) -> MathModel:
    """80M parameters, so that what a process holds otherwise hardly counts."""
    config = presets()["tiny"].config
    config.text_config.hidden_size, config.text_config.intermediate_size = 512, 16384
    return MathModel(model_module._random(config, dtype, "cpu"), load_processor("tiny"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the peak of resident memory")
def test_planned_memory_of_an_export_is_what_the_first_of_two_ranks_takes(tmp_path: Path) -> None:
    checkpoint.save_pretrained(larger_tiny(torch.float32), tmp_path)
    (tmp_path / "worker.py").write_text(EXPORT_ON_TWO_RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, tmp_path / "worker.py", tmp_path], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) == pytest.approx(1, abs=0.15)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc where memory comes from")
def test_ranks_share_the_weights_of_a_bf16_folder(tmp_path: Path) -> None:
    """They lie in the mapped file, from which all processes read the same pages; another dtype is each rank's own."""
    checkpoint.save_pretrained(MathModel(model_module._random(presets()["tiny"].config, torch.bfloat16, "cpu"),
                              load_processor("tiny")), tmp_path)

    def share_mapped(dtype: torch.dtype) -> float:
        model = load_model("", str(tmp_path), dtype=dtype)
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".safetensors")]
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
        parameters = list(model.parameters())
        mapped = [parameter.numel() for parameter in parameters
                  if any(start <= parameter.data_ptr() < end for start, end in ranges)]
        return sum(mapped) / sum(parameter.numel() for parameter in parameters)

    assert share_mapped(torch.bfloat16) == 1
    assert share_mapped(torch.float32) == 0


def test_host_memory_follows_the_folder_and_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plan, "print_costs", lambda *_, **__: None)
    model = larger_tiny(torch.bfloat16)
    weights = sum(parameter.numel() for parameter in model.parameters()) / plan.GIB

    def printed(*flags: str) -> str:
        monkeypatch.setattr(plan, "pack_bytes", lambda model, responses, *sides: sides[0][0])
        plan.main(["train_stage3.py", "--nproc", "16", "--pack_tokens", "4096", "--keep", "3", *flags])
        return " ".join(capsys.readouterr().out.split())

    for dtype, of_all in ((torch.bfloat16, f"mapped once for all ranks {2 * weights:.2f}"),
                          (torch.float32, f"a copy in each rank {8 * 2 * weights:.2f}")):
        checkpoint.save_pretrained(MathModel(model.hf.to(dtype), model.processor), tmp_path / str(dtype))
        text = printed("--model", str(tmp_path / str(dtype)))
        assert "host memory of a node of 8 GPUs" in text and f"weights at load, {of_all}" in text
    assert "is not in bf16: each rank converts its own copy" in text
    assert "4 of them (--keep 3, and the next)" in text
    text = printed("--preset", "tiny", "--random_weights", "--nproc_per_node", "4")
    assert "a node of 4 GPUs" in text and "a copy in each rank" in text


def test_a_card_that_is_not_known_is_planned_by_its_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plan, "pack_bytes", lambda model, responses, *sides: 10**5 * sides[0][0])
    found = plan.plan("tiny", 3, nproc=8, gpu="24gb")
    assert found["memory"]["of"] == 24e9 and found["fits"] > 0 and math.isnan(found["gpu_hours"])
    plan.print_costs([8], gpu="24gb", pack_tokens=4096, names=["tiny"])
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["-", "-"]  # GPU-hours, hours
    monkeypatch.setattr(plan, "presets", lambda: {"tiny": None})  # no table of the large ones
    plan.main([*TINY, "--gpu", "24gb"])
    printed = capsys.readouterr().out
    assert "hours unknown, as the peak of this GPU is" in printed and "nan" not in printed
    pretend_card(monkeypatch, "NVIDIA RTX 5000 Ada Generation", 31 * plan.GIB)
    found = plan.plan("tiny", 3, nproc=8, gpu="here")
    assert found["memory"]["of"] == 31 * plan.GIB and math.isnan(found["gpu_hours"])
    pretend_card(monkeypatch, "NVIDIA GeForce RTX 4090", 23 * plan.GIB)
    assert plan.plan("tiny", 3, nproc=8, gpu="here") | {"model": 0} == (
        plan.plan("tiny", 3, nproc=8, gpu="4090-24gb") | {"model": 0})


TINY = ["train_stage2.py", "--preset", "tiny", "--pack_tokens", "4096", "--activation_checkpointing"]


def test_a_plan_prints_memory_and_marks_assumptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plan, "presets", lambda: {"tiny": None})  # no table of the large ones
    plan.main([*TINY, "--nproc", "8", "--gpu", "a100-80gb"])
    printed = capsys.readouterr().out
    assert "stage 2, tiny, 8 x a100-80gb; trains vision, projector\n" in printed
    for word in ("parameters", "gradients", "AdamW state", "activations", "in all", "fits", "ASSUMED", "hours"):
        assert word in printed
    # 64 pairs a GPU and step, 1.5 images each, 4 processes with 2 steps ahead
    side = presets()["tiny"].config.vision_config.image_size
    assert f"4 processes: {64 * 1.5 * 8 * 3 * side**2 / plan.GIB:.2f} GiB" in printed
    # flags of the plan and of the script in any order, each script's own Config and stage
    plan.main(["./train_stage3.py", "--gpu", "h100-80gb", "--preset=tiny", "--train", "llm", "--nproc", "2"])
    assert "stage 3, tiny, 2 x h100-80gb; trains llm\n" in capsys.readouterr().out


def test_the_plan_of_a_folder_is_that_of_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "presets", lambda: {"tiny": None})  # no table of the large ones
    model = load_model("tiny", random=True)
    model.hf.config.text_config.intermediate_size = 1024  # a size that no preset has
    model.hf.config.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    plan.main(["train_stage2.py", "--model", str(tmp_path), "--nproc", "1", "--global_batch", "64"])
    assert f"stage 2, {tmp_path}, 1 x" in (printed := capsys.readouterr().out) and "llm 3.0M" in printed
    plan.main(["train_stage2.py", "--model", str(tmp_path / "nowhere"), "--preset", "tiny", "--nproc", "1"])
    printed = capsys.readouterr().out
    assert "nowhere yet: the plan of --preset tiny" in printed and "llm 1.8M" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TINY, "--gpu", "rtx"], "--gpu rtx: unknown; known: .*a100-80gb.*4090-24gb.*; another card .*24gb"),
        ([*TINY, "--gpu", "0gb"], "--gpu 0gb: unknown; known"),
        ([*TINY, "--gpu", "here"], "--gpu here: this machine has no GPU"),
        ([*TINY, "--nproc", "0"], "--nproc 0 .*at least 1"),
        ([*TINY, "--nproc", "few"], "--nproc: invalid int value: 'few'"),
        ([*TINY, "--shard_size", "3"], "--shard_size 3 does not divide --nproc 8"),
        ([*TINY, "--preset", "huge"], "unknown preset"),
        ([*TINY, "--learn_rate", "1"], "unknown flag --learn_rate"),
        (["train_stage9.py", "--nproc", "8"], "train_stage9.py: neither a script .*train_stage2.py.* nor a preset"),
        (["tests/train_stage2.py"], "tests/train_stage2.py: neither a script"),
        (["--nproc", "8", "--gpu", "a100-80gb"], "arguments: --nproc; .* python -m bench.plan train_stage2.py"),
        (["--mfu", "40", "tiny"], "--mfu 40.0: .*at most 1"),
        (["--gpu", "a100-80gb", "huge"], "unknown preset 'huge'"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "print_presets", lambda: None)  # takes its time, and is not the mistake
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        plan.main(arguments)


def test_the_table_of_presets_and_stages(capsys: pytest.CaptureFixture) -> None:
    plan.main(["tiny", "--gpu", "h100-80gb", "--mfu", "0.5", "--pack_tokens", "4096"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.endswith("GB in stage 1 / 2 / 3") and len(lines) == 12
    assert lines[0].split() == "tiny 1.9M 0.1M 1.8M 144 0.03 / 0.04 / 0.06".split()
    assert lines[3].endswith("110.57 / 20.56 / 117.30")
    assert "hours on 256" in lines[6]
    assert [line.split()[:2] for line in lines[7:10]] == [["tiny", stage] for stage in "123"]
    assert "h100-80gb; packs of 4096" in lines[10] and "50% MFU, as given" in lines[11]


@pytest.mark.slow
def test_the_plan_of_a_script_needs_no_data_and_no_weights() -> None:
    arguments = ["train_stage2.py", "--nproc", "8", "--gpu", "a100-80gb", "--preset", "puma-qwen2-7b"]
    done = subprocess.run([sys.executable, "-m", "bench.plan", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stage 2, puma-qwen2-7b, 8 x a100-80gb; trains vision, projector" in done.stdout
    assert done.stdout.count("puma-deepseek-math-7b") == 3


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("stage", "checkpointing"), [(1, False), (2, False), (3, False), (3, True)])
def test_the_plan_is_within_15_percent_of_a_real_peak(stage: int, checkpointing: bool) -> None:
    """One step of the 1.5B preset at its true size on one GPU, optimizer included, against the plan for one GPU."""
    process = runtime.setup(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = load_model("puma-qwen2-1.5b", random=True, dtype=torch.bfloat16, device="cuda")
    model.set_trainable(STAGES[stage])
    model.train()
    if checkpointing:
        runtime.checkpoint_activations(model)
    runtime.shard(model, process, unused=lambda name: stage == 1 and part_of(name) != "llm")
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, 0.1), lr=1e-5, fused=True)
    shown = int(stage != 1)
    batch = make_rows(model, 8, shown, text=1024 - 729 * shown, response=256)  # 8 rows of 1024 tokens
    strong = batch.to(process.device) if stage == 2 else None
    for _ in range(3):
        ranks_worker.pack_loss(model, batch.to(process.device), strong, num_tokens=2048).backward()
        runtime.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated()
    plan_model = plan.build_model("puma-qwen2-1.5b", STAGES[stage], checkpointing)
    planned_pack = plan.pack_bytes(plan_model, 2048, *[(8192, 8 * shown)] * (1 if strong is None else 2))
    planned = plan.plan_memory(plan_model, planned_pack, nproc=1, on_gpu=plan.ON_GPU[stage])
    expected = (planned[plan.TOTAL] - plan.CONTEXT_BYTES) / plan.FRAGMENTATION
    runtime.shutdown(process)
    assert expected == pytest.approx(peak, rel=0.15), planned
