import json
import re

import pytest
from tokenizers import Tokenizer

import tilth
from tilth.errors import TilthError, UsageError
from tilth.recipe import TokenizerSettings
from tilth.tokens import text as text_module
from tilth.tokens.tokenizer import SpecialTokens, TextTokenizer, load_tokenizer, train_tokenizer

SIZES = {"wordpiece": 220, "byte_bpe": 320, "characters": 200}


def train(corpus, kind: str, **settings) -> TextTokenizer:
    values = {"vocab_size": SIZES[kind]} | settings
    return train_tokenizer(TokenizerSettings(kind=kind, **values), corpus, 0, progress=False)


@pytest.fixture(scope="module")
def tokenizers(stories) -> dict[str, TextTokenizer]:
    return {kind: train(stories, kind) for kind in SIZES}


def test_special_tokens_have_their_roles(tokenizers):
    assert tokenizers["wordpiece"].special == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4, eot=None)
    assert tokenizers["byte_bpe"].special == SpecialTokens(cls=0, pad=1, sep=2, unk=3, mask=4, eot=5)
    assert tokenizers["characters"].special == SpecialTokens(unk=0, eot=1, pad=2)
    assert tokenizers["byte_bpe"].special_ids == frozenset(range(6))
    assert {kind: tokenizers[kind].vocab_size for kind in ("wordpiece", "byte_bpe")} == {
        "wordpiece": 220,
        "byte_bpe": 320,
    }


@pytest.mark.parametrize("kind", ["byte_bpe", "characters"])
def test_text_comes_back_as_it_was(tokenizers, stories, kind):
    for document in stories.documents("train"):
        assert tokenizers[kind].decode(tokenizers[kind].encode(document.text)) == document.text


def test_wordpiece_folds_case_and_accents_when_asked(tokenizers, stories):
    assert tokenizers["wordpiece"].decode(tokenizers["wordpiece"].encode("The NAÏVE clerk")) == "the naive clerk"
    cased = train(stories, "wordpiece", lowercase=False)
    assert cased.decode(cased.encode("The naïve clerk")) == "The naïve clerk"


def test_wordpiece_of_ideographs_fills_its_vocabulary_with_them(make_corpus):
    """Each is a word of its own: none stands within another, and there is nothing to merge."""
    ideographs = [chr(0x4E00 + number) for number in range(600)]
    text = "\n".join("".join(ideographs[:end]) for end in range(1, 601, 7))
    tokenizer = train(make_corpus([text]), "wordpiece", vocab_size=500)
    assert tokenizer.vocab_size == 500 and not [name for name in tokenizer.backend.get_vocab() if name[:2] == "##"]
    assert tokenizer.special.unk not in tokenizer.encode("".join(ideographs[:495]))
    assert tokenizer.encode(ideographs[499]) == [tokenizer.special.unk]
    mixed = train(make_corpus([text + " the mill and the miller" * 300]), "wordpiece", vocab_size=605)
    assert mixed.special.unk not in mixed.encode(f"{ideographs[3]}miller{ideographs[5]}")
    with pytest.raises(
        TilthError, match=r"supports a vocabulary of \d+ entries, not 5000; set .* to (\d+) or less"
    ) as told:
        train(make_corpus([text]), "wordpiece", vocab_size=5000)
    size = int(re.findall(r"to (\d+) or less", str(told.value))[0])
    assert train(make_corpus([text]), "wordpiece", vocab_size=size).vocab_size == size > 590


@pytest.mark.parametrize("kind", SIZES)
def test_special_tokens_written_in_a_document_are_ordinary_text(tokenizers, tmp_path, kind):
    tokenizers[kind].save(tmp_path / "tokenizer.json")
    for tokenizer in (tokenizers[kind], load_tokenizer(tmp_path / "tokenizer.json")):
        special = tokenizer.special_ids - {tokenizer.special.unk}
        for name in ("[MASK]", "[CLS]", "<s>", "</s>", "<mask>", "<pad>", "<|endoftext|>"):
            text = f"the {name} mill"
            assert not special & set(tokenizer.encode(text)), name
            assert not special & set(tokenizer.encode_with_ends([text])[0][0].tolist()), name


@pytest.mark.parametrize("kind", SIZES)
def test_equal_input_gives_equal_bytes_and_survives_saving(tokenizers, stories, tmp_path, kind):
    for name, tokenizer in (("a", tokenizers[kind]), ("b", train(stories, kind))):
        tokenizer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_tokenizer(tmp_path / "a")
    assert loaded.fingerprint == tokenizers[kind].fingerprint
    assert loaded.special == tokenizers[kind].special
    assert loaded.special_ids == tokenizers[kind].special_ids


def test_fingerprints_tell_tokenizers_apart_but_not_templates(tokenizers, stories):
    other = train(stories, "wordpiece", vocab_size=219)
    assert other.fingerprint != tokenizers["wordpiece"].fingerprint
    assert tokenizers["wordpiece"].with_template("bert").fingerprint == tokenizers["wordpiece"].fingerprint


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_a_vocabulary_the_corpus_does_not_support(stories, kind):
    with pytest.raises(TilthError, match=r"supports a vocabulary of \d+ entries, not 30000") as raised:
        train(stories, kind, vocab_size=30_000)
    supported = int(re.search(r"tokenizer.vocab_size to (\d+)", str(raised.value))[1])
    assert train(stories, kind, vocab_size=supported).vocab_size == supported


def test_a_corpus_that_supports_less_than_the_smallest_vocabulary_needs_text(make_corpus):
    with pytest.raises(
        TilthError, match="supports a vocabulary of \\d+ entries, not 220; the smallest is 16: add text$"
    ):
        train(make_corpus(["aaa bbb"]), "wordpiece")


@pytest.mark.parametrize("text", ["aaa bbb ccc ddd", "one two three four five", "the cat and the dog ran and sat"])
def test_the_size_that_is_said_to_be_supported_is(make_corpus, text):
    corpus = make_corpus([text])
    with pytest.raises(TilthError, match=r"tokenizer.vocab_size to \d+ or less|the smallest is 16") as raised:
        train(corpus, "wordpiece")
    if said := re.search(r"tokenizer.vocab_size to (\d+)", str(raised.value)):
        assert train(corpus, "wordpiece", vocab_size=int(said[1])).vocab_size == int(said[1])
    else:
        with pytest.raises(TilthError, match="the smallest is 16"):
            train(corpus, "wordpiece", vocab_size=16)


def test_the_verb_names_its_own_option_and_leaves_no_empty_folder(stories, tmp_path):
    for kind, size in (("wordpiece", 30_000), ("byte_bpe", 200)):
        with pytest.raises(TilthError, match="set --vocab-size to"):
            tilth.tokenizer_train(
                stories.path, tmp_path / "new" / "tokenizer.json", kind=kind, vocab_size=size, progress=False
            )
    with pytest.raises(UsageError, match="a problem in the tokenizer's settings:\n  - vocab_size"):
        tilth.tokenizer_train(stories.path, tmp_path / "new" / "t.json", vocab_size=9, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_replaces_a_file_only_when_told_to(stories, tmp_path):
    path = tmp_path / "tokenizer.json"
    first = tilth.tokenizer_train(stories.path, path, vocab_size=220, progress=False)
    with pytest.raises(UsageError, match=r"tokenizer.json is there already; choose another --out, or pass --overwrite"):
        tilth.tokenizer_train(stories.path, path, vocab_size=200, progress=False)
    assert load_tokenizer(path).fingerprint == first["fingerprint"]
    second = tilth.tokenizer_train(stories.path, path, vocab_size=200, overwrite=True, progress=False)
    assert load_tokenizer(path).fingerprint == second["fingerprint"] != first["fingerprint"]
    with pytest.raises(UsageError, match="is a folder; name the file to write, such as --out .*tokenizer.json$"):
        tilth.tokenizer_train(stories.path, tmp_path, overwrite=True, progress=False)
    with pytest.raises(UsageError, match="/dev/full is not a plain file"):
        tilth.tokenizer_train(stories.path, "/dev/full", overwrite=True, progress=False)


def test_byte_bpe_needs_room_for_every_byte(stories):
    with pytest.raises(TilthError, match="262 or more, not 261"):
        train(stories, "byte_bpe", vocab_size=261)


def test_characters_keep_the_most_frequent(make_corpus):
    corpus = make_corpus(["a" * 50 + "b" * 40 + "cdefghijklmnopqrstu"])
    tokenizer = train(corpus, "characters", vocab_size=16)
    assert tokenizer.vocab_size == 16
    assert tokenizer.encode("abz") == [3, 4, tokenizer.special.unk]


def test_training_prints_nothing_on_standard_output(stories, capfd):
    train_tokenizer(TokenizerSettings(kind="wordpiece", vocab_size=220), stories, 0, progress=True)
    train_tokenizer(TokenizerSettings(kind="byte_bpe", vocab_size=320), stories, 0, progress=True)
    assert capfd.readouterr().out == ""


def test_an_empty_corpus(make_corpus):
    with pytest.raises(TilthError, match="no text"):
        train(make_corpus(["", " \n"]), "wordpiece")


@pytest.mark.parametrize("kind", SIZES)
def test_a_long_document_is_tokenized_in_segments_to_the_same_ids(tokenizers, stories, monkeypatch, kind):
    text = "\n\n".join(document.text for document in stories.documents("train") if document.text.isascii())
    tokenizer = tokenizers[kind]
    whole = tokenizer.backend.encode(text, add_special_tokens=False)
    monkeypatch.setattr(text_module, "SEGMENT_CHARACTERS", 60)
    monkeypatch.setattr(text_module, "_BATCH_CHARACTERS", 300)
    ids, ends = tokenizer.encode_with_ends(["The mill.", text])[1]
    assert ids.tolist() == whole.ids == tokenizer.encode(text)
    assert ends.tolist() == [end for _, end in whole.offsets]


def test_segments_do_not_break_white_space(make_corpus, monkeypatch):
    text = "mill  \n  mill   mill  \n\n  " * 40
    tokenizer = train(make_corpus([text]), "byte_bpe", vocab_size=268)
    whole = tokenizer.backend.encode(text, add_special_tokens=False).ids
    for size in range(20, 40):
        monkeypatch.setattr(text_module, "SEGMENT_CHARACTERS", size)
        assert tokenizer.encode(text) == whole


def test_text_without_spaces_is_cut_all_the_same(tokenizers, monkeypatch):
    monkeypatch.setattr(text_module, "SEGMENT_CHARACTERS", 10)
    assert tokenizers["byte_bpe"].decode(tokenizers["byte_bpe"].encode("x" * 95)) == "x" * 95


def test_templates_frame_texts_for_other_programs(tokenizers, tmp_path):
    def framed(tokenizer: TextTokenizer, kind: str | None) -> tuple[list[str], list[int]]:
        tokenizer.with_template(kind).save(tmp_path / "tokenizer.json")
        encoding = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the", "mill")
        return encoding.tokens, encoding.type_ids

    assert framed(tokenizers["wordpiece"], "bert") == (["[CLS]", "the", "[SEP]", "mill", "[SEP]"], [0, 0, 0, 1, 1])
    tokens, types = framed(tokenizers["byte_bpe"], "roberta")
    assert [token for token in tokens if token.startswith("<")] == ["<s>", "</s>", "</s>", "</s>"]
    assert set(types) == {0} and tokens[0] == "<s>" and tokens[-1] == "</s>"
    assert not any(token.startswith("<") for token in framed(tokenizers["byte_bpe"], None)[0])
    with pytest.raises(TilthError, match="no tokens to open and close"):
        tokenizers["characters"].with_template("bert")


def test_a_template_does_not_reach_encode(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    assert tokenizer.with_template("bert").encode("the mill") == tokenizer.encode("the mill")


class TestSample:
    def test_a_corpus_that_fits_is_taken_whole(self, make_corpus):
        corpus = make_corpus(["x" * 9000 + "$", "y"])
        assert "$" in train(corpus, "characters", sample_bytes=9002).backend.get_vocab()

    def test_a_larger_corpus_is_sampled_by_seed_within_bounds(self, make_corpus):
        from tilth.tokens.training import sample_texts

        texts = [f"document {number} " + "word " * 200 for number in range(300)]
        corpus = make_corpus(texts)
        sample = list(sample_texts(corpus, 50_000, seed=0))
        assert set(sample) < set(texts)
        assert 50_000 <= sum(map(len, sample)) < 50_000 + len(texts[0])
        assert sample == list(sample_texts(corpus, 50_000, seed=0))
        assert sample != list(sample_texts(corpus, 50_000, seed=1))

    def test_a_long_document_gives_spans_from_all_over_it(self, make_corpus):
        from tilth.tokens.training import sample_texts

        words = [f"w{number}" for number in range(100_000)]
        sample = list(sample_texts(make_corpus([" ".join(words)]), 100_000, seed=0))
        found = [int(word[1:]) for span in sample for word in span.split()]
        assert sum(map(len, sample)) <= 100_000
        assert len(found) > 100 and found == sorted(found)
        assert set(found) <= set(range(100_000))


class TestForeignFolders:
    def test_vocab_txt(self, tokenizers, tmp_path):
        ours = tokenizers["wordpiece"]
        vocab = ours.backend.get_vocab()
        (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n", encoding="utf-8")
        theirs = load_tokenizer(tmp_path)
        assert theirs.encode("The naïve miller [MASK]") == ours.encode("The naïve miller [MASK]")
        assert theirs.special == ours.special and theirs.special_ids == ours.special_ids
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
        assert load_tokenizer(tmp_path).encode("The") != ours.encode("The")

    def test_vocab_json_and_merges(self, tokenizers, tmp_path):
        ours = tokenizers["byte_bpe"]
        ours.backend.model.save(str(tmp_path))
        theirs = load_tokenizer(tmp_path)
        assert theirs.encode("The naïve miller <s>") == ours.encode("The naïve miller <s>")
        assert theirs.special == ours.special and theirs.special_ids == ours.special_ids

    def test_roles_are_read_from_the_folder(self, tokenizers, tmp_path):
        tokenizers["byte_bpe"].save(tmp_path / "tokenizer.json")
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<unk>"}}))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": "<mask>", "eos_token": "</s>"}))
        special = load_tokenizer(tmp_path).special
        assert (special.pad, special.cls, special.eot) == (3, 4, 5)

    def test_gpt2_roles(self, tokenizers, tmp_path):
        content = json.loads(tokenizers["byte_bpe"].backend.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == "<|endoftext|>"]
        for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
            content["model"]["vocab"][f"unused{name[1]}{len(name)}"] = content["model"]["vocab"].pop(name)
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "pad_token": None}))
        assert load_tokenizer(tmp_path).special == SpecialTokens(eot=5)

    def test_truncation_and_padding_are_turned_off(self, tokenizers, tmp_path):
        backend = Tokenizer.from_str(tokenizers["wordpiece"].backend.to_str())
        backend.enable_truncation(4)
        backend.enable_padding(length=9)
        backend.save(str(tmp_path / "tokenizer.json"))
        text = "the miller waited for the harbour"
        assert load_tokenizer(tmp_path).encode(text) == tokenizers["wordpiece"].encode(text)

    def test_what_cannot_be_read_is_said(self, tmp_path):
        with pytest.raises(TilthError, match="no tokenizer at"):
            load_tokenizer(tmp_path / "absent")
        with pytest.raises(TilthError, match="holds no tokenizer"):
            load_tokenizer(tmp_path)
        (tmp_path / "vocab.txt").write_text("the\nmill\n")
        with pytest.raises(TilthError, match=r"vocab.txt has no \[UNK\]"):
            load_tokenizer(tmp_path)
        (tmp_path / "tokenizer.json").write_text('{"model": 3}')
        with pytest.raises(TilthError, match="not a tokenizer.json"):
            load_tokenizer(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text("[1]")
        with pytest.raises(TilthError, match="tokenizer_config.json is not a JSON object"):
            load_tokenizer(tmp_path)
