"""What a careful reader would say of an answer: how models really end their responses, and the verdict on each.

Each entry: the choices (or how the question asks to round) and the gold answer, responses that are right, responses
that are wrong. Written down by hand, from the ways in which LLaVA-, Qwen- and GPT-like models end: boxes, bold, LaTeX,
prose, corrections of themselves, several candidates, Chinese, units, intervals in words.
"""

import pytest

from evaluation.answers import chosen_letter, final_answer
from evaluation.generated import same_choice
from evaluation.matcher import decimals_asked, equal

CHOICES = [
    (
        ['increasing', 'decreasing', 'constant', 'cannot be determined'], 'D',
        [
            'It cannot be determined.', 'Answer: cannot be determined', 'Answer: D. cannot be determined',
            'The answer is D, it cannot be determined.', 'D\n\nThe sign cannot be determined from the graph.',
        ],
        ['The answer is A. No, wait, it is D.', 'The function is increasing.', 'Answer: C. It cannot increase.'],
    ),
    (
        ['neither; their concentrations are the same', 'Solution A', 'Solution B'], 'B',
        ['Solution A', 'The answer is Solution A, so option B.', 'Answer: Solution A, because it holds more.',
         'Answer: B'],
        ['Solution B', 'The answer is Solution B, so option C.', 'Answer: Solution B, because it holds more.',
         'The answer is Solution A, so option C.'],
    ),
    (
        ['9', '12', '18', '18'], 'D',  # a choice that stands twice
        ['The answer is 18, so option D.', 'The answer is 18, so option C.', 'D. 18\n\nBecause it is.', 'Answer: 18'],
        ['The answer is 18, so option B.', 'D. 12\n\nBecause it is.', 'Answer: 12'],
    ),
    (
        ['40°', '50°', '65°', '90°'], 'C',
        [
            "Let's denote the angle by x. Since AB ∥ CD we get x = 65°.\n\nTherefore, the correct "
            'answer is **C: 65°**.', 'The answer is (C) 65°.', 'The measure of angle B is 65 degrees.',
            'So m∠B = 65', 'The answer is: angle B = 65°', 'Answer: D is 65°',
            'We can rule out A and B. The answer is C.', 'The answer is C. We can rule out A and B.',
            'So ∠C = 65°, and the answer is C: 65°.\n\nNote: D would require a right angle.',
        ],
        [
            '∠C = 50°', 'Therefore angle C is 50°.', 'Answer: C = 50°',
            'x = 50°, so the answer is (B) 50°, not (C) 65°.', 'None of A, B, C is correct.',
        ],
    ),
    (
        ['10 cm', '12 cm', '14 cm', '16 cm', '18 cm'], 'C',
        [
            'Answer: (C) 12 cm', 'Option B is incorrect. Option C is correct.',
            'Answer: B\n\nActually, I made a mistake. Correct answer: C', 'Answer: AB = 14 cm',
            "I'll go with option C, though B is tempting.",
        ],
        ['Answer: CD is 12 cm', '$\\boxed{B}$ or $\\boxed{C}$'],
    ),
    (
        ['10 cm', '12 cm', '14 cm', '16 cm', '18 cm'], 'B',
        [
            'Answer: (B) 12 cm', '$\\boxed{\\text{(B) } 12 \\text{ cm}}$', '$\\boxed{\\textbf{(B)}\\ 12}$',
            '\\boxed{\\mathrm{B}}', '\\[\n\\boxed{\\text{B. 12 cm}}\n\\]',
            'So, the length is $12 \\text{ cm}$, which corresponds to option B.', 'This corresponds to choice (B).',
            'This matches option **B**.', 'Thus, the answer matches choice B: 12 cm.',
            'Hence the correct answer is:\n\n**(B) 12 cm**', 'Hence the correct answer is:\n\nB. 12 cm',
            '### Answer\n\nB', '### Answer\n\n**B**', '## Final Answer\nB) 12 cm',
            '**Final Answer:**\n\n\\[ \\boxed{B} \\]', 'The final answer is: $\\boxed{B}$. I hope it is correct.',
            '答案：B', '答案是B', '所以答案是 B。', '故选：B', '故选B.', '因此，正确答案是 **B**。', '因此选 (B)。',
            '正确选项为B：12 cm。', 'Ｂ', 'The correct answer is Option B', 'The correct answer is option B) 12 cm.',
            'The correct answer would be B.', 'The correct answer should be (B).', 'The answer must be B.',
            'Therefore, B is the correct answer.', 'Therefore, option B is correct.',
            'Therefore, option (B) is the correct answer.', 'So option B is correct and option C is wrong.',
            'Therefore B.', 'Thus, B', 'Hence, (B).', 'So the answer is B', 'So, the answer is\nB',
            "I believe it's B.", "It's B", 'My answer: B', 'Ans: B', 'Ans. (B)', 'Choice: B', 'Correct option: B',
            'Correct answer: B', 'The right answer is B.', 'Answer - B', 'Answer B', 'B is the answer.',
            'B is correct.', 'B is correct because the triangles are similar.', '(B) is correct',
            "The answer is A. Wait, that's not right. Let me recompute. The side is 12, so the answer is B.",
            'Answer: BC = 12 cm', '\\boxed{12}', '\\boxed{12 \\text{ cm}}', '\\boxed{12\\,\\mathrm{cm}}',
            '\\boxed{0.12 \\text{ m}}', '\\boxed{120 \\text{ mm}}', 'The length is 13 cm, the closest option is B.',
            'None of the options match. The length is 12 cm.',
            '<think>It might be A. No. B gives 12.</think>\n\n**Answer: B**', '<think>The answer is A.</think>B',
            '<answer>B</answer>', '<answer>\nB\n</answer>', '<answer> (B) 12 cm </answer>',
            '<|begin_of_box|>B<|end_of_box|>', '```\nB\n```', '{"reasoning": "A is too short", "answer": "B"}',
            "{'answer': 'B'}", '| Step | Result |\n|---|---|\n| 1 | 12 |\n\nAnswer: B',
            '**Answer:** B\n\n**Explanation:** The option A is too short; C, D too long.',
            'B\n\nExplanation: since AB = 12.', 'B. 12 cm\n\nThe triangles are similar, so AB : DE = 2 : 1.',
            'To find the length, we use Pythagoras. 12² = 144. So the length is 12 cm.', 'the answer is b',
            'Answer: B ✓', '✅ **B**', '👉 B', 'Answer:B', 'Answer:\u3000B', 'Answer: $B$', 'Answer: \\(B\\)',
            'Answer: \\(\\boxed{B}\\)', 'Answer: \\text{B}', "Answer: 'B'", 'Answer: “B”', 'Answer: 【B】',
            'Answer: [B]', 'Answer: {B}', 'Answer: <B>', 'Answer: #B', 'Answer: B <end_of_turn>', 'Answer: B</s>',
            'Answer: B<|im_end|>', 'ANSWER IS B', 'the correct choice: B', 'The answer is choice B.',
            'we choose option B', 'We choose (B).', 'Select B.', "So I'd go with B.", 'B=12',
        ],
        [
            '答案：C', '(B) is incorrect, so (C).', 'Option B is incorrect. Option C is correct.',
            'Option B is not correct.', 'B is incorrect.', 'B is not the answer.', 'B is wrong.',
            'The answer cannot be B.', "The answer can't be B, so I would guess C.",
            'The answer is definitely not B.', "The answer isn't B.", 'It is not B.', 'Not B.', 'Not (B).',
            'Not option B.', 'Every option except (B).', 'All except B', 'Anything but B',
            'A, C, D and E are wrong.', "The answer is B. Wait, that's not right; it should be C.",
            'The answer is B. Hmm, no. It must be C.', 'Answer: B\n\nActually, I made a mistake. Correct answer: C',
            'The answer is either B or C.', 'The answer could be B or C.', 'Answer: B and C', 'Answer: BC',
            'Answer: B, C', 'Answer: (B), (C)', 'Answer: B; C', 'Answer: B & C', 'Answer: B (or C)',
            'Answer: B or maybe C', 'Answer: B, or possibly C', 'Answer: B? C?', 'Answers: B, D',
            '\\boxed{B}\\boxed{C}', '\\boxed{B \\text{ or } C}', '\\boxed{B, C}', '\\boxed{BC}',
            '\\boxed{12 \\text{ m}}', '\\boxed{12 \\text{ cm}^2}', '\\boxed{13}',
            'The length is 13 cm, which is not among the options.',
            'The length is 13 cm, so none of the options is correct.', 'C\n\nExplanation: option B is 12.',
            'A: 10 cm\nB: 12 cm\nC: 14 cm\nD: 16 cm',
            'Please provide the image so I can answer. Choices: A, B, C, D', "I'm sorry, I can't see the image.",
            'Because of B we have', 'Option', '(', '**', 'Circle with centre B and radius 12 cm',
            'Let point B be the origin.', 'Therefore, the distance from A to B', 'Consider triangle B. Then', 'F',
            "I'll go with option C, though B is tempting.", 'The answer is C, though B is tempting.', 'B > C',
        ],
    ),
    (
        ['10 cm', '12 cm', '14 cm', '16 cm', '18 cm'], 'A',
        ['answer is a', 'The answer is a)'],
        [
            "The answer is A. Wait, that's not right. Let me recompute. The side is 12, so the answer is B.",
            'Answer: AB = 14 cm', 'A. 10 cm B. 12 cm C. 14 cm', 'As an AI I cannot determine the answer.',
            'A diagram would help.', 'The answer is a 12 cm segment', 'The answer is A 12 cm segment', 'A=12',
        ],
    ),
    (
        ['4', '5', '6', 'None of the above'], 'D',
        [
            'None of the above', 'The answer is none of the above.',
            'The answer is none of the above, as 7 is not listed.', 'Answer: D. None of the above',
            'The answer is 7, so the answer is D',
        ],
        [],
    ),
    (
        ['4', '5', '6', 'None of the above'], 'A',
        ['x+1 = 5, so x = 4'],
        ['None of the above', 'Not 4'],
    ),
    (
        ['4', '5', '6', 'None of the above'], 'B',
        ['x = 5', 'The value of x is 5.', 'Therefore x = 5'],
        ['x+1 = 5, so x = 4'],
    ),
    (
        ['Yes', 'No'], 'A',
        ['Yes', 'yes.', 'No, the answer is Yes.', '(A) Yes'],
        ['No'],
    ),
    (
        ['Yes', 'No'], 'B',
        ["No, it isn't.", 'The answer is No because they differ.'],
        [
            'Yes, they are congruent.', 'Not sure', 'Nope', 'There is no way to tell.', 'I have no idea.',
        ],
    ),
    (
        ['True', 'False'], 'A',
        ['The statement is true.', 'Answer: True'],
        ['The statement is not true.', 'Untrue'],
    ),
    (
        ['True', 'False'], 'B',
        ['False.', 'It is false that x > 2, hence False'],
        [],
    ),
    (
        ['5*a^2 + 10', '25*a^2 + 50', 'a^2 + 2', '10*a + 5'], 'B',
        ['The answer is 25a^2 + 50.', 'The area is 5(5a² + 10)', '\\boxed{25a^2+50}'],
        ['\\boxed{25a^2+5}'],
    ),
    (
        ['5*a^2 + 10', '25*a^2 + 50', 'a^2 + 2', '10*a + 5'], 'C',
        ['a^2 + 2'],
        ['a + 2'],
    ),
    (
        ['a circle', 'a square', 'a triangle', 'a rhombus'], 'B',
        ['The shape is a square.', 'A square'],
        [],
    ),
    (
        ['a circle', 'a square', 'a triangle', 'a rhombus'], 'A',
        ['The shape is a circle.', 'a circle', 'A circle', 'Circle', 'Answer: the circle'],
        ['A square', 'A triangle has three sides', 'Answer: A square', 'The area is a square'],
    ),
    (
        ['a circle', 'a square', 'a triangle', 'a rhombus'], 'D',
        [
            'A triangle has three sides, so it is not a triangle; the shape is a rhombus.', 'Answer: A rhombus',
        ],
        [],
    ),
    (
        ['2\\sqrt{3}', '3\\sqrt{2}', '\\sqrt{6}', '6'], 'B',
        ['\\boxed{3\\sqrt{2}}', '\\boxed{\\sqrt{18}}'],
        ['\\boxed{2\\sqrt{3}}'],
    ),
    (
        ['2\\sqrt{3}', '3\\sqrt{2}', '\\sqrt{6}', '6'], 'A',
        ['√12', 'The side is 2√3 ≈ 3.46.', '\\frac{6}{\\sqrt{3}}'],
        ['3.46'],
    ),
    (
        ['1', '2', '3', '4'], 'C',
        [
            'The answer is 3.', 'Answer: 3', 'Answer: C', 'Answer: C. 3', 'Answer: 3. C', 'three', 'Answer: three',
        ],
        [
            'There are 3 triangles and 2 squares', 'Answer: 3 or 4', 'Answer: 3, 4', 'Answer: 3/4', 'Answer: 3.5',
            'Answer: 3x', 'Answer: 34', 'Answer: -3', 'Answer: between 3 and 4', 'Answer: more than 3',
            'Answer: at least 3', 'Answer: not 3',
        ],
    ),
    (
        ['1', '2', '3', '4'], 'B',
        [],
        ['There are 3 triangles and 2 squares'],
    ),
    (
        ['angle 1', 'angle 2', 'angle 3', 'angle 12'], 'A',
        ['angle 1'],
        ['Angle 12'],
    ),
    (
        ['angle 1', 'angle 2', 'angle 3', 'angle 12'], 'B',
        ['Answer: angle 2'],
        [],
    ),
    (
        ['-2', '2', '-4', '4'], 'A',
        ['Answer: -2', 'Answer: −2', 'Answer: –2', 'Answer: $-2$'],
        ['Answer: 2', 'Answer: ±2', 'x = -2 or x = 2'],
    ),
    (
        ['I only', 'II only', 'I and II', 'Neither I nor II'], 'C',
        ['I and II', 'I, II'],
        [],
    ),
    (
        ['I only', 'II only', 'I and II', 'Neither I nor II'], 'A',
        ['I only'],
        ['Not I only'],
    ),
    (
        ['I only', 'II only', 'I and II', 'Neither I nor II'], 'D',
        ['Neither I nor II'],
        [],
    ),
    (
        ['(1, 2)', '(2, 1)', '(-1, 2)', '(-2, -1)'], 'B',
        ['The point is (2, 1).', '(2,1)', '\\left(2,1\\right)', 'x=2, y=1'],
        ['(1,2)'],
    ),
    (
        ['y = x + 1', 'y = x - 1', 'y = -x + 1', 'y = -x - 1'], 'C',
        ['y = 1 - x'],
        [],
    ),
    (
        ['y = x + 1', 'y = x - 1', 'y = -x + 1', 'y = -x - 1'], 'A',
        ['f(x) = x + 1', 'x + 1'],
        ['y = x'],
    ),
    (
        ['y = x + 1', 'y = x - 1', 'y = -x + 1', 'y = -x - 1'], 'B',
        ['x - y = 1'],
        [],
    ),
    (
        ['y = x + 1', 'y = x - 1', 'y = -x + 1', 'y = -x - 1'], 'D',
        ['x + y = -1'],
        [],
    ),
    (
        ['10 cm', '12 cm', '14 cm', '16 cm', '18 cm'], 'E',
        ['e'],
        [
            'To find the length, we use Pythagoras. The hypotenuse is 18 cm.\nThe leg is then 12 cm.',
            'A: 10 cm\nB: 12 cm\nC: 14 cm\nD: 16 cm\nE: 18 cm',
        ],
    ),
    (
        ['40°', '50°', '65°', '90°'], 'A',
        ['Angle A = 40° so A', 'A\n\nA\n\nA\n\nA'],
        [
            'Angle A = 50°', 'The answer is option A) 40° or option B) 50°.',
            "Let's eliminate: A is too small. C and D are too big.", 'A\nB\nC\nD', 'A, because ∠A = 50° hmm no B',
            'The answer is not listed.', '\\boxed{A}\n\nBut wait, the diagram shows something else',
        ],
    ),
    (
        ['40°', '50°', '65°', '90°'], 'B',
        [
            'Angle A = 50°', '∠C = 50°', 'Answer: C is 50°',
            'To solve this, note that ∠ABC is an inscribed angle.\n\nStep 1: The central angle is '
            '100°.\nStep 2: The inscribed angle is half: 50°.\n\nSo, the measure of ∠ABC is '
            '50°.\n\nTherefore, the correct answer is:\n\n$$\\boxed{\\text{B. } 50^\\circ}$$',
            'Since the triangle is isosceles, ∠A = ∠C. Then ∠B = 180° − 2·65° = 50°. Option B.',
            '1. Angle sum: 180°.\n2. 180 − 90 − 40 = 50.\n\n**Answer: 50° (B)**', '**Answer: 50° (Option B)**',
            'Answer: 50 (B)', 'The answer is 50°, which is option B.', 'The answer is 50°, i.e., (B).',
            'We get x=50. The choices are A:40 B:50 C:65 D:90. So we choose B',
            "Let's eliminate: A is too small. C and D are too big. So B.",
            'B:50°\nExplanation: The inscribed angle is half of the central angle 100°.',
            'The correct option letter is B.', 'The correct option letter: **B**', 'Correct Option: (B) 50°',
            'Option B:50°', 'B.50°', 'B . 50', '(B)50°', 'B、50°', 'I am not sure, but I think the answer is B.',
            'The answer is probably B.', 'The answer is likely (B).', 'The best answer is B.',
            'The closest answer is B.', 'the most appropriate answer is B',
            'Among the options, the closest one is B: 50°.', 'Triangle ABC is similar to triangle DEF. Answer: B',
            'USER: hi\nASSISTANT: B', 'ASSISTANT: The answer is B.</s>',
            'The answer is B. 50°. The answer is B. 50°. The answer is B. 50°.',
            'The answer is\n\n\\[\n\\text{B}\n\\]', 'The answer is \\(\\text{B}\\).',
            'The answer is $\\mathbf{(B)}$.', '$\\text{The answer is } \\boxed{(B)}$', '\\boxed{B: 50°}',
            '\\boxed{B:50^{\\circ}}', '\\boxed{B)50^\\circ}', '\\boxed{\\textbf{B}}', '\\boxed{Option B}',
            '\\boxed{\\text{Option B}}', '\\boxed{b}', '\\boxed{A}\n\nBut wait, the diagram shows... so \\boxed{B}',
            'The answer: The angle is 50 degrees, therefore B', 'x = 50°\nB', 'x = 50°\n(B)',
            'x = 50°, so the answer is (B) 50°, not (C) 65°.', 'The answer is (B) rather than (C).',
            'The answer is (B), since (A) and (C) fail.', 'Only B is correct.', 'I chose B because it looks right.',
            'My final choice is B.', 'The solution is B.', 'Result: B', 'Solution: B', 'Conclusion: B',
            'Conclusion: The correct answer is B.', 'Thought process: sum of angles. Answer: <<B>>',
            'the answer is [B]', '[[B]]', '((B))', 'Answer=B', 'answer:b.50°', 'ANSWER : B', 'Answer is: B)',
            'The answer is "B".', 'The answer is `B`.', 'The answer is _B_.', 'The answer is: 50^\\circ',
            'The answer is: 50^{\\circ}.',
        ],
        [
            'The measure of angle B is 65 degrees.', 'The answer is: angle B = 65°', 'Answer: B = 65°',
            'The answer is 50°, which corresponds to option C.', 'The answer is option A) 40° or option B) 50°.',
            'B:50°\n\nC:65°', 'B\nC', 'B B B B B B', 'BBBBBBB',
            'It seems that none of the given options is correct, since x = 55°.',
            'Question: ... Choices: A:40° B:50°\nAnswer: B\n\nQuestion: what is 2+2? Choices: A: 3 B: 4\nAnswer: A',
            '\\boxed{\\text{None}}', '\\boxed{50^\\circ \\text{ or } 65^\\circ}',
            'The statement in option A is false, B is true.', 'Neither A nor B is correct.',
            'Not only B is correct.', 'Is B correct? No.',
            'Suppose B is the answer. Then the angles sum to 190°, impossible.',
            'Assume the answer is B. Then we get a contradiction.',
        ],
    ),
    (
        ['40°', '50°', '65°', '90°'], 'D',
        [],
        [
            'Answer: D is 65°', "Let's eliminate: A is too small. C and D are too big.", 'A\nB\nC\nD',
            'The answer is not among the choices A, B, C, or D.',
            'So ∠C = 65°.\n\nNote: D would require a right angle.', 'Both options B and D are correct.',
            'Options B and D are correct.', 'B and D are correct.', 'B or D is correct.',
        ],
    ),
]

FREE_FORM = [
    (
        '', 'f(x)=|x-3|',
        ['So the equation is f(x) = |x-3|', 'Therefore, f(x) = |x-3|.', 'The equation of the graph is y = |x-3|.'],
        ['So the equation is f(x) = |x+3|', 'It is not f(x) = |x-3|.', 'Therefore, g(x) = -|x-3|.'],
    ),
    ('', 'even', ['Therefore, the function is even.', 'Thus, it is even'], ['Therefore, the function is not even.']),
    ('', '12', ['Hence, AB = 12', 'So 12 cm'], ['Thus, 3x = 12']),
    (
        '', '(2,-2)',
        [
            'So the vertex is (2, -2).', 'The solution to the system is (2, -2)', 'Thus the midpoint M is at (2, -2).',
            'The coordinates of P are (2, -2).', 'The ordered pair is (2, -2).', 'The lines intersect at (2, -2).',
            'Thus, the point of intersection is (2, -2).', 'Therefore, the center of the circle is (2, -2).',
            'So the other endpoint is (2, -2).', "Therefore the image of A is A'(2, -2).",
        ],
        [
            'The vertex is not (2, -2).', 'So the vertex is (-2, 2).', 'The vertex is (2, -2) or (2, 2)',
            'It cannot be (2, -2).', 'The vertex is opposite (2, -2).',
        ],
    ),
    ('', 'point B is (2, -2)', ['point B is (2, -2)'], ['The point A is (2, -2).', 'point C is (2, -2)']),
    (
        '', '(-2, 1]',
        ['So the domain of f is (-2, 1].', 'In interval notation, (-2, 1]', 'The function is defined on (-2, 1].'],
        ['So the range is (-2, 1).', 'The domain is not (-2, 1].', 'The function is undefined on (-2, 1].'],
    ),
    (
        '', '\\frac{9\\sqrt{3}}{2}',
        [
            'The area is $\\boxed{\\frac{9\\sqrt{3}}{2}}$.', '\\[\n\\boxed{\\dfrac{9\\sqrt3}{2}}\n\\]',
            '\\boxed{4.5\\sqrt{3}}', '\\boxed{\\frac{27}{2\\sqrt{3}}}',
            '\\boxed{x = \\frac{9\\sqrt{3}}{2} \\approx 7.79}', 'So $a = \\frac{9\\sqrt{3}}{2} \\approx 7.794$.',
            '**Answer:** $a=\\frac{9 \\sqrt{3}}{2}$ units', 'Final answer: 9√3/2', 'Final answer: 9*sqrt(3)/2',
            'Final answer: (9/2)√3 cm',
        ],
        ['Final answer: 9√(3/2)', 'Final answer: 9√3/4'],
    ),
    (
        'Give your answer as an exact value.', '\\frac{9\\sqrt{3}}{2}',
        [],
        ['The answer is 7.79'],
    ),
    (
        '', '14',
        [
            'The answer is 14.', 'The answer is 14 cm.', 'The answer is fourteen.', 'The answer is 14.0',
            'The answer is 1.4 × 10^1', 'The answer is 1.4e1', 'The answer is 14%', 'The answer is $14',
            'The answer is \\$14.00', 'The answer is about 14', 'The answer is |−14|', 'The answer is 14/1',
            'The answer is 28/2', 'The answer is 14°', 'The answer is 14 = 7*2', 'Answer: 7 × 2 = 14',
            'Answer: 7 + 7 = 14 cm', 'Answer: 6 + 7 = 14', 'Answer: AB = 7 × 2 = 14', 'Answer: 28 ÷ 2 = 14',
            "Answer: 15\n\nActually, that's not right. Answer: 14", 'Answer: 14 (not 15)', 'Answer: 14, not 15',
            '答案：14', '因此，x的值是 14。', '１４', '答：14',
            'Step 1: 7+7\nStep 2: 14\n\n**Therefore, the perimeter is 14 units.**',
            'The radius is 7. The diameter is twice the radius.\nSo the diameter is 14.',
            '<think>x = 15</think>\n14', '<think>\nthe answer is 15\n</think>\n\n14',
            '```python\nprint(14)\n```\nOutput: 14', 'Thus, AB = 14.', 'Answer: \\( 14 \\)', 'Answer: \\[14\\]',
            'Answer: $$14$$', 'Answer: **14**.', 'Answer: *14*', 'Answer: __14__', 'Answer: `14`', 'Answer: "14"',
            'Answer: <14>', 'Answer: 14<|im_end|>', 'Answer: 14</s>', 'Answer: 14.\n\n\n\n', 'Answer: ~14',
            'Answer: ≈14', 'Answer: \\approx 14', 'Answer: 14 (approximately)', 'Answer: approximately 14 units',
            'Answer: 14 square units', 'Answer: 14 \\text{units}', 'Answer: 14 m', 'Answer: x is 14',
            'Answer: the value of x is 14', 'Answer: x equals 14', 'Answer: length of AB is 14 cm',
            'Answer: 14 is the length of AB', 'Answer: 14 cm is the length of AB',
            'We have\n\\begin{align*}\nx &= 2 \\cdot 7 \\\\\n&= 14\n\\end{align*}',
            '\\begin{aligned} x &= 14 \\end{aligned}', 'Therefore\n\n$$x = 14$$', 'Hence:\n\\[\nx = 14.\n\\]',
            'The length is therefore $\\boxed{14}\\,\\text{cm}$, or about 5.5 inches.',
            'First, $a^2 + b^2 = c^2$. So $c = \\sqrt{196} = 14$. The final answer is **14 units**.',
            'The answer is 14 (since lengths are positive).', 'The answer is x = 14 (we reject x = -14).',
            'x = 14 or x = -14, but lengths are positive, so x = 14.', 'The answer is 14, rejecting -14.',
            'Answer: Approximately 14.', 'Answer: $\\approx 14.0$', 'Answer: ≈ 14 cm (to the nearest cm)',
            'Answer: 14 cm (nearest cm)', 'Answer: 14 (2 s.f.)', 'Answer: 14, i.e. 2 × 7',
            'Answer: 14 since 2 × 7 = 14', 'Answer: Because 2 × 7 = 14, the answer is 14.', 'Answer:\n\n14',
            'Answer:\n\n$$14$$', 'Answer:\n\n- x = 14', '**Answer**\n\n14', '# Answer: 14',
            'Final Answer: The final answer is $\\boxed{14}$',
            'Final Answer: The final answer is 14. I hope it is correct.',
            'The final answer is $14$. $\\blacksquare$', '∴ x = 14', '\\therefore x = 14', '⇒ x = 14', '=> x = 14',
            '→ 14', 'x := 14', 'x≈14', '14 euros', '€14', '14€', '£14', 'fourteen', 'Fourteen.', '(14)', '[14]',
            '{14}', '\\{14\\}', '14√1', 'f(x) = 14', 'f(3) = 14', 'S_{ABC} = 14', 'S_{\\triangle ABC} = 14',
            'V_{cone} = 14', '|AB| = 14', '\\overline{AB} = 14', '\\widehat{AB} = 14^\\circ',
            '\\overset{\\frown}{AB} = 14', '3x + 5 = 47, so x = 14', 'The sum x + y is 14.', '+14', '-(-14)', '14.',
            '14,', '14;', '14:', ': 14', '14...', '14?', '14\\\\', '$14', '$$14', '14 (approx. 14.2)',
        ],
        [
            'The answer is 14,000.', 'The answer is 14.3', 'The answer is 13.999', 'The answer is 14 or 15',
            'The answer is 14–15', 'The answer is between 14 and 15', 'The answer is less than 14',
            'The answer is more than 14', 'The answer is > 14', 'The answer is at least 14', 'The answer is not 14',
            'The answer is 14 more than x', 'The answer is 14 times 2', 'The answer is −14', 'The answer is -14',
            'The answer is 1/14', 'The answer is 14x', 'The answer is 14π', 'The answer is 140',
            'The answer is 14 + C', 'Answer: 14 = 15', 'The answer is cannot be determined',
            'The answer is 14 if x > 0, else it cannot be determined.',
            'The answer is 14.\n\nHowever, the answer cannot be determined from the figure.',
            'The answer is 14? No, the answer is 15.', 'Answer: 14. No wait, 15.',
            '| x | y |\n|---|---|\n| 1 | 14 |', 'Step 1: 7+7 = 14\n\nSo the side is 14/2 = 7 units.',
            'Let x = 14. Then 2x = 28.', 'Answer: 14u', 'So the radius is 14 and the diameter is 28.\n\nAnswer: 28',
            'Answer: r = 14, d = 28', 'Answer: the radius is 14 and the diameter is 28',
            'Answer: 14 (radius), 28 (diameter)', 'Answer: 14 / 28', 'The answer is either 14 or -14.',
            'The answer is 14 and -14.', 'Answer: $14^\\circ$ and $76^\\circ$', '1110_2', '~~13~~ 14', '13 < x < 15',
            'x > 13', 'x ≥ 14', '14 ≤ x', '(14, 0)', '14i', '14e', '14^2', '14²', '√14', 'log 14', 'f(14)',
            'AB + BC = 14', '2x = 14', '2x = 14, x = 7', 'x + y = 14', 'y = 14x', '14 units to the left', '— 14',
            '1,4', '1 4', '1.4', '14 14', '14 | 15', '14 vs 15', '14 -> 15', '14 (15)', '14 (or 15)',
        ],
    ),
    (
        '', '15',
        [],
        [
            'The answer is 15. Wait, 14 is the answer.', "Answer: 15\n\nActually, that's not right. Answer: 14",
            'Answer: not 15 but 14', '\\boxed{14} or \\boxed{15}', '<think>\nthe answer is 15\n</think>\n\nx = 14',
            'Thus, AB = 14 and BC = 15.',
        ],
    ),
    (
        '', '2, 3',
        ['x=\\boxed{2} or x=\\boxed{3}', 'The solutions are 3 and 2'],
        ['The answer is x = 2', 'The answer is 2, 3, 4'],
    ),
    (
        '', '3',
        [],
        ['x_1=\\boxed{2}, x_2=\\boxed{3}', 'The answer is $\\pm 3$'],
    ),
    (
        '', '3, 2',
        [
            '\\boxed{x=2 \\text{ or } x=3}', '\\boxed{x = 2, 3}', '\\boxed{\\{2,3\\}}', 'x ∈ {2, 3}',
            'x \\in \\{2, 3\\}', 'The solutions are x = 2 and x = 3.',
        ],
        [],
    ),
    (
        '', '3, -3',
        ['The answer is x = ±3', 'The answer is $x = \\pm 3$'],
        ['The answer is 3'],
    ),
    (
        '', '-1+\\sqrt{2}, -1-\\sqrt{2}',
        ['The answer is x = -1 \\pm \\sqrt{2}'],
        [],
    ),
    (
        '', '0.5 m',
        ['50 cm', '0.5', 'Answer: 500 mm', 'Answer: 0.5 meters', 'Answer: 0.5 metres tall'],
        ['5 m', 'Answer: 0.5 m²', 'Answer: 0.5 kg', 'Answer: 50'],
    ),
    (
        '', '0.5',
        [],
        ['50 cm'],
    ),
    (
        '', '1.5 hours',
        ['90 minutes', '1.5', '5400 s'],
        ['90'],
    ),
    (
        '', '1 m²',
        ['10000 cm²', '10,000 cm^2'],
        ['100 cm²'],
    ),
    (
        '', '1000 cm^3',
        ['1 L'],
        [],
    ),
    (
        '', '1 L',
        ['1000 mL'],
        [],
    ),
    (
        '', '20 m/s',
        ['72 km/h'],
        [],
    ),
    (
        '', '20',
        ['20 m/s'],
        [],
    ),
    (
        '', '60',
        [
            '60°', '60 ^\\circ', '∠ABC = 60°', '$\\angle ABC = 60^\\circ$',
            'The measure of angle ABC is 60 degrees.', 'angle = 60 °', '60.0°', '60 degree',
        ],
        [],
    ),
    (
        '', '60^\\circ',
        ['60 degrees', '60^{\\circ}'],
        [],
    ),
    (
        '', '60°',
        [
            '$60^{\\circ}$', '60º', '60˚', '60\\degree', '60 deg', '60∘', 'π/3 rad', '60', 'm\\angle ABC=60', '60度',
        ],
        ['π/3', '\\frac{\\pi}{3}', '60 rad', "60'", "60° 30'", '120°', '-60°'],
    ),
    (
        '', '60.5°',
        ["60°30'"],
        [],
    ),
    (
        '', '315^\\circT',
        [
            '315° T', '315°T', 'N45°W', 'N 45° W', '45° west of north', 'W 45° N', 'northwest', 'NW',
            '315 degrees true', '315° true bearing', 'The true bearing is 315°', '315 T',
        ],
        ['045° T', '-45°', '135° T', 'N45E'],
    ),
    (
        '', '053 ^\\circ T',
        ['53° T', '053°', '053'],
        [],
    ),
    (
        '', 'S 23.5 ^\\circ W',
        ['S23.5°W', 'S 23.5 W', '203.5° T', '203.5', 'South 23.5° West', 'W 66.5° S'],
        ['S23.5°E', '23.5°'],
    ),
    (
        'Give your answer to one decimal place.', 'S 23.5 ^\\circ W',
        ['S 23.46° W'],
        ['S 23.4° W'],
    ),
    (
        '', '2.5',
        ['2 1/2', '2\\frac{1}{2}', '2 ½', '2½'],
        ['21/2', '2 1/3'],
    ),
    (
        '', '5/2',
        ['$2\\frac12$'],
        [],
    ),
    (
        '', '1:64',
        ['1:64', '1 to 64', '1/64', '\\frac{1}{64}', '1∶64', '$1 : 64$', 'The ratio is 1:64.'],
        ['64:1', '64'],
    ),
    (
        '', '4:6:8',
        ['2:3:4'],
        [],
    ),
    (
        '', '3:2',
        [],
        ['2:3'],
    ),
    (
        '', '100',
        ['100:1', '100 to 1'],
        ['1:100'],
    ),
    (
        '', '0.25',
        ['25%'],
        [],
    ),
    (
        '', '25%',
        ['0.25', '25 percent', '25', '1/4', '25\\%'],
        ['0.25%', '2.5%'],
    ),
    (
        '', '25',
        ['25%'],
        ['0.25'],
    ),
    (
        '', '25\\%',
        ['25 per cent'],
        [],
    ),
    (
        '', '320000',
        [
            '3.2 × 10^5', '3.2 x 10^5', '3.2 \\times 10^{5}', '3.2E5', '3.2*10**5', '320,000', '320 000',
            '320\\,000', '320{,}000', '3.2×10⁵',
        ],
        ['3.2 × 10^6', '3.2 × 10^{-5}', '3,20,000', '320.000'],
    ),
    (
        '', '(-\\infty, 4]',
        [
            '(-∞, 4]', 'x ≤ 4', '{x | x ≤ 4}', '\\{x \\mid x \\leq 4\\}', 'x \\in (-\\infty, 4]', 'x ∈ (−∞, 4]',
            'Domain: (-∞, 4]', '$(-\\infty,4]$', '(-inf, 4]', '-∞ < x ≤ 4', 'the interval (-∞, 4]',
        ],
        ['x < 4', 'x ≥ 4', '[-∞, 4]', '(4, -∞)', '4'],
    ),
    (
        '', '(-\\infty, \\infty)',
        ['all real numbers', 'ℝ', '\\mathbb{R}', '(-∞,∞)', '-∞ < x < ∞'],
        [],
    ),
    (
        '', '(-2,1]',
        ['-2 < x ≤ 1', 'x > -2 and x ≤ 1', '1 ≥ x > -2', 'x in (-2, 1]'],
        ['(-2, 1)', '[-2, 1]', '(-2,1] ∪ (3,4)', '-1, 0, 1'],
    ),
    (
        '', '(-\\infty,-2) \\cup (3, \\infty)',
        ['x < -2 or x > 3', '(-∞,-2)∪(3,∞)', '(3,∞) ∪ (-∞,-2)', '(-∞,-2) and (3,∞)'],
        ['(-∞,-2] ∪ (3,∞)', '(-2,3)'],
    ),
    (
        '', 'y=2x+1',
        [
            'y = 2x + 1', '2x + 1', 'f(x) = 2x+1', 'y - 2x = 1', '2x - y + 1 = 0', 'y = 1 + 2x', 'y=2(x+1/2)',
            'x = (y-1)/2', 'The equation of the line is y = 2x + 1.',
        ],
        [
            'y = 2x - 1', 'y = x/2 + 1', 'y > 2x + 1', 'slope 2, intercept 1', 'x = 2y + 1', 'y = 2x + b', 'y=mx+1',
            'y = 2t+1',
        ],
    ),
    (
        '', '(2,-2)',
        [
            '(2, -2)', 'x = 2, y = -2', '(2,−2)', 'M(2,-2)', 'M = (2, -2)', 'The midpoint is (2, -2).',
            '(2.0, -2.0)', '$\\left(2,-2\\right)$', '\\boxed{(2,-2)}', 'y=-2, x=2', '(x, y) = (2, -2)', '2 and -2',
        ],
        ['(-2, 2)', '(2, 2)', '(2, -2, 0)', '[2, -2]', '-2 and 2', '-2, 2'],
    ),
    (
        '', '(3,4), (1,2)',
        ['(1,2) and (3,4)'],
        [],
    ),
    (
        '', '(1,2) and (3,4)',
        ['(1,2), (3,4)'],
        [],
    ),
    (
        '', '(1,2), (3,4)',
        ['A(1,2), B(3,4)'],
        ['(1,3) and (2,4)', '(1,2)'],
    ),
    (
        '', 'a=4, b=3',
        ['a=4, b=3', 'b=3, a=4', '4, 3'],
        ['a=3, b=4', '3, 4', 'a = 4'],
    ),
    (
        '', '\\frac{x^2}{81}+\\frac{y^2}{9}=1',
        [
            'x^2/81 + y^2/9 = 1', 'x²/9² + y²/3² = 1', 'x^2 + 9y^2 = 81', '\\frac{x^2}{9^2}+\\frac{y^2}{3^2}=1',
        ],
        ['x^2/9 + y^2/81 = 1', 'x^2/81 - y^2/9 = 1', 'x^2/81 + y^2/9', 'x^2/81+y^2/9=0'],
    ),
    (
        '', '6\\sqrt{3}',
        ['6√3', '6\\sqrt 3', '√108', '6*3^(1/2)', '6 sqrt 3', '18/√3', '6√3 ≈ 10.39 cm'],
        ['10.39', '6√3 ≈ 12', '3√6', '6√3²', '63'],
    ),
    (
        'Round your answer to one decimal place.', '10.4',
        ['10.4', '10.39', '6√3', '10.40', '10.44'],
        ['10.3', '10', '10.5', '10.46', '10,4'],
    ),
    (
        'Round your answer to two decimal places.', '12.57',
        ['12.57', '4π', '4π ≈ 12.57', '\\boxed{4\\pi \\approx 12.57}', '12.566'],
        ['12.56', '12.6'],
    ),
    (
        'Round your answer to two decimal places.', '12.57 cm',
        ['12.57 cm', '125.7 mm'],
        ['12.57 cm^2'],
    ),
    (
        'to the nearest whole number.', '285',
        ['284.6', '285', '285.4'],
        ['285.6'],
    ),
    (
        '', 'True',
        ['True', 'true.', 'The statement is true'],
        ['False', 'Yes', 'Not true'],
    ),
    (
        '', 'even',
        ['even', 'Even function', 'The function is even.', 'It is an even function'],
        ['odd', 'neither', 'not even', 'even or odd', 'both even and odd', 'uneven'],
    ),
    (
        '', 'neither even nor odd',
        [],
        ['neither'],
    ),
    (
        '', 'neither',
        ['Neither'],
        [],
    ),
    (
        '', 'Area $=9 \\pi \\mathrm{cm}^{2}$',
        [
            '9π cm²', '9π', 'A = 9π square centimeters', '9\\pi\\,\\text{cm}^2',
            '$9\\pi \\text{ square centimeters}$', '3²π', 'π·3²', '900π mm²', '9 pi', '9𝜋', '9𝛑', '9 π cm^{2}.',
            'Area of circle: 9π', 'The area of the shaded region is 9π.',
        ],
        ['28.27 cm²', '9π cm', '9', '9π − 18'],
    ),
    (
        '', '0.75',
        ['3/4'],
        [],
    ),
    (
        '', '\\frac{3}{4}',
        [
            '0.75', '.75', '6/8', '\\frac34', '3 / 4', 'sin A = 3/4', '$\\sin A=\\frac{3}{4}$', 'tan θ = 0.75',
            '\\cos(A) = \\frac{3}{4}', 'P(A) = 3/4', 'slope = 3/4', 'The slope m = 3/4',
        ],
        ['3\\4', '4/3', '-3/4'],
    ),
    (
        '', '14 cm',
        [
            '所以周长为14厘米。', '答案是14厘米', '14厘米', 'Therefore\n\n\\[ x = 14 \\text{ cm} \\]',
            'Answer: Roughly 14 cm', 'x = 14cm', 'x = 14㎝',
        ],
        ['14米', '14 cm and 15 cm', 'Answer: 14 units²', '14 people'],
    ),
    (
        '', 'BC=14',
        [],
        ['AB=14'],
    ),
    (
        '', 'y=14',
        [],
        ['x=14'],
    ),
    (
        '', '$h=14$',
        [],
        ['r=14'],
    ),
    (
        '', '0.33',
        [],
        ['1/3'],
    ),
    (
        '', '1/3',
        [],
        ['0.33', '0.333...'],
    ),
    (
        '', 'π',
        [],
        ['3.14159'],
    ),
    (
        '', 'e',
        [],
        ['2.718'],
    ),
    (
        '', '12.625',
        ['12 5/8'],
        [],
    ),
    (
        '', '-1.5',
        ['-1 1/2', '-1\\frac{1}{2}'],
        [],
    ),
    (
        '', '-0.5',
        [],
        ['-1 1/2'],
    ),
    (
        '', '\\frac{\\sqrt{3}}{2}',
        ['√(3)/2', '√3/2', '\\sqrt{3}/2', '\\sqrt\\frac{3}{4}', 'sin 60°'],
        ['\\sqrt{3/2}', 'sin 60'],
    ),
    (
        '', '1024',
        ['2^{10}', '2^10'],
        ['2^{11}'],
    ),
    (
        '', '2^{10}',
        [],
        ['210'],
    ),
    (
        '', '5',
        ['x=5', '5=x', '5 apples', '5 years old', '5 people'],
        ['5 dozen', '5 hundred'],
    ),
    (
        '', '$x=5$',
        ['X = 5'],
        [],
    ),
    (
        '', '$x=8 \\mathrm{~cm}$',
        ['8cm', '80 mm'],
        ['x=5 cm', 'x = 5, x = 8'],
    ),
    (
        '', '12x^2+144x+384 \\mathrm{m}^3',
        [
            '12x^2 + 144x + 384 m^3', '12(x^2+12x+32)', '12x²+144x+384 cubic meters', 'V = 12x^2+144x+384',
            'V(x) = 12x^2+144x+384',
        ],
        ['12x^2+144x'],
    ),
    (
        '', 'increasing on (-\\infty, 2)',
        ['increasing on (-∞, 2)'],
        ['decreasing on (-∞, 2)'],
    ),
    (
        '', '0',
        ['0', 'zero', '0.0', '-0'],
        ['none', 'nothing'],
    ),
    (
        '', 'undefined',
        ['undefined'],
        [],
    ),
    (
        '', '\\infty',
        ['infinity'],
        [],
    ),
    (
        '', 'no solution',
        ['no solution'],
        [],
    ),
    (
        '', '3e8',
        ['Answer: 3.0 × 10^8 m/s'],
        [],
    ),
    (
        '', 'AB',
        ['AB', 'BA'],
        ['AC'],
    ),
    (
        '', '1000',
        [],
        ['10 to the power 3'],
    ),
    (
        '', '20 km/h',
        [],
        ['20 mph'],
    ),
    (
        '', '-14',
        ['−14', 'minus 14', 'negative 14', '- 14'],
        ['x = 14 or x = -14, but lengths are positive, so x = 14.'],
    ),
    (
        '', '14 cm^2',
        [
            'area = 14㎠', '14 sq. cm', '14 sq cm', '14 square cm', '14 cm squared', '14 centimetres squared',
        ],
        [],
    ),
    (
        '', '14 cm^3',
        ['14 cubic centimeters', '14 mL'],
        [],
    ),
    (
        '', '14 ft',
        ['14 ft.', '14 feet'],
        [],
    ),
    (
        '', '14 m',
        [],
        ['14 ft'],
    ),
    (
        '', '14 kg',
        [],
        ['14 lb', '14 pounds'],
    ),
    (
        '', '14 L',
        [],
        ['14 gallons'],
    ),
    (
        '', '14 days',
        [],
        ['14 weeks'],
    ),
    (
        '', '14\\pi',
        ['A_{\\text{shaded}} = 14\\pi'],
        [],
    ),
    (
        '', '$y=14$',
        ['y = 14'],
        [],
    ),
    (
        '', '14 km',
        ['d = 14'],
        ['14 km north'],
    ),
    (
        '', '14%',
        ['14\\%'],
        [],
    ),
    (
        '', '2 + 3.5π',
        ['3.5π + 2'],
        [],
    ),
    (
        '', '\\frac{7\\pi}{2}+2',
        ['2+3.5 pi'],
        [],
    ),
    (
        '', '\\frac{3+\\sqrt{5}}{2}',
        ['(3+√5)/2', '1.5 + √5/2'],
        ['(3±√5)/2', '3+√5/2'],
    ),
    (
        '', '8\\sqrt{3}-4\\pi',
        ['8√3 − 4π', '4(2√3−π)'],
        ['8√3 + 4π'],
    ),
    (
        '', 'y=3-0.5x',
        ['y = -\\frac{1}{2}x + 3', 'x + 2y = 6', 'x + 2y - 6 = 0'],
        ['x + 2y', 'x+2y=-6'],
    ),
    (
        '', '\\text { local maximum: }(-3,60) \\text {, local minimum: }(3, -60)',
        [
            'local max at (-3, 60), local min at (3, -60)', 'Local maximum: $(-3, 60)$; local minimum: $(3, -60)$',
            'The function has a local maximum at (-3, 60) and a local minimum at (3, -60).',
        ],
        [
            'local maximum at x=-3, local minimum at x=3',
            'The function has a local minimum at (-3, 60) and a local maximum at (3, -60).',
        ],
    ),
    (
        '', 'Increasing at (2, \\infty) and decreasing at (-\\infty, 2)',
        [
            'Increasing: (2, ∞); Decreasing: (-∞, 2)',
            'The function is increasing on the interval (2, ∞) and decreasing on the interval (-∞, 2).',
            'Increasing on x > 2; decreasing on x < 2', 'Increasing: $(2, \\infty)$\nDecreasing: $(-\\infty, 2)$',
        ],
        [
            'Increasing on (-∞, 2), decreasing on (2, ∞)', '- Increasing on (-∞, 2)\n- Decreasing on (2, ∞)',
        ],
    ),
    (
        '', 'domain: [-4, 0) and range: (-3, 1]',
        [
            'The domain is [-4, 0) and the range is (-3, 1].', 'Domain: -4 ≤ x < 0, Range: -3 < y ≤ 1',
            'Domain: $[-4, 0)$\nRange: $(-3, 1]$',
            'From the graph we read both.\n\n**Domain:** $[-4, 0)$\n\n**Range:** $(-3, 1]$',
            'The final answer is:\n\n- **Domain:** [-4, 0)\n- **Range:** (-3, 1]',
            'Answer: Domain: [-4, 0)\nRange: (-3, 1]', 'Answer: Domain: [-4, 0), Range: (-3, 1]',
            'Answer: The domain is [-4, 0) and the range is (-3, 1].',
        ],
        [
            'Domain: $[-4, 0]$\nRange: $(-3, 1]$', 'Domain: $(-3, 1]$\nRange: $[-4, 0)$', 'Domain: $[-4, 0)$',
            'Range: $(-3, 1]$', 'The domain and the range are [-4, 0)',
        ],
    ),
]


@pytest.mark.parametrize(("choices", "gold", "right", "wrong"), CHOICES, ids=range(len(CHOICES)))
def test_choices(choices: list[str], gold: str, right: list[str], wrong: list[str]) -> None:
    def verdict(response: str) -> bool:
        letter = chosen_letter(response, choices)
        return letter is not None and same_choice(letter, gold, choices)

    assert [response for response in right if not verdict(response)] == [], "right, and refused"
    assert [response for response in wrong if verdict(response)] == [], "wrong, and accepted"


@pytest.mark.parametrize(("question", "gold", "right", "wrong"), FREE_FORM, ids=range(len(FREE_FORM)))
def test_free_form(question: str, gold: str, right: list[str], wrong: list[str]) -> None:
    def verdict(response: str) -> bool:
        answer = final_answer(response)
        return answer is not None and equal(answer, gold, decimals_asked(question))

    assert [response for response in right if not verdict(response)] == [], "right, and refused"
    assert [response for response in wrong if verdict(response)] == [], "wrong, and accepted"
