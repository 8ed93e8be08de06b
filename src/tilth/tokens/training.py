"""Training a tokenizer on a bounded, seeded sample of a corpus."""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tilth.errors import TilthError
from tilth.key import Key
from tilth.progress import progress_bar
from tilth.recipe import SMALLEST_VOCABULARY, TokenizerSettings
from tilth.tokens.load import special_tokens
from tilth.tokens.text import TextTokenizer

if TYPE_CHECKING:
    from tilth.corpus.reader import Corpus

SPECIAL_NAMES = {
    "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "byte_bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"],
    "characters": ["<unk>", "<|endoftext|>", "<pad>"],
}
# Of a corpus larger than the sample, no document gives more than this share of it, in spans of so many characters.
_DOCUMENT_SHARE = 100
_SPAN_CHARACTERS = 4096


MOST_PARTS = 1000
"""Characters of a WordPiece vocabulary that may stand within words."""
_IDEOGRAPH = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)
"""Where BERT's normalizer puts blanks around a character."""


def train_tokenizer(
    settings: TokenizerSettings,
    corpus: "Corpus",
    seed: int,
    progress: bool = True,
    size_setting: str = "tokenizer.vocab_size",
) -> TextTokenizer:
    """Train the tokenizer that `settings` describes on the training split; equal input gives equal bytes.

    size_setting: what the user calls the number of entries, for messages.
    Memory is bounded by `settings.sample_bytes`: that much text is held, and counted by words.
    Raises: TilthError when the corpus has no text, or does not support the vocabulary (characters excepted).
    """
    texts: list[str] = []
    # The trainers' own bars print to standard output, which belongs to results, so they stay off.
    with progress_bar("Training tokenizer", None, "texts", shown=progress) as update:
        for text in sample_texts(corpus, settings.sample_bytes, seed):
            texts.append(text)
            update(len(texts))
        if not any(text.strip() for text in texts):
            raise TilthError(f"the corpus {corpus.path} has no text to train a tokenizer on")
        backend = _train(texts, settings, settings.vocab_size, size_setting)
    supported = backend.get_vocab_size()
    if supported < settings.vocab_size and settings.kind != "characters":
        # A small wordpiece vocabulary has room for fewer characters, and so supports less than a large one.
        while (less := _train(texts, settings, supported, size_setting).get_vocab_size()) < supported:
            supported = less
        smaller = f"set {size_setting} to {supported} or less, or add text"
        raise TilthError(
            f"the corpus {corpus.path} supports a vocabulary of {supported} entries, not {settings.vocab_size}; "
            + (smaller if supported >= SMALLEST_VOCABULARY else f"the smallest is {SMALLEST_VOCABULARY}: add text")
        )
    return TextTokenizer(backend, special_tokens(backend))


def _train(texts: list[str], settings: TokenizerSettings, vocab_size: int, size_setting: str) -> Tokenizer:
    if settings.kind == "wordpiece":
        return _train_wordpiece(texts, vocab_size, settings.lowercase)
    if settings.kind == "byte_bpe":
        return _train_byte_bpe(texts, vocab_size, size_setting)
    return _train_characters(texts, vocab_size)


def sample_texts(corpus: "Corpus", sample_bytes: int, seed: int) -> Iterator[str]:
    """Text of the training split, in corpus order: all of it when it fits `sample_bytes`, else a seeded sample.

    Documents are drawn by `Key(seed, number, "tokenizer sample")`; one that is longer than its share of the sample
    gives spans spread evenly over it.
    """
    limit = max(sample_bytes // _DOCUMENT_SHARE, _SPAN_CHARACTERS)
    chosen: list[tuple[int, int, int]] = []  # (-draw, number, bytes), a heap with the largest draw first
    total = held = 0
    for number, document in enumerate(corpus.documents("train")):
        size = len(document.text.encode())
        total += size
        heapq.heappush(chosen, (-Key(seed, number, "tokenizer sample").digest(), number, min(size, limit)))
        held += min(size, limit)
        while held - chosen[0][2] >= sample_bytes:
            held -= heapq.heappop(chosen)[2]
    if total <= sample_bytes:
        yield from (document.text for document in corpus.documents("train"))
        return
    numbers = {number for _, number, _ in chosen}
    for number, document in enumerate(corpus.documents("train")):
        if number in numbers:
            yield from _spans(document.text, limit)


def _spans(text: str, limit: int) -> Iterator[str]:
    """Up to `limit` bytes of a text, in spans spread evenly over it and trimmed to whole words."""
    size = len(text.encode())
    if size <= limit:
        yield text
        return
    characters = limit * len(text) // size
    count = max(1, characters // _SPAN_CHARACTERS)
    for index in range(count):
        begin = index * len(text) // count
        span = text[begin : begin + characters // count]
        words = span.split(" ")
        yield " ".join(words[1:-1]) if len(words) > 2 else span


def _train_wordpiece(texts: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """WordPiece as BERT uses it.

    The trainer numbers the alphabet's `##` entries in the order of a randomly seeded hash table, and breaks ties by
    those numbers, so one corpus would give many vocabularies. Handing it the alphabet in a fixed order makes it one.
    An ideograph is a word of its own to BERT: it stands in no other, and takes the room that words leave.
    """
    special = SPECIAL_NAMES["wordpiece"]
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    counts: Counter[str] = Counter()
    for raw, count in _count_characters(texts).items():  # the normalizer treats each character by itself
        for character in normalizer.normalize_str(raw):
            counts[character] += count
    by_frequency = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    characters = [character for _, character in by_frequency]
    alphabet = _alphabet(characters, (vocab_size - len(special)) // 2)

    def train(alphabet: list[str]) -> dict[str, int]:
        inner = [f"##{character}" for character in alphabet if not _IDEOGRAPH.match(character)]
        trained = _wordpiece({}, normalizer)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=[*special, *alphabet, *inner], limit_alphabet=0, show_progress=False
        )
        trained.train_from_iterator(texts, trainer)
        return json.loads(trained.to_str())["model"]["vocab"]

    vocab = train(sorted(alphabet))
    others = [character for character in characters if _IDEOGRAPH.match(character) and character not in alphabet]
    if more := others[: vocab_size - len(vocab)]:
        vocab = train(sorted([*alphabet, *more]))
    backend = _wordpiece(vocab, normalizer)
    backend.add_special_tokens(_added(special))
    return backend


def _alphabet(characters: list[str], room: int) -> set[str]:
    """The first of `characters`, the most frequent first, whose entries fit into `room`: two each, one with ##, or one
    of an ideograph. Of the former no more than BERT's 1,000.
    """
    taken, parts = set(), 0
    for character in characters:
        is_part = not _IDEOGRAPH.match(character)
        if is_part and parts == MOST_PARTS:
            continue
        room -= 1 + is_part
        if room < 0:
            break
        parts += is_part
        taken.add(character)
    return taken


def _wordpiece(vocab: dict[str, int], normalizer: normalizers.Normalizer) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _train_byte_bpe(texts: list[str], vocab_size: int, size_setting: str) -> Tokenizer:
    """Byte-level BPE as GPT-2 and RoBERTa use it."""
    special = SPECIAL_NAMES["byte_bpe"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(special) + len(alphabet):
        raise TilthError(
            f"a byte_bpe vocabulary holds 256 bytes and {len(special)} special tokens:"
            f" set {size_setting} to {len(special) + len(alphabet)} or more, not {vocab_size}"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _train_characters(texts: list[str], vocab_size: int) -> Tokenizer:
    """One entry per character, the most frequent first to be kept where `vocab_size` is too small for all."""
    special = SPECIAL_NAMES["characters"]
    counts = _count_characters(texts)
    kept = sorted((-count, character) for character, count in counts.items())[: vocab_size - len(special)]
    names = [*special, *sorted(character for _, character in kept)]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(_added(special))
    return backend


def _count_characters(texts: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


def _added(names: list[str]) -> list[AddedToken]:
    return [AddedToken(name, normalized=False, special=True) for name in names]
