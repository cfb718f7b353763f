"""What a run needs before anything is rented: FLOPs of a step, memory of a GPU, hours and GPU-hours of a stage.

FLOPs follow one formula, in the log's MFU and in the plan (multiply and add count as two; nothing computed twice by
activation checkpointing counts twice; what the feature layer never needs does not count):

    images    F_vision per image, forward: counted by torch's FlopCounterMode on the meta device
    decoder     2 N T + 2 A sum(length^2), forward: N matrix parameters of the layers, T tokens,
                A = layers * heads * head size; causal attention is half of the 4 A length^2 of a full one
    lm_head     2 D V R, forward: R response positions, the only ones that reach it
    backward    matrices once for the inputs' gradient, once more where the weights train; attention twice its forward;
                nothing where no gradient flows (the strong pass; a frozen tower; the decoder of a pack without images
                when it is frozen itself)

Memory is not a formula: the step of one pack runs on the meta device, operator by operator, and the live bytes are
counted; what FSDP2 keeps around it (shards, gathered layers, gradients on their way) is added. No GPU is needed.
"""

import copy
import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import guard  # noqa: F401  (before transformers)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from errors import UserError
from kernels.puma_loss import default_chunk_size
from model import STAGE_PARTS, MathModel, find_preset, load_model, parse_parts, part_of, presets
from runtime import checkpoint_activations, fsdp_groups

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """A GPU: dense bf16 FLOPs per second by its data sheet, the bytes that torch finds (rounded down: a card sold as 80
    GB has 79 GiB), and how torch calls it (lower case)."""

    peak_flops: float
    memory: float
    device_name: str


GPUS = {  # the first whose name fits counts
    "h100-pcie": GPU(756e12, 79 * GIB, "h100 pcie"),
    "h100-80gb": GPU(989e12, 79 * GIB, "h100"),
    "h200-141gb": GPU(989e12, 139 * GIB, "h200"),
    "a100-40gb": GPU(312e12, 39 * GIB, "a100-sxm4-40gb"),
    "a100-40gb-pcie": GPU(312e12, 39 * GIB, "a100-pcie-40gb"),
    "a100-80gb": GPU(312e12, 79 * GIB, "a100"),
}

# Assumptions of the plan, printed with it. An H100 ran stage 2 of the 1.5B preset at 0.36, compiled (bench/h100).
ASSUMED_MFU = 0.40
CONTEXT_BYTES = 1.5 * GIB  # CUDA context, cuBLAS and NCCL buffers
FRAGMENTATION = 1.05


@dataclass(frozen=True)
class Workload:
    """A stage of the paper: rows (stage 2: pairs), rows a step, and an assumed mean row in tokens and images."""

    rows: int
    global_batch: int
    prompt: int  # text tokens before the response
    response: int
    images: float
    strong_prompt: int = 0
    strong_images: float = 0.0


WORKLOADS = {
    1: Workload(200_000, 256, prompt=120, response=380, images=0.0),
    2: Workload(692_000, 512, prompt=60, response=250, images=1.0, strong_prompt=160, strong_images=0.5),
    3: Workload(996_000, 256, prompt=100, response=250, images=1.0),
}


# ---------------------------------------------------------------------------------------------------------------------
# FLOPs


@dataclass(frozen=True)
class Costs:
    """Forward FLOPs of a model: per image in the tower(s) and in the projector, per token and per squared length in
    the decoder, per response position in lm_head."""

    vision: float
    projector: float
    token: float
    squared_length: float
    response: float


_costs: "weakref.WeakKeyDictionary[MathModel, Costs]" = weakref.WeakKeyDictionary()


def model_costs(model: MathModel) -> Costs:
    """The forward costs of a model, sharded or not; computed once for each model, from a copy on the meta device."""
    if model not in _costs:
        config = copy.deepcopy(model.hf.config)
        layer = getattr(config, "vision_feature_layer", None)
        if layer is not None:  # layers above the feature layer do no useful work
            config.vision_config.num_hidden_layers += 1 + layer
            config.vision_feature_layer = -1
        with torch.device("meta"):
            plain = type(model.hf)(config).to(torch.bfloat16)
        text = config.text_config
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        layers = plain.model.language_model.layers
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            plain.model.get_image_features(**_pixels(plain.config, 1, torch.bfloat16))
        projector = plain.model.aligner if hasattr(plain.model, "aligner") else plain.model.multi_modal_projector
        matrices = sum(parameter.numel() for parameter in projector.parameters() if parameter.ndim == 2)
        projector = 2.0 * matrices * find_image_tokens(model)
        total = float(counter.get_total_flops())
        _costs[model] = Costs(
            vision=total - projector,
            projector=projector,
            token=2.0 * sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2),
            squared_length=2.0 * len(layers) * text.num_attention_heads * head_size,
            response=2.0 * text.hidden_size * text.vocab_size,
        )
    return _costs[model]


def _pixels(config: Any, images: int, dtype: torch.dtype) -> dict[str, Tensor]:
    sizes = {"pixel_values": config.vision_config.image_size}
    if hasattr(config, "high_res_vision_config"):
        sizes["high_res_pixel_values"] = config.high_res_vision_config.image_size
    return {name: torch.empty(images, 3, size, size, dtype=dtype, device="meta") for name, size in sizes.items()}


def pass_flops(
    costs: Costs,
    *,
    tokens: float,
    squared_lengths: float,
    responses: float,
    images: float,
    trains: Iterable[str] | None,
) -> float:
    """FLOPs of one pack's forward and, unless trains is None (no_grad), backward pass, by the formula above.

    squared_lengths: the sum over rows of length^2. trains: the parts whose weights get a gradient.
    """
    vision, projector = costs.vision * images, costs.projector * images
    decoder, attention = costs.token * tokens, costs.squared_length * squared_lengths
    lm_head = costs.response * responses
    forward = vision + projector + decoder + attention + lm_head
    if trains is None:
        return forward
    trains = set(trains)
    below = bool(images) and bool(trains & {"vision", "projector"})  # a gradient flows out of the decoder's input
    backward = 0.0
    if "llm" in trains or below:
        backward += (decoder + lm_head) * (2 if "llm" in trains else 1) + 2 * attention
    if below:
        backward += projector * (("vision" in trains) + ("projector" in trains))
    if "vision" in trains:
        backward += 2 * vision
    return forward + backward


def step_flops(model: MathModel, packs: Iterable[tuple[Any, Any]]) -> float:
    """Model FLOPs of this rank's packs (weak, strong or None) in one step."""
    costs = model_costs(model)
    total = 0.0
    for weak, strong in packs:
        for batch, trains in ((weak, model.trained_parts), (strong, None)):
            if batch is None or not batch.num_tokens:
                continue
            lengths = batch.cu_seqlens.diff().double()
            total += pass_flops(
                costs,
                tokens=batch.num_tokens,
                squared_lengths=float((lengths * lengths).sum()),
                responses=batch.num_response_tokens,
                images=next((len(pixels) for pixels in batch.pixel_values.values()), 0),
                trains=trains,
            )
    return total


def row_flops(costs: Costs, workload: Workload, image_tokens: int, trains: Iterable[str]) -> float:
    """FLOPs of the mean row (pair) of a workload."""
    length = workload.prompt + workload.response + workload.images * image_tokens
    total = pass_flops(
        costs,
        tokens=length,
        squared_lengths=length**2,
        responses=workload.response,
        images=workload.images,
        trains=trains,
    )
    if workload.strong_prompt:
        length = workload.strong_prompt + workload.response + workload.strong_images * image_tokens
        total += pass_flops(
            costs,
            tokens=length,
            squared_lengths=length**2,
            responses=workload.response,
            images=workload.strong_images,
            trains=None,
        )
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Memory of one pack's step, run on the meta device


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators create and that are still alive; `peak` is the most at once."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.live = self.peak = 0
        self.known: weakref.WeakSet = weakref.WeakSet()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """These exist already and are accounted for elsewhere."""
        for tensor in tensors:
            self.known.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device:
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known.add(storage)
                    size = -(-storage.nbytes() // 512) * 512  # the CUDA allocator's grain
                    self.live += size
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._free, size)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


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
        inputs = ctx.saved_tensors[:4]
        return tuple(
            torch.empty_like(tensor) if wanted else None
            for tensor, wanted in zip(inputs, ctx.needs_input_grad, strict=True)
        )


@contextmanager
def _attention_fused() -> Iterator[None]:
    """scaled_dot_product_attention -> the stand-in (on the meta device it would fall back to full score matrices)."""

    def stand_in(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
        return _FusedAttention.apply(query, key, value, attn_mask)

    original, F.scaled_dot_product_attention = F.scaled_dot_product_attention, stand_in
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _planned_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _FusedAttention.apply(query, key, value, None).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("nanopuma_plan", _planned_attention)


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
        ctx.weight_shape, ctx.weight_dtype = weight.shape, weight.dtype
        del chunk
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None]:
        weight_gradient = ctx.weight_gradient
        if weight_gradient is not None:  # the op rescales into a new tensor while the accumulated one still lives
            weight_gradient = weight_gradient.new_empty(ctx.weight_shape, dtype=ctx.weight_dtype)
        ctx.weight_gradient = None
        return ctx.hidden_gradient, None, weight_gradient


def pack_bytes(
    model: MathModel, *, tokens: int, images: int, responses: int, strong: tuple[int, int] | None = None
) -> int:
    """Peak bytes that the forward and backward pass of one pack adds on a GPU, parameters and their gathering apart.

    model: on the meta device, in bf16, in training mode, its trained parts set. strong: (tokens, images) of the
    stage-2 strong pack. Activations, temporaries, loss buffers and the gradient of one weight at a time are in it.
    """
    model.language_model.set_attn_implementation("nanopuma_plan")
    live = _LiveBytes()
    live.ignore([*model.parameters(), *model.buffers()])
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda done: setattr(done, "grad", None))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    image_tokens = find_image_tokens(model)

    def hidden_states(tokens: int, images: int) -> Tensor:
        table = model.language_model.embed_tokens
        text_tokens = max(1, tokens - images * image_tokens)
        embedded = table(torch.empty(text_tokens, dtype=torch.int64, device="meta"))
        if images:
            pixels = _pixels(model.config, images, table.weight.dtype)
            features = model.hf.model.get_image_features(**pixels).pooler_output
            features = features if isinstance(features, Tensor) else torch.cat(list(features))
            embedded = torch.cat([embedded, features.reshape(-1, embedded.shape[-1])])
        positions = torch.empty(1, len(embedded), dtype=torch.int64, device="meta")
        output = model.language_model(inputs_embeds=embedded[None], position_ids=positions, use_cache=False)
        return output.last_hidden_state[0][torch.empty(responses, dtype=torch.int64, device="meta")]

    try:
        with _attention_fused(), live:
            strong_hidden = None
            if strong is not None:
                with torch.no_grad():
                    strong_hidden = hidden_states(*strong)
            loss = _PlannedLoss.apply(hidden_states(tokens, images), strong_hidden, model.hf.lm_head.weight)
            if loss.requires_grad:
                loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    return live.peak


def find_image_tokens(model: MathModel) -> int:
    """Tokens of an image in the decoder's sequence."""
    config = model.config
    if hasattr(config, "image_seq_length") and not hasattr(config, "high_res_vision_config"):
        return config.image_seq_length
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2


@dataclass(frozen=True)
class Plan:
    """Bytes on each GPU. `fixed` is there all the time; `pack` belongs to the micro-batch."""

    parameters: float
    gradients: float
    optimizer: float
    gathered: float
    pack: float
    total: float


def plan_memory(
    model: MathModel, *, nproc: int, pack: dict[str, Any], on_gpu: Iterable[str], sync_every_pack: bool = True
) -> Plan:
    """Memory of one GPU among nproc that shard `model` (on the meta device) and train it on packs like `pack`.

    pack: arguments of pack_bytes. on_gpu: the parts the stage computes with (stage 1 leaves the towers on the CPU).
    """
    on_gpu = set(on_gpu)
    sizes = {"trained": 0, "frozen": 0, "root": 0, "root trained": 0}
    root = {id(parameter) for module in (model.language_model.embed_tokens, model.language_model.norm, model.hf.lm_head)
            for parameter in module.parameters()}  # fmt: skip
    names = {parameter: name for name, parameter in model.named_parameters()}

    def is_gathered(parameter: nn.Parameter) -> bool:  # one GPU computes with what is frozen as it is stored
        return part_of(names[parameter]) in on_gpu and (nproc > 1 or parameter.requires_grad)

    for parameter, name in names.items():
        if part_of(name) not in on_gpu:
            continue
        sizes["trained" if parameter.requires_grad else "frozen"] += parameter.numel()
        if id(parameter) in root:
            sizes["root"] += parameter.numel() if is_gathered(parameter) else 0
            sizes["root trained"] += parameter.numel() if parameter.requires_grad else 0
    groups = [[p for module in group for p in module.parameters() if is_gathered(p)] for group in fsdp_groups(model)]
    group = max(sum(parameter.numel() for parameter in group) for group in groups)
    trained_group = max(sum(parameter.numel() for parameter in group if parameter.requires_grad) for group in groups)
    parameters = (4 * sizes["trained"] + 2 * sizes["frozen"]) / nproc
    gradients = 4 * sizes["trained"] / nproc if sync_every_pack else 4.0 * sizes["trained"]
    optimizer = 8 * sizes["trained"] / nproc
    # bf16: the root's group for the whole pass; a group, the next one on its way, and the buffer it arrives in.
    # On the way back: the root's bf16 gradient, a group's bf16 gradient and two fp32 buffers that are being summed.
    gathered = 2 * sizes["root"] + 3 * 2 * group + 2 * sizes["root trained"] + (2 + 2 * 4) * trained_group
    # when the root's own gradient is summed, at the very end, the activations are gone
    at_the_end = 2 * sizes["root"] + (2 + 4) * sizes["root trained"]
    peak = pack_bytes(model, **pack)
    dynamic = max(gathered + peak, at_the_end)
    total = FRAGMENTATION * (parameters + gradients + optimizer + dynamic) + CONTEXT_BYTES
    return Plan(parameters, gradients, optimizer, gathered, peak, total)


# ---------------------------------------------------------------------------------------------------------------------
# The plan of a run


def _build(preset: str, stage: int, trains: tuple[str, ...], activation_checkpointing: bool) -> MathModel:
    model = load_model(preset, random=True, dtype=torch.bfloat16, device="meta")
    model.set_trainable(trains)
    model.train()
    if activation_checkpointing:
        checkpoint_activations(model)
    return model


def _pack(workload: Workload, image_tokens: int, tokens: int) -> dict[str, Any]:
    """A pack of `tokens` tokens of mean rows, as arguments of pack_bytes."""
    length = workload.prompt + workload.response + workload.images * image_tokens
    rows = tokens / length
    pack: dict[str, Any] = {
        "tokens": tokens,
        "images": math.ceil(rows * workload.images),
        "responses": math.ceil(rows * workload.response),
    }
    if workload.strong_prompt:
        strong = workload.strong_prompt + workload.response + workload.strong_images * image_tokens
        pack["strong"] = (math.ceil(rows * strong), math.ceil(rows * workload.strong_images))
    return pack


def plan(
    preset: str, stage: int, *, nproc: int, gpu: str, trains: tuple[str, ...] = (), pack_tokens: int = 16384,
    activation_checkpointing: bool = True, sync_every_pack: bool = True, shard_size: int = 0,
    workload: Workload | None = None, mfu: float = ASSUMED_MFU,
) -> dict[str, Any]:  # fmt: skip
    """Memory at pack_tokens, the largest pack that fits, and the time of the stage.

    shard_size: GPUs that share one copy of the model; 0: all nproc. Raises UserError for an unknown GPU and for
    numbers that make no run.
    """
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu}: unknown; known: {', '.join(GPUS)}")
    if nproc < 1 or pack_tokens < 1:
        raise UserError(f"--nproc {nproc} --pack_tokens {pack_tokens}: both must be at least 1")
    if shard_size < 0 or (shard_size and nproc % shard_size):
        raise UserError(f"--shard_size {shard_size} does not divide --nproc {nproc}; use 0 to shard over all")
    workload = workload or WORKLOADS[stage]
    trains = trains or STAGE_PARTS[stage]
    image_tokens = find_preset(preset).image_tokens
    on_gpu = ("llm",) if not workload.images and not {"vision", "projector"} & set(trains) else STAGE_PARTS[3]
    model = _build(preset, stage, trains, activation_checkpointing)

    def memory_at(tokens: int) -> Plan:
        return plan_memory(
            model,
            nproc=shard_size or nproc,
            pack=_pack(workload, image_tokens, tokens),
            on_gpu=on_gpu,
            sync_every_pack=sync_every_pack,
        )

    here = memory_at(pack_tokens)
    # activations grow with the number of tokens: two points give the line
    other_tokens = 4096 if pack_tokens != 4096 else 8192
    slope = (here.total - memory_at(other_tokens).total) / (pack_tokens - other_tokens)
    capacity = GPUS[gpu].memory
    fits = int((capacity - (here.total - pack_tokens * slope)) / slope) // 1024 * 1024
    counts = {part: 0 for part in STAGE_PARTS[3]}
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    flops = row_flops(model_costs(model), workload, image_tokens, trains) * workload.rows
    gpu_seconds = flops / (GPUS[gpu].peak_flops * mfu)
    return {
        "preset": preset,
        "stage": stage,
        "trains": trains,
        "parameters": counts,
        "memory": here,
        "fits": max(0, fits),
        "capacity": capacity,
        "flops": flops,
        "gpu_hours": gpu_seconds / 3600,
        "hours": gpu_seconds / 3600 / nproc,
        "workload": workload,
    }


def dry_run(config: Any, stage: int) -> None:
    """Print the plan of a script's configuration (preset, train, nproc, gpu, pack_tokens, ...), then of every preset in
    every stage on as many GPUs."""
    trains = parse_parts(getattr(config, "train", "llm"))  # stage 1 has no choice
    chosen = plan(
        config.preset,
        stage,
        nproc=config.nproc,
        gpu=config.gpu,
        trains=trains,
        pack_tokens=config.pack_tokens,
        activation_checkpointing=config.activation_checkpointing,
        sync_every_pack=config.sync_every_pack,
        shard_size=config.shard_size,
    )
    memory, workload = chosen["memory"], chosen["workload"]
    counts = "  ".join(f"{part} {count / 1e6:,.1f}M" for part, count in chosen["parameters"].items())
    print(f"stage {stage}, {config.preset}, {config.nproc} x {config.gpu}; trains {', '.join(trains)}")
    print(f"parameters: {counts}")
    print(f"memory of one GPU with packs of {config.pack_tokens} tokens, activation checkpointing "
          f"{'on' if config.activation_checkpointing else 'off'} (GiB):")  # fmt: skip
    for name, value in (
        ("parameters", memory.parameters),
        ("gradients", memory.gradients),
        ("AdamW state", memory.optimizer),
        ("gathered layers and gradients on their way", memory.gathered),
        ("activations, temporaries, loss buffers", memory.pack),
        ("in all, with 5 % fragmentation and the CUDA context", memory.total),
    ):
        print(f"  {name:<54}{value / GIB:>8.2f}")
    print(f"  {'of':<54}{chosen['capacity'] / GIB:>8.2f}")
    print(_advice(config, chosen))
    shared = loader_bytes(config.preset, workload, config.global_batch / config.nproc, config.num_workers)
    print(f"shared memory (/dev/shm) for the images of each GPU's loader, {config.num_workers} processes: "
          f"{shared / GIB:.2f} GiB")  # fmt: skip
    print(f"work: {workload.rows:,} rows = {chosen['flops']:.3g} FLOPs; {chosen['gpu_hours']:,.0f} GPU-hours, "
          f"{chosen['hours']:,.1f} hours at an ASSUMED {ASSUMED_MFU:.0%} MFU (not measured)")  # fmt: skip
    print(
        f"  ASSUMED mean row: prompt {workload.prompt} text tokens, response {workload.response}, "
        f"images {workload.images:g}; strong prompt {workload.strong_prompt}, images {workload.strong_images:g}"
    )
    print()
    print_costs([config.nproc], gpu=config.gpu, pack_tokens=config.pack_tokens)


def loader_bytes(preset: str, workload: Workload, rows: float, num_workers: int) -> float:
    """Bytes of images that a rank's loader processes hold ready, at the workload's mean: each has two steps ahead
    (DataLoader's prefetch), `rows` rows (pairs) a step. They lie in shared memory, of which containers often have
    64 MB."""
    image = sum(pixels.nbytes for pixels in _pixels(find_preset(preset).config, 1, torch.uint8).values())
    return 2 * num_workers * rows * (workload.images + workload.strong_images) * image


def _advice(config: Any, chosen: dict[str, Any]) -> str:
    fits = chosen["fits"]
    if fits >= config.pack_tokens:
        return f"fits; the largest pack that fits: --pack_tokens {fits}"
    advice = f"DOES NOT FIT with --pack_tokens {config.pack_tokens}"
    if fits >= 2048:
        return f"{advice}; the largest pack that fits: --pack_tokens {fits}"
    if not config.activation_checkpointing:
        return f"{advice}; add --activation_checkpointing"
    return f"{advice}, nor with smaller packs; more GPUs (--nproc) or larger ones (--gpu)"


def print_costs(
    gpu_counts: list[int],
    *,
    gpu: str,
    pack_tokens: int = 16384,
    names: Iterable[str] = (),
    mfu: float | None = None,
) -> None:
    """The table of presets x stages: memory, largest pack, and hours of the paper's data on each number of GPUs.

    mfu: a rate that was measured; None takes ASSUMED_MFU and says so. Memory is that of the first number of GPUs.
    """
    hours = "".join(f"{f'hours on {count}':>14}" for count in gpu_counts)
    print(f"{'preset':<24}{'stage':>6}{'GiB a GPU':>11}{'largest pack':>14}{'GPU-hours':>11}{hours}")
    for name in names or [name for name in presets() if name != "tiny"]:
        for stage in (1, 2, 3):
            first = plan(name, stage, nproc=gpu_counts[0], gpu=gpu, pack_tokens=pack_tokens, mfu=mfu or ASSUMED_MFU)
            times = "".join(f"{first['gpu_hours'] / count:>14,.2f}" for count in gpu_counts)
            memory = f"{first['memory'].total / GIB:.1f}"
            print(
                f"{name:<24}{stage:>6}{memory:>11}{first['fits']:>14,}{first['gpu_hours']:>11,.1f}{times}", flush=True
            )
    rate = f"an ASSUMED {ASSUMED_MFU:.0%} MFU" if mfu is None else f"{mfu:.0%} MFU, as given"
    print(f"{gpu}; packs of {pack_tokens} tokens, activation checkpointing on, memory for {gpu_counts[0]} GPUs;")
    print(
        f"hours at {rate}, rows of ASSUMED length (memory.WORKLOADS), perfect scaling, loading and saving not counted"
    )
