"""Functions: lines, parabolas and other curves with their graphs. Each public function is a family of problems."""

from problems import measure
from problems import scene as s
from problems.exact import number, polynomial, signed
from problems.problem import Ask, Draw, Problem, condition, description
from problems.scene import Axes, CurveName, Dot, Name, Path, Scene


def _curve(function, axes: Axes, low: float | None = None, high: float | None = None, steps: int = 120) -> list[Path]:
    """The graph of a function inside the axes' window, in as many pieces as the window cuts it into."""
    low, high = axes.x_low if low is None else low, axes.x_high if high is None else high
    pieces: list[list[s.Point]] = [[]]
    for k in range(steps + 1):
        x = low + (high - low) * k / steps
        try:
            y = function(x)
        except (ValueError, ZeroDivisionError, OverflowError):
            y = float("nan")
        if axes.y_low <= y <= axes.y_high:
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [Path(tuple(piece)) for piece in pieces if len(piece) > 1]


def linear_value(draw: Draw) -> Problem:
    """A linear function is given by its equation; a value of it is asked."""
    slope = draw.given("slope", [2, 3, 4, 5] if draw.small else [-5, -4, -3, -2, -1, 2, 3, 4, 5])
    offset = draw.given("offset", range(1, 10) if draw.small else [k for k in range(-9, 10) if k])
    x = draw.given("x", range(2, 7) if draw.small else [k for k in range(-6, 9) if k not in (0, 1)])
    asked = draw.asked("value")
    value = slope * x + offset

    def function(t: float) -> float:
        return slope * t + offset

    if draw.small:
        axes = Axes(-0.5, 3, -2, max(9.0, function(1.6)), ticks=False)
    else:
        spread = max(abs(function(-3)), abs(function(3)))
        axes = Axes(-3, 3, -spread, spread, ticks=False)
    curve = _curve(function, axes)
    text = f"y = {polynomial(slope, offset)}"
    scene = Scene(base=[*curve], functions={"f": function}, axes=axes)
    facts = [
        description("Line" if draw.small else draw.say("The graph of a linear function is a line", "A line is the graph of a function")),
        condition(text if draw.small else draw.say(f"its equation is {text}", f"the equation of the line is {text}"),
                  CurveName(curve[0].points, text.replace(" ", "") if draw.small else text)),
    ]
    product = slope * x
    ask = Ask(
        asked,
        draw.say(f"Find y at x = {x}.", f"What is the value of y for x = {x}?", f"Calculate y when x = {x}."),
        f"Find y at x = {x}",
        number(value),
        (
            "Put the value of x into the equation.",
            f"{slope} × {x} = {product}" if slope > 0 and x > 0 else f"({slope}) × ({x}) = {product}",
            f"y = {product} {signed(offset)} = {value}",
        ),
        lambda scene: scene.functions["f"](x),
        mistakes=tuple(str(v) for v in (product - offset, slope + offset, slope * offset + x, -value, product)),
        symbols={"x": x},
    )
    return draw.finish(facts, ask, scene)


def line_through_points(draw: Draw) -> Problem:
    """Two points of a line are given; its slope or its intercept is asked."""
    run = draw.given("run", [1, 2, 3] if draw.small else range(1, 7))
    slope = draw.given("slope", [1, 2, 3, 4] if draw.small else [-4, -3, -2, -1, 1, 2, 3, 4])
    x1 = draw.given("x1", range(0, 4) if draw.small else range(-5, 5))
    y1 = draw.given("y1", range(0, 4) if draw.small else range(-6, 7))
    asked = draw.asked("slope")
    x2, y2 = x1 + run, y1 + slope * run
    draw.require(max(abs(x2), abs(y2)) <= (9 if draw.small else 12))
    A, B = "AB" if draw.small else draw.letters(2)
    points = {A: (float(x1), float(y1)), B: (float(x2), float(y2))}
    x_low, x_high = min(0, x1, x2) - 1, max(0, x1, x2) + 1
    y_low, y_high = min(0, y1, y2) - 1, max(0, y1, y2) + 1

    def function(t: float) -> float:
        return points[A][1] + (t - points[A][0]) * (points[B][1] - points[A][1]) / (points[B][0] - points[A][0])

    axes = Axes(x_low, x_high, y_low, y_high, ticks=False)
    scene = Scene(points, [*_curve(function, axes), Dot(A), Dot(B)], functions={"f": function}, axes=axes)
    a, b = f"({x1}, {y1})", f"({x2}, {y2})"
    facts = [
        description(draw.say(f"Line {A}{B}", f"A line passes through the points {A} and {B}")),
        condition(f"{A}{a}" if draw.small else f"{A} is the point {a}", Name(A, f"{A}{a}", italic=False)),
        condition(f"{B}{b}" if draw.small else f"{B} is the point {b}", Name(B, f"{B}{b}", italic=False)),
    ]
    rise = y2 - y1
    ask = Ask(
        asked,
        draw.say("Find the slope.", f"What is the slope of line {A}{B}?", "Calculate the gradient of the line."),
        "Find the slope",
        number(slope),
        (
            "The slope is the rise divided by the run.",
            f"rise = {y2} - {y1} = {rise}" if y1 >= 0 else f"rise = {y2} - ({y1}) = {rise}",
            f"run = {x2} - {x1} = {run}" if x1 >= 0 else f"run = {x2} - ({x1}) = {run}",
            f"slope = {rise}/{run} = {slope}",
        ),
        lambda scene: measure.derivative(scene.functions["f"], 0.5),
        mistakes=tuple(str(v) for v in (-slope, rise, slope + 1, slope - 1)),
    )
    return draw.finish(facts, ask, scene)
