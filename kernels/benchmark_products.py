"""What the linear op is made of, piece by piece, on one chunk of tokens: its matrix products and its row kernel.

    logits          [2 R, D] x [D, V]   both branches at once
    hidden gradient [R, V] x [V, D]     a sum over the vocabulary: cuBLAS splits it, and torch lets it add the parts in
                                        bfloat16 ("reduced precision") unless told otherwise; the error of each way
    weight gradient [V, R] x [R, D]     in float32, written by the first chunk and added to by the next; or in bfloat16
    rows            the kernel in one launch; 10 bytes an element, 6 for cross entropy alone

Errors are of 64 rows against float64, relative to the norm.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from errors import UserError

from .benchmark import _shape, copy_bandwidth, device_milliseconds, environment
from .tables import markdown_table, write_csv

TERMS = {"alpha": 0.2, "lam": 0.1, "tau": 1.0, "ignore_index": -100}
SHAPES = [(2048, 1536, 151936), (2048, 3584, 151936), (4096, 4096, 128256)]


def median_milliseconds(launch: Callable[[], object], repeats: int) -> float:
    """Median time on the GPU of what `launch` queues, after one call to warm up."""
    launch()
    return sorted(device_milliseconds(launch) for _ in range(repeats))[repeats // 2]


def measure(shape: tuple[int, int, int], repeats: int) -> list[dict[str, object]]:
    """The pieces of one chunk of R tokens, width D, vocabulary V, as rows of the table."""
    from . import triton_puma

    tokens, width, vocabulary = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device="cuda", dtype=torch.bfloat16)

    weight = random(vocabulary, width) * (2.5 / width**0.5)  # logits of a trained model's spread
    stacked = random(2 * tokens, width)
    stacked[tokens:] *= 0.1  # the difference of the branches
    labels = torch.randint(vocabulary, (tokens,), generator=generator, device="cuda")
    logits = torch.empty(2 * tokens, vocabulary, device="cuda", dtype=torch.bfloat16)
    weak, strong = logits[:tokens], logits[tokens:]
    row_losses = torch.empty(3, tokens, device="cuda")
    rows = []

    def add(piece: str, launch: Callable, *, flops: float = 0, moved: float = 0, error: object = "") -> None:
        milliseconds = median_milliseconds(launch, repeats)
        row = {"tokens": tokens, "width": width, "vocabulary": vocabulary, "piece": piece}
        row |= {"ms": round(milliseconds, 3), "TFLOP/s": round(flops / milliseconds / 1e9) if flops else ""}
        rows.append(row | {"GB/s": round(moved / milliseconds / 1e6) if moved else "", "error": error})
        print(rows[-1], flush=True)

    product = 2.0 * tokens * width * vocabulary
    project = lambda: torch.mm(stacked, weight.t(), out=logits)  # noqa: E731
    add("logits of both branches", project, flops=2 * product)
    one_branch = lambda: torch.mm(stacked[:tokens], weight.t(), out=weak)  # noqa: E731
    add("logits of one branch", one_branch, flops=product)
    elements = tokens * vocabulary
    puma_rows = lambda: triton_puma.puma_rows(  # noqa: E731
        weak, strong, labels, row_losses, weak, strong_is_difference=True, **TERMS
    )
    add("rows, PUMA", puma_rows, moved=10 * elements)
    ce_rows = lambda: triton_puma.puma_rows(  # noqa: E731
        weak, None, labels, row_losses, weak, strong_is_difference=True, **TERMS | {"lam": 0.0}
    )
    add("rows, cross entropy", ce_rows, moved=6 * elements)

    project()
    puma_rows()  # weak: the gradient
    sample = torch.arange(0, tokens, tokens // 64, device="cuda")
    exact = weak[sample].double() @ weight.double()
    hidden_gradient = torch.empty(tokens, width, device="cuda", dtype=torch.bfloat16)

    def error() -> str:
        difference = hidden_gradient[sample].double() - exact
        return f"{float(difference.norm() / exact.norm()):.3%}"

    matmul = torch.backends.cuda.matmul
    usual = matmul.allow_bf16_reduced_precision_reduction
    for allowed in (True, False):
        matmul.allow_bf16_reduced_precision_reduction = allowed
        way = lambda: torch.mm(weak, weight, out=hidden_gradient)  # noqa: E731
        way()
        name = f"hidden gradient, reduced precision {'on' if allowed else 'off'}"
        add(name, way, flops=product, error=error())
    matmul.allow_bf16_reduced_precision_reduction = usual
    way = lambda: hidden_gradient.copy_(torch.mm(weak, weight, torch.float32))  # noqa: E731
    way()
    add("hidden gradient in float32, then rounded", way, flops=product, error=error())

    hidden = stacked[:tokens]
    total = torch.zeros(vocabulary, width, device="cuda")
    for name, beta in (("weight gradient, first chunk", 0), ("weight gradient, added", 1)):
        accumulate = lambda beta=beta: torch.addmm(  # noqa: E731
            total, weak.t(), hidden, total.dtype, beta=beta, out=total
        )
        add(name, accumulate, flops=product)
    rounded = torch.empty(vocabulary, width, device="cuda", dtype=torch.bfloat16)
    add("weight gradient in bfloat16", lambda: torch.mm(weak.t(), hidden, out=rounded), flops=product)
    scale = torch.full((1,), 0.5, device="cuda")
    add("weight gradient, scaled and rounded", lambda: torch.mul(total, scale, out=rounded), moved=6 * rounded.numel())
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py products`."""
    parser.add_argument("--shapes", nargs="+", type=_shape, metavar="R,D,V", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Time every piece at every shape; write the table after each shape."""
    if not torch.cuda.is_available():
        raise UserError("the pieces of the linear op can be timed on a CUDA device only")
    facts = environment("cuda") | {"copy GB/s": round(copy_bandwidth("cuda"))}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"kernel_products_{facts['device'].lower().replace(' ', '-')}"
    rows: list[dict[str, object]] = []
    for shape in args.shapes:
        rows += measure(shape, args.repeats)
        write_csv(path.with_suffix(".csv"), [facts | row for row in rows])
        described = "; ".join(f"{name} {value}" for name, value in facts.items())
        head = f"# The linear op in pieces\n\n{described}\n\nCommand: `python bench.py products`\n\n"
        path.with_suffix(".md").write_text(head + markdown_table(rows))
    print(f"written: {path}.csv, .md")
