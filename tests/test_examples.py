"""The example recipes, on the real data that they are about, with a tiny model and two steps of each training."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import plumbline.cli
from plumbline.conversations import split_of
from plumbline.preferences.pairs import load_pairs
from plumbline.runs import Manifest
from plumbline.sampling import read_responses
from tests.tiny import tiny_model

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example recipe with a tiny model in `tmp_path`, some values overridden; returns the run folder."""
    monkeypatch.chdir(tmp_path)

    def run(recipe: str, *arguments: str) -> Path:
        model = tiny_model(tmp_path / "base", max_positions=512)
        monkeypatch.setattr("sys.argv", ["plumbline", "run", str(EXAMPLES / recipe), f"model={model}", *arguments])
        with pytest.raises(SystemExit) as left:
            plumbline.cli.main()
        assert left.value.code == 0
        return tmp_path / "runs" / Path(recipe).stem

    return run


def real(shared: Path, file: str) -> Path:
    if not (shared / file).is_file():
        pytest.skip(f"the real data {file} are not in ../shared/data")
    return shared / file


def two_steps(*sections: str) -> list[str]:
    return [
        f"{section}.{field}" for section in sections for field in ("max_steps=2", "eval_steps=2", "logging_steps=1")
    ]


@pytest.mark.shared_data
def test_adaptation_and_sft_on_support_dialogues(run, shared):
    file = real(shared, "bitext_support/trl_sft.parquet")
    folder = run(
        "support-bitext.yaml",
        *[f"data.{name}={file}" for name in ("corpus", "demonstrations", "prompts")],
        *two_steps("adapt", "sft"),
        *("data.validation=0.02", "sample.prompts=4", "sample.responses_per_prompt=2", "sample.max_new_tokens=8"),
        *("--until", "sample"),
    )
    made = {stage: Manifest.read(folder / stage) for stage in ("adapt", "sft", "sample")}
    for stage in ("adapt", "sft"):
        assert made[stage].metrics["steps"] == 2
        assert 0 < made[stage].metrics["eval_loss"] < math.log(400) + 1, "that of a random model at most"
    assert made["sft"].inputs["adapt"].hash == made["adapt"].output_hash
    rows = list(read_responses(folder / "sample"))
    questions = {row["messages"][0]["content"] for row in pq.read_table(file).to_pylist()}
    assert len(rows) == 4 * 2
    for row in rows:
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert row["prompt"][0]["content"] in questions
        assert split_of(row["prompt"], validation=0.02, test=0.1) != "test"


@pytest.mark.shared_data
def test_human_preferences_from_the_import_to_the_report(run, shared, tmp_path):
    files = [real(shared, f"{name}/raw.jsonl.gz") for name in ("hh_harmless", "oasst_en100")]
    copies = [shutil.copy(file, tmp_path / f"{file.parent.name}.jsonl.gz") for file in files]  # rejects go beside them
    folder = run(
        "human-preferences.yaml",
        f"data.demonstrations={real(shared, 'oasst_en100/trl_sft.parquet')}",
        f"data.preferences=[{', '.join(map(str, copies))}]",
        *two_steps("sft", "reward", "align.dpo"),
        "data.validation=0.05",
        *("align.dpo.precompute_ref_log_probs=false", "align.ppo.total_episodes=32", "align.ppo.response_length=8"),
        *("align.ppo.per_device_train_batch_size=8", "align.ppo.num_ppo_epochs=1", "align.ppo.num_mini_batches=1"),
        *("compare.prompts=6", "compare.max_new_tokens=8", "compare.bootstrap=200"),
    )
    stages = ("sft", "preferences", "reward", "judge", "dpo", "ppo", "compare")
    made = {stage: Manifest.read(folder / stage).metrics for stage in stages}
    assert made["preferences"]["people_judgements"] == made["preferences"]["judgements"] == 1492 + 122
    for stage in ("reward", "judge"):
        assert 0 < made[stage]["accuracy_low"] <= made[stage]["accuracy"] <= made[stage]["accuracy_high"] < 1
        assert 0 < made[stage]["length_accuracy"] < 1
    assert made["dpo"]["steps"] == 2
    assert made["ppo"]["steps"] == 2
    keys = {
        part: set(load_pairs(folder / "preferences", part=part, split=None)["prompt_key"])
        for part in ("policy", "judge")
    }
    assert not keys["policy"] & keys["judge"]
    results = json.loads((folder / "compare" / "results.json").read_text())
    compared = {(row["policy"], row["baseline"], row["judge"], row["n"]) for row in results["comparisons"]}
    pairs = [("dpo", "sft"), ("dpo", "base"), ("ppo", "sft"), ("ppo", "base"), ("sft", "base")]
    assert compared == {(*pair, "reward", 6) for pair in pairs}
    assert results["meta"]["simulated"] is False
    assert (folder / "compare" / "report.html").is_file()


def prepare(*arguments: str | Path) -> list[list[dict]]:
    """Run `examples/prepare.py`; the conversations of the file that it wrote."""
    done = subprocess.run([sys.executable, EXAMPLES / "prepare.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["messages"] for line in Path(arguments[-1]).read_text(encoding="utf-8").splitlines()]


def test_the_csv_of_support_dialogues_becomes_conversations(tmp_path):
    source = tmp_path / "bitext.csv"
    source.write_text('flags,instruction,response\nB,where is it? ,"One.\n\n2. ""Two"", é"\n', encoding="utf-8")
    made = prepare("bitext", source, tmp_path / "new" / "out.jsonl")
    assert made == [
        [{"role": "user", "content": "where is it?"}, {"role": "assistant", "content": 'One.\n\n2. "Two", é'}]
    ]


@pytest.mark.shared_data
def test_message_trees_become_conversations_that_end_with_the_best_reply(shared, tmp_path):
    made = prepare("oasst", real(shared, "oasst_en100/raw.jsonl.gz"), tmp_path / "out.jsonl")
    expected = pq.read_table(real(shared, "oasst_en100/trl_sft.parquet"))["messages"].to_pylist()
    assert sorted(made, key=str) == sorted(expected, key=str)  # made from the trees by another program
