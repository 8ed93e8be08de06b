import errno
import json
import os

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tilth.errors import TilthError
from tilth.recipe import TokenizerSettings
from tilth.tokens.shard_writer import SplitWriter
from tilth.tokens.shards import open_shards, write_shards
from tilth.tokens.tokenizer import SpecialTokens, TextTokenizer, train_tokenizer


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def tokenizer(request, stories) -> TextTokenizer:
    size = {"wordpiece": 200, "byte_bpe": 320}[request.param]
    return train_tokenizer(TokenizerSettings(kind=request.param, vocab_size=size), stories, 0, progress=False)


@pytest.fixture
def shards(stories, tokenizer, tmp_path):
    return write_shards(stories, tokenizer, tmp_path / "shards", progress=False)


def every_token(split) -> np.ndarray:
    return split.tokens(np.array([0]), np.array([split.num_tokens]))


@pytest.mark.parametrize("name", ["train", "validation"])
def test_every_document_is_there_as_encoded(stories, tokenizer, shards, name):
    split = shards.split(name)
    documents = list(stories.documents(name))
    starts = np.asarray(split.document_starts)
    assert split.num_documents == len(documents)
    for number, document in enumerate(documents):
        ids = split.tokens(starts[number : number + 1], np.diff(starts[number : number + 2]))
        assert ids.tolist() == tokenizer.encode(document.text)
    assert split.document_bytes.tolist() == [len(document.text.encode()) for document in documents]
    assert split.num_bytes == split.document_bytes.sum()
    assert split.document_names([3, 0]) == [documents[3].id, documents[0].id]


def test_documents_may_continue_in_the_next_shard(stories, tokenizer, shards, tmp_path):
    small = write_shards(stories, tokenizer, tmp_path / "small", progress=False, shard_tokens=97).split("train")
    split = shards.split("train")
    assert len(list((tmp_path / "small").glob("train-*.ids"))) == -(-split.num_tokens // 97)
    assert every_token(small).tolist() == every_token(split).tolist()
    starts, lengths = np.array([90, 5, 600]), np.array([200, 0, 1])
    assert small.tokens(starts, lengths).tolist() == every_token(split)[[*range(90, 290), 600]].tolist()


def test_sentences_start_where_a_reader_sees_them(make_corpus, tokenizer, tmp_path):
    sentences = [
        'The miller sold "the harbour." ',
        "She waited! ",
        "Would he (the baker?) ",
        "The clerk, e.g. the old one, dreamt… ",
        "Nobody else came\n\n",
        "walked past the 3 mills.",
    ]
    corpus = make_corpus(["Enough. It was.", "".join(sentences)])
    split = write_shards(corpus, tokenizer, tmp_path / "shards", progress=False).split("train")
    begin, end = (int(position) for position in split.document_starts[1:])
    starts = split.sentence_starts(begin, end - begin)
    assert starts[0] == 0 and split.sentence_starts(0, begin).tolist()[0] == 0
    found = [tokenizer.decode(ids.tolist()) for ids in np.split(every_token(split)[begin:end], starts[1:])]
    wanted = [tokenizer.decode(tokenizer.encode(sentence)) for sentence in sentences]
    assert [text.split() for text in found] == [text.split() for text in wanted]
    inside = split.sentence_starts(begin + 1, end - begin - 1)
    assert (inside + 1).tolist() == starts[1:].tolist()


def test_documents_without_tokens_are_left_out_and_counted(make_corpus, tokenizer, tmp_path):
    corpus = make_corpus(["The mill.", "", "The baker."])
    shards = write_shards(corpus, tokenizer, tmp_path / "shards", progress=False)
    counts = shards.manifest["splits"]["train"]
    assert (counts["documents"], counts["empty_documents"]) == (2, 1)
    assert shards.split("train").document_names([0, 1]) == ["train-0", "train-2"]


def test_no_tokens_at_all_is_an_error_and_leaves_no_folder(make_corpus, tokenizer, tmp_path):
    with pytest.raises(TilthError, match="no tokens"):
        write_shards(make_corpus([""]), tokenizer, tmp_path / "shards", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(stories, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match="cannot write shards to"):
        write_shards(stories, tokenizer, tmp_path / "file" / "shards", progress=False)


def test_a_full_disk_is_told_in_words(stories, tokenizer, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SplitWriter, "add", fail)
    out = tmp_path / "shards"
    with pytest.raises(TilthError) as raised:
        write_shards(stories, tokenizer, out, progress=False)
    said = f"cannot write shards to {out}: No space left on device; free some space or choose another folder"
    assert str(raised.value) == said


def test_a_failure_leaves_the_shards_that_were_there(make_corpus, tokenizer, shards):
    with pytest.raises(TilthError, match="no tokens"):
        write_shards(make_corpus([""]), tokenizer, shards.path, progress=False)
    assert open_shards(shards.path, verify=True).manifest == shards.manifest


def test_a_large_vocabulary_takes_four_bytes(make_corpus, tmp_path):
    vocab = {f"w{number}": number for number in range(70_000)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer = TextTokenizer(backend, SpecialTokens())
    corpus = make_corpus(["w69999", "w5"])
    split = write_shards(corpus, tokenizer, tmp_path / "shards", progress=False).split("train")
    assert every_token(split).tolist() == [69_999, 5]
    assert (tmp_path / "shards" / "train-00000.ids").stat().st_size == 8


def test_equal_input_gives_equal_bytes(stories, tokenizer, shards, tmp_path):
    again = write_shards(stories, tokenizer, tmp_path / "again", progress=False)
    assert again.manifest == shards.manifest


def test_arrays_are_mapped_not_loaded(shards):
    split = shards.split("train")
    for array in (split.document_starts, split.document_bytes, *split._shards):
        assert isinstance(array.base, np.memmap)


def test_a_flipped_byte_is_found(shards):
    path = shards.path / "train-00000.ids"
    content = bytearray(path.read_bytes())
    content[11] ^= 1
    path.write_bytes(content)
    open_shards(shards.path)
    with pytest.raises(TilthError, match=r"train-00000.ids does not match its SHA-256"):
        open_shards(shards.path, verify=True)


def test_a_short_or_missing_file_is_found(shards):
    path = shards.path / "validation.bytes"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TilthError, match=r"validation.bytes has \d+ bytes, not \d+"):
        open_shards(shards.path)
    path.unlink()
    with pytest.raises(TilthError, match=r"validation.bytes is missing"):
        open_shards(shards.path)


def test_stale_shards_say_what_differs(stories, tokenizer, shards):
    open_shards(shards.path, stories.fingerprint, tokenizer.fingerprint, verify=True)
    with pytest.raises(TilthError, match=r"another corpus \(corpus"):
        open_shards(shards.path, "other", tokenizer.fingerprint)
    with pytest.raises(TilthError, match=r"another tokenizer \(tokenizer"):
        open_shards(shards.path, stories.fingerprint, "other")
    with pytest.raises(TilthError, match="another corpus and another tokenizer"):
        open_shards(shards.path, "other", "other")
    manifest = json.loads((shards.path / "manifest.json").read_text())
    (shards.path / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(TilthError, match="differ in format"):
        open_shards(shards.path)


def test_a_folder_that_is_not_shards(tmp_path):
    with pytest.raises(TilthError, match="no shards"):
        open_shards(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(TilthError, match="not a folder of shards"):
        open_shards(tmp_path)
