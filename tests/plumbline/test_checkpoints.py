"""Checkpoints: which of them count after a kill or a damage, and which are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

import plumbline.checkpoints
from plumbline.checkpoints import MARK, CompleteCheckpoints, last_complete_checkpoint, mark_complete
from plumbline.recipe import RewardSection
from reward import train_reward
from tests.tiny import assistant, tiny_model, user
from tests.training_helpers import Killed, folders, same_files


def write(scratch: Path, step: int, *, best: int | None = None) -> Path:
    """A checkpoint as a trainer leaves it, not marked yet."""
    folder = scratch / f"checkpoint-{step}"
    (folder / "value_model").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * step)
    (folder / "value_model" / "model.safetensors").write_bytes(b"critic")
    state = {"best_model_checkpoint": None if best is None else str(scratch / f"checkpoint-{best}")}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def save(scratch: Path, step: int, keep: int | None, *, best: int | None = None) -> None:
    """What a trainer does at a save: write the checkpoint, then call `on_save`."""
    write(scratch, step, best=best)
    state = TrainerState(global_step=step, best_model_checkpoint=str(scratch / f"checkpoint-{best}") if best else None)
    args = TrainingArguments(output_dir=str(scratch), use_cpu=True)
    CompleteCheckpoints(keep).on_save(args, state, TrainerControl())


def names(scratch: Path) -> set[int]:
    return {int(folder.name.split("-")[1]) for folder in scratch.iterdir()}


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path) is None
    for step in (2, 10, 12):
        write(tmp_path, step)
        if step != 12:
            mark_complete(tmp_path / f"checkpoint-{step}")
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert names(tmp_path) == {2, 10}


@pytest.mark.parametrize("file", ["model.safetensors", "value_model/model.safetensors", MARK])
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    for step in (2, 10):
        mark_complete(write(tmp_path, step))
    path = tmp_path / "checkpoint-10" / file
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert names(tmp_path) == {2}


def test_a_checkpoint_needs_the_best_one_before_it(tmp_path: Path) -> None:
    """A training that went on from 8 would end with the weights of 6, which are gone."""
    for step, best in ((4, 4), (6, 6), (8, 6)):
        mark_complete(write(tmp_path, step, best=best))
    (tmp_path / "checkpoint-6" / "model.safetensors").unlink()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert names(tmp_path) == {4}


@given(bests=st.lists(st.booleans(), min_size=1, max_size=6), keep=st.integers(1, 3))
def test_the_two_newest_and_the_best_are_always_kept(
    tmp_path_factory: pytest.TempPathFactory, bests: list[bool], keep: int
) -> None:
    scratch, best = tmp_path_factory.mktemp("scratch"), None
    for step, is_best in enumerate(bests, 1):
        best = step if is_best else best
        save(scratch, step, keep, best=best)
        newest = set(range(max(1, step - max(keep, 2) + 1), step + 1))
        assert names(scratch) == newest | ({best} if best else set())


def test_without_a_limit_all_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, None)
    assert names(tmp_path) == {1, 2, 3, 4}


@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_while_an_old_one_is_deleted_leaves_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    save(tmp_path, 1, keep)
    save(tmp_path, 2, keep)

    def half(folder: Path) -> None:
        (folder / "value_model" / "model.safetensors").unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(plumbline.checkpoints.shutil, "rmtree", half)
        save(tmp_path, 3, keep)
    assert names(tmp_path) == {1, 2, 3}
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert names(tmp_path) == {2, 3}


def test_a_training_goes_on_from_an_older_checkpoint_where_the_newest_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with save_total_limit 1, whose one checkpoint a trainer would delete before the next one counts."""
    base = tiny_model(tmp_path / "base")
    pair = {"prompt": user("What?"), "chosen": assistant("Yes."), "rejected": assistant("No."), "margin": 1.0}
    rows = Dataset.from_list([pair] * 4)
    section = RewardSection(max_steps=4, save_steps=1, save_total_limit=1, per_device_train_batch_size=2)
    whole, scratch = folders(tmp_path / "whole")
    expected = train_reward(base, rows, None, section, whole, scratch, seed=1)
    folder, scratch = folders(tmp_path / "killed")

    def killed(self: CompleteCheckpoints, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_save(self, args, state, control, **kwargs)
        if state.global_step == 3:
            raise Killed

    on_save = CompleteCheckpoints.on_save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(CompleteCheckpoints, "on_save", killed)
        train_reward(base, rows, None, section, folder, scratch, seed=1)
    (scratch / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    assert last_complete_checkpoint(scratch) == scratch / "checkpoint-2"
    assert train_reward(base, rows, None, section, folder, scratch, seed=1) == expected
    assert same_files(folder, whole)
