"""Web crawl files: pages are kept, the rest is counted by reason, and damage costs the record it is in."""

import base64
import bz2
import gzip
import hashlib
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from tilth.corpus.build import build_corpus
from tilth.corpus.card import DROPPED
from tilth.corpus.formats import framing, members
from tilth.corpus.reading import Reading
from tilth.corpus.records import BATCH_SCHEMA, Dropped, Record, Rejected, to_batches
from tilth.corpus.sources import find_sources, read_files

pytest.importorskip("fastwarc", reason="needs the extra web")
pytest.importorskip("resiliparse", reason="needs the extra web")

CHUNKED = b"5\r\n<p>ab\r\n4\r\nc</p\r\n1\r\n>\r\n0\r\n\r\n"
WORDS = [f"word{number}" for number in range(400)]


def warc_record(kind, content, number=0, digest=False, length=None, **headers):
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:test:{number}>",
        "WARC-Date": "2024-05-17T23:31:22Z",
        "WARC-Target-URI": f"http://example.org/{number}",
        "Content-Type": "application/http; msgtype=response",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    if digest:
        fields["WARC-Block-Digest"] = "sha1:" + base64.b32encode(hashlib.sha1(content).digest()).decode()
    fields["Content-Length"] = str(len(content) if length is None else length)
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return head.encode() + b"\r\n" + content + b"\r\n\r\n"


def response(body, status="200 OK", kind="text/html; charset=utf-8", **headers):
    lines = [f"HTTP/1.1 {status}"] + ([f"Content-Type: {kind}"] if kind else [])
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def some_text(number):
    return " ".join(random.Random(number).choices(WORDS, k=80))


def page(number):
    return f"<html><head><title>Page {number}</title></head><body><p>{some_text(number)}</p></body></html>".encode()


def pages(count, **settings):
    return [warc_record("response", response(page(number)), number, **settings) for number in range(count)]


def packed(records, level=9):
    return [gzip.compress(record, level, mtime=0) for record in records]


def read(path, name=None):
    """Everything that is read of a file, as (texts by id, dropped, rejected by place)."""
    items = list(read_files(find_sources([str(path)], Path("nowhere"))[0].files, False, Reading()))
    records = {item.id: item.text.strip() for item in items if isinstance(item, Record)}
    assert len(records) == sum(isinstance(item, Record) for item in items)
    dropped = Counter(item.reason for item in items if isinstance(item, Dropped))
    rejected = {item.record: item.reason for item in items if isinstance(item, Rejected)}
    assert len(rejected) == sum(isinstance(item, Rejected) for item in items)
    return records, dropped, rejected


def texts(numbers):
    return {f"urn:test:{number}": some_text(number) for number in numbers}


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


def blocks(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def zst(records):
    return b"".join(zstandard.ZstdCompressor().compress(record) for record in records)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.warc", b"".join),
        ("a.warc.gz", lambda records: b"".join(packed(records))),
        ("one-member.warc.gz", lambda records: gzip.compress(b"".join(records))),
        ("blocks.warc.gz", lambda records: b"".join(packed(blocks(b"".join(records), 999)))),
        ("a.warc.zst", zst),
        ("a.warc.bz2", lambda records: bz2.compress(b"".join(records))),
        ("no-hint", lambda records: b"".join(packed(records))),
    ],
)  # fmt: skip
def test_pages_are_read_however_they_are_packed(name, pack, write):
    assert read(write(name, pack(pages(30)))) == (texts(range(30)), {}, {})


def test_what_is_no_page_is_dropped_by_reason(write, build, documents):
    unchanged = b"<html><body><p>stored as it was decoded</p></body></html>"
    records = [
        warc_record("warcinfo", b"software: test\r\n", 0, Content_Type="application/warc-fields"),
        warc_record("request", b"GET / HTTP/1.1\r\n\r\n", 1, Content_Type="application/http; msgtype=request"),
        warc_record("response", response(page(2)), 2),
        warc_record("response", response(page(3), "301 Moved"), 3),
        warc_record("response", response(page(4), "404 Not Found"), 4),
        warc_record("response", response(b"\x89PNG\r\n\x1a\n\0\0", kind="image/png"), 5),
        warc_record("response", response(b"plain text, too", kind="text/plain"), 6),
        warc_record("response", response(b""), 7),
        warc_record("revisit", response(b""), 8),
        warc_record("metadata", b"{}", 9, Content_Type="application/json"),
        warc_record("metadata", b"via: x\r\n", 10, Content_Type="application/warc-fields"),
        warc_record("conversion", "naïve text of a page".encode(), 11, Content_Type="text/plain"),
        warc_record("response", b"1.2.3.4", 12, Content_Type="text/dns"),
        warc_record("response", response(gzip.compress(page(13)), Content_Encoding="gzip"), 13),
        warc_record("response", response(unchanged, Content_Encoding="gzip"), 14),
        warc_record("response", response(page(15), "206 Partial", kind=None), 15),
        warc_record("response", response(CHUNKED, Transfer_Encoding="chunked"), 16),
    ]  # fmt: skip
    corpus = build(write("a.warc.gz", b"".join(packed(records))))
    assert corpus.card["dropped"] == {
        "empty": 1,
        "http_status": 2,
        "metadata_only": 1,
        "not_a_response": 5,
        "not_text": 1,
    }
    assert set(corpus.card["dropped"]) <= set(DROPPED)
    assert (corpus.card["in"], corpus.card["kept"], corpus.card["rejected"]) == (17, 7, {})
    found = {name: document.text.strip() for name, document in documents(corpus).items()}
    assert found == {
        **texts([2, 13, 15]),
        "urn:test:6": "plain text, too",
        "urn:test:11": "naïve text of a page",
        "urn:test:14": "stored as it was decoded",
        "urn:test:16": "abc",
    }
    assert documents(corpus)["urn:test:2"].metadata == {
        "url": "http://example.org/2",
        "date": "2024-05-17T23:31:22Z",
        "content_type": "text/html",
        "charset": "utf-8",
        "title": "Page 2",
    }


def test_ids_of_records_without_one_are_their_places(write):
    records = pages(3, WARC_Record_ID=None)
    path = write("a.warc", b"".join(records))
    assert set(read(path)[0]) == {"a.warc:0", f"a.warc:{len(records[0])}", f"a.warc:{len(records[0] + records[1])}"}
    first, *others = packed(records)
    path = write("b.warc.gz", first + gzip.compress(b"".join(records[1:])))
    inside = f"b.warc.gz:{len(first)}+{len(records[1])}"
    assert set(read(path)[0]) == {"b.warc.gz:0", f"b.warc.gz:{len(first)}", inside}


def arc_record(url, kind, content, extra=""):
    return f"{url} 1.2.3.4 20080430204825 {kind}{extra} {len(content)}\n".encode() + content + b"\n"


@pytest.mark.parametrize("extra", ["", " 200 - - 1234 file.arc"])
@pytest.mark.parametrize("pack", [b"".join, lambda records: b"".join(packed(records))])
def test_arc(extra, pack, write):
    records = [
        arc_record("filedesc://a.arc", "text/plain", b"1 1 InternetArchive\nURL IP-address Archive-date\n", extra),
        arc_record("dns:example.org", "text/dns", b"20080430204825\n", extra),
        arc_record("http://example.org/a b", "text/html", response(page(1)), extra),
        arc_record("http://example.org/2", "text/html", response(page(2), "404 Not Found"), extra),
        arc_record("https://example.org/3", "text/html", response(page(3)), extra),
    ]
    path = write("a.arc", pack(records))
    found, dropped, rejected = read(path)
    assert sorted(found.values()) == sorted(some_text(number) for number in (1, 3))
    assert (dropped, rejected) == ({"not_a_response": 2, "http_status": 1}, {})
    (item,) = [item for item in read_files(find_sources([str(path)], Path("x"))[0].files, False, Reading())
               if isinstance(item, Record) and item.metadata["url"] == "http://example.org/a b"]  # fmt: skip
    assert item.metadata["date"] == "2008-04-30T20:48:25Z"
    damaged = b"".join(records).replace(b"Page 1", b"Page 1 and more")
    found, dropped, rejected = read(write("b.arc", damaged))
    assert (sorted(found.values()), dropped) == ([some_text(3)], {"not_a_response": 2, "http_status": 1})
    assert list(rejected.values()) == ["wrong_length"]


def test_an_arc_file_is_known_when_its_first_member_is_damaged(write):
    records = [arc_record("filedesc://a.arc", "text/plain", b"1 1 InternetArchive\n")]
    records += [arc_record(f"http://example.org/{number}", "text/html", response(page(number))) for number in range(4)]
    parts = packed(records)
    found, _, rejected = read(write("no-hint", flip(parts[0], 20) + b"".join(parts[1:])))
    assert sorted(found.values()) == sorted(map(some_text, range(4)))
    assert rejected == {"byte 0": "corrupt"}


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize("broken", [0, 7, 19])
@pytest.mark.parametrize(
    "where", ["magic", "header", "deflate data", "middle", "crc", "size", "cut out", "zeroed", "grown"]
)
def test_a_damaged_member_costs_one_record(broken, where, write):
    parts = packed(pages(20))
    start = sum(map(len, parts[:broken]))
    part = parts[broken]
    parts[broken] = {
        "magic": lambda: flip(part, 1),
        "header": lambda: flip(part, 2),
        "deflate data": lambda: flip(part, 12),
        "middle": lambda: flip(part, len(part) // 2),
        "crc": lambda: flip(part, len(part) - 7),
        "size": lambda: flip(part, len(part) - 3),
        "cut out": lambda: part[: len(part) // 2],
        "zeroed": lambda: part[:40] + bytes(len(part) - 40),
        "grown": lambda: part + b"junk between the members",
    }[where]()
    found, dropped, rejected = read(write("a.warc.gz", b"".join(parts)))
    kept = set(range(20)) - (set() if where == "grown" else {broken})
    assert (found, dropped) == (texts(kept), {})
    cut_at_the_end = where == "cut out" and broken == 19
    place = start + len(part) if where == "grown" else start
    assert rejected == {f"byte {place:,}": "truncated" if cut_at_the_end else "corrupt"}


def test_a_record_in_a_damaged_member_is_kept_if_its_digest_proves_it(write):
    records = pages(60, digest=True)
    altered = records[2].replace(some_text(2)[:7].encode(), b"altered")
    assert len(altered) == len(records[2])
    stored = gzip.compress(b"".join(records[:59]), 0, mtime=0)  # what is altered shows in the checksum at its end only
    stored = stored.replace(records[2], altered)
    assert altered in stored
    found, _, rejected = read(write("a.warc.gz", stored + packed(records)[59]))
    kept = sorted(int(name.rpartition(":")[2]) for name in found)
    assert kept[:2] == [0, 1] and kept[2] == 3 and kept[-1] == 59 and 30 < len(kept) < 59
    assert found == texts(kept)
    assert kept[2:-1] == list(range(3, 3 + len(kept) - 3))
    assert list(rejected.values()) == ["corrupt", "corrupt"]


def test_a_cut_file_keeps_its_whole_records_and_says_so(write):
    parts = packed(pages(10))
    data = b"".join(parts)
    start = sum(map(len, parts[:9]))
    for cut in (start + 1, start + 5, start + 60, start + 200):
        found, _, rejected = read(write("a.warc.gz", data[:cut]))
        assert (found, rejected) == (texts(range(9)), {f"byte {start:,}": "truncated"})
    found, _, rejected = read(write("a.warc.gz", data[:-1]))  # the record is whole, the file is not
    assert found == texts(range(10)) and list(rejected.values()) == ["truncated"]

    plain = b"".join(pages(10))
    for cut in (len(plain) - 40, len(plain) - 600, len(plain) - 700):
        found, _, rejected = read(write("a.warc", plain[:cut]))
        assert (found, list(rejected.values())) == (texts(range(9)), ["truncated"])
    one = gzip.compress(plain)
    found, _, rejected = read(write("one.warc.gz", one[: len(one) * 2 // 3]))
    assert found == texts(range(len(found))) and len(found) >= 5
    assert list(rejected.values()) == ["truncated"]


@pytest.mark.parametrize(
    "pack", [b"".join, lambda records: b"".join(packed(records)), lambda records: gzip.compress(b"".join(records))]
)
@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (3, "wrong_length"),
        (1500, "wrong_length"),
        (20_000_000, "wrong_length"),
        (10**17, "wrong_length"),
        (10**40, "malformed_header"),
        (-5, "malformed_header"),
        ("many", "malformed_header"),
    ],
)
def test_a_wrong_content_length_costs_one_record(length, reason, pack, write):
    records = pages(8)
    records[4] = warc_record("response", response(page(4)), 4, length=length)
    found, dropped, rejected = read(write("a.warc", pack(records)))
    assert (found, dropped) == (texts([0, 1, 2, 3, 5, 6, 7]), {})
    assert list(rejected.values()) == [reason]


def test_junk_between_records_of_a_plain_file_costs_itself(write):
    records = pages(4)
    data = records[0] + b"junk\r\n\r\n" + records[1] + records[2].replace(b"WARC/1.0", b"WURC/1.0") + records[3]
    found, _, rejected = read(write("a.warc", data))
    assert found == texts([0, 1, 3])
    first = len(records[0])
    assert rejected == {f"byte {first:,}": "corrupt", f"byte {first + 8 + len(records[1]):,}": "corrupt"}


def test_zero_bytes_at_the_end_and_between_members_are_nothing(write):
    parts = packed(pages(3))
    data = parts[0] + bytes(5000) + parts[1] + parts[2] + bytes(70_000)
    assert read(write("a.warc.gz", data)) == (texts(range(3)), {}, {})
    assert read(write("a.warc", b"".join(pages(3)) + bytes(100_000))) == (texts(range(3)), {}, {})


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html><body>503 Slow down</body></html>", b"Access denied\n"])
@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc", "a.warc.wet.gz", "a.arc.gz"])
def test_an_error_page_in_place_of_a_crawl_is_no_document(content, name, write):
    for data in (content, gzip.compress(content)):
        found, dropped, rejected = read(write(name, data))
        assert (found, dropped, list(rejected.values())) == ({}, {}, ["wrong_format"])


def test_a_bomb_and_a_record_that_is_too_large_are_passed_over(write, monkeypatch):
    monkeypatch.setattr(members, "HELD", 300_000)
    monkeypatch.setattr(framing, "MAX_RECORD", 200_000)
    records = pages(5)
    records[1] = warc_record("response", response(b"<p>" + random.Random(0).randbytes(500_000).hex().encode()), 1)
    records[3] = warc_record("response", response(b"<p>" + b" " * 40_000_000), 3)
    parts = packed(records)
    places = [sum(map(len, parts[:number])) for number in range(5)]
    found, _, rejected = read(write("a.warc.gz", b"".join(parts)))
    assert found == texts([0, 2, 4])
    assert rejected == {f"byte {places[1]:,}": "too_large", f"byte {places[3]:,}": "bomb"}
    found, _, rejected = read(write("a.warc", b"".join(records)))
    assert found == texts([0, 2, 4])
    assert list(rejected.values()) == ["too_large", "too_large"]


def test_a_bomb_in_the_http_body_is_too_large(write):
    bomb = gzip.compress(gzip.compress(b" " * 200_000_000), 9)
    records = [*pages(2), warc_record("response", response(bomb, Content_Encoding="gzip, gzip"), 2)]
    assert len(bomb) < 10_000
    found, _, rejected = read(write("a.warc.gz", b"".join(packed(records))))
    assert found == texts([0, 1])
    assert list(rejected.values()) == ["too_large"]


def test_memory_is_bounded_on_a_large_record(tmp_path):
    path = tmp_path / "a.warc"
    block = random.Random(0).randbytes(500_000).hex().encode()
    with open(path, "wb") as file:
        head, _, _ = warc_record("response", b"", length=300_000_000 + 17).partition(b"\r\n\r\n")
        file.write(head + b"\r\n\r\nHTTP/1.1 200 OK\r\n")
        for _ in range(300):
            file.write(block)
        file.write(b"\r\n\r\n" + pages(1)[0])
    script = (
        "import re, sys; from pathlib import Path; from tilth.corpus.compression import file_chunks, open_stream\n"
        "from tilth.corpus.reading import Reading; from tilth.corpus.formats.warc import read_warc\n"
        "stream = open_stream(file_chunks(open(sys.argv[1], 'rb'), lambda size: None), 1)\n"
        "print(*(type(item).__name__ + getattr(item, 'reason', '') for item in read_warc(stream, 'a', Reading())))\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    items, megabytes = run.stdout.splitlines()
    assert items == "Rejectedtoo_large Record"
    assert int(megabytes) < 350


def test_undecodable_and_unparsable_responses_are_rejected(write):
    records = [
        *pages(1),
        warc_record("response", b"no HTTP at all", 1),
        warc_record("response", response(b"\x1f\x8b\x08 no gzip", Content_Encoding="gzip"), 2),
        warc_record("response", response(bytes(range(256)) * 8, kind="text/plain"), 3),
        warc_record("response", response(random.Random(3).randbytes(5000)), 4),
        warc_record("conversion", b"\xff\xfe\xfd" * 9, 5, Content_Type="text/plain"),
    ]
    found, dropped, rejected = read(write("a.warc", b"".join(records)))
    assert found == texts([0])
    assert list(rejected.values()) == 2 * ["malformed_http"] + 3 * ["invalid_utf8"]


def test_paths_in_urls_and_ids_are_only_text(write, build, documents, tmp_path):
    records = [
        warc_record("response", response(page(0)), WARC_Record_ID="<../../../etc/passwd>"),
        warc_record("response", response(page(1)), 1, WARC_Target_URI="file:///etc/../../tmp/x\0y"),
        *pages(10)[2:],
    ]
    corpus = build(write("a.warc.gz", b"".join(packed(records))))
    assert "../../../etc/passwd" in documents(corpus)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.warc.gz", "out"]


def _small_crawl():
    records = [
        warc_record("warcinfo", b"software: test\r\n", 100, Content_Type="application/warc-fields"),
        *pages(12),
        warc_record("response", response(gzip.compress(page(50)), Content_Encoding="gzip"), 50),
        warc_record("response", response(b"3\r\n<p>\r\n2\r\nab\r\n0\r\n\r\n", Transfer_Encoding="chunked"), 51),
        warc_record("response", response(page(52), "404 Not Found"), 52),
        warc_record("conversion", b"text of a page", 53, Content_Type="text/plain"),
    ]
    return records


def _flips(data, seed):
    generator = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 8, 64])):
        at = generator.randrange(len(damaged))
        change = generator.randrange(4)
        if change == 0:
            damaged[at] ^= 1 << generator.randrange(8)
        elif change == 1:
            damaged[at] = generator.randrange(256)
        elif change == 2:
            del damaged[at : at + generator.randrange(1, 40)]
        else:
            damaged[at:at] = generator.randbytes(generator.randrange(1, 40))
        if not damaged:
            break
    return bytes(damaged)


def _check_fuzzed(path, limit):
    """Read through the batches of a build, and count as it does. Returns the number of records kept."""
    source = find_sources([str(path)], Path("nowhere"))[0]
    read_in = kept = dropped = rejected = 0
    for item in to_batches(read_files(source.files, False, Reading())):
        if isinstance(item, Dropped):
            dropped += item.count
            read_in += item.count
        elif isinstance(item, Rejected):
            assert item.source == path.name and item.record and item.reason and item.detail
            rejected += 1
            read_in += 1
        else:
            assert item.schema == BATCH_SCHEMA
            item.validate(full=True)
            kept += item.num_rows
            read_in += item.num_rows
    assert read_in == kept + dropped + rejected <= limit
    return kept


def _fuzz(tmp_path, seeds):
    records = _small_crawl()
    forms = {
        "a.warc": b"".join(records),
        "a.warc.gz": b"".join(packed(records)),
        "b.warc.gz": gzip.compress(b"".join(records)),
        "a.warc.zst": zst(records),
        "a.arc": b"".join(
            arc_record(f"http://x/{number}", "text/html", response(page(number))) for number in range(12)
        ),
    }
    kept = Counter()
    for seed in seeds:
        name = list(forms)[seed % len(forms)]
        path = tmp_path / name
        path.write_bytes(_flips(forms[name], seed))
        kept[name] += _check_fuzzed(path, limit=200)
    return kept


def test_flipped_bytes_never_crash_and_all_adds_up(tmp_path):
    kept = _fuzz(tmp_path, range(200))
    assert min(kept.values()) > 40 * 2
    assert kept["a.warc.gz"] > 40 * 8


@pytest.mark.slow
def test_flipped_bytes_never_crash_and_all_adds_up_1000_times(tmp_path):
    _fuzz(tmp_path, range(200, 1200))


def test_a_build_adds_up_on_a_damaged_crawl(tmp_path, write):
    parts = packed(_small_crawl())
    parts[3] = flip(parts[3], 30)
    card = build_corpus([str(write("a.warc.gz", b"".join(parts)))], tmp_path / "out", progress=False).card
    assert (card["in"], card["kept"]) == (17, 14)
    assert (card["dropped"], card["rejected"]) == ({"not_a_response": 1, "http_status": 1}, {"corrupt": 1})
