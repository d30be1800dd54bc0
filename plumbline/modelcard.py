"""The model card of a stage's model: what it is, what it learned from, and what was measured.

Its front matter is the Hub's model card metadata. A card goes with the model wherever that is copied or uploaded, so it
names no place on this machine: neither the run's name nor a path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load
from jinja2 import Template

from plumbline.lineage import Node, as_lines, lineage_of_manifest, model_name, simulated_share
from plumbline.measured import in_words
from plumbline.model_files import hub_name, is_adapter
from plumbline.runs import Manifest, Run

WHAT = {
    "base": "the base model with the recipe's chat template or pad token",
    "adapt": "a language model, further pretrained on the domain's text",
    "sft": "a language model, fine-tuned on the domain's demonstrations",
    "reward": "a reward model: one number for a conversation that ends with a response, higher is better",
    "judge": "a reward model that only judges comparisons; no policy was optimised against it",
    "watch": "a reward model that PPO watches beside the one that it optimises, to see over-optimisation",
}
REWARD_MODELS = ("reward", "judge", "watch")
TAGS: dict[str, list[str]] = {
    "base": [],
    "adapt": ["trl", "sft"],
    "sft": ["trl", "sft"],
    "reward": ["trl", "reward-trainer"],
    "dpo": ["trl", "dpo"],
    "ppo": ["ppo"],
}
"""Of each stage or method, as TRL tags its models; those of its trainers carry `trl`."""
INHERITED = ("license", "license_name", "license_link", "language")
"""Metadata of the base model's card that hold for what was made from it."""

CARD = Template(
    """---
{{ metadata }}---

# {{ domain }} / {{ manifest.stage }}

This is {{ what }}.
{%- if base and manifest.stage != "base" %} It was made from the base model {{ base }}.{% endif %}
{% if simulated %}
> **Simulated judgements.** {{ "%.0f%%" % (100 * simulated) }} of the preferences behind this model were given by
> simulated annotators, not by people.
{% endif %}
## Identity

Weights, tokenizer and chat template by the SHA-256 of their contents.

| | |
|---|---|
{% for name, value in identity.items() -%}
| {{ name }} | `{{ value }}` |
{% endfor %}
## Measured

{% if metrics -%}
| metric | value |
|---|---|
{% for name, value in metrics.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
{%- else -%}
Nothing was measured at this stage.
{% endif %}
## Lineage

```
{{ lineage }}
```

Numbers are the first 12 digits of SHA-256 hashes: of a stage's files, of a data file, of the judgements; a base model's
first one is over weights, tokenizer, chat template and configuration together.

## How it was made

Seed {{ manifest.seed }}, {{ manifest.wall_seconds }} s on {{ manifest.hardware.cores }} cores
{%- if manifest.hardware.accelerators %} and {{ manifest.hardware.accelerators | join(", ") }}{% endif %},
{% for name, version in manifest.libraries.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}{% endfor %}.

```json
{{ config }}
```

The whole record is in `manifest.json` beside this card.
""",
    trim_blocks=False,
)


@dataclass(frozen=True)
class _Base:
    """The base model behind a stage: its name to show, hub name and commit, weights' hash, and its card's metadata."""

    name: str
    hub: tuple[str, str] | None
    weights_hash: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, lineage: Node) -> _Base | None:
        """None where the lineage ends at a stage that is no longer there."""
        node = next((below for below in lineage.walk() if below.kind == "model"), None)
        if node is None:
            return None
        folder = Path(node.facts["source"])
        return cls(model_name(node), hub_name(folder), node.facts["base_hash"], _card_metadata(folder))

    def __str__(self) -> str:
        return f"[{self.name}](https://huggingface.co/{self.name})" if self.hub else f"`{self.name}` (a local folder)"


def write_card(folder: Path, manifest: Manifest, run: Run, domain: str) -> None:
    """Write `README.md` into a model folder from its manifest and the lineage behind it; `domain` heads it."""
    node = lineage_of_manifest(manifest, run)
    base = _Base.of(node)
    text = CARD.render(
        manifest=manifest,
        domain=domain,
        metadata=yaml.safe_dump(_metadata(folder, manifest, base), sort_keys=False, allow_unicode=True),
        what=WHAT.get(manifest.stage, f"a policy aligned by {manifest.config.get('method', '').upper()}"),
        base=base,
        simulated=simulated_share(node),
        identity=_identity(manifest.model or {}, base),
        metrics=in_words(manifest.metrics),
        lineage="\n".join(as_lines(node, places=False)),
        config=json.dumps(manifest.config, indent=2),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _metadata(folder: Path, manifest: Manifest, base: _Base | None) -> dict[str, Any]:
    """The front matter. The Hub refuses a `base_model` that is no hub name, so a local one is in the text only."""
    adapter, reward = is_adapter(folder), manifest.stage in REWARD_MODELS
    metadata: dict[str, Any] = {}
    # An adapter loads over its own base alone: one over weights that this run trained has none on the hub.
    if base and base.hub and (not adapter or (manifest.model or {}).get("base_hash") == base.weights_hash):
        metadata["base_model"] = base.hub[0]
        if manifest.stage != "base":
            metadata["base_model_relation"] = "adapter" if adapter else "finetune"
    metadata["library_name"] = "peft" if adapter else "transformers"
    metadata["pipeline_tag"] = "text-classification" if reward else "text-generation"
    tags = TAGS["reward" if reward else manifest.config.get("method", manifest.stage)]
    metadata["tags"] = ["plumbline", *tags, *(["lora"] if adapter else [])]
    known = base.metadata if base else {}
    return metadata | {key: known[key] for key in INHERITED if key in known}


def _card_metadata(folder: Path) -> dict[str, Any]:
    """The front matter of a model folder's card; empty where there is none that can be read."""
    try:
        return metadata_load(folder / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _identity(model: dict[str, Any], base: _Base | None) -> dict[str, Any]:
    """The model's identity without places: its base by name, an adapter by what it was trained from."""
    adapter = model.get("adapter")
    rows = {
        "base model": base and base.name,
        "base model's commit": base and base.hub and base.hub[1],
        "base model's weights": base and base.weights_hash,
        "this model's weights": model.get("weights_hash"),
        "tokenizer": model.get("tokenizer_hash"),
        "chat template": model.get("chat_template_hash") or None,
        "pad token id": model.get("pad_token_id"),
        "eos token id": model.get("eos_token_id"),
        "parameters": model.get("parameters"),
        "adapter": adapter and f"{adapter['mode']}, trained from {Path(adapter['parent']).name}",
        "weights that the adapter loads over": adapter and model["base_hash"],
    }
    return {key: value for key, value in rows.items() if value is not None}
