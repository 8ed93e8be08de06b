"""Reading tokenizers: ours, and those of other people's Hugging Face folders."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tilth.errors import TilthError, UsageError
from tilth.files import read_json
from tilth.tokens.text import SpecialTokens, TextTokenizer

# Role -> the key that Hugging Face folders name it by, and the names it goes by where nothing names it.
_ROLES = {
    "pad": ("pad_token", ("[PAD]", "<pad>")),
    "unk": ("unk_token", ("[UNK]", "<unk>")),
    "cls": ("cls_token", ("[CLS]", "<s>")),
    "sep": ("sep_token", ("[SEP]", "</s>")),
    "mask": ("mask_token", ("[MASK]", "<mask>")),
    "eot": ("eos_token", ("<|endoftext|>", "</s>")),
}


def load_tokenizer(path: Path | str) -> TextTokenizer:
    """Read a tokenizer.json, or a folder that holds one, or one of vocab.txt, or of vocab.json and merges.txt.

    Raises: UsageError when the path is not there, TilthError when the folder holds none, when it is broken, or when it
    is of a kind that cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return _wrap(_read_fast(path), {}, path)
    if not path.is_dir():
        raise UsageError(f"no tokenizer at {path}: give a tokenizer.json or a folder that holds one")
    config = _folder_config(path)
    if (path / "tokenizer.json").is_file():
        return _wrap(_read_fast(path / "tokenizer.json"), config, path)
    if (path / "vocab.txt").is_file():
        return _wrap(_read_wordpiece(path / "vocab.txt", config), config, path)
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return _wrap(_read_byte_bpe(path, config), config, path)
    raise TilthError(
        f"{path} holds no tokenizer that Tilth reads (tokenizer.json, vocab.txt, or vocab.json with merges.txt);"
        " for a SentencePiece one, save it again with transformers' AutoTokenizer, which writes tokenizer.json"
    )


def special_tokens(backend: Tokenizer, config: dict[str, Any] | None = None) -> SpecialTokens:
    """The roles of a tokenizer's special tokens, from a Hugging Face configuration, else from well-known names.

    <|endoftext|> ends a document wherever it exists, whatever the configuration calls the end of a sentence.
    """
    config = config or {}
    roles: dict[str, int | None] = {}
    for role, (key, names) in _ROLES.items():
        named = _content(config.get(key))
        candidates = ("<|endoftext|>", named) if role == "eot" else (named,)
        ids = [backend.token_to_id(name) for name in (*candidates, *names) if name]
        roles[role] = next((index for index in ids if index is not None), None)
    return SpecialTokens(**roles)


def named_special_ids(folder: Path, backend: Tokenizer) -> dict[str, int]:
    """Ids of the special tokens that a Hugging Face folder's configuration names: pad, bos, eos, unk, ... -> id."""
    config = _folder_config(folder)
    named = {key.removesuffix("_token"): _content(value) for key, value in config.items() if key.endswith("_token")}
    ids = {role: backend.token_to_id(name) for role, name in named.items() if name}
    return {role: index for role, index in ids.items() if index is not None}


def _wrap(backend: Tokenizer, config: dict[str, Any], path: Path) -> TextTokenizer:
    if backend.get_vocab_size() == 0:
        raise TilthError(f"the tokenizer in {path} has an empty vocabulary")
    return TextTokenizer(backend, special_tokens(backend, config))


def _folder_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name)
            if not isinstance(value, dict):
                raise TilthError(f"{folder / name} is not a JSON object; restore it")
            config |= {key: item for key, item in value.items() if item is not None}
    return config


def _content(value: Any) -> str | None:
    """A token's text: Hugging Face writes it plain, or as an object with its stripping rules."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _read_fast(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise TilthError(f"{path} is not a tokenizer.json that `tokenizers` can read ({error})") from None


def _read_wordpiece(path: Path, config: dict[str, Any]) -> Tokenizer:
    try:
        tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TilthError(f"cannot read the vocabulary {path}: {error}") from None
    vocab = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
    unk = _content(config.get("unk_token")) or "[UNK]"
    if unk not in vocab:
        raise TilthError(f"{path} has no {unk}: it is not a WordPiece vocabulary")
    backend = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return _with_special_tokens(backend, config)


def _read_byte_bpe(folder: Path, config: dict[str, Any]) -> Tokenizer:
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise TilthError(f"cannot read vocab.json and merges.txt in {folder}: {error}") from None
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space", False))
    backend.decoder = decoders.ByteLevel()
    return _with_special_tokens(backend, config)


def _with_special_tokens(backend: Tokenizer, config: dict[str, Any]) -> Tokenizer:
    """Mark the vocabulary's special tokens as such, in the order of their ids."""
    names = {name for key, known in _ROLES.values() for name in (_content(config.get(key)), *known) if name}
    present = sorted((index, name) for name in names if (index := backend.token_to_id(name)) is not None)
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for _, name in present])
    return backend
