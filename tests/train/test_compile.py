"""Compiled steps, and what else only a GPU does."""

import json

import pytest
import torch

from tilth.errors import UsageError
from tilth.model.compiled import compile_apart
from tilth.model.families import FAMILIES
from tilth.model.model import build_model
from tilth.recipe import builtin_recipes
from tilth.train.batches import Batches
from tilth.train.layers import LayerProbe
from tilth.train.loop import pretrain
from tilth.train.parallel import compiles
from tilth.train.prepare import prepare
from tilth.train.trackers import read_log

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# torch's compiler warns of torch's own doings.
pytestmark = pytest.mark.filterwarnings("ignore")
ON_GPU = ("train.device=cuda", "train.precision=bfloat16", "model.heads=2", "model.width=32")


def test_on_a_cpu_a_step_is_compiled_when_asked_to_and_never_with_sharded_weights(recipe):
    cpu = torch.device("cpu")
    assert not compiles(recipe("gpt2-mini").train, cpu, 1)
    asked = recipe("gpt2-mini", "train.compile=true").train
    assert compiles(asked, cpu, 1) and compiles(asked, cpu, 2)
    with pytest.raises(UsageError, match=r"train\.compile has no effect beside train\.parallel=fsdp"):
        recipe("gpt2-mini", "train.compile=true", "train.parallel=fsdp")
    sharded = asked.model_copy(update={"parallel": "fsdp"})
    assert compiles(sharded, cpu, 1) and not compiles(sharded, cpu, 2)


@pytest.mark.parametrize(
    "name",
    ["modernbert-mini", *(pytest.param(name, marks=pytest.mark.slow) for name in ("electra-mini", "gpt2-mini"))],
)
def test_a_compiled_step_has_the_loss_and_gradients_of_any_other(recipe, corpus, tmp_path, name):
    settings = recipe(name)
    prepared = prepare(settings, corpus, tmp_path, False, False)
    (batch,) = Batches(prepared.objective, prepared.train, 0, 8, 8).at(0)
    family = FAMILIES[settings.family]
    shape = {"layers": 2, "width": 32, "heads": 2, "head_size": 16, "mlp_width": 64, "max_length": 32}
    config = family.sizes["mini"].__class__(
        **{**vars(family.sizes["mini"]), **shape, "vocab_size": prepared.tokenizer.vocab_size}
    )
    results = []
    for compiled in (False, True):
        model = build_model(family, config, prepared.objective.heads, seed=0).train()
        for trunk in model.trunks():
            trunk.compiled = compiled
        sums = batch.loss_sums(model, torch.float32)
        torch.stack(list(sums.values())).sum().backward()
        gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        results.append((sums, gradients))
    (sums, gradients), (compiled_sums, compiled_gradients) = results
    torch.testing.assert_close(compiled_sums, sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-4)


def test_a_compiled_run_is_watched_as_any_other_and_goes_on_only_compiled(recipe, corpus, tmp_path):
    losses = {}
    for compiled in ("true", "false"):
        settings = recipe("gpt2-mini", f"train.compile={compiled}", "train.budget=4 steps")
        pretrain(settings, corpus, tmp_path / compiled, progress=False)
        log = read_log(tmp_path / compiled / "log.jsonl")
        losses[compiled] = [record["loss"] for record in log if record["event"] == "step"]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    (checkpoint, *_) = sorted((tmp_path / "true" / "checkpoints").glob("step-*"))
    assert json.loads((checkpoint / "state.json").read_text())["identity"]["compiled"] is True


def test_looking_at_layers_leaves_a_compiled_model_compiled(small_model):
    model = small_model("electra", 90, ("replaced_token",))
    for trunk in model.trunks():
        trunk.compiled = True
    with LayerProbe(model):
        assert [trunk.compiled for trunk in model.trunks()] == [False, False]
    assert [trunk.compiled for trunk in model.trunks()] == [True, True]


def test_each_kind_of_block_has_a_limit_of_its_own_on_what_is_compiled(monkeypatch):
    copies = []
    monkeypatch.setattr(torch, "compile", lambda function: copies.append(function) or function)
    first, second = compile_apart(kept_apart), compile_apart(kept_apart)
    assert first(1) == second(1) == 2
    assert len({id(copy.__code__) for copy in [*copies, kept_apart]}) == 3


def kept_apart(number: int) -> int:
    return number + 1


@needs_gpu
@pytest.mark.parametrize("name", builtin_recipes())
def test_a_gpu_learns_what_a_cpu_learns(recipe, corpus, tmp_path, name):
    losses = []
    for place in (("train.device=cpu", "train.precision=float32"), ON_GPU):
        pretrain(recipe(name, *place), corpus, tmp_path / place[0], progress=False)
        log = read_log(tmp_path / place[0] / "log.jsonl")
        losses.append([record["loss"] for record in log if record["event"] == "step"])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@needs_gpu
@pytest.mark.parametrize("name", ["bert-mini", "electra-mini", "gpt2-mini", "modernbert-mini"])
def test_a_run_on_a_gpu_that_was_stopped_goes_on_to_the_same_bits(recipe, corpus, tmp_path, run_until, outcome, name):
    settings = recipe(name, *ON_GPU, "train.micro_batch_tokens=128")
    pretrain(settings, corpus, tmp_path / "straight", progress=False)
    run_until(settings, corpus, tmp_path / "stopped", stop=7)
    pretrain(settings, corpus, tmp_path / "stopped", resume=True, progress=False)
    straight, stopped = outcome(tmp_path / "straight"), outcome(tmp_path / "stopped")
    assert stopped["log"] == straight["log"]
    for part in straight:
        assert stopped[part] == straight[part], part
