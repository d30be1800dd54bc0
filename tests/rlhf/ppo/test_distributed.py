"""Two processes, by DDP and by FSDP2 on the CPU, give what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from rlhf.ppo import PPOTrainer
from tests.rlhf.ppo import test_watch as watching
from tests.rlhf.ppo import two_processes as two
from tests.rlhf.ppo.helpers import entries, policy_of, reward_adapter, trainer_for
from tests.tiny import tiny_model

REPOSITORY = Path(__file__).parents[3]
CONFIGURATIONS = REPOSITORY / "examples" / "accelerate"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def launch(configuration: str, folder: Path, output: Path) -> subprocess.Popen[bytes]:
    output.mkdir()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(CONFIGURATIONS / configuration), "--main_process_port", str(free_port())]
    command += ["-m", "tests.rlhf.ppo.two_processes", str(folder), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, cwd=output, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Runs:
    """What two processes found, where they wrote it, and the runs of one process."""

    def __init__(self, mode: str, base: Path) -> None:
        self.folder, self.output, self.alone = tiny_model(base / "model"), base / "two", base / "one"
        reward_adapter(self.folder, base / "reward")
        process = launch(f"{mode}.yaml", self.folder, self.output)
        share = {"share_base": mode == "ddp"}  # FSDP2 cannot
        self.one = {kind: two.run(kind, self.folder, self.alone / kind, **share) for kind in two.KINDS}
        self.watch = watching.run(self.folder, self.alone / "watch", **two.WATCHED_SETTINGS)
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()[-5000:]
        self.found: dict[str, Any] = json.loads((self.output / "found.json").read_text())


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(request.param, tmp_path_factory.mktemp(request.param))


def sampled(output: Path) -> dict[str, list[str]]:
    """The prompts in each of the files that evaluations wrote; with two processes each has some of them."""
    files = sorted((output / "samples").iterdir())
    assert files
    return {file.name: [json.loads(line)["prompt"] for line in file.read_text().splitlines()] for file in files}


def test_the_curve_is_that_of_one_process(runs: Runs, request: pytest.FixtureRequest) -> None:
    for kind in two.KINDS:
        found, one = runs.found[kind], runs.one[kind]
        for name in two.COMPARED:
            assert found[name] == pytest.approx(entries(one, name), abs=1e-4, rel=1e-4), (kind, name)
        for name, value in two.evaluated(one).items():
            assert found[name] == pytest.approx(value, abs=1e-4, rel=1e-4), (kind, name)
        assert sampled(runs.output / kind) == sampled(runs.alone / kind)
    fsdp2 = request.node.callspec.params["runs"] == "fsdp2"
    assert runs.found["full"]["wrapper"] == ("FSDPActorCritic" if fsdp2 else "DistributedDataParallel")
    assert runs.found["full"]["reference_is_split"] == fsdp2


def test_the_policy_is_gathered_once_a_rollout(runs: Runs, request: pytest.FixtureRequest) -> None:
    # Under FSDP2: the root, with the embeddings, and two blocks. Nothing is gathered while responses are sampled.
    gathers = 3 if request.node.callspec.params["runs"] == "fsdp2" else 0
    for kind in two.KINDS:
        assert runs.found[kind]["gathers"] == [[gathers, 0]] * two.ROLLOUTS


def test_a_resumed_run_is_the_same_bit_by_bit(runs: Runs) -> None:
    for kind in two.KINDS:
        assert runs.found[kind]["same_weights"], kind
        assert runs.found[kind]["same_log"] == dict.fromkeys(two.LOGGED, True), kind


def loaded(kind: str, runs: Runs, folder: Path, settings: dict[str, Any]) -> PPOTrainer:
    """A trainer on one process whose policy is what two processes wrote."""
    policy = PeftModel.from_pretrained(policy_of(runs.folder), folder) if kind == "lora" else policy_of(folder)
    arguments = {**two.arguments_of(kind, runs.folder), "peft_config": None}
    return trainer_for(
        runs.folder, runs.alone / "loaded", settings=settings, model=policy, ref_model=runs.folder, **arguments
    )


def test_what_was_saved_loads_on_one_process(runs: Runs) -> None:
    for kind in two.KINDS:
        found, saved = runs.found[kind], runs.output / kind / "saved"
        best = Path(found["best"])  # load_best_model_at_end put it back
        for folder, settings, metrics in ((saved, two.SETTINGS, found), (best, two.RESUMED, found["best_evaluated"])):
            again = loaded(kind, runs, folder, settings).evaluate()
            for name in two.EVALUATED:
                assert again[name] == pytest.approx(metrics[name], abs=1e-4), (kind, folder, name)
        if kind == "lora":
            assert (best / "value_model" / "adapter_model.safetensors").exists()
            continue
        _, report = AutoModelForSequenceClassification.from_pretrained(best / "value_model", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]


def test_a_watched_reward_stops_the_run_at_the_same_rollout(runs: Runs) -> None:
    found, one = runs.found["watch"], runs.watch
    assert found["step"] == one.state.global_step < 2 * watching.ROLLOUTS
    assert found["resumed_step"] == found["step"], "a run that had stopped stays so"
    for name in two.WATCHED:
        assert found[name] == pytest.approx(entries(one, name), abs=1e-3, rel=1e-3), name
