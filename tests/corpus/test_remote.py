"""Sources at URLs: a web server that fails in every way, memory:// and an object store."""

import email.utils
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tilth.corpus import build as build_module
from tilth.corpus import remote
from tilth.corpus.compression import Broken
from tilth.corpus.file_task import ACCOUNT
from tilth.corpus.remote import patience, store, web
from tilth.corpus.remote.manners import Manners
from tilth.corpus.sources import find_sources
from tilth.errors import UsageError
from tilth.urls import open_file_system

POLITE = Manners()


def lines(seed: int, count: int = 40) -> bytes:
    """JSON lines of `count` documents, too random to compress well."""
    rng = random.Random(seed)
    texts = [" ".join(f"w{rng.randrange(10**6)}" for _ in range(60)) for _ in range(count)]
    return "".join(json.dumps({"id": f"{seed}/{n}", "text": text}) + "\n" for n, text in enumerate(texts)).encode()


class Server:
    """A web server. `files` are what it has; `faults[path]` are what it does to the next GETs of one, in order.

    A fault is a function of the handler and the content from the asked byte on, which answers or not.
    """

    def __init__(self, serve: Callable[[Callable], str]) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Callable]] = {}
        self.versions: dict[str, str] = {}
        self.ranges = True
        self.asked: list[tuple[str, str, int]] = []
        self.times: list[float] = []
        self.busy = self.busiest = 0
        self.delay = 0.0
        self._lock = threading.Lock()
        self.url = serve(self.answer)

    def gets(self) -> Counter[str]:
        return Counter(path for method, path, _ in self.asked if method == "GET")

    def version(self, path: str) -> str:
        return self.versions.get(path, f'"{hash(self.files[path])}"')

    def answer(self, handler) -> None:
        path = handler.path.partition("?")[0]
        found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(found[1]) if found and self.ranges else 0
        with self._lock:
            self.asked.append((handler.command, path, start))
            self.times.append(time.monotonic())
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        time.sleep(self.delay)
        # Before the answer: once a client has its last byte, its next request may come before this thread runs again.
        with self._lock:
            self.busy -= 1
        if handler.command == "GET" and self.faults.get(path):
            self.faults[path].pop(0)(handler, path, start)
        else:
            self.whole(handler, path, start)

    def whole(self, handler, path: str, start: int, sent: int | None = None, close: bool = False) -> None:
        content = self.files.get(path)
        if content is None:
            return status(404)(handler, path, start)
        if start > len(content):
            return status(416)(handler, path, start)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        if version := self.version(path):
            handler.send_header("ETag", version)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content[start:][:sent])
        handler.close_connection = handler.close_connection or close
        return None


def status(code: int, **headers: str) -> Callable:
    def fault(handler, path: str, start: int) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


@pytest.fixture
def server(monkeypatch, serve):
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    yield Server(serve)
    web._session().close()
    web._session.cache_clear()


@pytest.fixture
def cut(server) -> Callable:
    """cut(n): the connection ends after n bytes of the answer."""
    return lambda size: lambda *rest: server.whole(*rest, sent=size, close=True)


def content(server: Server, path: str) -> bytes:
    url = server.url + path
    return b"".join(remote.read(url, *remote.describe(url, POLITE), POLITE))


def problem(server: Server, path: str) -> str:
    with pytest.raises(Broken) as broken:
        content(server, path)
    assert broken.value.reason == "unreadable"
    return broken.value.detail


def test_a_connection_that_breaks_goes_on_where_it_broke(server, cut):
    server.files["/a"] = lines(0, 2000)
    server.faults["/a"] = [cut(300_000), cut(0), cut(5)]
    assert content(server, "/a") == server.files["/a"]
    assert server.asked[1:] == [("GET", "/a", start) for start in (0, 300_000, 300_000, 300_005)]


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, cut):
    server.files["/a"] = lines(0, 2000)
    server.ranges = False
    server.faults["/a"] = [cut(300_000)]
    assert content(server, "/a") == server.files["/a"]
    assert server.gets() == {"/a": 2}


def test_a_download_that_stays_short_is_not_taken_for_the_whole(server, cut):
    server.files["/a"] = lines(0, 20)
    size = len(server.files["/a"])
    server.faults["/a"] = [cut(1000)] + [cut(0)] * 9
    detail = problem(server, "/a")
    assert "6 times in a row" in detail and ("IncompleteRead" in detail or f"byte 1,000 of {size:,}" in detail)
    assert server.gets() == {"/a": patience.TRIES}


def test_progress_makes_earlier_failures_forgotten(server, cut, monkeypatch):
    monkeypatch.setattr(patience, "FORGIVEN_AFTER", 1000)
    server.files["/a"] = lines(0, 20)
    server.faults["/a"] = [cut(1200) for _ in range(7)]
    assert content(server, "/a") == server.files["/a"]
    assert server.gets() == {"/a": 8}


def test_a_server_that_throttles_is_given_the_time_it_asks_for(server):
    server.files["/a"] = lines(0)

    def soon(handler, path, start) -> None:
        date = email.utils.formatdate(time.time() + 2, usegmt=True)  # whole seconds
        status(503, Retry_After=date)(handler, path, start)

    server.faults["/a"] = [status(429, Retry_After="1"), status(503), soon]
    assert content(server, "/a") == server.files["/a"]
    waits = [after - before for before, after in zip(server.times[1:], server.times[2:], strict=False)]
    assert waits[0] >= 1 and waits[2] > 0.5


def test_what_does_not_pass_is_told_at_once(server):
    server.files["/a"] = lines(0)
    for code in (401, 404, 410):
        server.faults["/a"] = [status(code)]
        assert f"the server answers {code}" in problem(server, "/a")
    assert server.gets() == {"/a": 3}
    server.faults["/a"] = [status(429, Retry_After="86400")]
    assert "429 Too Many Requests, and asks to come back in 86,400 seconds" in problem(server, "/a")
    server.faults["/a"] = [status(500)] * 9
    assert "500 Internal Server Error, 6 times in a row" in problem(server, "/a")


def test_a_file_that_changes_is_not_patched_together(server, cut):
    server.files["/a"] = lines(0)

    def change(*rest) -> None:
        cut(3000)(*rest)
        server.files["/a"] = lines(1)

    server.faults["/a"] = [change]
    assert "changed on the server while it was read" in problem(server, "/a")
    size, version = remote.describe(f"{server.url}/a", POLITE)
    server.files["/a"] = lines(2)
    with pytest.raises(Broken, match="changed on the server since the build began"):
        list(remote.read(f"{server.url}/a", size, version, POLITE))

    def shrink(*rest) -> None:
        cut(3000)(*rest)
        server.files["/a"] = b"short"

    server.faults["/a"] = [shrink]
    assert "ends before byte 3,000" in problem(server, "/a")


def test_without_a_version_a_broken_file_is_not_gone_on_with(server, cut):
    server.files["/a"], server.versions["/a"] = lines(0), ""
    assert content(server, "/a") == server.files["/a"]
    server.faults["/a"] = [status(503)]
    assert content(server, "/a") == server.files["/a"]
    server.faults["/a"] = [cut(3000)]
    assert "names no version (ETag, Last-Modified)" in problem(server, "/a")


def test_a_file_without_a_length_is_not_read(server):
    def endless(handler, path, start) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"text")
        handler.close_connection = True

    server.faults["/a"] = [endless]
    server.files["/a"] = b"text"
    size, version = remote.describe(f"{server.url}/a", POLITE)
    with pytest.raises(Broken, match="does not say how long the file is"):
        list(remote.read(f"{server.url}/a", size, version, POLITE))


def test_a_connection_that_gives_next_to_nothing_is_left(server, cut, monkeypatch):
    monkeypatch.setattr(web, "SLOW_SECONDS", 0.2)
    server.files["/a"] = lines(0)

    def drip(handler, path, start) -> None:
        server.whole(handler, path, start, sent=0)
        for byte in server.files[path][start : start + 20]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.03)
        handler.close_connection = True

    server.faults["/a"] = [drip]
    assert content(server, "/a") == server.files["/a"]
    first, second = (start for method, _, start in server.asked if method == "GET")
    assert first == 0 and second < 20


def test_no_more_connections_than_are_polite_and_pauses_between(server):
    server.delay = 0.02
    for number in range(12):
        server.files[f"/{number}.jsonl"] = lines(number, 2)
    urls = [f"{server.url}/{number}.jsonl" for number in range(12)]
    found = find_sources(urls, build_module.Path("nowhere"), manners=Manners(connections=2))
    assert [source.size for source in found] == [len(server.files[f"/{number}.jsonl"]) for number in range(12)]

    def read(url: str) -> None:
        list(remote.read(url, *remote.describe(url, Manners(2)), Manners(2)))

    threads = [threading.Thread(target=read, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.busiest == 2
    server.times.clear()
    for url in urls[:3]:
        remote.describe(url, Manners(connections=1, pause=0.2))
    assert server.times[1] - server.times[0] >= 0.19 and server.times[2] - server.times[1] >= 0.19


def test_a_build_from_a_web_server(server, build, documents, set_aside, tmp_path, cut):
    server.files["/x/a.jsonl.gz"] = gzip.compress(lines(0))
    server.files["/x/b.jsonl"] = lines(1)
    table = pa.table({"id": [f"p{n}" for n in range(40)], "text": [f"{n} of a table, written down" for n in range(40)]})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    server.files["/x/c.parquet"] = sink.getvalue().to_pybytes()
    server.faults["/x/b.jsonl"] = [status(503), cut(2000)]
    urls = [f"{server.url}/x/{name}" for name in ("a.jsonl.gz?key=secret", "b.jsonl", "c.parquet", "d.jsonl")]
    corpus = build(*urls, max_rejected=0.5)
    expected = {f"{seed}/{n}" for seed in (0, 1) for n in range(40)} | {f"p{n}" for n in range(40)}
    assert documents(corpus).keys() == expected
    assert [source["source"] for source in corpus.card["sources"]] == ["a.jsonl.gz", "b.jsonl", "c.parquet", "d.jsonl"]
    (rejected,) = set_aside(tmp_path / "out")
    assert (rejected["source"], rejected["reason"]) == ("d.jsonl", "unreadable")
    assert rejected["detail"] == "the server answers 404 Not Found"
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "out").glob("card.*"))
    assert server.url not in (tmp_path / "out" / "card.json").read_text()
    assert build(*urls[:3], workers=2).fingerprint == corpus.fingerprint


def test_a_server_that_ends_every_connection_costs_its_file_only(server, build, set_aside, tmp_path, cut):
    server.files["/a.jsonl"], server.files["/b.jsonl"] = lines(0), lines(1)
    whole = server.files["/a.jsonl"].index(b"\n", 3000)
    server.faults["/a.jsonl"] = [cut(whole + 10)] + [cut(0)] * 9
    card = build(f"{server.url}/a.jsonl", f"{server.url}/b.jsonl", max_rejected=0.5).card
    read = server.files["/a.jsonl"][: whole + 1].count(b"\n")
    assert (card["in"], card["kept"], card["rejected"]) == (41 + read, 40 + read, {"unreadable": 1})
    (rejected,) = set_aside(tmp_path / "out")
    assert rejected["record"] == "from the break on"


@pytest.fixture
def crawl(server) -> Server:
    """Six files of a crawl, and their list."""
    names = [f"crawl-data/C-1/segments/{number}/c.jsonl.gz" for number in range(6)]
    server.files |= {f"/{name}": gzip.compress(lines(number)) for number, name in enumerate(names)}
    server.files["/crawl-data/C-1/warc.paths.gz"] = gzip.compress("\n".join(names).encode() + b"\n")
    return server


def test_a_list_of_paths(crawl, build, documents, tmp_path):
    where = f"{crawl.url}/crawl-data/C-1/warc.paths.gz"
    corpus = build(f"{where}#1-2")
    assert documents(corpus).keys() == {f"{seed}/{n}" for seed in (1, 2) for n in range(40)}
    assert corpus.card["sources"][0]["source"] == "C-1/warc.paths.gz#1-2"
    assert {document.source for document in documents(corpus).values()} == {
        f"crawl-data/C-1/segments/{number}/c.jsonl.gz" for number in (1, 2)
    }
    assert set(crawl.gets()) == {
        "/crawl-data/C-1/warc.paths.gz",
        *(f"/crawl-data/C-1/segments/{n}/c.jsonl.gz" for n in (1, 2)),
    }
    assert build(where).card["kept"] == 240 and build(f"{where}#5").card["kept"] == 40
    local = tmp_path / "warc.paths.gz"
    local.write_bytes(crawl.files["/crawl-data/C-1/warc.paths.gz"])
    assert build(f"{local}#1-2", base_url=crawl.url).fingerprint == corpus.fingerprint
    mirror = tmp_path / "mirror"
    for number in range(6):
        path = mirror / f"crawl-data/C-1/segments/{number}/c.jsonl.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(crawl.files[f"/{path.relative_to(mirror)}"])
    assert build(f"{local}#1-2", base_url=str(mirror)).fingerprint == corpus.fingerprint


def test_a_list_that_cannot_be_followed_is_a_wrong_use(crawl, tmp_path):
    def told(text: str, **more) -> str:
        with pytest.raises(UsageError) as error:
            find_sources([text], tmp_path / "out", **more)
        return str(error.value)

    where = f"{crawl.url}/crawl-data/C-1/warc.paths.gz"
    assert "the list has 6 paths; choose some from 0 to 5" in told(f"{where}#3-6")
    assert "404 Not Found" in told(f"{crawl.url}/none/warc.paths.gz")
    local = tmp_path / "warc.paths"
    assert "No such file" in told(str(local), base_url=crawl.url)
    for line in ("../up", "/etc/passwd", "file:///etc/passwd", "a/../../b"):
        local.write_text(f"fine.warc.gz\n{line}\n")
        assert f"'{line}' is not a path below {crawl.url}" in told(str(local), base_url=crawl.url)
    assert "say what its paths are below" in told(str(local))
    assert "nothing matches it" in told("memory://nowhere/a.txt")
    assert "nothing" in told("nothing://here/a.txt")


def test_a_killed_build_does_not_fetch_finished_files_again(crawl, build, documents, tmp_path):
    where = f"{crawl.url}/crawl-data/C-1/warc.paths.gz"
    held = "/crawl-data/C-1/segments/4/c.jsonl.gz"
    killed = threading.Event()
    crawl.faults[held] = [lambda *rest: killed.wait(60)]
    script = (
        "import sys; from pathlib import Path\n"
        "from tilth.corpus import file_task; file_task.MOST_FILES = 1\n"
        "from tilth.corpus.build import build_corpus\n"
        "build_corpus([sys.argv[1]], Path(sys.argv[2]), workers=1, progress=False)\n"
    )
    command = [sys.executable, "-c", script, where, str(tmp_path / "out")]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    parts, deadline = tmp_path / ".out.parts", time.monotonic() + 60
    while len(list(parts.glob(f"[!.]*/{ACCOUNT}"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    killed.set()
    files = [f"/crawl-data/C-1/segments/{number}/c.jsonl.gz" for number in range(6)]
    assert [crawl.gets()[path] for path in files] in ([1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0])
    crawl.faults.clear()
    crawl.asked.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tilth.corpus.file_task.MOST_FILES", 1)
        corpus = build(where, workers=1)
    assert [crawl.gets()[path] for path in files] == [0, 0, 0, 0, 1, 1]
    assert corpus.card["kept"] == 240


def test_what_could_not_be_fetched_is_asked_for_again_by_the_next_build(crawl, build, tmp_path, monkeypatch):
    monkeypatch.setattr("tilth.corpus.file_task.MOST_FILES", 1)
    where = f"{crawl.url}/crawl-data/C-1/warc.paths.gz"
    files = [f"/crawl-data/C-1/segments/{number}/c.jsonl.gz" for number in range(6)]
    crawl.faults[files[3]] = [status(403)]
    with pytest.raises(Exception, match="1 of 201 records are broken"):
        build(where, max_rejected=0)
    crawl.asked.clear()
    crawl.files[files[1]] = gzip.compress(lines(11))
    assert build(where, max_rejected=0).card["kept"] == 240
    assert [crawl.gets()[path] for path in files] == [0, 1, 0, 1, 0, 0]


@pytest.fixture(params=["memory", "s3"])
def bucket(request, monkeypatch):
    """A bucket in memory, and one of a local server that speaks S3; gives its URL and file system."""
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        files.mkdir("/bucket")
        yield "memory://bucket", files
        files.rm("/bucket", recursive=True)
        return
    _, files = request.getfixturevalue("bucket_server")
    yield "s3://bucket", files


def test_files_of_a_bucket(bucket, build, documents, tmp_path, monkeypatch):
    url, files = bucket
    monkeypatch.setattr(store, "BLOCK", 1000)
    for number in range(3):
        files.pipe_file(f"bucket/in/{number}.jsonl.gz", gzip.compress(lines(number)))
    files.pipe_file("bucket/in/.hidden.jsonl", lines(8))
    files.pipe_file("bucket/in/sub/note.jsonl", lines(9))
    corpus = build(f"{url}/in/*.jsonl.gz")
    assert documents(corpus).keys() == {f"{seed}/{n}" for seed in range(3) for n in range(40)}
    assert {document.source for document in documents(corpus).values()} == {f"{n}.jsonl.gz" for n in range(3)}
    whole = build(f"{url}/in/")
    assert whole.card["kept"] == 160 and "1 hidden files" in whole.card["notes"][0]
    assert "in/sub/note.jsonl" in {document.source for document in documents(whole).values()}
    assert build(f"{url}/in/1.jsonl.gz").card["kept"] == 40
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jsonl.gz").write_bytes(gzip.compress(lines(number)))
    assert build(f"{tmp_path}/in/*.jsonl.gz").fingerprint == corpus.fingerprint


def test_a_block_that_fails_is_asked_for_again(bucket, monkeypatch):
    url, files = bucket
    monkeypatch.setattr(store, "BLOCK", 1000)
    files.pipe_file("bucket/a.jsonl", lines(0))
    size, version = remote.describe(f"{url}/a.jsonl", POLITE)
    assert size == len(lines(0)) and version
    instance, _ = open_file_system(url)
    ask, asked = instance.cat_file, []

    def failing(path, start, end):
        asked.append(start)
        if asked.count(start) == 1 and start == 3000:
            raise ConnectionResetError("reset")
        if asked.count(start) == 1 and start == 5000:
            return b"short"
        return ask(path, start=start, end=end)

    monkeypatch.setattr(instance, "cat_file", failing)
    assert b"".join(remote.read(f"{url}/a.jsonl", size, version, POLITE)) == lines(0)
    assert sorted(asked) == sorted([*range(0, size, 1000), 3000, 5000])
    chunks = remote.read(f"{url}/a.jsonl", size, version, POLITE)
    next(chunks)
    time.sleep(1.1)
    files.pipe_file("bucket/a.jsonl", lines(1)[:size].ljust(size))
    with pytest.raises(Broken, match="changed where it lies"):
        list(chunks)
    files.rm("bucket/a.jsonl")
    with pytest.raises(Broken, match="FileNotFoundError"):
        list(remote.read(f"{url}/a.jsonl", size, version, POLITE))


def test_a_call_that_hangs_is_left(monkeypatch):
    monkeypatch.setattr(patience, "CALL_SECONDS", 0.1)
    with pytest.raises(patience.Passing, match="no answer"):
        patience.within_time(lambda: time.sleep(2))
