"""What the families of functions share: graphs in a window, and the facts that state equations and points."""

import math
from collections.abc import Callable
from fractions import Fraction

from problems import scene as s
from problems.exact import Rational, signed
from problems.problem import Draw, condition, description
from problems.scene import Axes, CurveName, Name, Path, Scene

Function = Callable[[float], float]
NAN = math.nan


def curve_paths(function: Function, axes: Axes, low: float | None = None, high: float | None = None) -> list[Path]:
    """The graph of a function inside the axes' window, in as many pieces as the window cuts it into."""
    low, high = axes.x_low if low is None else low, axes.x_high if high is None else high
    pieces: list[list[s.Point]] = [[]]
    for k in range(161):
        x = low + (high - low) * k / 160
        y = function(x)
        if axes.y_low <= y <= axes.y_high:
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [Path(tuple(piece)) for piece in pieces if len(piece) > 3]


def window_around(xs: list[float], ys: list[float], draw: Draw, margin: float = 0.25) -> Axes:
    """Axes around these values and the origin, with a little more room than needed on every side."""
    x_low, x_high, y_low, y_high = min(0, *xs), max(0, *xs), min(0, *ys), max(0, *ys)
    wide, tall = max(x_high - x_low, 2), max(y_high - y_low, 2)
    a, b, c, d = (draw.free.uniform(0.6, 1.6) * margin for _ in range(4))
    return Axes(x_low - a * wide, x_high + b * wide, y_low - c * tall, y_high + d * tall, ticks=False)


def factor_text(value: int | Fraction) -> str:
    """A number as a factor: in brackets where it is negative."""
    return f"({value})" if value < 0 else str(value)


def line_at(slope: Rational, offset: Rational, x: Rational) -> str:
    """The value of a line written out: 3 × (-2) + 5; a factor 1 and a summand 0 are left out."""
    product = f"{factor_text(slope)} × {factor_text(x)}" if slope != 1 else str(x)
    return product + (f" {signed(offset)}" if offset else "")


def graph_of(draw: Draw, function: Function, axes: Axes, text: str, kind: str, marks: tuple = ()) -> tuple[Scene, list]:
    """The scene of a graph, and the facts that it is one and what its equation is."""
    curves = curve_paths(function, axes)
    draw.require(bool(curves))
    scene = Scene(base=[*curves, *marks], functions={"f": function}, axes=axes)
    longest = max(curves, key=lambda path: len(path.points))
    shown = text.replace(" ", "") if draw.small else text
    clause = draw.say(f"the equation of the graph is {text}", f"the graph has the equation {text}", brief=text)
    return scene, [description(kind), condition(clause, CurveName(longest.points, shown))]


def point_facts(draw: Draw, points: dict[str, tuple[int, int]]) -> list:
    """Facts that state points of a curve; in the picture their coordinates stand beside them."""
    return [
        condition(
            f"{name}({x}, {y})" if draw.small else f"{name} is the point ({x}, {y})",
            Name(name, f"{name}({x}, {y})", italic=False),
        )
        for name, (x, y) in points.items()
    ]
