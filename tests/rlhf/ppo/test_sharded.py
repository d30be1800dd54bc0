"""What a run on several processes is refused for, and ZeRO-3 at the boundary to DeepSpeed, which is not installed."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trl.models.utils
from accelerate.commands.config.config_args import load_config_from_file
from torch import nn

from plumbline.errors import UserError
from rlhf.ppo import sharded
from tests.rlhf.ppo.helpers import settings_for, trainer_for
from tests.tiny import tiny_model

CONFIGURATIONS = Path(__file__).parents[3] / "examples" / "accelerate"


def zero(stage: int, output: Path, **settings: Any) -> Any:
    """Settings as they are under `accelerate launch` with DeepSpeed."""
    args = settings_for(output, **settings)
    args.deepspeed_plugin = types.SimpleNamespace(zero_stage=stage)
    return args


def test_settings_that_cannot_work_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="fsdp_version: 2"):
        trainer_for(tiny_model(tmp_path / "model"), tmp_path)
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with pytest.raises(UserError, match="fsdp_cpu_ram_efficient_loading"):
        sharded.check_sharding(settings_for(tmp_path))
    monkeypatch.delenv("FSDP_CPU_RAM_EFFICIENT_LOADING")
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    with pytest.raises(UserError, match="ds3_gather_for_generation is False"):
        sharded.check_sharding(zero(3, tmp_path, ds3_gather_for_generation=False))
    sharded.check_sharding(zero(2, tmp_path, ds3_gather_for_generation=False))
    args = settings_for(tmp_path)
    args.deepspeed = {"zero_optimization": {"stage": 2}}
    with pytest.raises(UserError, match=r"zero3\.yaml"):
        sharded.check_sharding(args)


def test_who_splits_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sharded.splits_weights(settings_for(tmp_path)) is None
    assert sharded.splits_weights(zero(2, tmp_path)) is None
    assert sharded.splits_weights(zero(3, tmp_path)) == "ZeRO-3"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert sharded.splits_weights(settings_for(tmp_path)) == "FSDP2"


def test_zero_3_gathers_the_policy_once_and_runs_it_without_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    policy, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    engine = nn.ModuleList([policy, critic])
    for parameter in engine.parameters():
        parameter.ds_id = 0  # DeepSpeed's mark of a parameter that it has split

    @contextmanager
    def gathered(parameters: list[nn.Parameter]) -> Iterator[None]:
        assert [id(one) for one in parameters] == [id(one) for one in policy.parameters()]
        done.append("gather")
        yield
        done.append("split")

    deepspeed = types.ModuleType("deepspeed")
    deepspeed.zero = types.SimpleNamespace(GatheredParameters=gathered)
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    for name in ("remove_hooks", "add_hooks"):
        monkeypatch.setattr(trl.models.utils, name, lambda model, name=name: done.append(name))
    with sharded.whole_policy(None, engine, policy):
        done.append("sample")
    assert done == ["gather", "remove_hooks", "sample", "add_hooks", "split"]


def test_the_configurations_are_what_accelerate_reads() -> None:
    found = {path.stem: load_config_from_file(str(path)) for path in CONFIGURATIONS.glob("*.yaml")}
    kinds = {name: config.distributed_type.value for name, config in found.items()}
    assert kinds == {
        "ddp": "MULTI_GPU",
        "fsdp2": "FSDP",
        "fsdp2-nodes": "FSDP",
        "zero2": "DEEPSPEED",
        "zero3": "DEEPSPEED",
    }
    for name in ("fsdp2", "fsdp2-nodes"):
        assert found[name].fsdp_config["fsdp_version"] == 2
        assert found[name].fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
    assert found["fsdp2-nodes"].num_machines == 2 and found["fsdp2-nodes"].main_process_ip
    for stage in (2, 3):
        config = found[f"zero{stage}"].deepspeed_config
        assert config["zero_stage"] == stage
        # Left out, they become the trainer's own: max_grad_norm, and one step for the engine.
        assert not {"gradient_clipping", "gradient_accumulation_steps"} & set(config)
