"""A training script of nanoPUMA with what only runs/table3.py needs: the preset `small` and the released code's loss.

    python runs/table3_stage.py 2 --preset small --model out/x ...     train_stage2.py, knowing the preset `small`
    python runs/table3_stage.py 2 --preset tiny --loss released ...    train_stage2.py with the released loss
    python runs/table3_stage.py start --out_dir out/x                  random LLM of `small` behind tiny's tower
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import guard  # noqa: F401  (before transformers)
import torch
from torch import Tensor
from transformers import Qwen2Config

import model as models
from data import MicroBatch
from errors import UserError, run_main
from kernels import PumaLoss

# ----------------------------------------------------------------------------------------------------------------------
# The preset


def small_preset() -> models.Preset:
    """tiny's tower, pictures and tokenizer before a Qwen2 of 75M parameters: meant for one GPU."""
    tiny = models.tiny_config()
    text = tiny.text_config.to_dict()
    text |= {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
             "num_key_value_heads": 4, "layer_types": None}  # fmt: skip
    config = models._llava(tiny.vision_config, Qwen2Config(**text), tiny.image_token_id)
    return models.Preset(config, image_tokens=144, max_length=768)


def presets_with_small(presets: Callable[[], dict[str, models.Preset]]) -> Callable[[], dict[str, models.Preset]]:
    """The presets and one more."""
    return lambda: {**presets(), "small": small_preset()}


def make_start(folder: str) -> None:
    """Write the folder that every order at size `small` starts from: tiny's tower, the rest at random."""
    torch.manual_seed(0)
    hf = models._random(small_preset(), torch.float32, "cpu")
    models.load_tiny_vision(hf.model.vision_tower)
    processor = models.load_processor("tiny")
    hf.config.image_token_id = processor.image_token_id
    models.save_pretrained(models.MathModel(hf, processor), folder)


# ----------------------------------------------------------------------------------------------------------------------
# The released loss


def z_scores(logits: Tensor) -> Tensor:
    """Logits [N, V] standardised over the vocabulary."""
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-6)


def released_divergences(weak_logits: Tensor, strong_logits: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """(KL(weak ‖ strong), KL(strong ‖ weak)) of standardised logits [N, V], summed over rows, each times tau²."""
    log_q = torch.log_softmax(z_scores(weak_logits) / tau, -1)
    log_p = torch.log_softmax(z_scores(strong_logits) / tau, -1)
    fkl = (log_q.exp() * (log_q - log_p)).sum() * tau**2
    rkl = (log_p.exp() * (log_p - log_q)).sum() * tau**2
    return fkl, rkl


def released_forward(
    self: models.MathModel,
    weak: MicroBatch,
    strong: MicroBatch | None = None,
    *,
    num_tokens: float | Tensor,
    alpha: float = 0.2,
    lam: float = 0.1,
    tau: float = 1.0,
    backend: str = "auto",
) -> PumaLoss:
    """Stage 2 as the paper's released code computes it, where that differs from the paper's equations.

    Logits are standardised over the vocabulary before the softmax. The divergences are taken one position late (after
    each response token instead of before it: the first token's prediction is never aligned, the one after the end is).
    They are summed over a row's tokens and averaged over rows, so they weigh with the response's length; tau² enters
    twice. The cross entropy is the usual one. Rows of the whole batch are reckoned from this pack's mean length.
    """
    if strong is None:
        raise UserError("--loss released belongs to stage 2, which has pairs")
    positions = torch.cat([weak.response_positions, weak.response_positions + 1])
    hidden, late = self.response_hidden_states(replace(weak, response_positions=positions)).chunk(2)
    with torch.no_grad():
        strong_late = self.response_hidden_states(replace(strong, response_positions=strong.response_positions + 1))
    lm_head = self.hf.lm_head.weight
    log_probs = torch.log_softmax((hidden @ lm_head.T).float(), -1)
    ce = -log_probs.gather(1, weak.response_labels.unsqueeze(1)).sum() / num_tokens
    tokens_per_row = len(weak.response_labels) / max(1, len(weak.row_ids))
    fkl, rkl = released_divergences((late @ lm_head.T).float(), (strong_late @ lm_head.T).float(), tau)
    fkl, rkl = (divergence * tokens_per_row / num_tokens for divergence in (fkl, rkl))
    loss = lam * (alpha * fkl + (1 - alpha) * rkl) * tau**2 + (1 - lam) * ce
    return PumaLoss(loss, fkl.detach(), rkl.detach(), ce.detach())


# ----------------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Put the extras in place, then run the stage's own main."""
    if len(sys.argv) < 2 or sys.argv[1] not in ("1", "2", "3", "start"):
        raise UserError("the first word is the stage, 1, 2 or 3, or `start`; its flags follow")
    stage, arguments = sys.argv[1], sys.argv[2:]
    models.presets = presets_with_small(models.presets)
    if stage == "start":
        make_start(arguments[arguments.index("--out_dir") + 1])
        return
    if "--loss" in arguments:
        place = arguments.index("--loss")
        if arguments[place + 1 : place + 2] != ["released"]:
            raise UserError("--loss: there is `released`; the paper's is the default")
        del arguments[place : place + 2]
        models.MathModel.forward = released_forward
    sys.argv[1:] = arguments
    importlib.import_module(f"train_stage{stage}").main()


if __name__ == "__main__":
    run_main(main)
