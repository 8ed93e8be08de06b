"""The fast form of a byte-level BPE tokenizer against `tokenizers`: the same ids and ends, or no fast form."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tilth.errors import UsageError
from tilth.recipe import TokenizerSettings
from tilth.tokens import byte_bpe as byte_bpe_module
from tilth.tokens import text as text_module
from tilth.tokens.byte_bpe import byte_bpe, splits_alike
from tilth.tokens.chunk_memory import ChunkMemory
from tilth.tokens.shards import write_shards
from tilth.tokens.text import TextTokenizer
from tilth.tokens.tokenizer import load_tokenizer, train_tokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>", "[MASK]"]
LETTERS = pre_tokenizers.ByteLevel.alphabet()
# Pieces that meet in texts of hypothesis more often than by chance: words that were learnt, contractions, white space.
PIECES = [
    *SPECIAL,
    "the mill",
    " the",
    "naïve",
    "猫",
    "é",
    "'s",
    "'LL",
    "'",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u3000",
    "\u00a0",
    "\u2003",
    "\u205f",
    "да",
    "\u201cNo,\u201d",
    ".'",
    "\x00",
    "1",
    "12",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40).map("".join)


@pytest.fixture(scope="module")
def trained(stories) -> TextTokenizer:
    return train_tokenizer(TokenizerSettings(kind="byte_bpe", vocab_size=450), stories, 0, progress=False)


@pytest.fixture(scope="module")
def fast_and_slow(trained) -> list[tuple[ChunkMemory, Tokenizer]]:
    """Both forms of a tokenizer as Tilth trains it, and of one whose offsets leave spaces out, as RoBERTa's do."""
    roberta = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return [both_forms(trained, template) for template in (None, roberta)]


def small_bpe(merges: list[tuple[str, str]]) -> Tokenizer:
    entries = [*sorted(LETTERS), *(left + right for left, right in merges)]
    backend = Tokenizer(models.BPE({entry: index for index, entry in enumerate(entries)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return backend


def fast_form(backend: Tokenizer, sample: str = "") -> ChunkMemory | None:
    return byte_bpe(backend, json.loads(backend.to_str()), sample)


def both_forms(trained: TextTokenizer, post_processor: Any) -> tuple[ChunkMemory, Tokenizer]:
    backend = Tokenizer.from_str(trained.backend.to_str())
    backend.encode_special_tokens = True
    backend.post_processor = post_processor
    fast = fast_form(backend)
    assert fast is not None
    return fast, backend


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
@example([""])
@example(["\x00\x01\x1f\x7f\x85\x9f\ufeff\u200b\u2028", " \u00a0 \u3000\n \n  x "])
@example(["p\u2003 x", "\u00a0 x", "\u3000  x \u1680\n x", "\u0440 x \u00e0 x \u0080 x", "'s'tis.'re'd 'd 1's ''s"])
@example(["".join(SPECIAL), " ".join(SPECIAL), "\n" + "\n".join(SPECIAL) + "\n"])
def test_ids_and_ends_are_those_of_tokenizers(assert_the_same, fast_and_slow, texts):
    for fast, slow in fast_and_slow:
        assert_the_same(fast, slow, texts)


@pytest.mark.parametrize("unit", ["a", " ", "\n ", "!", "the", "7", "猫", "\x00", "\U0001f600"])
def test_a_word_without_end(assert_the_same, fast_and_slow, unit):
    assert_the_same(*fast_and_slow[0], ["x" + unit * (9000 // len(unit)) + "y"])


def test_offsets_with_and_without_spaces(assert_the_same, trained):
    level = processors.ByteLevel
    texts = [" the  mill \n ", "\n \n  x ", "   ", " \u00a0 \u3000\n"]
    for post_processor in (
        level(trim_offsets=False, add_prefix_space=True),
        level(trim_offsets=True, add_prefix_space=False),
        processors.Sequence([level(trim_offsets=True, add_prefix_space=False)]),
    ):
        assert_the_same(*both_forms(trained, post_processor), texts)
    # This one takes a space at the start of a text for its own.
    backend = Tokenizer.from_str(trained.backend.to_str())
    for post_processor in (level(), processors.Sequence([level()])):
        backend.post_processor = post_processor
        assert fast_form(backend) is None


@pytest.mark.parametrize("step", [251, pytest.param(1, marks=pytest.mark.slow)])
def test_every_character_is_of_the_same_kind_to_both(step):
    points = [*range(0x80, 0x3100), *range(0x3100, 0xD800, step), *range(0xE000, 0x110000, step)]
    for start in range(0, len(points), 4096):
        assert splits_alike("".join(map(chr, points[start : start + 4096]))), f"from {points[start]:#x}"


def test_libraries_of_different_unicode_versions_leave_the_slow_form(trained, monkeypatch):
    """As if one did not know the letters of CJK extension I, of Unicode 15.1, which few vocabularies have."""
    words = byte_bpe_module._WORDS.replace(r"[^\s\p{L}\p{N}]", r"(?:[^\s\p{L}\p{N}]|[\x{2EBF0}-\x{2EE5D}])")
    monkeypatch.setattr(byte_bpe_module, "_WORDS", words.replace(r"\p{L}+", r"[\p{L}--[\x{2EBF0}-\x{2EE5D}]]+"))
    assert splits_alike("é猫\u0860\u00bd") and not splits_alike("\U0002ebf0")
    assert fast_form(trained.backend) is None


def test_ids_in_another_order_than_the_merges(assert_the_same, trained):
    """As RoBERTa's, which are sorted by frequency."""
    content = json.loads(trained.backend.to_str())
    names = sorted(content["model"]["vocab"], reverse=True)
    content["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    content["added_tokens"] = []
    backend = Tokenizer.from_str(json.dumps(content))
    fast = fast_form(backend)
    assert fast is not None
    assert_the_same(fast, backend, ["The miller kept three geese; the naïve clerk didn't.", " the  mill\n"])


def test_what_splits_or_merges_otherwise_has_no_fast_form(trained):
    def changed(change: Callable[[Any], Any]) -> Tokenizer:
        content = json.loads(trained.backend.to_str())
        change(content)
        return Tokenizer.from_str(json.dumps(content))

    def drop_byte(content: dict) -> None:
        del content["model"]["vocab"]["Ā"]

    def merge_twice(content: dict) -> None:
        content["model"]["merges"] += [["t", "he"], ["th", "e"]]
        content["model"]["vocab"] |= {"the": 450, "he": 451, "th": 452}

    assert fast_form(changed(lambda content: None)) is not None
    for change in (
        lambda content: content["model"].update(dropout=0.1),
        lambda content: content["model"].update(ignore_merges=True),
        lambda content: content["pre_tokenizer"].update(add_prefix_space=True),
        lambda content: content["pre_tokenizer"].update(use_regex=False),
        lambda content: content.update(pre_tokenizer=None),
        lambda content: content.update(normalizer={"type": "NFC"}),
        drop_byte,
        merge_twice,
    ):
        assert fast_form(changed(change)) is None
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert fast_form(words) is None
    added = changed(lambda content: None)
    added.add_tokens([AddedToken("mill", special=False)])
    assert fast_form(added) is None


def test_merges_that_are_not_those_of_training_have_no_fast_form():
    """`bc` comes before `ab`, so that `ab` + `c` is never met, and yet `abc` is a token."""
    backend = small_bpe([("b", "c"), ("a", "b"), ("ab", "c")])
    assert backend.encode("abc").tokens == ["a", "bc"]
    assert fast_form(backend) is None


def test_a_sample_on_which_the_forms_differ_leaves_the_slow_one(monkeypatch):
    backend = small_bpe([("'", "s")])
    monkeypatch.setattr(byte_bpe_module, "_WORDS", byte_bpe_module._WORDS.removeprefix("'s|"))
    assert fast_form(backend, "the mill") is not None
    assert fast_form(backend, "the mill's") is None


class TestInUse:
    @pytest.fixture
    def texts(self, stories) -> list[str]:
        return [document.text for document in stories.documents("train")] + ["", "x" * 95, "<s> <|endoftext|>"]

    def test_bulk_takes_the_fast_form_to_the_same_ids(self, trained, texts, tmp_path, monkeypatch):
        trained.save(tmp_path / "tokenizer.json")
        slow, fast = (load_tokenizer(tmp_path / "tokenizer.json") for _ in range(2))
        expected = slow.encode_batch(texts), slow.encode_with_ends(texts)
        assert slow._fast is None
        monkeypatch.setattr(text_module, "_BYTE_BPE_BULK", 1000)
        monkeypatch.setattr(text_module, "SEGMENT_CHARACTERS", 60)
        monkeypatch.setattr(text_module, "_BATCH_CHARACTERS", 300)
        assert fast.encode_batch(texts) == expected[0]
        assert fast._fast is not None
        for ours, theirs in zip(fast.encode_with_ends(texts), expected[1], strict=True):
            assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]

    def test_a_lone_surrogate_is_refused(self, trained, tmp_path, monkeypatch):
        trained.save(tmp_path / "tokenizer.json")
        tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
        for bulk in (1 << 20, 1):
            monkeypatch.setattr(text_module, "_BYTE_BPE_BULK", bulk)
            for encode in (tokenizer.encode_batch, tokenizer.encode_with_ends):
                with pytest.raises(UsageError, match=r"a text holds a lone surrogate.*: 'not .ud800 fine'"):
                    encode(["fine", "not \ud800 fine"])
        assert tokenizer.encode("fine") == trained.encode("fine")

    def test_shards_are_the_same_to_the_byte(self, trained, stories, tmp_path, monkeypatch):
        trained.save(tmp_path / "tokenizer.json")
        for name, bulk in (("slow", 1 << 40), ("fast", 1)):
            monkeypatch.setattr(text_module, "_BYTE_BPE_BULK", bulk)
            tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
            write_shards(stories, tokenizer, tmp_path / name, progress=False)
            assert (tokenizer._fast is not None) == (name == "fast")
        files = sorted(path.name for path in (tmp_path / "slow").iterdir())
        assert len(files) > 8
        for file in files:
            assert (tmp_path / "slow" / file).read_bytes() == (tmp_path / "fast" / file).read_bytes(), file
