"""Rows of public or generated files → tokens → packed batches, with a position that can be resumed.

    chat_format = ChatFormat(processor, num_image_tokens)
    rows = open_rows("numinamath.jsonl:100k,dart.parquet:0.3", pairs=False, chat_format=chat_format, max_length=2048)
    for batches in make_loader(rows, global_batch=256, pack_tokens=4096, rank=0, world_size=1, seed=0,
                               start_step=0, total_steps=steps_per_epoch(rows, 256)):
        for batch, _ in batches: ...

An index of every usable row (where it lies, how many tokens it has) is made once, at the start. From it alone follows
which rows make up step s and how they are packed on every rank, so the step number is the whole position: a run goes
on exactly where it stopped, on any number of ranks. Reading, tokenising and drawing up images happen in the loader.
sources.py knows files and rows; this file knows tokens, micro_batches and order.
"""

import atexit
import contextlib
import datetime
import hashlib
import heapq
import itertools
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.distributed as dist
from PIL.Image import Image
from tokenizers import Encoding
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import guard  # noqa: F401  (before transformers)
from transformers import ProcessorMixin

from errors import UserError, loader_process_died
from sources import (
    SINGLE,
    STRONG,
    WEAK,
    BadRow,
    BenchmarkRow,
    Conversation,
    ImageFinder,
    Source,
    Turn,
    conversations,
    open_image,
    open_source,
    parse_spec,
    rows_to_draw,
)

INDEX_BATCH = 2048  # rows whose tokens are counted in one call of the tokenizer

# ----------------------------------------------------------------------------------------------------------------------
# Rows to tokens


@dataclass
class Tokens:
    """One conversation: input_ids [L]; positions [R] whose next token is a response token; labels [R], those tokens."""

    input_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


class ChatFormat:
    """How a conversation becomes tokens: the processor's chat template around it, response tokens on their own.

    Prompt and responses are tokenised apart, so that the same response gives the same tokens after any prompt: that is
    what aligns a pair. `input_ids` of the prompt equal the stock processor's for the same text and images. The image
    token stands `num_image_tokens` times per image; a row without images carries none. The end-of-sequence token
    follows each response; loss is on response tokens and on it.
    """

    def __init__(self, processor: ProcessorMixin, num_image_tokens: int):
        tokenizer = processor.tokenizer
        self.processor, self.num_image_tokens = processor, num_image_tokens
        self.image_token_id = int(processor.image_token_id)
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
        self.eos_token_id = int(tokenizer.eos_token_id)
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()  # a saved tokenizer may carry both; here nothing is ever cut
        self.backend.no_padding()
        special = {str(token) for token in tokenizer.all_special_tokens} | {processor.image_token}
        special |= {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        self.special_tokens = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
        self.frames: dict[int, tuple[str, str]] = {}
        self.response_prefix = self._response_prefix()

    def _render(self, turns: Conversation, generation_prompt: bool) -> str:
        messages = []
        for turn in turns:
            content = [{"type": "image"} for _ in turn.images] + [{"type": "text", "text": turn.text}]
            messages.append({"role": turn.role, "content": content})
        return self.processor.apply_chat_template(messages, add_generation_prompt=generation_prompt, tokenize=False)

    def _response_prefix(self) -> str:
        """What the template writes between the generation prompt and the response: nothing, or a space."""
        question, answer = Turn("user", "What is 1 + 1?"), Turn("assistant", "It is 2.")
        prompt, whole = self._render([question], True), self._render([question, answer], False)
        rest = whole[len(prompt) :]
        if prompt.count(question.text) != 1 or not whole.startswith(prompt) or answer.text not in rest:
            raise UserError(
                "the processor's chat template does not put the response behind the generation prompt; "
                "training needs a template where the prompt is a prefix of the whole conversation"
            )
        return rest[: rest.index(answer.text)]

    def _frame(self, num_images: int) -> tuple[str, str]:
        """The template before and after one question; kept, because rendering is slower than tokenising."""
        if num_images not in self.frames:
            probe = "What is 1 + 1?"
            before, after = self._render([Turn("user", probe, [None] * num_images)], True).split(probe)
            if before.count(self.processor.image_token) != num_images:
                raise UserError("the chat template must write the image token once for each image; correct it")
            self.frames[num_images] = (before, after)
        return self.frames[num_images]

    def segments(self, turns: Conversation) -> list[str]:
        """The conversation as text: prompt, response, prompt, response ...; a later prompt starts behind an eos."""
        for turn in turns:
            found = self.special_tokens.search(turn.text)
            if found:
                raise BadRow("special token in the text", f"the text holds the special token {found.group()!r}")
        if len(turns) == 2:
            before, after = self._frame(len(turns[0].images))
            return [before + turns[0].text + after, self.response_prefix + turns[1].text]
        segments, done = [], ""
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            prompt = self._render(turns[:index], True)
            if not prompt.startswith(done):
                raise BadRow("template changes earlier turns", "the chat template rewrites earlier turns")
            response = self.response_prefix + turn.text
            segments += [prompt[len(done) :], response]
            done = prompt + response + self.processor.tokenizer.eos_token
        return segments

    def _encode(self, conversations: list[list[str]]) -> list[list[Encoding]]:
        """Every segment tokenised, all in two calls: the image token once per image, no eos behind responses yet."""
        bos = self.processor.tokenizer.bos_token
        # only the very first segment may get a bos, and not where the template has written one: as the processor does
        bare = [bos is not None and segments[0].startswith(bos) for segments in conversations]
        first = [segments[0] for segments, has_bos in zip(conversations, bare, strict=True) if not has_bos]
        rest = [text for segments, has_bos in zip(conversations, bare, strict=True) for text in segments[not has_bos :]]
        first = iter(self.backend.encode_batch_fast(first, add_special_tokens=True))
        rest = iter(self.backend.encode_batch_fast(rest, add_special_tokens=False))
        return [
            [next(rest if has_bos or index else first) for index in range(len(segments))]
            for segments, has_bos in zip(conversations, bare, strict=True)
        ]

    def count_tokens(self, conversations: list[list[str]], num_images: list[int]) -> list[int]:
        """How many tokens each conversation (as `segments`) has, image tokens and an eos per response included."""
        extra = self.num_image_tokens - 1
        return [
            sum(map(len, encodings)) + len(encodings) // 2 + count * extra
            for encodings, count in zip(self._encode(conversations), num_images, strict=True)
        ]

    def encode(self, turns: Conversation) -> Tokens:
        """Tokens of one conversation, with the positions that predict its responses. Raises BadRow."""
        input_ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        for index, encoding in enumerate(self._encode([self.segments(turns)])[0]):
            if index % 2 == 0:
                for token in encoding.ids:
                    input_ids += [token] * (self.num_image_tokens if token == self.image_token_id else 1)
            else:
                response = [*encoding.ids, self.eos_token_id]
                positions += range(len(input_ids) - 1, len(input_ids) + len(response) - 1)
                labels += response
                input_ids += response
        return Tokens(*(np.array(numbers, dtype=np.int64) for numbers in (input_ids, positions, labels)))

    def pixels(self, image: Image) -> dict[str, Tensor]:
        """One RGB image through the stock image processor, stopped before it rescales: uint8 [3, H, W] each."""
        outputs = self.processor.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
        return {name: pixels[0] for name, pixels in outputs.items()}


# ----------------------------------------------------------------------------------------------------------------------
# The index


# One entry per usable row: which file, where in it (for Source.read_row), the line or row number for messages, the
# side (SINGLE; STRONG or WEAK of a pair read as two rows), tokens and images of the (weak or only, strong) side.
ENTRY = np.dtype(
    [("source", "i4"), ("offset", "i8"), ("length", "i4"), ("number", "i4"), ("side", "u1")]
    + [("tokens", "i4", 2), ("images", "u2", 2)]
)


@dataclass
class Rows:
    """The index: `entries` (ENTRY, in file order), and `counts`, how many rows of each source an epoch draws."""

    pairs: bool
    chat_format: ChatFormat
    max_length: int
    skip_bad_rows: bool
    sources: list[Source]
    amounts: list[str]
    entries: np.ndarray
    counts: list[int]
    dropped: list[Counter]
    fingerprint: str
    orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Rows in one epoch."""
        return sum(self.counts)

    def row_id(self, index: int) -> str:
        """ "file:line" of an entry, and which side of a pair it is when sides are rows of their own."""
        entry = self.entries[index]
        side = {STRONG: "/strong", WEAK: "/weak"}.get(int(entry["side"]), "")
        return f"{self.sources[entry['source']].path}:{entry['number']}{side}"

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        """The entries of an epoch, in order: each file's draw, then all shuffled, by seed and epoch alone."""
        if (seed, epoch) not in self.orders:
            generator = random.Random(f"order {seed} {epoch}")
            order: list[int] = []
            for source, count in enumerate(self.counts):
                indices = np.flatnonzero(self.entries["source"] == source).tolist()
                whole, part = divmod(count, len(indices))
                order += indices * whole + generator.sample(indices, part)
            generator.shuffle(order)
            self.orders.clear()  # one epoch at a time: memory stays flat
            self.orders[seed, epoch] = np.array(order, dtype=np.int64)
        return self.orders[seed, epoch]

    @property
    def mix(self) -> dict[str, dict[str, object]]:
        """What an epoch draws, file by file; plain numbers and strings, to be kept in a checkpoint."""
        return {
            f"{number} {os.path.basename(source.path)}": {
                "asked": self.amounts[number] or "all",
                "usable": int((self.entries["source"] == number).sum()),
                "drawn": self.counts[number],
                "dropped": dict(self.dropped[number]),
            }
            for number, source in enumerate(self.sources)
        }

    def summary(self) -> str:
        """The mix drawn and what was dropped, in a few lines for the log."""
        mean = self.entries["tokens"].max(axis=1).mean()
        kind = "pairs" if self.pairs else "rows"
        lines = [f"data: {len(self):,} {kind} an epoch, {mean:,.0f} tokens on average, at most {self.max_length:,}"]
        for source, facts in zip(self.sources, self.mix.values(), strict=True):
            share = 100 * facts["drawn"] / len(self)
            line = f"  {source.path}: {facts['drawn']:,} of {facts['usable']:,} usable ({share:.1f} % of the mix)"
            line += f", asked: {facts['asked']}"
            if facts["dropped"]:
                reasons = sorted(facts["dropped"].items())
                line += "; dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons)
            lines.append(line)
        return "\n".join(lines)

    def read(self, index: int) -> tuple[Conversation, Conversation | None]:
        """An entry's conversations again: (the only one, None), or of pairs (weak, strong). Raises UserError."""
        entry = self.entries[index]
        try:
            row = self.sources[entry["source"]].read_row(int(entry["offset"]), int(entry["length"]))
            sides = dict(conversations(row, self.pairs))
            return (sides[WEAK], sides[STRONG]) if self.pairs else (sides[int(entry["side"])], None)
        except (BadRow, BenchmarkRow, KeyError, OSError):
            raise UserError(
                f"{self.row_id(index)}: the file has changed since this run began; start it again"
            ) from None


def open_rows(
    spec: str,
    *,
    pairs: bool,
    chat_format: ChatFormat,
    max_length: int,
    image_root: str = "",
    skip_bad_rows: bool = False,
) -> Rows:
    """Index the files of `spec`: "a.jsonl,b.parquet:0.3,c.json.gz:100k" (a point means a fraction, k a thousand).

    image_root: the folder that image paths start from; "" means each file's own folder. Rows longer than max_length
    tokens are dropped and counted; a bad row is an error, or with skip_bad_rows dropped and counted by its reason.
    In a distributed run rank 0 makes the index and the others receive it. Raises UserError.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return _index_files(spec, pairs, chat_format, max_length, image_root, skip_bad_rows)
    # a gloo group of its own: indexing may take longer than NCCL waits, and the index has no business on a GPU
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(hours=6))
    rows, message = None, [None]
    if dist.get_rank() == 0:
        try:
            rows = _index_files(spec, pairs, chat_format, max_length, image_root, skip_bad_rows)
            emptied = [replace(source, blocks=source.blocks and []) for source in rows.sources]
            message = [replace(rows, chat_format=None, sources=emptied)]
        except UserError as error:
            message = [str(error)]
    dist.broadcast_object_list(message, src=0, group=group)
    dist.destroy_process_group(group)
    if isinstance(message[0], str):
        if dist.get_rank() == 0:
            raise UserError(message[0])
        time.sleep(3)  # rank 0 says what is wrong, once; torchrun must not end it before it has
        sys.exit(1)
    if rows is None:
        rows = replace(message[0], chat_format=chat_format)
        for source in rows.sources:
            if not os.path.isfile(source.path):
                raise UserError(f"{source.path}: not on this machine; every node needs the data under the same path")
            if source.blocks is not None:  # a file that cannot be entered in the middle: every rank holds its rows
                for _ in source.scan():
                    pass
    return rows


def _index_files(
    spec: str, pairs: bool, chat_format: ChatFormat, max_length: int, image_root: str, skip_bad_rows: bool
) -> Rows:
    files = parse_spec(spec)
    sources = [open_source(path, image_root) for path, _ in files]
    tables, dropped = [], []
    for number, source in enumerate(sources):
        table, reasons, first = _index_file(source, pairs, chat_format, max_length, skip_bad_rows)
        if not len(table):
            found = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items())) or "it holds no row"
            hint = f" (the first: {first})" if first else ""
            raise UserError(f"{source.path}: no usable row: {found}{hint}; correct the file or take it out of --data")
        table["source"] = number
        tables.append(table)
        dropped.append(reasons)
    counts = [rows_to_draw(amount, len(table)) for (_, amount), table in zip(files, tables, strict=True)]
    if sum(counts) == 0:
        raise UserError(f"--data {spec}: the mix draws no row; ask for more")
    entries = np.concatenate(tables)
    fingerprint = _fingerprint(sources, entries, counts)
    amounts = [amount for _, amount in files]
    return Rows(pairs, chat_format, max_length, skip_bad_rows, sources, amounts, entries, counts, dropped, fingerprint)


def _index_file(
    source: Source, pairs: bool, chat_format: ChatFormat, max_length: int, skip_bad_rows: bool
) -> tuple[np.ndarray, Counter, str]:
    """One file's usable rows as ENTRY [n], what was dropped by reason, and the first bad row's message."""
    dropped, messages = Counter(), []
    rows = _checked_rows(source, pairs, chat_format, skip_bad_rows, dropped, messages)
    rows = iter(tqdm(rows, desc=f"index {os.path.basename(source.path)}", unit=" rows", disable=None))
    sides = 2 if pairs else 1
    tables = [np.zeros(0, dtype=ENTRY)]
    for batch in iter(lambda: list(itertools.islice(rows, INDEX_BATCH)), []):
        places, segments, counts = zip(*batch, strict=True)
        tokens = chat_format.count_tokens(list(itertools.chain(*segments)), list(itertools.chain(*counts)))
        table = np.zeros(len(batch), dtype=ENTRY)
        for column, values in zip(("offset", "length", "number", "side"), zip(*places, strict=True), strict=True):
            table[column] = values
        table["tokens"][:, :sides] = np.array(tokens).reshape(-1, sides)
        table["images"][:, :sides] = counts
        fits = table["tokens"].max(axis=1) <= max_length
        if not fits.all():
            dropped[f"longer than {max_length} tokens"] += int((~fits).sum())
        tables.append(table[fits])
    return np.concatenate(tables), dropped, messages[0] if messages else ""


def _checked_rows(
    source: Source, pairs: bool, chat_format: ChatFormat, skip_bad_rows: bool, dropped: Counter, messages: list[str]
) -> Iterator[tuple[tuple[int, ...], list[list[str]], list[int]]]:
    """Usable rows as ((offset, length, number, side), segments per side, images per side), the weak side first."""
    finder = ImageFinder()
    for number, offset, length, row in source.scan():
        try:
            if isinstance(row, BadRow):
                raise row
            sides = conversations(row, pairs)
            for image in (image for _, turns in sides for turn in turns for image in turn.images):
                finder.check(image, source.image_root)
            segments = [chat_format.segments(turns) for _, turns in sides]
        except BenchmarkRow as error:
            raise UserError(f"{source.path}:{number}: a row of {error}, an evaluation set: never train on it") from None
        except BadRow as bad:
            message = f"{source.path}:{number}: {bad.detail}"
            if not skip_bad_rows:
                raise UserError(f"{message}; {bad.remedy}") from None
            messages[:] = messages or [message]
            dropped[bad.reason] += 1
            continue
        counts = [sum(len(turn.images) for turn in turns) for _, turns in sides]
        if pairs:
            yield (offset, length, number, SINGLE), segments[::-1], counts[::-1]
        else:
            for (side, _), segment, count in zip(sides, segments, counts, strict=True):
                yield (offset, length, number, side), [segment], [count]


def _fingerprint(sources: list[Source], entries: np.ndarray, counts: list[int]) -> str:
    """sha256 of every row's place and length and of each file's name, size, first and last MiB; folders may differ."""
    digest = hashlib.sha256(entries.tobytes())
    for source, count in zip(sources, counts, strict=True):
        size = os.path.getsize(source.path)
        digest.update(f"{os.path.basename(source.path)} {size} {count}".encode())
        with open(source.path, "rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# Steps and micro_batches


def steps_per_epoch(rows: Rows, global_batch: int) -> int:
    """Steps that see every row of an epoch once; the last one may have fewer rows."""
    return -(-len(rows) // global_batch)


def step_rows(rows: Rows, step: int, global_batch: int, seed: int) -> np.ndarray:
    """The entries that make up a step, counted over the whole run."""
    epoch, index = divmod(step, steps_per_epoch(rows, global_batch))
    return rows.epoch_order(seed, epoch)[index * global_batch : (index + 1) * global_batch]


def plan_micro_batches(tokens: np.ndarray, world_size: int, pack_tokens: int) -> list[list[list[int]]]:
    """Deal a step's rows to ranks and micro-batches: plan[slot][rank] lists the rows of that rank's micro-batch `slot`.

    tokens: [n] of each row, none above pack_tokens. Every rank gets the same number of micro-batches, as few as fit,
    and they are filled evenly (longest row first, into the emptiest one): ranks wait for one another in each of them.
    """
    if len(tokens) and int(tokens.max()) > pack_tokens:
        raise ValueError(f"a row of {int(tokens.max())} tokens fits no micro-batch of {pack_tokens}")
    order = sorted(range(len(tokens)), key=lambda row: (-int(tokens[row]), row))
    slots = max(1, -(-int(tokens.sum()) // (world_size * pack_tokens)))
    while True:
        micro_batches: list[list[int]] = [[] for _ in range(slots * world_size)]
        heap = [(0, number) for number in range(len(micro_batches))]
        for row in order:
            load, number = heap[0]
            if load + int(tokens[row]) > pack_tokens:
                break
            micro_batches[number].append(row)
            heapq.heapreplace(heap, (load + int(tokens[row]), number))
        else:
            break
        slots += 1
    loads = [sum(int(tokens[row]) for row in members) for members in micro_batches]
    by_load = sorted(range(len(micro_batches)), key=lambda number: (-loads[number], number))
    plan = []
    for slot in range(slots):
        chosen = by_load[slot * world_size : (slot + 1) * world_size]
        if slot % 2:
            chosen.reverse()  # back and forth, so that no rank gets the fullest one every time
        plan.append([sorted(micro_batches[number]) for number in chosen])
    return plan


@dataclass
class MicroBatch:
    """One micro-batch: rows packed one behind the other, without padding.

    input_ids, position_ids [1, L] int64 (positions restart at 0 for each row); cu_seqlens [rows + 1] int32;
    pixel_values: uint8 [I, 3, H, W] per name of the image processor, {} without images; response_positions [R] int64:
    where the hidden state predicts a response token; response_labels [R] int64: that token. A micro-batch of no rows
    is one end-of-sequence token with R = 0. run_vision: some rank has an image in its micro-batch of this number, so
    all ranks must run the vision tower.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    pixel_values: dict[str, Tensor]
    run_vision: bool
    response_positions: Tensor
    response_labels: Tensor
    row_ids: list[str]

    @property
    def num_response_tokens(self) -> int:
        """Tokens with loss on them: R."""
        return self.response_labels.numel()

    @property
    def num_tokens(self) -> int:
        """Tokens of rows: a micro-batch of no rows has none."""
        return self.input_ids.numel() if self.row_ids else 0

    def _map(self, change: object) -> "MicroBatch":
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        pixels = {name: change(value) for name, value in self.pixel_values.items()}
        return MicroBatch(**{**vars(self), **changed, "pixel_values": pixels})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MicroBatch":
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "MicroBatch":
        """The same with its tensors in page-locked memory; DataLoader calls it."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass
class MicroBatches:
    """One rank's share of a step: micro_batches as (weak or only side, strong side or None), as many on every rank.

    num_rows, row_ids: this rank's rows; global_rows: the step's rows over all ranks, before any was skipped;
    num_skipped, skipped: this rank's rows left out for an unreadable image, and what was wrong with each.
    """

    step: int
    micro_batches: list[tuple[MicroBatch, MicroBatch | None]]
    global_rows: int
    row_ids: list[str]
    skipped: list[str]

    def __iter__(self) -> Iterator[tuple[MicroBatch, MicroBatch | None]]:
        return iter(self.micro_batches)

    def __len__(self) -> int:
        return len(self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Tokens of this rank's micro_batches, both sides of a pair, prompts and image tokens included."""
        return sum(side.num_tokens for sides in self.micro_batches for side in sides if side is not None)

    @property
    def num_rows(self) -> int:
        """This rank's rows, without those skipped."""
        return len(self.row_ids)

    @property
    def num_skipped(self) -> int:
        """This rank's rows left out for an unreadable image."""
        return len(self.skipped)

    def pin_memory(self) -> "MicroBatches":
        """The same with its tensors in page-locked memory; DataLoader calls it."""
        pinned = [(weak.pin_memory(), strong and strong.pin_memory()) for weak, strong in self.micro_batches]
        return MicroBatches(**{**vars(self), "micro_batches": pinned})


def pack_rows(
    rows: list[tuple[Tokens, list[dict[str, Tensor]], str]], eos_token_id: int, run_vision: bool
) -> MicroBatch:
    """Rows (tokens, pixels of each image, id) behind one another in one MicroBatch."""
    lengths = [len(tokens.input_ids) for tokens, _, _ in rows] or [1]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = [tokens.input_ids for tokens, _, _ in rows] or [np.array([eos_token_id])]
    positions = [tokens.positions + start for (tokens, _, _), start in zip(rows, starts, strict=False)]
    labels = [tokens.labels for tokens, _, _ in rows]
    nothing = np.zeros(0, dtype=np.int64)
    pixels = [pixels for _, images, _ in rows for pixels in images]
    return MicroBatch(
        input_ids=torch.from_numpy(np.concatenate(ids).astype(np.int64))[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        max_seqlen=max(lengths),
        pixel_values={name: torch.stack([one[name] for one in pixels]) for name in (pixels[0] if pixels else {})},
        run_vision=run_vision,
        response_positions=torch.from_numpy(np.concatenate([nothing, *positions]).astype(np.int64)),
        response_labels=torch.from_numpy(np.concatenate([nothing, *labels]).astype(np.int64)),
        row_ids=[row_id for _, _, row_id in rows],
    )


# ----------------------------------------------------------------------------------------------------------------------
# The loader


class StepDataset(Dataset):
    """Item s is all that this rank runs in step s. A UserError is returned: DataLoader would wrap it in a traceback."""

    def __init__(self, rows: Rows, global_batch: int, pack_tokens: int, rank: int, world_size: int, seed: int):
        self.rows, self.global_batch, self.pack_tokens, self.seed = rows, global_batch, pack_tokens, seed
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, step: int) -> MicroBatches | UserError:
        try:
            return self._prepare(step)
        except UserError as error:
            return error

    def _prepare(self, step: int) -> MicroBatches:
        rows = self.rows
        indices = step_rows(rows, step, self.global_batch, self.seed)
        entries = rows.entries[indices]
        plan = plan_micro_batches(entries["tokens"].max(axis=1), self.world_size, self.pack_tokens)
        micro_batches, row_ids, skipped = [], [], []
        for slot in plan:
            run_vision = entries["images"][[row for members in slot for row in members]].any(axis=0)
            sides: list[list] = [[], []]
            for index in indices[slot[self.rank]]:
                row_id = rows.row_id(index)
                try:
                    prepared = [self._side(turns, index, row_id) for turns in rows.read(index) if turns is not None]
                except BadRow as bad:
                    if not rows.skip_bad_rows:
                        raise UserError(f"{row_id}: {bad.detail}; {bad.remedy}") from None
                    skipped.append(f"{row_id}: {bad.detail}")
                    continue
                row_ids.append(row_id)
                for side, tokens_and_pixels in zip(sides, prepared, strict=False):
                    side.append(tokens_and_pixels)
            weak = pack_rows(sides[0], rows.chat_format.eos_token_id, bool(run_vision[0]))
            strong = pack_rows(sides[1], rows.chat_format.eos_token_id, bool(run_vision[1])) if rows.pairs else None
            micro_batches.append((weak, strong))
        return MicroBatches(step, micro_batches, len(indices), row_ids, skipped)

    def _side(self, turns: Conversation, index: int, row_id: str) -> tuple[Tokens, list[dict[str, Tensor]], str]:
        tokens = self.rows.chat_format.encode(turns)
        root = self.rows.sources[self.rows.entries["source"][index]].image_root
        images = [open_image(image, root) for turn in turns for image in turn.images]
        return tokens, [self.rows.chat_format.pixels(image) for image in images], row_id


def make_loader(
    rows: Rows,
    *,
    global_batch: int,
    pack_tokens: int,
    rank: int,
    world_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    num_workers: int = 0,
) -> Iterator[MicroBatches]:
    """Steps start_step ... total_steps - 1 of this rank, prepared ahead by num_workers processes (0: in this one).

    Step s holds exactly global_batch rows over all ranks, fewer only in the last step of an epoch; the order follows
    from seed and epoch. Raises UserError, also for what goes wrong in a worker.
    """
    if rows.max_length > pack_tokens:
        raise UserError(
            f"max_length {rows.max_length} is above pack_tokens {pack_tokens}; raise one or lower the other"
        )
    if num_workers:  # each tensor on its way from a worker holds one open file
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loader = DataLoader(
        StepDataset(rows, global_batch, pack_tokens, rank, world_size, seed),
        batch_size=None,
        sampler=range(start_step, total_steps),
        num_workers=num_workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: the run's random state must not depend on how often it was resumed
    )
    return _steps(loader)


def _steps(loader: DataLoader) -> Iterator[MicroBatches]:
    steps = iter(loader)
    # told to end, workers do; signals they leave to the trainer, so the interpreter's own farewell would wait for ever
    end = getattr(steps, "_shutdown_workers", lambda: None)
    atexit.register(end)
    try:
        while True:
            batches = next(steps, None)
            if batches is None:
                return
            if isinstance(batches, UserError):
                raise batches
            yield batches
    except (RuntimeError, EOFError, ConnectionError) as error:  # how the death of a worker shows, by its moment
        if not loader.num_workers:
            raise
        if not isinstance(error, RuntimeError):  # a pipe from the worker broke before torch was told of its death
            error = RuntimeError(f"DataLoader worker: {error or type(error).__name__}")
        told = loader_process_died(error)
        if told is None:
            raise
        raise told from None
    finally:
        with contextlib.suppress(RuntimeError):  # the same death, reported once more
            end()
        atexit.unregister(end)


def _start_worker(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker, one core
    # a scheduler signals every process of a job, a terminal too; what to do about it is the trainer's decision
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # SIGTERM means that the job ends: leave the trainer time to save, then go quietly
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
