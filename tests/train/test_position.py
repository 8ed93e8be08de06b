import pytest

from tilth.train.position import Position


@pytest.fixture
def position(recipe, opened):
    def make(*overrides: str) -> Position:
        settings, packing = recipe("gpt2-mini", "train.budget=2 minutes", *overrides), opened().prepared.train
        made = Position(settings.train, packing, 1, settings.data.length)
        made.clock.agreed = 0.0
        return made

    return make


def due_at(position: Position, times: list[float]) -> list[float]:
    due = []
    for seconds in times:
        position.clock.agreed = seconds
        if position.is_due("evaluate_every"):
            due.append(seconds)
    return due


def test_evaluations_take_a_tenth_of_a_budget_of_time_at_most(position):
    usual = position("train.evaluate_every=null")
    assert due_at(usual, [9.9, 10.1]) == [10.1]
    usual.note("evaluate_every")
    usual.note_evaluation(3.0)
    assert due_at(usual, [20.2, 39.9, 40.2]) == [40.2]
    usual.note("evaluate_every")
    usual.note_evaluation(0.5)
    again = position("train.evaluate_every=null")
    again.load_state(usual.state())
    for each in (usual, again):
        assert due_at(each, [50.1, 50.3]) == [50.3]


def test_a_recipe_that_says_how_often_to_evaluate_is_followed(position):
    asked = position("train.evaluate_every=5 seconds")
    asked.note_evaluation(3.0)
    assert due_at(asked, [4.9, 5.1]) == [5.1]


def test_a_budget_in_tokens_is_what_the_log_counts(opened):
    """A causal row has a token more than the model reads of it, which is predicted alone."""
    run = opened("gpt2-mini", "train.budget=20000 tokens")
    steps, counted = 0, 0
    while run.position.spent < 1:
        counted += sum(batch.tokens for batch in run.batches.at(steps))
        steps += 1
        run.position.step = steps
    assert counted == pytest.approx(20_000, rel=0.01)
