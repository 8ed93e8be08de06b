"""A trunk with heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tilth.key import Key
from tilth.model.config import TrunkConfig
from tilth.model.families import Family
from tilth.model.heads import (
    CLASSIFY_HEADS,
    CausalHead,
    MaskedHead,
    PooledHead,
    ReplacedTokenHead,
    VocabularyHead,
)
from tilth.model.inputs import Inputs
from tilth.model.trunk import Embeddings, Trunk

INITIAL_DEVIATION = 0.02
"""Standard deviation of fresh weights (Devlin et al. 2019; Radford et al. 2019)."""
TABLE_SIZE, TABLE_RATE = 4.0, 2.0
"""How many times larger the tables to which blocks add start pre-training, and how many times faster they learn."""


class Model(nn.Module):
    """A family's trunk and the heads on it. Parameters are float32; `encode` says in which type to compute.

    reads: how many tokens of a text it is meant to read, all that it can unless fine-tuning set a limit.
    labels: class names of the `classify` head, in the order of its logits; empty without one.
    generator: the smaller masked language model that is trained beside a `replaced_token` head, and works on this
    model's embeddings (Clark et al. 2020, section 3); None without one.
    """

    def __init__(
        self,
        family: Family,
        config: TrunkConfig,
        heads: Sequence[str],
        labels: Sequence[str] = (),
        embeddings: Embeddings | None = None,
    ) -> None:
        """embeddings: of another model, to share."""
        super().__init__()
        self.family = family
        self.config = config
        self.reads = config.max_length
        self.labels = list(labels)
        self.trunk = Trunk(config, embeddings)
        self.heads = nn.ModuleDict({name: self._make_head(name) for name in heads})
        self.generator: Model | None = None
        if config.generator_size and "replaced_token" in heads:
            assert isinstance(self.trunk.embeddings, Embeddings)
            self.generator = Model(family, config.generator(), ("masked",), embeddings=self.trunk.embeddings)

    def encode(self, inputs: Inputs, dtype: torch.dtype = torch.float32, places_N: Tensor | None = None) -> Tensor:
        """Contextual vectors (B, S, D), or (N, D) those at some places of the flattened (B * S) batch, which costs
        less where they are few. Computed and returned in `dtype`."""
        return self.trunk(inputs, dtype, places_N=places_N)

    def add_head(self, name: str, labels: Sequence[str] = (), seed: int = 0) -> None:
        """Add or replace a head with fresh weights.

        A `classify` head takes over the pooler that next-sentence prediction trained, and needs no generator.
        """
        if name == "classify":
            self.labels = list(labels)
            self.generator = None
        head = self._make_head(name).to(self.trunk.embeddings.tokens.weight.device)
        self.heads[name] = head
        _initialise(head, f"heads.{name}.", seed)
        if name == "classify" and "next_sentence" in self.heads:
            head.get_submodule("pooler").load_state_dict(
                self.heads["next_sentence"].get_submodule("pooler").state_dict()
            )

    def set_dropout(self, rate: float) -> None:
        """Set the dropout of every layer; it acts in training mode only."""
        for module in self.modules():
            if isinstance(getattr(module, "dropout", None), float):
                setattr(module, "dropout", float(rate))  # noqa: B010 - torch types attributes of modules as tensors

    def trunks(self) -> list[Trunk]:
        """The model's own trunk, and its generator's."""
        return [self.trunk, *([] if self.generator is None else self.generator.trunks())]

    def num_parameters(self) -> int:
        """Parameters, the tied output table counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, length: int, predicted: float = 0.0, vocabulary: float = 1.0) -> float:
        """Floating-point operations to train on one token: 6 per weight in a matrix product, and attention's 12
        layers x inner x length, as if each block computed all tokens.

        predicted: share of the tokens that are projected to the vocabulary. vocabulary: share of it in the softmax.
        Kaplan et al. 2020 (section 2.1) with the attention term of Chowdhery et al. 2022 (appendix B).
        """
        matrices = sum(parameter.numel() for parameter in self.trunk.blocks.parameters() if parameter.dim() == 2)
        for head in self.heads.values():
            if isinstance(head, VocabularyHead):
                table = head.token_weight
                own = sum(parameter.numel() for parameter in head.parameters() if parameter.dim() == 2)
                of_words = (vocabulary - (head.weight is table)) * table.numel()  # what is its own is in `own`
                matrices += predicted * (own + of_words)
        inner = self.config.heads * self.config.head_size
        of_generator = 0.0 if self.generator is None else self.generator.flops_per_token(length, predicted)
        return 6 * matrices + 12 * self.config.layers * inner * length + of_generator

    def _make_head(self, name: str) -> nn.Module:
        table, width = self.trunk.embeddings.tokens, self.config.width
        if name == "masked":
            return MaskedHead(table, self.config)
        if name == "causal":
            return CausalHead(table, self.config)
        if name == "next_sentence":
            return PooledHead(width, 2)
        if name == "replaced_token":
            return ReplacedTokenHead(width)
        assert name == "classify", f"no head is called {name}"
        return CLASSIFY_HEADS[self.family.classify_head](self.config, len(self.labels))


def build_model(
    family: Family, config: TrunkConfig, heads: Sequence[str], seed: int, labels: Sequence[str] = ()
) -> Model:
    """A model with fresh weights that depend on nothing but the seed and each parameter's name."""
    model = Model(family, config, heads, labels)
    _initialise(model, "", seed)
    if family.residual_scale:
        with torch.no_grad():
            for name, parameter in model.trunk.blocks.named_parameters():
                if name.endswith(("attention.out.weight", "mlp.down.weight")):
                    parameter.mul_((2 * config.layers) ** -0.5)
    return model


@torch.no_grad()
def enlarge_tables(model: Model) -> None:
    """Where blocks add to the embeddings as they are, let these start larger.

    Beside the first blocks' sums a token's own vector is small at first, and soon lost. Takase et al. 2023 ("Spike No
    More") have such a large shortcut for stable training; small models also learn faster (benchmarks/NOTES.md). Logits
    by the same table keep their size.
    """
    if not model.config.adds_to_tables:
        return
    for table in model.trunk.embeddings.parameters():
        table.mul_(TABLE_SIZE)
    if model.config.tied:
        assert model.trunk.final_norm is not None
        model.trunk.final_norm.get_parameter("weight").div_(TABLE_SIZE)


@torch.no_grad()
def _initialise(module: nn.Module, prefix: str, seed: int) -> None:
    """Matrices and tables from a normal distribution, biases 0, norms 1."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            generator = torch.Generator().manual_seed(Key(seed, 0, f"initial {prefix}{name}").torch_seed())
            fresh = torch.empty(parameter.shape).normal_(0.0, INITIAL_DEVIATION, generator=generator)
            parameter.copy_(fresh)
