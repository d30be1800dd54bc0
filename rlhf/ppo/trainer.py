"""`PPOTrainer`: PPO with a learned reward and a critic, on the loop of `transformers.Trainer`.

The loop sees one optimizer step after the other; the data it iterates over are the numbers of these steps. The first
step of a rollout makes the rollout (generate, score, ask policy, reference and critic about every token, estimate
advantages); each step then learns from one mini-batch of it. So checkpoints, resuming, clipping, callbacks, logging
and DDP are the loop's own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl

from plumbline.allocator import reuse_freed_memory
from plumbline.errors import UserError
from rlhf.ppo import checkpoints, samples, setup, sharded
from rlhf.ppo.base_in_bf16 import store_base_in_bf16
from rlhf.ppo.boundaries import RolloutBoundaries
from rlhf.ppo.card import write_card
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.core import KLController, RunningMoments, policy_loss, value_loss
from rlhf.ppo.data import SAMPLING, PromptSet, sampling_noise, split_into, split_rows
from rlhf.ppo.engines import make_engine
from rlhf.ppo.experience import Experience
from rlhf.ppo.fingerprint import fingerprint
from rlhf.ppo.metrics import WATCHED, MetricMeans, UpdateSums, evaluation_metrics, means_of_each, rollout_metrics
from rlhf.ppo.mismatch import measure_and_correct
from rlhf.ppo.models import base_of
from rlhf.ppo.rollout import MicroBatch, Rollout, state_values
from rlhf.ppo.stops import RunStop, early_stopping
from rlhf.ppo.watch import make_watch, sums_of


class PPOTrainer(Trainer):
    """Trains a policy with Proximal Policy Optimization (arXiv:1707.06347) against a reward.

    Args:
        args: the settings.
        processing_class: the policy's tokenizer.
        model: the policy, or its folder. A PEFT model goes on training its adapter.
        ref_model: the reference of the KL penalty; None takes the policy as it starts (a frozen copy; with an adapter,
            the same weights with the adapter as it starts).
        reward_model: a reward model, its folder, an object with `.score(conversations)`, a function as in TRL's
            GRPOTrainer, or a list of these (weighted by `args.reward_weights`).
        train_dataset: with `prompt` (text, or a conversation ending with the user) or `input_ids`.
        value_model: a sequence classifier with one label; None starts it from the reward model where that reads the
            policy's tokens, else from the policy. With an adapter and `args.share_base`, None makes it an adapter and
            a head on the policy's base, which start from a reward model that is such an adapter, too.
        data_collator: taken for old scripts; prompts need no collating.
        eval_dataset: held-out prompts, or several by name.
        optimizers, callbacks: as in `transformers.Trainer`.
        peft_config: puts a new adapter on policy and critic; the reference is then the policy without it.
        reward_processing_classes: tokenizer of a reward model that does not read the policy's tokens (or one for each).
        watch_reward_model: what `reward_model` may be (of a list, the mean); scores the same responses and is never
            optimised. `args.on_overoptimization` says what happens when it falls while the reward rises.
        watch_processing_classes: as `reward_processing_classes`.

    Raises:
        UserError: models, data or settings do not fit; before any training.
    """

    def __init__(
        self,
        args: PPOConfig,
        processing_class: PreTrainedTokenizerBase,
        model: setup.ModelSource,
        ref_model: PreTrainedModel | str | Path | None,
        reward_model: Any,
        train_dataset: Dataset,
        value_model: setup.ModelSource | None = None,
        data_collator: Any = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LRScheduler | None] = (None, None),
        callbacks: list[TrainerCallback] | None = None,
        peft_config: PeftConfig | None = None,
        reward_processing_classes: Any = None,
        watch_reward_model: Any = None,
        watch_processing_classes: Any = None,
    ) -> None:
        sharded.check_sharding(args)
        setup.make_output_folder(args)
        args = setup.with_batch_sizes(args)
        self.processing_class = processing_class
        policy = setup.load_for_training(model, peft_config)
        shared_by = policy if setup.shares_base(args, policy, peft_config) else None
        self.reward = setup.make_rewards(args, reward_model, reward_processing_classes, shared_by)
        self.watch = make_watch(args, watch_reward_model, watch_processing_classes, reward_model, shared_by)
        rewards = [self.reward] if self.watch is None else [self.reward, self.watch.reward]
        actor_critic = setup.make_actor_critic(
            args, policy, value_model, self.reward, peft_config, shares_base=shared_by is not None
        )
        setup.check_vocabulary(actor_critic, [one for reward in rewards for one in reward.rewards])
        self.reference = setup.make_reference(args, actor_critic, ref_model, model, new_adapter=peft_config is not None)
        self.sampling = setup.make_sampling(args, processing_class, base_of(actor_critic.policy.model))
        self._prompt_options: dict[str, Any] = {
            "window": setup.window_of(actor_critic),
            "vocabulary": setup.vocabulary_of(actor_critic.policy.model),
            "response_length": args.response_length,
            "num_proc": args.dataset_num_proc,
        }
        self.prompts = self.prompt_set(train_dataset, "train_dataset")
        self.schedule = setup.make_schedule(args, len(self.prompts))
        self.kl = KLController(args.kl_coef, args.kl_target, args.kl_horizon)
        self.stop = RunStop(args)
        self.score_moments = RunningMoments()
        self._means, self._updates = MetricMeans(), UpdateSums(args.device)
        self._rollout: Rollout | None = None
        self.experience = Experience(self)
        self._writes_checkpoint = False
        super().__init__(
            model=actor_critic,
            args=args,
            train_dataset=self.prompts.dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            optimizers=optimizers,
            callbacks=callbacks,
        )
        setup.compile_any_shape(self.accelerator)
        self.is_fsdp_enabled = sharded.prepare_fsdp(self.accelerator, args)
        self.engine = make_engine(args, actor_critic.policy.model, self.sampling, processing_class, self.accelerator)
        self._eval_prompts = {
            name: self.prompt_set(dataset, "eval_dataset") for name, dataset in _by_name(eval_dataset).items()
        }
        early = early_stopping(args, self._eval_prompts, watched=self.watch is not None)
        for callback in (RolloutBoundaries(self.schedule), self.stop, *early):
            self.add_callback(callback)
        for part in (self.reference.separate, *(module for reward in rewards for module in reward.modules)):
            if part is not None:
                part.to(args.device)
        self._state = checkpoints.PPOState(
            schedule=self.schedule.identity(),
            run=fingerprint(args, self.prompts, self.sampling, actor_critic, self.reference, self.reward.rewards),
            kl=self.kl,
            moments=self.score_moments,
            watch=self.watch,
            stop=self.stop,
        )
        sharded.shard_frozen(self.accelerator, self.reference.separate)
        scorers = [module for reward in rewards for module in reward.modules]
        store_base_in_bf16(args, (actor_critic.policy.model, actor_critic.critic.model), scorers)

    def prompt_set(self, dataset: Dataset, name: str) -> PromptSet:
        """A dataset's prompts as token ids; messages call it `name`. Raises UserError for what cannot be answered."""
        return PromptSet(dataset, self.processing_class, name=name, **self._prompt_options)

    # What the loop asks for

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint` (a folder, or True for the last one) goes on exactly where a run was killed.

        Raises:
            UserError: the checkpoint is not one of this run.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = checkpoints.last_checkpoint(self.args.output_dir)
        checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
        if self.args.reuse_memory and self.args.device.type == "cpu":
            reuse_freed_memory()
        self.args.max_steps = self.schedule.steps
        self.stop.begin()
        if checkpoint is not None:  # with split weights the loop loads later than it counts its steps
            self._load_state(Path(checkpoint))
            checkpoints.check_resumable(Path(checkpoint))
        self._train_started, self._episodes_made = time.perf_counter(), 0
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """The numbers of the optimizer steps; every process sees all of them."""
        return DataLoader(range(self.args.max_steps), batch_size=1, collate_fn=lambda steps: {"step": steps[0]})

    def get_total_train_batch_size(self, args: PPOConfig) -> int:
        """Episodes that the loop counts for each optimizer step, so that its samples per second are episodes."""
        return max(1, self.schedule.batch_size // self.schedule.steps_per_rollout)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer over policy and critic; the critic's groups have `value_learning_rate` where it is set."""
        made_now = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made_now and self.args.value_learning_rate is not None:
            critic = {id(parameter) for parameter in (model or self.model).critic.parameters()}
            groups = []
            for group in optimizer.param_groups:
                parts: tuple[list[Any], list[Any]] = ([], [])
                for parameter in group["params"]:
                    parts[id(parameter) in critic].append(parameter)
                groups += [
                    {**group, "params": parts[0]},
                    {**group, "params": parts[1], "lr": self.args.value_learning_rate},
                ]
            optimizer.param_groups[:] = [group for group in groups if group["params"]]
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, int], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One optimizer step's gradients: a mini-batch of the rollout, in micro-batches.

        Returns:
            The mini-batch's loss on this process, scaled so that its mean over processes is the loss of all.
        """
        number, epoch, mini_batch = self.schedule.locate(inputs["step"])
        if epoch == mini_batch == 0:
            self._rollout = self._make_rollout(number)
        self.engine.weights_changed()  # by this step; a callback may sample between the steps of a rollout, too
        rollout = self._rollout
        assert rollout is not None, "the loop began inside a rollout"
        started = time.perf_counter()
        model.train()
        batches = self._micro_batches(rollout, epoch)[mini_batch]
        tokens = self._sum(sum(batch.response_mask.sum() for batch in batches))
        total = torch.zeros((), device=self.args.device)
        for position, batch in enumerate(batches, 1):
            last = position == len(batches)
            self.accelerator.gradient_state._set_sync_gradients(last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = torch.zeros_like(total)
                for part in self._losses(model, rollout, batch):
                    self.accelerator.backward(part * self.args.world_size / tokens)
                    loss += part.detach()
            total += loss * self.args.world_size / tokens
        self._means.add({"step_runtime": time.perf_counter() - started})
        if (epoch, mini_batch) == (self.schedule.num_ppo_epochs - 1, self.schedule.num_mini_batches - 1):
            self._means.add(self._updates.metrics(self._sum))
            self._updates, self._rollout = UpdateSums(self.args.device), None
        return total

    def _losses(self, model: nn.Module, rollout: Rollout, batch: MicroBatch) -> Iterator[Tensor]:
        """Policy loss, then vf_coef × value loss of a micro-batch, each a sum over its response tokens.

        Whoever takes one goes backward through it before taking the next: only then does the critic run, in the memory
        of the policy's activations. Where both must be learned from in one pass, the sum of both is the only one.
        """
        apart = setup.learn_apart(self.args)
        old_logprobs, old_values, advantages, returns = (
            rollout.packed(tensor, batch)
            for tensor in (rollout.logprobs, rollout.values, rollout.advantages, rollout.returns)
        )
        with self.accelerator.autocast():
            output = model(batch.input_ids, batch.response_mask, with_values=not apart)
        clipping = (self.args.cliprange, self.args.cliprange_high, self.args.dual_clip)
        weights = None if rollout.importance_weights is None else rollout.packed(rollout.importance_weights, batch)
        policy = policy_loss(output.logprobs, old_logprobs, advantages, *clipping, weights)
        # During the critic's warm-up the policy keeps a gradient of zero: every process still reduces all parameters.
        policy_part = (0.0 if rollout.number < self.args.value_warmup_rollouts else 1.0) * policy.loss.sum()
        log_ratio = (output.logprobs - old_logprobs).detach()
        if apart:
            yield policy_part
            with self.accelerator.autocast():
                output = model(batch.input_ids, batch.response_mask, with_logprobs=False)
        values, _ = state_values(output.values, batch)
        value = value_loss(values, old_values, returns, self.args.cliprange_value)
        self._updates.add(policy, value, log_ratio)
        value_part = self.args.vf_coef * value.loss.sum()
        yield value_part if apart else policy_part + value_part

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the rollouts since the last entry showed to a training entry."""
        if "loss" in logs:
            seconds = time.perf_counter() - self._train_started
            logs |= self._means.take()
            logs["episode"] = self.state.global_step // self.schedule.steps_per_rollout * self.schedule.batch_size
            logs["episodes_per_second"] = self._episodes_made / seconds
        super().log(logs, start_time)

    # Rollouts

    def _make_rollout(self, number: int) -> Rollout:
        numbers = self.schedule.episodes(number)
        rows = [self.prompts[index] for index in self.schedule.prompt_of(numbers)]
        noise = sampling_noise(self.args.seed, numbers, self.args.response_length, stream=SAMPLING)
        sampled = self.experience.sample(number, rows, noise)
        rollout, raw_scores = sampled.rollout, sampled.scores
        assert rollout is not None, "a rollout has episodes on every process"
        with self.experience.timed("forward_runtime"):
            self.experience.ask(rollout, [batch for part in self._micro_batches(rollout, 0) for batch in part])
        scores = rollout.estimate_advantages(
            self._normalised(raw_scores),
            kl_coef=self.kl.coefficient,
            kl_estimator=self.args.kl_estimator,
            missing_eos_penalty=self.args.missing_eos_penalty,
            bootstrap_truncated=self.args.bootstrap_truncated,
            whiten_rewards=self.args.whiten_rewards,
            gamma=self.args.gamma,
            lam=self.args.lam,
            reduce=self._sum,
        )
        metrics = rollout_metrics(
            rollout,
            raw_scores,
            scores,
            kl_coef=self.kl.coefficient,
            kl_estimator=self.args.kl_estimator,
            reduce=self._sum,
        )
        metrics |= means_of_each(sampled.each, self._sum) | measure_and_correct(rollout, self.args, self._sum)
        self.kl.update(metrics["objective/kl"], self.schedule.batch_size)
        self.stop.take_kl(metrics["objective/kl"])
        if self.watch is not None:
            with self.experience.timed("watch_runtime"):
                watched = self.watch.score(sampled.episodes, self.args.device)
            metrics |= self.watch.take(raw_scores, watched, self.kl, self.stop, self._sum)
        self._means.add(metrics | self.experience.runtimes)
        self._episodes_made += self.schedule.batch_size
        return rollout

    def _micro_batches(self, rollout: Rollout, epoch: int) -> list[list[MicroBatch]]:
        """For each mini-batch of a PPO epoch: its micro-batches, as many on each process."""
        lengths = rollout.lengths
        parts = []
        for rows in self.schedule.mini_batches(rollout.number, epoch):
            groups = split_rows(
                [lengths[row] for row in rows],
                rows=self.args.per_device_train_batch_size,
                tokens=self.args.micro_batch_tokens,
            )
            if self.args.world_size > 1:
                groups = split_into(groups, sharded.max_over_processes(len(groups), self.args.device))
            parts.append([rollout.micro_batch([rows[index] for index in group]) for group in groups])
        return parts

    def _normalised(self, scores: Tensor) -> Tensor:
        if self.args.normalize_scores:
            self.score_moments.update(scores, self._sum)
            scores = self.score_moments.normalise(scores)
        return scores if self.args.score_clip is None else scores.clamp(-self.args.score_clip, self.args.score_clip)

    def _sum(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, "sum") if self.args.world_size > 1 else tensor

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Sample a response to each held-out prompt, with the same random numbers each time, and log what they score.

        The first `num_eval_samples` of them are written to `samples/PREFIX-STEP.jsonl` below `output_dir`.

        Returns:
            `eval_objective/scores`, `…/kl`, `…/rlhf_reward`, `eval_response/length`, `…/ended`, and where a reward is
            watched `eval_objective/watched_scores`; with several datasets `eval_NAME_…`.
        """
        sets = self._eval_prompts
        if eval_dataset is not None:
            sets = {name: self.prompt_set(given, "eval_dataset") for name, given in _by_name(eval_dataset).items()}
        if not sets:
            raise UserError("there is nothing to evaluate on: give an eval_dataset.")
        metrics: dict[str, float] = {}
        for name, prompts in sets.items():
            prefix = f"{metric_key_prefix}_{name}" if name else metric_key_prefix
            found = self._evaluate_on(prompts, prefix)
            metrics |= {f"{prefix}_{key}": value for key, value in found.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.stop.after_evaluation(self.callback_handler.callbacks, self.control)
        return metrics

    def _evaluate_on(self, prompts: PromptSet, prefix: str) -> dict[str, float]:
        own = range(self.args.process_index, len(prompts), self.args.world_size)
        rollout, scores, _, episodes = self.experience.sample_held_out(prompts, own)
        self.experience.ask(rollout, sharded.evaluation_batches(rollout, self.args))
        if self.args.num_eval_samples:
            samples.write_first(episodes, scores, self.args, f"{prefix}-{self.state.global_step}")
        metrics = evaluation_metrics(rollout, scores, kl_coef=self.kl.coefficient, reduce=self._sum)
        if self.watch is not None:
            watched = self.watch.score(episodes, self.args.device)
            metrics[WATCHED] = sums_of(watched, self._sum).mean
        return metrics

    def generate_completions(self, sampling: bool = False) -> list[dict[str, Any]]:
        """Print a table of held-out prompts, sampled responses and scores, and return its rows.

        Args:
            sampling: only as many prompts as one evaluation batch has.
        """
        prompts = next(iter(self._eval_prompts.values()), self.prompts)
        count = min(len(prompts), self.args.per_device_eval_batch_size) if sampling else len(prompts)
        sampled = self.experience.sample_held_out(prompts, range(count))
        assert sampled.episodes is not None, "there are prompts"
        rows = samples.rows_of(sampled.episodes, sampled.scores)
        if self.is_world_process_zero():
            samples.show(rows)
        return rows

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            self._state.write(folder)
        self._writes_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_checkpoint = False

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the policy with its tokenizer, and into a checkpoint the critic too."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        parts = {"policy.model.": (self.model.policy.model, folder)}
        if self._writes_checkpoint:
            parts["critic.model."] = (self.model.critic.model, folder / checkpoints.CRITIC)
        for prefix, (part, place) in parts.items():
            checkpoints.save_part(part, place, checkpoints.part_of_state(state_dict, prefix))
        self.processing_class.save_pretrained(folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the policy as `from_pretrained` loads it; where processes share the work, all of them must call it."""
        with sharded.saving_whole(self):
            super().save_model(output_dir, _internal_call)

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | list[str] | None = None,
        tags: str | list[str] | None = None,
        **metadata: Any,
    ) -> None:
        """Write `README.md` into `output_dir`, as `push_to_hub` does; arguments are TRL's, further ones metadata."""
        if self.is_world_process_zero():
            write_card(self, model_name or Path(self.args.output_dir).name, dataset_name, tags, metadata)

    def _load_state(self, folder: Path) -> None:
        self._state.read(folder)
        step = checkpoints.step_at_boundary(folder, self.schedule.steps_per_rollout)
        if self.stop.reason:
            self.args.max_steps = step  # the run ended there: nothing is left to do

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_state(Path(resume_from_checkpoint))
        self._load_weights(Path(resume_from_checkpoint))

    def _load_weights(self, folder: Path) -> None:
        checkpoints.load_part(self.model.policy.model, folder)
        checkpoints.load_part(self.model.critic.model, folder / checkpoints.CRITIC)
        self.engine.weights_changed()

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:  # its optimizer holds the weights, too
            super()._load_best_model()
            self.engine.weights_changed()
        else:
            self._load_weights(Path(self.state.best_model_checkpoint))


def _by_name(dataset: Dataset | dict[str, Dataset] | None) -> dict[str, Dataset]:
    """Datasets by name; a single one has the empty name."""
    if dataset is None:
        return {}
    return dict(dataset) if isinstance(dataset, dict) else {"": dataset}
