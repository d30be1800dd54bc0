"""The model card of a stage's model: what it is, what it learned from, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Template

from plumbline.lineage import as_lines, lineage_of_manifest, simulated_share
from plumbline.runs import Manifest, Run

WHAT = {
    "base": "the base model with the recipe's chat template or pad token",
    "adapt": "a language model, further pretrained on the domain's text",
    "sft": "a language model, fine-tuned on the domain's demonstrations",
    "reward": "a reward model: one number for a conversation that ends with a response, higher is better",
    "judge": "a reward model that only judges comparisons; no policy was optimised against it",
}

CARD = Template(
    """---
library_name: {{ library }}
tags: [plumbline, {{ manifest.stage }}]
---

# {{ manifest.run }} / {{ manifest.stage }}

This is {{ what }}.
{% if simulated %}
> **Simulated judgements.** {{ "%.0f%%" % (100 * simulated) }} of the preferences behind this model were given by
> simulated annotators, not by people.
{% endif %}
## Identity

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


def write_card(folder: Path, manifest: Manifest, run: Run) -> None:
    """Write `README.md` into a model folder from its manifest and the lineage behind it."""
    node = lineage_of_manifest(manifest, run)
    identity = {key: value for key, value in (manifest.model or {}).items() if value is not None}
    text = CARD.render(
        manifest=manifest,
        what=WHAT.get(manifest.stage, f"a policy aligned by {manifest.config.get('method', '').upper()}"),
        library="peft" if (folder / "adapter_config.json").is_file() else "transformers",
        simulated=simulated_share(node),
        identity=identity,
        metrics={
            name: f"{value:.4g}" if isinstance(value, float) else value for name, value in manifest.metrics.items()
        },
        lineage="\n".join(as_lines(node)),
        config=json.dumps(manifest.config, indent=2),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
