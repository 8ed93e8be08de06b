import pytest
import torch

from tilth.model.inputs import Inputs
from tilth.model.layers import attend, attention_bias
from tilth.model.segments import Segments, attend_segments, piece_bounds, runs_on_segments

DOCUMENTS = torch.tensor([[0, 0, 1, 1, 1, -1], [0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_bounds_are_where_a_document_or_a_row_begins_and_the_end_up_to_a_power_of_two():
    bounds = piece_bounds(DOCUMENTS)
    assert bounds.dtype == torch.int32
    assert bounds.tolist() == [0, 2, 5, 6, 7, 8, 12, 18, 18]
    assert piece_bounds(torch.tensor([[0, 0], [0, 0]])).tolist() == []


def test_the_number_of_bounds_hardly_depends_on_the_number_of_documents():
    sizes = set()
    for pieces in range(2, 65):
        documents = (torch.arange(64) * pieces // 64)[None]
        bounds = piece_bounds(documents)
        assert len(bounds.unique()) == pieces + 1
        sizes.add(len(bounds))
    assert sizes == {5, 9, 17, 33, 65, 129}


def test_a_cpu_attends_under_a_mask():
    assert not runs_on_segments(torch.device("cpu"))
    assert Inputs.of_rows(DOCUMENTS).to(torch.device("cpu")).bounds is None


@needs_gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("documents", [DOCUMENTS, torch.zeros_like(DOCUMENTS)])
def test_segments_give_what_a_mask_gives(causal, window, documents):
    device = torch.device("cuda")
    if not runs_on_segments(device):
        pytest.skip("needs a GPU of compute capability 8.0")
    generator = torch.Generator(device).manual_seed(0)
    draws = torch.randn(3, 3, 6, 2, 16, generator=generator, device=device, dtype=torch.bfloat16).requires_grad_()
    weights = torch.randn(3, 2, 6, 16, generator=generator, device=device)
    bounds, documents = piece_bounds(documents).to(device), documents.to(device)
    bias = attention_bias(documents, causal, window, torch.float32)
    reach = -1 if window is None else window - 1
    segments = Segments(bounds, 6, (reach, 0 if causal else reach))
    q, k, v = (part.transpose(1, 2) for part in draws)
    expected = attend(q.float(), k.float(), v.float(), bias, 0.0)
    got = attend_segments(q, k, v, segments)
    torch.testing.assert_close(got.float(), expected, rtol=0.02, atol=0.02)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), draws, retain_graph=True)
    (ours,) = torch.autograd.grad((got * weights).sum(), draws)
    assert (ours.float() - theirs.float()).norm() < 0.02 * theirs.float().norm()
