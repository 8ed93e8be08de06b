"""What the page of a corpus says: sources, languages, lengths, words, what was dropped and why, and documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from tilth.corpus.card import drop_reasons, made_with, most_repeated, told_of_repeated
from tilth.evidence import human
from tilth.evidence.plots import Line, line_figure
from tilth.evidence.report_parts import Picture, Stat, settings_groups

_EASE = ((90, "very easy"), (70, "easy"), (60, "plain English"), (50, "fairly hard"), (30, "hard"))
"""Flesch's own words for reading ease from so much on; below the last, very hard."""

_LANGUAGES = 12


def corpus_context(card: Mapping[str, Any], portrait: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Everything the template of a corpus's page needs. portrait: see `tilth.corpus.portrait.portrait`."""
    sampled, of = portrait["sampled"], portrait["of"]
    part = "all" if sampled == of else f"a seeded sample of {human.count(sampled)} of the"
    return {
        "kind": "Corpus",
        "title": title,
        "status": None,
        "lede": _lede(card),
        "figures": _headline(card, portrait),
        "sample_note": f"Told from {part} {human.count(of)} documents; of long ones, from about 6,000 characters in "
        "three places.",
        "splits": [{"name": name, **split} for name, split in card["splits"].items()],
        "split_note": _split_note(card),
        "sources": card["sources"],
        "languages": _bars(list((portrait["languages"] or {}).items())[:_LANGUAGES]),
        "lengths": _lengths(portrait["lengths"], sampled),
        "hosts": _bars([(name, count / portrait["with_host"]) for name, count in portrait["hosts"]]),
        "hosts_note": _hosts_note(portrait),
        "readability": portrait["readability"],
        "vocabulary": _vocabulary(portrait["vocabulary"]),
        "words": ", ".join(word for word, _ in portrait["words"]),
        "characteristic_words": {
            name: ", ".join(words) for name, words in portrait["characteristic_words"].items() if words
        },
        "outcomes": _outcomes(card),
        "dropped": _dropped(card),
        "repeated": card.get("repeated") and "; ".join(told_of_repeated(card["repeated"])),
        "most_repeated": most_repeated(card.get("repeated", {})),
        "personal": list(portrait["personal"].items()),
        "topics": [
            {**topic, "words": ", ".join(topic["words"]), "examples": [_located(row) for row in topic["examples"]]}
            for topic in portrait["topics"]
        ],
        "examples": [_located(row) for row in portrait["examples"]],
        "footer": "Made by Tilth from the corpus. Nothing here is loaded from the network.",
        "notes": _notes(card),
        "stages": [(stage["name"], _stage(stage)) for stage in card["stages"]],
        "settings": settings_groups(dict(card["settings"])),
        "record": [
            ("Fingerprint", card["fingerprint"]),
            *((f"Made with {k}", v) for k, v in made_with(card).items()),
        ],
    }


def _located(row: Mapping[str, Any]) -> dict[str, Any]:
    """A document with where it is from, as the page lists it."""
    where = [row["id"], row["host"] or row["source"], f"{human.count(row['characters'])} characters"]
    return {"where": where, **row}


def _lede(card: Mapping[str, Any]) -> str:
    names = [source["source"] for source in card["sources"]]
    more = f" and {len(names) - 3} more sources" if len(names) > 3 else ""
    left = card["in"] - card["kept"]
    lost = f"; {human.count(left)} were left out, and why is below" if left else "; nothing was left out"
    return (
        f"{human.count(card['kept'])} documents of {', '.join(names[:3])}{more}, kept of {human.count(card['in'])} "
        f"records read{lost}."
    )


def _headline(card: Mapping[str, Any], portrait: Mapping[str, Any]) -> list[Stat]:
    splits = list(card["splits"].values())
    total = {name: sum(split[name] for split in splits) for name in ("bytes", "words", "documents")}
    median = splits[0]["characters_per_document"].get("p50")
    share = card["kept"] / card["in"] if card["in"] else None
    stats = [
        Stat("Documents", human.count(total["documents"]), f"{human.percent(share)} of the records that were read."),
        Stat("Text", human.count(total["bytes"]), "UTF-8, all documents together.", "bytes"),
        Stat("Words", human.count(total["words"]), "Runs of characters between white space."),
        Stat("Median length", human.count(median), "Half of the training documents are shorter.", "characters"),
    ]
    if ease := portrait["readability"]:
        caption = f"Flesch, median of {human.count(ease['documents'])} English documents: {_ease(ease['p50'])}."
        stats.append(Stat("Reading ease", human.significant(ease["p50"]), caption))
    if portrait["languages"]:
        (name, share), *others = portrait["languages"].items()
        caption = f"{human.percent(share)} of the documents, and {len(others)} other languages."
        stats.append(Stat("Main language", name, caption if others else "All documents."))
    return stats


def _ease(value: float) -> str:
    return next((words for limit, words in _EASE if value >= limit), "very hard, as academic prose is")


def _split_note(card: Mapping[str, Any]) -> str:
    leaks = card["leak_check"]
    return (
        f"Split: {card['split_rule']}. {leaks['groups_on_both_sides']} groups of near-duplicates and "
        f"{leaks['texts_on_both_sides']} texts are on both sides."
    )


def _bars(rows: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Names with shares of one, for a table with bars."""
    widest = max((share for _, share in rows), default=1) or 1
    return [{"name": name, "share": share, "width": share / widest} for name, share in rows]


def _lengths(rows: Sequence[Sequence[int]], sampled: int) -> list[dict[str, Any]]:
    return _bars([(f"{human.count(low)} to {human.count(high)}", count / sampled) for low, high, count in rows])


def _hosts_note(portrait: Mapping[str, Any]) -> str:
    if not portrait["with_host"]:
        return ""
    return (
        f"{human.count(portrait['with_host'])} of the documents say where on the web they are from: "
        f"{human.count(portrait['hosts_in_all'])} hosts, those with most documents first."
    )


def _vocabulary(found: Mapping[str, Any]) -> Picture | None:
    """The curve of Heaps' law, and the law that fits it."""
    if len(found["points"]) < 2:
        return None
    tokens, types = ([float(point[place]) for point in found["points"]] for place in (0, 1))
    lines = [Line("measured", tokens, types)]
    caption = f"{human.count(found['types'])} different words in {human.count(found['tokens'])}."
    if found["exponent"] is not None:
        fitted = [found["factor"] * token ** found["exponent"] for token in tokens]
        lines.append(Line("fitted", tokens, fitted, series=1))
        caption += (
            f" Heaps' law fits with an exponent of {human.decimal(found['exponent'], 2)}: the nearer to 1, the more "
            "new words every further text brings."
        )
    title = "Growth of the vocabulary"

    def drawn(name: str, size: tuple[int, int], names_below: bool) -> str:
        return line_figure(
            name,
            f"{title}. {caption}",
            lines,
            x_label="words read",
            y_format=human.count,
            y_limits=(0, None),
            size=size,
            names_below=names_below,
        )

    return Picture(title, caption, drawn("vocabulary", (860, 280), False), drawn("vocabulary-narrow", (360, 220), True))


def _outcomes(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of every record."""
    taken = card["in"] or 1
    rows = [{"name": "kept", "count": card["kept"], "share": card["kept"] / taken, "lost": False}]
    for word in ("dropped", "rejected"):
        for reason, count in sorted(card[word].items(), key=lambda pair: (-pair[1], pair[0])):
            name = f"{word}: {reason.replace('_', ' ')}"
            rows.append({"name": name, "count": count, "share": count / taken, "lost": True})
    return rows


def _dropped(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each reason for which records were dropped, with what it means and documents that show it."""
    meanings, samples = drop_reasons(), card.get("dropped_samples") or {}
    return [
        {
            "reason": reason.replace("_", " "),
            "count": count,
            "meaning": meanings.get(reason, ""),
            "samples": [{"where": [name], "text": text} for name, text in samples.get(reason, [])],
        }
        for reason, count in sorted(card["dropped"].items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _notes(card: Mapping[str, Any]) -> list[str]:
    notes = list(card["notes"])
    if found := card.get("contamination"):
        notes.append(
            f"{human.count(found['found'])} of {human.count(found['items'])} items of the evaluation sets were found."
        )
    if found := card.get("likeness"):
        notes.append(
            f"The classifier of likeness told held-out texts apart with an AUC of {human.decimal(found['auc'])}."
        )
    return notes


def _stage(stage: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}: {value}" for name, value in stage["parameters"].items())
    return f"version {stage['version']}" + (f"; {given}" if given else "")
