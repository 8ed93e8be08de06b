"""The card of a corpus: what is in it, where it is from, and what was left out and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

DROPPED = {
    "disambiguation": "a page that only lists the pages a title may mean",
    "duplicate": "the same text as an earlier document, apart from case and white space",
    "empty": "no text",
    "hidden": "a file in an archive whose name, or a folder's it is in, starts with a dot",
    "http_status": "a page that the server did not give: redirects, errors",
    "known": "in a corpus that the setting `known` names, or most of its text is",
    "metadata_only": "a WAT record, which describes a page and holds none",
    "mixture": "left out of the training split, so that sources have the shares asked for",
    "near_duplicate": "most of its text is in an earlier document",
    "not_a_response": "a record of a web crawl that holds no page: requests, revisits, the crawler's notes",
    "not_an_article": "a page of a wiki outside its main namespace: talk, templates, help",
    "not_text": "a picture, script or other file of a web crawl that is neither HTML nor plain text",
    "not_wikitext": "a page of a wiki that is data or a program",
    "only_repeated": "too little is left of it without the lines or paragraphs that many documents have",
    "redirect": "a page of a wiki that only leads to another",
    "too_short": "a docstring below 100 characters",
    "unsupported": "a file of a format that is not read",
}


_UNITS = ("lines", "paragraphs")


def drop_reasons() -> dict[str, str]:
    """What every reason to drop a record means, those of the filters among them."""
    from tilth.corpus.filters import FILTERS

    return DROPPED | {reason: meaning for each in FILTERS.values() for reason, meaning in each.reasons.items()}


@dataclass
class Tally:
    """Counts of one source: records in, and what became of them."""

    source: str
    files: int
    records: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    characters: int = 0
    words: int = 0

    def add(self, other: "Tally") -> None:
        """Count what became of the records of `other` too."""
        self.records += other.records
        self.kept += other.kept
        self.dropped.update(other.dropped)
        self.rejected.update(other.rejected)

    def to_json(self) -> dict[str, Any]:
        """The counts under the names of the card; bytes, characters and words are those of the kept documents."""
        return {
            "source": self.source,
            "files": self.files,
            **counts([self]),
            "bytes": self.bytes,
            "characters": self.characters,
            "words": self.words,
        }


def counts(tallies: Iterable[Tally]) -> dict[str, Any]:
    """The four counts of all sources together: in = kept + sum(dropped) + sum(rejected)."""
    tallies = list(tallies)
    dropped = sum((tally.dropped for tally in tallies), Counter())
    rejected = sum((tally.rejected for tally in tallies), Counter())
    return {
        "in": sum(tally.records for tally in tallies),
        "kept": sum(tally.kept for tally in tallies),
        "dropped": dict(sorted(dropped.items())),
        "rejected": dict(sorted(rejected.items())),
    }


def reasons(found: dict[str, int]) -> str:
    """Counts by reason, most frequent first, as `3 empty, 1 truncated`."""
    return ", ".join(
        f"{count:,} {reason}" for reason, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def card_markdown(card: dict[str, Any]) -> str:
    """A card for people."""
    splits = card["splits"]
    total = sum(split["bytes"] for split in splits.values())
    lines = ["# Corpus card", ""]
    lines += [
        f"{card['kept']:,} documents kept of {card['in']:,} records read. Fingerprint `{card['fingerprint']}`.",
        "",
    ]
    lines += ["| split | documents | bytes | share | characters | words | groups |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name, split in splits.items():
        figures = [f"{split[key]:,}" for key in ("documents", "bytes")] + [f"{split['bytes'] / total:.1%}"]
        figures += [f"{split[key]:,}" for key in ("characters", "words", "groups")]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    lines += ["", f"Split: {card['split_rule']} (asked for: {card['settings']['validation']:.1%} of the bytes).", ""]
    leaks = card["leak_check"]
    lines += [
        f"Leak check {'passed' if leaks['passed'] else 'FAILED'}: {leaks['groups_on_both_sides']} groups and "
        f"{leaks['texts_on_both_sides']} texts are on both sides.",
        "",
        "## Characters in a document",
        "",
    ]
    names = list(splits["train"]["characters_per_document"])
    lines += ["| split | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for name, split in splits.items():
        lines.append(f"| {name} | " + " | ".join(f"{split['characters_per_document'][key]:,}" for key in names) + " |")
    lines += ["", "## Sources", "", "| source | files | in | kept | bytes | dropped | rejected |"]
    lines += ["|---|--:|--:|--:|--:|---|---|"]
    for source in card["sources"]:
        figures = " | ".join(f"{source[key]:,}" for key in ("files", "in", "kept", "bytes"))
        lines.append(
            f"| {_cell(source['source'])} | {figures} | {reasons(source['dropped'])} | {reasons(source['rejected'])} |"
        )
    if "near_duplicates" in card:
        lines += ["", "## Near-duplicates", "", *(f"- {said}" for said in told_of_joining(card["near_duplicates"]))]
    if "repeated" in card:
        lines += ["", "## Repeated lines and paragraphs", ""]
        lines += [f"- {said}" for said in told_of_repeated(card["repeated"])]
        for text, count in most_repeated(card["repeated"]):
            lines.append(f"  - {count:,} documents: {_cell(' '.join(text.split()))}")
    if "mixture" in card:
        lines += ["", "## Mixture of the training split", "", f"Shares of the {card['mixture']['by']}.", ""]
        lines += ["| source | share asked for | share reached | epochs |", "|---|--:|--:|--:|"]
        for source in card["mixture"]["sources"]:
            figures = f"{source['asked']:.1%} | {source['reached']:.1%} | {source['epochs']:.2f}"
            lines.append(f"| {_cell(source['source'])} | {figures} |")
    lines += ["", "## Left out", ""]
    meanings = drop_reasons()
    for reason, count in card["dropped"].items():
        lines.append(f"- dropped, {reason}: {count:,}" + (f" ({meanings[reason]})" if reason in meanings else ""))
        for name, text in card.get("dropped_samples", {}).get(reason, []):
            lines.append(f"  - {_cell(name)}: {_cell(' '.join(text.split()))[:200]}")
    lines += [f"- rejected, {reason}: {count:,} (see `rejected/`)" for reason, count in card["rejected"].items()]
    if not card["dropped"] and not card["rejected"]:
        lines.append("Nothing.")
    if card["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in card["notes"])]
    stages = ", ".join(f"{stage['name']} {stage['version']}" for stage in card["stages"])
    versions = ", ".join(f"{name} {version}" for name, version in made_with(card).items())
    lines += ["", f"Stages: {stages}. Made with {versions}.", ""]
    return "\n".join(lines)


def made_with(card: Mapping[str, Any]) -> dict[str, str]:
    """Versions of all that the corpus was made with: Tilth, and what reads or judges documents."""
    filters = [stage.get("libraries", {}) for stage in card["stages"]]
    return dict(pair for found in (card["versions"], card.get("libraries", {}), *filters) for pair in found.items())


def told_of_joining(found: dict[str, Any]) -> list[str]:
    """What was measured of the joining of near-duplicates, in sentences."""
    pairs = found["pairs"]
    told = {name: "unknown" if found[name] is None else f"{found[name]:.1%}" for name in ("precision", "recall")}
    return [
        f"joined pairs against exact Jaccard similarity of at least {found['threshold']}: "
        + ", ".join(f"{name} {share}" for name, share in told.items()),
        f"{pairs['joined']:,} pairs joined, {pairs['similar']:,} similar, {pairs['both']:,} both, among "
        f"{found['documents']:,} documents: {found['sampled']}",
    ]


def told_of_repeated(found: dict[str, Any]) -> list[str]:
    """What was taken out because many documents have it, in sentences."""
    stay = "all but the first of the documents that have them" if found["kept_in"] == "first" else "all documents"
    told = [f"from {stay}: {found['documents']:,} documents lost {found['characters']:,} characters"]
    return told + [
        f"{kind} that more than {found[kind]['limit']:,} documents have: {found[kind]['different']:,} different ones, "
        f"taken out {found[kind]['taken_out']:,} times"
        for kind in _UNITS
        if kind in found
    ]


def most_repeated(found: dict[str, Any]) -> list[tuple[str, int]]:
    """The lines and paragraphs that most documents have, with how many these are."""
    return [(text, count) for kind in _UNITS for text, count in found.get(kind, {}).get("most", [])]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
