"""The support domain's files: counts, form, no leaks, made by the script that says so."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from plumbline.conversations import conversation_fault, first_prompt, normalise, prompt_key

DOMAIN = Path(__file__).parents[2] / "domains" / "support"
FILES = ("prompts.jsonl", "demonstrations.jsonl", "benchmark.jsonl")
WAYS_OF_WRITING = {
    "plain", "typos", "angry", "shouting", "terse", "polite", "learner", "two_questions", "follow_up",
}  # fmt: skip


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (DOMAIN / "data" / name).read_text(encoding="utf-8").splitlines()]


def prompt_of(row: dict) -> list[dict]:
    return row["prompt"] if "prompt" in row else row["messages"][:-1]


@pytest.fixture(scope="module")
def data() -> dict[str, list[dict]]:
    return {name: rows_of(name) for name in FILES}


@pytest.fixture
def make_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOMAIN / "build"))
    for name in ("make_data", "phrasing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("make_data")


def test_there_are_enough_rows_and_every_way_of_writing(data: dict[str, list[dict]]) -> None:
    assert len(data["prompts.jsonl"]) >= 700
    assert len(data["demonstrations.jsonl"]) >= 1000
    assert len(data["benchmark.jsonl"]) >= 120
    for name in ("prompts.jsonl", "demonstrations.jsonl"):
        styles = Counter(row["style"] for row in data[name])
        assert set(styles) == WAYS_OF_WRITING
        assert min(styles.values()) >= 30
    multi_turn = [row for row in data["demonstrations.jsonl"] if len(row["messages"]) > 2]
    assert len(multi_turn) >= 100


def test_every_conversation_is_well_formed(data: dict[str, list[dict]]) -> None:
    for name, rows in data.items():
        for number, row in enumerate(rows, 1):
            assert conversation_fault(prompt_of(row), must_end_with="user") is None, f"{name}:{number}"
            if "messages" in row:
                assert conversation_fault(row["messages"], must_end_with="assistant") is None, f"{name}:{number}"


def test_no_prompt_occurs_twice_in_or_across_files(data: dict[str, list[dict]]) -> None:
    prompts = [prompt_of(row) for rows in data.values() for row in rows]
    whole = Counter(prompt_key(prompt) for prompt in prompts)
    first = Counter(prompt_key(first_prompt(prompt)) for prompt in prompts)
    assert max(whole.values()) == 1
    assert max(first.values()) == 1, "a dialogue's first message would put it into the split of another row"


def test_benchmark_phrasings_occur_nowhere_else(data: dict[str, list[dict]], make_data: ModuleType) -> None:
    held_out = make_data.load_phrases("held_out.yaml")
    assert set(held_out) == set(make_data.load_phrases("knowledge.yaml"))
    others = " ".join(
        normalise(" ".join(m["content"] for m in prompt_of(row)))
        for name in ("prompts.jsonl", "demonstrations.jsonl")
        for row in data[name]
    )
    for phrases in held_out.values():
        for phrase in phrases:
            parts = [normalise(part) for part in phrase.replace("}", "{").split("{")[::2]]
            assert not all(part in others for part in parts), phrase


def test_every_topic_is_in_every_file(data: dict[str, list[dict]], make_data: ModuleType) -> None:
    topics = set(make_data.load_phrases("knowledge.yaml"))
    assert len(topics) >= 30
    for name, rows in data.items():
        assert {topic for row in rows for topic in row["topics"]} == topics, name


def test_the_script_makes_the_committed_files_byte_for_byte(make_data: ModuleType) -> None:
    for name, rows in make_data.make_files().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        assert (DOMAIN / "data" / name).read_bytes() == text.encode(), f"run make_data.py: {name} is not what it makes"


def test_no_slot_or_choice_is_left_in_any_text(data: dict[str, list[dict]]) -> None:
    for rows in data.values():
        for row in rows:
            text = " ".join(m["content"] for m in row.get("messages", row.get("prompt", [])))
            assert not set("[]{}|") & set(text), text


def test_data_are_small(data: dict[str, list[dict]]) -> None:
    assert sum((DOMAIN / "data" / name).stat().st_size for name in FILES) <= 3_000_000


def test_nested_choices_expand_to_each_of_their_variants(make_data: ModuleType) -> None:
    phrasing = sys.modules["phrasing"]
    import random

    rng = random.Random(0)
    found = {phrasing.expand("a [b|c [d|e]] f", rng) for _ in range(200)}
    assert found == {"a b f", "a c d f", "a c e f"}


def test_typos_leave_order_numbers_alone(make_data: ModuleType) -> None:
    import random

    phrasing = sys.modules["phrasing"]
    for seed in range(50):
        assert "PW-48213" in phrasing.with_typos("Where is my order PW-48213 now?", random.Random(seed))
