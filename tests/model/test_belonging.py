"""A tokenizer that does not belong to the model is told, also one of the same size."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer

from tilth.errors import TilthError
from tilth.model.families import FAMILIES
from tilth.model.folder import load_model, save_model


@pytest.fixture
def saved(text_tokenizer, small_model, tmp_path: Path):
    """A function: the folder of a small model of a family."""

    def save(name: str, *heads: str) -> Path:
        tokenizer = text_tokenizer(FAMILIES[name])
        save_model(small_model(name, tokenizer.vocab_size, heads), tokenizer, tmp_path / name)
        return tmp_path / name

    return save


def change(path: Path, **changes: object) -> None:
    """Change a JSON file's keys; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "gpt3"])
def test_the_fingerprint_is_recorded_where_transformers_does_not_read(name: str, saved, tmp_path: Path, caplog):
    folder = saved(name, "causal" if name.startswith("gpt") else "masked")
    _, tokenizer = load_model(folder)
    assert json.loads((folder / "config.json").read_text())["tilth"] == {"tokenizer": tokenizer.fingerprint}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = transformers.AutoModel.from_pretrained(folder)
        their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert not [record for record in caplog.records if "tilth" in record.getMessage()]
    theirs.save_pretrained(tmp_path / "again")
    their_tokenizer.save_pretrained(tmp_path / "again")
    assert load_model(tmp_path / "again")[1].fingerprint == tokenizer.fingerprint


def test_another_tokenizer_of_the_same_size_is_refused(saved, byte_tokenizer):
    folder = saved("gpt2", "causal")
    own = load_model(folder)[1]
    other = byte_tokenizer(["zebras quietly quote quizzes; quartz jazz and pyjamas vex"] * 4, own.vocab_size)
    assert (other.vocab_size, other.special) == (own.vocab_size, own.special)
    other.save(folder / "tokenizer.json")
    differs = f"its fingerprint is {other.fingerprint}, and config.json records {own.fingerprint}"
    problem = f'not the one its model was saved with: {differs}; restore that tokenizer.json.*remove "tilth"'
    with pytest.raises(TilthError, match=problem):
        load_model(folder)
    change(folder / "config.json", tilth=None)
    assert load_model(folder)[1].fingerprint == other.fingerprint


def test_a_changed_normalizer_is_another_tokenizer(saved):
    folder = saved("bert", "masked")
    normalizer = json.loads((folder / "tokenizer.json").read_text())["normalizer"]
    change(folder / "tokenizer.json", normalizer=normalizer | {"lowercase": False})
    with pytest.raises(TilthError, match="not the one its model was saved with"):
        load_model(folder)


def test_special_tokens_with_other_ids_are_refused_in_any_folder(saved, byte_tokenizer):
    folder = saved("roberta", "masked")
    change(folder / "config.json", tilth=None)
    wordpiece = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5}
    text = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
    Tokenizer.from_str(json.dumps({"model": text | {"vocab": wordpiece}, "added_tokens": []})).save(
        str(folder / "tokenizer.json")
    )
    differs = "the pad token has the id 0 in the tokenizer, and config.json says pad_token_id 1"
    with pytest.raises(TilthError, match=f"{differs}; restore the tokenizer .* correct pad_token_id"):
        load_model(folder)


def test_names_of_the_folder_come_before_usual_names(saved):
    """A chat model's end of a turn is another token than <|endoftext|>, and both of its files say so."""
    folder = saved("gpt2", "causal")
    tokenizer = load_model(folder)[1]
    index = tokenizer.vocab_size - 1
    turn = tokenizer.backend.id_to_token(index)
    change(folder / "config.json", eos_token_id=index)
    with pytest.raises(TilthError, match=f"eos_token_id {index}"):
        load_model(folder)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        change(folder / name, eos_token=turn)
    assert load_model(folder)[1].special.eot == tokenizer.special.eot


def test_what_names_no_token_is_not_compared(saved):
    folder = saved("gpt2", "causal")
    for ids in ({"eos_token_id": 50256}, {"eos_token_id": [1, 2]}, {"unk_token_id": None, "eos_token_id": None}):
        change(folder / "config.json", **ids, tilth="of another kind")
        assert load_model(folder)


def test_a_folder_without_its_tokenizer_json_says_so(saved):
    folder = saved("bert", "masked")
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    shutil.move(folder / "tokenizer.json", folder / "elsewhere.json")
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)))
    with pytest.raises(TilthError, match="not the one its model was saved with: it has no tokenizer.json"):
        load_model(folder)
