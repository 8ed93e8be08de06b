"""Gopher's rules against repetition (Rae et al. 2021, A1.1, table A1): lines, paragraphs and word n-grams that recur.

What counts as a duplicate is every occurrence but the first. Shares of n-grams are of the characters of words; a
character in two duplicated n-grams counts once. An n-gram can recur only where the one a word shorter does, so that
each length looks at what the last one left.
"""

import numpy as np

from tilth.corpus.filters.rules import Judge, check_limits, share
from tilth.corpus.filters.segments import Segments, covered
from tilth.key import mix

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

REASONS = {
    "repeated_lines": "too many lines occurred before in the document (Gopher: 30 %)",
    "repeated_line_characters": "too many characters are in repeated lines (Gopher: 20 %)",
    "repeated_paragraphs": "too many paragraphs occurred before in the document (Gopher: 30 %)",
    "repeated_paragraph_characters": "too many characters are in repeated paragraphs (Gopher: 20 %)",
    **{f"top_{n}gram": f"the most frequent {n} words make up too much of it (Gopher: {v:.0%})" for n, v in TOP.items()},
    **{
        f"repeated_{n}grams": f"too many characters are in repeated runs of {n} words (Gopher: {v:.0%})"
        for n, v in DUPLICATED.items()
    },
}

_NEXT = np.uint64(0xC2B2AE3D27D4EB4F)


def repetition(
    max_lines: float | None = 0.30,
    max_line_characters: float | None = 0.20,
    max_paragraphs: float | None = 0.30,
    max_paragraph_characters: float | None = 0.20,
    max_top: float = 1.0,
    max_duplicated: float = 1.0,
) -> Judge:
    """Gopher's rules against repetition; a share above its limit drops the document, None leaves its rule out.

    max_top, max_duplicated: factors on the paper's limits for n-grams (`TOP`, `DUPLICATED`).
    Raises: UsageError for a limit that is no number.
    """
    check_limits(locals(), "repetition")
    lines_and_paragraphs = {
        "lines": (max_lines, max_line_characters, "line"),
        "paragraphs": (max_paragraphs, max_paragraph_characters, "paragraph"),
    }

    def judge(segments: Segments) -> dict[str, np.ndarray]:
        judged: dict[str, np.ndarray] = {}
        for name, (max_count, max_characters, one) in lines_and_paragraphs.items():
            counts, characters = segments.repeated(getattr(segments, name))
            if max_count is not None:
                judged[f"repeated_{name}"] = counts > max_count
            if max_characters is not None:
                judged[f"repeated_{one}_characters"] = characters > max_characters
        top, duplicated = ngram_shares(segments)
        for length, values in top.items():
            judged[f"top_{length}gram"] = values > max_top * TOP[length]
        for length, values in duplicated.items():
            judged[f"repeated_{length}grams"] = values > max_duplicated * DUPLICATED[length]
        return judged

    return judge


def ngram_shares(segments: Segments) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """By length of n-gram, for each document: the share of the most frequent one, and of all repeated ones."""
    words = segments.words
    sums = np.concatenate([[0], np.cumsum(words.ends - words.starts)])
    total = segments.per_document(words.document, words.ends - words.starts)
    positions = np.arange(len(words.hashes))
    values = words.hashes + mix(words.document.astype(np.uint64) + np.uint64(1))
    top, duplicated = {}, {}
    for length in range(2, max(DUPLICATED) + 1):
        inside = segments.whole(length)[positions]
        positions, values = positions[inside], values[inside]
        values = values * _NEXT + words.hashes[positions + length - 1]
        positions, values, run_starts = _recurring(positions, values)
        counts = np.diff(np.append(run_starts, len(positions)))
        if length in TOP:
            of_run = words.document[positions[run_starts]]
            most = np.zeros(segments.count, np.int64)
            np.maximum.at(most, of_run, counts)
            characters = (sums[positions + length] - sums[positions])[run_starts] * counts
            largest = np.zeros(segments.count, np.int64)
            np.maximum.at(largest, of_run, np.where(counts == most[of_run], characters, 0))
            top[length] = share(largest, total)
        elif length in DUPLICATED:
            first = np.minimum.reduceat(positions, run_starts) if len(positions) else positions
            later = positions[positions != np.repeat(first, counts)]
            again = covered(later, length, len(words.hashes))
            duplicated[length] = share(segments.per_document(words.document, again * np.diff(sums)), total)
    return top, duplicated


def _recurring(positions: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those that have a value in common with another, equal ones side by side, and where each run of them starts."""
    order = np.argsort(values)
    ordered = values[order]
    new = np.ones(len(ordered) + 1, bool)
    new[1:-1] = ordered[1:] != ordered[:-1]
    kept = ~(new[:-1] & new[1:])
    return positions[order[kept]], ordered[kept], np.flatnonzero(new[:-1][kept])
