"""Functions: lines, parabolas, regions, journeys. Each public function is a family of problems."""

from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import equation, number, point, polynomial, signed
from problems.graphs import Function, curve_paths, factor_text, graph_of, line_at, point_facts, window_around
from problems.problem import Ask, Draw, Problem, condition, description, wrong
from problems.scene import Axes, CurveName, Dot, Path, Scene, Segment, Shade


def linear_value(draw: Draw) -> Problem:
    """A linear function from its equation: a value, its zero, the area that its graph cuts off with the axes."""
    asked = draw.asked("value") if draw.small else draw.asked("value", "zero", "area")
    slope = draw.given("slope", [2, 3, 4, 5] if draw.small else [k for k in range(-9, 10) if k not in (-1, 0, 1)])
    offset = draw.given("offset", range(1, 6) if draw.small else [k for k in range(-24, 25) if k])
    x = (draw.given("x", range(2, 6) if draw.small else [k for k in range(-9, 10) if k not in (0, 1)])
         if asked == "value"
         else 0)
    value, zero = slope * x + offset, Fraction(-offset, slope)

    def function(t: float) -> float:
        return slope * t + offset

    if draw.small:
        axes = Axes(-0.5, 3, -2, max(9.0, function(1.6)), ticks=False)
    else:
        axes = window_around([float(zero)], [float(offset)], draw, 0.4)
    text = f"y = {polynomial(slope, offset)}"
    scene, facts = graph_of(
        draw,
        function,
        axes,
        text,
        "Line"
        if draw.small
        else draw.say("A line is the graph of a function", "The graph of a linear function is given"),
    )
    if asked == "value":
        ask = Ask(asked,
                  draw.say(f"Find y at x = {x}.", f"What is the value of y for x = {x}?", f"Calculate y when x = {x}."),
                  f"Find y at x = {x}", number(value),
                  ("Put the value of x into the equation.",
                   f"{factor_text(slope)} × {factor_text(x)} = {slope * x}",
                   f"y = {slope * x} {signed(offset)} = {value}"),
                  lambda at: at.functions["f"](x),
                  tuple(str(v) for v in (slope * x - offset, slope + offset, slope * offset + x, -value)), {"x": x})
    elif asked == "zero":
        ask = Ask(asked, draw.say("Where does the line meet the x-axis? Give x.", "Find the zero of the function."),
                  "Find the zero x", number(zero),
                  ("At the zero, y is 0.", f"{slope}x = {-offset}", f"x = {-offset}/{factor_text(slope)} = {zero}"),
                  lambda at: measure.crossing(at.functions["f"], float(zero) - 7.3, float(zero) + 9.1),
                  tuple(str(v) for v in (-zero, offset, Fraction(slope, offset), zero + 1)))
    else:
        area = abs(zero * offset) / 2
        ask = Ask(asked,
                  draw.say("What is the area of the triangle that the line forms with the axes?",
                           "Find the area between the line and the two axes."),
                  "Area between line and axes?", number(area),
                  (f"The line meets the y-axis at {offset}.",
                   f"The zero is x = {-offset}/{factor_text(slope)} = {zero}.",
                   f"Area = |{offset}| × |{zero}|/2 = {number(area).text}"),
                  lambda at: abs(measure.integral(at.functions["f"], 0.0,
                                                  measure.crossing(at.functions["f"], -99.7, 99.1))),
                  wrong("", area * 2, abs(offset), abs(zero), area + 1))
    return draw.finish(facts, ask, scene)


def line_through_points(draw: Draw) -> Problem:
    """Two points of a line: its slope, its intercept, its equation."""
    asked = draw.asked("slope") if draw.small else draw.asked("slope", "intercept", "equation", "zero")
    run = draw.given("run", [1, 2] if draw.small else range(1, 8))
    slope = draw.given("slope", [1, 2, 3, 4, 5, 6] if draw.small else [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5])
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
        axes = window_around([x1, x2], [y1, y2, min(max(offset, -14), 14)], draw)
    scene = Scene(points, [*curve_paths(function, axes), Dot(A), Dot(B)], functions={"f": function}, axes=axes)
    facts = [description(draw.say(f"A line passes through the points {A} and {B}", f"{A} and {B} are points of a line",
                                  brief=f"Line {A}{B}")),
             *point_facts(draw, {A: (x1, y1), B: (x2, y2)})]
    steps = ("The slope is the rise divided by the run.", f"rise = {y2} - {factor_text(y1)} = {y2 - y1}",
             f"run = {x2} - {factor_text(x1)} = {run}", f"slope = {y2 - y1}/{run} = {slope}")
    at_zero = f"{y1} - {factor_text(slope)} × {factor_text(x1)} = {offset}"
    line = f"y = {polynomial(slope, offset)}"
    if asked == "slope":
        ask = Ask(asked,
                  draw.say("Find the slope.", f"What is the slope of line {A}{B}?",
                           "Calculate the gradient of the line."),
                  "Find the slope", number(slope), steps, lambda at: measure.derivative(at.functions["f"], 0.5),
                  tuple(str(v) for v in (-slope, y2 - y1, slope + 1, slope - 1, run)))
    elif asked == "intercept":
        ask = Ask(asked, draw.say("Where does the line cross the y-axis? Give y.", "Find the y-intercept of the line."),
                  "Find the y-intercept", number(offset), (*steps, f"intercept = {at_zero}"),
                  lambda at: at.functions["f"](0.0),
                  tuple(str(v) for v in (-offset, y1 + slope * x1, y1, offset + slope)))
    elif asked == "equation":
        answer = equation(line, slope, offset)
        wrongs = tuple(
            f"y = {polynomial(a, b)}"
            for a, b in ((-slope, offset), (slope, -offset), (slope, y1), (slope + 1, offset), (slope, offset + 1))
        )
        ask = Ask(asked,
                  draw.say("What is the equation of the line in the form y = mx + b?",
                           "Find the equation of the line, solved for y."),
                  "Find the line's equation", answer, (*steps, f"The intercept is {at_zero}."),
                  lambda at: (measure.derivative(at.functions["f"], 0.3), at.functions["f"](0.0)), wrongs)
    else:
        zero = Fraction(-offset, slope)
        ask = Ask(asked, draw.say("Where does the line cross the x-axis? Give x.", "Find the zero of the line."),
                  "Find the zero x", number(zero),
                  (*steps, f"The intercept is {at_zero}.", f"x = {-offset}/{factor_text(slope)} = {zero}"),
                  lambda at: measure.crossing(at.functions["f"], -97.3, 98.1),
                  tuple(str(v) for v in (-zero, offset, zero + 1, x1 - 1)))
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
    axes = window_around([float(h) - reach, float(h) + reach], [float(k), float(k) + a * reach * reach], draw, 0.12)
    text = f"y = {polynomial(a, b, c)}"
    scene, facts = graph_of(draw, function, axes, text,
                            draw.say("A parabola is given by its equation",
                                     "A parabola is the graph of a quadratic function"))
    x_step = f"The axis is x = {-b}/(2 × {factor_text(a)}) = {h}."
    y_step = (f"y = {factor_text(a)} × {factor_text(h)}² {signed(b)} × {factor_text(h)} {signed(c)} = {k}"
              if b
              else f"y = {c}")
    low, high = float(h) - 3.3, float(h) + 4.1
    if asked == "vertex":
        ask = Ask(asked, draw.say("What are the coordinates of the vertex?", "Find the vertex of the parabola."),
                  "Find the vertex", point(h, k), (x_step, y_step),
                  lambda at: measure.extremum(at.functions["f"], low, high),
                  tuple(point(*p).text for p in ((-h, k), (h, -k), (k, h), (h, c), (-h, c))))
    elif asked == "extreme value":
        word = "least" if a > 0 else "greatest"
        ask = Ask(asked, draw.say(f"What is the {word} value of y?", f"Find the {word} value of the function."),
                  f"Find the {word} y", number(k), (x_step, y_step),
                  lambda at: measure.extremum(at.functions["f"], low, high)[1],
                  tuple(str(v) for v in (h, -k, c, k + 1)))
    elif asked == "axis":
        ask = Ask(asked,
                  draw.say("What is the equation of the axis of symmetry?",
                           "Find the equation of the parabola's axis."),
                  "Find the axis", equation(f"x = {h}", h), (x_step,),
                  lambda at: measure.extremum(at.functions["f"], low, high)[0],
                  tuple(f"x = {v}" for v in (-h, k, 2 * h, h + 1)))
    else:
        square = b * b - 4 * a * c
        ask = Ask(
            asked,
            draw.say("How far apart are the two zeros?", "Find the distance between the zeros."),
            "Distance of the zeros?",
            number(gap),
            (
                f"D = {factor_text(b)}² - 4 × {factor_text(a)} × {factor_text(c)} = {square}",
                f"The zeros differ by √D/|a| = √{square}/|{a}| = {gap}.",
            ),
            lambda at: (lambda z: z[1] - z[0])(measure.crossings(at.functions["f"], first - 2.0, first + gap + 2.0)),
            wrong("", square, abs(b), abs(c), gap + 2, 2 * gap),
            {"a": a},
        )
    return draw.finish(facts, ask, scene)


def parabola_points(draw: Draw) -> Problem:
    """A parabola from its vertex and one more point: its equation, a value, the leading coefficient."""
    asked = draw.asked("coefficient", "equation", "value")
    a = draw.given("a", (-3, -2, -1, 1, 2, 3))
    h, k = draw.given("h", range(-5, 6)), draw.given("k", range(-8, 9))
    step = draw.given("step", (1, 2))
    V, P = draw.letters(2)
    x, y = h + step, k + a * step * step
    base = s.sub((float(x), float(y)), (float(h), float(k)))

    def function(t: float) -> float:  # scaled so that it passes through the point
        return k + base[1] * ((t - h) / base[0]) ** 2

    axes = window_around([h - 2.6, h + 2.6], [k, y, k + a * 5], draw, 0.15)
    points = {V: (float(h), float(k)), P: (float(x), float(y))}
    scene = Scene(points, [*curve_paths(function, axes), Dot(V), Dot(P)], functions={"f": function}, axes=axes)
    facts = [description(f"The graph of a quadratic function has its vertex at {V} and passes through {P}"),
             *point_facts(draw, {V: (h, k), P: (x, y)})]
    steps = ("From the vertex, y changes by the leading coefficient times the square of the step in x.",
             f"{factor_text(y)} - {factor_text(k)} = {y - k} and {factor_text(x)} - {factor_text(h)} = {step}.",
             f"a = {y - k}/{step}² = {a}")
    expanded = polynomial(a, -2 * a * h, a * h * h + k)
    if asked == "coefficient":
        ask = Ask(asked,
                  draw.say("Find a, the coefficient of x² in the equation of the parabola.",
                           "What is the coefficient a of x²?"),
                  "Find the coefficient a of x²", number(a), steps,
                  lambda at: measure.derivative(lambda t: measure.derivative(at.functions["f"], t, 0.1), 0.2, 0.1) / 2,
                  tuple(str(v) for v in (-a, y - k, 2 * a, a + 1, a - 1)))
    elif asked == "equation":
        draw.require(h != 0)  # else there is nothing to expand
        square = f"({polynomial(1, -h)})²"
        lead = {1: "", -1: "-"}.get(a, str(a))
        tail = f" {signed(k)}" if k else ""
        steps = (*steps, f"{lead}{square}{tail} = {expanded}")
        ask = Ask(asked,
                  "What is the equation of the parabola in the form y = ax² + bx + c?",
                  "Equation y = ax² + bx + c?",
                  equation(f"y = {expanded}", a, -2 * a * h, a * h * h + k),
                  steps,
                  lambda at: _coefficients(at.functions["f"]),
                  tuple(
                      f"y = {polynomial(*c)}"
                      for c in (
                          (a, 2 * a * h, a * h * h + k),
                          (-a, -2 * a * h, a * h * h + k),
                          (a, -2 * a * h, k),
                          (a, -a * h, a * h * h + k),
                      )
                  ))
    else:
        far = h + draw.given("far", (-3, -4, -2, 3, 4, 5))
        draw.require(far not in (x, h, 2 * h - x))
        value = k + a * (far - h) ** 2
        ask = Ask(
            asked,
            draw.say(f"What is y at x = {far} on the parabola?", f"Find the parabola's value of y for x = {far}."),
            f"Find y at x = {far}", number(value),
            (*steps, f"y = {a} × ({far} - {factor_text(h)})² {signed(k)} = {value}"), lambda at: at.functions["f"](far),
            tuple(str(v) for v in (-value, k + a * (far - h), k - a * (far - h) ** 2, value + a))
        )
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
    axes = window_around(xs, [curve(xs[0]), curve((p + q) / 2), line(p), line(q)], draw, 0.12)
    paths, straight = curve_paths(curve, axes), curve_paths(line, axes)
    draw.require(bool(paths) and bool(straight))
    scene = Scene(base=[*paths, *straight], functions={"curve": curve, "line": line}, axes=axes)
    first, second = f"y = {polynomial(1, b, c)}", f"y = {polynomial(slope, offset)}"
    facts = [description("A parabola and a line meet in two points"),
             condition(f"the parabola is {first}", CurveName(paths[0].points, first)),
             condition(f"the line is {second}", CurveName(straight[0].points, second))]
    difference = polynomial(1, -(p + q), p * q)
    root = gap * gap
    start = (f"Where they meet, {difference} is 0.", f"D = {factor_text(-p - q)}² - 4 × {factor_text(p * q)} = {root}",
             f"The solutions are ({p + q} - √{root})/2 = {p} and ({p + q} + √{root})/2 = {q}.")

    def roots(at: Scene) -> list[float]:
        return measure.crossings(lambda t: at.functions["curve"](t) - at.functions["line"](t), p - 3.0, q + 3.0)

    if asked == "right point":
        y = slope * q + offset
        ask = Ask(asked,
                  draw.say("Which of the points where they meet lies further right? Give its coordinates.",
                           "Find the right one of the two points of intersection."),
                  "Right point of intersection?", point(q, y), (*start, f"y = {line_at(slope, offset, q)} = {y}"),
                  lambda at: (roots(at)[1], at.functions["line"](roots(at)[1])),
                  tuple(point(*v).text for v in ((p, slope * p + offset), (q, -y), (y, q), (-q, y))))
    elif asked == "distance in x":
        ask = Ask(asked, "By how much do the x-coordinates of the two points of intersection differ?",
                  "Difference of the x of both points?", number(gap),
                  (*start, f"Difference = {q} - {factor_text(p)} = {gap}"), lambda at: roots(at)[1] - roots(at)[0],
                  wrong("", abs(p + q), root, gap + 1, gap + 2, gap * 2))
    else:
        area = Fraction(gap**3, 6)
        ask = Ask(asked,
                  draw.say("What is the area between the two curves?",
                           "Find the area that the line and the parabola enclose."),
                  "Area between the curves?", number(area),
                  (*start,
                   "The area between such a parabola and a line is a sixth of the cube of the solutions' distance.",
                   f"Area = {gap}³/6 = {gap**3}/6" + (f" = {area}" if area.denominator != 6 else "")),
                  lambda at: measure.integral(lambda t: at.functions["line"](t) - at.functions["curve"](t), *roots(at)),
                  wrong("", area * 2, Fraction(gap**3, 3), gap**2, area + 1))
    return draw.finish(facts, ask, scene)


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
    axes = window_around([-reach, reach], [max(-14, min(14, v)) for v in (f(-2), f(2), g(-2), g(2), f(float(meeting)))],
                         draw, 0.08)
    curves = curve_paths(f, axes), curve_paths(g, axes)
    draw.require(all(curves))
    texts = f"f(x) = {polynomial(a, b)}", f"g(x) = {polynomial(c, d)}"
    scene = Scene(base=[*curves[0], *curves[1]], functions={"f": f, "g": g}, axes=axes)
    facts = [description("The graphs of two linear functions f and g are given"),
             condition(texts[0], CurveName(curves[0][0].points, texts[0])),
             condition(texts[1], CurveName(curves[1][0].points, texts[1]))]
    if asked == "composition":
        inner = c * x + d
        value = a * inner + b
        ask = Ask(asked, draw.say(f"What is f(g({x}))?", f"Find f(g({x}))."), f"Find f(g({x}))", number(value),
                  (f"g({x}) = {line_at(c, d, x)} = {inner}", f"f({inner}) = {line_at(a, b, inner)} = {value}"),
                  lambda at: at.functions["f"](at.functions["g"](x)),
                  tuple(str(v) for v in (c * (a * x + b) + d, (a * x + b) * inner, a * x + b + inner, -value)))
    elif asked == "inverse":
        y = a * x + b
        ask = Ask(asked, draw.say(f"What is f⁻¹({y})?", f"Find f⁻¹({y})."), f"Find f⁻¹({y})", number(x),
                  (f"f takes the value {y} where {factor_text(a)} times x is {y} - {factor_text(b)} = {y - b}.",
                   f"f⁻¹({y}) = {y - b}/{factor_text(a)} = {x}"),
                  lambda at: measure.crossing(lambda t: at.functions["f"](t) - y, x - 9.7, x + 8.9),
                  tuple(str(v) for v in (a * y + b, -x, y - b, x + 1)))
    else:
        y = a * meeting + b
        ask = Ask(asked,
                  draw.say("At which point do the graphs meet?", "Find the point where the graphs meet."),
                  "Where do the graphs meet?",
                  point(meeting, y),
                  (
                      f"Where the graphs meet, {polynomial(a, b)} equals {polynomial(c, d)}.",
                      f"Hence {polynomial(a - c, 0)} = {d}" + (f" {signed(-b)} = {d - b}." if b else "."),
                      *((f"x = {d - b}/{factor_text(a - c)} = {meeting}",) if a - c != 1 else ()),
                      f"y = {line_at(a, b, meeting)} = {y}",
                  ),
                  lambda at: (lambda z: (z, at.functions["f"](z)))(
                      measure.crossing(lambda t: at.functions["f"](t) - at.functions["g"](t), -61.3, 62.7)
                  ),
                  tuple(point(*v).text for v in ((-meeting, y), (y, meeting), (meeting, -y), (meeting + 1, y + a))))
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
    axes = Axes(-0.12 * float(steep) - 0.4, float(Fraction(q, b)) * 1.05 + 0.6, -0.1 * flat - 0.4, p * 1.02 + 0.6,
                ticks=False)
    draw.require(0.3 <= axes.x_high / axes.y_high <= 2.5 and q / b <= 3 * float(steep) and p <= 3 * flat)
    lines = [Path(((0.0, float(p)), points["B"])), Path((points["D"], (q / b, 0.0)))]
    texts = f"{polynomial(a, 0).replace(' + 0', '')} + y ≤ {p}", f"{polynomial(b, 0)} + y ≤ {q}"
    scene = Scene(points, [Shade(("A", "B", "C", "D")), *lines], axes=axes)

    def along(start: s.Point, end: s.Point) -> tuple[s.Point, ...]:
        return tuple(s.between(start, end, k / 20) for k in range(21))

    facts = [description("A region consists of the points with x ≥ 0 and y ≥ 0 that satisfy two more inequalities"),
             condition(f"the first inequality is {texts[0]}", CurveName(along((0.0, float(p)), points["B"]), texts[0])),
             condition(f"the second inequality is {texts[1]}", CurveName(along(points["D"], (q / b, 0.0)), texts[1]))]
    meet_steps = (f"Subtract the equations of the two lines: {polynomial(a - b, 0)} = {p} - {q} = {p - q}.",
                  *((f"x = {p - q}/{a - b} = {x}",) if a - b > 1 else ()), f"y = {p} - {a} × {x} = {y}")
    if asked == "corner":
        ask = Ask(asked,
                  draw.say("At which point do the two slanted boundary lines meet?",
                           "Find the corner of the region that lies on neither axis."),
                  "Find the corner off the axes", point(x, y), meet_steps, lambda at: at.points["C"],
                  tuple(point(*v).text for v in ((y, x), (x + 1, y), (x, y + 1), (steep, flat))) if x != y else ())
    elif asked == "area":
        area = (Fraction(flat + y) * x + (steep - x) * y) / 2
        ask = Ask(asked, draw.say("What is the area of the region?", "Find the area of the region."),
                  "Find the shaded area", number(area),
                  (*meet_steps,
                   f"The region meets the axes at {flat} on the y-axis and {p}/{a} = {steep} on the x-axis.",
                   f"Area = ({flat} + {y}) × {x}/2 + ({steep} - {x}) × {y}/2 = {area}"),
                  lambda at: measure.area(at, "ABCD"), wrong("", area * 2, steep * flat, x * y, area + 1))
    else:
        u, v = draw.given("u", (1, 2, 3)), draw.given("v", (1, 2, 3))
        corners = [(Fraction(0), Fraction(flat)), (Fraction(x), Fraction(y)), (steep, Fraction(0))]
        values = [u * cx + v * cy for cx, cy in corners]
        best = max(values)
        target = f"{polynomial(u, 0)} + {polynomial(v, 0, variable='y')}"
        ask = Ask(asked, f"What is the greatest value of {target} in the region?", f"Greatest value of {target}?",
                  number(best),
                  (*meet_steps,
                   f"At the corners the values are {v} × {flat} = {values[0]}, {u} × "
                   f"{x} + {v} × {y} = {values[1]} and {u} × {steep} = {values[2]}.",
                   f"The greatest of them is {best}."),
                  lambda at: max(u * px + v * py for px, py in at.points.values()),
                  tuple(str(v) for v in (*values, best + 1, best + 2)))
    return draw.finish(facts, ask, scene)


def distance_time(draw: Draw) -> Problem:
    """A journey as a graph of distance over time with a rest: speed, average speed, distance left."""
    asked = draw.asked("first speed", "average speed", "last speed")
    v, t1 = draw.given("v", range(8, 27)), draw.given("t1", range(1, 5))
    rest, t3, w = draw.given("rest", (1, 2, 3)), draw.given("t3", range(1, 5)), draw.given("w", range(8, 27))
    draw.require(v != w)
    times = [0, t1, t1 + rest, t1 + rest + t3]
    ways = [0, v * t1, v * t1, v * t1 + w * t3]
    draw.require(min(ways[1], ways[3] - ways[1]) >= 0.2 * ways[3])
    points = {name: (float(t), float(d)) for name, t, d in zip("OABC", times, ways, strict=True)}
    axes = Axes(-0.08 * times[3], times[3] * 1.15, -0.08 * ways[3], ways[3] * 1.2, ticks=False, x_name="t (h)",
                y_name="d (km)")
    base = [Segment("O", "A"), Segment("A", "B"), Segment("B", "C"), Dot("A"), Dot("B"), Dot("C")]
    scene = Scene(points, base, axes=axes)
    facts = [description("A cyclist's distance d from home in kilometres is drawn over the time t in "
                         "hours; the graph runs straight from the origin to A, then to B, then to C"),
             *point_facts(draw, {n: (t, d) for n, t, d in zip("ABC", times[1:], ways[1:], strict=True)})]

    def slope(at: Scene, start: str, end: str) -> float:
        (x1, y1), (x2, y2) = at.points[start], at.points[end]
        return (y2 - y1) / (x2 - x1)

    unit = "km/h"
    if asked == "first speed":
        ask = Ask(asked,
                  draw.say("How fast does the cyclist ride before the rest?", "Find the speed on the first part."),
                  "Speed before the rest?", number(v, unit), (f"v = {ways[1]}/{t1} = {v}",),
                  lambda at: slope(at, "O", "A"), wrong(unit, ways[1], w, ways[1] * t1, v + 1, v + 2))
    elif asked == "last speed":
        ask = Ask(asked, draw.say("How fast does the cyclist ride after the rest?", "Find the speed on the last part."),
                  "Speed after the rest?", number(w, unit),
                  (f"The way is {ways[3]} - {ways[2]} = {w * t3} km, and the "
                   f"time in hours is {times[3]} - {times[2]} = {t3}.",
                   f"v = {w * t3}/{t3} = {w}"),
                  lambda at: slope(at, "B", "C"), wrong(unit, w * t3, v, Fraction(ways[3], times[3]), w + 1))
    else:
        mean = Fraction(ways[3], times[3])
        ask = Ask(asked,
                  draw.say("What is the average speed over the whole time, the rest included?",
                           "Find the average speed, rest included."),
                  "Average speed, rest included?", number(mean, unit),
                  (f"The whole way is {ways[3]} km, and the whole time is {t1} + {rest} + {t3} = {times[3]} hours.",
                   f"v = {ways[3]}/{times[3]}" + (f" = {mean}" if mean.denominator != times[3] else "")),
                  lambda at: slope(at, "O", "C"), wrong(unit, Fraction(v + w, 2), Fraction(ways[3], t1 + t3), v, w))
    return draw.finish(facts, ask, scene)
