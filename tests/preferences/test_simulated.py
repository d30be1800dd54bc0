"""Simulated annotators follow the stated model, and are marked as simulated everywhere."""

import json
import math
import random
from types import SimpleNamespace

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.checks_file import Check
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.records import GOLD, REPEAT, Assignment, Card
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.simulated import perceived, ranking_of, refused_names, simulate
from plumbline.preferences.snapshot import write_snapshot
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import ChecksSection
from tests.preferences.conftest import new_task, new_tasks


def settings(name="bot", **changed):
    values = {"noise": 0.1, "length_bias": 0.0, "position_bias": 0.0, "carelessness": 0.0, "tie_below": 0.0}
    return SimpleNamespace(name=name, **(values | changed))


class ByNumber:
    """Response 0 is best: its utility is 1, that of response 1 is 0.9, …"""

    def score(self, prompt, response):
        return 1 - int(response[-1]) / 10


def share(worth, one, wanted, draws=4000):
    rng = random.Random(0)
    return sum(wanted(ranking_of(worth, one, rng)) for _ in range(draws)) / draws


def near(expected, draws=4000):
    """Within four standard errors of a share."""
    return pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))


@pytest.mark.parametrize(("gap", "noise"), [(0.1, 0.1), (0.2, 0.1), (0.1, 0.5), (-0.3, 0.2)])
def test_pairs_follow_bradley_terry(gap, noise):
    expected = 1 / (1 + math.exp(-gap / noise))
    found = share({"a": gap, "b": 0.0}, settings(noise=noise), lambda ranking: ranking["a"] == 1)
    assert found == near(expected)


def test_rankings_follow_plackett_luce():
    worth, noise = {"a": 0.2, "b": 0.1, "c": 0.0}, 0.1
    a, b, c = (math.exp(value / noise) for value in worth.values())  # e², e, 1
    expected = a / (a + b + c) * b / (b + c)
    assert expected == pytest.approx(0.4863, abs=1e-4)  # 7.389 / 11.107 · 2.718 / 3.718
    assert share(worth, settings(noise=noise), lambda ranking: ranking == {"a": 1, "b": 2, "c": 3}) == near(expected)


def test_without_noise_the_better_response_always_wins():
    worth = {"a": 0.1, "b": 0.3, "c": 0.2}
    assert ranking_of(worth, settings(noise=0.0), random.Random(0)) == {"b": 1, "c": 2, "a": 3}


def test_what_is_perceived_nearer_than_the_threshold_is_tied():
    worth = {"a": 0.5, "b": 0.46, "c": 0.2}
    assert ranking_of(worth, settings(noise=0.0, tie_below=0.05), random.Random(0)) == {"a": 1, "b": 1, "c": 2}


def test_the_careless_rank_at_random():
    worth = {"a": 9.0, "b": 0.0}
    found = share(worth, settings(noise=0.0, carelessness=0.4), lambda ranking: ranking["a"] == 1)
    assert found == near(0.6 + 0.4 / 2)


def test_biases_add_to_what_is_perceived():
    cards = (Card("x", 0, "w " * 50 + "2"), Card("y", 1, "w 1"), Card("z", 2, "0"))
    work = Assignment("lease", "task", [{"role": "user", "content": "?"}], cards, None)
    found = perceived(work, ByNumber(), settings(length_bias=0.2, position_bias=0.3))
    # utility + 0.2 · words / 100 + 0.3 · (1, ½, 0)
    assert found == pytest.approx({"x": 0.8 + 0.102 + 0.3, "y": 0.9 + 0.004 + 0.15, "z": 1.0 + 0.002})


def team():
    return [settings("bot 1"), settings("bot 2", noise=0.3, tie_below=0.05), settings("bot 3", carelessness=0.5)]


def said(service):
    return {(record.task_id, record.annotator): record.ranking for record in service.judgements()}


def test_all_that_is_simulated_is_marked(file_service, tmp_path):
    file_service.add_tasks(new_tasks(10, 3))
    tracked = []

    def progress(items, what, total):
        for item in items:
            tracked.append((item, total))
            yield item

    report = simulate(file_service, ByNumber(), team(), seed=1, progress=progress)
    assert report.judgements == 10 and sum(report.by_annotator.values()) == 10
    assert tracked == [(number, 10) for number in range(10)]
    records = list(file_service.judgements())
    assert all(record.simulated and record.annotator.startswith("bot") for record in records)
    set_as = {"noise": 0.3, "length_bias": 0, "position_bias": 0, "carelessness": 0, "tie_below": 0.05}
    assert all(record.annotator_settings == set_as for record in records if record.annotator == "bot 2")
    assert file_service.progress().simulated == 10
    assert write_snapshot(file_service, tmp_path / "s").simulated_judgements == 10
    for format in ("trl", "rankings"):
        report = export_preferences(file_service, tmp_path / f"{format}.jsonl", format=format)
        rows = [json.loads(line) for line in (tmp_path / f"{format}.jsonl").read_text().splitlines()]
        assert len(rows) == report.rows and all(row["simulated"] is True for row in rows)
        assert report.simulated == 10


def test_killed_and_started_again_they_say_the_same(store, tmp_path):
    whole = PreferenceService(store, project="support")
    whole.set_overlap(2)
    whole.add_tasks(new_tasks(20, 3))
    simulate(whole, ByNumber(), team(), seed=1)
    other = Store.open(tmp_path / "other.db")
    parts = PreferenceService(other, project="support")
    parts.set_overlap(2)
    parts.add_tasks(new_tasks(20, 3))
    for limit in (7, 1, 13, None):
        simulate(parts, ByNumber(), team(), seed=1, limit=limit)
    assert said(parts) == said(whole) and len(said(whole)) == 40
    assert [r.judgement_id for r in parts.judgements()] == [r.judgement_id for r in whole.judgements()]
    other.close()


def test_what_one_says_does_not_depend_on_the_order_of_the_tasks(store, tmp_path):
    one = PreferenceService(store, project="support")
    one.set_overlap(3)
    one.add_tasks(new_tasks(8, 3))
    simulate(one, ByNumber(), team(), seed=1)
    other = Store.open(tmp_path / "other.db")
    two = PreferenceService(other, project="support")
    two.set_overlap(3)
    two.add_tasks(list(reversed(new_tasks(8, 3))))
    simulate(two, ByNumber(), list(reversed(team())), seed=1)
    assert said(one) == said(two)
    other.close()


def test_they_get_checks_and_repeats_like_people_and_what_they_say_of_the_work_stays_the_same(store, tmp_path):
    plain = PreferenceService(store, project="support")
    plain.add_tasks(new_tasks(60, 3))
    simulate(plain, ByNumber(), team()[:1], seed=1)
    other = Store.open(tmp_path / "other.db")
    rules = Rules(checks=ChecksSection(every=5, repeat_share=0.2))
    checked = PreferenceService(other, project="support", rules=rules)
    checked.add_tasks(new_tasks(60, 3))
    checked.checks.load([Check(new_task(f"gold {number}", 3), (1, 2, 3), GOLD) for number in range(5)])
    for limit in (25, None):  # only work is counted
        simulate(checked, ByNumber(), team()[:1], seed=1, limit=limit)
        if limit:
            assert checked.progress().done == limit
    assert said(checked) == said(plain)
    assert len(list(checked.judgements(purposes=(GOLD,)))) == 5 and list(checked.judgements(purposes=(REPEAT,)))
    other.close()


def test_settings_that_changed_are_told_before_anything_is_judged(file_service):
    assert refused_names(file_service, [settings()]) == []
    file_service.add_tasks(new_tasks(2))
    simulate(file_service, ByNumber(), [settings()], seed=1, limit=1)
    assert refused_names(file_service, [settings(), settings("another")]) == []
    (said,) = refused_names(file_service, [settings(noise=0.2), settings("another")])
    assert "'bot' is in this store with other settings (noise: 0.1 there, 0.2 here)" in said
    assert "give it another name (in a recipe: annotate.simulated.annotators)" in said
    assert file_service.progress().by_annotator == {"bot": 1}


def test_a_simulated_annotator_cannot_take_a_persons_name(file_service):
    file_service.sign_in("bot")
    with pytest.raises(StoreError, match="belongs to a person"):
        simulate(file_service, ByNumber(), [settings()], seed=1)
