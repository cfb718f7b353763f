"""Rows of training files → tokens → packed batches, with a position that can be resumed.

    chat_format = ChatFormat(processor, num_image_tokens)
    rows = open_rows("numinamath.jsonl:100k,dart.parquet:0.3", pairs=False, chat_format=chat_format, max_length=2048)
    for batches in make_loader(rows, global_batch=256, pack_tokens=4096, rank=0, world_size=1, seed=0,
                               start_step=0, total_steps=steps_per_epoch(rows, 256)):
        for batch, _ in batches: ...

An index of every usable row (where it is in its file, how many tokens it has) is made once, at the start. The index and
the seed alone decide which rows make up step s and how every rank packs them, so the step number is the whole position:
a run continues exactly where it stopped, on any number of ranks. The loader's processes read, tokenise and decode.
sources.py knows files and rows; this file knows tokens, micro-batches and order.
"""

import atexit
import contextlib
import datetime
import filecmp
import functools
import hashlib
import itertools
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.distributed as dist
from PIL.Image import Image
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import guard  # noqa: F401  (before transformers)
from transformers import ProcessorMixin

from errors import UserError, leave_to_first_rank, loader_process_died
import resource  # after errors
from benchmarks import benchmark_of
from sources import SINGLE, STRONG, WEAK, BadRow, Conversation, ImageFinder, Source, Turn, WrongFile
from sources import conversations, in_training_form, open_source, parse_spec, prepare, rows_to_draw, said

INDEX_BATCH = 2048  # rows whose tokens are counted in one call of the tokenizer

# ----------------------------------------------------------------------------------------------------------------------
# Rows to tokens


@dataclass
class Tokens:
    """One conversation: input_ids [L] int64; positions [R] int64: those whose next token is a response token."""

    input_ids: np.ndarray
    positions: np.ndarray


class ChatFormat:
    """How a conversation becomes tokens: the processor's chat template around it, response tokens on their own.

    Prompt and responses are tokenised apart, so that the same response gives the same tokens after any prompt: that is
    what aligns a pair. `input_ids` of the prompt equal the stock processor's for the same text and images. The image
    token is repeated `num_image_tokens` times per image; a row without images has none. The end-of-sequence token
    follows each response; the loss is on response tokens and on it.
    """

    def __init__(self, processor: ProcessorMixin, num_image_tokens: int):
        tokenizer = processor.tokenizer
        self.processor, self.num_image_tokens = processor, num_image_tokens
        self.image_token_id = int(processor.image_token_id)
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
        self.eos_token_id = int(tokenizer.eos_token_id)
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()  # a saved tokenizer may have both switched on; here nothing is ever cut
        self.backend.no_padding()
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= {*tokenizer.all_special_tokens, processor.image_token}
        self.special_tokens = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        # what the tokenizer puts in front of every text; a chat template that writes a bos itself replaces it
        self.bos_ids = self.backend.encode("", add_special_tokens=True).ids
        if self.bos_ids not in ([], [tokenizer.bos_token_id]):
            raise UserError("the tokenizer adds more than a bos_token to a text; correct its post_processor")
        self.frames: dict[int, tuple[str, str, str]] = {}
        try:
            self.response_prefix = self._frame(0)[2]
        except BadRow as bad:
            raise UserError(f"{bad.detail}; correct it") from bad

    def _render(self, turns: Conversation, generation_prompt: bool = True) -> str:
        contents = [[{"type": "image"} if "image" in part else {"type": "text", **part} for part in turn.content]
                    for turn in turns]
        messages = [{"role": turn.role, "content": parts} for turn, parts in zip(turns, contents, strict=True)]
        try:
            return self.processor.apply_chat_template(messages, add_generation_prompt=generation_prompt, tokenize=False)
        except Exception as error:  # a template raises nearly anything, and many do where a system speaks
            roles = ", ".join(turn.role for turn in turns[:8])
            raise BadRow("template refuses the turns", f"the chat template refuses {roles}: {error}") from error

    def _frame(self, num_images: int) -> tuple[str, str, str]:
        """The template before a question, behind it, and between generation prompt and response (nothing, or a space).

        Kept, because rendering is slower than tokenising.
        """
        if num_images not in self.frames:
            question, answer = said("user", "What is 1 + 1?", [None] * num_images), said("assistant", "It is 2.")
            prompt, whole = self._render([question]), self._render([question, answer], generation_prompt=False)
            before, *after = prompt.split(question.text)
            prefix, found, _ = whole[len(prompt) :].partition(answer.text)
            if len(after) != 1 or not whole.startswith(prompt) or not found:
                raise UserError("the chat template does not put the response behind the generation prompt; correct it")
            if before.count(self.processor.image_token) != num_images:
                raise UserError("the chat template must write the image token once for each image; correct it")
            self.frames[num_images] = (before, *after, prefix)
        return self.frames[num_images]

    def segments(self, turns: Conversation) -> list[str]:
        """The conversation as text: prompt, response, prompt, response ...; later prompts continue after an eos."""
        for turn in turns:
            if found := self.special_tokens.search(turn.text):
                raise BadRow("special token in the text", f"the text holds the special token {found.group()!r}")
            if not self.keeps_places and _text_among_images(turn):
                what = "the chat template writes all images of a turn in front of its text"
                raise BadRow(what, f"{what}, and here texts stand among them")
        if len(turns) == 2 and all("image" in part for part in turns[0].content[:-1]):
            before, after, prefix = self._frame(len(turns[0].images))
            return [before + turns[0].text + after, _behind(prefix, turns[1].text)]
        segments, done, end = [], "", ""
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                prompt = self._render(turns[:index])
                if not prompt.startswith(done + end):
                    ends = f"does not end an answer with the tokenizer's eos_token {end!r}"
                    what = ends if prompt.startswith(done) else "rewrites earlier turns"
                    raise BadRow(f"the chat template {what}", f"the chat template {what}, so it takes no second answer")
                segments += [prompt[len(done + end) :], _behind(self.response_prefix, turn.text)]
                done, end = prompt + segments[-1], self.processor.tokenizer.eos_token
        shown = "".join(segments[::2]).count(self.processor.image_token)
        if shown != (wanted := sum(len(turn.images) for turn in turns)):
            what = f"the chat template writes {shown} image tokens for {wanted} images"
            raise BadRow("template loses images", what, "correct the template, or pass --skip_bad_rows")
        return segments

    @functools.cached_property
    def keeps_places(self) -> bool:
        """Whether the template leaves an image between the texts where it stands; many write all images first."""
        try:
            text = self._render([said("user", "What is 1 + 1? <image> What is 2 + 2?", [None])])
        except BadRow:
            return False
        return text.find("1 + 1") < text.find(self.processor.image_token) < text.find("2 + 2")

    def encode_segments(self, conversations: list[list[str]]) -> list[Tokens]:
        """Tokens of conversations (as `segments`), all in one call of the tokenizer."""
        bos, texts = self.processor.tokenizer.bos_token, list(itertools.chain(*conversations))
        encodings = iter(self.backend.encode_batch_fast(texts, add_special_tokens=False))
        tokens = []
        for segments in conversations:
            ids = [next(encodings).ids for _ in segments]
            if bos is None or not segments[0].startswith(bos):  # as the processor does
                ids[0] = self.bos_ids + ids[0]
            ids[1::2] = [[*response, self.eos_token_id] for response in ids[1::2]]
            is_response = np.repeat(np.arange(len(ids)) % 2, list(map(len, ids)))
            flat = np.array(list(itertools.chain(*ids)), dtype=np.int64)
            times = np.where(flat == self.image_token_id, self.num_image_tokens, 1)
            tokens.append(Tokens(np.repeat(flat, times), np.flatnonzero(np.repeat(is_response, times)) - 1))
        return tokens

    def encode(self, turns: Conversation) -> Tokens:
        """Tokens of one conversation, with the positions that predict its responses. Raises BadRow."""
        return self.encode_segments([self.segments(turns)])[0]

    def pixels(self, image: Image) -> dict[str, Tensor]:
        """One RGB image through the stock image processor, stopped before it rescales: uint8 [3, H, W] each."""
        outputs = self.processor.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
        return {name: pixels[0] for name, pixels in outputs.items()}


def _text_among_images(turn: Turn) -> bool:
    """Whether a text stands between two images of the turn."""
    kinds = ["image" in part for part in turn.content if part.get("text", "an image").strip()]
    shown = [index for index, is_image in enumerate(kinds) if is_image]
    return bool(shown) and shown[-1] - shown[0] >= len(shown)


def _behind(prefix: str, response: str) -> str:
    """The response with what the template writes in front of it: Qwen3's empty <think>, unless it brings its own."""
    return response if response.startswith(tuple(prefix.split()[:1])) else prefix + response


# ----------------------------------------------------------------------------------------------------------------------
# The index


# One entry per usable row: which file, where in it (for Source.read_row), the line or row number for messages, the
# side (SINGLE; STRONG or WEAK of a pair read as two rows), tokens and images of the (weak or only, strong) side, and
# response tokens, which both sides share.
ENTRY = np.dtype([("source", "i4"), ("offset", "i8"), ("length", "i4"), ("number", "i4"), ("side", "u1")]
                 + [("tokens", "i4", 2), ("images", "u2", 2), ("response", "i4")])


@dataclass
class Rows:
    """The index: `entries` (ENTRY, in file order), and `mix`, what an epoch draws from each file.

    mix: {"asked", "usable", "drawn", "dropped": {reason: rows}} by file, as plain numbers and strings: it is kept in
    checkpoints. "outside", where rows show pictures that lie outside of image_root: how many rows, and which folders.
    fingerprint: SHA-256 of "rows", the entries and the files' whole content; of "pictures", the names and sizes of the
    files that rows name; of "picture_times", when those were changed, which copying them changes too.
    """

    pairs: bool
    chat_format: ChatFormat
    max_length: int
    skip_bad_rows: bool
    picture_roots: tuple[str, ...] = ()  # real paths; () allows pictures everywhere
    sources: list[Source] = field(default_factory=list)
    entries: np.ndarray | None = None
    mix: dict[str, dict] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Rows in one epoch."""
        return sum(file["drawn"] for file in self.mix.values())

    def row_id(self, index: int) -> str:
        """ "file:line" of an entry, and which side of a pair it is if sides are rows of their own."""
        entry = self.entries[index]
        side = {STRONG: "/strong", WEAK: "/weak"}.get(int(entry["side"]), "")
        return f"{self.sources[entry['source']].where(int(entry['number']))}{side}"

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        """The entries of an epoch, in order: each file's draw, then all shuffled, by seed and epoch alone."""
        if (seed, epoch) not in self.orders:
            generator = random.Random(f"order {seed} {epoch}")
            order: list[int] = []
            for source, file in enumerate(self.mix.values()):
                indices = np.flatnonzero(self.entries["source"] == source).tolist()
                repeats, more = divmod(file["drawn"], len(indices))
                order += indices * repeats + generator.sample(indices, more)
            generator.shuffle(order)
            self.orders = {(seed, epoch): np.array(order, dtype=np.int64)}  # one epoch: memory stays flat
        return self.orders[seed, epoch]

    def summary(self) -> str:
        """The mix, what rows show and what was dropped, in a few lines for the log."""
        mean = self.entries["tokens"].max(axis=1).mean()
        an_epoch = f"{len(self):,} {'pairs' if self.pairs else 'rows'} an epoch"
        lines = [f"data: {an_epoch}, {mean:,.0f} tokens on average, at most {self.max_length:,}"]
        for number, (source, file) in enumerate(zip(self.sources, self.mix.values(), strict=True)):
            share = f"{100 * file['drawn'] / len(self):.1f} % of the mix"
            line = f"  {source.name}: {file['drawn']:,} of {file['usable']:,} usable ({share}), asked: {file['asked']}"
            lines.append(line + (f"; dropped: {_listed(file['dropped'])}" if file["dropped"] else ""))
            entries = self.entries[self.entries["source"] == number]
            for name, side in (("rows", SINGLE), ("strong", STRONG), ("weak", WEAK))[self.pairs :]:
                rows = entries if self.pairs else entries[entries["side"] == side]
                images = rows["images"][:, int(self.pairs and side == STRONG)]
                shown, each = np.count_nonzero(images), images.sum() / max(1, np.count_nonzero(images))
                if len(rows):
                    shows = f"{shown:,} with pictures ({each:.1f} each), {len(rows) - shown:,} without"
                    lines.append(f"    {name}: {shows}; responses: {rows['response'].mean():,.0f} tokens on average")
            if "outside" in file:
                lines.append(f"    pictures outside of {source.image_root or '.'}: {file['outside']}")
        weak, strong = self.entries["images"].sum(axis=0).tolist()
        if strong > weak:
            lines.append(f"  warning: strong sides show more pictures ({strong:,}) than weak ones ({weak:,}); swapped?")
        return "\n".join(lines)

    def read(self, index: int) -> tuple[Conversation, Conversation | None]:
        """An entry's conversations again: (the only one, None), or of pairs (weak, strong). Raises UserError."""
        entry = self.entries[index]
        try:
            row = self.sources[entry["source"]].read_row(int(entry["offset"]), int(entry["length"]))
            sides = dict(conversations(row, self.pairs))
            return (sides[WEAK], sides[STRONG]) if self.pairs else (sides[int(entry["side"])], None)
        except (BadRow, KeyError, OSError):
            raise UserError(f"{self.row_id(index)}: the file has changed since this run began; restart it") from None

    def index(self, files: list[tuple[str, str]], image_root: str) -> "Rows":
        """Find the usable rows of `files`, (path, amount) each, as open_rows says; self. Raises UserError."""
        self.sources = [open_source(path, image_root) for path, _ in files]
        finders = [ImageFinder(source.image_root, self.picture_roots, os.path.dirname(source.path))
                   for source in self.sources]
        self.entries = np.concatenate(
            [self._index_file(number, amount, finders[number]) for number, (_, amount) in enumerate(files)])
        if len(self) == 0:
            names = ", ".join(source.name for source in self.sources)
            raise UserError(f"{names}: the mix draws no row; ask for more")
        digests = {name: hashlib.sha256() for name in ("rows", "pictures", "picture_times")}
        digests["rows"].update(self.entries.tobytes())
        for source, facts, finder in zip(self.sources, self.mix.values(), finders, strict=True):
            digests["rows"].update(f"{os.path.basename(source.name)} {source.stamp[0]} {facts['drawn']}\n".encode())
            try:
                with open(source.path, "rb") as file:  # once more: counting the tokens takes many times as long
                    while block := file.read(1 << 20):
                        digests["rows"].update(block)
                source.check_unchanged(os.stat(source.path))
                for name, status in finder.stat():
                    digests["pictures"].update(os.fsencode(f"{name}\0{status.st_size}\n"))
                    digests["picture_times"].update(os.fsencode(f"{name}\0{status.st_mtime_ns}\n"))
            except OSError as error:
                raise UserError(f"{source.path}: it or its pictures cannot be read ({error}); repair that") from None
        self.fingerprint = {name: digest.hexdigest() for name, digest in digests.items()}
        return self

    def _index_file(self, number: int, amount: str, finder: ImageFinder) -> np.ndarray:
        """The usable rows of source `number` as ENTRY [n]; what is drawn of them and what was dropped goes to `mix`."""
        source, tables, outside, first_bad = self.sources[number], [], Counter(), ""
        dropped = Counter(source.dropped)
        scanned = iter(tqdm(source.scan(), desc=f"index {os.path.basename(source.name)}", unit=" rows", disable=None))
        while batch := list(itertools.islice(scanned, INDEX_BATCH)):
            entries, texts, num_images = [], [], []
            for line, offset, length, row in batch:
                where = source.where(line)
                try:
                    sides = conversations(row, self.pairs)[:: -1 if self.pairs else 1]  # of pairs the weak side first
                    for turn in (turn for _, turns in sides for turn in turns if turn.role == "user"):
                        if benchmark := benchmark_of(turn.text):
                            what = f"a question of {benchmark}, an evaluation set"
                            raise BadRow(f"a question of {benchmark}", what, "take it out, or pass --skip_bad_rows")
                    images = [[image for turn in turns for image in turn.images] for _, turns in sides]
                    folders = [finder.check(image) for image in itertools.chain(*images)]
                    segments = [self.chat_format.segments(turns) for _, turns in sides]
                except BadRow as bad:
                    if not self.skip_bad_rows or isinstance(bad, WrongFile):
                        raise UserError(f"{where}: {bad.detail}; {bad.remedy}") from None
                    first_bad = first_bad or f" (the first: {where}: {bad.detail})"
                    dropped[bad.reason] += 1
                    continue
                outside.update(list(filter(None, folders))[:1])
                texts += segments
                num_images += map(len, images)
                names = [SINGLE] if self.pairs else [side for side, _ in sides]
                entries += [(number, offset, length, line, name, (0, 0), (0, 0), 0) for name in names]
            table = np.array(entries, dtype=ENTRY)
            encoded = self.chat_format.encode_segments(texts)
            for column, counts in (("tokens", [len(tokens.input_ids) for tokens in encoded]), ("images", num_images)):
                table[column][:, : 1 + self.pairs] = np.reshape(counts, (-1, 1 + self.pairs))
            table["response"] = [len(tokens.positions) for tokens in encoded[:: 1 + self.pairs]]
            fits = table["tokens"].max(axis=1) <= self.max_length
            dropped.update([f"longer than {self.max_length} tokens"] * int((~fits).sum()))
            tables.append(table[fits])
        usable = sum(map(len, tables))
        if not usable:
            found = (_listed(dropped) or "it holds no row") + first_bad
            raise UserError(f"{source.name}: no usable row: {found}; correct the file or take it out of --data")
        drawn = rows_to_draw(amount, usable)
        facts = dict(asked=amount or source.share or "all", usable=usable, drawn=drawn, dropped=dict(dropped))
        if outside:
            folders = ", ".join(f"{folder} ({count:,})" for folder, count in outside.most_common(3))
            facts["outside"] = f"{outside.total():,} rows, in {folders}{', ...' * (len(outside) > 3)}"
        self.mix[f"{number} {os.path.basename(source.name)}"] = facts
        return np.concatenate(tables)


def _listed(dropped: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items()))


def open_rows(spec: str, pairs: bool, chat_format: ChatFormat, max_length: int, image_root: str = "",
              skip_bad_rows: bool = False, picture_roots: str = "", prepared: str = "out/prepared") -> Rows:
    """Index the files of `spec`: "a.jsonl,b.parquet:0.3,c.json.gz:100k" (a point means a fraction, k a thousand).

    image_root: the folder that image paths start from; "" means each file's own folder. Rows longer than max_length
    tokens are dropped and counted; a bad row is an error, or with skip_bad_rows dropped and counted by its reason.
    picture_roots: folders "A,B"; a row with a picture outside of all of them is a bad row; "" allows every folder.
    prepared: where the reader writes what is not in the trainer's form. In a distributed run the first rank of each
    host has that done; then rank 0 makes the index and sends it to the others. Raises UserError.
    """
    roots = tuple(os.path.realpath(root) for root in filter(None, map(str.strip, picture_roots.split(","))))
    rows = Rows(pairs, chat_format, max_length, skip_bad_rows, roots)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows.index(_prepared(spec, image_root, skip_bad_rows, prepared), image_root)
    # a gloo group of its own: this may take longer than NCCL waits, and the index does not belong on a GPU
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(hours=24))
    found = None
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # of each host, for it may not see the others' folders
        found = _attempt(_prepared, spec, image_root, skip_bad_rows, prepared)
    everywhere: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, found, group=group)
    files, *others = map(_settled, filter(None, everywhere))
    if any(other != files for other in others):
        what = f"--data {spec}: the hosts read other files: {files}, {others}"
        leave_to_first_rank(UserError(f"{what}; give each host the same"))
    sent: list[object] = [None]
    if dist.get_rank() == 0:
        sent = [_attempt(rows.index, files, image_root)]
        sent = [(rows.entries, rows.mix, rows.fingerprint)] if sent[0] is rows else sent
    dist.broadcast_object_list(sent, src=0, group=group)
    dist.destroy_process_group(group)
    if _settled(sent[0]) and dist.get_rank() != 0:
        rows.entries, rows.mix, rows.fingerprint = sent[0]
        rows.sources = [open_source(path, image_root) for path, _ in files]
    return rows


def _prepared(spec: str, image_root: str, skip_bad_rows: bool, folder: str) -> list[tuple[str, str]]:
    """The files of `spec` and what to draw of each; what is not in the trainer's form has been read into `folder`."""
    return [(path, amount) if in_training_form(path) else prepare(path, amount, image_root, skip_bad_rows, folder)
            for path, amount in parse_spec(spec)]


def _attempt(work: Callable[..., object], *arguments: object) -> object:
    """What `work` returns, or the error that it ends with: the other ranks wait to be told."""
    try:
        return work(*arguments)
    except UserError as error:
        return error


def _settled(result: object) -> object:
    """A result of `_attempt`; where it is an error, the first rank raises it and the others end."""
    if isinstance(result, UserError):
        leave_to_first_rank(result)
    return result


def refuse_pictures(*each: Rows | None) -> None:
    """Raise UserError, on the first rank, for a row with a picture: stage 1 leaves the vision tower on the CPU."""
    for rows in filter(None, each):
        shown = np.flatnonzero(rows.entries["images"].any(axis=1))
        if len(shown):
            what = f"{rows.row_id(shown[0])}: a row with a picture ({len(shown):,} such), but stage 1 trains on text"
            leave_to_first_rank(UserError(f"{what}; keep such rows for stage 3, or take them out of the file"))


def require_pictures(rows: Rows, trained: Sequence[str]) -> None:
    """Raise UserError, on the first rank, if only the vision side trains and no (weak) row has a picture to learn from.

    trained: the parts that learn.
    """
    if "llm" not in trained and not rows.entries["images"][:, 0].any():
        files = ", ".join(source.path for source in rows.sources)
        what = f"{files}: no {'weak ' * rows.pairs}row has a picture, so {' and '.join(trained)} would learn nothing"
        leave_to_first_rank(UserError(f"{what}; correct the rows, or add llm to --train"))


def check_held_out(data: str, val_data: str, val_every: int) -> None:
    """Raise UserError for one of --val_data and --val_every without the other, and for a file of the spec `val_data`
    with the same content as one of `data`, under any name. Files that do not exist are left to open_rows.
    """
    if bool(val_data) != bool(val_every):
        raise UserError(f"--val_data {val_data or '(none)'} --val_every {val_every}: give both, or neither")
    if not val_every:
        return
    train, held_out = ([path for path, _ in parse_spec(spec) if os.path.isfile(path)] for spec in (data, val_data))
    for path, other in itertools.product(held_out, train):
        if os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False):
            raise UserError(f"--val_data {path}: the same content as {other} in --data; take it out of one of them")


# ----------------------------------------------------------------------------------------------------------------------
# Steps and micro-batches


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
    and they are filled evenly (longest row first, into the emptiest one), because ranks wait for one another in each.
    """
    if len(tokens) and int(tokens.max()) > pack_tokens:
        raise ValueError(f"a row of {int(tokens.max())} tokens fits no micro-batch of {pack_tokens}")
    for slots in itertools.count(max(1, -(-int(tokens.sum()) // (world_size * pack_tokens)))):
        loads = np.zeros(slots * world_size, dtype=np.int64)
        members: list[list[int]] = [[] for _ in loads]
        for row in np.argsort(-tokens, kind="stable").tolist():
            emptiest = loads.argmin()
            loads[emptiest] += tokens[row]
            members[emptiest].append(row)
        if loads.max() <= pack_tokens:
            break
    by_load = np.argsort(-loads, kind="stable").reshape(slots, world_size)
    by_load[1::2] = by_load[1::2, ::-1].copy()  # back and forth, so that no rank gets the fullest one every time
    return [[sorted(members[number]) for number in slot] for slot in by_load]


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

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MicroBatch":
        """The same micro-batch with its tensors on `device`."""
        return MicroBatch(**tree_map_only(Tensor, lambda x: x.to(device, non_blocking=non_blocking), vars(self)))

    def pin_memory(self) -> "MicroBatch":
        """The same with its tensors in page-locked memory."""
        return MicroBatch(**tree_map_only(Tensor, Tensor.pin_memory, vars(self)))


@dataclass
class MicroBatches:
    """One rank's share of a step: micro_batches as (weak or only side, strong side or None), as many on every rank.

    global_rows: the step's rows over all ranks, before any was skipped; skipped: what was wrong with each of this
    rank's rows that were left out for an unreadable image.
    """

    step: int
    micro_batches: list[tuple[MicroBatch, MicroBatch | None]]
    global_rows: int
    skipped: list[str]

    def __iter__(self) -> Iterator[tuple[MicroBatch, MicroBatch | None]]:
        return iter(self.micro_batches)

    def __len__(self) -> int:
        return len(self.micro_batches)

    @property
    def row_ids(self) -> list[str]:
        """This rank's rows, without those skipped."""
        return [row_id for weak, _ in self.micro_batches for row_id in weak.row_ids]

    @property
    def num_tokens(self) -> int:
        """Tokens of this rank's micro-batches, both sides of a pair, prompts and image tokens included."""
        return sum(side.num_tokens for sides in self.micro_batches for side in sides if side is not None)

    @property
    def num_response_tokens(self) -> int:
        """Tokens of this rank with loss on them: those of the weak or only side."""
        return sum(weak.num_response_tokens for weak, _ in self.micro_batches)

    def pin_memory(self) -> "MicroBatches":
        """The same with its tensors in page-locked memory; DataLoader calls it."""
        return replace(self, micro_batches=[tuple(side and side.pin_memory() for side in sides) for sides in self])


def pack_rows(
    rows: list[tuple[Tokens, list[dict[str, Tensor]], str]], eos_token_id: int, run_vision: bool
) -> MicroBatch:
    """Rows (tokens, pixels of each image, id) behind one another in one MicroBatch."""
    no_rows = ([Tokens(np.array([eos_token_id]), np.zeros(0, dtype=np.int64))], [], [])
    tokens, images, row_ids = zip(*rows, strict=True) if rows else no_rows
    lengths = [len(row.input_ids) for row in tokens]
    starts = np.cumsum([0, *lengths])
    input_ids = torch.from_numpy(np.concatenate([row.input_ids for row in tokens]))
    positions = [row.positions + start for row, start in zip(tokens, starts, strict=False)]
    response_positions = torch.from_numpy(np.concatenate(positions))
    pixels = list(itertools.chain(*images))
    return MicroBatch(
        input_ids=input_ids[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)), max_seqlen=max(lengths),
        pixel_values={name: torch.stack([image[name] for image in pixels]) for name in (pixels[0] if pixels else {})},
        run_vision=run_vision, response_positions=response_positions, response_labels=input_ids[response_positions + 1],
        row_ids=list(row_ids)
    )


# ----------------------------------------------------------------------------------------------------------------------
# The loader


class StepDataset(Dataset):
    """Item s is all that this rank runs in step s, or a UserError: raised, DataLoader would wrap it in a traceback."""

    def __init__(self, rows: Rows, global_batch: int, pack_tokens: int, rank: int, world_size: int, seed: int):
        self.rows, self.global_batch, self.pack_tokens, self.seed = rows, global_batch, pack_tokens, seed
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, step: int) -> MicroBatches | UserError:
        rows, eos = self.rows, self.rows.chat_format.eos_token_id
        indices = step_rows(rows, step, self.global_batch, self.seed)
        entries = rows.entries[indices]
        micro_batches, skipped = [], []
        for slot in plan_micro_batches(entries["tokens"].max(axis=1), self.world_size, self.pack_tokens):
            prepared = []
            for index in indices[slot[self.rank]]:
                try:
                    prepared.append([self._side(turns, index) for turns in rows.read(index) if turns])
                except BadRow as bad:
                    if not rows.skip_bad_rows:
                        return UserError(f"{rows.row_id(index)}: {bad.detail}; {bad.remedy}")
                    skipped.append(f"{rows.row_id(index)}: {bad.detail}")
                except UserError as error:
                    return error
            run_vision = entries["images"][list(itertools.chain(*slot))].any(axis=0).tolist()
            weak = pack_rows([row[0] for row in prepared], eos, run_vision[0])
            strong = pack_rows([row[1] for row in prepared], eos, run_vision[1]) if rows.pairs else None
            micro_batches.append((weak, strong))
        return MicroBatches(step, micro_batches, len(indices), skipped)

    def _side(self, turns: Conversation, index: int) -> tuple[Tokens, list[dict[str, Tensor]], str]:
        """One side of a row as pack_rows takes it. Raises BadRow for an unreadable image."""
        rows, source = self.rows, self.rows.sources[self.rows.entries["source"][index]]
        images = [source.image(image, rows.picture_roots) for turn in turns for image in turn.images]
        return rows.chat_format.encode(turns), list(map(rows.chat_format.pixels, images)), rows.row_id(index)


def allow_open_files() -> None:
    """Let this process open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 10240 if most == resource.RLIM_INFINITY else most  # macOS calls it unlimited, and takes no more
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def make_loader(rows: Rows, *, global_batch: int, pack_tokens: int, rank: int, world_size: int, seed: int,
                start_step: int, total_steps: int, num_workers: int = 0) -> Iterator[MicroBatches]:
    """Steps start_step ... total_steps - 1 of this rank, prepared ahead by num_workers processes (0: in this one).

    Step s holds exactly global_batch rows over all ranks, fewer only in the last step of an epoch; the order follows
    from seed and epoch. Raises UserError, also for what goes wrong in a worker.
    """
    if rows.max_length > pack_tokens:
        raise UserError(f"max_length {rows.max_length} is above pack_tokens {pack_tokens}; change one of them")
    if num_workers:  # each tensor on its way from a worker holds one open file
        allow_open_files()
    loader = DataLoader(
        StepDataset(rows, global_batch, pack_tokens, rank, world_size, seed),
        batch_size=None,
        sampler=range(start_step, total_steps),
        num_workers=num_workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: the run's random state must not depend on how often it was resumed
    )
    return _steps(iter(loader))


def _steps(steps: Iterator[MicroBatches | UserError]) -> Iterator[MicroBatches]:
    # Workers exit when asked but ignore signals, so Python's atexit join would hang: ask them before it.
    stop_workers = getattr(steps, "_shutdown_workers", lambda: None)
    atexit.register(stop_workers)
    try:
        for batches in steps:
            if isinstance(batches, UserError):
                raise batches
            yield batches
    except (RuntimeError, EOFError, ConnectionError) as error:  # how a worker's death shows depends on the moment
        if not isinstance(error, RuntimeError):  # its pipe broke before torch noticed the death
            error = RuntimeError(f"DataLoader worker: {error or type(error).__name__}")
        raise loader_process_died(error) or error from None
    finally:
        with contextlib.suppress(RuntimeError):  # the same death, reported once more
            stop_workers()
        atexit.unregister(stop_workers)


def _start_worker(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker, one core
    # A scheduler or a terminal signals every process of a job; the trainer alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # SIGTERM means that the job ends: give the trainer time to save, then exit quietly.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
