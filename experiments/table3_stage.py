"""What only experiments/table3.py needs: the folder that size `small` starts from, and stage 2 with the released loss.

    python experiments/table3_stage.py start --out_dir out/x  a random LLM of 75M parameters behind tiny's tower
    python experiments/table3_stage.py released --model out/x ...  train_stage2.py with the released loss
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import model as models
import train_stage2
from data import MicroBatch
from errors import UserError, run_main
from kernels import PumaLoss

# ----------------------------------------------------------------------------------------------------------------------
# The folder that size `small` starts from


def small_model() -> models.MathModel:
    """tiny's tower, images and tokenizer before a Qwen2 of 75M random parameters: meant for one GPU."""
    config = models.find_preset("tiny").config
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 4, "layer_types": None}
    config.text_config = type(config.text_config)(**config.text_config.to_dict() | sizes | heads)
    processor = models.load_processor("tiny")
    torch.manual_seed(0)
    hf = models.LlavaForConditionalGeneration(config)
    models.load_tiny_vision(hf.model.vision_tower)
    return models.MathModel(hf, processor)


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


def released_puma(model: models.MathModel, weak: MicroBatch, strong: MicroBatch, *, num_tokens: int,
                  config: train_stage2.Config) -> PumaLoss:
    """Stage 2 as the paper's released code computes it, where that differs from the paper's equations.

    Logits are standardised over the vocabulary before the softmax. The divergences are taken one position late (after
    each response token instead of before it: the first token's prediction is never aligned, the one after the end is).
    They are summed over a row's tokens and averaged over rows, so they weigh with the response's length; tau² enters
    twice. The cross entropy is the usual one. Rows of the whole batch are counted from this micro-batch's mean length.
    """
    positions = torch.cat([weak.response_positions, weak.response_positions + 1])
    hidden, late = model.response_hidden_states(replace(weak, response_positions=positions)).chunk(2)
    with torch.no_grad():
        strong_late = model.response_hidden_states(replace(strong, response_positions=strong.response_positions + 1))
    lm_head = model.lm_head.weight
    log_probs = torch.log_softmax((hidden @ lm_head.T).float(), -1)
    ce = -log_probs.gather(1, weak.response_labels.unsqueeze(1)).sum() / num_tokens
    tokens_per_row = len(weak.response_labels) / max(1, len(weak.row_ids))
    fkl, rkl = released_divergences((late @ lm_head.T).float(), (strong_late @ lm_head.T).float(), config.tau)
    fkl, rkl = (divergence * tokens_per_row / num_tokens for divergence in (fkl, rkl))
    divergences = config.alpha * fkl + (1 - config.alpha) * rkl
    loss = config.lam * divergences * config.tau**2 + (1 - config.lam) * ce
    return PumaLoss(loss, fkl.detach(), rkl.detach(), ce.detach())


# ----------------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Write the folder, or run stage 2's own main with the other loss."""
    command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if command == "start":
        models.save_pretrained(small_model(), sys.argv[sys.argv.index("--out_dir") + 1])
    elif command == "released":
        train_stage2.puma = released_puma
        train_stage2.main()
    else:
        raise UserError("the first word is `start` or `released`; its flags follow")


if __name__ == "__main__":
    run_main(main)
