"""The network body: one stack of blocks for every family."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tilth.errors import TilthError
from tilth.model.config import TrunkConfig
from tilth.model.inputs import Inputs
from tilth.model.layers import Block, Cache, LayerNorm, attention_bias, dropout


class Embeddings(nn.Module):
    """Token, position and (for BERT) token-type tables, summed."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.max_length + config.position_offset, config.width)
        self.token_types = nn.Embedding(config.token_types, config.width) if config.token_types else None
        self.norm = LayerNorm(config.width, eps=config.norm_eps) if config.norm_placement == "after" else None
        self.position_offset = config.position_offset
        self.dropout = 0.0

    def forward(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        hidden_BSD = self.tokens(inputs.tokens) + self.positions(inputs.positions + self.position_offset)
        if self.token_types is not None:
            if inputs.token_types is None:
                hidden_BSD = hidden_BSD + self.token_types.weight[0]
            else:
                hidden_BSD = hidden_BSD + self.token_types(inputs.token_types)
        hidden_BSD = hidden_BSD.to(dtype)
        if self.norm is not None:
            hidden_BSD = self.norm(hidden_BSD)
        return dropout(hidden_BSD, self.dropout, self.training)


class Trunk(nn.Module):
    """Embeddings, blocks, and a final normalisation where the blocks normalise before."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = LayerNorm(config.width, eps=config.norm_eps) if config.norm_placement == "before" else None
        self.recompute_blocks = False
        """In training, keep each block's input only and compute the rest again for its gradient (Chen et al. 2016,
        "Training Deep Nets with Sublinear Memory Cost")."""

    def forward(self, inputs: Inputs, dtype: torch.dtype = torch.float32, cache: Cache | None = None) -> Tensor:
        """Contextual vectors of all tokens.

        dtype: the type to compute in. cache: tokens read before, for causal generation; it is extended.
        Returns (B, S, D) of `dtype`.
        Raises: TilthError when a row is longer than the model.
        """
        past = cache.length if cache is not None else 0
        length = past + inputs.tokens.shape[1]
        if length > self.config.max_length and int(inputs.positions.max()) >= self.config.max_length:
            raise TilthError(
                f"the input has {length} tokens and the model reads at most {self.config.max_length}; "
                "shorten the text, or pre-train with a larger data.length"
            )
        biases = self._biases(inputs.documents, dtype, cache)
        hidden_BSD = self.embeddings(inputs, dtype)
        for layer, block in enumerate(self.blocks):
            bias = biases[self.config.window(layer)]
            if self.recompute_blocks and cache is None and torch.is_grad_enabled():
                hidden_BSD = checkpoint(block, hidden_BSD, bias, use_reentrant=False)
            else:
                hidden_BSD = block(hidden_BSD, bias, cache)
        return hidden_BSD if self.final_norm is None else self.final_norm(hidden_BSD)

    def _biases(self, documents_BS: Tensor, dtype: torch.dtype, cache: Cache | None) -> dict[int | None, Tensor | None]:
        """The attention bias for each window there is; None where a lone new token sees all that was read."""
        key_documents_BT = documents_BS if cache is None else cache.read(documents_BS)
        length = key_documents_BT.shape[1]
        sees_all = cache is not None and not cache.is_padded and documents_BS.shape[1] == 1
        causal = self.config.attention == "causal"
        return {
            window: None
            if sees_all and (window is None or length <= window)
            else attention_bias(documents_BS, key_documents_BT, causal, window, dtype)
            for window in set(self.config.windows)
        }
