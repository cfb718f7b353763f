"""model.py assemble: another language model, another tower, and folders that lack something."""

import json
import re
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_model import small_hybrid_config
from test_train import make_pairs, run_here
from tokenizers import normalizers

import guard  # noqa: F401  (before transformers)
from transformers import (AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer,
                          DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridImageProcessorPil,
                          GenerationConfig, SiglipConfig, SiglipImageProcessorPil, SiglipModel)

import model as model_file
from checkpoint import ALONE, export_pretrained, model_card, save_pretrained
from data import ChatFormat
from errors import UserError
from model import (AutoConfig, MathModel, assemble, check_tokenizer, count_image_tokens, load_model, load_processor,
                   longest_row, packed_attention, presets)

SHAPE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, max_position_embeddings=512, vocab_size=1088, pad_token_id=0, bos_token_id=None,
             eos_token_id=2, initializer_range=0.3)
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
INST = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}")
DATED = ("{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
         "{{ 'Today: ' + date_string + ' ' + strftime_now('%H:%M:%S') + '\\n' }}" + CHATML)


def write_llm(folder: Path, kind: str, template: str | dict | None = CHATML, **changes: object) -> str:
    """A language model of random weights with tiny's tokenizer, as the hub has them."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **SHAPE | changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = load_processor("tiny").tokenizer
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_siglip(folder: Path, size: int = 32, **statistics: object) -> str:
    """A whole SigLIP, with its text tower and its pooling head."""
    torch.manual_seed(2)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = SiglipConfig(vision_config=shape | {"image_size": size, "patch_size": 8}, text_config=shape)
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": size, "width": size}, **statistics).save_pretrained(folder)
    return str(folder)


def put_together(folder: Path, kind: str, template: str | None = CHATML, **changes: object) -> MathModel:
    llm, vision = write_llm(folder / "llm", kind, template, **changes), write_siglip(folder / "siglip")
    return assemble(presets()["puma-qwen2-1.5b"], llm=llm, vision=vision, dtype=torch.float32)


def logits_in_a_pack(model: MathModel, rows: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(row) for row in rows])
    hidden_states = model.language_model(
        input_ids=torch.cat(rows)[None], position_ids=torch.cat([torch.arange(len(row)) for row in rows])[None],
        cu_seq_lens_q=torch.cat([torch.zeros(1), lengths.cumsum(0)]).int(), max_length_q=int(lengths.max()),
        use_cache=False).last_hidden_state
    return model.lm_head(hidden_states)[0]


@pytest.mark.parametrize("kind, changes", [("llama", {}), ("llama", {"rope_parameters": {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}}), ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    ("qwen3", {"head_dim": 32}), ("jetmoe", {})], ids=["llama", "llama3", "qwen2", "qwen2.5", "qwen3", "jetmoe"])
def test_a_pack_has_the_logits_of_the_stock_language_model(kind, changes, tmp_path):
    model = put_together(tmp_path, kind, **changes)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    rows = [torch.arange(10, 90), torch.arange(200, 217), torch.arange(500, 640)]
    with torch.no_grad():
        packed = logits_in_a_pack(model, rows)
        alone = torch.cat([stock(input_ids=row[None]).logits[0] for row in rows])
    assert alone.std() > 1, "the stand-in is too flat to tell anything"
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind, changes, message", [
    ("cohere", {"logit_scale": 0.0625}, "scales or caps"), ("granite", {"logits_scaling": 8.0}, "scales"),
    ("gemma2", {}, "scales or caps"), ("gemma2", {"final_logit_softcapping": None}, "softcap 50"),
    ("mistral", {"sliding_window": 20}, "sliding_window 20"), ("gpt2", {"n_embd": 64, "n_head": 4}, "has no model"),
    ("gpt_oss", {"num_local_experts": 4}, "s_aux given"), ("phi", {}, "has no model.*or one with a bias"),
    ("stablelm", {}, "its code cannot compute a pack of rows .packed attention needs cu_seq_lens_q")])
def test_a_language_model_that_a_pack_cannot_hold_is_refused(kind, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        put_together(tmp_path, kind, **changes)


def test_rows_longer_than_the_window_or_the_positions_are_refused_at_the_start(tmp_path):
    """Mistral's window changes nothing for shorter rows, so those train."""
    config = put_together(tmp_path, "mistral", sliding_window=200).config
    assert longest_row(config) == 200 and longest_row(config, 100) == 100
    with pytest.raises(UserError, match="--max_length 300: the language model takes 200"):
        longest_row(config, 300)
    text = put_together(tmp_path / "2", "qwen2", sliding_window=200, use_sliding_window=False).config
    assert longest_row(text) == 512, "a window that is off counts for nothing"
    with pytest.raises(UserError, match="takes 512"):
        longest_row(text, 513)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    for kind, changes in (("llama4_text", {"attention_chunk_size": 100, "num_local_experts": 2}),
                          ("phi3", {"original_max_position_embeddings": 100, "rope_parameters": rope})):
        config = put_together(tmp_path / kind, kind, **changes).config
        assert longest_row(config) == 100, "a pack would see further, or have the long frequencies in short rows"
    with pytest.raises(UserError, match="sliding_window 4.*row of 5 tokens"):
        packed_attention(None, *[torch.zeros(1, 1, 5, 4)] * 3, None, cu_seq_lens_q=torch.tensor([0, 5]), max_length_q=5,
                         sliding_window=4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_another_language_model_is_assembled_and_trains(kind, tmp_path, monkeypatch, capsys):
    """Its tokenizer has no row left for the image token; the command's own words lead to three steps of stage 3."""
    template = {"llama": INST, "qwen2": CHATML, "qwen3": DATED}[kind]
    llm = write_llm(tmp_path / "llm", kind, template, vocab_size=1024)
    rows = len(AutoTokenizer.from_pretrained(llm))
    hf = AutoModelForCausalLM.from_pretrained(llm)
    hf.resize_token_embeddings(rows)
    hf.save_pretrained(llm)
    out = str(tmp_path / "out")
    vision = write_siglip(tmp_path / "siglip")
    monkeypatch.setattr(sys, "argv", ["model.py", "assemble", "puma-qwen2-1.5b", out, "--llm", llm, "--vision", vision])
    model_file.main()
    said = capsys.readouterr().out
    assert f"vocabulary of {rows} grows to" in said and said.endswith(f"start from it with --model {out}\n")
    model = load_model("", out)
    table = model.language_model.embed_tokens.weight
    assert rows <= model.config.image_token_id < len(table) and model.config.text_config.vocab_size == len(table)
    torch.testing.assert_close(table[-1], table[:rows].mean(0), atol=1e-3, rtol=0.01)  # rounded to bf16
    assert torch.equal(table[:rows].bfloat16(), hf.model.embed_tokens.weight.bfloat16())
    content = [{"type": "text", "text": "Is"}, {"type": "image"}, {"type": "text", "text": "this 5?"}]
    text = model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    asked = "Is<|image|>\nthis 5?"
    assert text == {"llama": f"[INST] {asked} [/INST]", "qwen2": f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>"
                    "assistant\n", "qwen3": "Today: 26 Jul 2024 26 Jul 2024\n<|im_start|>user\n"
                    f"{asked}<|im_end|>\n<|im_start|>assistant\n"}[kind]
    run_here("train_stage3", "--model", out, "--data", make_pairs(tmp_path, 6), "--global_batch", 4, "--out_dir",
             tmp_path / "run", "--num_workers", 0, "--learning_rate", 1e-3)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and losses[-1] < losses[0]
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path / "run")
    assert opened.generation_config.eos_token_id == model.processor.tokenizer.eos_token_id


def test_answers_end_as_the_chat_template_ends_them(tmp_path, capsys):
    """A base model's tokenizer and generation_config end with <pad>, its template with <|im_end|>: one for all."""
    llm = write_llm(tmp_path / "llm", "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(llm)
    tokenizer.eos_token = "<pad>"
    tokenizer.save_pretrained(llm)
    GenerationConfig(eos_token_id=[0, 5]).save_pretrained(llm)
    vision = write_siglip(tmp_path / "siglip")
    model = assemble(presets()["puma-qwen2-1.5b"], llm=llm, vision=vision, dtype=torch.float32)
    assert "answers end with '<|im_end|>'" in capsys.readouterr().out
    save_pretrained(model, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    again = load_model("", str(tmp_path / "out"))
    assert saved["eos_token_id"] == end == ChatFormat(again.processor, 16).eos_token_id


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(UserError, match="llm: its tokenizer has no chat template"):
        put_together(tmp_path, "qwen2", None)


@pytest.mark.parametrize("template, message", [("{{ foo() }}", "cannot be used .'foo' is undefined"), (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('System first') }}{% endif %}", "used .System first"), (
    "always the same", "does not put the response behind"), ({"rag": CHATML, "tool_use": CHATML}, "used .*no default")])
def test_a_chat_template_that_no_stage_could_use_is_refused(template, message, tmp_path, monkeypatch):
    llm, vision = write_llm(tmp_path / "llm", "qwen2", template), write_siglip(tmp_path / "siglip")
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["model.py", "assemble", "puma-qwen2-1.5b", out, "--llm", llm, "--vision", vision])
    with pytest.raises(UserError, match=message):
        model_file.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tie", [True, False])
def test_every_weight_of_the_parts_arrives(tie, tmp_path, capsys):
    model = put_together(tmp_path, "qwen2", tie_word_embeddings=tie)
    assert "siglip: not used: head, logit_bias, logit_scale, text_model\n" in capsys.readouterr().out
    llm = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    for (name, value), (_, other) in zip(model.language_model.named_parameters(), llm.model.named_parameters(),
                                         strict=True):
        assert torch.equal(value, other), name
    theirs = {name: value for name, value in load_file(tmp_path / "siglip" / "model.safetensors").items()}
    theirs = {name.split("vision_model.")[-1]: value for name, value in theirs.items()}
    for name, value in model.vision_modules[0].state_dict().items():
        torch.testing.assert_close(value, theirs[name.split("vision_model.")[-1]])
    assert (model.lm_head.weight is model.language_model.embed_tokens.weight) == tie
    save_pretrained(model, tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["tie_word_embeddings"] == tie
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    for (name, value), (_, other) in zip(model.hf.named_parameters(), opened.named_parameters(), strict=True):
        assert torch.equal(value, other), name


def write_hybrid(folder: Path, **statistics: object) -> DeepseekVLHybridForConditionalGeneration:
    tower = DeepseekVLHybridForConditionalGeneration(small_hybrid_config())
    tower.save_pretrained(folder)
    sizes = {"size": {"height": 32, "width": 32}, "high_res_size": {"height": 64, "width": 64}}
    DeepseekVLHybridImageProcessorPil(**sizes, **statistics).save_pretrained(folder)
    return tower


def test_the_hybrid_keeps_its_projector_its_ties_and_its_pictures_statistics(tmp_path):
    """DeepSeek-VL ties nothing and DeepSeek-Math neither, though the hybrid configuration's own default says so."""
    tower = write_hybrid(tmp_path / "vl", image_mean=[0.1] * 3, image_std=[0.2] * 3, high_res_image_mean=[0.3] * 3)
    llm = write_llm(tmp_path / "llm", "llama", INST)
    model = assemble(presets()["puma-deepseek-math-7b"], llm=llm, vision=str(tmp_path / "vl"), dtype=torch.float32)
    stock = AutoModelForCausalLM.from_pretrained(llm)
    torch.testing.assert_close(model.projector.proj.weight, tower.model.aligner.proj.weight)
    white = ChatFormat(model.processor, 16).pixels(Image.new("RGB", (50, 50), "white"))
    for name, expected in (("pixel_values", 0.9 / 0.2), ("high_res_pixel_values", 0.7 / 0.26862954)):
        assert model.normalize(name, white[name][None]).flatten()[0].item() == pytest.approx(expected, rel=1e-5), name
    save_pretrained(model, tmp_path / "whole")
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(opened.lm_head.weight, stock.lm_head.weight)
    assert not torch.equal(opened.lm_head.weight, opened.model.language_model.embed_tokens.weight)
    assert AutoProcessor.from_pretrained(tmp_path / "whole", backend="pil").image_processor.image_mean[0] == 0.1


def test_the_deepseek_preset_has_the_pixels_of_the_published_folder():
    """transformers' converter (5.24's repository) saves 0.5 and bilinear for SigLIP's side, CLIP's for SAM's."""
    images = load_processor("puma-deepseek-math-7b", random=True).image_processor
    assert list(images.image_mean) == list(images.image_std) == [0.5] * 3 and int(images.resample) == 2
    assert list(images.high_res_image_mean) == [0.48145466, 0.4578275, 0.40821073]
    assert int(images.high_res_resample) == 3
    assert images.background_color == (127, 127, 127) and images.high_res_background_color == (122, 116, 104)
    white = images(Image.new("RGB", (384, 384), "white"), return_tensors="pt")
    assert white["pixel_values"].unique().tolist() == pytest.approx([1.0], abs=1e-5)


def test_the_llava_presets_have_siglips_pixels():
    images = load_processor("puma-qwen2-7b", random=True).image_processor
    assert list(images.image_mean) == list(images.image_std) == [0.5] * 3 and int(images.resample) == 3
    assert dict(images.size) == {"height": 384, "width": 384}


def test_a_towers_own_size_and_statistics_count(tmp_path):
    llm, preset = write_llm(tmp_path / "llm", "qwen2"), presets()["puma-qwen2-7b"]
    model = assemble(preset, llm=llm, vision=write_siglip(tmp_path / "a", 48, image_mean=[0.1] * 3))
    assert count_image_tokens(model.config) == 36 and model.processor.image_processor.image_mean[0] == 0.1
    assert model.config.image_seq_length == 36
    SiglipImageProcessorPil().save_pretrained(write_siglip(tmp_path / "b", 48))
    with pytest.raises(UserError, match=r"its image processor makes other pixel_values \(1, 3, 224, 224\)"):
        assemble(preset, llm=llm, vision=str(tmp_path / "b"))
    SiglipImageProcessorPil(size={"shortest_edge": 48}).save_pretrained(tmp_path / "b")
    with pytest.raises(UserError, match=r"other pixel_values \(1, 3, 48, 72\).*resize to 48"):
        assemble(preset, llm=llm, vision=str(tmp_path / "b"))
    (tmp_path / "a" / "preprocessor_config.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="a: SiglipImageProcessorPil cannot be loaded"):
        assemble(preset, llm=llm, vision=str(tmp_path / "a"))


@pytest.mark.parametrize("changes", [{"do_normalize": False}, {"rescale_factor": 1 / 127.5}, {"do_resize": False}])
def test_an_image_processor_that_training_would_not_follow_is_refused(changes, tmp_path):
    """Training normalises on the GPU; sample.py and others follow the file."""
    llm, vision = write_llm(tmp_path / "llm", "qwen2"), write_siglip(tmp_path / "siglip", **changes)
    with pytest.raises(UserError, match=r"makes other pixel_values \(1, 3, \d+, \d+\) than training would"):
        assemble(presets()["puma-qwen2-1.5b"], llm=llm, vision=vision)


def test_parts_that_cannot_be_had_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="model.py assemble"):
        assemble(presets()["puma-qwen2-7b"], llm=str(tmp_path / "absent"))


def change_weights(source: Path, folder: Path, drop: str = "none", **more: torch.Tensor) -> str:
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: value for name, value in weights.items() if drop not in name} | more
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


TINY = Path(model_file.TINY_FOLDER)


# vLLM 0.33's modules for LlavaForConditionalGeneration with SigLIP and Qwen2, one name of each kind, as its loader
# wants them in a file (q, k, v and gate, up are stacked there).
VLLM_NAMES = """vision_tower.vision_model.embeddings.patch_embedding.weight
vision_tower.vision_model.embeddings.position_embedding.weight
vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight
vision_tower.vision_model.encoder.layers.0.self_attn.out_proj.bias
vision_tower.vision_model.encoder.layers.0.layer_norm1.weight
vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight
multi_modal_projector.linear_1.weight
multi_modal_projector.linear_2.bias
language_model.model.embed_tokens.weight
language_model.model.layers.0.self_attn.q_proj.bias
language_model.model.layers.0.self_attn.o_proj.weight
language_model.model.layers.0.mlp.gate_proj.weight
language_model.model.layers.0.input_layernorm.weight
language_model.model.norm.weight""".splitlines()
VLLM_ROOTS = ("vision_tower.vision_model.embeddings.", "vision_tower.vision_model.encoder.layers.",
              "vision_tower.vision_model.post_layernorm.", "multi_modal_projector.linear_", "language_model.model.",
              "language_model.lm_head.")


@pytest.mark.parametrize("tie", [True, False])
def test_the_exported_names_are_those_that_vllm_loads(tie, tmp_path):
    model = put_together(tmp_path, "qwen2", tie_word_embeddings=tie)
    save_pretrained(model, tmp_path / "out")
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert names >= {*VLLM_NAMES} and all(name.startswith(VLLM_ROOTS) for name in names)
    assert len(names) == len(list(model.parameters())) and ("language_model.lm_head.weight" in names) != tie
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"] and config["dtype"] == "float32"
    with torch.no_grad():
        row = torch.arange(10, 40)[None]
        opened = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
        expected = logits_in_a_pack(model, [row[0]])
        torch.testing.assert_close(opened(input_ids=row).logits[0], expected, atol=1e-4, rtol=1e-4)


def test_a_weight_that_is_a_view_of_a_larger_tensor_is_exported(tmp_path):
    """So transformers leaves the halves of what a file held as one."""
    model = put_together(tmp_path, "qwen2")
    matrix = model.language_model.layers[0].mlp.up_proj.weight
    matrix.data = torch.cat([matrix.data, matrix.data])[: len(matrix)]
    save_pretrained(model, tmp_path / "out")
    assert torch.equal(load_model("", str(tmp_path / "out")).language_model.layers[0].mlp.up_proj.weight, matrix)


def test_a_folder_that_lacks_a_weight_never_opens_with_a_random_one(tmp_path):
    """Everywhere: one matrix, a whole tower, a part to assemble; what feature layer -2 never reaches may lack."""
    one = change_weights(TINY, tmp_path / "one", "language_model.model.layers.1.self_attn.q_proj.weight")
    with pytest.raises(UserError, match=r"one: lacks the weight .*layers.1.self_attn.q_proj.weight \(1 in all\)"):
        load_model("", one)
    with pytest.raises(UserError, match=r"tower: lacks the weight .*vision_tower.* \(83 in all\)"):
        load_model("", change_weights(TINY, tmp_path / "tower", "vision_tower"))
    above = change_weights(TINY, tmp_path / "above", "encoder.layers.5")
    assert torch.equal(load_model("", above).lm_head.weight, load_model("tiny").lm_head.weight)
    write_llm(tmp_path / "llm", "qwen2")
    with pytest.raises(UserError, match="lacking: lacks the weight model.layers.0.mlp.up_proj.weight"):
        assemble(presets()["puma-qwen2-1.5b"], llm=change_weights(tmp_path / "llm", tmp_path / "lacking", "0.mlp.up"))


def test_buffers_that_a_model_saves_are_weights_too(tmp_path):
    """Apertus' activation has two: without them its folder opened, and computed something else."""
    model = put_together(tmp_path, "apertus")
    save_pretrained(model, tmp_path / "out")
    opened = load_model("", str(tmp_path / "out"))
    rows = [torch.arange(10, 90)]
    torch.testing.assert_close(logits_in_a_pack(opened, rows), logits_in_a_pack(model, rows))
    with pytest.raises(UserError, match=r"lacking: lacks the weight .*act_fn.beta \(2 in all\)"):
        load_model("", change_weights(tmp_path / "out", tmp_path / "lacking", "act_fn.beta"))


def test_a_language_model_that_is_not_finite_is_refused_as_such(tmp_path):
    write_llm(tmp_path / "llm", "qwen2")
    nan = {"model.layers.0.mlp.up_proj.weight": torch.full((96, 64), torch.nan)}
    with pytest.raises(UserError, match="nan: what a Qwen2ForCausalLM computes is not finite"):
        assemble(presets()["puma-qwen2-1.5b"], llm=change_weights(tmp_path / "llm", tmp_path / "nan", **nan))


def test_a_folder_of_more_weights_than_the_model_is_refused(tmp_path):
    weight = {"language_model.model.layers.4.mlp.up_proj.weight": torch.ones(2)}
    more = change_weights(TINY, tmp_path / "more", **weight)
    with pytest.raises(UserError, match=r"more: holds the weight .*layers.4.mlp.up_proj.weight \(1 in all\)"):
        load_model("", more)


def test_an_image_token_outside_the_vocabulary_is_refused(tmp_path):
    shutil.copytree(TINY, tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    tokenizer.add_tokens([f"<new_{number}>" for number in range(100)])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<picture>"]})
    processor = load_processor("tiny")
    processor.tokenizer, processor.image_token_id = tokenizer, tokenizer.convert_tokens_to_ids("<picture>")
    if processor.image_token_id < 1024:
        processor.image_token_id = 1024
    with pytest.raises(UserError, match="the image token is .* of 1024 tokens"):
        MathModel(load_model("tiny").hf, processor)


@pytest.mark.parametrize("lost", ["\n", "  ", "√", "°", "²", "中", "\\"])
def test_a_tokenizer_that_loses_characters_is_refused(lost, tmp_path):
    processor = load_processor("tiny")
    check_tokenizer(processor.tokenizer, "tiny")
    processor.tokenizer.backend_tokenizer.normalizer = normalizers.Replace(lost, "")
    processor.save_pretrained(tmp_path)
    shutil.copy(TINY / "config.json", tmp_path)
    with pytest.raises(UserError, match="its tokenizer, read by transformers 5.* use transformers 5.22 or later"):
        load_processor("", str(tmp_path))


def test_a_folder_without_its_tokenizer_is_told_so(tmp_path):
    for path in (*TINY.glob("*.json"), TINY / "model.safetensors", TINY / "chat_template.jinja"):
        if path.name != "tokenizer.json":
            shutil.copy(path, tmp_path)
    with pytest.raises(UserError, match="tokenizer"):
        load_model("", str(tmp_path))


def test_foreign_code_is_never_run_nor_asked_about(tmp_path, monkeypatch):
    """transformers would ask on the terminal, and a y runs what the folder holds."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    codes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": codes}))
    with pytest.raises(UserError, match="contains custom code"):
        assemble(presets()["puma-qwen2-7b"], llm=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_damaged_config_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava", ')
    with pytest.raises(UserError, match="config.json: damaged, no JSON object"):
        load_model("", str(tmp_path))


def test_a_generation_config_that_cannot_be_saved_is_refused_at_the_start(tmp_path):
    """LLaVA-1.5's: transformers reads it, and a run ended in a traceback at its first checkpoint."""
    shutil.copytree(TINY, tmp_path / "tiny")
    (tmp_path / "tiny" / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.9}')
    message = "tiny: .*invalid:  ?- `temperature`: .*do_sample.* Correct generation_config.json"
    with pytest.raises(UserError, match=message):
        load_model("", str(tmp_path / "tiny"))


def test_every_export_has_a_card_and_is_uploaded_only_when_asked(tmp_path, monkeypatch, capsys):
    """Parts, stages, data, commit, settings and losses, handed on from stage to stage; nobody's paths."""
    model = put_together(tmp_path, "qwen2")
    save_pretrained(model, tmp_path / "start")
    pairs = make_pairs(tmp_path, 6)
    common = ("--data", pairs, "--num_workers", 0, "--global_batch", 4, "--pack_tokens", 800, "--max_length", 400)
    run_here("train_stage2", *common, "--model", tmp_path / "start", "--out_dir", tmp_path / "2", "--lam", 0.5)
    run_here("train_stage3", *common, "--model", tmp_path / "2", "--out_dir", tmp_path / "3", "--val_every", 1,
             "--val_data", make_pairs(tmp_path / "siglip", 5))
    card = (tmp_path / "3" / "README.md").read_text()
    assert f"language model: {tmp_path / 'llm'}" in card, "a folder that a user named is a part's only name"
    assert re.search(r"## train_stage2.py: 2 steps.*lam 0.5.*## train_stage3.py: 3 steps.*val_loss \d", card, re.S)
    assert card.count("pairs.jsonl: ") == 2 and card.count("Commit: ") == 2 and "learning_rate 3e-05" in card
    assert "Benchmark scores: none recorded" in card and "out_dir" not in card
    calls = []
    monkeypatch.setattr("huggingface_hub.create_repo", lambda *args, **options: calls.append((args, options)))
    monkeypatch.setattr("huggingface_hub.upload_folder", lambda **options: calls.append(options))
    for more in ((), ("--push_to_hub", "me/mine")):
        assert not calls
        monkeypatch.setattr(sys, "argv", ["model.py", "export", str(tmp_path / "3"), str(tmp_path / "out"), *more])
        model_file.main()
    assert (tmp_path / "out" / "README.md").read_text() == card
    assert calls[0] == (("me/mine",), {"private": True, "exist_ok": True})
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert calls[1]["repo_id"] == "me/mine" and {*calls[1]["allow_patterns"]} == files >= {"model.safetensors"}
    monkeypatch.setattr("huggingface_hub.create_repo", mock.Mock(side_effect=OSError("no token\nmore")))
    with pytest.raises(UserError, match="--push_to_hub me/mine: no token; .*out is complete"):
        model_file.main()


def test_the_card_names_base_models_of_the_hub():
    parts = {"language model": "Qwen/Qwen2-1.5B-Instruct", "vision": "/a/b/siglip"}
    card = model_card(AutoConfig.for_model("llava", made_from={"parts": parts, "stages": []}))
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "base_model:\n- Qwen/Qwen2-1.5B-Instruct\n---" in card


def test_a_readme_of_ones_own_is_never_replaced_by_the_card(tmp_path):
    model = put_together(tmp_path, "qwen2")
    (tmp_path / "out").mkdir()
    for own, kept in (("# My notes\n", True), (None, False), (model_card(AutoConfig.for_model("llava")), False)):
        readme = tmp_path / "out" / "README.md"
        readme.write_text(own) if own else readme.unlink()
        save_pretrained(model, tmp_path / "out")
        export_pretrained(model, tmp_path / "out", ALONE, dtype=torch.float32)
        assert (readme.read_text() == own) == kept
        assert kept or f"language model: {tmp_path / 'llm'}" in readme.read_text()
