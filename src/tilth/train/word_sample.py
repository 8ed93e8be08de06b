"""Which words stand for the vocabulary in the loss of a step (sampled softmax)."""

import math

import numpy as np
import torch

from tilth.key import Key
from tilth.model.cross_entropy import Sample
from tilth.model.warm_start import sample_tokens
from tilth.tokens.shards import ShardSplit

SMALL_VOCABULARY = 4096
"""Up to so many words the softmax always takes all: there is little to save."""
FREQUENT = 2 / 3
"""How many of the words are the most frequent ones; the others are drawn."""
BEGIN, END = 0.1, 0.8
"""Share of the budget from which on and up to which words are sampled. At first most of what is learnt is which words
are rare, and at the end the rate is too low for noise in that to even out."""


class WordSample:
    """Draws the sample of each step, a pure function of (shards, seed, step).

    The most frequent words are in every sample. Each of the others stands for as many of them as there are for each
    that was drawn, so that the estimated sum of the softmax is right on average.
    """

    def __init__(self, split: ShardSplit, vocab_size: int, share: float, seed: int) -> None:
        """share: of the vocabulary in a sample."""
        self.seed = seed
        self.count = vocab_size if vocab_size <= SMALL_VOCABULARY else math.ceil(share * vocab_size)
        self.is_whole = self.count == vocab_size
        if self.is_whole:
            return
        tokens = sample_tokens(split, seed)
        counts = np.bincount(tokens[tokens >= 0], minlength=vocab_size)
        by_count = np.argsort(-counts, kind="stable")
        self.frequent, self.rare = np.split(by_count, [round(FREQUENT * self.count)])

    def at(self, step: int, spent: float) -> Sample | None:
        """The sample of a step; None where the softmax takes all words. spent: share of the budget."""
        if self.is_whole or not BEGIN <= spent < END:
            return None
        drawn = self.count - len(self.frequent)
        generator = Key(self.seed, step, "word sample").generator()
        words = np.concatenate([self.frequent, generator.choice(self.rare, drawn, replace=False)])
        log_weights = np.zeros(self.count, np.float32)
        log_weights[len(self.frequent) :] = math.log(len(self.rare) / drawn)
        places = np.full(len(self.frequent) + len(self.rare), -1)
        places[words] = np.arange(self.count)
        return Sample(*map(torch.from_numpy, (words, log_weights, places)))
