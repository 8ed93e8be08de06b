"""Train and validation: which groups are held out, and proof that nothing is on both sides."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from tilth.corpus.dedupe import digest
from tilth.corpus.normalise import normalised
from tilth.errors import TilthError

MIN_GROUPS = 1000
"""Groups from which a threshold on their hash gives the share that was asked for."""

MOST_CUT = 8
"""Documents that give their ends where a single one would be held out."""

LEAST_END = 500
"""Bytes of an end that are worth holding out: some sentences. Shorter documents are held out whole."""

_BEGINNING = 12
"""Words that texts are compared by before they are compared whole."""


@dataclass(frozen=True)
class Split:
    """validation: which documents are held out, bool (documents,). rule: how it was decided, in words for the card.

    ends: documents whose ends are held out as well, each with about how many bytes of it.
    """

    validation: np.ndarray
    rule: str
    ends: dict[int, int] = field(default_factory=dict)


def choose_split(groups: np.ndarray, sizes: np.ndarray, share: float) -> Split:
    """Hold out about `share` of the bytes in whole groups.

    groups: the group of each document, a hash: uint64 (documents,). sizes: bytes of each document.

    From 1,000 groups on, those are held out whose hash, as a fraction, is below `share`: a document stays on its side
    when others come or go. With fewer, or where a huge group makes that miss the share by half, groups are taken
    in the order of their hashes as long as they fit. If they come to less than half of the share, the smallest group
    that mends this is added, unless it would take more than half of everything; then the end of the largest document is
    held out instead, which is also what happens to a single document.

    Where this would hold out one document of several, nothing could be compared with another document: the two smallest
    groups that give half of the share are held out instead if they are no more than twice the share, else the ends of
    up to eight large documents, of 500 bytes or more. A corpus too small for this has one document held out.
    """
    split = _whole_groups(groups, sizes, share)
    if len(sizes) > 1 and split.validation.sum() + len(split.ends) == 1:
        return _several_documents(groups, sizes, share) or split
    return split


def _whole_groups(groups: np.ndarray, sizes: np.ndarray, share: float) -> Split:
    names, member = np.unique(groups, return_inverse=True)  # sorted, so in the order of the hashes
    group_sizes = np.bincount(member, weights=sizes)
    total = group_sizes.sum()
    wanted = share * total
    if len(names) >= MIN_GROUPS:
        held = names / 2.0**64 < share
        if 0.5 * wanted <= group_sizes[held].sum() <= 1.5 * wanted:
            return Split(held[member], "groups whose hash is below the share")
    held = np.zeros(len(names), bool)
    taken = 0.0
    for index, size in enumerate(group_sizes):
        if taken + size <= 1.05 * wanted:
            held[index] = True
            taken += size
    rule = "groups in the order of their hashes while they fit the share"
    if taken >= 0.5 * wanted:
        return Split(held[member], rule)
    free = [index for index in np.argsort(group_sizes, kind="stable") if not held[index]]
    enough = [index for index in free if taken + group_sizes[index] >= 0.5 * wanted]
    if enough and taken + group_sizes[enough[0]] <= 0.5 * total:
        held[enough[0]] = True
        return Split(held[member], rule + ", and the smallest that fills it")
    outside = np.flatnonzero(~held[member])
    alone = outside[np.bincount(member)[member[outside]] == 1]  # a document with a near-copy would leak into it
    outside = alone if len(alone) else outside
    largest = int(outside[np.argmax(sizes[outside])])
    end = min(int(wanted - taken), int(sizes[largest]) // 2)
    return Split(held[member], rule + ", and the end of the largest document", {largest: max(1, end)})


def _several_documents(groups: np.ndarray, sizes: np.ndarray, share: float) -> Split | None:
    """A split with at least two documents held out, or None where there are no two that can be spared."""
    _, member, members = np.unique(groups, return_inverse=True, return_counts=True)
    group_sizes = np.bincount(member, weights=sizes)
    wanted = share * group_sizes.sum()
    smallest = np.argsort(group_sizes, kind="stable")
    for second in smallest[1:]:
        both = group_sizes[smallest[0]] + group_sizes[second]
        if both > 2 * wanted:
            break
        if both >= 0.5 * wanted:
            return Split(np.isin(member, (smallest[0], second)), "the two smallest groups that fill the share")
    alone = np.flatnonzero(members[member] == 1)
    largest = alone[np.argsort(-sizes[alone], kind="stable")][:MOST_CUT]
    for count in range(len(largest), 1, -1):
        cut = largest[:count]
        given = min(0.5, wanted / sizes[cut].sum())
        if given * sizes[cut[-1]] >= LEAST_END:
            ends = {int(index): int(given * sizes[index]) for index in sorted(cut)}
            return Split(np.zeros(len(sizes), bool), f"the ends of the {count} largest documents", ends)
    return None


def cut_text(text: str, share: float) -> tuple[str, str]:
    """Cut off the last `share` of the characters, at the first line end from there, else at white space, else anywhere.

    Raises: TilthError when there are fewer than two characters.
    """
    length = len(text.rstrip())
    if length < 2:
        raise TilthError("the only document is too short to hold out a part of it: add more text")
    start = min(max(1, int(length * (1 - share))), length - 1)
    for boundary in (r"\n", r"\s"):
        found = re.compile(boundary).search(text, start - 1, length)
        if found:
            return text[: found.end()], text[found.end() :]
    return text[:start], text[start:]


def check_leaks(corpus: Path) -> dict[str, int]:
    """Read both sides of a written corpus back, and count groups and normalised texts that are on both.

    In memory are those of the validation side. A text of the other side is normalised where it begins as one of them.
    """
    groups: set[str] = set()
    beginnings: set[str] = set()
    texts: set[bytes] = set()
    for group, text in _groups_and_texts(corpus / "validation"):
        groups.add(group)
        beginnings.add(_beginning(text))
        texts.add(digest(normalised(text)))
    both_groups: set[str] = set()
    both_texts: set[bytes] = set()
    for group, text in _groups_and_texts(corpus / "train"):
        if group in groups:
            both_groups.add(group)
        if _beginning(text) in beginnings and (found := digest(normalised(text))) in texts:
            both_texts.add(found)
    return {"groups_on_both_sides": len(both_groups), "texts_on_both_sides": len(both_texts)}


def _beginning(text: str) -> str:
    """The first words: the same for all texts that `normalised` makes equal."""
    return " ".join(text.split(None, _BEGINNING)[:_BEGINNING]).casefold()


def _groups_and_texts(side: Path) -> Iterator[tuple[str, str]]:
    """The group and the text of each document."""
    for path in sorted(side.glob("*.parquet")):
        with parquet.ParquetFile(path) as file:
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=["group", "text"], use_threads=False)
                yield from zip(table["group"].to_pylist(), table["text"].to_pylist(), strict=True)
