"""JSON lines, and JSON files that hold a list of records or one."""

import functools
import json
from collections.abc import Iterator
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.formats.columns import NoTextColumn, find_text_column
from tilth.corpus.formats.lines import BOM, excerpt, read_lines
from tilth.corpus.mark import read_alone
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE

MAX_RECORD = 64_000_000
"""Bytes of the longest line, or JSON file, that is parsed."""


def read_jsonl(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a line; a broken line costs only itself. Raises: Broken after the last whole line."""
    for number, offset, line in read_lines(stream.chunks(), MAX_RECORD):
        where = f"line {number}, byte {offset}"
        if line is None:
            yield Rejected(source, where, "too_large", f"the line is longer than {MAX_RECORD // 1_000_000} MB")
        elif line.strip():
            parse = functools.partial(_parse, line, source, str(number), where, reading)
            yield read_alone(line, source, where, parse)


def read_json(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """The objects of a list, or the one object, of a file of at most 64 MB. Raises: Broken."""
    content = bytearray()
    for chunk in stream.chunks():
        content += chunk
        if len(content) > MAX_RECORD:
            detail = (
                f"a JSON file above {MAX_RECORD // 1_000_000} MB is not parsed; write it as one record a line (jsonl)"
            )
            yield Rejected(source, WHOLE_FILE, "too_large", detail)
            return
    try:
        values = json.loads(bytes(content).removeprefix(BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        yield Rejected(source, WHOLE_FILE, "invalid_utf8", f"byte {error.start:,} is not UTF-8 ({error.reason})")
    except (ValueError, RecursionError) as error:
        yield Rejected(source, WHOLE_FILE, "invalid_json", str(error))
    else:
        for number, value in enumerate(values if isinstance(values, list) else [values], start=1):
            yield _record(value, source, str(number), f"item {number}", reading)


def _parse(line: bytes, source: str, number: str, where: str, reading: Reading) -> Item:
    try:
        return _record(json.loads(line.decode("utf-8")), source, number, where, reading)
    except UnicodeDecodeError as error:
        return Rejected(
            source, where, "invalid_utf8", f"byte {error.start:,} of the line is not UTF-8 ({error.reason})"
        )
    except (ValueError, RecursionError) as error:
        return Rejected(source, where, "invalid_json", f"{error}: {excerpt(line)}")


def _record(value: Any, source: str, number: str, where: str, reading: Reading) -> Item:
    if not isinstance(value, dict):
        return Rejected(
            source, where, "not_an_object", f"a record is an object with fields, this is {excerpt(repr(value))}"
        )
    try:
        column = find_text_column(value.keys(), reading.text_column)
    except NoTextColumn as error:
        return Rejected(source, where, "no_text_column", str(error))
    text = value.pop(column)
    if text is None:
        return Dropped("empty")
    if not isinstance(text, str):
        return Rejected(source, where, "not_text", f"{column!r} holds {excerpt(repr(text))}, not a string")
    return Record(own_id(value) or f"{source}:{number}", text, source, value)


def own_id(metadata: dict[str, Any]) -> str | None:
    """Take the record's own `id` out of its metadata, where it has one that can name it."""
    value = metadata.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(metadata.pop("id"))
