"""What a run needs before anything is rented: memory of a GPU and of its host, the largest pack, disk, and the hours
and GPU-hours of a stage.

    python -m bench.plan                                   the presets, and their three stages on 8, 32 and 256 GPUs
    python -m bench.plan --gpu h100-80gb --mfu 0.45        on other GPUs, with a rate that was measured
    python -m bench.plan puma-qwen2-7b --pack_tokens 8192  of one preset
    python -m bench.plan train_stage2.py --nproc 32 --gpu a100-80gb --preset puma-qwen2-7b
                                                           one run: the script, the GPUs, and the script's own flags
    python -m bench.plan --gpu 24gb                        on a card of 24 GB that is not known; "here": this machine's

FLOPs follow the formula in model.py. Memory is not a formula: the step of one pack runs on the meta device, operator
by operator, and the live bytes are counted; what FSDP2 keeps around it (shards, gathered layers, gradients on their
way) is added. Host memory and disk are counted from the parameters. No GPU, no data and no weights are needed.
"""

import argparse
import importlib
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.memory import LiveBytes
from errors import UserError, run_main
from kernels.puma_loss import default_chunk_size
from model import (ALL_ATTENTION_FUNCTIONS, DEFAULT_PRESET, GPU, GPUS, PARTS, AutoConfig, MathModel, PretrainedConfig,
                   blank_pixels, count_image_tokens, load_model, parse_parts, part_of, pass_flops, peak_flops, presets)
from runtime import checkpoint_activations, fsdp_groups, parse_config

GIB = 2**30
STAGE_PARTS = {1: ("llm",), 2: ("vision", "projector"), 3: PARTS}
ON_GPU = {1: ("llm",), 2: PARTS, 3: PARTS}  # stage 1 leaves the towers and the projector on the CPU

# Assumptions of the plan, printed with it. An H100 ran stage 2 of the 1.5B preset at 0.36, compiled (bench/h100).
ASSUMED_MFU = 0.40
CONTEXT_BYTES = 1.5 * GIB  # CUDA context, cuBLAS and NCCL buffers
FRAGMENTATION = 1.05
GPUS_OF_A_NODE = 8


@dataclass(frozen=True)
class Workload:
    """A stage of the paper: its number of rows (stage 2: pairs), and an assumed mean row in tokens and images."""

    rows: int
    prompt: int  # text tokens before the response
    response: int
    images: float
    strong_prompt: int = 0
    strong_images: float = 0.0

    def sides(self, image_tokens: int) -> list[tuple[float, float]]:
        """(tokens, images) of the mean row; in stage 2 of its weak and of its strong side."""
        texts = [(self.prompt, self.images)] + [(self.strong_prompt, self.strong_images)] * bool(self.strong_prompt)
        return [(prompt + self.response + images * image_tokens, images) for prompt, images in texts]


WORKLOADS = {
    1: Workload(200_000, prompt=120, response=380, images=0.0),
    2: Workload(692_000, prompt=60, response=250, images=1.0, strong_prompt=160, strong_images=0.5),
    3: Workload(996_000, prompt=100, response=250, images=1.0),
}


# ----------------------------------------------------------------------------------------------------------------------
# Memory of one pack's step, run on the meta device


class _FusedAttention(torch.autograd.Function):
    """Stands in for flash attention, which never holds the scores: keeps its inputs, its output and one number per row
    and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        output = torch.empty_like(query)
        statistics = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, output, statistics)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = zip(ctx.saved_tensors[:4], ctx.needs_input_grad, strict=True)
        return tuple(torch.empty_like(tensor) if needed else None for tensor, needed in wanted)


def _vision_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
    return _FusedAttention.apply(query, key, value, attn_mask)


def _decoder_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _FusedAttention.apply(query, key, value, None).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("nanopuma_plan", _decoder_attention)


class _PlannedLoss(torch.autograd.Function):
    """Stands in for the fused op: a chunk of logits, the hidden states' gradient, the weight's (fp32) if it trains."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, strong: Tensor | None, weight: Tensor) -> Tensor:
        branches = 1 if strong is None else 2
        rows = min(default_chunk_size(weight.shape[0], hidden.dtype, "cuda", branches), max(1, len(hidden)))
        chunk = hidden.new_empty(branches * rows, weight.shape[0])
        ctx.hidden_gradient = torch.empty_like(hidden)
        ctx.weight_gradient = None
        if weight.requires_grad:  # of a single chunk the op keeps the gradient rows, and multiplies in the backward
            one_product = len(hidden) <= rows
            ctx.weight_gradient = chunk if one_product else weight.new_empty(weight.shape, dtype=torch.float32)
        ctx.save_for_backward(weight)
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None]:
        # the op rescales into a new tensor while the accumulated one still lives
        weight_gradient = None if ctx.weight_gradient is None else torch.empty_like(ctx.saved_tensors[0])
        ctx.weight_gradient = None
        return ctx.hidden_gradient, None, weight_gradient


def pack_bytes(model: MathModel, responses: int, weak: tuple[int, int], strong: tuple[int, int] | None = None) -> int:
    """Peak bytes that the forward and backward pass of one pack adds on a GPU, parameters and their gathering apart.

    model: on the meta device, in bf16, in training mode, its trained parts set; it computes nothing else from then on.
    responses: response tokens. weak, strong: tokens and images of each side (strong: stage 2). Activations,
    temporaries, loss buffers and the gradient of one weight at a time are counted.
    """
    model.language_model.set_attn_implementation("nanopuma_plan")
    for parameter in model.parameters():
        if parameter.requires_grad:  # its gradient goes into its shard at once
            parameter.register_post_accumulate_grad_hook(lambda done: setattr(done, "grad", None))

    def indices(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    def hidden_states(tokens: int, images: int) -> Tensor:
        table = model.language_model.embed_tokens
        embedded = table(indices(max(1, tokens - images * count_image_tokens(model.config))))
        if images:
            pixels = blank_pixels(model.config, images, table.weight.dtype)
            features = model.hf.model.get_image_features(**pixels).pooler_output
            features = features if isinstance(features, Tensor) else torch.cat(list(features))
            embedded = torch.cat([embedded, features.reshape(-1, embedded.shape[-1])])
        positions = indices(1, len(embedded))
        output = model.language_model(inputs_embeds=embedded[None], position_ids=positions, use_cache=False)
        return output.last_hidden_state[0][indices(responses)]

    # on the meta device scaled_dot_product_attention would fall back to full score matrices
    counting = LiveBytes((*model.parameters(), *model.buffers()), "meta")
    with mock.patch.object(F, "scaled_dot_product_attention", _vision_attention), counting:
        with torch.no_grad():
            strong_hidden = hidden_states(*strong) if strong else None
        loss = _PlannedLoss.apply(hidden_states(*weak), strong_hidden, model.hf.lm_head.weight)
        if loss.requires_grad:
            loss.backward()
    return counting.peak


TOTAL = "in all, with 5 % fragmentation and the CUDA context"


def plan_memory(
    model: MathModel, pack: int, *, nproc: int, on_gpu: tuple[str, ...], sync_every_pack: bool = True
) -> dict[str, float]:
    """Bytes on one GPU, by what they hold, among nproc that shard `model` (on the meta device) and train it.

    pack: what pack_bytes found. on_gpu: the parts the stage computes with.
    """
    here = {parameter for name, parameter in model.named_parameters() if part_of(name) in on_gpu}

    def count_trained(parameters: Iterable[nn.Parameter]) -> int:
        return sum(parameter.numel() for parameter in here.intersection(parameters) if parameter.requires_grad)

    def count_gathered(parameters: Iterable[nn.Parameter]) -> int:
        if nproc == 1:  # one GPU computes with what is frozen as it is stored
            return count_trained(parameters)
        return sum(parameter.numel() for parameter in here.intersection(parameters))

    groups = [[parameter for module in group for parameter in module.parameters()] for group in fsdp_groups(model)]
    group, trained_group = max(map(count_gathered, groups)), max(map(count_trained, groups))
    root_modules = (model.language_model.embed_tokens, model.language_model.norm, model.hf.lm_head)
    root_parameters = [parameter for module in root_modules for parameter in module.parameters()]
    root, trained_root = count_gathered(root_parameters), count_trained(root_parameters)
    trained = count_trained(here)
    frozen = sum(parameter.numel() for parameter in here) - trained

    state = {
        "parameters": (4 * trained + 2 * frozen) / nproc, "gradients": 4 * trained / (nproc if sync_every_pack else 1),
        "AdamW state": 8 * trained / nproc
    }
    # bf16: the root's group for the whole pass; a group, the next one on its way, and the buffer it arrives in.
    # On the way back: the root's bf16 gradient, a group's bf16 gradient and two fp32 buffers that are being summed.
    gathered = 2 * root + 3 * 2 * group + 2 * trained_root + (2 + 2 * 4) * trained_group
    # when the root's own gradient is summed, at the very end, the activations are gone
    at_the_end = 2 * root + (2 + 4) * trained_root
    total = FRAGMENTATION * (sum(state.values()) + max(gathered + pack, at_the_end)) + CONTEXT_BYTES
    passing = {"gathered layers and gradients on their way": gathered, "activations, temporaries, loss buffers": pack}
    return state | passing | {TOTAL: total}


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters per part; a tied lm_head counts once."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    return counts


# ----------------------------------------------------------------------------------------------------------------------
# Memory of a node and disk


def plan_host(model: MathModel, *, nproc: int, per_node: int, on_gpu: tuple[str, ...], weights: str = "mapped",
              frozen_bytes: int = 2) -> dict[str, float]:
    """Bytes of host memory on a node with per_node ranks, among nproc that shard `model`, by when they are held; what
    each process takes itself is not counted.

    weights: "mapped" from a bf16 folder, "converted" from one in another dtype, or "random". frozen_bytes: of a frozen
    parameter, 2 on GPUs and 4 on a CPU.
    """
    count = sum(count_parameters(model).values())
    if weights == "mapped":  # safetensors maps the files: the ranks share the page cache, which the kernel takes back
        at_load = {"weights at load, mapped once for all ranks": 2 * count}
    else:  # random ones are drawn in fp32
        at_load = {"weights at load, a copy in each rank": per_node * count * {"converted": 2, "random": 4}[weights]}
    saved = 0.0
    for name, parameter in model.named_parameters():
        kept = parameter.numel() * (12 if parameter.requires_grad else frozen_bytes)
        saved += kept / nproc if part_of(name) in on_gpu else kept  # what stays on the CPU is whole on each rank
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    # rank 0 gathers the weights as they are stored, and rounds them into a bf16 model
    gathered = 4 * trained + frozen_bytes * (count - trained) + 2 * count
    return at_load | {
        "copies of a checkpoint on its way to the disk": per_node * saved, "export, on the first node": gathered
    }


def plan_disk(model: MathModel, keep: int, frozen_bytes: int = 2) -> dict[str, float]:
    """Bytes of a checkpoint, of the keep + 1 that a save may leave for a moment, and of the export in bf16."""
    checkpoint = sum(parameter.numel() * (12 if parameter.requires_grad else frozen_bytes)
                     for parameter in model.parameters())
    export = 2 * sum(count_parameters(model).values())
    return {"a checkpoint": checkpoint, f"{max(1, keep) + 1} of them (--keep {keep}, and the next)":
            (max(1, keep) + 1) * checkpoint, "the export": export}


# ----------------------------------------------------------------------------------------------------------------------
# The plan of a run


def find_gpu(name: str) -> GPU:
    """The card of that name; "here": this machine's; "24gb": any of so many GB. Unknown peaks are NaN."""
    if name in GPUS:
        return GPUS[name]
    if name == "here" and torch.cuda.is_available():
        card = torch.device("cuda")
        return GPU(peak_flops(card) or math.nan, torch.cuda.get_device_properties(card).total_memory, "")
    if gigabytes := re.fullmatch(r"([1-9]\d*)gb", name.lower()):
        return GPU(math.nan, int(gigabytes[1]) * 10**9, "")
    what = "this machine has no GPU" if name == "here" else "unknown"
    raise UserError(f"--gpu {name}: {what}; known: {', '.join(GPUS)}; another card by its memory, like 24gb, or here: "
                    "this machine's")


def build_model(preset: str, trains: Iterable[str], activation_checkpointing: bool, source: str = "") -> MathModel:
    """The model of a preset, or of the folder `source`, as plan_memory wants it."""
    model = load_model(preset, source, random=not source, dtype=torch.bfloat16, device="meta")
    model.set_trainable(trains)
    if activation_checkpointing:
        checkpoint_activations(model)
    return model.train()


def plan(preset: str, stage: int, *, nproc: int, gpu: str, trains: tuple[str, ...] = (), pack_tokens: int = 16384,
         activation_checkpointing: bool = True, sync_every_pack: bool = True, shard_size: int = 0,
         mfu: float = ASSUMED_MFU, source: str = "") -> dict[str, Any]:
    """Memory at pack_tokens, the largest pack that fits, and the time of the stage (NaN on a GPU of unknown peak).

    source: a model's folder, in place of the preset. trains: (): the stage's own parts. shard_size: GPUs that share one
    copy of the model; 0: all nproc. Raises UserError for an unknown GPU and for numbers that make no run.
    """
    card = find_gpu(gpu)
    if nproc < 1 or pack_tokens < 1:
        raise UserError(f"--nproc {nproc} --pack_tokens {pack_tokens}: both must be at least 1")
    if shard_size < 0 or (shard_size and nproc % shard_size):
        raise UserError(f"--shard_size {shard_size} does not divide --nproc {nproc}; use 0 to shard over all")
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu}: give a share of the peak above 0 and at most 1")
    workload, trains = WORKLOADS[stage], trains or STAGE_PARTS[stage]
    model = build_model(preset, trains, activation_checkpointing, source)
    sides = workload.sides(count_image_tokens(model.config))

    def memory_at(tokens: int) -> dict[str, float]:
        def count(mean: float) -> int:
            return math.ceil(tokens * mean / sides[0][0])

        counts = [(count(length), count(images)) for length, images in sides]
        pack = pack_bytes(model, count(workload.response), *counts)
        sharing = shard_size or nproc
        return plan_memory(model, pack, nproc=sharing, on_gpu=ON_GPU[stage], sync_every_pack=sync_every_pack)

    memory = memory_at(pack_tokens)
    # activations grow with the number of tokens: two points give the line
    other_tokens = 4096 if pack_tokens != 4096 else 8192
    slope = (memory[TOTAL] - memory_at(other_tokens)[TOTAL]) / (pack_tokens - other_tokens)
    fits = pack_tokens + (card.memory - memory[TOTAL]) / slope
    flops = workload.rows * sum(
        pass_flops(model.costs, tokens=length, squared_lengths=length**2, responses=workload.response, images=images,
                   trains=learning)
        for (length, images), learning in zip(sides, (trains, ()), strict=False)
    )
    return {
        "model": model, "parameters": count_parameters(model), "memory": memory | {"of": card.memory},
        "fits": max(0, int(fits) // 1024 * 1024), "flops": flops, "gpu_hours": flops / (card.peak_flops * mfu) / 3600
    }


def print_plan(config: Any, stage: int, *, nproc: int, gpu: str, per_node: int = GPUS_OF_A_NODE) -> None:
    """Print the plan of a script's configuration, then of every preset in every stage on as many GPUs."""
    trains = parse_parts(getattr(config, "train", "llm"))  # stage 1 has no choice
    flags = ("pack_tokens", "activation_checkpointing", "sync_every_pack", "shard_size")
    options = {flag: getattr(config, flag) for flag in flags}
    source, preset = "" if config.random_weights else config.model, config.preset or DEFAULT_PRESET
    if source and not (Path(source) / "config.json").is_file():
        print(f"no model in {source} yet: the plan of --preset {preset}")
        source = ""
    found = plan(config.preset, stage, nproc=nproc, gpu=gpu, trains=trains, source=source, **options)
    workload, flops, gpu_hours = WORKLOADS[stage], found["flops"], found["gpu_hours"]
    counts = "  ".join(f"{part} {count / 1e6:,.1f}M" for part, count in found["parameters"].items())
    checkpointing = "on" if config.activation_checkpointing else "off"
    print(f"stage {stage}, {source or preset}, {nproc} x {gpu}; trains {', '.join(trains)}")
    print(f"parameters: {counts}")
    print(f"memory of one GPU with packs of {config.pack_tokens} tokens, "
          f"activation checkpointing {checkpointing} (GiB):")
    _print_bytes(found["memory"])
    print(_advice(config, found["fits"]))
    model, per_node = found["model"], min(nproc, per_node)
    weights = "random" if config.random_weights else "mapped"
    if source and AutoConfig.from_pretrained(source).dtype != torch.bfloat16:
        weights = "converted"
    print(f"host memory of a node of {per_node} GPUs, beside what each process takes itself (GiB):")
    _print_bytes(plan_host(model, nproc=config.shard_size or nproc, per_node=per_node, on_gpu=ON_GPU[stage],
                           weights=weights))
    if weights == "converted":
        print(f"  {source} is not in bf16: each rank converts its own copy")
    elif not (config.model or config.random_weights):
        print("  of a folder (--model) in bf16; without one each rank converts what the hub has in another dtype")
    print("disk in --out_dir (GiB):")
    _print_bytes(plan_disk(model, config.keep))
    shared = loader_bytes(model.config, workload, config.global_batch / nproc, config.num_workers)
    print(f"shared memory (/dev/shm) for the images of each GPU's loader, {config.num_workers} processes: "
          f"{shared / GIB:.2f} GiB")
    hours = (f"{gpu_hours:,.0f} GPU-hours, {gpu_hours / nproc:,.1f} hours at an ASSUMED {ASSUMED_MFU:.0%} MFU "
             "(not measured)" if gpu_hours == gpu_hours else "hours unknown, as the peak of this GPU is")
    print(f"work: {workload.rows:,} rows = {flops:.3g} FLOPs; {hours}")
    print(f"  ASSUMED mean row: prompt {workload.prompt} text tokens, response {workload.response}, images "
          f"{workload.images:g}; strong prompt {workload.strong_prompt}, images {workload.strong_images:g}\n")
    print_costs([nproc], gpu=gpu, pack_tokens=config.pack_tokens)


def _print_bytes(sizes: dict[str, float]) -> None:
    for name, value in sizes.items():
        print(f"  {name:<54}{value / GIB:>8.2f}")


def loader_bytes(config: PretrainedConfig, workload: Workload, rows: float, num_workers: int) -> float:
    """Bytes of images that a rank's loader processes hold ready, at the workload's mean: each has two steps ahead
    (DataLoader's prefetch), `rows` rows (pairs) a step. They lie in shared memory, of which containers often have
    64 MB."""
    image = sum(pixels.nbytes for pixels in blank_pixels(config, 1, torch.uint8).values())
    return 2 * num_workers * rows * (workload.images + workload.strong_images) * image


def _advice(config: Any, fits: int) -> str:
    if fits >= config.pack_tokens:
        return f"fits; the largest pack that fits: --pack_tokens {fits}"
    advice = f"DOES NOT FIT with --pack_tokens {config.pack_tokens}"
    if fits >= 2048:
        return f"{advice}; the largest pack that fits: --pack_tokens {fits}"
    if not config.activation_checkpointing:
        return f"{advice}; add --activation_checkpointing"
    return f"{advice}, nor with smaller packs; more GPUs (--nproc) or larger ones (--gpu)"


# ----------------------------------------------------------------------------------------------------------------------
# The tables


def print_presets() -> None:
    """The table of presets: parameters per part, image tokens, and what each stage keeps of the model: 16 bytes per
    trained parameter (fp32 weight, gradient, two moments), 2 per frozen one (bf16)."""
    print(f"{'preset':<24}{'vision':>9}{'projector':>11}{'llm':>10}{'image tokens':>14}   GB in stage 1 / 2 / 3")
    for name, preset in presets().items():
        counts = count_parameters(load_model(name, random=True, device="meta"))
        vision, projector, llm = (f"{counts[part] / 1e6:.1f}M" for part in PARTS)
        totals = (sum(counts[part] * (16 if part in STAGE_PARTS[stage] else 2) for part in ON_GPU[stage])
                  for stage in STAGE_PARTS)
        memory = " / ".join(f"{total / 1e9:.2f}" for total in totals)
        print(f"{name:<24}{vision:>9}{projector:>11}{llm:>10}{count_image_tokens(preset.config):>14}   {memory}")
    print("GB: weights, gradients and AdamW state over all GPUs; a whole run: python -m bench.plan train_stage2.py")


def print_costs(gpu_counts: list[int], *, gpu: str, pack_tokens: int, names: Iterable[str] = (),
                mfu: float | None = None) -> None:
    """The table of presets x stages: memory, largest pack, and hours of the paper's data on each number of GPUs.

    names: presets; (): all but tiny. mfu: a rate that was measured; None takes ASSUMED_MFU and says so. Memory is that
    of the first number of GPUs.
    """
    rate = ASSUMED_MFU if mfu is None else mfu
    hours = "".join(f"{f'hours on {count}':>14}" for count in gpu_counts)
    print(f"{'preset':<24}{'stage':>6}{'GiB a GPU':>11}{'largest pack':>14}{'GPU-hours':>11}{hours}")
    for name in names or [name for name in presets() if name != "tiny"]:
        for stage in STAGE_PARTS:
            found = plan(name, stage, nproc=gpu_counts[0], gpu=gpu, pack_tokens=pack_tokens, mfu=rate)
            memory, gpu_hours = found["memory"][TOTAL] / GIB, found["gpu_hours"]
            hours = f"{gpu_hours:>11,.1f}" + "".join(f"{gpu_hours / count:>14,.2f}" for count in gpu_counts)
            hours = hours.replace("nan", "  -")  # the GPU's peak is unknown
            print(f"{name:<24}{stage:>6}{memory:>11.1f}{found['fits']:>14,}{hours}", flush=True)
    print(f"{gpu}; packs of {pack_tokens} tokens, activation checkpointing on, memory for {gpu_counts[0]} GPUs;")
    source = f"an ASSUMED {rate:.0%} MFU" if mfu is None else f"{rate:.0%} MFU, as given"
    print(f"hours at {source}, rows of ASSUMED length (bench/plan.py), perfect scaling, loading and saving not counted")


# ----------------------------------------------------------------------------------------------------------------------
# Command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # argparse would print the usage and exit with 2
        raise UserError(f"{message}; a script's own flags follow its name: python -m bench.plan train_stage2.py ...")


def main(arguments: list[str] | None = None) -> None:
    """The plan of the script that comes first, or else the tables."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first = str(Path(arguments[0])) if arguments else ""
    plans_a_script = bool(first) and first not in presets() and not first.startswith("-")
    parser = _Parser("python -m bench.plan", description=__doc__, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter,
                     add_help=not plans_a_script)  # --help is then the script's
    parser.add_argument("--gpu", default="a100-80gb", help=", ".join((*GPUS, "24gb (any memory)", "here")))
    if plans_a_script:
        scripts = sorted(path.name for path in Path(__file__).parent.parent.glob("train_stage[123]*.py"))
        if first not in scripts:
            raise UserError(f"{first}: neither a script ({', '.join(scripts)}) nor a preset ({', '.join(presets())})")
        parser.add_argument("--nproc", type=int, default=8)
        parser.add_argument("--nproc_per_node", type=int, default=GPUS_OF_A_NODE)
        own, flags = parser.parse_known_args(arguments[1:])
        config = parse_config(importlib.import_module(Path(first).stem).Config, flags)
        stage = int(first[len("train_stage")])
        print_plan(config, stage, nproc=own.nproc, gpu=own.gpu, per_node=own.nproc_per_node)
        return
    parser.add_argument("--mfu", type=float, help=f"a measured rate instead of the assumed {ASSUMED_MFU}")
    parser.add_argument("--pack_tokens", type=int, default=16384)
    parser.add_argument("presets", nargs="*", help="all but tiny when none is named")
    own = parser.parse_args(arguments)
    print_presets()
    print()
    print_costs([8, 32, 256], gpu=own.gpu, pack_tokens=own.pack_tokens, names=own.presets, mfu=own.mfu)


if __name__ == "__main__":
    run_main(main, resumes=False)
