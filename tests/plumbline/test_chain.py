"""The chain's logic on stages that do nothing but write a file; the real stages run in tests/test_end_to_end.py."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.chain import Chain
from plumbline.errors import UserError, WaitingForPeople
from plumbline.recipe import DataSection, ModelSection, Recipe
from plumbline.runs import Run
from plumbline.stages import Stage


class Counting:
    """A chain of three stages a -> b -> c that counts how often each ran."""

    def __init__(self, folder: Path, config: str = "1") -> None:
        self.ran: list[str] = []
        self.data = folder / "data.jsonl"
        self.data.touch()
        recipe = Recipe(name="x", model=ModelSection(name="m"), data=DataSection(demonstrations=["d"], prompts=["p"]))
        self.said: list[str] = []
        self.chain = Chain(recipe, folder / "recipe.yaml", Run(folder / "runs" / "x"), self.said.append)
        self.chain.stages = [
            self.stage("a", {"data": [self.data]}, (), {"lr": config}),
            self.stage("b", {}, ("a",), {}),
            self.stage("c", {}, ("b",), {}),
        ]

    def stage(self, name, files, after, config):
        def body(context):
            self.ran.append(name)
            (context.folder / "out").write_text(name + self.data.read_text() + str(config))
            return {"n": 1}

        return Stage(name, f"Doing {name}", "comparison", config, files, after, body, seed=1)


def test_stages_run_in_order_and_are_skipped_when_up_to_date(tmp_path):
    counting = Counting(tmp_path)
    counting.chain.run_stages()
    assert counting.ran == ["a", "b", "c"]
    counting.chain.run_stages()
    assert counting.ran == ["a", "b", "c"]
    assert "c: up to date" in counting.said
    assert {planned.state for planned in counting.chain.plan()} == {"up to date"}


def test_changed_data_redo_what_depends_on_them(tmp_path):
    counting = Counting(tmp_path)
    counting.chain.run_stages()
    counting.data.write_text("more")
    plan = {planned.stage.name: planned for planned in counting.chain.plan()}
    assert plan["a"].why == "changed: data"
    assert plan["b"].why == "a will change"
    counting.chain.run_stages()
    assert counting.ran == ["a", "b", "c", "a", "b", "c"]


def test_an_equal_result_does_not_redo_what_depends_on_it(tmp_path):
    Counting(tmp_path).chain.run_stages()
    counting = Counting(tmp_path)
    a = counting.chain.stages[0]

    def same_result(context):
        (context.folder / "out").write_text("a" + str({"lr": "1"}))
        return {}

    counting.chain.stages[0] = Stage(
        "a", a.what, a.makes, {"lr": "1", "log": True}, a.files, a.after, same_result, seed=1
    )
    counting.chain.run_stages()
    assert counting.ran == []


def test_changed_configuration_is_said(tmp_path):
    Counting(tmp_path).chain.run_stages()
    counting = Counting(tmp_path, config="2")
    assert counting.chain.plan()[0].why == "its configuration changed"


def test_force_redoes_a_stage_and_what_depends_on_it(tmp_path):
    counting = Counting(tmp_path)
    counting.chain.run_stages()
    counting.chain.run_stages(force=["b"])
    assert counting.ran == ["a", "b", "c", "b", "c"]
    with pytest.raises(UserError, match="there is no stage 'd'"):
        counting.chain.run_stages(force=["d"])


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.plumbline.test_chain import Counting

counting = Counting(Path(sys.argv[1]))
b = counting.chain.stages[1]

def killed(context):
    (context.scratch / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)

object.__setattr__(b, "body", killed)
counting.chain.run_stages(force=["a"])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A finished run, then one with `force=["a"]` that was killed inside b."""
    folder = tmp_path_factory.mktemp("killed")
    Counting(folder).chain.run_stages()
    command = [sys.executable, "-c", KILLED, str(folder)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def killed_in_b(killed, tmp_path):
    return shutil.copytree(killed, tmp_path, dirs_exist_ok=True)


def resumed(counting: Counting) -> list[str]:
    """Lets a chain note what its stages find of unfinished work."""
    found: list[str] = []
    for stage in counting.chain.stages:

        def body(context, stage=stage, done=stage.body):
            found.extend(f"{stage.name}: {path.name}" for path in context.scratch.iterdir())
            return done(context)

        object.__setattr__(stage, "body", body)
    return found


def test_a_killed_forced_run_goes_on_with_the_same_command(killed_in_b):
    counting = Counting(killed_in_b)
    found = resumed(counting)
    counting.chain.run_stages(force=["a"])
    assert counting.ran == ["b", "c"]
    assert found == ["b: half"]
    assert counting.said[0].startswith("going on with the forced run that was interrupted; redone already: a (delete ")
    counting.chain.run_stages(force=["a"])
    assert counting.ran == ["b", "c", "a", "b", "c"], "the forced run had come to its end"


@pytest.mark.parametrize(
    ("between", "given", "ran"),
    [
        ([], {"force": ["b"]}, ["b", "c"]),
        ([], {"force": ["a"], "until": "b"}, ["a", "b"]),
        ([{}], {"force": ["a"]}, ["a", "b", "c"]),
        ([], {}, []),
    ],
    ids=["another stage", "until", "a run in between", "not forced"],
)
def test_another_command_gives_up_the_killed_forced_run(killed_in_b, between, given, ran):
    counting = Counting(killed_in_b)
    found = resumed(counting)
    for command in (*between, given):
        counting.chain.run_stages(**command)
    assert counting.ran == ran
    assert found == []
    assert not [path for path in counting.chain.run.root.iterdir() if path.name == ".redo.json"]


def test_until_and_only(tmp_path):
    counting = Counting(tmp_path)
    counting.chain.run_stages(until="b")
    assert counting.ran == ["a", "b"]
    with pytest.raises(UserError, match="there is no stage 'bb' in this recipe; did you mean"):
        counting.chain.run_stages(until="bb")
    (tmp_path / "other").mkdir()
    other = Counting(tmp_path / "other")
    with pytest.raises(UserError, match="the stage 'c' needs the stage 'b'"):
        other.chain.run_stages(only=["c"])


def test_a_failing_stage_stops_the_chain_and_goes_on_when_run_again(tmp_path):
    counting = Counting(tmp_path)
    good = counting.chain.stages[1]

    def fails(context):
        raise UserError("no disk")

    counting.chain.stages[1] = Stage("b", good.what, good.makes, good.config, good.files, good.after, fails, seed=1)
    with pytest.raises(UserError, match="no disk"):
        counting.chain.run_stages()
    assert counting.chain.plan()[1].state == "to resume"
    counting.chain.stages[1] = good
    counting.chain.run_stages()
    assert counting.ran == ["a", "b", "c"]


def test_waiting_for_people_says_how_many_and_how_to_go_on():
    waiting = WaitingForPeople(7, 20, "recipe.yaml --run demo")
    assert str(waiting).startswith("still missing: 7 of 20 judgements.")
    assert "plumbline annotate recipe.yaml --run demo" in str(waiting)
    assert "plumbline run recipe.yaml --run demo" in str(waiting)
