"""What ends a run before its last rollout: over-optimisation, a spent KL budget, evaluations that get no better."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from plumbline.errors import UserError
from rlhf.ppo.config import PPOConfig
from rlhf.ppo.metrics import EVALUATED, WATCHED

log = logging.getLogger(__name__)

KL_WINDOW = 3
"""Rollouts over whose mean the KL is compared with its budget, so that one rollout's noise ends no run."""


class RunStop(TrainerCallback):
    """Ends the run where a rollout ends, once there is a reason, with a log entry, an evaluation and a checkpoint.

    The reason is in the checkpoint, so that a resumed run stays ended. Must be registered behind `RolloutBoundaries`.

    Args:
        args: `kl_budget`, and the shape of a rollout.

    Attributes:
        reason: in two words, as the chain's metrics name it; None while the run goes on.
    """

    def __init__(self, args: PPOConfig) -> None:
        self.args, self.steps_per_rollout = args, args.num_ppo_epochs * args.num_mini_batches
        self.reason: str | None = None
        self._kls: list[float] = []  # of the last rollouts
        self._training = False

    def begin(self) -> None:
        """A run begins: forget what ended one before it."""
        self.reason, self._kls = None, []

    def ask(self, reason: str) -> None:
        """Let the run end at the end of this rollout; the first reason stays."""
        self.reason = self.reason or reason

    def take_kl(self, kl: float) -> None:
        """Take in a rollout's mean KL of a response, in nats; ends the run where the budget is spent."""
        self._kls = [*self._kls, kl][-KL_WINDOW:]
        mean, budget = sum(self._kls) / len(self._kls), self.args.kl_budget
        if budget is not None and mean > budget and self.reason is None:
            self.ask("KL budget")
            if self.args.should_log:
                log.warning(
                    "The KL budget is spent: the mean KL of the last rollouts (%d) is %.3g nats, above kl_budget %.3g. "
                    "The run stops at the end of this rollout.",
                    len(self._kls),
                    mean,
                    budget,
                )

    def after_evaluation(self, callbacks: Iterable[TrainerCallback], control: TrainerControl) -> None:
        """Keep for resuming that an `EarlyStoppingCallback` has lost its patience at an evaluation while training."""
        waiting = [one for one in callbacks if isinstance(one, EarlyStoppingCallback)]
        if self._training and any(
            one.early_stopping_patience_counter >= one.early_stopping_patience for one in waiting
        ):
            self.ask("early stopping")
            control.should_save = control.should_save or _is_interval(self.args.save_strategy)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From now on an evaluation may end the run."""
        self._training = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """There is nothing left to end."""
        self._training = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop where a rollout ends."""
        if self.reason and state.global_step % self.steps_per_rollout == 0:
            control.should_training_stop = control.should_log = True
            control.should_evaluate = control.should_evaluate or _is_interval(args.eval_strategy)
            control.should_save = control.should_save or _is_interval(args.save_strategy)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as JSON."""
        return {"reason": self.reason, "kls": self._kls}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.reason, self._kls = state["reason"], list(state["kls"])


def _is_interval(strategy: IntervalStrategy | SaveStrategy | str) -> bool:
    """Whether something is done at steps or epochs; neither never nor at each new best."""
    return strategy in (IntervalStrategy.STEPS, IntervalStrategy.EPOCH, SaveStrategy.STEPS, SaveStrategy.EPOCH)


def early_stopping(args: PPOConfig, evaluated: Iterable[str], *, watched: bool) -> list[TrainerCallback]:
    """The callback that `early_stopping_patience` asks for.

    Args:
        args: the settings.
        evaluated: names of the evaluation datasets; empty for a single one.
        watched: whether a reward is watched.

    Raises:
        UserError: the best checkpoint or early stopping go by a metric that no evaluation gives.
    """
    patience = args.early_stopping_patience
    if patience is not None or args.load_best_model_at_end:
        metrics = [*EVALUATED, WATCHED] if watched else EVALUATED
        known = [f"eval_{name}_{metric}" if name else f"eval_{metric}" for name in evaluated for metric in metrics]
        wanted = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        if known and wanted not in known:
            raise UserError(
                f"metric_for_best_model is {wanted!r}, which no evaluation gives: take {' or '.join(known)}."
            )
    return [] if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)]
