"""What the three training scripts share and nobody edits: flags, torchrun, FSDP2, the schedule, the log, faults.

Plain functions around torch's own parts, not a trainer: the loop, the loss and the optimizer stand in the scripts,
checkpoints in checkpoint.py.

There is one mechanism for bf16. On CUDA every run is sharded by FSDP2, also a run of one process (a mesh of one).
FSDP2 keeps what trains in fp32, gathers it in bf16 for the forward and the backward pass, and sums gradients over
ranks in fp32. What is frozen is stored in bf16. On a CPU everything is fp32, and sharded only when torchrun starts
more than one process.
"""

import argparse
import ctypes
import difflib
import errno
import functools
import inspect
import json
import math
import os
import platform
import random
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from errors import UserError, leave_to_first_rank, writing
import fcntl  # after errors
import resource

Config = TypeVar("Config")
STARTED = time.time()


# ---------------------------------------------------------------------------------------------------------------------
# Flags


# Field -> (least, most) for every number that a script's Config may have.
LIMITS = (dict.fromkeys(("alpha", "lam", "warmup", "beta1", "beta2"), (0, 1))
          | dict.fromkeys(("tau", "learning_rate"), (sys.float_info.min, sys.float_info.max))
          | dict.fromkeys(("epochs", "global_batch", "pack_tokens", "keep"), (1, sys.maxsize))
          | dict.fromkeys(("max_length", "max_steps", "num_workers", "shard_size", "save_every"), (0, sys.maxsize))
          | dict.fromkeys(("val_every", "weight_decay", "grad_clip"), (0, sys.maxsize)))


def parse_config(
    config_class: type[Config], arguments: list[str] | None = None, **checks: Callable[[Any], Any]
) -> Config:
    """Read the command line into a script's dataclass, and print what departs from its defaults.

    `--help` shows each field with the comment behind it, under the comment above its group. A choice is a
    Literal[...]; a bool is a flag. checks: field=function that raises UserError for a value that cannot be.
    Raises UserError, on rank 0 alone, for an unknown flag, a value of the wrong type, or one outside LIMITS.
    """
    try:
        config = config_class(**vars(_make_parser(config_class).parse_args(arguments)))
        for name, value in vars(config).items():
            least, most = LIMITS.get(name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not least <= value <= most:  # NaN lies nowhere
                bounds = f"at least {least}" if least in (0, 1) else "a number above 0"
                raise UserError(f"--{name} {value}: must be {'from 0 to 1' if most == 1 else bounds}")
            if name in checks:
                checks[name](value)
    except UserError as error:
        leave_to_first_rank(error)
    for field in fields(config_class):
        if getattr(config, field.name) != field.default:
            print0(f"config: {field.name} = {getattr(config, field.name)}  (default {field.default})")
    return config


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # argparse would print the whole usage and exit with 2
        if unknown := re.match(r"unrecognized arguments: -*([^ =]+)", message):
            names = [action.dest for action in self._actions]
            initials = [name for name in names if "".join(word[0] for word in name.split("_")) == unknown[1]]  # lr
            close = initials or difflib.get_close_matches(unknown[1], names, n=1)
            message = message.replace("unrecognized arguments:", "unknown flag")
            message += f" (did you mean --{close[0]}?)" if close else ""
        raise UserError(f"{message}; --help lists the flags")


def _make_parser(config_class: type) -> _Parser:
    parser = _Parser(usage="%(prog)s [--flag value ...]", description=sys.modules[config_class.__module__].__doc__,
                     epilog="In brackets: the default.",
                     formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30),
                     allow_abbrev=False)
    comments = field_comments(config_class)
    groups = {section: parser.add_argument_group(section) for section in dict(comments.values())}
    for field in fields(config_class):
        (section, comment), default, choices = comments[field.name], field.default, get_args(field.type)
        shown = default if default != "" else '""'
        options = {"default": default, "help": f"{comment} [{shown}]".strip().replace("%", "%%")}
        if isinstance(default, bool):
            options |= {"nargs": "?", "const": True, "type": boolean, "metavar": "BOOL"}
            hidden = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
            parser.add_argument(f"--no_{field.name}", dest=field.name, action="store_false", **hidden)
        elif choices:
            options |= {"choices": choices}
        else:
            options |= {"type": type(default), "metavar": {int: "N", float: "X", str: "TEXT"}[type(default)]}
        groups[section].add_argument(f"--{field.name}", **options)
    return parser


def boolean(text: str) -> bool:
    """ "true" or "false" in any case; ValueError for another word."""
    return bool(("false", "true").index(text.lower()))


def field_comments(config_class: type) -> dict[str, tuple[str, str]]:
    """Field -> (the comment line above its group, the comment behind it), read from the class's source."""
    found, section = {}, "flags"
    for line in inspect.getsource(config_class).splitlines():
        if heading := re.fullmatch(r"    # (.+)", line):
            section = heading[1]
        elif field := re.match(r"    (\w+): [^#]*?(?:\"[^\"]*\"[^#]*)?(?:  # (.+))?$", line):
            found[field[1]] = section, field[2] or ""
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Processes


@dataclass
class Process:
    """Where this process stands among the others.

    mesh: None in a single CPU process, else the ranks over which FSDP2 shards. control: a gloo group for small
    agreements that must not wait for the GPU. saver: another one, for the threads that write checkpoints.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    mesh: DeviceMesh | None = None
    control: dist.ProcessGroup | None = None
    saver: dist.ProcessGroup | None = None
    pending_save: Future | None = None
    unlock: Callable[[], None] = lambda: None  # gives back what lock_out_dir took
    history: dict[str, list] | None = None  # of the checkpoint that it resumed from (checkpoint.py)
    exit_code: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in: bf16 on CUDA, fp32 on a CPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


def setup(seed: int, *, device: str = "auto", shard_size: int = 0, timeout_minutes: float = 30) -> Process:
    """Join the other processes (torchrun's environment) or stand alone; choose the device; seed every generator.

    seed: the same on every rank; data order and weights depend on it alone, never on the number of ranks.
    device: "cpu", or "auto" for CUDA where there is a GPU.
    shard_size: 0 shards over all ranks; k shards over groups of k ranks and replicates across the groups (HSDP), for
        hundreds of GPUs whose all-gathers should stay inside a node.
    timeout_minutes: how long a collective may wait for a rank before the run ends.
    Raises UserError for more ranks than GPUs, or a shard_size that does not divide the number of ranks.
    """
    under_torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = device == "auto" and torch.cuda.is_available()
    if on_gpu:
        if local_rank >= (count := torch.cuda.device_count()):
            raise UserError(f"local rank {local_rank} of {count} GPUs; start torchrun with --nproc_per_node {count}")
        torch.cuda.set_device(local_rank)
        # fp32 matrix products are left only where precision is not at stake (norm statistics, the rotary table)
        torch.set_float32_matmul_precision("high")
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    process = Process(rank, local_rank, world_size, torch.device("cuda", local_rank) if on_gpu else torch.device("cpu"))
    if not under_torchrun and not on_gpu:
        return process

    timeout = timedelta(minutes=timeout_minutes)
    if under_torchrun and sys.platform == "linux":
        # Linux kills this process when torchrun is killed: an orphan would keep its GPU and the lock on out_dir.
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    store = _fresh_store() if under_torchrun else dist.HashStore()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)
    if shard_size and world_size % shard_size:
        raise UserError(f"--shard_size {shard_size} does not divide the {world_size} ranks; use 0 to shard over all")
    sizes = (world_size // shard_size, shard_size) if 0 < shard_size < world_size else (world_size,)
    process.mesh = init_device_mesh(process.device.type, sizes, mesh_dim_names=("replicate", "shard")[-len(sizes):])
    process.control, process.saver = (dist.new_group(backend="gloo", timeout=timeout) for _ in range(2))
    return process


def _fresh_store() -> dist.Store:
    """torchrun's key-value store, under a name of this attempt's own.

    torchrun (seen in 2.13; pytorch issue 135712) keeps one store over its restarts, and a restarted rank may then read
    the address that a dead one left there ("Gloo connectFullMesh failed ... Connection refused"). Restarts are counted
    alike on all ranks within one node only; on several, torchrun's environment must give each attempt its own store.
    """
    store, _, _ = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        print0("warning: restarts may fail on several nodes; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun")
    return store


def wait_for_save(process: Process) -> None:
    """Return when the checkpoint in progress, if any, is complete; raise its UserError if it failed."""
    pending, process.pending_save = process.pending_save, None
    if pending is not None:
        pending.result()


def leave_group(process: Process) -> None:
    """Wait for a checkpoint in progress and for all ranks, then leave the process group; a lock is kept."""
    wait_for_save(process)
    if process.mesh is not None:
        dist.barrier(group=process.control)
        dist.destroy_process_group()


def shutdown(process: Process) -> None:
    """leave_group, unlock out_dir, and end with exit code 130 after a Ctrl-C: a shell script must not go on."""
    leave_group(process)
    process.unlock()
    if process.exit_code:
        sys.exit(process.exit_code)


def print0(*values: object) -> None:
    """Print on the first rank only."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(*values, flush=True)


def print_box(lines: list[str]) -> None:
    """Print lines on the first rank in a box that nobody overlooks."""
    width = max(map(len, lines)) + 4
    print0("\n".join(["!" * width, *(f"! {text:<{width - 4}} !" for text in lines), "!" * width]))


def run_on_first_rank(process: Process, work: Callable[[], Any]) -> Any:
    """Do `work` on the first rank while the others wait; its result, or its UserError, reaches every rank."""
    result: list[Any] = [None, None]
    if process.is_first:
        try:
            result[0] = work()
        except UserError as error:
            result[1] = str(error)
    if process.mesh is not None:
        dist.broadcast_object_list(result, src=0, group=process.control)
    if result[1] is not None:
        raise UserError(result[1])
    return result[0]


def lock_out_dir(out_dir: str | Path, process: Process, patience: float = 6.0, *, work: str = "training",
                 flag: str = "--out_dir") -> None:
    """Keep a second run out of `out_dir` until unlock, or until this process dies: the kernel drops the lock then.

    patience: seconds to wait for a run that is just dying (a restart by torchrun). work, flag: what this run does, and
    its flag for out_dir, for the message that a second run ends with. Raises UserError on the first rank.
    """
    if not process.is_first:
        return
    out_dir, path = Path(out_dir), Path(out_dir) / ".lock"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        # Where others can write too, .lock may be a link to someone's file: it is neither followed nor truncated.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        what = f"{path} is a symbolic link; remove it, or" if error.errno == errno.ELOOP else f"{error.strerror};"
        raise UserError(f"{flag} {out_dir}: {what} name a folder that can be written to") from None
    lock_file, found = open(descriptor, "rb+", buffering=0), os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise UserError(f"{path} is no plain file with one name; remove it, or name another folder with {flag}")
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = path.read_text(errors="replace").strip() or "another process is at work"
                raise UserError(f"{out_dir}: {holder} here; wait for it or choose another {flag}") from None
            time.sleep(0.2)
        except OSError as error:
            print0(f"warning: {out_dir} cannot be locked on this file system ({error.strerror}); start one run only")
            break
    with writing(path):
        lock_file.truncate(0)
        lock_file.write(f"process {os.getpid()} on {platform.node()} is {work}\n".encode())
    os.register_at_fork(after_in_child=lock_file.close)  # a forked worker must not keep the lock when the run is killed
    process.unlock = lock_file.close


# ---------------------------------------------------------------------------------------------------------------------
# The header of the log


def git_commit() -> str:
    """The commit of this code, with '+changes' when the tree is dirty; 'unknown' outside a repository."""
    folder = shlex.quote(str(Path(__file__).resolve().parent))
    describe = f"git -C {folder} describe --always --dirty=+changes --abbrev=12 --exclude='*'"
    return subprocess.getoutput(f"{describe} 2>/dev/null || echo unknown")


def print_header(process: Process, model: nn.Module, *, loss_backend: str, **facts: object) -> None:
    """Print what a reader of the log needs to repeat the run; slow or unusual paths in a box that nobody overlooks.

    model: with an lm_head, whose weight decides on the backend of the loss where loss_backend is "auto".
    facts: whatever the script wants on record (the parts that train, the data's summary).
    """
    import transformers

    from kernels import choose_backend

    mesh, slow_paths = process.mesh, []
    backend, reason = choose_backend(model.lm_head.weight)
    if process.device.type == "cuda":
        card = torch.cuda.get_device_properties(process.device)
        device = f"{process.world_size} x {card.name}, {card.total_memory / 2**30:.0f} GiB"
        precision = "bf16 compute, fp32 master weights and gradient sums (FSDP2 mixed precision)"
        slow_paths += [f"loss: {reason}"] if backend != "triton" else []
    else:
        device = f"{process.world_size} x CPU, {torch.get_num_threads()} threads each"
        precision = "fp32 throughout (CPU)"
        if (count := sum(parameter.numel() for parameter in model.parameters())) > 100e6:
            slow_paths.append(f"no GPU: {count / 1e6:,.0f}M parameters on a CPU are far too slow for more than a test")
    header = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]), "commit": git_commit(),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "device": device, "precision": precision,
        "sharding": "none (one process)" if mesh is None else f"FSDP2 over {tuple(mesh.shape)} ranks",
        **facts, "loss": f"{backend} ({reason})" if loss_backend == "auto" else loss_backend
    }
    for name, value in header.items():
        print0(f"{name + ':':<16}{value}")
    if slow_paths:
        print_box(slow_paths)


# ---------------------------------------------------------------------------------------------------------------------
# Sharding


def transformer_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of every transformer in `model` (LLM decoder, SigLIP, SAM): members of lists called `layers`."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] == "layers" and isinstance(module, nn.ModuleList):
            for number, layer in enumerate(module):
                yield f"{name}.{number}", layer


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only each layer's input in the forward pass and compute the rest again in the backward pass.

    It wraps the layer's own forward, inside FSDP2's hooks and outside what is compiled: call it after compile_layers.
    transformers' switch acts through the layer's class, which FSDP2 replaces; on a compiled forward it then does
    nothing, without a word (seen in 5.24).
    """
    for _, layer in transformer_layers(model):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(model: nn.Module) -> None:
    """torch.compile each layer's forward in place: one small graph per kind of layer; parameter names stay.

    FSDP2's and activation checkpointing's hooks stay outside the graph. Micro-batches differ in length, so the graphs
    are dynamic in it; the first steps pay for compilation.
    """
    import guard  # noqa: F401  (before transformers)
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    # transformers records a tower's hidden states by hooks on its layers, and with them hooks the attention inside,
    # which nothing here reads. That hook cannot be traced: it would break each layer's graph in three.
    for tower in getattr(model, "vision_modules", []):
        maybe_install_capturing_hooks(tower)
    # transformers 5.24 runs all layers through one function, of which stage 2 needs ten variants (kind, trained or not,
    # with gradients or without, one image or more); beyond torch's limit of 8 the rest would not be compiled.
    torch._dynamo.config.recompile_limit = 64
    for _, layer in transformer_layers(model):
        for module in layer.modules():
            if module is not layer:
                module._forward_hooks.clear()
        layer.forward = torch.compile(layer.forward, dynamic=True)


def _units(module: nn.Module, layers: set[nn.Module], name: str = "") -> Iterator[nn.Module]:
    """The modules below the root that FSDP groups are made of: each layer, and on the vision side each largest module
    without a layer in it.

    The language model's embedding table, final norm and lm_head are left to the root's group: gathered there while
    the loss is computed, and one tensor where they are tied. A transformers model is never a group itself, because
    FSDP2 renames a module's class, and transformers finds the hidden states to return (feature layer -2) by class.
    """
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}"
        if child in layers:
            yield child
        elif hasattr(child, "save_pretrained") or not layers.isdisjoint(child.modules()):
            yield from _units(child, layers, path)
        elif "language_model" not in path and child_name != "lm_head" and next(child.parameters(), None) is not None:
            yield child


# Each gather costs the host time however small the group is, and an H100 waits for it (experiments/LOG.md). A group
# is held three times at most, in bf16: 0.8 GB.
GROUP_PARAMETERS = 2**27


def fsdp_groups(model: nn.Module) -> list[list[nn.Module]]:
    """The FSDP groups below the root: the units of `_units`, consecutive layers joined up to GROUP_PARAMETERS.

    Only layers of one class join, and only trained with trained or frozen with frozen: so a group's last layer is the
    feature layer or the decoder's last, where FSDP2 must gather the group again for the backward pass.
    """
    layers = {layer for _, layer in transformer_layers(model)}

    def kind(unit: nn.Module) -> tuple[type, set[bool]]:
        return type(unit), {parameter.requires_grad for parameter in unit.parameters()}

    groups: list[list[nn.Module]] = []
    for unit in _units(model, layers):
        last = groups[-1] if groups and unit in layers and kind(unit) == kind(groups[-1][-1]) else []
        joined = sum(parameter.numel() for member in (*last, unit) for parameter in member.parameters())
        if last and joined <= GROUP_PARAMETERS:
            last.append(unit)
        else:
            groups.append([unit])
    return groups


def shard(model: nn.Module, process: Process, *, unused: Callable[[str], bool] = lambda name: False) -> None:
    """Put `model` on the device and shard it in place with FSDP2; in a single CPU process only move it.

    One group per run of transformer layers (`fsdp_groups`), one per module on the vision side that lies outside the
    layers, one for the projector, the rest (embeddings, final norm, lm_head) in the root's. Gradients are SUMMED
    over ranks, not averaged: the loss is already divided by the global number of tokens. Call it after
    requires_grad is set and before the optimizer is made. On CUDA what trains is stored in fp32 and what is frozen in
    bf16; all computation is in bf16, and gradients are summed in fp32.
    unused: parameters, by name, that this stage never computes with (stage 1: the towers). They stay on the CPU.
    """
    on_cpu = {parameter for name, parameter in model.named_parameters() if unused(name)}
    for buffer in model.buffers():
        buffer.data = buffer.data.to(process.device)
    policy = MixedPrecisionPolicy(param_dtype=process.dtype, reduce_dtype=torch.float32)
    # The projector returns a view, of which FSDP2 warns. Nobody writes into it in place (gradients are tested).
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    # On one rank what is frozen is stored as it is computed with: gathering it would only copy it.
    ignored = on_cpu | frozen if process.world_size == 1 else on_cpu
    for modules in [*fsdp_groups(model), [model]]:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        # Placed group by group: the whole model in fp32 would not fit 8 times on most hosts.
        for parameter in parameters:
            if not isinstance(parameter, DTensor):
                dtype = process.dtype if parameter in frozen else torch.float32
                parameter.data = parameter.data.to("cpu" if parameter in on_cpu else process.device, dtype)
        is_root = modules == [model]  # the root is sharded even if it holds nothing: it leads the others
        if process.mesh is not None and (is_root or not ignored.issuperset(parameters)):
            fully_shard(modules, mesh=process.mesh, mp_policy=policy, ignored_params=ignored,
                        reshard_after_forward=not is_root)
            # A plain sum. A divide factor of 1 alone would choose PREMUL_SUM, which only NCCL has.
            modules[0].set_gradient_divide_factor(1.0)
            modules[0].set_force_sum_reduction_for_comms(True)


def set_gradient_sync(model: nn.Module, enabled: bool) -> None:
    """Accumulate without communication: False for every micro-batch of a step but the last.

    Saves one reduce-scatter per micro-batch and costs the unsharded fp32 gradients of all that trains. No effect
    unsharded.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)


# ---------------------------------------------------------------------------------------------------------------------
# Optimizer, schedule, sums over ranks, validation


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What trains, in two groups: matrices (kernels and embeddings too) with weight decay; norms, biases and scalars
    without. Raises UserError where nothing trains.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError("nothing trains: every part is frozen; name one with --train vision,projector,llm")
    return [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_factor(step: int, *, total_steps: int, warmup: float) -> float:
    """What the learning rate is multiplied with after `step` steps: see cosine_schedule."""
    warmup_steps = math.ceil(total_steps * warmup)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def cosine_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_fraction: float = 0.02
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over the first steps, then half a cosine that reaches zero just after the last step.

    The first step has a learning rate above zero already, so no batch is wasted; transformers' schedule starts at 0.
    """
    # A first step that is left out, its rows unreadable or its loss not finite, makes torch warn of a wrong order.
    warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
    # A partial, whose total_steps can be read: checkpoint.py holds a resumed run to the length of its schedule.
    factor = functools.partial(cosine_factor, total_steps=total_steps, warmup=warmup_fraction)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def sum_over_ranks(value: Any, process: Process) -> Any:
    """The sum of a number or a tensor over all ranks, as the same kind of thing (whole numbers stay exact)."""
    if process.mesh is None:
        return value
    if isinstance(value, Tensor):
        total = value.detach().clone()
        dist.all_reduce(total)
        return total
    total = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    dist.all_reduce(total, group=process.control)
    return total.item()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their norm over every shard is at most max_norm; return the norm before (0-d fp32).

    max_norm 0 only measures. A norm that is not finite leaves the gradients alone: see NonFiniteGuard.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    # Summed in float64: float32 sums of millions of squares differ by 1e-5 with the number of ranks, and clipping would
    # hand that on to every gradient.
    norms = [torch.linalg.vector_norm(parameter.grad, dtype=torch.float64) for parameter in parameters]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).float()
    if max_norm and torch.isfinite(norm):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


@torch.no_grad()
def validate(
    model: nn.Module, loss_function: Callable, steps: Iterable[Any], process: Process, **loss_kwargs: Any
) -> list[float]:
    """Means over the response tokens of all rows in `steps` (each rank's MicroBatches): what loss_function returns.

    Weights, generators and the order of the training rows stay as they are. NaN where there was no row to read.
    """
    model.eval()
    totals, num_tokens, skipped = torch.zeros((), dtype=torch.float64, device=process.device), 0, 0
    for micro_batches in steps:
        skipped += len(micro_batches.skipped)
        num_tokens += micro_batches.num_response_tokens
        for sides in micro_batches:
            sides = [side.to(process.device, non_blocking=True) for side in sides if side is not None]
            losses = model(loss_function, *sides, num_tokens=1, **loss_kwargs)  # divided by 1: sums
            totals = totals + torch.stack(losses if isinstance(losses, tuple) else (losses,)).double()
    totals, num_tokens, skipped = (sum_over_ranks(value, process) for value in (totals, num_tokens, skipped))
    if skipped:
        print0(f"validation: {skipped:,} rows left out, their pictures are unreadable")
    if isinstance(model, FSDPModule):
        # A forward without a backward leaves the root gathered, and checkpoints would take its bf16 copies.
        model.reshard()
    model.train()
    return (totals / num_tokens).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# The log


# What the line of a step shows, in this order, where the step has it.
SHOWN = dict.fromkeys(("loss", "fkl", "rkl", "ce", "val_loss", "val_fkl", "val_rkl", "val_ce"), ".4f")
SHOWN |= {"lr": ".2e", "grad_norm": ".3f", "unreadable": "d"}  # a count of 0 is not worth the space


class Log:
    """One line a step on the screen and one JSON row in out_dir/log.jsonl, on the first rank. wandb only when asked.

    A resumed run first drops the rows after its first step, so the file reads like that of a run never stopped.
    config: out_dir; progress, "lines" for a line a step, "bar" for one tqdm line, "none"; wandb_project.
    peak_flops: of one GPU, bf16, per second (model.peak_flops); None where MFU means nothing.
    """

    def __init__(self, config: Any, process: Process, total_steps: int, start_step: int = 0,
                 peak_flops: float | None = None) -> None:
        self.process, self.total_steps, self.peak_flops = process, total_steps, peak_flops
        self.first_step, self.began = start_step, time.perf_counter()
        self.last_mark, self.times = self.began, {}
        self.progress = config.progress if process.is_first else "none"
        if start_step >= total_steps:
            print0(f"nothing left to train: all {total_steps} steps were done")
        self.path, self.wandb = Path(config.out_dir) / "log.jsonl" if process.is_first else Path(os.devnull), None
        if process.is_first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            os.truncate(self.path, _bytes_up_to(start_step, self.path))
        self.file = open(self.path, "ab", buffering=0)  # a buffer would fail on a full disk again when it is closed
        self.bar = tqdm(total=total_steps, initial=start_step, desc=str(config.out_dir), unit="step",
                        dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 20,
                        disable=self.progress != "bar")
        if process.is_first and config.wandb_project:
            try:
                import wandb
            except ImportError:
                raise UserError("--wandb_project needs wandb: pip install wandb, or leave the flag out") from None
            id_file = Path(config.out_dir) / "wandb_id"
            if not (start_step and id_file.exists() and id_file.stat().st_size):  # 0: a full disk took none of it
                with writing(id_file):
                    id_file.write_text(uuid.uuid4().hex[:8])  # from the system, not from the run's generators
            self.wandb = wandb.init(project=config.wandb_project, dir=str(config.out_dir), config=vars(config),
                                    id=id_file.read_text(), resume="allow", allow_val_change=True)
            # wandb drops a row whose step= it has had before, as a resumed run's: the row's own "step" is the x axis.
            self.wandb.define_metric("step")
            self.wandb.define_metric("*", step_metric="step")

    def mark(self, name: str) -> None:
        """Book the time since the last mark (or step) under `name`: "data", "forward_backward", "optimizer",
        "validation"; "save" in the row of the step that follows.

        Waits for the GPU, so that time is booked where it was spent; a few waits a step cost nothing at these sizes.
        """
        if self.process.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.times[name] = self.times.get(name, 0.0) + now - self.last_mark
        self.last_mark = now

    def step(self, step: int, *, num_tokens: int, flops: float = 0.0, **values: Any) -> dict[str, Any]:
        """Write the row of a step. step: steps done so far, this one included.

        num_tokens: of all ranks, prompts and image tokens included. values: numbers or 0-d tensors.
        flops: model FLOPs of the step over all ranks (model.step_flops).
        MFU = flops / (seconds * ranks * peak bf16 FLOPs of one GPU). Time for validation counts in step_seconds alone.
        """
        self.mark("other")
        seconds = sum(self.times.values())
        training_seconds = seconds - self.times.get("validation", 0.0)
        row = {"step": step}
        row |= {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}
        row |= {"tokens": num_tokens, "tokens_per_second": round(num_tokens / training_seconds, 1)}
        row |= {f"{name}_seconds": round(value, 4) for name, value in self.times.items()}
        row |= {"step_seconds": round(seconds, 4), "data_wait": round(self.times.get("data", 0.0) / seconds, 4),
                "memory_gib": round(memory_in_use(self.process.device) / 2**30, 3)}
        if self.peak_flops and flops:
            row["mfu"] = round(flops / (training_seconds * self.process.world_size * self.peak_flops), 4)
        elapsed = time.perf_counter() - self.began
        row["seconds_left"] = round(elapsed / max(1, step - self.first_step) * (self.total_steps - step), 1)
        self.times = {}
        line = json.dumps(row).encode() + b"\n"
        with writing(self.path):
            while line:  # what a full disk took of it is no error yet
                line = line[self.file.write(line):]
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(f"loss {row.get('loss', math.nan):.3f}", refresh=False)
        if self.wandb is not None:
            self.wandb.log(row)
        if self.progress == "lines":
            shown = [f"{name} {row[name]:{style}}" for name, style in SHOWN.items()
                     if row.get(name) is not None and (row[name] or style != "d")]
            shown += [f"{row['tokens_per_second']:,.0f} tok/s", f"{seconds:.2f} s (data {row['data_wait']:.1%})"]
            shown += [f"MFU {row['mfu']:.1%}"] if "mfu" in row else []
            shown += [f"{row['memory_gib']:.1f} GiB", f"{timedelta(seconds=int(row['seconds_left']))} left"]
            print0("  ".join([f"step {step}/{self.total_steps}", *shown]))
        return row

    def close(self) -> None:
        """Close the bar, the file and the wandb run."""
        self.bar.close()
        self.file.close()
        if self.wandb is not None:
            self.wandb.finish()


def _bytes_up_to(start_step: int, path: Path) -> int:
    """Where in a log the row after start_step begins. Raises UserError for a damaged row before it."""
    size = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if start_step else (), 1):
        try:  # a kill may have cut the last line short; its step is trained and logged again
            if not line.endswith(b"\n") or json.loads(line)["step"] > start_step:
                break
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: damaged: no row of a step; delete it or move the file") from None
        size += len(line)
    return size


def memory_in_use(device: torch.device) -> int:
    """Bytes, the peak since the start: what torch reserved on a GPU, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---------------------------------------------------------------------------------------------------------------------
# Faults


class StopRequest:
    """SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or a file called STOP in out_dir: finish the step, save, leave a marker, end.

    A second Ctrl-C ends at once. torchrun forwards SIGTERM and SIGINT and kills 30 seconds later, and dies of SIGUSR1
    itself; so under Slurm the batch script asks for its signal minutes ahead and touches the STOP file
    (runs/slurm_stage2.sh).
    """

    def __init__(self, out_dir: str | Path, process: Process) -> None:
        self.process, self.reason, self.stopping = process, "", False
        self.stop_file, self.marker = Path(out_dir) / "STOP", Path(out_dir) / "STOPPED"
        self.launched = "TORCHELASTIC_RUN_ID" in os.environ
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background job ignores Ctrl-C
                signal.signal(number, self._on_signal)
        if process.is_first and self.marker.exists():
            said = self.marker.read_text(errors="replace").strip()
            print0(f"the last run ended by request ({said}); going on from its checkpoint")
            self.marker.unlink()
        # A STOP older than this job asked an earlier run; one that came while this job was starting, or before torchrun
        # started it over, still stands.
        clears = process.is_first and not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if clears and self.stop_file.exists() and self.stop_file.stat().st_mtime < STARTED:
            self.stop_file.unlink()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.reason:
            return
        self.reason = signal.Signals(number).name
        if number == signal.SIGINT and not self.launched:
            signal.signal(number, signal.SIG_DFL)  # not an exception: it must also end what hangs outside Python
        more = "; once more ends at once" if number == signal.SIGINT else ""
        if self.launched:
            more = f"; torchrun kills its ranks after 30 s: where that is too short, touch {self.stop_file} instead"
        if self.process.is_first:  # not print: the signal may have come inside one
            os.write(2, f"\n{self.reason}: ends when what is under way is done and saved{more}\n".encode())

    def should_stop(self) -> bool:
        """True on every rank as soon as any rank was asked to stop; `stopping` from then on, too. Call it once at every
        step's end.
        """
        if not self.reason and self.process.is_first and self.stop_file.exists():
            self.reason = "the file STOP"
        self.stopping = sum_over_ranks(int(bool(self.reason)), self.process) > 0
        return self.stopping

    def leave_marker(self, step: int) -> None:
        """Write the file STOPPED, which a restart reads and removes. Call it when the checkpoint is complete."""
        if self.process.is_first:
            with writing(self.marker, f"the same command goes on from step {step}, which is saved"):
                self.stop_file.unlink(missing_ok=True)
                self.marker.write_text(f"step {step}, {self.reason or 'another rank'}\n")
        if self.reason == "SIGINT" and not self.launched:
            self.process.exit_code = 130
        print0(f"stopped by request after step {step}; the same command with --resume auto goes on")


def watch_unreadable(steps: Iterator[Any], process: Process, num_named: int = 5) -> Iterator[tuple[Any, int]]:
    """Each of `steps` (this rank's MicroBatches) with the rows that all ranks left out of it for an unreadable picture.

    The first num_named rows are named. Raises UserError, on the first rank, when at least 10, and more than 10 %, of
    the last 1,000 rows (of whole steps, all ranks together) were left out.
    """
    recent: list[tuple[int, int]] = []  # (rows, unreadable ones) of each step
    for micro_batches in steps:
        num_skipped = sum_over_ranks(len(micro_batches.skipped), process)
        recent.append((micro_batches.global_rows, num_skipped))
        while sum(rows for rows, _ in recent[1:]) >= 1000:
            del recent[0]
        skipped = [micro_batches.skipped] * process.world_size
        if num_skipped and process.mesh is not None:
            dist.all_gather_object(skipped, micro_batches.skipped, group=process.control)
        named = sum(skipped, [])
        for row in named[:num_named]:
            print0(f"left out: {row}")
        num_named = max(0, num_named - num_skipped)
        seen, unreadable = map(sum, zip(*recent, strict=True))
        if num_skipped and unreadable >= 10 and unreadable > seen / 10:
            what = f"{named[0]}: {unreadable:,} of the last {seen:,} rows have such pictures"
            leave_to_first_rank(UserError(f"{what}; make these files readable, or take their rows out of --data"))
        yield micro_batches, num_skipped


class NonFiniteGuard:
    """Skips a step whose loss or gradient is not finite, and writes its rows to a file; a few in a row end the run."""

    def __init__(self, out_dir: str | Path, process: Process, max_in_a_row: int = 3) -> None:
        self.path, self.process, self.max_in_a_row = Path(out_dir) / "nonfinite_rows.jsonl", process, max_in_a_row
        self.in_a_row = self.skipped = 0

    def skip_nonfinite_step(self, step: int, loss: Tensor | float, grad_norm: Tensor | float,
                            micro_batches: list[tuple[list[str], Any]]) -> bool:
        """True when this step must not reach the optimizer (the caller zeroes the gradients; the schedule goes on).

        loss, grad_norm: of the whole step, equal on all ranks. micro_batches: this rank's (row ids, own loss). The
        file names the micro-batches whose own loss is not finite, or all of the step when only the gradient is not.
        Raises UserError after max_in_a_row such steps.
        """
        loss, grad_norm = float(loss), float(grad_norm)
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self.skipped += 1
        own = [(rows, math.isfinite(float(own_loss))) for rows, own_loss in micro_batches]
        gathered = [own] * self.process.world_size
        if self.process.mesh is not None:
            dist.all_gather_object(gathered, own, group=self.process.control)
        every = [micro_batch for rank in gathered for micro_batch in rank]
        suspects = [rows for rows, is_finite in every if not is_finite] or [rows for rows, _ in every]
        if self.process.is_first:
            record = {"step": step, "loss": repr(loss), "grad_norm": repr(grad_norm), "rows": sum(suspects, [])}
            with writing(self.path), open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")
        print0(f"step {step}: loss {loss}, gradient norm {grad_norm}: skipped ({self.skipped} so far), see {self.path}")
        if self.in_a_row >= self.max_in_a_row:
            raise UserError(
                f"{self.path}: {self.in_a_row} steps in a row without a finite loss and gradient, the last {step}; "
                "look at the rows named there, lower --learning_rate, go back to an older checkpoint: --resume FOLDER"
            )
        return True
