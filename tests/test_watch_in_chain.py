"""The chain trains a reward model that PPO watches, from preferences that nothing else learns from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.annotation import simulate_annotators
from plumbline.chain import Chain, read_recipe
from plumbline.compare.wording import percent
from plumbline.errors import WaitingForPeople
from plumbline.lineage import as_lines, lineage_of
from plumbline.preferences.pairs import load_pairs
from plumbline.runs import Manifest, Run, hash_folder
from tests.small_domain import make_small_domain, small_recipe

ROLLOUTS = 4


def chain_of(recipe: Path, root: Path, *overrides: str) -> Chain:
    return Chain(read_recipe(recipe, overrides), recipe, Run(root), lambda line: None)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    changed = small_recipe()
    changed["reward"] |= {"judge_share": 0.3, "watch_share": 0.3}
    changed["align"][1] |= {"gradient_accumulation_steps": 1, "total_episodes": 8 * ROLLOUTS}
    changed["align"][1] |= {"overoptimization_window": 1, "overoptimization_z": 1e9, "on_overoptimization": "stop"}
    changed["annotate"]["store"] = f"sqlite:///{folder}/store.db"
    return make_small_domain(folder, **changed)


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    chain = chain_of(recipe, recipe.parent / "runs" / "small")
    with pytest.raises(WaitingForPeople):
        chain.run_stages()
    simulate_annotators(chain.domain)
    chain.run_stages()
    return chain.run.root


def read(folder: Path) -> Manifest:
    made = Manifest.read(folder)
    assert made is not None
    return made


def states(chain: Chain) -> dict[str, str]:
    return {planned.stage.name: planned.state for planned in chain.plan()}


def test_the_watched_model_learned_from_preferences_of_its_own(finished: Path) -> None:
    shares = {"judge_share": 0.3, "watch_share": 0.3}
    prompts = {
        part: set(load_pairs(finished / "preferences", part=part, **shares)["prompt_key"])
        for part in ("policy", "judge", "watch")
    }
    assert all(prompts.values())
    assert len(set.union(*prompts.values())) == sum(map(len, prompts.values()))
    for stage, part in (("reward", "policy"), ("judge", "judge"), ("watch", "watch")):
        made = read(finished / stage)
        assert made.config["half"] == part
        pairs = load_pairs(finished / "preferences", part=part, split="train", validation=0.2, test=0.2, **shares)
        assert made.metrics["train_pairs"] == len(pairs)
    assert len({hash_folder(finished / stage) for stage in ("reward", "judge", "watch")}) == 3


def test_ppo_watches_it_and_says_so(finished: Path) -> None:
    log = [json.loads(line) for line in (finished / "ppo" / "training_log.jsonl").read_text().splitlines()]
    watched = [entry["objective/watched_scores"] for entry in log if "objective/watched_scores" in entry]
    assert len(watched) == ROLLOUTS
    made = read(finished / "ppo")
    assert (made.metrics["watched_scores_first"], made.metrics["watched_scores_last"]) == (watched[0], watched[-1])
    assert made.metrics["overoptimization_tests"] == ROLLOUTS - 1
    assert made.metrics["overoptimization_seen"] == 0
    assert "eval_objective/watched_scores" in made.metrics
    assert made.inputs["watch"].hash == hash_folder(finished / "watch")
    assert (finished / "ppo" / "overoptimization.svg").read_text().startswith("<?xml")
    report = (finished / "compare" / "report.html").read_text()
    assert "PPO: over-optimisation was not seen in 3 tested rollouts." in report
    said = report[report.index("Watched reward") :].split("</li>")[0]
    assert f"It agrees with {percent(read(finished / 'watch').metrics['accuracy'])} of its held-out" in said


def test_cards_and_lineage_name_it(finished: Path) -> None:
    card = (finished / "watch" / "README.md").read_text()
    assert "This is a reward model that PPO watches" in card
    assert "reward-trainer" in card
    lines = as_lines(lineage_of(finished / "ppo"))
    assert any("watch " in line for line in lines)
    assert not any("watch " in line for line in as_lines(lineage_of(finished / "dpo")))


def test_it_is_redone_only_where_its_part_changes(recipe: Path, finished: Path) -> None:
    assert set(states(chain_of(recipe, finished)).values()) == {"up to date"}
    share = states(chain_of(recipe, finished, "reward.watch_share=0.2"))
    assert [name for name, state in share.items() if state != "up to date"] == [
        "reward", "watch", "dpo", "ppo", "compare",
    ]  # fmt: skip
    judge = states(chain_of(recipe, finished, "reward.judge_share=0.2"))
    assert judge["watch"] == "up to date" and judge["judge"] == "to run"
    none = chain_of(recipe, finished, "reward.watch_share=0", "align.ppo.on_overoptimization=warn")
    assert "watch" not in none.names()


def test_without_a_watch_share_stages_are_what_they_were(tmp_path: Path) -> None:
    """Their configuration decides whether finished runs, made before there was such a share, are up to date."""
    recipe = make_small_domain(tmp_path)
    absent = {stage.name: stage for stage in chain_of(recipe, tmp_path / "run").stages}
    zero = {stage.name: stage for stage in chain_of(recipe, tmp_path / "run", "reward.watch_share=0").stages}
    assert list(absent) == ["sft", "sample", "preferences", "reward", "judge", "dpo", "ppo", "compare"]
    for name, stage in absent.items():
        assert (stage.config, stage.after, stage.seed) == (zero[name].config, zero[name].after, zero[name].seed)
    reward = {
        **small_recipe()["reward"],
        **{"lora": None, "load_in_4bit": False, "use_margin": False, "judge_share": 0.5},
        **{"validation": 0.2, "test": 0.2},
    }
    assert absent["reward"].config == {**reward, "half": "policy"}
    assert absent["judge"].config == {**reward, "half": "judge"}
    assert absent["dpo"].config["judge_share"] == 0.5
    assert not any("watch_share" in stage.config for stage in absent.values())
    assert absent["ppo"].after == ("sft", "reward")


def test_killed_at_random_moments_it_ends_in_the_same_result(recipe: Path, finished: Path) -> None:
    root = recipe.parent / "again" / "small"
    shutil.copytree(finished, root)
    for stage in ("watch", "ppo"):
        shutil.rmtree(root / stage)
    command = [sys.executable, "-m", "tests.kill_chain", str(recipe), str(root), "7", "watch", "ppo"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    place = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["half_written"] == found["left"] == []
    assert found["killed"]["watch"] and found["killed"]["ppo"]
    assert found["hashes"] == {stage: hash_folder(finished / stage) for stage in ("watch", "ppo")}
    assert (root / "ppo" / "overoptimization.svg").read_text() == (
        finished / "ppo" / "overoptimization.svg"
    ).read_text()
