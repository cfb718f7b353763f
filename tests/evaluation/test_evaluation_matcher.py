"""The matcher: what is the same mathematics, what is a near miss, and what untrusted text may cost."""

import random
import time

import pytest

from evaluation import matcher
from evaluation.expressions import NotMath, parse_expression, plain
from evaluation.matcher import decimals_asked, equal

SAME = [
    ('4.4 metres', '440 cm'), ('x = 8', '$x=8 \\mathrm{~cm}$'), ('S 25 W', '205° T'),
    ('50.27', 'Circumference $=50.27 \\mathrm{~cm}$'), ('4√6', '4\\sqrt{6}'), ('118°', '118掳T'), ('35', '35掳'),
    ('2191.7 m', '2191.7 metres'), ('9π cm^2', 'Area $=9 \\pi \\mathrm{cm}^{2}$'),
    ('9*pi', 'Area $=9 \\pi \\mathrm{cm}^{2}$'), ('s=5', '$5=s$'), ('7/4', '=\\frac{7}{4}'),
    ('1.75', '=\\frac{7}{4}'), ('y = 5 - 2x', 'y=-2 x+5'), ('2x+y=5', 'y=-2 x+5'), ('-2x+5', 'y=-2 x+5'),
    ('y = 3/4 x - 9/2', '$y+3=\\frac{3}{4}(x-2)$'), ('y=3/4x - 4.5', '$y+3=\\frac{3}{4}(x-2)$'),
    ('(2, -2)', '(2,-2)'), ('2, -2', '(2,-2)'), ('(-2, 1]', '(-2,1]'), ('-2 < x <= 1', '(-2,1]'),
    ('(-∞,4]', '(-\\infty, 4]'), ('x <= 4', '(-\\infty, 4]'),
    ('Domain: [-4,0), Range: (-3,1]', 'domain: [-4, 0) and range: (-3, 1]'),
    (
        'decreasing on (-2.5, 1); increasing on (-∞, -2.5) U (1, ∞)',
        'The function is increasing on (-\\infty,-2.5) \\cup(1, \\infty), and decreasing on (-2.5,1)',
    ),
    ('13%', '$13 \\%$'), ('0.13', '$13 \\%$'), ('1/64', '1:64'), ('2:128', '1:64'), ('100:1', '100'),
    ('326°', 'N 34° W'), ('34° west of north', 'N 34° W'), ('113.097', 'Area $=113.097$ units $^{2}$'),
    ('113.097 units^2', 'Area $=113.097$ units $^{2}$'), ('452.389 cubic units', 'Volume $=452.389$ cubic units'),
    ('56.55 units $^{3}$', '56.55'), ('24', '24 units'), ('12x^2+144x+384', '12x^2+144x+384 \\mathrm{m}^3'),
    ('12(x+4)(x+8)', '12x^2+144x+384 \\mathrm{m}^3'), ('(25x+35)/(2x+3)', '\\frac{5\\left(5x+7\\right)}{2x+3} units'),
    ('x^2+y^2+8y+16=16', 'x^2+(y+4)^2=4^2'), ('f(x) = -x^2-2x+1', 'f(x)=-(x+1)^2+2'), ('y = |x-3|', 'f(x)=|x-3|'),
    ('y>=-2x-6', '$y \\geq-2 x-6$'), ('2x+y>=-6', '$y \\geq-2 x-6$'),
    ('(90°,5)', 'y=\\sin x=\\left(90^\\circ ,5\\right)'), ('even', 'The function is even'), ('10 km/h', '$10km / h$'),
    ('Center: (20, 10)', 'Center $=(20,10)$'), ('7√3', '\\sqrt{147}'), ('1688 m', '1688'),
    ('sqrt(49 - x^2)', 'y=\\sqrt{49-x^2}'), ('3cos(2πx) - 6', '3 \\cos (2 \\pi x+4 \\pi)-6'), ('x=2 or x=3', '3, 2'),
    ('±3', '3, -3'), ('2,500', '2500'), ('y_2 = (x+2)^3', '$y_2=(x+2)^3=y_1(x+2)$'), ('7', 'seven'),
    ('12 students', '12'), ('approximately 4.4 m', '4.4'), ('15.5 L', 'Weekly water intake $=15.5$ Litres'),
    ('-4.9, -4.9', '-4.9\n-4.9'), ('8π/5', '{8}{5} \\pi'), ('1.5', '3/2'), ('$777', '777 '), ('9 cm²', '9 cm^2'),
    ('the area is 9π cm²', '9π'), ('True', 'true'), ('slope is -4', 'slope =-4'), ('ln(x) + 4', '$g(x)=\\ln x+4$'),
    ('63πx³ + 66πx² + 15πx', '63\\pi x^3+66\\pi x^2+15\\pi x litres'),
    (
        'increasing (-3,1), constant on (-∞,-3)∪(1,∞)',
        '\\text { increasing } \\quad(-3,1) ; \\quad \\text { constant }(-\\infty,-3) \\cup(1, \\infty)',
    ),
    ('0.75x²', '0.75 x^2'), ('100 cm', '1 m'), ('π/2 radians', '90°'), ('12.50', '12.5'), ('1e3', '1000'),
    ('1.2 × 10^3', '1200'), ('√50', '5\\sqrt{2}'), ('\\frac{\\sqrt{2}}{2}', '1/\\sqrt{2}'),
    ('(√2/2, √2/2)', '$\\left(\\frac{\\sqrt{2}}{2}, \\frac{\\sqrt{2}}{2}\\right)$'),
    ('-2/√13 ', '$\\frac{-2 \\sqrt{13}}{13}$'), ('-21/29', '$-\\frac{21}{29}$'),
    ('(-2/13)√13', '$\\frac{-2 \\sqrt{13}}{13}$'), ('t = 90 - y/2', 'y=-2 t+180'), ('y = 180 - 2t', 'y=-2 t+180'),
    ('x²+y²=49', '$x^{2}+y^{2}=49$'), ('x^2 + y^2 - 49 = 0', '$x^{2}+y^{2}=49$'),
    ('(x+2)²/4 + (y−2)²/9 = 1', '\\frac{(x+2)^2}{4}+\\frac{(y-2)^2}{9}=1'),
    ('9(x+2)^2+4(y-2)^2=36', '\\frac{(x+2)^2}{4}+\\frac{(y-2)^2}{9}=1'), ('315° T', '315^\\circT'),
    ('315', '315^\\circT'), ('315°', '315^\\circT'), ('S23.5°W', 'S 23.5 ^\\circ W'), ('203.5°T', 'S 23.5 ^\\circ W'),
    ('62°', '62^\\circ '), ('62 degrees', '62^\\circ '),
    (
        'local minimum (3,-60), local maximum (-3,60)',
        '\\text { local maximum: }(-3,60) \\text {, local minimum: }(3, -60)',
    ),
    ('Increasing on (2, ∞), decreasing on (-∞, 2)', 'Increasing at (2, \\infty) and decreasing at (-\\infty, 2)'),
    ('a(x+1)(x-1)', 'a x^2 - a'), ('2π(R+r)(L+R−r) square units', 'Surface area $=2 \\pi(R+r)(L+R-r)$ square units'),
    ('√(AB²+BD²+DF²)', '\\sqrt{AB^2+BD^2+DF^2}'), ('sqrt(AB^2 + BD^2 + DF^2)', '\\sqrt{AB^2+BD^2+DF^2}'),
    ('AF = √(AB² + BD² + DF²)', '\\sqrt{AB^2+BD^2+DF^2}'), ('x^3+12x^2+48x+64', '$x^{3}+12 x^{2}+48 x+64$ '),
    ('(x+4)^3', '$x^{3}+12 x^{2}+48 x+64$ '), ('A = 72x - 2x^3', '$72 x-2 x^3$'), ('2x(36-x^2)', '$72 x-2 x^3$'),
    ('[-5,-3) ∪ (-3,5]', '$[-5,-3) \\cup(-3,5]$'), ('0.0005', '$\\frac{1}{2000}$'), ('1690 cm²', '$1690cm^2$'),
    ('1690 square centimeters', '$1690cm^2$'), ('144 cubic cm', '$144cm^3$'), ('169 mL', '169 cm^3'),
    ('216 cm2', '216.\\mathrm{cm}^2'), ('50.27 cm', 'Circumference $=50.27 \\mathrm{~cm}$'),
    ('C = 50.27 cm', 'Circumference $=50.27 \\mathrm{~cm}$'), ('18.63 kg', 'Weight $=18.63 \\mathrm{~kg}$'),
    ('90 min', '1.5 hours'), ('$0.90', '0.9'), ('$\\$777$', '777 '), ('3/4 pi', '\\frac{3\\pi}{4}'),
    ('0.75π', '\\frac{3\\pi}{4}'), ('4π units', '4 \\pi'), ('(20,10)', 'Center $=(20,10)$'), ('y=5', 'y = 5.0'),
    ('No', 'no'), ('FALSE', 'False'), ('neither even nor odd', 'neither even nor odd'), ('x>=2', '[2,∞)'),
    ('y < 2x + 6', '$y<2 x+6$'), ('2x + 6 > y', '$y<2 x+6$'), ('{1,2}', '2, 1'), ('x = 1, x = 2', '1, 2'),
    ('1 and 2', '2, 1'), ('$5$ and $-5$', '±5'), ('x = -1 ± √2', '-1+√2, -1-√2'), ('8 units', '8'),
    ('8 cm', '8 units'), ('3:4', '6:8'), ('3/4', '3:4'), ('1:2:3', '2:4:6'), ('x = y = 3', '3'),
    ('(2; -2)', '(2,-2)'), ('\\dfrac{1}{2}', '0.5'), ('1/2', '\\tfrac12'), ('2√3 cm', '2\\sqrt{3}'),
    ('2\\sqrt3', '2\\sqrt{3}'), ('14 cm.', '14'), ('14.', '14'), ('≈ 14', '14'), ('about 14 cm', '14'),
    ('S = 9π', '9π'), ('9 pi cm^2', '9π'), ('9\\pi \\text{ cm}^2', '9π'), ('28 1/2', '28.5'), ('60^\\circ', '60'),
    ('θ = 60°', '60^\\circ'), ('\\theta = 60', '60^\\circ '), ('angle ACD = 35°', '35掳'), ('∠ACD = 35°', '35掳'),
    ('m∠C = 35', '35掳'), ('\\angle ACD = 35^\\circ', '35'), ('e^{2x}', '(e^x)^2'), ('sin(2x)', '2 sin x cos x'),
    ('sin²x + cos²x', '1'), ('log(100)', '2'), ('ln(e^2)', '2'), ('|x+2|/2 + 1', 'f(x)=\\frac{1}{2}|x+2|+1'),
    ('5! ', '120'), ('72%', '0.72'), ('√147 ≈ 12.12', '\\sqrt{147}'), ('12', '12 apples'),
    ('3.0 × 10^8 m/s', '300000000 m/s'), ('36 km/h', '10 m/s'), ('10 km per hour', '$10km / h$'),
    ('a = 4 and b = 3', 'a=4, b=3'),
]

DIFFERENT = [
    ('12.5', '12.6'), ('3π', '3'), ('x=2', 'x=-2'), ('1/3', '0.33'), ('9**9**9**9', '9'), ('14\x00', '14'),
    ('4.4 cm', '4.4 m'), ('124.85 cm', '124.85 cm^2'), ('(2,2)', '(2,-2)'), ('[-2,1]', '(-2,1]'), ('y=0', 'x=0'),
    ('0.13%', '0.13'), ('3 million', '3'), ('not even', 'even'), ('2', '±2'), ('x=3', 'x=2 or x=3'),
    ('y>-2x-6', 'y \\geq-2 x-6'), ('y<=-2x-6', 'y \\geq-2 x-6'), ('49', 'x^2+y^2=49'), ('π/2', '90°'),
    ('34', 'N 34° W'), ('S 34 W', 'N 34° W'), ('', '0'), ('sqrt(146)', '\\sqrt{147}'), ('1:65', '1:64'),
    ('2 1/2', '1'), ('4√5', '4√6'), ('domain: (-3,1] and range: [-4,0)', 'domain: [-4, 0) and range: (-3, 1]'),
    ('-2x-5', 'y=-2 x+5'), ('12.49', '12.5'), ('12.5', '125'), ('3', '3π'), ('3.14', 'π'), ('22/7', 'π'),
    ('9.42', '3π'), ('x=-2', 'x=2'), ('-2', '2'), ('0.33', '1/3'), ('0.333333', '1/3'), ('1.41', '√2'),
    ('1.414213562', '\\sqrt{2}'), ('5\\sqrt{3}', '5\\sqrt{2}'), ('(2,1)', '(1,2)'), ('[1,2]', '(1,2)'),
    ('(1,2]', '[1,2)'), ('(1,2,3)', '(1,2)'), ('(-∞,4)', '(-∞,4]'), ('(-4, ∞)', '(4, ∞)'), ('x<4', 'x<=4'),
    ('x>4', 'x<4'), ('y=-2x+4', 'y=-2x+5'), ('y=2x+5', 'y=-2x+5'), ('x+y=1', 'x-y=1'), ('x=0', 'y=0'),
    ('x^2+y^2=7', 'x^2+y^2=49'), ('12 km', '12 m'), ('12 cm^2', '12 cm^3'), ('12 cm', '12 cm^2'), ('120 cm', '1 m'),
    ('30 min', '1 h'), ('S 25 E', '205 T'), ('N 34 E', 'N 34 W'), ('25', 'S 25 W'), ('13', '0.13'), ('1.3%', '13%'),
    ('0.13%', '13%'), ('1/65', '1:64'), ('64:1', '1:64'), ('2,500', '2.5'), ('1,2', '12'), ('1 2', '12'),
    ('12 or 13', '12'), ('12, 13', '12'), ('12 and 13', '12'), ('x=1', 'x=1 or x=2'), ('1', '±1'), ('not 12', '12'),
    ('12 million', '12'), ('half of 12', '12'), ('12 more than x', '12'), ('odd', 'even'), ('yes', 'no'),
    ('increasing', 'decreasing'), ('increasing on (1,2)', 'decreasing on (1,2)'),
    ('domain: [0,1] and range: [2,3]', 'domain: [2,3] and range: [0,1]'), ('π/3', '60°'), ('sin x', 'cos x'),
    ('sin(x)', 'sin(2x)'), ('2^x', 'x^2'), ('x', 'y'), ('a', 'b'), ('AB', 'AC'), ('ab', 'a+b'), ('x^2', 'x^3'),
    ('2x', 'x'), ('1/x', 'x'), ('sqrt(x)', 'x'), ('|x|', 'x'), ('', '12'), (' ', '12'), ('?', '12'), ('None', '0'),
    ('null', '0'), ('nan', '0'), ('inf', '0'), ('oo', '-oo'), ('1/0', '0'), ('0/0', '1'),
    ("__import__('os').system('x')", '1'), ("exec('1')", '1'), ('lambda: 1', '1'), ('9**9**9**9', '1'),
    ('10^10^10', '1'), ('2^2^2^2^2^2', '1'), ('((((((((((1', '1'), ('12.5.1', '12.5'), ('1..2', '1.2'), ('--2', '-2'),
    ('12 %', '12.1 %'), ('2√5', '√10'), ('5x', '5'), ('5 m', '6 m'), ('twelve', '13'), ('True', 'False'),
    ('-1/2', '1/2'), ('1/2', '2/1'), ('3 1/2', '3/2'), ('1e3', '1e4'), ('x=2, y=3', 'x=3, y=2'), ('5 ≈ 7', '7'),
    ('e', '2.718'), ('5 > 3', '5'), ('14 = 15', '14'), ('12 - 13', '12'), ('12/13', '12'), ('12^2', '12'),
    ('12!', '12'), ('12 choose 2', '12'), ('(-5, 4]', '(-\\infty, 4]'), ('(2, 9)', '(2, \\infty)'), ('oo', '5'),
    ('not $h=15$', '$h=15$'), ('not Area = 9', 'Area $=9$'), ('-Volume = 9', 'Volume $=9$'), ('20 weeks', '20 days'),
    ('exactly 6 units from (0,0)', 'exactly 5 units from (0,0)'), ('y=2, x=-2', '(2,-2)'), ('3, 4', 'a=4, b=3'),
    ('When x<=3 f(x)=y+1', 'When x<=3 f(x)=x+1'), ('12 people', '12 cm'), ("60'", '60°'), ('N 45 E', '315° T'),
    ('sin x = 1/2', 'x = 1/2'), ('f(2) = 7', 'f(3) = 7'), ('6 + 7 = 13', '14'), ('domain: x > 2', 'domain: [2, oo)'),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_equal_answers_are_equal(answer: str, gold: str) -> None:
    assert equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_near_misses_and_nonsense_are_refused(answer: str, gold: str) -> None:
    assert not equal(answer, gold)
    if answer.strip() and "≈" not in answer:
        assert not equal(gold, answer), "a near miss is one in both directions"


def test_the_tables_are_long_enough() -> None:
    assert len(SAME) + len(DIFFERENT) >= 150
    assert len(DIFFERENT) >= 50


# ----------------------------------------------------------------------------------------------------------------------
# precision


@pytest.mark.parametrize(
    ("answer", "gold", "decimals", "same"),
    [
        ("53.1301", "53.13", 2, True),
        ("atan(4/3) * 180/π", "53.13", 2, True),
        ("10π", "31.42", 2, True),
        ("1/3", "0.33", 2, True),
        ("0.333", "0.33", 2, True),
        ("12.55", "12.6", 1, True),
        ("12.54", "12.6", 1, False),
        ("12.5", "12.6", 1, False),
        ("53.1", "53.13", 2, False),
        ("53.12", "53.13", 2, False),
        ("284.7 m", "285", 0, True),
        ("284.4 m", "285", 0, False),
        ("1/3", "0.34", 2, False),
        ("9π", "28.27", None, False),
        ("28.27", "9π", 2, False),  # an exact gold stays exact
        ("113.0973", "Area $=113.1 \\mathrm{~cm}^{2}$", 1, True),
        ("36π cm^2", "Area $=113.1 \\mathrm{~cm}^{2}$", 1, True),
        ("36π cm", "Area $=113.1 \\mathrm{~cm}^{2}$", 1, False),
    ],
)
def test_precision_only_where_the_question_asks(answer: str, gold: str, decimals: int | None, same: bool) -> None:
    assert equal(answer, gold, decimals) is same


@pytest.mark.parametrize(("question", "decimals"),
                         [
                             ("Round your answer to two decimal places.", 2),
                             ("correct to 1 decimal place", 1),
                             ("(Give your answer correct to one decimal places.)", 1),
                             ("Give your answer to the nearest metre.", 0),
                             ("to the nearest whole number", 0),
                             ("nearest tenth of a metre", 1),
                             ("Enter an exact value or round to the nearest hundredth.", 2),
                             ("Round your answer to the nearest ten minutes.", None),
                             ("Round to the nearest half centimeter", None),
                             ("Find the exact value of x.", None),
                         ])
def test_decimals_are_read_from_the_question(question: str, decimals: int | None) -> None:
    assert decimals_asked(question) == decimals


# ----------------------------------------------------------------------------------------------------------------------
# untrusted text

ATTACKS = [
    "9**9**9**9", "9^9^9^9^9", "9^{9^{9^{9}}}", "(9^99)^99^99", "((1+\\sqrt{2})^{500})^{500}", "2^-9999999999",
    "10^(10^10)", "99999999!", "60!!!!!", "(" * 10**6, "[" * 10**6, "{" * 10**6, "|" * 10**6, "\\sqrt{" * 10**5,
    "-" * 500, "1" * 10**6, "1," * 300, "1=" * 300, "1:" * 300, "1/" * 299 + "1", "\\frac{1}{" * 100, "1e999999999",
    "0." + "0" * 500 + "1", "sin(" * 150, "e^" * 150 + "x", "exp(exp(exp(exp(exp(100)))))", "x^x^x^x^x^x",
    "(a+b+c+d+e+f+g)^{500}", "x" * 599, "ab" * 299, "1 " * 299, " " * 10**6, "\n" * 10**6, "±" * 599,
    "∪".join(["(1,2)"] * 100), "14\0", "\0", "\x1b[31m14", "__import__('os').system('touch owned')",
    "().__class__.__bases__[0].__subclasses__()", "exec(open('/etc/passwd').read())", "sympify('1')", "\ud800", "١٢",
    "¹²³" * 200, "is " * 199, "a is b is " * 60, "approximately " * 45, "1 and " * 99, "degrees" * 80, "m" * 500,
    "1 " + "m" * 590, "cm^" * 190, "(((1,2),(3,4)),((5,6),(7,8)))" * 18, "x=" * 50 + "1", "<" * 599, "5<x<" * 140,
    "tan(\\pi/2)", "log(0)", "0^0^-1", "1/(1-1)", "\\frac{0}{0}", "sqrt(-1)", "\\boxed{" * 80 + "1"
]


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_no_text_costs_more_than_a_second_or_counts_as_right(attack: str) -> None:
    for gold in ("14", "y=-2x+5", "domain: [-4, 0) and range: (-3, 1]"):
        began = time.process_time()
        assert equal(attack, gold) is False
        assert time.process_time() - began < 1.5  # a second, and what a slow machine adds


def test_random_garbage_never_raises_and_never_takes_long() -> None:
    rng = random.Random(0)
    alphabet = list("0123456789()[]{}|^_*/+-=<>,.;:%°!πexym \n\\") + [
        "\\frac", "\\sqrt", "sin", " and ", " or ", " is ", "**", "oo", "≈", "±", "∪"
    ]
    for _ in range(400):
        text = "".join(rng.choice(alphabet) for _ in range(rng.choice((3, 12, 60, 200))))
        began = time.process_time()
        assert equal(text, "17.25") in (True, False)
        assert time.process_time() - began < 1.5, text


def test_nothing_is_evaluated_by_sympys_own_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    import sympy.parsing.sympy_parser as reader

    seen: list[str] = []
    monkeypatch.setattr(reader, "parse_expr", lambda text, *a, **k: seen.append(text))
    monkeypatch.setattr("builtins.eval", lambda *a: seen.append(str(a)))
    matcher.read.cache_clear()
    for answer in ("__import__('os')", "x^2 + 1", "\\frac{1}{2}", "sin(30°)", "(1, 2]"):
        equal(answer, "0.7")
    assert not [text for text in seen if isinstance(text, str) and ("import" in text or "sin" in text or "x" in text)]


def test_the_parser_bounds_what_sympy_sees() -> None:
    for text in ("2^5000", "9^9^9", "1" * 41, "x" * 601, "(" * 30 + "1" + ")" * 30, "1e61", "+".join("x" * 200)):
        with pytest.raises(NotMath):
            parse_expression(plain(text))
    assert parse_expression(plain("2^{100}")) == 2**100


def test_time_limit_ends_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> bool:
        while True:
            pass

    monkeypatch.setattr(matcher, "same", busy)
    monkeypatch.setattr(matcher, "SECONDS_PER_COMPARISON", 0.05)
    began = time.process_time()
    assert equal("3", "4") is False
    assert time.process_time() - began < 1
