"""What `python -m bench kernel` compares computes the same loss, and what it writes can be read."""

import argparse
import csv

import pytest
import torch

from errors import UserError
from bench import kernels as benchmark
from bench import tune as benchmark_tune
from kernels import linear_cross_entropy, linear_puma_loss, puma_loss


def make_case(rows=7, width=12, vocabulary=150):
    torch.manual_seed(0)
    weak, strong = torch.randn(2, rows, width)
    return weak, strong, torch.randn(vocabulary, width) * 0.4, torch.randint(vocabulary, (rows,))


def check_equal(provider, expected, inputs, trained):
    """The provider's loss and gradients are those of `expected`, a call of the reference."""
    results = []
    for function in (provider, expected):
        leaves = [tensor.clone().requires_grad_(index in trained) for index, tensor in enumerate(inputs)]
        loss = function(*leaves)
        results.append([loss, *torch.autograd.grad(loss, [leaves[index] for index in trained])])
    for found, target in zip(*results, strict=True):
        torch.testing.assert_close(found, target, rtol=1e-5, atol=1e-6)


def expected_puma(weak, strong, weight, labels):
    terms = {"alpha": benchmark.ALPHA, "lam": benchmark.LAM, "backend": "reference"}
    return linear_puma_loss(weak, strong, weight, labels, **terms).loss


def expected_ce(hidden, weight, labels):
    return linear_cross_entropy(hidden, weight, labels, backend="reference")


def expected_rows(weak, strong, labels):
    return puma_loss(weak, strong, labels, alpha=benchmark.ALPHA, lam=benchmark.LAM, backend="reference").loss


def test_every_provider_computes_the_same_loss_and_gradient(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # what is compiled is also run plainly
    monkeypatch.setattr(benchmark, "BASELINE_CHUNK", 3)
    weak, strong, weight, labels = make_case()
    cases = {
        "puma": (expected_puma, (weak, strong, weight), (0,)), "ce": (expected_ce, (weak, weight), (0, 1)),
        "rows": (expected_rows, (weak @ weight.t(), strong @ weight.t()), (0,))
    }
    for operation, (expected, inputs, trained) in cases.items():
        compared = benchmark.providers(operation, "cpu")
        for floor in [name for name in compared if "products" in name]:
            del compared[floor]  # not a loss
        assert len(compared) >= 3
        for provider in compared.values():
            call = lambda *leaves, f=provider: f(*leaves, labels)  # noqa: E731
            check_equal(call, lambda *leaves, f=expected: f(*leaves, labels), inputs, trained)


def test_the_composition_of_liger_is_the_same_loss():
    """In Triton's interpreter where there is no GPU, on it where there is one."""
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed: pip install -r requirements-bench.txt")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weak, strong, weight, labels = (tensor.to(device) for tensor in make_case())
    for provider, expected, inputs, trained in ((benchmark.liger_puma, expected_puma, (weak, strong, weight), (0,)),
                                                (benchmark.liger_ce, expected_ce, (weak, weight), (0, 1))):
        check_equal(lambda *x, f=provider: f(*x, labels), lambda *x, f=expected: f(*x, labels), inputs, trained)


def parse(*options):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(list(options))


def test_the_command_writes_a_row_for_each_provider_and_goes_on_when_a_peer_fails(tmp_path, monkeypatch, capsys):
    def broken(*tensors):
        raise TypeError("a peer of another version")

    monkeypatch.setattr(torch, "compile", lambda function, **options: broken)
    monkeypatch.setattr(benchmark, "copy_bandwidth", lambda device: 1.0)  # its buffers take a while to fill
    benchmark.run(parse("--device", "cpu", "--shapes", "20,8,60", "--repeats", "1", "--out_dir", str(tmp_path)))
    with (tmp_path / "kernel_cpu_chosen.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["operation"] for row in rows} == {"puma", "ce", "rows"}
    for row in rows:
        assert row["device"].startswith("CPU") and row["torch"] == torch.__version__
        if "compile" in row["provider"]:
            assert row["note"] == "failed: TypeError a peer of another version" and row["both_ms"] == "nan"
        else:
            assert float(row["both_ms"]) > 0 and row["note"] == ""
    assert "failed: TypeError a peer of another version" in capsys.readouterr().out
    text = (tmp_path / "kernel_cpu_chosen.md").read_text()
    assert "python -m bench kernel --shapes 20,8,60`" in text and text.count("\n| ") == 1 + len(rows)
    assert (tmp_path / "kernel_cpu_chosen.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_of_ours_is_not_a_note_in_a_table(monkeypatch):
    monkeypatch.setattr(benchmark, "linear_puma_loss", None)
    with pytest.raises(TypeError):
        compared = benchmark.providers("puma", "cpu")
        benchmark.measure("puma", (4, 8, 20), torch.float32, "cpu", repeats=1, compared=compared)


def test_wrong_options_are_named(capsys):
    for text in ("3,4", "3,4,0", "a,b,c"):
        with pytest.raises(SystemExit):
            parse("--shapes", text)
        assert f"'{text}'" in capsys.readouterr().err
    with pytest.raises(UserError, match="'torch.compil3': part of no name; there are: .*torch.compile"):
        benchmark.run(parse("--device", "cpu", "--providers", "torch.compil3"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            benchmark.run(parse("--device", "cuda"))


def test_chosen_providers_go_to_a_table_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "copy_bandwidth", lambda device: 1.0)
    monkeypatch.setattr(benchmark, "CPU_SHAPES", [(20, 8, 60)])
    chosen = ("--operations", "puma", "ce", "--providers", "products", "eager")
    benchmark.run(parse("--device", "cpu", *chosen, "--repeats", "1", "--out_dir", str(tmp_path)))
    assert not list(tmp_path.glob("kernel_cpu.*"))
    with (tmp_path / "kernel_cpu_puma_ce_chosen.csv").open() as file:
        names = {(row["operation"], row["provider"]) for row in csv.DictReader(file)}
    assert {name for operation, name in names if operation == "ce"} == {
        "nanoPUMA", "eager", "three bare matrix products, in one piece"
    }
    assert len(names) == 3 + 4
    text = (tmp_path / "kernel_cpu_puma_ce_chosen.md").read_text()
    assert "--providers 'products' 'eager'`" in text


def test_the_tuning_runs_the_kernel_in_each_way(monkeypatch):
    """On the GPU its launches are timed; here they only run, small, in Triton's interpreter."""
    triton_puma = pytest.importorskip("kernels.triton_puma", reason="triton is not installed")
    for name in ("SHAPE", "LAG", "CACHE_SHARE", "EVICTION_HINTS"):
        monkeypatch.setattr(triton_puma, name, getattr(triton_puma, name))
    launched = []
    puma_rows = triton_puma.puma_rows
    monkeypatch.setattr(triton_puma, "puma_rows", lambda *a, **k: launched.append((a, k)) or puma_rows(*a, **k))
    monkeypatch.setattr(benchmark_tune, "device_milliseconds", lambda launch: launch() or 1.0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = benchmark_tune.configurations()
    shapes = {configuration["shape"] for configuration in chosen}
    assert len(shapes) == len(benchmark_tune.SHAPES) and triton_puma.SHAPE in shapes
    for configuration in (chosen[1], chosen[-2], chosen[-1]):
        launched.clear()
        assert benchmark_tune.time_kernel(configuration, 3, 100, repeats=1, device=device) == 1.0
        assert len(launched) == 2 * configuration["launches"]  # once to compile, once to time
        (_, strong, *_), options = launched[0]
        alone = strong is None and options.get("difference") is None
        assert alone == (configuration["loss"] == "cross entropy")
        assert triton_puma.SHAPE == configuration["shape"] and triton_puma.LAG == configuration["lag"]


@pytest.mark.slow
def test_compiled_providers_run_on_the_cpu(tmp_path):
    benchmark.run(parse("--device", "cpu", "--shapes", "64,16,300", "--repeats", "1", "--out_dir", str(tmp_path)))
    with (tmp_path / "kernel_cpu_chosen.csv").open() as file:
        assert all(row["note"] == "" for row in csv.DictReader(file))
