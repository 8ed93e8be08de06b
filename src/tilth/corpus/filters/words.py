"""Adult, toxic or otherwise unwanted words, from a list of the user's: none comes with Tilth."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from tilth.corpus.clean import clean_text
from tilth.corpus.filters.hashes import HashSet
from tilth.corpus.filters.rules import check_limits, judging_stage, share
from tilth.corpus.filters.segments import Segments, covered, gather
from tilth.errors import UsageError

REASONS = {"listed_words": "more words of the given list than allowed"}


def words(path: str, max_share: float = 0.0) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops documents in which more than `max_share` of the words are on a list.

    path: a UTF-8 file with a word or phrase on each line. They match whole words in any case, in the first million
    characters of a document; a script that does not divide words is matched only where signs do.
    Raises: UsageError when the file cannot be read, or holds no word.
    """
    check_limits({"max_share": max_share}, "words")
    phrases = _read(path)

    def judge(folded: Segments) -> dict[str, np.ndarray]:
        listed = np.zeros(len(folded.words.hashes), bool)
        for length, members in phrases.items():
            positions, _ = members.find(folded.ngrams(length))
            positions = positions[folded.whole(length)[positions]]
            listed |= covered(positions, length, len(listed))
        document = folded.words.document
        found = share(folded.per_document(document[listed]), folded.per_document(document))
        return {"listed_words": found > max_share}

    return judging_stage(judge, fold_case=True)


def _read(path: str) -> dict[int, HashSet]:
    """The phrases of the list by their number of words."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"words: cannot read the list {path}: {error}") from None
    phrases: defaultdict[int, set[int]] = defaultdict(set)
    for segments in gather([clean_text(line).casefold() for line in lines]):
        counts = segments.per_document(segments.words.document)
        ends = np.cumsum(counts)
        for length in np.unique(counts[counts > 0]).tolist():
            starts = (ends - counts)[counts == length]
            phrases[length].update(segments.ngrams(length)[starts].tolist())
    if not phrases:
        raise UsageError(f"words: the list {path} holds no word; write one word or phrase on each line")
    return {length: HashSet(np.array(list(values), np.uint64)) for length, values in sorted(phrases.items())}
