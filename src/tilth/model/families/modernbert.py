"""ModernBERT (Warner et al. 2024): rotary positions, norms before, GeGLU, no biases, alternating attention.

Of three layers two attend to a band (Beltagy et al. 2020), and turn positions by another base than the global one.
"""

from collections.abc import Mapping
from typing import Any

from tilth.model.config import MOST_LAYERS, TrunkConfig
from tilth.model.families.family import Family, read_rope_theta
from tilth.model.names import linear, norm, same

_KINDS = {True: "full_attention", False: "sliding_attention"}
_THETAS = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}


def _size(layers: int, width: int, heads: int, mlp_width: int, **changes: Any) -> TrunkConfig:
    preset: dict[str, Any] = {
        "vocab_size": 50368,
        "max_length": 8192,
        "norm_eps": 1e-5,
        "windows": (None, 65, 65),
        "rope_thetas": (160_000.0, 10_000.0, 10_000.0),
    }
    return TrunkConfig(
        layers=layers,
        width=width,
        heads=heads,
        head_size=width // heads,
        mlp_width=mlp_width,
        attention="bidirectional",
        norm_placement="before",
        embedding_norm=True,
        activation="geglu",
        bias=False,
        qkv_bias=False,
        **(preset | changes),
    )


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    expected: dict[str, Any] = {
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
    }
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} is {config[name]!r:.40}, not {value!r}")
    is_classifier = "ModernBertForSequenceClassification" in (config.get("architectures") or ())
    if is_classifier and config.get("classifier_pooling", "cls") != "cls":
        raise ValueError(f"classifier_pooling is {config['classifier_pooling']!r:.40}, not 'cls'")
    layers = config["num_hidden_layers"]
    if not 0 < layers <= MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers!r:.40}, not a number from 1 to {MOST_LAYERS:,}")
    every = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [_KINDS[layer % every == 0] for layer in range(layers)]
    if len(kinds) != layers or not set(kinds) <= set(_THETAS):
        raise ValueError(f"layer_types is {kinds!r:.60}, not one of {', '.join(_THETAS)} for each layer")
    older = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
    by_kind = config.get("rope_parameters") or {}
    thetas = {
        kind: read_rope_theta(by_kind.get(kind) or {}, config.get(older[kind], usual))
        for kind, usual in _THETAS.items()
    }
    return _size(
        layers,
        config["hidden_size"],
        config["num_attention_heads"],
        config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_length=config.get("max_position_embeddings", 8192),
        norm_eps=config.get("norm_eps", 1e-5),
        # Theirs is a width to both sides together, the token itself left out.
        windows=tuple(None if kind == "full_attention" else config["local_attention"] // 2 + 1 for kind in kinds),
        rope_thetas=tuple(thetas[kind] for kind in kinds),
        tied=config.get("tie_word_embeddings", True),
    )


def _write_config(trunk: TrunkConfig) -> dict[str, Any]:
    windows = [trunk.window(layer) for layer in range(trunk.layers)]
    kinds = [_KINDS[window is None] for window in windows]
    thetas = _THETAS | {kind: trunk.rope_theta(layer) for layer, kind in enumerate(kinds)}
    return {
        "vocab_size": trunk.vocab_size,
        "hidden_size": trunk.width,
        "num_hidden_layers": trunk.layers,
        "num_attention_heads": trunk.heads,
        "intermediate_size": trunk.mlp_width,
        "hidden_activation": "gelu",
        "max_position_embeddings": trunk.max_length,
        "layer_types": kinds,
        "local_attention": 2 * (next((window for window in windows if window is not None), 65) - 1),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
        "norm_eps": trunk.norm_eps,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "classifier_bias": False,
        "classifier_activation": "gelu",
        "classifier_pooling": "cls",
        "initializer_range": 0.02,
        "tie_word_embeddings": trunk.tied,
        # Theirs are ids of the released vocabulary, unless another is given.
        "cls_token_id": None,
        "sep_token_id": None,
    }


MODERNBERT = Family(
    name="modernbert",
    model_type="modernbert",
    architectures={("masked",): "ModernBertForMaskedLM", ("classify",): "ModernBertForSequenceClassification"},
    sizes={
        "mini": _size(4, 256, 4, 640, windows=(None, 33, 33)),
        "base": _size(22, 768, 12, 1152),
        "large": _size(28, 1024, 16, 2624),
    },
    summary="first",
    classify_head="pooled_gelu_norm",
    names=(
        same("trunk.embeddings.tokens.weight", "model.embeddings.tok_embeddings.weight"),
        *norm("trunk.embeddings.norm", "model.embeddings.norm"),
        *linear("trunk.blocks.{i}.attention.qkv", "model.layers.{i}.attn.Wqkv"),
        *linear("trunk.blocks.{i}.attention.out", "model.layers.{i}.attn.Wo"),
        *norm("trunk.blocks.{i}.attention_norm", "model.layers.{i}.attn_norm"),
        *linear("trunk.blocks.{i}.mlp.up", "model.layers.{i}.mlp.Wi"),
        *linear("trunk.blocks.{i}.mlp.down", "model.layers.{i}.mlp.Wo"),
        *norm("trunk.blocks.{i}.mlp_norm", "model.layers.{i}.mlp_norm"),
        *norm("trunk.final_norm", "model.final_norm"),
        *linear("heads.masked.dense", "head.dense"),
        *norm("heads.masked.norm", "head.norm"),
        *linear("heads.masked", "decoder"),
        *linear("heads.classify.pooler", "head.dense"),
        *norm("heads.classify.norm", "head.norm"),
        *linear("heads.classify.out", "classifier"),
    ),
    prefix="model.",
    read_config=_read_config,
    write_config=_write_config,
    token_roles={"bos": "cls", "eos": "sep", "cls": "cls", "sep": "sep", "mask": "mask", "pad": "pad", "unk": "unk"},
    template="bert",
    residual_scale=True,
)
