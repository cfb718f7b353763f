"""sample.py as a user runs it, and model folders that sample.py and eval.py refuse alike."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import GenerationMixin

import eval as evaluation
import sample
from data import ChatFormat
from errors import UserError
from model import count_image_tokens, load_model
from sources import said

TINY = Path(__file__).resolve().parents[2] / "tiny"
BENCH = Path(__file__).parent / "fixtures/generated.jsonl"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """What sample.py's main gives to generate() for the flags."""

    def ask(*flags: object) -> dict:
        given: list[dict] = []
        monkeypatch.setattr(GenerationMixin, "generate", lambda model, **inputs: given.append(inputs))
        monkeypatch.setattr(sys, "argv", ["sample.py", "--model", str(TINY), *map(str, flags)])
        sample.main()
        return given[0]

    return ask


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A black and a white picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for color in ("black", "white"):
        Image.new("RGB", (96, 96), color).save(folder / f"{color}.png")
    return [folder / "black.png", folder / "white.png"]


@pytest.mark.parametrize("text, kept", [
    ("Which is larger?", "Which is larger?"), ("<image>\n<image>\nWhich is larger?", "Which is larger?"),
    ("Is <image> larger than <image>?", "Is larger than ?"),
])
def test_several_pictures_stand_before_the_question_as_in_training(
        asked: Callable[..., dict], pictures: list[Path], text: str, kept: str) -> None:
    black, white = pictures
    inputs = asked("--image", black, "--image", white, text)
    trained = load_model("tiny")
    chat = ChatFormat(trained.processor, count_image_tokens(trained.config))
    tokens = chat.encode([said("user", kept, [black, white]), said("assistant", "The second.")])
    assert inputs["input_ids"][0].tolist() == tokens.input_ids[: tokens.positions[0] + 1].tolist()
    assert [picture.mean().item() for picture in inputs["pixel_values"]] == [-1, 1]  # in their order


def test_a_picture_for_each_placeholder(asked: Callable[..., dict], pictures: list[Path], tmp_path: Path) -> None:
    assert "pixel_values" not in asked("What is 1 + 1?")
    assert len(asked("--image", pictures[0], "What is this?")["pixel_values"]) == 1
    for flags in (["<image> What is this?"], ["--image", pictures[0], "<image> or <image>?"]):
        with pytest.raises(UserError, match="<image> in the text, . images; give --image FILE once for each"):
            asked(*flags)
    for file in (tmp_path / "none.png", BENCH):  # one that is not there, one that is no picture
        with pytest.raises(UserError, match=rf"{file.name}: \w+Error: [^;]+$"):
            asked("--image", pictures[0], "--image", file, "Which is larger?")


@pytest.mark.parametrize("flags", [("--max_new_tokens", 0), ("--temperature", -1), ("--temperature", "nan")])
def test_flags_that_make_no_answer_are_one_line(asked: Callable[..., dict], flags: tuple) -> None:
    with pytest.raises(UserError, match="--max_new_tokens .* --temperature .*: at least 1, and at least 0"):
        asked(*flags, "What is 1 + 1?")


# ----------------------------------------------------------------------------------------------------------------------
# folders that do not open: one line, by sample.py and by eval.py


@pytest.fixture(params=["sample.py", "eval.py"])
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], str]:
    """The one line with which the program refuses a model's folder. Whoever is asked on the terminal says yes."""

    def refuse(folder: Path) -> str:
        words = ["--model", folder, "Find x."]
        if request.param == "eval.py":
            words = ["--bench", "generated", "--data", BENCH, "--model", folder, "--out_dir", tmp_path / "out",
                     "--allow_missing_images"]
        monkeypatch.setattr(sys, "argv", [request.param, *map(str, words)])
        with pytest.raises(UserError) as caught:
            sample.main() if request.param == "sample.py" else evaluation.main()
        line = str(caught.value)
        assert str(folder) in line and "\n" not in line
        return line

    return refuse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model's folder, to be damaged."""
    return Path(shutil.copytree(TINY, tmp_path / "folder", ignore=shutil.ignore_patterns("*.py")))


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("answer", ["y\n" * 9, ""], ids=["a terminal that says yes", "no terminal"])
@pytest.mark.parametrize("part", ["model", "processor", "image processor"])
def test_code_in_a_folder_is_refused_without_asking(
        refused: Callable, monkeypatch: pytest.MonkeyPatch, folder: Path, part: str, answer: str) -> None:
    (folder / "foreign.py").write_text(f"open({str(folder / 'was_run')!r}, 'w')\n")
    if part == "model":
        code = {kind: f"foreign.{kind}" for kind in ("AutoConfig", "AutoModelForImageTextToText")}
        rewrite(folder / "config.json", model_type="foreign", auto_map=code)
    elif part == "processor":
        rewrite(folder / "processor_config.json", processor_class="Foreign", auto_map={"AutoProcessor": "foreign.F"})
    else:
        code = {"image_processor_type": "Foreign", "auto_map": {"AutoImageProcessor": "foreign.F"}}
        rewrite(folder / "processor_config.json", image_processor=code)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    line = refused(folder)
    assert "contains custom code" in line
    assert sys.stdin.tell() == 0 and not (folder / "was_run").exists(), "transformers has asked"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "AutoConfig cannot": lambda folder: (folder / "config.json").write_text("{"),
    "the generation_config.json cannot": lambda folder: (folder / "generation_config.json").write_text("{"),
    "AutoProcessor cannot": lambda folder: (folder / "processor_config.json").unlink(),
    "AutoProcessor cannot be": lambda folder: (folder / "tokenizer.json").write_text('{"version": '),
    "the chat template cannot": lambda folder: (folder / "chat_template.jinja").unlink(),
    "chat template cannot be": lambda folder: (folder / "chat_template.jinja").write_text("{% for"),
    "AutoModelForImageTextToText cannot": lambda folder: (folder / "model.safetensors").write_bytes(b"short"),
    "AutoModelForImageTextToText cannot be": lambda folder: (folder / "model.safetensors").unlink(),
    "lacks the weight": lambda folder: drop(folder / "model.safetensors", "self_attn.q_proj"),
    "not fully covered": lambda folder: cut(folder / "model.safetensors"),
    "Validation error": lambda folder: rewrite(folder / "config.json", text_config=3),
    "model type `foreign`": lambda folder: rewrite(folder / "config.json", model_type="foreign"),
}


def drop(path: Path, name: str) -> None:
    weights = {key: value for key, value in load_file(path).items() if name not in key}
    save_file(weights, path, metadata={"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("line, damage", DAMAGES.items(), ids=DAMAGES)
def test_a_damaged_folder_is_one_line(refused: Callable, folder: Path, line: str, damage: Callable) -> None:
    damage(folder)
    assert line in refused(folder)
