"""Muon that orthogonalises maps of one shape together."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from tilth.model.precision import compute_dtype
from tilth.train.adamw import Optimizer

WIDEST = {"cpu": 256, "cuda": 4096, "mps": 256}
"""The shorter side beyond which a map alone keeps the device busy, and a batched product is the slower one."""
MOST = 32
"""Maps of several matrices in a stack, so that the memory for it stays small beside the model."""
MOMENTUM = 0.9
"""Less than Jordan et al. take for runs of a thousand steps and more: young models learn faster by newer gradients."""
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the quintic Newton-Schulz iteration, by Jordan et al. 2024 ("Muon")."""
EPS = 1e-7
"""The least norm that something is divided by."""
UPDATE_SIZE = 0.2
"""Root mean square of an update at a rate of 1: about that of AdamW's (Liu et al. 2025, "Muon is Scalable", section
2.2), so that one rate serves both."""


class BatchedMuon(Optimizer):
    """Muon (Jordan et al. 2024) that orthogonalises the maps that one matrix joins each by itself, those of one shape
    together, and where bfloat16 is slow in float32, and then gives all rows of an update the size of AdamW's.

    Jordan et al. keep queries, keys and values apart; here each head's are. On small matrices the time goes to starting
    many small products, and each keeps one core busy: one batched product for all maps of a shape takes less
    (benchmarks/muon.py). What is orthogonal and taller than wide has rows of all sizes, so that some neurons would
    learn faster than others; Li et al. 2025 ("NorMuon") divide each row by the root of a running mean of its squares,
    here that of the step is enough. A row whose gradient is little but noise then moves as far as any, as with AdamW.
    What it brought: benchmarks/NOTES.md.
    """

    def __init__(self, matrices: Sequence[Tensor], maps: Sequence[int], lr: float, weight_decay: float) -> None:
        """maps: how many maps of one shape each matrix joins, one below the other."""
        super().__init__([{"params": list(matrices), "lr": lr, "weight_decay": weight_decay}])
        self._maps = dict(zip(matrices, maps, strict=True))

    @torch.no_grad()
    def step(self) -> None:
        """Update the matrices that have gradients."""
        for group in self.param_groups:
            for matrices in self._stacks([matrix for matrix in group["params"] if matrix.grad is not None]):
                self._update(matrices, group["lr"], group["weight_decay"])

    def _update(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        counts, shape = [self._maps[matrix] for matrix in matrices], self._shape(matrices[0])
        directions = matrices[0].new_empty(sum(counts), *shape)
        for matrix, ahead in zip(matrices, directions.split(counts), strict=True):
            assert matrix.grad is not None
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            momentum = self.state[matrix]["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
            torch.lerp(matrix.grad, momentum, MOMENTUM, out=ahead.view_as(matrix))  # Nesterov's
        if self._are_narrow(shape, matrices[0]):
            directions.copy_(orthogonalised(directions))
        else:
            for direction in directions:
                direction.copy_(orthogonalised(direction))
        scales = directions.norm(dim=-1, keepdim=True).clamp_(min=EPS).reciprocal_()
        rate = UPDATE_SIZE * shape[1] ** 0.5 * lr
        for matrix, direction, scale in zip(matrices, directions.split(counts), scales.split(counts), strict=True):
            matrix.mul_(1 - lr * weight_decay)
            matrix.addcmul_(direction.view_as(matrix), scale.view(-1, 1), value=-rate)

    def _shape(self, matrix: Tensor) -> tuple[int, int]:
        """Of each of its maps."""
        return matrix.shape[0] // self._maps[matrix], matrix.shape[1]

    def _are_narrow(self, shape: tuple[int, int], matrix: Tensor) -> bool:
        return min(shape) <= WIDEST[matrix.device.type]

    def _stacks(self, matrices: list[Tensor]) -> Iterator[list[Tensor]]:
        """Matrices that are updated together, in an order that depends on the shapes of their maps and places only."""
        shaped = sorted(enumerate(matrices), key=lambda item: (self._shape(item[1]), item[0]))
        for shape, group in groupby((matrix for _, matrix in shaped), key=self._shape):
            stack: list[Tensor] = []
            for matrix in group:
                most = MOST if self._are_narrow(shape, matrix) else 1
                if stack and sum(self._maps[each] for each in (*stack, matrix)) > most:
                    yield stack
                    stack = []
                stack.append(matrix)
            yield stack


def orthogonalised(matrices: Tensor) -> Tensor:
    """A matrix, or a stack of them, with the singular values moved towards 1.

    The quintic Newton-Schulz iteration of Jordan et al. 2024 ("Muon"): in bfloat16 as torch has it, and in float32
    where the device has no units for bfloat16, whose products took many times as long on such a processor.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.size(-2) > matrices.size(-1)
    values = matrices.to(compute_dtype("auto", matrices.device))
    if is_tall:
        values = values.mT
    values = values / values.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)  # no singular value above 1
    add_product = torch.addmm if values.dim() == 2 else torch.baddbmm
    if values.dtype == torch.float32 and values.size(-1) >= 2 * values.size(-2):
        values = _iterated(values @ values.mT) @ values
    else:
        for _ in range(ITERATIONS):
            gram = values @ values.mT
            values = add_product(values, add_product(gram, gram, gram, beta=b, alpha=c), values, beta=a)
    return (values.mT if is_tall else values).contiguous()


def _iterated(gram: Tensor) -> Tensor:
    """What all iterations together multiply a wide matrix by, from its product with its transpose (Zhang, Amsel, Chen
    and Dao 2026, "Gram Newton-Schulz").

    Each multiplies by a polynomial of that product, and all such polynomials commute, so that it can be done without
    the matrix: 44 % fewer operations for one four times as wide as high. The product has the squares of the singular
    values, and an error in it grows up to 12 times with each iteration, by the square of the first coefficient: float32
    leaves room for five, bfloat16 for two.
    """
    a, b, c = COEFFICIENTS
    add_product = torch.addmm if gram.dim() == 2 else torch.baddbmm
    total = None
    for left in reversed(range(ITERATIONS)):
        factor = add_product(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        total = factor if total is None else factor @ total
        if left:
            gram = factor @ gram @ factor
    assert total is not None
    return total
