"""The commands export, audit, erase and tokens, on a run folder with a snapshot and a model made from it."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from plumbline.cli import app
from plumbline.errors import UserError
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.snapshot import read_snapshot, snapshot_rows, write_snapshot
from plumbline.preferences.store import Store
from plumbline.runs import InputRef, Manifest
from plumbline.unfinished import Unfinished
from tests.small_domain import make_small_domain

NAME = "Ottilie Zwetschgenbaum"


def stage(folder: Path, name: str, inputs, **more):
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"stage": name, "run": "r", "fingerprint": "f", "output_hash": hashlib.sha256(name.encode()).hexdigest()}
    facts |= {"config": {}, "seed": 0, "inputs": inputs, "created": "now", "wall_seconds": 1, "libraries": {}}
    (folder / "manifest.json").write_text(Manifest(**facts, hardware={}, **more).model_dump_json(indent=2))
    return InputRef(kind="stage", source=name, hash=facts["output_hash"])


@pytest.fixture
def domain(tmp_path, monkeypatch):
    """A domain whose run has judgements of two people, a snapshot of them, and three models; gives its recipe."""
    monkeypatch.chdir(tmp_path)
    recipe = make_small_domain(tmp_path / "domain")
    name = re.search(r"^name: *(\S+)", recipe.read_text(), re.MULTILINE)[1]
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    store = Store.open(run / "preferences.db")
    service = PreferenceService(store, project=name)
    for index in range(4):
        texts = [NewResponse(f"{index} yes", "a"), NewResponse(f"{index} no", "b")]
        service.add_tasks([NewTask([{"role": "user", "content": f"question {index}"}], texts, name)])
    for person in (NAME, "Ben"):
        who = service.sign_in(person).annotator_id
        for _ in range(2):
            work = service.lease_next(who)
            ranking = {card.response_id: card.position + 1 for card in work.cards}
            service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, reason=f"so says {person}")
    snapshot = write_snapshot(service, run / "preferences")
    store.close()
    facts = {"judgements": 4, "simulated": 0, "by_annotator": {NAME: 2, "Ben": 2}}
    judgements = InputRef(kind="judgements", source="preferences.db", hash="h", facts=facts)
    preferences = stage(
        run / "preferences", "preferences", {"judgements": judgements}, metrics={"snapshot": snapshot.hash}
    )
    reward = stage(run / "reward", "reward", {"preferences": preferences}, model={"weights_hash": "w"})
    stage(run / "ppo", "ppo", {"reward": reward}, model={"weights_hash": "w"})
    stage(run / "sft", "sft", {}, model={"weights_hash": "w"})
    return recipe


def plumbline(*arguments, status=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments] + ["--run", "r"], input="n\n")
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def test_export_with_options(domain, tmp_path):
    said = plumbline("export", domain, "out.jsonl", "--pseudonyms", "--people-only")
    assert "4 rows written as trl" in said
    assert "out.jsonl.manifest.json" in said
    assert NAME not in Path("out.jsonl").read_text()
    with pytest.raises(UserError, match="train, validation and test"):
        plumbline("export", domain, "x.jsonl", "--split", "all")


def test_audit_tells_whether_the_log_holds(domain):
    said = plumbline("audit", domain, "--contents")
    assert "The log holds." in said
    head = re.search("[0-9a-f]{64}", said)[0]
    assert json.loads(plumbline("audit", domain, "--expect", head, "--json"))["holds"] is True
    assert "MISSING" in plumbline("audit", domain, "--expect", "0" * 63 + "1", status=4)
    store = Store.open("runs/r/preferences.db")
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE answers SET ranks = '[1, 1]' WHERE id = 2")
        connection.exec_driver_sql("UPDATE audit SET actor = 'x' WHERE id = 3")
    store.close()
    said = plumbline("audit", domain, "--contents", status=4)
    assert "BROKEN at entry 3" in said
    assert "entry 2: the judgement" in said


@pytest.mark.parametrize("removed", [False, True])
def test_erase_names_the_models_and_rewrites_snapshots_when_asked(domain, removed):
    choice = "--remove-judgements" if removed else "--keep-judgements"
    said = plumbline("erase", domain, NAME, choice, "--yes", "--rewrite-snapshots")
    models = re.findall(r"^  (\S+) \(", said, re.MULTILINE)
    assert models == ["runs/r/ppo", "runs/r/reward"]
    assert "2 judgements of theirs" in said
    assert "--force preferences" in said
    snapshot = read_snapshot(Path("runs/r/preferences"))
    rows = list(snapshot_rows(snapshot))
    names = [row["annotator"] for row in rows]
    assert names.count("Ben") == 2
    assert len(rows) == snapshot.judgements == (2 if removed else 4)
    assert sum(snapshot.annotators.values()) == snapshot.judgements
    assert all(NAME not in str(row) for row in rows)
    assert {row["reason"] for row in rows if row["annotator"] != "Ben"} <= {None}
    left = [path for path in Path("runs").rglob("*") if path.is_file() and b"Zwetschgenbaum" in path.read_bytes()]
    assert left == []
    assert not [line for line in said.splitlines() if line.startswith("the name is still in")]
    (report,) = Path("runs").glob("erased-*.json")
    assert [model["stage"] for model in json.loads(report.read_text())["models"]] == ["ppo", "reward"]


def test_erase_names_what_else_holds_the_name_when_snapshots_are_rewritten(domain):
    """A note beside the snapshot, and a file elsewhere in the runs."""
    notes = [Path("runs/r/preferences/who.csv"), Path("runs/r/dpo.txt")]
    for note in notes:
        note.write_text(f"asked {NAME}\n", encoding="utf-8")
    said = plumbline("erase", domain, NAME, "--keep-judgements", "--yes", "--rewrite-snapshots")
    named = [line for line in said.splitlines() if line.startswith("the name is still in")]
    assert sorted(named) == sorted(f"the name is still in {note}" for note in notes)


def test_erase_leaves_snapshots_alone_unless_asked(domain):
    said = plumbline("erase", domain, NAME, "--keep-judgements", "--yes")
    assert "still has them: --rewrite-snapshots" in said
    assert "the name is still in runs/r/preferences/snapshot.json" in said
    assert NAME in {row["annotator"] for row in snapshot_rows(read_snapshot(Path("runs/r/preferences")))}


@pytest.mark.parametrize("choice", ["--keep-judgements", "--remove-judgements"])
def test_an_erasure_that_broke_off_is_finished_by_the_next(domain, monkeypatch, choice):
    with monkeypatch.context() as patched, pytest.raises(AssertionError, match="power cut"):
        patched.setattr("plumbline.trained_on.os.replace", power_cut)
        plumbline("erase", domain, NAME, choice, "--yes", "--rewrite-snapshots")
    said = plumbline("erase", domain, NAME, choice, "--yes")
    assert f"{NAME} was erased" in said and "runs/r/ppo" in said and "was rewritten" in said
    left = [path for path in Path("runs").rglob("*") if path.is_file() and b"Zwetschgenbaum" in path.read_bytes()]
    assert left == []
    snapshot = read_snapshot(Path("runs/r/preferences"))
    assert snapshot.judgements == len(list(snapshot_rows(snapshot))) == (4 if choice == "--keep-judgements" else 2)
    with pytest.raises(UserError, match="nobody called"):
        plumbline("erase", domain, NAME, choice, "--yes")


def test_an_erasure_that_the_store_did_not_commit_leaves_no_note(domain, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(AssertionError, match="power cut"):
        patched.setattr("plumbline.unfinished.Unfinished.add", after(Unfinished.add, power_cut))
        plumbline("erase", domain, NAME, "--keep-judgements", "--yes")
    assert list(Path("runs").glob(".*.unfinished"))
    assert "kept: 2 judgements" in plumbline("erase", domain, NAME, "--keep-judgements", "--yes")
    assert list(Path("runs").glob(".*.unfinished")) == []


def power_cut(*given, **named):
    raise RuntimeError("power cut")


def after(function, then):
    def both(*given):
        function(*given)
        then()

    return both


@pytest.mark.parametrize("choice", ["--keep-judgements", "--remove-judgements"])
def test_erase_names_the_recipes_files_that_have_the_person_still(domain, choice):
    plumbline("export", domain, "domain/old.jsonl", "--format", "rankings")
    recipe = domain.read_text()
    assert "preferences:" not in recipe
    domain.write_text(recipe.replace("data:\n", "data:\n  preferences: [old.jsonl, missing.jsonl]\n"))
    Path("domain/missing.jsonl").write_text("\n")
    said = plumbline("erase", domain, NAME.lower(), choice, "--yes")
    again = "the next run takes them again" if choice == "--remove-judgements" else "is not taken again"
    (line,) = [line for line in said.splitlines() if "old.jsonl of data.preferences" in line]
    assert "has 2 judgements under the name" in line and again in line
    assert "missing.jsonl of data.preferences could not be looked through" in said


def test_erase_wants_a_choice_and_a_yes(domain):
    with pytest.raises(UserError, match="--keep-judgements or --remove-judgements"):
        plumbline("erase", domain, NAME, "--yes")
    with pytest.raises(UserError, match="does not go with"):
        plumbline("erase", domain, NAME, "--remove-judgements", "--keep-texts")
    with pytest.raises(UserError, match="nothing was changed"):
        plumbline("erase", domain, NAME, "--remove-judgements")
    assert "4 entries" in plumbline("audit", domain)


def test_tokens(domain):
    said = plumbline("tokens", "add", domain, "dashboard", "--days", "30")
    token = said.split()[-1]
    assert token.startswith("plumbline_")
    listed = plumbline("tokens", "list", domain)
    assert "dashboard  active" in listed
    assert token not in listed
    plumbline("tokens", "revoke", domain, "dashboard")
    assert "dashboard  revoked" in plumbline("tokens", "list", domain)


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e9"])
def test_a_token_holds_for_a_time(domain, days):
    with pytest.raises(UserError, match=r"a token cannot hold for .* days: give a number above 0"):
        plumbline("tokens", "add", domain, "dashboard", "--days", days)
    assert "dashboard" not in plumbline("tokens", "list", domain)


def test_a_token_that_reads_names_says_so(domain):
    assert "reads annotators' names" in plumbline("tokens", "add", domain, "payroll", "--names")
    plumbline("tokens", "add", domain, "dashboard")
    payroll, dashboard = plumbline("tokens", "list", domain).splitlines()
    assert payroll.endswith("reads names") and not dashboard.endswith("reads names")


def test_retain_says_what_is_due_and_does_it(domain, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"keeps everything: set annotate\.retention\.names_days"):
        plumbline("retain", domain)
    store = Store.open(tmp_path / "runs" / "r" / "preferences.db")
    with store.write() as connection:  # all of Ottilie's work was long ago, and so was a task that she left
        theirs = "annotator_id = (SELECT id FROM annotators WHERE name = :name)"
        for statement in (
            "UPDATE annotators SET created_at = '2020-01-01 00:00:00' WHERE name = :name",
            f"UPDATE leases SET created_at = '2020-01-01 00:00:00' WHERE {theirs}",
            f"UPDATE answers SET judged_at = '2020-01-02 00:00:00' WHERE {theirs}",
            "INSERT INTO leases (lease_id, project_id, task_id, annotator_id, state, slot, shown_order, created_at, "
            "expires_at) SELECT 'left', project_id, task_id, annotator_id, 'released', false, '[0, 1]', created_at, "
            f"created_at FROM leases WHERE {theirs} LIMIT 1",
        ):
            connection.execute(text(statement), {"name": NAME} if ":name" in statement else {})
    kept = ["annotate.retention.names_days=365", "annotate.retention.records_days=30"]
    said = plumbline("retain", domain, *kept, "--dry-run")
    assert "records that ended over 30 days ago: leases without an answer: 1" in said
    assert f"{NAME}, last seen 2020-01-02" in said and "Ben" not in said
    with pytest.raises(UserError, match="nothing was changed"):
        plumbline("retain", domain, *kept)
    assert "deleted: leases without an answer: 1" in plumbline("retain", domain, kept[1], "--yes")
    with monkeypatch.context() as patched, pytest.raises(AssertionError, match="power cut"):
        patched.setattr("plumbline.trained_on.traces_of", power_cut)
        plumbline("retain", domain, *kept, "--yes", "--rewrite-snapshots")
    assert f"erasing {NAME} broke off" in plumbline("retain", domain, *kept, "--dry-run")
    said = plumbline("retain", domain, *kept, "--yes")
    assert "was rewritten" in said
    assert f"{NAME} was erased" in said and "kept: 2 judgements" in said
    assert "runs/r/ppo" in said, "it learned from her judgements"
    with store.read() as connection:
        names = set(connection.execute(text("SELECT name FROM annotators")).scalars())
    store.close()
    assert NAME not in names and "Ben" in names
    said = plumbline("retain", domain, *kept, "--yes")
    assert "365 days: nobody" in said and "days ago: none" in said
