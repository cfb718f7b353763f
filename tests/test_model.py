"""model.py: what it builds, what trains, what a pack computes, and what is saved."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import guard  # noqa: F401  (before transformers)
from transformers import (AutoModelForImageTextToText, AutoProcessor, DeepseekVLHybridConfig,
                          DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridImageProcessorPil, LlamaConfig,
                          SamVisionConfig, SiglipVisionConfig)

import model as model_file
import runtime
import train_stage2
import train_stage3
from bench.plan import count_parameters
from checkpoint import save_pretrained
from errors import UserError
from model import (PARTS, MathModel, count_image_tokens, load_model, load_processor, longest_row,
                   parse_parts, part_of, presets)

ROOT = Path(__file__).resolve().parents[1]


def small_hybrid_config() -> DeepseekVLHybridConfig:
    """DeepSeek's architecture in miniature: 16 image tokens."""
    siglip = SiglipVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                image_size=32, patch_size=8, vision_use_head=False)
    sam = SamVisionConfig(hidden_size=32, output_channels=8, num_hidden_layers=2, num_attention_heads=2, image_size=64,
                          patch_size=16, mlp_dim=64, window_size=2, global_attn_indexes=[1])
    text = LlamaConfig(vocab_size=640, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    return DeepseekVLHybridConfig(vision_config=siglip, high_res_vision_config=sam, text_config=text, image_token_id=3,
                                  tie_word_embeddings=False)


def small_hybrid() -> MathModel:
    images = DeepseekVLHybridImageProcessorPil(
        size={"height": 32, "width": 32}, high_res_size={"height": 64, "width": 64}, image_mean=[0.5] * 3,
        image_std=[0.5] * 3, high_res_image_mean=[0.4] * 3, high_res_image_std=[0.3] * 3)
    model = DeepseekVLHybridForConditionalGeneration(small_hybrid_config())
    tokenizer = SimpleNamespace(eos_token_id=2)
    return MathModel(model, SimpleNamespace(image_processor=images, image_token_id=3, tokenizer=tokenizer))


def pack(rows: list[torch.Tensor], image_token_id: int, pixels: dict | None = None, run_vision: bool = False):
    """A data.MicroBatch in all that model.py reads: every token after the first of a row is a response token."""
    lengths = torch.tensor([len(row) for row in rows])
    cu_seqlens = torch.cat([torch.zeros(1), lengths.cumsum(0)]).to(torch.int32)
    starts = cu_seqlens[:-1].tolist()
    positions = torch.cat([start + torch.arange(len(row) - 1) for start, row in zip(starts, rows, strict=True)])
    return SimpleNamespace(
        input_ids=torch.cat(rows)[None], position_ids=torch.cat([torch.arange(len(row)) for row in rows])[None],
        cu_seqlens=cu_seqlens, max_seqlen=int(lengths.max()), pixel_values=pixels or {}, run_vision=run_vision,
        response_positions=positions.long(), response_labels=torch.cat([row[1:] for row in rows])
    )


def cross_entropy(model: MathModel, batch: SimpleNamespace, num_tokens: int, **settings: str) -> torch.Tensor:
    config = train_stage3.Config(**settings)
    return model(train_stage3.cross_entropy, batch, num_tokens=num_tokens, config=config)


def puma(model: MathModel, weak: SimpleNamespace, strong: SimpleNamespace, num_tokens: int, **settings: float):
    config = train_stage2.Config(**settings)
    return model(train_stage2.puma, weak, strong, num_tokens=num_tokens, config=config)


def random_row(length: int, image_tokens: int, image_token_id: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(10, 500, (length,), generator=generator)
    if image_tokens:
        row = torch.cat([row[:2], torch.full((image_tokens,), image_token_id), row[2:]])
    return row


def random_pixels(model: MathModel, images: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    sizes = {"pixel_values": model.config.vision_config.image_size}
    if hasattr(model.config, "high_res_vision_config"):
        sizes["high_res_pixel_values"] = model.config.high_res_vision_config.image_size
    return {
        name: torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8)
        for name, size in sizes.items()
    }


@pytest.fixture(scope="module")
def tiny() -> MathModel:
    torch.manual_seed(0)
    return load_model("tiny", random=True).eval()


@pytest.fixture(scope="module")
def hybrid() -> MathModel:
    torch.manual_seed(0)
    return small_hybrid().eval()


def test_every_parameter_of_every_preset_belongs_to_a_part():
    millions = {}
    for name, preset in presets().items():
        with torch.device("meta"):
            counts = count_parameters(AutoModelForImageTextToText.from_config(preset.config))
        assert all(counts[part] > 0 for part in PARTS)
        millions[name] = {part: round(count / 1e6) for part, count in counts.items()}
    assert millions["puma-qwen2-1.5b"]["llm"] == 1544 and millions["puma-qwen2-7b"]["llm"] == 7616
    assert millions["puma-deepseek-math-7b"]["llm"] == 6910
    assert 405 <= millions["puma-qwen2-7b"]["vision"] <= 415  # SigLIP-so400m without its pooling head


def test_image_tokens_agree_with_the_architecture_and_the_tokenizer():
    for name, preset in presets().items():
        vision = preset.config.vision_config
        assert count_image_tokens(preset.config) == (vision.image_size // vision.patch_size) ** 2, name
    processor = load_processor("tiny")
    config = presets()["tiny"].config
    assert processor.image_token_id == config.image_token_id
    assert processor.tokenizer.eos_token_id == config.text_config.eos_token_id
    assert len(processor.tokenizer) <= config.text_config.vocab_size


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_rows_in_a_pack_do_not_see_each_other(name, request):
    """Packed logits equal those of the stock model on each row alone, with and without images."""
    model = request.getfixturevalue(name)
    image = model.config.image_token_id
    tokens = 144 if name == "tiny" else 16
    rows = [random_row(9, tokens, image, 1), random_row(5, 0, image, 2), random_row(13, tokens, image, 3)]
    pixels = random_pixels(model, 2)
    with torch.no_grad():
        together = model.hf.lm_head(model.response_hidden_states(pack(rows, image, pixels)))
        model.language_model.set_attn_implementation("sdpa")
        alone, used = [], 0
        for row in rows:
            own = {}
            if (row == image).any():
                own = {key: model.normalize(key, value[used : used + 1]) for key, value in pixels.items()}
                used += 1
            alone.append(model.hf(input_ids=row[None], **own).logits[0, :-1])
        model.language_model.set_attn_implementation("nanopuma_packed")
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_packed_attention_equals_masked_sdpa(tiny):
    """Position ids that start again make transformers mask the rows; the packed path computes the same gradients."""
    rows = [random_row(length, 0, 3, length) for length in (7, 30, 2, 11)]
    batch = pack(rows, 3)
    gradients = []
    for attention in ("nanopuma_packed", "sdpa"):
        tiny.language_model.set_attn_implementation(attention)
        tiny.zero_grad()
        tiny.response_hidden_states(batch).square().sum().backward()
        gradients.append(tiny.language_model.layers[0].self_attn.k_proj.weight.grad.clone())
    tiny.language_model.set_attn_implementation("nanopuma_packed")
    tiny.zero_grad()
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", presets())
def test_what_a_gpu_runs_fits_every_preset_at_its_true_size(name):
    """On the meta device, in bf16: varlen_attn's arguments, shapes and dtypes, forward and backward; no GPU, no hub."""
    model = load_model(name, random=True, dtype=torch.bfloat16, device="meta")
    assert all(parameter.dtype == torch.bfloat16 and parameter.is_meta for parameter in model.parameters())
    assert model.config.image_token_id == model.processor.image_token_id
    frequencies = [buffer for buffer_name, buffer in model.named_buffers() if buffer_name.endswith("inv_freq")]
    assert frequencies and all(buffer.dtype == torch.float32 for buffer in frequencies), "rounded positions"
    called = []

    def varlen(query, key, value, *arguments, **options):
        called.append((query.shape, key.shape))
        return real(query, key, value, *arguments, **options)

    real, model_file.varlen_attn = model_file.varlen_attn, varlen
    try:
        batch = pack([torch.arange(10, 30), torch.arange(10, 17)], -1)
        on_meta = {key: value.to("meta") for key, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        batch = SimpleNamespace(**{**vars(batch), **on_meta})
        model.set_trainable(("llm",))
        cross_entropy(model, batch, 10, loss_backend="torch").backward()
    finally:
        model_file.varlen_attn = real
    text = model.config.text_config
    head = text.hidden_size // text.num_attention_heads
    assert called == [((27, text.num_attention_heads, head), (27, text.num_key_value_heads, head))] * len(called)
    assert len(called) == text.num_hidden_layers
    for layer in model.language_model.layers:
        assert layer.self_attn.k_proj.weight.grad is not None and layer.self_attn.q_proj.weight.grad is not None


def test_a_pack_without_pictures_has_a_gradient_where_the_decoder_is_frozen(tiny):
    """Stage 2, or --train projector: a pack that happens to hold text alone must not end the run."""
    row = random_row(6, 0, 3, 0)
    try:
        tiny.set_trainable(("vision", "projector"))
        tiny.zero_grad()
        puma(tiny, pack([row], 3), pack([row], 3), 5).loss.backward()
        assert all(p.grad is not None and not p.grad.any() for p in tiny.parameters() if p.requires_grad)
    finally:
        tiny.set_trainable(PARTS)
        tiny.zero_grad()


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_a_pack_without_pictures_still_touches_the_tower(name, request):
    """Else FSDP2 hangs when another rank's pack has an image: the tower's gradients exist, and are exactly zero."""
    model = request.getfixturevalue(name)
    model.set_trainable(PARTS)
    model.zero_grad()
    row = random_row(6, 0, 3, 0)
    quiet = cross_entropy(model, pack([row], 3), 5)
    cross_entropy(model, pack([row], 3, run_vision=True), 5).backward()
    touched = cross_entropy(model, pack([row], 3, run_vision=True), 5)
    assert torch.equal(quiet, touched)
    for parameter_name, parameter in model.named_parameters():
        if part_of(parameter_name) != "llm" and parameter.requires_grad:
            assert parameter.grad is not None and not parameter.grad.any(), parameter_name
    model.zero_grad()


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_what_trains_receives_gradients_and_nothing_else_does(name, request):
    model = request.getfixturevalue(name)
    image = model.config.image_token_id
    rows = [random_row(9, 144 if name == "tiny" else 16, image, 1), random_row(5, 0, image, 2)]
    batch = pack(rows, image, random_pixels(model, 1))
    for parts in (("llm",), ("vision", "projector"), PARTS):
        model.set_trainable(parts)
        model.zero_grad(set_to_none=True)
        cross_entropy(model, batch, 10).backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert part_of(parameter_name) in parts
                assert parameter.grad is not None, f"{parameter_name} trains but no gradient reaches it"
            else:
                assert parameter.grad is None, parameter_name
    model.set_trainable(PARTS)
    model.zero_grad()


def test_the_strong_pass_teaches_and_does_not_learn(tiny):
    """Stage 2: the gradient is that of the loss with the strong logits held constant."""
    weak = pack([random_row(6, 144, tiny.config.image_token_id, 1)], 3, random_pixels(tiny, 1))
    strong_row = weak.input_ids[0][weak.input_ids[0] != tiny.config.image_token_id]
    strong = pack([strong_row], 3)
    keep = slice(-4, None)  # the last four tokens are the response in both forms
    for batch in (weak, strong):
        batch.response_positions, batch.response_labels = batch.response_positions[keep], batch.response_labels[keep]
    tiny.zero_grad()
    losses = puma(tiny, weak, strong, 4, alpha=0.2, lam=0.5, tau=2.0)
    losses.loss.backward()
    ours = tiny.projector.linear_1.weight.grad.clone()
    tiny.zero_grad()
    with torch.no_grad():
        log_strong = (tiny.hf.lm_head(tiny.response_hidden_states(strong)) / 2.0).log_softmax(-1)
    logits = tiny.hf.lm_head(tiny.response_hidden_states(weak))
    log_weak = (logits / 2.0).log_softmax(-1)
    fkl = (log_weak.exp() * (log_weak - log_strong)).sum() / 4
    rkl = (log_strong.exp() * (log_strong - log_weak)).sum() / 4
    ce = -logits.log_softmax(-1).gather(1, weak.response_labels[:, None]).mean()
    expected = 0.5 * (0.2 * fkl + 0.8 * rkl) * 2.0**2 + 0.5 * ce
    expected.backward()
    torch.testing.assert_close(losses.loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, tiny.projector.linear_1.weight.grad, rtol=1e-3, atol=1e-6)
    tiny.zero_grad()


def test_what_is_saved_opens_in_transformers_with_the_same_logits(tiny, tmp_path):
    save_pretrained(tiny, tmp_path)
    assert not list(tmp_path.glob("*.bin")) and (tmp_path / "model.safetensors").is_file()
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find angle C."}]}]
    image = Image.effect_noise((96, 96), 60).convert("RGB")
    prompt = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    assert (inputs["input_ids"] == tiny.config.image_token_id).sum() == 144
    with torch.no_grad():
        theirs = opened(**inputs).logits[0]
        raw = processor.image_processor(
            images=[image], do_rescale=False, do_normalize=False, return_tensors="pt"
        )["pixel_values"]
        batch = pack([inputs["input_ids"][0]], 3, {"pixel_values": raw.to(torch.uint8)})
        ours = tiny.hf.lm_head(tiny.response_hidden_states(batch))
    torch.testing.assert_close(ours, theirs[:-1], atol=2e-5, rtol=1e-4)


def test_load_model_takes_back_what_it_saved_and_refuses_another_architecture(tiny, tmp_path):
    save_pretrained(tiny, tmp_path)
    for preset in ("", "tiny"):  # the folder alone is enough
        again = load_model(preset, str(tmp_path))
        assert (count_image_tokens(again.config), longest_row(again.config)) == (144, 768)
        for (name, value), (_, other) in zip(tiny.named_parameters(), again.named_parameters(), strict=True):
            assert torch.equal(value, other), name
    with pytest.raises(UserError, match="not a puma-qwen2-1.5b checkpoint.*hidden_size.*leave --preset out"):
        load_model("puma-qwen2-1.5b", str(tmp_path))
    with pytest.raises(UserError, match="no config.json.*made by runs/align.sh"):
        load_model("", str(tmp_path / "nowhere"), made_by="runs/align.sh")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    with pytest.raises(UserError, match="other: a model of type 'qwen2_5_vl'.*llava"):
        load_model("", str(tmp_path / "other"))
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model("tiny", str(tmp_path))


def test_random_weights_are_the_same_in_every_dtype():
    """What a CPU computes in float32 can be held beside what a GPU computes in bfloat16."""
    models = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        models.append(load_model("tiny", random=True, dtype=dtype))
    for (name, single), (_, half) in zip(*(model.named_parameters() for model in models), strict=True):
        assert half.dtype == torch.bfloat16 and torch.equal(single.bfloat16(), half), name
    rotary = [model.language_model.rotary_emb.inv_freq for model in models]
    assert torch.equal(*rotary) and rotary[1].dtype == torch.float32


def test_what_is_compiled_has_no_hooks_inside_and_computes_the_same(monkeypatch):
    """transformers' hook on a tower's attention would break each layer's graph in three (seen in 5.17)."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(load_model("tiny"))
    plain, model = models
    runtime.compile_layers(model)
    layers = [layer for _, layer in runtime.transformer_layers(model)]
    assert len(compiled) == len(layers) == 10
    pixels = model_file.blank_pixels(model.config, 2, device="cpu")
    assert torch.equal(model.image_features(pixels), plain.image_features(pixels))
    for layer in layers:
        assert not any(module._forward_hooks for module in layer.modules() if module is not layer)


@pytest.mark.slow
def test_every_variant_of_a_layer_is_compiled(monkeypatch, caplog):
    """Frozen and trained layers, with gradients and without, one image and more: torch gives up after 8 by itself."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model = load_model("tiny")
    model.set_trainable(("vision", "projector"))
    runtime.compile_layers(model)
    for images in (1, 2, 3):
        for with_gradients in (True, False):
            with torch.set_grad_enabled(with_gradients):
                model.hf.model.get_image_features(pixel_values=torch.zeros(images, 3, 96, 96))
                embeddings = torch.zeros(1, 20 * images, 192, requires_grad=with_gradients)
                model.language_model(inputs_embeds=embeddings, position_ids=torch.arange(20 * images)[None],
                                     use_cache=False, cu_seq_lens_q=torch.tensor([0, 20 * images], dtype=torch.int32),
                                     max_length_q=20 * images)
    assert "recompile_limit" not in caplog.text


@pytest.mark.parametrize("parts", [PARTS, pytest.param(("vision", "projector"), marks=pytest.mark.slow)])
def test_packs_of_no_and_one_picture_need_no_graphs_of_their_own(parts, monkeypatch):
    """Beside one of a single picture and one of several, there are none; the blank picture is one like any other."""
    torch._dynamo.reset()
    graphs = []
    monkeypatch.setattr(torch, "compile", functools.partial(
        torch.compile, backend=lambda graph, inputs: graphs.append(graph) or graph.forward))
    model = load_model("tiny")
    model.set_trainable(parts)
    runtime.compile_layers(model)
    counts = {}
    for images in (2, 1, 3, 0, 4):
        rows = [random_row(9 + number, 144 * (number < images), 3, number) for number in range(4)]
        batch = pack(rows, 3, random_pixels(model, images) if images else {}, run_vision=True)
        cross_entropy(model, batch, 50).backward()
        counts.setdefault(images, len(graphs))
    assert counts[0] == counts[3] == counts[4] == len(graphs), "the later packs were compiled anew"
    assert len(graphs) <= 12, "layers that train or not, one image or more; the decoder's, and its attention's parts"


def test_unknown_names_are_errors():
    with pytest.raises(UserError, match="unknown preset 'huge'.*tiny"):
        load_model("huge")
    with pytest.raises(UserError, match="unknown part adapter"):
        parse_parts("vision,adapter")
    with pytest.raises(UserError, match="(none)"):
        parse_parts(" , ")
    assert parse_parts("vision, projector") == ("vision", "projector")


def environment_with_a_package_called_kernels(folder: Path) -> dict[str, str]:
    """An environment where a distribution `kernels`, of a version that transformers takes, is installed."""
    from transformers.utils import import_utils

    information = folder / "kernels-1.dist-info"
    information.mkdir()
    version = import_utils.KERNELS_MIN_VERSION
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    (information / "top_level.txt").write_text("kernels\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def run_python(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


SCRIPTS = ("train_stage1", "train_stage2", "train_stage3", "sample", "eval", "model", "gen_data", "augment_data")


def test_an_installed_package_called_kernels_breaks_no_script(tmp_path):
    """transformers trusts the version of an installed `kernels` and imports ours; guard.py stands between."""
    environment = environment_with_a_package_called_kernels(tmp_path)
    imports = "import " + ", ".join(SCRIPTS)  # each imports what it runs on; main() stands under __main__
    integrations = "from transformers.integrations import hub_kernels"
    run = run_python(["-c", f"{imports}; {integrations}"], environment)
    assert run.returncode == 0, run.stderr[-2000:]
    unguarded = run_python(["-c", integrations], environment)
    assert "from kernels import" in unguarded.stderr, "the fake package no longer provokes the failure"
