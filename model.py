"""The models of nanoPUMA: presets, assembly, what trains in a stage, and the forward pass over packed rows.

A model is a stock transformers model, so a saved checkpoint opens with `AutoModelForImageTextToText.from_pretrained`.
Its folder says all about it (weights, chat template, image token, image statistics), so `--model FOLDER` needs nothing
else. A preset is a recipe to assemble one:

    tiny                    a small LLaVA that trains on a CPU; its pretrained, aligned parts ship in tiny/
    puma-qwen2-1.5b / -7b   LLaVA: SigLIP-so400m-patch14-384 (feature layer -2, all 729 patches), MLP projector, Qwen2
    puma-deepseek-math-7b   DeepSeek-VL hybrid: SAM-B + SigLIP-L (576 tokens) around DeepSeek-Math-7B

`MathModel` wraps a model and adds what transformers does not have: a forward over packed rows, inside which the
script's loss is called, so that FSDP2 holds lm_head gathered, tied embeddings work and full logits never exist.

    python model.py assemble puma-qwen2-1.5b OUT  put pretrained parts together once (--llm, --vision: other ones)
    python model.py export CHECKPOINT OUT         a training checkpoint -> a folder that transformers opens
    python -m bench.plan                          the presets: parameters per part, image tokens, memory per stage
"""

import argparse
import copy
import functools
import inspect
import json
import os
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention.varlen import varlen_attn
from torch.utils.flop_counter import FlopCounterMode

import guard  # noqa: F401  (before transformers)
from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer,
                          DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridImageProcessorPil,
                          DeepseekVLHybridProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor,
                          PretrainedConfig, PreTrainedModel, ProcessorMixin, SiglipImageProcessorPil,
                          SiglipVisionConfig, SiglipVisionModel)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from errors import UserError, run_main

PARTS = ("vision", "projector", "llm")
DEFAULT_PRESET = "puma-qwen2-1.5b"
PRESETS = Path(__file__).resolve().parent / "presets"
TINY_FOLDER = PRESETS.with_name("tiny")

# ----------------------------------------------------------------------------------------------------------------------
# Presets


@dataclass(frozen=True)
class Preset:
    """One architecture at one size, and where its pretrained parts come from: an entry of presets/presets.json."""

    config: PretrainedConfig
    llm: str  # hub name or folder of the language model
    vision: str  # hub name or folder of the tower(s)
    image_token: str
    chat_template: str  # a file in presets/


def presets() -> dict[str, Preset]:
    """Name -> Preset. Read anew each time, because configurations can be changed in place."""
    found = json.loads((PRESETS / "presets.json").read_text())
    return {name: Preset(AutoConfig.for_model(**entry.pop("config")), **entry) for name, entry in found.items()}


def find_preset(name: str) -> Preset:
    """The preset of that name, "" for DEFAULT_PRESET; UserError names the ones there are."""
    known = presets()
    if (name or DEFAULT_PRESET) not in known:
        raise UserError(f"--preset {name}: unknown preset {name!r}; there are: {', '.join(known)}")
    return known[name or DEFAULT_PRESET]


# ----------------------------------------------------------------------------------------------------------------------
# Loading: a model's folder, a preset's random weights, or its pretrained parts


def load_model(preset: str = "", source: str = "", *, random: bool = False, dtype: torch.dtype = torch.float32,
               device: str = "cpu", made_by: str = "an earlier stage or python model.py assemble") -> "MathModel":
    """Load a model's folder, or build a preset's model.

    source: a folder that an earlier stage (or `python model.py assemble`) wrote. It says what it is: preset may be "".
    Without it the preset's pretrained parts are assembled ("": DEFAULT_PRESET). random: the preset's random weights at
    the true size, no network. dtype: of all weights. device: "meta" allocates nothing. made_by: what makes the folder,
    should it be missing.
    Raises UserError for an unknown preset, or a folder that is missing, damaged or of another architecture.
    """
    if preset == "tiny" and not random:
        source = source or str(TINY_FOLDER)  # its pretrained parts ship with the repository, aligned
    if source and not random:
        _check_folder(source, preset, made_by)
        if device == "meta":
            hf = _random(_pretrained(AutoConfig, source, EXPORT_AGAIN), dtype, device)
        else:
            hf = _pretrained(AutoModelForImageTextToText, source, EXPORT_AGAIN, dtype=dtype)
    elif random:
        hf = _random(find_preset(preset).config, dtype, device)
    else:
        hf = assemble(find_preset(preset), dtype=dtype)
    return MathModel(hf, load_processor(preset, "" if random else source, random=random))


EXPORT_AGAIN = "export the checkpoint again"
DOWNLOAD = (
    "download it once and pass its folder: python model.py assemble PRESET OUT --llm FOLDER --vision FOLDER, then "
    "--model OUT; --random_weights needs nothing"
)


def _pretrained(kind: type, name: str, remedy: str, **options: object) -> Any:
    """kind.from_pretrained(name), where what is wrong with the folder or the hub is one line."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: {kind.__name__} cannot be loaded ({what}); {remedy}") from error


def _random(config: PretrainedConfig, dtype: torch.dtype, device: str) -> PreTrainedModel:
    # Drawn in float32 and rounded: the same seed then gives the same weights in every dtype (and a CPU draws float32
    # faster than bfloat16). Parameters alone: rotary frequencies are buffers and stay float32.
    with torch.device(device):
        hf = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    for parameter in hf.parameters():
        parameter.data = parameter.data.to(dtype)
    return hf


def _check_folder(source: str, preset: str, made_by: str) -> None:
    """Raise UserError for a folder without a model that trains here, or of another size than an explicit --preset."""
    path = Path(source) / "config.json"
    if not path.is_file():
        raise UserError(f"{source}: no config.json; --model wants the folder of a model, made by {made_by}")
    found = json.loads(path.read_text())
    kinds = sorted({known.config.model_type for known in presets().values()})
    if found.get("model_type") not in kinds:
        raise UserError(f"{source}: a model of type {found.get('model_type')!r}; what trains is {' or '.join(kinds)}")
    for key in ("hidden_size", "num_hidden_layers") if preset else ():
        here, there = found["text_config"].get(key), getattr(find_preset(preset).config.text_config, key)
        if here != there:
            what = f"not a {preset} checkpoint ({key} {here}, not {there})"
            raise UserError(f"{source}: {what}; leave --preset out: the folder says what it is")


def assemble(
    preset: Preset, *, llm: str = "", vision: str = "", dtype: torch.dtype = torch.bfloat16
) -> PreTrainedModel:
    """Put a language model and pretrained tower(s) together; the LLaVA projector starts from random weights.

    llm, vision: hub names or folders; "" takes the preset's. The configuration follows the parts that are found
    (vocabulary, tied embeddings). The hybrid brings its own projector, which is kept.
    """
    llm, vision = llm or preset.llm, vision or preset.vision
    language_model = _pretrained(AutoModelForCausalLM, llm, DOWNLOAD, dtype=dtype)
    config = preset.config
    if isinstance(config, LlavaConfig):
        config.vision_config = _pretrained(SiglipVisionConfig, vision, DOWNLOAD)
        config.vision_config.vision_use_head = False  # transformers 5.17 does not take it as an argument
        tower = _pretrained(SiglipVisionModel, vision, DOWNLOAD, dtype=dtype, config=config.vision_config)
        config.text_config = language_model.config
        with torch.device("meta"):
            hf = LlavaForConditionalGeneration(config)
        hf.model.vision_tower = tower
        projector = hf.model.multi_modal_projector.to_empty(device="cpu").to(dtype)
        for parameter in projector.parameters():
            std = 0.02 if parameter.ndim == 2 else 0.0  # matrices; biases start at 0
            nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(0))
    else:
        hf = _pretrained(DeepseekVLHybridForConditionalGeneration, vision, DOWNLOAD, dtype=dtype)
        hf.config.text_config = hf.model.config.text_config = language_model.config
    hf.config.tie_word_embeddings = language_model.config.tie_word_embeddings
    hf.model.language_model = language_model.model
    hf.lm_head = language_model.lm_head
    return hf


def load_processor(preset: str, source: str = "", *, random: bool = False, llm: str = "") -> ProcessorMixin:
    """The stock processor (tokenizer, image processor, chat template) of a model's folder, or of a preset.

    random: the shipped tiny tokenizer stands in for the preset's own, which needs the hub.
    """
    folder = source or ("" if preset != "tiny" and not random else str(TINY_FOLDER))
    if folder:  # backend "pil" gives the same pixels where torchvision is installed
        saved = _pretrained(AutoProcessor, folder, "its processor is missing or damaged", backend="pil")
    if source or preset == "tiny":
        return saved
    chosen = find_preset(preset)
    if random:
        tokenizer, template, image_token = saved.tokenizer, saved.chat_template, saved.image_token
    else:
        image_token = chosen.image_token
        special = {"image_token": image_token}
        tokenizer = _pretrained(AutoTokenizer, llm or chosen.llm, DOWNLOAD, extra_special_tokens=special)
        template = (PRESETS / chosen.chat_template).read_text().replace("IMAGE_TOKEN", image_token)
    if not isinstance(chosen.config, LlavaConfig):
        images, count = DeepseekVLHybridImageProcessorPil(), count_image_tokens(chosen.config)
        return DeepseekVLHybridProcessor(images, tokenizer, chat_template=template, num_image_tokens=count)
    size = chosen.config.vision_config.image_size
    return LlavaProcessor(SiglipImageProcessorPil(size={"height": size, "width": size}), tokenizer,
                          patch_size=chosen.config.vision_config.patch_size, vision_feature_select_strategy="full",
                          num_additional_image_tokens=0, image_token=image_token, chat_template=template)


# ----------------------------------------------------------------------------------------------------------------------
# Which part a parameter belongs to, and what trains

_PARTS_BY_MODULE = {"multi_modal_projector": "projector", "aligner": "projector"}
_PARTS_BY_MODULE |= {"language_model": "llm", "lm_head": "llm"}


def part_of(parameter_name: str) -> str:
    """ "vision", "projector" or "llm" for a parameter name, with or without MathModel's `hf.` in front."""
    module = parameter_name.removeprefix("hf.").removeprefix("model.").split(".")[0]
    # vision_tower, vision_model; high_res_vision_*: SAM, its neck, its projection and the scalar that mixes them
    return "vision" if "vision" in module else _PARTS_BY_MODULE[module]


def parse_parts(text: str) -> tuple[str, ...]:
    """ "vision,projector" -> ("vision", "projector"); UserError for a name that is no part."""
    parts = tuple(name.strip() for name in text.split(","))
    for name in parts:
        if name not in PARTS:
            raise UserError(f"--train {text!r}: unknown part {name or '(none)'}; the parts are {', '.join(PARTS)}")
    return parts


# ----------------------------------------------------------------------------------------------------------------------
# Attention over packed rows: each row sees itself, causally

# torch 2.11 groups heads unasked; later versions want to be told.
_VARLEN_OPTIONS = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None,
                     scaling: float | None = None, cu_seq_lens_q: Tensor | None = None, max_length_q: int | None = None,
                     **kwargs: object) -> tuple[Tensor, None]:
    """A transformers attention function for one pack: query [1, H, L, D], key, value [1, H_kv, L, D] -> [1, L, H, D].

    cu_seq_lens_q [rows + 1] int32 marks where rows begin. CUDA in half precision: torch's varlen_attn (flash
    attention); elsewhere: SDPA row by row, which computes no score between rows either.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q; generation uses sdpa")
    if not query.is_cpu and query.dtype in (torch.bfloat16, torch.float16):
        rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        ends = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        return varlen_attn(*rows, *ends, scale=scaling, window_size=(-1, 0), **_VARLEN_OPTIONS).unsqueeze(0), None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    output = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in rows]
    return torch.cat(output, dim=2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("nanopuma_packed", packed_attention)
disable_progress_bar()  # a bar per rank and file for what takes seconds


# ----------------------------------------------------------------------------------------------------------------------
# The model


class MathModel(nn.Module):
    """A stock model (`hf`) and its processor, with a forward pass over packed rows inside which a loss is called."""

    def __init__(self, hf: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.hf = hf
        self.processor = processor
        hf.config.image_token_id = processor.image_token_id  # with random weights the shipped tokenizer's
        for size in [name for name in ("", "high_res_") if hasattr(processor.image_processor, f"{name}image_mean")]:
            statistics = [getattr(processor.image_processor, f"{size}image_{name}") for name in ("mean", "std")]
            # Buffers live on the device: made in each pass, they would make the host wait for the GPU.
            values = torch.tensor(statistics).view(2, 1, 3, 1, 1)
            self.register_buffer(f"{size}pixel_values_statistics", values, persistent=False)
        hf.model.language_model.set_attn_implementation("nanopuma_packed")
        self.set_trainable(PARTS)

    def forward(self, loss_function: Callable, *args: object, **kwargs: object) -> object:
        """loss_function(self, *args, **kwargs), called inside the root module's forward.

        There FSDP2 holds lm_head gathered, which the loss multiplies with; hence `model(puma, ...)`, never
        `puma(model, ...)`. Counts and weights travel as Python numbers: FSDP2's bf16 policy casts every floating
        tensor among the arguments, also inside dataclasses (100,001 would arrive as 99,840).
        """
        return loss_function(self, *args, **kwargs)

    @property
    def config(self) -> PretrainedConfig:
        """The stock model's configuration."""
        return self.hf.config

    @property
    def vision_modules(self) -> list[nn.Module]:
        """The tower(s): one for LLaVA, SigLIP's and SAM's for the hybrid."""
        inner = self.hf.model
        if hasattr(inner, "vision_tower"):
            return [inner.vision_tower]
        return [inner.vision_model, inner.high_res_vision_model]

    @property
    def projector(self) -> nn.Module:
        """What maps image features to the LLM's width."""
        inner = self.hf.model
        return inner.multi_modal_projector if hasattr(inner, "multi_modal_projector") else inner.aligner

    @property
    def language_model(self) -> nn.Module:
        """The decoder without lm_head."""
        return self.hf.model.language_model

    @functools.cached_property
    def costs(self) -> "Costs":
        """Forward FLOPs of the model's parts."""
        return model_costs(self)

    @property
    def lm_head(self) -> nn.Module:
        """The output layer; its weight is [V, D]."""
        return self.hf.lm_head

    def set_trainable(self, parts: Iterable[str]) -> None:
        """Let gradients flow to these parts alone (never to what the feature layer does not reach)."""
        self.trained_parts = tuple(parts)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(part_of(name) in self.trained_parts)
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Freeze what no gradient can reach: encoder layers above the feature layer, SigLIP's final norm and head.

        With them trainable the optimizer would hold no state for them, and a checkpoint would not load.
        """
        layer = getattr(self.config, "vision_feature_layer", None)
        if layer is None:  # the hybrid reads the towers' last states
            return
        tower = getattr(self.vision_modules[0], "vision_model", self.vision_modules[0])
        above = tower.encoder.layers[len(tower.encoder.layers) + 1 + layer :]
        for module in (*above, tower.post_layernorm, getattr(tower, "head", nn.Identity())):
            module.requires_grad_(False)

    def response_hidden_states(self, batch: "MicroBatch") -> Tensor:  # noqa: F821
        """Final hidden states that predict the response tokens of a data.MicroBatch: [R, D].

        Only these rows ever meet lm_head. Row k of a weak and of a strong micro-batch predict the same token.
        """
        if isinstance(self.lm_head.weight, DTensor):
            raise UserError("the weights are sharded: call the loss as model(loss, ...), never as loss(model, ...)")
        pixels = {name: self.normalize(name, value) for name, value in batch.pixel_values.items()}
        inputs: dict[str, Tensor] = {"input_ids": batch.input_ids, **pixels}
        needs_grad_path = torch.is_grad_enabled() and "llm" not in self.trained_parts
        if not pixels and (batch.run_vision or needs_grad_path):
            # Another rank's micro-batch has an image. Every rank must gather the tower's FSDP groups, in the same
            # order, so this one shows a blank image, before the decoder as images are, whose features weigh nothing.
            # Likewise where the decoder is frozen: a loss without a gradient has no backward pass.
            embeddings = self.language_model.embed_tokens(batch.input_ids)
            inputs = {"inputs_embeds": embeddings + 0.0 * self.blank_features(embeddings).sum()}
        output = self.hf.model(**inputs, position_ids=batch.position_ids, use_cache=False,
                               cu_seq_lens_q=batch.cu_seqlens, max_length_q=batch.max_seqlen)
        return output.last_hidden_state[0][batch.response_positions]

    def blank_features(self, like: Tensor) -> Tensor:
        """Projected features of one blank image."""
        blank = blank_pixels(self.config, 1, dtype=like.dtype, device=like.device)
        return torch.cat(list(self.hf.model.get_image_features(**blank).pooler_output))

    def normalize(self, name: str, pixels: Tensor) -> Tensor:
        """uint8 [I, 3, H, W] as the image processor resized them -> its normalised floats, on the pixels' device."""
        mean, std = self.get_buffer(f"{name}_statistics").to(pixels.device)
        scaled = (pixels.double() / 255).float()  # as the stock processor rounds: equal bit for bit
        return ((scaled - mean) / std).to(self.lm_head.weight.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# FLOPs
#
# One formula for the log's MFU and for the plan (bench/plan.py). Multiply and add count as two; what activation
# checkpointing computes again, and what the feature layer never needs, does not count:
#
#   images    F_vision per image, forward: counted by torch's FlopCounterMode on the meta device
#   decoder   2 N T + 2 A sum(length^2), forward: N matrix parameters of the layers, T tokens,
#             A = layers * heads * head size; causal attention is half of the 4 A length^2 of a full one
#   lm_head   2 D V R, forward: R response positions, the only ones that reach it
#   backward  matrices once for the inputs' gradient, once more where the weights train; attention twice its forward;
#             nothing where no gradient flows (the strong rows; a frozen tower; the decoder of rows without images when
#             it is frozen itself)


# peak_flops: dense bf16 FLOPs per second by the data sheet. memory: the bytes that torch finds, rounded down (a card
# sold as 80 GB has 79 GiB). device_name: what torch's name of it contains, in lower case.
GPU = namedtuple("GPU", "peak_flops memory device_name")
GPUS = {  # the first whose name fits counts
    "h100-pcie": GPU(756e12, 79 * 2**30, "h100 pcie"),
    "h100-80gb": GPU(989e12, 79 * 2**30, "h100"),
    "h200-141gb": GPU(989e12, 139 * 2**30, "h200"),
    "a100-40gb": GPU(312e12, 39 * 2**30, "a100-sxm4-40gb"),
    "a100-40gb-pcie": GPU(312e12, 39 * 2**30, "a100-pcie-40gb"),
    "a100-80gb": GPU(312e12, 79 * 2**30, "a100"),
}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOPs per second of a GPU by its data sheet; None where MFU means nothing (CPU, unknown GPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    found = next((gpu.peak_flops for gpu in GPUS.values() if gpu.device_name in name), None)
    if found is None and int(os.environ.get("RANK", 0)) == 0:
        print(f"note: {name} is not in model.GPUS; the log shows no MFU", flush=True)
    return found


# Forward FLOPs: per image in the tower(s) and in the projector, per token and per squared length in the decoder, per
# response token in lm_head.
Costs = namedtuple("Costs", "vision projector token squared_length response")


def model_costs(model: MathModel) -> Costs:
    """The forward costs of a model, sharded or not."""
    config = copy.deepcopy(model.config)
    layer = getattr(config, "vision_feature_layer", None)
    if layer is not None:  # layers above the feature layer do no useful work
        config.vision_config.num_hidden_layers += 1 + layer
        config.vision_feature_layer = -1
    with torch.device("meta"):
        plain = type(model.hf.model)(config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain.get_image_features(**blank_pixels(config, 1))
    text, layers = config.text_config, model.language_model.layers
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    projector = 2.0 * _matrix_parameters(model.projector) * count_image_tokens(config)
    return Costs(counter.get_total_flops() - projector, projector, token=2.0 * _matrix_parameters(layers),
                 squared_length=2.0 * len(layers) * text.num_attention_heads * head_size,
                 response=2.0 * text.hidden_size * text.vocab_size)


def _matrix_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


def count_image_tokens(config: PretrainedConfig) -> int:
    """Tokens of an image in the LLM's sequence: one for each patch of the (low-resolution) tower."""
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2


def default_max_length(config: PretrainedConfig) -> int:
    """Tokens of the longest row by default: 2,048, or fewer where the LLM's positions end earlier."""
    return min(2048, config.text_config.max_position_embeddings)


def blank_pixels(
    config: PretrainedConfig, images: int, dtype: torch.dtype = torch.float32, device: str = "meta"
) -> dict[str, Tensor]:
    """Black images [images, 3, size, size] as each of the model's towers takes them."""
    sizes = {"pixel_values": config.vision_config.image_size}
    if hasattr(config, "high_res_vision_config"):
        sizes["high_res_pixel_values"] = config.high_res_vision_config.image_size
    return {name: torch.zeros(images, 3, size, size, dtype=dtype, device=device) for name, size in sizes.items()}


def pass_flops(costs: Costs, *, tokens: float, squared_lengths: float, responses: float, images: float,
               trains: Iterable[str]) -> float:
    """FLOPs of the forward and the backward pass over packed rows.

    squared_lengths: the sum over rows of length^2. responses: response tokens. trains: the parts that get gradients;
    none under no_grad.
    """
    vision, projector = costs.vision * images, costs.projector * images
    decoder, attention = costs.token * tokens, costs.squared_length * squared_lengths
    lm_head = costs.response * responses
    total = vision + projector + decoder + attention + lm_head
    trains = set(trains)
    below = bool(images) and bool(trains & {"vision", "projector"})  # a gradient flows out of the decoder's input
    if "llm" in trains or below:
        total += (decoder + lm_head) * (1 + ("llm" in trains)) + 2 * attention
    if below:
        total += projector * len(trains & {"vision", "projector"})
    if "vision" in trains:
        total += 2 * vision
    return total


def step_flops(model: MathModel, micro_batches: "MicroBatches") -> float:  # noqa: F821
    """Model FLOPs of one rank's micro-batches (weak, strong or None) in one step."""
    total = 0.0
    for weak, strong in micro_batches:
        for batch, trains in ((weak, model.trained_parts), (strong, ())):
            if batch is not None and batch.num_tokens:
                squared_lengths = float(batch.cu_seqlens.diff().double().square().sum())
                images = len(next(iter(batch.pixel_values.values()), ()))
                total += pass_flops(model.costs, tokens=batch.num_tokens, squared_lengths=squared_lengths,
                                    responses=batch.num_response_tokens, images=images, trains=trains)
    return total


# ----------------------------------------------------------------------------------------------------------------------
# Command line


def save_pretrained(model: MathModel, folder: str | os.PathLike) -> None:
    """Write weights (safetensors), config and processor as one folder that transformers opens."""
    model.hf.save_pretrained(folder)
    model.processor.save_pretrained(folder)


def main() -> None:
    """The commands of the docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("assemble", "export"))
    parser.add_argument("source", help="assemble: a preset; export: a checkpoint's folder, or that of a run")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--llm", default="", help="assemble: hub name or folder of another language model")
    parser.add_argument("--vision", default="", help="assemble: hub name or folder of other tower(s)")
    arguments = parser.parse_args()
    if arguments.command == "export":
        from checkpoint import export_checkpoint

        export_checkpoint(arguments.source, arguments.out)
    else:
        processor = load_processor(arguments.source, llm=arguments.llm)
        hf = assemble(find_preset(arguments.source), llm=arguments.llm, vision=arguments.vision)
        save_pretrained(MathModel(hf, processor), arguments.out)
    print(f"wrote {arguments.out}; start from it with --model {arguments.out}")


if __name__ == "__main__":
    run_main(main, resumes=False)
