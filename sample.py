"""Ask a checkpoint about a picture; the answer streams.

    python sample.py --model out/demo/stage3 --image fig.png "Find angle C."
    python sample.py --model out/demo/stage3 "In triangle ABC, angle A = 40 and angle B = 60. Find angle C."
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

import guard  # noqa: F401  (before transformers)
from transformers import AutoModelForImageTextToText, AutoProcessor, TextStreamer, set_seed

from errors import UserError, run_main
from sources import BadRow, open_image


def read_picture(path: str) -> Image.Image:
    """An RGB picture as training sees it; UserError when the file is missing, is no picture or is absurdly large."""
    try:
        return open_image(path)
    except BadRow as error:
        raise UserError(error.detail) from error


def main() -> None:
    """Parse the flags, load the checkpoint, stream one answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", help="the question; - reads it from standard input")
    parser.add_argument("--model", required=True, help="a folder that a stage, an export or transformers wrote")
    parser.add_argument("--image", default="", help="a picture to ask about")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token each time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    if not (Path(arguments.model) / "config.json").is_file():
        raise UserError(f"{arguments.model}: no config.json; --model wants a stage's folder, e.g. out/demo/stage3")
    question = sys.stdin.read() if arguments.question == "-" else arguments.question
    device = "cuda" if torch.cuda.is_available() else "cpu"
    picture = read_picture(arguments.image) if arguments.image else None
    processor = AutoProcessor.from_pretrained(arguments.model, backend="pil")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(arguments.model, dtype=dtype).to(device).eval()

    content = [{"type": "text", "text": question}]
    if picture is not None:
        content.insert(0, {"type": "image"})
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[picture] if picture is not None else None, return_tensors="pt").to(device)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    set_seed(arguments.seed)
    sampling = {"do_sample": False}
    if arguments.temperature > 0:
        sampling = {"do_sample": True, "temperature": arguments.temperature}
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, streamer=streamer, **sampling)


if __name__ == "__main__":
    run_main(main, resumes=False)
