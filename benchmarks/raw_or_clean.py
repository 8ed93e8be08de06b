"""What cleaning buys a model: the same pages raw and cleaned, the same time to pre-train, scored on clean English text.

Raw is all text of each page, menus and notices included, as in a crawl's WET files; exact duplicates are dropped, as
the split between training and held-out text needs. Cleaned is the recipe `web`. Each gets a tokenizer of its own and a
`gpt2-mini` that trains for the same minutes, in turn, and keeps the model of the best held-out loss. The score is in
bits per byte of WikiText-2's test part, of which neither has seen anything, so that vocabularies do not matter.

    python benchmarks/raw_or_clean.py ../shared/data [--minutes 10] [--seeds 1]
"""

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType
from machine import add_results, describe, write_table
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

import tilth

PAGES, SINGLE_PAGES, TEST = "web/pages", "web/ground_truth/html", "text/wikitext2/wiki.test.raw"


def raw_texts(data: Path) -> Iterator[str]:
    """All text of each page."""
    bodies = (gzip.decompress(path.read_bytes()) for path in sorted((data / SINGLE_PAGES).glob("*.html.gz")))
    for body in (*bodies, *_crawled(data / PAGES)):
        yield extract_plain_text(bytes_to_str(body, detect_encoding(body)), main_content=False, alt_texts=False)


def _crawled(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                yield record.reader.read()


def build(name: str, data: Path, out: Path) -> dict[str, Any]:
    """The card of one of the corpora."""
    if name == "cleaned":
        return tilth.corpus_build([str(data / PAGES), str(data / SINGLE_PAGES)], out, recipe="web", progress=False)
    texts = out.with_suffix(".jsonl")
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in raw_texts(data)), encoding="utf-8")
    return tilth.corpus_build([str(texts)], out, progress=False)


def train(corpus: Path, run: Path, minutes: float, seed: int, test: Path) -> dict[str, float]:
    """What a run reached."""
    summary = tilth.pretrain(
        "gpt2-mini", corpus, run, overrides=[f"train.budget={minutes} minutes", f"seed={seed}"], progress=False
    )
    return {
        "tokens": summary["tokens"],
        "own": summary["bits_per_byte"],
        "test": tilth.evaluate(run / "model", test, lm=True, progress=False)["bits_per_byte"],
    }


def spread(values: list[float]) -> str:
    middle = f"{statistics.median(values):.3f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of real data")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    lines = [
        "| corpus | documents | bytes | bits per byte of its own held-out text | of WikiText-2 |",
        "|---|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        cards = {name: build(name, arguments.data, Path(folder) / name) for name in ("raw", "cleaned")}
        reached: dict[str, list[dict[str, float]]] = {name: [] for name in cards}
        for seed in range(arguments.seeds):
            for name, runs in reached.items():
                run = Path(folder) / f"{name}-{seed}"
                runs.append(train(Path(folder) / name, run, arguments.minutes, seed, arguments.data / TEST))
                print(name, seed, runs[-1], flush=True)
    for name, runs in reached.items():
        size = sum(split["bytes"] for split in cards[name]["splits"].values())
        scores = [spread([run[which] for run in runs]) for which in ("own", "test")]
        lines.append(f"| {name} | {cards[name]['kept']:,} | {size:,} | {' | '.join(scores)} |")
    about = f"Machine: {describe()}. {arguments.minutes:g} minutes each, {arguments.seeds} seeds."
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
