"""What a build of a corpus can be told."""

from typing import Literal

from pydantic import Field

from tilth.corpus.reading import Extraction, Reading
from tilth.settings import Settings


class CorpusSettings(Settings):
    """Settings of `tilth corpus build`.

    validation: share of the bytes to hold out. max_rejected: share of broken records past which the build fails; unless
    it is 0, a tenth of the records, up to ten, is allowed as well. text_column: the field of tables and JSON records
    that holds the text. extraction: see `Extraction`. near_duplicates: of documents that share most of their text, keep
    all or only the first.
    """

    validation: float = Field(default=0.05, gt=0, lt=0.5)
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    text_column: str = "text"
    extraction: Extraction = "fast"
    near_duplicates: Literal["keep", "drop"] = "keep"

    @property
    def reading(self) -> Reading:
        """How files are read."""
        return Reading(self.text_column, self.extraction)
