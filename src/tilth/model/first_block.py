"""A start for the first block in which attention already looks at neighbours.

A fresh model must first find out that the words beside a gap tell most about it, and until it has, its loss stays at
that of word frequencies. Here the position table is sinusoidal (Vaswani et al. 2017, section 3.5) in dimensions of its
own, and the first block's heads turn it by a fixed offset, so that each reads the token so many places away; one head
in four keeps its fresh, nearly even attention and so reads the whole document. What a head reads it passes on as it is.
"""

import math

import numpy as np
import torch
from torch import Tensor

from tilth.key import Key
from tilth.model.model import INITIAL_DEVIATION, Model
from tilth.model.trunk import Embeddings

SCORE = 10.0
"""Attention score of the token at a head's offset; the others' scatter around 0."""
PASSED = 0.5
"""Size of what a head adds, beside a residual of size 1."""
WHOLE_DOCUMENT = 0
OFFSETS = (-1, 1, WHOLE_DOCUMENT, -2, 2, -3, WHOLE_DOCUMENT, 3)
"""What each head reads; heads beyond these stay as they are."""


@torch.no_grad()
def start_first_block(model: Model, seed: int) -> None:
    """Set the position table and the first block's attention as above, and clear the tables' other dimensions.

    For bidirectional trunks that normalise after each sum, as BERT's: causal ones learnt more slowly from such a start
    (benchmarks/NOTES.md). Others, and those too narrow, stay as they are. A pure function of the weights and the seed.
    """
    config, embeddings = model.config, model.trunk.embeddings
    attention = model.trunk.blocks[0].get_submodule("attention")
    width, head_size = config.width, config.head_size
    position_width = min(head_size, width // 4) // 2 * 2
    token_width = width - position_width
    suits = config.attention == "bidirectional" and config.norm_placement == "after"
    if not suits or config.table_width != width or position_width < 8 or token_width < head_size:
        return
    if not isinstance(embeddings, Embeddings) or embeddings.positions is None:
        return
    # Drawn, not spaced: evenly spaced frequencies repeat after as many positions as there are of them.
    frequencies = np.sort(Key(seed, 0, "position frequencies").generator().uniform(0, math.pi, position_width // 2))
    angles = np.arange(config.max_length)[:, None] * frequencies
    waves = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()
    embeddings.tokens.weight[:, token_width:] = 0
    if embeddings.token_types is not None:
        embeddings.token_types.weight[:, token_width:] = 0
    embeddings.positions.weight.zero_()
    embeddings.positions.weight[config.position_offset :, token_width:] = waves * (INITIAL_DEVIATION * math.sqrt(2))

    query, key, value = attention.get_parameter("qkv.weight").chunk(3)
    out = attention.get_parameter("out.weight")
    # Normalised, the position's part of a vector has squared length position_width: key times turned query gives SCORE.
    gain = math.sqrt(SCORE * math.sqrt(head_size) / position_width)
    for head, offset in zip(range(config.heads), OFFSETS, strict=False):
        rows = slice(head * head_size, (head + 1) * head_size)
        if offset != WHOLE_DOCUMENT:
            for part, turned_by in ((query, offset), (key, 0)):
                part[rows] = 0
                part[rows][:position_width, token_width:] = gain * _turn(frequencies, turned_by)
        noise = Key(seed, head, "first block values").generator().standard_normal((token_width, head_size))
        directions = torch.from_numpy(np.linalg.qr(noise)[0]).float()
        value[rows] = 0
        value[rows][:, :token_width] = directions.T
        out[:, rows] = 0
        out[:token_width, rows] = PASSED * directions


def _turn(frequencies: np.ndarray, offset: int) -> Tensor:
    """The matrix that takes the waves of a position to those of the position `offset` places on."""
    cosine, sine = (torch.from_numpy(wave(frequencies * offset)).float().diag() for wave in (np.cos, np.sin))
    return torch.cat([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)])
