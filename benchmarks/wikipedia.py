"""Wikitext to prose: `tilth.corpus.wikitext.to_prose` against `mwparserfromhell`'s `parse(...).strip_code()`.

Both read the wikitext of the same articles, one after the other in each repetition; MB of UTF-8 wikitext per second of
processor time on one core, medians with the spread between quartiles. The second table counts, for each article, what
should not be in prose, or only in formulas: how many of these marks are left, on the mean, and in how many articles
there is one.

    python benchmarks/wikipedia.py ../shared/data/wikipedia
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mwparserfromhell
from machine import add_results, describe, write_table

from tilth.corpus.compression import open_stream
from tilth.corpus.formats import mediawiki
from tilth.corpus.formats.mediawiki import read_mediawiki
from tilth.corpus.reading import PLAIN
from tilth.corpus.records import Record
from tilth.corpus.wikitext import Names, Prose, to_prose

RESIDUE = ("|", "[[", "{{", "}}", "thumb", "px", "()", "( ", " ,", " )", "<", "__", "''", "==")


def read_articles(folder: Path) -> list[tuple[str, str, Names]]:
    """Title and wikitext of every article in the dumps of a folder, as the reader hands it on."""
    found: list[tuple[str, str, Names]] = []
    last: list[tuple[str, Names]] = []

    def note(text: str, wiki: Names) -> Prose:
        last[:] = [(text, wiki)]
        return to_prose(text, wiki)

    mediawiki.to_prose = note
    try:
        for path in sorted(folder.glob("*.xml.bz2")):
            data = path.read_bytes()
            for item in read_mediawiki(open_stream(iter([data]), len(data)), path.name, PLAIN):
                if isinstance(item, Record):
                    found.append((item.metadata["title"], *last[0]))
    finally:
        mediawiki.to_prose = to_prose
    return found


def ours(text: str, wiki: Names) -> str:
    return to_prose(text, wiki).text


def theirs(text: str, wiki: Names) -> str:
    return mwparserfromhell.parse(text).strip_code()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_results(parser, __file__)
    parser.add_argument("folder", type=Path, help="dumps, *.xml.bz2")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    articles = read_articles(arguments.folder)
    megabytes = sum(len(text.encode()) for _, text, _ in articles) / 1e6
    readers: dict[str, Callable[[str, Names], str]] = {"tilth": ours, "mwparserfromhell": theirs}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    texts: dict[str, list[str]] = {}
    for repeat in range(arguments.repeats + 1):
        for name, read in readers.items():
            started = time.process_time()
            texts[name] = [read(text, wiki) for _, text, wiki in articles]
            if repeat:
                rates[name].append(megabytes / (time.process_time() - started))
    lines = ["| | MB/s | characters kept |", "|---|--:|--:|"]
    for name in readers:
        low, middle, high = statistics.quantiles(rates[name], n=4)
        lines.append(f"| {name} | {middle:.1f} ({low:.1f}-{high:.1f}) | {sum(map(len, texts[name])):,} |")
    ratio = statistics.median(rates["tilth"]) / statistics.median(rates["mwparserfromhell"])
    lines += ["", f"Ratio of the medians: {ratio:.1f}.", ""]
    lines += ["| residue | " + " | ".join(f"{name}, per article | articles with it" for name in readers) + " |"]
    lines += ["|---|" + "--:|" * (2 * len(readers))]
    for mark in RESIDUE:
        cells = []
        for name in readers:
            counts = [text.count(mark) for text in texts[name]]
            cells += [f"{statistics.mean(counts):.2f}", str(sum(map(bool, counts)))]
        lines.append(f"| `{mark}` | ".replace("| `|`", "| `\\|`") + " | ".join(cells) + " |")
    print("\n".join(lines))
    about = (
        f"{len(articles)} articles, {megabytes:.2f} MB of wikitext. Machine: {describe()}; mwparserfromhell "
        f"{version('mwparserfromhell')} {'with' if mwparserfromhell.parser.use_c else 'without'} its C tokenizer."
    )
    write_table(arguments.results, __doc__ or "", about, lines)


if __name__ == "__main__":
    main()
