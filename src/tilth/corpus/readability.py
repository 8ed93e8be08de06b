"""How hard English prose is to read."""

import functools
import re

FEWEST_WORDS = 100
"""Words of the shortest text that is measured; Flesch took samples of 100."""

_WORD = re.compile(r"[a-z]+(?:['\u2019][a-z]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"'\u2019\u201d)\]]|$)")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(r"(?:[aeiouy]l|[^aeiouyl])e$|[^aeiouytd]ed$|(?:[aeiouy]l|[^aeiouylszxcgh])es$")
"""A final e that is not said, as in `take` and `whole`, not in `table`; in `walked`, not in `wanted`; in `takes`."""


def reading_ease(text: str) -> float | None:
    """Flesch's reading ease (Flesch 1948, "A New Readability Yardstick"); None below 100 words.

    206.835 - 1.015 (words / sentences) - 84.6 (syllables / words): about 100 very easy, 60 to 70 plain English, below
    30 academic. Syllables are told by rule, as groups of vowels, which errs on some words.
    """
    words = _WORD.findall(text.lower())
    if len(words) < FEWEST_WORDS:
        return None
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


@functools.lru_cache(2**16)
def syllables(word: str) -> int:
    """Syllables of an English word in lower case, at least one."""
    return max(1, len(_VOWELS.findall(word)) - (_SILENT.search(word) is not None))
