"""Atomic, checksummed checkpoints that survive a kill at any moment, resume on any number of ranks, and export to
transformers.

A checkpoint is a folder out_dir/step_00000123. torch.distributed.checkpoint writes the tensors, each rank its shards:

    __0_0.distcp, __1_0.distcp, ..., .metadata    weights and AdamW state by parameter name
    rng_0.pt, rng_1.pt, ...                       the state of every random generator, one file per rank
    pretrained/                                   the stock model's config and processor, which an export needs too
    manifest.json                                 step, settings, the schedule's length, data fingerprint, parameter
                                                  shapes, the mix drawn from the data files, the code's commit and
                                                  hashes, where the run went back and what changed at a resume,
                                                  SHA-256 of every file above, and its own checksum

A thread writes it under the name step_00000123.tmp while training goes on. The folder is renamed only when every file
is on the disk and the manifest is complete, so a half-written folder never counts as a checkpoint. On several nodes,
out_dir must be on a file system that all of them see. `.metadata` is a pickle, so resume only from checkpoints you
trust; the folder to hand on is the safetensors export.
"""

import errno
import functools
import hashlib
import inspect
import itertools
import json
import math
import os
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy
import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.checkpoint.utils import _DistWrapper

import guard  # noqa: F401  (before transformers)
import transformers
from errors import UserError, explain, write_trouble, writing
from runtime import Process, git_commit, print0, print_box, run_on_first_rank, wait_for_save

# A resumed run must have its checkpoint's values of these settings, besides the same data and parameters: with others
# it would be a different run, unless --allow_changed names it. Any other setting may change, and the change is boxed.
FIXED_SETTINGS = ("global_batch", "seed", "max_length", "epochs", "warmup", "alpha", "lam", "tau",
                  "loss_backend", "logits_dtype")
# These only say where a run starts, how it is watched and where it writes; a change is not worth a line.
QUIET_SETTINGS = ("resume", "schedule", "allow_changed", "out_dir", "prepared", "max_steps", "save_every",
                  "keep", "progress", "wandb_project", "num_workers", "model", "val_data", "val_every")
# Besides the running script, the files that decide what a run computes.
CODE = ("model.py", "data.py", "sources.py", "benchmarks.py", "runtime.py", "checkpoint.py", "kernels/*.py")

ALONE = Process(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
# A single process without torchrun is a normal way to run.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


def _ranks(process: Process) -> _DistWrapper:
    """torch's own helper: what fails on one rank is raised on all of them, as a CheckpointException."""
    return _DistWrapper(process.saver, use_dist=process.mesh is not None, coordinator_rank=0)


# ---------------------------------------------------------------------------------------------------------------------
# What is in a checkpoint


def _model_state(model: nn.Module, prefix: str = "model") -> dict[str, Tensor]:
    """Parameters (tied ones once) and persistent buffers by name: the model's own tensors, so loading fills them."""
    # A forward pass without a backward pass leaves FSDP2's root gathered: its parameters are then bf16 copies, unknown
    # to the optimizer. state_dict() puts the fp32 shards back, so it comes before named_parameters().
    persistent = model.state_dict(prefix=f"{prefix}.").keys()
    named = (*model.named_parameters(prefix), *model.named_buffers(prefix))
    return {name: tensor.detach() for name, tensor in named if name in persistent}


def _identity(model: nn.Module, config: Any, data_fingerprint: Any) -> dict[str, Any]:
    """What a run and its checkpoint must agree on, or differ in aloud: settings, data, each parameter's shape and
    whether it trains, and the code.
    """
    parameters = {
        name: "x".join(map(str, parameter.shape)) + (" trained" if parameter.requires_grad else " frozen")
        for name, parameter in model.named_parameters()
    }
    code = code_version(inspect.getfile(type(config)))
    return {"config": asdict(config), "data": data_fingerprint, "parameters": parameters, "code": code}


@functools.cache
def code_version(script: str) -> dict[str, Any]:
    """The commit, and 16 digits of the SHA-256 of `script` and of each file of CODE, as the run found them."""
    here = Path(__file__).parent
    files = {Path(script).name: Path(script)}
    files |= {path.relative_to(here).as_posix(): path for pattern in CODE for path in here.glob(pattern)}
    digests = {name: _checksum_and_size(path)[0][:16] for name, path in files.items()}
    return {"script": Path(script).name, "commit": git_commit(), "files": digests}


def _rng_state() -> dict[str, Any]:
    name, keys, *rest = numpy.random.get_state()  # the keys as a list: torch.load(weights_only=True) takes no arrays
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_rng_state(state: dict[str, Any]) -> None:
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# ---------------------------------------------------------------------------------------------------------------------
# Saving


def save_checkpoint(out_dir: str | Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer,
                    scheduler: torch.optim.lr_scheduler.LambdaLR, process: Process, *, config: Any,
                    data_fingerprint: Any, data_mix: Any = None, keep: int = 2, wait: bool = False) -> Path:
    """Save the run after `step` steps; return the checkpoint's folder, which is complete when the thread is done.

    The tensors are copied to CPU memory before this returns (12 bytes per trained parameter of this rank's shard). A
    thread with its own gloo group does the rest. A save still in progress is waited for first, and its error raised.
    data_fingerprint: anything JSON can hold; a resumed run must bring the same. data_mix: what was drawn from each
    data file (`Rows.mix`), for the record; a resume does not compare it. keep: number of complete checkpoints to keep.
    wait: return only when the checkpoint is complete (for a run's last one). Raises UserError, e.g. for a full disk.
    """
    wait_for_save(process)
    folder = Path(out_dir) / f"step_{step:08d}"
    temporary = folder.with_suffix(".tmp")

    def prepare() -> None:
        for leftover in folder.parent.glob("step_*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        if hasattr(model, "hf"):
            _write_stock_files(model, temporary / "pretrained")

    state = _model_state(model)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{name}.{key}"] = value
    manifest = _identity(model, config, data_fingerprint) | {"step": step, "schedule_step": scheduler.last_epoch}
    manifest |= {"mix": data_mix, "world_size": process.world_size, "torch": torch.__version__}
    curve = getattr(scheduler.lr_lambdas[0], "keywords", {})  # {}: a function of the script's own
    manifest |= {"schedule_length": curve.get("total_steps"), "history": process.history}
    # The writer's tensors are already in CPU memory. With copying ahead it would ask for its thread's current CUDA
    # stream, which is GPU 0's in a new thread: every rank would create a CUDA context there.
    writer = FileSystemWriter(temporary, per_thread_copy_ahead=0)
    with _saving(folder):
        _ranks(process).broadcast("prepare", prepare)
        saved = dcp.async_save(state, storage_writer=writer, process_group=process.saver, no_dist=process.mesh is None)
    process.pending_save = _thread.submit(_publish, saved, folder, manifest, _rng_state(), process, keep)
    if wait:
        wait_for_save(process)
    return folder


def _publish(saved: Future, folder: Path, manifest: dict, rng: dict, process: Process, keep: int) -> None:
    """In each rank's thread: wait for the shards, checksum them, rename the folder, delete the oldest checkpoints."""
    temporary = folder.with_suffix(".tmp")

    def finish_shards() -> dict[str, list]:
        saved.result()
        torch.save(rng, temporary / f"rng_{process.rank}.pt")
        files = [temporary / f"rng_{process.rank}.pt", *temporary.glob(f"__{process.rank}_*.distcp")]
        if process.is_first:
            files += [temporary / ".metadata", *(temporary / "pretrained").glob("*")]
        for file in files:
            _sync(file)
        return {file.relative_to(temporary).as_posix(): _checksum_and_size(file) for file in files}

    def seal() -> None:
        for name in manifest["files"]:
            if not (temporary / name).is_file():
                raise OSError(errno.ENOENT, "written by another node, not visible here: out_dir must be shared", name)
        path = temporary / "manifest.json"
        path.write_text(json.dumps(manifest | {"checksum": _manifest_checksum(manifest)}, sort_keys=True, indent=1))
        _sync(path)
        _sync(temporary)
        if folder.exists():  # the same step, saved again after resuming from an older checkpoint
            _remove(folder)
        temporary.rename(folder)
        _sync(folder.parent)
        for old in complete_checkpoints(folder.parent)[max(1, keep) :]:
            _remove(old)

    with _saving(folder):
        shards = _ranks(process).all_gather("checksum", finish_shards)
        manifest["files"] = {name: checksum for files in shards for name, checksum in files.items()}
        _ranks(process).broadcast("seal", seal)  # no rank continues before the folder has its name


@contextmanager
def _saving(folder: Path) -> Iterator[None]:
    """Turn a failure to write `folder` into a UserError that says why, what to do, and where a restart begins."""
    try:
        yield
    except (CheckpointException, OSError, RuntimeError) as error:
        cause = _cause(error)
        if died := explain(cause):  # torch raises a loader's death at any line, this one too; so it does a rank's
            raise died from error
        why = write_trouble(cause, folder.parent)
        older = latest_checkpoint(folder.parent)
        start = f"continues from {older}" if older else "starts from the beginning, as no checkpoint is complete yet"
        shutil.rmtree(folder.with_suffix(".tmp"), ignore_errors=True)  # what was written must not keep the disk full
        text = f"{folder}: checkpoint not written: {why}, then the same command with --resume auto {start}"
        raise UserError(text) from error


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]  # of the first rank that failed
    return error


def _remove(folder: Path) -> None:
    """Delete a checkpoint. Rename it first: a half-deleted folder must not look complete."""
    shutil.rmtree(folder.rename(folder.with_suffix(".old.tmp")), ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum_and_size(path: Path) -> list:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return [digest.hexdigest(), path.stat().st_size]


def _manifest_checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Finding and verifying


def complete_checkpoints(out_dir: str | Path) -> list[Path]:
    """Complete checkpoints in out_dir, newest first."""
    folders = [manifest.parent for manifest in Path(out_dir).glob("step_*/manifest.json")]
    return sorted((folder for folder in folders if folder.name[5:].isdecimal()), reverse=True)


def latest_checkpoint(out_dir: str | Path) -> Path | None:
    """The newest complete checkpoint in out_dir, or None."""
    return next(iter(complete_checkpoints(out_dir)), None)


class DamagedCheckpoint(UserError):
    """A checkpoint whose files are not the ones that were written."""


def _damaged(folder: Path, name: str, what: str) -> DamagedCheckpoint:
    older = [other for other in complete_checkpoints(folder.parent) if other.name < folder.name]
    remedy = f"use the one before, --resume {older[0]}" if older else "there is no older one; choose another --out_dir"
    return DamagedCheckpoint(f"{folder / name}: {what}; {remedy}")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a checkpoint, its own checksum verified. Raises UserError."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a checkpoint (no manifest.json); name a folder like OUT_DIR/step_00000100")
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # what is not JSON, or not a manifest, is damaged
        manifest = json.loads(path.read_bytes())
        if manifest.pop("checksum") == _manifest_checksum(manifest):
            return manifest
    raise _damaged(path.parent, path.name, "damaged (checksum differs)")


def verify_checkpoint(folder: str | Path, process: Process = ALONE) -> dict[str, Any]:
    """Compare every file with its size and SHA-256, the ranks sharing the work; return the manifest.

    Raises DamagedCheckpoint on every rank, naming the file and the checkpoint to use instead.
    """
    folder = Path(folder)

    def verify() -> dict[str, Any]:
        manifest = read_manifest(folder)
        for name in sorted(manifest["files"])[process.rank :: process.world_size]:
            if not (folder / name).is_file():
                raise _damaged(folder, name, "missing")
            if _checksum_and_size(folder / name) != manifest["files"][name]:
                raise _damaged(folder, name, "damaged (size or checksum differs)")
        return manifest

    try:
        return _ranks(process).all_gather("verify", verify)[0]
    except CheckpointException as error:
        raise _cause(error) from None


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def resume(
    how: str, out_dir: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR, process: Process, *, config: Any, data_fingerprint: Any
) -> int:
    """Load the checkpoint to continue from; return the number of steps done (0 for a new run).

    how: "auto" takes the newest complete checkpoint in out_dir, falls back to the one before, loudly, if it is damaged,
    and starts anew if there is none. "none" starts anew and refuses an out_dir that holds checkpoints. A folder goes
    back to that checkpoint; the same command again, as a requeued job gives it, goes on from what has been saved since.
    Complete checkpoints of later steps are then no part of this run, and are set aside under other names.
    Raises UserError.
    """
    code_version(inspect.getfile(type(config)))  # now, before anybody edits a file under the run
    candidates = run_on_first_rank(process, lambda: _candidates(how, Path(out_dir), config))
    for folder in candidates:
        try:
            step = load_checkpoint(folder, model, optimizer, scheduler, process, config=config,
                                   data_fingerprint=data_fingerprint)
        except DamagedCheckpoint as error:
            if folder == candidates[-1]:
                raise
            print_box([str(error), "going back to the one before"])
            continue
        if folder == Path(how):
            process.history["went_back_to"].append(_place(how, out_dir))
        run_on_first_rank(process, lambda: _set_aside(Path(out_dir), step))  # noqa: B023  (called here and now)
        return step
    return 0


def _place(how: str, out_dir: str | Path) -> str:
    """How manifests name a checkpoint that --resume named; a run prunes such a one too, so a checksum would not do."""
    return os.path.relpath(os.path.realpath(how), os.path.realpath(out_dir))


def _candidates(how: str, out_dir: Path, config: Any) -> list[Path]:
    """The checkpoints that `resume` may load, in the order to try. Raises UserError."""
    found, place, since = complete_checkpoints(out_dir), _place(how, out_dir), {}
    if how == "none" and found:
        raise UserError(f"{found[0]}: out_dir holds checkpoints; use --resume auto or another --out_dir")
    if how in ("auto", "none"):
        return found
    for folder in found:
        with suppress(DamagedCheckpoint):
            manifest = read_manifest(folder)
            if place in (manifest.get("history") or {}).get("went_back_to", ()):
                since[folder] = _changed_settings(manifest, asdict(config)).keys() - {*QUIET_SETTINGS}
    if since and not next(iter(since.values())):  # other settings are no requeued job: they go back once more
        print0(f"--resume {how}: going on from {next(iter(since))}, saved since this run went back there; to go back "
               f"again, rename or remove {', '.join(folder.name for folder in since)}")
        return [*since, Path(how)]
    if found and Path(how).is_dir() and place not in [folder.name for folder in found]:
        if ".aside" in place:
            raise UserError(f"{how}: was set aside; copy it to another --out_dir as {place.partition('.')[0]}, and "
                            "name it there")
        raise UserError(f"{out_dir}: holds checkpoints of another run than {how}; choose another --out_dir, or leave "
                        f"--resume out to go on from {found[0].name}")
    return [Path(how)]


def _set_aside(out_dir: Path, step: int) -> None:
    """Rename the complete checkpoints of later steps than `step`, so that nothing goes on from them or deletes them."""
    later = [folder for folder in complete_checkpoints(out_dir) if int(folder.name[5:]) > step]
    for folder in later:
        names = (folder.with_suffix(f".aside{number or ''}") for number in itertools.count())
        with writing(folder):
            folder.rename(next(path for path in names if not path.exists()))
    if later:
        print0(f"{out_dir}: going on from step {step}; set aside, as {later[0].name}.aside: "
               f"{', '.join(folder.name for folder in later)}")


def load_checkpoint(folder: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer,
                    scheduler: torch.optim.lr_scheduler.LambdaLR, process: Process, *, config: Any,
                    data_fingerprint: Any) -> int:
    """Verify a checkpoint, load it in place on any number of ranks, and return its step.

    Raises DamagedCheckpoint for files that changed, UserError for a checkpoint of another model, configuration or data.
    """
    folder = Path(folder)
    manifest = verify_checkpoint(folder, process)
    state = _model_state(model)
    now = json.loads(json.dumps(_identity(model, config, data_fingerprint)))  # as it was stored: tuples are lists
    changes = _check_identity(folder, manifest, now) + _settle_schedule(folder, manifest, scheduler, now["config"])
    if changes:
        print_box(["changed since the checkpoint:", *changes])
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name in FileSystemReader(folder).read_metadata().state_dict_metadata:
        if name.startswith("optimizer."):
            parameter_name, key = name.removeprefix("optimizer.").rsplit(".", 1)
            parameter = parameters[parameter_name]
            scalar = torch.zeros((), device=parameter.device if optimizer.defaults["fused"] else "cpu")
            state[name] = scalar if key == "step" else torch.zeros_like(parameter, requires_grad=False)
            optimizer.state[parameter][key] = state[name]
    _load_tensors(folder, state, process)
    process.history = manifest.get("history") or {"went_back_to": [], "changes": []}
    process.history["changes"] += [{"step": manifest["step"], "change": text} for text in changes]
    scheduler.last_epoch = manifest["schedule_step"]
    for group, base, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = base * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    if manifest["world_size"] == process.world_size:
        _set_rng_state(torch.load(folder / f"rng_{process.rank}.pt", weights_only=True))
    else:
        print0(f"resuming on {process.world_size} ranks what {manifest['world_size']} ranks saved")
        torch.manual_seed(torch.initial_seed() + manifest["step"])
    print0(f"resumed from {folder}: {manifest['step']} steps done")
    return manifest["step"]


def _load_tensors(folder: Path, state: dict[str, Tensor], process: Process) -> None:
    """Fill the tensors of `state` from the checkpoint, each in its own dtype and sharding. Raises UserError."""
    reader = FileSystemReader(folder)
    missing = sorted(state.keys() - reader.read_metadata().state_dict_metadata.keys())
    if missing:
        raise UserError(f"{folder}: lacks {missing[0]} ({len(missing)} missing); it is a checkpoint of another model")
    dcp.load(state, storage_reader=reader, process_group=process.saver, no_dist=process.mesh is None)


def parse_settings(text: str) -> set[str]:
    """ "alpha,lam" -> {"alpha", "lam"}; UserError for a name that is no fixed setting."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in names - {*FIXED_SETTINGS}:
        raise UserError(f"--allow_changed {text!r}: {name} is no fixed setting; those are {', '.join(FIXED_SETTINGS)}")
    return names


def _changed_settings(manifest: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """Name -> what changed, for the settings that differ from the checkpoint's; one that it does not know has not."""
    pairs = {name: (manifest["config"].get(name, value), value) for name, value in settings.items()}
    return {name: f"{name} was {old!r}, now {new!r}" for name, (old, new) in pairs.items() if old != new}


def _check_identity(folder: Path, manifest: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Refuse a checkpoint of another configuration, data or model; return what changed otherwise, the code included."""
    changed = _changed_settings(manifest, now["config"])
    allowed = parse_settings(now["config"].get("allow_changed", ""))
    if refused := sorted(changed.keys() & {*FIXED_SETTINGS} - allowed):
        what = "; ".join(changed[name] for name in refused)
        raise UserError(f"{folder}: from another configuration: {what}; set it back, choose another --out_dir, or add "
                        f"--allow_changed {','.join(refused)} if it is meant")
    _check_data(folder, manifest["data"], now["data"])
    names = sorted(name for name, _ in manifest["parameters"].items() ^ now["parameters"].items())
    if names:
        there, here = (side["parameters"].get(names[0], "missing") for side in (manifest, now))
        text = f"{names[0]} is {there} there, {here} here ({len(set(names))} differ)"
        raise UserError(f"{folder}: another model: {text}; use its own --model and --train, or another --out_dir")
    changes = [changed[name] for name in sorted(changed.keys() - {*QUIET_SETTINGS})]
    there, here = manifest.get("code", now["code"]), now["code"]
    if files := sorted({name for name, _ in there["files"].items() ^ here["files"].items()}):
        changes += [f"the code: {', '.join(files)} (commit {there['commit']}, now {here['commit']})"]
    return changes


def _settle_schedule(folder: Path, manifest: dict[str, Any], scheduler: torch.optim.lr_scheduler.LambdaLR,
                     settings: dict[str, Any]) -> list[str]:
    """Hold a run of another number of steps to its checkpoint's schedule, as --schedule says; return what changed.

    Otherwise the learning rate would jump. Raises UserError.
    """
    curve, saved = scheduler.lr_lambdas[0], manifest["config"]
    now = getattr(curve, "keywords", {}).get("total_steps")
    length = manifest.get("schedule_length") or saved.get("max_steps")
    other = _changed_settings(manifest, settings).keys() & {"epochs", "global_batch"}
    if now and not length and (settings.get("max_steps") or other):  # of an older version: only the flag, 0, is known
        raise UserError(f"{folder}: its schedule had the length of all epochs; leave --max_steps out"
                        + f", and {' and '.join(sorted(other))} as before" * bool(other))
    if now in (None, length) or not length:
        return []
    old, step = functools.partial(curve, total_steps=length), manifest["schedule_step"]
    before, after = saved.get("learning_rate", 1.0) * old(step), settings.get("learning_rate", 1.0) * curve(step)
    choices = {
        "restretch": (curve, f"stretches the curve (the learning rate goes from {before:.2e} to {after:.2e})"),
        "keep": (old, f"goes on with the old curve (to its end, step {length}, at most)"),
    }
    how, text = settings.get("schedule"), f"the schedule had {length} steps, this run has {now}; --schedule "
    if how not in choices or (how == "keep" and now > length):
        both = ", or ".join(f"{name}, which {what}" for name, (_, what) in choices.items())
        raise UserError(f"{folder}: {text}{both}; or set the number of steps back")
    scheduler.lr_lambdas = [choices[how][0]] * len(scheduler.lr_lambdas)
    return [f"{text}{how} {choices[how][1]}"]


def _check_data(folder: Path, there: Any, here: dict[str, str]) -> None:
    """Refuse a checkpoint of other data (Rows.fingerprint); only print that pictures were copied, or are not known."""
    if isinstance(there, str):  # of the files' names, sizes and ends alone
        print0(f"{folder}: an older version wrote it, whose data fingerprint cannot be compared; bring the same --data")
        there = here
    changed = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    if changed == ["picture_times"]:
        print_box([f"{folder}: pictures were written anew since, with the same names and sizes: copied?",
                   "If they were changed, the run goes on with other pictures than it began with."])
    elif changed:
        what, remedy = ", ".join(changed), "bring the old files back or choose another --out_dir"
        raise UserError(f"{folder}: the data changed since ({what}), so its position is void; {remedy}")


# ---------------------------------------------------------------------------------------------------------------------
# Export to a folder that transformers opens


def export_pretrained(
    model: nn.Module, out_dir: str | Path, process: Process, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write model.hf, sharded or not, and model.processor as a plain transformers folder; all ranks call it.

    dtype: of the weights written (safetensors). Other files in the folder stay. config.json is written last, so a
    folder that has one is complete. Raises UserError if it cannot be written.
    """
    # A collective: the first rank gets the whole tensors, the others nothing.
    state = get_model_state_dict(model.hf, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def write() -> None:
        saved = latest_checkpoint(out_dir)
        _export(Path(out_dir), dtype, lambda new: _write_stock_files(model, new), lambda hf: hf.load_state_dict(state),
                _stage_facts(saved, read_manifest(saved)) if saved else {})

    run_on_first_rank(process, write)


def export_checkpoint(checkpoint: str | Path, out_dir: str | Path, *, dtype: torch.dtype = torch.bfloat16,
                      push_to_hub: str = "") -> None:
    """Export a checkpoint written by any number of ranks, in one process and without a GPU.

    checkpoint: a step_... folder, or an out_dir, of which the newest complete one is taken. push_to_hub: the name of a
    repository that the export is uploaded to; it is made, private, if there is none. Raises UserError.
    """
    folder = Path(checkpoint)
    if not (folder / "manifest.json").is_file():
        folder = latest_checkpoint(folder) or folder
    manifest = verify_checkpoint(folder)

    def fill(hf: nn.Module) -> None:
        _load_tensors(folder, _model_state(hf, "model.hf"), ALONE)

    files = _export(Path(out_dir), dtype, lambda new: shutil.copytree(folder / "pretrained", new), fill,
                    _stage_facts(folder, manifest))
    print(f"{folder}: {manifest['step']} steps, written by {manifest['world_size']} ranks")
    if push_to_hub:
        try:
            huggingface_hub.create_repo(push_to_hub, private=True, exist_ok=True)
            huggingface_hub.upload_folder(repo_id=push_to_hub, folder_path=out_dir, allow_patterns=files)
        except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
            why = str(error).partition("\n")[0]
            raise UserError(f"--push_to_hub {push_to_hub}: {why}; {out_dir} is complete: hf auth login, then hf upload "
                            f"{push_to_hub} {out_dir}") from error


# transformers 5 writes a LLaVA's tower as vision_tower.embeddings..., and opens it under its older names too;
# vLLM (0.33) opens the older ones alone.
LLAVA_NAMES = {"model.vision_tower.": "vision_tower.vision_model.", "model.language_model.": "language_model.model.",
               "model.multi_modal_projector.": "multi_modal_projector.", "lm_head.": "language_model.lm_head."}


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write a MathModel as one folder (safetensors, config, processor) that transformers opens, and vLLM a LLaVA."""
    model.processor.save_pretrained(folder)
    _write_model(model.hf, Path(folder))


def _write_model(hf: transformers.PreTrainedModel, folder: Path) -> None:
    """Weights, config, generation config and model card of a whole stock model. A README.md of someone's own stays."""
    card = folder / "README.md"
    if not card.exists() or card.read_text(errors="replace").startswith(CARD_BEGINS):
        card.write_text(model_card(hf.config))
    if not isinstance(hf.config, transformers.LlavaConfig):
        hf.save_pretrained(folder)
        return
    for config in (hf.config, hf.config.text_config, hf.config.vision_config):
        config.dtype = hf.dtype
    hf.config.architectures = [type(hf).__name__]
    hf.config.save_pretrained(folder)
    hf.generation_config.save_pretrained(folder)
    weights = {}
    for name, tensor in _model_state(hf, "hf").items():
        name = name.removeprefix("hf.")
        ours = next(prefix for prefix in LLAVA_NAMES if name.startswith(prefix))
        name = LLAVA_NAMES[ours] + name.removeprefix(ours).removeprefix("vision_model.")
        weights[name] = tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    huggingface_hub.save_torch_state_dict(weights, folder, metadata={"format": "pt"})


def _write_stock_files(model: nn.Module, folder: Path) -> None:
    """All that the stock model's folder holds besides the weights."""
    for part in (model.hf.config, model.hf.generation_config, model.processor):
        part.save_pretrained(folder)


def _stage_facts(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What a model card says of the stage that wrote a checkpoint; its losses from the run's log, where they are."""
    row: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, StopIteration):  # the checkpoint may have been copied from its run
        rows = map(json.loads, (folder.parent / "log.jsonl").read_text().splitlines())
        row = next(row for row in rows if row["step"] == manifest["step"])
    losses = {name: row[name] for name in row if name.removeprefix("val_") in ("loss", "fkl", "rkl", "ce")}
    code = manifest.get("code", {"script": "A stage", "commit": "not recorded"})  # by an older version
    return {  # a card may be published: nobody's paths
        "script": code["script"], "commit": code["commit"], "steps": manifest["step"],
        "losses": {name: loss for name, loss in losses.items() if math.isfinite(loss)},  # config.json takes no NaN
        "data": [f"{name}: {file['drawn']:,} of {file['usable']:,}" for name, file in (manifest["mix"] or {}).items()],
        "settings": {name: value for name, value in manifest["config"].items()
                     if name not in (*QUIET_SETTINGS, "data", "image_root", "picture_roots")}
    }


CARD_BEGINS = "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n"


def model_card(config: transformers.PretrainedConfig) -> str:
    """README.md of a model's folder: base parts, stages, data, commits, settings, losses; from config.made_from."""
    made_from = getattr(config, "made_from", {})
    hub_names = [name for name in made_from.get("parts", {}).values() if re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
    lines = ["base_model:", *(f"- {name}" for name in hub_names)] if hub_names else []
    lines += ["---", "", "# A model for mathematics in text and pictures, trained with nanoPUMA", ""]
    lines += [f"{part}: {name}  " for part, name in made_from.get("parts", {}).items()] or ["Base parts: not recorded."]
    for stage in made_from.get("stages", ()):
        lines += ["", f"## {stage['script']}: {stage['steps']} steps", "", f"Commit: {stage['commit']}  "]
        lines += [f"Usable rows drawn an epoch: {data}  " for data in stage["data"]]
        lines += ["Last step: " + ", ".join(f"{name} {loss:.4f}" for name, loss in stage["losses"].items()) + "  "]
        lines += ["Settings: " + ", ".join(f"{name} {value!r}" for name, value in stage["settings"].items())]
    return CARD_BEGINS + "\n".join([*lines, "", "Benchmark scores: none recorded with this export.", ""])


def _export(
    out_dir: Path, dtype: torch.dtype, add_stock_files: Callable, fill: Callable, facts: dict[str, Any]
) -> list[str]:
    """Build the stock model on the CPU from its own files, `fill` its weights, and replace the export in out_dir; its
    files' names.

    out_dir may hold other things (a run's checkpoints). facts: of this stage, for the model card; {}: unknown.
    """
    new = out_dir / "export.tmp"
    try:
        shutil.rmtree(new, ignore_errors=True)
        add_stock_files(new)
        with torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(new, trust_remote_code=False)
            hf = transformers.AutoModelForImageTextToText.from_config(config)
        hf.to(dtype).to_empty(device="cpu").tie_weights()
        hf.generation_config = transformers.GenerationConfig.from_pretrained(new)
        fill(hf)
        if (out_dir / "README.md").is_file():
            shutil.copy(out_dir / "README.md", new)  # _write_model replaces only an older card
        made_from = {"parts": {}, "stages": []} | getattr(config, "made_from", {})
        hf.config.made_from = made_from | {"stages": made_from["stages"] + [facts] * bool(facts)}
        _write_model(hf, new)
        # config.json is removed first and put back last: without it transformers opens nothing
        (out_dir / "config.json").unlink(missing_ok=True)
        for old in out_dir.glob("model*.safetensors*"):
            old.unlink()
        files = sorted(new.iterdir(), key=lambda file: file.name == "config.json")
        for file in files:
            _sync(file)
            if file.is_dir():
                shutil.rmtree(out_dir / file.name, ignore_errors=True)
            os.replace(file, out_dir / file.name)
        new.rmdir()
        _sync(out_dir)
        return [file.name for file in files]
    except (OSError, SafetensorError) as error:
        why = write_trouble(error, out_dir)
        shutil.rmtree(new, ignore_errors=True)  # what was written must not keep the disk full
        raise UserError(f"{out_dir}: export not written: {why}, then the same command writes it") from error
