"""Time and memory of the PUMA loss and of cross entropy through lm_head, beside the ways one would do without this op.

Every provider sees the same tensors: hidden states [N, D] of both branches, lm_head's weight [V, D], labels [N]. PUMA
is timed as in stage 2 (weight frozen), cross entropy as in stages 1 and 3 (weight trained). `rows` is the loss of
logits that exist already: it shows the kernel without its matrix products. Quantiles over all repeats; peak memory is
above the inputs.

    python -m bench.kernels --operations puma ce --shapes 4096,1536,151936 --providers compile products Liger
    OMP_NUM_THREADS=1 python -m bench.kernels            on the CPU: the PyTorch paths, at CPU_SHAPES
"""

import argparse
import functools
import importlib.util
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bench.memory import peak_bytes
from bench.tables import argument_parser, facts, file_slug, write_table
from errors import UserError, run_main
from kernels.puma_loss import (choose_backend, default_chunk_size, linear_cross_entropy, linear_puma_loss,
                               puma_loss)

ALPHA, LAM = 0.2, 0.1
BASELINE_CHUNK = 1024  # tokens per chunk of the chunked baselines
MAX_SECONDS = 5  # a provider that has taken longer is not repeated again, after its first three repeats
PEERS = ("triton", "liger-kernel", "cut-cross-entropy", "quack-kernels")

# (N, D, V): the issue of memory begins with the vocabulary; the last two show where there is little to win.
CUDA_SHAPES = [(rows, 1536, 151936) for rows in (1024, 4096, 8192, 16384, 32768)]
CUDA_SHAPES += [(rows, 3584, 151936) for rows in (1024, 4096, 8192, 16384, 32768)]
CUDA_SHAPES += [(rows, 4096, 102400) for rows in (4096, 16384)] + [(8192, 2048, 32000), (8192, 1024, 8192)]
CPU_SHAPES = [(4096, 256, 32000), (2048, 256, 4096)]

# ----------------------------------------------------------------------------------------------------------------------
# Providers. puma: (weak, strong, weight, labels) -> loss; ce: (hidden, weight, labels); rows: (weak, strong, labels)


def ours_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, logits_dtype=None) -> Tensor:
    """The loss under test. weak, strong [N, D]; weight [V, D]; labels [N]; returns the mean loss, a scalar."""
    return linear_puma_loss(weak, strong, weight, labels, alpha=ALPHA, lam=LAM, logits_dtype=logits_dtype).loss


def ours_rows(weak: Tensor, strong: Tensor, labels: Tensor) -> Tensor:
    """The loss under test, of logits weak, strong [N, V]; labels [N]; returns a scalar."""
    return puma_loss(weak, strong, labels, alpha=ALPHA, lam=LAM).loss


def eager_rows(weak: Tensor, strong: Tensor, labels: Tensor, num_tokens: int | None = None) -> Tensor:
    """The loss of logits as one would write it: float32 log-softmax, torch's own kl_div and nll_loss."""
    weak = weak.float()
    log_q, log_p = torch.log_softmax(weak, -1), torch.log_softmax(strong.float(), -1)
    fkl = F.kl_div(log_p, log_q, log_target=True, reduction="sum")  # torch's order: KL(second || first)
    rkl = F.kl_div(log_q, log_p, log_target=True, reduction="sum")
    ce = F.nll_loss(log_q, labels, reduction="sum")
    return (LAM * (ALPHA * fkl + (1 - ALPHA) * rkl) + (1 - LAM) * ce) / (num_tokens or len(labels))


def eager_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, num_tokens: int | None = None) -> Tensor:
    """The same of full logits [N, V]."""
    with torch.no_grad():
        strong_logits = F.linear(strong, weight)
    return eager_rows(F.linear(weak, weight), strong_logits, labels, num_tokens)


def eager_ce(hidden: Tensor, weight: Tensor, labels: Tensor, num_tokens: int | None = None) -> Tensor:
    """Cross entropy of full float32 logits. hidden [N, D], weight [V, D], labels [N]; returns a scalar."""
    logits = F.linear(hidden, weight).float()
    return F.cross_entropy(logits, labels, reduction="sum") / (num_tokens or len(labels))


def chunked(chunk_loss: Callable, *inputs: Tensor) -> Tensor:
    """Chunks of tokens, each recomputed in the backward: the honest baseline that needs no kernel."""
    *hidden, weight, labels = inputs
    chunks = zip(*(tensor.split(BASELINE_CHUNK) for tensor in (*hidden, labels)), strict=True)
    return sum(checkpoint(chunk_loss, *states, weight, some, len(labels), use_reentrant=False)
               for *states, some in chunks)


class _Products(torch.autograd.Function):
    """What no implementation can do without: matrix products, `multiply`, that end in the gradients of `trained`."""

    @staticmethod
    def forward(ctx, multiply, *trained):
        ctx.save_for_backward(*multiply())
        return trained[0].sum()

    @staticmethod
    def backward(ctx, grad_output):
        return None, *ctx.saved_tensors


def puma_products(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, *, rows: int | None = None) -> Tensor:
    """Logits of both branches and the gradient of the weak hidden states: the floor for any implementation with chunks
    of `rows` tokens (None: ours); labels are not looked at."""
    rows = rows or default_chunk_size(len(weight), weak.dtype, weak.device.type)

    def multiply() -> tuple[Tensor]:
        gradient = torch.empty_like(weak)
        logits = torch.empty(2 * min(rows, len(weak)), weight.shape[0], dtype=weak.dtype, device=weak.device)
        for start in range(0, len(weak), rows):
            chunk = torch.cat([weak[start : start + rows], strong[start : start + rows]])
            torch.mm(chunk, weight.t(), out=logits[: len(chunk)])
            torch.mm(logits[: len(chunk) // 2], weight, out=gradient[start : start + rows])
        return (gradient,)

    return _Products.apply(multiply, weak)


def ce_products(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Logits, gradients of hidden states and of the weight, over all tokens at once; labels are not looked at."""

    def multiply() -> tuple[Tensor, Tensor]:
        logits = hidden @ weight.t()
        return logits @ weight, logits.t() @ hidden

    return _Products.apply(multiply, hidden, weight)


def torch_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """torch's own chunked linear cross entropy; without options it would make full logits."""
    return F.linear_cross_entropy(hidden, weight, labels, options=torch.nn.LinearCrossEntropyOptions())


def liger_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The same loss composed of Liger's fused linear JSD at its two ends and its fused linear cross entropy."""
    from liger_kernel.transformers import LigerFusedLinearJSD

    fkl = LigerFusedLinearJSD(jsd_beta=1.0)(weak, weight, strong, weight, labels)
    rkl = LigerFusedLinearJSD(jsd_beta=0.0)(weak, weight, strong, weight, labels)
    return LAM * (ALPHA * fkl + (1 - ALPHA) * rkl) + (1 - LAM) * liger_ce(weak, weight, labels)


def liger_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Liger's fused linear cross entropy, in Triton."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(weight, hidden, labels)


def liger_cute_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Liger's CuTe kernels for Hopper; its class above always runs the Triton ones. V must be a multiple of 256."""
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import liger_fused_linear_cross_entropy_sm90

    return liger_fused_linear_cross_entropy_sm90(hidden, weight, labels)


def quack_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """QuACK's chunked linear cross entropy with its default chunks, without its minutes of autotuning.

    Never seen to run: 0.6.5 fails in its own code with CuTe DSL 4.7.0 and 4.8.1 (Python 3.12, torch 2.11).
    """
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy(hidden, weight, labels, tuned=False)


def apple_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """cut-cross-entropy: no logits in memory, small gradients filtered out."""
    from cut_cross_entropy import linear_cross_entropy as cut_cross_entropy

    return cut_cross_entropy(hidden, weight, labels)


def providers(operation: str, device: str) -> dict[str, Callable]:
    """The implementations that can run here, ours first; what cannot is named on the console."""
    compile_ = functools.partial(torch.compile, dynamic=False)
    if operation == "rows":
        return {"nanoPUMA": ours_rows, "eager": eager_rows, "torch.compile": compile_(eager_rows)}
    ours, eager = (ours_puma, eager_puma) if operation == "puma" else (linear_cross_entropy, eager_ce)
    found = {"nanoPUMA": ours}
    if device == "cuda":  # float32 is what the CPU runs in anyway
        found["nanoPUMA, float32 logits"] = functools.partial(ours, logits_dtype=torch.float32)
    found |= {"eager": eager, "torch.compile": compile_(eager),
              "chunked, recomputed, compiled": functools.partial(chunked, compile_(eager))}
    if operation == "puma":
        found["three bare matrix products"] = puma_products
        found["three bare matrix products, in one piece"] = functools.partial(puma_products, rows=10**9)
        peers = [("Liger, composed", "liger_kernel", liger_puma)]
    else:
        found["three bare matrix products, in one piece"] = ce_products
        if hasattr(torch.nn, "LinearCrossEntropyOptions"):
            found["torch linear_cross_entropy, chunked"] = torch_ce
        peers = [("Liger", "liger_kernel", liger_ce), ("cut-cross-entropy", "cut_cross_entropy", apple_ce),
                 ("QuACK", "quack", quack_ce), ("Liger, CuTe", "cutlass", liger_cute_ce)]
    for name, package, function in peers:
        if device != "cuda":
            print(f"{operation}: left out {name} (its kernels need a CUDA device)")
        elif importlib.util.find_spec(package) is None:
            print(f"{operation}: left out {name} (not installed: pip install '.[bench]')")
        else:
            found[name] = function
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Measuring


def milliseconds(launch: Callable[[], object], device: str, ahead: bool = False) -> float:
    """Time of a call and of the kernels it launches. ahead: of the kernels alone, queued before the first one starts,
    so that the host's own time does not count."""
    if device == "cpu":
        begun = time.perf_counter()
        launch()
        return (time.perf_counter() - begun) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if ahead:
        torch.cuda._sleep(20_000_000)  # clocks: some 10 ms, in which the host queues all that follows
    start.record()
    launch()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def median_milliseconds(launch: Callable[[], object], repeats: int, device: str = "cuda") -> float:
    """Median time of the kernels that a call launches, after one call to warm up."""
    launch()
    return sorted(milliseconds(launch, device, ahead=True) for _ in range(repeats))[repeats // 2]


def copy_bandwidth(device: str) -> float:
    """GB/s of a large device-to-device copy, bytes read and bytes written both counted."""
    source = torch.empty(2**31 if device == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_milliseconds(lambda: target.copy_(source), 10, device) / 1e6


def make_inputs(operation: str, shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """What the providers of an operation take; what trains requires a gradient."""
    rows, width, vocabulary = shape
    generator = torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device, dtype=dtype)
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    if operation == "rows":
        return random(rows, vocabulary).requires_grad_(), random(rows, vocabulary), labels
    weight = (random(vocabulary, width) / width**0.5).requires_grad_(operation == "ce")
    weak, *strong = (random(rows, width) for _ in range(2 if operation == "puma" else 1))
    return weak.requires_grad_(), *strong, weight, labels


def measure(operation: str, shape: tuple[int, int, int], dtype: torch.dtype, device: str, repeats: int,
            compared: dict[str, Callable]) -> list[dict[str, object]]:
    """Rows of the table for one operation at one shape: the providers, timed in turn to share the noise."""
    tensors = make_inputs(operation, shape, dtype, device)

    def step(provider: Callable) -> None:
        provider(*tensors).backward()

    def forget_gradients() -> None:
        for tensor in tensors:
            tensor.grad = None

    peaks, notes, times = {}, dict.fromkeys(compared, ""), {name: [] for name in compared}
    for name, provider in compared.items():
        try:
            step(provider)  # compiles
            forget_gradients()
            peaks[name] = peak_bytes(functools.partial(step, provider), device)
        except Exception as error:  # one peer that cannot run must not cost the others' numbers; ours must run
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if name.startswith("nanoPUMA") and not out_of_memory:
                raise
            failed = f"failed: {type(error).__name__} {error}".splitlines()[0]
            notes[name] = "out of memory" if out_of_memory else failed
            if device == "cuda":
                torch.cuda.empty_cache()
        forget_gradients()
    for name in (name for _ in range(repeats) for name in peaks):
        if len(times[name]) < 3 or sum(times[name]) < MAX_SECONDS * 1e3:
            times[name].append(milliseconds(functools.partial(step, compared[name]), device))
            forget_gradients()
    rows, width, vocabulary = shape
    flops = 6 * rows * width * vocabulary  # 3 products of 2 N V D: both logits and dX; or logits, dX, dW
    moved = 5 * dtype.itemsize * rows * vocabulary  # two logits read in the forward; two read, one written after it
    table = []
    for name, found in times.items():
        low, median, high = (quantile(found, share) for share in (0.2, 0.5, 0.8))
        peak, our_peak = (peaks.get(one, math.nan) / 1e6 for one in (name, "nanoPUMA"))
        table.append({
            "operation": operation, "tokens": rows, "width": width or "", "vocabulary": vocabulary,
            "dtype": str(dtype).removeprefix("torch."), "provider": name, "ms": median, "20-80 %": f"{low}-{high}",
            "time / ours": f"{median / quantile(times['nanoPUMA'], 0.5):.2f}", "peak MB": round(peak, 1),
            "peak / ours": f"{peak / our_peak:.1f}" if our_peak else "",  # 0: too small a shape to see
            "GB/s": round(moved / median / 1e6, 1) if operation == "rows" else "",
            "TFLOP/s": round(flops / median / 1e9, 3) if operation != "rows" else "", "note": notes[name]
        })
    return table


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of them lies, to three digits; NaN of none."""
    ordered = sorted(values) or [math.nan]
    return round(ordered[round(share * (len(ordered) - 1))], 3)


def shape_of(text: str) -> tuple[int, int, int]:
    """tokens,width,vocabulary of a --shapes flag."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not tokens,width,vocabulary, as in 4096,256,32000")
    return numbers


OPERATIONS = ("puma", "ce", "rows")


def main() -> None:
    """Measure every operation, shape and provider; write the table after each shape.

    A part of it (--operations, --shapes, --providers) goes to files of its own name.
    """
    parser = argument_parser(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--shapes", nargs="+", type=shape_of, metavar="N,D,V", help="default: those of the full table")
    parser.add_argument("--providers", nargs="+", default=[], help="nanoPUMA and those whose names hold one of these")
    parser.add_argument("--repeats", type=int, help="default: 20 on CUDA, 3 on the CPU")
    args = parser.parse_args()
    device, cuda = args.device, args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; --device cpu measures the PyTorch paths")
    if not cuda:
        print("on the CPU: this measures the PyTorch paths; the Triton kernels are not part of it")
    compared = {operation: providers(operation, device) for operation in args.operations}
    known = sorted(set().union(*compared.values()))
    for part in args.providers:
        if not any(part in name for name in known):
            raise UserError(f"--providers {part!r}: part of no name; there are: {'; '.join(known)}")
    backend, reason = choose_backend(torch.zeros(1, device=device))
    measured = facts(device, *PEERS)
    measured |= {"backend": f"{backend}: {reason}", "copy GB/s": f"{copy_bandwidth(device):.0f}"}
    parts = ["kernel", file_slug(measured["device"]) if cuda else "cpu"]
    parts += args.operations if set(args.operations) != set(OPERATIONS) else []
    parts += ["chosen"] if args.shapes or args.providers else []
    path = args.out_dir / "_".join(parts)
    rows: list[dict[str, object]] = []
    for operation, all_providers in compared.items():
        shapes = args.shapes or (CUDA_SHAPES if cuda else CPU_SHAPES)
        if operation == "rows":  # existing logits know no width: one shape per vocabulary, and not all of the tokens
            shapes = dict.fromkeys((min(tokens, 8192 if cuda else 1024), 0, size) for tokens, _, size in shapes)
        wanted = {
            name: provider
            for name, provider in all_providers.items()
            if not args.providers or name == "nanoPUMA" or any(part in name for part in args.providers)
        }
        for shape in shapes:
            torch.compiler.reset()
            dtype, repeats = (torch.bfloat16, 20) if cuda else (torch.float32, 3)
            for row in measure(operation, shape, dtype, device, args.repeats or repeats, wanted):
                rows.append(row)
                print(f"{operation} {shape} {row['provider']}: {row['ms']} ms, {row['peak MB']} MB {row['note']}")
            write_table(path, "The PUMA loss, measured", measured, rows)
    print(f"written: {path}.csv, .md")


if __name__ == "__main__":
    run_main(main, resumes=False)
