"""What is found before PPO: figures beside the range in which training goes well, a verdict, and what to do.

Each function here judges figures that were measured elsewhere (`rlhf.ppo.preflight`); it loads and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plumbline.console import amount
from rlhf.ppo.memory import MemoryPlan

if TYPE_CHECKING:
    from reward.accuracy import HeldOut

Verdict = Literal["ok", "warning", "fails"]

ENDED_WARNS, ENDED_FAILS = 0.8, 0.3
"""Shares of responses that ended by themselves, below which a finding warns and fails."""

NOISE_WARNS = 10.0
"""A reward's spread below so many times its own noise is a warning; below the noise itself it fails."""

LENGTH_CORRELATION_WARNS = 0.8
Z_WARNS = 3.0
"""Standard errors by which the policy's samples may score above the demonstrations."""

LEFT_OUT_WARNS, LEFT_OUT_FAILS = 0.05, 0.5
MEMORY_WARNS, MEMORY_FAILS = 0.9, 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        name: a key that stays the same, for programs.
        what: what was measured.
        value: what it was, in words.
        healthy: the range in which training goes well, in words.
        verdict: `ok`, `warning` or `fails`.
        advice: what to do; empty where the verdict is `ok`.
        detail: what else there is to say of the value; may be empty.
        figures: the measured numbers by name.
    """

    name: str
    what: str
    value: str
    healthy: str
    verdict: Verdict = "ok"
    advice: str = ""
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its fields as plain values; a figure that is no finite number is None."""
        figures = {name: value if np.isfinite(value) else None for name, value in self.figures.items()}
        return asdict(self) | {"figures": figures}


def _verdict(*, fails: bool, warns: bool) -> Verdict:
    return "fails" if fails else "warning" if warns else "ok"


def _judged(verdict: Verdict, advice: str) -> dict[str, Any]:
    """Verdict and advice as arguments of a finding: what is well needs no advice."""
    return {"verdict": verdict, "advice": "" if verdict == "ok" else advice}


def refused(message: str) -> Finding:
    """The trainer refuses models, prompts or settings; `message` says why."""
    return Finding("trainer", "PPOTrainer", "refuses to begin", "begins", "fails", message)


def out_of_memory(where: str, *, loading: bool = False) -> Finding:
    """Not even the few responses of the check fit beside the models, or (`loading`) not even the models."""
    advice = f"{where} was full during the check, so nothing else was measured: see the memory plan."
    if loading:
        advice = (
            f"{where} was full before all models were loaded, so nothing was measured: a smaller policy, or `lora`."
        )
    return Finding("out_of_memory", "the check itself", "out of memory", "fits", "fails", advice)


def end_token(ended: Sequence[bool], lengths: Sequence[int], response_length: int, *, can_end: bool = True) -> Finding:
    """How many responses end by themselves, and how long they are.

    Args:
        ended: of each response, whether a stop token ended it.
        lengths: tokens of each.
        response_length: the most there can be.
        can_end: whether the settings let a response end early.
    """
    share, median, high = float(np.mean(ended)), float(np.median(lengths)), float(np.percentile(lengths, 95))
    what, healthy = "responses that end themselves", f"above {ENDED_WARNS:.0%}"
    figures = {"ended": share, "length_median": median, "length_p95": high, "responses": float(len(ended))}
    value = f"{share:.0%} of {len(ended)}; tokens: median {median:.0f}, 95% within {high:.0f}"
    if not can_end:
        advice = "stop_token is null, so every response has response_length tokens: leave stop_token out."
        return Finding("end_token", what, "none can", healthy, "warning", advice, figures=figures)
    advice = (
        "SFT did not teach the policy to stop: let its loss fall on the end token (inside the chat template's "
        f"generation marks), or train longer. Raise response_length ({response_length}) where good responses are "
        "longer; missing_eos_penalty makes stopping pay."
    )
    judged = _judged(_verdict(fails=share < ENDED_FAILS, warns=share < ENDED_WARNS), advice)
    return Finding("end_token", what, value, healthy, **judged, figures=figures)


def pad_token(pad: int | None, stops: Sequence[int], ended: float) -> Finding:
    """Whether there is a pad token of its own.

    Args:
        pad: its id, or None.
        stops: ids that end a response.
        ended: share of responses that end by themselves.
    """
    what, healthy = "pad token", "not the end token"
    if pad is None:
        advice = "set the tokenizer's pad_token (model.pad_token in a recipe) to a token that no text uses."
        return Finding("pad_token", what, "none", healthy, "fails", advice)
    if pad not in stops:
        return Finding("pad_token", what, f"{pad}, not the end token", healthy)
    advice = (
        "the pad token is the end token, and responses do not end: trainers that mask padding out of the loss never "
        "teach such a token. Set a pad token of its own (model.pad_token in a recipe) and repeat SFT."
    )
    judged = _judged(_verdict(fails=False, warns=ended < ENDED_WARNS), advice)
    return Finding("pad_token", what, f"{pad}, the end token", healthy, **judged)


def end_of_turn(has_end: bool | None) -> Finding:
    """Whether the chat template writes a stop token behind the assistant's turn; None: there is no template."""
    what, healthy = "end token after the assistant", "in the chat template"
    if has_end is None:
        return Finding("end_of_turn", what, "no chat template", healthy, detail="prompts are taken as plain text")
    advice = (
        "the chat template ends the assistant's turn without a token that ends a response, so SFT never showed one: "
        "use a template that writes it (model.chat_template in a recipe), or set stop_token_id to the token it writes."
    )
    judged = _judged("ok" if has_end else "fails", advice)
    return Finding("end_of_turn", what, "there" if has_end else "missing", healthy, **judged)


def vocabulary(tokens: int, rows: int, *, same_as_reward: bool | None) -> Finding:
    """Whether the policy can read its tokenizer's tokens, and whether the reward reads the same ones.

    Args:
        tokens: in the policy's tokenizer.
        rows: in its embedding.
        same_as_reward: None where no reward is a model.
    """
    reward = {None: "", True: ", the reward's too", False: "; the reward has another"}
    advice = (
        f"the tokenizer has {tokens} tokens and the model reads {rows}: take the tokenizer that belongs to the model."
    )
    return Finding(
        "vocabulary",
        "vocabulary",
        f"{tokens:,} tokens{reward[same_as_reward]}",
        "all in the model",
        **_judged("fails" if tokens > rows else "ok", advice),
        detail="" if same_as_reward is not False else "responses are written anew by the reward model's tokenizer",
        figures={"tokens": tokens, "rows": rows},
    )


def room(left_out: int, prompts: int, response_length: int) -> Finding:
    """How many prompts leave no room for a whole response in the window.

    Args:
        left_out: prompts that leave none.
        prompts: all.
        response_length: tokens that a response needs.
    """
    share = left_out / max(prompts, 1)
    advice = f"lower response_length ({response_length}), or shorten these prompts: PPO will not see them."
    verdict = _verdict(fails=share > LEFT_OUT_FAILS, warns=share > LEFT_OUT_WARNS)
    return Finding(
        "room",
        "prompts too long for a response",
        f"{left_out:,} of {prompts:,}",
        f"below {LEFT_OUT_WARNS:.0%}",
        **_judged(verdict, advice),
        figures={"left_out": left_out, "prompts": prompts},
    )


def reward_accuracy(found: HeldOut) -> Finding:
    """Whether the reward agrees with held-out preferences, and with more than the responses' length."""
    longer = found.length_accuracy
    length, preferred = max((longer, "longer"), (1 - longer, "shorter"))
    low, high = found.accuracy_low, found.accuracy_high
    guesses = low <= 0.5
    advice = (
        "it may be guessing: collect more preferences, or train the reward model longer."
        if guesses
        else f"always preferring the {preferred} response may do as well: collect more preferences, above all between "
        "responses of like length, and watch response/length in training."
    )
    return Finding(
        "reward_accuracy",
        "reward: held-out accuracy",
        f"{found.accuracy:.0%} ({low:.0%} to {high:.0%}, {found.eval_prompts} prompts); length alone {length:.0%}",
        "interval above 50% and length",
        **_judged(_verdict(fails=guesses, warns=low <= length), advice),
        figures={
            "accuracy": found.accuracy,
            "low": low,
            "high": high,
            "length_accuracy": longer,
            "prompts": found.eval_prompts,
            "pairs": found.eval_pairs,
        },
    )


def reward_not_finite(message: str) -> Finding:
    """A reward that is NaN or infinite; `message` names prompt and response."""
    return Finding("reward_spread", "reward: spread", "no finite number", "finite", "fails", message)


def reward_spread(scores: np.ndarray, noise: float, distinct: int, pairs_std: float | None = None) -> Finding:
    """Whether the reward tells the policy's responses to one prompt apart.

    Args:
        scores: `(prompts, responses)`.
        noise: by how much the score of the same response differs (root mean square) when it is scored again, alone.
        distinct: how many of the responses differ from the others to their prompt.
        pairs_std: standard deviation of the scores of held-out pairs, where there are any.
    """
    within = float(np.sqrt(scores.var(axis=1, ddof=1).mean())) if scores.shape[1] > 1 else 0.0
    overall = float(scores.std(ddof=1)) if scores.size > 1 else 0.0
    floor = max(NOISE_WARNS * noise, 0.1 * (pairs_std or 0.0))
    if distinct < scores.size / 2:
        advice = (
            f"only {distinct} of {scores.size} responses differ: raise temperature, or repeat SFT with fewer epochs."
        )
    else:
        advice = (
            "the reward cannot tell the policy's responses apart, so there is nothing to learn from: train it on "
            "preferences between this policy's own responses."
        )
    return Finding(
        "reward_spread",
        "reward: spread",
        f"{within:.3g} to a prompt, {overall:.3g} overall; noise {noise:.1g}",
        f"above {floor:.2g}" if floor > 0 else "above 0",
        **_judged(_verdict(fails=within <= noise, warns=within < floor), advice),
        figures={"within": within, "overall": overall, "noise": noise, "mean": float(scores.mean())},
    )


def reward_and_length(scores: np.ndarray, lengths: np.ndarray) -> Finding:
    """Correlation of reward and length between the responses to one prompt; both `(prompts, responses)`."""
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (scores.astype(float), lengths.astype(float)))
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    r = float((a * b).sum() / scale) if scale > 0 else 0.0
    advice = (
        f"the reward says little of these responses but their length, so PPO will write {'more' if r > 0 else 'less'}: "
        "train it on preferences between responses of like length, and watch response/length."
    )
    return Finding(
        "reward_length",
        "reward: correlation with length",
        f"{r:+.2f}",
        f"within ±{LENGTH_CORRELATION_WARNS:g}",
        **_judged(_verdict(fails=False, warns=abs(r) > LENGTH_CORRELATION_WARNS), advice),
        figures={"correlation": r},
    )


def reward_of_demonstrations(demonstrations: np.ndarray, samples: np.ndarray) -> Finding:
    """Whether the reward likes what SFT taught at least as much as what the policy says; scores of any shape."""
    mean, own = float(demonstrations.mean()), float(samples.mean())
    error = float(np.sqrt(demonstrations.var() / demonstrations.size + samples.var() / samples.size))
    floor = own - Z_WARNS * error
    advice = (
        "the reward prefers the policy's samples to the demonstrations: look at both beside their scores; if the "
        "demonstrations are better, the reward is wrong."
    )
    return Finding(
        "reward_demonstrations",
        "reward: SFT's demonstrations",
        f"mean {mean:.2f}; the policy's samples {own:.2f}",
        f"above {floor:.2f}",
        **_judged(_verdict(fails=False, warns=mean < floor), advice),
        figures={"demonstrations": mean, "samples": own, "error": error},
    )


def ratio_at_start(ratios: np.ndarray, *, exact: bool) -> Finding:
    """The ratio of new to old probability `(tokens,)` before any update: the same weights, asked twice.

    Args:
        ratios: new over old probability of each token.
        exact: whether the forward pass is in float32 throughout and on a CPU; else it may round by 2%.
    """
    low, high = float(ratios.min()), float(ratios.max())
    tolerance = 0.0 if exact else 0.02
    off = bool(max(abs(low - 1), abs(high - 1)) > tolerance) or not np.isfinite(ratios).all()
    advice = (
        "the same tokens have another probability in training mode than in the rollout: look for dropout or other "
        "randomness in the model's code."
    )
    return Finding(
        "ratio",
        "ratio at step 0",
        "exactly 1" if low == high == 1 else f"{low:.4g} to {high:.4g}",
        "exactly 1" if exact else "1 ± 0.02 (bfloat16, GPU)",
        **_judged("fails" if off else "ok", advice),
        figures={"low": low, "high": high},
    )


def kl_at_start(kl: np.ndarray, *, exact: bool, own_reference: bool) -> Finding:
    """KL to the reference in nats `(responses,)` before any update.

    Args:
        kl: sum over each response's tokens of the difference of the log-probabilities.
        exact: as for `ratio_at_start`.
        own_reference: whether a reference was given; it may be another model than the policy, then this only warns.
    """
    mean, worst = float(kl.mean()), float(np.abs(kl).max())
    off = not worst <= (0.0 if exact else 0.5)
    advice = (
        "the reference is another model than the policy that PPO starts from: meant so?"
        if own_reference
        else "policy and reference differ before any update: look for randomness in the model's code."
    )
    return Finding(
        "kl",
        "KL at step 0",
        "exactly 0" if worst == 0 else f"{mean:.3g} nats, at most {worst:.3g}",
        "exactly 0" if exact else "below 0.5 nats (bfloat16, GPU)",
        **_judged(_verdict(fails=off and not own_reference, warns=off), advice),
        figures={"mean": mean, "worst": worst},
    )


def sampler(differences: np.ndarray, *, exact: bool) -> Finding:
    """How far the sampler's view of a token is from the trainer's.

    Args:
        differences: of the log-probability of each token `(tokens,)`: read as the sampler reads (padded on the left, by
            the model's own forward) less as the trainer reads (padded on the right, in chunks).
        exact: as for `ratio_at_start`.
    """
    mean, worst = float(np.abs(differences).mean()), float(np.abs(differences).max())
    tolerance = 1e-4 if exact else 0.05
    advice = (
        "padding or positions change what the model says, so it learns from other probabilities than it was sampled "
        "by: check its attention mask and position ids, or another attn_implementation."
    )
    verdict = _verdict(fails=not mean <= 10 * tolerance, warns=mean > tolerance)
    return Finding(
        "sampler",
        "sampler against trainer",
        f"{mean:.1g} nats a token, at most {worst:.1g}",
        f"below {tolerance:g} a token",
        **_judged(verdict, advice),
        figures={"mean": mean, "worst": worst},
    )


def memory(plan: MemoryPlan, available: int, where: str) -> Finding:
    """Whether what the run will hold fits.

    Args:
        plan: in bytes.
        available: bytes in all.
        where: whose memory it is.
    """
    share = plan.total / available
    advice = (
        f"{where} is too small: use lora (one base for all models), lower micro_batch_tokens or response_length, set "
        "gradient_checkpointing, or take a smaller model."
    )
    return Finding(
        "memory",
        "memory plan",
        f"{amount(plan.total)} of {amount(available)} ({share:.0%})",
        f"below {MEMORY_WARNS:.0%}",
        **_judged(_verdict(fails=share > MEMORY_FAILS, warns=share > MEMORY_WARNS), advice),
        detail=plan.in_words(),
        figures={"total": plan.total, "available": available, **plan.parts()},
    )
