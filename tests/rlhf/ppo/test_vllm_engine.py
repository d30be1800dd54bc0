"""vLLM as TRL speaks with it, colocated and served, over a stand-in: what is asked, and that the weights arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Trainer, TrainerCallback, TrainerState

from plumbline.errors import UserError
from rlhf.ppo import PPOTrainer
from rlhf.ppo.engines import of_vllm
from rlhf.ppo.engines.of_vllm import unchanged_base
from tests.rlhf.ppo import vllm_standin
from tests.rlhf.ppo.helpers import conversations, entries, policy_of, trainer_for
from tests.rlhf.ppo.test_distributed import REPOSITORY, free_port
from tests.rlhf.ppo.vllm_standin import LLM, Copy, Server
from tests.tiny import tiny_model

PROGRAM = """
import sys
from pathlib import Path
import pytest
import torch
torch.set_num_threads(1)
from plumbline.errors import UserError
from tests.rlhf.ppo import vllm_standin
from tests.rlhf.ppo.helpers import entries
from tests.rlhf.ppo.test_vllm_engine import trainer_with_vllm
folder, output, *kinds = sys.argv[1:]
for kind in kinds:
    server = vllm_standin.Server(folder)
    with vllm_standin.installed(), vllm_standin.serving(server) as url:
        settings = {"vllm_mode": "server", "vllm_server_base_url": url, "gradient_accumulation_steps": 2}
        trainer = trainer_with_vllm(Path(folder), Path(output), lora=kind == "lora", **settings)
        if trainer.is_fsdp_enabled:
            with pytest.raises(UserError, match="before anything else is sampled"):
                trainer.evaluate()
        trainer.train()
        trainer.evaluate()
        main = trainer.is_world_process_zero()
        assert max(entries(trainer, "sampling/sampling_logp_difference/max")) < 1e-4, trainer.state.log_history
        assert [len(asked["prompts"]) for asked in server.asked] == ([8, 8, 4] if main else []), server.asked
        assert server.synchronised == (3 if main else 0)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def standin() -> Iterator[None]:
    """vLLM's stand-in; afterwards the environment, into which TRL writes for vLLM, as it was."""
    environment = dict(os.environ)
    with vllm_standin.installed():
        yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def server(folder: Path) -> Server:
    pytest.importorskip("requests", reason="TRL's client of a vLLM server needs requests: pip install '.[dev]'")
    return Server(folder)


def trainer_with_vllm(
    folder: Path, output: Path, *, lora: bool = False, model: Any = None, **settings: Any
) -> PPOTrainer:
    common = {"rollout_engine": "vllm", "temperature": 0.7, "learning_rate": 1e-2, "stop_token_id": 20}
    return trainer_for(
        folder,
        output,
        settings={**common, **settings},
        peft_config=LoraConfig(r=4, target_modules="all-linear") if lora else None,
        eval_dataset=conversations(3),
        **({} if model is None else {"model": model}),
    )


def check_that_weights_arrive(trainer: PPOTrainer, copy: Copy) -> None:
    """Each rollout is sampled from the policy of that moment, and weights are sent when they changed and only then."""
    trainer.train()
    assert abs(entries(trainer, "objective/kl")[1]) > 1e-3, "the policy must have moved"
    assert max(entries(trainer, "sampling/sampling_logp_difference/max")) < 1e-4
    assert copy.synchronised == 2
    for _ in range(2):
        trainer.evaluate()
    assert copy.synchronised == 3
    trainer._load_from_checkpoint(Path(trainer.args.output_dir) / "checkpoint-8")
    trainer.evaluate()
    assert copy.synchronised == 4


class SamplesWithin(TrainerCallback):
    """Samples responses after the first step of each rollout."""

    trainer: PPOTrainer

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step % 4 == 1:
            self.trainer.generate_completions(sampling=True)


def check_the_law(asked: dict[str, Any]) -> None:
    """Softmax of logits / temperature as it is, our stop tokens and no others, and the drawn token's probability."""
    expected = {
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 6,
        "n": 1,
        "logprobs": 0,
        "stop_token_ids": [20],
        "ignore_eos": True,
    }
    assert {name: asked[name] for name in expected} == expected
    assert "seed" not in asked, "one seed for all prompts would give them the same random numbers"


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_served(folder: Path, tmp_path: Path, server: Server, lora: bool) -> None:
    with vllm_standin.serving(server) as url:
        settings = {"vllm_mode": "server", "vllm_server_base_url": url, "save_strategy": "steps", "save_steps": 8}
        trainer = trainer_with_vllm(folder, tmp_path, lora=lora, **settings)
        check_that_weights_arrive(trainer, server)
    check_the_law(server.asked[0])
    rows = [len(asked["prompts"]) for asked in server.asked]
    assert rows == [8, 8, 3, 3, 3]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("sleeps", [False, True], ids=["awake", "sleeping"])
def test_colocated(folder: Path, tmp_path: Path, lora: bool, sleeps: bool) -> None:
    settings = {"vllm_gpu_memory_utilization": 0.4, "save_strategy": "steps", "save_steps": 8}
    trainer = trainer_with_vllm(folder, tmp_path, lora=lora, vllm_enable_sleep_mode=sleeps, **settings)
    (llm,) = LLM.made
    assert (llm.options["gpu_memory_utilization"], llm.options["logprobs_mode"]) == (0.4, "processed_logprobs")
    if sleeps:  # it forgets its weights each time
        trainer.train()
        assert max(entries(trainer, "sampling/sampling_logp_difference/max")) < 1e-4
        trainer.evaluate()
        assert llm.synchronised == 3
    else:
        check_that_weights_arrive(trainer, llm)
    check_the_law(llm.asked[0])


FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}


@pytest.mark.parametrize(("split", "kinds"), [({}, ["full"]), (FSDP2, ["full", "lora"])], ids=["DDP", "FSDP2"])
def test_the_first_of_two_processes_asks_the_server_for_both(
    folder: Path, tmp_path: Path, server: Server, split: dict[str, str], kinds: list[str]
) -> None:
    """Also in the evaluation of 3 prompts, where one process has one more than the other; weights may be split."""
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        **split,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path), *kinds],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()[-3000:]


def test_responses_between_the_steps_of_a_rollout_leave_the_next_one_its_weights(folder: Path, tmp_path: Path) -> None:
    within = SamplesWithin()
    trainer = within.trainer = trainer_with_vllm(folder, tmp_path)
    trainer.add_callback(within)
    trainer.train()
    assert abs(entries(trainer, "objective/kl")[1]) > 1e-3, "the policy must have moved"
    assert max(entries(trainer, "sampling/sampling_logp_difference/max")) < 1e-4


def test_the_best_weights_are_sent_too_where_deepspeed_loads_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_with_vllm(folder, tmp_path)
    trainer.evaluate()
    trainer.is_deepspeed_enabled = True
    monkeypatch.setattr(Trainer, "_load_best_model", lambda self: self.model.policy.model.lm_head.weight.data.mul_(2))
    trainer._load_best_model()
    trainer.evaluate()
    (llm,) = LLM.made
    assert torch.equal(llm.model.lm_head.weight, trainer.model.policy.model.lm_head.weight)


def test_a_mismatch_is_seen_and_weighed(folder: Path, tmp_path: Path, server: Server) -> None:
    """The server's weights are spoilt whenever they arrive."""
    load_weights = server.load_weights

    def spoilt(weights: Any) -> None:
        random = torch.Generator().manual_seed(0)
        load_weights([(name, w + 0.05 * torch.randn(w.shape, generator=random)) for name, w in weights])

    server.load_weights = spoilt  # type: ignore[method-assign]
    with vllm_standin.serving(server) as url:
        settings = {"vllm_mode": "server", "vllm_server_base_url": url, "importance_sampling_clip_max": 1.0}
        trainer = trainer_with_vllm(folder, tmp_path, **settings)
        trainer.train()
    assert min(entries(trainer, "sampling/sampling_logp_difference/mean")) > 0.05
    assert max(entries(trainer, "sampling/importance_sampling_ratio/min")) < 0.9
    assert min(entries(trainer, "sampling/importance_sampling_ratio/max")) > 1.1
    assert 0.1 < entries(trainer, "sampling/importance_sampling_ratio/clipped")[0] < 0.9


def test_a_base_below_adapters_stays_bit_by_bit(folder: Path, tmp_path: Path) -> None:
    """Merging and unmerging alone would leave rounding in it, which `unchanged_base` takes back."""
    trainer = trainer_with_vllm(folder, tmp_path, lora=True, total_episodes=8)
    trainer.train()
    policy = trainer.model.policy.model
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    trainer.engine.weights_changed()
    trainer.evaluate()
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    with unchanged_base(policy):
        policy.merge_adapter()
        policy.unmerge_adapter()
        assert not all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_processes_with_fewer_prompts_ask_for_as_many(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL gathers what all processes ask and gives each an equal part."""
    trainer = trainer_with_vllm(folder, tmp_path)
    engine, (llm,) = trainer.engine, LLM.made
    monkeypatch.setattr(of_vllm, "max_over_processes", lambda rows, device: 3)
    two = {"num_processes": 2, "device": torch.device("cpu"), "is_fsdp2": False}
    monkeypatch.setattr(engine, "accelerator", type("Two", (), two)())
    assert len(engine.generate([[5, 6], [7]], np.zeros((2, 6)))) == 2
    assert engine.generate([], np.empty((0, 0))) == []
    assert [len(asked["prompts"]) for asked in llm.asked] == [3, 3]
    assert llm.asked[0]["prompts"][:2] == [[5, 6], [7]]


def test_policies_that_vllm_cannot_take_are_refused(folder: Path, tmp_path: Path) -> None:
    policy = policy_of(folder)
    policy.is_quantized = True
    with pytest.raises(UserError, match="leave out load_in_4bit"):
        trainer_with_vllm(folder, tmp_path, model=policy)
    policy = policy_of(folder)
    policy.name_or_path = ""
    with pytest.raises(UserError, match="this policy has none: save it"):
        trainer_with_vllm(folder, tmp_path, model=policy)


def test_a_server_that_is_not_there_or_not_fit_is_told(folder: Path, tmp_path: Path, server: Server) -> None:
    settings = {"vllm_mode": "server", "vllm_server_timeout": 0.0}
    with pytest.raises(UserError, match=r"vllm_mode 'server': The vLLM server can't be reached at http://127.0.0.1:9"):
        trainer_with_vllm(folder, tmp_path, vllm_server_base_url="http://127.0.0.1:9", **settings)
    with vllm_standin.serving(server) as url:
        server.logprobs_mode = "raw_logprobs"
        with pytest.raises(UserError, match="start it with --logprobs-mode processed_logprobs"):
            trainer_with_vllm(folder, tmp_path, vllm_server_base_url=url, **settings)
        trainer_with_vllm(folder, tmp_path, vllm_server_base_url=url, importance_sampling_correction=False, **settings)
