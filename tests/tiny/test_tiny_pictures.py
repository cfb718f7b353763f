"""The pictures that tiny's tower learnt on can still be drawn, and what their patches are asked is what they show."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from problems.typeset import character_places, typeset
from tiny.pictures import CHARACTERS, GRID, PATCH, picture, plain_glyphs

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*ROOT.glob("experiments/*.py"), *ROOT.glob("tiny/*.py")]


@pytest.mark.parametrize("name", sorted(f"{path.parent.name}.{path.stem}" for path in SCRIPTS))
def test_every_script_of_a_published_result_can_be_imported(name):
    assert importlib.import_module(name)


@pytest.mark.parametrize("text", ["AB = 12 cm", "y=x²-3x", "3/4", "√(2)", "log₂(x)", "f(x) = -2x + 1", "x-axis", "45°"])
@pytest.mark.parametrize("size", [11, 24])
def test_each_character_stands_on_its_own_ink(text, size):
    label = typeset(text, "sans", size)
    ink = np.asarray(label.mask) > 60
    places = character_places(text, "sans", size)
    assert len(places) >= len(set(text) - set(" /()"))
    for character, x, y, own in places:
        near = max(2, round(0.4 * own))
        top, left = max(0, round(label.rise + y) - near), max(0, round(x) - near)
        found = ink[top : round(label.rise + y) + near + 1, left : round(x) + near + 1]
        assert found.any(), f"no ink where {character!r} of {text!r} is said to stand"
    ends = [x for _, x, *_ in places]
    assert min(ends) >= 0 and max(ends) <= label.size[0]


def test_a_raised_2_is_asked_as_a_power():
    assert [character for character, *_ in plain_glyphs("x²+2", 11, False)[2]] == ["x", "²", "+", "2"]


def test_where_a_character_is_named_there_is_ink():
    named = 0
    for number in range(30):
        canvas = picture(f"test/{number}")
        pixels = np.asarray(canvas.finish().convert("L"), dtype=int)
        assert np.array_equal(pixels, np.asarray(picture(f"test/{number}").finish().convert("L")))
        for row in range(GRID):
            for column in range(GRID):
                if canvas.characters[row, column, 0]:
                    top, left = max(0, row * PATCH - 4), max(0, column * PATCH - 4)  # an L's middle is white
                    patch = pixels[top : (row + 1) * PATCH + 4, left : (column + 1) * PATCH + 4]
                    character = CHARACTERS[canvas.characters[row, column, 0] - 1]
                    assert np.ptp(patch) > 20, f"picture {number}, patch {row}, {column}: {character!r}"
                    named += 1
    assert named > 300
