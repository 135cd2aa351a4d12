"""What torchrun starts in test_distributed.py: a few steps of a small hybrid model, by itself, with DDP and with FSDP2.

    train_sharded.py OUT: writes the weights after training in each way, as OUT/{single,ddp,fsdp}.safetensors.
"""

import pathlib
import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from python.small_models import make, random_ids

STEPS, ROWS = 4, 4


def train(model, rows: slice) -> None:
    """On these rows of each batch. The loss is a mean over tokens, of which all processes have the same number."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for step in range(STEPS):
        ids = random_ids(ROWS, 33, seed=step)[rows]
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    own = slice(dist.get_rank(), None, dist.get_world_size())
    results = {}

    for name in ("start", "single"):
        model = make("hybrid").train()
        if name == "single":
            train(model, slice(None))
        results[name] = model

    results["ddp"] = make("hybrid").train()
    train(DistributedDataParallel(results["ddp"]), own)

    model = results["fsdp"] = make("hybrid").train()
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    model.gradient_checkpointing_enable()
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    sharded = model.model.layers[0].attn.q_proj.weight
    assert sharded.to_local().numel() * dist.get_world_size() == sharded.numel()
    assert model.lm_head.weight is model.model.embeddings.weight
    train(model, own)

    for name, trained in results.items():
        tensors = {key: full(tensor) for key, tensor in trained.named_parameters()}
        if dist.get_rank() == 0:
            save_file(tensors, out / f"{name}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
