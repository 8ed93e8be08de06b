"""A start for fine-tuning in which the vector that stands for a text is the mean of its tokens' vectors.

Pre-training leaves little about the text as a whole in the vector of [CLS], or of a decoder's last token, and with few
labels fine-tuning cannot put it there. The top block of a pre-trained model is the one most bent to the pre-training
objective, and starting it anew helps with few examples (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning",
section 4). Here it starts as a mean over the text (Reimers and Gurevych 2019, section 3), which the block can express
exactly; so the model keeps its architecture, and training is free to turn the mean into something better.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.key import Key
from tilth.model.heads import PooledHead
from tilth.model.model import INITIAL_DEVIATION, Model

SHARE = {"after": 30.0, "before": 300.0}
"""Size of the mean beside the token's own vector, so large that what is left of that vector is noise. It has size 1
where blocks normalise after each sum, and has grown over the blocks where they normalise before."""

GELU_SHIFT = 3.0
"""GELU leaves numbers of size 1 as they are around this."""
GELU_SCALE = 0.1
"""Or, where a norm follows and the pooler has no bias, nearly so but for a factor, when they are this small."""


@torch.no_grad()
def start_mean_pooling(model: Model, seed: int) -> None:
    """Set the top block, and the pooler of a `classify` head, so that a text starts as the mean of its tokens.

    Attention is even (queries are 0), passes vectors on as they are, and outweighs the residual; the feed-forward layer
    adds nothing at first; norms are neutral. Keys and the layer's inner weights are fresh, so that all of it learns.
    A causal model's last token takes the mean of all before it; a banded block that of its band. Values with fewer
    dimensions than the width, of heads that share them, pass on a random projection. A block whose heads do not make up
    the width stays as it is. A pure function of the weights and the seed.
    """
    config, block = model.config, model.trunk.blocks[-1]
    if config.heads * config.head_size != config.width:
        return
    parameters = dict(block.named_parameters())
    for name, parameter in parameters.items():
        if name.endswith("norm.weight"):
            parameter.fill_(1)
        else:
            parameter.zero_()
    qkv = parameters["attention.qkv.weight"]
    kv_width = config.num_kv_heads * config.head_size
    _, key, value = qkv.split([config.width, kv_width, kv_width])
    identity = torch.eye(config.width, device=qkv.device)
    passed = identity if kv_width == config.width else _directions(kv_width, config.width, seed).to(qkv.device)
    value.copy_(passed)
    # The heads that share values each bring back an equal part of them.
    sharing = config.heads // config.num_kv_heads
    by_head = passed.unflatten(0, (config.num_kv_heads, config.head_size)).repeat_interleave(sharing, 0)
    parameters["attention.out.weight"].copy_(SHARE[config.norm_placement] / sharing * by_head.flatten(0, 1).T)
    for name, weight in (("key", key), ("up", parameters["mlp.up.weight"])):
        generator = torch.Generator().manual_seed(Key(seed, 0, f"mean pooling {name}").torch_seed())
        weight.copy_(torch.empty(weight.shape).normal_(0, INITIAL_DEVIATION, generator=generator))
    head = model.heads["classify"]
    if isinstance(head, PooledHead):
        is_gelu, bias = head.activation is F.gelu, head.pooler.bias
        head.pooler.weight.copy_(GELU_SCALE * identity if is_gelu and bias is None else identity)
        if bias is not None:
            bias.fill_(GELU_SHIFT if is_gelu else 0)


def _directions(count: int, width: int, seed: int) -> Tensor:
    """Random orthonormal rows (count, width)."""
    noise = Key(seed, 0, "mean pooling values").generator().standard_normal((width, count))
    return torch.from_numpy(np.linalg.qr(noise)[0].T).float()
