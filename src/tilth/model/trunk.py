"""The network body: one stack of blocks for every family."""

from collections.abc import Callable
from functools import cache as once
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tilth.errors import TilthError
from tilth.model.chosen import MOST_CHOSEN_SHARE, Chosen
from tilth.model.compiled import compile_apart
from tilth.model.config import TrunkConfig
from tilth.model.inputs import Inputs
from tilth.model.layers import (
    CAUSAL_KERNEL_MIN_LENGTH,
    Block,
    Cache,
    Linear,
    Mask,
    Rotation,
    attention_bias,
    dropout,
    make_norm,
    rotation,
)
from tilth.model.segments import Segments


class Embeddings(nn.Module):
    """Token table, and (but for rotary ones) position and (for BERT) token-type tables, summed."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        width, rows = config.table_width, config.max_length + config.position_offset
        self.tokens = _empty_table(config.vocab_size, width)
        self.positions = None if config.rope_thetas else _empty_table(rows, width)
        self.token_types = _empty_table(config.token_types, width) if config.token_types else None
        is_normed = config.norm_placement == "after" or config.embedding_norm
        self.norm = make_norm(config, width) if is_normed else None
        self.position_offset = config.position_offset
        self.dropout = 0.0

    def forward(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        hidden_BSD = self.tokens(inputs.tokens)
        if self.positions is not None:
            hidden_BSD = hidden_BSD + self.positions(inputs.positions + self.position_offset)
        if self.token_types is not None:
            if inputs.token_types is None:
                hidden_BSD = hidden_BSD + self.token_types.weight[0]
            else:
                hidden_BSD = hidden_BSD + self.token_types(inputs.token_types)
        hidden_BSD = hidden_BSD.to(dtype)
        if self.norm is not None:
            hidden_BSD = self.norm(hidden_BSD)
        return dropout(hidden_BSD, self.dropout, self.training)


def _empty_table(rows: int, width: int) -> nn.Embedding:
    """A table whose values come later: torch would draw some, for which, on no device, it loads sympy in 0.8 s."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class SharedEmbeddings(nn.Module):
    """The embeddings of another trunk, which saves and optimises them."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self._of = (embeddings,)  # in a tuple, which torch does not register

    @property
    def tokens(self) -> nn.Embedding:
        """The token table."""
        return self._of[0].tokens

    def forward(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        return self._of[0](inputs, dtype)

    @property
    def dropout(self) -> float:
        """As the other trunk has it."""
        return self._of[0].dropout

    @dropout.setter
    def dropout(self, rate: float) -> None:
        self._of[0].dropout = rate

    def shared_state(self) -> dict[str, Tensor]:
        """What `state_dict` leaves to the other trunk."""
        return self._of[0].state_dict()


class Trunk(nn.Module):
    """Embeddings, blocks, and a final normalisation where the blocks normalise before."""

    def __init__(self, config: TrunkConfig, embeddings: Embeddings | None = None) -> None:
        """embeddings: of another trunk, to share."""
        super().__init__()
        self.config = config
        self.embeddings: Embeddings | SharedEmbeddings = (
            Embeddings(config) if embeddings is None else SharedEmbeddings(embeddings)
        )
        narrow = config.table_width != config.width
        self.projection = Linear(config.table_width, config.width) if narrow else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = make_norm(config) if config.norm_placement == "before" else None
        self.recompute_blocks = False
        """In training, keep each block's input only and compute the rest again for its gradient (Chen et al. 2016,
        "Training Deep Nets with Sublinear Memory Cost")."""
        self.compiled = False
        """In training, fuse each block's small operations (torch.compile); the first step then waits for it."""

    def forward(
        self,
        inputs: Inputs,
        dtype: torch.dtype = torch.float32,
        cache: Cache | None = None,
        places_N: Tensor | None = None,
    ) -> Tensor:
        """Contextual vectors of all tokens, or of those at some places of the flattened (B * S) batch.

        dtype: the type to compute in. cache: an empty one, to be filled for causal generation.
        Returns (B, S, D) or (N, D) of `dtype`.
        Raises: TilthError when a row is longer than the model.
        """
        length = inputs.tokens.shape[1]
        if length > self.config.max_length and int(inputs.positions.max()) >= self.config.max_length:
            raise TilthError(
                f"the input has {length} tokens and the model reads at most {self.config.max_length}; "
                "shorten the text, or pre-train with a larger data.length"
            )
        chosen = None if places_N is None else self._chosen(places_N, inputs)
        masks = self._masks(inputs, dtype, cache, chosen)
        turns = self._rotations(inputs.positions, dtype)
        hidden_BSD = self.embeddings(inputs, dtype)
        if self.projection is not None:
            hidden_BSD = self.projection(hidden_BSD)
        for layer, block in enumerate(self.blocks):
            some = chosen if layer == len(self.blocks) - 1 else None
            mask, turn = masks[self.config.window(layer)], turns[self.config.rope_theta(layer)]
            if cache is not None or not torch.is_grad_enabled():
                hidden_BSD = block(hidden_BSD, mask, turn, cache, some)
                continue
            step: Callable[..., Tensor] = block
            if self.compiled:
                # Which blocks differ in what they compute; the first one of some families lacks a norm.
                kind = (self.config, layer == 0, self.config.window(layer), self.config.rope_theta(layer))
                step = partial(compiled_block(*kind), block)
            if self.recompute_blocks:
                hidden_BSD = checkpoint(step, hidden_BSD, mask, turn, None, some, use_reentrant=False)
            else:
                hidden_BSD = step(hidden_BSD, mask, turn, None, some)
        hidden = hidden_BSD if places_N is None or chosen is not None else hidden_BSD.flatten(0, 1)[places_N]
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def _chosen(self, places_N: Tensor, inputs: Inputs) -> Chosen | None:
        """The tokens for which alone to compute the last block; None for all of them.

        On a CPU only: a GPU would have to be waited for, its kernel for pieces takes them whole, and a compiled block
        would be compiled for each number of tokens.
        """
        if self.compiled or places_N.device.type != "cpu":
            return None
        is_worth_it = 0 < len(places_N) <= MOST_CHOSEN_SHARE * inputs.tokens.numel()
        return Chosen.of(places_N, *inputs.tokens.shape) if is_worth_it else None

    def _masks(
        self, inputs: Inputs, dtype: torch.dtype, cache: Cache | None, chosen: Chosen | None
    ) -> dict[int | None, Mask]:
        """The mask for each window there is."""
        causal, windows = self.config.attention == "causal", set(self.config.windows)
        drops = self.training and self.embeddings.dropout > 0  # all layers have one rate
        fits = self.config.head_size % 8 == 0 and self.config.head_size <= 256  # what the kernel takes
        if inputs.bounds is not None and cache is None and dtype != torch.float32 and fits and not drops:
            return {
                window: Segments(inputs.bounds, inputs.tokens.shape[1], _sides(window, causal)) for window in windows
            }
        documents_BS = inputs.documents
        # A GPU would have to be waited for, and a compiled block be compiled for each kind of mask.
        all_alike = documents_BS.device.type == "cpu" and not self.compiled and _each_row_is_one(documents_BS)
        if all_alike:
            documents_BS = documents_BS[:1]
        is_long = documents_BS.shape[1] >= CAUSAL_KERNEL_MIN_LENGTH and dtype == torch.float32
        needs_none = is_long and chosen is None and not drops  # the kernel takes rows whole, and drops slowly

        def mask(window: int | None) -> Mask:
            if all_alike and window is None and (needs_none or not causal):
                return "causal" if causal else None
            return attention_bias(documents_BS, causal, window, dtype)

        return {window: mask(window) for window in windows}

    def _rotations(self, positions_BS: Tensor, dtype: torch.dtype) -> dict[float | None, Rotation | None]:
        """The rotation for each base there is; None for learned positions."""
        if not self.config.rope_thetas:
            return {None: None}
        size = self.config.head_size
        return {theta: rotation(positions_BS, size, theta, dtype) for theta in set(self.config.rope_thetas)}


def _each_row_is_one(documents_BS: Tensor) -> bool:
    """Whether each row is one document, so that the same tokens see each other in all of them.

    Not so for what is no plain tensor, such as the empty ones with which a step's memory is foretold.
    """
    return type(documents_BS) is Tensor and bool((documents_BS == documents_BS[:, :1]).all())


def _sides(window: int | None, causal: bool) -> tuple[int, int]:
    """How many tokens a window shows to the left and to the right of the token itself, -1 for all."""
    reach = -1 if window is None else window - 1
    return (reach, 0) if causal else (reach, reach)


@once
def compiled_block(*kind: object) -> Callable[..., Tensor]:
    """`Block.forward`, compiled once for all blocks of one kind."""
    return compile_apart(Block.forward)
