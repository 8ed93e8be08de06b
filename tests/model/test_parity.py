"""Logits, losses and gradients agree with transformers, in both directions, for every family."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from tilth.model.cross_entropy import linear_cross_entropy
from tilth.model.families import FAMILIES, Family
from tilth.model.folder import load_model, save_model
from tilth.model.inputs import Inputs
from tilth.model.model import Model, build_model
from tilth.model.names import to_ours

LOGITS = 1e-4
VOCAB = 97

THEIR_CONFIGS = {
    "bert": lambda: transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ),
    "roberta": lambda: transformers.RobertaConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=42, type_vocab_size=1, pad_token_id=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=40, bos_token_id=0, eos_token_id=0,
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    ),
    "gpt3": lambda: transformers.GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=32, num_layers=4, num_heads=4, max_position_embeddings=40, window_size=5,
        attention_types=[[["global", "local"], 2]], bos_token_id=0, eos_token_id=0, embed_dropout=0.0,
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, local_attention=8, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        cls_token_id=0, sep_token_id=2,
    ),
    "qwen3": lambda: transformers.Qwen3Config(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, intermediate_size=48, max_position_embeddings=40, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
    "electra": lambda: transformers.ElectraConfig(
        vocab_size=VOCAB, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ),
}  # fmt: skip
THEIR_CONFIGS["modernbert untied"] = lambda: untied(THEIR_CONFIGS["modernbert"]())
THEIR_CONFIGS["qwen3 untied"] = lambda: untied(THEIR_CONFIGS["qwen3"]())
THEIR_CLASSES = {
    ("bert", ("masked", "next_sentence")): transformers.BertForPreTraining,
    ("bert", ("masked",)): transformers.BertForMaskedLM,
    ("roberta", ("masked",)): transformers.RobertaForMaskedLM,
    ("gpt2", ("causal",)): transformers.GPT2LMHeadModel,
    ("gpt3", ("causal",)): transformers.GPTNeoForCausalLM,
    ("modernbert", ("masked",)): transformers.ModernBertForMaskedLM,
    ("modernbert untied", ("masked",)): transformers.ModernBertForMaskedLM,
    ("qwen3", ("causal",)): transformers.Qwen3ForCausalLM,
    ("qwen3 untied", ("causal",)): transformers.Qwen3ForCausalLM,
    ("electra", ("masked",)): transformers.ElectraForMaskedLM,
    ("electra", ("replaced_token",)): transformers.ElectraForPreTraining,
}
CASES = list(THEIR_CLASSES)
CLASSIFIERS = {
    "bert": transformers.BertForSequenceClassification,
    "roberta": transformers.RobertaForSequenceClassification,
    "gpt2": transformers.GPT2ForSequenceClassification,
    "gpt3": transformers.GPTNeoForSequenceClassification,
    "modernbert": transformers.ModernBertForSequenceClassification,
    "qwen3": transformers.Qwen3ForSequenceClassification,
    "electra": transformers.ElectraForSequenceClassification,
}


def untied(config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    config.tie_word_embeddings = False
    return config


def family_of(name: str) -> Family:
    return FAMILIES[name.split()[0]]


def their_model(name: str, their_class: type, **changes: object) -> torch.nn.Module:
    torch.manual_seed(1)
    config = THEIR_CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    model = their_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def texts(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, VOCAB, (length,), generator=generator) for length in (17, 9, 30, 3)]


def padded(pieces: list[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(piece) for piece in pieces])
    rows = torch.full((len(pieces), int(lengths.max())), pad)
    for row, piece in zip(rows, pieces, strict=True):
        row[: len(piece)] = piece
    return rows, lengths


def our_logits(model: Model, head: str, inputs: Inputs) -> Tensor:
    return model.heads[head](model.encode(inputs).flatten(0, 1)).unflatten(0, inputs.tokens.shape)


def their_logits(model: torch.nn.Module, rows: Tensor, mask: Tensor) -> Tensor:
    output = model(input_ids=rows, attention_mask=mask)
    return output.prediction_logits if hasattr(output, "prediction_logits") else output.logits


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_their_weights_give_the_same_logits_in_ours(name, heads, tmp_path: Path, tokenizer_folder):
    theirs = their_model(name, THEIR_CLASSES[name, heads])
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_folder(tmp_path / "theirs", family_of(name))
    ours, _ = load_model(tmp_path / "theirs")
    assert tuple(ours.heads) == heads
    pad = 1
    rows, lengths = padded(texts(), pad)
    mask = (torch.arange(rows.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        expected = their_logits(theirs, rows, mask)
        got = our_logits(ours, heads[0], Inputs.of_rows(rows, lengths))
    assert (got - expected)[mask.bool()].abs().max() < LOGITS
    assert expected[mask.bool()].std() > 0.1


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_packed_documents_give_the_logits_of_each_alone(name, heads, tmp_path: Path, tokenizer_folder):
    theirs = their_model(name, THEIR_CLASSES[name, heads])
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_folder(tmp_path / "theirs", family_of(name))
    ours, _ = load_model(tmp_path / "theirs")
    pieces = texts()
    inputs, row, first, last = Inputs.from_pieces([piece.tolist() for piece in pieces], 34, pad=1)
    assert len(inputs.tokens) == 2
    with torch.no_grad():
        got = our_logits(ours, heads[0], inputs)
        for index, piece in enumerate(pieces):
            expected = their_logits(theirs, piece[None], torch.ones_like(piece[None]))[0]
            packed = got[row[index], first[index] : last[index] + 1]
            assert (packed - expected).abs().max() < LOGITS


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_our_folder_opens_in_theirs_with_the_same_logits(name, heads, tmp_path: Path, text_tokenizer):
    family = family_of(name)
    tokenizer = text_tokenizer(family)
    config = family.read_config(THEIR_CONFIGS[name]().to_dict() | {"vocab_size": tokenizer.vocab_size})
    ours = build_model(family, config, heads, seed=3).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.1
            )
    save_model(ours, tokenizer, tmp_path / "ours")
    theirs, report = THEIR_CLASSES[name, heads].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    rows, lengths = padded(texts(), tokenizer.special.pad)
    rows = rows % tokenizer.vocab_size
    lengths_mask = torch.arange(rows.shape[1]) < lengths[:, None]
    rows[~lengths_mask] = tokenizer.special.pad
    with torch.no_grad():
        expected = their_logits(theirs.eval(), rows, lengths_mask.long())
        got = our_logits(ours, heads[0], Inputs.of_rows(rows, lengths))
    real = lengths_mask & (rows != tokenizer.special.pad)
    assert (got - expected)[real].abs().max() < LOGITS
    reopened, _ = load_model(tmp_path / "ours")
    assert all(
        torch.equal(ours.state_dict()[key], value) or key.endswith("qkv.weight")
        for key, value in reopened.state_dict().items()
    )


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_the_training_step_has_the_same_loss_and_gradients(name, heads, tmp_path: Path, tokenizer_folder):
    theirs = their_model(name, THEIR_CLASSES[name, heads])
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_folder(tmp_path / "theirs", family_of(name))
    ours, _ = load_model(tmp_path / "theirs")
    rows, lengths = padded(texts(), 1)
    real = torch.arange(rows.shape[1]) < lengths[:, None]
    labels = torch.where(real & (rows % 3 == 0), rows, -100)
    if heads == ("replaced_token",):
        labels = (rows % 3 == 0).long()
    types = (torch.arange(rows.shape[1]) > 4).long().expand_as(rows) if name in ("bert", "electra") else None
    extra = {"token_type_ids": types} if types is not None else {}
    sentence_labels = torch.tensor([0, 1, 1, 0])
    if "next_sentence" in heads:
        extra["next_sentence_label"] = sentence_labels
    theirs.train()
    expected = theirs(input_ids=rows, attention_mask=real.long(), labels=labels, **extra).loss
    expected.backward()

    plain = Inputs.of_rows(rows, lengths)
    hidden = ours.encode(Inputs(plain.tokens, plain.positions, plain.documents, types))
    if heads[0] == "causal":
        chosen, targets = labels[:, 1:] != -100, labels[:, 1:]
        hidden_chosen, targets = hidden[:, :-1][chosen], targets[chosen]
    else:
        chosen = real & (labels != -100)
        hidden_chosen, targets = hidden[chosen], labels[chosen]
    head = ours.heads[heads[0]]
    if heads == ("replaced_token",):
        loss = F.binary_cross_entropy_with_logits(head(hidden_chosen), targets.float())
    else:
        features = head.features(hidden_chosen)
        loss = linear_cross_entropy(features, head.token_weight, head.bias, targets) / len(targets)
    if "next_sentence" in heads:
        loss = loss + F.cross_entropy(ours.heads["next_sentence"](hidden[:, 0]), sentence_labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)

    their_gradients = to_ours(
        {key: parameter.grad for key, parameter in theirs.named_parameters() if parameter.grad is not None},
        family_of(name).names,
        ours.config,
    )
    for key, parameter in ours.named_parameters():
        want = their_gradients[key]
        if name == "gpt3" and key.endswith("qkv.weight"):
            # theirs = scale x ours, so d/d ours = scale x d/d theirs, while to_ours divides by the scale.
            inner = ours.config.heads * ours.config.head_size
            want = torch.cat([want[:inner] / ours.config.head_size, want[inner:]])
        difference = (parameter.grad - want).norm() / want.norm().clamp_min(1e-12)
        assert difference < 1e-3 or want.norm() < 1e-6, (key, float(difference))


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_a_classifier_opens_in_theirs_with_labels_and_the_same_logits(name, tmp_path: Path, text_tokenizer):
    family = family_of(name)
    tokenizer = text_tokenizer(family)
    config = family.read_config(THEIR_CONFIGS[name]().to_dict() | {"vocab_size": tokenizer.vocab_size})
    ours = build_model(family, config, (), seed=3).eval()
    ours.add_head("classify", ["bad", "good", "odd"], seed=5)
    with torch.no_grad():
        for parameter in ours.heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) * 0.3)
    save_model(ours, tokenizer, tmp_path / "ours")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert type(theirs) is CLASSIFIERS[name]
    assert theirs.config.id2label == {0: "bad", 1: "good", 2: "odd"}
    pieces = [(piece % (tokenizer.vocab_size - 10)) + 10 for piece in texts()]
    inputs, row, first, last = Inputs.from_pieces([piece.tolist() for piece in pieces], 34, pad=tokenizer.special.pad)
    place = first if family.summary == "first" else last
    rows, lengths = padded(pieces, tokenizer.special.pad)
    mask = (torch.arange(rows.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        got = ours.heads["classify"](ours.encode(inputs)[row, place])
        expected = theirs(input_ids=rows, attention_mask=mask).logits
    assert (got - expected).abs().max() < LOGITS
    assert expected.std() > 1e-3
