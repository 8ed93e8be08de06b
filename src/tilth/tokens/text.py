"""Text to token ids and back: a `tokenizers.Tokenizer` with the roles of its special tokens made explicit."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, processors

from tilth.errors import TilthError, UsageError
from tilth.files import fingerprint, write_text
from tilth.tokens.backend import encode_with_ends
from tilth.tokens.byte_bpe import byte_bpe, is_unicode
from tilth.tokens.chunk_memory import ChunkMemory
from tilth.tokens.word_piece import word_piece

# A document is tokenized in segments of this many characters: memory stays bounded and all threads have work.
SEGMENT_CHARACTERS = 1 << 16
# Segments handed to `tokenizers` at once; an Encoding costs it some 150 bytes a token until its ids are copied out.
_BATCH_CHARACTERS = 1 << 22
# After so much text the fast form of a tokenizer is made: WordPiece's is at hand, that of byte-level BPE takes as long
# as encoding about so much without it.
_WORD_PIECE_BULK, _BYTE_BPE_BULK = 1 << 16, 1 << 19


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens by role; None where the tokenizer has no such token. eot ends a document."""

    pad: int | None = None
    unk: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    eot: int | None = None


PARTS_OF_IDS = ("added_tokens", "normalizer", "pre_tokenizer", "model")
"""The parts of a tokenizer.json that decide the ids of a text."""


class TextTokenizer:
    """Encodes raw text without adding special tokens.

    The literal text of a special token inside a document ("[MASK]", "<|endoftext|>") is encoded as ordinary text:
    only the program places special ids.
    """

    def __init__(self, backend: Tokenizer, special: SpecialTokens) -> None:
        """backend: changed in place (truncation, padding and the parsing of special tokens in text are turned off)."""
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend = backend
        self.special = special
        self._seen_characters = 0
        self._fast: ChunkMemory | None = None

    @cached_property
    def _parts(self) -> dict:
        return json.loads(self.backend.to_str())

    @cached_property
    def vocab_size(self) -> int:
        """Rows an embedding table needs: the largest id, added tokens included, plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides the ids of a text; templates, padding and decoding do not count."""
        return fingerprint({name: self._parts[name] for name in PARTS_OF_IDS})

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of every special token, those without a role included."""
        roles = {getattr(self.special, role.name) for role in fields(self.special)}
        added = {index for index, token in self.backend.get_added_tokens_decoder().items() if token.special}
        return frozenset(added | roles - {None})

    @cached_property
    def _segmentable(self) -> bool:
        """Whether words never span the places `_segments` cuts at, so that cutting leaves the ids as they are."""
        pre_tokenizer = self._parts["pre_tokenizer"] or {}
        return (
            pre_tokenizer.get("type") in ("BertPreTokenizer", "ByteLevel")
            or self._parts["model"]["type"] == "WordLevel"
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, on all threads."""
        ids: list[list[int]] = [[] for _ in texts]
        for batch in self._batches(texts):
            for (number, _, _), segment_ids in zip(batch, self._encode([part for _, _, part in batch]), strict=True):
                ids[number] += segment_ids
        return ids

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids of many texts, and where in its text each token ends.

        Returns for each text (ids, ends), both int64 (tokens,); ends are in characters and never decrease.
        """
        parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in texts]
        for batch in self._batches(texts):
            encoded = self._encode_with_ends([part for _, _, part in batch])
            for (number, begin, _), (ids, ends) in zip(batch, encoded, strict=True):
                parts[number].append((ids, ends + begin))
        return [
            (np.concatenate([ids for ids, _ in part]), np.concatenate([ends for _, ends in part])) for part in parts
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def save(self, path: Path | str) -> None:
        """Write `tokenizer.json`; equal tokenizers give equal bytes."""
        write_text(Path(path), self.backend.to_str(pretty=True) + "\n")

    def with_template(self, kind: Literal["bert", "roberta"] | None) -> "TextTokenizer":
        """A copy whose `tokenizer.json` makes other programs frame a text as this kind of model expects.

        bert: [CLS] A [SEP] and [CLS] A [SEP] B [SEP]; roberta: <s> A </s> and <s> A </s></s> B </s>; None: no framing.
        Raises: TilthError when the tokenizer has no tokens for the frame.
        """
        backend = Tokenizer.from_str(self.backend.to_str())
        if kind is None:
            backend.post_processor = None  # type: ignore[assignment]
            return TextTokenizer(backend, self.special)
        if self.special.cls is None or self.special.sep is None:
            raise TilthError(
                f"this tokenizer has no tokens to open and close a text, which a {kind} model needs;"
                " train one with tokenizer.kind=wordpiece or byte_bpe"
            )
        begin, end = (backend.id_to_token(index) for index in (self.special.cls, self.special.sep))
        first, second = (f"{begin}:0", f"{end}:0"), (f"{end}:1" if kind == "bert" else f"{end}:0")
        pair = (
            [first[0], "$A:0", first[1], "$B:1", second]
            if kind == "bert"
            else [first[0], "$A:0", first[1], first[1], "$B:0", second]
        )
        backend.post_processor = processors.TemplateProcessing(
            single=[first[0], "$A:0", first[1]],
            pair=pair,
            special_tokens=[(begin, self.special.cls), (end, self.special.sep)],
        )
        return TextTokenizer(backend, self.special)

    def _encode(self, segments: list[str]) -> list[list[int]]:
        if fast := self._fast_for(segments):
            return [ids.tolist() for ids in fast.encode(segments)]
        encodings = self.backend.encode_batch_fast(segments, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _encode_with_ends(self, segments: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        if fast := self._fast_for(segments):
            return fast.encode_with_ends(segments)
        return encode_with_ends(self.backend, segments)

    def _fast_for(self, segments: list[str]) -> ChunkMemory | None:
        """What encodes these segments faster than `tokenizers`, to the same ids and ends, if anything does."""
        for segment in segments:
            if not is_unicode(segment):
                raise UsageError(f"a text holds a lone surrogate, which is no character: {segment[:60]!r}")
        before = self._seen_characters
        self._seen_characters += sum(map(len, segments))
        if before < _WORD_PIECE_BULK <= self._seen_characters:
            self._fast = word_piece(self.backend, self._parts)
        if before < _BYTE_BPE_BULK <= self._seen_characters:
            self._fast = self._fast or byte_bpe(self.backend, self._parts, "".join(segments[:8]))
        return self._fast

    def _batches(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int, str]]]:
        """Segments of the texts as (text number, first character, segment), in batches of bounded size."""
        batch: list[tuple[int, int, str]] = []
        size = 0
        for number, text in enumerate(texts):
            for begin, segment in _segments(text) if self._segmentable else [(0, text)]:
                batch.append((number, begin, segment))
                size += len(segment)
                if size >= _BATCH_CHARACTERS:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch


def _segments(text: str) -> Iterator[tuple[int, str]]:
    """Cut a long text before a space that follows a letter or digit, where no pre-tokenizer's word can span.

    A stretch of half a segment without such a space is cut at its end: only there may ids differ from the whole text's.
    """
    begin = 0
    while len(text) - begin > SEGMENT_CHARACTERS:
        end = begin + SEGMENT_CHARACTERS
        cut = text.rfind(" ", begin + SEGMENT_CHARACTERS // 2, end)
        while cut > 0 and not text[cut - 1].isalnum():
            cut = text.rfind(" ", begin + SEGMENT_CHARACTERS // 2, cut)
        cut = cut if cut > 0 else end
        yield begin, text[begin:cut]
        begin = cut
    yield begin, text[begin:]
