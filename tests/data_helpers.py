"""What the data tests share: a small processor built offline, images, and files of rows."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import guard  # noqa: F401  (before transformers)
from transformers import LlavaProcessor, PreTrainedTokenizerFast, SiglipImageProcessor

NUM_IMAGE_TOKENS = 144
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
          "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
          "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
          "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 256 bytes and a few merges, with ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("Ġ", "the"), ("e", "r"), ("Ġ", "a"), ("Ċ", "Ċ")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    return fast


def tiny_processor(chat_template: str = CHATML) -> LlavaProcessor:
    """A stock LLaVA processor for 96 x 96 images in 8-pixel patches: 144 image tokens."""
    return LlavaProcessor(image_processor=SiglipImageProcessor(size={"height": 96, "width": 96}),
                          tokenizer=tiny_tokenizer(), patch_size=8, vision_feature_select_strategy="full",
                          num_additional_image_tokens=0, chat_template=chat_template)


def draw_image(path: Path, seed: int = 0, size: tuple[int, int] = (120, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).line((seed % 50, 0, size[0] - 1, size[1] - 1), fill=(seed * 37 % 256, 20, 200), width=3)
    image.save(path)
    return path


def write_lines(path: Path, rows: list) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def damage(generator: random.Random, value: object, junk: list, other_keys: Sequence = ()) -> object:
    """The value with one thing in it broken: left out, kept under another key as well, or replaced by some junk."""
    if isinstance(value, dict) and value and generator.random() < 0.8:
        key, change = generator.choice(list(value)), generator.random()
        if change < 0.2:
            return {k: v for k, v in value.items() if k != key}
        if change < 0.3:
            others = [f"{key}_", *([generator.choice(other_keys)] if other_keys else [])]
            return {**value, **dict.fromkeys(others, value[key])}
        return {**value, key: damage(generator, value[key], junk, other_keys)}
    if isinstance(value, list) and value and generator.random() < 0.7:
        index = generator.randrange(len(value))
        if generator.random() < 0.3:
            return value[:index] + value[index + 1 :]
        return value[:index] + [damage(generator, value[index], junk, other_keys)] + value[index + 1 :]
    return generator.choice(junk)
