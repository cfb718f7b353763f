"""How far the linear op's results are from float64, for bfloat16 and for float32 logits.

Random hidden states and a random lm_head in bfloat16, with logits spread as a trained model's (standard deviation 2.5
over the vocabulary, the label raised by 2 to 12). The strong branch's hidden states are the weak ones plus noise:
from almost equal, where self-distillation lives, to unrelated. The error of the gradient with respect to weak_hidden
is the norm of its difference from float64 autograd over the norm of the latter.
"""

import torch
from torch import Tensor

from bench.tables import argument_parser, facts, write_table
from errors import run_main
from kernels.puma_loss import linear_puma_loss

NUM_ROWS, WIDTH, VOCABULARY = 128, 1024, 16000


def gradient_errors(noise: float, lam: float) -> dict[str, object]:
    """One row of the table: the same batch through both logits dtypes."""
    weight, weak, strong, labels = _make_batch(noise)
    expected_hidden = weak.double().requires_grad_()
    expected = linear_puma_loss(expected_hidden, strong.double(), weight.double(), labels, lam=lam, backend="reference")
    expected.loss.backward()

    row = {"noise": noise, "lambda": lam, "fkl": f"{float(expected.fkl.detach()):.2e}"}
    for logits_dtype in (torch.bfloat16, torch.float32):
        hidden = weak.clone().requires_grad_()
        losses = linear_puma_loss(hidden, strong, weight, labels, lam=lam, logits_dtype=logits_dtype)
        losses.loss.backward()
        name = str(logits_dtype).removeprefix("torch.")
        difference = hidden.grad.double() - expected_hidden.grad
        row[f"{name} logits: gradient"] = f"{float(difference.norm() / expected_hidden.grad.norm()):.2%}"
        row[f"{name} logits: fkl"] = f"{abs(float((losses.fkl - expected.fkl) / expected.fkl)):.2%}"
    return row


def _make_batch(noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) * 2.5 / WIDTH**0.5).bfloat16()
    labels = torch.randint(VOCABULARY, (NUM_ROWS,), generator=generator)
    label_rows = weight[labels].float()
    raised = 2 + 10 * torch.rand(NUM_ROWS, 1, generator=generator)
    raised = raised * label_rows / label_rows.square().sum(1, keepdim=True)
    weak = torch.randn(NUM_ROWS, WIDTH, generator=generator) + raised
    strong = weak + noise * torch.randn(NUM_ROWS, WIDTH, generator=generator)
    return weight, weak.bfloat16(), strong.bfloat16(), labels


def main() -> None:
    """Compute the table's rows and write them."""
    args = argument_parser(__doc__).parse_args()
    rows = [gradient_errors(noise, lam) for lam in (1.0, 0.1) for noise in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)]
    note = f"N = {NUM_ROWS}, D = {WIDTH}, V = {VOCABULARY}, alpha = 0.2, tau = 1, bfloat16 hidden states and weight."
    path = args.out_dir / "kernel_accuracy"
    print(write_table(path, "Error of the linear op against float64", facts("cpu"), rows, note))


if __name__ == "__main__":
    run_main(main, resumes=False)
