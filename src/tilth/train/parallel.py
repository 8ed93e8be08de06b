"""The model as one process of a run holds it: whole, whole with shared gradients (DDP), or in shards (FSDP2).

Each process computes the loss of its share of the step's rows. Both ways average gradients over the processes, so the
loss is multiplied by their number: the sum over all processes of a loss that is divided by the whole step's counts.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tilth.model.compiled import has_triton
from tilth.model.model import Model
from tilth.objectives.objective import Batch
from tilth.recipe import TrainSettings
from tilth.train.clipping import clip_gradients
from tilth.train.distributed import World
from tilth.train.sharded import is_sharded


def compiles(settings: TrainSettings, device: torch.device, processes: int) -> bool:
    """Whether training steps are compiled.

    auto: on a GPU, where torch's compiler has Triton; on a CPU it brought 3 to 5 % (benchmarks/NOTES.md). Never with
    FSDP, which gathers a block's weights in hooks that a compiled block passes by.
    """
    if processes > 1 and settings.parallel == "fsdp":
        return False
    if settings.compile == "auto":
        return has_triton(device)
    return settings.compile


class _Loss(nn.Module):
    """The loss as a module, which is what DDP and FSDP wrap: they act when its `forward` is called."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return batch.loss_sums(self.model, self.dtype)


class Replica:
    """A model that is trained together with those of the other processes.

    model: its parameters are this process's shards (DTensor) under FSDP, and whole otherwise; names are the same.
    """

    def __init__(
        self, model: Model, settings: TrainSettings, world: World, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Every process starts from the first one's weights."""
        self.world, self.device = world, device
        for trunk in model.trunks():
            trunk.recompute_blocks = settings.activation_checkpointing
            trunk.compiled = compiles(settings, device, world.size)
        if world.size > 1:
            for parameter in model.parameters():
                torch.distributed.broadcast(parameter.data, 0)
        self.sharded = world.size > 1 and settings.parallel == "fsdp"
        self.model = model
        self.loss: nn.Module = _Loss(model, dtype)
        if self.sharded:
            _shard(self.loss, model, world, device, dtype)
            return
        self.model = model.to(device)
        if world.size > 1:
            self.loss = nn.parallel.DistributedDataParallel(self.loss, init_sync=False, gradient_as_bucket_view=True)

    def loss_sums(self, batch: Batch) -> dict[str, Tensor]:
        """What `Batch.loss_sums` gives for this process's batch. Every process must call it as often as the others."""
        return self.loss(batch.to(self.device))

    @contextlib.contextmanager
    def last_backward(self, is_last: bool) -> Iterator[None]:
        """Share the gradients in the last backward pass of a step only: those before add up where they are."""
        if self.sharded:
            self.loss.set_requires_gradient_sync(is_last)  # type: ignore[operator] - fully_shard adds the method
            yield
        elif isinstance(self.loss, nn.parallel.DistributedDataParallel) and not is_last:
            with self.loss.no_sync():
                yield
        else:
            yield

    def clip(self, largest: float) -> float:
        """Scale the gradients so that their norm, over all parameters and processes, is at most `largest`; returns the
        norm before."""
        return clip_gradients(self.model.parameters(), largest)

    def whole_model(self) -> Model | None:
        """An ordinary model with the whole weights, on the first process; None on the others. All must call it."""
        if not self.sharded:
            return self.model if self.world.is_first else None
        weights = self.weights()
        if not self.world.is_first:
            return None
        with torch.device("meta"):
            whole = Model(self.model.family, self.model.config, tuple(self.model.heads), self.model.labels)
        whole.load_state_dict(weights, assign=True)
        return whole.train(self.model.training)

    def weights(self) -> dict[str, Tensor]:
        """The whole weights by name, on the first process; all must call it."""
        return gathered(dict(self.model.state_dict()), self.world)

    def load_weights(self, weights: dict[str, Tensor] | None) -> None:
        """Take over whole weights from the first process; the others give None."""
        if not self.sharded and weights is not None:
            self.model.load_state_dict(weights)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if self.sharded or self.world.size > 1:
                    parameter.copy_(spread(None if weights is None else weights[name], parameter, self.world))


def _shard(loss: nn.Module, model: Model, world: World, device: torch.device, dtype: torch.dtype) -> None:
    """FSDP2 (Zhao et al. 2023, "PyTorch FSDP"), a unit for each block and one for the rest.

    Blocks are gathered in the compute type, as each layer would cast them; tables and heads, which the loss uses in
    float32, as they are. Gradients are summed in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for trunk in model.trunks():
        for block in trunk.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(loss, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))


def gathered(tensors: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """Sharded tensors put together on the CPU of the first process, others as they are; an empty dict elsewhere.

    All processes must call it, with the same names in the same order.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor().detach().cpu() if is_sharded(tensor) else tensor
        if world.is_first:
            found[name] = whole
    return found


def spread(whole: Tensor | None, like: Tensor, world: World) -> Tensor:
    """The first process's tensor on every process, sharded as `like` is; the others give None.

    whole: of the shape of `like`. Returns it in the type and on the device of `like`.
    """
    source = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    if world.is_first:
        assert whole is not None and whole.shape == like.shape
        source.copy_(whole)
    if is_sharded(like):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(source, like.device_mesh, like.placements, src_data_rank=0)
    if world.size > 1:
        torch.distributed.broadcast(source, 0)
    return source
