"""The PUMA loss and its gradient for a chunk of logits in plain PyTorch: the path for CPUs and for GPUs without Triton.

The arithmetic is the one that triton_puma.py derives, in whole-row operations. It works on a few rows at a time, so
that its temporaries stay in the CPU's cache and the peak of memory is that of the logits themselves.
"""

import torch
from torch import Tensor

CPU_BLOCK_ELEMENTS = 2**18  # 1 MB of float32 per temporary


def puma_rows(weak: Tensor, strong: Tensor | None, labels: Tensor, row_losses: Tensor | None, gradient: Tensor | None,
              *, difference: Tensor | None = None, statistics: None = None, scale: Tensor | None = None,
              alpha: float, lam: float, tau: float, ignore_index: int) -> None:
    """Write the rows' losses, and the gradient of their weighted sum with respect to the weak logits.

    weak [R, V]; strong [R, V], or in its place difference [R, V] = z_strong - z_weak (this function may overwrite it),
    or neither when lam = 0; labels [R] int64. row_losses [3, R] (fkl, rkl, ce; None: only the gradient is wanted) and
    gradient [R, V] (None: only the losses) are written; gradient may be `weak` itself. scale: 0-d, multiplies the
    gradient. The computation runs in the dtype of row_losses, or of scale without them. statistics: what the call for
    the losses returned; nothing here, the gradient computes them again.
    """
    rows, vocabulary = weak.shape
    dtype = scale.dtype if row_losses is None else row_losses.dtype
    two_branches = strong is not None or difference is not None
    tau = tau if two_branches else 1.0  # cross entropy alone knows no other temperature
    step = max(1, CPU_BLOCK_ELEMENTS // max(vocabulary, 1)) if weak.device.type == "cpu" else max(rows, 1)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        z = weak[block].to(dtype)
        ignored = labels[block] == ignore_index
        inside = (labels[block] >= 0) & (labels[block] < vocabulary)
        outside = ~inside & ~ignored
        safe_labels = labels[block].masked_fill(~inside, 0).unsqueeze(1)
        label_logit = z.gather(1, safe_labels)

        weak_max = z.amax(1, keepdim=True)
        q = z - weak_max
        r = q if tau == 1 else q.exp()
        _exponentials_(q, tau)
        r_sum, rest = _sum_and_rest(r, safe_labels)
        q_sum = r_sum if r is q else _sum_and_rest(q, safe_labels)[0]
        # Where the label's logit is the largest, ce = log(1 + rest): a sum that holds the 1 has lost a small rest's
        # digits.
        ce = torch.where(label_logit == weak_max, rest.log1p(), weak_max - label_logit + r_sum.log())
        fkl = rkl = torch.zeros_like(ce)
        if two_branches:
            if difference is None:
                p = strong[block].to(dtype)
                delta = p - z
                # Where a probability is 0 its term is 0, whatever delta is (inf, or inf - inf). On a CPU a look for
                # -inf and NaN is cheaper than the guards that it saves; elsewhere it would wait for the device.
                finite = z.device.type == "cpu" and bool((torch.minimum(z.amin(1), p.amin(1)) > -torch.inf).all())
            else:
                delta = difference[block].to(dtype)
                p = z + delta
                finite = True  # the linear op's logits hold no -inf: nothing to guard
            strong_max = p.amax(1, keepdim=True)
            # Summed in the same order as q: equal branches have equal sums, and a divergence of exactly 0.
            p = _exponentials_(p - strong_max, tau)
            p_sum, _ = _sum_and_rest(p, safe_labels)
            weak_mean_delta = _weighted_sum(q, delta, finite) / q_sum
            strong_mean_delta = _weighted_sum(p, delta, finite) / p_sum
            log_ratio = (weak_max - strong_max) / tau + (q_sum / p_sum).log()  # log of the partition functions' ratio
            fkl = -weak_mean_delta / tau - log_ratio
            rkl = strong_mean_delta / tau + log_ratio
        if row_losses is not None:
            losses = torch.cat([fkl, rkl, ce], dim=1).t()
            row_losses[:, block] = losses.masked_fill(ignored, 0).masked_fill(outside, torch.nan)
        if gradient is None:
            continue

        # The divergences' terms are exactly 0 where the branches are equal: the gradient is then exactly cross
        # entropy's.
        result = gradient[block] if gradient.dtype == dtype else torch.empty_like(q)
        q.mul_(1 / q_sum)
        torch.mul(q if r is q else r.mul_(1 / r_sum), 1 - lam, out=result)
        if two_branches:
            result.add_(p.mul_(1 / p_sum).sub_(q), alpha=-lam * (1 - alpha) * tau)
            if alpha != 0:
                # A difference is the op's own chunk of logits, and read no more.
                delta.sub_(weak_mean_delta).mul_(q)
                if not finite:
                    delta.masked_fill_(q == 0, 0)
                result.add_(delta, alpha=-lam * alpha)
        result.scatter_add_(1, safe_labels, torch.full_like(label_logit, lam - 1))
        for marked, value in ((ignored, 0), (outside, torch.nan)):
            if marked.device.type != "cpu" or marked.any():  # elsewhere a look would wait for the device
                result.masked_fill_(marked.unsqueeze(1), value)
        if scale is not None:
            result.mul_(scale)
        if gradient.dtype != dtype:
            gradient[block] = result


def _exponentials_(values: Tensor, tau: float) -> Tensor:
    """values <- exp(values / tau), in place; returns them."""
    return (values if tau == 1 else values.mul_(1 / tau)).exp_()


def _sum_and_rest(powers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Per row [R, 1] the sum of powers, and the sum of all but the label's (labels [R, 1])."""
    label_power = powers.gather(1, labels)
    rest = powers.scatter_(1, labels, 0).sum(1, keepdim=True)
    powers.scatter_(1, labels, label_power)
    return rest + label_power, rest


def _weighted_sum(weights: Tensor, values: Tensor, finite: bool) -> Tensor:
    """sum_v weights * values per row [R, 1], where a weight of 0 silences a value that is not finite."""
    product = weights * values
    return (product if finite else product.masked_fill_(weights == 0, 0)).sum(1, keepdim=True)
