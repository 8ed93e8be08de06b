"""A model folder is whole and honest, or the error says what is wrong with it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tilth.errors import TilthError
from tilth.model.families import FAMILIES
from tilth.model.folder import load_model, save_model
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.tokens.tokenizer import TextTokenizer

HEADS = {
    "bert": ("masked", "next_sentence"),
    "roberta": ("masked",),
    "gpt2": ("causal",),
    "gpt3": ("causal",),
    "modernbert": ("masked",),
    "qwen3": ("causal",),
    "electra": ("replaced_token",),
}


@pytest.fixture(scope="module")
def small(text_tokenizer, small_model):
    """A function: a small model of a family and its tokenizer."""

    def make(name: str, *heads: str, **changes) -> tuple[Model, TextTokenizer]:
        tokenizer = text_tokenizer(FAMILIES[name])
        vocab_size = changes.pop("vocab_size", tokenizer.vocab_size)
        return small_model(name, vocab_size, heads or HEADS[name], **changes), tokenizer

    return make


@pytest.fixture
def saved(small, tmp_path):
    """A function: the folder of a small model."""

    def save(name: str, *heads: str) -> Path:
        model, tokenizer = small(name, *heads)
        save_model(model, tokenizer, tmp_path / name)
        return tmp_path / name

    return save


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "gone"}))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_reopened_with_the_same_weights_and_heads(name, small, tmp_path):
    model, tokenizer = small(name)
    save_model(model, tokenizer, tmp_path / "model", card="# A model")
    again, their_tokenizer = load_model(tmp_path / "model")
    by_layer = {"windows": again.config.windows, "rope_thetas": again.config.rope_thetas}
    assert replace(again.config, kv_heads=again.config.num_kv_heads) == replace(
        model.config, kv_heads=model.config.num_kv_heads, **by_layer
    )
    for layer in (0, 1):
        assert again.config.window(layer) == model.config.window(layer)
        assert again.config.rope_theta(layer) == model.config.rope_theta(layer)
    assert tuple(again.heads) == HEADS[name]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-6, atol=1e-9)
    assert not again.training and all(parameter.requires_grad for parameter in again.parameters())
    assert their_tokenizer.fingerprint == tokenizer.fingerprint
    assert their_tokenizer.special == tokenizer.special
    assert (tmp_path / "model" / "README.md").read_text() == "# A model"
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= written
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_frames_and_reads_back_a_text_as_we_do(name, saved):
    folder = saved(name)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    _, ours = load_model(folder)
    text = "the quick fox, and a lazy dog"
    bert, roberta = (["[CLS]"], ["[SEP]"]), (["<s>"], ["</s>"])
    framing = {"bert": bert, "electra": bert, "roberta": roberta, "modernbert": roberta}.get(name, ([], []))
    opened, closed = (theirs.convert_tokens_to_ids(tokens) for tokens in framing)
    encoded = theirs(text)
    assert encoded["input_ids"] == [*opened, *ours.encode(text), *closed]
    assert theirs.decode(encoded["input_ids"], skip_special_tokens=True) == ours.decode(ours.encode(text)) == text
    assert ("token_type_ids" in encoded) == (name in ("bert", "electra"))
    assert theirs.model_max_length == 24
    roles = FAMILIES[name].token_roles
    assert roles and all(
        getattr(theirs, f"{role}_token_id") == getattr(ours.special, ours_role) for role, ours_role in roles.items()
    )
    if name == "bert":
        pair = theirs("the fox", "a dog")
        ids = [ours.special.cls, *ours.encode("the fox"), ours.special.sep, *ours.encode("a dog"), ours.special.sep]
        assert pair["input_ids"] == ids
        assert sum(pair["token_type_ids"]) == len(ours.encode("a dog")) + 1


def test_the_generator_is_a_model_of_its_own_on_the_same_embeddings(small, tmp_path):
    model, tokenizer = small("electra", generator_size=0.5)
    save_model(model, tokenizer, tmp_path / "model")
    generator, _ = load_model(tmp_path / "model" / "generator")
    assert model.generator is not None and generator.config.width == 16 and tuple(generator.heads) == ("masked",)
    inputs = Inputs.of_rows(torch.tensor([[2, 7, 9, 3]]))
    with torch.no_grad():
        assert torch.equal(generator.encode(inputs), model.generator.eval().encode(inputs))
    tokens = "trunk.embeddings.tokens.weight"
    assert torch.equal(generator.state_dict()[tokens], model.state_dict()[tokens])
    assert not any(name.startswith("generator.trunk.embeddings") for name in model.state_dict())

    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model" / "generator").eval()
    with torch.no_grad():
        logits = generator.heads["masked"](generator.encode(inputs)[0])
        assert (theirs(inputs.tokens).logits[0] - logits).abs().max() < 1e-4

    shutil.rmtree(tmp_path / "model" / "generator")
    alone, _ = load_model(tmp_path / "model")
    assert alone.generator is None and alone.config.generator_size == 0
    with torch.no_grad():
        assert torch.equal(alone.encode(inputs), model.eval().encode(inputs))


def test_a_classifier_needs_no_generator(small, tmp_path):
    model, tokenizer = small("electra")
    model.add_head("classify", ["no", "yes"], seed=1)
    assert model.generator is None
    save_model(model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model" / "generator").exists()
    assert tuple(load_model(tmp_path / "model")[0].heads) == ("classify",)


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("modernbert", {"norm_bias": True}, "norm_bias is True, not False"),
        ("modernbert", {"layer_types": ["linear_attention"] * 2}, "layer_types is"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "stretched .'yarn'"),
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not silu"),
        ("qwen3", {"attention_bias": True}, "queries, keys and values have biases"),
        ("qwen3", {"use_sliding_window": True}, "attend to a window"),
        ("qwen3", {"num_key_value_heads": 3}, "2 heads cannot share 3"),
        ("electra", {"tie_word_embeddings": False}, "output weights are not tied"),
    ],
)
def test_variants_of_newer_families_are_not_misread(name, changes, problem, saved):
    folder = saved(name)
    change_config(folder, **changes)
    with pytest.raises(TilthError, match=problem):
        load_model(folder)


def test_configurations_of_older_transformers_are_understood(saved):
    """ModernBERT's and Qwen3's, as the released models have them."""
    folder = saved("modernbert")
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 5e4, "local_rope_theta": 2e4, "local_attention": 6}
    change_config(folder, **older, layer_types="gone", rope_parameters="gone")
    config = load_model(folder)[0].config
    assert (config.windows, config.rope_thetas) == ((None, 4), (5e4, 2e4))
    folder = saved("qwen3")
    change_config(folder, rope_theta=3e5, rope_parameters="gone", rope_scaling=None)
    assert load_model(folder)[0].config.rope_thetas == (3e5,)


def test_heads_that_do_not_fit_their_architecture_are_not_saved(small, tmp_path):
    model, tokenizer = small("gpt3", width=32, heads=3, head_size=16)
    with pytest.raises(TilthError, match="3 x 16 for a width of 32"):
        save_model(model, tokenizer, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    model, tokenizer = small("roberta")
    model.add_head("next_sentence")
    with pytest.raises(TilthError, match="no roberta architecture .* holds the heads masked, next_sentence"):
        save_model(model, tokenizer, tmp_path / "model")


def test_positions_that_transformers_would_count_otherwise_are_not_saved(small, tmp_path):
    model, _ = small("roberta")
    _, wordpiece = small("bert")
    with pytest.raises(TilthError, match="positions start at 2, and it would start them at 1"):
        save_model(model, wordpiece, tmp_path / "model")


def test_a_classifier_is_saved_without_the_heads_of_pretraining(small, tmp_path):
    model, tokenizer = small("bert")
    model.add_head("classify", ["no", "yes"], seed=1)
    save_model(model, tokenizer, tmp_path / "model")
    again, _ = load_model(tmp_path / "model")
    assert tuple(again.heads) == ("classify",)
    assert again.labels == ["no", "yes"]
    assert torch.equal(again.heads["classify"].out.weight, model.heads["classify"].out.weight)


def test_a_classifier_of_two_unnamed_classes_opens(tokenizer_folder, tmp_path):
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    tokenizer_folder(tmp_path, FAMILIES["bert"])
    model, _ = load_model(tmp_path)
    assert model.labels == ["LABEL_0", "LABEL_1"]
    assert model.heads["classify"].out.weight.shape == (2, 16)


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label_classification", "id2label": {0: "toxic", 1: "insult", 2: "threat"}},
        {"problem_type": "regression", "id2label": {0: "joy", 1: "anger"}},
        {"num_labels": 1},
    ],
)
def test_a_classifier_that_does_not_give_one_label_is_a_trunk(config, tokenizer_folder, tmp_path):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=30, **size, **config))
    theirs.save_pretrained(tmp_path)
    tokenizer_folder(tmp_path, FAMILIES["bert"])
    model, _ = load_model(tmp_path)
    assert tuple(model.heads) == () and model.labels == []
    weight = theirs.bert.encoder.layer[0].output.dense.weight
    assert torch.equal(model.trunk.blocks[0].mlp.down.weight, weight)  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "holds a LlamaForCausalLM; Tilth opens Bert"),
        ({"architectures": None, "model_type": "gone"}, "holds a model without a name"),
        ({"hidden_size": "gone"}, r"config\.json lacks 'hidden_size'"),
        ({"hidden_act": "relu"}, "a variant of bert that Tilth does not have: hidden_act 'relu' is not gelu"),
        ({"is_decoder": True}, "it is a decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key' is not absolute"),
        ({"tie_word_embeddings": False}, "output weights are not tied"),
        ({"num_hidden_layers": 3}, r"do not fit its config\.json: missing trunk\.blocks\.2\."),
        ({"intermediate_size": 60}, r"wrong shape of trunk\.blocks\.0\.mlp\.down\.weight"),
        ({"vocab_size": 40}, "has 90 entries and the model 40: they do not belong together"),
    ],
)
def test_a_folder_that_does_not_fit_says_why(changes, problem, saved):
    folder = saved("bert")
    change_config(folder, **changes)
    with pytest.raises(TilthError, match=problem):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"activation_function": "relu"}, "'relu' is not gelu_new"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scales attention in another way"),
        ({"tie_word_embeddings": False}, "output weights are not tied"),
    ],
)
def test_variants_of_gpt2_are_not_misread(changes, problem, saved):
    folder = saved("gpt2")
    change_config(folder, **changes)
    with pytest.raises(TilthError, match=problem):
        load_model(folder)


def test_files_that_are_missing_or_damaged_are_named(saved, tmp_path):
    folder = saved("gpt2")
    weights, config = folder / "model.safetensors", folder / "config.json"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(TilthError, match=r"model\.safetensors is damaged"):
        load_model(folder)
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(TilthError, match=r"model\.safetensors is damaged"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(TilthError, match=r"has no model\.safetensors$"):
        load_model(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(TilthError, match=r"has no model\.safetensors \(pytorch_model\.bin is a pickle, .* never opens"):
        load_model(folder)
    weights.write_bytes(content)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TilthError, match="tokenizer"):
        load_model(folder)
    config.write_text("{")
    with pytest.raises(TilthError, match=r"config\.json is not valid JSON"):
        load_model(folder)
    config.write_text("[]")
    with pytest.raises(TilthError, match=r"config\.json holds no settings"):
        load_model(folder)
    config.unlink()
    with pytest.raises(TilthError, match=r"is not a model folder: it has no config\.json"):
        load_model(folder)
    for nothing in (tmp_path / "nowhere", "a/b/c", config.parent / "model.safetensors", "../nowhere"):
        with pytest.raises(TilthError, match="no model folder at"):
            load_model(nothing)
    with pytest.raises(TilthError, match="neither a model folder here nor to be had from the Hugging Face hub"):
        load_model("somebody/nothing-of-that-name")


def test_a_run_folder_opens_as_its_model(saved, tmp_path):
    folder = saved("gpt2")
    (tmp_path / "run").mkdir()
    folder.rename(tmp_path / "run" / "model")
    assert load_model(tmp_path / "run")[0].family.name == "gpt2"


def test_names_of_the_tensorflow_era_and_of_bare_trunks_open(saved):
    folder = saved("bert")
    expected, _ = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, folder / "model.safetensors")
    again, _ = load_model(folder)
    for key, value in expected.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)

    bare = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(bare, folder / "model.safetensors")
    change_config(folder, architectures=["BertModel"])
    trunk, _ = load_model(folder)
    assert tuple(trunk.heads) == ()
    inputs = Inputs.of_rows(torch.tensor([[2, 7, 9, 3]]))
    assert torch.equal(trunk.encode(inputs), expected.encode(inputs))


def test_gpt2_as_first_released_opens(saved):
    """Without the prefix `transformer.`, with the attention masks as buffers."""
    folder = saved("gpt2")
    expected, _ = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    released = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    released |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 24, 24).tril() for layer in range(2)}
    save_file(released, folder / "model.safetensors")
    again, _ = load_model(folder)
    assert tuple(again.heads) == ("causal",)
    for key, value in expected.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_weights_in_several_files_and_half_precision_open(saved):
    folder = saved("gpt2")
    expected, _ = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: tensors[name].bfloat16() for name in chosen}, folder / file)
    index = {name: file for file, chosen in halves.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    again, _ = load_model(folder)
    for key, value in expected.state_dict().items():
        assert again.state_dict()[key].dtype == torch.float32
        assert torch.equal(again.state_dict()[key], value.bfloat16().float())
    index[names[0]] = "../outside.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(TilthError, match=r"names a file outside its folder: \.\./outside"):
        load_model(folder)


def test_a_failed_save_leaves_the_model_that_was_there(small, tmp_path):
    model, tokenizer = small("gpt2")
    save_model(model, tokenizer, tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    model.add_head("classify", ["a"], seed=0)
    model.labels = [object()]  # what JSON cannot hold
    with pytest.raises(TypeError):
        save_model(model, tokenizer, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_loaded_without_what_only_compilers_need(small, tmp_path: Path):
    """torch loads sympy, most of a second, to draw numbers that no device holds."""
    save_model(*small("bert"), tmp_path / "model")
    code = (
        "import sys; from tilth.model.folder import load_model; load_model(sys.argv[1]); print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen3"])
def test_weights_of_more_layers_than_the_configuration_says_are_refused(name, saved):
    folder = saved(name)
    config = json.loads((folder / "config.json").read_text())
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    assert config[key] == 2
    change_config(folder, **{key: 1})
    with pytest.raises(TilthError, match=r"do not fit its config\.json: more than 1 layers have some"):
        load_model(folder)
