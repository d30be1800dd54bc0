"""What the tests of the training stages share: sections, folders, and a process that dies in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import plumbline.training
from plumbline.checkpoints import CompleteCheckpoints


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the product catches it."""


def folders(root: Path) -> tuple[Path, Path]:
    """A fresh output folder and a scratch folder that is kept, as the chain hands them to a stage."""
    folder, scratch = root / "output", root / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return folder, scratch


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, *, marked: bool) -> None:
    """Let every training die when it saves at `step`: after the checkpoint is marked, or just before."""

    class Dying(CompleteCheckpoints):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if marked or state.global_step != step:
                super().on_save(args, state, control, **kwargs)
            if state.global_step == step:
                raise Killed

    monkeypatch.setattr(plumbline.training, "CompleteCheckpoints", Dying)


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = {path.name for path in one.iterdir()}
    return names == {path.name for path in other.iterdir()} and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )
