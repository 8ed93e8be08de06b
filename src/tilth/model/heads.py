"""Small layers on a trunk: from vectors of chosen tokens (N, D) to logits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilth.model.config import TrunkConfig
from tilth.model.layers import Linear, dropout, make_norm


class VocabularyHead(nn.Module):
    """Base of the heads that score every entry of the vocabulary: with the token table, or a matrix of their own."""

    def __init__(self, token_table: nn.Embedding, config: TrunkConfig) -> None:
        super().__init__()
        # In a tuple, which torch does not register: the table is the trunk's, to be saved and optimised once.
        self._table = (token_table,)
        self.weight = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.table_width))
        self.bias: nn.Parameter | None = None

    @property
    def token_weight(self) -> Tensor:
        """A row for each entry (V, D)."""
        return self._table[0].weight if self.weight is None else self.weight

    def features(self, hidden_ND: Tensor) -> Tensor:
        """What is multiplied with `token_weight` (N, D)."""
        return hidden_ND

    def forward(self, hidden_ND: Tensor) -> Tensor:
        weight = self.token_weight.to(hidden_ND.dtype)
        bias = None if self.bias is None else self.bias.to(hidden_ND.dtype)
        return F.linear(self.features(hidden_ND), weight, bias)


class CausalHead(VocabularyHead):
    """Logits of the next token."""


class MaskedHead(VocabularyHead):
    """Logits of a masked token: dense, GELU, norm, token table and a bias per entry (BERT's `cls.predictions`)."""

    def __init__(self, token_table: nn.Embedding, config: TrunkConfig) -> None:
        super().__init__(token_table, config)
        self.dense = Linear(config.width, config.table_width, bias=config.bias)
        self.norm = make_norm(config, config.table_width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def features(self, hidden_ND: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden_ND)))


class ReplacedTokenHead(nn.Module):
    """Logit (N,) that a token was replaced: dense, GELU, linear (ELECTRA's `discriminator_predictions`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width)
        self.out = Linear(width, 1)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return self.out(F.gelu(self.dense(hidden_ND)))[:, 0]


class PooledHead(nn.Module):
    """Logits of a class from one token's vector: dense, activation, perhaps a norm, dropout, linear."""

    def __init__(
        self,
        width: int,
        classes: int,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        norm: nn.Module | None = None,
        bias: bool = True,
    ) -> None:
        """bias: of the dense layer."""
        super().__init__()
        self.pooler = Linear(width, width, bias=bias)
        self.activation = activation
        self.norm = norm
        self.out = Linear(width, classes)
        self.dropout = 0.0

    def forward(self, hidden_ND: Tensor) -> Tensor:
        pooled_ND = self.activation(self.pooler(hidden_ND))
        if self.norm is not None:
            pooled_ND = self.norm(pooled_ND)
        return self.out(dropout(pooled_ND, self.dropout, self.training))


class LinearHead(nn.Module):
    """Logits of a class from one token's vector by a linear map without bias (GPT-2's `score`)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.out = Linear(width, classes, bias=False)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return self.out(hidden_ND)


CLASSIFY_HEADS: dict[str, Callable[[TrunkConfig, int], nn.Module]] = {
    "pooled": lambda config, classes: PooledHead(config.width, classes),
    "pooled_gelu": lambda config, classes: PooledHead(config.width, classes, F.gelu),
    "pooled_gelu_norm": lambda config, classes: PooledHead(
        config.width, classes, F.gelu, make_norm(config), config.bias
    ),
    "linear": lambda config, classes: LinearHead(config.width, classes),
}
"""The heads of classification that families have: BERT's, ELECTRA's, ModernBERT's, and that of decoders."""
