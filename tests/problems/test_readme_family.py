"""What the README shows works as it stands there."""

import re
from pathlib import Path

from problems.families import plane_geometry
from problems.pairs import VERSIONS, construct
from problems.problem import Reject


def test_the_family_in_the_readme_makes_problems():
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
    (source,) = [block for block in blocks if "-> Problem" in block]
    names = dict(vars(plane_geometry))  # it is written as a function of such a file
    exec(compile(source, "README.md", "exec"), names)
    made = 0
    for seed in range(40):
        try:  # solved, measured, its equations checked, drawn in all six versions
            example = construct(names["square_diagonal"], "plane_geometry", str(seed), small=False, picture_size=400,
                                levels=VERSIONS)
        except Reject:  # the answer happened to stand in the text
            continue
        assert example.problem.ask.answer.text in example.response and len(example.pictures) == 6
        made += 1
    assert made > 30
