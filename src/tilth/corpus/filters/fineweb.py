"""The rules that FineWeb adds to C4's and Gopher's (Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for
the Finest Text Data at Scale", 3.6), found by comparing statistics of good and bad crawls."""

import numpy as np

from tilth.corpus.filters.rules import Judge, check_limits, share
from tilth.corpus.filters.segments import Segments

REASONS = {
    "fineweb_line_punctuation": "too few lines end with punctuation (FineWeb: 12 %)",
    "fineweb_short_lines": "too many lines are short (FineWeb: 67 % below 30 characters)",
    "fineweb_duplicate_lines": "too many of the characters are in repeated lines (FineWeb: 10 %)",
}

_FINAL = np.array([ord(character) for character in ".!?\"'”’»…。！？」』؟۔।॥"], np.uint32)
"""FineWeb's end punctuation, with the marks of other scripts."""


def fineweb(
    min_lines_punctuated: float | None = 0.12,
    max_short_lines: float | None = 0.67,
    short_line: int = 30,
    max_duplicate_line_characters: float | None = 0.1,
) -> Judge:
    """FineWeb's rules; a limit of None leaves its rule out.

    min_lines_punctuated: at this share of lines that end with punctuation, or below, a document is dropped.
    max_short_lines: at this share of lines below `short_line` characters, or above. max_duplicate_line_characters: at
    this share of characters in lines that occurred before in the document, or above.
    Raises: UsageError for a limit that is no number.
    """
    check_limits(locals(), "fineweb")

    def judge(segments: Segments) -> dict[str, np.ndarray]:
        lines = segments.lines
        count = segments.per_document(lines.document)
        judged: dict[str, np.ndarray] = {}
        if min_lines_punctuated is not None:
            final = lines.document[np.isin(segments.codes[lines.ends - 1], _FINAL)]
            judged["fineweb_line_punctuation"] = share(segments.per_document(final), count) <= min_lines_punctuated
        if max_short_lines is not None:
            short = lines.document[lines.ends - lines.starts < short_line]
            judged["fineweb_short_lines"] = share(segments.per_document(short), count) >= max_short_lines
        if max_duplicate_line_characters is not None:
            _, characters = segments.repeated(lines)
            judged["fineweb_duplicate_lines"] = characters >= max_duplicate_line_characters
        return judged

    return judge
