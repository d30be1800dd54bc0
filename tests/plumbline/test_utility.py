"""The known utility: scores worked by hand, what must rank above what, what cannot be gamed, faults of rubrics."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import DataError, UserError
from plumbline.utility import RubricError, Utility, _claims, _readable

SUPPORT = Path(__file__).parents[2] / "domains" / "support"
REFUND = [{"role": "user", "content": "Where is my refund for PW-48213?"}]
BOTH = [{"role": "user", "content": "Where is my refund, and what does delivery cost?"}]
RUBRIC = {
    "prompts": ["prompts.jsonl"],
    "weights": {"next_step": 0.25, "courteous": 0.25, "concise": 0.25, "no_invention": 0.25},
    "floor": 0.2,
    "words": {"at_least": 4, "at_most": 20, "for_each_further_topic": 10},
    "invention_penalty": 0.5,
    "facts": ["8 a.m. to 8 p.m."],
    "next_step": ["write to us"],
    "courteous": ["thank you", "sorry"],
    "rude": ["calm down"],
    "inventions": ["guarantee"],
    "topics": {
        "refund": {"must_mention": ["five working days", "payment method|card"], "facts": ["five working days"]},
        "delivery": {"must_mention": [r"\$4\.95"], "facts": ["$4.95"]},
    },
}


def write(folder: Path, rubric: dict | str, rows: list[dict] | None = None) -> Path:
    known = [{"prompt": REFUND, "topics": ["refund"]}, {"prompt": BOTH, "topics": ["refund", "delivery"]}]
    lines = [json.dumps(row) for row in (known if rows is None else rows)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "utility.yaml"
    path.write_text(rubric if isinstance(rubric, str) else yaml.safe_dump(rubric), encoding="utf-8")
    return path


@pytest.fixture
def utility(tmp_path: Path) -> Utility:
    return Utility.load(write(tmp_path, RUBRIC))


@pytest.fixture(scope="module")
def support() -> Utility:
    return Utility.load(SUPPORT / "utility.yaml")


def test_a_reply_with_everything_scores_one(utility: Utility) -> None:
    text = "Thank you. The money is on your card within five working days; write to us if it is not."
    axes = ("answers", "next_step", "courteous", "concise", "no_invention", "readable", "total")
    assert utility.explain(REFUND, text) == dict.fromkeys(axes, 1.0)


@pytest.mark.parametrize(
    ("text", "axes", "total"),
    [
        # half answered: 0.2 + 0.8 x 0.5 = 0.6; two of four manners
        ("It is going to be there within five working days.", {"answers": 0.5, "courteous": 0.0}, 0.6 * 0.5),
        # $15 is not known: 1 - 0.5; (0 + 1 + 1 + 0.5) / 4
        (
            "Sorry, you will have it within five working days on the card, and you will get $15.",
            {"answers": 1.0, "no_invention": 0.5},
            0.625,
        ),
        # nothing answered: floor 0.2; courteous, concise, nothing invented
        ("Thank you, we will look into it for you as soon as we can.", {"answers": 0.0}, 0.2 * 0.75),
        # rude in spite of thanks: (0 + 0 + 1 + 1) / 4
        ("Calm down, it will be on the card within five working days. Thank you.", {"courteous": 0.0}, 0.5),
    ],
)
def test_scores_worked_by_hand(utility: Utility, text: str, axes: dict[str, float], total: float) -> None:
    found = utility.explain(REFUND, text)
    assert {axis: found[axis] for axis in axes} == pytest.approx(axes)
    assert found["readable"] == 1.0
    assert found["total"] == utility.score(REFUND, text) == pytest.approx(total)


def test_conciseness_falls_from_the_budget_to_twice_the_budget(utility: Utility) -> None:
    def concise(words: int, prompt: list[dict]) -> float:
        return utility.explain(prompt, " ".join(f"w{n}" for n in range(words)))["concise"]

    assert [concise(n, REFUND) for n in (3, 4, 20, 30, 40, 60)] == pytest.approx([0, 1, 1, 0.5, 0, 0])
    assert [concise(n, BOTH) for n in (30, 45, 60)] == pytest.approx([1, 0.5, 0])


def test_two_questions_need_two_answers(utility: Utility) -> None:
    one = "Thank you. It is on your card within five working days."
    assert utility.explain(BOTH, one)["answers"] == 0.5
    assert utility.explain(BOTH, f"{one} The delivery is $4.95.")["answers"] == 1.0


def test_what_the_prompt_says_is_not_invented(utility: Utility) -> None:
    assert utility.explain(REFUND, "Is that about PW-48213, from 8 am to 8 p.m.?")["no_invention"] == 1.0
    assert utility.explain(REFUND, "Is that about PW-48214?")["no_invention"] == 0.5
    assert utility.explain(REFUND, "I guarantee 3 vouchers.")["no_invention"] == 0.0


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("within five working days", {"5 working days"}),
        ("within 5 working days", {"5 working days"}),
        ("three to five days", {"3", "5 days"}),
        ("one of our team, on the one hand", set()),
        ("It costs $1,200.50.", {"$1 200 50"}),
        ("at 8 a.m. and 8pm", {"8 am", "8pm"}),
        ("write to a.b@c.example.", {"a b@c example"}),
        ("a discount of 20% or twenty percent", {"20%", "20 percent"}),
        ("it comes on Friday", {"on friday"}),
    ],
)
def test_claims_are_found_in_one_form(text: str, claims: set[str]) -> None:
    assert _claims(text) == claims


def test_keywords_repetition_and_gibberish_do_not_win(support: Utility) -> None:
    prompt = _prompt_on("refund_status")
    honest = (
        "I'm sorry about the wait. We refund within five working days after the return has reached us, to the payment "
        "method that you used. Please check the status under Orders and tell us in the chat if the time has passed."
    )
    good = support.score(prompt, honest)
    assert good > 0.95
    keywords = (
        "sorry refund five working days payment method tell us chat orders refund five working days payment method"
    )
    assert support.score(prompt, keywords) < 0.5 * good
    assert support.score(prompt, f"{honest} {honest} {honest}") < 0.6 * good
    assert support.score(prompt, "please " * 30) < 0.1
    assert support.score(prompt, "sorrythewerefundwithinfiveworkingdays") == 0.0
    assert support.score(prompt, "") == support.score(prompt, " ... !") == 0.0


def test_a_good_reply_outscores_every_kind_of_bad_one(support: Utility) -> None:
    rows = [json.loads(line) for line in (SUPPORT / "data" / "demonstrations.jsonl").read_text().splitlines()]
    scores: dict[str, list[float]] = {}
    for row in rows:
        score = support.score(row["messages"][:-1], row["messages"][-1]["content"])
        scores.setdefault(row["manner"], []).append(score)
    means = {manner: sum(found) / len(found) for manner, found in scores.items()}
    good = means.pop("good")
    assert good > 0.9
    assert all(mean < good - 0.1 for mean in means.values()), means
    assert max(means["curt"], means["missed"], means["rude"]) < means["invented"] < means["long_winded"]
    everything = [score for found in scores.values() for score in found]
    mean = sum(everything) / len(everything)
    spread = (sum((score - mean) ** 2 for score in everything) / len(everything)) ** 0.5
    assert spread > 0.15


def test_every_prompt_of_the_support_domain_has_topics_that_the_rubric_knows(support: Utility) -> None:
    for name in ("prompts.jsonl", "benchmark.jsonl"):
        for line in (SUPPORT / "data" / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert support.topics(row["prompt"]) == tuple(row["topics"])


def _prompt_on(topic: str) -> list[dict]:
    lines = (SUPPORT / "data" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return next(row["prompt"] for row in map(json.loads, lines) if row["topics"] == [topic] and len(row["prompt"]) == 1)


def test_a_system_message_does_not_hide_the_topics(utility: Utility) -> None:
    assert utility.topics([{"role": "system", "content": "Be kind."}, *REFUND]) == ("refund",)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_every_axis_of_any_text_is_in_the_unit_interval(text: str) -> None:
    found = _SUPPORT.explain(_SUPPORT_PROMPT, text)
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert found["total"] <= found["readable"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["the", "refund", "is", "on", "your", "card", "we", "chat"]), min_size=1, max_size=40))
def test_saying_a_text_twice_never_makes_it_more_readable(words: list[str]) -> None:
    assert _readable(words + words) <= _readable(words) + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6))
def test_an_unknown_amount_always_costs(amount: int) -> None:
    honest = "We refund within five working days to the payment method that you used, and please tell us in the chat."
    assert _SUPPORT.score(_SUPPORT_PROMPT, f"{honest} You get ${amount} more.") < _SUPPORT.score(
        _SUPPORT_PROMPT, f"{honest} You get something more."
    )


_SUPPORT = Utility.load(SUPPORT / "utility.yaml")
_SUPPORT_PROMPT = _prompt_on("refund_status")


def without(key: str) -> dict:
    return {name: value for name, value in RUBRIC.items() if name != key}


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        (without("floor"), "the rubric: the key 'floor' is missing"),
        ({**RUBRIC, "flor": 1}, "the rubric.flor: unknown; known are"),
        ({**RUBRIC, "floor": 2}, "floor: expected a number from 0 to 1"),
        ({**RUBRIC, "floor": True}, "floor: expected a number"),
        ({**RUBRIC, "next_step": ["(open"]}, r"next_step: '\(\?:\(open\)' is not a regular expression"),
        ({**RUBRIC, "next_step": "open"}, "next_step: expected a list of texts"),
        ({**RUBRIC, "topics": {}}, "topics: expected a mapping"),
        (
            {**RUBRIC, "topics": {"a": {"must_mention": [], "facts": []}}},
            "topics.a.must_mention: expected at least one",
        ),
        ({**RUBRIC, "topics": {"a": {"must_mention": ["x"]}}}, "topics.a: the key 'facts' is missing"),
        ({**RUBRIC, "weights": dict.fromkeys(RUBRIC["weights"], 0)}, "weights: expected at least one weight above 0"),
        ({**RUBRIC, "words": {**RUBRIC["words"], "at_most": 0}}, "words.at_most: expected a number from 1 up"),
        ({**RUBRIC, "prompts": ["absent.jsonl"]}, "prompts: there is no file"),
        (["not a mapping"], "the rubric: expected the keys"),
    ],
)
def test_faults_of_a_rubric_name_the_file_and_the_key(tmp_path: Path, rubric: dict, message: str) -> None:
    path = write(tmp_path, rubric)
    with pytest.raises(RubricError, match=message) as caught:
        Utility.load(path)
    assert str(caught.value).startswith(str(path))


def test_text_that_is_not_yaml_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"utility\.yaml: not YAML.*line 1"):
        Utility.load(write(tmp_path, "topics: [a?: ["))
    with pytest.raises(UserError, match="the rubric cannot be read"):
        Utility.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": REFUND, "topics": ["weather"]}, "topic 'weather' is not in the rubric"),
        ({"prompt": REFUND, "topics": []}, "names no `topics`"),
        ({"prompt": REFUND}, "expected `topics`"),
        ({"prompt": [], "topics": ["refund"]}, "expected a list of messages"),
        ([1], "expected an object with named fields"),
    ],
)
def test_faults_of_a_row_of_prompts_name_the_line(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path, RUBRIC, rows=[{"prompt": BOTH, "topics": ["refund"]}, row])
    with pytest.raises(DataError, match=re.escape("prompts.jsonl:2: ") + ".*" + message):
        Utility.load(path)


def test_an_unknown_prompt_is_a_clear_sentence(utility: Utility) -> None:
    with pytest.raises(UserError, match="'What now' is in none of the files under `prompts`"):
        utility.score([{"role": "user", "content": "What now"}], "Hello.")
