"""Every recipe in the repository loads, against the real trainers; the reference page is what the schema says."""

from pathlib import Path

import pytest

from plumbline.errors import RecipeError
from plumbline.new_domain import make_domain
from plumbline.reference import reference

ROOT = Path(__file__).parents[2]
RECIPES = sorted({*ROOT.glob("domains/**/recipe*.yaml"), *ROOT.glob("examples/*.yaml")})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_recipe_is_valid(path):
    from plumbline.chain import read_recipe

    try:
        read_recipe(path)
    except RecipeError as error:
        outside = [fault for fault in error.faults if "there is no file" in fault and "examples/data" in fault]
        if outside == error.faults:
            pytest.skip("this recipe's data are not in the repository; see examples/README.md")
        raise


def test_there_are_recipes_to_check():
    assert RECIPES


def test_a_new_domain_is_valid(tmp_path):
    from plumbline.chain import read_recipe

    recipe = read_recipe(make_domain(tmp_path / "Pumps & Valves"))
    assert recipe.name == "Pumps---Valves"
    assert recipe.align_names == ["dpo", "ppo"]


def test_a_new_domain_passes_the_check(tmp_path):
    from plumbline.chain import read_recipe
    from plumbline.domain import Domain
    from plumbline.preflight import preflight
    from plumbline.runs import Run
    from tests.tiny import tiny_model

    model = tiny_model(tmp_path / "model", max_positions=1024)
    recipe = read_recipe(make_domain(tmp_path / "shop"), [f"model={model}"])
    found = preflight(Domain(recipe, Run(tmp_path / "run", create=False), print))
    assert found.notices == []
    for name in ("demonstrations", "prompts"):
        assert found.rows[name].keys() == {"train", "validation", "test"}, "the example data have rows of every split"


def test_a_new_domain_overwrites_nothing(tmp_path):
    from plumbline.errors import UserError

    (tmp_path / "mine").write_text("data")
    with pytest.raises(UserError, match="is not empty"):
        make_domain(tmp_path)


def test_the_recipe_reference_is_up_to_date():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs` and commit docs/recipe.md"
    assert "annotation=" not in page  # what Python prints of a type
