"""How often each document is trained on, so that sources have the shares that were asked for.

Weights are given per source, or follow from the sizes: `temperature` T gives a source of size s the weight s^(1/T)
(Devlin's multilingual BERT and Conneau and Lample 2019, "Cross-lingual Language Model Pretraining", 3.1, with 1/T as
alpha), so that small sources are seen more often than their size says. A source is repeated up to `max_epochs` times,
as more repetition teaches little (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models"). What is missing
of its share then goes to the sources that are not at their cap, in proportion to their weights, as UniMax does with
equal ones (Chung et al. 2023, "UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual
Pretraining", algorithm 1). So the amount of text stays what it was, unless every source is at its cap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilth.corpus.settings import CorpusSettings
from tilth.errors import UsageError
from tilth.key import Key, mix

FAR = 0.05
"""A share that is missed by more is said to be."""


@dataclass(frozen=True)
class Mixture:
    """copies: how often each document of the training split is in it, int64 (documents,).

    names: the sources, those of one name being one. asked: the share of each. epochs: how often its text is to be seen.
    capped: sources that are seen as often as is allowed, and less than their share asks for. short: the share of the
    amount of text that is missing because all sources are.
    """

    copies: np.ndarray
    names: list[str]
    asked: np.ndarray
    epochs: np.ndarray
    capped: list[str]
    short: float

    def note(self, shares: Sequence[Mapping[str, Any]]) -> list[str]:
        """For the card: which sources fall short of what was asked for. shares: what was reached, as on the card."""
        if not self.capped:
            missed = [each for each in shares if abs(each["reached"] - each["asked"]) > FAR]
            told = ", ".join(f"{each['reached']:.1%} of {each['source']}" for each in missed)
            why = "documents are left out or repeated whole, and those whose ends are held out stay"
            return [f"mixture: it came to {told}, which is not what was asked for: {why}"] if missed else []
        missing = (
            f"{self.short:.1%} of the training text is missing, as the other sources are at their cap too"
            if self.short
            else "the other sources share what is missing by their weights"
        )
        return [
            f"mixture: {', '.join(self.capped)} would have to be repeated more often than max_epochs allows, so that "
            f"the share is smaller than asked for; {missing}"
        ]


def is_mixed(settings: CorpusSettings) -> bool:
    """Whether documents are repeated or left out for the sake of shares."""
    return bool(settings.mixture) or settings.temperature is not None


def check_mixture(settings: CorpusSettings, sources: Sequence[str]) -> None:
    """Raises: UsageError when the weights are not those of the sources."""
    if not settings.mixture or set(settings.mixture) == set(sources):
        return
    names = list(dict.fromkeys(sources))
    problems = [f"there is no source {name!r}" for name in settings.mixture if name not in names]
    problems += [f"the source {name!r} has no weight" for name in names if name not in settings.mixture]
    raise UsageError(f"mixture: {'; '.join(problems)}; the sources are {', '.join(names)}")


def choose_mixture(
    sources: Sequence[str], member: np.ndarray, sizes: np.ndarray, digests: np.ndarray, settings: CorpusSettings
) -> Mixture:
    """How often to train on each document.

    sources: names. member: the place of each document's source in them. sizes: of each document, in the unit of the
    weights. digests: uint8 (documents, 16).

    A source that is to be seen 2.3 times has all documents twice and, of those, 30 % a third time: the ones whose
    digest, hashed, falls below 0.3. So raising a weight only adds copies, and equal input gives equal copies.
    """
    names = list(dict.fromkeys(sources))
    member = np.array([names.index(name) for name in sources])[member]
    totals = np.bincount(member, sizes, len(names))
    if settings.mixture:
        weights = np.array([settings.mixture[name] for name in names])
    else:
        weights = totals
        if settings.temperature not in (None, 1):
            # The root of each source's part of the largest: that of its size may be more than a number holds.
            weights = (totals / max(1, totals.max())) ** (1 / settings.temperature)
    asked = weights / weights.sum()
    amounts, capped = _fill(asked, settings.max_epochs * totals, totals.sum())
    epochs = np.divide(amounts, totals, out=np.zeros(len(names)), where=totals > 0)
    salt = np.uint64(Key(0, 0, "mixture").digest() & (2**64 - 1))
    draws = mix(np.ascontiguousarray(digests).view("<u8")[:, 0] ^ salt) / 2.0**64
    whole = np.floor(epochs)
    copies = whole[member] + (draws < (epochs - whole)[member])
    short = 0.0 if not capped.all() else float(1 - amounts.sum() / totals.sum())
    told = [name for name, cap in zip(names, capped & (totals > 0), strict=True) if cap]
    return Mixture(copies.astype(np.int64), names, asked, epochs, told, short)


def _fill(asked: np.ndarray, caps: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """How much of each source makes up `amount`, by the shares `asked`, none above its cap; and which are at theirs.

    float64 and bool (sources,). Each round caps what would overflow and divides the rest anew, so that there are at
    most as many rounds as sources.
    """
    amounts, capped = asked * amount, np.zeros(len(asked), bool)
    while (over := ~capped & (amounts > caps * (1 + 1e-9))).any():
        capped |= over
        free = np.where(capped, 0, asked)
        rest = max(0.0, amount - caps[capped].sum())
        amounts = np.where(capped, caps, free * rest / (free.sum() or 1))
    return amounts, capped
