"""Checkpoints that a run can be killed at any moment of, resumed on another number of ranks, and exported from.

A checkpoint is a folder out_dir/step_00000123 written by torch.distributed.checkpoint (each rank its own shards):

    __0_0.distcp, __1_0.distcp, ..., .metadata    weights and AdamW state by parameter name
    rng_0.pt, rng_1.pt, ...                       every random generator of each rank
    pretrained/                                   the stock model's config and processor: what an export needs besides
    manifest.json                                 step, configuration, fingerprints, the mix drawn from the data files,
                                                  SHA-256 of every file above, and its own

It is written under the name step_00000123.tmp by a thread while training goes on, and gets its name when all files
are on the disk and the manifest is complete; so nothing half-written is ever taken for a checkpoint. On several nodes
out_dir must lie on a file system that all of them see. `.metadata` is torch's own pickle: resume from checkpoints you
trust; what travels is the safetensors folder that an export writes.
"""

import copy
import errno
import hashlib
import json
import os
import random
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter
from torch.distributed.tensor import DTensor

from errors import UserError
from runtime import Process, print0, run_on_first_rank

# A resumed run must agree with its checkpoint in these settings (besides the model's parameters and the data's
# fingerprint): another value would make another run of it. Any other setting may change, and the change is printed.
FIXED_SETTINGS = ("preset", "train", "global_batch", "seed", "max_length", "epochs")
# Settings that only say where and how a run is watched: not worth a line when they change.
QUIET_SETTINGS = (
    "resume",
    "out_dir",
    "max_steps",
    "save_every",
    "keep",
    "progress",
    "wandb_project",
    "num_workers",
    "model",
)

# without torchrun there is nothing to warn of
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")


# ---------------------------------------------------------------------------------------------------------------------
# What is in a checkpoint


def _model_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once) and saved buffers, by name: the tensors themselves, so that loading writes into
    them.
    """
    state = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    persistent = model.state_dict().keys()
    state |= {f"model.{name}": buffer for name, buffer in model.named_buffers() if name in persistent}
    return state


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _signature(model: nn.Module) -> dict[str, str]:
    """Name -> shape, and whether it trains: what a checkpoint of this model looks like."""
    return {
        name: "x".join(map(str, parameter.shape)) + (" trained" if parameter.requires_grad else " frozen")
        for name, parameter in model.named_parameters()
    }


def _rng_state() -> dict[str, Any]:
    version, keys, gauss = random.getstate()
    name, numpy_keys, *numpy_rest = numpy.random.get_state()
    state = {
        "python": [version, list(keys), gauss],
        "numpy": [name, numpy_keys.tolist(), *numpy_rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_rng_state(state: dict[str, Any]) -> None:
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numpy_keys, *rest = state["numpy"]
    numpy.random.set_state((name, numpy.array(numpy_keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# ---------------------------------------------------------------------------------------------------------------------
# Saving


def save_checkpoint(
    out_dir: str | Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    process: Process,
    *,
    config: Any,
    data_fingerprint: Any,
    data_mix: Any = None,
    keep: int = 2,
    wait: bool = False,
) -> Path:
    """Save the run after `step` steps; return the checkpoint's folder, complete only when the writing thread is done.

    The tensors are copied to CPU memory before this returns (12 bytes per trained parameter of this rank's shard);
    the rest happens in a thread with its own gloo group. A save still under way is waited for first, and its failure
    raised here.
    data_fingerprint: anything JSON can hold; a resumed run must bring the same. data_mix: what was drawn of each file
    (`Rows.mix`), for whoever asks the checkpoint later; a resume does not compare it. keep: complete checkpoints to
    keep.
    wait: return only when it is complete (the last one of a run; a stop request). Raises UserError, on a full disk say.
    """
    wait_for_save(process)
    folder = Path(out_dir) / f"step_{step:08d}"
    temporary = folder.with_name(folder.name + ".tmp")

    def prepare() -> None:
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            hf, processor = getattr(model, "hf", None), getattr(model, "processor", None)
            if hf is not None:
                hf.config.save_pretrained(temporary / "pretrained")
                hf.generation_config.save_pretrained(temporary / "pretrained")
            if processor is not None:
                processor.save_pretrained(temporary / "pretrained")
        except OSError as error:
            raise _saving_failed(folder, error) from error

    run_on_first_rank(process, prepare)
    manifest = {
        "step": step,
        "config": asdict(config),
        "data": data_fingerprint,
        "mix": data_mix,
        "parameters": _signature(model),
        "schedule_step": scheduler.last_epoch,
        "world_size": process.world_size,
        "torch": torch.__version__,
    }
    rng = _rng_state()
    # What it writes lies in CPU memory by then. With copying ahead the thread would ask for its current CUDA stream,
    # and a thread's current device is GPU 0: every rank would put a CUDA context there.
    writer = FileSystemWriter(temporary, per_thread_copy_ahead=0)
    try:
        written = dcp.async_save(
            _model_state(model) | _optimizer_state(model, optimizer),
            storage_writer=writer,
            process_group=process.saver,
            no_dist=process.mesh is None,
        )
    except (CheckpointException, OSError, RuntimeError) as error:
        raise _saving_failed(folder, error) from error
    process.pending_save = _thread.submit(_publish, written, folder, temporary, manifest, rng, process, keep)
    if wait:
        wait_for_save(process)
    return folder


def wait_for_save(process: Process) -> None:
    """Return when the checkpoint under way, if any, is complete; raise the UserError of one that failed."""
    if process.pending_save is not None:
        pending, process.pending_save = process.pending_save, None
        pending.result()


def _publish(
    written: Future, folder: Path, temporary: Path, manifest: dict[str, Any], rng: dict, process: Process, keep: int
) -> None:
    """In the writing thread of every rank: wait for the shards, checksum them, and give the folder its name."""
    problem: BaseException | None = None
    checksums: dict[str, list] = {}
    try:
        written.result()
        rng_file = temporary / f"rng_{process.rank}.pt"
        torch.save(rng, rng_file)
        own = [rng_file, *temporary.glob(f"__{process.rank}_*.distcp")]
        if process.is_first:
            own += [temporary / ".metadata", *(temporary / "pretrained").glob("*")]
        for file in own:
            _sync(file)
            checksums[file.relative_to(temporary).as_posix()] = [_sha256(file), file.stat().st_size]
    except (CheckpointException, OSError, RuntimeError) as error:
        problem = error
    gathered = [(checksums, problem is not None)]
    if process.mesh is not None:
        gathered = [None] * process.world_size
        dist.all_gather_object(gathered, (checksums, problem is not None), group=process.saver)
    failed = any(bad for _, bad in gathered)
    if process.is_first and not failed:
        manifest["files"] = {name: value for files, _ in gathered for name, value in files.items()}
        try:
            _seal(folder, temporary, manifest)
            _prune(folder.parent, keep)
        except OSError as error:
            problem, failed = error, True
    if process.is_first and failed:
        shutil.rmtree(temporary, ignore_errors=True)  # a failed write must not keep the disk full
    if process.mesh is not None:
        outcome = [failed]  # no rank goes on before the folder has its name
        dist.broadcast_object_list(outcome, src=0, group=process.saver)
        failed = outcome[0]
    if failed:
        raise _saving_failed(folder, problem) from problem


def _seal(folder: Path, temporary: Path, manifest: dict[str, Any]) -> None:
    for name in manifest["files"]:
        if not (temporary / name).is_file():
            raise OSError(errno.ENOENT, "written by another node, not visible here: out_dir must be shared", name)
    text = json.dumps(manifest, sort_keys=True)
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path = temporary / "manifest.json"
    path.write_text(json.dumps(manifest, sort_keys=True, indent=1))
    _sync(path)
    _sync(temporary)
    if folder.exists():  # the same step saved again after a resume from an older checkpoint
        _remove(folder)
    os.rename(temporary, folder)
    _sync(folder.parent)


def _prune(out_dir: Path, keep: int) -> None:
    for folder in complete_checkpoints(out_dir)[max(1, keep) :]:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Take the name away first: a folder half removed must not look complete."""
    doomed = folder.with_name(folder.name + ".old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _saving_failed(folder: Path, error: BaseException | None) -> UserError:
    reasons = [error] if error is not None else []
    if isinstance(error, CheckpointException):
        reasons = [wrapped[0] for wrapped in error.failures.values()]
    free = shutil.disk_usage(folder.parent).free if folder.parent.exists() else 0
    full = any(isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT) for reason in reasons)
    # torch's zip writer turns a short write into a RuntimeError of its own
    full = full or (free < 16 << 20 and any(isinstance(reason, RuntimeError) for reason in reasons))
    if full:
        why, remedy = f"the disk is full ({free / 1e9:.2f} GB free)", "free some space"
    else:
        why = (
            "; ".join(sorted({str(reason).splitlines()[0] for reason in reasons if str(reason)}))
            or "another rank failed"
        )
        remedy = "fix that"
    older = latest_checkpoint(folder.parent)
    goes_on = f"goes on from {older}" if older else "starts from the beginning, for no checkpoint is complete yet"
    return UserError(
        f"{folder}: checkpoint not written: {why}; {remedy}, then the same command with --resume auto {goes_on}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Finding and checking


def complete_checkpoints(out_dir: str | Path) -> list[Path]:
    """Checkpoints in out_dir that were written to their end, newest first."""
    folders = [folder for folder in Path(out_dir).glob("step_*") if folder.name[5:].isdecimal()]
    return sorted((folder for folder in folders if (folder / "manifest.json").is_file()), reverse=True)


def latest_checkpoint(out_dir: str | Path) -> Path | None:
    """The newest complete checkpoint in out_dir, or None."""
    return next(iter(complete_checkpoints(out_dir)), None)


class DamagedCheckpoint(UserError):
    """A checkpoint whose files are not those that were written."""


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a checkpoint, its own checksum verified. Raises UserError."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a checkpoint (no manifest.json); name a folder like OUT_DIR/step_00000100")
    try:
        manifest = json.loads(path.read_bytes())
        checksum = manifest.pop("checksum")
    except (ValueError, KeyError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path}: damaged (not a manifest); {_older(Path(folder))}") from error
    if hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() != checksum:
        raise DamagedCheckpoint(f"{path}: damaged (checksum differs); {_older(Path(folder))}")
    return manifest


def verify_checkpoint(folder: str | Path, process: Process | None = None) -> dict[str, Any]:
    """Check every file against its size and SHA-256, the ranks sharing the work; return the manifest.

    Raises DamagedCheckpoint on every rank, naming the file and the checkpoint to use instead.
    """
    folder = Path(folder)
    rank, world_size = (process.rank, process.world_size) if process is not None else (0, 1)
    problem = manifest = None
    try:
        manifest = read_manifest(folder)
        for name in sorted(manifest["files"])[rank::world_size]:
            _verify_file(folder, name, *manifest["files"][name])
    except UserError as error:
        problem = error
    problems = [problem]
    if process is not None and process.mesh is not None:
        problems = [None] * world_size
        dist.all_gather_object(problems, problem, group=process.control)
    for problem in problems:
        if problem is not None:
            raise problem
    return manifest


def _verify_file(folder: Path, name: str, checksum: str, size: int) -> None:
    path = folder / name
    if not path.is_file():
        raise DamagedCheckpoint(f"{path}: missing; {_older(folder)}")
    if path.stat().st_size != size:
        raise DamagedCheckpoint(f"{path}: damaged ({path.stat().st_size} bytes instead of {size}); {_older(folder)}")
    if _sha256(path) != checksum:
        raise DamagedCheckpoint(f"{path}: damaged (checksum differs); {_older(folder)}")


def _older(folder: Path) -> str:
    older = [other for other in complete_checkpoints(folder.parent) if other.name < folder.name]
    if older:
        return f"resume from the one before, --resume {older[0]}"
    return "there is no older one; start anew in another --out_dir"


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def resume(
    how: str,
    out_dir: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    process: Process,
    *,
    config: Any,
    data_fingerprint: Any,
) -> int:
    """Bring the run to where its checkpoint left it; return the number of steps done (0 for a new run).

    how: "auto" takes the newest complete checkpoint in out_dir, falls back, loudly, to the one before where it is
    damaged, and starts anew where there is none; "none" starts anew and refuses an out_dir that holds checkpoints; a
    folder is that
    checkpoint, damaged or not right: UserError.
    """

    def look() -> list[str]:
        for leftover in Path(out_dir).glob("step_*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        return [str(folder) for folder in complete_checkpoints(out_dir)]

    found = [Path(folder) for folder in run_on_first_rank(process, look)]
    state = (model, optimizer, scheduler, process)
    facts = {"config": config, "data_fingerprint": data_fingerprint}
    if how in ("none", ""):
        if found:
            raise UserError(
                f"{found[0]}: out_dir holds checkpoints; go on with --resume auto, or choose another --out_dir"
            )
        return 0
    if how != "auto":
        return load_checkpoint(how, *state, **facts)
    for number, folder in enumerate(found):
        try:
            return load_checkpoint(folder, *state, **facts)
        except DamagedCheckpoint as error:
            if number + 1 == len(found):
                raise
            print0("!" * 100)
            print0(f"! {error}")
            print0(f"! --resume auto: going back to {found[number + 1]}")
            print0("!" * 100)
    return 0


def load_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    process: Process,
    *,
    config: Any,
    data_fingerprint: Any,
) -> int:
    """Load a verified checkpoint in place, on any number of ranks; return its step.

    Raises DamagedCheckpoint for files that changed, UserError for a checkpoint of another model, configuration or data.
    """
    folder = Path(folder)
    manifest = verify_checkpoint(folder, process)
    _check_settings(folder, manifest, config, data_fingerprint)
    _check_parameters(folder, manifest["parameters"], _signature(model))
    reader = FileSystemReader(folder)
    saved = reader.read_metadata().state_dict_metadata.keys()
    state = _model_state(model)
    fused = any(group.get("fused") for group in optimizer.param_groups)
    moments: dict[nn.Parameter, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        for key in (full[len(prefix) :] for full in saved if full.startswith(prefix)):
            if key == "step":
                value = torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu")
            else:
                value = torch.zeros_like(parameter, requires_grad=False)
            moments.setdefault(parameter, {})[key] = state[prefix + key] = value
    missing = state.keys() - saved
    if missing:
        raise UserError(f"{folder}: lacks {sorted(missing)[0]}; it is a checkpoint of another model")
    dcp.load(state, storage_reader=reader, process_group=process.saver, no_dist=process.mesh is None)
    optimizer.state.clear()
    optimizer.state.update(moments)
    scheduler.last_epoch = manifest["schedule_step"]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    scheduler._last_lr = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    for group, learning_rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = learning_rate
    rng_file = folder / f"rng_{process.rank}.pt"
    if manifest["world_size"] == process.world_size:
        _set_rng_state(torch.load(rng_file, weights_only=True))
    else:
        print0(f"resuming on {process.world_size} ranks what {manifest['world_size']} ranks saved")
        torch.manual_seed(torch.initial_seed() + manifest["step"])
    print0(f"resumed from {folder}: {manifest['step']} steps done")
    return manifest["step"]


def _check_settings(folder: Path, manifest: dict[str, Any], config: Any, data_fingerprint: Any) -> None:
    saved, now = manifest["config"], json.loads(json.dumps(asdict(config)))
    changed = [name for name in now if name in saved and saved[name] != now[name]]
    fixed = [f"{name} was {saved[name]!r}, now {now[name]!r}" for name in changed if name in FIXED_SETTINGS]
    if fixed:
        raise UserError(
            f"{folder}: from another configuration: {'; '.join(fixed)}; set it back or choose another --out_dir"
        )
    data = json.loads(json.dumps(data_fingerprint))
    if manifest["data"] != data:
        what = ""
        if isinstance(data, dict) and isinstance(manifest["data"], dict):
            differing = [
                key for key in sorted({*data, *manifest["data"]}) if data.get(key) != manifest["data"].get(key)
            ]
            what = f" ({', '.join(differing)})"
        raise UserError(
            f"{folder}: the data changed since it was written{what}, so its position means nothing; "
            "bring the old files back or choose another --out_dir"
        )
    for name in changed:
        if name not in QUIET_SETTINGS and name not in FIXED_SETTINGS:
            print0(f"changed since the checkpoint: {name} was {saved[name]!r}, now {now[name]!r}")


def _check_parameters(folder: Path, saved: dict[str, str], now: dict[str, str]) -> None:
    differing = [name for name in sorted({*saved, *now}) if saved.get(name) != now.get(name)]
    if differing:
        name = differing[0]
        raise UserError(
            f"{folder}: a checkpoint of another model: {name} is {saved.get(name, 'missing')} there, "
            f"{now.get(name, 'missing')} here ({len(differing)} differ); "
            "use its own --preset and --train, or another --out_dir"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Export to a folder that transformers opens


def export_pretrained(
    model: nn.Module, out_dir: str | Path, process: Process, *, dtype: torch.dtype | None = torch.bfloat16
) -> None:
    """Write model.hf, sharded or not, and model.processor as one plain transformers folder (safetensors); all ranks
    call it.

    dtype: of the weights written; None keeps each as it is (fp32 masters: twice the size, nothing lost).
    Other files in the folder stay; config.json comes last, so a folder with one is complete. Raises UserError where it
    cannot be written.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in [*model.hf.named_parameters(), *model.hf.named_buffers()]:
        whole = tensor.detach()
        whole = whole.full_tensor() if isinstance(whole, DTensor) else whole  # a collective: every rank takes part
        if process.is_first:
            state[name] = whole.to("cpu", dtype if dtype is not None and whole.is_floating_point() else None, copy=True)

    def write() -> None:
        _write_pretrained(type(model.hf), model.hf.config, model.hf.generation_config, model.processor, state, out_dir)

    run_on_first_rank(process, write)


def export_checkpoint(
    checkpoint: str | Path, out_dir: str | Path, *, dtype: torch.dtype | None = torch.bfloat16
) -> None:
    """A training checkpoint, written by any number of ranks, to a transformers folder, in one process without a GPU.

    checkpoint: a step_... folder, or an out_dir, whose newest complete one is taken. Raises UserError.
    """
    import guard  # noqa: F401  (before transformers)
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    folder = Path(checkpoint)
    if not (folder / "manifest.json").is_file():
        folder = latest_checkpoint(folder) or folder
    manifest = verify_checkpoint(folder)
    config = AutoConfig.from_pretrained(folder / "pretrained")
    with torch.device("meta"):
        model_class = type(AutoModelForImageTextToText.from_config(config))
    reader = FileSystemReader(folder)
    state: dict[str, Tensor] = {}
    for name, tensor in reader.read_metadata().state_dict_metadata.items():
        if name.startswith("model."):
            state[name] = torch.empty(tensor.size, dtype=tensor.properties.dtype)
    dcp.load(state, storage_reader=reader, no_dist=True)
    plain = {name.removeprefix("model.").removeprefix("hf."): tensor for name, tensor in state.items()}
    if dtype is not None:
        plain = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    processor = AutoProcessor.from_pretrained(folder / "pretrained")
    generation = GenerationConfig.from_pretrained(folder / "pretrained")
    _write_pretrained(model_class, config, generation, processor, plain, out_dir)
    print(f"{folder}: {manifest['step']} steps, written by {manifest['world_size']} ranks")


def _write_pretrained(
    model_class: type,
    config: Any,
    generation_config: Any,
    processor: Any,
    state: dict[str, Tensor],
    out_dir: str | Path,
) -> None:
    out_dir = Path(out_dir)
    temporary = out_dir / "export.tmp"
    with torch.device("meta"):
        plain = model_class(copy.deepcopy(config))
    problems = plain.load_state_dict(state, strict=False, assign=True)
    plain.tie_weights()
    left = [name for name, parameter in plain.named_parameters() if parameter.is_meta]
    if left:
        raise UserError(f"{out_dir}: {left[0]} is not among the weights ({len(problems.missing_keys)} missing)")
    plain.config.dtype = next(plain.parameters()).dtype
    plain.generation_config = generation_config
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        plain.save_pretrained(temporary)
        if processor is not None:
            processor.save_pretrained(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _replace_files(temporary, out_dir)
    except OSError as error:
        raise UserError(f"{out_dir}: cannot be written ({error.strerror or error}); free some space") from error


def _replace_files(temporary: Path, out_dir: Path) -> None:
    """Move an export into its folder, which may hold other things (a run's checkpoints). config.json goes first and
    comes
    last: without it transformers opens nothing."""
    (out_dir / "config.json").unlink(missing_ok=True)
    for old in (*out_dir.glob("model*.safetensors"), *out_dir.glob("model*.safetensors.index.json")):
        old.unlink()
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == "config.json"):
        if file.is_dir():
            shutil.rmtree(out_dir / file.name, ignore_errors=True)
        os.replace(file, out_dir / file.name)
    temporary.rmdir()
    _sync(out_dir)
