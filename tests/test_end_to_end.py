"""The whole chain on a domain of a few rows, through the command line, as a user runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from plumbline.runs import Manifest
from tests.small_domain import make_small_domain, small_recipe

STAGES = ["sft", "sample", "preferences", "reward", "judge", "dpo", "ppo", "compare"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def plumbline(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "plumbline.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, made in four commands; what they printed is kept."""
    folder = tmp_path_factory.mktemp("chain")
    annotate = {**small_recipe()["annotate"], "store": f"sqlite:///{folder}/store.db"}
    make_small_domain(folder, annotate=annotate)
    printed = [
        plumbline(folder, "run", "recipe.yaml", "--until", "sample"),
        plumbline(folder, "run", "recipe.yaml", status=3),
        plumbline(folder, "run", "recipe.yaml", "--simulate", "--until", "preferences"),
        plumbline(folder, "run", "recipe.yaml"),
    ]
    return folder, printed


def manifests(folder: Path, run: str = "small") -> dict[str, Manifest]:
    return {stage: Manifest.read(folder / "runs" / run / stage) for stage in STAGES}


def test_the_chain_stops_for_people_and_says_how_to_go_on(finished):
    _, printed = finished
    said = printed[1].stderr
    assert "still missing: 38 of 38 judgements" in said
    assert "plumbline annotate recipe.yaml --run small" in said
    assert "Traceback" not in said


def test_simulated_annotators_give_what_is_missing_when_asked_for(finished):
    folder, printed = finished
    assert "38 simulated judgements by" in printed[2].stdout
    assert manifests(folder)["preferences"].metrics["simulated_judgements"] == 38


def test_every_stage_is_whole_and_its_models_load(finished):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    folder, _ = finished
    run = folder / "runs" / "small"
    assert all(manifests(folder).values())
    for stage in ("sft", "dpo", "ppo"):
        AutoModelForCausalLM.from_pretrained(run / stage)
        assert AutoTokenizer.from_pretrained(run / stage).chat_template
    for stage in ("reward", "judge"):
        assert AutoModelForSequenceClassification.from_pretrained(run / stage).config.num_labels == 1
    assert not [path for path in run.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")], "no pickles"


def test_manifests_carry_identity_inputs_and_hardware(finished):
    folder, _ = finished
    made = manifests(folder)
    model = made["dpo"].model
    assert {
        "base_hash",
        "tokenizer_hash",
        "chat_template_hash",
        "pad_token_id",
        "eos_token_id",
        "adapter",
    } <= model.keys()
    assert model["source"] == "runs/small/dpo"
    assert made["dpo"].inputs["sft"].hash == made["sft"].output_hash
    assert made["sft"].hardware["cores"] >= 1
    assert {"torch", "trl", "transformers"} <= made["sft"].libraries.keys()


def test_the_judge_and_the_policies_learned_from_different_prompts(finished):
    from plumbline.conversations import split_of
    from plumbline.preferences.pairs import load_pairs

    folder, _ = finished
    snapshot = folder / "runs" / "small" / "preferences"
    keys = {part: set(load_pairs(snapshot, part=part, split=None)["prompt_key"]) for part in ("policy", "judge")}
    assert keys["policy"]
    assert keys["judge"]
    assert not keys["policy"] & keys["judge"]
    judged = pq.read_table(next(snapshot.glob("*.parquet"))).to_pylist()
    splits = {split_of(row["prompt"], validation=0.2, test=0.2) for row in judged}
    assert "test" not in splits, "what compares models was ranked by nobody"


def test_results_and_report(finished):
    folder, printed = finished
    compare = folder / "runs" / "small" / "compare"
    results = json.loads((compare / "results.json").read_text())
    fields = {"policy", "baseline", "judge", "n", "win_rate", "low", "high", "ties"}
    assert all(set(row) == fields for row in results["comparisons"])
    pairs = {(row["policy"], row["baseline"], row["judge"]) for row in results["comparisons"]}
    assert {(p, b, j) for p in ("dpo", "ppo") for b in ("sft", "base") for j in ("reward", "utility")} <= pairs
    assert {"base", "sft", "dpo", "ppo"} == results["policies"].keys()
    report = (compare / "report.html").read_text()
    assert "simulated" in report
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", report), "nothing is loaded from elsewhere"
    assert f"report: {Path('runs/small/compare/report.html')}" in printed[-1].stdout
    assert "dpo" in printed[-1].stdout


def test_simulated_judgements_are_marked_everywhere(finished):
    folder, _ = finished
    run = folder / "runs" / "small"
    rows = pq.read_table(next((run / "preferences").glob("*.parquet"))).to_pylist()
    assert rows
    assert all(row["simulated"] for row in rows)
    assert Manifest.read(run / "preferences").metrics["simulated_judgements"] == len(rows) == 38
    for stage in ("reward", "judge", "dpo", "ppo"):
        assert "100% of the preferences behind this model were given by" in (run / stage / "README.md").read_text()
    assert "simulated" not in (run / "sft" / "README.md").read_text().split("## Identity")[0]
    plumbline(folder, "export", "recipe.yaml", "out.jsonl")
    exported = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert exported
    assert all(row["simulated"] is True for row in exported)


def test_lineage_leads_from_the_model_to_every_judgement(finished):
    folder, _ = finished
    text = plumbline(folder, "lineage", "runs/small/ppo").stdout
    assert text.startswith("ppo ")
    for part in ("reward ", "preferences ", "sample ", "sft ", "base model ", "demonstrations.jsonl", "38 simulated"):
        assert part in text, part
    tree = json.loads(plumbline(folder, "lineage", "runs/small/dpo", "--json").stdout)
    snapshot = next(node for node in tree["made_from"] if node["name"] == "preferences")["facts"]["snapshot"]
    assert pq.read_table(folder / snapshot).num_rows == 38


def test_running_again_does_nothing(finished):
    folder, _ = finished
    before = {stage: (manifest.created, manifest.output_hash) for stage, manifest in manifests(folder).items()}
    done = plumbline(folder, "run", "recipe.yaml")
    assert [f"{stage}: up to date" in done.stderr for stage in STAGES] == [True] * len(STAGES)
    after = {stage: (manifest.created, manifest.output_hash) for stage, manifest in manifests(folder).items()}
    assert before == after


def test_only_a_run_that_reaches_the_comparison_tells_its_result(finished):
    folder, _ = finished
    assert "report:" not in plumbline(folder, "run", "recipe.yaml", "--until", "sample").stdout
    assert "report:" in plumbline(folder, "compare", "recipe.yaml").stdout


def test_a_changed_setting_redoes_only_what_depends_on_it(finished):
    folder, _ = finished
    plan = plumbline(folder, "check", "recipe.yaml", "align.dpo.beta=0.3").stdout
    states = {
        line.split()[0]: "up to date" in line for line in plan.splitlines() if line.split()[:1] in [[s] for s in STAGES]
    }
    assert [stage for stage, fresh in states.items() if not fresh] == ["dpo", "compare"]


def test_a_tokenizer_that_was_exchanged_is_refused(finished, tmp_path):
    import shutil

    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    template = tmp_path / "copy" / "runs" / "small" / "sft" / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "bot"))
    done = plumbline(tmp_path / "copy", "align", "recipe.yaml", "--force", status=2)
    assert "chat template" in done.stderr
    assert "sft's manifest" in done.stderr


def test_killed_at_random_moments_the_chain_ends_in_the_same_result(finished):
    folder, _ = finished
    command = [
        sys.executable,
        "-m",
        "tests.kill_chain",
        str(folder / "recipe.yaml"),
        str(folder / "again" / "small"),
        "5",
    ]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["half_written"] == []
    assert found["left"] == []
    assert sum(found["killed"].values()) >= len(STAGES), found["killed"]
    expected = {stage: manifest.output_hash for stage, manifest in manifests(folder).items()}
    assert found["hashes"] == expected
