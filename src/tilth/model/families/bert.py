"""BERT (Devlin et al. 2019) and its small sizes (Turc et al. 2019, "Well-Read Students Learn Better")."""

from collections.abc import Mapping
from typing import Any

from tilth.model.config import TrunkConfig
from tilth.model.families.family import Family
from tilth.model.names import Name, NameMap, linear, norm, same


def encoder(layers: int, width: int, heads: int, **changes: Any) -> TrunkConfig:
    """A bidirectional post-norm trunk in BERT's proportions."""
    preset: dict[str, Any] = {
        "vocab_size": 30522,
        "max_length": 512,
        "token_types": 2,
        "norm_eps": 1e-12,
        "mlp_width": 4 * width,
    }
    return TrunkConfig(
        layers=layers,
        width=width,
        heads=heads,
        head_size=width // heads,
        attention="bidirectional",
        norm_placement="after",
        activation="gelu",
        **(preset | changes),
    )


def trunk_names(prefix: str) -> NameMap:
    """Where BERT's and RoBERTa's folders keep the trunk."""
    layer, attention = f"{prefix}.encoder.layer.{{i}}", f"{prefix}.encoder.layer.{{i}}.attention"
    return (
        same("trunk.embeddings.tokens.weight", f"{prefix}.embeddings.word_embeddings.weight"),
        same("trunk.embeddings.positions.weight", f"{prefix}.embeddings.position_embeddings.weight"),
        same("trunk.embeddings.token_types.weight", f"{prefix}.embeddings.token_type_embeddings.weight"),
        *norm("trunk.embeddings.norm", f"{prefix}.embeddings.LayerNorm"),
        *(
            Name(
                f"trunk.blocks.{{i}}.attention.qkv.{kind}",
                tuple(f"{attention}.self.{part}.{kind}" for part in ("query", "key", "value")),
            )
            for kind in ("weight", "bias")
        ),
        *linear("trunk.blocks.{i}.attention.out", f"{attention}.output.dense"),
        *norm("trunk.blocks.{i}.attention_norm", f"{attention}.output.LayerNorm"),
        *linear("trunk.blocks.{i}.mlp.up", f"{layer}.intermediate.dense"),
        *linear("trunk.blocks.{i}.mlp.down", f"{layer}.output.dense"),
        *norm("trunk.blocks.{i}.mlp_norm", f"{layer}.output.LayerNorm"),
    )


def read_encoder_config(config: Mapping[str, Any], **changes: Any) -> TrunkConfig:
    """BERT's and RoBERTa's config.json as a trunk."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hidden_act {config['hidden_act']!r} is not gelu")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise ValueError("it is a decoder")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type {config['position_embedding_type']!r} is not absolute")
    if not config.get("tie_word_embeddings", True):
        raise ValueError("its output weights are not tied to its token embeddings")
    values: dict[str, Any] = {
        "vocab_size": config["vocab_size"],
        "max_length": config.get("max_position_embeddings", 512),
        "token_types": config.get("type_vocab_size", 2),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "mlp_width": config["intermediate_size"],
    }
    return encoder(
        config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"], **(values | changes)
    )


def write_encoder_config(trunk: TrunkConfig) -> dict[str, Any]:
    """The fields of config.json that BERT and RoBERTa share."""
    return {
        "vocab_size": trunk.vocab_size,
        "hidden_size": trunk.width,
        "num_hidden_layers": trunk.layers,
        "num_attention_heads": trunk.heads,
        "intermediate_size": trunk.mlp_width,
        "hidden_act": "gelu",
        "max_position_embeddings": trunk.max_length + trunk.position_offset,
        "type_vocab_size": trunk.token_types,
        "layer_norm_eps": trunk.norm_eps,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    }


BERT = Family(
    name="bert",
    model_type="bert",
    architectures={
        ("masked", "next_sentence"): "BertForPreTraining",
        ("masked",): "BertForMaskedLM",
        ("classify",): "BertForSequenceClassification",
    },
    sizes={
        "tiny": encoder(2, 128, 2),
        "mini": encoder(4, 256, 4),
        "small": encoder(4, 512, 8),
        "medium": encoder(8, 512, 8),
        "base": encoder(12, 768, 12),
        "large": encoder(24, 1024, 16),
    },
    summary="first",
    classify_head="pooled",
    names=(
        *trunk_names("bert"),
        *linear("heads.masked.dense", "cls.predictions.transform.dense"),
        *norm("heads.masked.norm", "cls.predictions.transform.LayerNorm"),
        same("heads.masked.bias", "cls.predictions.bias"),
        *linear("heads.next_sentence.pooler", "bert.pooler.dense"),
        *linear("heads.next_sentence.out", "cls.seq_relationship"),
        *linear("heads.classify.pooler", "bert.pooler.dense"),
        *linear("heads.classify.out", "classifier"),
    ),
    prefix="bert.",
    read_config=read_encoder_config,
    token_roles={"cls": "cls", "sep": "sep", "mask": "mask", "pad": "pad", "unk": "unk"},
    template="bert",
    write_config=write_encoder_config,
)
