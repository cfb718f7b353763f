"""Evaluation files are known again: questions in other dress, copies of pictures, whatever file holds them."""

import io
import json
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from augment.avoid import comparable, perceptual_hash, read_avoided, words_of
from augment.pictures import TRANSFORMS
from errors import UserError
from tests.augment.growth import growth
from tests.augment.test_augment_data import make
from tests.augment.test_augment_pictures import figure


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# -- pictures


def padded(image, colour="white"):
    page = Image.new("RGB", (image.width * 3 // 2, image.height * 2), colour)
    page.paste(image, (image.width // 3, image.height // 5))
    return page


def turned(degrees):
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def scaled(factor):
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def flattened(image):
    """Its ink alone, the paper transparent, set on grey."""
    page = Image.new("RGB", image.size, (170, 170, 170))
    page.paste("black", mask=ImageOps.invert(image.convert("L")))
    return page


# what was done to a picture
COPIES = {
    "half the size": scaled(0.5), "twice the size": scaled(2.0), "padded": padded,
    "padded, then smaller": lambda image: scaled(0.6)(padded(image)),
    "recompressed": lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=30))),
    "recoloured": lambda image: ImageOps.colorize(image.convert("L"), "navy", "lightyellow"),
    "negative": ImageOps.invert, "flattened": flattened, "turned by 1": turned(1), "turned by -2.4": turned(-2.4),
    **{name: lambda image, name=name: TRANSFORMS[name](image, random.Random(image.width)) for name in TRANSFORMS},
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """40 figures as an evaluation file."""
    folder = tmp_path_factory.mktemp("figures")
    for seed in range(40):
        figure(seed).save(folder / f"{seed}.png")
    rows = [{"question": f"Find x in figure {seed}.", "image": f"{seed}.png"} for seed in range(40)]
    return read_avoided([write(folder / "eval.jsonl", rows)])


@pytest.mark.parametrize("name", list(COPIES))
def test_a_copy_of_a_picture_is_found(figures, name):
    found = [figures.picture(COPIES[name](figure(seed))) for seed in range(40)]
    assert found.count(None) <= (2 if name == "half the size" else 0)


def test_another_picture_is_not(figures):
    assert figures.counts["pictures"] == 40 and "40 pictures" in figures.summary()
    assert [seed for seed in range(1000, 1200) if figures.picture(figure(seed))] == []


def test_a_picture_that_shows_nothing_is_no_copy_of_anything(figures):
    blank = Image.new("RGB", (200, 200), "white")
    assert perceptual_hash(blank) is None and figures.picture(blank) is None
    assert np.allclose(np.linalg.norm(perceptual_hash(figure(1)), axis=1), 1)


# -- any file, and what of it cannot be compared


def rows_of(kind, folder, question):
    """The same row in the dialects of evaluation files: an embedded picture, a path, a benchmark's own keys."""
    picture = figure(7)
    picture.save(folder / "7.png")
    embedded = {"bytes": encoded(picture), "path": "7.png"}
    return {
        "conversations": {"image": "7.png", "conversations": [
            {"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "Answer: 5"}]},
        "content parts": {"messages": [
            {"role": "user", "content": [{"type": "image", "image": "7.png"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": "5"}]},
        "no answer": {"id": "1", "img": "7.png", "problem": question},
        "embedded": {"question": question, "image": embedded, "answer": "5"},
        "MathVista": {"pid": "1", "question": question, "image": "images/1.jpg", "decoded_image": embedded,
                      "metadata": {"split": "testmini"}, "answer": "5"},
        "MathVerse": {"sample_index": "1", "problem_version": "Vision Only", "question": "", "image": embedded,
                      "question_for_eval": question},
        "several": {"question": question, "image_1": {"bytes": encoded(figure(3)), "path": None}, "image_2": embedded,
                    "options": ["3", "5"], "answer": "B"},
    }[kind]


@pytest.mark.parametrize(("kind", "container"), [
    ("conversations", "jsonl"), ("content parts", "json"), ("no answer", "json"), ("conversations", "parquet"),
    ("embedded", "parquet"), ("MathVista", "parquet"), ("MathVerse", "parquet"), ("several", "parquet"),
])
def test_any_evaluation_file_is_compared(tmp_path, kind, container):
    row = rows_of(kind, tmp_path, LONG)
    path = tmp_path / f"eval.{container}"
    if container == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if container == "json" else row))
    avoid = read_avoided([str(path)])
    assert avoid.question(LONG) and avoid.picture(padded(figure(7)))
    assert avoid.counts == {"questions": 1, "pictures": 1 + (kind == "several")}


def test_what_cannot_be_compared_is_counted(tmp_path):
    figure(1).save(tmp_path / "1.png")
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "blank.png")
    rows = [{"question": LONG, "image": f"{name}.png"} for name in ("1", "1", "lost", "text", "blank")]
    path = write(tmp_path / "eval.jsonl", [*rows, {"question": "Find x.", "image": ""}, {"answer": "5"}])
    avoid = read_avoided([path])
    assert avoid.counts == {"questions": 6, "pictures": 1, "pictures not found": 1, "pictures not readable": 1,
                            "pictures that show nothing": 1, "questions too short to compare": 1,
                            "rows without a question": 1}
    data = write(tmp_path / "train.jsonl", [{"query": f"What is {number} + 4?", "response": "Add them. " * 9}
                                            for number in range(3)])
    _, counts = make(tmp_path / "out", "--avoid", path, stage=1, data=data)
    for what, count in avoid.counts.items():
        assert counts[f"to avoid: {what}"] == count


def test_a_row_whose_picture_shows_nothing_is_counted(tmp_path):
    pale = Image.new("RGB", (90, 90), "white")
    pale.paste((248, 250, 250), (20, 20, 60, 60))
    for name, image in {"blank": Image.new("L", (90, 90), 255), "pale": pale, "7": figure(7)}.items():
        image.save(tmp_path / f"{name}.png")
    rows = [{"query": f"Find x in {name}.", "response": "Add up all the angles. " * 9, "image": f"{name}.png"}
            for name in ("blank", "pale", "7")]
    written, counts = make(tmp_path / "out", stage=3, data=write(tmp_path / "train.jsonl", rows), image_root=tmp_path)
    assert counts["dropped: picture shows nothing"] == 2
    assert [row["source"] for row in written] == ["train.jsonl:3"]


def test_pictures_that_are_all_missing_are_an_error(tmp_path):
    rows = [{"question": LONG, "image": f"{number}.png"} for number in range(3)]
    path = write(tmp_path / "eval.jsonl", rows)
    with pytest.raises(UserError, match="eval.jsonl: none of its 3 pictures is found; --avoid_image_root names their"):
        read_avoided([path])
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        figure(number).save(tmp_path / "pictures" / f"{number}.png")
    assert read_avoided([path], str(tmp_path / "pictures")).counts["pictures"] == 3


# -- questions


LONG = ("A rectangular garden is twelve metres long and seven metres wide and a path of one metre runs around it, "
        "find its area.")


def test_questions_are_recognised_by_13_words_in_a_row(tmp_path):
    avoid = read_avoided([write(tmp_path / "eval.jsonl", [
        {"question": LONG}, {"question": "Find x."},
        {"question": "How many red balls are in the bag of Anna?"}])])
    assert avoid.counts["questions"] == 3 and avoid.counts["questions too short to compare"] == 1
    for text in (LONG, LONG.upper(), LONG.replace(",", ""), "Hint: Think.\nQuestion: " + LONG,
                 "Note. " + LONG + " Thanks!",
                 "A rectangular garden is $twelve$ metres long and seven metres wide and a path."):
        assert avoid.question(text), text
    assert avoid.question("How many red balls are in the bag of Anna?"), "9 words, all of them"
    for text in ("Find x.", "How many red balls are in the bag?", " ".join(LONG.split()[:12]),
                 "Something else altogether here."):
        assert avoid.question(text) is None, text


def test_latex_and_choices_do_not_hide_a_question(tmp_path):
    plain = (r"In $\triangle ABC$ we know $\angle A = 50^\circ$ and $\angle B = 60^\circ$ so what is $\angle C$ in "
             "degrees?")
    avoid = read_avoided([write(tmp_path / "eval.jsonl", [{"question": plain, "choices": ["60", "70"]}])])
    assert avoid.question(plain.replace("$", "").replace("\\triangle", "\\triangle ") + "\n(A) 60\n(B) 70")
    assert words_of(r"\frac{1}{2}\,AB") == ["1", "2", "ab"]
    assert comparable("Q one?\n(A) x\n(B) y") == ["q", "one", "x", "y"]


def test_common_phrases_of_a_benchmark_do_not_count(tmp_path):
    phrase = "As shown in the figure the vertices of the square lie on the circle with centre O and "
    rows = [{"question": phrase + f"the side is {number} so the radius of this circle is what number of units please?"}
            for number in range(30)]
    avoid = read_avoided([write(tmp_path / "eval.jsonl", rows)])
    assert avoid.counts["common phrases left out"] > 0
    assert avoid.question(phrase + "nothing else is the same in this one at all.") is None
    assert avoid.question(rows[7]["question"])


def test_files_without_questions_are_errors(tmp_path):
    with pytest.raises(UserError, match="no row with a question"):
        read_avoided([write(tmp_path / "eval.jsonl", [{"foo": 1}])])
    with pytest.raises(UserError, match="no such file"):
        read_avoided([str(tmp_path / "none.jsonl")])
    assert read_avoided([]).question(LONG) is None


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["\\", "\\left", " ", "1.", "a", "\\frac", "5", "\u00bd"])
def test_a_question_is_compared_in_linear_time(piece):
    times = (growth(words_of, lambda size: piece * (size // len(piece))) for _ in range(3))
    assert any(time <= 2.6 for time in times)  # whoever shares the machine may spoil one
