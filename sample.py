"""Ask a checkpoint about pictures; the answer streams.

    python sample.py --model out/demo/stage3 --image fig.png "Find angle C."
    python sample.py --model out/demo/stage3 --image a.png --image b.png "Which of the two triangles is larger?"
    python sample.py --model out/demo/stage3 "In triangle ABC, angle A = 40 and angle B = 60. Find angle C."
"""

import argparse
import math
import sys

import torch
from PIL import Image

import guard  # noqa: F401  (before transformers)
from transformers import TextStreamer, set_seed

from errors import UserError, run_main
from evaluation.generate import inputs_of, load_model, pictures_of, prompt_of
from sources import BadRow, conversations, open_image


def read_picture(path: str) -> Image.Image:
    """An RGB picture as training sees it; UserError when the file is missing, is no picture or is absurdly large."""
    try:
        return open_image(path)
    except BadRow as error:
        raise UserError(error.detail) from error


def read_question(text: str, pictures: list[Image.Image]) -> list[dict]:
    """A message (evaluation/generate.py) as training reads such a row: the pictures in their order, then the text
    without its <image> placeholders. UserError where training refuses it.
    """
    try:
        [(_, (turn, _))] = conversations({"instruction": text, "image_url": pictures, "output": "?"}, pairs=False)
    except BadRow as error:
        raise UserError(f"{error.detail}; give --image FILE once for each picture") from error
    return [*({"type": "image", "value": picture} for picture in turn.images), {"type": "text", "value": turn.text}]


def main() -> None:
    """Parse the flags, load the checkpoint, stream one answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", help="the question; - reads it from standard input")
    parser.add_argument("--model", required=True, help="a folder that a stage, an export or transformers wrote")
    parser.add_argument("--image", action="append", default=[], help="a picture to ask about; once for each, in order")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token each time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.max_new_tokens < 1 or not 0 <= arguments.temperature < math.inf:
        flags = f"--max_new_tokens {arguments.max_new_tokens} --temperature {arguments.temperature}"
        raise UserError(f"{flags}: at least 1, and at least 0")

    question = sys.stdin.read() if arguments.question == "-" else arguments.question
    message = read_question(question, [read_picture(path) for path in arguments.image])
    model, processor = load_model(arguments.model)
    if processor.image_token in message[-1]["value"]:
        raise UserError(f"the question holds the image token {processor.image_token!r}; leave it out")

    inputs = inputs_of(model, processor, [prompt_of(processor, message)], pictures_of(message))
    set_seed(arguments.seed)
    sampling = {"do_sample": False}
    if arguments.temperature > 0:
        sampling = {"do_sample": True, "temperature": arguments.temperature}
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, streamer=streamer, **sampling)


if __name__ == "__main__":
    run_main(main, resumes=False)
