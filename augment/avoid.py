"""Nothing to train on that stands in an evaluation file: questions by 13-gram overlap, pictures by perceptual hash.

    avoid = read_avoided(["testmini.json", "bench.jsonl"], image_root="")
    reason = avoid.question(text) or avoid.picture(image)      # None: neither stands there

A question is compared as words: lower case, LaTeX's marks and punctuation gone. One shared run of 13 words is a match;
an evaluation question of 8 to 12 words matches when all of it is found in a row; shorter ones ("Find x.") say nothing
without their picture. Runs that more than BOILERPLATE evaluation questions share are the benchmark's manner of asking,
not a question, and are left out.

A picture is compared by the low frequencies of its ink, cropped to it. Measured on pictures of public sets: of 3,393
copies of 117 (scaled x 0.5 to x 2, padded, recompressed, recoloured, negative, flattened, changed by pictures.py) 3.3%
are missed, of 585 turned by up to 4 degrees 6%; of the 27,028 pairs of 233 different ones 5 match, 4 of them tables of
one layout with other words. Figures that differ in small labels alone match too (16 of 33,411 pairs of our engine's): a
row too few costs less than a benchmark's picture in training.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from augment import containers
from augment.dialects import normalise, row_pictures
from augment.page import split_choices
from augment.rephrase import split_hint
from errors import UserError
from sources import BadRow, conversations, open_image

GRAM = 13
SHORTEST = 8  # words
BOILERPLATE = 20
SIDE = 32  # frequencies of a hash, in each direction
ANGLES = (0, -1, 1, -2, 2, -3, 3)  # degrees by which an evaluation picture may have been turned
HASH_DISTANCE = 0.25  # 1 - cosine of the angle between hashes; copies lie below (tests/augment/test_augment_avoid.py)
ROUGH_DISTANCE = 0.5
LEAST_CONTRAST = 24  # of 255: a picture with less shows nothing
QUESTION_KEYS = ("question_for_eval", "question", "query", "instruction", "problem", "prompt")


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


_COSINES = np.cos(np.pi / (4 * SIDE) * np.outer(np.arange(SIDE), 2 * np.arange(2 * SIDE) + 1)).astype(np.float32)


def _ink(image: Image.Image) -> Image.Image | None:
    """How far each pixel is from the paper, whatever the colours: mode "F", longest side 512. None for an empty one.

    The paper is the commonest brightness: a frame, or a table's coloured head, may be most of the border.
    """
    grey = image.convert("L")
    grey.thumbnail((512, 512), Image.Resampling.BOX, reducing_gap=None)
    pixels = np.asarray(grey)
    counts = np.bincount(pixels.reshape(-1), minlength=256)
    paper = np.convolve(counts, np.ones(25), "same").argmax().astype(np.float32)
    ink = np.abs(pixels - paper)
    if ink.max() < LEAST_CONTRAST:
        return None
    return Image.fromarray(np.maximum(ink - 0.12 * ink.max(), 0))  # what a codec or a sensor adds is no ink


def _extent(mass: np.ndarray) -> tuple[float, float]:
    """Where a row or column of ink begins and ends, but for a speck; between pixels, so that it scales smoothly."""
    total = np.cumsum(mass)
    first, last = np.interp([0.004 * total[-1], 0.996 * total[-1]], total, np.arange(1, len(mass) + 1))
    return max(first - 1, 0), max(last, first)


def perceptual_hash(image: Image.Image, angles: Sequence[float] = (0,)) -> np.ndarray | None:
    """[angles, SIDE * SIDE], each of length 1: the low frequencies of the ink of a picture that is turned by an angle,
    cropped to it. None for an empty picture.

    Roots of amplitudes: their signs alone, the usual hash, are chance where a figure is symmetric.
    """
    ink = _ink(image)
    if ink is None:
        return None
    hashes = []
    for angle in angles:
        turned = ink.rotate(angle, Image.Resampling.BILINEAR, expand=True) if angle else ink
        pixels = np.asarray(turned)
        (left, right), (top, bottom) = _extent(pixels.sum(0)), _extent(pixels.sum(1))
        crop = turned.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BOX, box=(left, top, right, bottom))
        spectrum = _COSINES @ np.asarray(crop) @ _COSINES.T
        spectrum[0, 0] = 0  # how much ink there is says nothing
        hashes.append(_unit(np.sign(spectrum) * np.sqrt(np.abs(spectrum))))
    return np.stack(hashes)


def _unit(spectra: np.ndarray) -> np.ndarray:
    """[..., side, side] as vectors of length 1."""
    flat = spectra.reshape(*spectra.shape[:-2], -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-9)


def _rough(hashes: np.ndarray) -> np.ndarray:
    """[n, 64]: what of the hashes is compared first, as thousands of whole ones would take longer than a page."""
    return _unit(hashes.reshape(-1, SIDE, SIDE)[:, :8, :8])


@dataclass
class Avoid:
    """What evaluation files hold, as hashes. counts: what was read, and what of it cannot be compared with anything."""

    grams: dict[int, frozenset[bytes]] = field(default_factory=dict)  # by the number of words in a run
    hashes: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE**2), np.float32))
    rough: np.ndarray = field(default_factory=lambda: np.zeros((0, 64), np.float32))  # _rough(hashes)
    counts: Counter = field(default_factory=Counter)

    def question(self, text: str) -> str | None:
        """Why this question may not be trained on, or None."""
        if not self.grams:
            return None
        words = comparable(text)
        known = any(gram in grams for length, grams in self.grams.items() for gram in _grams(words, length))
        return "question stands in an evaluation file" if known else None

    def picture(self, image: Image.Image) -> str | None:
        """Why this picture may not be trained on, or None."""
        found = perceptual_hash(image) if len(self.hashes) else None
        if found is None:
            return None
        close = self.hashes[self.rough @ _rough(found)[0] >= 1 - ROUGH_DISTANCE]
        return "picture stands in an evaluation file" if (close @ found[0] >= 1 - HASH_DISTANCE).any() else None

    def summary(self) -> str:
        """One line for the log: how much there is to avoid, and what of it cannot be compared."""
        return "to avoid: " + ", ".join(f"{count:,} {what}" for what, count in self.counts.items())


def read_avoided(paths: Iterable[str], image_root: str = "") -> Avoid:
    """Read evaluation files: whatever the reader reads, and benchmarks' own files, which it refuses for training.

    Raises UserError for a file with a row that cannot be read, without a question, or none of whose pictures is found.
    """
    avoid, hashes = Avoid(), []
    counted: Counter = Counter()  # {(words in a run, run): questions that hold it}
    for path in paths:
        counts: Counter = Counter()  # of this file
        seen: set[str] = set()  # many rows ask about one picture
        for number, row in containers.rows(path):
            if isinstance(row, BadRow):
                raise UserError(f"{path}:{number}: {row.detail}; an evaluation file to avoid must be whole")
            texts, pictures = _asked(row)
            counts["questions" if texts else "rows without a question"] += 1
            grams = set()
            for words in filter(lambda words: len(words) >= SHORTEST, map(comparable, texts)):
                grams.update((min(GRAM, len(words)), gram) for gram in _grams(words, min(GRAM, len(words))))
            counts["questions too short to compare"] += bool(texts) and not grams
            counted.update(grams)
            for picture in pictures:
                if isinstance(picture, str) and picture in seen:
                    continue
                seen.update([picture] if isinstance(picture, str) else [])
                what, found = _hashed(picture, image_root or os.path.dirname(path))
                counts[what] += 1
                hashes += [] if found is None else [found]
        if not counts["questions"]:
            raise UserError(f"{path}: no row with a question; is this the file to avoid?")
        if counts["pictures not found"] and not counts["pictures"]:
            raise UserError(f"{path}: none of its {counts['pictures not found']:,} pictures is found; "
                            "--avoid_image_root names their folder")
        avoid.counts += counts
    grams = [key for key, count in counted.items() if count <= BOILERPLATE]
    if len(grams) < len(counted):
        avoid.counts["common phrases left out"] = len(counted) - len(grams)
    avoid.grams = {length: frozenset(gram for size, gram in grams if size == length)
                   for length in {size for size, _ in grams}}
    if hashes:
        avoid.hashes = np.unique(np.concatenate(hashes), axis=0)
        avoid.rough = _rough(avoid.hashes)
    return avoid


def _asked(row: dict) -> tuple[list[str], list]:
    """The questions of a row, and its pictures."""
    try:
        sides = conversations(normalise(row), pairs=False)
    except BadRow:  # a benchmark's row, or one that keeps its answer to itself: what it holds under the usual keys
        lower = {str(key).lower(): value for key, value in row.items()}
        questions = [lower[key] for key in QUESTION_KEYS if isinstance(lower.get(key), str) and lower[key].strip()]
        return questions, row_pictures(lower)
    turns = [turn for _, side in sides for turn in side if turn.role == "user"]
    return [turn.text for turn in turns if turn.text], [image for turn in turns for image in turn.images]


def _hashed(picture: object, root: str) -> tuple[str, np.ndarray | None]:
    """What a picture is counted as, and its hashes at all angles."""
    try:
        found = perceptual_hash(open_image(picture, root), ANGLES)
    except BadRow as error:
        return "pictures not found" if error.reason == "image missing" else "pictures not readable", None
    return "pictures that show nothing" if found is None else "pictures", found
