"""PDF and EPUB: the text that was written comes back in order, and what cannot be read is named."""

import base64
import io
import random
import textwrap
import zipfile
import zlib

import matplotlib.pyplot as plt
from matplotlib.backends.backend_pdf import PdfPages

from tilth.corpus.compression import open_stream
from tilth.corpus.formats import epub as epub_module
from tilth.corpus.formats import pdf as pdf_module
from tilth.corpus.formats import read_stream, tell_format
from tilth.corpus.formats.pages import Line, join_lines
from tilth.corpus.libraries import forget_used, used_libraries
from tilth.corpus.reading import PLAIN
from tilth.corpus.records import Dropped, Item, Record, Rejected

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
IMAGE = (
    b"<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>"
    b"stream\n\0\nendstream"
)


def pdf(*pages: list[tuple[float, float, str]] | bytes, info: bytes = b"<</Title(A title)/Author(A. Uthor)>>") -> bytes:
    """Each page is lines as (left, height, text), in 12 point Helvetica, or the content of a page itself.

    `/I Do` in a content shows a picture.
    """
    count = len(pages)
    kids = b" ".join(b"%d 0 R" % (5 + 2 * number) for number in range(count))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, count), IMAGE, info]
    for number, page in enumerate(pages):
        if not isinstance(page, bytes):
            shown = (f"BT /F 12 Tf {left} {height} Td ({text}) Tj ET\n" for left, height, text in page)
            page = "".join(shown).encode("latin-1")
        packed = zlib.compress(page, 9)
        resources = b"<</Font<</F %b>>/XObject<</I 3 0 R>>>>" % FONT
        place = b"/Parent 2 0 R/MediaBox[0 0 600 800]/Contents %d 0 R" % (6 + 2 * number)
        objects.append(b"<</Type/Page%b/Resources%b>>" % (place, resources))
        objects.append(b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed))
    content, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    start = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    content += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    content += b"trailer<</Size %d/Root 1 0 R/Info 4 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(content)


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def package(items: str, spine: str, guide: str = "") -> str:
    """A package document with what it holds and in which order."""
    about = "<dc:title>A  title</dc:title><dc:creator>A. Uthor</dc:creator><dc:creator>B. Uthor</dc:creator>"
    return (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">{about}<dc:language>en</dc:language></metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine><guide>{guide}</guide></package>"
    )


def chapter(*paragraphs: str) -> str:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>-</title></head><body>{body}</body></html>'


def epub(chapters: dict[str, str], order: list[str] | None = None, **members: str) -> bytes:
    """A book whose chapters lie under the given names; the spine has them in `order`. members: more, or others."""
    place = '<item id="{0}" href="{0}" media-type="application/xhtml+xml"/>'
    items = "".join(place.format(name) for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in order or chapters)
    held = {"META-INF/container.xml": CONTAINER, "OEBPS/package.opf": package(items, spine)}
    held |= {f"OEBPS/{name}": text for name, text in chapters.items()} | members
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        for name, text in held.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def read(content: bytes, name: str) -> list[Item]:
    return list(read_stream(open_stream(iter([content]), len(content)), name, name, PLAIN))


def text_of(content: bytes, name: str = "a.pdf") -> str:
    (record,) = read(content, name)
    assert isinstance(record, Record), record
    return record.text


def reasons(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.record, item.reason) for item in items if isinstance(item, Rejected)]


BODY = [
    (50, 700, "A heading that stands alone"),
    (50, 660, "The field was ploughed in spring, and a well-known agri-"),
    (50, 646, "culture journal wrote about it; the plough was well-"),
    (50, 632, "known, and it ended here."),
    (70, 618, "The next paragraph is indented, and a line of it is as"),
    (50, 604, "long as the others are, which makes the column clear."),
    (50, 576, "one"),
    (50, 562, "two"),
]
PARAGRAPHS = (
    "A heading that stands alone\n\n"
    "The field was ploughed in spring, and a well-known agriculture journal wrote about it; the plough was well-known, "
    "and it ended here.\n\n"
    "The next paragraph is indented, and a line of it is as long as the others are, which makes the column clear.\n\n"
    "one\ntwo"
)


def test_paragraphs_broken_words_and_lines_of_a_page():
    (record,) = read(pdf(BODY), "a.pdf")
    assert record == Record("a.pdf", PARAGRAPHS, "a.pdf", {"title": "A title", "author": "A. Uthor", "pages": 1})


def test_a_line_without_blanks_takes_no_time_that_grows_with_its_square():
    """Quadratic time would be an hour."""
    line = Line("ab1" * 300_000, 0, 100, 700, 10)
    assert join_lines([[line]]) == line.text
    broken = [Line("a well-known ab", 0, 100, 700, 10, hyphen=True), Line(line.text, 0, 100, 688, 10)]
    assert join_lines([broken]) == "a well-known ab" + line.text


def test_what_repeats_in_the_margins_is_left_out():
    def page(number: int) -> list[tuple[float, float, str]]:
        body = [(50, 720, f"Chapter {3 * number}"), (50, 680, f"Text of page {number}, all of it.")]
        return [(50, 770, "The Journal of Fields"), *body, (300, 30, f"{number + 7}"), (50, 44, f"{number} / 5")]

    assert text_of(pdf(*map(page, range(1, 6)))) == "\n\n".join(
        f"Chapter {3 * number}\n\nText of page {number}, all of it." for number in range(1, 6)
    )
    two = text_of(pdf(page(1), page(2)))
    assert two.count("The Journal of Fields") == 2 and "1 / 5" in two


def test_roman_page_numbers_are_left_out():
    numbers = ["iii", "iv", "v", "vi"]
    pages = [[(50, 700, f"Page {'abcd'[n]} of the preface"), (300, 30, number)] for n, number in enumerate(numbers)]
    assert text_of(pdf(*pages)) == "\n\n".join(f"Page {name} of the preface" for name in "abcd")


def test_a_paragraph_goes_on_in_the_next_column_and_on_the_next_page():
    first = [
        (50, 700, "A column that goes on in"),
        (50, 686, "the next one, for it has"),
        (320, 700, "not ended, nor on this"),
    ]
    assert text_of(pdf(first, [(50, 700, "page, but here.")])) == (
        "A column that goes on in the next one, for it has not ended, nor on this page, but here."
    )


def test_ligatures_are_spelled_out():
    assert text_of(pdf([(50, 700, r"\256eld and \257ow")])) == "field and flow"


def test_a_pdf_of_matplotlib_gives_the_words_in_it():
    rng = random.Random(0)
    words = [f"{rng.choice(['field', 'office', 'flow', 'Über', 'naïve'])}{n}" for n in range(400)]
    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": "Words", "Author": "A. Uthor"}) as pages:
        for start in range(0, 400, 200):
            figure = plt.figure(figsize=(6, 8))
            for number, line in enumerate(textwrap.wrap(" ".join(words[start : start + 200]), 60)):
                figure.text(0.05, 0.95 - 0.02 * number, line, family="DejaVu Sans", size=9)
            pages.savefig(figure)
            plt.close(figure)
    (record,) = read(file.getvalue(), "a.pdf")
    assert record.text.split() == words
    assert record.metadata == {"title": "Words", "author": "A. Uthor", "pages": 2}


ENCRYPTED = zlib.decompress(
    base64.b85decode(
        "c-n<hJ%|%Q7_|{`TS4%uuSp?#?#%4W>@I|$ce$XPl92cZ=M}Rv-"
        "{x}Uc8|?OE>_n5U}q_4bJcZr7IwDU+X#xCV0WE3+5Ach_cy$K?|m<iuhObF*6B6wRX(1+`{Pj{kSF_IwF-Vqb#Va9A#L#Qjt&w0O=VR-"
        "??SESVP?iewj|ihhnWQm{&vp{U<ZOyx;qn3{1(#SA8BSWvjgChad*)4)JA^fT!=dvncTZ$m%<TevD!GuhlO^&W0!_=nfxf98)|?h<ln^pW3)Z3"
        "!0!wbTgDlOqO)uztyY^}OM#d2@}<1DG3(kr5W-1&eT#*A_m#yu>fDr~fh|xSc;C-#uRU))c!Q^xenszZ9Dlf=n)?r5Kl=RT+{u--"
        "<KO%JPv`e8emnc}#gD6_pO?SBy8i6s?bE6oIW?FL7fZuu6FXLAMipirhZFFdP>orNB;{OiWw?$d=Q0k`AkZY#iQuV-LZgu)laXV_s8LBuLPar^"
        "0WroE(1LaD+I2Pi_n_*CVPYs1ai~!%%_!wb5XMXy=ETT_h!PzlSA<F}BnuKkH47=H#t12$;eEFkiz<%_Og#e9Bl82K5P^Uc<`{MVx%`qXFv(Xi"
        "%7PV)#qkQp*^<^4s@HcNj_Yja`FLx~ed_d{AV~0U)nTU^3PY5MB1}`}x{PSRbP`a?A{jeBTKhl4E$mjNi_xJ4QBEi~Llw4cz_smFDqGEl_ZKnO"
        "{F?"
    )
)
"""A page of `pdf`, through qpdf --encrypt secret owner 40."""


def test_the_library_that_reads_a_pdf_is_noted():
    forget_used()
    read(pdf(BODY), "a.pdf")
    assert list(used_libraries()) == ["pypdfium2"] and used_libraries()["pypdfium2"]


def test_what_gives_no_text_is_named():
    picture = b"q 600 0 0 800 0 0 cm /I Do Q"
    whole = pdf(BODY, BODY)
    assert reasons(read(ENCRYPTED, "a.pdf")) == [("whole file", "encrypted")]
    (scan,) = read(pdf(picture, picture), "a.pdf")
    assert scan.reason == "no_text" and "2 pages, with pictures and no text" in scan.detail and "OCR" in scan.detail
    assert read(pdf(b"", b""), "a.pdf") == [Dropped("empty")]
    for size in (9, 200, len(whole) // 2, len(whole) - 40):
        assert reasons(read(whole[:size], "a.pdf")) == [("whole file", "truncated")]
    assert text_of(whole + bytes(5000)) == text_of(whole)
    assert reasons(read(b"%PDF-1.7\n" + random.Random(0).randbytes(9000) + b"%%EOF", "a.pdf")) == [
        ("whole file", "corrupt")
    ]


def test_pages_without_text_are_told():
    (record,) = read(pdf(BODY, b"q /I Do Q", b""), "a.pdf")
    assert record.text == PARAGRAPHS and record.metadata["pages_without_text"] == 2


def test_a_count_of_pages_that_is_not_true():
    assert text_of(pdf(BODY).replace(b"/Count 1", b"/Count 99999999")) == PARAGRAPHS
    loop = pdf(BODY).replace(b"/Kids[5 0 R]", b"/Kids[2 0 R]")
    assert all(isinstance(item, Rejected | Dropped) for item in read(loop, "a.pdf"))


def test_pages_that_repeat_themselves_without_end(monkeypatch):
    monkeypatch.setattr(pdf_module, "MAX_CHARACTERS", 10_000)
    many = pdf(*[BODY] * 3).replace(b"/Kids[5 0 R 7 0 R 9 0 R]/Count 3", b"/Kids[" + b"5 0 R " * 500 + b"]/Count 500")
    assert reasons(read(many, "a.pdf")) == [("whole file", "bomb")]
    monkeypatch.setattr(pdf_module, "MAX_PAGES", 100)
    assert reasons(read(many, "a.pdf")) == [("whole file", "too_large")]


CHAPTERS = {"z.xhtml": chapter("The first.", "Its second paragraph."), "a.xhtml": chapter("The second &amp; last.")}
BOOK = "The first.\n\nIts second paragraph.\n\nThe second & last."


def test_a_book_is_one_text_in_the_order_of_its_spine():
    (record,) = read(epub(dict(reversed(CHAPTERS.items())), ["z.xhtml", "a.xhtml"]), "a.epub")
    metadata = {"title": "A title", "author": "A. Uthor, B. Uthor", "language": "en", "chapters": 2}
    assert record == Record("a.epub", BOOK, "a.epub", metadata)


def test_contents_and_covers_are_left_out():
    place = '<item id="{0}" href="{0}" media-type="application/xhtml+xml" properties="{1}"/>'
    items = "".join(place.format(*each) for each in [("n", "nav"), ("c", ""), ("z.xhtml", ""), ("a%2Exhtml", "")])
    spine = "".join(f'<itemref idref="{name}"/>' for name in ("c", "n", "z.xhtml", "a%2Exhtml"))
    guide = '<reference type="cover" href="c#top"/>'
    others = {"OEBPS/n": chapter("Contents"), "OEBPS/c": chapter("Cover")}
    book = epub(CHAPTERS, **others, **{"OEBPS/package.opf": package(items, spine, guide)})
    assert text_of(book, "a.epub") == BOOK


def protected(algorithm: str) -> dict[str, str]:
    return {
        "META-INF/encryption.xml": '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData>'
        f'<e:EncryptionMethod Algorithm="{algorithm}"/></e:EncryptedData></encryption>'
    }


def test_protected_books_are_told_from_those_with_disguised_fonts():
    drm = epub(CHAPTERS, **protected("http://www.w3.org/2001/04/xmlenc#aes128-cbc"))
    assert reasons(read(drm, "a.epub")) == [("whole file", "encrypted")]
    assert text_of(epub(CHAPTERS, **protected("http://www.idpf.org/2008/embedding")), "a.epub") == BOOK


def test_a_chapter_that_cannot_be_read_costs_itself():
    noise = "".join(random.Random(0).choices("abcdefgh ", k=4000))
    book = bytearray(epub({"m.xhtml": chapter(noise), **CHAPTERS, "../../etc/passwd": ""}))
    place = book.index(b"OEBPS/m.xhtml") + 500
    book[place : place + 20] = bytes(20)
    *rejected, record = read(bytes(book), "a.epub")
    assert reasons(rejected) == [("OEBPS/m.xhtml", "corrupt"), ("../etc/passwd", "missing_member")]
    assert record.text == BOOK


def test_hostile_and_damaged_books(monkeypatch):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 100}">' for n in range(12))
    bombs = {"OEBPS/package.opf": f"<!DOCTYPE package [{entities}]><package>&e11;</package>"}
    assert reasons(read(epub(CHAPTERS, **bombs), "a.epub")) == [("whole file", "corrupt")]
    large = epub({**CHAPTERS, "l.xhtml": chapter(" " * 20_000_000)})
    rejected, record = read(large, "a.epub")
    assert reasons([rejected]) == [("OEBPS/l.xhtml", "too_large")] and record.text == BOOK
    with monkeypatch.context() as patched:
        patched.setattr(epub_module, "MAX_CHARACTERS", 1_000_000)
        many = epub({f"{n}.xhtml": chapter("word " * 60_000) for n in range(4)})
        assert reasons(read(many, "a.epub")) == [("whole file", "bomb")]
    whole = epub(CHAPTERS)
    assert reasons(read(whole[: len(whole) // 2], "a.epub")) == [("whole file", "truncated")]
    assert reasons(read(epub(CHAPTERS, **{"META-INF/container.xml": "<a/>"}), "a.epub")) == [("whole file", "corrupt")]
    assert reasons(read(epub({}), "a.epub")) == [("whole file", "no_text")]
    assert read(epub({"a": chapter()}), "a.epub") == [Dropped("empty")]


def test_a_book_is_told_from_another_archive():
    book = epub(CHAPTERS)
    assert tell_format(book, "book.zip") == "epub"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    assert tell_format(file.getvalue(), "a.zip") == "zip" and tell_format(file.getvalue(), "a.epub") == "epub"


def test_a_build_counts_what_became_of_each(tmp_path, build, documents, set_aside):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.pdf").write_bytes(pdf(BODY))
    (raw / "b.epub").write_bytes(epub(CHAPTERS))
    (raw / "c.pdf").write_bytes(ENCRYPTED)
    (raw / "d.txt").write_bytes(b"A text beside them.")
    card = build(raw, max_rejected=0.3).card
    assert (card["in"], card["kept"], card["rejected"]) == (4, 3, {"encrypted": 1})
    found = documents(build(raw, max_rejected=0.3))
    assert {name: document.text for name, document in found.items()} == {
        "raw/a.pdf": PARAGRAPHS,
        "raw/b.epub": BOOK,
        "raw/d.txt": "A text beside them.",
    }
    assert [(line["source"], line["reason"]) for line in set_aside(tmp_path / "out")] == [("raw/c.pdf", "encrypted")]
