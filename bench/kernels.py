"""Time and memory of the PUMA loss and of cross entropy through lm_head, beside the ways one would do without this op.

Every provider sees the same tensors: hidden states [N, D] of both branches, lm_head's weight [V, D], labels [N]. PUMA
is timed as in stage 2 (weight frozen), cross entropy as in stages 1 and 3 (weight trained). `rows` is the loss of
logits that exist already: it shows the kernel without its matrix products. Quantiles over all repeats; peak memory is
above the inputs.
"""

import argparse
import datetime
import functools
import gc
import importlib.metadata
import importlib.util
import math
import os
import subprocess
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

from errors import UserError
from runtime import git_commit

from kernels.puma_loss import choose_backend, default_chunk_size, linear_cross_entropy, linear_puma_loss, puma_loss
from bench.tables import cpu_name, file_slug, markdown_table, write_csv

ALPHA, LAM = 0.2, 0.1
BASELINE_CHUNK = 1024  # tokens per chunk of the chunked baselines
MAX_SECONDS = 5  # a provider that has taken longer is not repeated again, after its first three repeats

# (N, D, V): the issue of memory begins with the vocabulary; the last two show where there is little to win.
CUDA_SHAPES = [(rows, 1536, 151936) for rows in (1024, 4096, 8192, 16384, 32768)]
CUDA_SHAPES += [(rows, 3584, 151936) for rows in (1024, 4096, 8192, 16384, 32768)]
CUDA_SHAPES += [(rows, 4096, 102400) for rows in (4096, 16384)] + [(8192, 2048, 32000), (8192, 1024, 8192)]
CPU_SHAPES = [(4096, 256, 32000), (2048, 256, 4096)]


# ----------------------------------------------------------------------------------------------------------------------
# Providers: (weak, strong, weight, labels) -> loss


def eager_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The loss as one would write it: full logits, float32 log-softmax, torch's own kl_div and cross_entropy."""
    with torch.no_grad():
        strong_logits = F.linear(strong, weight)
    return _mean_puma(F.linear(weak, weight), strong_logits, labels, len(labels))


def _mean_puma(weak_logits: Tensor, strong_logits: Tensor, labels: Tensor, num_tokens: int) -> Tensor:
    weak_logits = weak_logits.float()
    log_q, log_p = torch.log_softmax(weak_logits, -1), torch.log_softmax(strong_logits.float(), -1)
    fkl = F.kl_div(log_p, log_q, log_target=True, reduction="sum")  # torch's order: KL(second || first)
    rkl = F.kl_div(log_q, log_p, log_target=True, reduction="sum")
    ce = F.nll_loss(log_q, labels, reduction="sum")
    return (LAM * (ALPHA * fkl + (1 - ALPHA) * rkl) + (1 - LAM) * ce) / num_tokens


def _chunk_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, num_tokens: int) -> Tensor:
    with torch.no_grad():
        strong_logits = F.linear(strong, weight)
    return _mean_puma(F.linear(weak, weight), strong_logits, labels, num_tokens)


def chunked_puma(chunk_loss: Callable, weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Chunks of tokens, each recomputed in the backward: the honest baseline that needs no kernel."""
    chunks = zip(*(tensor.split(BASELINE_CHUNK) for tensor in (weak, strong, labels)), strict=True)
    return sum(checkpoint(chunk_loss, w, s, weight, y, len(labels), use_reentrant=False) for w, s, y in chunks)


def ours_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, logits_dtype=None) -> Tensor:
    """The loss under test. weak, strong [N, D]; weight [V, D]; labels [N]; returns the mean loss, a scalar."""
    return linear_puma_loss(weak, strong, weight, labels, alpha=ALPHA, lam=LAM, logits_dtype=logits_dtype).loss


def ours_ce(hidden: Tensor, weight: Tensor, labels: Tensor, logits_dtype=None) -> Tensor:
    """Cross entropy under test. hidden [N, D]; weight [V, D]; labels [N]; returns the mean loss, a scalar."""
    return linear_cross_entropy(hidden, weight, labels, logits_dtype=logits_dtype)


def liger_puma(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The same loss composed of Liger's fused linear JSD at its two ends and its fused linear cross entropy."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD

    fkl = LigerFusedLinearJSD(jsd_beta=1.0)(weak, weight, strong, weight, labels)
    rkl = LigerFusedLinearJSD(jsd_beta=0.0)(weak, weight, strong, weight, labels)
    ce = LigerFusedLinearCrossEntropyLoss()(weight, weak, labels)
    return LAM * (ALPHA * fkl + (1 - ALPHA) * rkl) + (1 - LAM) * ce


class _PumaProducts(torch.autograd.Function):
    """What no implementation can do without: logits of both branches, and the gradient of the weak hidden states.
    `rows` tokens at a time."""

    @staticmethod
    def forward(ctx, weak, strong, weight, rows):
        gradient = torch.empty_like(weak)
        logits = torch.empty(2 * min(rows, len(weak)), weight.shape[0], dtype=weak.dtype, device=weak.device)
        for start in range(0, len(weak), rows):
            chunk = torch.cat([weak[start : start + rows], strong[start : start + rows]])
            torch.mm(chunk, weight.t(), out=logits[: len(chunk)])
            torch.mm(logits[: len(chunk) // 2], weight, out=gradient[start : start + rows])
        ctx.save_for_backward(gradient)
        return gradient.sum()

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.saved_tensors[0], None, None, None


def puma_products(weak: Tensor, strong: Tensor, weight: Tensor, labels: Tensor, *, rows: int | None = None) -> Tensor:
    """The floor for any implementation with chunks of `rows` tokens (None: ours); labels are not looked at."""
    rows = rows or default_chunk_size(len(weight), weak.dtype, weak.device.type)
    return _PumaProducts.apply(weak, strong, weight, rows)


class _CeProducts(torch.autograd.Function):
    """Cross entropy's three products, over all tokens at once: logits, gradients of hidden states and of the weight."""

    @staticmethod
    def forward(ctx, hidden, weight):
        logits = hidden @ weight.t()
        ctx.save_for_backward(logits @ weight, logits.t() @ hidden)
        return hidden.sum()

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.saved_tensors


def ce_products(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The floor for cross entropy with a weight that trains; labels are not looked at."""
    return _CeProducts.apply(hidden, weight)


def eager_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of full float32 logits. hidden [N, D], weight [V, D], labels [N]; returns a scalar."""
    return F.cross_entropy(F.linear(hidden, weight).float(), labels)


def _chunk_ce(hidden: Tensor, weight: Tensor, labels: Tensor, num_tokens: int) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum") / num_tokens


def chunked_ce(chunk_loss: Callable, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """As `chunked_puma`, for cross entropy alone: hidden [N, D], weight [V, D], labels [N]; returns a scalar."""
    chunks = zip(hidden.split(BASELINE_CHUNK), labels.split(BASELINE_CHUNK), strict=True)
    return sum(checkpoint(chunk_loss, h, weight, y, len(labels), use_reentrant=False) for h, y in chunks)


def liger_ce(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Liger's fused linear cross entropy: hidden [N, D], weight [V, D], labels [N]; returns a scalar."""
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


# operation -> name, the package it needs, the function
PEERS = {
    "puma": [("Liger, composed", "liger_kernel", liger_puma)],
    "ce": [
        ("Liger", "liger_kernel", liger_ce),
        ("cut-cross-entropy", "cut_cross_entropy", apple_ce),
        ("QuACK", "quack", quack_ce),
        ("Liger, CuTe", "cutlass", liger_cute_ce),
    ],
    "rows": [],
}


def rows_eager(weak: Tensor, strong: Tensor, labels: Tensor) -> Tensor:
    """The loss of logits that exist already: weak, strong [N, V], labels [N]; returns a scalar."""
    return _mean_puma(weak, strong, labels, len(labels))


def providers(operation: str, device: str) -> dict[str, Callable]:
    """The implementations that can run here, ours first; what cannot is named on the console."""
    compile_ = functools.partial(torch.compile, dynamic=False)
    if operation == "puma":
        found = {
            "nanoPUMA": ours_puma, "nanoPUMA, float32 logits": functools.partial(ours_puma, logits_dtype=torch.float32),
            "eager": eager_puma, "torch.compile": compile_(eager_puma),
            "chunked, recomputed": functools.partial(chunked_puma, _chunk_puma),
            "chunked, recomputed, compiled": functools.partial(chunked_puma, compile_(_chunk_puma)),
            "three bare matrix products": puma_products,
            "three bare matrix products, in one piece": functools.partial(puma_products, rows=10**9)
        }
    elif operation == "ce":
        found = {
            "nanoPUMA": ours_ce, "nanoPUMA, float32 logits": functools.partial(ours_ce, logits_dtype=torch.float32),
            "eager": eager_ce, "torch.compile": compile_(eager_ce),
            "chunked, recomputed": functools.partial(chunked_ce, _chunk_ce),
            "chunked, recomputed, compiled": functools.partial(chunked_ce, compile_(_chunk_ce)),
            "three bare matrix products, in one piece": ce_products
        }
        if hasattr(F, "linear_cross_entropy"):
            found["torch linear_cross_entropy"] = F.linear_cross_entropy
    else:
        found = {
            "nanoPUMA": lambda weak, strong, labels: puma_loss(weak, strong, labels, alpha=ALPHA, lam=LAM).loss,
            "eager": rows_eager, "torch.compile": compile_(rows_eager)
        }
    if device == "cpu":
        found.pop("nanoPUMA, float32 logits", None)  # float32 is what the CPU runs in anyway
    for name, package, function in PEERS[operation]:
        if device != "cuda":
            print(f"{operation}: left out {name} (its kernels need a CUDA device)")
        elif importlib.util.find_spec(package) is None:
            print(f"{operation}: left out {name} (not installed: pip install -r requirements-bench.txt)")
        else:
            found[name] = function
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Measuring


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, from their birth to their release."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {tensor.untyped_storage() for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.known:
            self.known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, size: int) -> None:
        self.live -= size


def peak_live_bytes(step: Callable[[], object]) -> int:
    """The most bytes that tensors made by `step` held at one time, operator by operator (for steps on the CPU)."""
    with _LiveBytes() as mode:
        step()
    return mode.peak


def peak_bytes(step: Callable[[], object], device: str) -> float:
    """Peak memory above what is held before `step`: the allocator's on CUDA, the process's resident memory on Linux."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    step()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def time_step(make_loss: Callable[[], Tensor], inputs: list[Tensor], device: str) -> tuple[float, float]:
    """Milliseconds of one forward and one backward."""
    for tensor in inputs:
        tensor.grad = None
    if device == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        marks[0].record()
        loss = make_loss()
        marks[1].record()
        loss.backward()
        marks[2].record()
        torch.cuda.synchronize()
        return marks[0].elapsed_time(marks[1]), marks[1].elapsed_time(marks[2])
    start = time.perf_counter()
    loss = make_loss()
    middle = time.perf_counter()
    loss.backward()
    return (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3


def copy_bandwidth(device: str) -> float:
    """GB/s of a large device-to-device copy, bytes read and bytes written both counted."""
    source = torch.empty(2**31 if device == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    milliseconds = []
    for _ in range(11):
        if device == "cuda":
            milliseconds.append(device_milliseconds(lambda: target.copy_(source)))
        else:
            start = time.perf_counter()
            target.copy_(source)
            milliseconds.append((time.perf_counter() - start) * 1e3)
    return 2 * source.numel() / sorted(milliseconds[1:])[5] / 1e6


def device_milliseconds(launch: Callable[[], object]) -> float:
    """Time of the kernels that a call launches, on the GPU alone: the host is ahead, its own time does not count."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(20_000_000)  # clocks: some 10 ms, in which the host queues all that follows
    start.record()
    launch()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def measure(operation: str, shape: tuple[int, int, int], dtype: torch.dtype, device: str, repeats: int,
            compared: dict[str, Callable]) -> list[dict]:
    """Rows of the CSV for one operation at one shape: the providers of `compared`, timed in turn to share the noise."""
    rows, width, vocabulary = shape
    generator = torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device, dtype=dtype)
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    if operation == "rows":
        tensors = [random(rows, vocabulary), random(rows, vocabulary), labels]
        trained = tensors[:1]
    else:
        weight = random(vocabulary, width) / width**0.5
        hidden = [random(rows, width) for _ in range(2 if operation == "puma" else 1)]
        tensors = [*hidden, weight, labels]
        trained = hidden[:1] if operation == "puma" else [hidden[0], weight]
    for tensor in trained:
        tensor.requires_grad_()

    running, results = {}, {}
    for name, provider in compared.items():
        step = functools.partial(provider, *tensors)
        try:
            step().backward()  # compiles
            peak = peak_bytes(lambda step=step: step().backward(), device)
        except Exception as error:  # one peer that cannot run must not cost the others' numbers; ours must run
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if name.startswith("nanoPUMA") and not out_of_memory:
                raise
            short = "out of memory" if out_of_memory else f"failed: {type(error).__name__} {error}".splitlines()[0]
            results[name] = {"peak": math.nan, "times": [], "note": short}
            if device == "cuda":
                torch.cuda.empty_cache()
        else:
            running[name] = step
            results[name] = {"peak": peak, "times": [], "note": ""}
        for tensor in trained:
            tensor.grad = None
    for _ in range(repeats):
        for name, step in running.items():
            times = results[name]["times"]
            if len(times) < 3 or sum(map(sum, times)) < MAX_SECONDS * 1e3:
                times.append(time_step(step, trained, device))
    return [_csv_row(operation, shape, dtype, device, name, result) for name, result in results.items()]


def _csv_row(
    operation: str, shape: tuple[int, int, int], dtype: torch.dtype, device: str, name: str, result: dict
) -> dict:
    rows, width, vocabulary = shape
    size = dtype.itemsize
    row = {
        "operation": operation, "provider": name, "tokens": rows, "width": width if operation != "rows" else "",
        "vocabulary": vocabulary, "dtype": str(dtype).removeprefix("torch."), "note": result["note"],
        "repeats": len(result["times"])
    }
    times = result["times"]
    for mode, values in {
        "forward": [forward for forward, _ in times], "backward": [backward for _, backward in times],
        "both": [forward + backward for forward, backward in times]
    }.items():
        quantiles = _quantiles(values)
        row |= {f"{mode}_ms": quantiles[1], f"{mode}_ms_p20": quantiles[0], f"{mode}_ms_p80": quantiles[2]}
    seconds = row["both_ms"] / 1e3
    # 3 products of 2 N V D: both logits and dX; or logits, dX, dW.
    products = {"puma": 6, "ce": 6, "rows": 0}[operation]
    row["tflops"] = round(products * rows * width * vocabulary / seconds / 1e12, 3) if products else ""
    # Two logits read in the forward; two read and one written in the backward.
    row["gb_per_s"] = round(5 * size * rows * vocabulary / seconds / 1e9, 1) if operation == "rows" else ""
    row["peak_mb"] = round(result["peak"] / 1e6, 1)
    return row


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    ordered = sorted(values) or [math.nan]
    return tuple(round(ordered[round(q * (len(ordered) - 1))], 3) for q in (0.2, 0.5, 0.8))


# ----------------------------------------------------------------------------------------------------------------------
# Report


def environment(device: str) -> dict[str, str]:
    """The device, the versions and the loss backend that a measurement belongs to, for the table's head."""
    versions = {}
    for package in ("torch", "triton", "liger-kernel", "quack-kernels"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    name = (torch.cuda.get_device_name()
            if device == "cuda"
            else f"CPU ({cpu_name()}, {torch.get_num_threads()} thread(s))")
    backend, reason = choose_backend(torch.zeros(1, device=device))
    return {
        "device": name, **({"driver": driver_version()} if device == "cuda" else {}), **versions,
        "commit": git_commit(), "backend": f"{backend}: {reason}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    }


def driver_version() -> str:
    """Version of the NVIDIA driver, from nvidia-smi; "unknown" where that cannot be run."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"


def _report_table(rows: list[dict]) -> str:
    """Per operation and shape: time of both passes, times ours, peak memory, times ours."""
    table = []
    for row in rows:
        shape = ("operation", "tokens", "width", "vocabulary")
        ours = next(r for r in rows if r["provider"] == "nanoPUMA" and all(r[key] == row[key] for key in shape))
        table.append({key: row[key] for key in (*shape, "provider")}
                     | {
                         "forward ms": row["forward_ms"],
                         "both ms (20-80 %)": f"{row['both_ms']} ({row['both_ms_p20']}-{row['both_ms_p80']})",
                         "time / ours": row["note"] or _ratio(row["both_ms"], ours["both_ms"], ".2f"),
                         "peak MB": row["peak_mb"],
                         "peak / ours": _ratio(row["peak_mb"], ours["peak_mb"], ".1f"),
                         "GB/s": row["gb_per_s"],
                         "TFLOP/s": row["tflops"],
                     })
    return markdown_table(table)


def _ratio(value: float, ours: float, form: str) -> str:
    """value / ours; nothing where ours rounds to 0 (the memory of a very small shape)."""
    return format(value / ours, form) if ours else ""


def _draw_chart(path: Path, rows: list[dict], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(dict.fromkeys((r["operation"], r["tokens"], r["width"], r["vocabulary"]) for r in rows))
    figure, axes = pyplot.subplots(len(shapes), 2, figsize=(11, 1.2 + 1.9 * len(shapes)), squeeze=False)
    for (operation, tokens, width, vocabulary), (left, right) in zip(shapes, axes, strict=True):
        here = [
            r
            for r in rows
            if (r["operation"], r["tokens"], r["width"], r["vocabulary"]) == (operation, tokens, width, vocabulary)
        ]
        names = [r["provider"] for r in here]
        colors = ["tab:orange" if name.startswith("nanoPUMA") else "tab:gray" for name in names]
        left.barh(names, [r["both_ms"] for r in here], color=colors)
        right.barh(names, [r["peak_mb"] for r in here], color=colors)
        right.set_yticklabels([])
        left.set_title(f"{operation}: N = {tokens}" + (f", D = {width}" if width else "") + f", V = {vocabulary}",
                       fontsize=9)
        left.set_xlabel("forward + backward, ms", fontsize=8)
        right.set_xlabel("peak memory above the inputs, MB", fontsize=8)
        for axis in (left, right):
            axis.invert_yaxis()
            axis.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _shape(text: str) -> tuple[int, int, int]:
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not tokens,width,vocabulary, as in 4096,256,32000")
    return numbers


OPERATIONS = ("puma", "ce", "rows")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench kernel`."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--shapes", nargs="+", type=_shape, metavar="N,D,V", help="default: those of the full table")
    parser.add_argument("--providers", nargs="+", default=[], help="nanoPUMA and those whose names hold one of these")
    parser.add_argument("--repeats", type=int, help="default: 20 on CUDA, 3 on the CPU")
    parser.add_argument("--out_dir", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Measure every operation, shape and provider; write the CSV, the table and the chart after each shape.

    A part of the table (--operations, --shapes, --providers) goes to files of its own name.
    """
    device = args.device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; --device cpu measures the PyTorch paths")
    if device == "cpu":
        print("on the CPU: this measures the PyTorch paths; the Triton kernels are not part of it")
    compared = {operation: providers(operation, device) for operation in args.operations}
    known = sorted(set().union(*compared.values()))
    for part in args.providers:
        if not any(part in name for name in known):
            raise UserError(f"--providers {part!r}: part of no name; there are: {'; '.join(known)}")
    shapes = args.shapes or (CUDA_SHAPES if device == "cuda" else CPU_SHAPES)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    repeats = args.repeats or (20 if device == "cuda" else 3)
    facts = environment(device) | {"copy GB/s": f"{copy_bandwidth(device):.0f}"}
    stem, options = ["kernel", "cpu" if device == "cpu" else file_slug(facts["device"])], ""
    if set(args.operations) != set(OPERATIONS):
        stem += args.operations
        options += f" --operations {' '.join(args.operations)}"
    if args.shapes or args.providers:
        stem += ["chosen"]
    if args.shapes:
        options += f" --shapes {' '.join(','.join(map(str, shape)) for shape in args.shapes)}"
    if args.providers:
        options += f" --providers {' '.join(map(repr, args.providers))}"
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    rows = []
    for operation in args.operations:
        # The loss of existing logits knows no width: one shape per vocabulary, and not all of the tokens.
        limit = 8192 if device == "cuda" else 1024
        chosen = shapes if operation != "rows" else list(dict.fromkeys((min(n, limit), 0, v) for n, _, v in shapes))
        wanted = {
            name: provider
            for name, provider in compared[operation].items()
            if not args.providers or name == "nanoPUMA" or any(part in name for part in args.providers)
        }
        for shape in chosen:
            torch.compiler.reset()
            for row in measure(operation, shape, dtype, device, repeats, wanted):
                rows.append(facts | row)
                print(f"{operation} {shape} {row['provider']}: {row['both_ms']} ms, {row['peak_mb']} MB {row['note']}",
                      flush=True)
            _write(args.out_dir / "_".join(stem), f"{threads}python -m bench kernel{options}", facts, rows)
    print(f"written: {args.out_dir / '_'.join(stem)}.csv, .md, .png", flush=True)


def _write(path: Path, command: str, facts: dict[str, str], rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path.with_suffix(".csv"), rows)
    described = "; ".join(f"{name} {value}" for name, value in facts.items())
    text = f"# The PUMA loss, measured\n\n{described}\n\nCommand: `{command}`\n\n{_report_table(rows)}"
    path.with_suffix(".md").write_text(text)
    _draw_chart(path.with_suffix(".png"), rows, facts["device"])
