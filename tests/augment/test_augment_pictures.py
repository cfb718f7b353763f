"""Image transforms stay inside their bounds, and evaluation files are recognised under transforms."""

import json
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from augment.avoid import HASH_DISTANCE, comparable, perceptual_hash, read_avoided, words_of
from augment.pictures import LONGEST_SIDE, SHORTEST_SIDE, TRANSFORMS, border_colour, transform
from errors import UserError


def figure(seed, size=None):
    """A triangle or circle figure with letters, on white."""
    rng = random.Random(seed)
    width, height = size or (rng.randint(140, 700), rng.randint(120, 600))
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)

    def point():
        return rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height

    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(3)
        if kind == 0:
            pen.polygon([point(), point(), point()], outline="black", width=2)
        elif kind == 1:
            (x, y), r = point(), rng.uniform(0.1, 0.35) * min(width, height)
            pen.ellipse((x - r, y - r, x + r, y + r), outline="black", width=2)
        else:
            pen.line([point(), point()], fill="black", width=2)
    for letter in rng.sample("ABCDEFG", 3):
        pen.text(point(), letter, fill="black", font_size=max(12, height // 14))
    return image


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_transform_keeps_size_bounds_and_contrast(name):
    for seed in range(8):
        image = figure(seed)
        changed = TRANSFORMS[name](image, random.Random(seed))
        assert changed.mode == "RGB" and changed.tobytes() != image.tobytes()
        assert changed.tobytes() == TRANSFORMS[name](image, random.Random(seed)).tobytes(), "the seed decides"
        assert max(changed.size) <= LONGEST_SIDE and min(changed.size) >= min(SHORTEST_SIDE, *image.size)
        wider, higher = changed.width / image.width, changed.height / image.height
        assert 0.6 < wider < 1.6 and 0.6 < higher < 1.6 and 0.75 < wider / higher < 1.33
        before, after = (np.asarray(picture.convert("L"), float) for picture in (image, changed))
        assert after.std() > 0.5 * before.std(), "figures keep their contrast"
        assert np.percentile(after, 90) > 150, "paper stays light"


@pytest.mark.parametrize("size", [(16, 16), (2000, 30), (40, 1900), (2600, 1500)])
def test_extreme_sizes_give_pictures_too(size):
    image = figure(1, size)
    for seed in range(4):
        changed, names = transform(image, random.Random(seed), list(TRANSFORMS))
        assert min(changed.size) >= min(16, *size) and names and len(set(names)) == len(names) <= 3


def test_nothing_is_mirrored_or_turned_far():
    """Ink in the top left corner stays there: a mirrored text could not be read."""
    image = Image.new("RGB", (300, 240), "white")
    ImageDraw.Draw(image).rectangle((20, 20, 90, 80), fill="black")
    for seed in range(30):
        changed, _ = transform(image, random.Random(seed), list(TRANSFORMS))
        dark = np.asarray(changed.convert("L"), float) < 110
        height, width = dark.shape
        quarters = [dark[: height // 2, : width // 2], dark[: height // 2, width // 2 :], dark[height // 2 :]]
        assert quarters[0].sum() > 20 * (quarters[1].sum() + quarters[2].sum() + 1)


def test_transforms_vary_and_may_be_restricted():
    image = figure(3)
    seen = {name for seed in range(60) for name in transform(image, random.Random(seed), list(TRANSFORMS))[1]}
    assert seen == set(TRANSFORMS)
    assert transform(image, random.Random(0), ["gamma"])[1] == ["gamma"]
    assert border_colour(Image.new("RGB", (9, 9), (10, 20, 30))) == (10, 20, 30)


# -- evaluation files


def test_copies_of_a_picture_are_recognised_and_others_are_not(tmp_path):
    for seed in range(20):
        figure(seed).save(tmp_path / f"{seed}.png")
    rows = [{"question": "Find x.", "image": f"{seed}.png"} for seed in range(20)]
    avoid = read_avoided([write(tmp_path / "eval.jsonl", rows)])
    assert avoid.num_pictures == 20 and "20 pictures" in avoid.summary()
    assert all(avoid.picture(figure(seed)) for seed in range(20)), "the pictures themselves"
    changes = [name for name in TRANSFORMS if name != "rotate"]
    found = sum(avoid.picture(TRANSFORMS[name](figure(seed), random.Random(seed))) is not None
                for name in changes for seed in range(20))
    assert found > 0.95 * 20 * len(changes)
    wrong = sum(avoid.picture(figure(seed)) is not None for seed in range(1000, 1200))
    assert wrong <= 2, "other figures are not"
    assert avoid.picture(Image.new("RGB", (200, 200), "white")) is None, "a blank picture says nothing"
    assert perceptual_hash(figure(1)).shape == (256,) and 0 < HASH_DISTANCE < 40


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LONG = ("A rectangular garden is twelve metres long and seven metres wide and a path of one metre runs around it, "
        "find its area.")


def test_questions_are_recognised_by_13_words_in_a_row(tmp_path):
    avoid = read_avoided([write(tmp_path / "eval.jsonl", [
        {"question": LONG}, {"question": "Find x."},
        {"question": "How many red balls are in the bag of Anna?"}])])
    assert avoid.num_questions == 3
    for text in (LONG, LONG.upper(), LONG.replace(",", ""), "Hint: Think.\nQuestion: " + LONG,
                 "Note. " + LONG + " Thanks!",
                 "A rectangular garden is $twelve$ metres long and seven metres wide and a path."):
        assert avoid.question(text), text
    assert avoid.question("How many red balls are in the bag of Anna?"), "9 words, all of them"
    for text in ("Find x.", "How many red balls are in the bag?", " ".join(LONG.split()[:12]),
                 "Something else altogether here."):
        assert avoid.question(text) is None, text


def test_latex_and_choices_do_not_hide_a_question(tmp_path):
    plain = (r"In $\triangle ABC$ we know $\angle A = 50^\circ$ and $\angle B = 60^\circ$ so what is $\angle C$ in "
             "degrees?")
    avoid = read_avoided([write(tmp_path / "eval.jsonl", [{"question": plain, "choices": ["60", "70"]}])])
    assert avoid.question(plain.replace("$", "").replace("\\triangle", "\\triangle ") + "\n(A) 60\n(B) 70")
    assert words_of(r"\frac{1}{2}\,AB") == ["1", "2", "ab"]
    assert comparable("Q one?\n(A) x\n(B) y") == ["q", "one", "x", "y"]


def test_common_phrases_of_a_benchmark_do_not_count(tmp_path):
    phrase = "As shown in the figure the vertices of the square lie on the circle with centre O and "
    rows = [{"question": phrase + f"the side is {number} so the radius of this circle is what number of units please?"}
            for number in range(30)]
    avoid = read_avoided([write(tmp_path / "eval.jsonl", rows)])
    assert avoid.num_boilerplate > 0
    assert avoid.question(phrase + "nothing else is the same in this one at all.") is None
    assert avoid.question(rows[7]["question"])


def test_files_without_questions_are_errors(tmp_path):
    with pytest.raises(UserError, match="no row with a question"):
        read_avoided([write(tmp_path / "eval.jsonl", [{"foo": 1}])])
    with pytest.raises(UserError, match="no such file"):
        read_avoided([str(tmp_path / "none.jsonl")])
    assert read_avoided([]).question(LONG) is None
