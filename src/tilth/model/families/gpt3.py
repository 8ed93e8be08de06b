"""GPT-3 (Brown et al. 2020, table 2.1): GPT-2 with alternating dense and locally banded attention.

It opens in transformers as GPT-Neo, which has the same trunk but for two things: queries, keys and values have no
biases, and scores are not divided by the square root of the head size, so that scale is folded into the query weights
on the way out.
The paper does not give the band; 256 tokens is GPT-Neo's.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tilth.model.config import TrunkConfig
from tilth.model.families.family import Family
from tilth.model.families.gpt2 import SHARED_NAMES, TOKEN_ROLES, check_decoder_config, decoder
from tilth.model.names import Name, linear


def _size(layers: int, width: int, heads: int, head_size: int, window: int = 256, **changes: Any) -> TrunkConfig:
    preset: dict[str, Any] = {"max_length": 2048, "qkv_bias": False, "windows": (None, window)}
    return decoder(layers, width, heads, head_size, **(preset | changes))


def _qkv_to_theirs(qkv: Tensor, config: TrunkConfig) -> tuple[Tensor, ...]:
    query, key, value = qkv.chunk(3)
    return query * config.head_size**-0.5, key, value


def _qkv_to_ours(parts: tuple[Tensor, ...], config: TrunkConfig) -> Tensor:
    query, key, value = parts
    return torch.cat([query * config.head_size**0.5, key, value])


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    check_decoder_config(config)
    kinds = []
    for pattern, times in config["attention_types"]:
        if type(times) is not int or not 0 <= times * len(pattern) <= config["num_layers"]:
            raise ValueError(f"attention_types repeats {pattern!r:.40} {times!r:.40} times")
        kinds += pattern * times
    window = config.get("window_size", 256)
    return _size(
        config["num_layers"],
        config["hidden_size"],
        config["num_heads"],
        config["hidden_size"] // config["num_heads"],
        vocab_size=config["vocab_size"],
        max_length=config.get("max_position_embeddings", 2048),
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        mlp_width=config.get("intermediate_size") or 4 * config["hidden_size"],
        windows=tuple(window if kind == "local" else None for kind in kinds),
    )


def _write_config(trunk: TrunkConfig) -> dict[str, Any]:
    if trunk.heads * trunk.head_size != trunk.width:
        raise ValueError(
            f"GPT-Neo needs heads x head size = width, and this size has {trunk.heads} x {trunk.head_size} for a width "
            f"of {trunk.width} (as in the paper's table for 1.3B and 13B); change one of them, such as to "
            "model.heads=16 for 1.3b and to model.width=5120 for 13b"
        )
    windows = [trunk.window(layer) for layer in range(trunk.layers)]
    kinds = ["global" if window is None else "local" for window in windows]
    return {
        "vocab_size": trunk.vocab_size,
        "hidden_size": trunk.width,
        "num_layers": trunk.layers,
        "num_heads": trunk.heads,
        "intermediate_size": trunk.mlp_width,
        "max_position_embeddings": trunk.max_length,
        "attention_types": [[[kind], 1] for kind in kinds],
        "attention_layers": kinds,
        "window_size": next((window for window in windows if window is not None), 256),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": trunk.norm_eps,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    }


GPT3 = Family(
    name="gpt3",
    model_type="gpt_neo",
    architectures={("causal",): "GPTNeoForCausalLM", ("classify",): "GPTNeoForSequenceClassification"},
    sizes={
        "mini": _size(4, 256, 4, 64, window=64),
        "125m": _size(12, 768, 12, 64),
        "350m": _size(24, 1024, 16, 64),
        "760m": _size(24, 1536, 16, 96),
        "1.3b": _size(24, 2048, 24, 128),
        "2.7b": _size(32, 2560, 32, 80),
        "6.7b": _size(32, 4096, 32, 128),
        "13b": _size(40, 5140, 40, 128),
        "175b": _size(96, 12288, 96, 128),
    },
    summary="last",
    classify_head="linear",
    names=(
        *SHARED_NAMES,
        Name(
            "trunk.blocks.{i}.attention.qkv.weight",
            tuple(f"transformer.h.{{i}}.attn.attention.{part}_proj.weight" for part in "qkv"),
            to_theirs=_qkv_to_theirs,
            to_ours=_qkv_to_ours,
        ),
        *linear("trunk.blocks.{i}.attention.out", "transformer.h.{i}.attn.attention.out_proj"),
        *linear("trunk.blocks.{i}.mlp.up", "transformer.h.{i}.mlp.c_fc"),
        *linear("trunk.blocks.{i}.mlp.down", "transformer.h.{i}.mlp.c_proj"),
    ),
    prefix="transformer.",
    read_config=_read_config,
    token_roles=TOKEN_ROLES,
    write_config=_write_config,
    heads_fill_width=True,
    residual_scale=True,
)
