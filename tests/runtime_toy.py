"""What the tests of runtime.py and checkpoint.py train: a module of a few parameters, with dropout, and its
loop.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

import checkpoint
import runtime

DATA = {"rows": "fingerprint of the rows"}


@dataclass
class ToyConfig:
    preset: str = "toy"
    seed: int = 3
    learning_rate: float = 1e-2
    save_every: int = 1


class Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed_tokens(tokens)
        for layer in self.layers:
            hidden = hidden + nn.functional.dropout(torch.tanh(layer(hidden)), 0.2, self.training)
        return hidden


class Toy(nn.Module):
    """A tied embedding and lm_head, two layers with norms, a frozen part and dropout."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.language_model = Decoder(width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.lm_head = nn.Linear(width, 11, bias=False)
        self.lm_head.weight = self.language_model.embed_tokens.weight

    def forward(self, tokens: torch.Tensor, total: float) -> torch.Tensor:
        logits = self.lm_head(self.frozen(self.language_model(tokens)))
        return nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum") / total


def build(process: runtime.Process, total_steps: int, config: ToyConfig, width: int = 16) -> tuple:
    """(model, optimizer, scheduler, process), as checkpoint.py takes them."""
    torch.manual_seed(config.seed)
    model = Toy(width)
    runtime.shard(model, process)
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, 0.1), lr=config.learning_rate)
    return model, optimizer, runtime.cosine_schedule(optimizer, total_steps, 0.1), process


def train(out_dir: Path, steps: int, *, total_steps: int = 8, config: ToyConfig | None = None, resume: str = "auto",
          keep: int = 3) -> list[float]:
    """Train in this process up to step `steps`, saving every config.save_every; the losses of the steps done now."""
    config = config or ToyConfig()
    process = runtime.setup(config.seed)
    state = build(process, total_steps, config)
    model, optimizer, scheduler, _ = state
    identity = {"config": config, "data_fingerprint": DATA}
    done = checkpoint.resume(resume, out_dir, *state, **identity)
    quiet = SimpleNamespace(out_dir=out_dir, progress="none", wandb_project="")
    log = runtime.Log(quiet, process, total_steps=total_steps, start_step=done)
    losses = []
    for step in range(done + 1, steps + 1):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randint(0, 11, (20,), generator=generator), 19.0)
        loss.backward()
        runtime.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        log.step(step, num_tokens=20, loss=loss)
        if step % config.save_every == 0:
            checkpoint.save_checkpoint(out_dir, step, *state, **identity, keep=keep)
    log.close()
    runtime.shutdown(process)
    return losses
