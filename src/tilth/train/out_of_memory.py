"""A step for which memory does not suffice is done again in smaller micro-batches."""

import sys
from typing import TYPE_CHECKING, Any

import torch

from tilth.errors import TilthError, is_out_of_memory
from tilth.model.precision import return_freed_memory
from tilth.objectives.objective import Batch

if TYPE_CHECKING:
    from tilth.train.loop import Run


def step_in_memory(run: "Run", batches: list[Batch], update: Any) -> None:
    """Train a step; when memory runs out before the update, halve the micro-batch and do the step again from its start.

    The loss and the gradient are those of the whole step, so they stay the same but for rounding. Only dropout's draws
    differ, which belong to a micro-batch. The run goes on with the smaller micro-batches, also when it is resumed.
    Raises: TilthError when one row is too much, and, once saved, no more can be done.
    """
    while True:
        if len(batches[0].inputs.tokens) > run.rows_per_micro_batch:  # made ahead, before a halving
            batches = run.batches.at(run.position.step + run.batches_left_out)
        try:
            return run.train_step(batches, update)
        except (MemoryError, RuntimeError) as error:
            # An update cannot be made twice, nor half of one taken back; other processes are in the midst of theirs.
            if not is_out_of_memory(error) or run.has_updated or _several_processes():
                raise
        # Not in the handler: the failed pass must be forgotten first, and with it the memory it holds.
        run.optimizers.clear()
        return_freed_memory(run.device)
        _halve(run)


def _halve(run: "Run") -> None:
    rows, length = run.rows_per_micro_batch, run.recipe.data.length
    if rows == 1:
        run.save()
        raise TilthError(
            f"out of memory at step {run.position.step} with a single row of {length} tokens; free some memory and go "
            "on with --resume, or start another run with a smaller data.length or model"
        )
    run.rows_per_micro_batch = -(-rows // 2)
    message = (
        f"out of memory at step {run.position.step} with micro-batches of {rows} rows: the run goes on with "
        f"{run.rows_per_micro_batch}, and the same loss and gradient"
        + (", but for other draws of dropout" if run.recipe.model.dropout else "")
        + f" (train.micro_batch_tokens={run.rows_per_micro_batch * length} starts with them)"
    )
    print(f"Warning: {message}", file=sys.stderr)
    run.trackers.log("warning", run.position.step, kind="out of memory", message=message, documents=[])


def _several_processes() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
