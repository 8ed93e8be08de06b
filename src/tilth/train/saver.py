"""Checkpoints written in a thread while training goes on."""

import contextlib
import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tilth.errors import TilthError
from tilth.train.checkpoint import Checkpoint, save_checkpoint


class Saver:
    """Writes one checkpoint at a time.

    `save` copies the state to the host's memory before it returns, so that no later update can reach what is being
    written. A save that ended is logged, and one that failed raised, by the next call of `save`, `poll` or `wait`.
    """

    def __init__(self, folder: Path, keep: int, log: Callable[..., None]) -> None:
        """folder: made here if need be. keep: how many of the newest stay. log: takes (event, step, **figures)."""
        folder.mkdir(exist_ok=True)
        self._folder, self._keep, self._log = folder, keep, log
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: tuple[int, Future[Path]] | None = None
        self._host: dict[str, Tensor] = {}

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, once the one before is done.

        Raises: TilthError when the one before could not be written.
        """
        self.wait()
        copied = replace(
            checkpoint,
            weights=self._copy("weights", checkpoint.weights),
            optimizer=self._copy("optimizer", checkpoint.optimizer),
            state=copy.deepcopy(checkpoint.state),
            identity=copy.deepcopy(checkpoint.identity),
        )
        self._in_flight = step, self._pool.submit(save_checkpoint, self._folder, step, copied, self._keep)

    def poll(self) -> None:
        """Take note of a save that has ended. Raises: TilthError when it failed."""
        if self._in_flight is not None and self._in_flight[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written. Raises: TilthError when a save failed."""
        if self._in_flight is None:
            return
        (step, future), self._in_flight = self._in_flight, None
        try:
            path = future.result()
        except TilthError as error:
            with contextlib.suppress(TilthError):  # the log may be on the same full disk
                self._log("warning", step, kind="checkpoint", message=str(error), documents=[])
            raise
        self._log("checkpoint", step, path=f"{path.parent.name}/{path.name}")

    def close(self) -> None:
        """Let a save in flight end; a failure is only logged, because the run is ending for another reason."""
        with contextlib.suppress(TilthError):
            self.wait()
        self._pool.shutdown()

    def _copy(self, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors in host memory that each save uses again; none but the one in flight reads it."""
        copies = {}
        for name, tensor in tensors.items():
            host = self._host.get(f"{kind}/{name}")
            if host is None or (host.shape, host.dtype) != (tensor.shape, tensor.dtype):
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._host[f"{kind}/{name}"] = host
            # Not elsewhere than on CUDA: there is no telling when such a copy is done.
            copies[name] = host.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            torch.cuda.synchronize(device)
        return copies
