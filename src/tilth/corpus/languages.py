"""The languages of some documents: what their metadata say, or else what they are told to be."""

import re
from collections import Counter
from collections.abc import Sequence

from tilth.corpus.filters.language import identify
from tilth.corpus.sample import Sampled
from tilth.errors import TilthError

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Tibetan, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese but for its Chinese characters
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""The characters, as ranges of a regular expression, of scripts that put no spaces between words."""


def languages_of(documents: Sequence[Sampled]) -> list[str] | None:
    """The ISO 639 code of each document's language; None where telling one needs the extra `language`, which is absent.

    What a page or a filter said of a document is taken as it is.
    """
    try:
        return [_said(document) or identify(document.text)[0] for document in documents]
    except TilthError:
        return None


def shares(names: Sequence[str]) -> dict[str, float]:
    """What share of the names each is, the most frequent first."""
    counts = Counter(names).most_common()
    return {name: count / len(names) for name, count in sorted(counts, key=lambda pair: (-pair[1], pair[0]))}


def _said(document: Sampled) -> str | None:
    """The primary subtag of a language tag, such as `en` of `en-US`."""
    said = document.metadata.get("language")
    primary = re.match(r"[a-z]{2,3}(?![a-z])", said.lower()) if isinstance(said, str) else None
    return primary[0] if primary else None
