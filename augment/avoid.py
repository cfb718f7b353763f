"""Nothing to train on that stands in an evaluation file: questions by 13-gram overlap, pictures by perceptual hash.

    avoid = read_avoided(["testmini.json", "bench.jsonl"], image_root="")
    reason = avoid.question(text) or avoid.picture(image)      # None: neither stands there

A question is compared as words: lower case, LaTeX's marks and punctuation gone. One shared run of 13 words is a match;
an evaluation question of 8 to 12 words matches when all of it is found in a row; shorter ones ("Find x.") say nothing
without their picture. Runs that more than BOILERPLATE evaluation questions share are the benchmark's manner of asking,
not a question, and are left out.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from augment.dialects import IMAGE_KEYS
from augment.page import split_choices
from augment.rephrase import split_hint
from errors import UserError
from sources import BadRow, open_image, open_source

GRAM = 13
SHORTEST = 8  # words
BOILERPLATE = 20
HASH_SIDE = 16  # 16 x 16 low frequencies: 256 bits, of which the first says nothing
HASH_DISTANCE = 22  # bits; copies that were scaled, recompressed or recoloured lie below (tests/test_augment_avoid.py)
QUESTION_KEYS = ("question_for_eval", "question", "query", "instruction", "problem")


def words_of(text: str) -> list[str]:
    """A question as comparable words: letters and digits of any script, LaTeX's commands without their backslashes."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"\\(?:left|right|displaystyle|mathrm|text|mathbf|operatorname|d?frac)(?![a-z])", " ", text)
    return re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", re.sub(r"\\[a-z]+", lambda match: f" {match[0][1:]} ", text))


def _grams(words: list[str], length: int) -> Iterator[bytes]:
    for start in range(len(words) - length + 1):
        yield hashlib.blake2b(" ".join(words[start : start + length]).encode(), digest_size=8).digest()


def comparable(question: str) -> list[str]:
    """The words of a question without a prompt's hint and without its choices' letters."""
    stem, choices = split_choices(split_hint(question)[1])
    return words_of(" ".join([stem, *(content for _, content in choices)]))


_COSINES = np.cos(np.pi / 64 * np.outer(np.arange(HASH_SIDE), 2 * np.arange(32) + 1)).astype(np.float32)


def perceptual_hash(image: Image.Image) -> np.ndarray | None:
    """[256] of ±1: the signs of a picture's low frequencies, its empty border cut off. None for an empty picture."""
    grey = ImageOps.autocontrast(image.convert("L").resize((256, 256), Image.Resampling.BOX, reducing_gap=2.0))
    pixels = np.asarray(grey, np.float32)
    border = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]))
    ink = np.abs(pixels - border) > 60
    if not ink.any():
        return None
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    crop = grey.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)).resize((32, 32), Image.Resampling.BOX)
    spectrum = _COSINES @ np.asarray(crop, np.float32) @ _COSINES.T
    return np.where(spectrum > np.median(spectrum), 1, -1).astype(np.int8).reshape(-1)


@dataclass
class Avoid:
    """What evaluation files hold, as hashes."""

    grams: dict[int, frozenset[bytes]] = field(default_factory=dict)  # by the number of words in a run
    hashes: np.ndarray = field(default_factory=lambda: np.zeros((0, HASH_SIDE**2), np.float32))
    num_questions: int = 0
    num_boilerplate: int = 0
    num_pictures: int = 0
    num_pictures_missing: int = 0

    def question(self, text: str) -> str | None:
        """Why this question may not be trained on, or None."""
        if not self.grams:
            return None
        words = comparable(text)
        known = any(gram in grams for length, grams in self.grams.items() for gram in _grams(words, length))
        return "question stands in an evaluation file" if known else None

    def picture(self, image: Image.Image) -> str | None:
        """Why this picture may not be trained on, or None."""
        if not len(self.hashes):
            return None
        bits = perceptual_hash(image)
        if bits is None:
            return None
        distance = (len(bits) - self.hashes @ bits.astype(np.float32)) / 2
        return "picture stands in an evaluation file" if distance.min() <= HASH_DISTANCE else None

    def summary(self) -> str:
        """One line for the log: how much there is to avoid, and what could not be found."""
        return (f"{self.num_questions} questions and {self.num_pictures} pictures to avoid"
                + (f" ({self.num_pictures_missing} pictures not found)" if self.num_pictures_missing else "")
                + (f"; {self.num_boilerplate} common phrases left out" if self.num_boilerplate else ""))


def read_avoided(paths: Iterable[str], image_root: str = "") -> Avoid:
    """Read evaluation files (MathVerse, MathVista, We-Math, bench.jsonl or any rows with a question and a picture)."""
    counted: Counter = Counter()
    pictures, avoid = [], Avoid()
    seen: set[str] = set()
    for path in paths:
        source = open_source(path, image_root)
        source.blocks = None
        before = avoid.num_questions
        for _, _, _, row in source.scan():
            if isinstance(row, BadRow):
                raise UserError(f"{path}: {row.detail}; an evaluation file to avoid must be whole")
            texts = {row[key] for key in QUESTION_KEYS if isinstance(row.get(key), str) and row[key].strip()}
            avoid.num_questions += bool(texts)
            grams = set()
            for text in texts:
                words = comparable(text)
                if len(words) >= SHORTEST:
                    grams.update((min(GRAM, len(words)), gram) for gram in _grams(words, min(GRAM, len(words))))
            counted.update(grams)
            for picture in _pictures_of(row):
                key = json.dumps([source.image_root, picture if isinstance(picture, str) else str(picture)[:200]])
                if key not in seen:
                    seen.add(key)
                    pictures.append((picture, source.image_root))
        if avoid.num_questions == before:
            raise UserError(f"{path}: no row with a question under {', '.join(QUESTION_KEYS)}; is this the file to "
                            "avoid?")
    grams = [key for key, count in counted.items() if count <= BOILERPLATE]
    avoid.num_boilerplate = len(counted) - len(grams)
    avoid.grams = {length: frozenset(gram for size, gram in grams if size == length)
                   for length in {size for size, _ in grams}}
    hashes = []
    for picture, root in pictures:
        try:
            bits = perceptual_hash(open_image(picture, root))
        except BadRow:
            avoid.num_pictures_missing += 1
            continue
        if bits is not None:
            hashes.append(bits)
    avoid.num_pictures = len(hashes)
    if hashes:
        avoid.hashes = np.stack(hashes).astype(np.float32)
    return avoid


def _pictures_of(row: dict) -> Iterator[object]:
    for key in IMAGE_KEYS:
        value = row.get(key)
        for item in value if isinstance(value, list) else [value]:
            if item and isinstance(item, str | dict):
                yield item
