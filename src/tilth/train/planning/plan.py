"""What a run will take and bring, before anything is spent."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tilth.errors import Interrupted, UsageError
from tilth.files import output_folder, write_json
from tilth.model.families import FAMILIES
from tilth.model.model import Model
from tilth.model.precision import compute_dtype, describe_processor, pick_device
from tilth.progress import progress_bar
from tilth.recipe import Recipe, TrainSettings
from tilth.train.batches import batch_rows
from tilth.train.planning.ladder import RUNGS, Expected, climb, rungs
from tilth.train.planning.memory import Network, estimate, free_memory, measured_peak, rows_that_fit
from tilth.train.planning.probe import Probe, probe
from tilth.train.position import EVALUATION_SHARE, TIMES
from tilth.train.prepare import Prepared, prepare, trunk_config

PLAN = "plan.json"
MAX_EPOCHS = 4
"""Passes over the data up to which repeated text is worth about as much as new (Muennighoff et al. 2023)."""
TOKENS_PER_PARAMETER = 20
"""Of the model with the lowest loss for its compute (Hoffmann et al. 2022, table 3): a rule of thumb."""


def plan(
    recipe: Recipe,
    corpus: Path,
    *,
    price: float | None = None,
    ladder: float | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Predict memory, time, cost, passes over the data and, with a ladder, loss of a run.

    price: of the machine, an hour. ladder: minutes for the short runs from which the loss is expected. out: a run
    folder, to leave `plan.json` in. The data is prepared and the runs are made in a temporary folder.
    Returns plain JSON values; sizes in bytes, times in seconds.
    Raises: UsageError and TilthError as `tilth.train.loop.pretrain`; Interrupted after a signal.
    """
    for name, value in (("price", price), ("ladder", ladder)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} {value} is not above 0")
    device = pick_device(recipe.train.device)
    if out is not None:
        output_folder(out)
    with tempfile.TemporaryDirectory(prefix="tilth-plan-") as name:
        folder = Path(name)
        prepared = prepare(recipe, corpus, folder, False, progress)
        try:
            result = _plan(recipe, prepared, folder, device, price, ladder, progress)
        except Interrupted as stopped:
            raise Interrupted("the plan was stopped", stopped.exit_status - 128) from None
    if out is not None:
        write_json(out / PLAN, result)
    return result


def _plan(
    recipe: Recipe,
    prepared: Prepared,
    folder: Path,
    device: torch.device,
    price: float | None,
    ladder: float | None,
    progress: bool,
) -> dict[str, Any]:
    family, config = FAMILIES[recipe.family], trunk_config(recipe, prepared.tokenizer)
    dtype = compute_dtype(recipe.train.precision, device)
    network = Network(family, config, prepared.objective.heads, recipe, dtype, device)
    with torch.device("meta"):
        model = Model(family, config, prepared.objective.heads)
    warnings: list[str] = []
    memory, micro_batch = _memory(network, warnings)
    speed, expected = None, Expected(None, [], "no loss is claimed without --ladder")
    if micro_batch["rows_that_fit"] != 0:
        rows = min(micro_batch["rows"], micro_batch["rows_that_fit"] or micro_batch["rows"])
        train = recipe.train.model_copy(update={"micro_batch_tokens": rows * recipe.data.length})
        fitting = recipe.model_copy(update={"train": train})
        with progress_bar("Short runs", 1 + (RUNGS if ladder else 0), "runs", progress) as update:
            speed = probe(fitting, prepared, folder)
            update(1)
            spent, _ = _spent(recipe, prepared, device, speed)
            if ladder and spent["tokens"]:
                steps = rungs(ladder, speed)
                expected = climb(fitting, prepared, folder, steps, spent["tokens"], lambda done: update(1 + done))
    spent, seconds = _spent(recipe, prepared, device, speed)
    if spent["epochs"] and spent["epochs"] > MAX_EPOCHS:
        warnings.append(
            f"the budget is {spent['epochs']:.1f} passes over the training text; past {MAX_EPOCHS}, repeated text is "
            "worth less and less (Muennighoff et al. 2023, on decoders): use more text or a smaller budget"
        )
    return {
        "recipe": recipe.model_dump(mode="json"),
        "corpus": prepared.corpus.fingerprint,
        "device": device.type,
        "processor": describe_processor(device),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": model.num_parameters(),
        "trunk_parameters": sum(parameter.numel() for parameter in model.trunk.blocks.parameters()),
        "memory": memory,
        "micro_batch": micro_batch,
        "budget": spent,
        "probe": None if speed is None else asdict(speed),
        "seconds": seconds,
        "cost": None if price is None or seconds is None else {"price": price, "total": price * seconds / 3600},
        "loss": expected.loss,
        "loss_note": expected.note,
        "ladder": expected.runs,
        "compute_optimal": _compute_optimal(model.num_parameters(), spent["tokens"]),
        "warnings": warnings,
    }


def _memory(network: Network, warnings: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The memory of the recipe's step, estimated and measured, and the micro-batch that fits."""
    recipe, length = network.recipe, network.recipe.data.length
    rows_per_step, rows = batch_rows(recipe, network.device)
    micro_batches = -(-rows_per_step // rows)
    memory, free = estimate(network, rows, micro_batches), free_memory(network.device)
    saved = memory.weights + memory.optimizer  # copied to the host's memory for each checkpoint (tilth.train.saver)
    if free is not None and network.device.type == "cpu":
        free = max(0, free - saved)
    fit, one = (None, memory) if free is None else rows_that_fit(network, rows_per_step, free)
    if fit == 0:
        warnings.append(
            f"not even one row of {length} tokens fits in the {(free or 0) / 1e9:.1f} GB that are free: it takes "
            f"{one.peak / 1e9:.1f} GB; choose a smaller model or data.length, or another machine"
        )
    elif fit is not None and fit < rows:
        warnings.append(
            f"micro-batches of {rows} rows do not fit; set train.micro_batch_tokens={fit * length}, for the same result"
        )
    measured = measured_peak(network, rows, micro_batches) if fit is None or fit >= rows else None
    split = {**asdict(memory), "measured_peak": measured, "checkpoint_copy": saved, "free": free}
    return split, {"rows": rows, "tokens": rows * length, "rows_that_fit": fit}


def _spent(
    recipe: Recipe, prepared: Prepared, device: torch.device, speed: Probe | None
) -> tuple[dict[str, Any], float | None]:
    """The budget in tokens, steps and epochs, and the seconds it takes; None where that takes a speed that is not
    known."""
    rows_per_step, _ = batch_rows(recipe, device)
    row = recipe.data.length * prepared.train.fill
    sizes = {"tokens": 1.0, "steps": rows_per_step * row, "epochs": prepared.train.num_rows * row}
    tokens, seconds = _tokens_and_seconds(recipe.train, sizes, speed)
    spent = {
        "tokens": None if tokens is None else round(tokens),
        "steps": None if tokens is None else math.ceil(tokens / sizes["steps"] - 1e-9),
        "epochs": None if tokens is None else tokens / sizes["epochs"],
        "tokens_in_data": round(sizes["epochs"]),
    }
    return spent, seconds


def _tokens_and_seconds(
    settings: TrainSettings, sizes: Mapping[str, float], speed: Probe | None
) -> tuple[float | None, float | None]:
    """What a budget comes to. sizes: tokens in each unit that a budget may have, but minutes."""
    budget, every = settings.budget, settings.evaluate_every
    tokens = None if budget.unit == "minutes" else budget.amount * sizes[budget.unit]
    seconds = 60 * budget.amount if budget.unit == "minutes" else None
    if speed is None:
        return tokens, seconds
    took = speed.seconds_per_evaluation
    if every is None:
        usual = TIMES["evaluate_every"]
        evaluations = usual if seconds is None else min(usual, EVALUATION_SHARE * seconds / max(took, 1e-9))
    else:
        # The clock goes on through evaluations. There are no two at one step.
        by_clock = every.unit == "minutes"
        trained = 60 * every.amount - took if by_clock else every.amount * sizes[every.unit] / speed.tokens_per_second
        interval = max(trained, sizes["steps"] / speed.tokens_per_second)
        if tokens is not None:
            evaluations = tokens / speed.tokens_per_second / interval
        else:
            evaluations = 60 * budget.amount / (interval + took)
    if tokens is None:
        return speed.tokens(60 * budget.amount, evaluations), seconds
    return tokens, speed.seconds(tokens, evaluations)


def _compute_optimal(parameters: int, tokens: int | None) -> dict[str, Any] | None:
    """The size that 6 x parameters x tokens operations are best spent on, by the rule of thumb."""
    if not tokens:
        return None
    best = math.sqrt(parameters * tokens / TOKENS_PER_PARAMETER)
    return {
        "tokens_per_parameter": tokens / parameters,
        "parameters": round(best),
        "tokens": round(TOKENS_PER_PARAMETER * best),
        "rule": f"about {TOKENS_PER_PARAMETER} tokens a parameter (Hoffmann et al. 2022): a rule of thumb, from "
        "decoders of 70 M parameters and more on text that does not repeat",
    }
