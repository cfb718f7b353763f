"""Image transforms stay inside their bounds."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from augment.pictures import LONGEST_SIDE, SHORTEST_SIDE, TRANSFORMS, border_colour, transform


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
