"""The processes of a run, as `torchrun` starts them: which is which, and how they agree.

All run the same command on the same run folder, which hosts share. The first one (rank 0) prepares, decides, and
writes; the others wait for it, compute their share of every step, and write nothing.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from tilth.errors import AnotherProcessFailed, Interrupted, TilthError, UsageError
from tilth.files import write_text
from tilth.model.precision import pick_device
from tilth.train.checkpoint import holds_checkpoints

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
_POLL_SECONDS = 0.05
_EXCHANGE_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others within a step; a process that dies is noticed at once."""


@dataclass(frozen=True)
class World:
    """The processes that train together; by default, this one alone.

    rank: this process's number among `size`; local_rank: its number on its host. restarts: how often torchrun has
    started the group again.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0
    store: "Store | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prepares, decides and writes."""
        return self.rank == 0

    def device(self, setting: str) -> torch.device:
        """The device of this process: on CUDA, every process of a host has its own.

        Raises: UsageError when the setting's device is not there, or there are too few of them.
        """
        device = pick_device(setting)
        if self.size == 1 and device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # what is made without naming a device goes there, too
        if self.size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or self.local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"process {self.local_rank} of this host has no {device.type} device of its own "
                f"({torch.cuda.device_count()} CUDA devices are there): start fewer processes, or set train.device=cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value's sum over all processes, the same bits on every one."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def share(self, value: T) -> T:
        """The first process's value, which JSON can hold, on every process."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.is_first else b""
        (size,) = self.sum([len(content)])
        message = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_first:
            message = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        torch.distributed.broadcast(message, 0)
        return json.loads(bytes(message.tolist()))

    def first_then_others(self, work: Callable[[bool], T], name: str) -> T:
        """Do `work(is_first)` on the first process, and when it is done, however long that takes, on the others.

        name: tells this piece of work from others.
        """
        if self.store is None:
            return work(True)
        if self.is_first:
            result = work(True)
            self.store.set(f"tilth/{name}", "done")
            return result
        _wait_for(self.store, f"tilth/{name}")
        return work(False)


@contextlib.contextmanager
def join() -> Iterator[World]:
    """Meet the other processes that torchrun started; without torchrun, be alone.

    An error leaves this block as it is on the process where it came first, and as AnotherProcessFailed on others, so
    that it is told once.
    Raises: TilthError when another process is lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(restarts=_restarts())
        return
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    # Small exchanges go through gloo, gradients through the device's own library.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    shared, rank, size = next(iter(rendezvous("env://")))
    store = PrefixStore(_meet(shared, rank, size), shared)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_EXCHANGE_TIMEOUT)
    world = World(rank, size, int(os.environ.get("LOCAL_RANK", rank)), _restarts(), store)
    try:
        yield world
    except Exception as error:
        lost = _is_lost_contact(error)
        failure = _lost_contact(world, error) if lost else error
        # Where a process vanished, the others see it at once, and so may one that has just failed on its own: it is
        # given the time to say why.
        try:
            if lost:
                time.sleep(0.5)
            is_told_here = _claim_error(world)
        except Interrupted as stopped:  # torchrun ends the others once one has failed
            raise AnotherProcessFailed(stopped.exit_status) from error
        if not is_told_here:
            raise AnotherProcessFailed(getattr(failure, "exit_status", 1)) from error
        if failure is error:
            raise
        raise failure from error
    distributed.barrier()
    distributed.destroy_process_group()


def goes_on(world: World, out: Path, resume: bool) -> bool:
    """Whether to go on from the newest checkpoint in `out`: as the user says, or when torchrun has started the group
    again after it had begun the run there. To be called on every process, the first of which is alone in `out`.
    """
    # The largest count: a host whose own processes were well counts no restart.
    restarts = max(world.sum([world.restarts if rank == world.rank else 0 for rank in range(world.size)]))
    if world.is_first:
        started = out / ".torchrun"
        run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        begun = started.is_file() and started.read_bytes() == run_id.encode()
        # A run id that names one launch also tells a restart in which no process of this host had failed.
        again = begun and (restarts > 0 or run_id != "none")
        if again and holds_checkpoints(out / "checkpoints"):
            resume = True
        elif not again:
            started.unlink(missing_ok=True)
    return world.share(resume)


def note_start(out: Path) -> None:
    """Leave word in `out` that this launch of torchrun, if it is one, runs there, for `goes_on`."""
    if run_id := os.environ.get("TORCHELASTIC_RUN_ID"):
        write_text(out / ".torchrun", run_id)


def forget_start(out: Path) -> None:
    """Take back what `note_start` left: no process of this launch can fail any more."""
    (out / ".torchrun").unlink(missing_ok=True)


def _meet(store: "Store", rank: int, size: int) -> str:
    """A name for this start of the group, the same on all processes and never used before.

    torchrun's agents keep one store over all restarts, in which the addresses of dead processes would be found again,
    and their restart counts may differ (pytorch issue 135712). So the first process names the start, and tells it to
    each process that asks, under a name of its own; what a dead one asked is answered too, and nobody reads it.
    """
    me = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
    if rank > 0:
        store.set(f"tilth/asks/{rank}", me)
        _wait_for(store, f"tilth/answer/{me}")
        name = store.get(f"tilth/answer/{me}").decode()
        store.set(f"{name}/met/{rank}", "yes")
        return name
    name = f"tilth/start/{me}"
    answered: dict[int, bytes] = {}
    while not all(store.check([f"{name}/met/{other}"]) for other in range(1, size)):
        for other in range(1, size):
            if store.check([f"tilth/asks/{other}"]):
                asks = store.get(f"tilth/asks/{other}")
                if answered.get(other) != asks:
                    store.set(f"tilth/answer/{asks.decode()}", name)
                    answered[other] = asks
        time.sleep(_POLL_SECONDS)
    return name


def _wait_for(store: "Store", key: str) -> None:
    """Not `store.wait`, in which a signal is not heard."""
    while not store.check([key]):
        time.sleep(_POLL_SECONDS)


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _claim_error(world: World) -> bool:
    """Whether this process is the first to fail; also when the others cannot be asked."""
    assert world.store is not None
    try:
        mine = str(world.rank).encode()
        return world.store.compare_set("tilth/failed", "", str(world.rank)) == mine
    except Exception:
        return True


def _is_lost_contact(error: Exception) -> bool:
    """Whether a collective operation failed because a peer is gone."""
    if isinstance(error, TilthError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _lost_contact(world: World, error: Exception) -> TilthError:
    return TilthError(
        f"process {world.rank} of {world.size} lost another one ({str(error).splitlines()[0][:200]}); the run goes on "
        "from its last checkpoint with --resume, or by itself with torchrun's --max-restarts"
    )
