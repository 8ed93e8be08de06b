"""The card of a corpus as a terminal shows it: the same figures as `card.md`, set for 80 columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.corpus.card import drop_reasons, reasons, told_of_joining, told_of_repeated

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MOST_SOURCES = 10
"""Sources that are listed; the rest are added up in one line."""

_WIDEST_NAME = 30


def render_card(card: dict[str, Any], folder: Path) -> "Group":
    """The card as something `rich` prints. folder: where the corpus is, for the last line."""
    from rich.console import Group

    return Group(
        f"{card['kept']:,} documents kept of {card['in']:,} records read\n",
        _splits(card["splits"]),
        "",
        _sources(card["sources"]),
        "",
        _facts(card, folder),
    )


def _splits(splits: dict[str, Any]) -> "Table":
    table = new_table("split", "documents", "bytes", "share", "words", "groups", "median length")
    total = sum(split["bytes"] for split in splits.values())
    for name, split in splits.items():
        table.add_row(
            name,
            f"{split['documents']:,}",
            f"{split['bytes']:,}",
            f"{split['bytes'] / total:.1%}",
            f"{split['words']:,}",
            f"{split['groups']:,}",
            f"{split['characters_per_document']['p50']:,}",
        )
    return table


def _sources(sources: list[dict[str, Any]]) -> "Table":
    table = new_table("source", "files", "records", "kept", "bytes", "dropped", "broken")
    counted = [
        (
            source["source"],
            *(source[name] for name in ("files", "in", "kept", "bytes")),
            *(sum(source[name].values()) for name in ("dropped", "rejected")),
        )
        for source in sources
    ]
    rest = counted[MOST_SOURCES:]
    if rest:
        counted = counted[:MOST_SOURCES]
        counted.append(
            (f"{len(rest):,} more", *(sum(column) for column in zip(*(row[1:] for row in rest), strict=True)))
        )
    for name, *figures in counted:
        table.add_row(shortened(name), *(f"{figure:,}" for figure in figures))
    return table


def _facts(card: dict[str, Any], folder: Path) -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in _said(card, folder):
        table.add_row(name, said)
    return table


def _said(card: dict[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    for reason, count in card["dropped"].items():
        meaning = drop_reasons().get(reason)
        yield "dropped", f"{count:,} {reason}" + (f": {meaning}" if meaning else "")
    if card["rejected"]:
        yield "broken", f"{reasons(card['rejected'])}; see {folder / 'rejected'}"
    yield "split", f"{card['split_rule']}; asked for: {card['settings']['validation']:.1%} of the bytes"
    if "near_duplicates" in card:
        yield "near-duplicates", told_of_joining(card["near_duplicates"])[0]
    if "repeated" in card:
        yield "repeated", "; ".join(told_of_repeated(card["repeated"]))
    for source in card.get("mixture", {}).get("sources", []):
        shares = f"{source['reached']:.1%} of the training text, {source['asked']:.1%} asked for"
        yield "mixture", f"{source['source']}: {shares}, {source['epochs']:.2f} epochs"
    leaks = card["leak_check"]
    shared = f"{leaks['groups_on_both_sides']} groups and {leaks['texts_on_both_sides']} texts are on both sides"
    yield "leak check", f"{'passed' if leaks['passed'] else 'FAILED'}: {shared}"
    yield from (("note", note) for note in card["notes"])
    yield "fingerprint", card["fingerprint"]
    page = folder / "card.html"
    yield "whole card", f"{folder / 'card.md'}" + (f"; as a page: {page}" if page.is_file() else "")


def new_table(first: str, *figures: str) -> "Table":
    """A table without lines: names, and columns of figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def shortened(name: str) -> str:
    """A name that fits its column."""
    return name if len(name) <= _WIDEST_NAME else f"{name[: _WIDEST_NAME - 3]}..."
