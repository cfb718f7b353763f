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
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

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
def puma_loss(weak_logits: Tensor, strong_logits: Tensor | None, labels: Tensor, *, alpha: float = 0.2,
              lam: float = 0.1, tau: float = 1.0, ignore_index: int = -100, num_tokens: float | Tensor | None = None,
              backend: str = "auto") -> PumaLoss:
    """The PUMA loss of logits that exist already.

    weak_logits, strong_logits [N, V], any strides, float64 to bfloat16 (strong_logits may be None when lam = 0, and is
    not read then; fkl and rkl are NaN). labels [N] int64; rows labelled ignore_index add nothing to any term.
    num_tokens: what every sum is divided by, a number or a 0-d tensor; None = the labels here that are not
    ignore_index. The gradient goes to weak_logits alone. Differentiable once; backend="reference" any number of times.

    Raises ValueError for wrong shapes, dtypes or weights, and, on the CPU, for a label outside [0, V). On CUDA, where
    looking would stall the GPU, such a label is never used as an address and makes the loss NaN.
    """
    loss_kwargs = {"alpha": alpha, "lam": lam, "tau": tau, "ignore_index": ignore_index}
    strong_logits = _check("logits", weak_logits, strong_logits, labels, weak_logits.shape[-1], **loss_kwargs)
    rows_module = _rows_module(backend, weak_logits)
    dtype = torch.promote_types(weak_logits.dtype, torch.float32)
    denominator = _denominator(num_tokens, labels, ignore_index, dtype)
    if rows_module is None:
        sums = reference_losses(weak_logits, strong_logits, labels, tau, ignore_index)
        return _mean_losses(sums, denominator, alpha, lam, tau)
    row_losses = torch.empty(3, len(labels), dtype=dtype, device=labels.device)
    with torch.no_grad():
        statistics = rows_module.puma_rows(weak_logits, strong_logits, labels, row_losses, None, **loss_kwargs)
    losses = _mean_losses(row_losses.sum(1), denominator, alpha, lam, tau)

    def make_gradients(scale: Tensor, weak: Tensor, strong: Tensor | None, labels: Tensor, statistics: Tensor | None):
        gradient = torch.empty(weak.shape, dtype=weak.dtype, device=weak.device)
        rows_module.puma_rows(weak, strong, labels, None, gradient, statistics=statistics, scale=scale, **loss_kwargs)
        return gradient, None

    saved = (weak_logits, strong_logits, labels, statistics)
    return losses._replace(loss=_FusedLoss.apply(losses.loss, denominator, make_gradients, saved, weak_logits, None))


@_breaks_the_graph
def linear_puma_loss(weak_hidden: Tensor, strong_hidden: Tensor | None, weight: Tensor, labels: Tensor, *,
                     alpha: float = 0.2, lam: float = 0.1, tau: float = 1.0, ignore_index: int = -100,
                     num_tokens: float | Tensor | None = None, chunk_size: int | None = None,
                     logits_dtype: torch.dtype | None = None, backend: str = "auto") -> PumaLoss:
    """The PUMA loss of hidden states, through lm_head, without ever holding the full logits.

    weak_hidden, strong_hidden [N, D] and weight [V, D] of one dtype; labels [N] int64. The gradient goes to
    weak_hidden, and to weight where it requires one (only the weak branch's share: the strong branch is a fixed
    target). chunk_size: tokens per chunk (None: `default_chunk_size`). Everything else as in `puma_loss`. Under FSDP2
    call it as model(loss_function, ...), inside the root module's forward: only there is lm_head whole.

    logits_dtype: of the chunk's logits; None = the hidden states'. With bfloat16 hidden states the gradient of the two
    divergences is about 1.2 % off float64 with bfloat16 logits and 0.25 % with float32 ones (twice the bytes), at any
    distance of the branches; the whole loss's, at lam = 0.1, 0.35 % and 0.22 % (bench/kernel_accuracy.md). So the
    default is the cheap one: it is hardly worse than rounding the gradient itself to bfloat16.
    """
    if hasattr(weight, "placements") or hasattr(weak_hidden, "placements"):
        raise ValueError("weight is a DTensor: call model(loss_function, ...), inside the root module's forward")
    loss_kwargs = {"alpha": alpha, "lam": lam, "tau": tau, "ignore_index": ignore_index}
    strong_hidden = _check("hidden", weak_hidden, strong_hidden, labels, weight.shape[0], **loss_kwargs)
    if weight.shape[1:] != weak_hidden.shape[1:] or weight.dtype != weak_hidden.dtype:
        raise ValueError(f"weight must be [V, {weak_hidden.shape[1]}] {weak_hidden.dtype}; got {_describe(weight)}")
    if logits_dtype not in (None, weak_hidden.dtype, torch.float32):
        raise ValueError(f"logits_dtype must be None, {weak_hidden.dtype} or torch.float32; got {logits_dtype}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    rows_module = _rows_module(backend, weak_hidden)
    dtype = torch.promote_types(weak_hidden.dtype, torch.float32)
    if rows_module is None:
        hidden = (weak_hidden, strong_hidden)
        logits = (None if x is None else torch.nn.functional.linear(x.to(dtype), weight.to(dtype)) for x in hidden)
        return puma_loss(*logits, labels, num_tokens=num_tokens, backend=backend, **loss_kwargs)

    denominator = _denominator(num_tokens, labels, ignore_index, dtype)
    num_rows, (vocabulary, width) = len(weak_hidden), weight.shape
    logits_dtype = logits_dtype or weak_hidden.dtype
    branches = 1 if strong_hidden is None else 2
    chunk_size = chunk_size or default_chunk_size(vocabulary, logits_dtype, weak_hidden.device.type, branches)
    chunk_size = max(1, min(chunk_size, num_rows))
    # One chunk needs no float32 sum of products: backward makes the weight's gradient in one product from the chunk's
    # gradient rows, and scales the small hidden states instead of the large result. In float16 they would underflow.
    one_product = num_rows <= chunk_size and (weight.dtype != torch.float16 or num_rows == 0)
    train_hidden, train_weight = (torch.is_grad_enabled() and x.requires_grad for x in (weak_hidden, weight))
    new = functools.partial(torch.empty, device=weak_hidden.device)
    row_losses = new(3, num_rows, dtype=dtype)
    hidden_gradient = new(num_rows, width, dtype=weak_hidden.dtype) if train_hidden else None
    weight_gradient = new(vocabulary, width, dtype=dtype) if train_weight and not one_product else None
    logits = new(branches * chunk_size, vocabulary, dtype=logits_dtype)
    gradients = None
    if train_hidden or train_weight:
        # They overwrite the weak logits, unless the products that follow need them in another dtype.
        gradients = logits if logits_dtype == weight.dtype else new(chunk_size, vocabulary, dtype=weight.dtype)
    with torch.no_grad():
        mixed = _mixed_products(weight) and logits_dtype != weight.dtype
        projection = weight if mixed else weight.to(logits_dtype)
        for start in range(0, num_rows, chunk_size):
            chunk = slice(start, start + chunk_size)
            inputs = weak = weak_hidden[chunk]
            rows = len(weak)
            if strong_hidden is not None:
                inputs = torch.cat([weak, strong_hidden[chunk]])
                inputs[rows:] -= weak  # lm_head is linear: the logits of this half are z_strong - z_weak
            chunk_logits = logits[: len(inputs)]
            if mixed:  # rounded once, to the dtype of the logits
                torch.mm(inputs, projection.t(), logits_dtype, out=chunk_logits)
            else:
                torch.mm(inputs.to(logits_dtype), projection.t(), out=chunk_logits)
            difference = None if strong_hidden is None else chunk_logits[rows:]
            gradient = None if gradients is None else gradients[:rows]
            rows_module.puma_rows(chunk_logits[:rows], None, labels[chunk], row_losses[:, chunk], gradient,
                                  difference=difference, **loss_kwargs)
            if hidden_gradient is not None:
                torch.mm(gradient, weight, out=hidden_gradient[chunk])
            if weight_gradient is not None:
                _accumulate_product(weight_gradient, gradient, weak, first=start == 0)
    losses = _mean_losses(row_losses.sum(1), denominator, alpha, lam, tau)
    saved = (hidden_gradient, weight_gradient, None)
    if train_weight and one_product:
        saved = (hidden_gradient, gradients[:num_rows], weak_hidden)
    make_gradients = functools.partial(_linear_gradients, weight.dtype)
    return losses._replace(loss=_FusedLoss.apply(losses.loss, denominator, make_gradients, saved, weak_hidden, weight))


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, *, ignore_index: int = -100,
                         num_tokens: float | Tensor | None = None, chunk_size: int | None = None,
                         logits_dtype: torch.dtype | None = None, backend: str = "auto") -> Tensor:
    """Mean cross entropy (0-d) of hidden [N, D] through lm_head's weight [V, D]: `linear_puma_loss` with lam = 0."""
    return linear_puma_loss(hidden, None, weight, labels, lam=0.0, ignore_index=ignore_index, num_tokens=num_tokens,
                            chunk_size=chunk_size, logits_dtype=logits_dtype, backend=backend).loss


# ----------------------------------------------------------------------------------------------------------------------
# Products and gradients of the linear form


def _mixed_products(tensor: Tensor) -> bool:
    """Whether torch multiplies this tensor's 16-bit values into a float32 result (CUDA only)."""
    return tensor.is_cuda and tensor.dtype in (torch.float16, torch.bfloat16)


def _accumulate_product(total: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """total [V, D] (float32) += gradient.T @ hidden; the first chunk writes, so that `total` needs no zeroing."""
    beta = 0 if first else 1
    if _mixed_products(gradient):
        torch.addmm(total, gradient.t(), hidden, total.dtype, beta=beta, out=total)
    else:
        total.addmm_(gradient.t().to(total.dtype), hidden.to(total.dtype), beta=beta)


def _linear_gradients(dtype: torch.dtype, scale: Tensor, hidden_grad: Tensor | None, weight_grad: Tensor | None,
                      hidden: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """scale * the gradients of hidden states and weight, in `dtype`. Given the hidden states, weight_grad holds the
    gradient rows [N, V] whose product with them is the weight's gradient."""

    def scaled(x: Tensor | None) -> Tensor | None:
        """Rounded once. As a 0-d tensor the scale would itself be rounded to a 16-bit tensor's dtype first."""
        return None if x is None else torch.mul(x, scale.reshape(1), out=torch.empty_like(x, dtype=dtype))

    return scaled(hidden_grad), scaled(weight_grad) if hidden is None else torch.mm(weight_grad.t(), scaled(hidden))


class _FusedLoss(torch.autograd.Function):
    """Ties a loss computed without autograd to its two inputs: make_gradients(scale, *saved) gives their gradients."""

    @staticmethod
    def forward(ctx, loss, denominator, make_gradients, saved, *inputs):
        ctx.save_for_backward(denominator, *saved)
        ctx.make_gradients = make_gradients
        return loss.clone()

    @staticmethod
    def backward(ctx, grad_output):
        if torch.is_grad_enabled():
            raise RuntimeError("the PUMA loss is differentiable once; for create_graph=True use backend='reference'")
        denominator, *saved = ctx.saved_tensors
        return None, None, None, None, *ctx.make_gradients(grad_output / denominator, *saved)


# ----------------------------------------------------------------------------------------------------------------------
# Small parts


def _mean_losses(sums: Iterable[Tensor], denominator: Tensor, alpha: float, lam: float, tau: float) -> PumaLoss:
    fkl, rkl, ce = (total / denominator for total in sums)
    loss = combine(fkl, rkl, ce, alpha, lam, tau)
    if lam == 0:  # the strong branch was not read
        fkl = rkl = torch.full_like(ce, torch.nan)
    return PumaLoss(loss, fkl.detach(), rkl.detach(), ce.detach())


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


def _rows_module(backend: str, tensor: Tensor) -> ModuleType | None:
    """The module whose puma_rows does the work; None for the reference. Triton is imported only when asked for."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "auto":
        backend = choose_backend(tensor)[0]
    if backend != "triton":
        return torch_puma if backend == "torch" else None
    try:
        from . import triton_puma
    except ImportError as error:
        raise ValueError(f"backend='triton' needs triton ({error}); backend='torch' needs nothing") from error
    return triton_puma


def _check(name: str, weak: Tensor, strong: Tensor | None, labels: Tensor, vocabulary: int, *, alpha: float, lam: float,
           tau: float, ignore_index: int) -> Tensor | None:
    """Raise ValueError for arguments that do not fit. Returns strong without its graph, or None when lam = 0."""
    if not (0 <= alpha <= 1 and 0 <= lam <= 1 and 0 < tau < float("inf")):
        raise ValueError(f"alpha and lam must lie in [0, 1] and tau must be positive; got {alpha=}, {lam=}, {tau=}")
    if weak.ndim != 2 or not weak.is_floating_point():
        raise ValueError(f"weak_{name} must be a floating point matrix; got {_describe(weak)}")
    if labels.shape != weak.shape[:1] or labels.dtype != torch.int64 or labels.device != weak.device:
        raise ValueError(f"labels must be [{weak.shape[0]}] torch.int64 on {weak.device}; got {_describe(labels)}")
    if labels.device.type == "cpu":  # elsewhere a look would wait for the device
        wrong = ((labels < 0) | (labels >= vocabulary)) & (labels != ignore_index)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(f"labels[{row}] = {labels[row]} is neither in [0, {vocabulary}) nor {ignore_index=}")
    if lam == 0:
        return None
    if strong is None or (strong.shape, strong.dtype, strong.device) != (weak.shape, weak.dtype, weak.device):
        raise ValueError(f"strong_{name} must be like weak_{name}, {_describe(weak)}; got {_describe(strong)}")
    return strong.detach()


def _describe(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"
