"""Tokenizers: encoding by Tilth and by `tokenizers`, and the memory that training takes.

Encoding is of the same texts with the same tokenizer, trained on novels, alternating: `TextTokenizer.encode_batch`
against `encode_batch_fast` (ids), and `encode_with_ends`, which writes shards, against `encode_batch` and its offsets
(ids and ends). Megabytes of text a second of processor time, so per core, median of `--rounds` after one that does not
count; ids and ends are compared in full. Ours remember words: first by a tokenizer that has seen none, so that it makes
its fast form and learns the words, then the same texts again, as in a corpus of many times these megabytes. Memory is
the peak of a process that trains a tokenizer on a corpus of novels, cut into documents of 4,000 characters and
repeated, so that a larger one has more documents but no new words.

    python benchmarks/tokenizer.py ../shared/data
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filters import abstracts, articles, novels
from machine import add_results, describe, write_table

from tilth.corpus.reader import FORMAT, FORMAT_VERSION, Corpus, open_corpus, seal
from tilth.files import fingerprint, sha256_file
from tilth.recipe import TokenizerSettings
from tilth.tokens.tokenizer import TextTokenizer, train_tokenizer

VOCABULARY = 16_384
DOCUMENT_CHARACTERS = 4000
SAMPLE_BYTES = 50_000_000  # the default of `tokenizer.sample_bytes`


def wikipedia(data: Path) -> list[str]:
    files = sorted((data / "text" / "wikitext2").glob("*.raw"))
    return [part for path in files for part in path.read_text("utf-8").split("\n \n = ")]


def write_corpus(texts: list[str], size: int, folder: Path) -> Corpus:
    """A corpus of at least `size` bytes: the texts, cut and repeated."""
    cut = [
        text[start : start + DOCUMENT_CHARACTERS]
        for text in texts
        for start in range(0, len(text), DOCUMENT_CHARACTERS)
    ]
    (folder / "train").mkdir(parents=True)
    path, written, count = folder / "train" / "part-00000.parquet", 0, 0
    schema = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "group", "metadata")])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while written < size:
            batch = cut[count % len(cut) :][:2000]
            names = [str(count + number) for number in range(len(batch))]
            same = ["{}"] * len(batch)
            writer.write_table(pa.table([names, batch, same, names, same], schema=schema))
            written += sum(len(text.encode()) for text in batch)
            count += len(batch)
    card = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kept": count,
        "fingerprint": fingerprint([size]),
        "sources": [{"source": "novels"}],
        "files": [{"path": f"train/{path.name}", "size": path.stat().st_size, "sha256": sha256_file(path)}],
    }
    (folder / "card.json").write_text(json.dumps(seal(card)))
    return open_corpus(folder)


def trained(corpus: Corpus, kind: str, sample_bytes: int = SAMPLE_BYTES) -> TextTokenizer:
    settings = TokenizerSettings.model_validate({"kind": kind, "vocab_size": VOCABULARY, "sample_bytes": sample_bytes})
    return train_tokenizer(settings, corpus, 0, progress=False)


def theirs(tokenizer: TextTokenizer, texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def theirs_with_ends(tokenizer: TextTokenizer, texts: list[str]) -> list[tuple[list[int], list[int]]]:
    encodings = tokenizer.backend.encode_batch(texts, add_special_tokens=False)
    return [(encoding.ids, [end for _, end in encoding.offsets]) for encoding in encodings]


def rates(ways: list[Callable[[], Any]], size: int, rounds: int) -> list[list[float]]:
    """Megabytes a second of processor time of each way, in alternating rounds after one that warms up."""
    found: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, figures in zip(ways, found, strict=True):
            start = time.process_time()
            way()
            if number:
                figures.append(size / (time.process_time() - start) / 1e6)
    return found


def encoding(tokenizer: TextTokenizer, kind: str, name: str, texts: list[str], rounds: int) -> list[str]:
    ids, ends = tokenizer.encode_batch(texts), tokenizer.encode_with_ends(texts)
    same_ids = ids == theirs(tokenizer, texts)
    expected = theirs_with_ends(tokenizer, texts)
    same_ends = all([a.tolist(), b.tolist()] == [c, d] for (a, b), (c, d) in zip(ends, expected, strict=True))
    size = sum(len(text.encode()) for text in texts)

    def fresh() -> TextTokenizer:
        return TextTokenizer(tokenizer.backend, tokenizer.special)

    rows = []
    for what, same, ours, others in (
        ("ids", same_ids, TextTokenizer.encode_batch, theirs),
        ("ids and ends", same_ends, TextTokenizer.encode_with_ends, theirs_with_ends),
    ):
        ways = [partial(ours, tokenizer, texts), partial(others, tokenizer, texts)]
        first, again, slow = rates([lambda ours=ours: ours(fresh(), texts), *ways], size, rounds)
        cells = [f"{statistics.median(found):.1f}" for found in (first, again, slow)]
        for found in (first, again):
            ratios = sorted(a / b for a, b in zip(found, slow, strict=True))
            cells += [f"{statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})"]
        rows.append(
            f"| {kind} | {name} | {len(texts)} | {size / 1e6:.1f} | {what} | {' | '.join(cells)} |"
            f" {'yes' if same else 'NO'} |"
        )
        print(rows[-1], flush=True)
    return rows


def some(texts: list[str], size: int) -> list[str]:
    """The first texts, of about `size` bytes together."""
    kept, held = [], 0
    for text in texts:
        if held < size:
            kept.append(text)
            held += len(text.encode())
    return kept


def training(data: Path, kind: str, size: int, sample: int, folder: Path) -> str:
    corpus = folder / str(size)
    if not corpus.exists():
        write_corpus(novels(data), size, corpus)
    command = [sys.executable, __file__, "--train", kind, str(sample), str(corpus)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = f"| {kind} | {size / 1e6:,.0f} | {sample / 1e6:,.0f} | {told['seconds']:.0f} | {told['start'] / 1e6:,.0f} |"
    row += f" {told['peak'] / 1e6:,.0f} |"
    print(row, flush=True)
    return row


def train_here(kind: str, sample: int, folder: Path) -> None:
    start, before = time.process_time(), peak()
    trained(open_corpus(folder), kind, sample)
    print(json.dumps({"seconds": time.process_time() - start, "start": before, "peak": peak()}))


def peak() -> int:
    """The most bytes of memory this process has held; `ru_maxrss` would count what began it, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    add_results(parser, __file__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=10, help="of each text to encode")
    parser.add_argument("--corpora", type=int, nargs="*", default=[500, 2000], help="MB of the corpora to train on")
    parser.add_argument("--train", nargs=3, metavar=("KIND", "SAMPLE", "CORPUS"))
    arguments = parser.parse_args()
    if arguments.train:
        kind, sample, corpus = arguments.train
        train_here(kind, int(sample), Path(corpus))
        return
    size = arguments.megabytes * 1_000_000
    texts = {
        "novels": some(novels(arguments.data), size),
        "wikipedia": some(wikipedia(arguments.data), size),
        "abstracts": some(abstracts(arguments.data), size),
        "web articles": some(articles(arguments.data), size),
    }
    lines = [
        "| tokenizer | text | documents | MB | of | Tilth, first | again | `tokenizers` | ratio, first | again "
        "| identical |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(novels(arguments.data), 10_000_000, folder / "novels")
        for kind in ("byte_bpe", "wordpiece"):
            tokenizer = trained(corpus, kind)
            for name_of_text, text in texts.items():
                lines += encoding(tokenizer, kind, name_of_text, text, arguments.rounds)
        lines += [
            "",
            "| trained | corpus, MB | sample, MB | CPU s | MB at start | peak MB |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        # The first sample is half the default, and the whole corpus: what a byte of the sample costs.
        sizes = [(SAMPLE_BYTES // 2, SAMPLE_BYTES)] + [(each * 1_000_000, SAMPLE_BYTES) for each in arguments.corpora]
        lines += [training(arguments.data, "byte_bpe", *each, folder) for each in sizes]
    about = f"{describe('float32')}. Vocabulary of {VOCABULARY:,} entries."
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
