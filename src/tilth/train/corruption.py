"""Guards against silent corruption: processors and memory that give wrong numbers without an error."""

import contextlib
import hashlib

import torch
from torch import Tensor, nn

from tilth.objectives.objective import Batch
from tilth.train.monitor import Finding
from tilth.train.parallel import Replica

GUARD_TOKENS = 512
"""Size of the batch that is computed twice. At every 100th step of 4,096 tokens that is less than 0.1 % of the time."""
_CHUNK = 1 << 16


@torch.no_grad()
def recompute(replica: Replica, batches: list[Batch]) -> list[Finding]:
    """Compute the same small batch twice, dropout off, and compare the bits of the losses and of the vectors that they
    come from, as a sum over predictions can round a wrong one away; and, where several processes hold copies of the
    model, compare their parameters. Every process must call it, and gets as many findings.

    corruption: they differ. The same program on the same numbers and the same device gives the same bits, so either
    the processor or its memory erred (Dixit et al. 2021, "Silent Data Corruptions at Scale").
    """
    model, world = replica.model, replica.world
    was_training = model.training
    model.eval()
    pairs = zip(_computed(replica, batches), _computed(replica, batches), strict=True)
    model.train(was_training)
    differs = not all(torch.equal(one.view(torch.uint8), other.view(torch.uint8)) for one, other in pairs)
    erring = world.sum([float(differs and rank == world.rank) for rank in range(world.size)])
    findings = [
        Finding(
            "corruption",
            f"process {rank} computed the same batch twice, and the numbers differ: its machine computes wrongly. Go "
            "on from the last checkpoint on another one",
        )
        for rank, number in enumerate(erring)
        if number
    ]
    if not replica.sharded and world.size > 1:
        checksum = parameters_checksum(model)
        # A checksum has 63 bits, of which float64 sums only 53.
        halves = world.sum([float(half) for half in divmod(checksum, 1 << 32)])
        if halves != [world.size * half for half in divmod(world.share(checksum), 1 << 32)]:
            findings.append(
                Finding("corruption", "the processes' copies of the parameters differ. Go on from the last checkpoint")
            )
    return findings


def _computed(replica: Replica, batches: list[Batch]) -> list[Tensor]:
    """What each trunk gave for the batches, and their losses."""
    found: list[Tensor] = []

    def keep(trunk: nn.Module, inputs: tuple, output: Tensor) -> None:
        found.append(output)

    with contextlib.ExitStack() as hooks:
        for trunk in replica.model.trunks():
            hooks.callback(trunk.register_forward_hook(keep).remove)
        losses = [total for batch in batches for total in replica.loss_sums(batch).values()]
    return [*found, torch.stack(losses)]


@torch.no_grad()
def parameters_checksum(model: torch.nn.Module) -> int:
    """A number in [0, 2**63) that depends on every bit of every parameter, its name and its place.

    Computed where the parameters are; only a few bytes a parameter leave the device. Models that should be copies of
    each other on several processes have the same.
    """
    names, sums = [], []
    for name, parameter in model.named_parameters():
        bits = parameter.detach().contiguous().view(-1).view(torch.uint8)
        padded = torch.nn.functional.pad(bits, (0, -bits.numel() % 4)).view(torch.int32)
        # Odd factors: no single change of bits is lost in the wrap-around of 64-bit integers.
        factors = 2 * torch.arange(min(_CHUNK, padded.numel()), device=bits.device) + 1
        total = torch.zeros((), dtype=torch.int64, device=bits.device)
        for chunk in padded.split(_CHUNK):
            total = total * 6364136223846793005 + (chunk.to(torch.int64) * factors[: chunk.numel()]).sum()
        names.append(name)
        sums.append(total)
    content = repr(list(zip(names, torch.stack(sums).tolist(), strict=True))).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") & (2**63 - 1)
