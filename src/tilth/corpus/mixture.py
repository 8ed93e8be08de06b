"""How often each document is trained on, so that sources have the shares that were asked for.

Weights are given per source, or follow from the sizes: `temperature` T gives a source of size s the weight s^(1/T)
(Devlin's multilingual BERT and Conneau and Lample 2019, "Cross-lingual Language Model Pretraining", 3.1, with 1/T as
alpha), so that small sources are seen more often than their size says. The amount of text stays what it was as long as
no source is capped: a source is repeated up to `max_epochs` times, as more repetition teaches little (Muennighoff et
al. 2023, "Scaling Data-Constrained Language Models").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilth.corpus.settings import CorpusSettings
from tilth.errors import UsageError
from tilth.key import Key, mix


@dataclass(frozen=True)
class Mixture:
    """copies: how often each document of the training split is in it, int64 (documents,).

    names: the sources, those of one name being one. asked: the share of each. epochs: how often its text is seen.
    capped: sources that are seen as often as is allowed, and less than their share asks for.
    """

    copies: np.ndarray
    names: list[str]
    asked: np.ndarray
    epochs: np.ndarray
    capped: list[str]

    def note(self) -> list[str]:
        """For the card: which sources fall short of what was asked for."""
        if not self.capped:
            return []
        return [
            f"mixture: {', '.join(self.capped)} would have to be repeated more often than max_epochs allows, so that "
            "the share is smaller than asked for; the text that is missing is not made up from other sources"
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
        weights = totals ** (1 / (settings.temperature or 1.0))
    asked = weights / weights.sum()
    epochs = np.divide(asked * totals.sum(), totals, out=np.zeros(len(names)), where=totals > 0)
    capped = [name for name, wanted in zip(names, epochs, strict=True) if wanted > settings.max_epochs]
    epochs = np.minimum(epochs, settings.max_epochs)
    salt = np.uint64(Key(0, 0, "mixture").digest() & (2**64 - 1))
    draws = mix(np.ascontiguousarray(digests).view("<u8")[:, 0] ^ salt) / 2.0**64
    whole = np.floor(epochs)
    copies = whole[member] + (draws < (epochs - whole)[member])
    return Mixture(copies.astype(np.int64), names, asked, epochs, capped)
