"""How files are read, whatever their format."""

from dataclasses import dataclass
from typing import Literal

Extraction = Literal["fast", "quality"]
"""How the main content of a page is found. fast: resiliparse. quality: trafilatura, a sixth as fast and more exact."""


@dataclass(frozen=True)
class Reading:
    """text_column: the field of tables and JSON records that holds the text.

    languages: those that will be kept, when others will be dropped: no time goes into pages of others. Empty for all.
    """

    text_column: str = "text"
    extraction: Extraction = "fast"
    languages: tuple[str, ...] = ()


PLAIN = Reading()
"""How files are read unless told."""
