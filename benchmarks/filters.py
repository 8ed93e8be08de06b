"""The filters of the corpus pipeline: megabytes of text a second on one thread, and what they drop of real text.

Texts are novels, abstracts of papers, web articles cut out by hand, and whole web pages with their menus. Rates are the
best of `--repeats` alternating runs in processor time, at most `--megabytes` of a text; the last column names what is
left out by its reasons. `words` looks for a list of 1,000 words, `contamination` for LAMBADA, `like` for abstracts.

    python benchmarks/filters.py ../shared/data
"""

import argparse
import io
import json
import platform
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType
from machine import add_results, describe, write_table
from resiliparse.extract.html2text import extract_plain_text

from tilth.corpus.filters import FILTERS, BatchFunction
from tilth.corpus.filters.classifier import fit_classifier
from tilth.corpus.records import BATCH_SCHEMA, Record, to_batches


def novels(data: Path) -> list[str]:
    packed = (data / "text" / "english_novels" / "corpus.tar.zst").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(packed).read())) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".txt")]
        return [file.read().decode("utf-8-sig").replace("\r\n", "\n") for file in files if file]


def abstracts(data: Path) -> list[str]:
    packed = (data / "text" / "acl_abstracts" / "abstracts_2016plus.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().stream_reader(packed).read().decode().splitlines()
    return [json.loads(line)["abstract"] for line in lines]


def articles(data: Path) -> list[str]:
    found = json.loads((data / "web" / "ground_truth" / "scrapinghub-ground-truth.json").read_text("utf-8"))
    return [found[name]["articleBody"] for name in sorted(found)]


def pages(data: Path) -> list[str]:
    texts = []
    for path in sorted((data / "web" / "pages").glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                page = record.reader.read()[:2_000_000].decode("utf-8", "replace")
                texts.append(extract_plain_text(page, main_content=False, alt_texts=False))
    return texts


def stages(data: Path, folder: Path, texts: dict[str, list[str]]) -> dict[str, BatchFunction]:
    listed = folder / "list.txt"
    listed.write_text("\n".join(f"unwanted{number}" for number in range(1000)))
    scorer = fit_classifier(
        texts["abstracts"][:1000], texts["articles"] + texts["pages"] + texts["abstracts"][1000:1500]
    )
    parameters: dict[str, list[tuple[str, dict]]] = {
        "language": [("", {"keep": ["en"]}), (" by paragraph", {"keep": ["en"], "by_paragraph": True})],
        "quality": [
            (", all three", {}),
            (", Gopher's alone", {"gopher": {}}),
            (", repetition alone", {"repetition": {}}),
            (", FineWeb's alone", {"fineweb": {}}),
        ],
        "words": [("", {"path": str(listed)})],
        "like": [("", {"scorer": scorer, "keep": 0.5})],
        "contamination": [("", {"paths": [str(data / "eval" / "lambada" / "lambada_openai.jsonl")]})],
    }
    made = {
        name + variant: each.make(**chosen)
        for name, each in FILTERS.items()
        for variant, chosen in parameters.get(name, [("", {})])
    }
    return {**made, "quality, c4 and lines together": chain(made["lines"], made["c4"], made["quality, all three"])}


def chain(*functions: BatchFunction) -> BatchFunction:
    """All on every document: what one drops is dropped only at the end, for the first reason."""

    def run(batch: pa.RecordBatch) -> pa.RecordBatch:
        reasons: list[str | None] = [None] * batch.num_rows
        for function in functions:
            batch = function(batch)
            reasons = [old or new for old, new in zip(reasons, batch["drop"].to_pylist(), strict=True)]
            batch = batch.select(BATCH_SCHEMA.names)
        return batch.append_column("drop", pa.array(reasons, pa.string()))

    return run


def measure(function: BatchFunction, batches: list[pa.RecordBatch]) -> tuple[float, Counter[str | None]]:
    started = time.process_time()
    results = [function(batch) for batch in batches]
    spent = time.process_time() - started
    dropped: Counter[str | None] = Counter()
    for result in results:
        dropped.update(result["drop"].to_pylist() if "drop" in result.schema.names else [])
    return spent, dropped


def take(texts: list[str], megabytes: float) -> list[pa.RecordBatch]:
    """Batches as the pipeline makes them, of the first texts up to about this size."""
    chosen, size = [], 0
    for text in texts:
        if size >= 1e6 * megabytes:
            break
        chosen.append(Record(str(len(chosen)), text, "benchmark"))
        size += len(text.encode())
    return [item for item in to_batches(chosen) if isinstance(item, pa.RecordBatch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_results(parser, __file__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=10)
    given = parser.parse_args()
    readers: dict[str, Callable[[Path], list[str]]] = {
        "novels": novels, "abstracts": abstracts, "articles": articles, "pages": pages,
    }  # fmt: skip
    texts = {name: read(given.data) for name, read in readers.items()}
    batches = {name: take(found, given.megabytes) for name, found in texts.items()}
    with tempfile.TemporaryDirectory() as folder:
        functions = stages(given.data, Path(folder), texts)
    best: dict[tuple[str, str], float] = {}
    dropped: dict[tuple[str, str], Counter[str | None]] = {}
    for _ in range(given.repeats):
        for stage, function in functions.items():
            for name, chosen in batches.items():
                spent, dropped[stage, name] = measure(function, chosen)
                best[stage, name] = min(spent, best.get((stage, name), spent))
    sizes = {
        name: sum(len(text.encode()) for batch in chosen for text in batch["text"].to_pylist())
        for name, chosen in batches.items()
    }
    lines = ["| filter | text | documents | MB | MB/s | dropped | reasons |", "|---|---|--:|--:|--:|--:|---|"]
    for (stage, name), spent in best.items():
        found = Counter({reason: count for reason, count in dropped[stage, name].items() if reason is not None})
        documents = sum(batch.num_rows for batch in batches[name])
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.most_common())
        size = sizes[name] / 1e6
        lines.append(
            f"| {stage} | {name} | {documents} | {size:.1f} | {size / spent:.0f} "
            f"| {sum(found.values()) / documents:.1%} | {reasons} |"
        )
        print(lines[-1], flush=True)
    about = f"Machine: {describe()}; pyarrow {pa.__version__} on {platform.system()}, shared with other work."
    write_table(given.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
