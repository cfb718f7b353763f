"""Functions: exponentials, logarithms, waves, corners, hyperbolas, cubics, circles. Each public one is a family."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import INFINITY, PI, equation, interval, number, point, polynomial, signed, sqrt
from problems.graphs import NAN, curve_paths, factor_text, graph_of, point_facts, window_around
from problems.problem import Ask, Draw, Problem, description, wrong
from problems.scene import Axes, Circle, CurveName, Dot, Note, Scene, Segment


def exponential(draw: Draw) -> Problem:
    """An exponential curve y = c · b^x from two points: base, start value, a further value."""
    asked = draw.asked("base", "value", "start")
    base, start = draw.given("base", (2, 3, 4, 5)), draw.given("start", range(1, 31))
    n = draw.given("n", (2, 3) if base < 4 else (2,))
    P, Q = draw.letters(2)
    shown = (1, start * base) if asked == "start" else (0, start)
    points = {P: (float(shown[0]), float(shown[1])), Q: (float(n), float(start * base**n))}
    growth = (points[Q][1] / points[P][1]) ** (1 / (n - shown[0])) if n > shown[0] else NAN

    def function(t: float) -> float:
        return points[P][1] * growth ** (t - shown[0])

    axes = Axes(-draw.free.uniform(1.2, 2.5), n + draw.free.uniform(0.4, 0.9), -0.12 * points[Q][1],
                points[Q][1] * draw.free.uniform(1.15, 1.4), ticks=False)
    curve = curve_paths(function, axes)
    scene = Scene(points, [*curve, Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"The curve through {P} and {Q} is the graph of an exponential function y = c × b^x",
                         CurveName(curve[0].points, "y = c × b^x")),
             *point_facts(draw, {P: (shown[0], shown[1]), Q: (n, start * base**n)})]
    ratio = start * base**n // shown[1]
    power = n - shown[0]
    steps = (f"From {P} to {Q} the value is multiplied by {start * base**n}/{shown[1]} = {ratio}.",)
    if power == 1:
        steps = (*steps, f"That is one step to the right, so b = {base}.")
    else:
        steps = (*steps, f"That is {power} steps to the right, and {base}^{power} = {ratio}, so b = {base}.")
    if asked == "base":
        ask = Ask(asked, draw.say("Find the base b.", "What is the base b?"), "Find b", number(base), steps,
                  lambda at: at.functions["f"](1.7) / at.functions["f"](0.7),
                  wrong("", ratio, start, base + 1, Fraction(ratio, power), base * start))
    elif asked == "value":
        m = draw.given("m", (n + 1, n + 2))
        value = start * base**m
        ask = Ask(asked, draw.say(f"What is y at x = {m}?", f"Find y for x = {m}."), f"Find y at x = {m}",
                  number(value), (*steps, f"y = {start * base**n} × {' × '.join([str(base)] * (m - n))} = {value}"),
                  lambda at: at.functions["f"](m),
                  wrong("", 2 * start * base**n - start, start * base * m, value + start, value - base))
    else:
        ask = Ask(asked, draw.say("Find c, the value at x = 0.", "What is c, the value of y for x = 0?"), "Find c",
                  number(start), (*steps, f"c = {shown[1]}/{base} = {start}"), lambda at: at.functions["f"](0.0),
                  wrong("", shown[1] - base, base, start + 1, 2 * start, shown[1]))
        draw.require(start != base)
    return draw.finish(facts, ask, scene)


def logarithm(draw: Draw) -> Problem:
    """A logarithm from its equation: domain, zero, asymptote, the place where it takes a value."""
    asked = draw.asked("domain", "zero", "argument", "value")
    base, shift, lift = (draw.given("base", (2, 3, 5)), draw.given("shift", [k for k in range(-9, 10) if k]),
                         draw.given("lift", range(-3, 4)))

    def function(t: float) -> float:
        return math.log(t - shift, base) + lift if t > shift else NAN

    span = base ** max(1, 1 - lift) if base ** max(1, 1 - lift) < 30 else 9
    axes = window_around([shift - 0.6, shift + span * 1.3], [lift - 2.0, lift + 2.6], draw, 0.12)
    text = f"y = log{'₂₃₅'[(2, 3, 5).index(base)]}({polynomial(1, -shift)})" + (f" {signed(lift)}" if lift else "")
    scene, facts = graph_of(draw, function, axes, text,
                            draw.say("The graph of a logarithm is given", "A curve is the graph of a logarithm"),
                            (Segment((float(shift), axes.y_low), (float(shift), axes.y_high), dashed=True, thin=True),))
    sub = "₂₃₅"[(2, 3, 5).index(base)]
    if asked == "domain":
        ask = Ask(asked,
                  draw.say("What is the domain of the function, as an interval?", "Find the domain as an interval."),
                  "Find the domain", interval(shift, INFINITY),
                  ("The argument of a logarithm is positive.",
                   f"The argument is 0 at x = {shift}, since {shift} {signed(-shift)} = 0."),
                  lambda at: (measure.edge_of_domain(at.functions["f"], shift - 5.0, shift + 5.0),
                              INFINITY if math.isfinite(at.functions["f"](1e9)) else NAN),
                  tuple(interval(*v).text
                        for v in ((-shift, INFINITY), (-INFINITY, shift), (0, INFINITY), (shift + 1, INFINITY))))
    elif asked == "zero":
        draw.require(base ** abs(lift) <= 30)
        zero = shift + Fraction(base) ** -lift
        power = Fraction(base) ** -lift
        ask = Ask(
            asked,
            draw.say("At which x does the curve meet the x-axis?", "Find the zero of the function."),
            "Find the zero x",
            number(zero),
            (
                f"At the zero the logarithm must be {-lift}"
                + (f", since {-lift} {signed(lift)} = 0." if lift else "."),
                f"log{sub}({power}) = {-lift}, so the argument is {power}.",
                f"x = {power} {signed(shift)} = {zero}",
            ),
            lambda at: measure.crossing(at.functions["f"], shift + 1e-9, shift + 60.0),
            tuple(str(v) for v in (-zero, shift, shift - power, zero + 1)),
        )
    elif asked == "value":
        n = draw.given("n", (1, 2, 3))
        draw.require(lift != 0)
        place, value = shift + base**n, n + lift
        ask = Ask(asked, draw.say(f"What is y at x = {place}?", f"Find y for x = {place}."), f"Find y at x = {place}",
                  number(value),
                  (f"The argument is {place} {signed(-shift)} = {base**n}.",
                   f"y = log{sub}({base**n}) {signed(lift)} = {n} {signed(lift)} = {value}"),
                  lambda at: at.functions["f"](place),
                  tuple(str(v) for v in (base**n + lift, n - lift, -value, value + 1)))
    else:
        n = draw.given("n", (1, 2, 3))
        place, value = shift + base**n, n + lift
        draw.require(value != n)
        ask = Ask(asked, draw.say(f"At which x is y = {value}?", f"Find x so that y = {value}."),
                  f"Find x where y = {value}", number(place),
                  (f"The logarithm must be {value} - {factor_text(lift)} = {n}.",
                   f"The argument is {base}^{n} = {base**n}.",
                   f"x = {base**n} {signed(shift)} = {place}"),
                  lambda at: measure.crossing(lambda t: at.functions["f"](t) - value, shift + 1e-9,
                                              shift + base**n + 90.0),
                  tuple(str(v) for v in (base**n, base**n - shift, base * n + shift, place + 1)))
    return draw.finish(facts, ask, scene)


def sine_wave(draw: Draw) -> Problem:
    """A sine curve from a highest and the next lowest point: amplitude, midline, period, frequency factor."""
    asked = draw.asked("amplitude", "midline", "period", "equation")
    a, d = draw.given("a", range(1, 10)), draw.given("d", range(-8, 9))
    half = draw.given("half", range(1, 10))
    start = draw.given("start", range(-6, 5))
    P, Q = draw.letters(2)
    points = {P: (float(start), float(d + a)), Q: (float(start + half), float(d - a))}
    middle = s.between(points[P], points[Q], 0.5)[1]

    def function(t: float) -> float:
        return middle + (points[P][1] - middle) * math.cos(math.pi * (t - points[P][0]) / (points[Q][0] - points[P][0]))

    axes = window_around([start - half * 0.8, start + half * 2.2], [d - a * 1.2, d + a * 1.2], draw, 0.15)
    scene = Scene(points, [*curve_paths(function, axes), Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"A sine curve has a highest point {P}, and {Q} is the lowest point next to it on the right"),
             *point_facts(draw, {P: (start, d + a), Q: (start + half, d - a)})]

    def peak(at: Scene, sign: int) -> tuple[float, float]:
        low = points[P][0] - half * 0.4 if sign > 0 else points[P][0] + half * 0.6
        return measure.extremum(at.functions["f"], low, low + half * 0.8)

    spread = f"The highest and the lowest value differ by {d + a} - {factor_text(d - a)} = {2 * a}."
    if asked == "amplitude":
        ask = Ask(asked, draw.say("What is the amplitude?", "Find the amplitude of the curve."), "Find the amplitude",
                  number(a), (spread, f"Amplitude = {2 * a}/2 = {a}"),
                  lambda at: (peak(at, 1)[1] - peak(at, -1)[1]) / 2, wrong("", 2 * a, d + a, half, a + 1, 4 * a))
    elif asked == "midline":
        ask = Ask(asked, draw.say("What is the equation of the midline?", "Find the equation of the midline."),
                  "Find the midline", equation(f"y = {d}", d),
                  (f"The midline is halfway: ({d + a} + {factor_text(d - a)})/2 = {d}.",),
                  lambda at: measure.integral(at.functions["f"], start, start + 2 * half, 6) / (2 * half),
                  tuple(f"y = {v}" for v in (a, d + a, -d, d + 1, d - a)))
    elif asked == "period":
        ask = Ask(asked, draw.say("What is the period?", "Find the period of the curve."), "Find the period",
                  number(2 * half),
                  (f"From highest to lowest point is half a period: {start + half} - {factor_text(start)} = {half}.",
                   f"Period = 2 × {half} = {2 * half}"),
                  lambda at: 2 * (peak(at, -1)[0] - peak(at, 1)[0]),
                  wrong("", half, 4 * half, 2 * a, half + 2, 3 * half))
    else:
        k = Fraction(1, half)
        factor = "π" if half == 1 else f"π/{half}"
        ask = Ask(asked,
                  draw.say("The curve has the form y = d + a sin(k(x - c)) with k > 0. What is k?",
                           "In the form y = d + a sin(k(x - c)) with k > 0, find k."),
                  "Find k in y = d + a sin(k(x - c))", number(PI * k),
                  (f"Half a period is {start + half} - {factor_text(start)} = {half}.",
                   f"The period is 2 × {half} = {2 * half}.",
                   f"k = 2π/{2 * half} = {factor}"),
                  lambda at: math.pi / (peak(at, -1)[0] - peak(at, 1)[0]),
                  ("2π" if half == 1 else f"2π/{half}", f"{half}π", f"π/{half + 1}", f"{2 * half}", f"{half}π/2"))
    return draw.finish(facts, ask, scene)


def absolute_value(draw: Draw) -> Problem:
    """A graph with a corner, y = a|x - h| + k: its corner, a value, its zeros' distance, its range."""
    asked = draw.asked("corner", "value", "zero distance", "range")
    a, h, k = (draw.given("a", (-3, -2, -1, 1, 2, 3)), draw.given("h", [v for v in range(-6, 7) if v]),
               draw.given("k", [v for v in range(-9, 10) if v]))

    def function(t: float) -> float:
        return a * abs(t - h) + k

    axes = window_around([h - 3.5, h + 3.5], [k, k + 3.5 * a], draw, 0.12)
    lead = {1: "", -1: "-"}.get(a, str(a))
    text = f"y = {lead}|{polynomial(1, -h)}| {signed(k)}"
    scene, facts = graph_of(draw, function, axes, text,
                            draw.say("The graph of a function has one corner",
                                     "The graph of a function with an absolute value is given"))
    sign = -1 if a > 0 else 1
    corner = (f"The corner is where the bars hold 0: x = {h}, and there y = "
              f"{factor_text(a)} × |{h} {signed(-h)}| {signed(k)} = {k}.")
    if asked == "corner":
        ask = Ask(asked, draw.say("What are the coordinates of the corner?", "Find the corner of the graph."),
                  "Find the corner", point(h, k), (corner,),
                  lambda at: measure.greatest(at.functions["f"], h - 4.1, h + 5.3, sign),
                  tuple(point(*v).text for v in ((-h, k), (h, -k), (k, h), (-h, -k))))
    elif asked == "value":
        x = draw.given("x", range(-9, 10))
        draw.require(abs(x - h) >= 2)
        value = a * abs(x - h) + k
        ask = Ask(asked, draw.say(f"What is y at x = {x}?", f"Find y for x = {x}."), f"Find y at x = {x}",
                  number(value),
                  (f"|{x} {signed(-h)}| = {abs(x - h)}", f"y = {factor_text(a)} × {abs(x - h)} {signed(k)} = {value}"),
                  lambda at: at.functions["f"](x),
                  tuple(str(v) for v in (-value, a * (x + h) + k, k - a * abs(x - h), value + 1)))
    elif asked == "range":
        answer = interval(k, INFINITY, "[)") if a > 0 else interval(-INFINITY, k, "(]")
        others = (interval(h, INFINITY, "[)"), interval(-INFINITY, k, "(]") if a > 0 else interval(k, INFINITY, "[)"),
                  interval(k, INFINITY), interval(-k, INFINITY, "[)"))

        def measured(at: Scene) -> tuple[float, float]:
            edge = measure.greatest(at.functions["f"], h - 4.1, h + 5.3, sign)[1]
            return (edge, INFINITY) if at.functions["f"](1e6) > edge else (-INFINITY, edge)

        ask = Ask(asked,
                  draw.say("What is the range of the function, as an interval?", "Find the range as an interval."),
                  "Find the range", answer, (corner, f"This is the {'least' if a > 0 else 'greatest'} value."),
                  measured, tuple(v.text for v in others))
    else:
        draw.require(a * k < 0)
        reach = Fraction(-k, a)
        ask = Ask(
            asked,
            draw.say("How far apart are the two zeros?", "Find the distance between the zeros."),
            "Distance of the zeros?",
            number(2 * reach),
            (
                f"At a zero the bars hold a number of size {-k}/{factor_text(a)} = {reach}.",
                f"Distance = 2 × {reach} = {2 * reach}",
            ),
            lambda at: (lambda z: z[1] - z[0])(
                measure.crossings(at.functions["f"], h - float(reach) - 1.0, h + float(reach) + 1.5)
            ),
            wrong("", reach, abs(k), 2 * abs(k), 2 * abs(h), 2 * reach + 1),
        )
    return draw.finish(facts, ask, scene)


def piecewise(draw: Draw) -> Problem:
    """A graph of two straight pieces with a jump, read off: a value, a value of a value, the range."""
    asked = draw.asked("sum", "range")
    left, jump, right = (draw.given("left", range(-5, -1)), draw.given("jump", range(-1, 3)),
                         draw.given("right", range(4, 8)))
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

    axes = window_around([left, right], [a, b, c, d], draw, 0.12)
    ends = {"A": (left, a), "B": (jump, b), "C": (jump, c), "D": (right, d)}
    points = {name: (float(x), float(y)) for name, (x, y) in ends.items()}
    base = [Segment("A", "B"), Segment("C", "D"), Dot("A"), Dot("D"), Dot("B", open=not closed_left),
            Dot("C", open=closed_left)]
    scene = Scene(points, base, functions={"f": function}, axes=axes)
    kept, lost = ("B", "C") if closed_left else ("C", "B")
    facts = [description("The graph of f consists of the segments from A to B and from "
                         f"C to D; {kept} belongs to the graph and {lost} does not"),
             *point_facts(draw, ends)]
    at_jump = b if closed_left else c
    if asked == "sum":
        total = a + at_jump + d
        ask = Ask(asked, f"What is f({left}) + f({jump}) + f({right})?", f"f({left}) + f({jump}) + f({right})?",
                  number(total),
                  (f"f({left}) = {a}, f({jump}) = {at_jump} and f({right}) = {d}",
                   f"f({left}) + f({jump}) + f({right}) = {a} + {factor_text(at_jump)} + {factor_text(d)} = {total}"),
                  lambda at: sum(at.functions["f"](x) for x in (left, jump, right)),
                  tuple(str(v) for v in (a + (b + c - at_jump) + d, a + b + c + d, total + 1, -total, a + d)))
    else:
        parts = [(min(a, b), max(a, b)), (min(c, d), max(c, d))]
        low, high = min(p[0] for p in parts), max(p[1] for p in parts)
        overlap = min(parts[0][1], parts[1][1]) > max(parts[0][0], parts[1][0])
        lost_value = c if closed_left else b
        draw.require(overlap and low < lost_value < high)
        ask = Ask(
            asked,
            draw.say("What is the range of f, as an interval?", "Find the range of f as an interval."),
            "Find the range",
            interval(low, high, "[]"),
            (
                f"The lowest value is {low} and the highest is {high}.",
                f"They differ by {high} - {factor_text(low)} = {high - low}, and every value between is taken.",
            ),
            lambda at: (
                min(at.functions["f"](x) for x in (left, jump, right, jump - 1e-9, jump + 1e-9)),
                max(at.functions["f"](x) for x in (left, jump, right, jump - 1e-9, jump + 1e-9)),
            ),
            tuple(
                interval(*v).text
                for v in (
                    (left, right, "[]"),
                    (low, high, "()"),
                    (low, jump, "[]"),
                    (a, d, "[]") if a < d else (d, a, "[]"),
                )
            ),
        )
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
    axes = window_around([p - reach, p + reach], [q - reach, q + reach], draw, 0.08)
    text = f"y = ({polynomial(*top)})/({polynomial(1, -p)})"
    dashed = (Segment((float(p), axes.y_low), (float(p), axes.y_high), dashed=True, thin=True),
              Segment((axes.x_low, float(q)), (axes.x_high, float(q)), dashed=True, thin=True))
    scene, facts = graph_of(draw, function, axes, text,
                            draw.say("A hyperbola has one vertical and one horizontal asymptote",
                                     "The graph of a rational function has a vertical and a horizontal asymptote"),
                            dashed)
    if asked == "horizontal asymptote":
        ask = Ask(asked,
                  draw.say("What is the equation of the horizontal asymptote?", "Find the horizontal asymptote."),
                  "Find the horizontal asymptote", equation(f"y = {q}", q),
                  (f"Far out only the leading terms count: their quotient tends to {q}/1 = {q}.",),
                  lambda at: at.functions["f"](1e9), tuple(f"y = {v}" for v in (-q, p, 0, q + 1)))
    elif asked == "zero":
        zero = Fraction(-top[1], q)
        draw.require(zero != p and top[1] != 0)
        ask = Ask(asked, draw.say("At which x does the curve meet the x-axis?", "Find the zero of the function."),
                  "Find the zero x", number(zero),
                  ("The numerator must be 0.", f"x = {-top[1]}/{factor_text(q)} = {zero}"),
                  lambda at: measure.crossing(at.functions["f"], *_beside(float(zero), float(p))),
                  tuple(str(v) for v in (-zero, p, q, zero + 1)))
    else:
        x = p + draw.given("step", (-2, -1, 1, 2))
        value = Fraction(q * x + top[1], x - p)
        ask = Ask(asked, draw.say(f"What is y at x = {x}?", f"Find y for x = {x}."), f"Find y at x = {x}",
                  number(value),
                  (f"The numerator is {factor_text(q)} × {factor_text(x)} {signed(top[1])} = {q * x + top[1]}.",
                   f"The denominator is {x} {signed(-p)} = {x - p}.",
                   f"y = {q * x + top[1]}/{factor_text(x - p)} = {value}"),
                  lambda at: at.functions["f"](x),
                  tuple(str(v) for v in (-value, value + 1, value - q, q * x + top[1])))
    return draw.finish(facts, ask, scene)


def _beside(zero: float, pole: float) -> tuple[float, float]:
    """An interval around a zero that does not hold the pole."""
    half = abs(zero - pole) * 0.9
    return zero - half, zero + half * 0.97


def cubic_graph(draw: Draw) -> Problem:
    """A cubic with its turning points marked: where it falls, its point of inflection, how often it takes a value."""
    asked = draw.asked(*["falling", "inflection"] * 2, "zeros", "solutions")
    p, half = draw.given("p", range(-4, 3)), draw.given("half", (1, 2))
    q = p + 2 * half
    lift = draw.given("lift", range(-9, 10))
    rise = 2 * half**3  # the value falls by 2·rise from one turning point to the next
    middle = p + half

    def function(t: float) -> float:
        u = t - middle
        return u * u * u - 3 * half * half * u + lift

    high, low = lift + rise, lift - rise
    axes = window_around([middle - half * 2.1, middle + half * 2.1], [low - rise * 0.3, high + rise * 0.3], draw, 0.15)
    P, Q = draw.letters(2)
    points = {P: (float(p), float(high)), Q: (float(q), float(low))}
    scene = Scene(points, [*curve_paths(function, axes), Dot(P), Dot(Q)], functions={"f": function}, axes=axes)
    facts = [description(f"The graph of a cubic function turns downwards at {P} and upwards again at {Q}",
                         Note("cubic function")),
             *point_facts(draw, {P: (p, high), Q: (q, low)})]

    def turning(at: Scene) -> tuple[float, float]:
        return tuple(measure.crossings(lambda t: measure.derivative(at.functions["f"], t), p - 1.0, q + 1.0))

    def bend(at: Scene) -> tuple[float, float]:
        place = measure.crossing(lambda t: measure.derivative(lambda u: measure.derivative(at.functions["f"], u, 0.1),
                                                              t, 0.1),
                                 p - 1.3, q + 1.1)
        return place, at.functions["f"](place)

    def count(at: Scene, level: float) -> float:
        """Crossings of a horizontal line: the mean of just above and just below, for lines that touch the curve."""
        near = (level - 0.01, level + 0.01)
        found = [measure.crossings(lambda t, h=h: at.functions["f"](t) - h, p - 60.0, q + 60.0, 4000) for h in near]
        return (len(found[0]) + len(found[1])) / 2

    if asked == "falling":
        ask = Ask(asked,
                  draw.say("On which open interval is the function decreasing?",
                           "Give the open interval on which the function falls."),
                  "Where is it decreasing?", interval(p, q),
                  (f"It falls between the turning points, over {q} - {factor_text(p)} = {q - p} units of x.",), turning,
                  tuple(interval(*v).text for v in ((low, high), (-INFINITY, p), (q, INFINITY), (p - 1, q), (-q, -p))))
    elif asked == "inflection":
        ask = Ask(asked,
                  draw.say("Find the point of inflection of the graph.",
                           "At which point does the curve change its bend?"),
                  "Find the point of inflection", point(middle, lift),
                  ("A cubic curve is symmetric about its point of inflection, "
                   "which lies midway between the turning points.",
                   f"x = ({p} + {factor_text(q)})/2 = {middle}",
                   f"y = ({high} + {factor_text(low)})/2 = {lift}"),
                  bend,
                  tuple(point(*v).text for v in ((lift, middle), (q - p, high - low), (-middle, lift), (middle, high))))
    else:
        near = (low - 2, low - 1, low, low + 1, lift, high - 1, high, high + 1, high + 2)
        level = 0 if asked == "zeros" else draw.given("level", near)
        draw.require(asked == "zeros" or level != 0)
        value = 2 if level in (high, low) else 3 if low < level < high else 1
        what = ("zeros does the function have"
                if asked == "zeros"
                else f"solutions does the equation f(x) = {level} have, where f is this function")
        inside = {
            1: f"{level} does not lie between {low} and {high}", 2: f"{level} is itself one of the turning values",
            3: f"{level} lies between {low} and {high}"
        }[value]
        ask = Ask(asked, f"How many {what}?",
                  "How many zeros?" if asked == "zeros" else f"How many solutions of f(x) = {level}?", number(value),
                  (f"The turning values differ by {high} - {factor_text(low)} = {high - low}.",
                   f"{inside}, so the horizontal line at this height meets "
                   f"the curve {'once,twice,three times'.split(',')[value - 1]}."),
                  lambda at: count(at, level), ("0", "1", "2", "3", "4"))
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
    base_axes = window_around([h - r, h + r], [k - r, k + r], draw, 0.12)
    axes = Axes(base_axes.x_low, base_axes.x_high, base_axes.y_low, base_axes.y_high, ticks=False, equal=True)
    scene = Scene(points, [Circle(M, r), Dot(M), Dot(P), Segment(M, P, thin=True)], circles={"c": (points[M], r)},
                  axes=axes)
    facts = [description(f"A circle in the coordinate plane has the centre {M} and passes through {P}"),
             *point_facts(draw, {M: (h, k), P: (h + dx, k + dy)})]
    start = (f"r² = ({h + dx} - {factor_text(h)})² + ({k + dy} - {factor_text(k)})² "
             f"= {factor_text(dx)}² + {factor_text(dy)}² = {square}",)
    left = f"({polynomial(1, -h)})² + ({polynomial(1, -k, variable='y')})²"
    if asked == "radius":
        ask = Ask(asked, draw.say("What is the radius?", "Find the radius of the circle."), "Find the radius",
                  number(radius), (*start, f"r = √{square} = {radius}"), lambda at: at.circles["c"][1],
                  wrong("", square, abs(dx) + abs(dy), sqrt(abs(dx * dx - dy * dy)), sqrt(square + 1)))
    elif asked == "equation":
        other = f"({polynomial(1, h)})² + ({polynomial(1, k, variable='y')})²"
        ask = Ask(asked,
                  draw.say("What is the equation of the circle?",
                           "Find the equation of the circle in centre-radius form."),
                  "Find the circle's equation", equation(f"{left} = {square}", h, k, square), start,
                  lambda at: (*at.circles["c"][0], at.circles["c"][1] ** 2),
                  (f"{other} = {square}",
                   f"{left} = {square + 2}",
                   f"{other} = {square + 2}",
                   f"{left} = {abs(dx) + abs(dy)}"),
                  {"r": math.sqrt(square)})
    else:
        value = radius + h
        ask = Ask(
            asked,
            draw.say(
                "What is the greatest x-coordinate of a point of the circle?",
                "How far right does the circle reach? Give x.",
            ),
            "Greatest x on the circle?",
            number(value),
            (*start, f"r = √{square} = {radius}", f"x = {h} + {radius} = {value}"),
            lambda at: measure.greatest(lambda t: at.circles["c"][0][0] + at.circles["c"][1] * math.cos(t), -1.3, 1.1)[
                1
            ],
            tuple(str(v) for v in (radius - h, radius + k, radius * 2, radius + h + 1)),
        )
    return draw.finish(facts, ask, scene)
