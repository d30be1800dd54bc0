"""Active selection: uncertainty by hand, the order with its random fifth, and a run's open tasks put in that order."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import UserError
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.selection import by_chance, in_random_sample, is_active
from plumbline.prioritise import mixed_order, prioritise_tasks, uncertainties, uncertainty
from tests.plumbline.test_annotation import Desk


class Model:
    """Stands for a reward model: the score is the number that a response ends with; texts with `long` do not fit."""

    def score(self, conversations):
        if any("long" in messages[-1]["content"] for messages in conversations):
            raise UserError("too long")
        return torch.tensor([float(messages[-1]["content"].split()[-1]) for messages in conversations])


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([0.0, 0.0], 1.0),
        ([math.log(3), 0.0], 0.5),
        ([1000.0, 0.0], 0.0),
        ([math.log(3), 0.0, 0.0], (0.5 + 0.5 + 1) / 3),
    ],
)
def test_uncertainty_by_hand(scores, found):
    assert uncertainty(scores) == pytest.approx(found)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6))
def test_uncertainty_is_the_mean_over_pairs(scores):
    pairs = [1 - abs(2 / (1 + math.exp(second - first)) - 1) for first, second in combinations(scores, 2)]
    assert uncertainty(scores) == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)


@given(st.dictionaries(st.text(max_size=8), st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=60))
def test_every_fifth_place_goes_by_chance_and_the_others_by_uncertainty(found):
    order = mixed_order(found)
    assert sorted(order) == sorted(found)
    chosen = [found[task] for task in order if not in_random_sample(task)]
    assert chosen == sorted(chosen, reverse=True)
    sample = [task for task in order if in_random_sample(task)]
    assert sample == sorted(sample, key=by_chance)
    both_left = order[: 5 * min(len(sample), len(chosen) // 4)]
    assert [in_random_sample(task) for task in both_left] == [place % 5 == 0 for place in range(len(both_left))]
    assert mixed_order(dict(reversed(found.items()))) == order


def test_wherever_collecting_stops_the_judged_part_of_the_sample_is_a_random_sample_of_all():
    found = {f"task {number}": number / 2000 for number in range(2000)}
    assert sum(map(in_random_sample, found)) == pytest.approx(400, abs=4 * math.sqrt(400 * 0.8))
    for stop in (300, 900, 1600):
        sample = [task for task in mixed_order(found)[:stop] if in_random_sample(task)]
        assert len(sample) == -(-stop // 5)
        mean = sum(found[task] for task in sample) / len(sample)
        assert mean == pytest.approx(0.5, abs=4 * 0.2887 / math.sqrt(len(sample)))
        judged = sum(found[task] for task in mixed_order(found)[:stop]) / stop
        assert judged > mean + 0.05  # what was judged is not: it is what the model is unsure of


def test_the_open_tasks_of_a_run_are_put_in_order(tmp_path, monkeypatch):
    import reward

    desk = Desk(tmp_path)
    desk.sample("one", prompts=4)
    with pytest.raises(UserError, match="run the stage 'reward' first"):
        prioritise_tasks(desk.domain)
    monkeypatch.setattr(reward.RewardModel, "load", lambda folder: Model())
    monkeypatch.setattr(type(desk.domain), "model_of", lambda self, stage: tmp_path)
    with desk.domain.service() as service:
        with pytest.raises(UserError, match="no task is open"):
            prioritise_tasks(desk.domain)
        texts = {"sure": ("a 9", "b 0"), "torn": ("a 1", "b 1"), "leaning": ("a 1", "b 0"), "long": ("long 1", "b 0")}
        for prompt, responses in texts.items():
            message = [{"role": "user", "content": prompt}]
            service.add_tasks([NewTask(message, [NewResponse(text, "policy") for text in responses], "support")])
        done = prioritise_tasks(desk.domain)
        found = dict(uncertainties(Model(), service.control.open_tasks()))
        assert (done.tasks, done.random) == (4, sum(map(in_random_sample, found))) and 0 < done.uncertainty < 1
        with service.look() as turn:
            assert is_active(turn.connection, turn.project_id)
        assert sorted(round(value, 2) for value in found.values()) == [0.0, 0.0, 0.54, 1.0]
        who, asked = service.sign_in("Anna").annotator_id, []
        while hasattr(work := service.lease_next(who), "lease_id"):
            asked.append(work.task_id)
            service.skip(work.lease_id, who, reason="next", idempotency_key=work.lease_id)
        assert asked == mixed_order(found)
        unsure = [found[task] for task in asked if not in_random_sample(task)]
        assert unsure == sorted(unsure, reverse=True)
