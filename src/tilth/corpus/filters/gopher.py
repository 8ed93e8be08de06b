"""Gopher's quality rules (Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training
Gopher", A1.1): what has the shape of prose, by its words and lines. Words are those of `segments`."""

from collections.abc import Callable, Sequence

import numpy as np

from tilth.corpus.filters.hashes import HashSet
from tilth.corpus.filters.rules import Judge, check_limits, share
from tilth.corpus.filters.segments import LETTER, Segments, word_hashes
from tilth.errors import UsageError

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

REASONS = {
    "gopher_few_words": "fewer words than a text has (Gopher: 50)",
    "gopher_many_words": "more words than allowed",
    "gopher_word_length": "words too short or too long on average (Gopher: 3 to 10 characters)",
    "gopher_hashes": "a # for every tenth word or more",
    "gopher_ellipses": "an ellipsis for every tenth word or more",
    "gopher_bullets": "more than 90 % of the lines start with a bullet",
    "gopher_cut_lines": "more than 30 % of the lines end with an ellipsis",
    "gopher_no_letters": "fewer than 80 % of the words have a letter",
    "gopher_stop_words": "fewer than two of the words that English prose has",
}

_BULLETS = np.array([ord(character) for character in "•‣⁃◦▪■●·*-"], np.uint32)


def gopher(
    min_words: int | None = 50,
    max_words: int | None = None,
    min_word_length: float | None = 3,
    max_word_length: float | None = 10,
    max_hashes: float | None = 0.1,
    max_ellipses: float | None = 0.1,
    max_bullet_lines: float | None = 0.9,
    max_cut_lines: float | None = 0.3,
    min_with_letter: float | None = 0.8,
    min_stop_words: int | None = 2,
    stop_words: Sequence[str] = STOP_WORDS,
) -> Judge:
    """Gopher's rules; a limit of None leaves its rule out.

    max_hashes, max_ellipses: signs for each word. min_stop_words: how many different words of `stop_words` (for
    another language give its own) a document has, in lower case, capitalised, or all capitals.
    Gopher drops what has more than 100,000 words; here books are kept, so that `max_words` has no default.
    Raises: UsageError for a limit that is no number, a stop word that is not one word, and fewer of them than
    min_stop_words.
    """
    limits = {name: value for name, value in locals().items() if name != "stop_words"}
    check_limits(limits, "gopher")
    for word in stop_words:
        if len(word_hashes(word)) != 1:
            raise UsageError(f"gopher: the stop word {word!r} is not one word")
    if min_stop_words is not None and len(set(stop_words)) < min_stop_words:
        raise UsageError(
            f"gopher: {len(set(stop_words))} stop words are given, of which no text can have min_stop_words="
            f"{min_stop_words}; give more, or null for no such rule"
        )
    forms = {int(word_hashes(form)[0]): index for index, word in enumerate(stop_words) for form in _cases(word)}
    members = HashSet(np.array(list(forms), np.uint64))
    word_of = np.array([forms[int(value)] for value in members.values], np.int64)

    def judge(segments: Segments) -> dict[str, np.ndarray]:
        words, lines = segments.words, segments.lines
        count = segments.per_document(words.document)
        length = share(segments.per_document(words.document, words.ends - words.starts), count)
        line_count = segments.per_document(lines.document)
        judged: dict[str, np.ndarray] = {}
        if min_words is not None:
            judged["gopher_few_words"] = count < min_words
        if max_words is not None:
            judged["gopher_many_words"] = count > max_words
        short = length < min_word_length if min_word_length is not None else np.zeros(len(count), bool)
        long = length > max_word_length if max_word_length is not None else np.zeros(len(count), bool)
        judged["gopher_word_length"] = short | long
        if max_hashes is not None:
            judged["gopher_hashes"] = _signs(segments, lambda codes: codes == ord("#")) > max_hashes * count
        if max_ellipses is not None:
            judged["gopher_ellipses"] = _signs(segments, _ellipses) > max_ellipses * count
        if max_bullet_lines is not None:
            bullets = lines.document[np.isin(segments.codes[lines.starts], _BULLETS)]
            judged["gopher_bullets"] = share(segments.per_document(bullets), line_count) > max_bullet_lines
        if max_cut_lines is not None:
            cut = segments.per_document(lines.document[_end_in_ellipsis(segments)])
            judged["gopher_cut_lines"] = share(cut, line_count) > max_cut_lines
        if min_with_letter is not None:
            with_letter = segments.per_document(words.document[_have_letter(segments)])
            judged["gopher_no_letters"] = share(with_letter, count) < min_with_letter
        if min_stop_words is not None:
            positions, which = members.find(words.hashes)
            pairs = np.unique(words.document[positions] * len(stop_words) + word_of[which])
            found = segments.per_document(pairs // max(1, len(stop_words)))
            judged["gopher_stop_words"] = found < min_stop_words
        return judged

    return judge


def _cases(word: str) -> set[str]:
    return {word, word.capitalize(), word.upper()}


def _signs(segments: Segments, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How often a sign occurs in each document."""
    return segments.per_document(segments.document(np.flatnonzero(find(segments.codes))))


def _ellipses(codes: np.ndarray) -> np.ndarray:
    """Where `…` is, and where three dots start that no dot precedes."""
    dots = codes == ord(".")
    found = codes == ord("…") if codes.dtype != np.uint8 else np.zeros(len(codes), bool)
    found[1:-2] |= dots[1:-2] & dots[2:-1] & dots[3:] & ~dots[:-3]
    return found


def _end_in_ellipsis(segments: Segments) -> np.ndarray:
    codes, lines = segments.codes, segments.lines
    dots = (codes[lines.ends - 1] == ord(".")) & (codes[lines.ends - 2] == ord("."))
    dots &= (lines.ends - lines.starts >= 3) & (codes[np.maximum(lines.ends - 3, 0)] == ord("."))
    return dots | (codes[lines.ends - 1] == ord("…"))


def _have_letter(segments: Segments) -> np.ndarray:
    """bool (words,): whether a word has a letter; most have one at their start, the others are looked through."""
    words = segments.words
    found = segments.kinds[words.starts] & LETTER != 0
    rest = np.flatnonzero(~found)
    if len(rest):
        bounds = np.stack([words.starts[rest], words.ends[rest]], axis=1).ravel()
        found[rest] = np.bitwise_or.reduceat(segments.kinds, bounds)[::2] & LETTER != 0
    return found
