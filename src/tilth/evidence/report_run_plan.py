"""A plan beside its run: what was predicted, and what was reached."""

from typing import Any

from tilth.evidence import human
from tilth.evidence.run_record import RunRecord


def plan_context(record: RunRecord) -> dict[str, Any] | None:
    """Rows of (what, predicted, reached), and how the recipe has changed since the plan; None without a plan."""
    plan = record.plan
    if not isinstance(plan, dict):
        return None
    budget, probe, loss = (_part(plan, name) for name in ("budget", "probe", "loss"))
    epochs = record.steps[-1].get("epoch") if record.steps else None
    reached = (record.result or {}).get("held_out_loss")
    expected = human.interval(loss.get("value"), loss.get("low"), loss.get("high"))
    rows = [
        ("Parameters", human.count(plan.get("parameters")), human.count(record.parameters)),
        ("Tokens", human.count(budget.get("tokens")), human.count(record.tokens)),
        ("Passes over the data", human.significant(budget.get("epochs")), human.significant(epochs)),
        ("Tokens per second", human.count(probe.get("tokens_per_second")), human.count(record.speed)),
        ("Time", human.duration(plan.get("seconds")), human.duration(record.seconds)),
    ]
    if loss:
        rows.append(("Held-out loss", expected, human.decimal(reached) + _verdict(reached, loss)))
    return {"rows": rows, "changed": _changed(_part(plan, "recipe"), record.recipe)}


def _part(plan: dict[str, Any], name: str) -> dict[str, Any]:
    value = plan.get(name)
    return value if isinstance(value, dict) else {}


def _verdict(reached: float | None, loss: dict[str, Any]) -> str:
    if not all(human.is_number(value) for value in (reached, loss.get("low"), loss.get("high"))):
        return ""
    assert reached is not None
    below, above = reached < loss["low"], reached > loss["high"]
    return ", better than expected" if below else ", worse than expected" if above else ", as expected"


def _changed(planned: dict[str, Any], run: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ."""
    names = []
    for name in sorted(planned.keys() | run.keys()):
        before, now = planned.get(name), run.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            names += _changed(before, now, f"{prefix}{name}.")
        elif before != now:
            names.append(prefix + name)
    return names
