"""ELECTRA (Clark et al. 2020): BERT's trunk as a discriminator, trained beside a smaller generator."""

from collections.abc import Mapping
from typing import Any

from tilth.model.config import TrunkConfig
from tilth.model.families.bert import encoder, read_encoder_config, trunk_names, write_encoder_config
from tilth.model.families.family import Family
from tilth.model.names import linear, norm, same


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    narrow = config["embedding_size"] != config["hidden_size"]
    return read_encoder_config(
        config,
        embedding_width=config["embedding_size"] if narrow else 0,
        generator_size=config.get("generator_size", 0.0),
    )


def _write_config(trunk: TrunkConfig) -> dict[str, Any]:
    config = write_encoder_config(trunk) | {"embedding_size": trunk.table_width}
    # Not a setting of theirs: which generator lies beside it.
    return config | ({"generator_size": trunk.generator_size} if trunk.generator_size else {})


ELECTRA = Family(
    name="electra",
    model_type="electra",
    architectures={
        ("replaced_token",): "ElectraForPreTraining",
        ("masked",): "ElectraForMaskedLM",
        ("classify",): "ElectraForSequenceClassification",
    },
    sizes={
        "mini": encoder(4, 256, 4, generator_size=1 / 4),
        "small": encoder(12, 256, 4, embedding_width=128, generator_size=1 / 4),
        "base": encoder(12, 768, 12, generator_size=1 / 3),
        "large": encoder(24, 1024, 16, generator_size=1 / 4),
    },
    summary="first",
    classify_head="pooled_gelu",
    names=(
        *trunk_names("electra"),
        *linear("trunk.projection", "electra.embeddings_project"),
        *linear("heads.replaced_token.dense", "discriminator_predictions.dense"),
        *linear("heads.replaced_token.out", "discriminator_predictions.dense_prediction"),
        *linear("heads.masked.dense", "generator_predictions.dense"),
        *norm("heads.masked.norm", "generator_predictions.LayerNorm"),
        same("heads.masked.bias", "generator_lm_head.bias"),
        *linear("heads.classify.pooler", "classifier.dense"),
        *linear("heads.classify.out", "classifier.out_proj"),
    ),
    prefix="electra.",
    read_config=_read_config,
    write_config=_write_config,
    token_roles={"cls": "cls", "sep": "sep", "mask": "mask", "pad": "pad", "unk": "unk"},
    template="bert",
)
