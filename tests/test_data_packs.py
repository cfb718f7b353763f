"""Tokens, packing, order and the loader: what the loss sees is exact, on any number of ranks and after any resume."""

import gc
import gzip
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from data_helpers import CHATML, NUM_IMAGE_TOKENS, draw_image, tiny_processor, tiny_tokenizer, write_lines
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import DeepseekVLHybridImageProcessor, DeepseekVLHybridProcessor

import runtime
from data import (ChatFormat, MicroBatch, Rows, check_held_out, make_loader, open_rows, plan_micro_batches,
                  steps_per_epoch)
from errors import UserError, run_main
from sources import BadRow, Turn, open_image, parse_spec, said

DEEPSEEK = ("{{ bos_token }}{% for m in messages %}{{ 'User: ' if m['role'] == 'user' else 'Assistant: ' }}"
            "{% for part in m['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
            "{{ '\n\n' if m['role'] == 'user' else eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")


@pytest.fixture(scope="module")
def chat_format() -> ChatFormat:
    return ChatFormat(tiny_processor(), NUM_IMAGE_TOKENS)


@pytest.fixture(scope="module")
def pair_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """50 pairs of different lengths; every weak side and every third strong side has an image."""
    folder = tmp_path_factory.mktemp("pairs")
    for n in range(4):
        draw_image(folder / f"{n}.png", n, (60 + 20 * n, 90))
    rows = []
    for n in range(50):
        answer = f"Because {n}, {'the sum ' * (n * 7 % 23)}it is so.\nAnswer: {n}"
        strong = {
            "image_url": "" if n % 3 else f"{n % 4}.png", "instruction": f"Given the angle {n}, " + "and " * (n % 11)
        }
        weak = {"image_url_2": f"{(n + 1) % 4}.png", "instruction_2": "Solve." if n % 2 else ""}
        rows.append({**strong, "output": answer, **weak, "output_2": answer})
    return write_lines(folder / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def pair_rows(pair_file: str, chat_format: ChatFormat) -> Rows:
    return open_rows(pair_file, pairs=True, chat_format=chat_format, max_length=512)


def load(rows: Rows, **options: int) -> list:
    defaults = dict(global_batch=16, pack_tokens=1024, rank=0, world_size=1, seed=3, start_step=0, num_workers=0)
    options = {**defaults, **options}
    options.setdefault("total_steps", steps_per_epoch(rows, options["global_batch"]))
    return list(make_loader(rows, **options))


# ----------------------------------------------------------------------------------------------------------------------
# Tokens


@pytest.mark.parametrize("num_images", [0, 1, 2])
@pytest.mark.parametrize("template", [CHATML, DEEPSEEK])
def test_prompt_tokens_equal_the_stock_processors(num_images: int, template: str, tmp_path: Path) -> None:
    processor = tiny_processor(template)
    processor.tokenizer.bos_token = "<|im_start|>"
    chat_format = ChatFormat(processor, NUM_IMAGE_TOKENS)
    question = "What is\n\n the angle?  {x} π 12"
    content = [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [Image.open(draw_image(tmp_path / f"{n}.png", n)) for n in range(num_images)] or None
    stock = processor(text=text, images=images, add_special_tokens=False)["input_ids"][0]
    tokens = chat_format.encode([said("user", question, ["a"] * num_images), said("assistant", "It is 12.")])
    assert tokens.input_ids[: len(stock)].tolist() == list(stock)
    eos = processor.tokenizer.eos_token_id
    response = " It is 12." if template == DEEPSEEK else "It is 12."
    labels = [*processor.tokenizer.encode(response), eos]
    assert tokens.input_ids[len(stock) :].tolist() == labels
    assert tokens.positions.tolist() == list(range(len(stock) - 1, len(tokens.input_ids) - 1))
    assert (tokens.input_ids == chat_format.image_token_id).sum() == num_images * NUM_IMAGE_TOKENS


@pytest.mark.parametrize("change, reason", [
    (lambda template: "{{ raise_exception('no system!') if messages[0]['role'] == 'system' }}" + template,
     "the chat template refuses system, user: no system!"),
    (lambda template: template.replace("<|im_end|>", "<|im_start|>"),
     r"does not end an answer with the tokenizer's eos_token '<\|im_end\|>'"),
    (lambda template: "{{ messages | length // 3 }}" + template, "the chat template rewrites earlier turns"),
])
def test_rows_that_the_chat_template_cannot_hold_say_why(change, reason: str) -> None:
    """A base model's tokenizer ends texts with another token than its template ends answers with."""
    chat_format = ChatFormat(tiny_processor(change(CHATML)), NUM_IMAGE_TOKENS)
    answered = [said("user", "2 + 2?"), said("assistant", "4")]
    assert chat_format.encode(answered).positions.size
    with pytest.raises(BadRow) as caught:
        chat_format.encode([said("system", "Be brief."), *answered, *answered])
    assert re.search(reason, caught.value.detail)


def test_every_answer_of_a_conversation_bears_loss(chat_format: ChatFormat) -> None:
    turns = [
        said("system", "Be brief."), said("user", "2 + 2?", ["a.png"]), said("assistant", "4"),
        said("user", "And 3 + 3?"), said("assistant", "It is 6")
    ]
    tokens = chat_format.encode(turns)
    tokenizer = chat_format.processor.tokenizer
    assert tokenizer.decode(tokens.input_ids[tokens.positions + 1]) == "4<|im_end|>It is 6<|im_end|>"
    messages = [
        {"role": t.role, "content": [{"type": "image"}] * len(t.images) + [{"type": "text", "text": t.text}]}
        for t in turns
    ]
    text = chat_format.processor.apply_chat_template(messages).removesuffix("\n")
    ids = tokenizer.encode(text.replace("<image>", "<image>" * NUM_IMAGE_TOKENS))
    assert tokens.input_ids.tolist() == ids


def test_counted_lengths_are_the_encoded_ones(pair_rows: Rows) -> None:
    for index in range(len(pair_rows.entries)):
        weak, strong = (pair_rows.chat_format.encode(turns) for turns in pair_rows.read(index))
        assert pair_rows.entries["tokens"][index].tolist() == [len(weak.input_ids), len(strong.input_ids)]


def test_pictures_keep_their_places_among_the_texts(chat_format: ChatFormat) -> None:
    """A template that writes all images in front of the text takes no row that would lose something by it."""
    in_order = ("{% for m in messages %}{% for part in m['content'] %}"
                "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<|im_end|>{% endfor %}")
    row = [said("user", "First: <image> Second: <image> Same?", ["a.png", "b.png"]), said("assistant", "no")]
    segments = ChatFormat(tiny_processor(in_order), NUM_IMAGE_TOKENS).segments(row)
    assert segments == ["First: <image> Second: <image> Same?<|im_end|>", "no"]
    with pytest.raises(BadRow, match="writes all images of a turn in front of its text"):
        chat_format.segments(row)
    for question in ("<image><image> Same?", "Same? <image><image>"):  # nothing stands between them
        prompt = chat_format.segments([said("user", question, ["a.png", "b.png"]), row[1]])[0]
        assert prompt.count("<image>") == 2
    loses = in_order.replace("'<image>' if", "('<image>' if m == messages[0] else '') if")
    with pytest.raises(BadRow, match="writes 1 image tokens for 2 images"):
        ChatFormat(tiny_processor(loses), NUM_IMAGE_TOKENS).segments(
            [said("user", "1?", ["a.png"]), row[1], said("user", "2?", ["a.png"]), row[1]])


def test_special_tokens_in_a_text_are_refused(chat_format: ChatFormat) -> None:
    for text in ("a <|im_start|> b", "<|pad|>", "<image>"):
        with pytest.raises(BadRow, match="special token"):
            chat_format.segments([Turn("user", [{"text": text}]), said("assistant", "a")])


def test_templates_that_cannot_train_are_refused() -> None:
    with pytest.raises(UserError, match="does not put the response behind the generation prompt"):
        ChatFormat(tiny_processor(CHATML.replace("<|im_start|>assistant", "<|im_start|>bot")), NUM_IMAGE_TOKENS)
    chat_format = ChatFormat(tiny_processor(CHATML.replace("{{ '<image>' }}", "")), NUM_IMAGE_TOKENS)
    with pytest.raises(UserError, match="the image token once for each image"):
        chat_format.segments([said("user", "q", ["a.png"]), said("assistant", "a")])
    with pytest.raises(UserError, match="the chat template refuses user: 'foo' is undefined; correct it"):
        ChatFormat(tiny_processor("{{ foo() }}"), NUM_IMAGE_TOKENS)


def test_an_empty_thought_of_the_template_stands_in_front_of_no_other_one() -> None:
    """Qwen3's template writes <think>\n\n</think> before an answer that has no thoughts."""
    thoughts = ("{% if m['role'] == 'assistant' and '<think>' not in m['content'][0]['text'] %}"
                "{{ '<think>\n\n</think>\n\n' }}{% endif %}")
    template = CHATML.replace("+ '\n' }}", "+ '\n' }}" + thoughts, 1)
    chat_format = ChatFormat(tiny_processor(template), NUM_IMAGE_TOKENS)
    for response in ("Yes.", "<think>\nWell.\n</think>\n\nYes."):
        turns = [said("user", "q"), said("assistant", response)]
        whole = chat_format._render(turns, generation_prompt=False)
        assert "".join(chat_format.segments(turns)) == whole.removesuffix("<|im_end|>\n")


def test_rows_that_a_template_refuses_are_bad_rows() -> None:
    """Mistral's and Gemma's raise where a system speaks."""
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system here') }}{% endif %}" + CHATML
    chat_format = ChatFormat(tiny_processor(refuses), NUM_IMAGE_TOKENS)
    with pytest.raises(BadRow, match="refuses system, user: No system here"):
        chat_format.segments([said("system", "s"), said("user", "q"), said("assistant", "a")])


def test_a_tokenizer_saved_with_truncation_cuts_nothing() -> None:
    processor = tiny_processor()
    processor.tokenizer.backend_tokenizer.enable_truncation(8)
    tokens = ChatFormat(processor, NUM_IMAGE_TOKENS).encode([said("user", "q" * 50), said("assistant", "a" * 50)])
    assert len(tokens.positions) == 51


# ----------------------------------------------------------------------------------------------------------------------
# Images


@pytest.mark.parametrize("size", [(96, 96), (300, 41), (7, 200), (33, 34)])
@pytest.mark.parametrize("family", ["siglip", "hybrid"])
def test_pixels_equal_the_stock_processors_bit_for_bit(size: tuple[int, int], family: str, tmp_path: Path) -> None:
    processor = tiny_processor()
    if family == "hybrid":
        tokenizer = tiny_tokenizer()
        tokenizer.image_token = "<image>"
        processor = DeepseekVLHybridProcessor(DeepseekVLHybridImageProcessor(), tokenizer, CHATML, num_image_tokens=576)
    image_processor = processor.image_processor
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    image = open_image(str(tmp_path / "noise.png"))
    stock = image_processor(image, return_tensors="pt")
    pixels = ChatFormat(processor, 576).pixels(image)
    assert set(pixels) == set(stock)
    for name, values in pixels.items():
        assert values.dtype == torch.uint8
        prefix = "high_res_" if name.startswith("high_res") else ""
        mean, std = (torch.tensor(getattr(image_processor, f"{prefix}image_{part}"), dtype=torch.float32)[:, None, None]
                     for part in ("mean", "std"))
        normalised = ((values.double() * image_processor.rescale_factor).float() - mean) / std
        assert torch.equal(normalised, stock[name][0])


# ----------------------------------------------------------------------------------------------------------------------
# Packs


def unpack(batch: MicroBatch) -> list[tuple[list[int], list[int], list[int]]]:
    """Each row of a pack: (input_ids, labels, positions within the row)."""
    bounds = batch.cu_seqlens.tolist()
    rows = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        inside = (batch.response_positions >= start) & (batch.response_positions < end)
        positions = (batch.response_positions[inside] - start).tolist()
        rows.append((batch.input_ids[0, start:end].tolist(), batch.response_labels[inside].tolist(), positions))
    return rows


def test_packs_hold_their_rows_exactly(pair_rows: Rows) -> None:
    expected = {}
    for index in range(len(pair_rows.entries)):
        expected[pair_rows.row_id(index)] = [pair_rows.chat_format.encode(turns) for turns in pair_rows.read(index)]
    seen = 0
    for batches in load(pair_rows):
        for sides in batches:
            for side, batch in enumerate(sides):
                length = batch.input_ids.numel()
                assert batch.input_ids.shape == batch.position_ids.shape == (1, length)
                assert batch.input_ids.dtype == batch.position_ids.dtype == batch.response_labels.dtype == torch.int64
                assert (batch.cu_seqlens.dtype == torch.int32
                        and batch.cu_seqlens[0] == 0
                        and batch.cu_seqlens[-1] == length)
                lengths = batch.cu_seqlens.diff()
                assert batch.max_seqlen == lengths.max() and length <= 1024
                assert batch.position_ids[0].tolist() == [position for n in lengths.tolist() for position in range(n)]
                for row_id, (ids, labels, positions) in zip(batch.row_ids, unpack(batch), strict=True):
                    tokens = expected[row_id][side]
                    assert ids == tokens.input_ids.tolist()
                    assert positions == tokens.positions.tolist()
                    assert labels == tokens.input_ids[tokens.positions + 1].tolist()
                    seen += 1
                images = (batch.input_ids == pair_rows.chat_format.image_token_id).sum().item() // NUM_IMAGE_TOKENS
                assert images == len(batch.pixel_values.get("pixel_values", []))
    assert seen == 2 * 50


def test_sides_of_a_pair_are_aligned(pair_rows: Rows) -> None:
    for batches in load(pair_rows, world_size=2, rank=1):
        assert batches.num_response_tokens == sum(len(weak.response_labels) for weak, _ in batches) > 0
        for weak, strong in batches:
            assert weak.row_ids == strong.row_ids
            assert torch.equal(weak.response_labels, strong.response_labels)
            for batch in (weak, strong):
                followers = batch.input_ids[0, batch.response_positions + 1] if batch.row_ids else batch.response_labels
                assert torch.equal(followers, batch.response_labels)


def test_pictures_stand_in_the_order_of_their_rows(pair_rows: Rows) -> None:
    [batches] = load(pair_rows, total_steps=1)
    by_id = {pair_rows.row_id(index): index for index in range(50)}
    for weak, _ in batches:
        for row_id, pixels in zip(weak.row_ids, weak.pixel_values["pixel_values"], strict=True):
            [image] = pair_rows.read(by_id[row_id])[0][0].images
            image = open_image(image, os.path.dirname(row_id.split(":")[0]))
            assert torch.equal(pixels, pair_rows.chat_format.pixels(image)["pixel_values"])


@pytest.mark.parametrize("world_size", [1, 2, 4, 7])
def test_plan_is_an_even_partition(world_size: int) -> None:
    generator = np.random.default_rng(world_size)
    for case in range(60):
        count = int(generator.integers(1, 200))
        tokens = generator.integers(1, 1025 if case % 2 else 300, count)
        plan = plan_micro_batches(tokens, world_size, 1024)
        assert all(len(slot) == world_size for slot in plan)
        rows = [row for slot in plan for members in slot for row in members]
        assert sorted(rows) == list(range(count))
        loads = np.array([[tokens[members].sum() for members in slot] for slot in plan])
        assert loads.max() <= 1024
        assert plan == plan_micro_batches(tokens, world_size, 1024)
        longest = tokens.max()
        per_rank = loads.sum(axis=0)
        assert per_rank.max() - per_rank.min() <= longest  # no rank has more than one row's work on top
        assert all(slot.max() - slot.min() <= longest for slot in loads)
        if tokens.max() < 300:
            assert len(plan) <= -(-tokens.sum() // (world_size * 1024)) + 1  # few more than the tokens need
    with pytest.raises(ValueError, match="fits no micro-batch"):
        plan_micro_batches(np.array([1025]), 1, 1024)


def test_packs_of_no_rows_fill_the_ranks(pair_rows: Rows) -> None:
    [batches] = load(pair_rows, global_batch=2, world_size=4, rank=3, total_steps=1)
    [(weak, strong)] = batches.micro_batches
    for batch in (weak, strong):
        assert batch.input_ids.tolist() == [[pair_rows.chat_format.eos_token_id]]
        assert batch.position_ids.tolist() == [[0]] and batch.cu_seqlens.tolist() == [0, 1] and batch.max_seqlen == 1
        assert (batch.num_response_tokens == 0
                and batch.num_tokens == 0
                and batch.row_ids == []
                and batch.pixel_values == {})
    assert weak.run_vision  # another rank's pack has an image
    assert len(batches.row_ids) == 0 and batches.global_rows == 2


def test_all_ranks_agree_on_touching_vision(tmp_path: Path, chat_format: ChatFormat) -> None:
    draw_image(tmp_path / "a.png")
    rows = [{"instruction": f"{n}?", "output": f"{n}", "image_url": "" if n % 7 else "a.png"} for n in range(42)]
    index = open_rows(write_lines(tmp_path / "a.jsonl", rows), pairs=False, chat_format=chat_format, max_length=300)
    ranks = [load(index, world_size=3, rank=rank, global_batch=14, pack_tokens=300) for rank in range(3)]
    touched = 0
    for step in zip(*ranks, strict=True):
        assert len({len(batches) for batches in step}) == 1
        for micro_batches in zip(*step, strict=True):
            flags = {weak.run_vision for weak, _ in micro_batches}
            assert flags == {any(weak.pixel_values for weak, _ in micro_batches)}
            assert all(strong is None for _, strong in micro_batches)
            touched += flags == {True}
    assert 0 < touched < sum(len(batches) for batches in ranks[0])


# ----------------------------------------------------------------------------------------------------------------------
# Order, epochs, resuming


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_partition_every_step(world_size: int, pair_rows: Rows) -> None:
    steps = steps_per_epoch(pair_rows, 16)
    assert steps == 4  # 16 + 16 + 16 + 2: the last, partial batch is used
    alone = load(pair_rows, total_steps=2 * steps)
    ranks = [load(pair_rows, world_size=world_size, rank=rank, total_steps=2 * steps) for rank in range(world_size)]
    for epoch in range(2):
        ids = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            together = sorted(row_id for batches in ranks for row_id in batches[step].row_ids)
            assert together == sorted(alone[step].row_ids)
            assert alone[step].step == step and alone[step].global_rows == len(together) == (
                2 if step % steps == 3 else 16
            )
            ids += together
        assert len(ids) == len(set(ids)) == 50


def test_a_resume_on_other_ranks_sees_no_row_twice_and_skips_none(pair_rows: Rows) -> None:
    ids = []
    for start, end, world_size in ((0, 3, 2), (3, 5, 4), (5, 8, 1)):
        for rank in range(world_size):
            for batches in load(pair_rows, rank=rank, world_size=world_size, start_step=start, total_steps=end):
                ids += [(batches.step // 4, row_id) for row_id in batches.row_ids]
    assert len(ids) == len(set(ids)) == 100


def test_a_resume_gives_the_same_tensors(pair_rows: Rows) -> None:
    whole, resumed = load(pair_rows, total_steps=6)[4:], load(pair_rows, start_step=4, total_steps=6)
    for one, other in zip(whole, resumed, strict=True):
        for (weak, strong), (weak_again, strong_again) in zip(one, other, strict=True):
            for batch, again in ((weak, weak_again), (strong, strong_again)):
                assert batch.row_ids == again.row_ids
                assert all(
                    torch.equal(value, vars(again)[key]) for key, value in vars(batch).items() if torch.is_tensor(value)
                )
                assert all(torch.equal(value, again.pixel_values[key]) for key, value in batch.pixel_values.items())


def test_order_follows_from_seed_and_epoch_alone(pair_rows: Rows) -> None:
    orders = {(seed, epoch): pair_rows.epoch_order(seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert pair_rows.epoch_order(0, 0).tolist() == orders[0, 0]
    assert orders[0, 0][:5] == [40, 0, 30, 5, 26]  # the same everywhere and in years: a resume depends on it


def test_global_randomness_is_left_alone(pair_rows: Rows) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    load(pair_rows)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()


# ----------------------------------------------------------------------------------------------------------------------
# Mixes, lengths, fingerprints


def text_file(path: Path, count: int, name: str = "row") -> str:
    return write_lines(path, [{"instruction": f"{name} {n}?", "output": "a" * (1 + n % 30)} for n in range(count)])


def test_a_mix_draws_counts_and_fractions(tmp_path: Path, chat_format: ChatFormat) -> None:
    files = [
        text_file(tmp_path / f"{name}.jsonl", count) for name, count in (("a", 100), ("b", 50), ("c", 40), ("d", 8))
    ]
    spec = f"{files[0]}:30, {files[1]}:0.5,{files[2]}:0.1k,{files[3]}:2.5"
    rows = open_rows(spec, pairs=False, chat_format=chat_format, max_length=200)
    assert [file["drawn"] for file in rows.mix.values()] == [30, 25, 40, 20] and len(rows) == 115
    drawn = [np.bincount(rows.entries["source"][rows.epoch_order(7, epoch)]).tolist() for epoch in range(3)]
    assert drawn == [[30, 25, 40, 20]] * 3
    first, second = (set(rows.epoch_order(7, epoch).tolist()) for epoch in range(2))
    assert first != second  # each epoch draws anew
    assert set(
        np.unique(rows.epoch_order(7, 0)[rows.entries["source"][rows.epoch_order(7, 0)] == 3], return_counts=True)[1]
    ) == {2, 3}
    assert json.loads(json.dumps(rows.mix))["0 a.jsonl"] == {"asked": "30", "usable": 100, "drawn": 30, "dropped": {}}
    assert "30 of 100 usable (26.1 % of the mix), asked: 30" in rows.summary()
    assert "40 of 40 usable (34.8 % of the mix), asked: 0.1k" in rows.summary()
    ids = [row_id for batches in load(rows, global_batch=32) for row_id in batches.row_ids]
    assert len(ids) == 115


def test_spec_mistakes_are_said(tmp_path: Path, chat_format: ChatFormat) -> None:
    assert parse_spec("a.jsonl:100k, b:c.parquet:0.3") == [("a.jsonl", "100k"), ("b:c.parquet", "0.3")]
    for spec, words in (("", "--data is empty"), ("a.jsonl:many", "behind the colon"), (" , ", "--data is empty")):
        with pytest.raises(UserError, match=words):
            parse_spec(spec)
    with pytest.raises(UserError, match="draws no row"):
        open_rows(f"{text_file(tmp_path / 'a.jsonl', 3)}:0", pairs=False, chat_format=chat_format, max_length=200)


def test_the_header_says_what_rows_show(tmp_path: Path, chat_format: ChatFormat) -> None:
    draw_image(tmp_path / "a.png")
    answers = ["b" * 9, "b" * 19, "b" * 29, "b" * 400]  # a token each, and the end; the last one is too long
    keys = ("image_url", "instruction", "output", "image_url_2", "instruction_2", "output_2")
    sides = [(["a.png"] * (n < 2) * (n + 1), "q", answer, ["a.png"] * (n == 0), "q2", answer)
             for n, answer in enumerate(answers)]
    path = write_lines(tmp_path / "a.jsonl", [dict(zip(keys, values, strict=True)) for values in sides])
    options = dict(chat_format=chat_format, max_length=400)
    header = open_rows(path, pairs=True, **options).summary().splitlines()
    assert header[1].endswith("3 of 3 usable (100.0 % of the mix), asked: all; dropped: longer than 400 tokens 1")
    assert header[2:] == [
        "    strong: 2 with pictures (1.5 each), 1 without; responses: 20 tokens on average",
        "    weak: 1 with pictures (1.0 each), 2 without; responses: 20 tokens on average",
        "  warning: strong sides show more pictures (3) than weak ones (1); swapped?",
    ]
    assert open_rows(path, pairs=False, **options).summary().splitlines()[2:] == header[2:4]
    text = open_rows(text_file(tmp_path / "text.jsonl", 2), pairs=False, **options).summary()
    assert text.endswith("    rows: 0 with pictures (0.0 each), 2 without; responses: 2 tokens on average")


def test_too_long_rows_are_dropped_whole_and_counted(tmp_path: Path, chat_format: ChatFormat) -> None:
    draw_image(tmp_path / "a.png")
    text = [{"instruction": "q", "output": "b" * n} for n in (10, 110, 30)]
    image = {"instruction": "q", "output": "short", "image_url": "a.png"}
    path = write_lines(tmp_path / "a.jsonl", [*text, image])
    rows = open_rows(path, pairs=False, chat_format=chat_format, max_length=120)  # image tokens count: 144 are too many
    assert rows.entries["number"].tolist() == [1, 3]
    assert rows.mix["0 a.jsonl"]["dropped"] == {"longer than 120 tokens": 2}
    assert "dropped: longer than 120 tokens 2" in rows.summary()
    assert len(open_rows(path, pairs=False, chat_format=chat_format, max_length=200)) == 4
    exact = int(rows.entries["tokens"][1, 0])
    assert len(open_rows(path, pairs=False, chat_format=chat_format, max_length=exact)) == 2
    assert len(open_rows(path, pairs=False, chat_format=chat_format, max_length=exact - 1)) == 1
    with pytest.raises(UserError, match="max_length 120 is above pack_tokens 100"):
        make_loader(rows, global_batch=1, pack_tokens=100, rank=0, world_size=1, seed=0, start_step=0, total_steps=1)


def test_fingerprint_knows_the_data_not_the_folder(tmp_path: Path, chat_format: ChatFormat) -> None:
    def fingerprint(folder: str, count: int = 40, spec: str = "", max_length: int = 200) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = text_file(tmp_path / folder / "a.jsonl", count)
        return open_rows(path + spec, pairs=False, chat_format=chat_format, max_length=max_length).fingerprint["rows"]

    assert fingerprint("x") == fingerprint("y")
    assert len({fingerprint("x"), fingerprint("x", 41), fingerprint("x", 40, ":20"), fingerprint("x", 40, "", 50)}) == 4


def test_held_out_rows_that_are_trained_on_are_refused(tmp_path: Path) -> None:
    train, other = text_file(tmp_path / "train.jsonl", 9), text_file(tmp_path / "other.jsonl", 9, "own")
    same_size = text_file(tmp_path / "held_out.jsonl", 9, "new")
    copy = shutil.copy(train, tmp_path / "copy.jsonl")
    (tmp_path / "link.jsonl").symlink_to(train)
    assert os.path.getsize(same_size) == os.path.getsize(train)
    check_held_out(f"{train}:3,{other}", same_size, 1)
    check_held_out(train, str(tmp_path / "gone.jsonl"), 1)  # open_rows reports a missing file
    for held_out in (train, f"{same_size},{copy}:0.5", str(tmp_path / "link.jsonl")):
        with pytest.raises(UserError, match="take it out of one of them") as caught:
            check_held_out(f"{other},{train}:100k", held_out, 1)
        assert train in str(caught.value) and parse_spec(held_out)[-1][0] in str(caught.value)
    check_held_out(train, "", 0)
    for val_data, val_every in ((same_size, 0), ("", 5)):  # half of it would silently do nothing
        with pytest.raises(UserError, match="give both, or neither"):
            check_held_out(train, val_data, val_every)


def test_a_tokenizer_that_adds_a_bos_adds_it_once() -> None:
    tokens = {}
    for template in (DEEPSEEK, CHATML.replace("'<|im_start|>' + m", "'|' + m").replace("'<|im_start|>a", "'|a")):
        processor = tiny_processor(template)
        tokenizer = processor.tokenizer
        tokenizer.bos_token, bos = "<|im_start|>", tokenizer.convert_tokens_to_ids("<|im_start|>")
        special = [("<|im_start|>", bos)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=special
        )
        tokens[template] = ChatFormat(processor, NUM_IMAGE_TOKENS).encode([said("user", "1?"), said("assistant", "2")])
        assert tokens[template].input_ids.tolist().count(bos) == 1 and tokens[template].input_ids[0] == bos
        both = TemplateProcessing(single="<|im_start|> $A <|im_start|>", special_tokens=special)
        tokenizer.backend_tokenizer.post_processor = both
        with pytest.raises(UserError, match="more than a bos_token"):
            ChatFormat(processor, NUM_IMAGE_TOKENS)


# ----------------------------------------------------------------------------------------------------------------------
# Worker processes and ranks


def test_workers_give_the_same_batches(pair_rows: Rows) -> None:
    for one, other in zip(load(pair_rows), load(pair_rows, num_workers=2), strict=True):
        assert one.row_ids == other.row_ids and one.step == other.step
        for (weak, _), (weak_again, _) in zip(one, other, strict=True):
            assert torch.equal(weak.input_ids, weak_again.input_ids)
            assert torch.equal(weak.pixel_values["pixel_values"], weak_again.pixel_values["pixel_values"])
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_workers_error_is_one_line_in_the_main_process(tmp_path: Path, chat_format: ChatFormat) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a", "image_url": "a.png"}])
    (tmp_path / "a.png").write_text("not an image")
    rows = open_rows(path, pairs=False, chat_format=chat_format, max_length=300)
    with pytest.raises(UserError) as caught:
        load(rows, num_workers=1)
    assert str(caught.value).startswith(f"{path}:1: image ") and "\n" not in str(caught.value)


def test_workers_leave_signals_to_the_trainer_and_end_with_it(pair_rows: Rows) -> None:
    loader = make_loader(pair_rows, global_batch=4, pack_tokens=1024, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=99, num_workers=2)
    next(loader), next(loader)  # one from each: both are past their start
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(worker.pid, number)
    for _ in range(6):
        next(loader)
    loader.close()
    gc.collect()
    assert not any(worker.is_alive() for worker in workers)


def test_a_worker_killed_during_the_training_step_is_one_line_too(
    pair_rows: Rows, capsys: pytest.CaptureFixture
) -> None:
    """torch raises from its signal handler, in whatever the main thread does just then."""
    loader = make_loader(pair_rows, global_batch=4, pack_tokens=1024, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=99, num_workers=2)

    def main() -> None:
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(20)  # stands for the forward and backward pass

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: a loader process died (DataLoader worker (pid") and "\n" not in told

    def unrelated() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_main(unrelated)


@pytest.mark.parametrize("resumes", [True, False])
def test_ctrl_c_is_one_line_that_promises_no_more_than_holds(resumes, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_main(interrupted, resumes=resumes)
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted" + "; the same command goes on from what was saved" * resumes


def open_as_rank(rank: int, store: Path, path: str, chat_format: ChatFormat, answers: multiprocessing.Queue) -> None:
    os.environ["RANK"] = str(rank)  # as torchrun sets it
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    options, failure = dict(pairs=False, chat_format=chat_format, max_length=300, prepared=store.parent), "none"
    try:
        open_rows(path, **options)
    except UserError as error:
        failure = str(error)
    except SystemExit as ended:
        failure = f"exit {ended.code}"
    rows = open_rows(path, skip_bad_rows=True, **options)
    steps = load(rows, global_batch=8, pack_tokens=300, rank=rank, world_size=2)
    seen = [row_id for batches in steps for row_id in batches.row_ids]
    answers.put((rank, failure, rows.fingerprint, rows.mix, seen))
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_share_one_index(tmp_path: Path, chat_format: ChatFormat) -> None:
    lines = [json.dumps({"instruction": f"{n}?", "output": f"{n}"}) for n in range(30)]
    path = str(tmp_path / "a.jsonl.gz")  # gzipped: every rank holds the rows in memory
    Path(path).write_bytes(gzip.compress("\n".join([*lines, "{broken"]).encode()))
    fork = multiprocessing.get_context("fork")  # the imports are paid already
    answers = fork.Queue()
    ranks = [fork.Process(target=open_as_rank, args=(rank, tmp_path / "store", path, chat_format, answers))
             for rank in range(2)]
    for process in ranks:
        process.start()
    [(_, said, *first), (_, silent, *second)] = sorted(answers.get(timeout=200) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert said.startswith(f"{path}:31: the line is not JSON") and silent == "exit 1"  # one line, not one per rank
    assert first[:2] == second[:2] and first[1]["0 a.jsonl.gz"]["dropped"] == {"broken JSON": 1}
    numbers = [int(row_id.rpartition(":")[2]) for row_id in first[2] + second[2]]
    assert sorted(numbers) == list(range(1, 31))


def watch_as_rank(rank: int, store: Path, answers: multiprocessing.Queue) -> None:
    os.environ["RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    process = runtime.Process(rank, rank, 2, torch.device("cpu"), mesh=object(), control=dist.group.WORLD)
    printed, seen, said = [], [], "none"  # `seen` grows a step at a time: the last one raises
    runtime.print0 = printed.append
    # rank 1 alone finds them, in every fourth step of 40 rows: at the second, 8 of 200 rows; later 10 %, then more
    unreadable = [0, 0, 0, 4] * 5 + [5] * 30
    steps = (SimpleNamespace(global_rows=40, skipped=[f"a.jsonl:{step}: x"] * (rank * count))
             for step, count in enumerate(unreadable))
    try:
        for _, count in runtime.watch_unreadable(steps, process):
            seen.append(count)
    except UserError as error:
        said = str(error)
    except SystemExit as ended:
        said = f"exit {ended.code}"
    answers.put((rank, said, seen, printed))
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_agree_on_what_is_unreadable(tmp_path: Path) -> None:
    """More than 10 % of the last 1,000 rows end the run on both, in one line, though one alone has found them."""
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    ranks = [fork.Process(target=watch_as_rank, args=(rank, tmp_path / "store", answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    [(_, said, seen, printed), (_, silent, also_seen, _)] = sorted(answers.get(timeout=100) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    assert silent == "exit 1" and seen == also_seen
    # 25 steps hold 1,000 rows; 20 more steps with 5 each make 101 with the four's last one or two
    window = ([0, 0, 0, 4] * 5 + [5] * 30)[: len(seen) + 1][-25:]
    assert sum(window) > 100 >= sum(seen[-25:])
    assert said == (f"a.jsonl:{len(seen)}: x: {sum(window)} of the last 1,000 rows have such pictures; make these "
                    "files readable, or take their rows out of --data")
    assert printed == ["left out: a.jsonl:3: x"] * 4 + ["left out: a.jsonl:7: x"]


def test_memory_stays_flat(pair_rows: Rows) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    loader = make_loader(pair_rows, global_batch=8, pack_tokens=1024, rank=0, world_size=1, seed=0, start_step=0,
                         total_steps=80)
    sizes = [resident() for _ in loader]
    assert len(sizes) == 80
    assert max(sizes[-20:]) - max(sizes[20:40]) < 4 << 20
