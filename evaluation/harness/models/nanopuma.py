"""A checkpoint in lmms-eval. From this repository's root, with lmms-eval installed:

    LMMS_EVAL_PLUGINS=evaluation.harness PYTHONPATH=. python -m lmms_eval \\
        --model nanopuma --model_args pretrained=out/stage3 --tasks mathverse_testmini --batch_size 32

On several GPUs, `accelerate launch --num_processes 8 -m lmms_eval` with the same flags: lmms-eval gives each rank its
share of the documents and gathers the answers. Run with lmms-eval 0.7.3; where a later release has left that variable
behind for entry points, name this class in the group `lmms_eval.models`.
"""

import os
from collections import defaultdict

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.api.registry import register_model

from evaluation.generate import generate, load_model


@register_model("nanopuma")
class NanoPuma(lmms):
    """The "simple" interface: a request's args are (context, gen_kwargs, doc_to_visual, doc_id, task, split)."""

    is_simple = True

    def __init__(self, pretrained: str, batch_size: int | str = 32, **unused: object) -> None:
        super().__init__()
        self.model, self.processor = load_model(pretrained)
        self.batch_size_per_gpu = int(batch_size)
        # what lmms-eval asks of a model that runs on several ranks; its Accelerator has chosen this rank's GPU by now
        self.device = self.model.device
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The responses, in the order of the requests; cut at a task's stop words.

        Not at an empty line, which is lmms-eval's default where a task names none: it would end a derivation.
        """
        answers: list[str] = [""] * len(requests)
        groups = defaultdict(list)  # requests that ask for the same length and temperature share batches
        for k, request in enumerate(requests):
            options = request.args[1]
            groups[int(options.get("max_new_tokens", 512)), float(options.get("temperature") or 0)].append(k)
        for (max_new_tokens, temperature), members in groups.items():
            texts = generate(self.model, self.processor, [self.message(requests[k]) for k in members],
                             batch_size=self.batch_size_per_gpu, max_new_tokens=max_new_tokens, temperature=temperature)
            for k, text in zip(members, texts, strict=True):
                until = requests[k].args[1].get("until") or []
                for stop in [until] if isinstance(until, str) else until:
                    text = text.split(stop)[0] if stop not in ("", "\n\n") else text
                answers[k] = text
        return answers

    def message(self, request: Instance) -> list[dict]:
        """A request as a message: its pictures, then its text."""
        context, _, doc_to_visual, doc_id, task, split = request.args
        pictures = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        return [*({"type": "image", "value": picture} for picture in pictures), {"type": "text", "value": context}]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: the benchmarks here are all answered in text."""
        raise RuntimeError("nanopuma answers generate_until tasks only; choose a task that generates text")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered: the checkpoints are trained on single questions."""
        raise RuntimeError("nanopuma answers single questions; choose a task of one round")
