"""Saving LoRA adapters so that each stands over one named base and loads with `from_pretrained`.

A stage that starts from an adapter trains a new one over merged weights that are on no disk. Low-rank updates add up,
so the two are joined into one: `B2·A2 + B1·A1 = [B2 B1]·[A2; A1]`, of the summed rank, over the earlier one's base.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from plumbline.errors import UserError
from plumbline.identity import ADAPTER_LINEAGE, adapter_base, adapter_lineage, hash_weights
from plumbline.model_files import ADAPTER_CONFIG, hub_name, is_adapter, read_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def check_joinable(policy: Path) -> None:
    """Refuse, before the training, an adapter whose update cannot be joined with a new one's.

    Raises:
        UserError: it is no plain LoRA; merge it into full weights first.
    """
    if not is_adapter(policy):
        return
    config = read_json(policy / ADAPTER_CONFIG)
    odd = [name for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or odd:
        what = odd[0] if odd else f"{config.get('peft_type')} with bias {config.get('bias', 'none')!r}"
        raise UserError(
            f"{policy} is an adapter with {what}, which cannot be joined with a new LoRA adapter: drop `lora` from "
            "this stage's section to train full weights, or merge the adapter into its base first (`merge_and_unload` "
            "of peft) and start from the merged model."
        )


def finish_adapter(folder: Path, policy: Path) -> None:
    """Make a freshly saved adapter stand over a named base, and write down where it comes from.

    Args:
        folder: the adapter just saved by peft, trained over the (merged) weights of `policy`.
        policy: what the training started from: full weights, or another adapter, which is joined into this one.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    if is_adapter(policy):
        base_name, base = adapter_base(policy)
        config = _join(folder, config, policy)
        config["revision"] = read_json(policy / ADAPTER_CONFIG).get("revision")
    else:
        base = policy
        # A hub name exists on other machines too.
        base_name, config["revision"] = hub_name(policy) or (str(policy.resolve()), None)
    config["base_model_name_or_path"] = base_name
    # peft writes sets as lists in any order; the same adapter must give the same file.
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in sorted(config.items())}
    _write_json(folder / ADAPTER_CONFIG, config)
    lineage = {
        "parent": str(policy),
        "parent_hash": hash_weights(policy),
        "base_hash": hash_weights(base),
        "mode": "joined" if is_adapter(policy) else "new",
    }
    _write_json(folder / ADAPTER_LINEAGE, lineage)
    (folder / "README.md").unlink(missing_ok=True)


def _join(folder: Path, config: dict[str, Any], parent: Path) -> dict[str, Any]:
    """Write the joined weights of both adapters into `folder`; return the configuration they need."""
    parent_config = read_json(parent / ADAPTER_CONFIG)
    new, old = load_file(folder / WEIGHTS), load_file(parent / WEIGHTS)
    modules = sorted({_module(key) for key in (*new, *old) if ".lora_" in key})
    if config.get("task_type") == "SEQ_CLS":  # a classifier has no language-model head
        modules = [module for module in modules if not module.endswith("lm_head")]
    joined = {key: tensor for key, tensor in new.items() if ".lora_" not in key}
    for module in modules:
        parts = [_factors(new, config, module), _factors(old, parent_config, module)]
        known = next(part for part in parts if part is not None)
        downs, ups = zip(
            *(
                part or _no_update(known, ranked["r"])
                for part, ranked in zip(parts, (config, parent_config), strict=True)
            ),
            strict=True,
        )
        joined[f"{module}.lora_A.weight"] = torch.cat(downs, dim=0).contiguous()
        joined[f"{module}.lora_B.weight"] = torch.cat(ups, dim=1).contiguous()
    save_file(joined, folder / WEIGHTS, metadata={"format": "pt"})
    rank = config["r"] + parent_config["r"]
    targets = [module.removeprefix(PREFIX) for module in modules]
    # The scales are folded into the up-projections.
    return {**config, "r": rank, "lora_alpha": rank, "use_rslora": False, "target_modules": targets}


def last_adapter(folder: Path, policy: Path, start: Path, target: Path) -> Path:
    """An adapter as it was trained: over the weights that a stage which starts from `policy` trains over, too.

    A joined adapter stands over the base of its parent; this gives back what `_join` put the parent's update to.

    Args:
        folder: an adapter, or full weights.
        policy: what the stage starts from.
        start: the full weights of `policy`, by `plumbline.models.starting_weights`.
        target: where the adapter goes, with all other files of `folder`.

    Returns:
        `target`, or `folder` as it is where it was not joined with the very adapter `policy`.
    """
    lineage = adapter_lineage(folder)
    if not is_adapter(policy) or lineage.get("mode") != "joined" or lineage["parent_hash"] != hash_weights(policy):
        return folder
    config = read_json(folder / ADAPTER_CONFIG)
    rank = config["r"] - read_json(policy / ADAPTER_CONFIG)["r"]
    tensors = load_file(folder / WEIGHTS)
    for key, tensor in tensors.items():
        if ".lora_A." in key:
            tensors[key] = tensor[:rank].contiguous()
        elif ".lora_B." in key:
            tensors[key] = tensor[:, :rank].contiguous()
    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / ADAPTER_LINEAGE).unlink()
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    # As in `_join`, the scale is folded into the up-projections.
    _write_json(
        target / ADAPTER_CONFIG, config | {"r": rank, "lora_alpha": rank, "base_model_name_or_path": str(start)}
    )
    return target


def _module(key: str) -> str:
    return key.split(".lora_")[0]


def _factors(
    tensors: dict[str, torch.Tensor], config: dict[str, Any], module: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Down-projection (rank, in) and scaled up-projection (out, rank) of one module, in float32."""
    down = tensors.get(f"{module}.lora_A.weight")
    if down is None:
        return None
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    return down.float(), tensors[f"{module}.lora_B.weight"].float() * scale


def _no_update(other: tuple[torch.Tensor, torch.Tensor], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero factors of a module that one of the adapters leaves alone, in the shape of the other's."""
    down, up = other
    return down.new_zeros(rank, down.shape[1]), up.new_zeros(up.shape[0], rank)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
