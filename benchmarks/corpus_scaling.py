"""How a build of a corpus scales: two workers against one, in processes and on Ray, and its memory.

The input is real web pages, repeated. For speed, each copy has a fifth of the words of every longer run of text moved
to other places in it, so that all copies are documents of their own and have to be compared, split and written; for
memory pages are repeated as they are, under ids of their own. Runs alternate. Bound: what two workers can reach over
one by Amdahl's law, with the processor time of the driver as the part that is not shared; unlike wall time it suffers
little from what else the machine is doing. Two builds at once show what two processes get of the machine at all.

    python benchmarks/corpus_scaling.py ../shared/data/web/pages [--megabytes 1500] [--repeats 3]
    python benchmarks/corpus_scaling.py ../shared/data/web/pages --memory 10000
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from machine import add_results, describe, write_table

PAGES_OF_A_FILE = 150
RUN_OF_TEXT = re.compile(rb">[^<>{}]{60,}<")
SETTINGS = ["filters.language.keep=[en,de]", "filters.quality=true", "near_duplicates=drop"]
HERTZ, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass
class Usage:
    """Of one process: what it is, processor seconds, and memory as (seconds since the start, bytes)."""

    role: str
    seconds: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One build: wall seconds, and what its processes used."""

    wall: float
    processes: list[Usage]
    card: dict

    def seconds(self, role: str) -> float:
        """Processor seconds of all processes of a role."""
        return sum(each.seconds for each in self.processes if each.role == role)


def read_pages(folder: Path) -> list[tuple[str, bytes]]:
    """The address and the HTML of all pages."""
    pages = []
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, auto_decode="all"):
                pages.append((record.headers["WARC-Target-URI"], record.reader.read()))
    return pages


def write_copies(pages: list[tuple[str, bytes]], folder: Path, megabytes: float, changed: bool) -> float:
    """Write WARC files of copies of the pages until there are so many MB of HTML; returns how many there are."""
    size = copy = 0
    while size < megabytes * 1e6:
        for first in range(0, len(pages), PAGES_OF_A_FILE):
            with open(folder / f"{copy:05}-{first:05}.warc.gz", "wb") as file:
                for address, html in pages[first : first + PAGES_OF_A_FILE]:
                    body = _shuffled(html, copy) if changed else html
                    file.write(gzip.compress(_record(f"{address}#{copy}", body), 1))
                    size += len(body)
        copy += 1
    return size / 1e6


def _shuffled(html: bytes, copy: int) -> bytes:
    rng = random.Random(copy)

    def shuffle(found: re.Match[bytes]) -> bytes:
        words = found[0][1:-1].split(b" ")
        places = rng.sample(range(len(words)), len(words) // 5)
        for place, other in zip(places, places[1:], strict=False):
            words[place], words[other] = words[other], words[place]
        return b">" + b" ".join(words) + b"<"

    return RUN_OF_TEXT.sub(shuffle, html) if copy else html


def _record(address: str, html: bytes) -> bytes:
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n"
    head += f"WARC-Record-ID: <{address}>\r\nWARC-Target-URI: {address}\r\n"
    head += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


def build(sources: Path, out: Path, arguments: list[str], root: int | None = None) -> Run:
    """Build a corpus, and watch its processes: the command and those it starts, and those below the process `root`."""
    command = [sys.executable, "-m", "tilth", "corpus", "build", str(sources), *SETTINGS, "--out", str(out)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=errors)
        usages: dict[int, Usage] = {}
        before: dict[int, float] = {}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.25):
                for pid, role, seconds, memory in _processes(process.pid, root):
                    usage = usages.setdefault(pid, Usage(role))
                    if role == "worker":  # one of Ray's takes other names before and after
                        usage.role = role
                    before.setdefault(pid, seconds if pid == root else 0.0)
                    usage.seconds = seconds - before[pid]
                    usage.memory.append((time.perf_counter() - start, memory))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        done.set()
        watcher.join()
        if status:
            errors.seek(0)
            sys.exit(f"the build failed:\n{errors.read().decode()}")
    if root is not None:  # it starts no processes of its own that it waits for
        usages[process.pid].seconds = used.ru_utime + used.ru_stime
    return Run(wall, list(usages.values()), json.loads((out / "card.json").read_text()))


def _processes(driver: int, root: int | None) -> Iterator[tuple[int, str, float, int]]:
    """(pid, role, processor seconds, bytes of memory) of the driver and of what it or `root` started."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children[int((path / "stat").read_text().rpartition(")")[2].split()[1])].append(int(path.name))
    waiting = [driver] if root is None else [driver, root]
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            worker = b"tilth.corpus.worker" in line or line.startswith(b"ray::work")
            role = "driver" if pid == driver else "worker" if worker else "service"
            yield pid, role, (int(stat[11]) + int(stat[12])) / HERTZ, int(stat[21]) * PAGE


@contextlib.contextmanager
def ray_cluster(workers: int) -> Iterator[int]:
    """A Ray cluster of so many processors on this machine, which `--on auto` finds; yields the process below all."""
    # `ray start` does not stay the parent of what it starts, unless it is asked to block.
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={workers}"]
    # From 2.59 on Ray lets only those in who have the cluster's token; this one is of this cluster alone.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+b") as log:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]  # of our own: a fixed one may lead to another's cluster
        command = [*ray, "--include-dashboard=false", f"--temp-dir={folder}", f"--port={port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quiet | token)
        try:
            deadline = time.monotonic() + 60
            while b"started" not in Path(folder, "log").read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"Ray did not start:\n{Path(folder, 'log').read_text()}")
                time.sleep(0.1)
            os.environ.update(token, RAY_ADDRESS=f"127.0.0.1:{port}")
            yield process.pid
        finally:
            for name in (*token, "RAY_ADDRESS"):
                os.environ.pop(name, None)
            process.terminate()
            process.wait()


def run(sources: Path, out: Path, runner: str, workers: int) -> Run:
    if runner == "processes":
        return build(sources, out, ["--workers", str(workers), "--overwrite"])
    with ray_cluster(workers) as root:
        return build(sources, out, ["--on", "auto", "--overwrite"], root)


def two_at_once(sources: Path, folder: Path) -> float:
    """Seconds that two builds with one worker each take together: what the machine itself gives."""
    start = time.perf_counter()
    outs = (folder / "first", folder / "second")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda out: run(sources, out, "processes", 1), outs))
    return time.perf_counter() - start


def scaling(pages: list[tuple[str, bytes]], folder: Path, megabytes: float, repeats: int) -> tuple[str, list[str]]:
    """What to know of the run, and its table."""
    sources = folder / "sources"
    sources.mkdir()
    size = write_copies(pages, sources, megabytes, changed=True)
    runs: dict[tuple[str, int], list[Run]] = {}
    apart: list[float] = []
    for _ in range(repeats):
        for runner in ("processes", "ray"):
            for workers in (1, 2):
                runs.setdefault((runner, workers), []).append(run(sources, folder / "out", runner, workers))
        apart.append(two_at_once(sources, folder))
    cards = [each.card for several in runs.values() for each in several]
    if any(card != cards[0] for card in cards):
        sys.exit("the corpora differ")
    lines = ["| runner | workers | wall seconds (least to most) | MB/s | driver, processor s | workers, processor s |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    middle = {}
    for (runner, workers), several in runs.items():
        walls = [each.wall for each in several]
        wall = statistics.median(walls)
        used = [statistics.median(each.seconds(role) for each in several) for role in ("driver", "worker")]
        middle[runner, workers] = wall, *used
        figures = (
            f"{wall:.1f} ({min(walls):.1f} to {max(walls):.1f}) | {size / wall:.1f} | {used[0]:.1f} | {used[1]:.1f}"
        )
        lines.append(f"| {runner} | {workers} | {figures} |")
    lines += [
        "",
        "| runner | 2 workers over 1, by the clock | driver's share of the processor time | bound |",
        "|---|--:|--:|--:|",
    ]
    for runner in ("processes", "ray"):
        (one, driver, work), (two, *_) = middle[runner, 1], middle[runner, 2]
        bound = (driver + work) / (driver + work / 2)
        lines.append(f"| {runner} | {one / two:.2f} | {driver / (driver + work):.1%} | {bound:.2f} |")
    both = 2 * middle["processes", 1][0] / statistics.median(apart)
    lines.append(f"| two builds at once, which share nothing | {both:.2f} | | |")
    kept = f"{cards[0]['kept']:,} of {cards[0]['in']:,} documents kept"
    return f"{size:,.0f} MB of HTML, {kept}, {repeats} runs of each{_load()}.", lines


def _load() -> str:
    return "; load average at the end " + " ".join(f"{value:.1f}" for value in os.getloadavg())


def memory(pages: list[tuple[str, bytes]], folder: Path, megabytes: float) -> tuple[str, list[str]]:
    """What to know of the run, and its table: most memory of any worker, and of the driver, by tenths of the time."""
    sources = folder / "sources"
    sources.mkdir()
    size = write_copies(pages, sources, megabytes, changed=False)
    done = run(sources, folder / "out", "processes", 2)
    lines = ["| minute | worker, most MB | driver, most MB |", "|--:|--:|--:|"]
    for tenth in range(10):
        first, last = (done.wall * place / 10 for place in (tenth, tenth + 1))
        most = []
        for role in ("worker", "driver"):
            seen = [
                memory
                for each in done.processes
                if each.role == role
                for seconds, memory in each.memory
                if first <= seconds <= last
            ]
            most.append(f"{max(seen) / 1e6:,.0f}" if seen else "")
        lines.append(f"| {last / 60:.1f} | {' | '.join(most)} |")
    kept = f"{done.card['kept']:,} of {done.card['in']:,} documents kept"
    return f"{size:,.0f} MB of HTML, {kept}, 2 workers, {done.wall:,.0f} seconds{_load()}.", lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_results(parser, __file__)
    parser.add_argument("pages", type=Path, help="a folder of *.warc.gz")
    parser.add_argument("--megabytes", type=float, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=float, metavar="MEGABYTES", help="measure memory instead, of so much HTML")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    pages = read_pages(given.pages)
    with tempfile.TemporaryDirectory() as folder:
        if given.memory is None:
            about, lines = scaling(pages, Path(folder), given.megabytes, given.repeats)
        else:
            given.results = given.results.with_name("corpus_memory.md")
            about, lines = memory(pages, Path(folder), given.memory)
    write_table(given.results, __doc__ or "", f"{describe('float32')}. {about}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
