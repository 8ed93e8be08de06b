import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tilth.api import generate
from tilth.errors import TilthError
from tilth.evidence.model_card import code, finetuned_model_card, plain, run_model_card
from tilth.evidence.report import write_run_report
from tilth.model.folder import load_model
from tilth.model.generation import generate as generate_texts
from tilth.recipe import Recipe
from tilth.tokens.tokenizer import TextTokenizer

COUNTS = {
    "in": 1000,
    "kept": 900,
    "dropped": {"duplicate": 100},
    "rejected": {},
    "sources": [{"source": "/home/me/my_novels"}],
}


def make_run(folder: Path, objective: str, card: dict, kind: str = "wordpiece") -> Path:
    folder.mkdir()
    values = {"family": "bert", "size": "mini", "objective": {"name": objective}, "tokenizer": {"kind": kind}}
    (folder / "recipe.yaml").write_text(Recipe.model_validate(values).to_yaml())
    events = [
        {"event": "start", "parameters": 11_283_456, "flops_per_token": 3e7, "train_tokens": 900_000,
         "validation_tokens": 40_000},
        {"event": "evaluation", "step": 20, "tokens": 163_840, "held_out_loss": 5.5, "bits_per_byte": 2.25},
        {"event": "end", "step": 40, "tokens": 327_680, "seconds": 192.4, "best_step": 20,
         "held_out_loss": 5.4321, "bits_per_byte": 2.3456},
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "corpus").mkdir()
    (folder / "corpus" / "card.json").write_text(json.dumps({**COUNTS, **card}))
    return folder


def metadata(card: str) -> dict:
    _, front, body = card.split("---\n", 2)
    assert body.startswith("\n# ")
    return yaml.safe_load(front)


def test_card_of_a_run_on_replaced_tokens(tmp_path):
    card = run_model_card(make_run(tmp_path / "novels", "replaced_token", {}))
    assert "pipeline_tag" not in metadata(card)
    for value in (
        'pipeline("fill-mask", model="path/to/this/folder/generator")',
        "which tokens of a text were replaced",
        "pre-trained from scratch by\nreplaced-token detection",
        "Of the generator: what a byte",
    ):
        assert value in card, value


def test_card_of_a_masked_run(tmp_path):
    card = run_model_card(make_run(tmp_path / "novels", "masked", {}))
    assert metadata(card) == {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["tilth", "pre-training", "bert"],
    }
    for value in ("# novels", "| 2.346 |", "5.432 nats", "900 documents, kept from 1,000 records", "100 duplicate",
                  "9.8\u00a0×\u00a010¹² FLOPs, an estimate from the matrix products", "3\u00a0min 12\u00a0s",
                  "328\u00a0K", "11.3\u00a0M", "From `my_novels`.", "step 20", "the [MASK] and",
                  "## Intended use", "## Limits and bias"):  # fmt: skip
        assert value in card, value
    assert "perplexity" not in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["family"] == "bert"


def test_the_loss_of_two_objectives_is_called_their_sum_as_in_the_report(tmp_path):
    run = make_run(tmp_path / "novels", "masked", {})
    *lines, end = (run / "log.jsonl").read_text().splitlines()
    parts = {"masked": 4.9, "next_sentence": 0.5321}
    (run / "log.jsonl").write_text("\n".join([*lines, json.dumps(json.loads(end) | {"parts": parts})]) + "\n")
    card = run_model_card(run)
    caption = (
        "Surprise at each prediction, the sum of masked tokens (4.900) and next sentence (0.532); lower is better."
    )
    assert f"| loss | 5.432 nats | {caption} |" in card and "per token |" not in card
    assert caption in write_run_report(run).read_text()


def test_the_mask_is_that_of_the_tokenizer_whatever_the_recipe_says(tmp_path, small_folder):
    run = make_run(tmp_path / "novels", "masked", {})
    tokenizer = small_folder("roberta", "masked") / "tokenizer.json"
    (run / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    card = run_model_card(run)
    assert "the <mask> and" in card and "[MASK]" not in card


def test_the_code_of_a_causal_card_writes_what_tilth_generate_writes(tmp_path, small_folder):
    folder = small_folder("gpt2", "causal")
    run = make_run(tmp_path / "novels", "causal", {}, kind="byte_bpe")
    shutil.copy(folder / "tokenizer.json", run)
    card = run_model_card(run)
    code_block = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    *lines, last = code_block.replace("max_new_tokens=50", "max_new_tokens=9").strip().splitlines()
    namespace = {}
    exec("\n".join([*lines, f"result = {last}"]), namespace)
    command = card.split("`tilth generate ")[1].split("`")[0]
    assert command == 'path/to/this/folder "It was" --temperature 0 --max-tokens 50'
    ours = generate(folder, "It was", temperature=0, max_tokens=9)["text"]
    assert namespace["result"][0]["generated_text"] == "It was" + ours
    without_end = generate_texts(*_without_end(folder), ["It was"], temperature=0, max_tokens=9)
    assert without_end != [ours]


def _without_end(folder):
    model, tokenizer = load_model(folder)
    return model, TextTokenizer(tokenizer.backend, replace(tokenizer.special, eot=None))


def test_card_of_a_causal_run_gives_its_perplexity(tmp_path):
    card = run_model_card(make_run(tmp_path / "novels", "causal", {}, kind="byte_bpe"))
    assert metadata(card)["pipeline_tag"] == "text-generation"
    assert "| perplexity | 229 |" in card
    assert "fill-mask" not in card


def test_language_and_licence_are_stated_only_where_known(tmp_path):
    known = run_model_card(make_run(tmp_path / "known", "masked", {"language": "en", "license": "cc-by-sa-4.0"}))
    assert metadata(known)["language"] == "en"
    assert metadata(known)["license"] == "cc-by-sa-4.0"
    assert "licence of the data is not on record" not in known
    unknown = run_model_card(make_run(tmp_path / "unknown", "masked", {}))
    assert metadata(unknown).keys().isdisjoint({"language", "license"})
    assert "licence of the data is not on record" in unknown


def test_card_of_a_run_that_has_not_ended(tmp_path):
    run = make_run(tmp_path / "run", "masked", {})
    (run / "log.jsonl").write_text(json.dumps({"event": "start", "parameters": 1000}) + "\n")
    card = run_model_card(run)
    assert "had not ended" in card
    assert "No held-out evaluation is on record." in card
    with pytest.raises(TilthError, match="is not a run"):
        run_model_card(tmp_path)


def test_card_of_a_fine_tuned_model():
    result = {
        "task": "classify", "model": "google/bert-mini", "data": "/home/me/train.jsonl",
        "labels": ["World", "a`b|c\nd"],
        "settings": {"lr": 5e-5}, "best_epoch": 2.5, "examples": {"train": 1200, "valid": 300},
        "truncated": {"train": 4}, "valid": {"macro_f1": {"value": 0.7812, "low": 0.74, "high": 0.82}},
        "seconds": 65.0, "flops": 1.25e15, "weights_sha256": "ab12",
    }  # fmt: skip
    card = finetuned_model_card(result, "topics")
    assert metadata(card) == {
        "library_name": "transformers", "pipeline_tag": "text-classification", "tags": ["tilth", "fine-tuned"],
        "base_model": "google/bert-mini",
    }  # fmt: skip
    for value in ("# topics", "| macro F1 | 0.781 | 0.740 to 0.820 |", "`World`, `` a`b|c d ``", "1,200 examples",
                  "300 held out", "`train.jsonl`: 1,200",
                  "4 texts were longer", "1\u00a0min 5\u00a0s", "epoch 2.5", "`ab12`"):  # fmt: skip
        assert value in card, value


def test_a_local_base_model_is_not_taken_for_one_of_the_hub(tmp_path):
    card = finetuned_model_card({"task": "classify", "model": str(tmp_path), "labels": ["a", "b"]}, "model")
    assert "base_model" not in metadata(card)
    assert str(tmp_path) not in card
    assert f"fine-tuned from `{tmp_path.name}`" in card
    assert "No data was held out" in card


def test_a_local_base_model_is_named_without_the_machines_folders(tmp_path, monkeypatch):
    def base(model: object) -> str:
        return finetuned_model_card({"task": "classify", "model": str(model), "labels": ["a", "b"]}, "model")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bert" / "model").mkdir(parents=True)
    assert "fine-tuned from `runs/bert/model`" in base("runs/bert/model")
    assert "fine-tuned from `runs/bert/model`" in base(tmp_path / "runs" / "bert" / "model")
    monkeypatch.chdir(tmp_path / "runs" / "bert" / "model")
    card = base(tmp_path / "runs" / "bert" / "model")
    assert str(tmp_path) not in card
    monkeypatch.chdir("/usr")
    assert "fine-tuned from `bert/model`" in base(tmp_path / "runs" / "bert" / "model")


def test_text_cannot_end_its_markdown():
    assert plain("a_b [x](y)\n# <script>") == r"a\_b \[x\](y) \# \<script\>"
    assert code("x``y") == "``` x``y ```"
    assert code("plain") == "`plain`"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"freeze": True, "summary": "trained"}, "Only the head was trained: the trunk is as it was."),
        ({"freeze": True, "summary": "mean"}, "the trunk is as it was, but for its top block, which takes the mean"),
        ({"freeze": False, "summary": "mean"}, None),
    ],
)
def test_a_card_says_when_the_trunk_was_frozen(settings, sentence):
    card = finetuned_model_card({"task": "classify", "labels": ["a", "b"], "settings": settings}, "model")
    assert sentence in card if sentence else "Only the head" not in card
