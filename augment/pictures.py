"""Pictures changed as cameras, scanners and layouts change them: seeded, bounded, so that a figure stays readable.

    image, names = transform(image, random.Random(7), list(TRANSFORMS))      # one to three changes

Nothing is mirrored (text would be), cropped (a label could be lost) or turned by more than a few degrees. Stretching
is kept below one eighth: it changes angles as drawn, but leaves which of two is larger, and every label, as they were.
"""

import io
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

SHORTEST_SIDE = 96  # pixels; a side that is shorter already is not made shorter
LONGEST_SIDE = 2048


def _resized(image: Image.Image, width: float, height: float) -> Image.Image:
    """Resized with the aspect asked for, and both sides inside the bounds where the picture allows it."""
    shortest, longest = min(width, height), max(width, height)
    factor = max(1.0, min(SHORTEST_SIDE, min(image.size)) / shortest)
    factor = min(factor, LONGEST_SIDE / longest)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def scale(image: Image.Image, rng: random.Random) -> Image.Image:
    """Made smaller or larger, from 0.65 to 1.5 times."""
    factor = rng.uniform(0.65, 1.5)
    return _resized(image, image.width * factor, image.height * factor)


def stretch(image: Image.Image, rng: random.Random) -> Image.Image:
    """One side made longer and the other shorter, by 4 to 12 percent each."""
    factor = rng.choice((rng.uniform(0.88, 0.96), rng.uniform(1.04, 1.12)))
    return _resized(image, image.width * factor, image.height / factor)


def gamma(image: Image.Image, rng: random.Random) -> Image.Image:
    """Mid-tones made lighter or darker; black and white stay as they are."""
    exponent = rng.choice((rng.uniform(0.6, 0.88), rng.uniform(1.15, 1.7)))
    table = [round(255 * (value / 255) ** exponent) for value in range(256)]
    return image.point(table * 3)


def border_colour(image: Image.Image) -> tuple[int, int, int]:
    """The colour that most of the border has, to fill what turning uncovers."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(edge, axis=0))


def rotate(image: Image.Image, rng: random.Random) -> Image.Image:
    """Turned by 0.7 to 4 degrees, the canvas grown so that no corner is lost."""
    angle = rng.choice((-1, 1)) * rng.uniform(0.7, 4.0)
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=border_colour(image))


def noise(image: Image.Image, rng: random.Random) -> Image.Image:
    """Grain like a sensor's: Gaussian, the same on all three channels of a pixel."""
    generator = np.random.default_rng(rng.getrandbits(64))
    sigma = rng.uniform(3.0, 11.0)
    grain = generator.normal(0.0, sigma, (image.height, image.width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + grain + 0.5, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, rng: random.Random) -> Image.Image:
    """Stored as JPEG once, at a quality from 45 to 85."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(45, 85))
    return Image.open(buffer).convert("RGB")


def blur(image: Image.Image, rng: random.Random) -> Image.Image:
    """Up to a pixel at the size at which models see the picture."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9) * max(0.6, min(image.size) / 448)))


def background(image: Image.Image, rng: random.Random) -> Image.Image:
    """Tinted paper with uneven light: a multiplication, so that dark ink stays dark."""
    tint = np.array([rng.uniform(0.86, 1.0) for _ in range(3)], np.float32)
    corners = np.array([[rng.uniform(0.88, 1.0) for _ in range(2)] for _ in range(2)], np.float32)
    light = np.asarray(Image.fromarray(corners).resize(image.size, Image.Resampling.BILINEAR))
    return Image.fromarray((np.asarray(image, np.float32) * light[..., None] * tint + 0.5).astype(np.uint8))


# In the order in which they are applied: geometry, then light, then what a camera and a codec add.
TRANSFORMS = {
    "scale": scale, "stretch": stretch, "rotate": rotate, "background": background, "gamma": gamma, "blur": blur,
    "noise": noise, "jpeg": jpeg
}


def transform(image: Image.Image, rng: random.Random, allowed: Sequence[str]) -> tuple[Image.Image, list[str]]:
    """An RGB picture with one to three of the allowed changes, and their names."""
    chosen = set(rng.sample(list(allowed), min(len(allowed), rng.choice((1, 2, 2, 3)))))
    names = [name for name in TRANSFORMS if name in chosen]
    for name in names:
        image = TRANSFORMS[name](image, rng)
    return image, names
