"""What a user can get wrong ends in one clear sentence and status 2, before work where it can be known before."""

import contextlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

import plumbline.cli
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.small_domain import make_small_domain, small_recipe, write_lines
from tests.tiny import TEMPLATE, TEMPLATE_WITHOUT_MARKS, tiny_model


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    make_small_domain(folder)
    return folder


@pytest.fixture
def domain(good, tmp_path, monkeypatch):
    """A copy of a good domain to spoil; it is the working directory."""
    shutil.copytree(good, tmp_path / "domain")
    monkeypatch.chdir(tmp_path / "domain")
    return tmp_path / "domain"


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs a command that must be refused; returns what it said."""

    def run(*arguments: str, status: int = 2) -> str:
        monkeypatch.setattr("sys.argv", ["plumbline", *arguments])
        with pytest.raises(SystemExit) as left:
            plumbline.cli.main()
        said = capsys.readouterr().err
        assert left.value.code == status, said
        assert "Traceback" not in said
        return said

    return run


def change_recipe(folder, **sections):
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, **sections}, sort_keys=False))


def test_the_unspoilt_domain_passes(domain, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plumbline", "check", "recipe.yaml"])
    with pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    assert left.value.code == 0
    assert "the recipe is valid" in capsys.readouterr().out
    assert not (domain / "runs").exists(), "a check changes nothing"


def test_a_corpus_of_one_text(domain, capsys):
    write_lines(domain / "corpus.jsonl", [{"text": "one"}])
    change_recipe(domain, data={**small_recipe()["data"], "corpus": "corpus.jsonl"}, adapt={})
    run_well("check", "recipe.yaml")
    assert "corpus: texts 1\n" in capsys.readouterr().out


def test_changed_settings_of_a_simulated_annotator_are_told_by_the_check(domain, capsys, monkeypatch):
    place = domain / "runs" / "small" / "preferences.db"
    store = Store.open(place)
    settings = {"noise": 0.3, "length_bias": 0.0, "position_bias": 0.0, "carelessness": 0.0, "tie_below": 0.0}
    PreferenceService(store, project="small").sign_in("sim-a", simulated=True, settings=settings)
    store.close()
    before = contents_of(place)
    monkeypatch.setattr("sys.argv", ["plumbline", "check", "recipe.yaml", "annotate.judgements_per_prompt=2"])
    with pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "will stop: the simulated annotator 'sim-a' is in this store with other settings" in said
    assert "(noise: 0.3 there, 0.05 here)" in said
    assert "sim-b" not in said
    assert contents_of(place) == before, "a check changes nothing"


def contents_of(place):
    with contextlib.closing(sqlite3.connect(place)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_empty_prompt(domain, refused, command):
    write_lines(domain / "prompts.jsonl", [{"prompt": "hello"}, {"prompt": " "}])
    assert "prompts.jsonl:2: message 1: the user's content is empty" in refused(command, "recipe.yaml")


def test_a_file_that_is_not_utf8(domain, refused):
    (domain / "prompts.jsonl").write_bytes('{"prompt": "café"}'.encode("latin-1"))
    assert "prompts.jsonl:1: not UTF-8 (byte 15); save the file as UTF-8" in refused("check", "recipe.yaml")


def test_roles_out_of_order(domain, refused):
    turns = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}]
    write_lines(domain / "demonstrations.jsonl", [{"messages": turns}])
    assert "demonstrations.jsonl:1: roles out of order" in refused("check", "recipe.yaml")


def test_a_model_that_is_not_there(domain, refused):
    change_recipe(domain, model="./nowhere")
    assert "recipe.yaml:3: model: there is no file" in refused("check", "recipe.yaml")


def test_a_model_without_a_chat_template(domain, refused):
    shutil.rmtree(domain / "base")
    tiny_model(domain / "base", chat_template=None)
    said = refused("check", "recipe.yaml")
    assert "has no chat template: set model.chat_template" in said
    (domain / "template.jinja").write_text(TEMPLATE)
    change_recipe(domain, model={"name": "base", "chat_template": "template.jinja"})
    run_well("check", "recipe.yaml")


def run_well(*arguments):
    with patch("sys.argv", ["plumbline", *arguments]), pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    assert left.value.code == 0


def test_a_template_without_generation_marks(domain, refused):
    shutil.rmtree(domain / "base")
    tiny_model(domain / "base", chat_template=TEMPLATE_WITHOUT_MARKS)
    assert "{% generation %}" in refused("check", "recipe.yaml")


def test_a_model_without_a_pad_token(domain, refused):
    path = domain / "base" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    path.write_text(json.dumps(settings))
    assert "has no pad token: set model.pad_token" in refused("check", "recipe.yaml")
    change_recipe(domain, model={"name": "base", "pad_token": "<|im_end|>"})
    assert "is the eos token" in refused("run", "recipe.yaml", "--until", "sft")
    change_recipe(domain, model={"name": "base", "pad_token": "<|nothing|>"})
    assert "is not in the vocabulary" in refused("run", "recipe.yaml", "--until", "sft")
    change_recipe(domain, model={"name": "base", "pad_token": "<|pad|>"})
    run_well("run", "recipe.yaml", "--until", "base")


def test_prompts_longer_than_the_window(domain, refused):
    rows = [{"prompt": "hello"}, {"prompt": "where is my order? " * 100}]
    write_lines(domain / "prompts.jsonl", rows)
    said = refused("check", "recipe.yaml")
    assert "no room for a response after 1 prompt:" in said
    assert "the model's window of 256" in said


def test_faults_of_model_data_and_utility_are_told_together(domain, refused):
    tokenizer = domain / "base" / "tokenizer_config.json"
    settings = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps({name: value for name, value in settings.items() if name != "pad_token"}))
    (domain / "base" / "chat_template.jinja").unlink()
    rows = (domain / "demonstrations.jsonl").read_text().splitlines()[:2]
    (domain / "demonstrations.jsonl").write_text("\n".join(rows))
    (domain / "prompts.jsonl").write_text("{broken\n")
    write_lines(domain / "benchmark.jsonl", [{"prompt": " "}])
    (domain / "utility.yaml").write_text("weights: 1\n")
    preferences = [{"path": "benchmark.jsonl", "format": "oast"}]
    data = {**small_recipe()["data"], "benchmark": "benchmark.jsonl", "preferences": preferences}
    change_recipe(domain, data=data)
    for command in ("check", "run"):
        said = refused(command, "recipe.yaml").splitlines()
        assert said[0] == "error: model, data and store have 6 faults:"
        assert all(line.startswith("  ") for line in said[1:])
        text = "\n".join(said)
        for part in (
            "set model.chat_template",
            "set model.pad_token",
            "fewer than one batch of 4",
            "prompts.jsonl:1: not valid JSON",
            "benchmark.jsonl:1: message 1: the user's content is empty",
            "utility.yaml",
            "there is no format 'oast'; did you mean 'oasst'?",
        ):
            assert part in text
        assert "no prompt is left" not in text, "what depends on broken data is not guessed at"


@pytest.mark.parametrize(
    ("store", "what"),
    [
        ("mysql://x/y", "a store is SQLite or PostgreSQL"),
        ("broken.db", "is not a readable SQLite database"),
        ("prompts.jsonl/store.db", "cannot be written"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_any_work(domain, refused, store, what):
    (domain / "broken.db").write_text("no database " * 100)
    for command in ("check", "run"):
        assert what in refused(command, "recipe.yaml", f"annotate.store={store}")
    assert not (domain / "runs" / "small" / "sft").exists()


def test_what_the_app_would_refuse_when_it_starts_is_told_by_check(domain, refused, capsys):
    change_recipe(domain, annotate={**small_recipe()["annotate"], "webhooks": [{"url": "http://192.168.1.4/x"}]})
    said = refused("check", "recipe.yaml", "annotate.language=klingon")
    assert "http://192.168.1.4/x would be sent unencrypted" in said
    assert "there is no language 'klingon'; there are de, en" in said
    change_recipe(domain, annotate={**small_recipe()["annotate"], "webhooks": [{"url": "https://example.org/x"}]})
    run_well("check", "recipe.yaml")
    told = " ".join(capsys.readouterr().out.split())
    assert "needs a secret in the environment variable PLUMBLINE_WEBHOOK_SECRET" in told


def test_acting_on_a_reward_that_the_chain_does_not_watch_is_told_before_any_work(domain, refused):
    changed = small_recipe()["align"]
    changed[1]["on_overoptimization"] = "stop"
    change_recipe(domain, align=changed)
    line = (domain / "recipe.yaml").read_text().splitlines().index("  on_overoptimization: stop") + 1
    said = refused("check", "recipe.yaml")
    assert f"recipe.yaml:{line}: align.1.on_overoptimization is 'stop', but the chain watches no second reward" in said
    assert "set `reward.watch_share`" in said
    run_well("check", "recipe.yaml", "reward.watch_share=0.2")


def test_settings_for_rewards_and_batches_that_the_chain_does_not_have_are_told_before_any_work(domain, refused):
    changed = small_recipe()["align"]
    changed[1] |= {"reward_weights": [1.0, 0.5], "num_mini_batches": 3}
    change_recipe(domain, align=changed)
    said = refused("check", "recipe.yaml")
    assert "align.1.reward_weights has 2 entries, but the chain optimises one reward model" in said
    assert "align.1: num_mini_batches is 3, which does not divide the" in said


def test_a_response_length_that_leaves_no_room_for_a_prompt_is_told_before_any_work(domain, refused):
    said = refused("check", "recipe.yaml", "align.ppo.response_length=256")
    assert "ppo.response_length 256 leaves no room for a prompt in the model's window of 256" in said


def test_shares_of_the_preferences_that_leave_none_for_the_policies(domain, refused):
    change_recipe(domain, reward={**small_recipe()["reward"], "judge_share": 0.5, "watch_share": 0.5})
    line = (domain / "recipe.yaml").read_text().splitlines().index("reward:") + 1
    said = refused("check", "recipe.yaml")
    assert f"recipe.yaml:{line}: reward: judge_share 0.5 + watch_share 0.5 leave no preferences" in said


def test_parts_of_the_preferences_that_are_smaller_than_a_batch_are_told_before_any_work(domain, refused):
    said = refused("run", "recipe.yaml", "reward.watch_share=0.01")
    assert "too few preferences can be ranked for one batch of 4 pairs: the watch part has 0 training prompts" in said
    assert "(reward.watch_share 0.01), which give at most 0 pairs" in said
    assert not (domain / "runs" / "small" / "sft").exists()
    # What is in the store, or imported, may have other prompts.
    write_lines(domain / "pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
    run_well("import", "recipe.yaml", "pairs.jsonl")
    run_well("check", "recipe.yaml", "reward.watch_share=0.01")


def test_a_watched_reward_that_no_policy_uses_is_told(domain, capsys):
    change_recipe(domain, align=small_recipe(align=("dpo",))["align"])
    run_well("check", "recipe.yaml", "reward.watch_share=0.3")
    said = " ".join(capsys.readouterr().out.split())
    assert "no align entry is ppo: nothing learns from them" in said
    assert "Training the watched reward model" not in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("response_length=0", "response_length is 0: it must be at least 1"),
        ("kl_budget=0", "kl_budget is 0: it must be above 0"),
        ("early_stopping_patience=2", "early_stopping_patience is 2, but nothing is evaluated: set eval_strategy"),
    ],
)
def test_settings_of_ppo_that_make_no_sense_are_told_before_any_work(domain, refused, setting, message):
    for command in ("check", "run"):
        assert message in refused(command, "recipe.yaml", f"align.ppo.{setting}")
    assert not (domain / "runs").exists()


def test_simulation_without_simulated_annotators_is_told_before_any_work(domain, refused):
    change_recipe(domain, annotate={})
    assert "no `annotate.simulated` section" in refused("run", "recipe.yaml", "--simulate")
    assert not (domain / "runs" / "small" / "sft").exists()


def test_an_address_that_other_machines_reach_is_told_with_the_recipe(domain, refused):
    assert "annotate.host" in refused("check", "recipe.yaml", "annotate.host=0.0.0.0")


def test_fewer_demonstrations_than_a_batch(domain, refused):
    change_recipe(domain, sft={**small_recipe()["sft"], "per_device_train_batch_size": 64})
    assert "fewer than one batch of 64" in refused("check", "recipe.yaml")


def test_a_run_folder_that_cannot_be_made(domain, refused):
    (domain / "runs").write_text("a file is in the way")
    assert "cannot be made" in refused("run", "recipe.yaml")


def test_a_utility_with_a_fault(domain, refused):
    rubric = yaml.safe_load((domain / "utility.yaml").read_text())
    rubric["weights"]["courtesy"] = 1
    (domain / "utility.yaml").write_text(yaml.safe_dump(rubric))
    assert "weights.courtesy: unknown" in refused("check", "recipe.yaml")


class TestAfterSampling:
    """Faults that come up once responses are sampled; the run before them is made once."""

    @pytest.fixture(scope="class")
    def sampled(self, good, tmp_path_factory):
        folder = tmp_path_factory.mktemp("sampled") / "domain"
        shutil.copytree(good, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            run_well("run", "recipe.yaml", "--until", "sample")
        return folder

    @pytest.fixture
    def domain(self, sampled, tmp_path, monkeypatch):
        shutil.copytree(sampled, tmp_path / "domain")
        monkeypatch.chdir(tmp_path / "domain")
        return tmp_path / "domain"

    def test_nothing_is_judged_yet(self, domain, refused):
        said = refused("run", "recipe.yaml", status=3)
        assert "still missing: 38 of 38 judgements" in said

    def test_the_commands_to_go_on_with_repeat_the_settings(self, domain, refused):
        place = str(domain / "runs")
        given = ["recipe.yaml", "--runs", place, "annotate.required=30", "annotate.guideline=null"]
        arguments = f"recipe.yaml --run small --runs {place} annotate.required=30 annotate.guideline=null"
        said = refused("run", *given, status=3)
        assert f"plumbline annotate {arguments}\n" in said
        assert f"plumbline run {arguments}" in said

    def test_all_preferences_are_ties(self, domain, refused):
        simulated = small_recipe()["annotate"]["simulated"]
        simulated["annotators"] = [{"name": "sim-a", "noise": 0.0, "tie_below": 10.0}]
        change_recipe(domain, annotate={"simulated": simulated})
        run_well("simulate", "recipe.yaml")
        said = refused("run", "recipe.yaml")
        assert "ties" in said
        assert (domain / "runs" / "small" / "preferences" / "manifest.json").exists(), "the judgements are kept"

    def test_fewer_preferences_than_a_batch(self, domain, refused):
        reward = {**small_recipe()["reward"], "per_device_train_batch_size": 500}
        change_recipe(domain, reward=reward)
        run_well("simulate", "recipe.yaml")
        said = refused("run", "recipe.yaml")
        assert "fewer than one batch of 500" in said

    def test_a_store_written_by_a_newer_version(self, domain, refused):
        with sqlite3.connect(domain / "runs" / "small" / "preferences.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.close()
        said = refused("simulate", "recipe.yaml")
        assert "9999" in said
        assert "newer" in said

    def test_a_port_in_use(self, domain, refused):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            said = refused("annotate", "recipe.yaml", f"annotate.port={port}")
        assert str(port) in said
        assert "in use" in said

    def test_an_address_that_others_can_reach(self, domain, refused):
        assert "0.0.0.0" in refused("annotate", "recipe.yaml", "annotate.host=0.0.0.0")

    def test_every_command_logs_to_the_run_folder(self, domain):
        write_lines(domain / "pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
        commands = {"check": [], "import": ["pairs.jsonl"], "simulate": [], "quality": []}
        commands |= {"export": ["out.jsonl"]}
        for command, arguments in commands.items():
            run_well(command, "recipe.yaml", *arguments)
            (log,) = (domain / "runs" / "small" / "logs").glob(f"*-{command}.log")
            told = {"check": "", "import": "1 judgement taken", "simulate": "38 simulated", "quality": ""}
            told |= {"export": "written as trl"}
            assert told[command] in log.read_text()

    def test_the_quality_of_simulated_judgements(self, domain, capsys):
        run_well("simulate", "recipe.yaml")
        capsys.readouterr()
        run_well("quality", "recipe.yaml")
        said = capsys.readouterr().out
        assert "judgements   38 of 38, 0 left" in said
        assert "pairs agreed on             no task was judged twice" in said
        run_well("quality", "recipe.yaml", "--json")
        report = json.loads(capsys.readouterr().out)
        assert report["progress"]["done"] == 38
        assert report["agreement"]["alpha"]["value"] is None

    def test_a_malformed_line_of_an_import_is_set_aside(self, domain, capsys):
        good = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}
        path = write_lines(domain / "pairs.jsonl", [good])
        path.write_text(path.read_text() + "{broken\n")
        run_well("import", "recipe.yaml", "pairs.jsonl")
        said = capsys.readouterr().out
        assert "2 rows read as trl, 1 set aside: 1 judgement taken" in said
        (rejected,) = domain.glob("*.rejected.jsonl")
        assert "broken" in rejected.read_text()
        run_well("import", "recipe.yaml", "pairs.jsonl")
        said = capsys.readouterr().out
        assert "0 judgements taken, 1 there already" in said
        assert "they are in" not in said


@pytest.mark.parametrize("command", [["check"], ["export", "out.jsonl"], ["quality"]])
def test_what_only_reads_makes_no_run_folder(domain, command):
    status = {"check": 0, "export": 2, "quality": 2}[command[0]]
    with patch("sys.argv", ["plumbline", command[0], "recipe.yaml", *command[1:]]), pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    assert left.value.code == status
    assert not (domain / "runs").exists()


def test_annotate_before_sampling(domain, refused):
    assert "there is nothing to judge" in refused("annotate", "recipe.yaml")
    assert "there is nothing to judge yet" in refused("simulate", "recipe.yaml")
    assert not (domain / "runs").exists(), "a misspelt name makes no run"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", ".hidden", "/tmp/x"])
def test_a_runs_name_is_no_path(domain, refused, name):
    for command in ("check", "run", "annotate"):
        assert f"--run {name}: a run's name begins with a letter or digit" in refused(
            command, "recipe.yaml", "--run", name
        )
    assert not (domain / "runs").exists()


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_in_the_place_of_the_runs(domain, refused, command):
    said = refused(command, "recipe.yaml", "--runs", "recipe.yaml")
    assert "recipe.yaml/small cannot be made: recipe.yaml is a file; give a folder with --runs" in said


def test_an_import_goes_where_it_was_meant_to_and_says_where(domain, refused, capsys):
    write_lines(domain / "pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
    arguments = "import", "recipe.yaml", "pairs.jsonl"
    assert "runs has no run 'small': give --new to make it" in refused(*arguments, "--run", "small")
    run_well(*arguments)
    assert f"they are in {Path('runs/small/preferences.db')}, project small" in capsys.readouterr().out
    assert "no run 'smal': give --new to make it; did you mean 'small'?" in refused(*arguments, "--run", "smal")
    assert [path.name for path in (domain / "runs").iterdir()] == ["small"]
    run_well(*arguments, "--run", "smal", "--new")
    run_well(*arguments, "--run", "smal")
    assert "0 judgements taken, 1 there already" in capsys.readouterr().out


def test_import_and_export_take_values_over_the_recipes(domain, capsys):
    write_lines(domain / "pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
    run_well("import", "recipe.yaml", "pairs.jsonl", "annotate.store=elsewhere.db")
    run_well("export", "recipe.yaml", "out.jsonl", "annotate.store=elsewhere.db")
    assert "1 row written as trl" in capsys.readouterr().out
    assert (domain / "elsewhere.db").exists()


def test_an_export_replaces_a_file_only_when_asked_for(domain, refused):
    write_lines(domain / "pairs.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}])
    run_well("import", "recipe.yaml", "pairs.jsonl")
    assert "is there already" in refused("export", "recipe.yaml", "pairs.jsonl")
    run_well("export", "recipe.yaml", "pairs.jsonl", "--force")
    assert "judgement_id" in (domain / "pairs.jsonl").read_text()
