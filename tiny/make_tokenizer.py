"""Make the tokenizer and the processor of the `tiny` preset, from the texts of generated problems.

    python gen_data.py --out_dir data/words --per_category 150
    python gen_data.py --out_dir data/small --per_category 1500 --picture_size 96 --small_numbers
    python -m tiny.make_tokenizer data/{small,words}/{stage2,captions}.jsonl

Byte-level BPE with few tokens. Digits stand alone, and so does each capital letter that names a point: a small model
then copies numbers and names character by character, just as its vision tower names them patch by patch.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import guard  # noqa: F401  (before transformers)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast, SiglipImageProcessor

from errors import UserError, run_main

FOLDER = Path(__file__).resolve().parents[1] / "tiny"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
ALONE = r"[0-9]|[A-Z](?![a-z])"
TEXT_KEYS = ("instruction", "output", "instruction_2", "output_2", "question")
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
                 "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
                 "{% for part in message['content'] %}"
                 "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
                 "{% endfor %}{% endif %}"
                 "{{ '<|im_end|>\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def texts(paths: list[Path]) -> Iterator[str]:
    """Every text of the given .jsonl files, and the words of the chat template."""
    for _ in range(1000):
        yield "user\nassistant\nsystem\n"
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; gen_data.py makes it (see --help)")
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield from (re.sub(r"\s*<image>\s*", "", row[key]) for key in TEXT_KEYS if row.get(key))


def make_tokenizer(paths: list[Path], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE. The texts are read in their order, so the same files give the same tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(ALONE), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(texts(paths), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens={"image_token": "<image>"}, padding_side="left",
                                   model_max_length=1024, clean_up_tokenization_spaces=False)


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """tiny's stock processor: 96-pixel pictures in 8-pixel patches, 144 image tokens."""
    return LlavaProcessor(image_processor=SiglipImageProcessor(size={"height": 96, "width": 96}), tokenizer=tokenizer,
                          patch_size=8, vision_feature_select_strategy="full", num_additional_image_tokens=0,
                          image_token="<image>", chat_template=CHAT_TEMPLATE)


def main() -> None:
    """Read the flags, train, save, show one example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="gen_data's .jsonl files")
    parser.add_argument("--vocab_size", type=int, default=1024)
    parser.add_argument("--out_dir", type=Path, default=FOLDER)
    config = parser.parse_args()
    tokenizer = make_tokenizer(config.files, config.vocab_size)
    processor = make_processor(tokenizer)
    processor.save_pretrained(config.out_dir)
    example = "In triangle ABC, AB = 12 cm and ∠A = 35°. Find f(3)."
    ids = tokenizer(example)["input_ids"]
    print(f"{config.out_dir}: {len(tokenizer)} tokens; {tokenizer.convert_ids_to_tokens(ids)}")
    if tokenizer.decode(ids) != example:
        raise UserError(f"{config.out_dir}: the tokenizer does not give back its own example: {tokenizer.decode(ids)}")


if __name__ == "__main__":
    run_main(main, resumes=False)
