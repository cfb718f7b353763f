"""The PUMA loss against its equations in float64: every backend, and the cases on which fused losses tend to break.

Without a GPU the Triton kernels run in Triton's interpreter (tests/conftest.py chooses it); with one, compiled, on
the GPU.
"""

import itertools
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from kernels import PumaLoss, choose_backend, linear_cross_entropy, linear_puma_loss, puma_loss, torch_puma
from kernels import puma_loss as puma_loss_function
from kernels.puma_loss import MAX_CHUNK_SIZE, default_chunk_size

try:
    from kernels import triton_puma
except ImportError:  # macOS: torch comes without triton
    triton_puma = None

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(triton_puma is None, reason="triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
ROWS = {"torch": torch_puma, "triton": triton_puma}
MIXTURES = {"default": (0.2, 0.1), "fkl": (1.0, 1.0), "rkl": (0.0, 1.0), "ce": (0.2, 0.0), "heavy": (0.5, 0.7)}


@pytest.fixture(autouse=True)
def _seed(monkeypatch):
    torch.manual_seed(0)
    if triton_puma is not None and DEVICE == "cpu":  # Triton's interpreter is slow by the program and by the block
        monkeypatch.setattr(triton_puma, "SHAPE", (1024, 8, 2))


def make_logits(num_rows, vocabulary, scale=1.0, dtype=torch.float32, ignored=0):
    weak, strong = (torch.randn(2, num_rows, vocabulary, device=DEVICE) * scale).to(dtype)
    labels = torch.randint(vocabulary, (num_rows,), device=DEVICE)
    labels[:ignored] = -100
    return weak, strong, labels


def reference(weak, strong, labels, **loss_kwargs):
    """Losses and gradient in float64 by autograd, on the same (rounded) logits."""
    weak = weak.detach().double().requires_grad_()
    losses = puma_loss(weak, None if strong is None else strong.double(), labels, backend="reference", **loss_kwargs)
    return losses, torch.autograd.grad(losses.loss, weak)[0]


def one_launch(backend, weak, strong, labels, *, difference, alpha=0.2, lam=0.1, tau=1.0, ignore_index=-100):
    """Sums of the row losses, and the gradient of their weighted sum over the weak buffer: the linear op's way."""
    buffer = weak.clone()
    if lam == 0:
        strong, difference = None, None
    else:
        strong, difference = (None, strong - weak) if difference else (strong, None)
    row_losses = torch.empty(3, weak.shape[0], device=weak.device)
    ROWS[backend].puma_rows(buffer, strong, labels, row_losses, buffer, difference=difference, alpha=alpha, lam=lam,
                            tau=tau, ignore_index=ignore_index)
    return row_losses.sum(1), buffer


def check_against_float64(backend, weak, strong, labels, tau, mixture):
    """float32: losses 1e-5 relative, gradient before the 1/N within 1e-6 (1 + max|z_w - z_s| / tau); 16 bit: losses
    1e-3, gradient 1e-2 of its largest entry. The divergences are differences of means of order 1, so one near 0 may
    also be 2e-7 off (few digits of theirs are left at V = 7); cross entropy may not."""
    alpha, lam = MIXTURES[mixture]
    loss_kwargs = {"alpha": alpha, "lam": lam, "tau": tau}
    expected, expected_gradient = reference(weak, strong, labels, **loss_kwargs)
    num_tokens = int((labels != -100).sum())
    spread = float((weak.double() - strong.double()).abs().max()) / tau
    exact = weak.dtype == torch.float32
    loss_tolerance = 1e-5 if exact else 1e-3
    gradient_tolerance = 1e-6 * (1 + spread) if exact else 1e-2 * float(expected_gradient.abs().max()) * num_tokens

    weak = weak.clone().requires_grad_()
    losses = puma_loss(weak, strong, labels, backend=backend, **loss_kwargs)
    losses.loss.backward()
    sums, gradient = one_launch(backend, weak.detach(), strong, labels, difference=False, **loss_kwargs)
    results = [(losses[1:], weak.grad * num_tokens), (sums / num_tokens, gradient)]
    if exact and len(labels) <= 3:  # handed z_strong - z_weak, as by the linear op
        sums, gradient = one_launch(backend, weak.detach(), strong, labels, difference=True, **loss_kwargs)
        results.append((sums / num_tokens, gradient))
    for found, found_gradient in results:
        for value, target in zip(found, expected[1:], strict=True):
            if lam != 0 or target is expected.ce:
                allowance = 1e-15 if target is expected.ce else 2e-7  # 1e-15: the digits that float64 itself has
                assert value.item() == pytest.approx(float(target), rel=loss_tolerance, abs=allowance)
        error = float((found_gradient.double() - expected_gradient * num_tokens).abs().max())
        assert error <= gradient_tolerance, f"gradient off by {error:.2e}, allowed {gradient_tolerance:.2e}"
    allowance = lam * tau**2 * 2e-7 + (1 - lam) * 1e-15
    assert losses.loss.item() == pytest.approx(float(expected.loss), rel=loss_tolerance, abs=allowance)


# ----------------------------------------------------------------------------------------------------------------------
# The equations


def test_the_reference_is_the_paper_spelt_out_in_plain_arithmetic():
    weak, strong, tau, alpha, lam, label = [0.5, -1.0, 2.0], [1.5, 0.25, -0.5], 2.0, 0.3, 0.6, 2

    def softmax(logits, temperature):
        powers = [math.exp(z / temperature) for z in logits]
        return [power / sum(powers) for power in powers]

    q, p = softmax(weak, tau), softmax(strong, tau)
    fkl = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))  # weak against strong
    rkl = sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))  # strong against weak
    ce = -math.log(softmax(weak, 1.0)[label])
    loss = lam * (alpha * fkl + (1 - alpha) * rkl) * tau**2 + (1 - lam) * ce
    rows = [torch.tensor([row], dtype=torch.float64) for row in (weak, strong)]
    for backend in ("reference", "torch"):
        found = puma_loss(*rows, torch.tensor([label]), alpha=alpha, lam=lam, tau=tau, backend=backend)
        assert [float(value) for value in found] == pytest.approx([loss, fkl, rkl, ce], rel=1e-13)
    assert abs(fkl - rkl) > 0.04  # the two directions cannot be confused here


def test_gradients_agree_with_finite_differences():
    weak = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    strong, labels = torch.randn(4, 9, dtype=torch.float64), torch.tensor([3, -100, 0, 8])
    hidden = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 5, dtype=torch.float64)
    strong_hidden = torch.randn(4, 5, dtype=torch.float64)
    for tau in (1.0, 2.0):
        loss_kwargs = {"alpha": 0.3, "lam": 0.6, "tau": tau, "backend": "torch"}
        assert torch.autograd.gradcheck(lambda w, t=loss_kwargs: puma_loss(w, strong, labels, **t).loss, weak)
        # The weight also feeds the strong branch, a fixed target: finite differences only fit the hidden states.
        assert torch.autograd.gradcheck(
            lambda h, t=loss_kwargs: linear_puma_loss(h, strong_hidden, weight, labels, chunk_size=3, **t).loss, hidden
        )


# ----------------------------------------------------------------------------------------------------------------------
# The grid


def cycled(values):
    """Pairs each case of a grid with the next of `values`, so that a short run still meets all of them."""
    endless = itertools.cycle(values)
    return lambda case: (*case, next(endless))


# In turn, so that every vocabulary and every tau meets all three scales and four mixtures of five; FULL_GRID has all.
SHORT_GRID = list(map(cycled([1.0, 10.0, 50.0]), itertools.product([7, 128, 1000, 4097], [3], [0.5, 1.0, 2.0, 4.0])))
SHORT_GRID += [(32000, 3, 0.5, 1.0), (32000, 3, 1.0, 50.0), (32000, 3, 2.0, 10.0), (32000, 3, 4.0, 1.0)]
SHORT_GRID = list(map(cycled(MIXTURES), SHORT_GRID))
SHORT_GRID += [(1000, 1, 1.0, 1.0, "default"), (128, 65, 1.0, 10.0, "default")]
FULL_GRID = list(
    itertools.product([7, 128, 1000, 4097, 32000], [1, 3], [0.5, 1.0, 2.0, 4.0], [1.0, 10.0, 50.0], MIXTURES)
)
# 257 rows take the interpreter many seconds: fewer of them, and none at large vocabularies.
FULL_GRID += list(itertools.product([7, 128, 1000], [257], [1.0, 2.0], [10.0], ["default"]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_gradients_match_float64(backend):
    for vocabulary, num_rows, tau, scale, mixture in SHORT_GRID:
        check_against_float64(backend, *make_logits(num_rows, vocabulary, scale), tau, mixture)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [7, 128, 1000, 4097, 32000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_gradients_match_float64_on_the_full_grid(backend, vocabulary):
    for size, num_rows, tau, scale, mixture in FULL_GRID:
        if size == vocabulary:
            check_against_float64(backend, *make_logits(num_rows, vocabulary, scale), tau, mixture)


@pytest.mark.parametrize("num_rows", [6, 7])
def test_the_torch_path_loses_no_row_at_the_border_of_its_blocks(monkeypatch, num_rows):
    monkeypatch.setattr(torch_puma, "CPU_BLOCK_ELEMENTS", 3 * 100)  # three rows at a time
    check_against_float64("torch", *make_logits(num_rows, 100), 2.0, "heavy")


@needs_triton
@pytest.mark.slow
def test_offsets_beyond_two_to_the_31_elements_are_exact():
    """14,200 x 151,936: the last rows' offsets do not fit 32 bits. Rows in between are ignored, and their memory
    untouched.
    """
    rows, vocabulary = 14_200, 151_936
    weak, strong = (torch.zeros(rows, vocabulary, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    labels = torch.full((rows,), -100, device=DEVICE)
    weak[-2:], strong[-2:] = torch.randn(2, 2, vocabulary, device=DEVICE).bfloat16()
    labels[-2:] = torch.tensor([0, vocabulary - 1])
    with torch.no_grad():
        losses = puma_loss(weak, strong, labels, backend="triton")
    expected, _ = reference(weak[-2:], strong[-2:], labels[-2:])
    assert [v.item() for v in losses] == pytest.approx([v.item() for v in expected], rel=1e-3)


@needs_triton
@pytest.mark.parametrize("strides", [(2**30 + 16, 1), (1, 2**29 + 16)], ids=["rows far apart", "columns far apart"])
def test_strides_that_reach_beyond_two_to_the_31_elements_are_exact(strides):
    """Few elements, in memory of which only their own pages are ever touched. An offset that wraps in 32 bits reads
    zeros in the memory's first half."""
    try:
        memory = torch.empty(2**32 + 128, dtype=torch.bfloat16, device=DEVICE)
    except RuntimeError:
        pytest.skip("needs 8.6 GB of address space")
    near_weak, near_strong, _ = make_logits(3, 5, dtype=torch.bfloat16)
    labels = torch.tensor([0, 4, 2], device=DEVICE)
    near_weak[range(3), labels] = 3.0  # the largest logit: ce = log1p(rest), and the label's lane is read again
    weak, strong = (memory.as_strided((3, 5), strides, 2**31 + 8 * branch) for branch in range(2))
    weak.copy_(near_weak), strong.copy_(near_strong)
    gradient = weak if strides[1] == 1 else near_weak.clone()
    row_losses, near_losses = torch.empty(2, 3, 3, device=DEVICE)
    loss_kwargs = {"alpha": 0.2, "lam": 0.5, "tau": 1.0, "ignore_index": -100}
    triton_puma.puma_rows(weak, strong, labels, row_losses, gradient, **loss_kwargs)
    triton_puma.puma_rows(near_weak, near_strong, labels, near_losses, near_weak, **loss_kwargs)
    torch.testing.assert_close(row_losses, near_losses)
    torch.testing.assert_close(gradient, near_weak)


@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cross_entropy_of_a_sure_model_keeps_its_digits(backend, tau):
    """ce from 1 down to 4e-7. As log(sum) in float32 it would be up to 6e-8 / ce off."""
    vocabulary, level = 20_000, 37.7  # more than one block of the kernel, and a maximum whose shift is rounded
    for label in (0, 8191, 8192, 19_999):  # on both sides of a block's border
        for margin in (10.0, 15.0, 20.0, 25.0):
            weak, strong, labels = make_logits(2, vocabulary)
            labels.fill_(label)
            weak[:, label] = margin
            weak += level
            expected, expected_gradient = reference(weak, strong, labels, lam=0.5, tau=tau)
            found = weak.clone().requires_grad_()
            losses = puma_loss(found, strong, labels, lam=0.5, tau=tau, backend=backend)
            losses.loss.backward()
            assert float(losses.ce) == pytest.approx(float(expected.ce), rel=2e-6, abs=0)
            assert float((found.grad - expected_gradient).abs().max()) < 3e-5
        weak[:, (label + 7) % vocabulary] = weak[:, label]  # two largest logits
        tied = puma_loss(weak, None, labels, lam=0.0, backend=backend).ce
        assert float(tied) == pytest.approx(math.log(2), rel=1e-6)


@needs_triton
def test_the_label_lane_is_read_again_to_the_end_of_a_vocabulary_beyond_lanes_squared(monkeypatch):
    """Within a part. With 256 lanes and 16 parts that is a vocabulary of more than a million; with 16 lanes and 2 parts
    it is one of more than 512."""
    monkeypatch.setattr(triton_puma, "SHAPE", (16, 1, 2))
    weak, strong, labels = make_logits(2, 1000)
    labels[:] = torch.tensor([40, 900], device=DEVICE)
    weak[range(2), labels] = 15.0
    check_against_float64("triton", weak, strong, labels, 1.0, "default")


@needs_triton
@pytest.mark.parametrize(("parts", "lag"), [(1, 1), (2, 3), (4, 2), (8, 50)])
def test_a_row_may_be_cut_into_any_parts_and_the_second_pass_follow_at_any_distance(monkeypatch, parts, lag):
    """640 entries are 5 blocks of 128: with 4 parts one is short, with 8 some are empty; the last label lies in the
    last block."""
    weak, strong, labels = make_logits(7, 640, ignored=1)
    labels[1], labels[2] = 639, 0
    expected = one_launch("torch", weak, strong, labels, difference=True)
    monkeypatch.setattr(triton_puma, "SHAPE", (16, 1, parts))
    monkeypatch.setattr(triton_puma, "LAG", lag)
    for found, target in zip(one_launch("triton", weak, strong, labels, difference=True), expected, strict=True):
        torch.testing.assert_close(found, target, rtol=1e-5, atol=1e-6)


@needs_triton
def test_the_statistics_are_float32_whatever_torchs_default_dtype_is():
    weak, strong, labels = make_logits(3, 300)
    expected = puma_loss(weak, strong, labels, backend="triton")
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = puma_loss(weak, strong, labels, backend="triton")
    finally:
        torch.set_default_dtype(usual)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@needs_triton
@pytest.mark.parametrize(
    ("cache_mb", "dtype", "vocabulary", "branches", "rows"),
    [(50, torch.bfloat16, 151_936, 2, 33), (50, torch.float32, 151_936, 2, 16), (40, torch.bfloat16, 151_936, 2, 26),
     (50, torch.bfloat16, 151_936, 1, 33), (50, torch.bfloat16, 1024, 2, 33), (6, torch.float32, 2**20, 2, 1)],
)
def test_the_second_pass_follows_within_what_the_cache_holds(monkeypatch, cache_mb, dtype, vocabulary, branches, rows):
    cache = SimpleNamespace(L2_cache_size=cache_mb * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cache)
    logits = SimpleNamespace(is_cuda=True, device=0, shape=(9, vocabulary), element_size=lambda: dtype.itemsize)
    assert triton_puma._lag(logits, branches) == rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sixteen_bit_logits_match_float64_of_the_same_logits(backend, dtype):
    for vocabulary, tau, scale, mixture in [
        (1000, 1.0, 1.0, "default"), (4097, 2.0, 10.0, "heavy"), (7, 0.5, 50.0, "rkl")
    ]:
        check_against_float64(backend, *make_logits(3, vocabulary, scale, dtype), tau, mixture)
    check_against_float64(backend, *make_logits(5, 32000, 1.0, dtype, ignored=2), 1.0, "fkl")


# ----------------------------------------------------------------------------------------------------------------------
# Weak and strong nearly or wholly alike: the normal state of self-distillation


@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_branches_have_divergence_zero_and_the_gradient_of_cross_entropy(backend, tau):
    for scale in (1.0, 2.0, 3.0, 5.0):  # many rows: two sums of the same powers that differ in order agree now and then
        weak, _, labels = make_logits(5, 4097, scale)
        _, ce_gradient = one_launch(backend, weak, None, labels, difference=False, lam=0.0)
        for difference in (False, True):
            sums, gradient = one_launch(backend, weak, weak.clone(), labels, difference=difference, tau=tau, lam=0.5)
            assert sums[0] == 0 and sums[1] == 0
            assert torch.equal(gradient, 0.5 * ce_gradient)

    hidden, weight = torch.randn(5, 16, device=DEVICE, dtype=torch.bfloat16), torch.randn(999, 16, device=DEVICE)
    losses = linear_puma_loss(hidden, hidden, weight.bfloat16(), labels.new_tensor([1, 2, 3, 4, 5]), backend=backend)
    assert losses.fkl == 0 and losses.rkl == 0


@pytest.mark.parametrize("logits_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_survives_bfloat16_where_the_branches_nearly_agree(backend, logits_dtype):
    """Differences of rounded logits are tens of percent off here; the strong half of the product holds them whole."""
    hidden = torch.randn(6, 64, device=DEVICE)
    strong_hidden = (hidden + 0.02 * torch.randn_like(hidden)).bfloat16()
    hidden, weight = hidden.bfloat16(), (torch.randn(1000, 64, device=DEVICE) * 0.7).bfloat16()
    labels = torch.randint(1000, (6,), device=DEVICE)
    expected_hidden = hidden.double().requires_grad_()
    expected = linear_puma_loss(expected_hidden, strong_hidden.double(), weight.double(), labels, lam=1.0,
                                backend="reference")
    expected.loss.backward()
    found_hidden = hidden.clone().requires_grad_()
    found = linear_puma_loss(found_hidden, strong_hidden, weight, labels, lam=1.0, logits_dtype=logits_dtype,
                             backend=backend)
    found.loss.backward()

    weak, strong = ((h @ weight.t()).detach() for h in (hidden, strong_hidden))
    _, naive = one_launch("torch", weak, strong, labels, difference=False, lam=1.0)
    norm = torch.linalg.vector_norm
    error = norm(found_hidden.grad.double() - expected_hidden.grad) / norm(expected_hidden.grad)
    naive_error = norm(naive.double() @ weight.double() / 6 - expected_hidden.grad) / norm(expected_hidden.grad)
    assert error < (0.04 if logits_dtype == torch.bfloat16 else 0.005)
    assert naive_error > 5 * error
    assert float(found.fkl) == pytest.approx(float(expected.fkl), rel=0.02)
    assert float(found.rkl) == pytest.approx(float(expected.rkl), rel=0.02)


# ----------------------------------------------------------------------------------------------------------------------
# Values that are not finite, labels that are not labels


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinity_in_both_branches_is_a_smaller_vocabulary(backend):
    weak, strong, labels = make_logits(4, 20000, 3.0)
    weak, strong = weak - 200, strong - 200  # so far from 0 that a maximum of -inf must not count as one of 0
    banned = torch.zeros(20000, dtype=torch.bool, device=DEVICE)
    banned[:9000] = True  # more than a whole first block of the kernel
    banned[torch.arange(9001, 20000, 7, device=DEVICE)] = True
    labels.fill_(9000)
    weak[:, banned] = strong[:, banned] = -math.inf
    for tau, mixture in [(1.0, "default"), (2.0, "fkl"), (1.0, "rkl"), (1.0, "ce")]:
        alpha, lam = MIXTURES[mixture]
        expected, expected_gradient = reference(weak[:, ~banned], strong[:, ~banned], torch.zeros_like(labels),
                                                alpha=alpha, lam=lam, tau=tau)
        found = weak.clone().requires_grad_()
        losses = puma_loss(found, strong, labels, alpha=alpha, lam=lam, tau=tau, backend=backend)
        losses.loss.backward()
        assert [float(v) for v in losses] == pytest.approx([float(v) for v in expected], rel=1e-5, nan_ok=lam == 0)
        assert torch.equal(found.grad[:, banned], torch.zeros_like(found.grad[:, banned]))
        assert float((found.grad[:, ~banned] - expected_gradient).abs().max()) < 1e-5


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_minus_infinity_on_one_side_is_an_infinite_divergence_in_one_direction(backend):
    weak, strong, labels = make_logits(2, 1000)
    labels.fill_(5)
    strong[0, 3] = -math.inf  # weak gives mass where strong gives none: KL(weak || strong) is infinite
    found = weak.clone().requires_grad_()
    losses = puma_loss(found, strong, labels, backend=backend)
    assert losses.fkl == math.inf and losses.loss == math.inf and losses.rkl.isfinite()
    losses = puma_loss(found, strong, labels, alpha=0.0, backend=backend)  # without the infinite term all is finite
    losses.loss.backward()
    assert losses.fkl == math.inf and losses.loss.isfinite() and found.grad.isfinite().all()

    losses = puma_loss(strong, weak, labels, backend=backend)
    assert losses.rkl == math.inf and losses.fkl.isfinite()


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinity_against_a_probability_that_underflows_is_finite(backend, everywhere, monkeypatch):
    """One branch bans an entry with -inf, the other with -500: an infinite delta of weight 0, in the first of a lane's
    blocks or in all of them, is 0 when the sums are rescaled."""
    if backend == "triton":
        monkeypatch.setattr(triton_puma, "SHAPE", (16, 1, 1))  # blocks of 128
    one, other, labels = make_logits(2, 300)
    labels[:] = torch.tensor([20, 30], device=DEVICE)
    for first in (0, 128, 256) if everywhere else (0,):
        one[0, first : first + 8], other[0, first : first + 8] = -500, -math.inf
    for weak, strong in ((one, other), (other, one)):
        expected, expected_gradient = reference(weak.masked_fill(weak == -500, -math.inf),
                                                strong.masked_fill(strong == -500, -math.inf), labels)
        found = weak.clone().requires_grad_()
        losses = puma_loss(found, strong, labels, backend=backend)
        losses.loss.backward()
        assert [float(v) for v in losses] == pytest.approx([float(v) for v in expected], rel=1e-5)
        assert float((found.grad - expected_gradient).abs().max()) < 1e-6


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_nan_stays_nan_in_its_row_and_in_no_other(backend):
    for branch in (0, 1):
        logits = list(make_logits(3, 1000)[:2])
        labels = torch.tensor([1, 2, 3], device=DEVICE)
        logits[branch][1, 500] = math.nan
        weak = logits[0].requires_grad_()
        losses = puma_loss(weak, logits[1], labels, lam=0.5, backend=backend)
        losses.loss.backward()
        assert losses.loss.isnan() and losses.fkl.isnan() and losses.rkl.isnan()
        assert weak.grad[[0, 2]].isfinite().all()
        if branch == 0:
            assert weak.grad[1].isnan().any()
        labels[1] = -100  # an ignored row adds nothing, whatever it holds
        weak.grad = None
        losses = puma_loss(weak, logits[1], labels, lam=0.5, backend=backend)
        losses.loss.backward()
        assert losses.loss.isfinite() and torch.equal(weak.grad[1], torch.zeros_like(weak.grad[1]))


def test_a_label_outside_the_vocabulary_is_refused_on_the_cpu():
    weak, strong, labels = (tensor.cpu() for tensor in make_logits(3, 100))
    for wrong in (100, -1, -(2**40), 2**40):
        labels[1] = wrong
        with pytest.raises(ValueError, match=rf"labels\[1\] = {wrong} is neither in \[0, 100\) nor ignore_index"):
            puma_loss(weak, strong, labels)
        with pytest.raises(ValueError, match="nor ignore_index"):
            linear_cross_entropy(torch.randn(3, 4), torch.randn(100, 4), labels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_label_outside_the_vocabulary_makes_its_row_nan_and_reads_nothing(backend):
    """What the GPU does instead, where looking at labels would make the host wait."""
    weak, strong, labels = make_logits(4, 100)
    labels[1], labels[2] = 100, -(2**40)
    for lam in (0.1, 1.0):
        row_losses, gradient = torch.empty(3, 4, device=DEVICE), torch.empty_like(weak)
        loss_kwargs = {"alpha": 0.2, "lam": lam, "tau": 1.0, "ignore_index": -100}
        ROWS[backend].puma_rows(weak, strong, labels, row_losses, gradient, **loss_kwargs)
        assert row_losses[:, [1, 2]].isnan().all() and gradient[[1, 2]].isnan().all()
        assert row_losses[:, [0, 3]].isfinite().all() and gradient[[0, 3]].isfinite().all()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_ignored_rows_and_empty_batches_give_zero_with_the_graph_intact(backend):
    weak, strong, labels = make_logits(3, 100)
    labels.fill_(-100)
    for rows, dtype in itertools.product((3, 0), (torch.float32, torch.float16)):
        hidden, weight = (torch.randn(size, 8, device=DEVICE).to(dtype) for size in (3, 100))
        torch.full((100, 8), math.nan, device=DEVICE)  # what memory that is never written would hold
        leaves = [tensor[:rows].clone().requires_grad_() for tensor in (weak, hidden)] + [
            weight.clone().requires_grad_()
        ]
        for num_tokens in (None, 0, torch.tensor(17, device=DEVICE)):
            for leaf in leaves:
                leaf.grad = None
            first = puma_loss(leaves[0], strong[:rows], labels[:rows], num_tokens=num_tokens, backend=backend)
            second = linear_puma_loss(leaves[1], hidden[:rows], leaves[2], labels[:rows], num_tokens=num_tokens,
                                      backend=backend)
            assert first.loss == 0 and second.loss == 0
            (first.loss + second.loss).backward()
            assert all(torch.equal(leaf.grad, torch.zeros_like(leaf)) for leaf in leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_lambda_zero_is_cross_entropy_and_never_reads_the_strong_branch(backend):
    weak, strong, labels = make_logits(5, 1000, ignored=2)
    for other in (None, torch.full_like(strong, math.nan)):
        found, expected = weak.clone().requires_grad_(), weak.clone().requires_grad_()
        losses = puma_loss(found, other, labels, lam=0.0, tau=2.0, backend=backend)
        losses.loss.backward()
        F.cross_entropy(expected, labels).backward()
        assert float(losses.loss) == pytest.approx(float(F.cross_entropy(weak, labels)), rel=1e-6)
        assert losses.fkl.isnan() and losses.rkl.isnan(), "0 would be a number that nobody computed"
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ignore_index_inside_the_vocabulary_is_ignored(backend):
    weak, strong, labels = make_logits(4, 50)
    labels[:] = torch.tensor([7, 0, 7, 3])
    expected, _ = reference(weak, strong, labels, ignore_index=7)
    losses = puma_loss(weak, strong, labels, ignore_index=7, backend=backend)
    assert float(losses.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    assert float(losses.ce) == pytest.approx(float(F.cross_entropy(weak[[1, 3]], labels[[1, 3]])), rel=1e-5)


# ----------------------------------------------------------------------------------------------------------------------
# Layouts, and other people's tensors


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_give_the_same_and_leave_the_callers_tensors_alone(backend):
    weak, strong, labels = make_logits(6, 1001, 3.0, ignored=1)
    expected, expected_gradient = reference(weak, strong, labels)
    padded = torch.full((6, 2 * 1001 + 5), math.nan, device=DEVICE)
    padded[:, 3 : 3 + 2 * 1001 : 2] = weak
    odd_labels = torch.zeros(13, dtype=torch.int64, device=DEVICE)
    odd_labels[1::2] = labels
    layouts = {
        "transposed": (weak.t().contiguous().t(), strong.t().contiguous().t(), labels),
        "every other column of a wider matrix": (padded[:, 3 : 3 + 2 * 1001 : 2], strong, labels),
        "labels at odd addresses": (weak, strong, odd_labels[1::2]),
    }
    for name, (some_weak, some_strong, some_labels) in layouts.items():
        copies = [tensor.clone() for tensor in (some_weak, some_strong, some_labels)]
        found = some_weak.detach().requires_grad_()
        losses = puma_loss(found, some_strong, some_labels, backend=backend)
        losses.loss.backward()
        assert float(losses.loss) == pytest.approx(float(expected.loss), rel=1e-5), name
        assert float((found.grad - expected_gradient).abs().max()) < 1e-6, name
        for tensor, copy in zip((some_weak, some_strong, some_labels), copies, strict=True):
            assert torch.equal(tensor, copy), name
    one_row = weak[1:2].expand(4, 1001)  # stride 0
    losses = puma_loss(one_row, strong[1:2].expand(4, 1001), labels[1:2].expand(4), backend=backend)
    assert float(losses.loss) == pytest.approx(float(puma_loss(weak[1:2], strong[1:2], labels[1:2]).loss), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_linear_forms_leave_the_callers_tensors_alone(backend):
    tensors = [torch.randn(n, 8, device=DEVICE) for n in (5, 5, 100)]
    copies = [tensor.clone() for tensor in tensors]
    tensors[0].requires_grad_(), tensors[2].requires_grad_()
    labels = torch.arange(5, device=DEVICE)
    linear_puma_loss(*tensors, labels, chunk_size=2, backend=backend).loss.backward()
    linear_cross_entropy(tensors[0], tensors[2], labels, backend=backend).backward()
    assert all(torch.equal(tensor.detach(), copy) for tensor, copy in zip(tensors, copies, strict=True))


# ----------------------------------------------------------------------------------------------------------------------
# The linear forms


def linear_case(num_rows=11, width=12, vocabulary=157, dtype=torch.float64):
    weak, strong = torch.randn(2, num_rows, width, device=DEVICE, dtype=dtype)
    weight = torch.randn(vocabulary, width, device=DEVICE, dtype=dtype)
    labels = torch.randint(vocabulary, (num_rows,), device=DEVICE)
    labels[2] = -100
    return weak, strong, weight, labels


def linear_gradients(weak, strong, weight, labels, **options):
    weak, weight = weak.clone().requires_grad_(), weight.clone().requires_grad_()
    losses = linear_puma_loss(weak, strong, weight, labels, **options)
    return losses, torch.autograd.grad(losses.loss, (weak, weight))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_linear_form_equals_the_reference_at_every_chunk_size(backend):
    case = linear_case()
    single = [tensor.float() if tensor.is_floating_point() else tensor for tensor in case]
    for loss_kwargs in ({}, {"tau": 2.0, "lam": 0.6}, {"lam": 0.0}, {"num_tokens": 40}):
        expected, expected_gradients = linear_gradients(*case, backend="reference", **loss_kwargs)
        for chunk_size in (1, 4, 11, 1000, None):
            losses, gradients = linear_gradients(*single, chunk_size=chunk_size, backend=backend, **loss_kwargs)
            assert [float(v) for v in losses] == pytest.approx([float(v) for v in expected], rel=1e-5, nan_ok=True)
            for found, target in zip(gradients, expected_gradients, strict=True):
                assert float((found - target).abs().max()) < 2e-6 * float(target.abs().max())
                assert found.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_cross_entropy_is_cross_entropy(backend):
    hidden, _, weight, labels = linear_case(dtype=torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels, chunk_size=4, backend=backend)
    assert isinstance(loss, torch.Tensor) and loss.shape == ()
    assert float(loss) == pytest.approx(float(F.cross_entropy(hidden @ weight.t(), labels)), rel=1e-5)


def test_one_chunk_needs_no_float32_sum_except_in_float16(monkeypatch):
    """The weight's gradient is one product in its own dtype; float16 has no room for hidden states / num_tokens."""
    sums = []
    accumulate = sys.modules["kernels.puma_loss"]._accumulate_product
    monkeypatch.setattr(sys.modules["kernels.puma_loss"], "_accumulate_product", lambda *a,
                        **k: (sums.append(1), accumulate(*a, **k)))
    for dtype, chunk_size, expected in [
        (torch.float32, 11, 0), (torch.bfloat16, None, 0), (torch.float16, None, 1), (torch.float32, 4, 3)
    ]:
        case = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in linear_case()]
        sums.clear()
        _, gradients = linear_gradients(*case, chunk_size=chunk_size)
        assert len(sums) == expected and gradients[1].dtype == dtype


def test_a_frozen_weight_gets_no_gradient_and_costs_no_product(monkeypatch):
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    monkeypatch.setattr(sys.modules["kernels.puma_loss"], "_accumulate_product", None)  # calling it would raise
    weak.requires_grad_()
    linear_puma_loss(weak, strong, weight, labels, chunk_size=4).loss.backward()
    assert weak.grad is not None and weight.grad is None
    with pytest.raises(TypeError):
        linear_puma_loss(weak, strong, weight.requires_grad_(), labels, chunk_size=4)


def test_without_gradients_there_is_no_gradient_pass(monkeypatch):
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    seen = []
    rows = torch_puma.puma_rows
    monkeypatch.setattr(torch_puma, "puma_rows", lambda *a, **k: (seen.append(a[4]), rows(*a, **k)))
    with torch.no_grad():
        quiet = linear_puma_loss(weak.requires_grad_(), strong, weight, labels, backend="torch")
    linear_puma_loss(weak.detach(), strong, weight, labels, backend="torch")
    assert not quiet.loss.requires_grad and seen == [None, None]
    loud = linear_puma_loss(weak, strong, weight, labels, backend="torch")
    assert loud.loss.requires_grad and seen[-1] is not None
    assert not (loud.fkl.requires_grad or loud.rkl.requires_grad or loud.ce.requires_grad)
    assert torch.equal(quiet.loss, loud.loss.detach())


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_only_the_loss_carries_a_gradient(backend):
    """A backward through fkl, rkl or ce must fail: it could only give zeros."""
    weak, strong, labels = make_logits(2, 20)
    losses = puma_loss(weak.requires_grad_(), strong, labels, backend=backend)
    assert [value.requires_grad for value in losses] == [True, False, False, False]
    losses = linear_puma_loss(weak, strong, torch.randn(30, 20, device=DEVICE), labels, backend=backend)
    assert [value.requires_grad for value in losses] == [True, False, False, False]


def test_the_strong_branch_never_gets_a_gradient():
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    strong.requires_grad_(), weak.requires_grad_()
    for backend in ("torch", "reference"):
        (linear_puma_loss(weak, strong, weight, labels, backend=backend).loss).backward()
        logits = (weak @ weight.t()).detach().requires_grad_(), strong @ weight.t()
        puma_loss(*logits, labels, backend=backend).loss.backward()
        assert strong.grad is None


def test_micro_batches_with_a_global_count_add_up_to_the_whole_batch():
    weak, strong, weight, labels = linear_case()
    whole, whole_gradients = linear_gradients(weak, strong, weight, labels)
    total = (labels != -100).sum()
    parts = [
        linear_gradients(weak[part], strong[part], weight, labels[part], num_tokens=total)
        for part in (slice(0, 3), slice(3, 3), slice(3, 11))
    ]
    assert sum(float(losses.loss) for losses, _ in parts) == pytest.approx(float(whole.loss), rel=1e-12)
    torch.testing.assert_close(torch.cat([gradients[0] for _, gradients in parts]), whole_gradients[0])
    torch.testing.assert_close(sum(gradients[1] for _, gradients in parts), whole_gradients[1])


def test_the_weights_gradient_does_not_lose_digits_with_the_number_of_chunks():
    """Summed over the chunks in bfloat16 (a known defect elsewhere) the error would grow with their number."""
    case = [tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in linear_case(256, 16, 300)]
    doubles = [tensor.double() if tensor.is_floating_point() else tensor for tensor in case]
    _, (_, expected) = linear_gradients(*doubles, backend="reference")
    errors = []
    for chunk_size in (256, 2):  # one product, and a float32 sum of 128
        _, (_, found) = linear_gradients(*case, chunk_size=chunk_size, logits_dtype=torch.float32)
        assert found.dtype == torch.bfloat16
        errors.append(float((found.double() - expected).abs().max() / expected.abs().max()))
    assert errors[1] < 4e-3 and errors[1] < 1.5 * errors[0]


def test_small_gradients_survive_sixteen_bits_and_a_large_token_count():
    """1 / num_tokens is applied in float32, and after the products: before them, float16 would underflow."""
    awkward = 510  # 1 / 510 lies midway between two bfloat16 numbers: rounding it first would shrink every gradient
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)):
        # Large enough for the rounding of single entries to average out of the bias.
        case = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in linear_case(64, 64, 300)]
        doubles = [tensor.double() if tensor.is_floating_point() else tensor for tensor in case]
        _, expected = linear_gradients(*doubles, backend="reference", num_tokens=awkward)
        _, found = linear_gradients(*case, num_tokens=awkward, logits_dtype=torch.float32)
        for gradient, target in zip(found, expected, strict=True):
            bias = float((gradient.double() * target).sum() / target.square().sum()) - 1
            assert abs(bias) < 1e-3
            assert float((gradient.double() - target).norm() / target.norm()) < tolerance


# ----------------------------------------------------------------------------------------------------------------------
# Autograd, torch.compile


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_scales_and_can_be_repeated(backend):
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    weak.requires_grad_(), weight.requires_grad_()
    for loss, leaves in ((linear_puma_loss(weak, strong, weight, labels, backend=backend).loss, (weak, weight)),
                         (puma_loss(weak, strong, labels.clamp(max=11), backend=backend).loss, (weak,))):
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        kept = [gradient.clone() for gradient in first]
        tripled = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
        expanded = torch.autograd.grad(loss.expand(2, 2).sum(), leaves)  # a gradient of stride 0 arrives
        for gradient, copy, three, four in zip(first, kept, tripled, expanded, strict=True):
            assert torch.equal(gradient, copy)
            torch.testing.assert_close(three, 3 * copy)
            torch.testing.assert_close(four, 4 * copy)


def test_double_backward_is_refused_with_a_message():
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    weak.requires_grad_()
    for loss in (linear_puma_loss(weak, strong, weight, labels, backend="torch").loss,
                 puma_loss(weak, strong, labels.clamp(max=11), backend="torch").loss):
        with pytest.raises(RuntimeError, match="differentiable once.*backend='reference'"):
            torch.autograd.grad(loss, weak, create_graph=True)
    loss = linear_puma_loss(weak, strong, weight, labels, backend="reference").loss
    (gradient,) = torch.autograd.grad(loss, weak, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), weak)[0].isfinite().all()


def test_torch_compile_breaks_its_graph_once_and_gets_the_same():
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    weak.requires_grad_()

    def step(hidden):
        return linear_puma_loss(hidden * 2, strong, weight, labels).loss * 3

    assert torch._dynamo.explain(step)(weak).graph_break_count == 1
    compiled = torch.compile(step, backend="aot_eager")
    assert torch.equal(compiled(weak), step(weak))
    torch.testing.assert_close(torch.autograd.grad(compiled(weak), weak), torch.autograd.grad(step(weak), weak))


# ----------------------------------------------------------------------------------------------------------------------
# Memory, defaults, messages


@pytest.mark.parametrize(("num_rows", "chunk_size", "train_weight"),
                         [(300, 64, False), (300, 64, True), (1000, None, False)])
def test_peak_memory_is_a_few_chunks(num_rows, chunk_size, train_weight):
    """At most 6 * chunk * V * 4 bytes live at once above the inputs, beside the weight's gradient."""
    from bench.memory import LiveBytes

    width, vocabulary = 48, 20000
    weak, strong = torch.randn(2, num_rows, width)
    weak, weight = weak.requires_grad_(), torch.randn(vocabulary, width).requires_grad_(train_weight)
    labels = torch.randint(vocabulary, (num_rows,))
    chunk = chunk_size or default_chunk_size(vocabulary, torch.float32, "cpu")
    assert chunk < num_rows

    with LiveBytes((weak, strong, weight, labels), "cpu") as live:
        linear_puma_loss(weak, strong, weight, labels, chunk_size=chunk_size, backend="torch").loss.backward()
    weight_gradient = vocabulary * width * 4 if train_weight else 0
    assert 2 * chunk * vocabulary * 4 <= live.peak - weight_gradient <= 6 * chunk * vocabulary * 4


def test_the_default_chunk_is_bounded():
    for device in ("cpu", "cuda"):
        for vocabulary in (7, 32000, 102400, 151936, 152064, 2**20):
            for dtype in (torch.bfloat16, torch.float32):
                for branches in (1, 2):
                    assert 16 <= default_chunk_size(vocabulary, dtype, device, branches) <= MAX_CHUNK_SIZE == 4096
    assert default_chunk_size(151936, torch.bfloat16, "cuda") == 2048
    assert default_chunk_size(151936, torch.bfloat16, "cuda", branches=1) == 4096
    assert default_chunk_size(151936, torch.float32, "cuda") == 1024


def test_mistakes_are_named():
    weak, strong, weight, labels = linear_case(dtype=torch.float32)
    logits = weak @ weight.t()
    cases = [
        ("strong_logits must be like weak_logits", lambda: puma_loss(logits, logits[:, :5], labels)),
        ("strong_logits must be like weak_logits.*got None", lambda: puma_loss(logits, None, labels)),
        ("strong_hidden must be like weak_hidden", lambda: linear_puma_loss(weak, strong.half(), weight, labels)),
        ("labels must be", lambda: puma_loss(logits, logits, labels.int())),
        ("labels must be", lambda: puma_loss(logits, logits, labels[1:])),
        ("weight must be", lambda: linear_cross_entropy(weak, weight.half(), labels)),
        ("backend must be one of", lambda: puma_loss(logits, logits, labels, backend="cuda")),
        ("alpha and lam must lie", lambda: puma_loss(logits, logits, labels, lam=1.5)),
        ("tau must be positive", lambda: puma_loss(logits, logits, labels, tau=0.0)),
        ("chunk_size must be at least 1", lambda: linear_cross_entropy(weak, weight, labels, chunk_size=0)),
        ("logits_dtype must be", lambda: linear_cross_entropy(weak, weight, labels, logits_dtype=torch.float16)),
        ("num_tokens must not be negative", lambda: puma_loss(logits, logits, labels, num_tokens=-1)),
        ("num_tokens must be a number", lambda: puma_loss(logits, logits, labels, num_tokens=torch.ones(2))),
        ("must be a floating point matrix", lambda: puma_loss(logits[0], logits[0], labels[:1])),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
    if triton_puma is not None:
        with pytest.raises(ValueError, match="compute in float32"):
            puma_loss(logits.double(), logits.double(), labels, backend="triton")


def test_the_backend_and_its_reason_can_be_asked_for():
    name, reason = choose_backend(torch.zeros(1))
    assert name == "torch" and "cpu" in reason
    assert puma_loss_function is puma_loss and issubclass(PumaLoss, tuple)


def test_without_triton_everything_else_works():
    code = """
import sys
sys.modules["triton"] = None  # as on macOS: importing it fails
import torch
from kernels import linear_puma_loss
assert "kernels.triton_puma" not in sys.modules
hidden, weight, labels = torch.ones(2, 3), torch.ones(5, 3), torch.tensor([1, 2])
linear_puma_loss(hidden, hidden, weight, labels)
try:
    linear_puma_loss(hidden, hidden, weight, labels, backend="triton")
except ValueError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "backend='triton' needs triton" in result.stdout
