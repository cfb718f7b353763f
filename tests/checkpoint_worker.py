"""Started by torchrun from test_runtime_checkpoint.py: save and export with and without a forward pass before; failures
of one rank.

torchrun --nproc_per_node 2 tests/checkpoint_worker.py OUT
"""

import errno
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.distributed.tensor import DTensor

import checkpoint
import runtime
from errors import run_main
from model import MathModel, load_model
from ranks_worker import make_pack
from runtime_toy import DATA, ToyConfig


class HiddenStates(MathModel):
    """The tiny model with a loss of its own, inside the root's forward pass."""

    def forward(self, pack: object) -> torch.Tensor:
        return (self.response_hidden_states(pack) @ self.hf.lm_head.weight.T).float().square().mean()


class FullOnRank1(checkpoint.FileSystemWriter):
    def write_data(self, *arguments: object) -> object:
        if torch.distributed.get_rank() == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write_data(*arguments)


def failures_of_one_rank(out_dir: Path, process: runtime.Process, *state: object, **identity: object) -> None:
    """Every rank falls back from files that one rank found damaged, and reports a disk that is full for one rank."""
    newest = checkpoint.save_checkpoint(out_dir, 2, *state, process, **identity, wait=True)
    if process.is_first:
        (newest / "__0_0.distcp").write_bytes(b"damaged")
    files = sorted(checkpoint.read_manifest(newest)["files"])
    assert files.index("__0_0.distcp") % 2 == 1, "rank 1 must be the one that verifies it"
    assert checkpoint.resume("auto", out_dir, *state, process, **identity) == 1
    checkpoint.FileSystemWriter = FullOnRank1
    try:
        checkpoint.save_checkpoint(out_dir, 3, *state, process, **identity, wait=True)
        raise AssertionError("a failed write was not reported")
    except runtime.UserError as error:
        assert "step_00000003: checkpoint not written: the disk is full" in str(error), error
    torch.distributed.barrier(group=process.control)
    assert not list(out_dir.glob("step_*3*"))


def main() -> None:
    out = Path(sys.argv[1])
    process = runtime.setup(0)
    runtime.Process.dtype = torch.bfloat16  # FSDP2's mixed precision, as on CUDA
    loaded = load_model("tiny", random=True)
    model = HiddenStates(loaded.hf, loaded.processor)
    model.set_trainable(("projector", "llm"))
    runtime.shard(model, process)
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, 0.1), lr=1e-3)
    state = (model, optimizer, runtime.cosine_schedule(optimizer, 8))
    identity = {"config": ToyConfig(), "data_fingerprint": DATA}
    pack = make_pack(process.rank, model.config.image_token_id, 1)
    model(pack).backward()
    optimizer.step()
    optimizer.zero_grad()

    def forward_alone() -> None:
        with torch.no_grad():
            model(pack)
        assert not isinstance(model.hf.lm_head.weight, DTensor), "the root is not gathered: this tests nothing"

    for name, prepare in (("without", lambda: None), ("with", forward_alone)):
        prepare()
        checkpoint.save_checkpoint(out / name, 1, *state, process, **identity, wait=True)
        prepare()
        checkpoint.export_pretrained(model, out / name, process, dtype=torch.float32)
    failures_of_one_rank(out / "with", process, *state, **identity)
    runtime.shutdown(process)


if __name__ == "__main__":
    run_main(main)
