"""What the linear op is made of, piece by piece, on one chunk of tokens: its matrix products and its row kernel.

    logits          [2 R, D] x [D, V]   both branches at once
    hidden gradient [R, V] x [V, D]     a long sum over the vocabulary: torch lets cuBLAS add its parts in bfloat16
                                        ("reduced precision") unless told otherwise; the error of each way
    weight gradient [V, R] x [R, D]     in float32, written by the first chunk and added to by the next; or in bfloat16
    rows            the kernel in one launch; 10 bytes an element, 6 for cross entropy alone

Errors: the hidden gradient of 64 rows against float64, relative to its norm.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.kernels import PEERS, copy_bandwidth, median_milliseconds, shape_of
from bench.tables import argument_parser, facts, file_slug, write_table
from bench.tune import LOSS_KWARGS
from errors import UserError, run_main

SHAPES = [(2048, 1536, 151936), (2048, 3584, 151936), (4096, 4096, 128256)]


def measure(shape: tuple[int, int, int], repeats: int) -> list[dict[str, object]]:
    """The pieces of one chunk of R tokens, width D, vocabulary V, as rows of the table."""
    from kernels import triton_puma

    tokens, width, vocabulary = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device="cuda", dtype=torch.bfloat16)

    weight = random(vocabulary, width) * (2.5 / width**0.5)  # logits of a trained model's spread
    stacked = random(2 * tokens, width)
    stacked[tokens:] *= 0.1  # the difference of the branches
    labels = torch.randint(vocabulary, (tokens,), generator=generator, device="cuda")
    logits = torch.empty(2 * tokens, vocabulary, device="cuda", dtype=torch.bfloat16)
    weak, difference = logits[:tokens], logits[tokens:]
    row_losses = torch.empty(3, tokens, device="cuda")
    hidden_gradient = torch.empty(tokens, width, device="cuda", dtype=torch.bfloat16)
    weight_gradient = torch.empty(vocabulary, width, device="cuda")
    rounded = torch.empty_like(weight_gradient, dtype=torch.bfloat16)
    hidden, scale = stacked[:tokens], torch.full((1,), 0.5, device="cuda")
    sample = slice(0, None, max(1, tokens // 64))
    product, elements = 2.0 * tokens * width * vocabulary, tokens * vocabulary
    rows = []

    def add(piece: str, launch: Callable, *, flops: float = 0, moved: float = 0, exact: Tensor | None = None) -> None:
        milliseconds = median_milliseconds(launch, repeats)
        row = {"tokens": tokens, "width": width, "vocabulary": vocabulary, "piece": piece}
        row |= {"ms": round(milliseconds, 3), "TFLOP/s": round(flops / milliseconds / 1e9) if flops else ""}
        row |= {"GB/s": round(moved / milliseconds / 1e6) if moved else "", "error": ""}
        if exact is not None:
            row["error"] = f"{float((hidden_gradient[sample] - exact).norm() / exact.norm()):.3%}"
        rows.append(row)
        print(row, flush=True)

    def run_rows(difference: Tensor | None, lam: float) -> None:  # the gradient goes over the weak logits
        loss_kwargs = LOSS_KWARGS | {"lam": lam}
        triton_puma.puma_rows(weak, None, labels, row_losses, weak, difference=difference, **loss_kwargs)

    def accumulate(beta: int) -> None:
        torch.addmm(weight_gradient, weak.t(), hidden, torch.float32, beta=beta, out=weight_gradient)

    add("logits of one branch", lambda: torch.mm(hidden, weight.t(), out=weak), flops=product)
    add("rows, cross entropy", lambda: run_rows(None, 0.0), moved=6 * elements)
    add("logits of both branches", lambda: torch.mm(stacked, weight.t(), out=logits), flops=2 * product)
    add("rows, PUMA", lambda: run_rows(difference, 0.1), moved=10 * elements)

    torch.mm(stacked, weight.t(), out=logits)
    run_rows(difference, 0.1)  # the timing has run over its own results: once from the start, for the errors
    exact = weak[sample].double() @ weight.double()
    matmul = torch.backends.cuda.matmul
    usual = matmul.allow_bf16_reduced_precision_reduction
    for allowed in (True, False):
        matmul.allow_bf16_reduced_precision_reduction = allowed
        name = f"hidden gradient, reduced precision {'on' if allowed else 'off'}"
        add(name, lambda: torch.mm(weak, weight, out=hidden_gradient), flops=product, exact=exact)
    matmul.allow_bf16_reduced_precision_reduction = usual
    in_float32 = lambda: hidden_gradient.copy_(torch.mm(weak, weight, torch.float32))  # noqa: E731
    add("hidden gradient in float32, then rounded", in_float32, flops=product, exact=exact)

    add("weight gradient, first chunk", lambda: accumulate(beta=0), flops=product)
    add("weight gradient, added", lambda: accumulate(beta=1), flops=product)
    add("weight gradient in bfloat16", lambda: torch.mm(weak.t(), hidden, out=rounded), flops=product)
    scale_and_round = lambda: torch.mul(weight_gradient, scale, out=rounded)  # noqa: E731
    add("weight gradient, scaled and rounded", scale_and_round, moved=6 * rounded.numel())
    return rows


def main() -> None:
    """Time every piece at every shape; write the table after each shape."""
    parser = argument_parser(__doc__)
    parser.add_argument("--shapes", nargs="+", type=shape_of, metavar="R,D,V", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError("the pieces of the linear op can be timed on a CUDA device only")
    measured = facts("cuda", *PEERS) | {"copy GB/s": round(copy_bandwidth("cuda"))}
    path = args.out_dir / f"kernel_products_{file_slug(measured['device'])}"
    rows: list[dict[str, object]] = []
    for shape in args.shapes:
        rows += measure(shape, args.repeats)
        write_table(path, "The linear op in pieces", measured, rows)
    print(f"written: {path}.csv, .md")


if __name__ == "__main__":
    run_main(main, resumes=False)
