"""Started by torchrun from test_runtime_ranks.py: a step of each stage on the tiny model, all gradients written out.

torchrun --nproc_per_node N tests/ranks_worker.py OUT [--shard_size K]
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import checkpoint
import runtime
from errors import run_main
import train_stage2
import train_stage3
from data import MicroBatch
from model import MathModel, load_model, part_of
from runtime_toy import DATA, ToyConfig, build
from test_model import small_hybrid

STAGES = {1: ("llm",), 2: ("vision", "projector"), 3: ("vision", "projector", "llm")}
NUM_PACKS = 4


SIZES = {"tiny": ({"pixel_values": 96}, 144), "hybrid": ({"pixel_values": 32, "high_res_pixel_values": 64}, 16)}


def make_pack(number: int, image_token: int, images: int, kind: str = "tiny") -> MicroBatch:
    """Two rows: one with `images` images, one of text; random, the same for every number."""
    generator = torch.Generator().manual_seed(number)
    sizes, image_tokens = SIZES[kind]
    rows = [[image_token] * image_tokens * images + torch.randint(10, 90, (12 + number,), generator=generator).tolist()]
    rows.append(torch.randint(10, 90, (9,), generator=generator).tolist())
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    ends = lengths.cumsum(0)
    positions = torch.cat([torch.arange(int(end) - 6, int(end) - 1) for end in ends[1:]])
    tokens = torch.tensor([token for row in rows for token in row])
    pixels = {
        name: torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8)
        for name, size in sizes.items()
    }
    return MicroBatch(
        input_ids=tokens[None], position_ids=torch.cat([torch.arange(int(length)) for length in lengths[1:]])[None],
        cu_seqlens=ends.to(torch.int32), max_seqlen=int(lengths.max()), pixel_values=pixels if images else {},
        run_vision=True, response_positions=positions,
        response_labels=torch.randint(10, 90, (len(positions),), generator=torch.Generator().manual_seed(7)),
        row_ids=[f"rows:{number}", f"rows:{number}b"]
    )


def pack_loss(model: MathModel, weak: MicroBatch, strong: MicroBatch | None = None, *, num_tokens: int) -> torch.Tensor:
    """The loss of a stage: PUMA of a pair of micro-batches, cross entropy of one."""
    if strong is None:
        return model(train_stage3.cross_entropy, weak, num_tokens=num_tokens, config=train_stage3.Config())
    return model(train_stage2.puma, weak, strong, num_tokens=num_tokens, config=train_stage2.Config()).loss


def stage_gradients(stage: int, process: runtime.Process, kind: str = "tiny") -> dict[str, torch.Tensor]:
    """Loss, gradient norm and whole gradients of one global batch of NUM_PACKS micro_batches, dealt over the ranks."""
    torch.manual_seed(0)
    model = load_model("tiny", random=True) if kind == "tiny" else small_hybrid()
    if kind == "hybrid":
        model.hf.model.high_res_vision_alpha.data.fill_(0.5)  # starts at 0, where SAM gets no gradient
    model.set_trainable(STAGES[stage])
    model.train()
    if stage == 3:
        runtime.checkpoint_activations(model)
    runtime.shard(model, process, unused=lambda name: stage == 1 and part_of(name) != "llm")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else process.dtype), name
    image_token = model.config.image_token_id
    micro_batches = []
    for number in range(process.rank, NUM_PACKS, process.world_size):
        weak = make_pack(number, image_token, 0 if stage == 1 or number == 1 else 1, kind)
        strong = make_pack(number + 100, image_token, number % 2, kind)
        if stage == 1:
            weak.run_vision = False
        micro_batches.append((weak, strong if stage == 2 else None))
    # A number keeps its digits under the bf16 policy; a tensor would arrive as 99,840.
    assert model(lambda model, count: count, 100_001) == 100_001
    if hasattr(model, "reshard"):
        model.reshard()  # a forward without a backward leaves the root gathered
    num_tokens = runtime.sum_over_ranks(sum(weak.num_response_tokens for weak, _ in micro_batches), process)
    loss = torch.zeros(())
    for number, (weak, strong) in enumerate(micro_batches):
        runtime.set_gradient_sync(model, stage != 3 or number + 1 == len(micro_batches))
        own = pack_loss(model, weak, strong, num_tokens=num_tokens)
        own.backward()
        loss += own.detach()
    norm = runtime.clip_grad_norm(model.parameters(), 0.5)
    gradients = {"loss": runtime.sum_over_ranks(loss, process), "norm": norm}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.grad is not None:
            gradient = parameter.grad
            gradients[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return gradients


def saved_bytes(process: runtime.Process, *, compiled: bool, checkpointed: bool) -> int:
    """What autograd keeps of one forward pass, layers compiled and checkpointed in the order of the scripts."""
    model = load_model("tiny", random=True).train()
    if compiled:
        runtime.compile_layers(model)
    if checkpointed:
        runtime.checkpoint_activations(model)
    runtime.shard(model, process)
    if process.world_size > 1:  # lm_head is gathered inside the root's forward alone
        try:
            train_stage3.cross_entropy(model, make_pack(3, 3, 0), num_tokens=1, config=train_stage3.Config())
            raise AssertionError("a loss called beside the model's forward was computed")
        except runtime.UserError as error:
            assert "the weights are sharded: call the loss as model(loss, ...)" in str(error)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.nbytes) or tensor, lambda one: one):
        batch = make_pack(3, model.config.image_token_id, 1)
        loss = pack_loss(model, batch, num_tokens=10)
    loss.backward()
    return sum(kept)


def agreements(process: runtime.Process, out: Path) -> None:
    """What ranks must decide together: a stop request of one, a bad step, a failure on the first."""
    stop = runtime.StopRequest(out, process)
    assert not stop.should_stop()
    if process.rank == process.world_size - 1:
        stop.reason = "SIGTERM"
    assert stop.should_stop()
    guard = runtime.NonFiniteGuard(out, process)
    assert guard.skip_nonfinite_step(1, float("nan"), 1.0, [([f"row of rank {process.rank}"], float("nan"))])
    assert runtime.sum_over_ranks(process.rank + 1, process) == process.world_size * (process.world_size + 1) // 2
    try:
        runtime.run_on_first_rank(process, lambda: (_ for _ in ()).throw(runtime.UserError("no disk")))
        raise AssertionError("the error of the first rank did not reach this one")
    except runtime.UserError as error:
        assert str(error) == "no disk"


def toy_steps(process: runtime.Process, out: Path) -> list[float]:
    """Go on with the toy run in out/run for three steps, its rows dealt over the ranks, and save."""
    config = ToyConfig()
    state = build(process, 8, config)
    model, optimizer, scheduler, _ = state
    model.eval()  # dropout would differ between numbers of ranks
    identity = {"config": config, "data_fingerprint": DATA}
    done = checkpoint.resume("auto", out / "run", *state, **identity)
    losses = []
    for step in range(done + 1, done + 4):
        loss = torch.zeros(())
        for row in range(process.rank, 4, process.world_size):
            tokens = torch.randint(0, 11, (20,), generator=torch.Generator().manual_seed(10 * step + row))
            part = model(tokens, 4 * 19.0)
            part.backward()
            loss += part.detach()
        runtime.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(runtime.sum_over_ranks(loss, process).item())
    checkpoint.save_checkpoint(out / "run", done + 3, *state, **identity, wait=True)
    return losses


def main() -> None:
    out = Path(sys.argv[1])
    shard_size = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    process = runtime.setup(0, shard_size=shard_size)
    runtime.GROUP_PARAMETERS = 700_000  # several groups, of one layer and of two, in models this small
    results = {f"tiny {stage}": stage_gradients(stage, process) for stage in STAGES}
    results |= {f"hybrid {stage}": stage_gradients(stage, process, "hybrid") for stage in (2, 3)}
    # what CUDA does, one GPU or several, here on a CPU: bf16 storage, gathering and products, fp32 sums
    alone = runtime.Process.dtype
    runtime.Process.dtype = torch.bfloat16
    results |= {f"bf16 tiny {stage}": stage_gradients(stage, process) for stage in STAGES}
    results |= {f"bf16 hybrid {stage}": stage_gradients(stage, process, "hybrid") for stage in (2, 3)}
    runtime.Process.dtype = alone
    torch.compile = functools.partial(torch.compile, backend="eager")  # what is kept counts, not how fast it is
    ways = [(one, two) for one in (False, True) for two in (False, True)]
    saved = [saved_bytes(process, compiled=compiled, checkpointed=checkpointed) for compiled, checkpointed in ways]
    losses = toy_steps(process, out)
    if process.world_size > 1:
        agreements(process, out)
    if process.is_first:
        torch.save({"stages": results, "losses": losses, "saved": saved}, out / f"ranks_{process.world_size}.pt")
    runtime.shutdown(process)


if __name__ == "__main__":
    run_main(main)
