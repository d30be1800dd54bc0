import json
import os
import signal
import subprocess
import sys
import time

import pytest

from plumbline.errors import RunLockedError, UserError
from plumbline.runs import InputRef, Manifest, Run, fingerprint_of, hash_folder

INPUTS = {"data": InputRef(kind="file", source="x.jsonl", hash="aa")}


def execute(run, body, *, config=None, stage="sft", inputs=INPUTS):
    return run.execute(stage, config=config or {"lr": 1}, seed=1, inputs=inputs, body=body)


def write(text):
    def body(context):
        (context.folder / "model.txt").write_text(text)
        return {"loss": 0.5}

    return body


def test_a_finished_stage_has_files_and_manifest(tmp_path):
    run = Run(tmp_path / "x")
    made = execute(run, write("a"))
    assert (run.folder("sft") / "model.txt").read_text() == "a"
    assert run.manifest("sft") == made
    assert made.metrics == {"loss": 0.5}
    assert made.inputs == INPUTS
    assert made.output_hash == hash_folder(run.folder("sft"))
    assert {"torch", "python"} <= made.libraries.keys()
    assert not run.partial("sft").exists()


def test_the_fingerprint_follows_configuration_seed_and_inputs():
    base = fingerprint_of("sft", {"lr": 1}, 1, INPUTS)
    assert base == fingerprint_of("sft", {"lr": 1}, 1, dict(INPUTS))
    other = {"data": InputRef(kind="file", source="x.jsonl", hash="bb")}
    moved = {"data": InputRef(kind="file", source="elsewhere.jsonl", hash="aa")}
    assert base == fingerprint_of("sft", {"lr": 1}, 1, moved), "content counts, not the place"
    changed = [("sft", {"lr": 2}, 1, INPUTS), ("sft", {"lr": 1}, 2, INPUTS), ("sft", {"lr": 1}, 1, other)]
    assert base not in {fingerprint_of(*arguments) for arguments in changed}


def test_a_failing_stage_leaves_no_folder_and_keeps_its_scratch(tmp_path):
    run = Run(tmp_path / "x")

    def fails(context):
        (context.folder / "half.txt").write_text("half")
        (context.scratch / "checkpoint").write_text("1")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        execute(run, fails)
    assert not run.folder("sft").exists()

    def resumes(context):
        assert context.resumed
        assert (context.scratch / "checkpoint").read_text() == "1"
        assert not (context.folder / "half.txt").exists(), "half-written output is not kept"
        return write("whole")(context)

    execute(run, resumes)
    assert (run.folder("sft") / "model.txt").read_text() == "whole"


def test_scratch_of_another_configuration_is_not_resumed(tmp_path):
    run = Run(tmp_path / "x")

    def fails(context):
        (context.scratch / "checkpoint").write_text("1")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        execute(run, fails)

    def fresh(context):
        assert not context.resumed
        assert not list(context.scratch.iterdir())
        return {}

    execute(run, fresh, config={"lr": 2})


def test_a_redone_stage_replaces_the_old_one_only_when_whole(tmp_path):
    run = Run(tmp_path / "x")
    execute(run, write("old"))

    def fails(context):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        execute(run, fails, config={"lr": 2})
    assert (run.folder("sft") / "model.txt").read_text() == "old"
    execute(run, write("new"), config={"lr": 2})
    assert (run.folder("sft") / "model.txt").read_text() == "new"
    assert sorted(path.name for path in run.root.iterdir()) == ["sft"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    run = Run(tmp_path / "x")
    execute(run, write("old"))
    run.folder("sft").rename(run.root / ".old-sft")
    with run.lock():
        pass
    assert (run.folder("sft") / "model.txt").read_text() == "old"
    assert not (run.root / ".old-sft").exists()


def test_what_a_kill_behind_the_renames_left_is_dropped_and_unfinished_work_is_not(tmp_path):
    run = Run(tmp_path / "x")
    made = execute(run, write("whole"))
    left, unfinished = run.partial("sft"), run.partial("dpo")
    for partial, fingerprint in ((left, made.fingerprint), (unfinished, "another")):
        (partial / "scratch").mkdir(parents=True)
        (partial / "fingerprint").write_text(fingerprint)
    with run.lock():
        pass
    assert not left.exists()
    assert unfinished.exists()


def test_an_output_that_was_whole_is_put_in_place_without_work(tmp_path):
    run = Run(tmp_path / "x")
    made = execute(run, write("whole"))
    partial = run.partial("sft")
    partial.mkdir()
    run.folder("sft").rename(partial / "output")

    def never(context):
        raise AssertionError("the work was done already")

    assert execute(run, never) == made
    assert (run.folder("sft") / "model.txt").read_text() == "whole"


def test_the_second_process_is_refused_with_the_first_ones_id(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from plumbline.runs import Run\n"
        "with Run(Path(sys.argv[1])).lock():\n    print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "locked"
        with pytest.raises(RunLockedError, match=f"process {process.pid}"), Run(tmp_path / "x").lock():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Run(tmp_path / "x").lock():
            pass  # the lock went with the killed process
    finally:
        process.kill()
        process.wait()


KILLED = """
import sys, time
from pathlib import Path
from plumbline.runs import InputRef, Run

def body(context):
    for number in range(200):
        part = context.scratch / f"part-{number:03}"
        if not part.exists():
            time.sleep(0.002)
            part.with_suffix(".tmp").write_text(str(number))
            part.with_suffix(".tmp").rename(part)
    for part in sorted(context.scratch.glob("part-???")):
        (context.folder / part.name).write_text(part.read_text())
    return {}

run = Run(Path(sys.argv[1]))
with run.lock():
    run.execute("sample", config={}, seed=1, inputs={"d": InputRef(kind="file", source="x", hash="a")}, body=body)
"""


def test_killed_at_many_moments_a_stage_folder_is_complete_or_absent(tmp_path):
    root = tmp_path / "x"
    for delay in (0.3, 0.45, 0.6, 0.75, 0.9):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)])
        time.sleep(delay)
        process.kill()
        process.wait()
        stage = root / "sample"
        assert not stage.exists() or len(list(stage.glob("part-*"))) == 200
        if stage.exists():
            assert Manifest.read(stage).output_hash == hash_folder(stage)
    subprocess.run([sys.executable, "-c", KILLED, str(root)], check=True)
    assert {path.read_text() for path in (root / "sample").glob("part-*")} == {str(n) for n in range(200)}
    assert not [path for path in root.iterdir() if path.name.startswith((".partial", ".old"))]


def test_a_damaged_or_newer_manifest_is_refused(tmp_path):
    run = Run(tmp_path / "x")
    execute(run, write("a"))
    path = run.folder("sft") / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(UserError, match="newer plumbline"):
        run.manifest("sft")
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        run.manifest("sft")


def test_a_full_disk_is_said_in_one_sentence(tmp_path):
    def full(context):
        raise OSError(28, "No space left on device", "model.safetensors")

    with pytest.raises(UserError, match="is full: free some space"):
        execute(Run(tmp_path / "x"), full)


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Run(tmp_path / "file" / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "x").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        Run(tmp_path / "x")
