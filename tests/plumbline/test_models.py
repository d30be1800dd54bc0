"""Finding models, what identifies them, what does not fit, and adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trl import chat_template_utils

from plumbline.adapters import check_joinable, finish_adapter, last_adapter
from plumbline.errors import MismatchError, UserError
from plumbline.identity import adapter_base
from plumbline.models import (
    ModelIdentity,
    check_fits,
    context_window,
    identify,
    load_policy,
    load_tokenizer,
    resolve_model,
    starting_weights,
    training_chat_template,
)
from tests.tiny import EOS, TEMPLATE, TEMPLATE_WITHOUT_MARKS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def new_adapter(base: Path, folder: Path, *, seed: int, **config: object) -> Path:
    """A LoRA adapter over `base` with a random update, as a stage writes it."""
    torch.manual_seed(seed)
    options = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM", **config}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    finish_adapter(folder, base)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(24)[None]).logits


def test_resolve_model_finds_folders_and_says_what_is_missing(base: Path, tmp_path: Path) -> None:
    assert resolve_model(base) == base and resolve_model(str(base)) == base
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither config\.json nor adapter_config\.json"):
        resolve_model(tmp_path / "empty")
    for missing in (tmp_path / "no", "./no", "~/no/model", "a/b/c"):
        with pytest.raises(UserError, match="there is no model folder"):
            resolve_model(missing)


def test_resolve_model_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match="some-org/some-model is not on this machine and the hub cannot be reached"):
        resolve_model("some-org/some-model")


def test_pickled_weights_are_refused(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for act in (identify, load_policy):
        with pytest.raises(UserError, match="no weights in safetensors"):
            act(folder)


def test_identity_tells_weights_tokenizer_and_template_apart(base: Path, tmp_path: Path) -> None:
    found = identify(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (found.pad_token_id, found.eos_token_id) == (0, 2)
    assert found.adapter is None and found.base_hash == found.weights_hash
    assert ModelIdentity.from_json(json.loads(json.dumps(found.to_json()))) == found

    def same(other: Path) -> tuple[bool, bool, bool]:
        identity = identify(other)
        return (
            identity.weights_hash == found.weights_hash,
            identity.tokenizer_hash == found.tokenizer_hash,
            identity.chat_template_hash == found.chat_template_hash,
        )

    assert same(tiny_model(tmp_path / "same")) == (True, True, True)
    assert same(tiny_model(tmp_path / "weights", seed=1)) == (False, True, True)
    assert same(tiny_model(tmp_path / "template", chat_template=TEMPLATE + " ")) == (True, True, False)
    assert same(tiny_model(tmp_path / "tokenizer", pad_is_eos=True))[1] is False
    used = shutil.copytree(base, tmp_path / "used")
    tokenizer = load_tokenizer(used)
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)  # sets state in the backend
    tokenizer.save_pretrained(used)
    assert same(used) == (True, True, True)


def test_identity_follows_a_change_of_the_file(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    before = identify(folder).weights_hash
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert identify(folder).weights_hash != before


def test_check_fits_names_both_things(base: Path, tmp_path: Path) -> None:
    names = {"expected_name": "the SFT model", "found_name": "the reward model"}
    check_fits(identify(base), identify(tiny_model(tmp_path / "weights", seed=1)), **names)
    with pytest.raises(MismatchError, match=r"tokenizer of the reward model .* tokenizer of the SFT model"):
        check_fits(identify(base), identify(tiny_model(tmp_path / "tokenizer", pad_is_eos=True)), **names)
    with pytest.raises(MismatchError, match=r"chat template of the reward model .* chat template of the SFT model"):
        check_fits(identify(base), identify(tiny_model(tmp_path / "template", chat_template=TEMPLATE + " ")), **names)
    other = tiny_model(tmp_path / "other", seed=5)
    adapter = identify(new_adapter(other, tmp_path / "adapter", seed=1))
    check_fits(identify(other), adapter, **names)
    with pytest.raises(
        MismatchError, match=r"the reward model is an adapter over .*other.* the SFT model has the base"
    ):
        check_fits(identify(base), adapter, **names)


def test_adapter_over_changed_base_is_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    adapter = new_adapter(base, tmp_path / "adapter", seed=1)
    load_policy(adapter)
    tiny_model(base, seed=9)
    with pytest.raises(MismatchError, match=r"was trained over .* but the weights there are now"):
        load_policy(adapter)


@pytest.mark.parametrize("base", ["project/runs/x/sft", "project/models/base"])
@pytest.mark.parametrize(("old", "new"), [("project/runs/x", "project/runs/y"), ("project", "copy")])
def test_an_adapter_finds_a_base_that_moved_with_it(tmp_path: Path, base: str, old: str, new: str) -> None:
    adapter = "project/runs/x/dpo"
    new_adapter(tiny_model(tmp_path / base), tmp_path / adapter, seed=1)
    expected = logits(load_policy(tmp_path / adapter))
    (tmp_path / old).rename(tmp_path / new)
    base, adapter = (path.replace(old, new) for path in (base, adapter))
    assert identify(tmp_path / adapter).base == str(tmp_path / base)
    torch.testing.assert_close(logits(load_policy(tmp_path / adapter)), expected)
    second = new_adapter(starting_weights(tmp_path / adapter, tmp_path), tmp_path / "second", seed=2)
    finish_adapter(second, tmp_path / adapter)
    named = json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(tmp_path / base), "what is made from it names the place of now"


def test_another_model_at_the_old_place_is_not_taken_for_the_base(tmp_path: Path) -> None:
    new_adapter(tiny_model(tmp_path / "runs" / "x" / "sft"), tmp_path / "runs" / "x" / "dpo", seed=1)
    expected = logits(load_policy(tmp_path / "runs" / "x" / "dpo"))
    (tmp_path / "runs" / "x").rename(tmp_path / "runs" / "y")
    tiny_model(tmp_path / "runs" / "x" / "sft", seed=9)
    torch.testing.assert_close(logits(load_policy(tmp_path / "runs" / "y" / "dpo")), expected)
    (tmp_path / "runs" / "y" / "sft").rename(tmp_path / "elsewhere")
    with pytest.raises(MismatchError, match=r"was trained over .* but the weights there are now"):
        load_policy(tmp_path / "runs" / "y" / "dpo")


def test_load_policy_merges_an_adapter(base: Path, tmp_path: Path) -> None:
    adapter = new_adapter(base, tmp_path / "adapter", seed=1)
    weights = load_file(adapter / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    update = 4 / 2 * weights[key.format("B")] @ weights[key.format("A")]
    merged, plain = load_policy(adapter), load_policy(base)
    found = merged.model.layers[0].self_attn.q_proj.weight - plain.model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(found, update, atol=1e-6, rtol=0)
    assert not merged.training and load_policy(adapter, trainable=True).training
    again = load_policy(starting_weights(adapter, tmp_path))
    torch.testing.assert_close(logits(again), logits(merged), atol=1e-5, rtol=0)
    assert starting_weights(base, tmp_path) == base
    assert context_window(adapter) == context_window(plain) == 256


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"], "r": 5}])
def test_joined_adapters_add_up(base: Path, tmp_path: Path, options: dict[str, object]) -> None:
    """The second one was trained over merged weights; joined with the first it stands over the base."""
    first = new_adapter(base, tmp_path / "first", seed=1, **options)
    merged = starting_weights(first, tmp_path)
    second = new_adapter(merged, tmp_path / "second", seed=2, lora_alpha=3)
    expected = logits(load_policy(second))
    finish_adapter(second, first)
    identity = identify(second)
    assert identity.adapter is not None and identity.adapter.mode == "joined"
    assert identity.base_hash == identify(base).weights_hash
    torch.testing.assert_close(logits(load_policy(second)), expected, atol=1e-5, rtol=0)


def test_what_was_trained_last_of_a_joined_adapter_stands_over_the_merged_weights(base: Path, tmp_path: Path) -> None:
    first = new_adapter(base, tmp_path / "first", seed=1)
    merged = starting_weights(first, tmp_path)
    second = new_adapter(merged, tmp_path / "second", seed=2, r=3, target_modules=["q_proj", "down_proj"])
    expected = load_file(second / "adapter_model.safetensors")
    finish_adapter(second, first)
    last = last_adapter(second, first, merged, tmp_path / "last")
    assert last == tmp_path / "last" and adapter_base(last) == (str(merged), merged)
    found = load_file(last / "adapter_model.safetensors")
    for key, tensor in found.items():  # the scale, 4 / 3, is folded into the up-projections
        scale = 4 / 3 if "lora_B" in key else 1.0
        trained = scale * expected[key] if key in expected else torch.zeros_like(tensor)
        torch.testing.assert_close(tensor, trained)
    assert expected.keys() <= found.keys()
    other = new_adapter(base, tmp_path / "other", seed=3)
    assert last_adapter(second, other, merged, tmp_path / "no") == second, "it was trained from another policy"
    assert last_adapter(first, first, merged, tmp_path / "no") == first, "it was not joined"
    assert last_adapter(base, base, base, tmp_path / "no") == base


def test_adapters_that_cannot_be_joined_are_refused_before_training(base: Path, tmp_path: Path) -> None:
    check_joinable(base)
    check_joinable(new_adapter(base, tmp_path / "plain", seed=1))
    with pytest.raises(UserError, match="adapter with use_dora, which cannot be joined"):
        check_joinable(new_adapter(base, tmp_path / "dora", seed=1, use_dora=True))


def test_adapter_of_a_hub_model_names_the_hub_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--some-org--some-model" / "snapshots" / "0123abc"
    base = tiny_model(snapshot)
    adapter = new_adapter(base, tmp_path / "adapter", seed=1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some-org/some-model", "0123abc")


def test_load_tokenizer_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no chat template: set model\.chat_template"):
        load_tokenizer(tiny_model(tmp_path / "template", chat_template=None))
    folder = tiny_model(tmp_path / "pad")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"no pad token: set model\.pad_token"):
        load_tokenizer(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no tokenizer that can be loaded"):
        load_tokenizer(tmp_path / "nothing")


def test_training_template_is_the_own_one_or_that_of_the_family() -> None:
    assert training_chat_template(tiny_tokenizer()) == TEMPLATE
    known = chat_template_utils.qwen2_5_chat_template  # has no generation marks
    patched = training_chat_template(tiny_tokenizer(chat_template=known))
    assert "generation" in patched and "generation %}" not in known
    with pytest.raises(UserError, match="does not mark what the assistant says"):
        training_chat_template(tiny_tokenizer(chat_template=TEMPLATE_WITHOUT_MARKS))
    unstopped = TEMPLATE.replace(f"+ '{EOS}' }}}}{{% endgeneration %}}", f"}}}}{{% endgeneration %}}{{{{- '{EOS}' }}}}")
    assert unstopped != TEMPLATE
    with pytest.raises(UserError, match="leave out the token that ends"):
        training_chat_template(tiny_tokenizer(chat_template=unstopped))


def test_4_bits_without_a_gpu_are_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="load_in_4bit needs a CUDA GPU and bitsandbytes"):
        load_policy(base, load_in_4bit=True)
