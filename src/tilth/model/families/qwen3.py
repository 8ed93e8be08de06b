"""Qwen3 (Yang et al. 2025): rotary positions, RMSNorm, SwiGLU, grouped heads, QK-norm, no biases."""

from collections.abc import Mapping
from typing import Any

import torch

from tilth.model.config import TrunkConfig
from tilth.model.families.family import Family, read_rope_theta
from tilth.model.families.gpt2 import TOKEN_ROLES
from tilth.model.names import Name, linear, norm, same


def _size(
    layers: int, width: int, heads: int, kv_heads: int, mlp_width: int, head_size: int = 128, **changes: Any
) -> TrunkConfig:
    preset: dict[str, Any] = {
        "vocab_size": 151936,
        "max_length": 40960,
        "norm_eps": 1e-6,
        "rope_thetas": (1_000_000.0,),
    }
    return TrunkConfig(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=mlp_width,
        attention="causal",
        norm_placement="before",
        norm="rms",
        qk_norm=True,
        activation="swiglu",
        bias=False,
        qkv_bias=False,
        **(preset | changes),
    )


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {config['hidden_act']!r:.40} is not silu")
    if config.get("attention_bias"):
        raise ValueError("its queries, keys and values have biases")
    if config.get("use_sliding_window") or set(config.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError("some of its layers attend to a window")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return _size(
        config["num_hidden_layers"],
        config["hidden_size"],
        config["num_attention_heads"],
        config.get("num_key_value_heads") or config["num_attention_heads"],
        config["intermediate_size"],
        config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        vocab_size=config["vocab_size"],
        max_length=config.get("max_position_embeddings", 32768),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_thetas=(read_rope_theta(rope, config.get("rope_theta", 10_000.0)),),
        tied=config.get("tie_word_embeddings", False),
    )


def _write_config(trunk: TrunkConfig) -> dict[str, Any]:
    theta = trunk.rope_theta(0)
    return {
        "vocab_size": trunk.vocab_size,
        "hidden_size": trunk.width,
        "num_hidden_layers": trunk.layers,
        "num_attention_heads": trunk.heads,
        "num_key_value_heads": trunk.num_kv_heads,
        "head_dim": trunk.head_size,
        "intermediate_size": trunk.mlp_width,
        "hidden_act": "silu",
        "max_position_embeddings": trunk.max_length,
        "rms_norm_eps": trunk.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rope_theta": theta,  # for programs that read configurations of transformers before version 5
        "attention_bias": False,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": trunk.tied,
    }


QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    architectures={("causal",): "Qwen3ForCausalLM", ("classify",): "Qwen3ForSequenceClassification"},
    sizes={
        "mini": _size(4, 256, 4, 2, 640, head_size=64),
        "0.6b": _size(28, 1024, 16, 8, 3072),
        "1.7b": _size(28, 2048, 16, 8, 6144),
        "4b": _size(36, 2560, 32, 8, 9728),
        "8b": _size(36, 4096, 32, 8, 12288, tied=False),
        "14b": _size(40, 5120, 40, 8, 17408, tied=False),
        "32b": _size(64, 5120, 64, 8, 25600, tied=False),
    },
    summary="last",
    classify_head="linear",
    names=(
        same("trunk.embeddings.tokens.weight", "model.embed_tokens.weight"),
        Name(
            "trunk.blocks.{i}.attention.qkv.weight",
            tuple(f"model.layers.{{i}}.self_attn.{part}_proj.weight" for part in "qkv"),
            to_theirs=lambda qkv, config: qkv.split(
                [config.head_size * heads for heads in (config.heads, config.num_kv_heads, config.num_kv_heads)]
            ),
            to_ours=lambda parts, config: torch.cat(parts),
        ),
        same("trunk.blocks.{i}.attention.query_norm.weight", "model.layers.{i}.self_attn.q_norm.weight"),
        same("trunk.blocks.{i}.attention.key_norm.weight", "model.layers.{i}.self_attn.k_norm.weight"),
        *linear("trunk.blocks.{i}.attention.out", "model.layers.{i}.self_attn.o_proj"),
        *norm("trunk.blocks.{i}.attention_norm", "model.layers.{i}.input_layernorm"),
        Name(
            "trunk.blocks.{i}.mlp.up.weight",
            ("model.layers.{i}.mlp.gate_proj.weight", "model.layers.{i}.mlp.up_proj.weight"),
        ),
        *linear("trunk.blocks.{i}.mlp.down", "model.layers.{i}.mlp.down_proj"),
        *norm("trunk.blocks.{i}.mlp_norm", "model.layers.{i}.post_attention_layernorm"),
        *norm("trunk.final_norm", "model.norm"),
        same("heads.causal.weight", "lm_head.weight"),
        same("heads.classify.out.weight", "score.weight"),
    ),
    prefix="model.",
    read_config=_read_config,
    write_config=_write_config,
    token_roles=TOKEN_ROLES,
)
