"""What the three training scripts share and nobody edits: torchrun, FSDP2, the schedule, the log, and what clusters
do to jobs.

Plain functions around torch's own parts, not a trainer: the loop, the loss and the optimizer stand in the scripts.
Checkpoints are in checkpoint.py; what a run will need before anything is rented is in memory.py.

The one mechanism for bf16: on CUDA every run is sharded by FSDP2, also a run of one process (a mesh of one). FSDP2
keeps what trains in fp32, gathers it in bf16 for the forward and the backward pass, and sums gradients over ranks in
fp32. What is frozen is stored in bf16. On a CPU everything is fp32, sharded only when torchrun starts more than one
process.
"""

import ctypes
import difflib
import errno
import fcntl
import functools
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from errors import UserError, run_main

Config = TypeVar("Config")
STARTED = time.time()


def main(script: Callable[[], None]) -> None:
    """What a training script ends with: errors.run_main, and one line too where a GPU's memory ran out."""

    def run() -> None:
        try:
            script()
        except torch.OutOfMemoryError as error:
            what = str(error).partition(". GPU ")[0]
            raise UserError(
                f"{what}; add --activation_checkpointing, lower --pack_tokens or use more GPUs (--dry_run plans it)"
            ) from error

    run_main(run)


# ---------------------------------------------------------------------------------------------------------------------
# Processes


@dataclass
class Process:
    """Where this process stands among the others.

    mesh: None in a single CPU process, else the ranks over which FSDP2 shards.
    control: a gloo group for small agreements that must not wait for the GPU; saver: another one for checkpoint
    threads.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    mesh: DeviceMesh | None = None
    control: dist.ProcessGroup | None = None
    saver: dist.ProcessGroup | None = None
    pending_save: Future | None = None
    lock_file: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0


def setup(seed: int, *, device: str = "auto", shard_size: int = 0, timeout_minutes: float = 30) -> Process:
    """Join the other processes (torchrun's environment) or stand alone; choose the device; seed every generator.

    seed: the same on every rank; data order and weights depend on it alone, never on the number of ranks.
    shard_size: 0 shards over all ranks; k shards over groups of k ranks and replicates across the groups (HSDP), for
        hundreds of GPUs whose all-gathers should stay inside a node.
    timeout_minutes: how long a collective may wait for a rank before the run ends.
    Raises UserError for a device that is not there or a shard_size that does not divide the number of ranks.
    """
    under_torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; install a CUDA build of torch or use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local_rank}, but this machine has {torch.cuda.device_count()} GPUs; "
                f"start torchrun with --nproc_per_node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local_rank)
        # fp32 matrix products are left only where precision is not at stake (norm statistics, the rotary table)
        torch.set_float32_matmul_precision("high")
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    process = Process(rank, local_rank, world_size, torch.device(device, local_rank if device == "cuda" else None))
    if not under_torchrun and device == "cpu":
        return process
    if under_torchrun:
        _die_with_the_launcher()

    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    if under_torchrun:
        dist.init_process_group(backend, timeout=timeout, store=_fresh_store(), rank=rank, world_size=world_size)
    else:
        dist.init_process_group(backend, timeout=timeout, store=dist.HashStore(), rank=0, world_size=1)
    if shard_size < 0 or (shard_size and world_size % shard_size):
        raise UserError(f"--shard_size {shard_size} does not divide the {world_size} ranks; use 0 to shard over all")
    if shard_size and shard_size < world_size:
        sizes = (world_size // shard_size, shard_size)
        process.mesh = init_device_mesh(device, sizes, mesh_dim_names=("replicate", "shard"))
    else:
        process.mesh = init_device_mesh(device, (world_size,), mesh_dim_names=("shard",))
    process.control = dist.new_group(backend="gloo", timeout=timeout)
    process.saver = dist.new_group(backend="gloo", timeout=timeout)
    return process


def _fresh_store() -> dist.Store:
    """torchrun's key-value store, under a name of this attempt's own.

    torchrun (seen in 2.13; pytorch issue 135712) keeps one store over its restarts, and a restarted rank may then read
    the address that a dead one left there ("Gloo connectFullMesh failed ... Connection refused"). Restarts are counted
    alike on all ranks within one node only; on several, torchrun's environment must give each attempt its own store.
    """
    store, _, _ = next(dist.rendezvous("env://"))
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        print0("warning: restarts may fail on several nodes; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun")
    return store


def _die_with_the_launcher() -> None:
    """Let Linux kill this process when torchrun itself is killed: an orphan would keep its GPU, and the lock on
    out_dir.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


def leave_group(process: Process) -> None:
    """Wait for a checkpoint still being written and for all ranks, then leave the process group; a lock is kept.

    Raises what the writing raised.
    """
    if process.pending_save is not None:
        pending, process.pending_save = process.pending_save, None
        pending.result()
    if process.mesh is not None:
        dist.barrier(group=process.control)
        dist.destroy_process_group()


def shutdown(process: Process) -> None:
    """leave_group, then unlock."""
    leave_group(process)
    unlock(process)


def unlock(process: Process) -> None:
    """Give back what lock_out_dir took."""
    if process.lock_file is not None:
        process.lock_file.close()


def print0(*values: object) -> None:
    """Print on the first rank only."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(*values, flush=True)


def run_on_first_rank(process: Process, work: Callable[[], Any]) -> Any:
    """Do `work` on the first rank while the others wait; return its result everywhere; its UserError ends every
    rank.
    """
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


def lock_out_dir(
    out_dir: str | Path, process: Process, patience: float = 6.0, *, work: str = "training", flag: str = "--out_dir"
) -> None:
    """Keep a second run out of `out_dir` for as long as this process lives (the kernel drops the lock with the
    process), or until unlock.

    patience: seconds to wait for a run that is just dying (a restart by torchrun). work, flag: what this run does, and
    its flag for out_dir, for the message that a second run ends with. Raises UserError on the first rank.
    """
    out_dir = Path(out_dir)
    if not process.is_first:
        return
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        lock_file = open(out_dir / ".lock", "a+")
    except OSError as error:
        raise UserError(f"{flag} {out_dir}: {error.strerror}; name a folder that can be written to") from None
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                print0(
                    f"warning: {out_dir} cannot be locked on this file system ({error.strerror}); start one run only"
                )
                break
            if time.monotonic() > deadline:
                lock_file.seek(0)
                holder = lock_file.read().strip() or "another process is at work"
                raise UserError(f"{out_dir}: {holder} here; wait for it or choose another {flag}") from None
            time.sleep(0.2)
    lock_file.truncate(0)
    lock_file.write(f"process {os.getpid()} on {platform.node()} is {work}")
    lock_file.flush()
    # a forked worker must not keep the lock when the run is killed
    os.register_at_fork(after_in_child=lambda: lock_file.close())
    process.lock_file = lock_file


# ---------------------------------------------------------------------------------------------------------------------
# Configuration and the header of the log


def parse_config(config_class: type[Config], arguments: list[str] | None = None) -> Config:
    """Read the command line into the script's dataclass and print what departs from its defaults.

    A flag that does not exist or a value of the wrong type is a UserError; `--help` prints every field.
    """
    import guard  # noqa: F401  (before transformers)
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> None:  # argparse would print the whole usage and exit with 2
            raise UserError(f"{message}; --help lists the flags")

    parser = Parser(config_class, allow_abbrev=False, description=sys.modules[config_class.__module__].__doc__)
    config, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    if unknown:
        names = [f"--{field.name}" for field in fields(config_class)]
        close = difflib.get_close_matches(unknown[0].split("=")[0], names, n=1)
        suggestion = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"unknown flag {' '.join(unknown)}; {suggestion}--help lists the flags")
    default = {field.name: field.default for field in fields(config_class)}
    for name, value in asdict(config).items():
        if value != default[name]:
            print0(f"config: {name} = {value}  (default {default[name]})")
    return config


def git_commit() -> str:
    """The commit of this code, with '+changes' when the tree is dirty; 'unknown' outside a repository."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"


def print_header(process: Process, config: Any, *, slow_paths: Iterable[str] = (), **facts: object) -> dict[str, Any]:
    """Print what a reader of the log needs to repeat the run; return it (the scripts save it with the configuration).

    facts: whatever the script wants on record (the loss backend and why, the parts that train, the data's summary).
    slow_paths: slow or unusual paths, printed in a box that nobody overlooks.
    """
    import transformers

    header: dict[str, Any] = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if process.device.type == "cuda":
        properties = torch.cuda.get_device_properties(process.device)
        header["device"] = f"{process.world_size} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        header["precision"] = "bf16 compute, fp32 master weights and gradient sums (FSDP2 mixed precision)"
    else:
        header["device"] = f"{process.world_size} x CPU, {torch.get_num_threads()} threads each"
        header["precision"] = "fp32 throughout (CPU)"
    header["sharding"] = (
        "none (one process)" if process.mesh is None else f"FSDP2 over {tuple(process.mesh.shape)} ranks"
    )
    header |= facts
    for name, value in header.items():
        print0(f"{name + ':':<16}{value}")
    slow_paths = list(slow_paths)
    if process.device.type == "cpu" and getattr(config, "preset", "tiny") != "tiny":
        slow_paths.append(
            f"no GPU: preset {config.preset} will train on the CPU, which is far too slow for more than a test"
        )
    if slow_paths:
        width = max(len(text) for text in slow_paths) + 4
        print0("!" * width)
        for text in slow_paths:
            print0(f"! {text:<{width - 4}} !")
        print0("!" * width)
    return header


# ---------------------------------------------------------------------------------------------------------------------
# Sharding


def transformer_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The repeated layers of every transformer in `model` (LLM decoder, SigLIP, SAM): members of lists called
    `layers`.
    """
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] == "layers" and isinstance(module, nn.ModuleList):
            for number, layer in enumerate(module):
                yield f"{name}.{number}", layer


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only each layer's input in the forward pass and compute the rest again in the backward pass.

    Around the layer's own forward: inside FSDP2's hooks, outside what is compiled, so call it after compile_layers.
    transformers' switch acts through the layer's class, which FSDP2 replaces; on a compiled forward it then does
    nothing, without a word (seen in 5.24).
    """
    for _, layer in transformer_layers(model):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(model: nn.Module) -> None:
    """torch.compile each layer's forward in place: one small graph per kind of layer; parameter names stay.

    FSDP2's and activation checkpointing's hooks stay outside the graph. Packs differ in length, so the graphs are
    dynamic in it; the first steps pay for compilation.
    """
    import guard  # noqa: F401  (before transformers)
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    # transformers records a tower's hidden states by hooks on its layers, and with them hooks the attention inside,
    # which nothing here reads. That hook cannot be traced: it would break each layer's graph in three.
    for tower in getattr(model, "vision_modules", []):
        maybe_install_capturing_hooks(tower)
    # transformers 5.24 runs all layers through one function, of which stage 2 needs ten variants (kind, trained or not,
    # with gradients or without, one picture or more); beyond torch's limit of 8 the rest would not be compiled.
    torch._dynamo.config.recompile_limit = 64
    for _, layer in transformer_layers(model):
        for module in layer.modules():
            if module is not layer:
                module._forward_hooks.clear()
        layer.forward = torch.compile(layer.forward, dynamic=True)


def _units(module: nn.Module, layers: set[int], name: str = "") -> Iterator[nn.Module]:
    """The modules below the root that become FSDP groups: each layer, and each largest module without any on the
    vision side.

    The language model's embedding table, final norm and lm_head are left to the root's group: gathered there while
    the loss is computed, and one tensor where they are tied. A transformers model is never a group itself, because
    FSDP2 renames a module's class, and transformers finds the hidden states to return (feature layer -2) by class.
    """
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}"
        if id(child) in layers:
            yield child
        elif hasattr(child, "save_pretrained") or any(id(inner) in layers for inner in child.modules()):
            yield from _units(child, layers, path)
        elif "language_model" not in path and child_name != "lm_head" and next(child.parameters(), None) is not None:
            yield child


# Each gather costs the host time however small the group is, and an H100 waits for it (runs/LOG.md). A group is held
# three times at most, in bf16: 0.8 GB.
GROUP_PARAMETERS = 2**27


def fsdp_groups(model: nn.Module) -> Iterator[list[nn.Module]]:
    """The FSDP groups below the root: the units of `_units`, consecutive layers joined up to GROUP_PARAMETERS.

    Only layers of one class join, and only trained with trained or frozen with frozen: so a group's last layer is the
    feature layer or the decoder's last, where FSDP2 must gather the group again for the backward pass.
    """
    layers = {id(layer) for _, layer in transformer_layers(model)}

    def size(unit: nn.Module) -> int:
        return sum(parameter.numel() for parameter in unit.parameters())

    def kind(unit: nn.Module) -> tuple[type, set[bool]]:
        return type(unit), {parameter.requires_grad for parameter in unit.parameters()}

    group: list[nn.Module] = []
    for unit in _units(model, layers):
        joins = group and id(unit) in layers and kind(unit) == kind(group[-1])
        if joins and sum(map(size, group)) + size(unit) <= GROUP_PARAMETERS:
            group.append(unit)
            continue
        if group:
            yield group
        group = [unit]
    if group:
        yield group


def computes_in_bf16(process: Process) -> bool:
    """bf16 on CUDA, fp32 on a CPU."""
    return process.device.type == "cuda"


def shard(model: nn.Module, process: Process, *, idle: Callable[[str], bool] | None = None) -> None:
    """Put `model` on the device and shard it in place with FSDP2; in a single CPU process only move it.

    One group per run of transformer layers (`fsdp_groups`), one per module on the vision side that lies outside the
    layers, one for the projector, the rest (embeddings, final norm, lm_head) in the root's. Gradients are SUMMED
    over ranks, not averaged: the loss is already divided by the global number of tokens. Call it after
    requires_grad is set and before the optimizer is made. On CUDA: what trains is stored in fp32, what is frozen in
    bf16; all is computed with in bf16, and summed in fp32.
    idle: parameters, by name, that this stage never computes with (stage 1: the towers): they stay on the CPU.
    """
    bf16 = computes_in_bf16(process)
    resting = {parameter for name, parameter in model.named_parameters() if idle is not None and idle(name)}
    for module in model.modules():
        if not any(parameter in resting for parameter in module.parameters()):
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(process.device)

    def settle(parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            dtype = parameter.dtype
            if bf16:
                dtype = torch.float32 if parameter.requires_grad else torch.bfloat16
            place = "cpu" if parameter in resting else process.device
            if not isinstance(parameter, DTensor):
                parameter.data = parameter.data.to(place, dtype)

    policy = MixedPrecisionPolicy()
    if bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    # the projector returns a view, of which FSDP2 warns: nobody writes into it in place (gradients are tested)
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    ignored = resting
    if process.world_size == 1:  # what is frozen is stored as it is computed with: gathering it would only copy it
        ignored = resting | {parameter for parameter in model.parameters() if not parameter.requires_grad}
    groups = [(group, True) for group in fsdp_groups(model)] + [([model], False)]
    for modules, reshard in groups:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        settle(parameters)  # group by group: the whole model in fp32 would not fit 8 times on most hosts
        own = [parameter for parameter in parameters if parameter not in ignored]
        if process.mesh is not None and (own or modules == [model]):  # the root, even of nothing: it leads the others
            fully_shard(
                modules, mesh=process.mesh, mp_policy=policy, reshard_after_forward=reshard, ignored_params=ignored
            )
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
# Optimizer, schedule, sums over ranks


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of what trains: matrices (and kernels, embeddings) with weight decay; norms, biases and scalars
    without.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError("nothing trains: every part is frozen; name one with --train vision,projector,llm")
    return [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_fraction: float = 0.02
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over the first steps, then half a cosine that reaches zero just after the last step.

    Unlike transformers' schedule of that name the first step already has a learning rate above zero: no batch is
    wasted.
    """
    warmup_steps = math.ceil(total_steps * warmup_fraction)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def sum_over_ranks(value: Any, process: Process) -> Any:
    """The sum of a number or a tensor over all ranks, as the same kind of thing (whole numbers stay exact)."""
    if isinstance(value, Tensor):
        total = value.detach().clone()
        if process.mesh is not None:
            dist.all_reduce(total)
        return total
    if process.mesh is None:
        return value
    total = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    dist.all_reduce(total, group=process.control)
    return total.item()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale all gradients so that their norm over every shard is at most max_norm; return the norm before (0-d fp32).

    max_norm None or 0 only measures. A norm that is not finite leaves the gradients alone: see NonFiniteGuard.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if not parameters:
        return torch.zeros(())
    # Summed in float64: float32 sums of millions of squares differ by 1e-5 with the number of ranks, and clipping would
    # hand that on to every gradient.
    norms = [torch.linalg.vector_norm(parameter.grad, dtype=torch.float64) for parameter in parameters]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    norm = norm.float()
    if max_norm and torch.isfinite(norm):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


# ---------------------------------------------------------------------------------------------------------------------
# Faults


class StopRequest:
    """SIGTERM, SIGUSR1 or a file called STOP in out_dir: finish the step, save, leave a marker, end.

    torchrun forwards SIGTERM and kills 30 seconds later, and dies of SIGUSR1 itself; so under Slurm the batch script
    asks for its signal minutes ahead and touches the STOP file (runs/slurm_stage2.sh).
    """

    def __init__(self, out_dir: str | Path, process: Process) -> None:
        self.out_dir, self.process, self.reason = Path(out_dir), process, ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        marker = self.out_dir / "STOPPED"
        if process.is_first and marker.exists():
            print0(f"the last run here ended by request ({marker.read_text().strip()}); going on from its checkpoint")
            marker.unlink()
        # A STOP older than this job asked an earlier run; one that came while this job was starting, or before torchrun
        # started it over, still stands.
        stop, restarts = self.out_dir / "STOP", int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if process.is_first and not restarts and stop.exists() and stop.stat().st_mtime < STARTED:
            stop.unlink()

    def _on_signal(self, number: int, _frame: object) -> None:
        self.reason = signal.Signals(number).name

    def should_stop(self) -> bool:
        """True on every rank as soon as any rank was asked to stop. Call it once at every step's end."""
        if not self.reason and self.process.is_first and (self.out_dir / "STOP").exists():
            self.reason = "the file STOP"
        if self.process.mesh is None:
            return bool(self.reason)
        flag = torch.tensor([bool(self.reason)], dtype=torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.process.control)
        return bool(flag.item())

    def leave_marker(self, step: int) -> None:
        """Write the file STOPPED, which a restart reads and removes. Call it when the checkpoint is complete."""
        if self.process.is_first:
            (self.out_dir / "STOP").unlink(missing_ok=True)
            (self.out_dir / "STOPPED").write_text(f"step {step}, {self.reason or 'another rank'}\n")
        print0(f"stopped by request after step {step}; the same command with --resume auto goes on")


class NonFiniteGuard:
    """Skips a step whose loss or gradient is not finite; ends the run after a few in a row, the rows written to a
    file.
    """

    def __init__(self, out_dir: str | Path, process: Process, max_in_a_row: int = 3) -> None:
        self.path, self.process, self.max_in_a_row = Path(out_dir) / "nonfinite_rows.jsonl", process, max_in_a_row
        self.in_a_row = self.skipped = 0

    def skip(
        self, step: int, loss: Tensor | float, grad_norm: Tensor | float, packs: list[tuple[list[str], Any]]
    ) -> bool:
        """True when this step must not reach the optimizer (the caller zeroes the gradients; the schedule goes on).

        loss, grad_norm: of the whole step, equal on all ranks. packs: this rank's (row ids, loss of that pack); the
        file names the packs whose own loss is not finite, or all of the step when only the gradient is not.
        """
        if math.isfinite(float(loss)) and math.isfinite(float(grad_norm)):
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self.skipped += 1
        suspects = [rows for rows, pack_loss in packs if not math.isfinite(float(pack_loss))]
        gathered = [suspects]
        everything = [[rows for rows, _ in packs]]
        if self.process.mesh is not None:
            gathered = [None] * self.process.world_size
            everything = [None] * self.process.world_size
            dist.all_gather_object(gathered, suspects, group=self.process.control)
            dist.all_gather_object(everything, [rows for rows, _ in packs], group=self.process.control)
        rows = [row for packs in gathered for rows in packs for row in rows]
        rows = rows or [row for packs in everything for rows in packs for row in rows]
        if self.process.is_first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            record = {"step": step, "loss": repr(float(loss)), "grad_norm": repr(float(grad_norm)), "rows": rows}
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")
        print0(
            f"step {step}: loss {float(loss)}, gradient norm {float(grad_norm)}: skipped ({self.skipped} so far), "
            f"rows in {self.path}"
        )
        if self.in_a_row >= self.max_in_a_row:
            raise UserError(
                f"{self.path}: {self.in_a_row} steps in a row without a finite loss and gradient, the last {step}; "
                "look at the rows named there, lower --learning_rate, or resume from an older checkpoint"
            )
        return True
