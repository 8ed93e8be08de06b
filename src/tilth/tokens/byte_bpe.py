"""Byte-level BPE through `tiktoken`, with a memory of words: the ids of `tokenizers`, many times as fast
(benchmarks/tokenizer.py)."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from tilth.tokens.chunk_memory import ChunkMemory, starts_by_kinds

if TYPE_CHECKING:
    from tiktoken import Encoding

# GPT-2's words, as `ByteLevel` splits them.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Bytes by what those words are made of. Cuts are before a space, between letters or digits and a mark after them, and
# between a mark and letters or digits after it, unless it is the apostrophe, which begins "'s".
_BEYOND, _SPACE, _WORD, _MARK, _APOSTROPHE = range(5)
_KINDS = bytes(
    _BEYOND if byte > 127
    else _SPACE if chr(byte) in " \t\n\r\x0b\x0c"
    else _WORD if chr(byte).isalnum()
    else _APOSTROPHE if chr(byte) == "'"
    else _MARK
    for byte in range(256)
)  # fmt: skip
_CUTS = bytes(
    (pair // 16 != _SPACE and pair % 16 == _SPACE)
    or (pair // 16 == _WORD and pair % 16 in (_MARK, _APOSTROPHE))
    or (pair // 16 == _MARK and pair % 16 == _WORD)
    for pair in range(256)
)
# Spaces beyond ASCII, as the last bytes of UTF-8: what follows one of them is in the same words.
_SPACES_OF_2 = [0xC285, 0xC2A0]
_SPACES_OF_3 = [0xE19A80, *range(0xE28080, 0xE2808B), 0xE280A8, 0xE280A9, 0xE280AF, 0xE2819F, 0xE38080]
# A letter that each version of Unicode from 10 to 17 added: libraries that know other versions split words elsewhere.
_RECENT_LETTERS = "\u0860\u0560\ua7ba\ua7c7\ua7d0\U0001e4d0\U0002ebf0\ua7cb\U000323b0"
_UNCOMMON = "\u00bd\u0663\u00a0\u2003\u0085\u200b\u3000\ufeff\u180e\x00\x1c"
_SAMPLE_CHARACTERS = 1 << 15


class ByteBpe:
    """A byte-level BPE tokenizer in its fast form. Of a word that never ends it takes 1 MB a second."""

    def __init__(self, encoding: "Encoding", ids: np.ndarray, lengths: np.ndarray, trimmed: np.ndarray) -> None:
        """encoding: numbers tokens by rank: the 256 bytes, then the merges in their order.

        ids, lengths, trimmed: int64 (ranks,): the id of each token in the vocabulary, its bytes, and how many spaces at
        its end its offsets leave out.
        """
        self._encoding = encoding
        self._ids, self._lengths, self._trimmed = ids, lengths, trimmed

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text, its token ids and the characters they end at, both int64 (tokens,).

        A token that ends within a character ends with it. Raises: UnicodeEncodeError for a lone surrogate.
        """
        all_ranks = [self._encoding.encode_to_numpy(text, disallowed_special=()) for text in texts]
        return [(self._ids[ranks], self._ends(text, ranks)) for text, ranks in zip(texts, all_ranks, strict=True)]

    def encode_chunks(self, chunks: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of many short texts, as `ChunkMemory` learns them."""
        encoded = [self._encoding.encode_ordinary(chunk) for chunk in chunks]
        counts, sizes = (np.fromiter(map(len, each), dtype=np.int64, count=len(chunks)) for each in (encoded, chunks))
        ranks = np.fromiter(chain.from_iterable(encoded), dtype=np.int64, count=int(counts.sum()))
        begins = np.cumsum(sizes) - sizes
        return counts, self._ids[ranks], self._ends("".join(chunks), ranks) - np.repeat(begins, counts)

    def _ends(self, text: str, ranks: np.ndarray) -> np.ndarray:
        ends = np.cumsum(self._lengths[ranks])
        if not text.isascii():
            starts_character = (np.frombuffer(text.encode(), dtype=np.uint8) & 0xC0) != 0x80
            ends = np.cumsum(starts_character)[ends - 1]
        return ends - self._trimmed[ranks]


def byte_bpe(backend: Tokenizer, parts: dict[str, Any], sample: str) -> ChunkMemory | None:
    """The fast form of a tokenizer, or None where it has none whose ids and ends are certain to be the same.

    parts: the tokenizer.json; sample: text that both forms are compared on.

    In each word, both apply the earliest merge at its leftmost place until none applies. What a merge is differs:
    `tokenizers` looks for its pair of tokens, `tiktoken` for any two whose bytes together are a token. When each token
    has one merge, and its own bytes are encoded as it alone, the second finds no more than the first: two neighbours
    whose bytes are a token are what these bytes alone become just before they are that token.
    """
    if not _is_plain(parts) or not splits_alike(_RECENT_LETTERS + _UNCOMMON):
        return None
    fast = _fast_form(
        vocab=parts["model"]["vocab"],
        merges=[tuple(merge) for merge in parts["model"]["merges"]],
        trims=bool(_trimming(parts["post_processor"])),
    )
    if fast is None:
        return None
    remembering = ChunkMemory(_chunk_starts, fast.encode_chunks, fast.encode_with_ends)
    remembering.learn(sample[:_SAMPLE_CHARACTERS])  # so that what is compared is looked up
    return remembering if _agree(remembering, backend, sample[:_SAMPLE_CHARACTERS]) else None


def _chunk_starts(content: np.ndarray) -> np.ndarray:
    """Where no word of GPT-2's goes on, whatever stands on either side."""
    starts = starts_by_kinds(content, _KINDS, _CUTS)
    after = np.flatnonzero(starts[1:] & (content[:-1] > 127)) + 1
    if len(after):
        two = content[after - 2].astype(np.int64) << 8 | content[after - 1]
        three = content[after - 3].astype(np.int64) << 16 | two
        starts[after[np.isin(two, _SPACES_OF_2) | np.isin(three, _SPACES_OF_3)]] = False
    return starts


def splits_alike(characters: str) -> bool:
    """Whether both libraries take each character for the same: a letter, a digit, white space, or something else.

    They are asked with a vocabulary whose merges join an `a`, a `1` or a `!` to what follows it in the same word.
    """
    merges = [(kind, byte) for kind in "a1!" for byte in _byte_names() if not byte.isascii()]
    entries = [*_byte_names(), *(left + right for left, right in merges)]
    vocab = {entry: index for index, entry in enumerate(entries)}
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = _fast_form(vocab, merges, trims=False)
    return fast is not None and _agree(fast, backend, "\n".join(kind + each for each in characters for kind in "a1!"))


def _fast_form(vocab: dict[str, int], merges: list[tuple[str, str]], trims: bool) -> ByteBpe | None:
    """The fast form of a vocabulary, or None where it has not every byte, or merges are not as training makes them."""
    names = [*_byte_names(), *(left + right for left, right in merges)]
    model = models.BPE(vocab, merges)  # its own, whose cache of words may fill
    if len(set(names)) < len(names) or any(name not in vocab for name in names):
        return None
    if any(len(model.tokenize(name)) != 1 for name in names):
        return None

    from tiktoken import Encoding

    to_bytes = {ord(name): byte for byte, name in enumerate(names[:256])}
    tokens = [name.translate(to_bytes).encode("latin-1") for name in names]
    # The library wants a special token to look for; it is never allowed, and so found in no text.
    unused = {"<|endoftext|>": len(tokens)}
    ranks = {token: rank for rank, token in enumerate(tokens)}
    encoding = Encoding("tilth", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens=unused)
    return ByteBpe(
        encoding,
        ids=np.array([vocab[name] for name in names], dtype=np.int64),
        lengths=np.array([len(token) for token in tokens], dtype=np.int64),
        trimmed=np.array([trims and _spaces_at_end(token) for token in tokens], dtype=np.int64),
    )


def _is_plain(parts: dict[str, Any]) -> bool:
    """Whether nothing but GPT-2's words and merges of bytes decides the ids."""
    model, splitting = parts["model"], parts["pre_tokenizer"] or {}
    return (
        model["type"] == "BPE"
        and not any(
            model.get(name)
            for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
        )
        and parts["normalizer"] is None
        and splitting.get("type") == "ByteLevel"
        and not splitting["add_prefix_space"]
        and splitting.get("use_regex", True)
        and all(token["special"] for token in parts["added_tokens"])  # others are looked for inside texts
        and not any(each.get("add_prefix_space") for each in _trimming(parts["post_processor"]))
    )


def _byte_names() -> list[str]:
    """The character that stands for each byte in a vocabulary: itself if it is printable, else the next from 256 on."""
    letters = sorted(map(ord, pre_tokenizers.ByteLevel.alphabet()))
    own = [letter for letter in letters if letter < 256]
    others = sorted(set(range(256)) - set(own))
    names = dict(zip([*own, *others], letters, strict=True))
    return [chr(names[byte]) for byte in range(256)]


def _trimming(post_processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The post-processors that leave the spaces at the ends of tokens out of their offsets."""
    each = post_processor or {}
    inner = [found for processor in each.get("processors", ()) for found in _trimming(processor)]
    return [each, *inner] if each.get("trim_offsets") else inner


def _spaces_at_end(token: bytes) -> int:
    """The spaces that follow something else: those of a token of nothing but spaces stay."""
    return len(token) - len(token.rstrip(b" ")) if token.strip(b" ") else 0


def _agree(fast: ByteBpe | ChunkMemory, backend: Tokenizer, text: str) -> bool:
    """Whether both forms give the same ids and ends."""
    encoding = backend.encode(text, add_special_tokens=False)
    ids, ends = fast.encode_with_ends([text])[0]
    return ids.tolist() == encoding.ids and ends.tolist() == [end for _, end in encoding.offsets]


def is_unicode(text: str) -> bool:
    """Whether a text has a UTF-8 form: one with a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
