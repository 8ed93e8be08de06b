"""The best model of a run, made again where its folder has gone."""

import sys
from typing import TYPE_CHECKING

from tilth.errors import TilthError, UsageError
from tilth.model.folder import save_model
from tilth.train.checkpoint import checkpoint_paths, held_out_losses, read_checkpoint, step_of
from tilth.train.prepare import fresh_model

if TYPE_CHECKING:
    from tilth.train.loop import Run


def restore_model(run: "Run", accept_changes: bool, problems: list[str]) -> tuple[int, float]:
    """Make `RUN/model` again from the checkpoint of the best step, if the run has had a model and it has gone.

    accept_changes: where that checkpoint is not kept, take the best that is, as if no better one had been.
    problems: for the log; what was done is added.
    Returns the step and the held-out loss of the best model, as the monitor should remember them.
    Raises: UsageError when it is not kept, and no other one may be taken; TilthError when there is none to take.
    """
    folder, monitor = run.out / "model", run.monitor
    if monitor.best_step == 0 or (folder / "model.safetensors").is_file():
        return monitor.best_step, monitor.best_loss
    # Later checkpoints than the run's are of another past.
    past = [path for path in checkpoint_paths(run.out / "checkpoints") if step_of(path) <= run.position.step]
    losses = {step_of(path): loss for path, loss in held_out_losses(past).items()}
    step = monitor.best_step
    if losses.get(step) != monitor.best_loss:  # a rewind may have led to another state of the same step
        if not accept_changes:
            raise UsageError(
                f"{folder} has gone, and no checkpoint is kept of step {step}, whose model it was: put the folder "
                "back, or take the best model that is kept with --accept-changes"
            )
        if not losses:
            raise TilthError(f"{folder} has gone, and no checkpoint that is kept has a model to take: put it back")
        step = min(losses, key=lambda step: (losses[step], step))
        (run.out / "summary.json").unlink(missing_ok=True)  # it is of the model that has gone
    model = fresh_model(run.recipe, run.prepared, warm=False)
    model.load_state_dict(read_checkpoint(run.out / "checkpoints" / f"step-{step:08d}").weights)
    save_model(model, run.prepared.tokenizer, folder, step=step)
    problems.append(f"{folder} had gone, and was made again from the checkpoint of step {step}")
    print(problems[-1], file=sys.stderr)
    return step, losses[step]
