"""C4's rules (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
2.2): lines are taken out, then pages are judged by what is left.

Sentences are counted by their ends (`.`, `!`, `?` before white space or the end) where C4 used NLTK. C4's list of bad
words is `words`; its de-duplication of spans of three sentences belongs to the de-duplication.
"""

import re
from collections.abc import Callable

import pyarrow as pa

from tilth.corpus.filters.columns import mark_dropped, merge_metadata, replace_texts
from tilth.corpus.filters.rules import check_limits

REASONS = {
    "c4_curly_bracket": "has a curly bracket: code, not text",
    "c4_lorem_ipsum": "has the placeholder text lorem ipsum",
    "c4_few_sentences": "fewer sentences than a page of text has (C4: 3)",
}

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

UNWANTED = ("javascript", *POLICIES)
_HINTS = ("javascript", "cookie", "terms of use", "privacy policy")

_CITATION = re.compile(r"\[(?:\d{1,4}|edit|citation needed|clarification needed)\]", re.IGNORECASE)
BRACKET_CHARACTERS = 10_000

_LOREM_IPSUM = re.compile(r"[lL](?:orem|OREM) [iI](?:psum|PSUM)")
_SENTENCE_END = re.compile(r"""[.!?]["')\]”’»]{0,3}(?=\s|\Z)""")
_LINE_END = (".", "!", "?", '"', "”", "’", "…")


def c4(
    min_sentences: int | None = 3,
    curly_bracket: bool = True,
    lorem_ipsum: bool = True,
    unwanted_lines: bool = True,
    citations: bool = True,
    sentence_lines: bool = False,
    min_line_words: int = 5,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage with C4's rules. It changes the texts, and says as `removed_c4` in the metadata by how many characters.

    curly_bracket, lorem_ipsum: drop pages that have one; a longer text may have a bracket in 10,000 characters, since
    one misprint makes no program of a book. unwanted_lines: take out lines that name JavaScript or a policy on cookies,
    privacy or use. citations: take out markers such as `[1]` and `[citation needed]`.
    sentence_lines: keep only lines that end as a sentence does and have at least `min_line_words` words. C4 does;
    FineWeb (3.5) found that it removes 30 % of the tokens for little, and it takes headings and hard-wrapped prose
    apart, so that it is off.
    Raises: UsageError for a limit that is no number.
    """
    check_limits({"min_sentences": min_sentences, "min_line_words": min_line_words}, "c4")

    def keeps(line: str) -> bool:
        if not line or line.isspace():
            return True
        if unwanted_lines and _has_any(line.lower(), UNWANTED):
            return False
        return not sentence_lines or (
            line.rstrip().endswith(_LINE_END) and len(line.split(None, min_line_words)) >= min_line_words
        )

    def cleaned(text: str) -> str:
        if citations and "[" in text:
            text = _CITATION.sub("", text)
        if sentence_lines or (unwanted_lines and _has_any(text.lower(), _HINTS)):
            text = "\n".join(line for line in text.split("\n") if keeps(line))
        return text

    def reason(text: str) -> str | None:
        if curly_bracket and text.count("{") + text.count("}") > len(text) // BRACKET_CHARACTERS:
            return "c4_curly_bracket"
        if lorem_ipsum and _LOREM_IPSUM.search(text):
            return "c4_lorem_ipsum"
        if min_sentences and not _has_sentences(text, min_sentences):
            return "c4_few_sentences"
        return None

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        before = batch["text"].to_pylist()
        after = [cleaned(text) for text in before]
        facts = [
            {"removed_c4": len(old) - len(new)} if len(old) > len(new) else {}
            for old, new in zip(before, after, strict=True)
        ]
        return mark_dropped(merge_metadata(replace_texts(batch, after), facts), [reason(text) for text in after])

    return filter_batch


def _has_sentences(text: str, least: int) -> bool:
    ends = _SENTENCE_END.finditer(text)
    return all(next(ends, None) is not None for _ in range(least))


def _has_any(lowered: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in lowered for phrase in phrases)
