"""The command line as a user meets it: a subprocess, its exit status and what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import plumbline.cli
from plumbline.errors import UserError
from plumbline.preferences.formats import EXPORTED, IMPORTED

COMMANDS = ("init", "check", "run", "sft", "sample", "annotate", "simulate", "reward", "align", "compare")
COMMANDS += ("import", "export", "quality", "arena", "lineage")


def plumbline_command(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "plumbline.cli", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_help_lists_every_command_without_heavy_imports():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom plumbline.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'gradio', 'sqlalchemy', 'matplotlib'}\n"
        "assert not heavy & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("init", "FOLDER"),
        ("run", "RECIPE [SECTION.KEY=VALUE]..."),
        ("sft", "RECIPE [SECTION.KEY=VALUE]..."),
        ("import", "RECIPE FILE [SECTION.KEY=VALUE]..."),
        ("export", "RECIPE FILE [SECTION.KEY=VALUE]..."),
        ("lineage", "FOLDER"),
    ],
)
def test_usage_lines_name_what_to_give(command, given):
    usage = CliRunner().invoke(plumbline.cli.app, [command, "--help"]).output.split("\n\n")[0]
    assert " ".join(usage.split()).endswith(f" {command} [OPTIONS] {given}")


@pytest.mark.parametrize(("command", "formats"), [("import", IMPORTED), ("export", EXPORTED)])
def test_help_and_docs_name_the_formats(command, formats):
    page = (Path(__file__).parents[2] / "docs" / "own-domain.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in formats)
    assert ", ".join(formats) in " ".join(CliRunner().invoke(plumbline.cli.app, [command, "--help"]).output.split())


def test_a_users_mistake_is_one_sentence_and_status_2(tmp_path):
    done = plumbline_command("run", str(tmp_path / "nowhere.yaml"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory" in done.stderr


def test_an_unknown_option_is_status_2():
    assert plumbline_command("run", "--untill", "sft").returncode == 2


def test_a_new_domain_from_the_command_line(tmp_path):
    done = plumbline_command("init", "shop", cwd=tmp_path)
    assert done.returncode == 0
    assert "plumbline check shop/recipe.yaml" in done.stdout
    assert (tmp_path / "shop" / "recipe.yaml").read_text().count("shop") >= 1
    again = plumbline_command("init", "shop", cwd=tmp_path)
    assert again.returncode == 2
    assert "shop is not empty" in again.stderr


def test_lineage_of_a_folder_without_manifest_is_refused(tmp_path):
    done = plumbline_command("lineage", str(tmp_path))
    assert done.returncode == 2
    assert "has no manifest.json" in done.stderr


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (UserError("do this"), 2, "error: do this"),
        (OSError(28, "No space left on device", "/x"), 2, "error: the disk is full (/x)"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x cannot be written"),
    ],
)
def test_what_ends_without_a_traceback(monkeypatch, capsys, raised, status, said):
    def fails():
        raise raised

    monkeypatch.setattr(plumbline.cli, "app", fails)
    with pytest.raises(SystemExit) as left:
        plumbline.cli.main()
    assert left.value.code == status
    assert said in capsys.readouterr().err


def test_a_fault_of_plumbline_keeps_its_traceback(monkeypatch):
    def fails():
        raise ZeroDivisionError

    monkeypatch.setattr(plumbline.cli, "app", fails)
    with pytest.raises(ZeroDivisionError):
        plumbline.cli.main()
