import pytest
import torch

from tilth.errors import TilthError
from tilth.train.corruption import parameters_checksum, recompute
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log


@pytest.fixture(scope="module")
def run(opened):
    return opened("bert-mini", "model.dropout=0.1")


def flip_a_bit(trunk, call):
    """The given call of the last block's feed-forward layer, dropout off, errs in one bit."""
    calls = []

    def flip(_, __, output):
        calls.append(0 if trunk.training else 1)
        if calls[-1] and sum(calls) == call:
            output.detach().view(-1)[3:4].view(torch.int32).bitwise_xor_(1 << 22)

    return trunk.blocks[-1].mlp.register_forward_hook(flip)


def test_one_wrong_bit_in_one_of_two_computations_is_found(run):
    run.model.train()
    guard = (run.replica, run.guarded)
    assert recompute(*guard) == []
    for call in (1, 2):
        hook = flip_a_bit(run.model.trunk, call)
        (finding,) = recompute(*guard)
        hook.remove()
        assert finding.kind == "corruption" and "process 0 computed the same batch twice" in finding.message
    assert run.model.training
    assert recompute(*guard) == []


def test_a_wrong_bit_in_the_generator_is_found(opened):
    run = opened("electra-mini")
    hook = flip_a_bit(run.model.generator.trunk, 2)
    (finding,) = recompute(run.replica, run.guarded)
    hook.remove()
    assert finding.kind == "corruption"
    assert recompute(run.replica, run.guarded) == []


def test_a_run_says_so(recipe, corpus, monkeypatch, tmp_path):
    from tilth.train.loop import Run

    start = Run.__init__

    def broken(self, *arguments):
        start(self, *arguments)
        flip_a_bit(self.model.trunk, 8)

    monkeypatch.setattr(Run, "__init__", broken)
    settings = recipe(
        "gpt2-mini",
        "train.recompute_every=2",
        "train.on_corruption=stop",
        "train.micro_batch_tokens=512",
        "train.save_every=3 steps",
        "train.evaluate_every=12 steps",
    )
    with pytest.raises(TilthError, match="step 8: process 0 computed the same batch twice, and the numbers differ"):
        pretrain(settings, corpus, tmp_path / "run", progress=False)
    (warning,) = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "warning"]
    assert (warning["kind"], warning["action"]) == ("corruption", "stop")
    # What a broken machine has in memory is not kept: the run goes on from what was saved before.
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000006"
    monkeypatch.undo()
    assert pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)["step"] == 12


def test_the_checksum_depends_on_every_bit_and_place(run):
    before = parameters_checksum(run.model)
    assert 0 <= before < 2**63 and parameters_checksum(run.model) == before
    seen = {before}
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            flat = parameter.view(-1)
            for place, bit in ((0, 0), (flat.numel() - 1, 31)):
                bits = flat[place : place + 1].view(torch.int32)
                mask = torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
                bits.bitwise_xor_(mask)
                changed = parameters_checksum(run.model)
                assert changed not in seen, (name, place, bit)
                seen.add(changed)
                bits.bitwise_xor_(mask)
        table = run.model.trunk.embeddings.tokens.weight
        table.copy_(table.flip(0))
        assert parameters_checksum(run.model) not in seen
        table.copy_(table.flip(0))
    assert parameters_checksum(run.model) == before
