"""Time the Triton kernel over shapes of its programs, lags and cache hints, against the same GPU's copy bandwidth.

A pass over logits moves 2 x 2 bytes per element in bfloat16 (both branches) and the gradient pass 2 more: 10 in all. In
one launch, whatever the second pass finds in the L2 cache need not move again: the floor is 6.

Predicted for an H100 before anything was timed (2,048 x 151,936, 10 bytes at 3.0 TB/s = 1.04 ms): 1.05 to 1.2 ms with a
program a row; 0.62 by memory at the floor of 6 bytes, 0.47 by instructions (44 an element), so about 0.75 with rows in
parts whose second pass comes soon enough. What came: 1.02 to 1.19, and 0.77 (bench/h100/tune.md).
"""

import math

import torch

from bench.kernels import PEERS, copy_bandwidth, milliseconds
from bench.tables import argument_parser, facts, file_slug, write_table
from errors import UserError, run_main

# (lanes, warps, parts); the last two give a program a whole row, as a kernel without parts would
SHAPES = ((256, 8, 16), (256, 4, 16), (512, 16, 8), (512, 8, 8), (256, 8, 32), (128, 4, 32))
SHAPES += ((1024, 16, 1), (1024, 32, 1))
LAGS = (17, 25, 33, 42, 50, 132)
LOSS_KWARGS = {"alpha": 0.2, "lam": 0.1, "tau": 1.0, "ignore_index": -100}


def configurations() -> list[dict[str, object]]:
    """Every shape at its usual lag (whole rows: one for each multiprocessor of an H100), then the default shape with
    other lags, without hints to the cache, for cross entropy alone, and in two launches."""
    from kernels import triton_puma

    usual = {"loss": "PUMA", "launches": 1, "shape": triton_puma.SHAPE, "lag": triton_puma.LAG, "hints": True}
    found = [usual | {"shape": shape, "lag": triton_puma.LAG if shape[2] > 1 else 132} for shape in SHAPES]
    found += [usual | {"lag": lag} for lag in LAGS if lag != triton_puma.LAG]
    found += [usual | {"hints": False}, usual | {"loss": "cross entropy"}, usual | {"launches": 2}]
    return found


def time_kernel(configuration: dict, rows: int, vocabulary: int, repeats: int, device: str = "cuda") -> float:
    """Median milliseconds for losses and gradient of [rows, vocabulary] bfloat16 logits."""
    from kernels import triton_puma

    triton_puma.SHAPE, triton_puma.LAG = configuration["shape"], configuration["lag"]
    triton_puma.EVICTION_HINTS, triton_puma.CACHE_SHARE = configuration["hints"], math.inf  # the lag as it is asked for
    source, strong = (torch.randn(rows, vocabulary, device=device, dtype=torch.bfloat16) for _ in range(2))
    weak, row_losses = source.clone(), torch.empty(3, rows, device=device)
    labels, scale = torch.randint(vocabulary, (rows,), device=device), torch.ones((), device=device)
    loss_kwargs = LOSS_KWARGS
    if configuration["loss"] == "cross entropy":
        strong, loss_kwargs = None, LOSS_KWARGS | {"lam": 0.0}

    def launch() -> None:
        if configuration["launches"] == 1:  # as in the linear op: the gradient over the weak logits
            triton_puma.puma_rows(weak, None, labels, row_losses, weak, difference=strong, **loss_kwargs)
        else:
            statistics = triton_puma.puma_rows(source, strong, labels, row_losses, None, **loss_kwargs)
            options = {"statistics": statistics, "scale": scale}
            triton_puma.puma_rows(source, strong, labels, None, weak, **options, **loss_kwargs)

    launch()  # compiles
    times = []
    for _ in range(repeats):
        weak.copy_(source)
        times.append(milliseconds(launch, device, ahead=True))
    return sorted(times)[repeats // 2]


def main() -> None:
    """Time every configuration; write the table after each."""
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError("the kernel can be timed on a CUDA device only; `python -m bench.compile` needs none")
    bandwidth = copy_bandwidth("cuda")
    measured = facts("cuda", *PEERS)
    measured |= {"copy GB/s": round(bandwidth), "tokens": args.tokens, "vocabulary": args.vocabulary}
    path = args.out_dir / f"kernel_tune_{file_slug(measured['device'])}"
    rows = []
    for configuration in configurations():
        median = time_kernel(configuration, args.tokens, args.vocabulary, args.repeats)
        moved = (10 if configuration["loss"] == "PUMA" else 6) * args.tokens * args.vocabulary
        rate = moved / median / 1e6
        row = dict(configuration)
        row |= zip(("lanes", "warps", "parts"), row.pop("shape"), strict=True)
        rows.append(row | {"ms": round(median, 3), "GB/s": round(rate), "of copy": f"{rate / bandwidth:.0%}"})
        print(rows[-1], flush=True)
        write_table(path, "The row kernel, timed", measured, rows)
    print(f"written: {path}.csv, .md")


if __name__ == "__main__":
    run_main(main, resumes=False)
