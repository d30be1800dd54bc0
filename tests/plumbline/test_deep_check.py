"""`plumbline check --deep` on a small run: what it prints, its JSON, its exit status, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import plumbline.cli
import plumbline.deep_check
from plumbline.deep_check import CheckedEntry
from plumbline.errors import MismatchError
from plumbline.runs import hash_file
from rlhf.ppo import Finding
from tests.small_domain import make_small_domain, small_recipe

CHECKS = {
    *("end_token", "end_of_turn", "pad_token", "vocabulary", "room"),
    *("reward_accuracy", "reward_spread", "reward_length", "reward_demonstrations"),
    *("ratio", "kl", "sampler", "memory"),
}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of a command."""
    monkeypatch.setattr("sys.argv", ["plumbline", *arguments])
    with pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain with two runs: `small` up to the reward model, `begun` up to SFT."""
    folder = tmp_path_factory.mktemp("small")
    make_small_domain(folder, reward={**small_recipe()["reward"], "judge_share": 0.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command(patch, "run", "recipe.yaml", "--simulate", "--until", "reward") == 0
        assert command(patch, "run", "recipe.yaml", "--run", "begun", "--until", "sft") == 0
    return folder


@pytest.fixture
def domain(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small)
    return small


def files_of(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts)
    return {str(path.relative_to(folder)): hash_file(path) for path in found}


def deep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, dict]:
    """Exit status, and what was found of the only entry."""
    status = command(monkeypatch, "check", "--deep", "--json", "recipe.yaml", "--samples", "8", *arguments)
    said = capsys.readouterr()
    assert said.out, said.err
    (entry,) = json.loads(said.out)
    return status, entry


def test_a_run_is_measured_and_a_fault_is_status_4(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = files_of(domain)
    status, entry = deep(monkeypatch, capsys)
    found = {finding["name"]: finding for finding in entry["findings"]}
    assert found.keys() == CHECKS and entry["skipped"] == []
    assert found["end_token"]["verdict"] == "fails"  # two steps teach a random model nothing
    assert (status, entry["fails"]) == (4, True)
    assert found["end_token"]["figures"]["responses"] == 8 and found["end_token"]["figures"]["length_p95"] <= 8
    assert found["ratio"]["value"] == "exactly 1" and found["kl"]["value"] == "exactly 0"
    manifest = json.loads((domain / "runs/small/reward/manifest.json").read_text())["metrics"]
    assert found["reward_accuracy"]["figures"]["accuracy"] == manifest["accuracy"]
    assert found["reward_accuracy"]["figures"]["length_accuracy"] == manifest["length_accuracy"]
    assert files_of(domain) == before, "a check changes nothing"


def test_the_table_for_people(domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert command(monkeypatch, "check", "--deep", "recipe.yaml", "--samples", "8") == 4
    said = capsys.readouterr().out
    assert "the recipe is valid" in said and "before ppo:" in said
    (line,) = [line for line in said.splitlines() if line.startswith("responses that end themselves")]
    assert "of 8; tokens: median" in line and "above 80%" in line and line.rstrip().endswith("fails")
    assert "fails: responses that end themselves: SFT did not teach the policy to stop" in said
    assert "memory plan: always: program" in said
    assert "of 13 checks fail" in said


def test_lora_is_checked_as_it_is_trained(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, entry = deep(monkeypatch, capsys, "align.ppo.lora.r=2")
    found = {finding["name"]: finding for finding in entry["findings"]}
    assert found["memory"]["figures"]["reference"] == 0 and found["kl"]["value"] == "exactly 0"


def test_what_is_not_made_yet_is_skipped_and_named(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, entry = deep(monkeypatch, capsys, "--run", "begun")
    assert {finding["name"] for finding in entry["findings"]} == {name for name in CHECKS if "reward" not in name}
    (skipped,) = entry["skipped"]
    assert "`plumbline run recipe.yaml --run begun --until reward` makes it" in skipped


def test_settings_that_need_what_the_run_does_not_have_yet_or_has_are_no_fault(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    watching = ("reward.watch_share=0.3", "align.1.on_overoptimization=stop")
    ending = ("align.1.early_stopping_patience=2", "align.1.eval_strategy=steps")
    _, entry = deep(monkeypatch, capsys, *watching, *ending)
    assert "trainer" not in {finding["name"] for finding in entry["findings"]}, "the trainer did not refuse"
    assert [line for line in entry["skipped"] if "--until watch" in line]


def test_when_nothing_fails_the_status_is_0(domain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = CheckedEntry("ppo", [Finding("x", "x", "1", "1", "warning", "look")])
    monkeypatch.setattr(plumbline.deep_check, "check_entries", lambda chain, samples: [entry])
    assert command(monkeypatch, "check", "--deep", "recipe.yaml") == 0


def test_weights_that_do_not_fit_are_not_loaded(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plumbline.deep_check, "machine_memory", lambda device: (1000, "this machine's memory"))
    monkeypatch.setattr(plumbline.deep_check, "make_trainer", None)
    status, entry = deep(monkeypatch, capsys)
    assert status == 4 and [finding["name"] for finding in entry["findings"]] == ["memory"]
    assert "reward" in entry["findings"][0]["figures"]


def test_what_the_trainer_refuses_fails(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    status, entry = deep(monkeypatch, capsys, "align.ppo.response_length=255")
    assert status == 4 and [finding["name"] for finding in entry["findings"]] == ["trainer"]
    assert "no prompt leaves room for a response of 255 tokens" in entry["findings"][0]["advice"]


def test_a_reward_model_that_does_not_fit_fails(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def another(*identities: object, **names: str) -> None:
        if names["found_name"] == "the reward model":
            raise MismatchError("another tokenizer")

    monkeypatch.setattr(plumbline.deep_check, "check_fits", another)
    status, entry = deep(monkeypatch, capsys)
    assert status == 4 and [finding["advice"] for finding in entry["findings"]] == ["another tokenizer"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["recipe.yaml", "--run", "smal"],
            "runs has no run 'smal': --deep measures models that a run has made; did you mean 'small'?",
        ),
        (
            ["recipe.yaml", "--runs", "elsewhere"],
            "no fine-tuned policy to measure yet: `plumbline run recipe.yaml --run small --runs elsewhere --until sft`",
        ),
        (["dpo.yaml"], "no entry of `align` in this recipe has `method: ppo`"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    recipe = yaml.safe_load((domain / "recipe.yaml").read_text())
    recipe["align"] = [entry for entry in recipe["align"] if entry["method"] == "dpo"]
    (domain / "dpo.yaml").write_text(yaml.safe_dump(recipe))
    assert command(monkeypatch, "check", "--deep", *arguments) == 2
    assert said in capsys.readouterr().err


def test_json_without_deep_is_refused(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert command(monkeypatch, "check", "--json", "recipe.yaml") == 2
    assert "--json prints what --deep finds" in capsys.readouterr().err


def test_memory_that_is_full_while_models_are_loaded_is_a_finding(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(plumbline.deep_check, "make_trainer", full)
    status, entry = deep(monkeypatch, capsys)
    (finding,) = entry["findings"]
    assert (status, finding["name"]) == (4, "out_of_memory")
    assert "was full before all models were loaded" in finding["advice"]
