from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tilth.model.families import FAMILIES
from tilth.model.model import Model, build_model
from tilth.recipe import TrainSettings
from tilth.train.adamw import AdamW
from tilth.train.batched_muon import MOMENTUM, MOST, BatchedMuon, orthogonalised
from tilth.train.optimizers import Optimizers

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
HEADS = {"bert": ("masked", "next_sentence"), "gpt2": ("causal",)}


def small(name: str = "bert") -> Model:
    shape = {"vocab_size": 50, "layers": 2, "width": 32, "heads": 2, "head_size": 16, "mlp_width": 64, "max_length": 16}
    return build_model(FAMILIES[name], replace(FAMILIES[name].sizes["mini"], **shape), HEADS[name], seed=0)


def gradients(model: Model, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def names_in(optimizers: Optimizers, kind: type) -> set[str]:
    return {
        optimizers.names[parameter]
        for part in optimizers.parts
        if type(part) is kind
        for group in part.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", HEADS)
def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(name):
    model = small(name)
    optimizers = Optimizers(model, TrainSettings(optimizer="muon"))
    assert [type(part) for part in optimizers.parts] == [AdamW, BatchedMuon]
    layers = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    hidden = {f"trunk.blocks.{block}.{layer}.weight" for block in (0, 1) for layer in layers}
    everything = {key for key, _ in model.named_parameters()}
    assert names_in(optimizers, BatchedMuon) == hidden
    assert names_in(optimizers, AdamW) == everything - hidden


@pytest.mark.parametrize("name", HEADS)
def test_adamw_alone_takes_all(name):
    model = small(name)
    optimizers = Optimizers(model, TrainSettings(optimizer="adamw"))
    assert [type(part) for part in optimizers.parts] == [AdamW]
    assert names_in(optimizers, AdamW) == {key for key, _ in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_decay_shrinks_matrices_and_tables_only(optimizer):
    """With gradients of zero nothing else moves a weight."""
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    optimizers = Optimizers(model, TrainSettings(optimizer=optimizer, lr=0.1, weight_decay=0.5))
    gradients(model, scale=0.0)
    optimizers.step()
    for name, parameter in model.named_parameters():
        expected = 2.0 * (1 - 0.1 * 0.5) if parameter.dim() == 2 else 2.0
        assert parameter.detach() == pytest.approx(torch.full(parameter.shape, expected), rel=1e-6), name


def test_the_two_optimizers_move_hidden_matrices_differently_and_alike_in_size():
    moved = {}
    for optimizer in ("muon", "adamw"):
        model, before = small(), small().state_dict()
        optimizers = Optimizers(model, TrainSettings(optimizer=optimizer, lr=0.01, weight_decay=0.0))
        gradients(model)
        optimizers.step()
        assert all(parameter.grad is None for parameter in model.parameters())
        moved[optimizer] = {name: value - before[name] for name, value in model.state_dict().items()}
    table = "trunk.embeddings.tokens.weight"
    assert torch.equal(moved["muon"][table], moved["adamw"][table])
    matrix = "trunk.blocks.0.mlp.up.weight"
    muon, adamw = moved["muon"][matrix], moved["adamw"][matrix]
    # AdamW's first step has the size of the rate everywhere; Muon's is almost orthogonal, and 0.2 of that in each row.
    assert adamw.abs().mean().item() == pytest.approx(0.01, rel=1e-3)
    assert muon.square().mean(1).sqrt() == pytest.approx(torch.full((len(muon),), 0.2 * 0.01), rel=0.01)
    strengths = torch.linalg.svdvals(muon)
    assert strengths.max() < 2 * strengths.min()
    assert torch.linalg.svdvals(adamw).max() > 4 * torch.linalg.svdvals(adamw).min()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_rate_reaches_every_group(optimizer):
    model = small()
    optimizers = Optimizers(model, TrainSettings(optimizer=optimizer, lr=0.02))
    assert optimizers.set_rate(0.25) == 0.005
    assert {group["lr"] for part in optimizers.parts for group in part.param_groups} == {0.005}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers.set_rate(0.0)
    gradients(model)
    optimizers.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "times"), [("bert", 1), ("gpt2", 2)])
def test_tables_to_which_blocks_add_learn_twice_as_fast(name, times):
    """AdamW's first step has the size of the rate everywhere."""
    model, before = small(name), small(name).state_dict()
    optimizers = Optimizers(model, TrainSettings(lr=0.01, weight_decay=0.0))
    optimizers.set_rate(0.5)
    gradients(model)
    optimizers.step()
    hidden = names_in(optimizers, BatchedMuon)
    for key, value in model.state_dict().items():
        if key not in hidden:
            rate = 0.005 * (times if key.startswith("trunk.embeddings.") and value.dim() == 2 else 1)
            assert (value - before[key]).abs() == pytest.approx(torch.full(value.shape, rate), rel=1e-3), key


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_restored_state_goes_on_bit_for_bit(optimizer):
    settings = TrainSettings(optimizer=optimizer, lr=0.01, weight_decay=0.1)
    model = small()
    optimizers = Optimizers(model, settings)
    for _ in range(3):
        gradients(model)
        optimizers.step()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value.clone() for name, value in optimizers.state().items()}
    assert {name.partition("/")[0] for name in state} == {name for name, _ in model.named_parameters()}

    resumed = small()
    resumed.load_state_dict(weights)
    resumed_optimizers = Optimizers(resumed, settings)
    resumed_optimizers.load_state(state)
    kept = {name: value.clone() for name, value in state.items()}
    for each, each_optimizers in ((model, optimizers), (resumed, resumed_optimizers)):
        gradients(each)
        each_optimizers.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    for name, value in optimizers.state().items():
        assert torch.equal(value, resumed_optimizers.state()[name])
        assert torch.equal(state[name], kept[name]), "the tensors given were changed in place"


def test_clearing_drops_the_gradients_and_moves_nothing():
    model = small()
    optimizers = Optimizers(model, TrainSettings())
    gradients(model)
    optimizers.clear()
    assert all(parameter.grad is None for parameter in model.parameters())
    optimizers.step()
    assert optimizers.state() == {}


def test_adamw_takes_torchs_steps_bit_for_bit():
    """A parameter without a gradient stays as it is and counts no step."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((7, 5), (300,), (1,))]
    ours, theirs = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    own = AdamW(
        [{"params": ours[:2], "lr": 0.1, "weight_decay": 0.3}, {"params": ours[2:], "lr": 0.1, "weight_decay": 0.0}],
        betas=(0.8, 0.95),
    )
    groups = [{"params": theirs[:2], "weight_decay": 0.3}, {"params": theirs[2:], "weight_decay": 0.0}]
    torchs = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.95), fused=True)
    for step in range(5):
        for optimizer in (own, torchs):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + step)
        for left, right in zip(ours, theirs, strict=True):
            gradient = torch.randn(left.shape, generator=generator)
            left.grad, right.grad = (None, None) if step == 2 and left.dim() == 2 else (gradient, gradient.clone())
        own.step()
        torchs.step()
        own.zero_grad()
        assert all(parameter.grad is None for parameter in ours)
    for left, right, start in zip(ours, theirs, starts, strict=True):
        assert torch.equal(left, right) and not torch.equal(left, start)
        assert own.state[left].keys() == torchs.state[right].keys()
        assert all(torch.equal(value, torchs.state[right][name]) for name, value in own.state[left].items())


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def muon_type(request, monkeypatch):
    """What Muon multiplies in, on a processor with units for bfloat16 and on one without."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param == torch.bfloat16})
    return request.param


def moved_to_one(strengths: torch.Tensor) -> torch.Tensor:
    """What five iterations make of singular values."""
    a, b, c = COEFFICIENTS
    for _ in range(5):
        strengths = a * strengths + b * strengths**3 + c * strengths**5
    return strengths


@pytest.mark.parametrize("shape", [(16, 24), (16, 64), (64, 16), (3, 16, 24), (3, 16, 64), (3, 64, 16)])
def test_muon_multiplies_in_a_type_that_the_processor_has_units_for(muon_type, shape):
    """In bfloat16 a processor without them took many times as long."""
    aten, used = torch.ops.aten, set()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
                used.add(args[0].dtype)
            return func(*args, **(kwargs or {}))

    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    strengths = 0.8 ** torch.arange(16.0).double()
    gradient = (left * strengths @ right).float()
    with Products():
        update = orthogonalised(gradient)
    assert used == {muon_type}

    nearness = 0.03 if muon_type == torch.bfloat16 else 2e-5
    assert (update.double() - left * moved_to_one(strengths / strengths.norm()) @ right).abs().max() < nearness


@pytest.mark.parametrize("shape", [(16, 24), (16, 64), (64, 16)])
def test_muon_in_float32_takes_a_gradient_of_one_direction_and_of_none(monkeypatch, shape):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    left, right = torch.linspace(-1, 1, shape[0]), torch.linspace(0.5, 2, shape[1])
    update = orthogonalised(torch.outer(left, right))
    strength = moved_to_one(torch.ones(1))
    expected = strength * torch.outer(left / left.norm(), right / right.norm())
    assert (update - expected).norm() < 1e-3 * strength
    assert not orthogonalised(torch.zeros(shape)).any()


@pytest.mark.usefixtures("muon_type")
def test_the_maps_that_a_matrix_joins_do_not_share_an_update():
    """Queries, keys and values of each head, and both halves of a gate: each moves by its own gradient, however large
    the others' are. A power of two scales without rounding."""
    shape = {"vocab_size": 50, "layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "head_size": 8, "mlp_width": 48}
    config = replace(FAMILIES["qwen3"].sizes["mini"], **shape, max_length=16)
    maps = {"trunk.blocks.0.attention.qkv.weight": 8, "trunk.blocks.0.mlp.up.weight": 2}
    moved = []
    for base in (1.0, 2.0):
        model = build_model(FAMILIES["qwen3"], config, ("causal",), seed=0)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        gradients(model)
        for name, many in maps.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            for index, rows in enumerate(gradient.chunk(many)):
                rows *= base ** (3 * index)
        Optimizers(model, TrainSettings(lr=0.01, weight_decay=0.0)).step()
        moved.append({name: model.state_dict()[name] - before[name] for name in maps})
    for name in maps:
        assert moved[0][name].abs().mean() > 0.001
        assert torch.equal(moved[0][name], moved[1][name]), name


@pytest.mark.usefixtures("muon_type")
def test_muon_leaves_a_row_without_a_gradient_and_moves_a_small_one_as_far_as_any():
    matrix = torch.nn.Parameter(torch.ones(48, 16))
    gradient = torch.randn(48, 16, generator=torch.Generator().manual_seed(0))
    gradient[7], gradient[9] = 0.0, gradient[9] * 1e-6
    matrix.grad = gradient
    BatchedMuon([matrix], [1], lr=0.1, weight_decay=0.0).step()
    sizes = (matrix.detach() - 1).square().mean(1).sqrt()
    assert sizes[7] == 0 and sizes[sizes > 0] == pytest.approx(torch.full((47,), 0.1 * 0.2), rel=0.01)


@pytest.mark.parametrize("widest", [0, 256])
def test_muon_moves_each_map_as_torchs_would_but_all_rows_alike(widest, monkeypatch):
    monkeypatch.setattr("tilth.train.batched_muon.WIDEST", {"cpu": widest})
    # torch computes in bfloat16 always.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    generator = torch.Generator().manual_seed(0)
    columns = [16, 48, 16] * 2 + [8] * (MOST + 1)
    maps = [1, 1, 3] * 2 + [1] * MOST + [2]
    starts = [torch.randn(16 * many, width, generator=generator) for many, width in zip(maps, columns, strict=True)]
    joined = [torch.nn.Parameter(start.clone()) for start in starts]
    split = [
        [torch.nn.Parameter(torch.zeros_like(part)) for part in start.chunk(many)]
        for start, many in zip(starts, maps, strict=True)
    ]
    ours = BatchedMuon(joined, maps, lr=0.1, weight_decay=0.1)
    parts = [part for each in split for part in each]
    theirs = torch.optim.Muon(parts, lr=1.0, weight_decay=0.0, momentum=MOMENTUM)
    expected = [start.clone() for start in starts]
    for step in range(4):
        for index, matrix in enumerate(joined):
            gradient = torch.randn(matrix.shape, generator=generator) * 10.0 ** (index % 3)
            matrix.grad = None if step == 2 and matrix.shape == (16, 48) else gradient
            for part, rows in zip(split[index], gradient.chunk(maps[index]), strict=True):
                part.data.zero_()
                part.grad = None if matrix.grad is None else rows.clone()
        ours.step()
        theirs.step()
        for matrix, each, goal in zip(joined, split, expected, strict=True):
            if matrix.grad is not None:
                update = torch.cat([part.detach() for part in each])
                rows = update.square().mean(1, keepdim=True).sqrt()
                goal.mul_(1 - 0.1 * 0.1).add_(update / rows, alpha=0.1 * 0.2)
    for start, matrix, each, goal in zip(starts, joined, split, expected, strict=True):
        moved = (goal - start).norm()
        assert moved > 0.1 and (matrix - goal).norm() < 0.01 * moved
        momentum = torch.cat([theirs.state[part]["momentum_buffer"] for part in each])
        torch.testing.assert_close(ours.state[matrix]["momentum_buffer"], momentum)
