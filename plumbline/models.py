"""Finding and loading models: folders and hub names, tokenizers, chat templates, policies with or without an adapter.

One rule for adapters, from `starting_weights` and `save_trained`: a stage that starts from an adapter trains over the
*merged* weights. Its result is full weights, or a new adapter whose update is joined with the earlier one, so that
every adapter folder stands over one named base and loads with `from_pretrained`.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.errors import UserError
from plumbline.identity import AdapterIdentity, ModelIdentity, adapter_base, check_fits, identify
from plumbline.model_files import (
    ADAPTER_CONFIG,
    code_is_trusted,
    from_folder,
    is_adapter,
    read_json,
    read_tokenizer,
    resolve_model,
    trust_remote_code,
    weight_files,
)

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "AdapterIdentity",
    "ModelIdentity",
    "check_can_score",
    "check_fits",
    "check_tokenizer",
    "context_window",
    "identify",
    "load_policy",
    "load_tokenizer",
    "read_tokenizer",
    "resolve_model",
    "save_tokenizer",
    "starting_weights",
    "training_chat_template",
    "trust_remote_code",
]

log = logging.getLogger(__name__)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a policy, which must have a chat template, an eos and a pad token.

    Raises:
        UserError: one of them is missing; the message names the recipe's key to set.
    """
    return check_tokenizer(read_tokenizer(path), path)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, path: str | Path) -> PreTrainedTokenizerBase:
    """Return a tokenizer that has a chat template, an eos and a pad token.

    Raises:
        UserError: one of them is missing; the message names the recipe's key to set.
    """
    faults = []
    if not tokenizer.chat_template:
        faults.append(
            f"the model {path} has no chat template: set model.chat_template in the recipe to a Jinja file that writes "
            "its conversations."
        )
    if tokenizer.eos_token_id is None:
        faults.append(f"the tokenizer of {path} has no eos token, so no response could ever end: use another model.")
    if tokenizer.pad_token_id is None:
        faults.append(
            f"the tokenizer of {path} has no pad token: set model.pad_token in the recipe to a token of its vocabulary "
            "that no text uses, not the eos token."
        )
    if faults:
        raise UserError("\n".join(faults))
    return tokenizer


def training_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template to train with: one that marks what the assistant says, its end of turn included.

    It is the tokenizer's own where that has generation marks, else the one TRL knows for its family.

    Raises:
        UserError: the template has no marks and TRL knows none for it, or its marks leave out the end of turn.
    """
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    own = tokenizer.chat_template
    template = own["default"] if isinstance(own, dict) else own
    if not has_generation_markers(template):
        try:
            template = get_training_chat_template(tokenizer) or template
        except ValueError as error:
            raise UserError(
                "the chat template does not mark what the assistant says, so the loss cannot be limited to it: put "
                "{% generation %} and {% endgeneration %} around the assistant's content and its end-of-turn token in "
                "a copy of the template, and name that file as model.chat_template in the recipe."
            ) from error
    if not is_chat_template_stop_token_trained(tokenizer, chat_template=template):
        raise UserError(
            "the chat template's generation marks leave out the token that ends the assistant's turn, so the model "
            "would never learn to stop: move {% endgeneration %} behind that token in a copy of the template, and name "
            "that file as model.chat_template in the recipe."
        )
    return str(template)


def context_window(model_or_path: PreTrainedModel | str | Path) -> int | None:
    """Longest sequence of a model in tokens; None where its configuration sets no limit."""
    config = _config(Path(model_or_path)) if isinstance(model_or_path, str | Path) else model_or_path.config
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(window) if window else None


def check_can_score(path: str | Path) -> None:
    """Refuse a base model over which no reward model could be trained, before the stages in front of that.

    Raises:
        UserError: neither transformers nor trusted code that comes with the model has a sequence classifier for it.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = _config(Path(path))
    own = code_is_trusted() and "AutoModelForSequenceClassification" in (getattr(config, "auto_map", None) or {})
    if not own and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"no reward model can be trained over {path}: there is no sequence classifier for its type "
            f"{config.model_type!r}, neither in transformers nor in code that comes with it. Use another model, or add "
            "one with a `score` head to its code, as AutoModelForSequenceClassification of `auto_map` in config.json."
        )


def _config(folder: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    return from_folder(AutoConfig, adapter_base(folder)[1] if is_adapter(folder) else folder)


def load_policy(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    trainable: bool = False,
    load_in_4bit: bool = False,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """Load a causal language model: full weights, or an adapter merged into its base.

    Args:
        path: the model folder.
        dtype: `auto` keeps the type of the weights on a GPU and takes float32 on a CPU and for training.
        trainable: leave the model in training mode on the CPU, for a trainer to place; else it is in evaluation mode
            on the fastest device.
        load_in_4bit: quantise the weights (NF4); the folder must hold full weights.
        attn_implementation: as in `from_pretrained`.

    Raises:
        UserError: the folder holds no causal language model, or 4 bits are asked for where they cannot be had.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    base = adapter_base(folder)[1] if is_adapter(folder) else folder
    weight_files(base)
    options: dict[str, Any] = {"use_safetensors": True}
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    if load_in_4bit:
        options |= quantized_options()
    else:
        options["dtype"] = _dtype(dtype, trainable)
    try:
        model = from_folder(AutoModelForCausalLM, base, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{base} cannot be loaded as a causal language model: {_first_line(error)}") from error
    if base != folder:
        model = _merged(model, folder)
    if trainable:
        return model.train()
    return model.eval() if load_in_4bit else model.eval().to(fastest_device())


def _dtype(dtype: str | torch.dtype, trainable: bool) -> str | torch.dtype:
    import torch

    if isinstance(dtype, str) and dtype != "auto":
        return getattr(torch, dtype)
    return torch.float32 if dtype == "auto" and (trainable or not torch.cuda.is_available()) else dtype


def quantized_options() -> dict[str, Any]:
    """Options of `from_pretrained` for QLoRA: NF4 with double quantisation, computed in bfloat16 (arXiv:2305.14314).

    Raises:
        UserError: there is no GPU or no bitsandbytes.
    """
    import importlib.util

    import torch

    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "load_in_4bit needs a CUDA GPU and bitsandbytes (install the extra `plumbline[quantization]`): drop "
            "load_in_4bit, LoRA alone works without them."
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def _merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel

    kind = read_json(adapter / ADAPTER_CONFIG).get("task_type")
    if kind not in (None, "CAUSAL_LM"):
        raise UserError(f"{adapter} is an adapter for {kind}, not a policy (CAUSAL_LM): name the folder of a policy.")
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged.requires_grad_(True)  # PEFT froze the base


def fastest_device() -> torch.device:
    """The accelerator of this machine, or the CPU."""
    import torch

    return torch.accelerator.current_accelerator() or torch.device("cpu")


def starting_weights(policy: Path, scratch: Path) -> Path:
    """A folder with the full weights of the policy that a stage starts from.

    Full weights are used where they are. An adapter is merged into its base (mode `merged`), once, into `scratch`.
    """
    if not is_adapter(policy):
        return policy
    folder = scratch / "merged"
    if not folder.exists():
        partial = scratch / "merged.partial"
        shutil.rmtree(partial, ignore_errors=True)
        load_policy(policy, trainable=True).save_pretrained(partial)
        save_tokenizer(read_tokenizer(policy), partial)
        partial.rename(folder)
    return folder


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer with its chat template into a model folder."""
    tokenizer.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
