"""When steps are made, and that none of what a batch holds is lost on the way to a device."""

from typing import Any

import pytest
import torch

from tilth.errors import TilthError
from tilth.model import inputs
from tilth.model.segments import piece_bounds
from tilth.recipe import builtin_recipes
from tilth.train.batches import Batches, Upcoming
from tilth.train.prepare import prepare


class Made:
    """In place of a run's batches: notes which steps are made."""

    def __init__(self, device: str) -> None:
        self.device, self.steps = torch.device(device), []

    def ready(self, step: int) -> int:
        if step == 7:
            raise TilthError("the shards are damaged")
        self.steps.append(step)
        return step


@pytest.mark.parametrize(("device", "made"), [("cpu", [5, 6]), ("cuda", [5])])
def test_the_next_step_is_begun_at_once_and_for_a_gpu_when_told(device, made):
    batches: Any = Made(device)
    upcoming = Upcoming(batches, 5)
    assert next(upcoming) == 5
    upcoming.close()
    assert batches.steps == made


def test_a_step_is_made_once_however_often_it_is_begun_and_its_error_comes_to_who_asks():
    batches: Any = Made("cuda")
    upcoming = Upcoming(batches, 5)
    assert next(upcoming) == 5
    upcoming.begin_next()
    upcoming.begin_next()
    assert next(upcoming) == 6
    assert batches.steps == [5, 6]
    with pytest.raises(TilthError, match="the shards are damaged"):
        next(upcoming)
    upcoming.close()


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_pinned_batch_holds_what_the_batch_holds(recipe, corpus, tmp_path, monkeypatch, name):
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(inputs, "runs_on_segments", lambda device: True)
    prepared = prepare(recipe(name), corpus, tmp_path, False, False)
    (batch,) = Batches(prepared.objective, prepared.train, 0, 8, 8).at(0)
    copy = batch.pinned(torch.device("cpu"))
    held = tensors(copy)
    assert held.keys() == tensors(batch).keys() | {".inputs.bounds"}
    assert torch.equal(held[".inputs.bounds"], piece_bounds(batch.inputs.documents))
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


def test_a_batch_that_cannot_be_pinned_is_used_as_it_is(recipe, corpus, tmp_path, monkeypatch):
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    monkeypatch.setattr(inputs, "runs_on_segments", lambda device: False)
    prepared = prepare(recipe("gpt2-mini"), corpus, tmp_path, False, False)
    batches = Batches(prepared.objective, prepared.train, 0, 8, 8, device=torch.device("cuda"))
    (batch,), (ready,) = batches.at(3), batches.ready(3)
    assert torch.equal(ready.inputs.tokens, batch.inputs.tokens)
