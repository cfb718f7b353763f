"""Started by torchrun from test_runtime_checkpoint.py: save and export with and without a forward pass before.

torchrun --nproc_per_node 2 tests/reshard_worker.py OUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.distributed.tensor import DTensor

import checkpoint
import runtime
from model import MathModel, load_model
from ranks_worker import make_pack
from runtime_toy import DATA, ToyConfig


class HiddenStates(MathModel):
    """The tiny model with a loss of its own, inside the root's forward pass."""

    def forward(self, pack: object) -> torch.Tensor:
        return (self.response_hidden_states(pack) @ self.hf.lm_head.weight.T).float().square().mean()


def main() -> None:
    out = Path(sys.argv[1])
    process = runtime.setup(0)
    runtime.computes_in_bf16 = lambda process: True  # FSDP2's mixed precision, as on CUDA
    loaded = load_model("tiny", random=True)
    model = HiddenStates(loaded.hf, loaded.processor)
    model.set_trainable(("projector", "llm"))
    runtime.shard(model, process)
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, 0.1), lr=1e-3)
    state = (model, optimizer, runtime.cosine_schedule(optimizer, 8), process)
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
        identity = {"config": ToyConfig(), "data_fingerprint": DATA}
        checkpoint.save_checkpoint(out / name, 1, *state, **identity, wait=True)
        prepare()
        checkpoint.export_pretrained(model, out / name, process, dtype=torch.float32)
    runtime.shutdown(process)


if __name__ == "__main__":
    runtime.main(main)
