"""The measuring programs at their smallest: what they compare computes the same, and what they write adds up."""

import csv
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from bench import accuracy, data, kernels, lines, loader, pages, products, tables, tune
from errors import UserError
from kernels import linear_cross_entropy, linear_puma_loss, puma_loss
from problems import figure, pairs
from problems.families import families

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch):
    """Calls a program's main with options, in this process."""

    def call(program, *options):
        monkeypatch.setattr(sys, "argv", [program.__file__, *map(str, options)])
        program.main()

    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device: 1.0)  # its buffers take a while to fill
    return call


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------------------------------------------------------------
# The loss


def make_case(rows=7, width=12, vocabulary=150):
    torch.manual_seed(0)
    weak, strong = torch.randn(2, rows, width)
    return weak, strong, torch.randn(vocabulary, width) * 0.4, torch.randint(vocabulary, (rows,))


def expected_puma(weak, strong, weight, labels):
    terms = {"alpha": kernels.ALPHA, "lam": kernels.LAM, "backend": "reference"}
    return linear_puma_loss(weak, strong, weight, labels, **terms).loss


def expected_ce(hidden, weight, labels):
    return linear_cross_entropy(hidden, weight, labels, backend="reference")


def expected_rows(weak, strong, labels):
    return puma_loss(weak, strong, labels, alpha=kernels.ALPHA, lam=kernels.LAM, backend="reference").loss


def check_equal(provider, expected, inputs, trained, labels):
    """The provider's loss and gradients are those of `expected`, a call of the reference."""
    results = []
    for function in (provider, expected):
        leaves = [tensor.clone().requires_grad_(index in trained) for index, tensor in enumerate(inputs)]
        loss = function(*leaves, labels)
        results.append([loss, *torch.autograd.grad(loss, [leaves[index] for index in trained])])
    for found, target in zip(*results, strict=True):
        torch.testing.assert_close(found, target, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operation", ["puma", "ce", "rows"])
def test_every_provider_computes_the_same_loss_and_gradient(operation, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # what is compiled is also run plainly
    monkeypatch.setattr(kernels, "BASELINE_CHUNK", 3)
    weak, strong, weight, labels = make_case()
    expected, inputs, trained = {
        "puma": (expected_puma, (weak, strong, weight), (0,)), "ce": (expected_ce, (weak, weight), (0, 1)),
        "rows": (expected_rows, (weak @ weight.t(), strong @ weight.t()), (0,))
    }[operation]
    compared = kernels.providers(operation, "cpu")
    losses = {name: provider for name, provider in compared.items() if "products" not in name}
    assert len(losses) >= 3
    for provider in losses.values():
        check_equal(provider, expected, inputs, trained, labels)


def test_the_bare_products_are_those_of_the_loss():
    weak, strong, weight, labels = make_case()
    logits = weak @ weight.t()
    for rows in (None, 3):
        leaf = weak.clone().requires_grad_()
        kernels.puma_products(leaf, strong, weight, labels, rows=rows).backward()
        torch.testing.assert_close(leaf.grad, logits @ weight)
    leaves = [tensor.clone().requires_grad_() for tensor in (weak, weight)]
    kernels.ce_products(*leaves, labels).backward()
    torch.testing.assert_close([leaf.grad for leaf in leaves], [logits @ weight, logits.t() @ weak])


def test_the_composition_of_liger_is_the_same_loss():
    """In Triton's interpreter where there is no GPU, on it where there is one."""
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed: pip install '.[bench]'")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weak, strong, weight, labels = (tensor.to(device) for tensor in make_case())
    check_equal(kernels.liger_puma, expected_puma, (weak, strong, weight), (0,), labels)
    check_equal(kernels.liger_ce, expected_ce, (weak, weight), (0, 1), labels)


def test_a_row_for_each_provider_and_a_note_where_a_peer_fails(run, tmp_path, monkeypatch, capsys):
    def broken(*tensors):
        raise TypeError("a peer of another version")

    monkeypatch.setattr(torch, "compile", lambda function, **options: broken)
    run(kernels, "--device", "cpu", "--shapes", "20,8,60", "--repeats", "1", "--out_dir", tmp_path)
    rows = read_rows(tmp_path / "kernel_cpu_chosen.csv")
    assert {row["operation"] for row in rows} == {"puma", "ce", "rows"}
    for row in rows:
        assert tables.cpu_name() in row["device"] and row["torch"] == torch.__version__
        if "compile" in row["provider"]:
            assert row["note"] == "failed: TypeError a peer of another version" and row["ms"] == "nan"
        else:
            assert float(row["ms"]) > 0 and row["note"] == ""
    assert "failed: TypeError a peer of another version" in capsys.readouterr().out
    text = (tmp_path / "kernel_cpu_chosen.md").read_text()
    assert f"python -m bench.kernels --device cpu --shapes 20,8,60 --repeats 1 --out_dir {tmp_path}`" in text
    assert text.count("\n| ") == 1 + len(rows)


def test_a_failure_of_ours_is_not_a_note_in_a_table(monkeypatch):
    monkeypatch.setattr(kernels, "linear_puma_loss", None)
    with pytest.raises(TypeError):
        compared = kernels.providers("puma", "cpu")
        kernels.measure("puma", (4, 8, 20), torch.float32, "cpu", repeats=1, compared=compared)


def test_chosen_operations_and_providers_go_to_a_table_of_their_own(run, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "CPU_SHAPES", [(20, 8, 60)])
    chosen = ("--operations", "puma", "ce", "--providers", "products", "eager")
    run(kernels, "--device", "cpu", *chosen, "--repeats", "1", "--out_dir", tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"kernel_cpu_puma_ce_chosen"}
    found = [(row["operation"], row["provider"]) for row in read_rows(tmp_path / "kernel_cpu_puma_ce_chosen.csv")]
    assert [name for operation, name in found if operation == "ce"] == [
        "nanoPUMA", "eager", "three bare matrix products, in one piece"
    ]
    assert len(found) == 3 + 4


def test_the_tuning_runs_the_kernel_in_each_way(monkeypatch):
    """On the GPU its launches are timed; here they only run, small, in Triton's interpreter."""
    triton_puma = pytest.importorskip("kernels.triton_puma", reason="triton is not installed")
    for name in ("SHAPE", "LAG", "CACHE_SHARE", "EVICTION_HINTS"):
        monkeypatch.setattr(triton_puma, name, getattr(triton_puma, name))
    launched = []
    puma_rows = triton_puma.puma_rows
    monkeypatch.setattr(triton_puma, "puma_rows", lambda *a, **k: launched.append((a, k)) or puma_rows(*a, **k))
    monkeypatch.setattr(tune, "milliseconds", lambda launch, device, ahead: launch() or 1.0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = tune.configurations()
    shapes = {configuration["shape"] for configuration in chosen}
    assert len(shapes) == len(tune.SHAPES) and triton_puma.SHAPE in shapes
    for configuration in (chosen[1], chosen[-2], chosen[-1]):
        launched.clear()
        assert tune.time_kernel(configuration, 3, 100, repeats=1, device=device) == 1.0
        assert len(launched) == 2 * configuration["launches"]  # once to compile, once to time
        (_, strong, *_), options = launched[0]
        alone = strong is None and options.get("difference") is None
        assert alone == (configuration["loss"] == "cross entropy")
        assert triton_puma.SHAPE == configuration["shape"] and triton_puma.LAG == configuration["lag"]


def test_the_error_of_the_gradient_is_that_of_its_rounding():
    row = accuracy.gradient_errors(noise=0.03, lam=0.1)
    errors = [float(row[f"{dtype} logits: gradient"].rstrip("%")) for dtype in ("bfloat16", "float32")]
    assert errors == pytest.approx([0.35, 0.22], abs=0.05)  # bench/kernel_accuracy.md


# ----------------------------------------------------------------------------------------------------------------------
# Data and pages


@pytest.mark.slow
def test_engine_and_pages_write_their_tables(run, tmp_path, capsys):
    run(data, "--pairs", "48", "--figures", "6", "--sample", "3", "--workers", "1", "--out_dir", tmp_path)
    run(pages, "--pages", "2", "--workers", "1", "--out_dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"data.csv", "data.md", "pages.csv", "pages.md"}
    printed = capsys.readouterr().out
    assert all((tmp_path / name).read_text() in printed for name in ("data.md", "pages.md"))
    whole, *each = read_rows(tmp_path / "data.csv")
    assert whole["count"] == "48" and float(whole["kB of pictures each"]) > 1
    assert int(each[0]["count"]) >= 6 and each[1]["count"] == "3"
    for row in (whole, *each):
        assert float(row["CPU ms each"]) * float(row["per CPU second"]) == pytest.approx(1000, rel=0.05)
    assert [row["pages"] for row in read_rows(tmp_path / "pages.csv")] == ["2", "2", "1"]


def test_matplotlib_draws_the_same_lines_at_the_same_size():
    family = next(one for one in families("plane_geometry") if one.__name__ == "rectangle")
    free = random.Random(0)
    problem = pairs.design(family, "plane_geometry", "1", small=False)
    style = figure.Style(400, 360, 24, 2.0, "sans")
    picture = pairs.draw_version(problem, pairs.word(problem, "text-dominant", free, ()), style, free)
    theirs = Image.open(io.BytesIO(data.by_matplotlib(picture.layout))).convert("L")
    assert theirs.size == picture.image.size == (400, 360)
    ours, other = (numpy.asarray(image.convert("L")) < 128 for image in (picture.image, theirs))
    assert (ours & other).sum() > 0.6 * ours.sum() and other.sum() < 1.5 * ours.sum()


def test_dashes_become_one_line_and_words_one_text():
    dashes = [(((x, 0.0), (x + 6, 0.0)), 2.0) for x in (0.0, 11.0, 22.0)]
    assert data.undashed(dashes) == [(((0, 0), (6, 0), (11, 0), (17, 0), (22, 0), (28, 0)), 2.0, True)]
    corner = [(((0.0, 0.0), (9.0, 0.0)), 2.0), (((9.0, 0.0), (9.0, 9.0)), 2.0)]
    assert [dashed for *_, dashed in data.undashed(corner)] == [False, False]
    words = [("Find", (0, 0, 30, 12), 12.0), ("AB.", (36, 0, 60, 12), 12.0), ("A", (200, 90, 210, 102), 12.0)]
    assert [text for text, *_ in data.joined(words)] == ["Find AB.", "A"]


@pytest.mark.slow
def test_the_loaders_table_holds_every_preset_and_what_a_gpu_takes(run, tmp_path):
    run(loader, "--pairs", "32", "--out_dir", tmp_path)
    rows = read_rows(tmp_path / "loader.csv")
    assert [row["preset"] for row in rows] == [preset for preset in loader.PRESETS for _ in range(2)]
    for row in rows:
        assert 1 < float(row["pictures a pair"]) <= 2
        one, needed = float(row["pairs/s of one process"]), float(row["pairs/s of a GPU"])
        assert float(row["processes a GPU needs"]) == pytest.approx(needed / one, rel=0.1)
        # 3 bytes a pixel: 384 x 384, and 1024 x 1024 more for the hybrid
        image = 3 * 384**2 + (3 * 1024**2 if "deepseek" in row["preset"] else 0)
        size = 1000 * float(row["kB a pair"].replace(",", ""))
        assert size == pytest.approx(float(row["pictures a pair"]) * image, rel=0.1)
    assert "ASSUMED" in (tmp_path / "loader.md").read_text()


# ----------------------------------------------------------------------------------------------------------------------
# Command lines


@pytest.mark.slow
def test_a_step_is_measured_where_both_ways_agree(tmp_path):
    arguments = ["--preset", "tiny", "--rows", "4", "--steps", "1", "--turns", "1", "--out_dir", tmp_path]
    done = subprocess.run([sys.executable, "-m", "bench.step", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "step_tiny_cpu.csv")
    assert [(row["stage"], row["way"]) for row in rows] == [(s, way) for s in "123" for way in ("ours", "plain")]
    for ours, plain in zip(rows[::2], rows[1::2], strict=True):
        ratio = float(ours["rows per second"]) / float(plain["rows per second"])
        assert float(ours["times the plain way"]) == pytest.approx(ratio, rel=0.01)
        assert float(ours["loss"]) == pytest.approx(float(plain["loss"]), rel=0.02)


@pytest.mark.parametrize(("program", "options", "message"), [
    (kernels, "--device cpu --providers torch.compil3", "'torch.compil3': part of no name; there are: .*torch.compile"),
    (loader, "--pairs 5", "--pairs 5: give at least 16"), (data, "--pairs 2", "--pairs 3"),
    (data, "--sample 9 --figures 8", "as many --figures as --sample"), (pages, "--pages 0", "--pages 0"),
    (lines, "--root /nowhere", "has no file of the core")
])
def test_an_impossible_value_is_named(run, program, options, message):
    with pytest.raises(UserError, match=message):
        run(program, *options.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("program", "options"), [(kernels, ("--device", "cuda")), (products, ()), (tune, ())])
def test_a_missing_gpu_is_named(run, program, options):
    with pytest.raises(UserError, match="CUDA device"):
        run(program, *options)


@pytest.mark.parametrize("shape", ["3,4", "3,4,0", "a,b,c"])
def test_a_wrong_shape_is_named(run, capsys, shape):
    with pytest.raises(SystemExit):
        run(kernels, "--shapes", shape)
    assert f"'{shape}'" in capsys.readouterr().err


def test_every_program_is_listed():
    listed = subprocess.run([sys.executable, "-m", "bench"], cwd=ROOT, capture_output=True, text=True, check=True)
    helpers = {"__init__", "__main__", "memory", "tables"}
    assert all(f"bench.{path.stem} " in listed.stdout for path in (ROOT / "bench").glob("*.py")
               if path.stem not in helpers)


@pytest.mark.slow
def test_compiled_providers_run_on_the_cpu(run, tmp_path):
    run(kernels, "--device", "cpu", "--shapes", "64,16,300", "--repeats", "1", "--out_dir", tmp_path)
    assert all(row["note"] == "" for row in read_rows(tmp_path / "kernel_cpu_chosen.csv"))
