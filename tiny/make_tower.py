"""Train the vision tower of the `tiny` preset from scratch, on pictures drawn on the fly.

A small ViT does not learn to read labels through a language model's loss in the few minutes that the demo has, so tiny
starts from a pretrained tower, as the real presets do. The task that teaches it to read: each 8-pixel patch names the
character whose centre lies on it, and its neighbours in the same label (so that features know the reading order);
besides, each patch tells the directions of the lines that cross it.

    python -m tiny.make_tower              an hour on one core; resumes; out/tiny_tower/tower.safetensors
    python -m tiny.make_start --tower out/tiny_tower/tower.safetensors                 then the rest of tiny around it
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import guard  # noqa: F401  (before transformers)
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from errors import run_main
from tiny.pictures import GRID, NUM_CLASSES, NUM_DIRECTIONS, OFFSETS, PATCH, SIZE, picture

VISION = dict(image_size=SIZE, patch_size=PATCH, num_channels=3, hidden_size=160, intermediate_size=640,
              num_hidden_layers=6, num_attention_heads=4, vision_use_head=False)
FEATURE_LAYER = -2  # the last layer and the final norm are never used, never trained, not shipped
OFFSET_WEIGHTS = (1.0, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.4, 0.2, 0.2)


# ----------------------------------------------------------------------------------------------------------------------
# batches


class Pictures(torch.utils.data.IterableDataset):
    """Batches without end: pixels uint8 [B, 3, 96, 96], characters int64 [B, 144, offsets], lines uint8 [B, 144, 8]."""

    def __init__(self, seed: str, batch: int, start: int) -> None:
        self.seed, self.batch, self.start = seed, batch, start

    def __iter__(self):
        step = self.start
        while True:
            yield draw_batch(self.seed, range(step * self.batch, (step + 1) * self.batch))
            step += 1


def draw_batch(seed: str, indices: range) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures number `indices` of the seed's endless row, with noise of the kind that saving and scaling leave."""
    pixels, characters, lines = [], [], []
    for index in indices:
        canvas = picture(f"{seed}/{index}")
        values = np.asarray(canvas.finish(), dtype=np.float32)
        noise = np.random.default_rng(index)
        if canvas.rng.random() < 0.3:
            values = values + noise.normal(0, canvas.rng.uniform(0, 8), values.shape)
        pixels.append(np.clip(values, 0, 255).astype(np.uint8).transpose(2, 0, 1))
        characters.append(canvas.characters.reshape(GRID * GRID, -1))
        lines.append(canvas.lines.reshape(GRID * GRID, -1))
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(characters)), torch.from_numpy(np.stack(lines))


# ----------------------------------------------------------------------------------------------------------------------
# the tower, its heads, the loss


class Reader(nn.Module):
    """The tower and two linear heads that are thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(SiglipVisionConfig(**VISION))
        self.norm = nn.LayerNorm(VISION["hidden_size"])
        self.here = nn.Linear(VISION["hidden_size"], NUM_CLASSES)
        self.around = nn.Linear(VISION["hidden_size"], (len(OFFSETS) - 1) * NUM_CLASSES)
        self.lines = nn.Linear(VISION["hidden_size"], NUM_DIRECTIONS)

    def forward(self, pixels: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pixels uint8 [B, 3, 96, 96], text bool [B, 144] with T true patches, which are asked about their neighbours.

        Returns logits: [B, 144, classes], [T, offsets - 1, classes], [B, 144, directions].
        """
        hidden = self.tower(pixels.float() / 127.5 - 1, output_hidden_states=True).hidden_states[FEATURE_LAYER]
        hidden = self.norm(hidden)
        return self.here(hidden), self.around(hidden[text]).unflatten(-1, (-1, NUM_CLASSES)), self.lines(hidden)


def reading_loss(reader: Reader, pixels: Tensor, characters: Tensor, lines: Tensor) -> Tensor:
    """Mean cross entropy: a character counts 1, an empty patch 0.1; only patches with text are asked for neighbours."""
    text = characters[..., 0] > 0
    here, around, directions = reader(pixels, text)
    weight = torch.where(text, 1.0, 0.1).flatten()
    loss = F.cross_entropy(here.flatten(0, 1).float(), characters[..., 0].flatten(), reduction="none")
    loss = (loss * weight).sum() / weight.sum()
    neighbours = F.cross_entropy(around.flatten(0, 1).float(), characters[text][:, 1:].flatten(), reduction="none")
    neighbours = (neighbours.view(-1, len(OFFSETS) - 1) * torch.tensor(OFFSET_WEIGHTS[1:])).sum() / max(1, len(around))
    return loss + neighbours + 0.5 * F.binary_cross_entropy_with_logits(directions.float(), lines.float())


@torch.no_grad()
def evaluate(reader: Reader, batches: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy by what a patch is asked, on held-out pictures."""
    counts: dict[str, list[float]] = {}
    for pixels, characters, lines in batches:
        here = characters[..., 0]
        text = here > 0
        logits, around_logits, line_logits = reader(pixels, text)
        right = torch.zeros_like(characters, dtype=torch.bool)
        right[..., 0] = logits.argmax(-1) == here
        right[..., 1:][text] = around_logits.argmax(-1) == characters[text][:, 1:]
        answers = {
            "characters": right[..., 0][text], "digits": right[..., 0][(here >= 1) & (here <= 10)],
            "capitals": right[..., 0][(here >= 11) & (here <= 36)], "empty": right[..., 0][~text],
            "next": right[..., 1][text & (characters[..., 1] > 0)],
            "next but one": right[..., 2][text & (characters[..., 2] > 0)],
            "previous": right[..., OFFSETS.index(-1)][text & (characters[..., OFFSETS.index(-1)] > 0)],
            "four in a row": right[..., :4].all(-1)[text], "lines": ((line_logits > 0) == (lines > 0)).all(-1)
        }
        for name, values in answers.items():
            total = counts.setdefault(name, [0.0, 0.0])
            total[0] += float(values.sum())
            total[1] += values.numel()
    return {name: round(100 * a / max(1, b), 2) for name, (a, b) in counts.items()}


def schedule(step: int, config: argparse.Namespace) -> float:
    """Warm-up, constant, then down to zero over the last part: any moment of the constant part can be tried out."""
    warmup, decay = 100, max(1, round(config.steps * config.decay))
    return min(1.0, (step + 1) / warmup, (config.steps - step) / decay)


def export(reader: Reader, path: Path) -> None:
    """Write what the presets use of the tower, as fp16, whole or not at all."""
    last = f"encoder.layers.{VISION['num_hidden_layers'] - 1}."
    weights = {}
    for name, value in reader.tower.state_dict().items():
        name = name.removeprefix("vision_model.")
        if not name.startswith((last, "post_layernorm.", "head.")) and not name.endswith("position_ids"):
            weights[name] = value.to(torch.float16).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(weights, temporary, metadata={"format": "pt"})
    temporary.replace(path)


def make_optimizers(reader: Reader, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the tower, AdamW for the rest: reading takes off in a third of AdamW's steps."""
    inner = [p for name, p in reader.tower.named_parameters() if "layers." in name and p.ndim == 2]
    chosen = {id(p) for p in inner}
    rest = [p for p in reader.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inner, lr=10 * learning_rate, weight_decay=0.01, adjust_lr_fn=None),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(config: argparse.Namespace) -> None:
    """Train the tower with its reading heads; write the tower alone."""
    torch.manual_seed(config.seed)
    reader = Reader()
    optimizers = make_optimizers(reader, config.learning_rate)
    checkpoint, start, seconds = Path(config.out_dir) / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        reader.load_state_dict(state["reader"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, seconds = state["step"], state["seconds"]
        print(f"goes on at step {start} of {checkpoint}")
    held_out = [draw_batch("held out", range(k * 50, (k + 1) * 50)) for k in range(10)]
    loader = torch.utils.data.DataLoader(Pictures(f"seed {config.seed}", config.batch, start), batch_size=None,
                                         num_workers=1, prefetch_factor=4)
    began, losses = time.time() - seconds, []
    for step, (pixels, characters, lines) in zip(range(start, config.steps), loader, strict=False):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * schedule(step, config)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            loss = reading_loss(reader, pixels, characters, lines)
        reader.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        done = step + 1
        if done % 50 == 0:
            elapsed = time.time() - began
            left = elapsed / done * (config.steps - done)
            print(f"step {done}/{config.steps} loss {np.mean(losses[-50:]):.3f} {elapsed:.0f} s, {left:.0f} s left",
                  flush=True)
        if done % config.evaluate_every == 0 or done == config.steps:
            reader.eval()
            scores = evaluate(reader, held_out)
            reader.train()
            row = {"step": done, "seconds": round(time.time() - began), **scores}
            print(json.dumps(row), flush=True)
            with open(Path(config.out_dir) / "log.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            state = {
                "reader": reader.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": done,
                "seconds": time.time() - began
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            export(reader, Path(config.out_dir) / "tower.safetensors")


def main() -> None:
    """Read the flags, train, and report what is read on held-out pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.4,
                        help="the part of the steps over which the learning rate falls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--evaluate_every", type=int, default=250)
    parser.add_argument("--out_dir", default="out/tiny_tower", help="checkpoint, log and tower.safetensors")
    config = parser.parse_args()
    Path(config.out_dir).mkdir(parents=True, exist_ok=True)
    train(config)


if __name__ == "__main__":
    run_main(main)
