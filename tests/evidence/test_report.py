import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tilth.errors import TilthError
from tilth.evidence.model_card import run_model_card
from tilth.evidence.report import write_comparison_report, write_finetune_report, write_run_report
from tilth.evidence.run_record import read_run
from tilth.recipe import Recipe

SPACE = "\u00a0"
START = {
    "event": "start", "time": "2026-11-22T19:44:12+00:00", "parameters": 11_283_456, "trunk_parameters": 3_159_040,
    "flops_per_token": 3e7, "device": "cpu", "processor": "Processor 9000", "threads": 2, "dtype": "bfloat16",
    "tilth": "0.1.0",
    "corpus": "9f8e7d6c5b4a3210", "tokenizer": "0123456789abcdef", "train_tokens": 900_000, "validation_tokens": 40_000,
}  # fmt: skip
END = {
    "event": "end", "step": 40, "tokens": 327_680, "seconds": 192.4, "reason": "budget", "best_step": 30,
    "held_out_loss": 5.4321, "bits_per_byte": 2.3456,
}  # fmt: skip
WARNING = {
    "event": "warning",
    "step": 40,
    "kind": "overfitting",
    "message": "held-out loss stopped falling",
    "documents": [],
}

CARD = {
    "in": 1000, "kept": 900, "dropped": {"duplicate": 80}, "rejected": {"invalid_utf8": 20},
    "splits": {"train": {"documents": 850, "bytes": 3_600_000, "words": 600_000}},
    "leak_check": {"passed": True}, "notes": ["one document was cut in two"],
    "sources": [{"source": "novels.txt", "files": 1, "in": 1000, "kept": 900, "bytes": 3_800_000}],
}  # fmt: skip


def step(number: int, **changes: object) -> dict:
    figures = {"loss": 9 - 0.1 * number, "lr": 1e-3, "grad_norm": 1.5, "tokens_per_second": 7_000 + number}
    return {
        "event": "step",
        "step": number,
        "tokens": number * 8192,
        "epoch": 0.1,
        "seconds": 4.0 * number,
        **figures,
        **changes,
    }


def evaluation(number: int, loss: float, **changes: object) -> dict:
    figures = {"train_loss": loss - 0.25, "held_out_loss": loss, "bits_per_byte": loss / 2, "gap": 0.25, "best": True}
    event = {"event": "evaluation", "step": number, "tokens": number * 8192, "seconds": 4.5 * number, **figures}
    return {**event, "parts": {"causal": loss}, **changes}


def make_run(folder: Path, events: list[dict], objective: str = "causal") -> Path:
    folder.mkdir(parents=True)
    recipe = Recipe.model_validate({"family": "gpt2", "size": "mini", "objective": {"name": objective}})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "corpus").mkdir()
    (folder / "corpus" / "card.json").write_text(json.dumps(CARD))
    return folder


def finished_events() -> list[dict]:
    steps = [step(number) for number in (10, 20, 30, 40)]
    return [START, *steps[:2], evaluation(20, 6.5), steps[2], evaluation(30, 5.5), steps[3], evaluation(40, 5.75), END]


def report_of(folder: Path) -> str:
    return write_run_report(folder).read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Checks that elements close in order, and collects ids and everything that a browser would fetch."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "srcset", "href", "xlink:href", "data", "action") and tag != "a":
                self.fetched.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def assert_self_contained(text: str) -> None:
    structure = Structure(text)
    assert len(structure.ids) == len(set(structure.ids))
    for target in structure.fetched:
        assert target == "data:," or target.removeprefix("#") in structure.ids, target
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.removeprefix("#") in structure.ids, target
    assert "@import" not in text
    assert structure.tags.isdisjoint({"script", "iframe", "object", "embed", "img"})


@pytest.mark.parametrize(
    ("resumes", "device", "text"),
    [
        ([], "cpu", "Threads</th><td>2</td>"),
        ([{"step": 20, "threads": 2}, {"step": 30, "threads": 1}], "cpu", "2, 1 from step 30 on"),
        ([], "cuda", None),
    ],
)
def test_the_number_of_threads_is_named_since_the_bits_depend_on_it(tmp_path, resumes, device, text):
    events = [START | {"device": device}, *finished_events()[1:-1]]
    events += [{"event": "resume", **resume} for resume in resumes] + [END]
    report = report_of(make_run(tmp_path / "run", events))
    assert text in report if text else "Threads" not in report


def test_the_loss_of_two_objectives_is_called_their_sum(tmp_path):
    events = finished_events()
    events[-1]["parts"] = {"masked": 4.9, "next_sentence": 0.5321}
    text = report_of(make_run(tmp_path / "novels", events))
    assert "the sum of masked tokens (4.900) and next sentence (0.532)" in text and "nats per token" not in text


def test_run_report_states_the_figures_of_the_log(tmp_path):
    text = report_of(make_run(tmp_path / "novels", finished_events()))
    assert "<h1>novels</h1>" in text
    assert '<span class="status">finished</span>' in text
    for value in (
        "2.346",  # bits per byte of all held-out text, from the end of the run, not the 2.750 of the best evaluation
        "5.432",
        f"328{SPACE}K",
        f"3{SPACE}min 12{SPACE}s",
        "2,048",  # tokens per second on the clock, of the only steps without an evaluation between them
        f"11.3{SPACE}M",
        f"3.16{SPACE}M",
        "A perplexity of 229.",
        f"9.8{SPACE}×{SPACE}10¹²",  # 3e7 x 327,680
        "22 November 2026, 19:44 UTC",
        "Processor 9000",
        f"90.0{SPACE}%",
        "rejected: invalid utf8",
        "<code>novels.txt</code>",
        "no group of near-duplicates, is on both sides",
        "9f8e7d6c5b4a3210",
    ):
        assert value in text, value
    assert text.count('role="img"') == 6
    assert "No warnings" in text


def test_the_speed_is_that_of_the_clock_between_steps(tmp_path):
    def at(number: int, seconds: float) -> dict:
        return step(number, tokens=100 * number, seconds=seconds)

    events = [
        START,
        at(1, 10.0),  # 10 seconds to start
        at(2, 11.0),  # 100 tokens per second
        {"event": "evaluation", "step": 2, "tokens": 200, "seconds": 60.0},
        at(3, 61.0),
        {"event": "sample", "step": 3, "tokens": 300, "prompt": "a", "text": "b"},
        at(4, 99.0),
        at(5, 99.5),  # 200
        at(6, 150.0),
        {"event": "resume", "step": 5},
        at(6, 300.0),
        at(7, 300.25),  # 400
        at(8, 400.0),
        {"event": "rewind", "step": 7},
        at(8, 500.0),
        at(9, 510.0),  # 10
    ]
    record = read_run(make_run(tmp_path / "run", events))
    assert record.speed == (100 + 200) / 2
    assert read_run(make_run(tmp_path / "short", events[:2])).speed is None


def test_reports_load_nothing_and_are_reproducible(tmp_path):
    run = make_run(tmp_path / "run", finished_events())
    first = write_run_report(run).read_bytes()
    assert write_run_report(run).read_bytes() == first
    assert_self_contained(first.decode())


def test_unfinished_run_says_so_and_reports_the_best_so_far(tmp_path):
    text = report_of(make_run(tmp_path / "run", finished_events()[:-1]))
    assert '<span class="status open">unfinished</span>' in text
    assert "no end on record" in text
    assert '<dd class="value">2.750 ' in text
    assert f"3{SPACE}min<" in text  # 180 s, of the last evaluation


def test_a_run_that_has_only_started_has_a_report(tmp_path):
    text = report_of(make_run(tmp_path / "run", [START]))
    assert "No held-out evaluation is on record yet." in text
    assert "<svg" not in text
    assert_self_contained(text)


def test_resumed_run_shows_only_what_was_kept(tmp_path):
    crashed = [START, step(10), evaluation(10, 6.0), step(20, loss=1.0), evaluation(20, 0.125)]
    resumed = [
        {**START, "processor": "Processor 9001"},
        {
            "event": "resume",
            "step": 10,
            "damaged": ["step-00000020: truncated"],
            "accepted": ["train.lr (was 0.1, is 0.2)"],
            "changed": ["train.save_every (was None, is 5 steps)"],
        },  # fmt: skip
        step(20),
        evaluation(20, 5.5),
    ]
    text = report_of(make_run(tmp_path / "run", [*crashed, *resumed]))
    assert "resumed from step 10" in text
    assert "passed over when it was resumed: step-00000020: truncated." in text
    assert "alter the result were accepted when it was resumed: train.lr (was 0.1, is 0.2)." in text
    assert "0.125" not in text
    assert "5.500" in text
    assert "Processor 9001" in text


def test_warnings_of_the_monitor_are_named(tmp_path):
    nonfinite = {
        "event": "warning",
        "step": 30,
        "kind": "nonfinite",
        "message": "loss was not finite",
        "documents": [*range(12)],
    }
    text = report_of(make_run(tmp_path / "run", [*finished_events()[:-1], nonfinite, WARNING, END]))
    assert "<strong>Overfitting</strong> at step 40: held-out loss stopped falling" in text
    assert "<strong>Nonfinite</strong> at step 30: loss was not finite" in text
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more" in text
    assert "No warnings" not in text


def test_warnings_of_one_kind_are_told_once(tmp_path):
    def diverging(number: int, **more: object) -> dict:
        message = f"the loss rose to {number}"
        return {"event": "warning", "step": number, "kind": "divergence", "message": message, "documents": [], **more}

    warnings = [diverging(10, action="continue"), diverging(1_200, documents=[7]), WARNING,
                diverging(3_000, documents=[7, 8], action="stop")]  # fmt: skip
    text = report_of(make_run(tmp_path / "run", [START, step(10), *warnings]))
    assert text.count("<strong>Divergence</strong>") == text.count("<strong>Overfitting</strong>") == 1
    divergence = "<strong>Divergence</strong> 3 times, from step 10 to step 3,000: first: the loss rose to 10"
    assert f"{divergence} (the run goes on; the run stops)" in text
    assert "Documents in the batch: 7, 8<" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "size mini with"),
        ({"layers": 4, "width": 256}, "size mini with"),
        ({"layers": 2, "width": 64}, "size mini (changed: 2 layers, width 64) with"),
        ({"layers": 1, "heads": 2}, "size mini (changed: 1 layer, 2 heads) with"),
    ],
)
def test_a_changed_size_is_named_with_its_changes(tmp_path, changes, words):
    run = make_run(tmp_path / "run", [START, step(10)])
    recipe = Recipe.model_validate(
        {"family": "gpt2", "size": "mini", "objective": {"name": "causal"}, "model": changes}
    )
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    assert f"A gpt2 model of {words} 11.3{SPACE}M parameters, trained" in report_of(run)
    assert f"A gpt2 model of {words} 11.3{SPACE}M parameters, pre-trained" in run_model_card(run)


def test_what_a_model_writes_cannot_become_markup(tmp_path):
    attack = "</blockquote><script>alert(1)</script>"
    sample = {
        "event": "sample",
        "step": 20,
        "tokens": 163_840,
        "prompt": '"><img src=x>',
        "text": '"><img src=x>' + attack,
    }
    warning = {**WARNING, "message": attack, "documents": [attack]}
    text = report_of(make_run(tmp_path / "run", [START, step(10), sample, warning]))
    assert "&lt;/blockquote&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert_self_contained(text)


def test_samples_are_spread_over_the_run(tmp_path):
    samples = [
        {
            "event": "sample",
            "step": number,
            "tokens": number * 1000,
            "prompt": "It was",
            "text": f" moment-{number}.",
        }
        for number in range(21)
    ]
    text = report_of(make_run(tmp_path / "run", [START, *samples]))
    assert re.findall(r"moment-(\d+)\.", text) == ["0", "4", "8", "12", "16", "20"]
    assert '<h3 class="prompt">It was</h3>' in text
    assert "15 further samples" in text


def test_numbers_that_are_not_finite_leave_a_gap(tmp_path):
    broken = evaluation(30, float("nan"), bits_per_byte=None, gap=None)
    text = report_of(
        make_run(tmp_path / "run", [START, step(10), step(20, loss=float("inf")), evaluation(20, 6.0), broken])
    )
    assert '<dd class="value">3.000 ' in text
    assert "nan" not in text.lower().replace("finance", "")


def test_a_line_cut_short_by_a_crash_is_counted(tmp_path):
    run = make_run(tmp_path / "run", [START, step(10)])
    with open(run / "log.jsonl", "a") as log:
        log.write('{"event": "step", "st')
    assert "1 line of log.jsonl could not be read" in report_of(run)


def test_the_card_of_a_corpus_elsewhere_is_found_through_the_log(tmp_path):
    run = make_run(tmp_path / "run", [START])
    elsewhere = tmp_path / "card.json"
    (run / "corpus" / "card.json").rename(elsewhere)
    assert "records became documents" not in report_of(run)
    (run / "log.jsonl").write_text(json.dumps({**START, "corpus_card": str(elsewhere)}) + "\n")
    assert "900 of 1,000 records became documents" in report_of(run)


def test_a_masked_run_explains_its_bits_per_byte_and_shows_the_parts(tmp_path):
    events = [START, step(10), evaluation(10, 6.0, parts={"masked": 5.3, "next_sentence": 0.7})]
    text = report_of(make_run(tmp_path / "run", events, objective="next_sentence"))
    assert "8 is no compression" not in text
    assert "masked models that hide as many" in text
    assert "Parts of the held-out loss" in text
    assert "perplexity" not in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(TilthError, match=r"is not a run: it has no recipe\.yaml"):
        write_run_report(tmp_path)


def comparison() -> dict:
    systems = [("ours <b>", "pretrained"), ("the same from scratch", "scratch"), ("TF-IDF", "baseline")]
    means = {("ours <b>", 8): 0.7, ("the same from scratch", 8): 0.5, ("TF-IDF", 8): 0.6}
    means |= {("ours <b>", "all"): 0.9, ("the same from scratch", "all"): 0.89, ("TF-IDF", "all"): 0.91}
    examples = {8: 32, "all": 1200}
    return {
        "task": "classify", "data": "train.jsonl", "test": "test.jsonl", "labels": ["World", "Sports"],
        "systems": [
            {"name": name, "kind": kind, "source": f"runs/{kind}", "parameters": 11_283_456} for name, kind in systems
        ],
        "budgets": [8, "all"], "seeds": [0, 1], "metric": "macro_f1",
        "points": [
            {"system": name, "budget": budget, "examples": examples[budget], "seed": seed, "seconds": 30.0,
             "test": {"accuracy": mean, "macro_f1": mean}, "train": {"accuracy": 1.0, "macro_f1": 1.0}}
            for (name, budget), mean in means.items() for seed in (0, 1)
        ],
        "summary": [
            {"system": name, "budget": budget, "examples": examples[budget], "metric": "macro_f1", "mean": mean,
             "low": mean - 0.05, "high": mean + 0.05, "train_mean": 1.0, "gap": 1 - mean,
             "seconds_mean": 30.0, "flops_mean": 2.5e12}
            for (name, budget), mean in means.items()
        ],
        "verdict": "Pre-training helped at 8 labels per class, and not with all labels.",
        "differences": [
            {"system": "ours <b>", "against": "TF-IDF", "budget": budget, "mean": mean, "low": low, "high": high}
            for budget, mean, low, high in ((8, 0.1, 0.02, 0.18), ("all", -0.01, -0.05, 0.03))
        ],
        "pretraining_cost": {"seconds": 1335.2, "tokens": 10_813_440, "flops": 7.3e14},
    }  # fmt: skip


def test_a_comparison_names_the_texts_that_were_cut(tmp_path):
    cut = {"ours <b>": {"train": 12, "test": 3}, "other": {"train": 0, "test": 0}}
    result = comparison() | {"truncated": cut, "examples": {"train": 1200, "test": 400}}
    text = write_comparison_report(result, tmp_path).read_text()
    assert "ours &lt;b&gt; reads 12 of 1,200 training texts and 3 of 400 test texts only in part" in text
    assert text.count("only in part") == 1


def test_comparison_opens_with_its_verdict_and_shows_every_mean(tmp_path):
    path = write_comparison_report(comparison(), tmp_path / "comparison")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "comparison" / "report.html"
    assert '<p class="lede">Pre-training helped at 8 labels per class, and not with all labels.</p>' in text
    for value in (
        "0.700",
        "0.650 to 0.750",
        "+0.100",
        "+0.020 to +0.180",
        "−0.010",
        f"2.5{SPACE}×{SPACE}10¹² FLOPs",
        f"22{SPACE}min 15{SPACE}s",
    ):
        assert value in text, value
    assert re.findall(r'class="number best">([^<]+)<', text) == ["0.700", "0.910", "+0.100"]
    assert re.findall(r'<span class="range">([a-z ]+)</span></td>', text) == [
        "better",
        "no clear difference",
    ]
    assert "12 runs" in text
    for label in ("labelled training examples per class", ">8<", ">all<"):
        assert label in text, label
    assert ">1,200<" not in text.split("<table")[0]
    assert_self_contained(text)
    assert write_comparison_report(comparison(), tmp_path / "again").read_text(encoding="utf-8") == text


def test_a_training_that_every_seed_would_give_counts_once(tmp_path):
    result = comparison()
    result["points"][-1] |= {"repeats": True}
    text = write_comparison_report(result, tmp_path).read_text(encoding="utf-8")
    assert re.search(r"Models trained</dt>\s*<dd[^>]*>11\b", text)
    assert "Where every seed gives the same model, it is trained once." in text
    assert "11 runs" in text and f"5{SPACE}min 30{SPACE}s" in text


def test_comparison_of_one_seed_has_no_intervals(tmp_path):
    result = comparison()
    for row in result["summary"] + result["differences"]:
        row |= {"low": None, "high": None}
    text = write_comparison_report({**result, "pretraining_cost": None}, tmp_path).read_text(encoding="utf-8")
    assert "0.700" in text
    assert "no clear difference" in text
    assert "spent once before" not in text


def finetuned(**changes: object) -> dict:
    history = [
        {"epoch": 0.5, "train_loss": 1.2, "valid_loss": 1.0, "valid_accuracy": 0.5, "valid_macro_f1": 0.45},
        {"epoch": 1.0, "train_loss": 0.6, "valid_loss": 0.7, "valid_accuracy": 0.8, "valid_macro_f1": 0.78},
        {"epoch": 1.5, "train_loss": 0.2, "valid_loss": 0.9, "valid_accuracy": 0.79, "valid_macro_f1": 0.77},
    ]
    result = {
        "task": "classify",
        "labels": ["<World>", "Sports"],
        "settings": {"lr": 5e-5, "freeze": False},
        "history": history,
    }
    return {**result, "best_epoch": 1.0, "valid": {"macro_f1": {"value": 0.7812, "low": 0.74, "high": 0.82}}, **changes}


def test_finetune_report_states_scores_and_names_overfitting(tmp_path):
    (tmp_path / "finetune.json").write_text(json.dumps(finetuned()))
    text = write_finetune_report(tmp_path).read_text(encoding="utf-8")
    assert "0.781" in text
    assert f"95{SPACE}% interval 0.740 to 0.820" in text
    assert "epoch 1, the best" in text
    assert "begun to overfit" in text
    assert "(&lt;World&gt;, Sports)" in text
    assert_self_contained(text)


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([0.7, 0.8, 0.9], "lowest at the first evaluation, epoch 0.5, and higher ever after: the model had begun"),
        ([1.0, 0.7, 0.9], "lowest at epoch 1 and higher after it: from there on the model had begun to overfit"),
        ([1.0, 0.7, 0.72], None),
    ],
)
def test_overfitting_is_told_as_it_came(tmp_path, losses, sentence):
    history = [{**row, "valid_loss": loss} for row, loss in zip(finetuned()["history"], losses, strict=True)]
    (tmp_path / "finetune.json").write_text(json.dumps(finetuned(history=history)))
    text = write_finetune_report(tmp_path).read_text(encoding="utf-8")
    assert sentence in text if sentence else "overfit." not in text


def test_finetune_report_without_validation_data_says_so(tmp_path):
    history = [{"epoch": 1.0, "train_loss": 0.6, "valid_loss": None, "valid_accuracy": None, "valid_macro_f1": None}]
    result = finetuned(history=history, valid={}, rejected=[{"row": 3}], truncated={"train": 2, "valid": 0})
    (tmp_path / "finetune.json").write_text(json.dumps(result))
    text = write_finetune_report(tmp_path).read_text(encoding="utf-8")
    assert "No data was held out" in text
    assert "1 rows of the data could not be used" in text
    assert "2 texts were longer than the model reads" in text


def test_finetune_report_needs_its_result(tmp_path):
    with pytest.raises(TilthError, match=r"finetune\.json does not exist"):
        write_finetune_report(tmp_path)


def test_a_run_that_was_planned_shows_what_was_predicted_beside_what_was_reached(tmp_path):
    run = make_run(tmp_path / "run", [START, *(step(number) for number in range(1, 41)), evaluation(40, 5.5), END])
    assert "Predicted and reached" not in write_run_report(run).read_text()
    plan = {
        "recipe": Recipe.model_validate(
            {"family": "gpt2", "size": "mini", "objective": {"name": "causal"}, "train": {"lr": 0.5}}
        ).model_dump(mode="json"),
        "parameters": 11_283_456, "budget": {"tokens": 320_000, "epochs": 0.11}, "seconds": 150.0,
        "probe": {"tokens_per_second": 6_900.0}, "loss": {"value": 5.6, "low": 5.5, "high": 5.8},
    }  # fmt: skip
    (run / "plan.json").write_text(json.dumps(plan))
    text = " ".join(re.sub(r"<[^>]+>", " ", write_run_report(run).read_text()).replace(SPACE, " ").split())
    assert "The recipe has changed since: train.lr." in text
    assert "Time 2 min 30 s 3 min 12 s" in text
    assert "Tokens per second 6,900 2,048" in text
    assert "Held-out loss 5.600 [5.500, 5.800] 5.432, better than expected" in text
    (run / "plan.json").write_text(json.dumps({**plan, "loss": None, "probe": None, "seconds": None}))
    text = " ".join(re.sub(r"<[^>]+>", " ", write_run_report(run).read_text()).replace(SPACE, " ").split())
    assert "Predicted and reached" in text and "than expected" not in text
