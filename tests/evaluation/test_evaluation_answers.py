"""From a response to its final answer: how models really write, and what must not count as an answer."""

import time

import pytest

from evaluation.answers import chosen_letter, final_answer
from evaluation.matcher import equal

ANGLES = ["40°", "50°", "65°", "90°"]
YES_NO = ["Yes", "No"]
LETTERS = ["(c)", "(a)", "(e)", "(d)", "(b)"]  # choices that look like letters, as in two MathVista rows
FRACTIONS = ["3/11", "8/11", "6/11", "3/5"]
FIVE = ["1", "2", "3", "4", "5"]

NAMED = [
    ("B", ANGLES, "B"), ("b", ANGLES, "B"), ("(B)", ANGLES, "B"), ("[B]", ANGLES, "B"), ("B.", ANGLES, "B"),
    ("B)", ANGLES, "B"), ("B: 50°", ANGLES, "B"), ("B. 50°", ANGLES, "B"), ("b) 50°", ANGLES, "B"),
    ("Option C", ANGLES, "C"), ("option (c)", ANGLES, "C"), ("The answer is C.", ANGLES, "C"),
    ("The answer is (c)", ANGLES, "C"), ("The answer is: C", ANGLES, "C"),
    ("The correct answer is **C**.", ANGLES, "C"), ("**Answer:** (c) 65°", ANGLES, "C"), ("**Answer: C**", ANGLES, "C"),
    ("Answer:\n\nB", ANGLES, "B"), ("Answer: D) 90", ANGLES, "D"), ("ANSWER: D", ANGLES, "D"),
    ("Final answer: A", ANGLES, "A"), ("Answer: A because the angles are equal", ANGLES, "A"),
    ("The correct option is D because the lines are parallel.", ANGLES, "D"),
    ("The correct choice is (B).", ANGLES, "B"), ("So the correct option is B: 50°.", ANGLES, "B"),
    ("The answer is option (B), 50°.", ANGLES, "B"), ("I would choose B", ANGLES, "B"), ("I choose B.", ANGLES, "B"),
    ("†Answer: B", ANGLES, "B"), ("... so it holds.†Answer: B", ANGLES, "B"),
    ("<Thought process>: <<We add A and B.>> <Answer>: <<C>>", ANGLES, "C"), ("<answer>C</answer>", ANGLES, "C"),
    ("<answer> C. 65° </answer>", ANGLES, "C"), ('{"answer": "B"}', ANGLES, "B"), (r"\boxed{B}", ANGLES, "B"),
    (r"\boxed{\text{B}}", ANGLES, "B"), (r"\boxed{\text{(B)}}", ANGLES, "B"), (r"$$\boxed{B. 50^\circ}$$", ANGLES, "B"),
    (r"So we get $\boxed{50^\circ}$.", ANGLES, "B"), ("The final answer is: $\\boxed{C. 65^\\circ}$", ANGLES, "C"),
    ("\\boxed{A} was my first thought, yet it is \\boxed{D}.", ANGLES, "D"), ("Answer: 65°", ANGLES, "C"),
    ("Answer: 65", ANGLES, "C"), ("Answer: 65 degrees", ANGLES, "C"), ("Therefore the angle is 65°", ANGLES, "C"),
    ("Angle B = 60. Hence angle C = 50°.", ANGLES, "B"), ("Angle A is 50 as we see.\n\nC. 65°", ANGLES, "C"),
    ("Therefore, it must be option C.", ANGLES, "C"), ("I think (C)", ANGLES, "C"),
    ("Thus the answer is C, since the sum of the angles is 180°.", ANGLES, "C"),
    ("Yes, because both lines are parallel.", YES_NO, "A"), ("answer: no", YES_NO, "B"), ("No.", YES_NO, "B"),
    ("The answer is yes", YES_NO, "A"), ("Answer: 8/11", FRACTIONS, "B"), (r"\boxed{\frac{8}{11}}", FRACTIONS, "B"),
    ("The answer is (b)", LETTERS, "E"), ("(E)", LETTERS, "E"), ("The answer is E", FIVE, "E"),
    ("Answer: 5", FIVE, "E"), ("Answer: F", [], "F"), ("The correct option is (G).", [], "G")
]
NOT_NAMED = [
    ("", ANGLES),
    ("   \n ", ANGLES),
    ("It is either B or C.", ANGLES),
    ("Answer: B or C", ANGLES),
    ("Answer: A, C", ANGLES),
    ("Answer: A and C", ANGLES),
    ("Answer: A/B", ANGLES),
    ("Both A and C", ANGLES),
    ("Answer: Both (A) and (C)", ANGLES),
    ("Answer: B, C and D", ANGLES),
    (r"\boxed{A, B}", ANGLES),
    ("None of the above", ANGLES),
    ("The answer is not B.", ANGLES),
    ("Answer: none", ANGLES),
    ("Answer: E", ANGLES),  # there are four choices
    ("Answer: G", FIVE),
    ("Answer: X", ANGLES),
    ("Answer: 55°", ANGLES),
    ("The answer is 65.5", ANGLES),
    ("Answer: 650", ANGLES),
    ("Answer: Because of B", ANGLES),
    ("Answer: A triangle is what we see", ANGLES),
    ("The answer is a right angle", ANGLES),
    ("According to the figure the lines are parallel.", ANGLES),
    ("Angle A equals angle B.", ANGLES),
    ("In triangle ABC the sides AB and AC are equal.", ANGLES),
    ("I cannot answer this.", ANGLES),
    ("I do not know", ANGLES),
    ("Answer:", ANGLES),
    ("A B C D", ANGLES),
    ("(A) (B) (C) (D)", ANGLES),
    ("Options: A: 40° B: 50° C: 65° D: 90°. Either A or B could hold.", ANGLES),
    ("Maybe", YES_NO),
    ("Yes and no", YES_NO),
    ("Notably", YES_NO),
    ("no or yes", YES_NO),
    ("B C", ANGLES),
    ("B\n\nWait, no, it's C.", ANGLES),
    ("B\n\nThe angle is half of 130°.\n\n(C)", ANGLES),
    ("B is too small, C is too large.", ANGLES),
    ("If the answer is B, the sum is 190°, which cannot be.", ANGLES),
    ("B. C.", ANGLES),
    ("B\0", ANGLES),
]


@pytest.mark.parametrize(("response", "choices", "letter"), NAMED)
def test_a_named_choice_is_found(response: str, choices: list[str], letter: str) -> None:
    assert chosen_letter(response, choices) == letter


@pytest.mark.parametrize(("response", "choices"), NOT_NAMED)
def test_no_choice_is_no_choice(response: str, choices: list[str]) -> None:
    assert chosen_letter(response, choices) is None


@pytest.mark.parametrize(("response", "answer"),
                         [
                             ("14", "14"),
                             ("14.", "14"),
                             ("Answer: 14", "14"),
                             ("answer = 14 cm", "14 cm"),
                             ("so x = 12.\nThe answer is \\boxed{12}.", "12"),
                             ("\\boxed{3} is not it; \\boxed{x = 4}", "x = 4"),
                             (r"The area is $\boxed{\frac{9\sqrt{3}}{2}}$ cm$^2$.", r"\frac{9\sqrt{3}}{2}"),
                             ("The final answer is\n\\[\n\\boxed{\\frac{1}{2}}\n\\]", "\\frac{1}{2}"),
                             ("**Final answer:** 12.5 cm", "12.5 cm"),
                             ("**Answer: 12.5 cm**", "12.5 cm"),
                             ("### Final Answer\nAnswer: `12`", "12"),
                             ("†Answer: 7", "7"),
                             ("We add.†7", "7"),
                             ("<answer>(2, -2)</answer>", "(2, -2)"),
                             ("Answer: (2, -2)", "(2, -2)"),
                             ("Answer: y = 2x + 1.", "y = 2x + 1"),
                             ("Answer: 5 because 2 + 3 = 5", "5"),
                             ("Answer: 5, which is the sum.", "5"),
                             ("The answer is 12 (rounded to the nearest whole number).", "12"),
                             ("The answer is 3.5. I hope this helps!", "3.5"),
                             ("The answer is clear now.\nAnswer: 3", "3"),
                             ("Answer: 3.\nThe answer is what we wanted.", "3"),
                             ("Answer: Total S.A. $=3222.80$", "Total S.A. $=3222.80$"),
                             ("First 1 + 1 = 2. Then 2 + 2 = 4.\nHence the perimeter of the figure is 4 cm.", "4 cm"),
                             ("Adding the angles we get\nC = 180 - 40 - 60 = 80", "80"),
                             ("The function is even, as f(-x) = f(x).\nAnswer: even", "even"),
                             ("even", "even"),
                         ])
def test_the_final_answer_is_found(response: str, answer: str) -> None:
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n\n",
        "14\0",
        "The picture shows many lines.\nI am sorry, but I cannot tell from what I see, so let me leave it open.",
    ],
)
def test_no_final_answer_is_none(response: str) -> None:
    assert final_answer(response) is None


@pytest.mark.parametrize(
    "response",
    [
        "(" * 10**6, "Answer: " + "(" * 10**6, "\\boxed{" * 10**5, "answer is " * 10**5, " " * 10**6, "A" * 10**6,
        "\n" * 10**6,
     "is " * 10**6, "**" * 10**6, "A, B or " * 10**5, "<answer>" * 10**5, "†" * 10**6, "=" * 10**6, "1. " * 10**5,
     "`" * 10**6],
    ids=range(15),
)
def test_a_megabyte_costs_less_than_a_second(response: str) -> None:
    began = time.process_time()
    final_answer(response)
    chosen_letter(response, ANGLES)
    assert time.process_time() - began < 1


PIECES = [
    *"( [ { < \" ' _ * - = . , ; ? ! 。 $ \\( \\[ \\boxed{ \\boxed{1} \\text{ & <| <|x|> </s> </think>".split(),
    *"答案 选 是 answer is to of".split(),
    *"so if neither not A A, (B) option choose wait no because rounded sin inf minus due max".split(),
    *"1 1, 1° 1°1' x {x| ∈ x( M( sin(x)= N3E ℝ => ∴ (x,y)= f(3)= |AB|= S_{ ab: ½ ² ∪ ± : A. B:1 m cm^".split(),
    *("1 000", "x > 1 and ", "x <= 1 ", "1 < x < ", "all real numbers ", "assume that the ", "A or ", "B is correct "),
]


@pytest.mark.parametrize("piece", PIECES)
def test_repetition_costs_no_time(piece: str) -> None:
    """What the patterns look for, over and over: none of them backtracks without bound."""
    for count in (30, 200, 5000):
        for before, after in (("", ""), ("Answer: ", " 14"), ("(1, ", "x")):
            began = time.process_time()
            answer = final_answer(before + piece * count + after)
            chosen_letter(before + piece * count + after, ANGLES)
            equal(answer or "", "domain: [-4, 0) and range: (-3, 1]")
            assert time.process_time() - began < 1
