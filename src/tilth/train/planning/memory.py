"""How much memory a run needs: a step runs on tensors that have a shape and no contents, and every byte is counted.

The step is the loop's own (the model, the batch's loss, the optimizers), so what is counted is what a run allocates.
The same step on real tensors, as torch's allocator reports it (`measured_peak`), is what the estimate is held against.
"""

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from tilth.model.config import TrunkConfig
from tilth.model.families import Family
from tilth.model.model import Model
from tilth.objectives import OBJECTIVES
from tilth.objectives.objective import Batch
from tilth.recipe import Recipe
from tilth.train.optimizers import Optimizers

SPARE = 0.1
"""Share of the free memory to leave: for batches, evaluation, and what the allocator wastes."""

_COPIES_INPUT = {torch.ops.aten.logsumexp.default}
"""Kernels that work on a copy of their input, which a step without contents does not show."""
_SUM = torch.ops.aten.add.Tensor
"""In the backward pass it adds two gradients of one tensor; with contents, autograd adds in place."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step.

    activations: the most there is beside the other three, temporaries included. peak: the most there is at once; less
    than the sum when a step is one micro-batch, since gradients then come as activations go.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


@dataclass(frozen=True)
class Network:
    """What decides the memory of a step, beside the number of rows."""

    family: Family
    config: TrunkConfig
    heads: tuple[str, ...]
    recipe: Recipe
    dtype: torch.dtype
    device: torch.device

    def model(self) -> Model:
        """The model in training mode, its weights as they come."""
        with self.device:
            model = Model(self.family, self.config, self.heads)
        model.set_dropout(self.recipe.model.dropout)
        return model.train()

    def batch(self, rows: int) -> Batch:
        """What the objective makes of full rows, every id 0."""
        return OBJECTIVES[self.recipe.objective.name].blank_batch(self.recipe, rows, self.device)


def estimate(network: Network, rows: int, micro_batches: int) -> Memory:
    """The memory of a step of `micro_batches` with `rows` rows each. Takes some seconds; where a CPU would
    go through a large vocabulary in many small chunks, half a minute."""
    with FakeTensorMode(), _Counter() as counter:
        model = network.model()
        weights = counter.live
        optimizers = Optimizers(model, network.recipe.train)
        batch = network.batch(rows)
        inputs = counter.live - weights
        _accumulate(model, batch, network.dtype)
        gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
        optimizers.step()
        optimizer = counter.live - weights - inputs
        one = counter.peak_of(lambda: _accumulate(model, batch, network.dtype))
        two = counter.peak_of(lambda: _accumulate(model, batch, network.dtype))
        update = counter.peak_of(lambda: _update(model, optimizers, network.recipe.train.clip))
    peak = max(one, update, two if micro_batches > 1 else 0)
    return Memory(weights, gradients, optimizer, two - weights - gradients - optimizer, peak)


def measured_peak(network: Network, rows: int, micro_batches: int) -> int:
    """The most bytes that torch's allocator holds at once in a real step of a real model, on the CPU or a GPU.

    A first step makes the optimizer's state; the second is measured.
    """
    model = network.model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.02)
    optimizers, batch = Optimizers(model, network.recipe.train), network.batch(rows)
    held = [*model.parameters(), *vars(batch.inputs).values()]
    held += [tensor for predictions in batch.predictions.values() for tensor in vars(predictions).values()]

    def step() -> None:
        for _ in range(min(2, micro_batches)):
            _accumulate(model, batch, network.dtype)
        _update(model, optimizers, network.recipe.train.clip)

    step()
    if network.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(network.device)
        step()
        return torch.cuda.max_memory_allocated(network.device)
    held += optimizers.state().values()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it reports its own start and end on standard error
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    recorded: list[Any] = profiler.profiler.kineto_results.events()
    events = [event for event in recorded if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(tensor.nbytes for tensor in held if tensor is not None) + int(np.cumsum(changes).max(initial=0))


def rows_that_fit(network: Network, rows_per_step: int, free: int) -> tuple[int, Memory]:
    """The most rows in a micro-batch that `free` bytes hold, in halvings of a step's; 0 where not even one row fits.

    Returns them with the memory they take (0 rows: that of one).
    """
    rows = rows_per_step
    while True:
        memory = estimate(network, rows, -(-rows_per_step // rows))
        if memory.peak <= (1 - SPARE) * free:
            return rows, memory
        if rows == 1:
            return 0, memory
        rows = -(-rows // 2)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a run could take on this device now; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    limits = [_free_in_system(), _free_in_control_group()]
    return min((limit for limit in limits if limit is not None), default=None)


def _free_in_system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _free_in_control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves (control groups of version 2, then 1); None without a limit."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = ((root / name).read_text(encoding="ascii").strip() for name in (limit_name, used_name))
        except OSError:
            continue
        return None if limit == "max" else max(0, int(limit) - int(used))
    return None


def _accumulate(model: Model, batch: Batch, dtype: torch.dtype) -> None:
    """Forward and backward of a micro-batch, as the loop does them."""
    batch.loss(batch.loss_sums(model, dtype), batch.counts).backward()


def _update(model: Model, optimizers: Optimizers, clip: float) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)  # whether it is needed a tensor without values cannot say
    optimizers.step()


class _Counter(TorchDispatchMode):
    """Counts the bytes of every storage from the operation that makes it until nothing holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.peak
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        if func is _SUM and not torch.is_grad_enabled():
            self.peak = before
        elif func in _COPIES_INPUT:
            self.peak = max(self.peak, self.live + args[0].nbytes)
        return result

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            size = storage.nbytes()
            self._known[storage] = size
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, size)
        return tensor

    def _free(self, size: int) -> None:
        self.live -= size

    def peak_of(self, work: Callable[[], None]) -> int:
        """The most bytes alive at once while `work` runs."""
        self.peak = self.live
        work()
        return self.peak
