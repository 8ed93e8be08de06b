import json

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import tilth
from tilth.corpus.reader import seal
from tilth.errors import TilthError, UsageError
from tilth.files import sha256_file
from tilth.model.families import FAMILIES
from tilth.model.folder import load_model, save_model
from tilth.model.inputs import Inputs
from tilth.model.model import INITIAL_DEVIATION
from tilth.recipe import load_recipe
from tilth.tokens.shards import open_shards
from tilth.tokens.tokenizer import load_tokenizer
from tilth.train.account import found_at_start
from tilth.train.distributed import World
from tilth.train.loop import pretrain
from tilth.train.prepare import _trunk_config, check_family, fresh_model, prepare
from tilth.train.trackers import read_log


def prepared_in(run, recipe, corpus, resume=False):
    run.mkdir(exist_ok=True)
    return prepare(recipe, corpus, run, resume, progress=False)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["family=brt"], "no family 'brt'.*did you mean bert"),
        (["size=minii"], "gpt2 has no size 'minii'.*did you mean mini"),
        (["objective.name=masked"], r"objective\.name: gpt2 does not learn by 'masked'; valid: causal"),
        (["data.length=64", "model.max_length=32"], r"data\.length=64 is longer than the model reads.*max_length=32"),
        (["model.width=33"], r"model\.width=33 is not divisible by model\.heads=2"),
        (["family=gpt3", "size=1.3b", "model.width=", "model.heads="], "24 x 128 for a width of 2048.*model.heads=16"),
        (
            ["family=gpt3", "size=13b", "model.width=", "model.heads="],
            "40 x 128 for a width of 5140.*width=5120 for 13b",
        ),
    ],
)
def test_settings_that_do_not_fit_are_found_before_any_work(overrides, problem, recipe, tmp_path):
    """The data does not even exist: nothing looked for it."""
    run = tmp_path / "run"
    with pytest.raises(UsageError, match=problem):
        pretrain(recipe("gpt2-mini", *overrides), tmp_path / "nowhere", run, progress=False)
    assert list(run.iterdir()) == []


def test_each_family_says_which_objectives_suit_it():
    for name, family in FAMILIES.items():
        values = load_recipe(f"{name}-mini")
        assert check_family(values) is family
    with pytest.raises(UsageError, match="roberta does not learn by 'next_sentence'; valid: masked$"):
        check_family(load_recipe("roberta-mini", ["objective.name=next_sentence"]))
    with pytest.raises(UsageError, match="bert does not learn by 'causal'; valid: masked, next_sentence$"):
        check_family(load_recipe("bert-mini", ["objective.name=causal"]))


@pytest.mark.parametrize(
    ("overrides", "width", "heads", "head_size", "kv_heads"),
    [
        (["gpt3-mini", "size=1.3b", "model.heads=16"], 2048, 16, 128, 0),
        (["gpt3-mini", "size=13b", "model.width=5120"], 5120, 40, 128, 0),
        (["qwen3-mini", "size=0.6b", "model.heads=8"], 1024, 8, 256, 4),
        (["qwen3-mini", "model.width=320", "model.heads=5"], 320, 5, 64, 1),
    ],
)
def test_heads_and_width_of_a_size_can_be_changed(overrides, width, heads, head_size, kv_heads):
    settings = load_recipe(overrides[0], overrides[1:])
    config = _trunk_config(settings, check_family(settings), 1000)
    assert (config.width, config.heads, config.head_size, config.kv_heads) == (width, heads, head_size, kv_heads)


def test_overrides_change_the_trunk(recipe, corpus, tmp_path):
    prepared = prepared_in(tmp_path / "run", recipe(), corpus)
    model = fresh_model(recipe("gpt2-mini", "model.max_length=40", "model.dropout=0.25"), prepared)
    config = model.config
    assert (config.layers, config.width, config.heads, config.head_size, config.mlp_width) == (2, 32, 2, 16, 128)
    assert (config.vocab_size, config.max_length) == (300, 40)
    assert model.trunk.embeddings.positions.weight.shape == (40, 32)
    assert model.trunk.blocks[0].dropout == model.trunk.blocks[1].attention.dropout == 0.25
    assert fresh_model(recipe(), prepared).config.max_length == 32


@pytest.mark.parametrize("start", ["corpus", "random"])
def test_only_tables_to_which_blocks_add_start_pretraining_larger(start, recipe, corpus, tmp_path):
    for number, (name, times) in enumerate((("gpt2-mini", 4), ("bert-mini", 1))):
        settings = recipe(name, f"model.start={start}")
        model = fresh_model(settings, prepared_in(tmp_path / str(number), settings, corpus))
        table = model.trunk.embeddings.tokens.weight
        assert table.std().item() == pytest.approx(times * INITIAL_DEVIATION, rel=0.2)


def test_heads_that_are_wider_in_all_than_the_model_stay_so():
    family = FAMILIES["qwen3"]
    sizes = [("", 128), ("model.width=1024", 128), ("model.width=512", 64), ("model.heads=8", 256)]
    for change, head_size in sizes:
        settings = load_recipe("qwen3-mini", ["size=0.6b", *([change] if change else [])])
        assert _trunk_config(settings, family, 1000).head_size == head_size, change


def test_the_sizes_of_a_family_are_kept_without_overrides(recipe, corpus, tmp_path):
    prepared = prepared_in(tmp_path / "run", recipe(), corpus)
    changed = recipe("gpt3-mini", "model.width=", "model.heads=", "model.layers=", "model.start=random")
    config, mini = fresh_model(changed, prepared).config, FAMILIES["gpt3"].sizes["mini"]
    assert (config.layers, config.width, config.heads, config.head_size) == (
        mini.layers, mini.width, mini.heads, mini.head_size
    )  # fmt: skip
    assert config.windows == mini.windows == (None, 64)


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("gpt2-mini", ["tokens"]),
        ("gpt3-mini", ["tokens"]),
        ("roberta-mini", ["tokens", "bias", "positions", "token_types", "attention"]),
        ("bert-mini", ["tokens", "bias", "positions", "token_types", "attention"]),
    ],
)
def test_a_start_from_the_corpus_sets_what_the_setting_says(name, started, recipe, corpus, tmp_path):
    settings = recipe(name)
    prepared = prepared_in(tmp_path / "run", settings, corpus)
    random = fresh_model(recipe(name, "model.start=random"), prepared).state_dict()
    parts = {
        "tokens": "trunk.embeddings.tokens.", "positions": "trunk.embeddings.positions.", "bias": "heads.masked.bias",
        "token_types": "trunk.embeddings.token_types.", "attention": "trunk.blocks.0.attention.",
    }  # fmt: skip
    differ = {
        next(part for part, prefix in parts.items() if weight.startswith(prefix))
        for weight, values in fresh_model(settings, prepared).state_dict().items()
        if not torch.equal(values, random[weight])
    }
    assert differ == set(started)


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_roberta_counts_positions_as_transformers_will(kind, recipe, corpus, tmp_path):
    """From the padding id on, which is 0 in one kind of tokenizer and 1 in the other."""
    settings = recipe("roberta-mini", f"tokenizer.kind={kind}", "model.start=random")
    prepared = prepared_in(tmp_path / "run", settings, corpus)
    model = fresh_model(settings, prepared).eval()
    save_model(model, prepared.tokenizer, tmp_path / "model")
    tokens = torch.arange(20, 45)[None]
    with torch.no_grad():
        ours = model.heads["masked"](model.encode(Inputs.of_rows(tokens))[0])
        reopened, _ = load_model(tmp_path / "model")
        again = reopened.heads["masked"](reopened.encode(Inputs.of_rows(tokens))[0])
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()(tokens).logits[0]
    assert (ours - again).abs().max() == 0
    assert (ours - theirs).abs().max() < 1e-4
    assert reopened.config.max_length == model.config.max_length == 32


def test_roberta_without_a_padding_token_counts_positions_from_what_pads_instead(recipe, corpus, tmp_path):
    tilth.tokenizer_train(corpus, tmp_path / "whole.json", kind="byte_bpe", vocab_size=300, progress=False)
    content = json.loads((tmp_path / "whole.json").read_text().replace("<pad>", "<unused>"))
    (tmp_path / "no padding.json").write_text(json.dumps(content))
    settings = recipe("roberta-mini", f"tokenizer.path={tmp_path / 'no padding.json'}", "model.start=random")
    prepared = prepared_in(tmp_path / "run", settings, corpus)
    assert prepared.tokenizer.special.pad is None and prepared.tokenizer.special.eot is not None
    model = fresh_model(settings, prepared).eval()
    save_model(model, prepared.tokenizer, tmp_path / "model")
    tokens = torch.arange(20, 45)[None]
    with torch.no_grad():
        ours = model.heads["masked"](model.encode(Inputs.of_rows(tokens))[0])
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()(tokens).logits[0]
    assert model.config.position_offset == prepared.tokenizer.special.eot + 1
    assert (ours - theirs).abs().max() < 1e-4


def test_what_an_abandoned_start_left_is_made_again(recipe, corpus, tmp_path):
    """A run that never began may have left a tokenizer and shards of other settings."""
    run = tmp_path / "run"
    prepared_in(run, recipe("gpt2-mini", "tokenizer.vocab_size=280"), corpus)
    assert load_tokenizer(run / "tokenizer.json").vocab_size == 280
    again = prepared_in(run, recipe(), corpus)
    assert again.tokenizer.vocab_size == load_tokenizer(run / "tokenizer.json").vocab_size == 300
    assert again.shards.manifest["tokenizer"] == again.tokenizer.fingerprint


def test_raw_data_is_built_into_the_run_and_found_again(recipe, corpus, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, document in enumerate(corpus_texts(corpus)):
        (texts / f"{number}.txt").write_text(document)
    run = tmp_path / "run"
    first = prepared_in(run, recipe(), texts)
    assert first.corpus.path == run / "corpus"
    (texts / "more.txt").write_text("This came after the start of the run.")
    resumed = prepared_in(run, recipe(), texts, resume=True)
    assert resumed.corpus.fingerprint == first.corpus.fingerprint
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UsageError, match="was started on another texts than .*other; give the same --corpus"):
        prepared_in(run, recipe(), other, resume=True)
    elsewhere = tmp_path / "elsewhere" / "texts"
    elsewhere.parent.mkdir()
    texts.rename(elsewhere)
    with pytest.raises(UsageError, match="another texts than .*elsewhere/texts; .*run/corpus, which holds its text"):
        prepared_in(run, recipe(), elsewhere, resume=True)
    assert prepared_in(run, recipe(), run / "corpus", resume=True).corpus.fingerprint == first.corpus.fingerprint
    assert prepared_in(run, recipe(), elsewhere).corpus.fingerprint != first.corpus.fingerprint


def test_a_share_to_hold_out_is_idle_on_a_corpus(recipe, corpus, tmp_path):
    with pytest.raises(UsageError, match=r"data\.validation=0\.2 has no effect on .*corpus build --validation"):
        prepared_in(tmp_path / "run", recipe("gpt2-mini", "data.validation=0.2"), corpus)


def corpus_texts(folder):
    from tilth.corpus.reader import open_corpus

    return [document.text for document in open_corpus(folder).documents("train")]


def test_a_tokenizer_that_is_there_is_used(recipe, corpus, make_corpus, tmp_path):
    trained = prepared_in(tmp_path / "first", recipe("gpt2-mini", "tokenizer.vocab_size=290"), corpus).tokenizer
    path = tmp_path / "first" / "tokenizer.json"
    used = prepared_in(tmp_path / "second", recipe("gpt2-mini", f"tokenizer.path={path}"), corpus).tokenizer
    assert used.fingerprint == trained.fingerprint
    assert used.vocab_size == 290


def test_shards_of_an_earlier_run_are_used_when_they_belong(recipe, corpus, tmp_path):
    prepared_in(tmp_path / "first", recipe(), corpus)
    shards, tokenizer = tmp_path / "first" / "shards", tmp_path / "first" / "tokenizer.json"
    reused = prepared_in(
        tmp_path / "second", recipe("gpt2-mini", f"data.shards={shards}", f"tokenizer.path={tokenizer}"), corpus
    )
    assert reused.shards.path == shards
    assert not (tmp_path / "second" / "shards").exists()
    with pytest.raises(TilthError, match="made from another tokenizer"):
        prepared_in(
            tmp_path / "third", recipe("gpt2-mini", f"data.shards={shards}", "tokenizer.vocab_size=290"), corpus
        )
    with pytest.raises(TilthError, match="no shards at .*nowhere"):
        prepared_in(tmp_path / "fourth", recipe("gpt2-mini", f"data.shards={tmp_path / 'nowhere'}"), corpus)


def test_foreign_and_stale_shards_are_not_resumed_on(recipe, corpus, tmp_path):
    run = tmp_path / "run"
    prepared_in(run, recipe(), corpus)
    manifest = json.loads((run / "shards" / "manifest.json").read_text())
    (run / "shards" / "manifest.json").write_text(json.dumps(manifest | {"corpus": "0" * 16}))
    with pytest.raises(TilthError, match="made from another corpus"):
        prepared_in(run, recipe(), corpus, resume=True)


def test_a_corpus_without_held_out_text_is_an_error(recipe, make_corpus, tmp_path):
    import pyarrow.parquet as pq

    corpus = make_corpus([f"Text number {number} is about {number * 7} things." for number in range(20)])
    part = next((corpus / "validation").glob("*.parquet"))
    pq.write_table(pq.read_table(part).slice(0, 0), part)
    card = json.loads((corpus / "card.json").read_text())
    for file in card["files"]:
        file |= {"size": (corpus / file["path"]).stat().st_size, "sha256": sha256_file(corpus / file["path"])}
    (corpus / "card.json").write_text(json.dumps(seal(card)))
    with pytest.raises(TilthError, match="no text in its validation split"):
        prepared_in(tmp_path / "run", recipe("gpt2-mini", "tokenizer.vocab_size=270"), corpus)


@pytest.fixture
def few_words(tmp_path):
    """A function: the path of a WordPiece tokenizer that knows some words alone."""

    def make(*words: str):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        names = [*special, *words, *(f"spare{number}" for number in range(30))]
        backend = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        backend.add_special_tokens(special)
        backend.save(str(tmp_path / "few.json"))
        return tmp_path / "few.json"

    return make


def test_nothing_to_predict_is_no_perfect_model(recipe, corpus, few_words, tmp_path):
    settings = recipe("bert-mini", "objective.name=masked", f"tokenizer.path={few_words()}")
    with pytest.raises(TilthError, match="nothing to predict in the training text: .*the tokenizer knows none of"):
        pretrain(settings, corpus, tmp_path / "run", progress=False)


def test_unknown_tokens_are_told(recipe, corpus, few_words, tmp_path, capsys):
    settings = recipe("bert-mini", "objective.name=masked", f"tokenizer.path={few_words('the', 'of', '.', ',')}")
    pretrain(settings, corpus, tmp_path / "run", progress=True)
    (warning,) = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "warning"]
    split = open_shards(tmp_path / "run" / "shards").split("train")
    tokens = split.tokens(np.array([0]), np.array([split.num_tokens]))
    share = round(100 * float((tokens == 1).mean()))
    assert warning["kind"] == "unknown" and 50 < share < 99
    assert f"the tokenizer knows nothing of {share} % of the tokens" in warning["message"]
    assert warning["message"] in capsys.readouterr().err


def test_processes_without_rows_are_told(opened):
    run = opened("gpt2-mini")
    assert list(found_at_start(run)) == []
    run.world = World(size=20)
    (finding,) = found_at_start(run)
    assert finding.message.startswith("a step has 16 rows for 20 processes, so that 4 wait for the others")
