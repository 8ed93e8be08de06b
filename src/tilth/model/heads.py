"""Small layers on a trunk: from vectors of chosen tokens (N, D) to logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilth.model.config import TrunkConfig
from tilth.model.layers import LayerNorm, Linear, dropout


class VocabularyHead(nn.Module):
    """Base of the heads that score every entry of the vocabulary with the (tied) token table."""

    def __init__(self, token_table: nn.Embedding) -> None:
        super().__init__()
        # In a tuple, which torch does not register: the table is the trunk's, to be saved and optimised once.
        self._table = (token_table,)
        self.bias: nn.Parameter | None = None

    @property
    def token_weight(self) -> Tensor:
        """The token table (V, D)."""
        return self._table[0].weight

    def features(self, hidden_ND: Tensor) -> Tensor:
        """What is multiplied with the token table (N, D)."""
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
        super().__init__(token_table)
        self.dense = Linear(config.width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def features(self, hidden_ND: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden_ND)))


class PooledHead(nn.Module):
    """Logits of a class from one token's vector: dense, tanh, dropout, linear (BERT's pooler and classifier)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.pooler = Linear(width, width)
        self.out = Linear(width, classes)
        self.dropout = 0.0

    def forward(self, hidden_ND: Tensor) -> Tensor:
        pooled_ND = torch.tanh(self.pooler(hidden_ND))
        return self.out(dropout(pooled_ND, self.dropout, self.training))


class LinearHead(nn.Module):
    """Logits of a class from one token's vector by a linear map without bias (GPT-2's `score`)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.out = Linear(width, classes, bias=False)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return self.out(hidden_ND)
