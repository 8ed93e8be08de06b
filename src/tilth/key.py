"""Randomness without state: every draw is derived from a `Key`, so that a new draw changes nothing elsewhere."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")


class Key(NamedTuple):
    """What a random draw depends on, and nothing else.

    seed: the run's seed. index: the step, row, document or epoch the draw belongs to. purpose: what is drawn.
    """

    seed: int
    index: int
    purpose: str

    def digest(self) -> int:
        """128 bits that depend on every field."""
        content = f"{self.seed}/{self.index}/{self.purpose}".encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little")

    def generator(self) -> np.random.Generator:
        """A fresh NumPy generator; equal keys give equal streams on every platform."""
        return np.random.Generator(np.random.Philox(key=self.digest()))

    def torch_seed(self) -> int:
        """A seed for `torch.manual_seed`."""
        return self.digest() & (2**63 - 1)


def draw(items: Iterable[Item], most: int, key: Key) -> list[Item]:
    """All, or of more than `most` a sample in which each is equally likely (Vitter 1985, algorithm R), as they pass."""
    kept: list[Item] = []
    generator = key.generator()
    for number, item in enumerate(items):
        if number < most:
            kept.append(item)
        elif (place := int(generator.integers(number + 1))) < most:
            kept[place] = item
    return kept


def permute(indexes: np.ndarray, size: int, key: Key) -> np.ndarray:
    """Where each index of `range(size)` goes under the pseudo-random permutation that `key` names.

    A four-round Feistel network on the smallest even number of bits that holds `size`, walked along its cycle until the
    value is in range (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). It needs no memory for
    the permutation, so the order of a corpus of any size is a pure function of (seed, epoch, index).

    indexes: int64, any shape, values in [0, size). Returns int64 of the same shape.
    """
    assert indexes.size == 0 or (indexes.min() >= 0 and indexes.max() < size), "an index is not in range(size)"
    if size <= 1:
        return np.zeros(indexes.shape, np.int64)
    half_bits = max(1, (int(size - 1).bit_length() + 1) // 2)
    half_mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    round_keys = key.generator().integers(0, 2**63, size=4, dtype=np.uint64)

    def encrypt(values: np.ndarray) -> np.ndarray:
        left, right = values >> shift, values & half_mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & half_mask)
        return (left << shift) | right

    values = encrypt(indexes.astype(np.uint64).ravel())
    outside = values >= size
    while outside.any():
        values[outside] = encrypt(values[outside])
        outside = values >= size
    return values.astype(np.int64).reshape(indexes.shape)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
