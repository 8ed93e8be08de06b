"""What each process of the tests of distribution does: several runs, one after the other.

Called under torchrun with a JSON file: a list of {"recipe", "corpus", "out", "resume", "stop", "poison", "drift"}.
`stop` is the step after which the first process gets a SIGTERM; before step `poison` the last process's loss becomes
NaN, once; before step `drift` one of its weights changes.
"""

import json
import signal
import sys
from pathlib import Path

import torch

from tilth.errors import Interrupted
from tilth.recipe import Recipe
from tilth.train import word_sample
from tilth.train.distributed import join
from tilth.train.loop import Run, pretrain
from tilth.train.trackers import Trackers

stop, log = None, Trackers.log


def log_and_stop(self, event, step, **figures):
    log(self, event, step, **figures)
    if event == "step" and step == stop and world.is_first:
        signal.raise_signal(signal.SIGTERM)


def plant(run, batches, update):
    if world.rank == world.size - 1 and run.position.step == case["poison"]:
        case["poison"] = None
        loss_sums, run.replica.loss_sums = run.replica.loss_sums, lambda batch: poisoned(loss_sums(batch))
        try:
            return train_step(run, batches, update)
        finally:
            run.replica.loss_sums = loss_sums
    if world.rank == world.size - 1 and run.position.step == case["drift"]:
        with torch.no_grad():
            run.model.trunk.embeddings.positions.weight[0, 0] += 1e-3
    return train_step(run, batches, update)


def poisoned(sums):
    return {head: total * float("nan") for head, total in sums.items()}


word_sample.SMALL_VOCABULARY = 0  # as in the tests' own process
Trackers.log = log_and_stop
train_step, Run.train_step = Run.train_step, plant
with join() as world:
    for case in json.loads(Path(sys.argv[1]).read_text()):
        stop = case["stop"]
        try:
            pretrain(
                Recipe.model_validate(case["recipe"]),
                Path(case["corpus"]),
                Path(case["out"]),
                resume=case["resume"],
                progress=False,
                world=world,
            )
        except Interrupted:
            assert stop is not None
