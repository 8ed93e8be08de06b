"""How our parameters are called, and laid out, in a family's Hugging Face folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tilth.model.config import TrunkConfig


@dataclass(frozen=True)
class Name:
    """One of our parameters and the entries that hold it. `{i}` stands for the layer.

    Without transforms the tensors are equal. With several entries ours is their concatenation along dimension 0.
    to_theirs maps our tensor to theirs, one for each entry; to_ours is its inverse.
    """

    ours: str
    theirs: tuple[str, ...]
    to_theirs: Callable[[Tensor, TrunkConfig], tuple[Tensor, ...]] | None = None
    to_ours: Callable[[tuple[Tensor, ...], TrunkConfig], Tensor] | None = None


NameMap = tuple[Name, ...]


def same(ours: str, theirs: str) -> Name:
    """An entry that is equal on both sides."""
    return Name(ours, (theirs,))


def norm(ours: str, theirs: str) -> NameMap:
    """The weight and bias of a layer that is equal on both sides."""
    return same(f"{ours}.weight", f"{theirs}.weight"), same(f"{ours}.bias", f"{theirs}.bias")


linear = norm


def transposed(ours: str, theirs: str) -> NameMap:
    """A linear layer stored as GPT-2's Conv1D, input dimension first."""
    weight = Name(
        f"{ours}.weight",
        (f"{theirs}.weight",),
        to_theirs=lambda tensor, config: (tensor.T,),
        to_ours=lambda tensors, config: tensors[0].T,
    )
    return weight, same(f"{ours}.bias", f"{theirs}.bias")


def to_theirs(state: Mapping[str, Tensor], names: NameMap, config: TrunkConfig) -> dict[str, Tensor]:
    """Rename and lay out our tensors as theirs; names of `names` that `state` lacks are passed over."""
    result: dict[str, Tensor] = {}
    for name, layer in _entries(names, config):
        ours = name.ours.format(i=layer)
        if ours not in state:
            continue
        tensor = state[ours]
        parts = name.to_theirs(tensor, config) if name.to_theirs else tensor.chunk(len(name.theirs))
        for theirs, part in zip(name.theirs, parts, strict=True):
            result[theirs.format(i=layer)] = part.contiguous()
    return result


def to_ours(state: Mapping[str, Tensor], names: NameMap, config: TrunkConfig) -> dict[str, Tensor]:
    """Rename and lay out their tensors as ours; entries that `state` lacks are passed over."""
    result: dict[str, Tensor] = {}
    for name, layer in _entries(names, config):
        theirs = [entry.format(i=layer) for entry in name.theirs]
        if all(entry in state for entry in theirs):
            parts = tuple(state[entry] for entry in theirs)
            tensor = name.to_ours(parts, config) if name.to_ours else torch.cat(parts)
            result[name.ours.format(i=layer)] = tensor.contiguous()
    return result


def _entries(names: NameMap, config: TrunkConfig):
    for name in names:
        for layer in range(config.layers) if "{i}" in name.ours else (0,):
            yield name, layer
