"""The fused PUMA loss: both KL divergences and the cross entropy from one pass over the vocabulary.

    from kernels import puma_loss, linear_puma_loss, linear_cross_entropy

Importing this package does not import triton; `choose_backend(tensor)` says which backend "auto" takes, and why.
"""

from .puma_loss import PumaLoss, choose_backend, linear_cross_entropy, linear_puma_loss, puma_loss

__all__ = ["PumaLoss", "choose_backend", "linear_cross_entropy", "linear_puma_loss", "puma_loss"]
