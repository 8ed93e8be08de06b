"""GPT-2 (Radford et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from tilth.model.config import TrunkConfig
from tilth.model.families.family import Family, SpecialRole
from tilth.model.names import NameMap, norm, same, transposed


def decoder(layers: int, width: int, heads: int, head_size: int | None = None, **changes: Any) -> TrunkConfig:
    """A causal pre-norm trunk in GPT-2's proportions."""
    preset: dict[str, Any] = {"vocab_size": 50257, "max_length": 1024, "norm_eps": 1e-5, "mlp_width": 4 * width}
    return TrunkConfig(
        layers=layers,
        width=width,
        heads=heads,
        head_size=head_size or width // heads,
        attention="causal",
        norm_placement="before",
        activation="gelu_tanh",
        **(preset | changes),
    )


SHARED_NAMES: NameMap = (
    same("trunk.embeddings.tokens.weight", "transformer.wte.weight"),
    same("trunk.embeddings.positions.weight", "transformer.wpe.weight"),
    *norm("trunk.blocks.{i}.attention_norm", "transformer.h.{i}.ln_1"),
    *norm("trunk.blocks.{i}.mlp_norm", "transformer.h.{i}.ln_2"),
    *norm("trunk.final_norm", "transformer.ln_f"),
    same("heads.classify.out.weight", "score.weight"),
)
"""Where GPT-2's and GPT-Neo's folders agree."""


TOKEN_ROLES: dict[str, SpecialRole] = {"bos": "eot", "eos": "eot", "pad": "pad", "unk": "unk"}
"""One end-of-text token opens and closes a document."""


def check_decoder_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError for variants of GPT-2 and GPT-Neo that the trunk does not have."""
    activation = config.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ValueError(f"activation_function {activation!r} is not gelu_new")
    if not config.get("tie_word_embeddings", True):
        raise ValueError("its output weights are not tied to its token embeddings")
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise ValueError("it scales attention in another way")


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    check_decoder_config(config)
    return decoder(
        config["n_layer"],
        config["n_embd"],
        config["n_head"],
        vocab_size=config["vocab_size"],
        max_length=config.get("n_positions", 1024),
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        mlp_width=config.get("n_inner") or 4 * config["n_embd"],
    )


def _write_config(trunk: TrunkConfig) -> dict[str, Any]:
    return {
        "vocab_size": trunk.vocab_size,
        "n_embd": trunk.width,
        "n_layer": trunk.layers,
        "n_head": trunk.heads,
        "n_inner": trunk.mlp_width,
        "n_positions": trunk.max_length,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": trunk.norm_eps,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    }


GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    architectures={("causal",): "GPT2LMHeadModel", ("classify",): "GPT2ForSequenceClassification"},
    sizes={
        "mini": decoder(4, 256, 4),
        "124m": decoder(12, 768, 12),
        "355m": decoder(24, 1024, 16),
        "774m": decoder(36, 1280, 20),
        "1.5b": decoder(48, 1600, 25),
    },
    summary="last",
    classify_head="linear",
    names=(
        *SHARED_NAMES,
        *transposed("trunk.blocks.{i}.attention.qkv", "transformer.h.{i}.attn.c_attn"),
        *transposed("trunk.blocks.{i}.attention.out", "transformer.h.{i}.attn.c_proj"),
        *transposed("trunk.blocks.{i}.mlp.up", "transformer.h.{i}.mlp.c_fc"),
        *transposed("trunk.blocks.{i}.mlp.down", "transformer.h.{i}.mlp.c_proj"),
    ),
    prefix="transformer.",
    read_config=_read_config,
    token_roles=TOKEN_ROLES,
    write_config=_write_config,
    residual_scale=True,
)
