"""Where sentences start, for objectives that learn from how one sentence follows another."""

import re

import numpy as np

# An end mark with its closing quotes and brackets, then white space, then anything but a small letter; an ideographic
# end mark, which needs no space; or an empty line. "e.g. this" stays whole; "Mr. Smith" is cut: no list of
# abbreviations serves every language, and a next-sentence objective does not mind.
# That each boundary begins with one of a few characters is said first: searching for it takes a third of the time.
# White space is not given back once matched (possessive), and text ends without any: a run of blank lines would take a
# time that grows with the square of its length.
_BOUNDARY = re.compile(
    r"""[.!?…。！？\n](?:(?<=[.!?…])["'”’»)\]]*+\s++(?=[^a-z])|(?<=[。！？])[”’」』）]*+\s*+(?=\S)|(?<=\n)[^\S\n]*+\n\s*+(?=\S))"""
)


# For a text in small letters alone.
_LAX_BOUNDARY = re.compile(r"""[.!?…]["'”’»)\]]*+\s++(?=\S)|\n[^\S\n]*+\n\s*+(?=\S)""")


def sentence_starts(text: str, ends: np.ndarray) -> np.ndarray:
    """Numbers of the tokens that start a sentence; token 0 always does.

    ends: where each token ends in the text, in characters, never decreasing. Returns int64, strictly increasing.
    """
    if len(ends) == 0:
        return np.zeros(0, dtype=np.int64)
    boundary = _LAX_BOUNDARY if text.islower() else _BOUNDARY
    boundaries = np.fromiter((match.end() for match in boundary.finditer(text.rstrip())), dtype=np.int64)
    # The first token that reaches past the boundary is the sentence's, also where it carries the space before its word.
    starts = np.searchsorted(ends, boundaries, side="right")
    starts = np.unique(np.append(starts, 0))
    return starts[starts < len(ends)].astype(np.int64)
