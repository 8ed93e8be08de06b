"""What a trunk may see: documents, the past, windows; and what fresh weights depend on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tilth.errors import TilthError
from tilth.model import layers, trunk
from tilth.model.families import FAMILIES
from tilth.model.inputs import Inputs
from tilth.model.layers import attention_bias, dropout
from tilth.model.model import Model, build_model, enlarge_tables

VOCAB = 50


def small(name: str, seed: int = 0, **changes) -> Model:
    family = FAMILIES[name]
    shape = {"vocab_size": VOCAB, "layers": 2, "width": 32, "heads": 2, "head_size": 16, "mlp_width": 64}
    config = replace(family.sizes["mini"], **(shape | {"max_length": 32} | changes))
    heads = ("causal",) if config.attention == "causal" else ("masked",)
    return build_model(family, config, heads, seed=seed).eval()


def tokens_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, VOCAB, (length,), generator=generator).tolist() for length in lengths]


@pytest.fixture(params=[0, 512], ids=["fused attention", "matrix products"])
def either_attention(request, monkeypatch):
    monkeypatch.setattr(layers, "MATMUL_ATTENTION_MAX_LENGTH", request.param)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_document_does_not_see_its_neighbours(name, either_attention):
    model = small(name)
    pieces = tokens_of(9, 7, 5)
    inputs, row, first, last = Inputs.from_pieces(pieces, 32, pad=0)
    assert row.tolist() == [0, 0, 0]
    changed = inputs.tokens.clone()
    changed[0, first[1] : last[1] + 1] = 3
    before = model.encode(inputs)[0]
    after = model.encode(replace(inputs, tokens=changed))[0]
    for piece in (0, 2):
        assert torch.equal(before[first[piece] : last[piece] + 1], after[first[piece] : last[piece] + 1])
    assert not torch.allclose(before[first[1] : last[1] + 1], after[first[1] : last[1] + 1], atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_row_read_as_one_document_sees_all_of_it(name):
    model = small(name)
    row = torch.tensor([sum(tokens_of(9, 7, 5), [])])
    changed = row.clone()
    changed[0, 3] = (changed[0, 3] + 1) % VOCAB
    difference = (model.encode(Inputs.of_rows(row)) - model.encode(Inputs.of_rows(changed)))[0].abs().amax(-1)
    causal = model.config.attention == "causal"
    assert (difference[:3] == 0).all() if causal else (difference[:3] > 0).all()
    assert (difference[3:] > 0).all()


@pytest.mark.parametrize("window", [1, 2, 5])
@torch.no_grad()
def test_banded_attention_reaches_exactly_its_window(window, either_attention):
    model = small("gpt3", layers=1, windows=(window,))
    row = torch.tensor(tokens_of(16))
    changed = row.clone()
    changed[0, 4] = (changed[0, 4] + 1) % VOCAB
    difference = (model.encode(Inputs.of_rows(row)) - model.encode(Inputs.of_rows(changed)))[0].abs().amax(-1)
    assert difference.nonzero().flatten().tolist() == list(range(4, 4 + window))


@torch.no_grad()
def test_dense_and_banded_layers_alternate():
    """Two tokens of the past reach through the banded layers alone; the dense first layer reaches all."""
    row = torch.tensor(tokens_of(16))
    changed = row.clone()
    changed[0, 0] = (changed[0, 0] + 1) % VOCAB
    reach = []
    for windows in ((2,), (None, 2)):
        model = small("gpt3", windows=windows)
        difference = (model.encode(Inputs.of_rows(row)) - model.encode(Inputs.of_rows(changed)))[0].abs().amax(-1)
        reach.append(int(difference.nonzero().max()))
    assert reach == [2, 15]


@torch.no_grad()
def test_token_types_matter_only_to_bert():
    row = torch.tensor(tokens_of(8))
    plain = Inputs.of_rows(row)
    bert = small("bert")
    zero = bert.encode(replace(plain, token_types=torch.zeros_like(row)))
    assert torch.equal(zero, bert.encode(plain))
    one = bert.encode(replace(plain, token_types=torch.ones_like(row)))
    assert not torch.allclose(zero, one, atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_longer_than_the_model_is_an_error_and_a_row_of_short_ones_is_not(name):
    model = small(name)
    with pytest.raises(TilthError, match="the input has 33 tokens and the model reads at most 32"):
        model.encode(Inputs.of_rows(torch.tensor(tokens_of(33))))
    packed, *_ = Inputs.from_pieces(tokens_of(30, 30), 60, pad=0)
    assert model.encode(packed).shape == (1, 60, 32)


@torch.no_grad()
def test_bfloat16_is_near_float32():
    for name in FAMILIES:
        model = small(name)
        inputs = Inputs.of_rows(torch.tensor(tokens_of(20)))
        exact, rough = model.encode(inputs), model.encode(inputs, torch.bfloat16)
        assert exact.dtype == torch.float32 and rough.dtype == torch.bfloat16
        assert 0 < (exact - rough.float()).norm() < 0.02 * exact.norm()


def test_fresh_weights_depend_on_the_seed_and_their_names_alone():
    model, again, other = small("gpt2"), small("gpt2"), small("gpt2", seed=1)
    deeper = small("gpt2", layers=3)
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name])
        if parameter.dim() > 1:
            assert not torch.equal(parameter, other.state_dict()[name])
            if not name.endswith(("attention.out.weight", "mlp.down.weight")):
                assert torch.equal(parameter, deeper.state_dict()[name])
    torch.manual_seed(5)
    assert torch.equal(small("gpt2").trunk.embeddings.tokens.weight, model.trunk.embeddings.tokens.weight)


def test_fresh_weights_have_the_deviation_of_the_papers():
    for name in FAMILIES:
        model = small(name, width=64, head_size=32, mlp_width=256, layers=2)
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                assert set(parameter.tolist()) == ({0.0} if key.endswith("bias") else {1.0}), key
                continue
            small_start = key.endswith(("attention.out.weight", "mlp.down.weight")) and model.family.residual_scale
            assert parameter.std().item() == pytest.approx(0.01 if small_start else 0.02, rel=0.1), key


@pytest.mark.parametrize(
    ("name", "tied"), [*((name, True) for name in FAMILIES), *((name, False) for name in ("gpt2", "gpt3", "qwen3"))]
)
@torch.no_grad()
def test_tables_start_larger_where_blocks_add_to_them_and_logits_keep_their_size(name, tied):
    plain, model = (small(name, width=64, heads=4, layers=1, tied=tied) for _ in range(2))
    enlarge_tables(model)
    times = 4 if name in ("gpt2", "gpt3", "qwen3") else 1
    for key, parameter in model.named_parameters():
        expected = plain.get_parameter(key)
        if key.startswith("trunk.embeddings."):
            expected = expected * times
        elif key == "trunk.final_norm.weight" and tied:
            expected = expected / times
        assert torch.equal(parameter, expected), key
    inputs = Inputs.of_rows(torch.tensor(tokens_of(32)))
    before, after = (next(iter(each.heads.values()))(each.encode(inputs)).std().item() for each in (plain, model))
    assert after == pytest.approx(before, rel=0.2)


def test_nearly_all_can_be_dropped():
    torch.manual_seed(0)
    values = dropout(torch.ones(2**20), 0.999999, training=True)
    assert values.unique().tolist() == [0, 65_536] and values.mean() == pytest.approx(1, abs=1)


def test_dropout_acts_in_training_only_and_is_set_everywhere():
    for name in FAMILIES:
        model = small(name)
        inputs = Inputs.of_rows(torch.tensor(tokens_of(20)))
        plain = model.encode(inputs)
        model.set_dropout(0)
        model.set_dropout(0.5)
        rates = [module.dropout for module in model.modules() if isinstance(getattr(module, "dropout", None), float)]
        assert rates == [0.5] * 5
        assert torch.equal(model.encode(inputs), plain)
        torch.manual_seed(0)
        assert not torch.allclose(model.train().encode(inputs), plain, atol=1e-2)


def test_a_classify_head_starts_from_the_pooler_of_next_sentence_prediction():
    family = FAMILIES["bert"]
    config = replace(family.sizes["tiny"], vocab_size=VOCAB, max_length=32)
    model = build_model(family, config, ("masked", "next_sentence"), seed=0)
    model.add_head("classify", ["a", "b", "c"], seed=1)
    assert model.labels == ["a", "b", "c"]
    pooler = model.heads["next_sentence"].pooler.weight
    assert torch.equal(model.heads["classify"].pooler.weight, pooler)
    assert model.heads["classify"].pooler.weight is not pooler
    assert model.heads["classify"].out.weight.shape == (3, 128)
    fresh = model.heads["classify"].out.weight.clone()
    model.add_head("classify", ["a", "b", "c"], seed=2)
    assert not torch.equal(model.heads["classify"].out.weight, fresh)


pieces_of_tokens = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), min_size=1, max_size=30)


@given(pieces_of_tokens, st.one_of(st.none(), st.integers(12, 40)))
def test_packed_pieces_are_all_there_once(pieces, length):
    inputs, row, first, last = Inputs.from_pieces(pieces, length, pad=0)
    rows, width = inputs.tokens.shape
    assert width <= (length or max(map(len, pieces)))
    real = inputs.documents >= 0
    assert real.sum() == sum(map(len, pieces))
    assert (inputs.tokens[~real] == 0).all() and (inputs.positions[~real] == 0).all()
    assert real.any(0).all() and real.any(1).all()
    for index, piece in enumerate(pieces):
        places = slice(int(first[index]), int(last[index]) + 1)
        assert inputs.tokens[row[index], places].tolist() == piece
        assert inputs.positions[row[index], places].tolist() == list(range(len(piece)))
        assert inputs.documents[row[index], places].unique().numel() == 1
    for number in range(rows):
        documents = inputs.documents[number][real[number]]
        assert documents.tolist() == sorted(documents.tolist())
        assert documents.unique().tolist() == list(range((row == number).sum()))
    # First-fit leaves at most one row half empty.
    used = sorted(real.sum(1).tolist())
    assert all(fill * 2 > (length or width) for fill in used[1:])


def test_rows_of_one_piece_with_and_without_padding():
    tokens = torch.tensor([[5, 6, 7], [8, 9, 0]])
    inputs = Inputs.of_rows(tokens, torch.tensor([3, 2]))
    assert inputs.documents.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert inputs.positions[0].tolist() == [0, 1, 2]
    assert Inputs.of_rows(tokens).documents.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("rate", "dtype"), [(0.1, torch.bfloat16), (0.5, torch.float32), (0.999, torch.float32)])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float, dtype: torch.dtype):
    torch.manual_seed(0)
    values = torch.full((3, 7, 9_999), 2.0, dtype=dtype, requires_grad=True)
    dropped = dropout(values, rate, training=True)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / values.numel()) ** 0.5)
    kept = dropped[dropped != 0].detach()
    assert torch.allclose(kept.float(), torch.full_like(kept, 2 / (1 - rate)).float(), rtol=0.01)
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad != 0, dropped != 0)
    assert dropout(values, rate, training=False) is values
    # No place of a draw is favoured: each of the four parts of 64 bits drops alike.
    parts = (dropped.detach().flatten()[: values.numel() // 4 * 4].view(-1, 4) == 0).float().mean(0)
    assert parts == pytest.approx(torch.full((4,), rate), abs=8 * (rate * (1 - rate) / values.numel()) ** 0.5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_rows_of_one_document_share_a_mask_and_need_none_where_all_is_seen(name, monkeypatch):
    model = small(name)
    pieces = tokens_of(24, 24, 9, 15)
    packed, row, _, _ = Inputs.from_pieces(pieces, 24, pad=0)  # the last two share a row
    assert row[2] == row[3]
    alike = [int(row[0]), int(row[1])]
    shapes = []

    def counted(documents_BS: torch.Tensor, *rest) -> torch.Tensor:
        shapes.append(documents_BS.shape)
        return attention_bias(documents_BS, *rest)

    monkeypatch.setattr(trunk, "attention_bias", counted)
    expected = model.encode(packed)[alike]
    assert set(shapes) == {packed.tokens.shape}
    shapes.clear()
    got = model.encode(Inputs.of_rows(packed.tokens[alike]))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    config = model.config
    masks = set(config.windows) - ({None} if config.attention == "bidirectional" else set())
    assert shapes == [(1, 24)] * len(masks)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_long_rows_of_one_document_need_no_causal_mask(name, monkeypatch):
    """Vectors and gradients are those of rows with a mask; dropout, which the kernel for it lacks, needs one."""
    model = small(name)
    tokens = torch.tensor(tokens_of(24, 24))
    wanted = torch.randn(2, 24, model.config.width, generator=torch.Generator().manual_seed(1))
    masks = []
    monkeypatch.setattr(trunk, "attention_bias", lambda *given: masks.append(given) or attention_bias(*given))

    def outcome() -> list[torch.Tensor]:
        hidden = model.encode(Inputs.of_rows(tokens))
        return [hidden, *torch.autograd.grad((hidden * wanted).sum(), list(model.trunk.parameters()))]

    expected = outcome()
    assert len(masks) == 1
    monkeypatch.setattr(trunk, "CAUSAL_KERNEL_MIN_LENGTH", 24)
    for ours, theirs in zip(outcome(), expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() + 1e-7
    assert len(masks) == 1
    model.set_dropout(0.1)
    model.train()
    outcome()
    assert len(masks) == 2


@pytest.mark.parametrize(("lengths", "places"), [((21,), [12, 3]), ((9, 7, 5, 12), [12, 3, 41, 11, 3])])
@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_of_some_tokens_are_those_of_all_and_so_are_the_gradients(
    name, lengths, places, either_attention, monkeypatch
):
    monkeypatch.setattr(trunk, "CAUSAL_KERNEL_MIN_LENGTH", 21)
    model = small(name, layers=3)
    inputs, *_ = Inputs.from_pieces(tokens_of(*lengths), 21, pad=0)
    places = torch.tensor(places)
    wanted = torch.randn(len(places), model.config.width, generator=torch.Generator().manual_seed(1))
    computed = []
    with monkeypatch.context() as patch:
        patch.setattr(model.trunk.blocks[-1].mlp, "forward", spied(model.trunk.blocks[-1].mlp.forward, computed))
        some = model.encode(inputs, places_N=places)
    assert computed == [(len(places), 32)]
    of_all = model.encode(inputs).flatten(0, 1)[places]
    assert torch.allclose(some, of_all, atol=1e-5)
    assert (some[0] - some[1]).abs().max() > 0.01
    gradients = [
        torch.autograd.grad((hidden * wanted).sum(), list(model.trunk.parameters())) for hidden in (some, of_all)
    ]
    for mine, whole in zip(*gradients, strict=True):
        assert (mine - whole).abs().max() <= 1e-5 * whole.abs().max() + 1e-7


@torch.no_grad()
def test_vectors_of_most_tokens_or_none_are_taken_from_all(monkeypatch):
    model = small("bert")
    inputs, *_ = Inputs.from_pieces(tokens_of(9, 7), 9, pad=0)
    of_all = model.encode(inputs).flatten(0, 1)
    computed = []
    monkeypatch.setattr(model.trunk.blocks[-1].mlp, "forward", spied(model.trunk.blocks[-1].mlp.forward, computed))
    for places in ([], list(range(10))):
        assert torch.equal(model.encode(inputs, places_N=torch.tensor(places, dtype=torch.int64)), of_all[places])
    assert computed == [(2, 9, 32)] * 2


def test_gradients_of_some_tokens_are_the_same_where_blocks_are_recomputed_and_near_in_bfloat16():
    model = small("bert").train()
    inputs, *_ = Inputs.from_pieces(tokens_of(9, 7, 5, 12), 21, pad=0)

    def gradients(dtype: torch.dtype, recompute: bool) -> list[torch.Tensor]:
        model.trunk.recompute_blocks = recompute
        hidden = model.encode(inputs, dtype, torch.tensor([12, 3, 41, 11]))
        wanted = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
        return list(torch.autograd.grad((hidden.float() * wanted).sum(), list(model.trunk.parameters())))

    exact = gradients(torch.float32, False)
    for kept, recomputed in zip(exact, gradients(torch.float32, True), strict=True):
        assert torch.equal(kept, recomputed)
    for kept, rough in zip(exact, gradients(torch.bfloat16, False), strict=True):
        assert (kept - rough).norm() <= 0.05 * kept.norm() + 1e-4


def spied(forward, shapes: list):
    """`forward` that notes the shapes of what it is given."""

    def call(hidden):
        shapes.append(tuple(hidden.shape))
        return forward(hidden)

    return call
