"""When steps are made, and that none of what a batch holds is lost on the way to a device."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tilth.recipe import builtin_recipes
from tilth.train.batches import Batches, Upcoming
from tilth.train.prepare import prepare


@pytest.mark.parametrize(("device", "made_ahead"), [("cpu", [6]), ("cuda", [])])
def test_a_step_is_made_ahead_and_for_a_gpu_once_that_is_busy(device, made_ahead):
    made: list[int] = []

    def ready(step: int) -> int:
        made.append(step)
        return step

    stub: Any = SimpleNamespace(ready=ready, device=torch.device(device))
    upcoming = Upcoming(stub, 5)
    steps: list[Any] = [next(upcoming)]
    if made_ahead:
        upcoming.make_next().result()
    assert made == [5, *made_ahead]
    upcoming.make_next().result()
    upcoming.make_next().result()
    assert made == [5, 6]
    steps += [next(upcoming), next(upcoming)]
    upcoming.close()
    assert steps == [5, 6, 7]


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_pinned_batch_holds_what_the_batch_holds(recipe, corpus, tmp_path, monkeypatch, name):
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    prepared = prepare(recipe(name), corpus, tmp_path, False, False)
    (batch,) = Batches(prepared.objective, prepared.train, 0, 8, 8).at(0)
    copy = batch.pinned(torch.device("cpu"))
    held = tensors(copy)
    assert held.keys() == tensors(batch).keys()
    assert {id(tensor) for tensor in held.values()} == {id(tensor) for tensor in pinned}
    for key, tensor in tensors(batch).items():
        assert torch.equal(held[key], tensor), key
    assert (copy.tokens, copy.counts) == (batch.tokens, batch.counts)


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors that a batch holds."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    inner = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return {key: tensor for part, held in inner.items() for key, tensor in tensors(held, f"{name}.{part}").items()}
