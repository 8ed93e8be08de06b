"""Dumps of wikis: what is an article, what is dropped, and how little a damage costs."""

import bz2
import json
import random
import re
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from tilth.corpus.card import DROPPED
from tilth.corpus.compression import Broken, open_stream
from tilth.corpus.formats import mediawiki_pages, read_stream
from tilth.corpus.records import Dropped, Record, Rejected
from tilth.corpus.settings import CorpusSettings

SHARED = Path(__file__).parents[3] / "shared" / "data" / "wikipedia"

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de">\n'
    "  <siteinfo>\n    <sitename>Wikipedia</sitename>\n    <dbname>dewiki</dbname>\n"
    "    <base>https://de.wikipedia.org/wiki/Hauptseite</base>\n    <namespaces>\n"
    '      <namespace key="-2" case="first-letter">Medium</namespace>\n      <namespace key="0" />\n'
    '      <namespace key="1">Diskussion</namespace>\n      <namespace key="6">Datei</namespace>\n'
    '      <namespace key="14">Kategorie</namespace>\n    </namespaces>\n  </siteinfo>\n'
)
TAIL = "</mediawiki>\n"


def page(number, text="Ein [[Absatz|Text]] hier.", title=None, space="0", extra="", model="wikitext"):
    ns = f"<ns>{space}</ns>" if space is not None else ""
    return (
        f"  <page>\n    <title>{escape(title or f'Seite {number}')}</title>\n    {ns}\n    <id>{number}</id>\n{extra}"
        f"<revision>\n      <id>{number + 1000}</id>\n      <timestamp>2017-04-10T12:33:45Z</timestamp>\n"
        f"      <contributor><username>K</username><id>5</id></contributor>\n      <model>{model}</model>\n"
        f'      <text xml:space="preserve">{escape(text)}</text>\n    </revision>\n  </page>\n'
    )


def dump(*pages):
    return (HEAD + "".join(pages) + TAIL).encode()


def read(data):
    """Every item of a dump; a `Broken` at the end as the rejection the build makes of it."""
    stream = open_stream(iter([data[start : start + 1000] for start in range(0, len(data), 1000)]), len(data))
    items = []
    try:
        for item in read_stream(stream, "d.xml", "d.xml", "text"):
            items.append(item)
    except Broken as error:
        items.append(Rejected("d.xml", "from the break on", error.reason, error.detail))
    return items


def records(items):
    return {item.id: item for item in items if isinstance(item, Record)}


def reasons(items):
    return [item.reason for item in items if not isinstance(item, Record)]


def test_an_article():
    text = "Über [[Hunde]].[[Datei:a.jpg|mini|x]]\n== Arten & mehr ==\nViele.\n== Einzelnachweise ==\n<references />"
    (item,) = read(dump(page(7, text, "Hund & Katze")))
    assert (item.id, item.source, item.text) == ("dewiki:7", "d.xml", "Über Hunde.\n\nArten & mehr\n\nViele.")
    assert item.metadata == {
        "title": "Hund & Katze",
        "url": "https://de.wikipedia.org/wiki/Hund_%26_Katze",
        "revision": "1007",
        "timestamp": "2017-04-10T12:33:45Z",
        "language": "de",
        "sections": [(2, "Arten & mehr", 13)],
    }


def test_what_is_no_article_is_dropped_by_reason():
    items = read(
        dump(
            page(1, "#WEITERLEITUNG [[Hund]]", extra='<redirect title="Hund" />'),
            page(2, "#REDIRECT [[Hund]]"),
            page(3, title="Diskussion:Hund", space="1"),
            page(4, title="Diskussion:Hund", space=None),
            page(5, title="Film: ein Titel", space=None),
            page(6, "Hund steht für\n* a\n{{Begriffsklärung}}"),
            page(7, "A\n{{ Human name disambiguation }}"),
            page(8, "A {{disambiguation needed|date=May 2010}} stays"),
            page(9, "steht für", "Hund (Begriffsklärung)"),
            page(10, "", model="wikitext"),
            page(11, "{{Vorlage}}"),
            page(12, "{}", model="json"),
            page(13, "A __DISAMBIG__"),
        )
    )
    assert sorted(records(items)) == ["dewiki:5", "dewiki:8"]
    assert reasons(items) == [
        *("redirect", "redirect", "not_an_article", "not_an_article", "disambiguation", "disambiguation"),
        *("disambiguation", "empty", "empty", "not_wikitext", "disambiguation"),
    ]
    assert set(reasons(items)) <= DROPPED.keys()


def test_a_dump_without_head_or_pages():
    bare = b'<mediawiki xml:lang="en">\n' + page(3).encode() + TAIL.encode()
    (item,) = read(bare)
    assert (item.id, item.metadata["language"], "url" in item.metadata) == ("d.xml:3", "en", False)
    assert read(dump()) == [Dropped("empty")]


def test_utf16_and_two_dumps_in_one_file():
    data = dump(page(1), page(2))
    expected = records(read(data))
    assert len(expected) == 2
    for encoding in ("utf-16-le", "utf-16-be"):
        assert records(read(("\ufeff" + data.decode()).encode(encoding))) == expected
    assert records(read(b'\xef\xbb\xbf<?xml version="1.0"?>\n' + data)) == expected
    other = dump(page(2)).replace(b"dewiki", b"frwiki")
    assert sorted(records(read(data + other))) == ["dewiki:1", "dewiki:2", "frwiki:2"]


def test_the_last_revision_counts():
    history = page(1, "new").replace("<revision>", "<revision><id>5</id><text>old</text></revision>\n<revision>")
    (item,) = read(dump(history))
    assert (item.text, item.metadata["revision"]) == ("new", "1001")


def test_a_broken_page_costs_itself():
    pages = [
        page(1),
        page(2).replace("</title>", "</tite>"),
        page(3).replace("</revision>", "</page>").replace("</text>\n    </page>", "</page>"),
        page(4).replace("</page>", ""),
        page(5),
        page(6).replace("<id>6</id>", ""),
        page(7).replace("Ein", "&nosuch;"),
        page(8).replace("Ein", "\x01"),
        page(9).replace("<ns>", "<a>" * 50),
        page(10),
        "<upload>stray</upload>\n",
        page(11),
    ]
    data = dump(*pages, page(12).replace("Ein", "E~n"), page(13)).replace(b"E~n", b"E\xffn")
    items = read(data)
    assert sorted(records(items)) == ["dewiki:1", "dewiki:10", "dewiki:11", "dewiki:13", "dewiki:5"]
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert [item.record.partition(",")[0] for item in rejected] == [
        *(
            "page 2",
            "page 3",
            "after page 3",
            "page 4",
            "page 6",
            "page 7",
            "page 8",
            "page 9",
            "after page 10",
            "page 12",
        ),
    ]
    assert {item.reason for item in rejected[:-1]} == {"malformed_xml"}
    assert rejected[-1].reason == "invalid_utf8"
    start = data.index(b"<page>", data.index(b"Seite 5"))
    assert rejected[4].record == f"page 6, byte {start:,}"


def test_no_document_type_is_read():
    entities = '<!DOCTYPE mediawiki [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>\n'
    bomb = entities.encode() + dump(page(1).replace("Ein", "&b;"))
    for data in (b'<?xml version="1.0"?>' + bomb, b"<?xml version='1.0'?>\n" + dump(page(1)) + bomb):
        items = read(data)
        assert isinstance(items[-1], Rejected)
        assert items[-1].reason == "unsafe_xml"
        assert not any("ha" in item.text for item in records(items).values())
    inside = dump(page(1), page(2).replace("<title>", "<!DOCTYPE x [<!ENTITY a 'b'>]><title>"))
    assert (sorted(records(read(inside))), reasons(read(inside))) == (["dewiki:1"], ["malformed_xml"])


def test_a_page_above_the_cap_is_set_aside(monkeypatch):
    monkeypatch.setattr(mediawiki_pages, "MAX_PAGE", 5000)
    items = read(dump(page(1), page(2, "x" * 100_000), page(3), page(4, "y" * 5000), page(5)))
    assert sorted(records(items)) == ["dewiki:1", "dewiki:3", "dewiki:5"]
    assert [(item.record.partition(",")[0], item.reason) for item in items if isinstance(item, Rejected)] == [
        ("page 2", "too_large"),
        ("page 4", "too_large"),
    ]
    revisions = "".join(f"<revision><id>{number}</id><text>{'z' * 900}</text></revision>\n" for number in range(40))
    (item,) = read(dump(page(6, "last").replace("<revision>", revisions + "<revision>", 1)))
    assert item.text == "last"


def test_what_is_between_pages_is_bounded(monkeypatch):
    monkeypatch.setattr(mediawiki_pages, "MAX_BETWEEN", 5000)
    items = read(dump(page(1), "x" * 300_000, page(2)))
    assert (sorted(records(items)), reasons(items)) == (["dewiki:1", "dewiki:2"], ["too_large"])


def test_a_cut_file_says_so():
    data = dump(page(1), page(2), page(3))
    inside = read(data[: data.index(b"Seite 3") + 40])
    assert (sorted(records(inside)), reasons(inside)) == (["dewiki:1", "dewiki:2"], ["truncated"])
    between = read(data.removesuffix(TAIL.encode()))
    assert (len(records(between)), reasons(between)) == (3, ["truncated"])
    compressed = read(bz2.compress(data)[:-200])
    assert reasons(compressed) == ["truncated"]


def words(seed, count=400):
    """Text that does not compress to nothing, so that a stream of it has many bytes to damage."""
    choose = random.Random(seed)
    return " ".join("".join(choose.choices("abcdefghijklmnop", k=7)) for _ in range(count))


def multistream(count=6):
    """A dump like `pages-articles-multistream.xml.bz2`: head, pairs of pages, and tail each a bz2 stream."""
    parts = [HEAD, *(page(n, words(n)) + page(n + 1, words(n + 1)) for n in range(1, 2 * count, 2)), TAIL]
    return [bz2.compress(part.encode()) for part in parts]


def test_multistream_and_a_damage_in_the_middle():
    streams = multistream()
    whole = read(b"".join(streams))
    assert len(records(whole)) == len(whole) == 12
    for place in (0.05, 0.5, 0.95):
        damaged = bytearray(streams[3])
        damaged[int(place * len(damaged))] ^= 0x55
        items = read(b"".join([*streams[:3], bytes(damaged), *streams[4:]]))
        lost = {"dewiki:5", "dewiki:6"}
        assert records(items) == {name: item for name, item in records(whole).items() if name not in lost}
        (gap,) = [item for item in items if isinstance(item, Rejected)]
        assert (gap.reason, gap.record.partition(",")[0]) == ("corrupt", "after page 4")
        assert "pages are missing" in gap.detail


def test_damage_that_eats_the_start_of_the_next_stream():
    streams = multistream()
    items = read(b"".join([*streams[:3], streams[3][:-300], *streams[4:]]))
    assert sorted(records(items)) == sorted(f"dewiki:{n}" for n in range(1, 13) if n not in (5, 6))
    assert reasons(items) == ["corrupt"]
    items = read(b"".join([*streams[:2], b"rubbish" * 50, *streams[2:5], b"BZh91AY&SY" * 30, *streams[5:]]))
    assert len(records(items)) == 12
    assert reasons(items) == ["corrupt", "corrupt"]


def test_damage_without_anything_after_it():
    streams = multistream()
    damaged = bytearray(streams[-1])
    damaged[12] ^= 0x55
    items = read(b"".join([*streams[:-1], bytes(damaged)]))
    assert (len(records(items)), reasons(items)) == (12, ["corrupt"])


def test_damage_over_and_over_ends():
    items = read(multistream()[0] + b"BZh91AY&SY" * 5000)
    assert reasons(items) == ["corrupt"]


def test_a_build_of_a_dump(tmp_path, build, documents):
    (tmp_path / "d.xml.bz2").write_bytes(b"".join([*multistream(), bz2.compress(dump(page(99, "#REDIRECT [[x]]")))]))
    corpus = build(tmp_path / "d.xml.bz2", validation=0.2)
    assert (corpus.card["in"], corpus.card["kept"], corpus.card["dropped"]) == (13, 12, {"redirect": 1})
    document = documents(corpus)["dewiki:3"]
    assert document.text == words(3)
    assert document.metadata["sections"] == []


def flip(data, choose):
    damaged = bytearray(data)
    for _ in range(choose.randrange(1, 4)):
        damaged[choose.randrange(len(damaged))] ^= choose.randrange(1, 256)
    return bytes(damaged)


def check_flips(count):
    plain = dump(*(page(n, words(n, 20) + "[[a|b]] {{c}} <ref>d</ref>") for n in range(1, 9)))
    forms = [plain, b"".join(multistream(4)), bz2.compress(plain), ("\ufeff" + plain.decode()).encode("utf-16-le")]
    choose = random.Random(7)
    for index in range(count):
        items = read(flip(forms[index % len(forms)], choose))
        assert items
        assert all(isinstance(item, Record | Dropped | Rejected) for item in items)
        kept, total = len(records(items)), len(items)
        if index % len(forms) == 0 and not any(
            item.record.startswith("whole") for item in items if isinstance(item, Rejected)
        ):
            # A flip touches at most two pages: what is lost is reported.
            assert kept == 8 or total > kept


def test_flipped_bytes():
    check_flips(200)


@pytest.mark.slow
def test_many_flipped_bytes():
    check_flips(1000)


def test_flipped_bytes_in_a_build_add_up(tmp_path):
    """The build itself checks that in = kept + dropped + rejected."""
    from tilth.corpus.build import build_corpus
    from tilth.errors import TilthError

    choose = random.Random(3)
    data = b"".join(multistream())
    built = 0
    for index in range(12):
        (tmp_path / "d.xml.bz2").write_bytes(flip(data, choose))
        try:
            card = build_corpus(
                [str(tmp_path / "d.xml.bz2")], tmp_path / f"out{index}", CorpusSettings(max_rejected=1), progress=False
            ).card
        except TilthError as error:
            assert "no documents" in str(error) or "split" in str(error)
            continue
        built += 1
        assert card["in"] == card["kept"] + sum(card["dropped"].values()) + sum(card["rejected"].values())
    assert built > 6


# the dumps in JSON


def test_cirrus():
    lines = [
        {"index": {"_type": "page", "_id": "7"}},
        {"title": "Hund", "text": "Ein Hund.", "namespace": 0, "wiki": "dewiki", "language": "de", "heading": ["A"]},
        {"index": {"_id": "8"}},
        {"title": "Diskussion:Hund", "text": "x", "namespace": 1, "wiki": "dewiki"},
        {"index": {"_id": "9"}},
        {"title": "H", "text": "steht für", "namespace": 0, "template": ["Vorlage:Begriffsklärung"]},
        {"index": {"_id": "10"}},
        {"index": {"_id": "11"}},
        {"title": "X", "namespace": 0},
        {"title": "no action", "text": "y", "namespace": 0},
        {"index": {"_id": "12"}},
        {"title": "leer", "text": " ", "namespace": 0},
        {"index": {"_id": "13"}},
    ]
    data = "\n".join([*map(json.dumps, lines[:2]), "broken", *map(json.dumps, lines[2:])]).encode()
    items = read(data)
    assert records(items) == {
        "dewiki:7": Record("dewiki:7", "Ein Hund.", "d.xml", {"title": "Hund", "language": "de", "sections": ["A"]})
    }
    assert reasons(items) == [
        *("invalid_json", "not_an_article", "disambiguation", "no_document", "malformed_page", "no_action", "empty"),
        "truncated",
    ]


def enterprise(number, html, title="Hund", space=0):
    return {
        "name": title,
        "identifier": number,
        "date_modified": "2024-01-01T00:00:00Z",
        "version": {"identifier": 5},
        "url": "https://de.wikipedia.org/wiki/Hund",
        "namespace": {"identifier": space},
        "in_language": {"identifier": "de"},
        "is_part_of": {"identifier": "dewiki"},
        "article_body": {"html": html},
    }


def test_enterprise_html():
    pytest.importorskip("resiliparse", reason="needs the extra html")
    html = (
        '<html><body><section><p>Der <b>Hund</b><sup class="mw-ref reference"><a>[1]</a></sup> bellt.</p>'
        '<table class="infobox"><tr><td>Box</td></tr></table><h2>Arten</h2><p>Viele.</p></section></body></html>'
    )
    lines = [
        enterprise(7, html),
        enterprise(8, html, space=1),
        enterprise(9, html, "Hund (Begriffsklärung)"),
        enterprise(10, "<div>" * 1000 + "x"),
        enterprise(11, "<table><tr><td>x</td></tr></table>"),
        {"name": "x", "identifier": 12},
        enterprise(13, "x" * 16_000_001),
    ]
    items = read("\n".join(map(json.dumps, lines)).encode())
    (item,) = records(items).values()
    assert (item.id, item.text) == ("dewiki:7", "Der Hund bellt.\n\nArten\n\nViele.")
    assert item.metadata == {
        "title": "Hund",
        "url": "https://de.wikipedia.org/wiki/Hund",
        "timestamp": "2024-01-01T00:00:00Z",
        "revision": 5,
        "language": "de",
    }
    assert reasons(items) == [
        *("not_an_article", "disambiguation", "too_deep", "empty", "malformed_page", "too_large"),
    ]


# real dumps


FORMULA = re.compile(r"\\[a-z]|\^\{|_\{")
"""What only LaTeX has, whose braces are no residue."""


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data in ../shared/data")
@pytest.mark.parametrize(
    ("name", "kept", "dropped"),
    [
        ("enwiki-shortened.xml.bz2", 98, {"redirect": 99, "disambiguation": 8, "not_an_article": 1}),
        ("bgwiki-latest-pages-articles-shortened.xml.bz2", 1, {"not_an_article": 2}),
        ("enwiki-table-markup.xml.bz2", 5, {}),
    ],
)
def test_real_dumps(name, kept, dropped):
    data = (SHARED / name).read_bytes()
    items = read(data)
    assert len(records(items)) == kept
    assert {reason: reasons(items).count(reason) for reason in set(reasons(items))} == dropped
    xml = bz2.decompress(data)
    text = xml.decode("utf-16") if xml[:2] == b"\xff\xfe" else xml.decode()
    assert text.count("<page>") == len(items)
    residue = ("[[", "{{", "}}", "{|", "|}", "<ref", "()", " , ", "''", "thumb|", "px|", "&nbsp;", "\0")
    for item in records(items).values():
        prose = "\n".join(line for line in item.text.splitlines() if not FORMULA.search(line))
        assert not [mark for mark in residue if mark in prose], item.id
        assert all(item.text.startswith(heading, offset) for _, heading, offset in item.metadata["sections"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data in ../shared/data")
def test_a_real_article():
    items = records(read((SHARED / "enwiki-shortened.xml.bz2").read_bytes()))
    assert items["enwiki:290"].text.startswith(
        "A (named /'eɪ/, plural As, A's, as, a's or aes) is the first letter and the first vowel"
    )
    assert items["enwiki:290"].metadata["url"] == "https://en.wikipedia.org/wiki/A"
    assert items["enwiki:690"].text.startswith(
        "Aruba (/əˈruːbə/ ə-ROO-bə; [aːˈrubaː]) is a constituent country of the Kingdom of the Netherlands"
    )
    assert [heading for level, heading, _ in items["enwiki:12"].metadata["sections"] if level == 2][:2] == [
        "Etymology and terminology",
        "History",
    ]
