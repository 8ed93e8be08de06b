"""A comparison that is already there is not replaced by another one by accident."""

from pathlib import Path
from typing import Any

from tilth.errors import TilthError, UsageError
from tilth.files import read_json


def check_earlier(folder: Path, plan: dict[str, Any], overwrite: bool) -> None:
    """Check that writing the results of `plan` (what compare.json says before its results) loses no other report.

    Raises: UsageError when the folder holds a comparison of something else, or another report, unless `overwrite`.
    """
    if overwrite:
        return
    if not (folder / "compare.json").exists():
        if (folder / "report.html").exists():
            raise UsageError(
                f"{folder} holds a report of something else (report.html); choose another --out, or replace it with "
                "--overwrite"
            )
        return
    try:
        earlier = read_json(folder / "compare.json")
        known, wanted = _deciding(earlier), _deciding(plan)
        other = [name for name, value in known.items() if value is not None and value != wanted[name]]
    except (TilthError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{folder / 'compare.json'} cannot be read; choose another --out, or replace it with --overwrite"
        ) from None
    if other:
        raise UsageError(
            f"{folder} holds a finished comparison that differs in {', '.join(other)}; choose another --out, or "
            "replace it with --overwrite (trainings that both have are not repeated)"
        )


def _deciding(plan: dict[str, Any]) -> dict[str, Any]:
    """What decides the outcome of a comparison, in the user's words; None where compare.json does not say."""
    return {
        "the task": plan["task"],
        "the examples": plan.get("texts_fingerprint"),
        "--from": [system["name"] for system in plan["systems"]],
        "the weights of --from": plan.get("weights_fingerprint"),
        "--labels": plan["budgets"],
        "--seeds": plan["seeds"],
        "the settings": plan["settings"],
    }
