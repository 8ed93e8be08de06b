"""What a run's result depends on, and what may change when it goes on.

The identity of a run is a plain JSON value in each of its checkpoints. On resume it is compared with what there is now:
a change that cannot alter the result passes, one that would must be accepted, and one that the saved weights or the
place in the data do not allow is refused.
"""

import platform
from typing import Any

import numpy as np
import torch

from tilth.errors import UsageError
from tilth.model.precision import compute_dtype
from tilth.recipe import Recipe, on_resume
from tilth.train.prepare import Prepared
from tilth.version import RESULT_VERSION

_PREDICTED = {
    "corpus", "tokenizer", "seed", "data.cross_documents", "objective.rate", "objective.masks", "objective.duplicates",
}  # fmt: skip
_MEASURED_BY = {
    "held_out": _PREDICTED | {"train.evaluate_tokens"},
    "training": _PREDICTED | {"objective.vocabulary_share", "model.dropout"},  # which evaluations do without
}
"""What each loss depends on besides the weights: the text, what is to be predicted in it and from what."""


def run_identity(
    recipe: Recipe, prepared: Prepared, device: torch.device, dtype: torch.dtype, processes: int, compiled: bool
) -> dict[str, Any]:
    """All that the bits of a run's result depend on, as JSON.

    dtype: the type of activations. compiled: whether training steps are.
    """
    on_cpu = device.type == "cpu"
    return {
        "recipe": recipe.model_dump(mode="json"),
        "corpus": prepared.corpus.fingerprint,
        "tokenizer": prepared.tokenizer.fingerprint,
        "compute_type": str(dtype).removeprefix("torch."),
        "compiled": compiled,  # fused operations round otherwise
        "device": device.type,
        "processor": _processor(device),
        # Sums are split over threads, and another split rounds otherwise.
        "threads": torch.get_num_threads() if on_cpu else None,
        "processes": processes,
        "code": {"result_version": RESULT_VERSION, "torch": torch.__version__, "numpy": np.__version__},
    }


def check_identity(before: dict[str, Any], now: dict[str, Any], accept: bool) -> dict[str, list[str]]:
    """Compare a checkpoint's identity with the present one.

    Returns the changes that passed, in words: {"accepted": those that alter the result, "changed": the others}.
    Raises: UsageError naming the changes that cannot be made, or that alter the result and are not accepted.
    """
    before = _with_defaults(before)
    if before["processes"] != now["processes"]:
        # Asked for, and known to round otherwise; with it goes the number of threads of each.
        before = before | {"threads": now["threads"]}
    found: dict[str, list[str]] = {"fixed": [], "alters": [], "harmless": []}
    for setting, was, is_now in _differences(before, now):
        kind = "harmless" if setting == "processes" else on_resume(setting)
        if setting == "train.save_every" and _may_rewind(before, now):  # which says where a rewind goes
            kind = "alters"
        found[kind].append(f"{setting} (was {was}, is {is_now})")
    _refuse(found["fixed"])
    if found["alters"] and not accept:
        raise UsageError(
            f"the run would not end as it would have: these differ from its checkpoint: {', '.join(found['alters'])}; "
            "restore them, accept them with --accept-changes, or start another run"
        )
    return {"accepted": found["alters"], "changed": found["harmless"]}


def check_fixed(before: dict[str, Any], recipe: Recipe) -> None:
    """Compare a checkpoint's identity with a recipe's settings that cannot change: it takes no data to know these.

    Raises: UsageError naming those that did.
    """
    settings = {"recipe": recipe.model_dump(mode="json")}
    differences = _differences({"recipe": _with_defaults(before)["recipe"]}, settings)
    _refuse([f"{name} (was {was}, is {now})" for name, was, now in differences if on_resume(name) == "fixed"])


def measured_otherwise(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Which losses of the same weights are others since a checkpoint: `held_out`, `training`, both or none.

    They cannot be compared with those of before.
    """
    changed = {name for name, _, _ in _differences(_with_defaults(before), now)}
    return [kind for kind, names in _MEASURED_BY.items() if not changed.isdisjoint(names)]


def _refuse(fixed: list[str]) -> None:
    if fixed:
        raise UsageError(f"these cannot change within a run: {', '.join(fixed)}; restore them, or start another run")


def _may_rewind(*identities: dict[str, Any]) -> bool:
    return any("rewind" in identity["recipe"]["train"].values() for identity in identities)


def _with_defaults(identity: dict[str, Any]) -> dict[str, Any]:
    """Settings that the version which wrote the checkpoint did not have yet were as their defaults are."""
    identity = {"processes": 1, "compiled": False} | identity
    try:
        return identity | {"recipe": Recipe.model_validate(identity["recipe"]).model_dump(mode="json")}
    except ValueError:  # it had settings that are gone: they are named as differences
        return identity


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted names of the values that differ (settings without `recipe.`), with both."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append((f"{prefix}{name}".removeprefix("recipe."), old, new))
    return found


def _processor(device: torch.device) -> str:
    """The kind of processor, as far as it chooses among kernels that round differently."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        units = " with bfloat16" if compute_dtype("auto", device) == torch.bfloat16 else ""
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{units}"
    return platform.machine()
