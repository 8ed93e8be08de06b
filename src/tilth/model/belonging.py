"""Whether the tokenizer in a model folder is the one its model was trained with.

A model learns what each id stands for; with another tokenizer of the same size it answers, and every answer is noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilth.errors import TilthError
from tilth.files import fingerprint, read_json
from tilth.model.families import Family
from tilth.tokens.load import named_special_ids
from tilth.tokens.text import PARTS_OF_IDS
from tilth.tokens.tokenizer import TextTokenizer

RECORD = "tilth"
"""The key of config.json for what transformers has no place for; it keeps such keys and does not read them."""
_CHECKED_ROLES = ("pad", "bos", "eos", "unk")


def tokenizer_record(folder: Path) -> dict[str, str | None]:
    """What config.json records of the tokenizer.json in `folder`, under `RECORD`."""
    return {"tokenizer": _fingerprint(folder)}


def check_tokenizer(
    folder: Path, config: Mapping[str, Any], family: Family, tokenizer: TextTokenizer, vocab_size: int
) -> None:
    """Check that the tokenizer in a folder belongs to its model, as far as the folder tells.

    Its size must fit; its fingerprint must be the recorded one, where Tilth wrote the folder; and special tokens that
    config.json and the tokenizer both name must have the same ids.
    Raises: TilthError that says what differs and what to do.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TilthError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} entries and the model {vocab_size}: "
            "they do not belong together; restore the tokenizer the model was trained with"
        )
    record = config.get(RECORD)
    recorded = record.get("tokenizer") if isinstance(record, dict) else None
    if recorded is not None and recorded != (found := _fingerprint(folder)):
        differs = f"its fingerprint is {found}, and config.json records {recorded}"
        raise TilthError(
            f"the tokenizer in {folder} is not the one its model was saved with: "
            f"{differs if found else 'it has no tokenizer.json'}; restore that tokenizer.json, or, if you changed it "
            f'on purpose and the model knows the change, remove "{RECORD}" from config.json'
        )
    ids = _special_ids(folder, family, tokenizer)
    for role in _CHECKED_ROLES:
        of_model = config.get(f"{role}_token_id")
        # An id past the vocabulary is a default of transformers that nobody set: it names no token of this model.
        if role in ids and type(of_model) is int and of_model < vocab_size and of_model != ids[role]:
            raise TilthError(
                f"the tokenizer in {folder} and the model do not belong together: the {role} token has the id "
                f"{ids[role]} in the tokenizer, and config.json says {role}_token_id {of_model}; restore the tokenizer "
                f"the model was trained with, or, if it is this one, correct {role}_token_id"
            )


def _fingerprint(folder: Path) -> str | None:
    """`TextTokenizer.fingerprint` of the tokenizer.json as it is written, None without one.

    Not of the tokenizer as it was read: a later version of `tokenizers` may write what it read in another form.
    """
    path = folder / "tokenizer.json"
    parts = read_json(path) if path.is_file() else None
    return fingerprint({name: parts.get(name) for name in PARTS_OF_IDS}) if isinstance(parts, dict) else None


def _special_ids(folder: Path, family: Family, tokenizer: TextTokenizer) -> dict[str, int]:
    """transformers' names of special tokens -> ids: as the folder names them, else as they are usually called."""
    usual = {theirs: getattr(tokenizer.special, ours) for theirs, ours in family.token_roles.items()}
    return {role: index for role, index in usual.items() if index is not None} | named_special_ids(
        folder, tokenizer.backend
    )
