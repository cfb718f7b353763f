"""The paper's equations 1-5 in plain PyTorch: the yardstick for every other backend, written to be read, not to be
fast.

weak = vision-rich (the branch that learns, p_i in the paper), strong = text-rich (the branch that teaches, p_{i+1}).

    q = softmax(z_weak / tau)    p = softmax(z_strong / tau)                                                     (eq. 3)
    fkl  = KL(weak || strong) = sum_v q_v (log q_v - log p_v)                                                    (eq. 1)
    rkl  = KL(strong || weak) = sum_v p_v (log p_v - log q_v)                                                    (eq. 2)
    ce   = -log softmax(z_weak)_label                                                                            (eq. 4)
    loss = lam * (alpha * fkl + (1 - alpha) * rkl) * tau^2 + (1 - lam) * ce                                      (eq. 5)

The names are the paper's. Distillation papers usually call KL(teacher || student), our rkl, the forward one.

Deviations from the letter of the paper, each on purpose:
  1. The paper divides all three terms by the vocabulary's size as well as by the number of tokens. That factor 1/V is
     one constant on the whole loss: it changes no direction of descent, only what Adam's epsilon and clipping see, and
     it makes the numbers unreadable. Here each term is a sum over the vocabulary and a mean over tokens.
  2. Read literally, the tau of eq. 3 enters eq. 4 too. Here the cross entropy is at temperature 1, as is usual.
  3. Equation 2 as printed weighs with p_i(Y^(i+1)); the divergence that it names, KL(p_{i+1} || p_i), weighs with
     p_{i+1}.
  4. Equation 4's second line sums log p over the whole vocabulary; its first line, the label's log p, is what we take.
"""

import torch
from torch import Tensor


def reference_losses(
    weak_logits: Tensor, strong_logits: Tensor | None, labels: Tensor, tau: float, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(fkl, rkl, ce), each summed over the rows that are not ignored; differentiable (any number of times).

    weak_logits, strong_logits [N, V] floating point; labels [N] int64. Computed in float64 for float64 logits, else in
    float32. Without strong_logits fkl and rkl are 0. Vocabulary entries of probability 0 (a logit of -inf) add nothing
    to the divergence that weighs with them. A label outside [0, V) makes its row NaN (on the CPU the caller refuses it
    first).
    """
    kept = labels != ignore_index
    labels = labels[kept]
    dtype = torch.promote_types(weak_logits.dtype, torch.float32)
    weak = weak_logits[kept].to(dtype)
    inside = (labels >= 0) & (labels < weak.shape[1])
    log_probs = torch.log_softmax(weak, dim=1)
    ce = -log_probs.gather(1, torch.where(inside, labels, 0).unsqueeze(1)).squeeze(1)
    ce = torch.where(inside, ce, torch.nan).sum()
    if strong_logits is None:
        return torch.zeros_like(ce), torch.zeros_like(ce), ce
    log_q = torch.log_softmax(weak / tau, dim=1)
    log_p = torch.log_softmax(strong_logits.detach()[kept].to(dtype) / tau, dim=1)
    q, p = log_q.exp(), log_p.exp()
    fkl = (q * torch.where(q == 0, 0, log_q - log_p)).sum(1)
    rkl = (p * torch.where(p == 0, 0, log_p - log_q)).sum(1)
    fkl, rkl = (torch.where(inside, divergence, torch.nan).sum() for divergence in (fkl, rkl))
    return fkl, rkl, ce


def combine(fkl: Tensor, rkl: Tensor, ce: Tensor, alpha: float, lam: float, tau: float) -> Tensor:
    """Equation 5. A term of weight exactly 0 is left out, so that an infinite one (a logit of -inf) does not become
    NaN."""
    weighted = [(lam * alpha * tau**2, fkl), (lam * (1 - alpha) * tau**2, rkl), (1 - lam, ce)]
    return sum(weight * term for weight, term in weighted if weight != 0)
