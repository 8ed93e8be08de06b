"""Which words stand for the vocabulary in the loss of a step (sampled softmax)."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from tilth.key import Key
from tilth.model.cross_entropy import Sample
from tilth.model.warm_start import sample_tokens
from tilth.objectives import Objective
from tilth.tokens.shards import ShardSplit
from tilth.train.distributed import World

SMALL_VOCABULARY = 4096
"""Up to so many words the softmax always takes all: there is little to save."""
FREQUENT = 2 / 3
"""How many of the words are the most frequent ones; the others are drawn."""
BEGIN, END = 0.1, 0.8
"""Share of the budget from which on and up to which words are sampled. At first most of what is learnt is which words
are rare, and at the end the rate is too low for noise in that to even out."""


@dataclass(frozen=True)
class WordSample:
    """Draws the sample of each step, a pure function of (shards, seed, step).

    The most frequent words to be predicted are in every sample. Each of the others stands for as many of them as there
    are for each that was drawn, so that the estimated sum of the softmax is right on average.
    """

    objective: Objective
    split: ShardSplit
    vocab_size: int
    share: float
    """Of the vocabulary in a sample."""
    seed: int
    device: torch.device
    world: World

    @property
    def count(self) -> int:
        """Words in a sample."""
        return self.vocab_size if self.vocab_size <= SMALL_VOCABULARY else math.ceil(self.share * self.vocab_size)

    @property
    def mean_share(self) -> float:
        """Of the vocabulary in the softmax, over all steps of a budget."""
        return 1 - (END - BEGIN) * (1 - self.count / self.vocab_size)

    def at(self, step: int, spent: float) -> Sample | None:
        """The sample of a step; None where the softmax takes all words. spent: share of the budget.

        Every process must call it: at the first sample the words are counted.
        """
        if self.count == self.vocab_size or not BEGIN <= spent < END:
            return None
        frequent, rare = np.split(self._by_frequency, [round(FREQUENT * self.count)])
        drawn = self.count - len(frequent)
        generator = Key(self.seed, step, "word sample").generator()
        words = np.concatenate([frequent, generator.choice(rare, drawn, replace=False)])
        log_weights = np.zeros(self.count, np.float32)
        log_weights[len(frequent) :] = math.log(len(rare) / drawn)
        places = np.full(self.vocab_size, -1)
        places[words] = np.arange(self.count)
        return Sample(*(torch.from_numpy(array).to(self.device) for array in (words, log_weights, places)))

    @cached_property
    def _by_frequency(self) -> np.ndarray:
        return np.array(self.world.share(self._counted() if self.world.is_first else None))

    def _counted(self) -> list[int]:
        """All words, the most frequent first."""
        tokens = sample_tokens(self.split, self.seed)
        counts = np.bincount(tokens[tokens >= 0], minlength=self.vocab_size)
        # Packing adds these to each document, which is as often as they are predicted, or more.
        np.add.at(counts, list(self.objective.framing.document_suffix), self.split.num_documents)
        return np.argsort(-counts, kind="stable").tolist()
