"""What a build of a corpus can be told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tilth.corpus.reading import Extraction, Reading
from tilth.corpus.remote.manners import Manners
from tilth.recipe import read_values
from tilth.settings import Settings, load_settings, nearest

RECIPES = "tilth.recipes.corpus"

TRANSPORT = {"base_url", "connections", "pause"}
"""Settings that say where files are and how they get here. They are not on a card: they change nothing in a corpus."""


class Repeated(Settings):
    """Lines and paragraphs that several documents have, and what becomes of them."""

    lines: int | None = Field(default=None, ge=1, description="take out lines that more than so many documents have")
    paragraphs: int | None = Field(
        default=None, ge=1, description="take out paragraphs that more than so many documents have"
    )
    keep: Literal["first", "none"] = Field(
        default="first", description="whether they stay in the first document that has them"
    )
    characters: int = Field(default=20, ge=1, description="how long a line or paragraph is at least that is taken out")
    left: int = Field(
        default=200, ge=1, description="characters without which a document is dropped after it has lost some"
    )

    @property
    def kinds(self) -> list[str]:
        """What is taken out: `lines`, `paragraphs`, both or none."""
        return [kind for kind in ("lines", "paragraphs") if getattr(self, kind) is not None]

    def idle(self) -> dict[str, str]:
        """How it is taken out, where nothing is."""
        return {} if self.kinds else dict.fromkeys(("keep", "characters", "left"), "lines")


class CorpusSettings(Settings):
    """Settings of `tilth corpus build`."""

    validation: float = Field(default=0.05, gt=0, lt=0.5, description="share of the bytes to hold out")
    max_rejected: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of broken records past which to stop; unless it is 0, a tenth of few is allowed as well",
    )
    text_column: str = Field(default="text", description="field of tables and JSON records that holds the text")
    extraction: Extraction = Field(
        default="fast", description="how a page's main content is found; quality: more exact, a sixth as fast"
    )
    near_duplicates: Literal["keep", "drop"] = Field(
        default="keep", description="of documents that share most of their text, keep all or only the first"
    )
    repeated: Repeated = Field(
        default=Repeated(), description="lines and paragraphs to take out as many documents have them"
    )
    known: list[str] = Field(
        default=[],
        description="corpora whose documents are not wanted again, nor with near_duplicates=drop their near-copies",
    )
    mixture: dict[str, float] = Field(
        default={},
        description="share of each source in the training split, by name: mixture={novels: 0.7, papers: 0.3}",
    )
    temperature: float | None = Field(
        default=None, gt=0, description="without mixture: shares are the sources' sizes to the power 1/temperature"
    )
    mixture_by: Literal["bytes", "words"] = Field(default="bytes", description="what shares are shares of")
    max_epochs: float = Field(default=4.0, gt=0, le=100, description="how often a source is repeated for its share")
    base_url: str = Field(default="", description="what the paths of a list such as warc.paths.gz are below")
    connections: int = Field(default=4, ge=1, le=64, description="requests to one server that may run at once")
    pause: float = Field(default=0.0, ge=0, le=3600, description="seconds between two requests on one connection")
    filters: dict[str, dict[str, Any]] = Field(
        default={},
        description="what judges, edits or drops documents, each with its parameters: filters.language.keep=[en] "
        "filters.quality={}; see docs/corpus.md",
    )

    @field_validator("filters", mode="before")
    @classmethod
    def _known(cls, filters: Any) -> Any:
        from tilth.corpus.filters import FILTERS

        if not isinstance(filters, dict):
            return filters
        for name in filters:
            if name not in FILTERS:
                raise ValueError(f"there is no filter {name!r}{nearest(str(name), list(FILTERS))}")
        # Without parameters a filter may be given as `true`, and taken out of a recipe's as `false`.
        kept = {name: value for name, value in filters.items() if value not in (None, False)}
        return {name: {} if value is True else value for name, value in kept.items()}

    @field_validator("mixture")
    @classmethod
    def _positive(cls, mixture: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name, weight in mixture.items() if weight <= 0]:
            raise ValueError(f"weights are above 0; to leave out {wrong[0]}, do not name it as a source")
        return mixture

    def idle(self) -> dict[str, str]:
        """Settings of a mixture where there is none, and a temperature where the weights are given."""
        if self.mixture:
            return {"temperature": "mixture"}
        return {} if self.temperature is not None else {"mixture_by": "mixture", "max_epochs": "mixture"}

    @property
    def reading(self) -> Reading:
        """How files are read."""
        language = self.filters.get("language", {})
        languages = [] if language.get("by_paragraph") else language.get("keep") or []
        return Reading(self.text_column, self.extraction, tuple(languages))

    @property
    def manners(self) -> Manners:
        """How servers are used."""
        return Manners(self.connections, self.pause)


def load_corpus_settings(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> CorpusSettings:
    """Settings from a built-in name (`web`) or a YAML file, or the defaults, changed by `key=value` overrides.

    Raises: UsageError that lists every problem.
    """
    values = {} if recipe is None else read_values(recipe, RECIPES)
    return load_settings(CorpusSettings, overrides, values, "the settings" if recipe is None else str(recipe))
