import json

import pytest

from tilth.train.trackers import Trackers, has_saved, read_log


def strict(path):
    """The records, read by rules that know no NaN."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line, parse_constant=refuse) for line in lines]


def logged(run, *steps, resumed=None, extra=()):
    trackers = Trackers(run, resumed)
    for step in steps:
        trackers.log("step", step, loss=1 / step, lr=0.5)
    for event, step, figures in extra:
        trackers.log(event, step, **figures)
    trackers.close()


def test_the_log_is_json_lines_with_the_event_first(tmp_path):
    figures = {"loss": float("nan"), "gap": float("inf"), "parts": {"masked": float("nan")}, "n": 3, "ok": True}
    logged(tmp_path, 1, 2, extra=[("evaluation", 2, figures)])
    records = strict(tmp_path / "log.jsonl")
    assert records[0] == {"event": "step", "step": 1, "loss": 1.0, "lr": 0.5}
    assert records[2] == {
        "event": "evaluation", "step": 2, "loss": None, "gap": None, "parts": {"masked": None}, "n": 3, "ok": True
    }  # fmt: skip
    assert [list(record)[0] for record in records] == ["event"] * 3
    assert read_log(tmp_path / "log.jsonl") == records


def test_each_record_is_on_disk_at_once(tmp_path):
    trackers = Trackers(tmp_path, None)
    trackers.log("step", 1, loss=2.0)
    assert strict(tmp_path / "log.jsonl") == [{"event": "step", "step": 1, "loss": 2.0}]
    trackers.close()


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b\u2029c\x85d\x0be\x1cf", '日本 "quoted"\r\n\t\\'])
def test_samples_of_any_text_come_back_whole(text, tmp_path):
    sample = {"prompt": "x", "text": text}
    logged(tmp_path, extra=[("sample", 1, sample), ("sample", 2, sample)])
    logged(tmp_path, 2, resumed=1)
    assert read_log(tmp_path / "log.jsonl") == [
        {"event": "sample", "step": 1, **sample},
        {"event": "step", "step": 2, "loss": 0.5, "lr": 0.5},
    ]


def test_a_resume_drops_what_came_after_its_step_and_a_last_line_cut_short(tmp_path):
    logged(tmp_path, 1, 2, 3, 4, extra=[("end", 2, {"reason": "interrupted"})])
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"event": "step", "step": 5, "lo')
    assert len(read_log(tmp_path / "log.jsonl")) == 5
    logged(tmp_path, 3, resumed=2)
    assert [record["step"] for record in strict(tmp_path / "log.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    "line", [b"\xff" * 9, '{"event": "sample", "step": 2, "text": "é'.encode()[:-1], b"5", b'{"x": 1}']
)
def test_lines_that_are_no_records_are_passed_over(line, tmp_path):
    logged(tmp_path, 1, 2)
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(line)
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2]
    assert not has_saved(tmp_path)


def test_a_new_run_starts_a_new_log(tmp_path):
    logged(tmp_path, 1, 2)
    logged(tmp_path, 7)
    assert [record["step"] for record in strict(tmp_path / "log.jsonl")] == [7]


def test_tensorboard_has_every_figure_once_after_a_resume(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    evaluation = {"held_out_loss": 3.5, "best": True, "parts": {"causal": 3.5}}
    sample = {"prompt": "Once", "text": "upon a time"}
    logged(tmp_path, 1, 2, 3, extra=[("evaluation", 3, evaluation), ("sample", 3, sample)])
    logged(tmp_path, 3, 4, resumed=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars["step/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert scalars.get("evaluation/held_out_loss", []) == []


def test_tensorboard_shows_the_texts_of_samples(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged(tmp_path, extra=[("sample", 3, {"prompt": "", "text": "upon a time"})])
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    (event,) = events.Tensors("(start)/text_summary")
    assert (event.step, event.tensor_proto.string_val) == (3, [b"upon a time"])
