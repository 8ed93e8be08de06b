"""Text from bytes whose encoding is declared in several places, or wrongly, or not at all."""

import codecs
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tilth.corpus.libraries import use_library

MAX_UNDECODABLE = 0.005
"""Share of characters that may be replaced, each by U+FFFD: a few stray bytes do not make a page unreadable."""

_MAX_CONTROLS = 0.05
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_ESCAPE = b"\x1b"
"""In bytes that are ASCII otherwise, a sign of ISO-2022-JP, which is valid UTF-8."""

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_SUPERSETS = {"shift_jis": "cp932", "gbk": "gb18030", "euc_kr": "cp949", "iso8859-11": "cp874"}
"""What the WHATWG Encoding Standard reads pages in these encodings as; Python's codecs of the names are stricter."""


class Undecodable(Exception):
    """Bytes that are no text in any encoding that is declared or likely."""


def decode(content: bytes, declared: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Decode bytes by their byte order mark, as UTF-8 if they are, as is declared, or as is likely, in this order.

    declared: labels from the outermost place on (HTTP header, then the page). Where two fit and differ, the one that
    the bytes suggest is taken. Returns the text and metadata: `charset` as used, `charset_declared` where that is
    another, `undecodable`, the number of characters replaced.
    Raises: Undecodable; TilthError without the extra `html`.
    """
    said = [codec for codec in map(_codec, declared) if codec]
    text, used, replaced = _decode(content, said)
    metadata: dict[str, Any] = {"charset": used}
    if declared and used not in said:
        metadata["charset_declared"] = declared[0]
    if replaced:
        metadata["undecodable"] = replaced
    return text, metadata


def _decode(content: bytes, said: list[str]) -> tuple[str, str, int]:
    """The text, the codec, and how many characters were replaced."""
    bom = next((bom for bom in _BOMS if content.startswith(bom)), b"")
    wide = [codec for codec in [_BOMS.get(bom), *said] if codec and codec.startswith("utf-16")]
    if not wide and len(content.translate(None, _CONTROLS)) < (1 - _MAX_CONTROLS) * len(content):
        raise Undecodable("over 5 % of the bytes are control characters")
    if bom:
        return _leniently(content.removeprefix(bom), [_BOMS[bom]])
    if _ESCAPE not in content:
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode("utf-8"), "utf-8", 0
        text = content.decode("utf-8", "replace")
        replaced = text.count("\ufffd") - content.count("\ufffd".encode())
        if replaced == 0 or _is_utf8(text, replaced):
            return text, "utf-8", replaced
    guess = _codec(use_library("resiliparse.parse.encoding", "html").detect_encoding(content) or "")
    for codecs_tried in (sorted(said, key=lambda codec: codec != guess), [guess] if guess else []):
        if fitting := next(_fitting(content, codecs_tried), None):
            return *fitting, 0
    return _leniently(content, [*said, *([guess] if guess else []), "utf-8"])


def _is_utf8(text: str, replaced: int) -> bool:
    """Whether bytes are UTF-8 but for a few: in other encodings most bytes above 127 make no sequence of UTF-8."""
    beyond = len(text) - len(text.encode("ascii", "ignore")) - replaced
    return 4 * replaced < beyond and replaced <= MAX_UNDECODABLE * len(text)


def _fitting(content: bytes, codecs_tried: Sequence[str]) -> Iterator[tuple[str, str]]:
    for codec in codecs_tried:
        try:
            yield content.decode(codec), codec
        except (UnicodeDecodeError, LookupError):
            continue


def _leniently(content: bytes, codecs_tried: Sequence[str]) -> tuple[str, str, int]:
    """By the codec that has to replace least. Raises: Undecodable when that is more than a few characters."""
    texts = [(content.decode(codec, "replace"), codec) for codec in codecs_tried]
    text, codec = min(texts, key=lambda pair: pair[0].count("\ufffd"))
    replaced = text.count("\ufffd")
    if replaced > max(1, MAX_UNDECODABLE * len(text)):
        raise Undecodable(
            f"{replaced:,} of {len(text):,} characters cannot be decoded, as {codec} or as what it declares"
        )
    return text, codec, replaced


def _codec(label: str) -> str | None:
    """Python's name of the codec that a label stands for, or None for a label that stands for none."""
    to_codec = use_library("resiliparse.parse.encoding", "html").map_encoding_to_html5
    name = to_codec(label.strip(), fallback_utf8=False)
    return _SUPERSETS.get(name, name)
