"""De-duplication: speed of sketching, exactness of joining, and memory by the number of documents.

Sketches are made, with the bands for near-duplicates, of English novels cut into documents of 400 words, on one thread;
rates are the best of three. Joining is of 1,500 of these documents and a copy of each, in which up to one word in 20 is
another, so that similarities are from 0.6 to 1 and many lie near the threshold, the hardest case. Memory is the peak of
the step that joins documents, splits them and writes the corpus (`assemble`), in a process of its own for each number
of documents: texts of about 12 words of their own, every tenth a copy of another but for a word, in parts that are
written directly, so that reading and sketching do not count.

    python benchmarks/deduplication.py ../shared/data
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from filters import novels
from machine import add_results, describe, write_table

from tilth.corpus.assemble import Part, assemble
from tilth.corpus.card import Tally
from tilth.corpus.dedupe import deduplicator
from tilth.corpus.file_task import PartWriter
from tilth.corpus.groups import join_documents
from tilth.corpus.joining import measure_joining
from tilth.corpus.measure import measure
from tilth.corpus.normalise import normalise
from tilth.corpus.records import Record, to_batches
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sketch import GROUPS, NEAR, band_values, sketcher

WORDS, PART = 400, 50_000
DOCUMENTS = (100_000, 300_000, 1_000_000)


def cut_novels(data: Path) -> list[str]:
    words = [text.split() for text in novels(data)]
    return [" ".join(each[start : start + WORDS]) for each in words for start in range(0, len(each), WORDS)]


def sketching(texts: list[str]) -> tuple[float, float]:
    """Megabytes a second of sketching alone, and with normalising, measuring and the digest."""
    records = (Record(str(number), text, "novels") for number, text in enumerate(texts))
    batches = [batch for batch in to_batches(records) if isinstance(batch, pa.RecordBatch)]
    size = sum(len(text.encode()) for text in texts)
    sketch = sketcher(5, near=True)
    alone, chain = [], []
    for _ in range(3):
        unique = deduplicator()
        start = time.process_time()
        ready = [unique(measure(normalise(batch))).drop_columns(["drop"]) for batch in batches]
        middle = time.process_time()
        for batch in ready:
            sketch(batch)
        alone.append(time.process_time() - middle)
        chain.append(time.process_time() - start)
    return size / min(alone) / 1e6, size / min(chain) / 1e6


def joining(texts: list[str], count: int = 1500) -> dict:
    """Copies of real documents with words changed at random, from none to one in twenty, against exact similarity."""
    rng = np.random.default_rng(0)
    documents = []
    for text in texts[:: len(texts) // count][:count]:
        words = np.array(text.split(), object)
        rate = rng.uniform(0, 0.05)
        copy = np.where(rng.random(len(words)) < rate, "other", words)
        documents += [" ".join(words), " ".join(copy)]
    column = normalise(pa.record_batch({"text": documents}))
    bands = band_values(sketcher(5, near=True)(column)["sketch"])
    joined = join_documents((bands[:, GROUPS.bands + band] for band in range(NEAR.bands)), len(documents))
    return measure_joining(documents, joined, 5).to_json()


def memory(count: int, folder: Path) -> None:
    """Assemble `count` documents, and print what that took. The parts are made by a child, whose memory is not ours."""
    subprocess.run([sys.executable, __file__, "--parts", str(count), str(folder)], check=True)
    parts = [Part(path, 0) for path in sorted(folder.glob("part-*"))]
    (folder / "out").mkdir()
    before = resident("RssAnon")
    start = time.perf_counter()
    tally = Tally("made", 1, records=count, kept=count)
    settings = CorpusSettings(near_duplicates="drop")
    with watched() as peak:
        card = assemble(parts, [tally], settings, folder / "out", [], {})
    seconds = time.perf_counter() - start
    assert card["kept"] + card["dropped"]["near_duplicate"] == count
    print(json.dumps({"before": before, "peak": peak[0], "with_files": resident("VmHWM"), "seconds": seconds}))


@contextlib.contextmanager
def watched() -> Iterator[list[int]]:
    """A list whose only number is the most RssAnon that was seen, looked at every 20 ms."""
    peak, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident("RssAnon"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def resident(name: str) -> int:
    """Bytes of memory of this process, as Linux counts them. RssAnon: its own; VmHWM: the peak of that and of the
    pages of mapped files, which Linux takes back when memory is short.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def write_parts(count: int, folder: Path) -> None:
    sketch, rng = sketcher(5, near=True), np.random.default_rng(0)
    for first in range(0, count, PART):
        numbers = rng.integers(0, 2**63, (min(PART, count - first), 12))
        texts = [" ".join(f"{number:x}" for number in row) for row in numbers.tolist()]
        texts[9::10] = [f"{text} more" for text in texts[8::10]][: len(texts[9::10])]
        folder_of_part = folder / f"part-{first:09}"
        folder_of_part.mkdir()
        unique = deduplicator()
        with PartWriter(folder_of_part) as writer:
            for batch in to_batches(Record(f"made/{first + n}", text, "made") for n, text in enumerate(texts)):
                assert isinstance(batch, pa.RecordBatch)
                writer.add(sketch(unique(measure(normalise(batch)))))


def main() -> None:
    parser = argparse.ArgumentParser()
    add_results(parser, __file__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--parts", nargs=2)
    parser.add_argument("--memory", type=int)
    arguments = parser.parse_args()
    if arguments.parts:
        write_parts(int(arguments.parts[0]), Path(arguments.parts[1]))
        return
    if arguments.memory is not None:
        with tempfile.TemporaryDirectory() as folder:
            memory(arguments.memory, Path(folder))
        return
    texts = cut_novels(arguments.data)
    alone, chain = sketching(texts)
    found = joining(texts)
    lines = ["| measure | value |", "|---|--:|", f"| sketching, MB/s | {alone:.1f} |"]
    lines += [f"| normalising, measuring, digest and sketching, MB/s | {chain:.1f} |"]
    lines += [f"| precision of joining at Jaccard 0.75 | {found['precision']:.3f} |"]
    lines += [f"| recall of joining at Jaccard 0.75 | {found['recall']:.3f} |", ""]
    lines += ["| documents | MB before | peak MB | with mapped files | seconds | bytes a document |"]
    lines += ["|--:|--:|--:|--:|--:|--:|"]
    before = None
    for count in DOCUMENTS:
        command = [sys.executable, __file__, "--memory", str(count)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        growth = "" if before is None else f"{(told['peak'] - before[1]) / (count - before[0]):,.0f}"
        figures = f"{told['before'] / 1e6:,.0f} | {told['peak'] / 1e6:,.0f} | "
        figures += f"{told['with_files'] / 1e6:,.0f} | {told['seconds']:.0f}"
        lines.append(f"| {count:,} | {figures} | {growth} |")
        before = count, told["peak"]
    about = f"{describe('float32')}. Bytes a document: growth of the peak since the row above."
    write_table(arguments.results, __doc__, about, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
