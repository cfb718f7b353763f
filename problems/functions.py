"""Functions: lines, parabolas and other curves with their graphs. Each public function is a family of problems."""

import math
from collections.abc import Callable
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import INFINITY, PI, equation, interval, number, point, polynomial, signed, sqrt
from problems.problem import Ask, Draw, Problem, condition, description, wrong
from problems.scene import Axes, Circle, CurveName, Dot, Name, Path, Scene, Segment, Shade

Function = Callable[[float], float]
NAN = math.nan


def _curve(function: Function, axes: Axes, low: float | None = None, high: float | None = None) -> list[Path]:
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


def _window(xs: list[float], ys: list[float], draw: Draw, margin: float = 0.25) -> Axes:
    """Axes around these values and the origin, with a little more room than needed on every side."""
    x_low, x_high, y_low, y_high = min(0, *xs), max(0, *xs), min(0, *ys), max(0, *ys)
    wide, tall = max(x_high - x_low, 2), max(y_high - y_low, 2)
    a, b, c, d = (draw.free.uniform(0.6, 1.6) * margin for _ in range(4))
    return Axes(x_low - a * wide, x_high + b * wide, y_low - c * tall, y_high + d * tall, ticks=False)


def _n(value: int | Fraction) -> str:
    """A number as a factor: in brackets where it is negative."""
    return f"({value})" if value < 0 else str(value)


def _graph(draw: Draw, function: Function, axes: Axes, text: str, kind: str, marks: tuple = ()) -> tuple[Scene, list]:
    """The scene of a graph, and the facts that it is one and what its equation is."""
    curves = _curve(function, axes)
    draw.require(bool(curves))
    scene = Scene(base=[*curves, *marks], functions={"f": function}, axes=axes)
    longest = max(curves, key=lambda path: len(path.points))
    shown = text.replace(" ", "") if draw.small else text
    clause = text if draw.small else draw.say(f"its equation is {text}", f"the equation of the curve is {text}")
    return scene, [description(kind), condition(clause, CurveName(longest.points, shown))]


def _points_fact(draw: Draw, points: dict[str, tuple[int, int]]) -> list:
    """Facts that state points of a curve; in the picture their coordinates stand beside them."""
    return [
        condition(f"{name}({x}, {y})" if draw.small else f"{name} is the point ({x}, {y})", Name(name, f"{name}({x}, {y})", italic=False))
        for name, (x, y) in points.items()
    ]


def linear_value(draw: Draw) -> Problem:
    """A linear function from its equation: a value, its zero, the area that its graph cuts off with the axes."""
    asked = draw.asked("value") if draw.small else draw.asked("value", "zero", "area")
    slope = draw.given("slope", [2, 3, 4, 5] if draw.small else [k for k in range(-9, 10) if k not in (-1, 0, 1)])
    offset = draw.given("offset", range(1, 6) if draw.small else [k for k in range(-24, 25) if k])
    x = draw.given("x", range(2, 6) if draw.small else [k for k in range(-9, 10) if k not in (0, 1)]) if asked == "value" else 0
    value, zero = slope * x + offset, Fraction(-offset, slope)

    def function(t: float) -> float:
        return slope * t + offset

    if draw.small:
        axes = Axes(-0.5, 3, -2, max(9.0, function(1.6)), ticks=False)
    else:
        axes = _window([float(zero)], [float(offset)], draw, 0.4)
    text = f"y = {polynomial(slope, offset)}"
    scene, facts = _graph(draw, function, axes, text, "Line" if draw.small else draw.say("The figure shows the graph of a linear function", "A line is the graph of a function"))
    if asked == "value":
        ask = Ask(
            asked, draw.say(f"Find y at x = {x}.", f"What is the value of y for x = {x}?", f"Calculate y when x = {x}."), f"Find y at x = {x}", number(value),
            ("Put the value of x into the equation.", f"{_n(slope)} × {_n(x)} = {slope * x}", f"y = {slope * x} {signed(offset)} = {value}"),
            lambda at: at.functions["f"](x), tuple(str(v) for v in (slope * x - offset, slope + offset, slope * offset + x, -value)), {"x": x},
        )
    elif asked == "zero":
        ask = Ask(
            asked, draw.say("Where does the line meet the x-axis? Give x.", "Find the zero x of the function."), "Find the zero x", number(zero),
            ("At the zero, y is 0.", f"{_n(slope)}x = {-offset}", f"x = {-offset}/{_n(slope)} = {zero}"),
            lambda at: measure.crossing(at.functions["f"], float(zero) - 7.3, float(zero) + 9.1), tuple(str(v) for v in (-zero, offset, Fraction(slope, offset), zero + 1)),
        )
    else:
        area = abs(zero * offset) / 2
        ask = Ask(
            asked, draw.say("What is the area of the triangle that the line forms with the axes?", "Find the area between the line and the two axes."), "Area between line and axes?", number(area),
            (f"The line meets the y-axis at {offset}.", f"The zero is x = {-offset}/{_n(slope)} = {zero}.", f"Area = |{offset}| × |{zero}|/2 = {number(area).text}"),
            lambda at: abs(measure.integral(at.functions["f"], 0.0, measure.crossing(at.functions["f"], -99.7, 99.1))), wrong("", area * 2, abs(offset), abs(zero), area + 1),
        )
    return draw.finish(facts, ask, scene)


def line_through_points(draw: Draw) -> Problem:
    """Two points of a line: its slope, its intercept, its equation."""
    asked = draw.asked("slope") if draw.small else draw.asked("slope", "intercept", "equation", "zero")
    run = draw.given("run", [1, 2, 3] if draw.small else range(1, 8))
    slope = draw.given("slope", [1, 2, 3, 4] if draw.small else [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5])
    x1 = draw.given("x1", range(0, 4) if draw.small else [k for k in range(-7, 7) if k])
    y1 = draw.given("y1", range(0, 4) if draw.small else range(-9, 10))
    x2, y2 = x1 + run, y1 + slope * run
    draw.require(max(abs(x2), abs(y2)) <= (9 if draw.small else 20))
    A, B = "AB" if draw.small else draw.letters(2)
    points = {A: (float(x1), float(y1)), B: (float(x2), float(y2))}
    offset = y1 - slope * x1

    def function(t: float) -> float:  # through the two points, not by slope and intercept
        return y1 + (t - x1) * (y2 - y1) / (x2 - x1)

    if draw.small:
        axes = Axes(min(0, x1) - 1, x2 + 1, min(0, y1) - 1, max(0, y2) + 1, ticks=False)
    else:
        axes = _window([x1, x2], [y1, y2, min(max(offset, -14), 14)], draw)
    scene = Scene(points, [*_curve(function, axes), Dot(A), Dot(B)], functions={"f": function}, axes=axes)
    facts = [description(draw.say(f"Line {A}{B}", f"A line passes through the points {A} and {B}", f"The figure shows the line {A}{B}")), *_points_fact(draw, {A: (x1, y1), B: (x2, y2)})]
    steps = ("The slope is the rise divided by the run.", f"rise = {y2} - {_n(y1)} = {y2 - y1}", f"run = {x2} - {_n(x1)} = {run}", f"slope = {y2 - y1}/{run} = {slope}")
    at_zero = f"{y1} - {_n(slope)} × {_n(x1)} = {offset}"
    line = f"y = {polynomial(slope, offset)}"
    if asked == "slope":
        ask = Ask(asked, draw.say("Find the slope.", f"What is the slope of line {A}{B}?", "Calculate the gradient of the line."), "Find the slope", number(slope), steps,
                  lambda at: measure.derivative(at.functions["f"], 0.5), tuple(str(v) for v in (-slope, y2 - y1, slope + 1, slope - 1, run)))
    elif asked == "intercept":
        ask = Ask(asked, draw.say("Where does the line cross the y-axis? Give y.", "Find the y-intercept of the line."), "Find the y-intercept", number(offset), (*steps, f"intercept = {at_zero}"),
                  lambda at: at.functions["f"](0.0), tuple(str(v) for v in (-offset, y1 + slope * x1, y1, offset + slope)))
    elif asked == "equation":
        answer = equation(line, slope, offset)
        wrongs = tuple(f"y = {polynomial(a, b)}" for a, b in ((-slope, offset), (slope, -offset), (slope, y1), (slope + 1, offset), (slope, offset + 1)))
        ask = Ask(asked, draw.say("What is the equation of the line in the form y = mx + b?", "Find the equation of the line, solved for y."), "Find the line's equation", answer,
                  (*steps, f"The intercept is {at_zero}."), lambda at: (measure.derivative(at.functions["f"], 0.3), at.functions["f"](0.0)), wrongs)
    else:
        zero = Fraction(-offset, slope)
        ask = Ask(asked, draw.say("Where does the line cross the x-axis? Give x.", "Find the zero x of the line."), "Find the zero x", number(zero), (*steps, f"The intercept is {at_zero}.", f"x = {-offset}/{_n(slope)} = {zero}"),
                  lambda at: measure.crossing(at.functions["f"], -97.3, 98.1), tuple(str(v) for v in (-zero, offset, zero + 1, x1 - 1)))
    return draw.finish(facts, ask, scene)


def parabola_equation(draw: Draw) -> Problem:
    """A parabola from its expanded equation: vertex, least or greatest value, axis, zeros' distance."""
    asked = draw.asked("vertex", "extreme value", "axis", "zero distance")
    a = draw.given("a", (1, -1, 2, -2) if asked != "zero distance" else (1, -1))
    if asked == "zero distance":
        first, gap = draw.given("first", range(-8, 6)), draw.given("gap", range(2, 10))
        b, c = -a * (2 * first + gap), a * first * (first + gap)
        h = Fraction(2 * first + gap, 2)
    else:
        h, k = draw.given("h", [v for v in range(-7, 8) if v]), draw.given("k", [v for v in range(-12, 13) if v])
        b, c = -2 * a * h, a * h * h + k
    k = a * h * h + b * h + c

    def function(t: float) -> float:
        return a * t * t + b * t + c

    reach = 2.6 if asked != "zero distance" else gap / 2 + 1
    axes = _window([float(h) - reach, float(h) + reach], [float(k), float(k) + a * reach * reach], draw, 0.12)
    text = f"y = {polynomial(a, b, c)}"
    scene, facts = _graph(draw, function, axes, text, draw.say("The figure shows a parabola", "The graph of a quadratic function is drawn"))
    x_step = f"The axis is x = {-b}/(2 × {_n(a)}) = {h}."
    y_step = f"y = {_n(a)} × {_n(h)}² {signed(b)} × {_n(h)} {signed(c)} = {k}" if b else f"y = {c}"
    low, high = float(h) - 3.3, float(h) + 4.1
    if asked == "vertex":
        ask = Ask(asked, draw.say("What are the coordinates of the vertex?", "Find the vertex of the parabola."), "Find the vertex", point(h, k), (x_step, y_step),
                  lambda at: measure.extremum(at.functions["f"], low, high), tuple(point(*p).text for p in ((-h, k), (h, -k), (k, h), (h, c), (-h, c))))
    elif asked == "extreme value":
        word = "least" if a > 0 else "greatest"
        ask = Ask(asked, draw.say(f"What is the {word} value of y?", f"Find the {word} value of the function."), f"Find the {word} y", number(k), (x_step, y_step),
                  lambda at: measure.extremum(at.functions["f"], low, high)[1], tuple(str(v) for v in (h, -k, c, k + 1)))
    elif asked == "axis":
        ask = Ask(asked, draw.say("What is the equation of the axis of symmetry?", "Find the equation of the parabola's axis."), "Find the axis", equation(f"x = {h}", h), (x_step,),
                  lambda at: measure.extremum(at.functions["f"], low, high)[0], tuple(f"x = {v}" for v in (-h, k, 2 * h, h + 1)))
    else:
        square = b * b - 4 * a * c
        ask = Ask(asked, draw.say("How far apart are the two zeros?", "Find the distance between the zeros."), "Distance of the zeros?", number(gap),
                  (f"D = {_n(b)}² - 4 × {_n(a)} × {_n(c)} = {square}", f"The zeros differ by √D/|a| = √{square}/|{a}| = {gap}."),
                  lambda at: (lambda z: z[1] - z[0])(measure.crossings(at.functions["f"], first - 2.0, first + gap + 2.0)), wrong("", square, abs(b), abs(c), gap + 2, 2 * gap), {"a": a})
    return draw.finish(facts, ask, scene)


def parabola_points(draw: Draw) -> Problem:
    """A parabola from its vertex or its zeros and one more point: its equation, a value, the leading coefficient."""
    asked = draw.asked("coefficient", "equation", "value")
    a = draw.given("a", (-3, -2, -1, 1, 2, 3))
    h, k = draw.given("h", range(-5, 6)), draw.given("k", range(-8, 9))
    step = draw.given("step", (1, 2))
    V, P = draw.letters(2)
    x, y = h + step, k + a * step * step
    base = s.sub((float(x), float(y)), (float(h), float(k)))

    def function(t: float) -> float:  # scaled so that it passes through the point
        return k + base[1] * ((t - h) / base[0]) ** 2

    axes = _window([h - 2.6, h + 2.6], [k, y, k + a * 5], draw, 0.15)
    points = {V: (float(h), float(k)), P: (float(x), float(y))}
    scene = Scene(points, [*_curve(function, axes), Dot(V), Dot(P)], functions={"f": function}, axes=axes)
    facts = [description(f"A parabola has its vertex at {V} and passes through {P}"), *_points_fact(draw, {V: (h, k), P: (x, y)})]
    steps = ("From the vertex, y changes by the leading coefficient times the square of the step in x.", f"{_n(y)} - {_n(k)} = {y - k} and {_n(x)} - {_n(h)} = {step}.", f"a = {y - k}/{step}² = {a}")
    expanded = polynomial(a, -2 * a * h, a * h * h + k)
    if asked == "coefficient":
        ask = Ask(asked, draw.say("Find a, the coefficient of x² in the equation of the parabola.", "What is the coefficient a of x²?"), "Find the coefficient a of x²", number(a), steps,
                  lambda at: measure.derivative(lambda t: measure.derivative(at.functions["f"], t, 0.1), 0.2, 0.1) / 2, tuple(str(v) for v in (-a, y - k, 2 * a, a + 1, a - 1)))
    elif asked == "equation":
        shifted = polynomial(1, -h) if h else "x"
        square = f"({shifted})²" if h else "x²"
        lead = {1: "", -1: "-"}.get(a, str(a))
        tail = f" {signed(k)}" if k else ""
        steps = (*steps, f"{lead}{square}{tail} = {expanded}")
        ask = Ask(asked, "What is the equation of the parabola in the form y = ax² + bx + c?", "Equation y = ax² + bx + c?", equation(f"y = {expanded}", a, -2 * a * h, a * h * h + k), steps,
                  lambda at: _coefficients(at.functions["f"]), tuple(f"y = {polynomial(*c)}" for c in ((a, 2 * a * h, a * h * h + k), (-a, -2 * a * h, a * h * h + k), (a, -2 * a * h, k), (a, -a * h, a * h * h + k))))
    else:
        far = h + draw.given("far", (-3, -4, -2, 3, 4, 5))
        draw.require(far not in (x, h, 2 * h - x))
        value = k + a * (far - h) ** 2
        ask = Ask(asked, draw.say(f"What is y at x = {far}?", f"Find the value of y for x = {far}."), f"Find y at x = {far}", number(value), (*steps, f"y = {a} × ({far} - {_n(h)})² {signed(k)} = {value}"),
                  lambda at: at.functions["f"](far), tuple(str(v) for v in (-value, k + a * (far - h), k - a * (far - h) ** 2, value + a)))
    return draw.finish(facts, ask, scene)


def _coefficients(f: Function) -> tuple[float, float, float]:
    """The coefficients of a quadratic from three readings."""
    low, middle, high = f(-1.0), f(0.0), f(1.0)
    return (low + high) / 2 - middle, (high - low) / 2, middle


def line_and_parabola(draw: Draw) -> Problem:
    """A line meets a parabola: where, how far apart, or the area between them."""
    asked = draw.asked("right point", "area", "distance in x")
    p, gap = draw.given("p", range(-5, 4)), draw.given("gap", range(2, 6))
    q = p + gap
    slope, offset = draw.given("slope", (-2, -1, 1, 2)), draw.given("offset", range(-4, 5))
    b, c = slope - (p + q), offset + p * q

    def curve(t: float) -> float:
        return t * t + b * t + c

    def line(t: float) -> float:
        return slope * t + offset

    xs = [p - 1.0, q + 1.0]
    axes = _window(xs, [curve(xs[0]), curve((p + q) / 2), line(p), line(q)], draw, 0.12)
    paths, straight = _curve(curve, axes), _curve(line, axes)
    draw.require(bool(paths) and bool(straight))
    scene = Scene(base=[*paths, *straight], functions={"curve": curve, "line": line}, axes=axes)
    first, second = f"y = {polynomial(1, b, c)}", f"y = {polynomial(slope, offset)}"
    facts = [description("A parabola and a line are drawn"), condition(f"the parabola is {first}", CurveName(paths[0].points, first)), condition(f"the line is {second}", CurveName(straight[0].points, second))]
    difference = polynomial(1, -(p + q), p * q)
    root = gap * gap
    start = (f"Where they meet, {difference} is 0.", f"D = ({p + q})² - 4 × {_n(p * q)} = {root}", f"The solutions are ({p + q} - √{root})/2 = {p} and ({p + q} + √{root})/2 = {q}.")

    def roots(at: Scene) -> list[float]:
        return measure.crossings(lambda t: at.functions["curve"](t) - at.functions["line"](t), p - 3.0, q + 3.0)

    if asked == "right point":
        y = slope * q + offset
        ask = Ask(asked, draw.say("Which of the points where they meet lies further right? Give its coordinates.", "Find the right one of the two points of intersection."), "Right point of intersection?", point(q, y),
                  (*start, f"y = {_n(slope)} × {_n(q)} {signed(offset)} = {y}"), lambda at: (roots(at)[1], at.functions["line"](roots(at)[1])), tuple(point(*v).text for v in ((p, slope * p + offset), (q, -y), (y, q), (-q, y))))
    elif asked == "distance in x":
        ask = Ask(asked, "By how much do the x-coordinates of the two points of intersection differ?", "Difference of the x of both points?", number(gap), (*start, f"Difference = {q} - {_n(p)} = {gap}"),
                  lambda at: roots(at)[1] - roots(at)[0], wrong("", abs(p + q), root, gap + 1, gap + 2, gap * 2))
    else:
        area = Fraction(gap**3, 6)
        ask = Ask(asked, draw.say("What is the area between the two curves?", "Find the area that the line and the parabola enclose."), "Area between the curves?", number(area),
                  (*start, "The area between a parabola y = x² + ... and a line is a sixth of the cube of the distance of the solutions.".replace("y = x² + ... ", "with leading coefficient 1 "), f"Area = {gap}³/6 = {gap**3}/6" + (f" = {area}" if area.denominator != 6 else "")),
                  lambda at: measure.integral(lambda t: at.functions["line"](t) - at.functions["curve"](t), *roots(at)), wrong("", area * 2, Fraction(gap**3, 3), gap**2, area + 1))
    return draw.finish(facts, ask, scene)


def exponential(draw: Draw) -> Problem:
    """An exponential curve y = c · b^x from two points: base, start value, a further value."""
    asked = draw.asked("base", "value", "start")
    base, start = draw.given("base", (2, 3, 4, 5)), draw.given("start", range(1, 13))
    n = draw.given("n", (2, 3) if base < 4 else (2,))
    P, Q = draw.letters(2)
    shown = (1, start * base) if asked == "start" else (0, start)
    points = {P: (float(shown[0]), float(shown[1])), Q: (float(n), float(start * base**n))}
    growth = (points[Q][1] / points[P][1]) ** (1 / (n - shown[0])) if n > shown[0] else NAN

    def function(t: float) -> float:
        return points[P][1] * growth ** (t - shown[0])

    axes = Axes(-draw.free.uniform(1.2, 2.5), n + draw.free.uniform(0.4, 0.9), -0.12 * points[Q][1], points[Q][1] * draw.free.uniform(1.15, 1.4), ticks=False)
    scene = Scene(points, [*_curve(function, axes), Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"The curve through {P} and {Q} is the graph of an exponential function y = c × b^x"), *_points_fact(draw, {P: (shown[0], shown[1]), Q: (n, start * base**n)})]
    ratio = start * base**n // shown[1]
    power = n - shown[0]
    steps = (f"From {P} to {Q} the value is multiplied by {start * base**n}/{shown[1]} = {ratio}.",)
    steps = (*steps, f"b = √{ratio} = {base}" if power == 2 else f"b³ = {ratio} = {base}³, so b = {base}." if power == 3 else f"b = {ratio}")
    steps = steps[:-1] + (f"That is {power} steps to the right, and {base}^{power} = {ratio}.", f"b = {base}")
    if asked == "base":
        ask = Ask(asked, draw.say("Find the base b.", "What is the base b?"), "Find b", number(base), steps, lambda at: at.functions["f"](1.7) / at.functions["f"](0.7), wrong("", ratio, start, base + 1, Fraction(ratio, power), base * start))
    elif asked == "value":
        m = n + 1
        value = start * base**m
        ask = Ask(asked, draw.say(f"What is y at x = {m}?", f"Find y for x = {m}."), f"Find y at x = {m}", number(value), (*steps, f"y = {start * base**n} × {base} = {value}"), lambda at: at.functions["f"](m),
                  wrong("", 2 * start * base**n - start, start * base * m, value + start, value - base))
    else:
        ask = Ask(asked, draw.say("Find c, the value at x = 0.", "What is c, the value of y for x = 0?"), "Find c", number(start), (*steps, f"c = {shown[1]}/{base} = {start}"), lambda at: at.functions["f"](0.0), wrong("", shown[1] - base, base, start + 1, 2 * start, shown[1]))
        draw.require(start != base)
    return draw.finish(facts, ask, scene)


def logarithm(draw: Draw) -> Problem:
    """A logarithm from its equation: domain, zero, asymptote, the place where it takes a value."""
    asked = draw.asked("domain", "zero", "argument", "value")
    base, shift, lift = draw.given("base", (2, 3, 5)), draw.given("shift", [k for k in range(-9, 10) if k]), draw.given("lift", range(-3, 4))

    def function(t: float) -> float:
        return math.log(t - shift, base) + lift if t > shift else NAN

    span = base ** max(1, 1 - lift) if base ** max(1, 1 - lift) < 30 else 9
    axes = _window([shift - 0.6, shift + span * 1.3], [lift - 2.0, lift + 2.6], draw, 0.12)
    text = f"y = log{'₂₃₅'[(2, 3, 5).index(base)]}({polynomial(1, -shift)})" + (f" {signed(lift)}" if lift else "")
    scene, facts = _graph(draw, function, axes, text, draw.say("The graph of a logarithm is drawn", "The figure shows a logarithmic curve"), (Segment((float(shift), axes.y_low), (float(shift), axes.y_high), dashed=True, thin=True),))
    sub = "₂₃₅"[(2, 3, 5).index(base)]
    if asked == "domain":
        ask = Ask(asked, draw.say("What is the domain of the function, as an interval?", "Find the domain as an interval."), "Find the domain", interval(shift, INFINITY), ("The argument of a logarithm is positive.", f"The argument is 0 at x = {shift}, since {shift} - {_n(shift)} = 0."),
                  lambda at: (measure.edge_of_domain(at.functions["f"], shift - 5.0, shift + 5.0), INFINITY if math.isfinite(at.functions["f"](1e9)) else NAN), tuple(interval(*v).text for v in ((-shift, INFINITY), (-INFINITY, shift), (0, INFINITY), (shift + 1, INFINITY))))
    elif asked == "zero":
        draw.require(base ** abs(lift) <= 30)
        zero = shift + Fraction(base) ** -lift
        power = Fraction(base) ** -lift
        ask = Ask(asked, draw.say("At which x does the curve meet the x-axis?", "Find the zero x of the function."), "Find the zero x", number(zero), ("The zero is where the logarithm cancels the rest.", f"log{sub}({power}) = {-lift}", f"x = {power} {signed(shift)} = {zero}"),
                  lambda at: measure.crossing(at.functions["f"], shift + 1e-9, shift + 60.0), tuple(str(v) for v in (-zero, shift, shift - power, zero + 1)))
    elif asked == "value":
        n = draw.given("n", (1, 2, 3))
        draw.require(lift != 0)
        place, value = shift + base**n, n + lift
        ask = Ask(asked, draw.say(f"What is y at x = {place}?", f"Find y for x = {place}."), f"Find y at x = {place}", number(value), (f"The argument is {place} - {_n(shift)} = {base**n}.", f"y = log{sub}({base**n}) {signed(lift)} = {n} {signed(lift)} = {value}"),
                  lambda at: at.functions["f"](place), tuple(str(v) for v in (base**n + lift, n - lift, -value, value + 1)))
    else:
        n = draw.given("n", (1, 2, 3))
        place, value = shift + base**n, n + lift
        draw.require(value != n)
        ask = Ask(asked, draw.say(f"At which x is y = {value}?", f"Find x so that y = {value}."), f"Find x where y = {value}", number(place), (f"The logarithm must be {value} - {_n(lift)} = {n}.", f"The argument is {base}^{n} = {base**n}.", f"x = {base**n} {signed(shift)} = {place}"),
                  lambda at: measure.crossing(lambda t: at.functions["f"](t) - value, shift + 1e-9, shift + base**n + 90.0), tuple(str(v) for v in (base**n, base**n - shift, base * n + shift, place + 1)))
    return draw.finish(facts, ask, scene)


def sine_wave(draw: Draw) -> Problem:
    """A sine curve from a highest and the next lowest point: amplitude, midline, period, greatest value of a multiple."""
    asked = draw.asked("amplitude", "midline", "period", "equation")
    a, d = draw.given("a", range(1, 10)), draw.given("d", range(-8, 9))
    half = draw.given("half", range(1, 10))
    start = draw.given("start", range(-6, 5))
    P, Q = draw.letters(2)
    points = {P: (float(start), float(d + a)), Q: (float(start + half), float(d - a))}
    middle = s.between(points[P], points[Q], 0.5)[1]

    def function(t: float) -> float:
        return middle + (points[P][1] - middle) * math.cos(math.pi * (t - points[P][0]) / (points[Q][0] - points[P][0]))

    axes = _window([start - half * 0.8, start + half * 2.2], [d - a * 1.2, d + a * 1.2], draw, 0.15)
    scene = Scene(points, [*_curve(function, axes), Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"A sine curve has a highest point {P}, and {Q} is the lowest point next to it on the right"), *_points_fact(draw, {P: (start, d + a), Q: (start + half, d - a)})]

    def peak(at: Scene, sign: int) -> tuple[float, float]:
        low = points[P][0] - half * 0.4 if sign > 0 else points[P][0] + half * 0.6
        return measure.extremum(at.functions["f"], low, low + half * 0.8)

    spread = f"The highest and the lowest value differ by {d + a} - {_n(d - a)} = {2 * a}."
    if asked == "amplitude":
        ask = Ask(asked, draw.say("What is the amplitude?", "Find the amplitude of the curve."), "Find the amplitude", number(a), (spread, f"Amplitude = {2 * a}/2 = {a}"), lambda at: (peak(at, 1)[1] - peak(at, -1)[1]) / 2, wrong("", 2 * a, d + a, half, a + 1, 4 * a))
    elif asked == "midline":
        ask = Ask(asked, draw.say("What is the equation of the midline?", "Find the equation of the midline."), "Find the midline", equation(f"y = {d}", d), (f"The midline is halfway: ({d + a} + {_n(d - a)})/2 = {d}.",), lambda at: measure.integral(at.functions["f"], start, start + 2 * half, 6) / (2 * half),
                  tuple(f"y = {v}" for v in (a, d + a, -d, d + 1, d - a)))
    elif asked == "period":
        ask = Ask(asked, draw.say("What is the period?", "Find the period of the curve."), "Find the period", number(2 * half), (f"From highest to lowest point is half a period: {start + half} - {_n(start)} = {half}.", f"Period = 2 × {half} = {2 * half}"), lambda at: 2 * (peak(at, -1)[0] - peak(at, 1)[0]), wrong("", half, 4 * half, 2 * a, half + 2, 3 * half))
    else:
        k = Fraction(1, half)
        factor = "π" if half == 1 else f"π/{half}"
        ask = Ask(asked, draw.say("The curve has the form y = d + a sin(k(x - c)) with k > 0. What is k?", "In the form y = d + a sin(k(x - c)) with k > 0, find k."), "Find k in y = d + a sin(k(x - c))", number(PI * k), (f"Half a period is {start + half} - {_n(start)} = {half}.", f"The period is 2 × {half} = {2 * half}.", f"k = 2π/{2 * half} = {factor}"),
                  lambda at: math.pi / (peak(at, -1)[0] - peak(at, 1)[0]), ("2π" if half == 1 else f"2π/{half}", f"{half}π", f"π/{half + 1}", f"{2 * half}", f"{half}π/2"))
    return draw.finish(facts, ask, scene)


def absolute_value(draw: Draw) -> Problem:
    """A graph with a corner, y = a|x - h| + k: its corner, a value, its zeros' distance, its range."""
    asked = draw.asked("corner", "value", "zero distance", "range")
    a, h, k = draw.given("a", (-3, -2, -1, 1, 2, 3)), draw.given("h", [v for v in range(-6, 7) if v]), draw.given("k", [v for v in range(-9, 10) if v])

    def function(t: float) -> float:
        return a * abs(t - h) + k

    axes = _window([h - 3.5, h + 3.5], [k, k + 3.5 * a], draw, 0.12)
    lead = {1: "", -1: "-"}.get(a, str(a))
    text = f"y = {lead}|{polynomial(1, -h)}| {signed(k)}"
    scene, facts = _graph(draw, function, axes, text, draw.say("The figure shows a graph with one corner", "The graph of a function with an absolute value is drawn"))
    sign = -1 if a > 0 else 1
    corner = f"The corner is where the bars hold 0: x = {h}, and there y = {_n(a)} × |{h} - {_n(h)}| {signed(k)} = {k}."
    if asked == "corner":
        ask = Ask(asked, draw.say("What are the coordinates of the corner?", "Find the corner of the graph."), "Find the corner", point(h, k), (corner,), lambda at: measure.greatest(at.functions["f"], h - 4.1, h + 5.3, sign), tuple(point(*v).text for v in ((-h, k), (h, -k), (k, h), (-h, -k))))
    elif asked == "value":
        x = draw.given("x", range(-9, 10))
        draw.require(abs(x - h) >= 2)
        value = a * abs(x - h) + k
        ask = Ask(asked, draw.say(f"What is y at x = {x}?", f"Find y for x = {x}."), f"Find y at x = {x}", number(value), (f"|{x} - {_n(h)}| = {abs(x - h)}", f"y = {_n(a)} × {abs(x - h)} {signed(k)} = {value}"), lambda at: at.functions["f"](x),
                  tuple(str(v) for v in (-value, a * (x + h) + k, k - a * abs(x - h), value + 1)))
    elif asked == "range":
        answer = interval(k, INFINITY, "[)") if a > 0 else interval(-INFINITY, k, "(]")
        others = (interval(h, INFINITY, "[)"), interval(-INFINITY, k, "(]") if a > 0 else interval(k, INFINITY, "[)"), interval(k, INFINITY), interval(-k, INFINITY, "[)"))
        def measured(at: Scene) -> tuple[float, float]:
            edge = measure.greatest(at.functions["f"], h - 4.1, h + 5.3, sign)[1]
            return (edge, INFINITY) if at.functions["f"](1e6) > edge else (-INFINITY, edge)

        ask = Ask(asked, draw.say("What is the range of the function, as an interval?", "Find the range as an interval."), "Find the range", answer, (corner, f"This is the {'least' if a > 0 else 'greatest'} value."), measured, tuple(v.text for v in others))
    else:
        draw.require(a * k < 0)
        reach = Fraction(-k, a)
        ask = Ask(asked, draw.say("How far apart are the two zeros?", "Find the distance between the zeros."), "Distance of the zeros?", number(2 * reach), (f"At a zero the bars hold a number of size {-k}/{_n(a)} = {reach}.", f"Distance = 2 × {reach} = {2 * reach}"),
                  lambda at: (lambda z: z[1] - z[0])(measure.crossings(at.functions["f"], h - float(reach) - 1.0, h + float(reach) + 1.5)), wrong("", reach, abs(k), 2 * abs(k), 2 * abs(h), 2 * reach + 1))
    return draw.finish(facts, ask, scene)


def piecewise(draw: Draw) -> Problem:
    """A graph of two straight pieces with a jump, read off: a value, a value of a value, the range."""
    asked = draw.asked("sum", "range")
    left, jump, right = draw.given("left", range(-5, -1)), draw.given("jump", range(-1, 3)), draw.given("right", range(4, 8))
    a, b = draw.given("a", range(-4, 6)), draw.given("b", range(-4, 6))
    c, d = draw.given("c", range(-4, 6)), draw.given("d", range(-4, 6))
    draw.require(a != b and c != d and abs(b - c) >= 2)
    closed_left = draw.given("closed", (True, False))

    def function(t: float) -> float:
        if not left <= t <= right:
            return NAN
        first = t < jump or (t == jump and closed_left)
        p, q = ((left, a), (jump, b)) if first else ((jump, c), (right, d))
        return p[1] + (q[1] - p[1]) * (t - p[0]) / (q[0] - p[0])

    axes = _window([left, right], [a, b, c, d], draw, 0.12)
    ends = {"A": (left, a), "B": (jump, b), "C": (jump, c), "D": (right, d)}
    points = {name: (float(x), float(y)) for name, (x, y) in ends.items()}
    base = [Segment("A", "B"), Segment("C", "D"), Dot("A"), Dot("D"), Dot("B", open=not closed_left), Dot("C", open=closed_left)]
    scene = Scene(points, base, functions={"f": function}, axes=axes)
    kept, lost = ("B", "C") if closed_left else ("C", "B")
    facts = [description(f"The graph of f consists of the segments from A to B and from C to D; {kept} belongs to the graph and {lost} does not"), *_points_fact(draw, ends)]
    at_jump = b if closed_left else c
    if asked == "sum":
        total = a + at_jump + d
        ask = Ask(asked, f"What is f({left}) + f({jump}) + f({right})?", f"f({left}) + f({jump}) + f({right})?", number(total), (f"f({left}) = {a}, f({jump}) = {at_jump} and f({right}) = {d}", f"f({left}) + f({jump}) + f({right}) = {a} + {_n(at_jump)} + {_n(d)} = {total}"),
                  lambda at: sum(at.functions["f"](x) for x in (left, jump, right)), tuple(str(v) for v in (a + (b + c - at_jump) + d, a + b + c + d, total + 1, -total, a + d)))
    else:
        parts = [(min(a, b), max(a, b)), (min(c, d), max(c, d))]
        low, high = min(p[0] for p in parts), max(p[1] for p in parts)
        overlap = min(parts[0][1], parts[1][1]) > max(parts[0][0], parts[1][0])
        lost_value = c if closed_left else b
        draw.require(overlap and low < lost_value < high)
        ask = Ask(asked, draw.say("What is the range of f, as an interval?", "Find the range of f as an interval."), "Find the range", interval(low, high, "[]"), (f"The lowest value is {low} and the highest is {high}.", f"They differ by {high} - {_n(low)} = {high - low}, and every value between is taken."),
                  lambda at: (min(at.functions["f"](x) for x in (left, jump, right, jump - 1e-9, jump + 1e-9)), max(at.functions["f"](x) for x in (left, jump, right, jump - 1e-9, jump + 1e-9))),
                  tuple(interval(*v).text for v in ((left, right, "[]"), (low, high, "()"), (low, jump, "[]"), (a, d, "[]") if a < d else (d, a, "[]"))))
    return draw.finish(facts, ask, scene)


def rational(draw: Draw) -> Problem:
    """A hyperbola y = c/(x - p) + q: its asymptotes, its zero, a value."""
    asked = draw.asked("horizontal asymptote", "zero", "value")
    p, q = draw.given("p", [v for v in range(-7, 8) if v]), draw.given("q", [v for v in range(-7, 8) if v])
    c = draw.given("c", [v for v in range(-12, 13) if v])
    draw.require(abs(c) >= 1)
    top = (q, c - q * p)  # (qx + c - qp)/(x - p)

    def function(t: float) -> float:
        return (top[0] * t + top[1]) / (t - p) if t != p else NAN

    reach = math.sqrt(abs(c)) * 1.6 + 1
    axes = _window([p - reach, p + reach], [q - reach, q + reach], draw, 0.08)
    text = f"y = ({polynomial(*top)})/({polynomial(1, -p)})"
    dashed = (Segment((float(p), axes.y_low), (float(p), axes.y_high), dashed=True, thin=True), Segment((axes.x_low, float(q)), (axes.x_high, float(q)), dashed=True, thin=True))
    scene, facts = _graph(draw, function, axes, text, draw.say("The figure shows a hyperbola and its asymptotes, dashed", "The graph of a rational function is drawn with its asymptotes"), dashed)
    if asked == "horizontal asymptote":
        ask = Ask(asked, draw.say("What is the equation of the horizontal asymptote?", "Find the horizontal asymptote."), "Find the horizontal asymptote", equation(f"y = {q}", q), (f"Far out only the leading terms count: {_n(q)}x/x tends to {q}/1 = {q}.".replace(f"{_n(q)}x/x", "their quotient"),),
                  lambda at: at.functions["f"](1e9), tuple(f"y = {v}" for v in (-q, p, 0, q + 1)))
    elif asked == "zero":
        zero = Fraction(-top[1], q)
        draw.require(zero != p and top[1] != 0)
        ask = Ask(asked, draw.say("At which x does the curve meet the x-axis?", "Find the zero x of the function."), "Find the zero x", number(zero), ("The numerator must be 0.", f"x = {-top[1]}/{_n(q)} = {zero}"), lambda at: measure.crossing(at.functions["f"], *_beside(float(zero), float(p))), tuple(str(v) for v in (-zero, p, q, zero + 1)))
    else:
        x = p + draw.given("step", (-2, -1, 1, 2))
        value = Fraction(q * x + top[1], x - p)
        ask = Ask(asked, draw.say(f"What is y at x = {x}?", f"Find y for x = {x}."), f"Find y at x = {x}", number(value), (f"The numerator is {_n(q)} × {_n(x)} {signed(top[1])} = {q * x + top[1]}.", f"The denominator is {x} - {_n(p)} = {x - p}.", f"y = {q * x + top[1]}/{_n(x - p)} = {value}"), lambda at: at.functions["f"](x), tuple(str(v) for v in (-value, value + 1, value - q, q * x + top[1])))
    return draw.finish(facts, ask, scene)


def _beside(zero: float, pole: float) -> tuple[float, float]:
    """An interval around a zero that does not hold the pole."""
    half = abs(zero - pole) * 0.9
    return zero - half, zero + half * 0.97


def composition(draw: Draw) -> Problem:
    """Two graphs of straight lines: values of composed and inverse functions, and where the graphs meet."""
    asked = draw.asked("composition", "inverse", "meeting")
    a, b = draw.given("a", (-3, -2, 2, 3, 4)), draw.given("b", range(-6, 7))
    c, d = draw.given("c", (-2, -1, 1, 2, 3)), draw.given("d", range(-6, 7))
    draw.require(a != c and b != d)
    x = draw.given("x", range(-4, 6)) if asked != "meeting" else 0
    meeting = Fraction(d - b, a - c)

    def f(t: float) -> float:
        return a * t + b

    def g(t: float) -> float:
        return c * t + d

    draw.require(abs(meeting) <= 6 and abs(f(float(meeting))) <= 12)
    reach = abs(float(meeting)) + 2.5
    axes = _window([-reach, reach], [max(-14, min(14, v)) for v in (f(-2), f(2), g(-2), g(2), f(float(meeting)))], draw, 0.08)
    curves = _curve(f, axes), _curve(g, axes)
    draw.require(all(curves))
    texts = f"f(x) = {polynomial(a, b)}", f"g(x) = {polynomial(c, d)}"
    scene = Scene(base=[*curves[0], *curves[1]], functions={"f": f, "g": g}, axes=axes)
    facts = [description("The graphs of two linear functions f and g are drawn"), condition(texts[0], CurveName(curves[0][0].points, texts[0])), condition(texts[1], CurveName(curves[1][0].points, texts[1]))]
    if asked == "composition":
        inner = c * x + d
        value = a * inner + b
        ask = Ask(asked, draw.say(f"What is f(g({x}))?", f"Find f(g({x}))."), f"Find f(g({x}))", number(value), (f"g({x}) = {_n(c)} × {_n(x)} {signed(d)} = {inner}", f"f({inner}) = {_n(a)} × {_n(inner)} {signed(b)} = {value}"),
                  lambda at: at.functions["f"](at.functions["g"](x)), tuple(str(v) for v in (c * (a * x + b) + d, (a * x + b) * inner, a * x + b + inner, -value)))
    elif asked == "inverse":
        y = a * x + b
        ask = Ask(asked, draw.say(f"What is f⁻¹({y})?", f"Find f⁻¹({y})."), f"Find f⁻¹({y})", number(x), (f"f takes the value {y} where {_n(a)} times x is {y} - {_n(b)} = {y - b}.", f"f⁻¹({y}) = {y - b}/{_n(a)} = {x}"), lambda at: measure.crossing(lambda t: at.functions["f"](t) - y, x - 9.7, x + 8.9), tuple(str(v) for v in (a * y + b, -x, y - b, x + 1)))
    else:
        y = a * meeting + b
        ask = Ask(asked, draw.say("At which point do the graphs meet?", "Find the point where the graphs meet."), "Where do the graphs meet?", point(meeting, y), (f"Equal values need ({a} - {_n(c)})x to be {d} - {_n(b)} = {d - b}.".replace(f"({a} - {_n(c)})x", "the difference of the slopes times x"), f"x = {d - b}/({a} - {_n(c)}) = {meeting}", f"y = {_n(a)} × {_n(meeting)} {signed(b)} = {y}"),
                  lambda at: (lambda z: (z, at.functions["f"](z)))(measure.crossing(lambda t: at.functions["f"](t) - at.functions["g"](t), -61.3, 62.7)), tuple(point(*v).text for v in ((-meeting, y), (y, meeting), (meeting, -y), (meeting + 1, y + a))))
    return draw.finish(facts, ask, scene)


def cubic_graph(draw: Draw) -> Problem:
    """A cubic with its turning points marked: where it falls, its local extremes, its number of zeros, a root count."""
    asked = draw.asked("falling", "zeros", "solutions")
    p, half = draw.given("p", range(-4, 3)), draw.given("half", (1, 2))
    q = p + 2 * half
    lift = draw.given("lift", range(-9, 10))
    rise = 2 * half**3  # the value falls by 2·rise from one turning point to the next
    middle = p + half

    def function(t: float) -> float:
        u = t - middle
        return u * u * u - 3 * half * half * u + lift

    high, low = lift + rise, lift - rise
    axes = _window([middle - half * 2.1, middle + half * 2.1], [low - rise * 0.3, high + rise * 0.3], draw, 0.15)
    P, Q = draw.letters(2)
    points = {P: (float(p), float(high)), Q: (float(q), float(low))}
    scene = Scene(points, [*_curve(function, axes), Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"The graph of a polynomial of degree 3 turns downwards at {P} and upwards again at {Q}"), *_points_fact(draw, {P: (p, high), Q: (q, low)})]

    def turning(at: Scene) -> tuple[float, float]:
        return tuple(measure.crossings(lambda t: measure.derivative(at.functions["f"], t), p - 1.0, q + 1.0))

    def count(at: Scene, level: float) -> float:
        return float(len(measure.crossings(lambda t: at.functions["f"](t) - level, p - 60.0, q + 60.0, 4000)))

    if asked == "falling":
        ask = Ask(asked, draw.say("On which open interval is the function decreasing?", "Give the open interval on which the function falls."), "Where is it decreasing?", interval(p, q), (f"It falls between the turning points, over {q} - {_n(p)} = {q - p} units of x.",), turning, tuple(interval(*v).text for v in ((low, high), (-INFINITY, p), (q, INFINITY), (p - 1, q), (-q, -p))))
    else:
        level = 0 if asked == "zeros" else draw.given("level", range(-12, 13))
        draw.require(level not in (high, low) and (asked == "zeros" or level != 0))
        value = 3 if low < level < high else 1
        what = "zeros does the function have" if asked == "zeros" else f"solutions has the equation f(x) = {level}, where f is this function"
        inside = f"{level} lies between {low} and {high}" if value == 3 else f"{level} does not lie between {low} and {high}"
        ask = Ask(asked, f"How many {what}?", "How many zeros?" if asked == "zeros" else f"How many solutions of f(x) = {level}?", number(value), (f"The turning values differ by {high} - {_n(low)} = {high - low}.", f"{inside}, so a horizontal line at this height meets the curve {'three times' if value == 3 else 'once'}."),
                  lambda at: count(at, level + 1e-9), ("0", "1", "2", "3", "4"))
    return draw.finish(facts, ask, scene)


def circle_equation(draw: Draw) -> Problem:
    """A circle in the coordinate plane from its centre and a point: radius, equation, where it meets an axis."""
    asked = draw.asked("radius", "equation", "right end")
    h, k = draw.given("h", [v for v in range(-6, 7) if v]), draw.given("k", [v for v in range(-6, 7) if v])
    dx, dy = draw.given("dx", [v for v in range(-6, 7) if v]), draw.given("dy", [v for v in range(-6, 7) if v])
    M, P = draw.letters(2)
    square = dx * dx + dy * dy
    radius = sqrt(square)
    points = {M: (float(h), float(k)), P: (float(h + dx), float(k + dy))}
    r = math.dist(points[M], points[P])
    base_axes = _window([h - r, h + r], [k - r, k + r], draw, 0.12)
    axes = Axes(base_axes.x_low, base_axes.x_high, base_axes.y_low, base_axes.y_high, ticks=False, equal=True)
    scene = Scene(points, [Circle(M, r), Dot(M), Dot(P), Segment(M, P, thin=True)], circles={"c": (points[M], r)}, axes=axes)
    facts = [description(f"A circle in the coordinate plane has the centre {M} and passes through {P}"), *_points_fact(draw, {M: (h, k), P: (h + dx, k + dy)})]
    start = (f"r² = ({h + dx} - {_n(h)})² + ({k + dy} - {_n(k)})² = {_n(dx)}² + {_n(dy)}² = {square}",)
    left = f"({polynomial(1, -h)})² + ({polynomial(1, -k, variable='y')})²"
    if asked == "radius":
        ask = Ask(asked, draw.say("What is the radius?", "Find the radius of the circle."), "Find the radius", number(radius), (*start, f"r = √{square} = {radius}"), lambda at: at.circles["c"][1], wrong("", square, abs(dx) + abs(dy), sqrt(abs(dx * dx - dy * dy)), sqrt(square + 1)))
    elif asked == "equation":
        other = f"({polynomial(1, h)})² + ({polynomial(1, k, variable='y')})²"
        ask = Ask(asked, draw.say("What is the equation of the circle?", "Find the equation of the circle in centre-radius form."), "Find the circle's equation", equation(f"{left} = {square}", h, k, square), start, lambda at: (*at.circles["c"][0], at.circles["c"][1] ** 2),
                  (f"{other} = {square}", f"{left} = {square + 2}", f"{other} = {square + 2}", f"{left} = {abs(dx) + abs(dy)}"), {"r": math.sqrt(square)})
    else:
        value = radius + h
        ask = Ask(asked, draw.say("What is the greatest x-coordinate of a point of the circle?", "How far right does the circle reach? Give x."), "Greatest x on the circle?", number(value), (*start, f"r = √{square} = {radius}", f"x = {h} + {radius} = {value}"),
                  lambda at: measure.greatest(lambda t: at.circles["c"][0][0] + at.circles["c"][1] * math.cos(t), -1.3, 1.1)[1], tuple(str(v) for v in (radius - h, radius + k, radius * 2, radius + h + 1)))
    return draw.finish(facts, ask, scene)


def feasible_region(draw: Draw) -> Problem:
    """A region under two lines: its far corner, its area, the greatest value of a linear expression on it."""
    asked = draw.asked("corner", "area", "greatest value")
    a, b = draw.given("a", (1, 2, 3)), draw.given("b", (1, 2, 3))
    x, y = draw.given("x", range(1, 8)), draw.given("y", range(1, 8))
    draw.require(a != b)
    a, b = max(a, b), min(a, b)  # ax + y ≤ p is the steep side, bx + y ≤ q the flat one
    p, q = a * x + y, b * x + y
    steep, flat = Fraction(p, a), q
    points = {"A": (0.0, 0.0), "B": (float(steep), 0.0), "D": (0.0, float(flat))}
    points["C"] = s.meet(points["B"], (-1.0, float(a)), points["D"], (1.0, -float(b)))
    axes = Axes(-0.12 * float(steep) - 0.4, float(Fraction(q, b)) * 1.05 + 0.6, -0.1 * flat - 0.4, p * 1.02 + 0.6, ticks=False)
    draw.require(0.3 <= axes.x_high / axes.y_high <= 2.5 and q / b <= 3 * float(steep) and p <= 3 * flat)
    lines = [Path(((0.0, float(p)), points["B"])), Path((points["D"], (q / b, 0.0)))]
    texts = f"{polynomial(a, 0).replace(' + 0', '')} + y ≤ {p}", f"{polynomial(b, 0)} + y ≤ {q}"
    scene = Scene(points, [Shade(("A", "B", "C", "D")), *lines], axes=axes)
    def along(start: s.Point, end: s.Point) -> tuple[s.Point, ...]:
        return tuple(s.between(start, end, k / 20) for k in range(21))

    facts = [description("The shaded region consists of the points with x ≥ 0 and y ≥ 0 that satisfy two more inequalities"),
             condition(f"one is {texts[0]}", CurveName(along((0.0, float(p)), points["B"]), texts[0])),
             condition(f"the other is {texts[1]}", CurveName(along(points["D"], (q / b, 0.0)), texts[1]))]
    meet_steps = (f"Subtract the equations of the two lines: {a - b} times x is {p} - {q} = {p - q}.", f"x = {p - q}/{a - b} = {x}", f"y = {p} - {a} × {x} = {y}")
    if asked == "corner":
        ask = Ask(asked, draw.say("At which point do the two slanted boundary lines meet?", "Find the corner of the region that lies on neither axis."), "Find the corner off the axes", point(x, y), meet_steps, lambda at: at.points["C"], tuple(point(*v).text for v in ((y, x), (x + 1, y), (x, y + 1), (steep, flat))) if x != y else ())
    elif asked == "area":
        area = (Fraction(flat + y) * x + (steep - x) * y) / 2
        ask = Ask(asked, draw.say("What is the area of the shaded region?", "Find the area of the region."), "Find the shaded area", number(area), (*meet_steps, f"The region meets the axes at {flat} on the y-axis and {p}/{a} = {steep} on the x-axis.", f"Area = ({flat} + {y}) × {x}/2 + ({steep} - {x}) × {y}/2 = {area}"),
                  lambda at: measure.area(at, "ABCD"), wrong("", area * 2, steep * flat, x * y, area + 1))
    else:
        u, v = draw.given("u", (1, 2, 3)), draw.given("v", (1, 2, 3))
        corners = [(Fraction(0), Fraction(flat)), (Fraction(x), Fraction(y)), (steep, Fraction(0))]
        values = [u * cx + v * cy for cx, cy in corners]
        best = max(values)
        target = f"{polynomial(u, 0)} + {polynomial(v, 0, variable='y')}"
        ask = Ask(asked, f"What is the greatest value of {target} in the region?", f"Greatest value of {target}?", number(best), (*meet_steps, f"At the corners the values are {v} × {flat} = {values[0]}, {u} × {x} + {v} × {y} = {values[1]} and {u} × {steep} = {values[2]}.", f"The greatest of them is {best}."),
                  lambda at: max(u * px + v * py for px, py in at.points.values()), tuple(str(v) for v in (*values, best + 1, best + 2)))
    return draw.finish(facts, ask, scene)


def distance_time(draw: Draw) -> Problem:
    """A journey as a graph of distance over time with a rest: speed, average speed, distance left."""
    asked = draw.asked("first speed", "average speed", "last speed")
    v, t1 = draw.given("v", range(2, 21)), draw.given("t1", range(1, 5))
    rest, t3, w = draw.given("rest", (1, 2, 3)), draw.given("t3", range(1, 5)), draw.given("w", range(2, 21))
    draw.require(v != w)
    times = [0, t1, t1 + rest, t1 + rest + t3]
    ways = [0, v * t1, v * t1, v * t1 + w * t3]
    draw.require(min(ways[1], ways[3] - ways[1]) >= 0.2 * ways[3])
    points = {name: (float(t), float(d)) for name, t, d in zip("OABC", times, ways, strict=True)}
    axes = Axes(-0.08 * times[3], times[3] * 1.15, -0.08 * ways[3], ways[3] * 1.2, ticks=False, x_name="t", y_name="d")
    base = [Segment("O", "A"), Segment("A", "B"), Segment("B", "C"), Dot("A"), Dot("B"), Dot("C")]
    scene = Scene(points, base, axes=axes)
    facts = [description("A cyclist's distance d from home in kilometres is drawn over the time t in hours; the graph runs straight from the origin to A, then to B, then to C"), *_points_fact(draw, {n: (t, d) for n, t, d in zip("ABC", times[1:], ways[1:], strict=True)})]

    def slope(at: Scene, start: str, end: str) -> float:
        (x1, y1), (x2, y2) = at.points[start], at.points[end]
        return (y2 - y1) / (x2 - x1)

    unit = "km/h"
    if asked == "first speed":
        ask = Ask(asked, draw.say("How fast does the cyclist ride before the rest?", "Find the speed on the first part."), "Speed before the rest?", number(v, unit), (f"v = {ways[1]}/{t1} = {v}",), lambda at: slope(at, "O", "A"), wrong(unit, ways[1], w, ways[1] * t1, v + 1, v + 2))
    elif asked == "last speed":
        ask = Ask(asked, draw.say("How fast does the cyclist ride after the rest?", "Find the speed on the last part."), "Speed after the rest?", number(w, unit), (f"The way is {ways[3]} - {ways[2]} = {w * t3} and the time {times[3]} - {times[2]} = {t3}.", f"v = {w * t3}/{t3} = {w}"), lambda at: slope(at, "B", "C"), wrong(unit, w * t3, v, Fraction(ways[3], times[3]), w + 1))
    else:
        mean = Fraction(ways[3], times[3])
        ask = Ask(asked, draw.say("What is the average speed over the whole time, the rest included?", "Find the average speed, rest included."), "Average speed, rest included?", number(mean, unit), (f"v = {ways[3]}/{times[3]}" + (f" = {mean}" if mean != Fraction(ways[3], 1) and mean.denominator != times[3] else ""), f"{ways[3]} - {_n(ways[1])} = {ways[3] - ways[1]}"), lambda at: slope(at, "O", "C"), wrong(unit, Fraction(v + w, 2), Fraction(ways[3], t1 + t3), v, w))
    return draw.finish(facts, ask, scene)
