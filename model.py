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
    python model.py export CHECKPOINT OUT         a training checkpoint -> a folder that transformers opens; only of
                                                  checkpoints you trust: their .metadata is a pickle
    python -m bench.plan                          the presets: parameters per part, image tokens, memory per stage
"""

import argparse
import copy
import functools
import inspect
import json
import logging
import math
import os
import re
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention.varlen import varlen_attn
from torch.utils.flop_counter import FlopCounterMode

import guard  # noqa: F401  (before transformers)
import transformers
from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer,
                          DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridImageProcessorPil,
                          DeepseekVLHybridProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor,
                          PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin,
                          SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel)
from transformers.image_utils import (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN,
                                      OPENAI_CLIP_STD)
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
    Raises UserError for an unknown preset, or a folder that is missing, damaged, incomplete or of another architecture.
    """
    if preset == "tiny" and not random:
        source = source or str(TINY_FOLDER)  # its pretrained parts ship with the repository, aligned
    if random:
        return MathModel(_random(find_preset(preset).config, dtype, device), load_processor(preset, random=True))
    if not source:
        return assemble(find_preset(preset), dtype=dtype)
    _check_folder(source, preset, made_by)
    config = _pretrained(AutoConfig, source, EXPORT_AGAIN)
    hf = _random(config, dtype, device) if device == "meta" else open_model(source, dtype)
    return MathModel(hf, load_processor(preset, source))


EXPORT_AGAIN = "export the checkpoint again"
DOWNLOAD = (
    "download it once and pass its folder: python model.py assemble PRESET OUT --llm FOLDER --vision FOLDER, then "
    "--model OUT; --random_weights needs nothing"
)


@contextmanager
def one_line(what: str, remedy: str) -> Iterator[None]:
    """Turn what a model's folder makes transformers raise, which may be nearly anything, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what} ({why}); {remedy}") from error


def _pretrained(kind: type, name: str, remedy: str, **options: object) -> Any:
    """kind.from_pretrained(name), where what is wrong with the folder or the hub is one line. No foreign code runs."""
    if kind.__name__.startswith("Auto"):  # by default transformers asks on the terminal, and a "y" runs it
        options["trust_remote_code"] = False
    with one_line(f"{name}: {kind.__name__} cannot be loaded", remedy):
        return kind.from_pretrained(name, **options)


def _open_weights(kind: type, name: str, remedy: str, **options: object) -> tuple[PreTrainedModel, list[str]]:
    """A stock model all of whose weights are in its folder, and the names of the folder's that it has no place for.

    transformers draws a weight that the folder lacks at random, and goes on. Tied weights do not count as lacking, nor
    does what no feature layer reaches. Raises UserError.
    """
    hf, found = _pretrained(kind, name, remedy, output_loading_info=True, **options)
    unreached = {parameter for module in _unreached_modules(hf) for parameter in module.parameters()}
    needed = {key for key, tensor in hf.state_dict(keep_vars=True).items() if tensor not in unreached}
    if lacking := sorted(needed & set(found["missing_keys"])):
        what = f"lacks the weight {lacking[0]} ({len(lacking)} in all), which would be random"
        raise UserError(f"{name}: {what}; {remedy}")
    return hf, sorted(found["unexpected_keys"])


def open_model(folder: str, dtype: torch.dtype, kind: type = AutoModelForImageTextToText) -> PreTrainedModel:
    """A whole stock model from its folder. Raises UserError unless the folder holds its weights and no others."""
    hf, surplus = _open_weights(kind, folder, EXPORT_AGAIN, dtype=dtype)
    if surplus:
        what = f"holds the weight {surplus[0]} ({len(surplus)} in all), which a {type(hf).__name__} has no place for"
        raise UserError(f"{folder}: {what}; it is another model's folder, or {EXPORT_AGAIN}")
    return hf


def _open_part(kind: type, name: str, **options: object) -> PreTrainedModel:
    """A part's stock model; what its folder holds besides (SigLIP's text tower and pooling head) is named."""
    hf, surplus = _open_weights(kind, name, DOWNLOAD, **options)
    if surplus:
        print(f"{name}: not used: {', '.join(sorted({key.split('.')[0] for key in surplus}))}")
    return hf


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
    try:
        found = json.loads(path.read_text())
        kind, text = found.get("model_type"), found.get("text_config", {})
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged, no JSON object ({error}); make the folder again with {made_by}") from error
    kinds = sorted({known.config.model_type for known in presets().values()})
    if kind not in kinds:
        raise UserError(f"{source}: a model of type {kind!r}; what trains is {' or '.join(kinds)}")
    for key in ("hidden_size", "num_hidden_layers") if preset else ():
        here, there = text.get(key), getattr(find_preset(preset).config.text_config, key)
        if here != there:
            what = f"not a {preset} checkpoint ({key} {here}, not {there})"
            raise UserError(f"{source}: {what}; leave --preset out: the folder says what it is")


# A text that every tokenizer of mathematics must give back: LaTeX, signs outside ASCII (Unicode's NFKC makes x2 of x²),
# line breaks, two spaces.
PROBE = "Solve $\\frac{x_1}{2} = \\sqrt{3}$,  if √2 ≤ x² ≤ 60°:\n\n中  Done.\n"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises UserError for one that loses characters, which a loss does not show."""
    back = tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False), clean_up_tokenization_spaces=False)
    if back != PROBE:
        what = f"its tokenizer, read by transformers {transformers.__version__}, makes {back!r} of {PROBE!r}"
        remedy = "use transformers 5.22 or later, or another tokenizer" if back else "does it have its tokenizer.json?"
        raise UserError(f"{name}: {what}; {remedy}")
    return tokenizer


def load_processor(preset: str, source: str = "", *, random: bool = False) -> ProcessorMixin:
    """The stock processor (tokenizer, image processor, chat template) of a model's folder.

    random: of a preset at its true size, for which tiny's tokenizer and template stand in: its own need the hub.
    """
    own = source or str(TINY_FOLDER)
    _pretrained(AutoConfig, own, EXPORT_AGAIN)  # what is wrong there would show as a fault of the processor
    # backend "pil" gives the same pixels where torchvision is installed
    saved = _pretrained(AutoProcessor, own, "its processor is missing or damaged", backend="pil")
    check_tokenizer(saved.tokenizer, own)
    if not random:
        return saved
    config = find_preset(preset).config
    if isinstance(config, LlavaConfig):
        size = config.vision_config.image_size
        images = SiglipImageProcessorPil(size={"height": size, "width": size})
    else:  # as transformers' converter saved the published folder; by default SigLIP's side has CLIP's values too
        images = DeepseekVLHybridImageProcessorPil(
            image_mean=IMAGENET_STANDARD_MEAN, image_std=IMAGENET_STANDARD_STD, resample=Image.Resampling.BILINEAR,
            high_res_image_mean=OPENAI_CLIP_MEAN, high_res_image_std=OPENAI_CLIP_STD)
    return _processor(config, images, saved.tokenizer, saved.chat_template, saved.image_token)


def _processor(config: PretrainedConfig, images: Any, tokenizer: PreTrainedTokenizerBase, template: str,
               image_token: str) -> ProcessorMixin:
    if not isinstance(config, LlavaConfig):
        count = count_image_tokens(config)
        return DeepseekVLHybridProcessor(images, tokenizer, chat_template=template, num_image_tokens=count)
    return LlavaProcessor(images, tokenizer, patch_size=config.vision_config.patch_size, image_token=image_token,
                          vision_feature_select_strategy="full", num_additional_image_tokens=0, chat_template=template)


# ----------------------------------------------------------------------------------------------------------------------
# Assembling: a language model and pretrained tower(s), whatever they are


@torch.no_grad()
def assemble(preset: Preset, *, llm: str = "", vision: str = "", dtype: torch.dtype = torch.bfloat16) -> "MathModel":
    """Put a language model and pretrained tower(s) together; the LLaVA projector starts from random weights.

    llm, vision: hub names or folders; "" takes the preset's. All else follows the parts that are found: vocabulary,
    tied embeddings, tokenizer, chat template, the pictures' size and statistics. The hybrid brings its own projector.
    Raises UserError for parts that cannot be had, or that would train here on something else than they compute.
    """
    llm, vision = llm or preset.llm, vision or preset.vision
    language_model = _open_part(AutoModelForCausalLM, llm, dtype=dtype)
    tokenizer = _pretrained(AutoTokenizer, llm, DOWNLOAD, extra_special_tokens={"image_token": preset.image_token})
    _make_room(language_model, check_tokenizer(tokenizer, llm))
    tokens = torch.tensor([tokenizer.encode(PROBE, add_special_tokens=False)])
    with one_line(f"{llm}: its code cannot compute a row", "use another model"):
        hidden_states = _plain_hidden_states(language_model, llm, tokens)
    config = preset.config
    if isinstance(config, LlavaConfig):
        images = _pretrained(SiglipImageProcessorPil, vision, DOWNLOAD)
        config.vision_config = _pretrained(SiglipVisionConfig, vision, DOWNLOAD)
        config.vision_config.vision_use_head = False  # transformers 5.17 does not take it as an argument
        tower = _open_part(SiglipVisionModel, vision, dtype=dtype, config=config.vision_config)
        config.text_config, config.image_seq_length = language_model.config, count_image_tokens(config)
        with torch.device("meta"):
            hf = LlavaForConditionalGeneration(config)
        hf.model.vision_tower = tower
        projector = hf.model.multi_modal_projector.to_empty(device="cpu").to(dtype)
        for parameter in projector.parameters():
            std = 0.02 if parameter.ndim == 2 else 0.0  # matrices; biases start at 0
            nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(0))
    else:
        images = _pretrained(DeepseekVLHybridImageProcessorPil, vision, DOWNLOAD)
        hf = _open_part(DeepseekVLHybridForConditionalGeneration, vision, dtype=dtype)
        hf.config.text_config = hf.model.config.text_config = language_model.config
    hf.config.tie_word_embeddings = language_model.config.tie_word_embeddings
    hf.model.language_model = language_model.model
    hf.lm_head = language_model.lm_head
    hf.config.made_from = {"parts": {"language model": llm, "vision": vision}, "stages": []}  # for the model card
    tokenizer.chat_template = _chat_template(tokenizer, llm, preset.image_token)
    model = MathModel(hf, _processor(hf.config, images, tokenizer, tokenizer.chat_template, preset.image_token))
    with one_line(f"{llm}: its code cannot compute a pack of rows", "use another model"):
        _check_packed(model, llm, tokens, hidden_states)
    return model


def _make_room(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give every token of the tokenizer, the image token too, a row in the embeddings.

    A new row is the mean of the others: lm_head then prefers it to none of them.
    """
    rows = language_model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        new = math.ceil(len(tokenizer) / 64) * 64
        print(f"vocabulary of {rows} grows to {new}, for the image token {tokenizer.image_token!r}")
        language_model.resize_token_embeddings(new, mean_resizing=False)
        for table in (language_model.get_input_embeddings(), language_model.get_output_embeddings()):
            table.weight[rows:] = table.weight[:rows].float().mean(0).to(table.weight.dtype)


def _plain_hidden_states(language_model: PreTrainedModel, llm: str, tokens: Tensor) -> Tensor:
    """The stock model's final hidden states [1, L, D] of tokens [1, L].

    Raises UserError for a model whose logits are not lm_head's product with them: many scale or cap them afterwards,
    which would be lost here.
    """
    kind = type(language_model).__name__
    inner, lm_head = getattr(language_model, "model", None), getattr(language_model, "lm_head", None)
    if not hasattr(inner, "embed_tokens") or getattr(lm_head, "bias", 0) is not None:  # the loss knows no bias
        raise UserError(f"{llm}: a {kind} cannot be put together here: it has no model.embed_tokens, or no lm_head, or "
                        "one with a bias")
    hidden_states = inner(input_ids=tokens, use_cache=False).last_hidden_state
    if not hidden_states.isfinite().all():
        what = f"what a {kind} computes is not finite: its weights are damaged, or too large for {hidden_states.dtype}"
        raise UserError(f"{llm}: {what}")
    logits = language_model(input_ids=tokens, use_cache=False).logits
    if not torch.equal(lm_head(hidden_states).float(), logits.float()):
        raise UserError(f"{llm}: a {kind} scales or caps its logits after lm_head, which the loss here would leave out")
    return hidden_states


def _check_packed(model: "MathModel", llm: str, tokens: Tensor, expected: Tensor) -> None:
    """Raise UserError unless two rows in a pack have the hidden states [1, L, D] that the stock model gave one."""
    length = tokens.shape[1]
    found = model.language_model(input_ids=tokens.repeat(1, 2), position_ids=torch.arange(length).repeat(2)[None],
                                 cu_seq_lens_q=torch.arange(3, dtype=torch.int32) * length, max_length_q=length,
                                 use_cache=False).last_hidden_state
    off = float((found.float() - expected.repeat(1, 2, 1)).norm() / expected.float().norm())
    if not off < (1e-3 if found.dtype == torch.float32 else 0.1):  # NaN is neither; rows that see one another: about 1
        kind = type(model.language_model).__name__
        raise UserError(f"{llm}: a {kind} computes something else in a pack ({off:.2g} off); it cannot train here")


def _chat_template(tokenizer: PreTrainedTokenizerBase, llm: str, image_token: str) -> str:
    """The tokenizer's own chat template, made to take pictures, and the tokenizer's eos_token set to what it ends an
    answer with. Raises UserError where there is none.
    """
    if not tokenizer.chat_template:
        raise UserError(f"{llm}: its tokenizer has no chat template; put one into its folder (chat_template.jinja)")
    wrapper = (PRESETS / "pictures.jinja").read_text().replace("IMAGE_TOKEN", image_token)
    turns = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "It is 2."}]
    with one_line(f"{llm}: its chat template cannot be used", "correct chat_template.jinja"):
        template = wrapper + tokenizer.get_chat_template()  # raises for several of which none is the default
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    behind = text.rpartition("It is 2.")[2].lstrip()
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    end = max((token for token in special if behind.startswith(token)), key=len, default=tokenizer.eos_token)
    if end != tokenizer.eos_token:
        print(f"answers end with {end!r}, as the chat template ends them, not with {tokenizer.eos_token!r}")
        tokenizer.eos_token = end
    return template


# ----------------------------------------------------------------------------------------------------------------------
# Which part a parameter belongs to, and what trains

_PARTS_BY_MODULE = {"multi_modal_projector": "projector", "aligner": "projector"}
_PARTS_BY_MODULE |= {"language_model": "llm", "lm_head": "llm"}


def part_of(parameter_name: str) -> str:
    """ "vision", "projector" or "llm" for a parameter name, with or without MathModel's `hf.` in front."""
    module = parameter_name.removeprefix("hf.").removeprefix("model.").split(".")[0]
    # vision_tower, vision_model; high_res_vision_*: SAM, its neck, its projection and the scalar that mixes them
    return "vision" if "vision" in module else _PARTS_BY_MODULE[module]


def _unreached_modules(hf: PreTrainedModel) -> Iterator[nn.Module]:
    """What a LLaVA never computes its features from: layers above the feature layer, SigLIP's final norm and head."""
    layer, tower = getattr(hf.config, "vision_feature_layer", None), getattr(hf.base_model, "vision_tower", None)
    if isinstance(layer, int) and hasattr(tower := getattr(tower, "vision_model", tower), "post_layernorm"):
        yield from tower.encoder.layers[len(tower.encoder.layers) + 1 + layer :]
        yield from (tower.post_layernorm, getattr(tower, "head", nn.Identity()))


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
                     sliding_window: int | None = None, softcap: float | None = None, s_aux: Tensor | None = None,
                     **kwargs: object) -> tuple[Tensor, None]:
    """A transformers attention function for one pack: query [1, H, L, D], key, value [1, H_kv, L, D] -> [1, L, H, D].

    cu_seq_lens_q [rows + 1] int32 marks where rows begin. CUDA in half precision: torch's varlen_attn (flash
    attention); elsewhere: SDPA row by row, which computes no score between rows either.
    Raises UserError for what a model asks for and this does not compute: a window shorter than the longest row, capped
    scores, attention sinks.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q; generation uses sdpa")
    if softcap is not None or s_aux is not None or (sliding_window or max_length_q) < max_length_q:
        asked = f"sliding_window {sliding_window}, softcap {softcap}, s_aux {'none' if s_aux is None else 'given'}"
        raise UserError(f"packed attention cannot do what this language model asks for ({asked}) on a row of "
                        f"{max_length_q} tokens; use another model, or --max_length within its window")
    if not query.is_cpu and query.dtype in (torch.bfloat16, torch.float16):
        rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        ends = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        return varlen_attn(*rows, *ends, scale=scaling, window_size=(-1, 0), **_VARLEN_OPTIONS).unsqueeze(0), None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    output = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in rows]
    return torch.cat(output, dim=2).transpose(1, 2).contiguous(), None  # some models view it


ALL_ATTENTION_FUNCTIONS.register("nanopuma_packed", packed_attention)
disable_progress_bar()  # a bar per rank and file for what takes seconds
# transformers' table of lacking and surplus weights, which _open_weights names in a line
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())


# ----------------------------------------------------------------------------------------------------------------------
# The model


class MathModel(nn.Module):
    """A stock model (`hf`) and its processor, with a forward pass over packed rows inside which a loss is called."""

    def __init__(self, hf: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.hf = hf
        self.processor = processor
        hf.config.image_token_id = processor.image_token_id  # with random weights the shipped tokenizer's
        if processor.image_token_id >= (rows := len(hf.get_input_embeddings().weight)):
            raise UserError(f"the image token is {processor.image_token_id} of {rows} tokens; assemble the model again")
        # An answer ends in the token that training ends it with, whatever the language model's folder said.
        hf.generation_config.eos_token_id = hf.config.text_config.eos_token_id = processor.tokenizer.eos_token_id
        try:
            hf.generation_config.validate(strict=True)
        except ValueError as error:  # which a checkpoint would raise after hours
            why = " ".join(str(error).splitlines()[:2])
            raise UserError(f"{hf.config.name_or_path}: {why} Correct generation_config.json") from error
        for size in [name for name in ("", "high_res_") if hasattr(processor.image_processor, f"{name}image_mean")]:
            statistics = [getattr(processor.image_processor, f"{size}image_{name}") for name in ("mean", "std")]
            # Buffers live on the device: made in each pass, they would make the host wait for the GPU.
            values = torch.stack([torch.tensor(value).expand(3) for value in statistics]).view(2, 1, 3, 1, 1)
            self.register_buffer(f"{size}pixel_values_statistics", values, persistent=False)
        self._check_pixels()
        hf.model.language_model.set_attn_implementation("nanopuma_packed")
        self.set_trainable(PARTS)

    def _check_pixels(self) -> None:
        """Raise UserError unless a picture here has the size and the values that the stock processor gives it."""
        picture, images = Image.linear_gradient("L").resize((60, 40)).convert("RGB"), self.processor.image_processor
        raw = images(picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        for name, blank in blank_pixels(self.config, 1).items():
            ours, stock = self.normalize(name, raw[name]), images(picture, return_tensors="pt")[name]
            if ours.shape != blank.shape or not torch.allclose(ours.float(), stock.float(), rtol=0.01, atol=0.01):
                whose = f"{self.config.name_or_path or '--vision'}: its image processor"
                wants = f"resize to {blank.shape[-1]}, rescale by 1/255, normalize with image_mean and image_std"
                raise UserError(f"{whose} makes other {name} {tuple(stock.shape)} than training would; correct its "
                                f".json file: {wants}")

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
        for module in _unreached_modules(self.hf):
            module.requires_grad_(False)

    def response_hidden_states(self, batch: "MicroBatch") -> Tensor:  # noqa: F821
        """Final hidden states that predict the response tokens of a data.MicroBatch: [R, D].

        Only these rows ever meet lm_head. Row k of a weak and of a strong micro-batch predict the same token.
        """
        if isinstance(self.lm_head.weight, DTensor):
            raise UserError("the weights are sharded: call the loss as model(loss, ...), never as loss(model, ...)")
        pixels = {name: self.normalize(name, value) for name, value in batch.pixel_values.items()}
        embeddings = self.language_model.embed_tokens(batch.input_ids)
        if pixels:
            features = self.image_features(pixels)
            mask = self.hf.model.get_placeholder_mask(batch.input_ids, embeddings, features)
            embeddings = embeddings.masked_scatter(mask, features)
        elif batch.run_vision or (torch.is_grad_enabled() and "llm" not in self.trained_parts):
            # Another rank's micro-batch has an image. Every rank must gather the tower's FSDP groups, in the same
            # order, so this one shows a blank image, before the decoder as images are, whose features weigh nothing.
            # Likewise where the decoder is frozen: a loss without a gradient has no backward pass.
            blank = blank_pixels(self.config, 1, dtype=embeddings.dtype, device=embeddings.device)
            embeddings = embeddings + 0.0 * self.image_features(blank).sum()
        output = self.language_model(inputs_embeds=embeddings, position_ids=batch.position_ids, use_cache=False,
                                     cu_seq_lens_q=batch.cu_seqlens, max_length_q=batch.max_seqlen)
        return output.last_hidden_state[0][batch.response_positions]

    def image_features(self, pixels: dict[str, Tensor]) -> Tensor:
        """Projected features of normalised images, [images * tokens of one, D]. One call for all images, a blank one
        too, and without the decoder's arguments (hf.model would hand them on): else --compile makes more graphs.
        """
        return torch.cat(list(self.hf.model.get_image_features(**pixels).pooler_output))

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
# sold as 80 GB has 79 GiB). device_name: torch's name of it without "NVIDIA ", in lower case, as a regular
# expression for the whole of it: an RTX 4090 Laptop and an A10G are other cards.
GPU = namedtuple("GPU", "peak_flops memory device_name")
GPUS = {  # the first whose name fits counts
    "h100-pcie": GPU(756e12, 79 * 2**30, "h100 pcie"),
    "h100-80gb": GPU(989e12, 79 * 2**30, "h100 80gb hbm3"),
    "h200-141gb": GPU(989e12, 139 * 2**30, "h200"),
    "a100-40gb": GPU(312e12, 39 * 2**30, "a100-sxm4-40gb"),
    "a100-40gb-pcie": GPU(312e12, 39 * 2**30, "a100-pcie-40gb"),
    "a100-80gb": GPU(312e12, 79 * 2**30, "a100.*"),
    "a6000-48gb": GPU(154.8e12, 47 * 2**30, "rtx a6000"),
    "l40s-48gb": GPU(362e12, 44 * 2**30, "l40s"),
    "4090-24gb": GPU(165.2e12, 23 * 2**30, "geforce rtx 4090"),
    "3090-24gb": GPU(71e12, 23 * 2**30, "geforce rtx 3090"),
    "a10-24gb": GPU(125e12, 22 * 2**30, "a10"),
    "l4-24gb": GPU(121e12, 22 * 2**30, "l4"),
}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOPs per second of a GPU by its data sheet; None where MFU means nothing (CPU, unknown GPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    known = (gpu for gpu in GPUS.values() if re.fullmatch(f"(nvidia )?{gpu.device_name}", name) and " mig " not in name)
    found = next((gpu.peak_flops for gpu in known), None)
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


def longest_row(config: PretrainedConfig, max_length: int = 0) -> int:
    """Tokens of the longest row: max_length; by default 2,048, or as many as the language model takes.

    Raises UserError for more than its positions, than its attention's window or chunk, or than its short rotary
    frequencies, where it has such: a pack would have the long ones for all of its rows.
    """
    text, rope = config.text_config, getattr(config.text_config, "rope_parameters", None) or {}
    short = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    limits = [short, *(getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))]
    most = min(text.max_position_embeddings, *filter(None, limits), sys.maxsize)
    if max_length > most:
        raise UserError(f"--max_length {max_length}: the language model takes {most} tokens (positions, its window, or "
                        "short rotary frequencies)")
    return max_length or min(2048, most)


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


def main() -> None:
    """The commands of the docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("assemble", "export"))
    parser.add_argument("source", help="assemble: a preset; export: a checkpoint's folder, or that of a run")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--llm", default="", help="assemble: hub name or folder of another language model")
    parser.add_argument("--vision", default="", help="assemble: hub name or folder of other tower(s)")
    parser.add_argument("--push_to_hub", default="", metavar="NAME", help="export: upload it there too, private if new")
    arguments = parser.parse_args()
    from checkpoint import export_checkpoint, save_pretrained
    from data import ChatFormat

    if arguments.command == "export":
        export_checkpoint(arguments.source, arguments.out, push_to_hub=arguments.push_to_hub)
    else:
        model = assemble(find_preset(arguments.source), llm=arguments.llm, vision=arguments.vision)
        ChatFormat(model.processor, count_image_tokens(model.config))  # refuses what no stage could train with
        save_pretrained(model, arguments.out)
        load_model(source=arguments.out, dtype=torch.bfloat16)  # transformers may rename what it does not find again
    print(f"wrote {arguments.out}; start from it with --model {arguments.out}")


if __name__ == "__main__":
    run_main(main, resumes=False)
