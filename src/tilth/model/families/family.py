"""What a family is: data, not a model class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tilth.model.config import TrunkConfig
from tilth.model.names import NameMap

SpecialRole = Literal["pad", "unk", "cls", "sep", "mask", "eot"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A named choice of trunk options with its Hugging Face form.

    architectures: the heads a model has -> the transformers class that opens it.
    summary: which token of a text stands for the whole in classification.
    read_config and write_config translate the family's config.json; read_config raises ValueError for a variant that
    the trunk does not have.
    """

    name: str
    model_type: str
    architectures: Mapping[tuple[str, ...], str]
    sizes: Mapping[str, TrunkConfig]
    summary: Literal["first", "last"]
    classify_head: Literal["pooled", "pooled_gelu", "pooled_gelu_norm", "linear"]
    """See `tilth.model.heads.CLASSIFY_HEADS`."""
    names: NameMap
    prefix: str
    """What their class for the bare trunk leaves out of its parameters' names."""
    read_config: Callable[[Mapping[str, Any]], TrunkConfig]
    write_config: Callable[[TrunkConfig], dict[str, Any]]
    token_roles: Mapping[str, SpecialRole]
    """What their configuration calls the tokenizer's special tokens -> the roles they have in ours."""
    template: Literal["bert", "roberta"] | None = None
    """How a text is framed for the model (`TextTokenizer.with_template`)."""
    heads_fill_width: bool = False
    """Whether their form has no size of a head: all heads together are as wide as the model."""
    residual_scale: bool = False
    """Start the output projections of blocks smaller by 1/sqrt(2 layers), as GPT-2 does."""


def read_rope_theta(parameters: Mapping[str, Any], usual: float) -> float:
    """The base of rotary positions from transformers' `rope_parameters`.

    Raises: ValueError for positions that are stretched.
    """
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ValueError(f"its rotary positions are stretched ({kind!r:.40})")
    return parameters.get("rope_theta", usual)
