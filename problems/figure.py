"""The Plotter: turns a scene and its marks into pixels, in a style drawn at random.

What it draws on is a `Sheet` (sheet.py). A label's place is found by search (labels.py): candidates near its anchor,
tested against the ink that is already there. Where none is free the figure is given up (`NoLayout`) and the designer
draws other free choices.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image

from problems import labels
from problems.scene import Mark, Scene
from problems.sheet import Layout, NoLayout, Sheet, Style
from problems.typeset import FONTS, glyph_height

READABLE = 11.6  # pixels that the smallest glyph of a vision-only picture must have once the picture is 384 pixels wide


@dataclass
class Picture:
    """A drawn picture, and where its labels and lines lie."""

    image: Image.Image
    layout: Layout


INKS = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (25, 25, 90), (10, 60, 40), (90, 15, 15), (60, 20, 80), (60, 40, 15))
ACCENTS = ((150, 20, 20), (15, 70, 150), (10, 100, 50), (130, 50, 0), (110, 20, 110))
PAPERS = ((255, 255, 255),) * 6 + ((250, 247, 238), (244, 248, 252), (246, 246, 246))
FILLS = ((208, 208, 208), (200, 218, 240), (205, 232, 205), (245, 222, 190), (238, 208, 214))
BOARD = {"ink": (245, 245, 240), "accent": (255, 225, 130), "fill": (62, 96, 82), "paper": (28, 58, 48)}


def random_style(free: random.Random, picture_size: int) -> Style:
    """A look: size, font, line width and colours, always with strong contrast. Small pictures are plain."""
    if picture_size < 200:
        em = max(9, round(picture_size * free.choice([0.1, 0.105, 0.115])))
        return Style(picture_size, picture_size, em, 1, "sans")
    side = round(picture_size * free.choice([0.88, 1.0, 1.0, 1.12]) / 4) * 4
    stretch = free.choice([1.0, 1.0, 1.0, 0.85, 1.2])
    width, height = side, round(side * min(stretch, 1.0))
    if stretch > 1:
        width, height = round(side / stretch), side
    em = round(max(width, height) * free.choice([0.058, 0.06, 0.064]))
    line = max(1.0, side / 400 * free.choice([1.4, 1.8, 2.3]))
    font = free.choice([*FONTS])
    if free.random() < 0.04:
        return Style(width, height, em, line, font, **BOARD)
    ink = free.choice(INKS)
    accent = free.choice(ACCENTS) if free.random() < 0.3 else ink
    return Style(width, height, em, line, font, ink, accent, free.choice(FILLS), free.choice(PAPERS))


# ---------------------------------------------------------------------------------------------------------------------
# The picture


def plot(scene: Scene, marks: list[Mark], style: Style, *, turn: float = 0.0, mirror: bool = False, question: str = "",
         below: bool = False) -> Picture:
    """Draw a scene with these marks.

    Args:
        turn, mirror: how a plane figure lies on the page.
        question: text to be set in the picture (vision-only), above or `below` the figure.

    Raises:
        NoLayout: no legible arrangement was found.
    """
    em = _readable_size(scene, marks, style, question) if question and style.width >= 200 else style.em
    while em < style.em * 2:
        sheet = Sheet(scene, style, em, turn, mirror)
        sheet.set_question(question, below)
        sheet.fit(marks)
        sheet.require_room(marks)
        sheet.draw_strokes(marks)
        sheet.dry()
        labels.place_all(sheet, marks)
        height = sheet.smallest_glyph() * 384 / max(sheet.layout.size)
        if not question or style.width < 200 or height >= READABLE:
            return Picture(sheet.compose(), sheet.layout)
        em = max(em + 1, math.floor(em * READABLE / height))
    raise NoLayout("no size of type is readable")


def _readable_size(scene: Scene, marks: list[Mark], style: Style, question: str) -> int:
    """The size of type at which a vision-only picture can be read, found before anything is drawn."""
    texts = {word for line in question.split("\n") for word in line.split(" ")}
    texts |= {mark.text for mark in marks if getattr(mark, "text", "")} | set(scene.axes.texts() if scene.axes else ())
    em, wanted = style.em, READABLE * max(style.width, style.height) / 384
    while em < style.em * 2:
        smallest = min(glyph_height(text, style.font, em) for text in texts if text)
        if smallest >= wanted:
            break
        em = max(em + 1, math.floor(em * wanted / smallest))
    return em
