"""The models of nanoPUMA: presets, assembly, what trains in a stage, and the forward that bears the loss.

A model is a stock transformers model, so a saved checkpoint opens with `AutoModelForImageTextToText.from_pretrained`:

    tiny                    a small LLaVA that trains on a CPU; its vision tower ships with the repository
    puma-qwen2-1.5b / -7b   LLaVA: SigLIP-so400m-patch14-384 (feature layer -2, all 729 patches), MLP projector, Qwen2
    puma-deepseek-math-7b   DeepSeek-VL hybrid: SAM-B + SigLIP-L (576 tokens) around DeepSeek-Math-7B

`MathModel` wraps one of them and adds what transformers does not have: a forward over packed rows that ends in the
loss, so that FSDP2 holds lm_head gathered, tied embeddings work and full logits never exist (kernels/puma_loss.py).

    python model.py                               the presets: parameters per part, image tokens, memory per stage
    python model.py assemble puma-qwen2-1.5b OUT  put pretrained parts together once (--llm, --vision: other ones)
    python model.py export CHECKPOINT OUT         a training checkpoint -> a folder that transformers opens
"""

import argparse
import copy
import inspect
import json
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.utils.flop_counter import FlopCounterMode

import guard  # noqa: F401  (before transformers)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessorPil,
    DeepseekVLHybridProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2Config,
    SamVisionConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from errors import UserError, run_main
from kernels import PumaLoss, linear_cross_entropy, linear_puma_loss

PARTS = ("vision", "projector", "llm")
TINY_FOLDER = Path(__file__).resolve().parent / "tiny"

# ----------------------------------------------------------------------------------------------------------------------
# Presets


@dataclass(frozen=True)
class Preset:
    """One architecture at one size: the configuration of the stock model and where its pretrained parts come from."""

    config: PretrainedConfig
    image_tokens: int  # per image, in the LLM's sequence
    llm: str = ""  # hub name or folder of the language model
    vision: str = ""  # hub name or folder of the tower(s)
    image_token: str = "<image>"
    max_length: int = 2048  # tokens of a row, image tokens included


def _llava(vision: SiglipVisionConfig, text: Qwen2Config, image_token_id: int) -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",  # SigLIP has no class token: "default" would drop the top-left patch
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=text.tie_word_embeddings,
    )


def _siglip_so400m() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,  # pooling head: feature layer -2 never reaches it
    )


def _qwen2(
    hidden_size: int, intermediate_size: int, layers: int, heads: int, key_value_heads: int, **rest: object
) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        bos_token_id=151643,
        eos_token_id=151645,
        **rest,
    )


def _deepseek_math_hybrid() -> DeepseekVLHybridConfig:
    return DeepseekVLHybridConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=384,
            patch_size=16,
            vision_use_head=False,
        ),
        high_res_vision_config=SamVisionConfig(),  # SAM-B, 1024 pixels
        text_config=LlamaConfig(
            vocab_size=102400,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=30,
            num_attention_heads=32,
            max_position_embeddings=4096,
            rms_norm_eps=1e-6,
            bos_token_id=100000,
            eos_token_id=100001,
            tie_word_embeddings=False,
        ),
        image_token_id=100015,
        tie_word_embeddings=False,  # the class's default is True, which DeepSeek-Math is not
    )


def tiny_config() -> LlavaConfig:
    """The CPU-sized LLaVA: 96 x 96 images in 8-pixel patches (144 image tokens)."""
    return _llava(
        SiglipVisionConfig(
            hidden_size=160,
            intermediate_size=640,
            num_hidden_layers=6,
            num_attention_heads=4,
            image_size=96,
            patch_size=8,
            vision_use_head=False,
        ),
        Qwen2Config(
            vocab_size=1024,
            hidden_size=192,
            initializer_range=0.05,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=1024,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=True,
        ),
        image_token_id=3,
    )


def presets() -> dict[str, Preset]:
    """Name -> Preset. A function, because configurations can be changed in place."""
    return {
        "tiny": Preset(tiny_config(), image_tokens=144, max_length=768),
        "puma-qwen2-1.5b": Preset(
            _llava(
                _siglip_so400m(),
                _qwen2(1536, 8960, 28, 12, 2, vocab_size=151936, tie_word_embeddings=True),
                image_token_id=151646,
            ),
            image_tokens=729,
            llm="Qwen/Qwen2-1.5B-Instruct",
            vision="google/siglip-so400m-patch14-384",
            image_token="<|image|>",
        ),
        "puma-qwen2-7b": Preset(
            _llava(
                _siglip_so400m(),
                _qwen2(3584, 18944, 28, 28, 4, vocab_size=152064, tie_word_embeddings=False),
                image_token_id=151646,
            ),
            image_tokens=729,
            llm="Qwen/Qwen2-7B-Instruct",
            vision="google/siglip-so400m-patch14-384",
            image_token="<|image|>",
        ),
        "puma-deepseek-math-7b": Preset(
            _deepseek_math_hybrid(),
            image_tokens=576,
            llm="deepseek-ai/deepseek-math-7b-instruct",
            vision="deepseek-community/deepseek-vl-7b-chat",
            image_token="<image_placeholder>",
        ),
    }


# ----------------------------------------------------------------------------------------------------------------------
# Assembly: random at true size, from pretrained parts, or from a checkpoint folder


def load_model(
    preset: str, source: str = "", *, random: bool = False, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> "MathModel":
    """Build a preset's model.

    source: a folder that an earlier stage (or `python model.py assemble`) wrote; "" takes the preset's pretrained
    parts. random: random weights at the true size, no network. dtype: of all weights. device: "meta" allocates nothing.
    Raises UserError for an unknown preset, a missing folder, or a folder that holds another architecture.
    """
    chosen = find_preset(preset)
    if source and not random:
        _check_folder(source, chosen, preset)
    processor = load_processor(preset, "" if random else source, random=random)
    if random:
        hf = _random(chosen, dtype, device)
    elif source:
        hf = _from_folder(source, dtype)
    elif preset == "tiny":
        hf = _random(chosen, dtype, device)
        load_tiny_vision(hf.model.vision_tower)
    else:
        hf = assemble(chosen, dtype=dtype)
    hf.config.image_token_id = processor.image_token_id  # with random weights the shipped tokenizer's
    return MathModel(hf, processor)


def find_preset(name: str) -> Preset:
    """The preset of that name; UserError names the ones there are."""
    known = presets()
    if name not in known:
        raise UserError(f"unknown preset {name!r}; there are: {', '.join(known)}")
    return known[name]


def _model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    if isinstance(config, LlavaConfig):
        return LlavaForConditionalGeneration
    return DeepseekVLHybridForConditionalGeneration


def _random(preset: Preset, dtype: torch.dtype, device: str) -> PreTrainedModel:
    # Drawn in float32 and rounded: the same seed then gives the same weights in every dtype (and a CPU draws float32
    # faster than bfloat16). Parameters alone: rotary frequencies are buffers and stay float32.
    with torch.device(device):
        hf = _model_class(preset.config)(preset.config)
    for parameter in hf.parameters():
        parameter.data = parameter.data.to(dtype)
    return hf


def _check_folder(source: str, preset: Preset, name: str) -> None:
    if not (Path(source) / "config.json").is_file():
        raise UserError(
            f"{source}: no config.json; --model wants the folder of an earlier stage or of `model.py assemble`"
        )
    found = json.loads((Path(source) / "config.json").read_text())
    text = found.get("text_config", {})
    wanted = preset.config
    differing = [
        f"{key} {value!r}, not {want!r}"
        for key, value, want in (
            ("model_type", found.get("model_type"), wanted.model_type),
            ("hidden_size", text.get("hidden_size"), wanted.text_config.hidden_size),
            ("num_hidden_layers", text.get("num_hidden_layers"), wanted.text_config.num_hidden_layers),
        )
        if value != want
    ]
    if differing:
        raise UserError(f"{source}: not a {name} checkpoint ({'; '.join(differing)}); pass its own --preset")


def _from_folder(source: str, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: cannot be loaded ({reason}); export the checkpoint again") from error


def assemble(
    preset: Preset, *, llm: str = "", vision: str = "", dtype: torch.dtype = torch.bfloat16
) -> PreTrainedModel:
    """Put a language model and pretrained tower(s) together; the LLaVA projector starts from random weights.

    llm, vision: hub names or folders; "" takes the preset's. The configuration follows the parts that are found
    (vocabulary, tied embeddings). The hybrid brings its own projector, which is kept.
    """
    llm, vision = llm or preset.llm, vision or preset.vision
    language_model = _pretrained(AutoModelForCausalLM, llm, dtype=dtype)
    config = preset.config
    config.text_config = language_model.config
    config.tie_word_embeddings = language_model.config.tie_word_embeddings
    if isinstance(config, LlavaConfig):
        config.vision_config = _pretrained(SiglipVisionConfig, vision)
        config.vision_config.vision_use_head = False  # transformers 5.17 does not take it as an argument
        tower = _pretrained(SiglipVisionModel, vision, dtype=dtype, config=config.vision_config)
        with torch.device("meta"):
            hf = LlavaForConditionalGeneration(config)
        hf.model.vision_tower = tower
        hf.model.multi_modal_projector.to_empty(device="cpu").to(dtype)
        hf.model.multi_modal_projector.apply(_initialize_linear)
    else:
        hf = _pretrained(DeepseekVLHybridForConditionalGeneration, vision, dtype=dtype)
        hf.config.text_config, hf.model.config.text_config = config.text_config, config.text_config
        hf.config.tie_word_embeddings = config.tie_word_embeddings
    hf.model.language_model = language_model.model
    hf.lm_head = language_model.lm_head
    return hf


def _initialize_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(module.weight, std=0.02, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _pretrained(kind: type, name: str, **options: object) -> PreTrainedModel | PretrainedConfig:
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: cannot be loaded ({str(error).splitlines()[0]}); download it once and pass its folder: "
            "python model.py assemble PRESET OUT --llm FOLDER --vision FOLDER, then --model OUT"
        ) from error


def load_tiny_vision(tower: SiglipVisionModel) -> None:
    """Load the tower that runs/tiny_vision.sh trained (tiny/vision.safetensors) into a tiny vision tower, in place."""
    trained = load_file(TINY_FOLDER / "vision.safetensors")
    own = tower.state_dict()
    prefix = "" if "embeddings.patch_embedding.weight" in own else "vision_model."  # transformers 5.17 and before
    missing = set(own) - {prefix + name for name in trained}
    unreached = [name for name in missing if not any(word in name for word in ("layers.5.", "post_layernorm"))]
    if unreached:
        weights = TINY_FOLDER / "vision.safetensors"
        raise UserError(f"{weights}: lacks {sorted(unreached)[:3]}; make it again: runs/tiny_vision.sh")
    with torch.no_grad():
        for name, value in trained.items():
            own[prefix + name].copy_(value)


# The templates put images before the text, as the released models do; content may be a string or a list of parts.
_CONTENT = (
    "{%- macro content(message) -%}{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}IMAGE_TOKEN{{ '\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
)
QWEN2_TEMPLATE = _CONTENT + (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content(message) + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
DEEPSEEK_TEMPLATE = _CONTENT + (
    "{{ bos_token }}{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ content(message) + '\n\n' }}"
    "{%- elif message['role'] == 'user' -%}{{ 'User: ' + content(message) + '\n\n' }}"
    "{%- else -%}{{ 'Assistant: ' + content(message) + eos_token }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)


def load_processor(preset: str, source: str = "", *, random: bool = False, llm: str = "") -> ProcessorMixin:
    """The stock processor (tokenizer, image processor, chat template) of a preset or of a checkpoint folder.

    random: the shipped tiny tokenizer stands in for the preset's own, which needs the hub.
    """
    chosen = find_preset(preset)
    if source or preset == "tiny":
        folder = source or str(TINY_FOLDER)
        try:
            return AutoProcessor.from_pretrained(
                folder, backend="pil"
            )  # the same pixels where torchvision is installed
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: holds no processor ({str(error).splitlines()[0]})") from error
    if random:
        shipped = AutoProcessor.from_pretrained(str(TINY_FOLDER), backend="pil")
        tokenizer, template, image_token = shipped.tokenizer, shipped.chat_template, shipped.image_token
    else:
        image_token, llm = chosen.image_token, llm or chosen.llm
        try:
            tokenizer = AutoTokenizer.from_pretrained(llm, extra_special_tokens={"image_token": image_token})
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{llm}: no tokenizer ({reason}); pass --model FOLDER or --random_weights") from error
        template = QWEN2_TEMPLATE if isinstance(chosen.config, LlavaConfig) else DEEPSEEK_TEMPLATE
        template = template.replace("IMAGE_TOKEN", image_token)
    return _compose_processor(chosen, tokenizer, template, image_token)


def _compose_processor(preset: Preset, tokenizer: object, template: str, image_token: str) -> ProcessorMixin:
    vision = preset.config.vision_config
    if isinstance(preset.config, LlavaConfig):
        size = {"height": vision.image_size, "width": vision.image_size}
        return LlavaProcessor(
            image_processor=SiglipImageProcessorPil(size=size),
            tokenizer=tokenizer,
            patch_size=vision.patch_size,
            vision_feature_select_strategy="full",
            num_additional_image_tokens=0,
            image_token=image_token,
            chat_template=template,
        )
    return DeepseekVLHybridProcessor(
        DeepseekVLHybridImageProcessorPil(), tokenizer, chat_template=template, num_image_tokens=preset.image_tokens
    )


# ----------------------------------------------------------------------------------------------------------------------
# Which part a parameter belongs to, and what trains

_PART_PREFIXES = {
    "model.vision_tower.": "vision",
    "model.vision_model.": "vision",
    "model.high_res_vision_": "vision",  # SAM, its neck, its projection and the scalar that mixes them
    "model.multi_modal_projector.": "projector",
    "model.aligner.": "projector",
    "model.language_model.": "llm",
    "lm_head.": "llm",
}


def part_of(parameter_name: str) -> str:
    """ "vision", "projector" or "llm" for a parameter name, with or without MathModel's `hf.` in front."""
    name = parameter_name.removeprefix("hf.")
    for prefix, part in _PART_PREFIXES.items():
        if name.startswith(prefix):
            return part
    raise ValueError(f"{parameter_name} belongs to no part")


def parse_parts(text: str) -> tuple[str, ...]:
    """ "vision,projector" -> ("vision", "projector"); UserError for a name that is no part."""
    parts = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in parts if name not in PARTS]
    if unknown or not parts:
        wrong = ", ".join(unknown) or "(none)"
        raise UserError(f"--train {text!r}: unknown part {wrong}; the parts are {', '.join(PARTS)}")
    return parts


# ----------------------------------------------------------------------------------------------------------------------
# Attention over packed rows: each row sees itself, causally

# How this torch's varlen_attn is told "causal, grouped heads": the signature moved between 2.10 and 2.13.
_varlen_accepts = inspect.signature(varlen_attn).parameters
_VARLEN_OPTIONS = {"window_size": (-1, 0)} if "window_size" in _varlen_accepts else {"is_causal": True}
if "enable_gqa" in _varlen_accepts:
    _VARLEN_OPTIONS["enable_gqa"] = True


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """A transformers attention function for one pack: query [1, H, L, D], key, value [1, H_kv, L, D] -> [1, L, H, D].

    cu_seq_lens_q [rows + 1] int32 marks where rows begin. CUDA in half precision: torch's varlen_attn (flash
    attention); elsewhere: SDPA row by row, which computes no score between rows either.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q; generation uses sdpa")
    if not query.is_cpu and query.dtype in (torch.bfloat16, torch.float16):
        rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        output = varlen_attn(
            *rows, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling, **_VARLEN_OPTIONS
        )
        return output.unsqueeze(0), None
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
    """A stock model (`hf`), its processor, and the two passes and the loss of a step over packed rows."""

    def __init__(self, hf: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.hf = hf
        self.processor = processor
        images = processor.image_processor
        statistics = {"pixel_values": (images.image_mean, images.image_std)}
        if hasattr(images, "high_res_image_mean"):
            statistics["high_res_pixel_values"] = (images.high_res_image_mean, images.high_res_image_std)
        for name, mean_and_std in statistics.items():
            # Buffers live on the device: made in each pass, they would make the host wait for the GPU.
            values = torch.tensor(mean_and_std).view(2, 1, 3, 1, 1)
            self.register_buffer(f"{name}_statistics", values, persistent=False)
        hf.model.language_model.set_attn_implementation("nanopuma_packed")
        self.trained_parts: tuple[str, ...] = PARTS
        self.freeze_unused()

    @property
    def config(self) -> PretrainedConfig:
        """The stock model's configuration."""
        return self.hf.config

    @property
    def vision_modules(self) -> list[nn.Module]:
        """The tower(s): one for LLaVA, SAM's and SigLIP's for the hybrid."""
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
        tower = self.vision_modules[0]
        tower = getattr(tower, "vision_model", tower)
        for module in (*tower.encoder.layers[len(tower.encoder.layers) + 1 + layer :], tower.post_layernorm):
            module.requires_grad_(False)
        if hasattr(tower, "head"):
            tower.head.requires_grad_(False)

    def response_hidden_states(self, batch: "MicroBatch") -> Tensor:  # noqa: F821
        """Final hidden states that predict the response tokens: [R, D]. Only these rows ever meet lm_head."""
        pixels = {name: self.normalize(name, value) for name, value in batch.pixel_values.items()}
        inputs: dict[str, Tensor] = {"input_ids": batch.input_ids, **pixels}
        needs_grad_path = torch.is_grad_enabled() and "llm" not in self.trained_parts
        if not pixels and (batch.run_vision or needs_grad_path):
            # Another rank's pack has an image: every rank must touch the tower's FSDP groups, in the same order, so
            # this one shows a blank image, before the decoder as images are, whose features weigh nothing.
            # Likewise where the decoder is frozen: a loss without a gradient has no backward pass.
            embeddings = self.language_model.embed_tokens(batch.input_ids)
            inputs = {"inputs_embeds": embeddings + 0.0 * self.blank_features(embeddings).sum()}
        output = self.hf.model(
            **inputs,
            position_ids=batch.position_ids,
            use_cache=False,
            cu_seq_lens_q=batch.cu_seqlens,
            max_length_q=batch.max_seqlen,
        )
        return output.last_hidden_state[0][batch.response_positions]

    def blank_features(self, like: Tensor) -> Tensor:
        """Projected features of one blank image."""
        blank = {"pixel_values": self._blank(self.config.vision_config.image_size, like)}
        if hasattr(self.config, "high_res_vision_config"):
            blank["high_res_pixel_values"] = self._blank(self.config.high_res_vision_config.image_size, like)
        features = self.hf.model.get_image_features(**blank).pooler_output
        return torch.cat(list(features))

    @staticmethod
    def _blank(size: int, like: Tensor) -> Tensor:
        return torch.zeros(1, 3, size, size, dtype=like.dtype, device=like.device)

    def normalize(self, name: str, pixels: Tensor) -> Tensor:
        """uint8 [I, 3, H, W] as the image processor resized them -> its normalised floats, on the pixels' device."""
        mean, std = self.get_buffer(f"{name}_statistics").to(pixels.device)
        scaled = (pixels.double() / 255).float()  # as the stock processor rounds: equal bit for bit
        return ((scaled - mean) / std).to(self.hf.lm_head.weight.dtype)

    def forward(
        self,
        weak: "MicroBatch",  # noqa: F821
        strong: "MicroBatch | None" = None,  # noqa: F821
        *,
        num_tokens: float | Tensor,
        alpha: float = 0.2,
        lam: float = 0.1,
        tau: float = 1.0,
        backend: str = "auto",
    ) -> PumaLoss:
        """The loss of one pack. With `strong` (stage 2): PUMA. Without (stages 1 and 3): cross entropy.

        The same live model reads the text-rich rows under no_grad and teaches (paper, Stage 2); both packs hold the
        same rows in the same order, so hidden state k of the one meets hidden state k of the other.
        num_tokens: response tokens of the whole global batch, the denominator of every mean.
        """
        lm_head = self.hf.lm_head.weight
        if strong is None:
            hidden_states = self.response_hidden_states(weak)
            loss = linear_cross_entropy(
                hidden_states, lm_head, weak.response_labels, num_tokens=num_tokens, backend=backend
            )
            return PumaLoss(loss, torch.zeros_like(loss), torch.zeros_like(loss), loss.detach())
        with torch.no_grad():
            strong_hidden = self.response_hidden_states(strong)
        weak_hidden = self.response_hidden_states(weak)
        return linear_puma_loss(
            weak_hidden,
            strong_hidden,
            lm_head,
            weak.response_labels,
            alpha=alpha,
            lam=lam,
            tau=tau,
            num_tokens=num_tokens,
            backend=backend,
        )


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


@dataclass(frozen=True)
class GPU:
    """peak_flops: dense bf16 FLOPs per second by the data sheet. memory: the bytes that torch finds (rounded down: a
    card sold as 80 GB has 79 GiB). device_name: what torch's name of it contains, in lower case."""

    peak_flops: float
    memory: float
    device_name: str


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
    for gpu in GPUS.values():
        if gpu.device_name in name:
            return gpu.peak_flops
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"note: {name} is not in model.GPUS; the log shows no MFU", flush=True)
    return None


@dataclass(frozen=True)
class Costs:
    """Forward FLOPs: per image in the tower(s) and in the projector, per token and per squared length in the decoder,
    per response token in lm_head."""

    vision: float
    projector: float
    token: float
    squared_length: float
    response: float


_costs: "weakref.WeakKeyDictionary[MathModel, Costs]" = weakref.WeakKeyDictionary()


def model_costs(model: MathModel) -> Costs:
    """The forward costs of a model, sharded or not; computed once for each model."""
    if model not in _costs:
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
        _costs[model] = Costs(
            vision=counter.get_total_flops() - projector,
            projector=projector,
            token=2.0 * _matrix_parameters(layers),
            squared_length=2.0 * len(layers) * text.num_attention_heads * head_size,
            response=2.0 * text.hidden_size * text.vocab_size,
        )
    return _costs[model]


def _matrix_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


def count_image_tokens(config: PretrainedConfig) -> int:
    """Tokens of an image in the decoder's sequence: one per patch (of SigLIP, also in the hybrid)."""
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2


def blank_pixels(
    config: PretrainedConfig, images: int, dtype: torch.dtype = torch.float32, device: str = "meta"
) -> dict[str, Tensor]:
    """Black images [images, 3, size, size] as each of the model's towers takes them."""
    sizes = {"pixel_values": config.vision_config.image_size}
    if hasattr(config, "high_res_vision_config"):
        sizes["high_res_pixel_values"] = config.high_res_vision_config.image_size
    return {name: torch.zeros(images, 3, size, size, dtype=dtype, device=device) for name, size in sizes.items()}


def pass_flops(
    costs: Costs, *, tokens: float, squared_lengths: float, responses: float, images: float, trains: Iterable[str]
) -> float:
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
    costs, total = model_costs(model), 0.0
    for weak, strong in micro_batches:
        for batch, trains in ((weak, model.trained_parts), (strong, ())):
            if batch is not None and batch.num_tokens:
                total += pass_flops(
                    costs,
                    tokens=batch.num_tokens,
                    squared_lengths=float(batch.cu_seqlens.diff().double().square().sum()),
                    responses=batch.num_response_tokens,
                    images=len(next(iter(batch.pixel_values.values()), ())),
                    trains=trains,
                )
    return total


# ----------------------------------------------------------------------------------------------------------------------
# Command line


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters per part; a tied lm_head counts once."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    return counts


STAGE_PARTS = {1: ("llm",), 2: ("vision", "projector"), 3: PARTS}


def training_bytes(counts: dict[str, int], stage: int) -> int:
    """Bytes of weights, gradients and AdamW state: 16 per trained parameter (fp32 weight, gradient, two moments), 2 per
    frozen one (bf16). Stage 1 keeps towers and projector on the CPU. Activations and buffers: `--dry_run`."""
    trained = STAGE_PARTS[stage]
    resident = ("llm",) if stage == 1 else PARTS
    return sum(16 * counts[part] if part in trained else 2 * counts[part] for part in resident)


def print_presets() -> None:
    """The table of presets, from models built on the meta device."""
    print(f"{'preset':<24}{'vision':>9}{'projector':>11}{'llm':>10}{'image tokens':>14}   GB in stage 1 / 2 / 3")
    for name, preset in presets().items():
        with torch.device("meta"):
            counts = count_parameters(_model_class(preset.config)(preset.config))
        memory = " / ".join(f"{training_bytes(counts, stage) / 1e9:.2f}" for stage in (1, 2, 3))
        sizes = [f"{counts[part] / 1e6:.1f}M" for part in PARTS]
        print(f"{name:<24}{sizes[0]:>9}{sizes[1]:>11}{sizes[2]:>10}{preset.image_tokens:>14}   {memory}")
    print("GB: weights, gradients and AdamW state over all GPUs; activations and buffers: train_stage2.py --dry_run")


def save_pretrained(model: MathModel, folder: str | os.PathLike) -> None:
    """Write weights (safetensors), config and processor as one folder that transformers opens."""
    model.hf.save_pretrained(folder)
    model.processor.save_pretrained(folder)


def main() -> None:
    """The three commands of the docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    put_together = commands.add_parser("assemble", help="pretrained parts -> one folder to start from")
    put_together.add_argument("preset")
    put_together.add_argument("out")
    put_together.add_argument("--llm", default="", help="hub name or folder of the language model")
    put_together.add_argument("--vision", default="", help="hub name or folder of the tower(s)")
    export = commands.add_parser("export", help="training checkpoint -> folder that transformers opens")
    export.add_argument("checkpoint")
    export.add_argument("out")
    arguments = parser.parse_args()
    if arguments.command == "assemble":
        preset = find_preset(arguments.preset)
        processor = load_processor(arguments.preset, llm=arguments.llm)
        hf = assemble(preset, llm=arguments.llm, vision=arguments.vision)
        hf.config.image_token_id = processor.image_token_id
        save_pretrained(MathModel(hf, processor), arguments.out)
        print(f"wrote {arguments.out}; start from it with --preset {arguments.preset} --model {arguments.out}")
    elif arguments.command == "export":
        from checkpoint import export_checkpoint

        export_checkpoint(arguments.checkpoint, arguments.out)
        print(f"wrote {arguments.out}")
    else:
        print_presets()


if __name__ == "__main__":
    run_main(main, resumes=False)
