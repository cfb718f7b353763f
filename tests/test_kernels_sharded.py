"""The loss under FSDP2: tied embeddings, and a rank that has no tokens of a batch."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.fsdp import fully_shard

from kernels import linear_cross_entropy, linear_puma_loss


def _sharded_worker(rank, port, folder):
    """One of two ranks; the second has no tokens. The loss runs inside the root's forward, as in training."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo")
    model, tokens, labels = _sharded_case()
    fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
    model.set_gradient_divide_factor(1.0)
    model.set_force_sum_reduction_for_comms(True)  # gloo knows no pre-multiplied sum
    share = slice(None) if rank == 0 else slice(0, 0)
    model(tokens[share], labels[share], num_tokens=len(tokens)).backward()
    gradient = model.embedding.weight.grad.full_tensor()
    try:
        linear_cross_entropy(torch.randn(2, 8), model.embedding.weight, labels[:2])
        message = "nothing was raised"
    except ValueError as error:
        message = str(error)
    if rank == 0:
        torch.save((gradient, message), f"{folder}/result.pt")
    dist.destroy_process_group()


class TiedModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 8)

    def forward(self, tokens, labels, num_tokens, backend="torch"):
        hidden = torch.tanh(self.embedding(tokens))
        return linear_puma_loss(hidden, hidden.detach() * 0.5, self.embedding.weight, labels, num_tokens=num_tokens,
                                backend=backend).loss


def _sharded_case():
    torch.manual_seed(1)
    return TiedModel(), torch.randint(32, (10,)), torch.randint(32, (10,))


def test_tied_embeddings_under_fsdp2_with_a_rank_that_has_no_tokens(tmp_path):

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_sharded_worker, (port, tmp_path), nprocs=2)
    gradient, message = torch.load(tmp_path / "result.pt")
    model, tokens, labels = _sharded_case()
    model(tokens, labels, num_tokens=10, backend="reference").backward()
    torch.testing.assert_close(gradient, model.embedding.weight.grad)
    assert "model(loss_function, ...), inside the root module's forward" in message
