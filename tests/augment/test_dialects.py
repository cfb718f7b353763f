"""Every dialect in the table of augment/README.md becomes the one form, exactly; what is not understood is refused."""

import base64
import json
import random
import re
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_helpers import damage
from PIL import Image

from augment import containers
from augment.dialects import (FIGURE, FILM, MAX_TEXT, OPTION_MARK, PLACE, SINGLE_BACKSLASH, normalise,
                              speaks_of_figure)
from sources import PLACEHOLDER, BadRow, BenchmarkRow, conversations
from tests.augment.growth import MOST, growth

README = Path(__file__).parents[2] / "augment" / "README.md"
TABLES = README.read_text().split("## What is read")[1].split("\n## ")[0].split("| refused |")
READ, REFUSALS = ([line.split(" | ")[0].strip("| ") for line in table.splitlines() if line.startswith("| ")]
                  for table in TABLES)


def png(shade: int = 7) -> bytes:
    """A picture of 2 x 2 pixels."""
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes([0, shade, shade] * 2))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind,
            data in chunks)


PNG = png()
BASE64 = base64.b64encode(PNG).decode()


def parts(*pieces: object) -> list[dict]:
    """"I:a.png" and bytes are pictures, any other text is a text."""
    return [{"image": piece} if not isinstance(piece, str) else {"image": piece[2:]} if piece.startswith("I:")
            else {"text": piece} for piece in pieces]


def said(*turns: object, system: str = "", **own: object) -> dict:
    """A row in the one form: user, assistant, user ... by turns, each a text or a tuple of pieces."""
    turns = [{"role": ("user", "assistant")[index % 2], "content": parts(*(t if isinstance(t, tuple) else (t,)))}
             for index, t in enumerate(turns)]
    first = [{"role": "system", "content": parts(system)}] if system else []
    return {**own, "turns": first + turns}


def pair(strong: object, weak: object, response: str, **own: object) -> dict:
    return {**own, "strong": said(strong, response), "weak": said(weak, response)}


Q, A = "Sides 3 and 4. Find the third one.", "By Pythagoras it is 5."
ASKED = {"role": "user", "content": Q}
SAID = {"role": "assistant", "content": A}


def lettered(*options: str) -> str:
    return "\n".join(["Choices:", *(f"({chr(65 + index)}) {text}" for index, text in enumerate(options))])


EXAMPLES: dict[str, list[tuple[dict, dict]]] = {
    "the one form": [
        (said(("Left: ", "I:a.png", " right: ", "I:b.png"), A, "Why?", "So.", system="Be kind.", id="7", level=2),) * 2,
        (said((PNG, Q), A), said((PNG, Q), A)),
    ],
    "a pair in the one form": [(pair(("I:a.png", Q), ("I:b.png",), A, id="9", family="f"),) * 2],
    "Math-PUMA": [
        ({"image_url": "a.png", "instruction": Q, "output": A, "answer": "5", "seed": 0, "methods": ["blur"]},
         said(("I:a.png", Q), A, answer="5", seed=0, methods=["blur"])),
        ({"image_url": "", "instruction": Q, "output": A}, said(Q, A)),
    ],
    "a pair of Math-PUMA": [
        ({"id": 3, "image_url": "", "instruction": Q, "output": A, "image_url_2": "b.png", "instruction_2": "",
          "output_2": A, "level_2": "rendered"}, pair(Q, ("I:b.png",), A, id="3", level_2="rendered")),
    ],
    "LLaVA, ShareGPT": [
        ({"id": "1", "image": "a.png", "conversations": [
            {"from": "gpt", "value": "Hello!"}, {"from": "human", "value": f"<image>\n{Q}"}, {"from": "gpt",
             "value": A},
            {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]},
         said(("I:a.png", Q), A, "Sure?", "Yes.", id="1")),
        ({"image": ["a.png", "b.png"], "conversations": [
            {"from": "human", "value": "First: <image> Second: <image>"}, {"from": "gpt", "value": A}]},
         said(("First: ", "I:a.png", " Second: ", "I:b.png"), A)),
        ({"image": ["a.png", "b.png"], "conversations": [
            {"from": "human", "value": "One <image>"}, {"from": "gpt", "value": A},
            {"from": "human", "value": "<image> two"}, {"from": "gpt", "value": A}]},
         said(("One ", "I:a.png"), A, ("I:b.png", "two"), A)),
        ({"conversations": json.dumps([{"from": "human", "value": Q}, {"from": "gpt", "value": A}])}, said(Q, A)),
        ({"conversations": {"from": ["human", "gpt"], "value": [Q, A]}}, said(Q, A)),
        ({"image": "a.png", "caption": "A long caption.", "conversations": [
            {"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
         said(("I:a.png", Q), A)),
    ],
    "ms-swift's conversation": [
        ({"system": "Be kind.", "conversation": [{"human": Q, "assistant": A}, {"human": "Why?", "assistant": "So."}]},
         said(Q, A, "Why?", "So.", system="Be kind.")),
        ({"conversation": [{"user": Q, "assistant": A}]}, said(Q, A)),
        ({"conversation": [{"system": "Be kind.", "input": Q, "output": A}]}, said(Q, A, system="Be kind.")),
        ({"conversation": [[Q, A], ["Why?", "So."]]}, said(Q, A, "Why?", "So.")),
    ],
    "messages": [
        ({"messages": [{"role": "system", "content": "Be kind."}, ASKED, SAID]}, said(Q, A, system="Be kind.")),
        ({"system": "Be kind.", "messages": [ASKED, SAID]}, said(Q, A, system="Be kind.")),
        ({"problem": Q, "solution": A, "source": "x", "messages": [ASKED, SAID]}, said(Q, A, source="x")),
        ({"images": ["a.png", "b.png"], "messages": [{"role": "user", "content": "Which is round?<image><image>"},
         SAID]},
         said(("Which is round?", "I:a.png", "I:b.png"), A)),
        ({"messages": [{**ASKED, "images": ["a.png"]}, SAID]}, said(("I:a.png", Q), A)),
        ({"messages": [{"role": "<|User|>", "content": f"<image_placeholder>\n{Q}", "images": ["a.png"]},
                       {"role": "<|Assistant|>", "content": A}]}, said(("I:a.png", Q), A)),
        ({"tools": "[]", "messages": [{**ASKED, "name": "me"}, {**SAID, "tool_calls": None, "weight": 1}]}, said(Q, A)),
    ],
    "content parts": [
        ({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text",
         "text": A}]}],
          **row}, said(expected, A))
        for content, row, expected in [
            ([{"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}}, {"type": "text", "text": Q}], {},
             ("I:a.png", Q)),
            ([{"type": "text", "text": "Here: "}, {"type": "image"}, {"type": "text", "text": Q}],
             {"images": ["a.png"]},
             ("Here: ", "I:a.png", Q)),
            ([{"image": "a.png"}, {"text": Q}, {"image": "b.png"}], {}, ("I:a.png", Q, "I:b.png")),
            ([{"type": "image_url", "value": "a.png"}, {"type": "text", "value": Q}], {}, ("I:a.png", Q)),
            ([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}, Q], {}, (PNG, Q)),
            ([{"type": "input_image", "image_url": "a.png"}, {"type": "input_text", "text": Q}], {}, ("I:a.png", Q)),
            ([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}, Q], {},
             (PNG, Q)),
            ([{"type": "image", "text": None, "index": 1}, {"type": "text", "text": Q, "index": None},
              {"type": "image", "text": None, "index": 0}], {"images": [{"bytes": PNG, "path": None}, "b.png"]},
             ("I:b.png", Q, PNG)),
            ([{"type": "image", "image": "a.png"}, {"type": "text", "text": f"<image>\n{Q}"}], {}, ("I:a.png", Q)),
            ([{"type": "image", "image": "a.png"}, {"type": "text", "text": Q}], {"images": ["a.png"]}, ("I:a.png", Q)),
        ]
    ],
    "ms-swift's query": [
        ({"query": Q, "response": A}, said(Q, A)),
        ({"query": "Why?", "response": "So.", "history": [[Q, A]], "system": "Be kind."},
         said(Q, A, "Why?", "So.", system="Be kind.")),
        ({"query": "And <image>?", "response": "So.", "history": [["Is <image> round?", A]], "images": ["a.png",
         "b.png"]},
         said(("Is ", "I:a.png", " round?"), A, ("And ", "I:b.png", "?"), "So.")),
        ({"query": f"<img>a.png</img>{Q}", "response": A, "history": []}, said(("I:a.png", Q), A)),
    ],
    "Alpaca": [
        ({"instruction": "Solve.", "input": Q, "output": A}, said(f"Solve.\n{Q}", A)),
        ({"instruction": Q, "input": "", "output": A, "history": [["Hello?", "Hi."]], "system": "Be kind."},
         said("Hello?", "Hi.", Q, A, system="Be kind.")),
    ],
    "prompt and completion": [
        ({"prompt": Q, "completion": A}, said(Q, A)),
        ({"prompt": Q, "response": A, "answer": "5"}, said(Q, A, answer="5")),
        ({"prompt": [ASKED], "completion": [SAID]}, said(Q, A)),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": Q}]}],
         "images": ["a.png"],
          "completion": A}, said(("I:a.png", Q), A)),
    ],
    "problem and solution": [
        ({"problem": Q, "solution": A, "level": "Level 1"}, said(Q, A, level="Level 1")),
        ({"problem": Q, "answer": 5}, said(Q, "5", answer="5")),
        ({"problem": Q, "answer": "5", "solution": A}, said(Q, A, answer="5")),
        ({"problem": Q, "answer": "5", "solution": "Add the squares: \\boxed{5}. Done"},
         said(Q, "Add the squares: \\boxed{5}. Done", answer="5")),
        ({"problem": Q, "answer": "5", "solution": "So \\boxed{15}"}, said(Q, "So \\boxed{15}\nAnswer: 5", answer="5")),
        ({"problem": Q, "answer": "D", "solution": "So \\boxed{3}. Done"},
         said(Q, "So \\boxed{3}. Done\nAnswer: D", answer="D")),
        ({"problem": Q, "answer": "D", "solution": "So $\\boxed{\\textbf{(D)}\\ 3}$."},
         said(Q, "So $\\boxed{\\textbf{(D)}\\ 3}$.", answer="D")),
        ({"problem": Q, "answer": "$5$", "solution": "So it is $5$."}, said(Q, "So it is $5$.", answer="$5$")),
        ({"problem": Q, "answer": "5", "solution": "Three, four, and so on: 25"},
         said(Q, "Three, four, and so on: 25\nAnswer: 5", answer="5")),
    ],
    "question and answer": [
        ({"question": Q, "answer": A}, said(Q, A, answer=A)),
        ({"question": Q, "answer": None, "short_answer": "5"}, said(Q, "5", answer="5")),
        ({"question": Q, "answer": 2.5}, said(Q, "2.5", answer="2.5")),
        ({"question": Q, "answer": 3.0}, said(Q, "3.0", answer="3.0")),
        ({"question": Q, "ground_truth": "5", "image_path": "a.png"}, said(("I:a.png", Q), "5", answer="5")),
        ({"question": Q, "answer": ["5", "5"]}, said(Q, "5", answer="5")),
        ({"question": Q, "answers": ["5"]}, said(Q, "5", answer="5")),
        ({"question": Q, "final_answer": ["$1$", "$2$"], "is_multiple_answer": True},
         said(Q, "$1$, $2$", answer="$1$, $2$", is_multiple_answer=True)),
    ],
    "question, work and answer": [
        ({"question": Q, "answer": "5", key: "Add the squares."}, said(Q, "Add the squares.\nAnswer: 5", answer="5"))
        for key in ("solution", "rationale", "explanation", "reasoning", "cot")
    ] + [
        ({"question": Q, "answer": "5", "solution": None}, said(Q, "5", answer="5")),
        ({"question": Q, "answer": "5", "solution": float("nan")}, said(Q, "5", answer="5")),
        ({"question": Q, "solution": [A, "Another way."], "final_answer": ["5"]}, said(Q, A, answer="5")),
    ],
    "options": [
        ({"question": Q, "choices": ["4", "5"], "answer": "(B)"}, said(f"{Q}\n{lettered('4', '5')}", "(B)",
         answer="(B)")),
        ({"question": f"{Q} A. 4 B. 5", "choices": ["4", "5"], "answer": "B"}, said(f"{Q} A. 4 B. 5", "B", answer="B")),
        ({"question": Q, "options": ["A", "B", "C"], "answer": "C", "image": "a.png"},
         said(("I:a.png", Q), "C", answer="C")),
        ({"question": Q, "choices": ["40", "50", "60", "70"], "answer": 3, "solution": "70 is the largest."},
         said(f"{Q}\n{lettered('40', '50', '60', '70')}", "70 is the largest.\nAnswer: D", answer="D")),
        ({"question": Q, "options": ["A)6", "B)8"], "rationale": "Double it.", "correct": "B"},
         said(f"{Q}\n{lettered('6', '8')}", "Double it.\nAnswer: B", answer="B")),
    ] + [
        ({"question": Q, key: value, "answer": "B"}, said(f"{Q}\n{lettered('4', '5')}", "B", answer="B"))
        for key, value in [
            ("options", [4, 5]), ("options", {"A": "4", "B": "5"}), ("options", {"B": "5", "A": 4, "C": None}),
            ("choices", '["4", "5"]'), ("choices", "['4', '5']"), ("option", "A. 4; B. 5"), ("options",
             "a ) 4 , b ) 5"),
            ("options", np.array(["4", "5"], dtype=object)), ("choices", {"text": ["4", "5"], "label": ["A", "B"]}),
            ("options", [{"label": "A", "text": "4"}, {"label": "B", "text": "5"}]), ("options", [{"A": "4"},
             {"B": "5"}]),
        ]
    ] + [
        ({"question": Q, "A": "4", "B": 5, "answer": "B"}, said(f"{Q}\n{lettered('4', '5')}", "B", answer="B")),
        ({"question": Q, "option_a": "4", "option_b": "5", "answer_index": 1},
         said(f"{Q}\n{lettered('4', '5')}", "B", answer="B")),
        ({"question": Q, "a": 3, "b": 4, "answer": "5"}, said(Q, "5", answer="5")),
        ({"question": Q, "options": "['\\\\frac{1}{2}', '\\\\neq']", "answer": "B"},
         said(f"{Q}\n{lettered(chr(92) + 'frac{1}{2}', chr(92) + 'neq')}", "B", answer="B")),
        ({"question": Q, "options": {str(n): f"{n} cm" for n in range(12)}, "answer": 10},
         said(f"{Q}\n{lettered(*(f'{n} cm' for n in range(12)))}", "K", answer="K")),
        ({"question": Q, "options": {"A": "4", "B": "5"}, "label": "B", "answer": None},
         said(f"{Q}\n{lettered('4', '5')}", "B", answer="B")),
        ({"question": Q, "choices": {"text": ["4", "5"], "label": ["1", "2"]}, "answerKey": "2"},
         said(f"{Q}\n{lettered('4', '5')}", "B", answer="B")),
        ({"question": Q, "choices": [30, 40], "answer": 40}, said(f"{Q}\n{lettered('30', '40')}", "B", answer="B")),
        ({"query": Q, "response": A, "choices": ["4", "5"]}, said(f"{Q}\n{lettered('4', '5')}", A)),
        ({"question": Q, "choices": ["4 cm", "5 cm"], "answer": 1.0},
         said(f"{Q}\n{lettered('4 cm', '5 cm')}", "B", answer="B")),
        ({"question": f"{Q} A. 4 B. 5", "options": ["A", "B"], "answer": "B"}, said(f"{Q} A. 4 B. 5", "B", answer="B")),
    ],
    "TabMWP": [
        ({"question": "How many?", "choices": None, "answer": "7", "unit": "pounds", "table_title": "Weights (lbs)",
          "table": "x | y\n1 | 7 ", "table_for_pd": {"x": ["1"], "y": ["7"]}, "row_num": 2, "solution": "Read it off."},
         said("Weights (lbs)\n| x | y |\n| 1 | 7 |\nHow many?\n(Unit: pounds)", "Read it off.\nAnswer: 7", answer="7",
             row_num=2)),
        ({"question": "How many?", "answer": "7", "table": {"x": ["1", "2"], "y": [7, 8]}},
         said("| x | y |\n| 1 | 7 |\n| 2 | 8 |\nHow many?", "7", answer="7")),
        ({"question": "How many?", "answer": "7", "table": [["x", "y"], [1, 7]]},
         said("| x | y |\n| 1 | 7 |\nHow many?", "7", answer="7")),
        ({"question": "How many?", "answer": "7", "table": [{"x": 1, "y": 7}]},
         said("| x | y |\n| 1 | 7 |\nHow many?", "7", answer="7")),
        ({"question": "x | y\n1 | 7\nHow many?", "answer": "7", "table": "x | y\n1 | 7"},
         said("x | y\n1 | 7\nHow many?", "7", answer="7")),
    ],
    "context": [
        ({"question": Q, "answer": "5", key: "All angles are right.", "image": ""},
         said(f"All angles are right.\n{Q}", "5", answer="5")) for key in ("context", "passage", "hint")
    ],
    "numbered pictures": [
        ({"question": "Which of <image 1> and <image 2> is round?", "image_1": {"bytes": PNG, "path": "1.png"},
          "image_2": "b.png", "image_3": None, "options": "['<image 2>', 'none']", "answer": "A"},
         said(("Which of ", PNG, " and ", "I:b.png", " is round?\nChoices:\n(A) ", "I:b.png", "\n(B) none"), "A",
              answer="A")),
        ({"question": Q, "image": "a.png", "image_2": "b.png", "answer": "5"},
         said(("I:a.png", "I:b.png", Q), "5", answer="5")),
    ],
    "FineVision": [
        ({"images": [{"bytes": PNG, "path": None}], "texts": [{"user": Q, "assistant": A}, {"user": "Why?", "assistant":
          "So."}], "relevance_ratings": [5, 4], "source": "geo"},
         said((PNG, Q), A, "Why?", "So.", relevance_ratings=[5, 4], source="geo")),
    ],
    "MAVIS-Geometry": [
        ({"image_text_dominant": "a.png", "image_text_lite": "a.png", "image_vision_dominant": "b.png",
         "answer_index": 1,
          "choices": ["4", "5"], "text_zh": {"caption": "三角形"}, "text_en": {
              "caption": "Legs.", "text_dominant_question": Q, "text_lite_question": "Find it.",
              "vision_dominant_question": "Find it.", "CoT_reasoning": A}},
         pair(("I:a.png", f"{Q}\n{lettered('4', '5')}"), ("I:b.png", f"Find it.\n{lettered('4', '5')}"), A,
              answer_index=1)),
    ],
    "verl": [
        ({"prompt": [ASKED], "data_source": "gsm", "reward_model": {"style": "rule", "ground_truth": "5"}},
         said(Q, "5", data_source="gsm", answer="5")),
    ],
    "embedded pictures": [
        ({"query": Q, "response": A, key: value}, said((expected, Q), A))
        for key, value, expected in [
            ("image", {"bytes": PNG, "path": "a.png"}, PNG), ("images", [{"bytes": PNG, "path": None}], PNG),
            ("image", {"bytes": None, "path": "a.png"}, "I:a.png"), ("bytes", PNG, PNG), ("image", BASE64, PNG),
            ("image_base64", BASE64, PNG), ("image", {"bytes": BASE64}, PNG), ("jpg", bytearray(PNG), PNG),
            ("image", f"data:image/png;base64,{BASE64}", PNG),
            ("image", {"file": "pack.bin", "offset": 5, "length": 9}, {"file": "pack.bin", "offset": 5, "length": 9}),
        ]
    ],
    "placeholders": [
        ({"question": f"See {mark} here", "answer": "5", "images": ["a.png"]},
         said(("See ", "I:a.png", " here"), "5", answer="5"))
        for mark in ("<image>", "<Image>", "<image1>", "<image 1>", "<image_1>", "<|image_1|>", "<|image|>",
            "{image#1}",
                     "[IMG]", "[image 1]", "<ImageHere>", "<Img><ImageHere></Img>", "<image_placeholder>",
                     "<start_of_image>", "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
                         "<img>x/a.png</img>",
                     '<img src="x/a.png" width=3>', "![A sketch [1]](x/a.png)", "\\includegraphics[width=3cm]{a.png}")
    ] + [
        ({"question": "See ![](x/a(1).png)", "answer": "5"}, said(("See ", "I:x/a(1).png"), "5", answer="5")),
        ({"question": '<img src="a.png"/> Find x.', "answer": "5"}, said(("I:a.png", "Find x."), "5", answer="5")),
        ({"question": "First ![](http://x.org/1.png) then ![](http://x.org/2.png)", "answer": "5",
          "images": [PNG, "b.png"]}, said(("First ", PNG, " then ", "I:b.png"), "5", answer="5")),
        ({"question": "<image2> or <image1>?", "answer": "5", "images": ["a.png", "b.png"]},
         said(("I:b.png", "or ", "I:a.png", "?"), "5", answer="5")),
    ],
}


# file: (rows as single ones, images in them, the first question's beginning, the first response's end)
FILES = json.loads((Path(__file__).parent / "dialects.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_files_of_public_sets_are_read(name: str) -> None:
    num_rows, num_images, question, response = FILES[name]
    path = Path(__file__).parent / "dialects" / name
    made = [normalise(row) for _, row in containers.rows(str(path))]
    sides = [turns for row in made for _, turns in conversations(row, pairs=False)]
    assert len(sides) == num_rows
    images = [image for turns in sides for turn in turns for image in turn.images]
    assert len(images) == num_images and all((path.parent / image).is_file() for image in images)
    asked = next(turn for turn in sides[0] if turn.role == "user")
    assert asked.text.startswith(question) and sides[0][-1].text.endswith(response)


def test_the_table_is_the_list_of_examples() -> None:
    assert READ[1:] == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_dialect_becomes_the_one_form(name: str) -> None:
    assert EXAMPLES[name]
    for row, expected in EXAMPLES[name]:
        before = repr(row)
        assert normalise(row) == expected, before
        assert repr(row) == before, "the row is left as it is"
        assert normalise(expected) == expected, "the one form stays what it is"
        sides = conversations(expected, pairs="strong" in expected)
        assert all(turn.text or turn.images for _, turns in sides for turn in turns)


@pytest.mark.parametrize("key", ["image", "images", "img", "imgs", "image_1", "image_path", "image_paths", "image_url",
                                 "image_urls", "decoded_image", "picture", "pic", "figure", "Image", "file_name"])
def test_pictures_under_any_name_are_pictures(key: str) -> None:
    value = ["a.png"] if key.endswith("s") else "a.png"
    assert normalise({"question": Q, "answer": "5", key: value})["turns"][0]["content"] == parts("I:a.png", Q)


def test_the_same_picture_under_two_keys_is_read_once() -> None:
    for row in ({"image": "1/a.png", "decoded_image": {"bytes": PNG, "path": "a.png"}}, {"image": PNG, "images": [PNG]},
                {"image_url": "http://x.org/a.png", "image": PNG}, {"url": "http://x.org/b.png", "image": PNG},
                {"image": PNG, "image_name": "b.png", "metadata": {"file": "c.png"}},
                {"image": PNG, "file_name": "scan.png"}):
        assert normalise({"question": Q, "answer": "5", **row})["turns"][0]["content"] == parts(PNG, Q)
    both = {"question": Q, "answer": "5", "image": "a.png", "image_path": "data/a.png"}
    assert normalise(both)["turns"][0]["content"] == parts("I:data/a.png", Q)
    picture = Image.new("RGB", (4, 4))
    assert normalise({"question": Q, "answer": "5", "image": picture})["turns"][0]["content"][0]["image"] == picture


# reason: rows that it refuses, with what the message says
REFUSED: dict[str, list[tuple[dict, str]]] = {
    "unknown key": [
        ({"question": Q, "answer": "5", key: value}, repr(key))
        for key, value in [
            ("screenshot_2", "b.png"), ("url_2", "b.png"), ("thumb", "x/b.jpeg"), ("scan", {"bytes": PNG,
             "path": None}),
            ("front", PNG), ("extra", ["a.png"]), ("link", "https://x.org/b.png?v=1"), ("imgae", "b.png"),
            ("Table2", "x | y"), ("premise", "All dogs bark."), ("code", "print(1)"), ("hints", ["Add."]),
            ("diagram", "draw((0,0)--(1,1));"), ("few_shot_input", "1 + 1"), ("chart", [["a", 1]]),
            ("objects", {"bbox": [[1, 2]]}), ("metadata", {"image": "a.png"}), ("meta", {"x": [{"bytes": PNG}]}),
             ("system_message", "Answer in French."),
        ]
    ] + [
        ({"image_url": "", "instruction": Q, "output": A, "instruction_2": "", "output_2": A, "image_2": "b.png"},
         "'image_2'"),
        ({"image_url": "", "instruction": Q, "output": A, "screenshot_2": "b.png", "instruction_2": "", "output_2": A,
          "image_url_2": "c.png"}, "'screenshot_2'"),
        ({"messages": [ASKED, SAID, ASKED, SAID], "table": "x | y"}, "'table'"),
        ({"messages": [{**ASKED, "table": "x | y"}, SAID]}, "'table'"),
        ({"messages": [ASKED, {**SAID, "reasoning_content": "Hm."}]}, "reasoning"),
        ({"question": Q, "answer": "5", "table": 5}, "table"),
        ({"question": Q, "answer": "5", "image_caption": "A triangle with sides 3 and 4."}, "'image_caption'"),
        ({"question": Q, "Question": "Another one.", "answer": "5"}, "the same key"),
    ],
    "image is a URL": [
        ({"question": Q, "answer": "5", "image": "https://x.org/a.png"}, "https://x.org/a.png"),
        ({"question": "See ![](http://x.org/a.png)", "answer": "5"}, "http://x.org/a.png"),
        ({"query": f"<img>https://x.org/demo.jpeg</img>{Q}", "response": A}, "https://x.org/demo.jpeg"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a"}}]},
                       SAID]}, "https://x.org/a"),
    ],
    "images and placeholders differ": [
        ({"question": f"See {mark}", "answer": "5"}, "0 images")
        for mark in ("<image>", "<image1>", "<|image_1|>", "{image#1}", "[IMG]", "<ImageHere>", "<img>", "![](1)",
                     "<|vision_start|><|image_pad|><|vision_end|>")
    ] + [
        ({"question": "<image> <image>", "answer": "5", "image": "a.png"}, "2 placeholders"),
        ({"question": "<image>", "answer": "5", "images": ["a.png", "b.png"]}, "2 images"),
        ({"question": "<image 3>", "answer": "5", "images": ["a.png", "b.png"]}, "3"),
        ({"question": "<image> and <image 1>", "answer": "5", "images": ["a.png", "b.png"]}, "placeholders"),
        ({"question": "A </img> left over", "answer": "5"}, "</img"),
        ({"messages": [{"role": "user", "content": [{"image": "a.png"}, Q]}, SAID], "images": ["b.png"]}, "1 others"),
        ({"query": Q, "response": A, "history": [["a", "b"]], "images": ["a.png", "b.png"]}, "history"),
    ],
    "images under two keys": [({"question": Q, "answer": "5", "image": "a.png", "img": "b.png"}, "'img'")],
    "picture in a response": [
        ({"question": Q, "answer": "5", "image": "a.png", "solution": "So <image>."}, "assistant"),
        ({"question": Q, "answer": "5", "solution": "So ![](http://x.org/a.png)."}, "x.org"),
    ],
    "unknown options": [
        ({"question": Q, "answer": "B", "options": value}, "'options'")
        for value in (5, "4 or 5", [["4"], ["5"]], ["a.png", "b.png"], {"x": "4", "y": "5"}, "['4' '5']",
            r'["\frac{1}{2}", "\times"]', '["\\\\neq", "\\neq"]', ["4", None,
            "6"],
                      [{"image": "a.png"}, {"image": "b.png"}], {"text": ["4"], "label": ["A", "B"]}, ["4", True])
    ] + [({"question": Q, "answer": "B", "options": ["4", "5"], "choices": ["6", "7"]}, "two keys"),
         ({"question": Q, "answer": "B", "options": ["A", "B", "C"]}, "letters alone")],
    "unclear answer": [
        ({"question": Q, "choices": ["2", "1", "0"], "answer": 2}, "2 is one of the options"),
        ({"question": Q, "choices": ["x", "y"], "answer": 2}, "count from 0"),
        ({"question": Q, "choices": ["x", "y"], "answer": "1"}, "'1'"),
        ({"question": Q, "choices": ["x", "y"], "answer": "D"}, "2 options"),
        ({"question": Q, "choices": ["x", "y"], "answer": -1}, "count from 0"),
        *[({"question": Q, "choices": choices, "answer": 1}, "bring numbers along")
          for choices in (["1. x", "2. y"], ["(1) x", "(2) y"], ["1) x", "2) y"], ["① x", "② y"], ["1、x", "2、y"])],
    ],
    "two dialogues": [({"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}],
                        "messages": [{"role": "user", "content": "Why?"}]}, "'messages'")],
    "several answers": [({"question": Q, "answer": ["5", "five"]}, "['5', 'five']"),
                        ({"question": Q, "answer": "['5', 'five']"}, "['5', 'five']")],
    "two questions": [({"question": Q, "problem": "Another one.", "answer": "5"}, "'problem' and 'question'"),
                      ({"messages": [ASKED, SAID], "instruction": "Use degrees."}, "'instruction'")],
    "two responses": [({"question": Q, "response": A, "solution": "Otherwise."}, "'response' and 'solution'")],
    "two system prompts": [({"system": "Be kind.", "messages": [{"role": "system", "content": "No."}, ASKED, SAID]},
        "")],
    "tool turn": [
        ({"conversations": [{"from": "human", "value": Q}, {"from": speaker, "value": "{}"}]}, speaker)
        for speaker in ("tool", "function", "observation", "function_call")
    ] + [
        ({"messages": [ASKED, SAID], "tools": '[{"name": "add"}]'}, "'tools'"),
        ({"messages": [ASKED, {**SAID, "tool_calls": [{"name": "add"}]}]}, "'tool_calls'"),
        ({"question": Q, "answer": "5", "functions": [{"name": "add"}]}, "'functions'"),
    ],
    "video or sound": [
        ({"question": Q, "answer": "5", "videos": ["a.mp4"]}, "'videos'"),
        ({"question": Q, "answer": "5", "audio": "a.wav"}, "'audio'"), ({"question": "<video> What?", "answer": "5"},
         "<video>"),
    ],
    "turn without loss": [({"messages": [ASKED, {**SAID, "weight": 0}]}, "marked"),
                          ({"messages": [ASKED, {**SAID, "loss": False}]}, "marked")],
    "preference pair": [({"prompt": Q, "chosen": A, "rejected": "No."}, "'chosen'"),
                        ({"prompt": Q, "completion": A, "label": False}, "'label'")],
    "unknown dialect": [({"text": Q}, "the keys are: text; accepted:"), ({"question": Q},
        "no response; the keys are: question"),
        ({}, "none")],
    "unknown speaker": [({"conversations": [{"from": "robot", "value": Q}]}, "'from'"), ({"messages": [5]}, "5")],
    "unknown part of a message": [
        ({"messages": [{"role": "user", "content": [part]}, SAID]}, "")
        for part in ({"type": "video", "video": "a.mp4"}, {"type": "thinking", "thinking": "Hm."}, {"type": "text",
            "note": Q},
                     {"type": "image", "image": ["a.png", "b.png"]}, {"image": "a.png", "text": Q})
    ],
    "empty question": [({"query": value, "response": A}, "") for value in ("", " \n", None, float("nan"), "nan", [])],
    "empty response": [
        ({"query": Q, "response": value}, "") for value in ("", None, float("nan"), "nan", "None", {},
         np.float64("nan"))
    ] + [({"question": Q, "answer": None, "solution": "nan"}, ""), ({"question": Q, "answer": "[]"}, "")],
    "text is missing": [({"query": [Q], "response": A}, "['Sides"), ({"query": Q, "response": {"a": A}}, "response")],
    "field is not what it should be": [
        ({"question": Q, "answer": True}, "answer is True"), ({"question": Q, "answer": float("inf")}, "no number"),
        ({"question": Q, "answer": 10**5000}, "digits"), ({"question": Q, "answer": "5", "image": 5}, "5"),
        ({"conversations": "hello"}, "not a list of turns"), ({"strong": {"turns": []}, "weak": 5}, "turns"),
    ],
    "turns do not alternate": [({"messages": [ASKED]}, "user"), ({"messages": [ASKED, ASKED, SAID]}, "user, user")],
    "responses of a pair differ": [
        ({"image_url": "", "instruction": Q, "output": A, "image_url_2": "b.png", "instruction_2": "",
         "output_2": "6"}, "'6'")
    ],
    "not Unicode": [({"query": "\ud800?", "response": A}, "surrogate")],
    "nested too deeply": [({"query": Q, "response": A, "x": json.loads("[" * 40 + "]" * 40)}, "16")],
    "text above 64 KB": [({"query": "x" * MAX_TEXT, "response": A}, "characters")],
    "image unreadable": [({"query": Q, "response": A, "image": "data:image/png;base64,AAAA"}, "does not decode")],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_understood_is_refused_with_key_and_remedy(reason: str) -> None:
    for row, words in REFUSED[reason]:
        with pytest.raises(BadRow) as caught:
            normalise(row)
        assert caught.value.reason == reason and words in caught.value.detail, (row, caught.value)
        assert caught.value.remedy and "\n" not in caught.value.detail and len(caught.value.detail) < 600


def test_nothing_written_as_a_list_is_nothing() -> None:
    for row in ({"answer": "5", "table": "[]"}, {"answer": "[]", "short_answer": "5"},
                {"answer": "5", "solution": ["", "nan"]}, {"answer": "5", "solution": [None]}):
        assert normalise({"question": Q, **row}) == said(Q, "5", answer="5")
    row = {"question": Q, "answer": "6", "solution": ["", A]}
    assert normalise(row) == said(Q, f"{A}\nAnswer: 6", answer="6")


def test_the_table_of_refusals_names_every_reason() -> None:
    named = {reason for line in REFUSALS for reason in line.split(", ")}
    assert set(REFUSED) - {"field is not what it should be", "image unreadable"} <= named
    assert named - {"---"} <= {*REFUSED, "benchmark row"}


def test_benchmarks_are_refused_by_their_keys() -> None:
    vision = {"id": "3", "question": "q", "options": [], "answer": "4", "level": 1, "subject": "counting"}
    for row in [{"sample_index": "1", "problem_version": "Text Lite", "question": "q", "answer": "a", "image": ""},
                {"pid": "3", "question": "q", "answer": "a", "metadata": {}, "question_type": "free", "precision": 1},
                {"knowledge concept": "k", "question": "q", "option": "A. 1"},
                {"problem_id": "p", "version": "1", "instruction": "q", "output": "a", "family": "f", "key": "k"},
                {**vision, "image": "images/3.jpg"}, {**vision, "image": {"bytes": PNG, "path": "3.jpg"}}]:
        with pytest.raises(BenchmarkRow):
            normalise(row)
    for row in ({**vision, "image": "a.png", "subject": "counting things"}, {**vision, "image": None},
                {"pid": "3", "metadata": {}, "question": "q", "answer": "a"},
                {"problem_id": "p", "version": "2", "question": "q", "answer": "a"}):  # others have such keys too
        assert normalise(row)


def test_harmless_keys_are_kept_as_labels_and_long_ones_go() -> None:
    row = {"id": 12, "source": "geo/a.png", "difficulty": 0.5, "image_size": [4, 4], "img_note": "",
           "question_type": "free", "subject": "geometry", "original_question": "x" * 300, "num_images": 0, "grade": 3,
           "table_type": "plain", "has_image": False, "metadata": {"split": "train"}, "url": "https://x.org/page"}
    kept = normalise({"query": Q, "response": A, **{**row, "source": "geo"}})
    assert kept["id"] == "12" and kept["source"] == "geo" and kept["difficulty"] == 0.5 and kept["image_size"] == [4, 4]
    assert not {"original_question", "img_note", "metadata"} & kept.keys()
    assert conversations(kept, pairs=False)


def response_of(row: dict) -> str:
    return normalise(row)["turns"][-1]["content"][0]["text"]


def test_what_stands_beside_the_question_is_read() -> None:
    """Rows that people have, each of which trained on something else than what stands in it."""
    [question] = normalise({"Body": "There are 87 plums in 3 bags.", "Question": "How many in one?", "Answer": "29"})[
        "turns"][0]["content"]
    assert question["text"] == "There are 87 plums in 3 bags.\nHow many in one?"
    for unit in ("m", "s"):  # a letter of the question is no unit
        question = normalise({"question": "How many are some?", "answer": "3", "unit": unit})["turns"][0]["content"][0]
        assert question["text"].endswith(f"(Unit: {unit})")
    with pytest.raises(BadRow, match="empty question"):
        normalise({"instruction": None, "input": "nan", "output": "x"})
    assert "noinput" not in json.dumps(normalise({"instruction": Q, "input": "<noinput>", "output": A}))
    for key in ("CoT_rationale", "detailed_solution", "thinking"):
        assert response_of({"question": Q, key: "3 and 4 make it.", "answer": "5"}) == "3 and 4 make it.\nAnswer: 5"
    assert response_of({"question": Q, "steps": ["Add.", "Take the root."], "answer": "5"}) == (
        "Add.\nTake the root.\nAnswer: 5")
    assert response_of({"conversations": [{"from": "human", "value": Q, "weight": 0}], "answer": A}) == A
    store = {"question": "Store A: $3, store B: $5. Which price is lower?", "choices": ["$5", "$3"], "answer": 1}
    assert normalise(store)["turns"][0]["content"][0]["text"].endswith("Choices:\n(A) $5\n(B) $3")
    assert response_of({"question": Q, "choices": ["cat", "dog"], "answer": "option_b"}) == "B"
    assert response_of({"question": Q, "choices": ["cat", "dog"], "answer": "B", "answer_index": 1}) == "B"
    assert response_of({"question": Q, "answer": "So it is 5.", "final_answer": 5}) == "So it is 5."
    named = {"question": "In A. there are 12, in B. $x$.", "choices": ["12", "$x$"], "answer": 1}
    assert normalise(named)["turns"][0]["content"][0]["text"].endswith("Choices:\n(A) 12\n(B) $x$")


@pytest.mark.parametrize("row, reason", [
    ({"question": Q, "answer": "5", "pre_text": "A table", "support": "It is said that it is so."}, "unknown key"),
    ({"question": Q, "answer": "5", "pre_text": ["Sales were 5."]}, "unknown key"),
    ({"question": Q, "answer": "5", "description": "AB = 3"}, "unknown key"),
    ({"question": Q, "choices": ["1. cat", "2. dog", "3. cow"], "answer": 1}, "unclear answer"),
    ({"question": "Which is it?\nA. cow\nB. cat", "choices": ["cat", "cow"], "answer": 1}, "unknown options"),
    ({"question": Q, "A": "cat", "B": "", "C": "dog", "answer": "C"}, "unknown options"),
    ({"question": Q, "options": ["B. cat", "A. dog"], "answer": "A"}, "unknown options"),
    ({"question": Q, "choices": ["cat", "dog"], "answer": "1.0"}, "unclear answer"),
    ({"question": Q, "answer": "5", "ground_truth": "4"}, "several answers"),
    ({"question": Q, "choices": ["cat", "dog"], "answer": "A", "answer_index": 1}, "several answers"),
    ({"question": Q, "answer": "5", "image_id": 123}, "unknown key"),
    ({"question": Q, "answer": "5", "has_image": True}, "unknown key"),
    ({"question": Q, "answer": "5", "blob": b"\0\0\0\x1cftypavif"}, "unknown key"),
    ({"question": "Is <img>b.png</img> or <img>c.png</img> larger?", "images": ["x.png", "y.png"], "answer": "b"},
     "images and placeholders differ"),
    ({"conversations": [{"from": "human", "value": Q, "text": "Why?"}, {"from": "gpt", "value": A}]}, "unknown key"),
    *(({"question": f"Find x. {place}", "answer": "5"}, "images and placeholders differ") for place in (
        "<IMG_CONTEXT>", "<|media_pad|>", "<|begin_of_image|>", "<__media__>", "<im_patch>", "<picture>", "[IMG_END]",
        "data:image/png;base64,AAAA", "https://x.org/a/b.jpg")),
])
def test_what_cannot_be_read_right_is_refused(row: dict, reason: str) -> None:
    with pytest.raises(BadRow) as refused:
        normalise(row)
    assert refused.value.reason == reason


def test_lists_of_work_are_steps_or_several_solutions() -> None:
    for key in ("reasoning", "cot", "explanation"):
        assert response_of({"question": Q, key: ["One.", "Two."], "answer": "5"}) == "One.\nTwo.\nAnswer: 5"
    assert response_of({"question": Q, "solution": ["One way.", "Two ways."], "answer": "5"}) == "One way.\nAnswer: 5"
    for row, reason in (({"question": Q, "output": ["One.", "Two."]}, "two responses"),
                        ({"image": "a.png", "question": None, "problem_text": "Find the x.", "answer": "5"},
                         "empty question"),
                        ({"images": [{"path": "a.png", "description": "AB is 3"}], "question": Q, "answer": "5"},
                         "unknown key")):
        with pytest.raises(BadRow) as refused:
            normalise(row)
        assert refused.value.reason == reason


def test_numbers_that_agree_with_an_index_from_0_or_are_the_options_do_no_harm() -> None:
    for choices in (["0. x", "1. y"], ["1.5", "2.5"], ["1 cm", "2 cm"], ["3. x", "4. y"]):
        assert normalise({"question": Q, "choices": choices, "answer": 1})["answer"] == "B"
    assert normalise({"question": Q, "choices": ["1. x", "2. y"], "answer": "A"})["answer"] == "A"


def test_keys_whose_texts_are_not_trained_on_are_counted() -> None:
    aside: Counter = Counter()
    for _ in range(3):
        normalise({"question": Q, "answer": "5", "Remark": "Mind the right angle.", "level": "hard"}, aside)
    assert aside == {"Remark": 3}


@pytest.mark.parametrize("text, speaks", [
    ("As shown in the figure, AB is parallel to CD.", True), ("In the diagram below, find x.", True),
    ("The graph shows a function.", True), ("如图，AB是⊙O的直径。", True), ("根据图中数据回答。", True),
     ("例如图书馆有多少本书？", False),
     ("Triangle ABC, shown, is right.", True),
    ("What is the area of the figure shown below?", True), ("Based on the image, find x.", True), ("See Figure 3.",
     True),
    ("Can you figure out x?", False), ("Round to three significant figures.", False),
     ("The graph of y = x is a line.", False),
    ("She hung the picture on the wall.", False), ("A figure skater turns.", False), ("Make a table of x.", False)])
def test_questions_that_speak_of_a_figure(text: str, speaks: bool) -> None:
    assert speaks_of_figure(text) == speaks


FOREIGN = [("", opener) for opener in (
    "![", "![a", "![[a]", "![](", "![](a(", "<img", "<img ", "<img>", "<img src=", "<|vision_start|>", "<|image_pad|>",
    "[image", "{image#1", "\\includegraphics[", "\\includegraphics{", " ", "the figure ", "in the ", "图")]
FOREIGN += [("![", "[a]"), ("![](", "(a)"), ("<img", " "), ("<img>", "a"), ("<|vision_start|>", "<|image_pad|>"),
            ("fig", " "), ("A.", " "), ("", "A. "), ("", "a ) "),
            ("", "\\"), ("", "\\\\n")]


@pytest.mark.slow
@pytest.mark.parametrize("opening, rest", FOREIGN)
def test_patterns_are_linear(opening: str, rest: str) -> None:
    """Longer texts than MAX_TEXT are refused, and patterns still do not dawdle on shorter ones."""
    patterns = (PLACE, PLACEHOLDER, FILM, FIGURE, OPTION_MARK, SINGLE_BACKSLASH)
    assert growth(lambda text: [pattern.findall(text) for pattern in patterns],
                  lambda size: opening + rest * (size // len(rest))) <= MOST


def test_long_texts_are_refused_at_once() -> None:
    for text in ("x" * 5_000_000, "<img " * 1_000_000, " " * 5_000_000 + "x", "A. " * 1_000_000):
        for row in ({"question": text, "answer": "5"}, {"question": Q, "answer": text}, {"messages": text},
                    {"question": Q, "answer": "5", "solution": text}, {"question": Q, "answer": "B", "options": text},
                    {"question": Q, "answer": "5", "table": text}, {"question": Q, "answer": "5", "image": text},
                    {"question": Q, "answer": "5", "options": [text, "4"]}, {"question": Q, "answer": "5",
                     "hint": text}):
            start = time.perf_counter()
            try:
                assert len(json.dumps(normalise(row))) < MAX_TEXT, "a long path may be all blanks"
            except BadRow as error:
                assert len(error.detail) < 600
            assert time.perf_counter() - start < 2


JUNK = [
    None, 0, -1.5, True, "", " ", [], {}, [None], "<image>", "\ud800", "\0", ["a.png", 3], "x" * 9000, float("nan"),
    10**5000, b"\x89PNG", PNG, {"bytes": None}, {"path": 5}, [[[[]]]], {"type": "image"}, np.array([1, 2]), "nan",
    {"a": {"b": 1}}, "<img", "![](", "[1, 2", "['a' 'b']", object(), float("inf"), {5: 6}, [True], "A) 1 B) 2", -1,
]
OTHER_KEYS = ("image", "options", "table", "system", 7)


def test_damaged_rows_raise_bad_row_and_nothing_else() -> None:
    generator = random.Random(0)
    seeds = [row for examples in EXAMPLES.values() for row, _ in examples]
    reasons = set()
    for _ in range(10_000):
        row = generator.choice(seeds)
        for _ in range(generator.randint(1, 4)):
            row = damage(generator, row, JUNK, OTHER_KEYS)
        try:
            made = normalise(row)
        except BadRow as error:
            reasons.add(error.reason)
            continue
        assert "nan" not in re.findall(r'"text": "(\w+)"', json.dumps(made, default=repr))
        assert conversations(made, pairs=False)
    assert len(reasons) > 15
