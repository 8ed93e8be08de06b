"""A model as a Hugging Face folder: config.json, model.safetensors, tokenizer.json, README.md."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tilth.errors import TilthError, UsageError, import_extra
from tilth.files import read_json, reason, whole_folder, write_json
from tilth.model.belonging import RECORD, check_tokenizer, tokenizer_record
from tilth.model.families import FAMILIES, Family
from tilth.model.model import Model
from tilth.model.names import to_ours, to_theirs
from tilth.model.trunk import SharedEmbeddings
from tilth.tokens.tokenizer import TextTokenizer, load_tokenizer

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")

GENERATOR = "generator"
"""In the folder of a model that learnt from replaced tokens: the generator's, a whole model folder of its own."""
TRAINING = "training.json"
"""In a model folder: which step of its run the weights are of."""


def save_model(
    model: Model, tokenizer: TextTokenizer, folder: Path, card: str | None = None, step: int | None = None
) -> None:
    """Write the model under its native architecture name, float32, with its tokenizer. The folder is whole or absent.

    The generator of replaced-token detection goes to a model folder within, `generator`.

    card: README.md, in Markdown with the hub's metadata. step: of the run it is from, for `saved_step`.
    Raises: TilthError when the native architecture cannot hold the model, or it cannot be written.
    """
    family, heads = model.family, tuple(model.heads)
    kept = ("classify",) if "classify" in heads else heads
    architecture = family.architectures.get(kept)
    if architecture is None:
        raise TilthError(f"no {family.name} architecture of transformers holds the heads {', '.join(heads)}")
    try:
        config = family.write_config(model.config)
    except ValueError as error:
        raise TilthError(f"cannot write {folder} for transformers: {error}") from None
    state = {name: tensor for name, tensor in _whole_state(model).items() if _is_kept(name, kept)}
    tensors = to_theirs(state, family.names, model.config)
    config |= {"architectures": [architecture], "model_type": family.model_type, "dtype": "float32"}
    special_ids = _special_ids(family, tokenizer)
    config |= {f"{name}_token_id": special_ids[name] for name in ("pad", "bos", "eos") if name in special_ids}
    offset = model.config.position_offset
    if offset and special_ids.get("pad", offset - 1) != offset - 1:
        raise TilthError(
            f"cannot write {folder} for transformers: positions start at {offset}, and it would start them at "
            f"{special_ids['pad'] + 1}, after the tokenizer's padding id; use the tokenizer the model was trained with"
        )
    if "classify" in kept:
        config["id2label"] = {str(index): label for index, label in enumerate(model.labels)}
        config["label2id"] = {label: index for index, label in enumerate(model.labels)}
        config["problem_type"] = "single_label_classification"
    try:
        with whole_folder(Path(folder)) as aside:
            _save_tokenizer(model, tokenizer, special_ids, aside)
            write_json(aside / "config.json", config | {RECORD: tokenizer_record(aside)})
            save_file(
                {name: tensor.detach().float().cpu() for name, tensor in tensors.items()},
                aside / "model.safetensors",
                metadata={"format": "pt"},
            )
            if model.generator is not None and "replaced_token" in kept:
                save_model(model.generator, tokenizer, aside / GENERATOR)
            if step is not None:  # not in the weights' metadata, which safetensors writes in any order
                write_json(aside / TRAINING, {"step": step})
            if "causal" in kept:
                ids = {name: config[name] for name in ("bos_token_id", "eos_token_id") if name in config}
                write_json(aside / "generation_config.json", ids)
            if card is not None:
                (aside / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise TilthError(
            f"cannot write the model {folder}: {reason(error, Path(folder))}; free some space or mend the folder, and "
            "run the command again (a pre-training with --resume); what was there before is as it was"
        ) from None


def saved_step(folder: Path) -> int | None:
    """The step that `save_model` was given; None without one."""
    return read_json(folder / TRAINING)["step"] if (folder / TRAINING).exists() else None


def load_model(source: str | Path) -> tuple[Model, TextTokenizer]:
    """Open a model folder (ours, or anyone's of a known architecture) or a name on the Hugging Face hub.

    Weights are read from safetensors only; nothing is unpickled and no remote code runs. A head that Tilth does not
    have, such as one that gives a text several labels or a number, is left out.
    Raises: UsageError when it is not there, TilthError when it is incomplete, is of an unknown architecture, or does
    not fit its tokenizer.
    """
    folder = _local_folder(source)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise TilthError(f"{folder / 'config.json'} holds no settings; download or save the model again")
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    family, heads = _find_family(folder, architecture, config.get("model_type"))
    try:
        trunk_config = family.read_config(config)
    except KeyError as error:
        raise TilthError(f"{folder / 'config.json'} lacks {error}; download or save the model again") from None
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise TilthError(f"{folder / 'config.json'} is damaged ({error}); download or save the model again") from None
    except ValueError as error:
        raise TilthError(f"{folder} is a variant of {family.name} that Tilth does not have: {error}") from None
    try:
        labels = _labels(config) if "classify" in heads else []
        if len(labels) < 2 or config.get("problem_type") not in (None, "single_label_classification"):
            heads, labels = tuple(name for name in heads if name != "classify"), []
    except ValueError as error:
        raise TilthError(f"{folder / 'config.json'} is damaged: {error}; download or save the model again") from None
    if trunk_config.generator_size and not (folder / GENERATOR).is_dir():
        trunk_config = replace(trunk_config, generator_size=0.0)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(folder, config, family, tokenizer, trunk_config.vocab_size)
    with torch.device("meta"):
        model = Model(family, trunk_config, heads, labels)
    weights = _prefixed(_read_weights(folder), family)
    layered = {name for each in family.names for name in each.theirs if "{i}" in name}
    if any(name.format(i=trunk_config.layers) in weights for name in layered):
        raise TilthError(
            f"the weights in {folder} do not fit its config.json: more than {trunk_config.layers} layers have some"
        )
    state = to_ours(weights, family.names, trunk_config)
    if model.generator is not None:
        generator, _ = load_model(folder / GENERATOR)
        state |= {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    misshapen = sorted(name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape)
    if missing or misshapen:
        raise TilthError(
            f"the weights in {folder} do not fit its config.json: "
            + "; ".join(
                f"{what} {', '.join(names[:5])}"
                for what, names in (("missing", missing), ("wrong shape of", misshapen))
                if names
            )
        )
    model.load_state_dict({name: state[name].float() for name in expected}, assign=True)
    if "classify" in heads:
        model.reads = _saved_limit(folder, trunk_config.max_length)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval(), tokenizer


def _saved_limit(folder: Path, most: int) -> int:
    """Tokens of a text that a classifier was trained to read; transformers keeps the number with the tokenizer."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else None
    limit = settings.get("model_max_length") if isinstance(settings, dict) else None
    return min(limit, most) if isinstance(limit, int) and limit > 0 else most


def _labels(config: dict[str, Any]) -> list[str]:
    """Names of the classes; transformers leaves its default of two out of the file."""
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
        raise ValueError("id2label does not name the classes 0, 1, 2, ...")
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError("id2label holds a name that is no text")
    if len(set(names.values())) < len(names):
        raise ValueError("id2label gives two classes one name")
    return [names[str(index)] for index in range(len(names))]


def _whole_state(model: Model) -> dict[str, Tensor]:
    """The state, with the embeddings that are another model's."""
    embeddings = model.trunk.embeddings
    shared = embeddings.shared_state() if isinstance(embeddings, SharedEmbeddings) else {}
    return model.state_dict() | {f"trunk.embeddings.{name}": tensor for name, tensor in shared.items()}


def _is_kept(name: str, heads: tuple[str, ...]) -> bool:
    return not name.startswith("heads.") or name.split(".")[1] in heads


def _special_ids(family: Family, tokenizer: TextTokenizer) -> dict[str, int]:
    """Their names (pad, bos, ...) -> ids. A tokenizer without padding pads with its end-of-text token."""
    ids = {theirs: getattr(tokenizer.special, ours) for theirs, ours in family.token_roles.items()}
    if ids["pad"] is None:
        ids["pad"] = tokenizer.special.eot
    return {name: index for name, index in ids.items() if index is not None}


def _save_tokenizer(model: Model, tokenizer: TextTokenizer, ids: dict[str, int], folder: Path) -> None:
    tokenizer.with_template(model.family.template).save(folder / "tokenizer.json")
    names = {f"{role}_token": tokenizer.backend.id_to_token(index) for role, index in ids.items()}
    has_types = model.config.token_types > 1
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.reads,
        "model_input_names": ["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **names,
    }
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", names)


def _local_folder(source: str | Path) -> Path:
    folder = Path(source)
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        if (folder / "model" / "config.json").is_file():
            return folder / "model"
        raise TilthError(f"{folder} is not a model folder: it has no config.json")
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise UsageError(f"no model folder at {source}")
    try:
        hub = import_extra("huggingface_hub", "hub")
    except TilthError as error:
        raise UsageError(f"no model folder at {source}; to look for it on the Hugging Face hub: {error}") from None
    try:
        return Path(hub.snapshot_download(str(source), allow_patterns=list(HUB_FILES)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{source} is neither a model folder here nor to be had from the Hugging Face hub: {reason}"
        ) from None


def _find_family(folder: Path, architecture: str | None, model_type: str | None) -> tuple[Family, tuple[str, ...]]:
    for family in FAMILIES.values():
        for heads, name in family.architectures.items():
            if name == architecture:
                return family, heads
    for family in FAMILIES.values():
        if family.model_type == model_type:
            return family, ()
    known = sorted(name for family in FAMILIES.values() for name in family.architectures.values())
    raise TilthError(
        f"{folder} holds a {architecture or model_type or 'model without a name'}; Tilth opens {', '.join(known)}"
    )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index_path = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index_path.is_file():
        index = read_json(index_path)
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise TilthError(f"{index_path} does not say which file holds which weight; download the model again")
        names = set(weight_map.values())
    tensors: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name or "\0" in name:
            raise TilthError(f"{index_path} names a file outside its folder: {name}")
        try:
            tensors |= load_file(folder / name)
        except FileNotFoundError:
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            hint = f" ({pickled[0]} is a pickle, which Tilth never opens: convert it to safetensors)" if pickled else ""
            raise TilthError(f"{folder} has no {name}{hint}") from None
        except (SafetensorError, json.JSONDecodeError, OSError) as error:
            raise TilthError(f"{folder / name} is damaged: {error}; restore it or save the model again") from None
    return tensors


def _prefixed(state: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Names as transformers writes them today: TensorFlow-era norm names mended, a bare trunk's prefix added."""
    state = {
        re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): tensor for name, tensor in state.items()
    }
    if any(name.startswith(family.prefix) for name in state):
        return state
    return {f"{family.prefix}{name}": tensor for name, tensor in state.items()}
