"""Muon for sharded matrices: it orthogonalises whole ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tilth.train.batched_muon import BatchedMuon
from tilth.train.distributed import World


class WholeMatrixMuon(BatchedMuon):
    """Muon on FSDP's shards. The matrices are dealt out to the processes: each puts its own together, updates
    them, and hands the shards back, so that the work and the momentum are shared out too.

    Its parameters are stand-ins, which hold a matrix during `step` only; `sharded` are the model's own.
    """

    def __init__(
        self, sharded: list[nn.Parameter], maps: Sequence[int], world: World, lr: float, weight_decay: float
    ) -> None:
        self.sharded, self.world = sharded, world
        self.whole = [nn.Parameter(torch.empty(0, 0, device=matrix.device)) for matrix in sharded]
        super().__init__(self.whole, maps, lr, weight_decay)
        for index in self._own():
            shape, device = sharded[index].shape, sharded[index].device
            self.state[self.whole[index]]["momentum_buffer"] = torch.zeros(shape, device=device)

    @torch.no_grad()
    def step(self) -> None:
        """Update the sharded matrices from their gradients. Every process must call it."""
        own = set(self._own())
        for index, (sharded, whole) in enumerate(zip(self.sharded, self.whole, strict=True)):
            assert isinstance(sharded, DTensor) and isinstance(sharded.grad, DTensor)
            weight, gradient = sharded.full_tensor(), sharded.grad.full_tensor()
            if index in own:
                whole.data, whole.grad = weight, gradient
        super().step()
        for index, (sharded, whole) in enumerate(zip(self.sharded, self.whole, strict=True)):
            assert isinstance(sharded, DTensor)
            updated = whole.data if index in own else torch.empty(sharded.shape, device=sharded.device)
            owner = index % self.world.size
            sharded.copy_(distribute_tensor(updated, sharded.device_mesh, sharded.placements, src_data_rank=owner))
            whole.grad = None
            whole.data = torch.empty(0, 0, device=sharded.device)

    def zero_grad(self) -> None:
        """Drop the sharded gradients."""
        for matrix in self.sharded:
            matrix.grad = None

    def momentum(self, index: int) -> Tensor:
        """A matrix's momentum, on every process; all must call it."""
        shape, device = self.sharded[index].shape, self.sharded[index].device
        if index in self._own():
            momentum = self.state[self.whole[index]]["momentum_buffer"].contiguous()
        else:
            momentum = torch.empty(shape, device=device)
        torch.distributed.broadcast(momentum, index % self.world.size)
        return momentum

    def set_momentum(self, index: int, momentum: Tensor) -> None:
        """Take over a matrix's momentum on the process that keeps it."""
        if index in self._own():
            self.state[self.whole[index]]["momentum_buffer"] = momentum

    def _own(self) -> range:
        return range(self.world.rank, len(self.sharded), self.world.size)
