"""Main text of web pages: Tilth's fast and quality passes and trafilatura as it comes, against text marked by hand.

F1, precision and recall are those of scrapinghub's article-extraction-benchmark: shingles of four words, counted with
repetition, averaged over the pages; F1 is that of the averages. The passes alternate page by page. Speeds are those of
the median of `--repeats` rounds, in processor time of one core.

The argument is the folder `web/ground_truth` of the real data:

    python benchmarks/extraction.py ../shared/data/web/ground_truth
"""

import argparse
import gzip
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import trafilatura
from machine import add_results, describe, write_table

from tilth.corpus.formats.html import page_text
from tilth.corpus.reading import Reading

QUALITY = Reading(extraction="quality")

WORDS = re.compile(r"\w+")
SHINGLE = 4

EXTRACTORS: dict[str, Callable[[bytes], str]] = {
    "fast": lambda page: page_text(page).text,
    "quality": lambda page: page_text(page, reading=QUALITY).text,
    "trafilatura": lambda page: trafilatura.extract(page) or "",
}


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Runs of four words with how often each occurs; of a shorter text, all of it as one run."""
    words = WORDS.findall(text)
    last = max(1, len(words) - SHINGLE + 1) if words else 0
    return Counter(tuple(words[start : start + SHINGLE]) for start in range(last))


def overlap(text: str, gold: str) -> tuple[float | None, float]:
    """Precision and recall of a text's shingles: the share of those found that are right, and of the right ones found.

    gold: a text that is not empty. The precision of an empty text is None: it is left out of the average.
    """
    found, right = shingles(text), shingles(gold)
    both = (found & right).total()
    return both / found.total() if found else None, both / right.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_results(parser, __file__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    gold = json.loads((arguments.data / "scrapinghub-ground-truth.json").read_text(encoding="utf-8"))
    pages = {name: gzip.decompress((arguments.data / "html" / f"{name}.html.gz").read_bytes()) for name in sorted(gold)}
    seconds = {name: [0.0] * arguments.repeats for name in EXTRACTORS}
    scores: dict[str, list[tuple[float | None, float]]] = {name: [] for name in EXTRACTORS}
    for extract in EXTRACTORS.values():
        extract(next(iter(pages.values())))
    for repeat in range(arguments.repeats):
        for page_name, page in pages.items():
            for name, extract in EXTRACTORS.items():
                started = time.process_time()
                text = extract(page)
                seconds[name][repeat] += time.process_time() - started
                if repeat == 0:
                    scores[name].append(overlap(text, gold[page_name]["articleBody"]))
    baseline = statistics.median(seconds["trafilatura"])
    size = sum(map(len, pages.values())) / 1e6
    lines = ["| pass | F1 | precision | recall | pages a second | MB of HTML a second | times trafilatura's speed |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    for name in EXTRACTORS:
        precision = statistics.fmean(precision for precision, _ in scores[name] if precision is not None)
        recall = statistics.fmean(recall for _, recall in scores[name])
        f1 = 2 * precision * recall / (precision + recall)
        spent = statistics.median(seconds[name])
        figures = f"{f1:.3f} | {precision:.3f} | {recall:.3f} | {len(pages) / spent:.0f} | {size / spent:.1f}"
        lines.append(f"| {name} | {figures} | {baseline / spent:.1f} |")
        print(lines[-1], flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("resiliparse", "trafilatura"))
    about = (
        f"Machine: {describe()}. {versions}; {len(pages)} pages, {size:.1f} MB; medians of {arguments.repeats} rounds."
    )
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
