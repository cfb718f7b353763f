"""Asking a checkpoint: batched, greedy, left-padded, with a KV cache; and the thin adapters for two public harnesses.

    model, processor = load_model("out/demo/stage3")
    texts = generate(model, processor, [[{"type": "image", "value": "fig.png"}, {"type": "text", "value": "Find x."}]])
    texts = generate(model, processor, [message_of(question) for question in questions])    # of one of our benchmarks

A message is a list of parts, as VLMEvalKit has them: {"type": "image", "value": path or PIL picture} and
{"type": "text", "value": str}. Rows of like length share a batch; a batch ends when its last row has ended.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

import guard  # noqa: F401  (before transformers)
from transformers import BatchFeature, GenerationConfig, PreTrainedModel, ProcessorMixin

from errors import UserError
from evaluation.question import Question
from model import load_processor, one_line, open_model
from sources import BadRow, open_image

Message = list[dict]


def load_model(folder: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A checkpoint folder → (model in eval mode, on the GPU if there is one; processor), or a UserError: for one that
    lacks weights too, which would be random.
    """
    remedy = "--model wants a folder that a stage, an export or transformers wrote, e.g. out/demo/stage3"
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; {remedy}")
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    processor = load_processor("", folder)
    # transformers goes on without a damaged one, and answers may not end
    if (Path(folder) / "generation_config.json").exists():
        with one_line(f"{folder}: the generation_config.json cannot be loaded", remedy):
            GenerationConfig.from_pretrained(folder)
    with one_line(f"{folder}: the chat template cannot be loaded", remedy):
        prompt_of(processor, [{"type": "image"}, {"type": "text", "value": "Find x."}])
    return open_model(folder, dtype).to(device).eval(), processor


def generate(model: PreTrainedModel, processor: ProcessorMixin, messages: Sequence[Message], *, batch_size: int = 64,
             max_new_tokens: int = 512, temperature: float = 0.0) -> list[str]:
    """The responses, in the order of the messages. temperature 0 is greedy."""
    found = {k: text for k, text, _ in stream(model, processor, messages, batch_size=batch_size,
                                              max_new_tokens=max_new_tokens, temperature=temperature)}
    return [found[k] for k in range(len(messages))]


def message_of(question: Question, *, blind: bool = False, missing: bool = False) -> Message:
    """A question as a message. blind: a white picture in place of its own; missing: the same, for want of any."""
    text = {"type": "text", "value": question.prompt}
    return [{"type": "image", "value": question.image, "blank": blind or missing}, text] if question.image else [text]


def stream(model: PreTrainedModel, processor: ProcessorMixin, messages: Sequence[Message], *, batch_size: int = 64,
           max_new_tokens: int = 512, temperature: float = 0.0) -> Iterator[tuple[int, str, bool]]:
    """(position, response, cut) as batches are done, the longest prompts first: too little memory shows at once. cut:
    max_new_tokens ended the response, not the model.
    """
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    prompts = [prompt_of(processor, message) for message in messages]
    lengths = [len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]] if prompts else []
    order = sorted(range(len(messages)), key=lambda k: (pictures_in(messages[k]) > 0, lengths[k]), reverse=True)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        pictures = [picture for k in rows for picture in pictures_of(messages[k])]
        inputs = inputs_of(model, processor, [prompts[k] for k in rows], pictures)
        with torch.inference_mode():
            outputs = model.generate(**inputs, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id or 0,
                                     **sampling)
        written = outputs[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        yield from zip(rows, (text.strip() for text in texts), cut_off(model, written), strict=True)


def cut_off(model: PreTrainedModel, written: torch.Tensor) -> list[bool]:
    """Of each row [rows, tokens] that generate has written: whether no end-of-turn token is in it. A row that ends has
    one, before its padding or as its very last token.
    """
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([] if ends is None else ends, dtype=written.dtype, device=written.device).reshape(-1)
    return (~torch.isin(written, ends).any(dim=1)).tolist()


def inputs_of(model: PreTrainedModel, processor: ProcessorMixin, prompts: list[str],
              pictures: list[Image.Image]) -> BatchFeature:
    """What the model's forward takes, on its device and in its dtype; a template's own bos gets no second one."""
    bos = processor.tokenizer.bos_token
    inputs = processor(text=prompts, images=pictures or None, padding=len(prompts) > 1, return_tensors="pt",
                       add_special_tokens=bos is None or not prompts[0].startswith(bos)).to(model.device)
    for name, value in inputs.items():
        if value.is_floating_point():
            inputs[name] = value.to(model.dtype)
    return inputs


def prompt_of(processor: ProcessorMixin, message: Message) -> str:
    """The chat template around one user turn, pictures first, as in training."""
    parts = [{"type": "image"} for _ in range(pictures_in(message))]
    text = "\n".join(part["value"] for part in message if part["type"] == "text")
    turn = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)


def pictures_in(message: Message) -> int:
    """How many pictures a message has."""
    return sum(part["type"] == "image" for part in message)


def pictures_of(message: Message) -> list[Image.Image]:
    """A message's pictures, opened as training opens them; a blank part gives a white picture of the same size."""
    pictures = []
    for part in (part for part in message if part["type"] == "image"):
        try:
            picture = open_image(part["value"])
        except BadRow as error:
            if not part.get("blank"):
                raise UserError(f"{error}; --allow_missing_images puts a white picture in its place") from error
            picture = Image.new("RGB", (96, 96), "white")
        pictures.append(Image.new("RGB", picture.size, "white") if part.get("blank") else picture)
    return pictures
