"""tiny's shipped start: it loads as the preset's pretrained parts, answers, and says when it no longer fits."""

import json

import torch

from evaluation import generate
from model import load_model
from tiny import make_start


def test_the_preset_brings_the_aligned_start_and_random_weights_do_not():
    model, shipped = load_model("tiny"), load_model(source=str(make_start.FOLDER))
    assert all(tensor.equal(shipped.state_dict()[name]) for name, tensor in model.state_dict().items())
    torch.manual_seed(0)
    drawn = load_model("tiny", random=True).state_dict()
    assert not any(tensor.equal(drawn[name]) for name, tensor in model.state_dict().items() if "_proj.weight" in name)


def test_it_solves_a_problem_that_is_written_out():
    model, processor = generate.load_model(str(make_start.FOLDER))
    question = "Triangle ABC. Angle A = 40° and angle B = 60°. Find angle C."
    prompt = processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                           tokenize=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=72, do_sample=False)
    assert "80°" in processor.decode(answer[0, prompt["input_ids"].shape[1] :])


def test_a_start_of_another_engine_or_tokenizer_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    make_start.warn_if_outdated()
    assert capsys.readouterr().out == ""
    facts = make_start.made_for() | {"engine_version": 1}
    (tmp_path / "start.json").write_text(json.dumps(facts))
    (tmp_path / "tokenizer.json").write_bytes((make_start.FOLDER / "tokenizer.json").read_bytes())
    monkeypatch.setattr(make_start, "FOLDER", tmp_path)
    make_start.warn_if_outdated()
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: tiny's start was made with engine_version 1 (now ") and "make_start" in line


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in make_start.FOLDER.iterdir() if path.suffix != ".py") < 8e6
