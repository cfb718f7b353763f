"""A checkpoint in VLMEvalKit. Name it in vlmeval/config.py, then run as ever:

from functools import partial
from evaluation.harness.vlmevalkit import NanoPuma
supported_VLM["nanopuma"] = partial(NanoPuma, folder="out/stage3")

PYTHONPATH=PATH_OF_THIS_REPOSITORY python run.py --data MathVista_MINI --model nanopuma
"""

from vlmeval.vlm.base import BaseModel

from evaluation.generate import generate, load_model


class NanoPuma(BaseModel):
    """VLMEvalKit's own prompts; a message is already a list of {"type": "image" or "text", "value": ...}."""

    INSTALL_REQ = False
    INTERLEAVE = True
    allowed_types = ("text", "image")  # VLMEvalKit refuses a message with anything else

    def __init__(self, folder: str, max_new_tokens: int = 768, **unused: object) -> None:
        super().__init__()
        self.model, self.processor = load_model(folder)
        self.max_new_tokens = max_new_tokens

    def generate_inner(self, message: list[dict], dataset: str | None = None) -> str:
        """The response to one message."""
        return generate(self.model, self.processor, [message], max_new_tokens=self.max_new_tokens)[0]
