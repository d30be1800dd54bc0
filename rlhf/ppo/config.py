"""The settings of PPO, by the names of TRL's former `PPOConfig`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments
from transformers.generation import ContinuousBatchingConfig
from transformers.integrations import unset_hf_deepspeed_config
from transformers.trainer_utils import IntervalStrategy

from rlhf.ppo.aggregation import AGGREGATIONS
from rlhf.ppo.metrics import EVALUATED, WATCHED


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


CHOICES: dict[str, tuple[str, ...]] = {
    "kl_estimator": ("k1", "k3"),
    "reward_aggregation": AGGREGATIONS,
    "on_overoptimization": ("warn", "stop", "raise_kl"),
    "rollout_engine": ("plumbline", "generate", "continuous_batching", "vllm"),
    "importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
    "vllm_mode": ("colocate", "server"),
    "vllm_model_impl": ("vllm", "transformers"),
}


RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "must be at least 1",
        lambda value: value >= 1,
        (
            "num_ppo_epochs",
            "num_mini_batches",
            "response_length",
            "local_rollout_forward_batch_size",
            "kl_horizon",
            "overoptimization_window",
            "overoptimization_kl_factor",
            "vllm_tensor_parallel_size",
            "early_stopping_patience",
            "micro_batch_tokens",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
        ),
    ),
    (
        "must be above 0",
        lambda value: value > 0,
        (
            "temperature",
            "cliprange",
            "cliprange_value",
            "total_episodes",
            "num_train_epochs",
            "score_clip",
            "kl_target",
            "kl_budget",
            "cliprange_high",
            "overoptimization_z",
            "importance_sampling_clip_max",
            "vllm_gpu_memory_utilization",
            "vllm_max_model_length",
        ),
    ),
    ("must be between 0 and 1", lambda value: 0 <= value <= 1, ("gamma", "lam", "vllm_gpu_memory_utilization")),
    (
        "must not be below 0",
        lambda value: value >= 0,
        (
            "reward_std_coef",
            "num_eval_samples",
            "learning_rate",
            "value_learning_rate",
            "value_warmup_rollouts",
            "kl_coef",
            "vf_coef",
            "missing_eos_penalty",
        ),
    ),
    ("must be above 1; 3 is usual", lambda value: value > 1, ("dual_clip",)),
)
"""What the numbers must be; None, where a setting may be that, always passes, and NaN never does."""


@dataclass
class PPOConfig(TrainingArguments):
    """Settings of `PPOTrainer`: those of `transformers.TrainingArguments`, and these.

    A *rollout* is `batch_size` episodes (prompt and response) over all processes:
    `per_device_train_batch_size × gradient_accumulation_steps × processes`. Each rollout is learned from in
    `num_ppo_epochs × num_mini_batches` optimizer steps. `max_steps`, `logging_steps`, `save_steps` and `eval_steps`
    count optimizer steps; what they ask for is done at the end of the rollout it falls in. An epoch is a pass over the
    prompts.

    Raises:
        ValueError: a setting is out of its range; the message names it.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *TrainingArguments._VALID_DICT_FIELDS,
        "transformers_continuous_batching_config",
    ]

    learning_rate: float = _setting(3e-6, "Learning rate of policy and critic.")
    value_learning_rate: float | None = _setting(None, "Learning rate of the critic; default: learning_rate.")
    logging_steps: float = _setting(1, "Log every so many optimizer steps, at the end of a rollout.")
    bf16: bool | None = _setting(None, "bfloat16 autocast; default: on a GPU that has it.")
    reuse_memory: bool = _setting(
        True, "On a CPU with glibc, let the process keep freed memory for the next tensors: faster, for all it does."
    )
    restore_callback_states_from_checkpoint: bool = _setting(
        True, "A resumed run goes on with its callbacks' states, such as the patience of early stopping."
    )
    metric_for_best_model: str | None = _setting(
        None, "What the best checkpoint and early stopping go by; default: eval_objective/rlhf_reward."
    )
    dataset_num_proc: int | None = _setting(None, "Processes that tokenise the prompts.")

    total_episodes: int | None = _setting(None, "Episodes to train on; default: num_train_epochs × prompts.")
    num_ppo_epochs: int = _setting(4, "Passes over each rollout.")
    num_mini_batches: int = _setting(1, "Optimizer steps in each pass over a rollout.")
    micro_batch_tokens: int | None = _setting(
        None, "Most tokens (padding included) in one forward and backward; default: per_device_train_batch_size rows."
    )
    local_rollout_forward_batch_size: int = _setting(64, "Responses that one process generates at once.")

    response_length: int = _setting(53, "Longest response, in tokens.")
    stop_token: str | None = _setting("eos", "'eos': a response ends at an eos token; None: it never ends early.")
    stop_token_id: int | None = _setting(None, "End a response at this token instead.")
    temperature: float = _setting(0.7, "Sampling temperature; also divides the logits in the update and the reference.")
    missing_eos_penalty: float | None = _setting(
        None, "Taken off the score of a response that did not end by itself, after any normalisation."
    )
    bootstrap_truncated: bool = _setting(
        False, "Value a response cut at response_length by the critic, as if it went on; default: it is over (0)."
    )

    rollout_engine: str = _setting(
        "plumbline", "What samples the responses: 'plumbline', 'generate', 'continuous_batching' or 'vllm'."
    )
    transformers_continuous_batching_config: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of transformers' ContinuousBatchingConfig."}
    )
    importance_sampling_correction: bool | None = _setting(
        None, "Weigh the policy loss by p_trainer / p_engine; default: with every rollout_engine but plumbline."
    )
    importance_sampling_mode: str = _setting(
        "token_truncate",
        "Ratio of each 'token' or 'sequence'; above the maximum: '…_truncate' (the maximum) or '…_mask' (0).",
    )
    importance_sampling_clip_max: float | None = _setting(3.0, "The maximum of that ratio; None: no maximum.")
    vllm_mode: str = _setting("colocate", "vLLM in the trainer's own processes ('colocate') or in a 'server'.")
    vllm_model_impl: str = _setting("vllm", "Colocated: vLLM's implementation of the model, or that of 'transformers'.")
    vllm_enable_sleep_mode: bool = _setting(False, "Colocated: free vLLM's memory during the update.")
    vllm_gpu_memory_utilization: float = _setting(0.3, "Colocated: share of the GPU's memory for vLLM.")
    vllm_max_model_length: int | None = _setting(None, "Colocated: longest sequence; default: the model's window.")
    vllm_tensor_parallel_size: int = _setting(1, "Colocated: processes that share one copy of the model.")
    vllm_server_base_url: str | None = _setting(None, "Served: its URL; default: from host and port.")
    vllm_server_host: str = _setting("0.0.0.0", "Served: its host.")
    vllm_server_port: int = _setting(8000, "Served: its port.")
    vllm_server_timeout: float = _setting(240.0, "Served: seconds to wait until it is up.")
    vllm_group_port: int = _setting(51216, "Served: port over which the weights are sent.")

    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward; default: 1 each."}
    )
    reward_aggregation: str = _setting(
        "sum", "Several rewards give their 'sum', 'mean', 'min', or 'mean_minus_std': the mean less their deviation."
    )
    reward_std_coef: float = _setting(1.0, "Standard deviations that 'mean_minus_std' takes off the mean.")
    normalize_scores: bool = _setting(False, "Shift and scale scores by their running mean and standard deviation.")
    score_clip: float | None = _setting(None, "Clip (normalised) scores to ± this.")
    whiten_rewards: bool = _setting(False, "Scale the tokens' rewards to variance 1 over the rollout, mean kept.")
    kl_coef: float = _setting(0.05, "Coefficient of the KL penalty in the reward.")
    kl_estimator: str = _setting("k1", "Estimator of the KL at a token: 'k1' (unbiased) or 'k3' (never negative).")
    kl_target: float | None = _setting(None, "Adapt kl_coef so that a response's mean KL is this; default: fixed.")
    kl_horizon: int = _setting(10_000, "Episodes over which kl_coef adapts.")

    kl_budget: float | None = _setting(
        None, "End the run when the mean KL of a response, in nats, over the last three rollouts is above this."
    )
    num_eval_samples: int = _setting(10, "Responses that each evaluation writes below output_dir/samples.")
    early_stopping_patience: int | None = _setting(
        None, "End the run after so many evaluations without a better metric_for_best_model."
    )

    on_overoptimization: str = _setting(
        "warn", "When the reward rises and the watched one falls: 'warn', also 'stop', or also 'raise_kl'."
    )
    overoptimization_window: int = _setting(5, "Rollouts whose mean scores are compared.")
    overoptimization_z: float = _setting(5.0, "Standard errors that the rise and the fall must both exceed.")
    overoptimization_kl_factor: float = _setting(2.0, "What 'raise_kl' multiplies kl_coef by, each time.")

    cliprange: float = _setting(0.2, "The ratio of new to old probability counts up to 1 ± this.")
    cliprange_high: float | None = _setting(None, "It counts up to 1 + this instead (clip-higher).")
    dual_clip: float | None = _setting(
        None, "Where the advantage is negative, the ratio counts up to this, such as 3 (dual clip)."
    )
    cliprange_value: float = _setting(0.2, "A new value counts up to the old one ± this.")
    vf_coef: float = _setting(0.1, "Weight of the value loss.")
    gamma: float = _setting(1.0, "Discount.")
    lam: float = _setting(0.95, "Decay of the trace in generalised advantage estimation.")
    value_warmup_rollouts: int = _setting(0, "Rollouts at the start from which only the critic learns.")

    share_base: bool = _setting(
        True, "With LoRA, keep policy, reference, critic and, where it fits, reward on one base in memory."
    )
    base_in_bf16: bool = _setting(
        True, "With LoRA and bf16, store the frozen linear weights in bfloat16, as autocast reads them."
    )
    model_adapter_name: str | None = _setting(None, "Name of the adapter to train, where the model has several.")
    ref_adapter_name: str | None = _setting(None, "Name of the adapter that is the reference.")
    sft_model_path: str = _setting("EleutherAI/pythia-160m", "For scripts; the trainer does not read it.")
    reward_model_path: str = _setting("EleutherAI/pythia-160m", "For scripts; the trainer does not read it.")
    num_sample_generations: int = _setting(0, "Accepted for old scripts, no effect: use eval_strategy.")
    ds3_gather_for_generation: bool = _setting(True, "With ZeRO-3: gather the policy once a rollout; it must be True.")

    micro_batch_size: int | None = _setting(None, "Set by the trainer: rows of one forward, over all processes.")
    local_batch_size: int | None = _setting(None, "Set by the trainer: episodes of a rollout on one process.")
    batch_size: int | None = _setting(None, "Set by the trainer: episodes of a rollout.")
    local_mini_batch_size: int | None = _setting(None, "Set by the trainer: episodes of a step on one process.")
    mini_batch_size: int | None = _setting(None, "Set by the trainer: episodes of an optimizer step.")
    num_total_batches: int | None = _setting(None, "Set by the trainer: rollouts.")

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = not self.fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        if self.metric_for_best_model is None and (self.load_best_model_at_end or self.early_stopping_patience):
            self.metric_for_best_model = "eval_objective/rlhf_reward"  # transformers' own default is a loss
        super().__post_init__()
        if self.deepspeed_plugin is not None:
            # Reference, critic and reward are made from whole weights: ZeRO-3 must not split models as they are loaded.
            unset_hf_deepspeed_config()
        self._check_numbers()
        self._check_choices()
        self._check_together()
        self._check_engine()

    def _check_numbers(self) -> None:
        for must, holds, names in RANGES:
            for name in names:
                value = getattr(self, name)
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, Real):
                    raise ValueError(f"{name} is {value!r}: it must be a number, without quotes.")
                if not holds(float(value)):
                    raise ValueError(f"{name} is {value}: it {must}.")

    def _check_choices(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                choices = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be {choices}.")
        if self.stop_token not in ("eos", None):
            raise ValueError(f"stop_token is {self.stop_token!r}: it must be 'eos' or None; or give stop_token_id.")

    def _check_together(self) -> None:
        """Refuse settings that do not go together."""
        episodes = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if episodes % self.num_mini_batches:
            raise ValueError(
                f"num_mini_batches is {self.num_mini_batches}, which does not divide the {episodes} episodes that a "
                "process makes in a rollout (per_device_train_batch_size × gradient_accumulation_steps): change one."
            )
        if self.on_overoptimization == "raise_kl" and self.kl_target is not None:
            raise ValueError("on_overoptimization is 'raise_kl', which kl_target would undo: leave kl_target out.")
        if self.kl_budget is not None and self.kl_target is not None and self.kl_budget <= self.kl_target:
            raise ValueError(
                f"kl_budget is {self.kl_budget}, not above kl_target {self.kl_target}: the run would end before its "
                "target; raise kl_budget or leave one of them out."
            )
        if self.early_stopping_patience is not None and self.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                f"early_stopping_patience is {self.early_stopping_patience}, but nothing is evaluated: set "
                "eval_strategy, such as to 'steps', and give held-out prompts."
            )
        goes_by_it = self.load_best_model_at_end or self.early_stopping_patience
        if goes_by_it and not str(self.metric_for_best_model).endswith((*EVALUATED, WATCHED)):
            raise ValueError(
                f"metric_for_best_model is {self.metric_for_best_model!r}, which no evaluation of PPO gives: take "
                f"{', '.join(f'eval_{metric}' for metric in EVALUATED)} or eval_{WATCHED}."
            )

    def _check_engine(self) -> None:
        """Refuse settings of an engine that was not chosen: they would have no effect."""
        owners = {"vllm_": "vllm", "transformers_continuous_batching_": "continuous_batching"}
        for setting in fields(self):
            owner = next((owner for prefix, owner in owners.items() if setting.name.startswith(prefix)), None)
            value = getattr(self, setting.name)
            if owner not in (None, self.rollout_engine) and value != setting.default:
                raise ValueError(
                    f"{setting.name} is {value!r}, but rollout_engine is {self.rollout_engine!r}: set rollout_engine "
                    f"to {owner!r}, or leave {setting.name} out."
                )
        options = self.transformers_continuous_batching_config or {}
        if isinstance(options, str):
            raise ValueError(f"transformers_continuous_batching_config is {options!r}: it must be a JSON object.")
        known = {setting.name for setting in fields(ContinuousBatchingConfig)}
        if unknown := sorted({*options} - known):
            raise ValueError(
                f"transformers_continuous_batching_config has {', '.join(map(repr, unknown))}, which transformers' "
                f"ContinuousBatchingConfig has not: it has {', '.join(sorted(known))}."
            )
        if self.rollout_engine == "vllm" and importlib.util.find_spec("vllm") is None:
            raise ValueError("rollout_engine is 'vllm', which is not installed: pip install 'plumbline[vllm]'.")

    @property
    def corrects_sampling(self) -> bool:
        """Whether the policy loss is weighed by the ratio of the trainer's and the engine's probabilities."""
        if self.importance_sampling_correction is None:
            return self.rollout_engine != "plumbline"
        return self.importance_sampling_correction
