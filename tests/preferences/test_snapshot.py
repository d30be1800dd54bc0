"""Snapshots are named by their contents; pairs come out of rankings."""

import json
import math
import random
from itertools import combinations
from typing import get_args

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.conversations import Part, Split, part_of, split_of
from plumbline.errors import UserError
from plumbline.preferences.pairs import edited_demonstrations, load_pairs, pairs_of
from plumbline.preferences.records import NewJudgement
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.snapshot import read_snapshot, write_snapshot
from plumbline.preferences.store import Store
from tests.preferences.conftest import new_task


def judgement(number, ranks=(1, 2), annotator="Anna", **said):
    task = new_task(f"prompt {number}", len(ranks), origin="import:test")
    return NewJudgement(task, tuple(ranks), annotator, key=f"{number} {annotator}", **said)


def many():
    people = [judgement(n, random.Random(n).sample((1, 2, 3), 3), name) for n in range(30) for name in ("Anna", "Ben")]
    bots = [judgement(n, (2, 1), "bot", simulated=True, annotator_settings={"noise": 0.1}) for n in range(100, 110)]
    return people + bots


def snapshot_of(address, folder, judgements):
    store = Store.open(address)
    try:
        service = PreferenceService(store, project="support")
        service.take(judgements)
        return write_snapshot(service, folder)
    finally:
        store.close()


def test_the_same_judgements_give_the_same_file_however_they_came_in(address, tmp_path):
    first = snapshot_of(address, tmp_path / "a", many())
    shuffled = random.Random(1).sample(many(), 70)
    second = snapshot_of(tmp_path / "other.db", tmp_path / "b", shuffled)
    assert first.hash == second.hash
    assert first.file.read_bytes() == second.file.read_bytes()
    assert first.file.name == f"{first.hash}.parquet"
    less = snapshot_of(tmp_path / "less.db", tmp_path / "c", shuffled[1:])
    assert less.hash != first.hash


def test_a_snapshot_counts_people_and_simulated_annotators(tmp_path):
    snapshot = snapshot_of(tmp_path / "x.db", tmp_path / "s", many())
    assert (snapshot.judgements, snapshot.people, snapshot.simulated_judgements) == (70, 60, 10)
    assert snapshot.annotators == {"Anna": 30, "Ben": 30, "bot": 10}
    assert read_snapshot(tmp_path / "s") == snapshot
    assert json.loads((tmp_path / "s" / "snapshot.json").read_text())["simulated_judgements"] == 10
    table = pyarrow.parquet.read_table(snapshot.file).to_pylist()
    assert sum(row["simulated"] for row in table) == 10
    assert {row["annotator_settings"] for row in table if row["simulated"]} == {'{"noise": 0.1}'}
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == sorted([snapshot.file.name, "snapshot.json"])


def test_snapshots_that_are_missing_or_changed_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no snapshot"):
        read_snapshot(tmp_path)
    snapshot = snapshot_of(tmp_path / "x.db", tmp_path / "s", many())
    snapshot.file.write_bytes(snapshot.file.read_bytes() + b"x")
    with pytest.raises(UserError, match="was changed"):
        load_pairs(tmp_path / "s")
    with pytest.raises(UserError, match="no judgements yet"):
        snapshot_of(tmp_path / "empty.db", tmp_path / "e", [])
    assert list((tmp_path / "e").iterdir()) == []


def test_all_pairs_of_a_ranking_with_its_gaps_as_margins(tmp_path):
    snapshot_of(tmp_path / "x.db", tmp_path / "s", [judgement(0, (2, 1, 2, 5))])
    pairs = load_pairs(tmp_path / "s")
    found = {(row["chosen"][0]["content"][-1], row["rejected"][0]["content"][-1]): row["margin"] for row in pairs}
    # by hand: response 1 is best, 0 and 2 are tied, 3 is last (rank 5 is the third rank there is)
    assert found == {("1", "0"): 1.0, ("1", "2"): 1.0, ("1", "3"): 2.0, ("0", "3"): 1.0, ("2", "3"): 1.0}
    row = pairs[0]
    assert row["prompt"] == [{"role": "user", "content": "prompt 0"}]
    assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
    assert (row["annotator"], row["simulated"]) == ("Anna", False)
    assert len(set(pairs["judgement_id"])) == 1


def test_a_stated_strength_is_the_margin_of_two_responses(tmp_path):
    snapshot_of(tmp_path / "x.db", tmp_path / "s", [judgement(0, (2, 1), strength=3.0)])
    assert load_pairs(tmp_path / "s")["margin"] == [3.0]


def test_an_improved_response_is_preferred_to_the_best_and_is_a_demonstration(tmp_path):
    given = [judgement(0, (2, 1, 3), edited="better"), judgement(1, (1, 1, 2), edited="better still"), judgement(2)]
    snapshot_of(tmp_path / "x.db", tmp_path / "s", given)
    found = {}
    for row in load_pairs(tmp_path / "s"):
        sides = row["chosen"][0]["content"], row["rejected"][0]["content"]
        found.setdefault(row["prompt"][0]["content"], {})[sides] = row["margin"]
    texts = [response.text for response in given[0].task.responses]
    assert {sides: margin for sides, margin in found["prompt 0"].items() if "better" in sides} == {
        ("better", texts[1]): 1.0  # over the best, and over no other
    }
    tied = [response.text for response in given[1].task.responses][:2]
    assert {sides for sides in found["prompt 1"] if "better still" in sides} == {("better still", one) for one in tied}
    assert len(found["prompt 0"]) == 4 and len(found["prompt 1"]) == 4
    demonstrations = {row["messages"][0]["content"]: row for row in edited_demonstrations(tmp_path / "s")}
    assert demonstrations.keys() == {"prompt 0", "prompt 1"}
    assert demonstrations["prompt 0"]["messages"] == [
        {"role": "user", "content": "prompt 0"},
        {"role": "assistant", "content": "better"},
    ]
    assert (demonstrations["prompt 0"]["annotator"], demonstrations["prompt 0"]["simulated"]) == ("Anna", False)
    splits = [len(list(edited_demonstrations(tmp_path / "s", split=split))) for split in get_args(Split)]
    assert sum(splits) == 2


def test_parts_and_splits_divide_the_pairs_by_prompt(tmp_path):
    snapshot_of(tmp_path / "x.db", tmp_path / "s", [judgement(n) for n in range(200)])
    seen = {}
    for part in ("policy", "judge"):
        for split in ("train", "validation", "test"):
            for row in load_pairs(tmp_path / "s", part=part, split=split, judge_share=0.3, validation=0.2):
                seen[row["prompt"][0]["content"]] = (part, split)
                assert part_of(row["prompt"], judge=0.3) == part
                assert split_of(row["prompt"], validation=0.2) == split
    assert len(seen) == 200


def test_three_parts_are_disjoint_and_stay_when_preferences_are_added(tmp_path):
    def parts(number):
        folder = tmp_path / str(number)
        snapshot_of(tmp_path / f"{number}.db", folder, [judgement(n) for n in range(number)])
        shares = {"judge_share": 0.3, "watch_share": 0.25}
        return {part: set(load_pairs(folder, part=part, **shares)["prompt_key"]) for part in get_args(Part)}

    few, many = parts(60), parts(200)
    assert sum(map(len, many.values())) == 200 == len(set.union(*many.values()))
    assert few["watch"]
    assert all(few[part] <= many[part] for part in few)


def test_no_pairs_is_told_with_the_reason(tmp_path):
    snapshot_of(tmp_path / "x.db", tmp_path / "s", [judgement(n, (1, 1)) for n in range(3)])
    with pytest.raises(UserError, match=r"all 3 judgements .* are ties"):
        load_pairs(tmp_path / "s")
    with pytest.raises(UserError, match="no judgement belongs to this part of the data"):
        load_pairs(tmp_path / "s", part="judge", judge_share=0.0)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=9))
def test_pairs_are_all_strict_preferences_once(ranks):
    pairs = list(pairs_of(ranks))
    assert all(ranks[pair.chosen] < ranks[pair.rejected] for pair in pairs)
    assert all(math.isclose(pair.margin, ranks[pair.rejected] - ranks[pair.chosen]) for pair in pairs)
    found = sorted(tuple(sorted(pair[:2])) for pair in pairs)
    assert found == [pair for pair in combinations(range(len(ranks)), 2) if ranks[pair[0]] != ranks[pair[1]]]
