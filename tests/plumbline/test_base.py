"""The base model with the recipe's own template, as a folder of the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbline.base import prepare_base
from tests.tiny import TEMPLATE, tiny_model


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    return tmp_path / "template.jinja"


def prepared(source: Path, folder: Path, template: Path) -> Path:
    folder.mkdir(parents=True)
    prepare_base(source, folder, chat_template=template, pad_token=None)
    return folder


def test_a_prepared_base_holds_wherever_both_are_moved(tmp_path: Path, template: Path) -> None:
    source = tiny_model(tmp_path / "domain" / "base", chat_template=None)
    prepared(source, tmp_path / "domain" / "runs" / "x" / "base", template)
    weights = tmp_path / "domain" / "runs" / "x" / "base" / "model.safetensors"
    assert weights.samefile(source / "model.safetensors"), "no second copy of the weights"
    (tmp_path / "domain").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / "base")
    moved = tmp_path / "elsewhere" / "runs" / "x" / "base"
    AutoModelForCausalLM.from_pretrained(moved)
    assert AutoTokenizer.from_pretrained(moved).chat_template == TEMPLATE


def test_a_models_own_code_is_copied_with_its_subfolders(tmp_path: Path, template: Path) -> None:
    source = tiny_model(tmp_path / "base", chat_template=None)
    (source / "layers").mkdir()
    for name in ("modeling.py", "layers/attention.py"):
        (source / name).write_text(f"# {name}")
    folder = prepared(source, tmp_path / "runs" / "base", template)
    for name in ("modeling.py", "layers/attention.py"):
        (folder / name).write_text("# changed")
        assert (source / name).read_text() == f"# {name}"


def test_without_hard_links_it_points_to_the_base(tmp_path: Path, template: Path, monkeypatch) -> None:
    def another_disk(place: Path, file: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", another_disk)
    source = tiny_model(tmp_path / "base", chat_template=None)
    folder = prepared(source, tmp_path / "runs" / "base", template)
    assert (folder / "model.safetensors").readlink() == source / "model.safetensors"
    AutoModelForCausalLM.from_pretrained(folder)
