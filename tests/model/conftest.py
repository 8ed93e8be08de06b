"""Small real tokenizers for tests of models."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tilth.model.families import Family
from tilth.tokens.load import special_tokens
from tilth.tokens.tokenizer import TextTokenizer
from tilth.tokens.training import SPECIAL_NAMES

TEXT = ["the quick brown fox jumps over the lazy dog", "a cat and a dog sat on the mat, and then they left."] * 4


@pytest.fixture(scope="session")
def text_tokenizer(byte_tokenizer):
    """A function: the tokenizer a family's models use, trained on two sentences."""

    def make(family: Family) -> TextTokenizer:
        if family.name not in ("bert", "electra"):
            return byte_tokenizer(TEXT, 290)
        backend = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=90, special_tokens=SPECIAL_NAMES["wordpiece"], show_progress=False
        )
        backend.train_from_iterator(TEXT, trainer)
        return TextTokenizer(backend, special_tokens(backend))

    return make


@pytest.fixture
def tokenizer_folder(tmp_path: Path):
    """A function that puts a tokenizer of few entries beside a model's config.json."""

    def add(folder: Path, family: Family) -> None:
        names = SPECIAL_NAMES["byte_bpe" if family.name in ("roberta", "modernbert") else "wordpiece"]
        backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[1]))
        backend.add_special_tokens(names)
        backend.save(str(folder / "tokenizer.json"))

    return add
