"""`plumbline init`: a new domain's folder, with a commented recipe, example data and a guideline."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from plumbline.errors import UserError


def make_domain(folder: Path) -> Path:
    """Copy the template domain to `folder`; return the recipe's path.

    Raises:
        UserError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder, so that nothing is overwritten.")
    try:
        with as_file(files("plumbline") / "templates" / "domain") as template:
            shutil.copytree(template, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; name another folder.") from None
    recipe = folder / "recipe.yaml"
    name = "".join(c if c.isalnum() or c in "_.-" else "-" for c in folder.resolve().name).lstrip("_.-") or "my-domain"
    text = recipe.read_text(encoding="utf-8").replace("my-domain", name)
    recipe.write_text(text, encoding="utf-8")
    return recipe
