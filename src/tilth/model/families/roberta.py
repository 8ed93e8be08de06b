"""RoBERTa (Liu et al. 2019): BERT's trunk, byte-level BPE, one token type, no next-sentence prediction."""

from collections.abc import Mapping
from typing import Any

from tilth.model.config import TrunkConfig
from tilth.model.families.bert import encoder, read_encoder_config, trunk_names, write_encoder_config
from tilth.model.families.family import Family
from tilth.model.names import linear, norm, same

# Positions count from the padding id (1 in its vocabulary) plus one.
_PRESET = {"vocab_size": 50265, "token_types": 1, "norm_eps": 1e-5, "position_offset": 2}


def _read_config(config: Mapping[str, Any]) -> TrunkConfig:
    offset = config.get("pad_token_id", 1) + 1
    return read_encoder_config(
        config, max_length=config.get("max_position_embeddings", 514) - offset, position_offset=offset
    )


ROBERTA = Family(
    name="roberta",
    model_type="roberta",
    architectures={("masked",): "RobertaForMaskedLM", ("classify",): "RobertaForSequenceClassification"},
    sizes={
        "mini": encoder(4, 256, 4, **_PRESET),
        "base": encoder(12, 768, 12, **_PRESET),
        "large": encoder(24, 1024, 16, **_PRESET),
    },
    summary="first",
    classify_head="pooled",
    names=(
        *trunk_names("roberta"),
        *linear("heads.masked.dense", "lm_head.dense"),
        *norm("heads.masked.norm", "lm_head.layer_norm"),
        same("heads.masked.bias", "lm_head.bias"),
        *linear("heads.classify.pooler", "classifier.dense"),
        *linear("heads.classify.out", "classifier.out_proj"),
    ),
    prefix="roberta.",
    read_config=_read_config,
    token_roles={"bos": "cls", "eos": "sep", "cls": "cls", "sep": "sep", "mask": "mask", "pad": "pad", "unk": "unk"},
    template="roberta",
    write_config=write_encoder_config,
)
