"""What `plumbline check` prints: data, model, and which stages would run, with their estimated memory."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from plumbline.chain import Chain
from plumbline.console import amount
from plumbline.modelcard import REWARD_MODELS
from plumbline.preflight import Preflight


def print_plan(chain: Chain, found: Preflight) -> None:
    """Print the plan of a checked recipe to standard output."""
    out = Console(highlight=False)
    recipe = chain.recipe
    out.print(f"{recipe.name}: the recipe is valid. Run folder: {chain.run.root}", markup=False)
    window = f"{found.window} tokens" if found.window else "without limit"
    out.print(
        f"base model {recipe.model.name}: {found.parameters / 1e6:,.1f} M parameters, window {window}", markup=False
    )
    for name, splits in found.rows.items():
        counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
        out.print(f"{name}: {counts}", markup=False)
    for notice in found.notices:
        out.print(f"note: {notice}", markup=False)
    out.print(_table(chain, found))
    out.print("memory: weights, gradients and optimizer, estimated; activations come on top", style="dim")


def _table(chain: Chain, found: Preflight) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "does", "state", "why", "memory"):
        table.add_column(heading, no_wrap=heading in ("stage", "state", "memory"))
    for planned in chain.plan():
        name = planned.stage.name
        memory = found.memory.get("reward" if name in REWARD_MODELS else name)
        table.add_row(
            name,
            planned.stage.what,
            planned.state,
            planned.why,
            amount(memory) if memory else "",
        )
    return table
