"""Pages: their text in whatever encoding, what they say of themselves, and hostile ones in bounded time."""

import random
import time

import pytest

pytest.importorskip("resiliparse", reason="needs the extra html")

from tilth.corpus.formats import html as html_module
from tilth.corpus.formats.encoding import Undecodable, decode
from tilth.corpus.formats.html import MAX_BYTES, PageProblem, page_text
from tilth.corpus.reading import Reading

GERMAN = "Ein langer Absatz über Felder und Böden, der größtenteils aus Wörtern besteht."
RUSSIAN = "Привет, это русский текст о полях и почвах, который довольно длинный."
JAPANESE = "これは日本語の文章です。畑と土についての、かなり長い文章です。"
QUOTED = "A caf\u00e9 \u201cquoted\u201d \u2013 with a dash and \u20ac 5."

QUALITY = Reading(extraction="quality")


def page(text, head=""):
    return f"<html><head>{head}<title>A title</title></head><body><p>{text}</p></body></html>"


def meta(charset):
    return f'<meta charset="{charset}">'


@pytest.mark.parametrize(
    ("text", "true", "http", "said", "used"),
    [
        (GERMAN, "utf-8", None, None, "utf-8"),
        (GERMAN, "utf-8", "iso-8859-1", "iso-8859-1", "utf-8"),
        (GERMAN, "latin-1", "iso-8859-1", None, "cp1252"),
        (GERMAN, "latin-1", None, "ISO-8859-1", "cp1252"),
        (GERMAN, "latin-1", "utf-8", "utf-8", None),
        (QUOTED, "cp1252", "latin1", None, "cp1252"),
        (RUSSIAN, "cp1251", "utf-8", "utf-8", "cp1251"),
        (RUSSIAN, "cp1251", "iso-8859-1", "windows-1251", "cp1251"),
        (RUSSIAN, "koi8-r", None, None, "koi8-r"),
        (RUSSIAN, "koi8-r", "no-such-encoding", "utf-8", "koi8-r"),
        (JAPANESE, "shift_jis", None, "x-sjis", "cp932"),
        (JAPANESE, "euc-jp", "utf-8", None, "euc_jp"),
        (JAPANESE, "iso-2022-jp", None, "iso-2022-jp", "iso2022_jp"),
        (JAPANESE, "utf-16", None, None, "utf-16-le"),
        (JAPANESE, "utf-16-be", "utf-16be", None, "utf-16-be"),
        (GERMAN, "utf-8-sig", "iso-8859-1", "windows-1251", "utf-8"),
    ],
)
def test_encodings_however_they_are_declared(text, true, http, said, used):
    found = page_text(page(text, meta(said) if said else "").encode(true), http)
    assert found.text.strip() == text
    assert used is None or found.metadata["charset"] == used
    wrong = used not in (None, "utf-8") and http in ("utf-8", "no-such-encoding") and said != "windows-1251"
    assert not wrong or found.metadata["charset_declared"] == http


def test_a_few_stray_bytes_are_replaced_and_counted():
    content = page(GERMAN * 20).encode().replace("größtenteils".encode(), "größtenteils".encode("latin-1"), 1)
    found = page_text(content, "iso-8859-1")
    assert found.text.strip() == (GERMAN * 20).replace("größtenteils", "gr\ufffd\ufffdtenteils", 1)
    assert (found.metadata["charset"], found.metadata["undecodable"]) == ("utf-8", 2)
    cut = page(RUSSIAN * 20).encode()[: -len("</p></body></html>") - 1]
    assert page_text(cut).text.strip() == (RUSSIAN * 20)[:-1]
    half = page(RUSSIAN * 20 + "ы").encode()[: -len("</p></body></html>") - 1]  # a crawler cuts at a byte
    found = page_text(half, "windows-1251")
    assert (found.text.strip(), found.metadata["undecodable"]) == (RUSSIAN * 20 + "\ufffd", 1)


def test_bytes_that_are_no_text_are_rejected():
    for content in (random.Random(0).randbytes(5000), b"\0\1\2" * 100):
        with pytest.raises(Undecodable):
            decode(content, ["utf-8"])
        with pytest.raises(PageProblem) as problem:
            page_text(b"<html><body>" + content)
        assert problem.value.reason == "invalid_utf8"


def test_what_a_page_says_of_itself():
    content = (
        '<html lang="de-AT"><head><title>\n The  title </title>'
        '<link rel="license" href="https://example.org/terms"></head><body><p>Some text of the page.</p>'
        '<a href="https://creativecommons.org/licenses/by-sa/4.0/">CC BY-SA</a></body></html>'
    )
    assert page_text(content.encode()).metadata == {
        "charset": "utf-8",
        "title": "The title",
        "language": "de-AT",
        "licence": "https://creativecommons.org/licenses/by-sa/4.0/",
    }
    other = content.replace("creativecommons.org/licenses/by-sa/4.0/", "example.org/")
    assert page_text(other.encode()).metadata["licence"] == "https://example.org/terms"
    about = '<a href="https://creativecommons.org/about">Creative Commons</a> is not a licence.'
    assert "licence" not in page_text(page(about).encode()).metadata
    assert page_text(b"<p>no title, no head").metadata == {"charset": "utf-8"}
    assert len(page_text(page("x", f"<title>{'t' * 5000}</title>").encode()).metadata["title"]) == 1000


def test_odd_pages():
    assert page_text(b"").text == ""
    frames = b"<html><frameset><frame src=a><frame src=b></frameset></html>"
    assert page_text(frames).text == ""
    assert page_text(b"<p>a &#xD800; lone surrogate").text.encode().decode() == "a \ufffd lone surrogate"
    assert page_text(b"<p>a \xed\xa0\x80 surrogate " + GERMAN.encode() * 9).text.startswith("a \ufffd")
    assert page_text(b"<p>one<p>two<div>three").text.split() == ["one", "two", "three"]


HOSTILE = {
    "200,000 attributes": b"<p " + b" ".join(b"a%d='x'" % number for number in range(200_000)) + b">A sentence.</p>",
    "many tags of 900 attributes": (b"<p " + b" ".join(b"a%d=x" % number for number in range(900)) + b">A</p>") * 200,
    "20,000 nested": b"<div>" * 20_000 + b"A sentence." + b"</div>" * 20_000,
    "30,000 open links": b"<a><div>" * 15_000 + b"A sentence.",
    "3 MB": b"<div><p>Some words are in this paragraph.</p></div>" * 60_000 + b"A sentence.",
    "entities": b"&amp;" * 400_000 + b"A sentence.",
    "open tags": b"<" * 1_000_000 + b"p>A sentence.",
    "open quotes": b"A sentence.<p a='" + b"x" * 1_000_000,
    "meta": b"<meta " * 100_000 + b"><p>A sentence.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_bounded_time(name):
    started = time.process_time()
    found = page_text(b"<html><body>" + HOSTILE[name])
    assert time.process_time() - started < 5
    assert "A" in found.text or name == "meta"


def test_pages_too_deep_or_too_large_are_rejected():
    for content, reason in ((b"<a><div>" * 50_000, "too_deep"), (b"<p>" + b" " * MAX_BYTES, "too_large")):
        with pytest.raises(PageProblem) as problem:
            page_text(content)
        assert problem.value.reason == reason


def test_a_tag_of_few_attributes_keeps_them():
    text = "A sentence that is in a hidden element. " * 100
    content = page(f'<span data-note="{text}" title="x">shown</span>')
    assert page_text(content.encode()).text.strip() == "shown"
    long = f'<a data-note="{"x" * 9000}" rel="license" href="https://creativecommons.org/licenses/by/4.0/">x</a>'
    assert page_text(page(long).encode()).metadata["licence"].endswith("/by/4.0/")


@pytest.mark.parametrize("before", ["", "x" * 1990, "x" * 5000, "<script>" + "a = 1; " * 3000 + "</script>"])
@pytest.mark.parametrize("after", ["", ">", "<p>" + "y" * 5000])
def test_a_tag_of_many_attributes_loses_them_wherever_it_is(before, after):
    for count, licence in ((990, "https://example.org/terms"), (1100, None)):
        tag = f'<a rel="license" href="https://example.org/terms" {"a " * count}>'
        assert page_text(page(before + tag + after).encode()).metadata.get("licence") == licence


ARTICLE = (
    '<html><body><nav><ul><li><a href="/">Home</a></li><li><a href="/x">About us</a></li></ul></nav><article>'
    + "".join(f"<p>Sentence number {number} of the article, which says something of fields.</p>" for number in range(8))
    + '</article><div class="comments"><p>I disagree with all of it.</p></div></body></html>'
)  # fmt: skip


def test_quality():
    pytest.importorskip("trafilatura", reason="needs the extra web")
    found = page_text(ARTICLE.encode(), reading=QUALITY)
    assert found.text.count("Sentence number") == 8
    assert "Home" not in found.text and "disagree" not in found.text
    assert "extract" not in found.metadata
    assert [page_text(ARTICLE.encode(), reading=QUALITY).text for _ in range(4)] == [found.text] * 4


def test_no_time_goes_into_pages_of_languages_that_will_be_dropped(monkeypatch):
    for module in ("trafilatura", "fasttext"):
        pytest.importorskip(module)
    seen = []
    by_trafilatura = html_module._by_trafilatura
    monkeypatch.setattr(html_module, "_by_trafilatura", lambda html: seen.append(html) or by_trafilatura(html))
    german = page("<p>" + "Der Ausschuss trat zusammen und hörte, was mit dem Geld der Stadt geschehen war. " * 20)
    reading = Reading(extraction="quality", languages=("en",))
    assert page_text(ARTICLE.encode(), reading=reading).text == page_text(ARTICLE.encode(), reading=QUALITY).text
    assert len(seen) == 2
    found = page_text(german.encode(), reading=reading)
    assert len(seen) == 2 and found.metadata["extraction"] == "fast" and "Der Ausschuss" in found.text
    assert page_text(german.encode(), reading=Reading(extraction="quality", languages=("de",))).text
    assert len(seen) == 3


def test_quality_falls_back_to_fast_and_says_so(monkeypatch):
    pytest.importorskip("trafilatura", reason="needs the extra web")
    many = page("<br>".join(f"line {number}" for number in range(25_000)))
    for content in (many.encode(), b"<html><body></body></html>", b"<html><body>" + HOSTILE["3 MB"]):
        found = page_text(content, reading=QUALITY)
        assert found.metadata["extraction"] == "fast"
        assert found.text == page_text(content).text
    monkeypatch.setattr(html_module, "MAX_QUALITY_TAGS", 10)
    assert page_text(ARTICLE.encode(), reading=QUALITY).metadata["extraction"] == "fast"
