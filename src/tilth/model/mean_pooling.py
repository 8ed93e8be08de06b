"""A start for fine-tuning in which the vector that stands for a text is the mean of its tokens' vectors.

Pre-training leaves little about the text as a whole in the vector of [CLS], or of a decoder's last token, and with few
labels fine-tuning cannot put it there. The top block of a pre-trained model is the one most bent to the pre-training
objective, and starting it anew helps with few examples (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning",
section 4). Here it starts as a mean over the text (Reimers and Gurevych 2019, section 3), which the block can express
exactly; so the model keeps its architecture, and training is free to turn the mean into something better.
"""

import torch

from tilth.key import Key
from tilth.model.model import INITIAL_DEVIATION, Model

SHARE = {"after": 30.0, "before": 300.0}
"""Size of the mean beside the token's own vector, so large that what is left of that vector is noise. It has size 1
where blocks normalise after each sum, and has grown over the blocks where they normalise before."""


@torch.no_grad()
def start_mean_pooling(model: Model, seed: int) -> None:
    """Set the top block, and the pooler of a `classify` head, so that a text starts as the mean of its tokens.

    Attention is even (queries are 0), passes vectors on as they are, and outweighs the residual; the feed-forward layer
    adds nothing at first; norms are neutral. Keys and the layer's inner weights are fresh, so that all of it learns.
    A causal model's last token takes the mean of all before it; a banded block that of its band. A block whose heads
    do not make up the width stays as it is. A pure function of the weights and the seed.
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
    identity = torch.eye(config.width, device=parameters["attention.qkv.weight"].device)
    _, key, value = parameters["attention.qkv.weight"].chunk(3)
    value.copy_(identity)
    parameters["attention.out.weight"].copy_(SHARE[config.norm_placement] * identity)
    for name, weight in (("key", key), ("up", parameters["mlp.up.weight"])):
        generator = torch.Generator().manual_seed(Key(seed, 0, f"mean pooling {name}").torch_seed())
        weight.copy_(torch.empty(weight.shape).normal_(0, INITIAL_DEVIATION, generator=generator))
    head = model.heads["classify"]
    if hasattr(head, "pooler"):
        head.get_parameter("pooler.weight").copy_(identity)
        head.get_parameter("pooler.bias").zero_()
