"""The whole comparison with tiny random models, a reward model among them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

import plumbline.compare.replies
from plumbline.compare import compare, format_table
from plumbline.compare.run import chosen_prompts
from plumbline.conversations import prompt_key
from plumbline.datafiles import PromptRow
from plumbline.errors import MismatchError, UserError
from plumbline.recipe import CompareSection
from reward.model import load_classifier
from tests.tiny import tiny_model, tiny_tokenizer, user

PROMPTS = [
    PromptRow(user("Where is <b>my</b> order?"), {"style": "short"}),
    PromptRow(user("I want a refund for the broken lamp.")),
    PromptRow([*user("Hello"), {"role": "assistant", "content": "Yes?"}, *user("Reset my password")]),
    PromptRow(user("The invoice was wrong & late")),
    PromptRow(user("where is <b>my</b>  ORDER")),  # the first one again, for its key
]
SECTION = CompareSection(max_new_tokens=12, responses_per_prompt=2, batch_tokens=160, bootstrap=200, samples_shown=2)


class Folders:
    """The models that all tests here use."""

    def __init__(self, root: Path) -> None:
        self.sft, self.base = tiny_model(root / "sft"), tiny_model(root / "base", seed=1)
        self.dpo = tiny_model(root / "dpo", seed=2)
        self.judge = root / "judge"
        load_classifier(self.sft).save_pretrained(self.judge)
        tiny_tokenizer().save_pretrained(self.judge)
        self.utility = root / "utility.yaml"
        self.utility.write_text("nothing: 0\n", encoding="utf-8")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


class Utility:
    """A utility that likes short responses."""

    @classmethod
    def load(cls, path: Path) -> Utility:
        return cls()

    def score(self, prompt: list[dict[str, str]], response: str) -> float:
        return 1 / (1 + len(response.split()))


@pytest.fixture(autouse=True, scope="module")
def utility_module() -> Iterator[None]:
    """Put it in the place of the real one."""
    module = ModuleType("plumbline.utility")
    module.Utility = Utility  # type: ignore[attr-defined]  # a module made here
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "plumbline.utility", module)
        yield


def run(models: Folders, root: Path, **changes: Any) -> dict[str, Any]:
    (root / "out").mkdir(parents=True, exist_ok=True)
    (root / "scratch").mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "policies": {"base": models.base, "sft": models.sft, "dpo": models.dpo},
        "baselines": ["sft", "base"],
        "judge": models.judge,
        "utility": models.utility,
        "prompts": PROMPTS,
        "section": SECTION,
        "folder": root / "out",
        "scratch": root / "scratch",
        "seed": 5,
        "facts": {"run": "tiny", "simulated_share": 0.75, "lineage": ["dpo", "└── <sft>"]},
    } | changes
    return compare(settings.pop("policies"), **settings)


def results_of(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "out" / "results.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def finished(models: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One comparison that several tests read."""
    root = tmp_path_factory.mktemp("finished")
    run(models, root)
    return root


def test_results_hold_every_pair_by_every_judge(finished: Path) -> None:
    results = results_of(finished)
    pairs = [(row["policy"], row["baseline"], row["judge"]) for row in results["comparisons"]]
    assert pairs == [
        (policy, baseline, judge)
        for policy, baseline in [("dpo", "sft"), ("dpo", "base"), ("sft", "base")]
        for judge in ("reward", "utility")
    ]
    for row in results["comparisons"]:
        assert set(row) == {"policy", "baseline", "judge", "n", "win_rate", "low", "high", "ties"}
        assert row["n"] == 4
        assert 0 <= row["low"] <= row["win_rate"] <= row["high"] <= 1
    assert results["meta"]["simulated"] and results["meta"]["prompts"] == 4
    sft, dpo = results["policies"]["sft"], results["policies"]["dpo"]
    assert sft["kl_to_sft"] == sft["kl_per_token"] == 0
    assert dpo["kl_low"] <= dpo["kl_to_sft"] <= dpo["kl_high"] != 0
    assert dpo["reward_low"] <= dpo["reward_mean"] <= dpo["reward_high"]


def test_samples_hold_every_response_and_agree_with_the_results(finished: Path) -> None:
    rows = pq.read_table(finished / "out" / "samples.parquet").to_pylist()
    assert len(rows) == 4 * 3 * 2
    dpo = [row for row in rows if row["policy"] == "dpo"]
    metrics = results_of(finished)["policies"]["dpo"]
    assert sum(row["utility"] for row in dpo) / 8 == pytest.approx(metrics["utility_mean"])
    assert sum(row["kl"] for row in dpo) / 8 == pytest.approx(metrics["kl_to_sft"])
    assert sum(row["finished"] for row in dpo) / 8 == metrics["finished_share"]
    # Win rate by brute force over the two responses of each side to each prompt.
    sft = [row for row in rows if row["policy"] == "sft"]
    won = [
        (a["utility"] > b["utility"]) + 0.5 * (a["utility"] == b["utility"])
        for a in dpo
        for b in sft
        if a["prompt_key"] == b["prompt_key"]
    ]
    found = next(row for row in results_of(finished)["comparisons"] if row["judge"] == "utility")
    assert found["win_rate"] == pytest.approx(sum(won) / len(won))
    assert {row["prompt_key"] for row in rows} == {prompt_key(row.prompt) for row in PROMPTS}


class _Page(HTMLParser):
    """Tags and attributes that would load something or run."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.outside += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#")
        ]


def test_the_report_is_one_file_and_shows_text_as_text(finished: Path) -> None:
    text = (finished / "out" / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert not page.outside and "script" not in page.tags and "b" not in page.tags
    assert "url(http" not in text and "@import" not in text
    assert "&lt;b&gt;my&lt;/b&gt;" in text and "└── &lt;sft&gt;" in text
    assert "75% of the preferences" in text and "Simulated judgements" in text
    assert re.search(r"DPO’s win rate over SFT is (over |under )?\d+% on the pairs to 4 prompts", text)
    assert text.count('class="card"') >= 2


def test_each_prompt_counts_once_in_an_order_that_stays() -> None:
    chosen = chosen_prompts(PROMPTS, None)
    assert [row.prompt for row in chosen_prompts(PROMPTS[3::-1], None)] == [row.prompt for row in chosen]
    assert chosen_prompts(PROMPTS, 2) == chosen[:2]
    assert len(chosen) == 4 and PROMPTS[4] not in chosen


def test_the_same_again_gives_the_same_files(models: Folders, finished: Path, tmp_path: Path) -> None:
    run(models, tmp_path)
    for name in ("results.json", "report.html", "samples.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (finished / "out" / name).read_bytes()


def test_a_killed_comparison_goes_on_with_what_is_sampled(
    models: Folders, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(plumbline.compare.replies, "reward_scores", dies)
        with pytest.raises(Killed):
            run(models, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("plumbline.sampling.generate", dies)  # nothing is sampled a second time
        run(models, tmp_path)
    assert (tmp_path / "out" / "results.json").read_bytes() == (finished / "out" / "results.json").read_bytes()


def test_a_policy_against_itself_is_exactly_one_half(models: Folders, tmp_path: Path) -> None:
    metrics = run(models, tmp_path, policies={"sft": models.sft, "twin": models.sft}, baselines=["sft"])
    assert metrics == {
        "prompts": 4,
        **{f"twin_over_sft_{judge}{end}": 0.5 for judge in ("reward", "utility") for end in ("", "_low", "_high")},
    }
    assert results_of(tmp_path)["policies"]["twin"]["kl_to_sft"] == pytest.approx(0, abs=1e-4)


def test_people_alone_need_no_utility_and_get_no_banner(models: Folders, tmp_path: Path) -> None:
    accuracy = {"accuracy": 0.7, "accuracy_low": 0.44, "accuracy_high": 0.88}
    run(models, tmp_path, utility=None, facts={"judge_metrics": accuracy | {"length_accuracy": 0.55}})
    results = results_of(tmp_path)
    assert results["meta"]["judge_accuracy"] == {"accuracy": 0.7, "low": 0.44, "high": 0.88, "length_accuracy": 0.55}
    assert {row["judge"] for row in results["comparisons"]} == {"reward"}
    assert not results["meta"]["simulated"]
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Simulated judgements" not in text and "It agrees with 70% of" in text
    assert "it may be guessing, so its win rates are weak evidence" in text
    assert "weak evidence" in " ".join(format_table(results).split())


def test_another_tokenizer_has_no_kl(models: Folders, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", chat_template="{{ messages[0]['content'] }}\n", seed=4)
    run(models, tmp_path, policies={"sft": models.sft, "dpo": other}, baselines=["sft"])
    assert "kl_to_sft" not in results_of(tmp_path)["policies"]["dpo"]
    assert "other tokens" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_reward_model_that_ppo_optimised_may_not_judge(models: Folders, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="same model"):
        run(models, tmp_path, facts={"judge_hash": "ab" * 32, "reward_hash": "ab" * 32})


def test_bad_input_is_told_before_any_work(models: Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward\.judge_share"):
        run(models, tmp_path, judge=None, utility=None)
    with pytest.raises(UserError, match="no policy called best"):
        run(models, tmp_path, baselines=["best"])


def test_the_table_has_every_comparison(finished: Path) -> None:
    results = results_of(finished)
    table = format_table(results)
    first = results["comparisons"][0]
    assert f"{first['win_rate']:.1%}" in table and f"{first['low']:.1%} to {first['high']:.1%}" in table
    assert all(name in table for name in ("base", "sft", "dpo", "KL to sft", "ended itself"))
    assert "\x1b" not in table and max(map(len, table.splitlines())) <= 100
