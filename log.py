"""The log of a training run: one line a step on the screen, one JSON row a step in out_dir/log.jsonl."""

import json
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError
from runtime import Process, print0


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}h{rest // 60:02d}m" if hours else f"{rest // 60}m{rest % 60:02d}s"


class Log:
    """One line a step on the screen and one JSON row in out_dir/log.jsonl, on the first rank. wandb only when asked.

    A resumed run first drops the rows after its first step, so the file reads like that of a run never stopped.
    progress: "lines" prints every step, "bar" shows one tqdm line with the time left, "none" is silent.
    """

    def __init__(
        self, out_dir: str | Path, process: Process, *, total_steps: int, start_step: int = 0, progress: str = "lines",
        peak_flops: float | None = None, wandb_project: str = "", config: Any = None, title: str = "",
    ) -> None:  # fmt: skip
        if progress not in ("lines", "bar", "none"):
            raise UserError(f"--progress {progress}: choose lines, bar or none")
        self.path, self.process, self.total_steps = Path(out_dir) / "log.jsonl", process, total_steps
        self.peak_flops = peak_flops if peak_flops is not None else gpu_peak_flops(process)
        self.progress = progress if process.is_first else "none"
        self.first_step, self.began = start_step, time.perf_counter()
        self.times: dict[str, float] = {}
        self.last_mark = self.began
        self.file = self.bar = self.wandb = None
        if not process.is_first:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keep_log_rows(self.path, start_step)
        self.file = open(self.path, "a", buffering=1)
        if self.progress == "bar":
            from tqdm import tqdm

            self.bar = tqdm(total=total_steps, initial=start_step, desc=title or None, unit="step", dynamic_ncols=True,
                            mininterval=0.5 if sys.stderr.isatty() else 20)  # fmt: skip
        if wandb_project:
            try:
                import wandb
            except ImportError:
                raise UserError("--wandb_project needs wandb: pip install wandb, or leave the flag out") from None
            self.wandb = wandb
            wandb.init(project=wandb_project, dir=str(out_dir), config=asdict(config) if config is not None else None)

    def mark(self, name: str) -> None:
        """Book the time since the last mark (or step) under `name`: "data", "forward_backward", "optimizer"; "save" in
        the row of the step that follows.

        Waits for the GPU, so that the time is booked where it was spent; three waits a step cost nothing at these
        sizes.
        """
        if self.process.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.times[name] = self.times.get(name, 0.0) + now - self.last_mark
        self.last_mark = now

    def step(self, step: int, *, num_tokens: int, flops: float = 0.0, **values: Any) -> dict[str, Any]:
        """Write the step's row. step: steps done so far, this one included.

        num_tokens: of all ranks, prompts and image tokens included. values: numbers or 0-d tensors.
        flops: model FLOPs of the step over all ranks (memory.step_flops).
        MFU = flops / (seconds * ranks * peak bf16 FLOPs of one GPU).
        """
        self.mark("other")
        seconds = sum(self.times.values())
        row: dict[str, Any] = {"step": step}
        row |= {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}
        row |= {"tokens": num_tokens, "tokens_per_second": round(num_tokens / seconds, 1)}
        row |= {f"{name}_seconds": round(value, 4) for name, value in self.times.items()}
        row["step_seconds"] = round(seconds, 4)
        row["data_wait"] = round(self.times.get("data", 0.0) / seconds, 4)
        row["memory_gib"] = round(memory_in_use(self.process.device) / 2**30, 3)
        if self.peak_flops and flops:
            row["mfu"] = round(flops / (seconds * self.process.world_size * self.peak_flops), 4)
        elapsed = time.perf_counter() - self.began
        row["seconds_left"] = round(elapsed / max(1, step - self.first_step) * (self.total_steps - step), 1)
        self.times = {}
        if self.file is not None:
            self.file.write(json.dumps(row) + "\n")
        if self.wandb is not None:
            self.wandb.log(row, step=step)
        self._show(row)
        return row

    def _show(self, row: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.update(row["step"] - self.bar.n)
            self.bar.set_postfix_str(f"loss {row.get('loss', math.nan):.3f}", refresh=False)
        if self.progress != "lines":
            return
        parts = [f"step {row['step']}/{self.total_steps}"]
        for name, style in (
            ("loss", ".4f"),
            ("fkl", ".4f"),
            ("rkl", ".4f"),
            ("ce", ".4f"),
            ("lr", ".2e"),
            ("grad_norm", ".3f"),
        ):
            if row.get(name) is not None:
                parts.append(f"{name} {row[name]:{style}}")
        parts += [
            f"{row['tokens_per_second']:,.0f} tok/s",
            f"{row['step_seconds']:.2f} s (data {row['data_wait']:.1%})",
        ]
        if "mfu" in row:
            parts.append(f"MFU {row['mfu']:.1%}")
        parts += [f"{row['memory_gib']:.1f} GiB", f"{_clock(row['seconds_left'])} left"]
        print0("  ".join(parts))

    def close(self) -> None:
        """Close the bar, the file and the wandb run."""
        for resource in (self.bar, self.file):
            if resource is not None:
                resource.close()
        if self.wandb is not None:
            self.wandb.finish()


def keep_log_rows(path: Path, last_step: int) -> int:
    """Drop the rows after `last_step` (and a half-written last line) from a log; return how many rows stay."""
    if not path.exists():
        return 0
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that a kill cut short; its step is trained and logged again
        if row["step"] <= last_step:
            kept.append(line)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    os.replace(temporary, path)
    return len(kept)


def memory_in_use(device: torch.device) -> int:
    """Bytes: the peak that torch reserved on a GPU since the start, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def gpu_peak_flops(process: Process) -> float | None:
    """Dense bf16 FLOPs per second of this GPU by its data sheet; None where MFU means nothing (CPU, unknown GPU)."""
    if process.device.type != "cuda":
        return None
    from memory import GPUS

    name = torch.cuda.get_device_name(process.device).lower()
    for gpu in GPUS.values():
        if gpu.device_name in name:
            return gpu.peak_flops
    print0(f"note: {name} is not in memory.GPUS; the log shows no MFU")
    return None
