"""What differs between two corpora, as a terminal shows it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tilth.corpus.card_text import new_table

if TYPE_CHECKING:
    from rich.console import Group

_KINDS = {
    "both": "in both",
    "only_first": "only in the first",
    "only_second": "only in the second",
    "changed": "another text under the same id",
}
_LANGUAGES, _LEAST_SHARE = 5, 0.001


def render_diff(found: Mapping[str, Any]) -> "Group":
    """The result of `diff_corpora` as something `rich` prints."""
    from rich.console import Group

    first, second = found["corpora"]
    if found["equal"]:
        return Group(f"{first} and {second} hold the same documents in the same splits.", *_built_otherwise(found))
    table = new_table("", "first", "second")
    for name, pair in {**found["counts"], **found["sizes"]}.items():
        if pair[0] != pair[1]:
            table.add_row(name, *(f"{value:,}" for value in pair))
    for name, pair in _languages(found["languages"]):
        table.add_row(f"language: {name}", *(f"{value:.1%}" for value in pair))
    figures = [*_documents(found), "", table, "", *_words(found), *_built_otherwise(found)]
    return Group(f"first: {first}\nsecond: {second}\n", *figures)


def _documents(found: Mapping[str, Any]) -> Iterator[str]:
    for kind, count in found["documents"].items():
        yield f"{count:,} documents {_KINDS[kind]}"
        for name, text in found["examples"].get(kind, []):
            yield f"  {name}: {text[:120]}"


def _languages(pair: Sequence[Mapping[str, float] | None]) -> Iterator[tuple[str, list[float]]]:
    first, second = pair
    if first is not None and second is not None:
        for name in list({**first, **second})[:_LANGUAGES]:
            shares = [side.get(name, 0.0) for side in (first, second)]
            if max(shares) >= _LEAST_SHARE:
                yield name, shares


def _words(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"Their words diverge by {found['divergence']['value']:.3f} bits of 1."
    for name, words in zip(("first", "second"), found["characteristic_words"], strict=True):
        if words:
            yield f"Characteristic of the {name}: {', '.join(words)}"


def _built_otherwise(found: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (("only_first", "only in the first"), ("only_second", "only in the second")):
        if found["sources"][name]:
            yield f"Sources {words}: {', '.join(found['sources'][name])}"
    for kind in ("settings", "stages"):
        for name, (first, second) in found[kind].items():
            yield f"{kind.removesuffix('s')} {name}: {first} in the first, {second} in the second"
