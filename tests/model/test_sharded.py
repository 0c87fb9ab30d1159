"""The operators under FSDP2, and on the local tensors of DTensors: two processes come to what one does."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.experimental import local_map
from torch.multiprocessing import spawn

from model import HybridConfig, HybridLM
from model.ops.ssd import ssd
from tests.model.compare import assert_agree

PROCESSES = 2


def in_processes(function: Callable[[DeviceMesh], None], folder: Path) -> None:
    """Run `function(mesh)` in each of several processes; what it raises there is raised here."""
    spawn(_start, (function, f"file://{folder / 'meeting'}"), nprocs=PROCESSES)


def _start(rank: int, function: Callable[[DeviceMesh], None], meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    function(init_device_mesh("cpu", (PROCESSES,)))
    dist.destroy_process_group()


def train_sharded(mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    config = HybridConfig.preset("tiny")
    whole = HybridLM(config).double()
    sharded = copy.deepcopy(whole)
    for layer in sharded.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    ids = torch.randint(0, config.vocab_size, (PROCESSES, 20))
    whole(ids, labels=ids).loss.backward()
    own = ids[dist.get_rank()][None]
    sharded(own, labels=own).loss.backward()  # FSDP takes the mean over the processes
    gradients = [parameter.grad.full_tensor() for parameter in sharded.parameters()]
    assert_agree(gradients, [parameter.grad for parameter in whole.parameters()], 1e-10)


def test_a_model_trains_under_fsdp2(tmp_path: Path) -> None:
    in_processes(train_sharded, tmp_path)


def scan_heads_apart(mesh: DeviceMesh) -> None:
    """As tensor parallelism does: heads are divided, B and C are everyone's, and so are sums of their gradients."""
    torch.manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    whole = [normal(2, 9, 4, 8), normal(2, 9, 4), -normal(4).abs(), normal(2, 9, 1, 16), normal(2, 9, 1, 16)]
    places = [[Shard(2)], [Shard(2)], [Shard(0)], [Replicate()], [Replicate()]]
    split = [distribute_tensor(t, mesh, place).requires_grad_() for t, place in zip(whole, places, strict=True)]
    scan = partial(ssd, dt_softplus=True)
    local = local_map(
        scan,
        out_placements=[Shard(2)],
        in_placements=tuple(places),
        in_grad_placements=(*places[:3], [Partial()], [Partial()]),
        device_mesh=mesh,
    )
    inputs = [tensor.requires_grad_() for tensor in whole]
    y, expected = local(*split), scan(*inputs)
    assert isinstance(y, DTensor)
    y.full_tensor().square().sum().backward()
    expected.square().sum().backward()
    ours = [y.full_tensor(), *(tensor.grad.full_tensor() for tensor in split)]
    assert_agree(ours, [expected, *(tensor.grad for tensor in inputs)], 1e-12)


def test_the_scan_divides_by_heads_on_dtensors(tmp_path: Path) -> None:
    in_processes(scan_heads_apart, tmp_path)
