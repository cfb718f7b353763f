"""The Triton kernels as machine code: ahead of time for GPUs that are not here, and on the GPU that is."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from kernels import choose_backend, linear_cross_entropy, linear_puma_loss, puma_loss

pytest.importorskip("triton", reason="triton is not installed (it has no package for this system)")

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
VOCABULARIES = [102400, 151936, 152064]


def compile_rows(*arguments):
    """The rows of `bench.compile`, in a process of its own: in this one the kernels may run in the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.compile", "--json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def check_machine_code(rows):
    for row in rows:
        assert row["stack_bytes"] == 0 and row["local_accesses"] == 0, f"registers spilt: {row}"
        assert row["registers"] * row["warps"] * 32 <= 65536, f"no multiprocessor can hold a program: {row}"
        assert row["loads_16_byte"] > 0, f"narrow loads: {row}"
        if "losses only" not in row["kernel"] and "forward" not in row["kernel"]:
            assert row["stores_16_byte"] > 0, f"narrow stores: {row}"


def test_kernels_compile_for_a100_and_h100_without_spills():
    rows = compile_rows("--vocabularies", "151936")
    assert {row["architecture"] for row in rows} == {"sm_80", "sm_90"} and len(rows) == 16
    check_machine_code(rows)


@pytest.mark.slow
def test_kernels_compile_at_every_vocabulary_without_spills():
    rows = compile_rows()
    assert {row["vocabulary"] for row in rows} == set(VOCABULARIES) and len(rows) == 48
    check_machine_code(rows)


# ----------------------------------------------------------------------------------------------------------------------
# With a GPU. The cases of test_kernels.py run there too, compiled.


def on_gpu(test):
    for mark in gpu:
        test = mark(test)
    return test


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_real_vocabularies_match_float64(vocabulary, dtype):
    from test_kernels import MIXTURES, check_against_float64, make_logits

    torch.manual_seed(0)
    for num_rows, tau, scale, mixture in [(3, 1.0, 1.0, "default"), (257, 2.0, 10.0, "heavy"), (3, 0.5, 50.0, "rkl")]:
        assert mixture in MIXTURES
        check_against_float64("triton", *make_logits(num_rows, vocabulary, scale, dtype, ignored=1), tau, mixture)


@on_gpu
def test_beyond_two_to_the_31_elements():
    """The last rows of 14,200 x 151,936: an offset kept in 32 bits would wrap into the first ones."""
    rows, vocabulary = 14_200, 151_936
    assert rows * vocabulary > 2**31
    weak = torch.zeros(rows, vocabulary, dtype=torch.bfloat16, device="cuda")
    strong = torch.zeros_like(weak)
    tail = slice(rows - 3, rows)
    weak[tail], strong[tail] = torch.randn(2, 3, vocabulary, device="cuda").bfloat16()
    labels = torch.full((rows,), -100, device="cuda")
    labels[tail] = torch.tensor([0, 77_777, vocabulary - 1], device="cuda")
    losses = puma_loss(weak.requires_grad_(), strong, labels, backend="triton")
    losses.loss.backward()
    small = weak.detach()[tail].double().requires_grad_()
    expected = puma_loss(small, strong[tail].double(), labels[tail], backend="reference")
    expected.loss.backward()
    assert float(losses.loss) == pytest.approx(float(expected.loss), rel=1e-3)
    assert float((weak.grad[tail] - small.grad).abs().max()) < 1e-2 * float(small.grad.abs().max())
    assert not weak.grad[:-3].any()


@on_gpu
@pytest.mark.parametrize("logits_dtype", [None, torch.float32])
def test_the_linear_op_on_the_gpu_matches_float64_and_stays_small(logits_dtype):
    torch.manual_seed(0)
    rows, width, vocabulary = 300, 256, 151_936
    weak, strong = torch.randn(2, rows, width, device="cuda").bfloat16()
    weight = (torch.randn(vocabulary, width, device="cuda") * 0.1).bfloat16()
    labels = torch.randint(vocabulary, (rows,), device="cuda")
    expected_weak, expected_weight = weak.double().requires_grad_(), weight.double().requires_grad_()
    expected = linear_puma_loss(expected_weak, strong.double(), expected_weight, labels, backend="reference")
    expected.loss.backward()
    weak.requires_grad_(), weight.requires_grad_()
    losses = linear_puma_loss(weak, strong, weight, labels, chunk_size=128, logits_dtype=logits_dtype)
    losses.loss.backward()
    assert float(losses.loss) == pytest.approx(float(expected.loss), rel=1e-3)
    for found, target in ((weak.grad, expected_weak.grad), (weight.grad, expected_weight.grad)):
        assert float((found.double() - target).norm() / target.norm()) < 1e-2


@on_gpu
def test_peak_memory_at_16384_tokens_is_under_one_and_a_half_gigabytes():
    rows, width, vocabulary = 16_384, 3584, 151_936
    weak, strong = (torch.randn(rows, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    weight = torch.randn(vocabulary, width, device="cuda", dtype=torch.bfloat16)
    labels = torch.randint(vocabulary, (rows,), device="cuda")
    weak.requires_grad_()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    linear_puma_loss(weak, strong, weight, labels).loss.backward()
    assert torch.cuda.max_memory_allocated() - before <= 1.5e9


@on_gpu
def test_the_host_never_waits_for_the_gpu():
    hidden, weight = (torch.randn(n, 64, device="cuda", requires_grad=True) for n in (100, 1000))
    labels = torch.randint(1000, (100,), device="cuda")
    num_tokens = torch.tensor(100, device="cuda")
    step = lambda: linear_puma_loss(hidden, hidden.detach(), weight, labels, num_tokens=num_tokens).loss.backward()  # noqa: E731
    step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        linear_cross_entropy(hidden, weight, labels).backward()
        puma_loss(hidden, hidden.detach(), labels % 64).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
def test_auto_takes_triton_on_the_gpu_and_names_it():
    name, reason = choose_backend(torch.zeros(1, device="cuda"))
    assert name == "triton" and torch.cuda.get_device_name() in reason
    assert choose_backend(torch.zeros(1, device="cuda", dtype=torch.float64))[0] == "torch"


@on_gpu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer")
def test_compute_sanitizer_finds_no_wild_access():
    """Every tensor an allocation of its own: within one that torch shares out, a wild access goes unseen."""
    code = """
import torch
from kernels import linear_puma_loss, puma_loss
for vocabulary in (7, 4097, 151936):
    weak, strong = torch.randn(2, 5, vocabulary, device="cuda", dtype=torch.bfloat16)
    labels = torch.tensor([0, vocabulary - 1, -100, vocabulary, -(2**40)], device="cuda")
    puma_loss(weak.requires_grad_(), strong, labels, backend="triton").loss.backward()
    hidden, weight = torch.randn(5, 16, device="cuda"), torch.randn(vocabulary, 16, device="cuda", requires_grad=True)
    linear_puma_loss(hidden, hidden + 1, weight, labels, chunk_size=2, backend="triton").loss.backward()
torch.cuda.synchronize()
"""
    result = subprocess.run(["compute-sanitizer", "--error-exitcode", "9", sys.executable, "-c", code],
                            capture_output=True, text=True, env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
