"""The PUMA loss behind one signature: fused Triton kernels on CUDA, chunked PyTorch elsewhere, and the reference.

    loss = lam * (alpha * fkl + (1 - alpha) * rkl) * tau^2 + (1 - lam) * ce          (reference.py has the equations)

fkl = KL(weak || strong), rkl = KL(strong || weak) at temperature tau, ce at temperature 1; weak = vision-rich, learns;
strong = text-rich, teaches and never receives a gradient. Each term is a sum over the vocabulary and a mean over
tokens.

How the linear forms save memory and time:
  * Full logits never exist. A chunk of tokens goes through lm_head, its losses and its gradient are made at once over
    the chunk's own buffer, and the buffer is used again. The forward thus already knows the gradient; backward only
    rescales.
  * Weak and strong rows share lm_head, so a chunk's rows go through one matrix product. It is linear, so the strong
    half can be fed h_strong - h_weak and yields z_strong - z_weak itself. Where the two branches nearly agree (the
    normal case: one model, two views of one problem) that difference keeps all its digits, while a difference of two
    logits that were rounded to bfloat16 would be mostly rounding noise. Equal hidden states give a divergence of
    exactly 0.
  * The weight's gradient is accumulated in float32 over the chunks, and not computed at all for a frozen weight.
"""

import functools
import importlib.util
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import torch_puma
from .reference import combine, reference_losses

BACKENDS = ("auto", "triton", "torch", "reference")
MAX_CHUNK_SIZE = 4096
CUDA_CHUNK_BYTES = 1_300_000_000  # a chunk's logits: at V = 151,936 in bfloat16 2,048 rows of 2 branches, 4,096 of one
CPU_CHUNK_BYTES = 64 * 2**20


class PumaLoss(NamedTuple):
    """0-d tensors, float32 (float64 for float64 inputs). Only `loss` carries a gradient; the rest are for the log."""

    loss: Tensor
    fkl: Tensor  # KL(weak || strong) at temperature tau, without the factor tau^2
    rkl: Tensor  # KL(strong || weak), likewise
    ce: Tensor


def choose_backend(tensor: Tensor) -> tuple[str, str]:
    """The backend that "auto" takes for this tensor, and the reason, for a run's header."""
    if not tensor.is_cuda:
        return "torch", f"the tensors are on {tensor.device.type}: chunked PyTorch"
    if tensor.dtype == torch.float64:
        return "torch", "float64, which the Triton kernels do not compute in: chunked PyTorch"
    if importlib.util.find_spec("triton") is None:
        return "torch", "triton is not installed: chunked PyTorch, slower; pip install triton"
    return "triton", f"fused Triton kernels on {torch.cuda.get_device_name(tensor.device)}"


def default_chunk_size(vocabulary: int, logits_dtype: torch.dtype, device_type: str, branches: int = 2) -> int:
    """Tokens per chunk in the linear forms: at most 4,096, fewer where the logits would pass a byte limit.

    branches: 2 for weak and strong logits, 1 for cross entropy alone.
    """
    limit = CPU_CHUNK_BYTES if device_type == "cpu" else CUDA_CHUNK_BYTES
    rows = limit // max(1, branches * vocabulary * logits_dtype.itemsize)
    return max(16, min(MAX_CHUNK_SIZE, 1 << max(0, rows.bit_length() - 1)))


# torch.compile breaks its graph around the op, here and nowhere else: it is hand-written and runs as it is.
_breaks_the_graph = functools.partial(torch.compiler.disable, reason="the PUMA loss runs its own kernels")


@_breaks_the_graph
def puma_loss(
    weak_logits: Tensor,
    strong_logits: Tensor | None,
    labels: Tensor,
    *,
    alpha: float = 0.2,
    lam: float = 0.1,
    tau: float = 1.0,
    ignore_index: int = -100,
    num_tokens: float | Tensor | None = None,
    backend: str = "auto",
) -> PumaLoss:
    """The PUMA loss of logits that exist already.

    weak_logits, strong_logits [N, V], any strides, float64 to bfloat16 (strong_logits may be None when lam = 0, and is
    not read then; fkl and rkl are reported as 0). labels [N] int64; rows labelled ignore_index add nothing to any term.
    num_tokens: what every sum is divided by, a number or a 0-d tensor; None = the labels here that are not
    ignore_index. The gradient goes to weak_logits alone. Differentiable once; backend="reference" any number of times.

    Raises ValueError for wrong shapes, dtypes or weights, and, on the CPU, for a label outside [0, V). On CUDA, where
    looking would stall the GPU, such a label is never used as an address and makes the loss NaN.
    """
    _check_weights(alpha, lam, tau)
    _check_rows("weak_logits", weak_logits, labels, ignore_index, weak_logits.shape[-1])
    if lam == 0:
        strong_logits = None
    else:
        _check_alike("strong_logits", strong_logits, "weak_logits", weak_logits)
    backend = _resolve_backend(backend, weak_logits)
    terms = {"alpha": alpha, "lam": lam, "tau": tau, "ignore_index": ignore_index}
    denominator = _denominator(num_tokens, labels, ignore_index, _statistics_dtype(weak_logits))
    if backend == "reference":
        return _reference_loss(weak_logits, strong_logits, labels, denominator, **terms)
    strong_logits = None if strong_logits is None else strong_logits.detach()
    return PumaLoss(*_LogitsLoss.apply(weak_logits, strong_logits, labels, denominator, _rows_module(backend), terms))


@_breaks_the_graph
def linear_puma_loss(
    weak_hidden: Tensor,
    strong_hidden: Tensor | None,
    weight: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.2,
    lam: float = 0.1,
    tau: float = 1.0,
    ignore_index: int = -100,
    num_tokens: float | Tensor | None = None,
    chunk_size: int | None = None,
    logits_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> PumaLoss:
    """The PUMA loss of hidden states, through lm_head, without ever holding the full logits.

    weak_hidden, strong_hidden [N, D] and weight [V, D] of one dtype; labels [N] int64. The gradient goes to
    weak_hidden, and to weight where it requires one (only the weak branch's share: the strong branch is a fixed
    target). chunk_size: tokens per chunk (None: `default_chunk_size`). Everything else as in `puma_loss`. Under FSDP2
    call it inside the forward of the module that holds lm_head.

    logits_dtype: of the chunk's logits; None = the hidden states'. With bfloat16 hidden states the gradient of the two
    divergences is about 1.2 % off float64 with bfloat16 logits and 0.25 % with float32 ones (twice the bytes), at any
    distance of the branches; the whole loss's, at lam = 0.1, 0.35 % and 0.22 % (bench/kernel_accuracy.md). So the
    default is the cheap one: it is hardly worse than rounding the gradient itself to bfloat16.
    """
    _check_weights(alpha, lam, tau)
    _check_rows("weak_hidden", weak_hidden, labels, ignore_index, weight.shape[0])
    if hasattr(weight, "placements") or hasattr(weak_hidden, "placements"):
        raise ValueError(
            "weight is sharded (a DTensor): call the loss inside the forward of the FSDP2 module that holds lm_head"
        )
    if weight.ndim != 2 or weight.shape[1] != weak_hidden.shape[1] or weight.dtype != weak_hidden.dtype:
        raise ValueError(f"weight must be [V, {weak_hidden.shape[1]}] {weak_hidden.dtype}; got {_describe(weight)}")
    if lam == 0:
        strong_hidden = None
    else:
        _check_alike("strong_hidden", strong_hidden, "weak_hidden", weak_hidden)
    if logits_dtype not in (None, weak_hidden.dtype, torch.float32):
        raise ValueError(f"logits_dtype must be None, {weak_hidden.dtype} or torch.float32; got {logits_dtype}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    backend = _resolve_backend(backend, weak_hidden)
    terms = {"alpha": alpha, "lam": lam, "tau": tau, "ignore_index": ignore_index}
    denominator = _denominator(num_tokens, labels, ignore_index, _statistics_dtype(weak_hidden))
    if backend == "reference":
        dtype = denominator.dtype
        weak_logits = torch.nn.functional.linear(weak_hidden.to(dtype), weight.to(dtype))
        with torch.no_grad():
            strong_logits = None if lam == 0 else torch.nn.functional.linear(strong_hidden.to(dtype), weight.to(dtype))
        return _reference_loss(weak_logits, strong_logits, labels, denominator, **terms)

    logits_dtype = logits_dtype or weak_hidden.dtype
    branches = 1 if strong_hidden is None else 2
    chunk_size = chunk_size or default_chunk_size(weight.shape[0], logits_dtype, weak_hidden.device.type, branches)
    # One chunk needs no float32 sum of products: backward makes the weight's gradient in one product from the chunk's
    # gradient rows, and scales the small hidden states instead of the large result. In float16 they would underflow.
    num_rows = len(weak_hidden)
    one_product = num_rows <= chunk_size and (weight.dtype != torch.float16 or num_rows == 0)
    grad_enabled = torch.is_grad_enabled()
    wanted = (grad_enabled and weak_hidden.requires_grad, grad_enabled and weight.requires_grad)
    with torch.no_grad():
        row_losses, hidden_gradient, weight_gradient = _linear_rows(
            weak_hidden, strong_hidden, weight, labels, chunk_size, logits_dtype, wanted, one_product,
            _rows_module(backend), terms,
        )  # fmt: skip
        losses = _mean_losses(row_losses, denominator, **terms)
    if not any(wanted):
        return losses
    loss = _LinearLoss.apply(
        losses.loss, denominator, weak_hidden, weight, hidden_gradient, weight_gradient, one_product
    )
    return losses._replace(loss=loss)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    num_tokens: float | Tensor | None = None,
    chunk_size: int | None = None,
    logits_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Mean cross entropy (0-d) of hidden [N, D] through lm_head's weight [V, D]: `linear_puma_loss` with lam = 0."""
    return linear_puma_loss(
        hidden,
        None,
        weight,
        labels,
        lam=0.0,
        ignore_index=ignore_index,
        num_tokens=num_tokens,
        chunk_size=chunk_size,
        logits_dtype=logits_dtype,
        backend=backend,
    ).loss


# ----------------------------------------------------------------------------------------------------------------------
# The linear form: chunks of tokens, gradients made in the forward


def _linear_rows(
    weak_hidden: Tensor,
    strong_hidden: Tensor | None,
    weight: Tensor,
    labels: Tensor,
    chunk_size: int,
    logits_dtype: torch.dtype,
    wanted: tuple[bool, bool],
    one_product: bool,
    rows_module: ModuleType,
    terms: dict[str, Any],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Row losses [3, N], and, where wanted, the gradients of the weighted sum (not mean) over rows: hidden [N, D] in
    its own dtype, weight [V, D] in float32, or with one_product its factor: the gradient rows [N, V]."""
    num_rows, width = weak_hidden.shape
    vocabulary = weight.shape[0]
    statistics_dtype = _statistics_dtype(weak_hidden)
    branches = 1 if strong_hidden is None else 2
    chunk_size = max(1, min(chunk_size, num_rows))
    new = functools.partial(torch.empty, device=weak_hidden.device)
    row_losses = new(3, num_rows, dtype=statistics_dtype)
    hidden_gradient = new(num_rows, width, dtype=weak_hidden.dtype) if wanted[0] else None
    weight_gradient = None
    if wanted[1] and not one_product:
        weight_gradient = new(vocabulary, width, dtype=statistics_dtype)
    logits = new(branches * chunk_size, vocabulary, dtype=logits_dtype)
    stacked = new(2 * chunk_size, width, dtype=weak_hidden.dtype) if branches == 2 else None
    # The gradient overwrites the weak logits, unless the products that follow need it in another dtype.
    gradients = logits
    if any(wanted) and logits_dtype != weight.dtype:
        gradients = new(chunk_size, vocabulary, dtype=weight.dtype)
    projection = weight if _mixed_products(weight) else weight.to(logits_dtype)

    for start in range(0, num_rows, chunk_size):
        chunk = slice(start, min(start + chunk_size, num_rows))
        rows = chunk.stop - chunk.start
        weak = weak_hidden[chunk]
        if stacked is None:
            inputs = weak
        else:
            inputs = stacked[: 2 * rows]
            inputs[:rows].copy_(weak)
            torch.sub(strong_hidden[chunk], weak, out=inputs[rows:])
        chunk_logits = logits[: branches * rows]
        _project(inputs, projection, chunk_logits)
        gradient = gradients[:rows] if any(wanted) else None
        rows_module.puma_rows(
            chunk_logits[:rows],
            None if stacked is None else chunk_logits[rows:],
            labels[chunk],
            row_losses[:, chunk],
            gradient,
            strong_is_difference=True,
            **terms,
        )
        if hidden_gradient is not None:
            torch.mm(gradient, weight, out=hidden_gradient[chunk])
        if weight_gradient is not None:
            _accumulate_product(weight_gradient, gradient, weak, first=start == 0)
    if wanted[1] and one_product:
        weight_gradient = gradients[:num_rows]
    return row_losses, hidden_gradient, weight_gradient


def _mixed_products(tensor: Tensor) -> bool:
    """Whether torch multiplies this tensor's 16-bit values into a float32 result (CUDA only)."""
    return tensor.is_cuda and tensor.dtype in (torch.float16, torch.bfloat16)


def _project(inputs: Tensor, weight: Tensor, logits: Tensor) -> None:
    """logits [R, V] = inputs [R, D] @ weight.T, rounded once, to the dtype of `logits`."""
    if logits.dtype == inputs.dtype:
        torch.mm(inputs, weight.t(), out=logits)
    elif _mixed_products(weight):
        torch.mm(inputs, weight.t(), logits.dtype, out=logits)
    else:
        torch.mm(inputs.to(logits.dtype), weight.t(), out=logits)


def _accumulate_product(total: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """total [V, D] (float32) += gradient.T @ hidden; the first chunk writes, so that `total` needs no zeroing."""
    beta = 0 if first else 1
    if _mixed_products(gradient):
        torch.addmm(total, gradient.t(), hidden, total.dtype, beta=beta, out=total)
    else:
        total.addmm_(gradient.t().to(total.dtype), hidden.to(total.dtype), beta=beta)


# ----------------------------------------------------------------------------------------------------------------------
# Autograd


class _LinearLoss(torch.autograd.Function):
    """Ties a loss whose gradients are known already to the tensors that they belong to."""

    @staticmethod
    def forward(ctx, loss, denominator, weak_hidden, weight, hidden_gradient, weight_gradient, one_product):
        factor = weak_hidden if one_product and weight_gradient is not None else None
        ctx.save_for_backward(denominator, hidden_gradient, weight_gradient, factor)
        ctx.weight_dtype = weight.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx, grad_output):
        _refuse_double_backward()
        denominator, hidden_gradient, weight_gradient, factor = ctx.saved_tensors
        scale = grad_output / denominator
        hidden_gradient = None if hidden_gradient is None else _scaled(hidden_gradient, scale, hidden_gradient.dtype)
        if factor is not None:
            weight_gradient = torch.mm(weight_gradient.t(), _scaled(factor, scale, factor.dtype))
        elif weight_gradient is not None:
            weight_gradient = _scaled(weight_gradient, scale, ctx.weight_dtype)
        return None, None, hidden_gradient, weight_gradient, None, None, None


class _LogitsLoss(torch.autograd.Function):
    """Forward: one pass over the logits for the losses. Backward: one more writes the gradient into its own buffer."""

    @staticmethod
    def forward(ctx, weak_logits, strong_logits, labels, denominator, rows_module, terms):
        row_losses, statistics = rows_module.puma_forward(weak_logits, strong_logits, labels, **terms)
        losses = _mean_losses(row_losses, denominator, **terms)
        ctx.save_for_backward(weak_logits, strong_logits, labels, denominator, statistics)
        ctx.rows_module, ctx.terms = rows_module, terms
        ctx.mark_non_differentiable(*losses[1:])
        return tuple(losses)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        _refuse_double_backward()
        weak_logits, strong_logits, labels, denominator, statistics = ctx.saved_tensors
        gradient = torch.empty(weak_logits.shape, dtype=weak_logits.dtype, device=weak_logits.device)
        scale = grad_loss / denominator
        ctx.rows_module.puma_backward(weak_logits, strong_logits, labels, statistics, gradient, scale, **ctx.terms)
        return gradient, None, None, None, None, None


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused PUMA loss is differentiable once (create_graph=True was asked); use backend='reference'"
        )


def _scaled(gradient: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient * scale, rounded once. As a 0-d tensor the scale would itself be rounded to gradient's 16-bit dtype
    first."""
    return torch.mul(gradient, scale.reshape(1), out=torch.empty_like(gradient, dtype=dtype))


# ----------------------------------------------------------------------------------------------------------------------
# Small parts


def _mean_losses(
    row_losses: Tensor, denominator: Tensor, alpha: float, lam: float, tau: float, ignore_index: int
) -> PumaLoss:
    fkl, rkl, ce = (row_losses.sum(1) / denominator).unbind()
    return PumaLoss(combine(fkl, rkl, ce, alpha, lam, tau), fkl, rkl, ce)


def _reference_loss(
    weak_logits: Tensor,
    strong_logits: Tensor | None,
    labels: Tensor,
    denominator: Tensor,
    alpha: float,
    lam: float,
    tau: float,
    ignore_index: int,
) -> PumaLoss:
    fkl, rkl, ce = (s / denominator for s in reference_losses(weak_logits, strong_logits, labels, tau, ignore_index))
    return PumaLoss(combine(fkl, rkl, ce, alpha, lam, tau), fkl.detach(), rkl.detach(), ce.detach())


def _statistics_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _denominator(num_tokens: float | Tensor | None, labels: Tensor, ignore_index: int, dtype: torch.dtype) -> Tensor:
    """The 0-d tensor that every sum is divided by; 1 in place of 0, so that a batch of no tokens has loss 0 and not
    NaN."""
    if num_tokens is None:
        num_tokens = (labels != ignore_index).sum()
    elif isinstance(num_tokens, Tensor) and num_tokens.numel() != 1:
        raise ValueError(f"num_tokens must be a number or a 0-d tensor; got shape {list(num_tokens.shape)}")
    elif not isinstance(num_tokens, Tensor) or num_tokens.device.type == "cpu":
        # A number travels with the launch; copying a host tensor to the device would make the host wait.
        num_tokens = float(num_tokens)
        if num_tokens < 0:
            raise ValueError(f"num_tokens must not be negative; got {num_tokens}")
        num_tokens = torch.full((), num_tokens, dtype=dtype, device=labels.device)
    num_tokens = num_tokens.detach().reshape(()).to(labels.device, dtype)
    return num_tokens + (num_tokens == 0)


def _resolve_backend(backend: str, tensor: Tensor) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    return choose_backend(tensor)[0] if backend == "auto" else backend


def _rows_module(backend: str) -> ModuleType:
    """The module whose puma_rows, puma_forward and puma_backward do the work. Triton is imported only when asked
    for."""
    if backend == "torch":
        return torch_puma
    try:
        from . import triton_puma
    except ImportError as error:
        raise ValueError(f"backend='triton' needs triton ({error}); backend='torch' needs nothing") from error
    return triton_puma


def _check_weights(alpha: float, lam: float, tau: float) -> None:
    if not (0 <= alpha <= 1 and 0 <= lam <= 1 and 0 < tau < float("inf")):
        raise ValueError(f"alpha and lam must lie in [0, 1] and tau must be positive; got {alpha=}, {lam=}, {tau=}")


def _check_rows(name: str, rows: Tensor, labels: Tensor, ignore_index: int, vocabulary: int) -> None:
    if rows.ndim != 2 or not rows.is_floating_point():
        raise ValueError(f"{name} must be a floating point matrix; got {_describe(rows)}")
    if labels.shape != rows.shape[:1] or labels.dtype != torch.int64 or labels.device != rows.device:
        raise ValueError(f"labels must be [{rows.shape[0]}] torch.int64 on {rows.device}; got {_describe(labels)}")
    if labels.device.type == "cpu":  # elsewhere a look would wait for the device
        wrong = ((labels < 0) | (labels >= vocabulary)) & (labels != ignore_index)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"labels[{row}] = {int(labels[row])} is neither in [0, {vocabulary}) nor ignore_index = {ignore_index}"
            )


def _check_alike(name: str, tensor: Tensor | None, model_name: str, model: Tensor) -> None:
    if tensor is None or (tensor.shape, tensor.dtype, tensor.device) != (model.shape, model.dtype, model.device):
        raise ValueError(f"{name} must be like {model_name}, {_describe(model)}; got {_describe(tensor)}")


def _describe(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"
