"""The recipe's section `annotate`: how judgements are collected, by whom, and how their quality is watched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from plumbline.recipe_privacy import PersonalDataSection, RetentionSection
from plumbline.recipe_section import Section, Share

LOOPBACK = ("127.0.0.1", "::1", "localhost")
ReasonCase = Literal["strong", "all_bad", "adjudication", "always"]
WebhookEvent = Literal["judgement", "skip", "flag", "progress", "erasure"]


class SimulatedAnnotatorSettings(Section):
    """One simulated annotator: how noisy, biased and careless it is."""

    name: str = Field(description="Its name in the store; marked as simulated everywhere.")
    noise: float = Field(0.1, ge=0, description="Bradley–Terry noise: P(a over b) = sigmoid((u(a) − u(b)) / noise).")
    length_bias: float = Field(0.0, description="Utility added for each 100 words of a response.")
    position_bias: float = Field(0.0, description="Utility added to the card shown first, falling to 0 at the last.")
    carelessness: Share = Field(0.0, description="Share of tasks that it ranks at random.")
    tie_below: float = Field(
        0.0, ge=0, description="Responses nearer than this in perceived utility are ranked as ties."
    )


class SimulatedSection(Section):
    """Simulated annotators, who stand in for people in demonstrations and tests."""

    utility: Path = Field(description="The utility they judge by (YAML, relative to the recipe).")
    annotators: list[SimulatedAnnotatorSettings] = Field(min_length=1, description="Who they are.")


class RubricAxis(Section):
    """One axis on which annotators score each response."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Its name in the store and in exports.")
    question: str = Field(min_length=1, max_length=200, description="What annotators read, such as `Is it helpful?`")
    levels: int = Field(5, ge=2, le=9, description="Scores go from 1 to this.")
    low: str = Field("", max_length=40, description="What 1 means.")
    high: str = Field("", max_length=40, description="What the highest score means.")


class ChecksSection(Section):
    """Items that measure annotators: gold items, attention checks and silent repeats. No model learns from them."""

    file: Path | None = Field(
        None,
        description="JSON lines of checks: `prompt`, `responses` (2 to 9 texts), `ranking` (their ranks, 1 is best, "
        "equal ranks are ties) and optionally `kind`: `gold` (the default) or `attention`.",
    )
    every: int = Field(20, ge=2, description="On average one item in this many is a check.")
    repeat_share: Share = Field(0.0, description="Share of items that are an own earlier one, shown again unannounced.")
    after: int = Field(10, ge=1, description="Checks that must be answered before anything follows from them.")
    warn_below: Share = Field(0.7, description="Share of pairs of checks got right below which the lead is warned.")
    pause_below: Share = Field(0.5, description="Share below which an annotator gets no work until the lead acts.")
    show_streak: bool = Field(False, description="Show annotators how many checks in a row they got right.")


class QuizSection(Section):
    """Questions on the guideline that annotators answer after they accepted it, and before their first work."""

    file: Path = Field(
        description="The questions, as a list in YAML or as JSON lines: `question`, `options` (2 to 6 texts), `right` "
        "(the number of the right option, from 1, or a list where several are right) and `explanation`."
    )
    pass_share: float = Field(0.8, gt=0, le=1, description="Share of questions that must be right.")
    attempts: int = Field(
        3, ge=1, le=100, description="Tries; whoever has used them up waits until the lead lets them go on."
    )
    ask_again: bool = Field(
        False,
        description="Whether whoever passed is asked again when questions, options or right answers change. A new "
        "version of the guideline alone, or another explanation, never asks anybody again.",
    )


class Webhook(Section):
    """An address that is told of events by signed POST requests; the app calls no other address."""

    url: str = Field(pattern=r"^https?://", description="Where to send; `https`, or `http` to this machine.")
    events: list[WebhookEvent] = Field(
        default=["progress"], description="What to tell: judgement, skip, flag, progress, erasure."
    )
    secret_env: str = Field(
        "PLUMBLINE_WEBHOOK_SECRET", description="Environment variable with the secret that signs each request."
    )


class ArenaSection(Section):
    """The arena: aligned against baseline, answering the same prompt, blind."""

    policies: list[str] = Field(
        default_factory=list,
        description="Policies of the run that answer, besides the baseline; default: all aligned ones.",
    )
    baseline: str = Field("sft", description="The policy that the others are compared with.")
    temperature: float = Field(0.7, gt=0, description="Sampling temperature.")
    max_new_tokens: int = Field(256, ge=1, description="Longest response, in tokens.")
    turns: int = Field(5, ge=1, description="Most turns of one conversation.")
    seconds: float = Field(120, gt=0, description="Longest time for which the two models answer one turn.")
    at_once: int = Field(2, ge=1, description="Turns that are answered at the same time; others wait.")
    votes_per_person: int = Field(100, ge=1, description="Votes of one person that count in the ranking.")
    margin: float = Field(0.05, gt=0, lt=0.5, description="Win rates within this of one half count as no difference.")

    def compared(self, aligned: Sequence[str]) -> list[str]:
        """The policies compared with the baseline, finished or not; `aligned` are all that the recipe aligns."""
        return [name for name in dict.fromkeys(self.policies or aligned) if name != self.baseline]


class AnnotateSection(Section):
    """Collecting judgements."""

    store: str | None = Field(
        None,
        description="Database URL, or file, of a store that several runs share; default: SQLite in the run folder.",
    )
    judgements_per_prompt: int = Field(1, ge=1, description="Annotators who judge each prompt (overlap).")
    required: int | None = Field(
        None, ge=1, description="Judgements to wait for; default: all tasks but flagged ones, each as often as above."
    )
    lease_minutes: float = Field(15, gt=0, description="How long a task is kept for the annotator who opened it.")
    guideline: Path | None = Field(
        None, description="Markdown shown to annotators. Each change of it is a new version, kept with every judgement."
    )
    language: str = Field("en", description="Language of the app: `en`, `de`, or a file of texts (JSON, see docs).")
    strength: bool = Field(False, description="Ask how much better (4 grades) between neighbouring ranks.")
    rubric: list[RubricAxis] = Field(default_factory=list, max_length=9, description="Axes to score each response on.")
    edit: bool = Field(
        True, description="Let annotators improve the best response; kept as a demonstration and as a pair."
    )
    require_reason: list[ReasonCase] = Field(
        default=["strong", "adjudication"],
        description="When a ranking needs a reason: `strong` (two ranks are graded as much different), `all_bad`, "
        "`adjudication`, `always`; `[]` for never. Simulated annotators give none.",
    )
    mask_names: bool = Field(
        True,
        description="Mask names of models in the responses that annotators see (see docs/annotate.md).",
    )
    hide_names: list[Annotated[str, Field(min_length=2, max_length=100, pattern=r"\w")]] = Field(
        default_factory=list, max_length=200, description="More names to mask, wherever they stand in a response."
    )
    checks: ChecksSection | None = Field(None, description="Gold items, attention checks and silent repeats.")
    quiz: QuizSection | None = Field(None, description="A quiz on the guideline; without this section there is none.")
    adjudicate_above: Share | None = Field(
        None, description="Share of pairs on which a task's judgements disagree, above which an adjudicator decides."
    )
    accounts: bool = Field(
        False, description="Ask for passwords. Without accounts everybody who reaches the app signs in by name."
    )
    session_hours: float = Field(12, gt=0, description="How long a sign-in lasts.")
    host: str = Field(
        "127.0.0.1",
        description="Address that the app listens on. `127.0.0.1`, `::1` or `localhost` is reached from this machine "
        "only; any other, such as `0.0.0.0` (every network of this machine), needs `accounts: true`.",
    )
    names: list[str] = Field(
        default_factory=list, description="Host names under which browsers reach the app, such as `rank.example.org`."
    )
    port: int = Field(7860, ge=0, le=65535, description="Port of the app; 0 takes a free one.")
    proxy: str | None = Field(
        None,
        description="Address of a reverse proxy that ends https, such as `127.0.0.1`: only from there "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are believed.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes; more than one needs PostgreSQL, and leaves the arena out.",
    )
    personal_data: PersonalDataSection = Field(
        default_factory=PersonalDataSection, description="What becomes of personal data before it enters the store."
    )
    retention: RetentionSection = Field(
        default_factory=RetentionSection, description="How long names and records are kept; default: for ever."
    )
    webhooks: list[Webhook] = Field(default_factory=list, description="Addresses that are told what happens.")
    arena: ArenaSection | None = Field(None, description="The arena; without this section there is none.")
    simulated: SimulatedSection | None = Field(None, description="Simulated annotators for `plumbline simulate`.")

    @model_validator(mode="after")
    def _accounts_past_this_machine(self) -> AnnotateSection:
        if self.accounts:
            return self
        if self.names or self.proxy:
            key = "names" if self.names else "proxy"
            raise ValueError(
                f"annotate.{key} lets other machines reach the app, and without accounts anybody could sign in under "
                "any name: set annotate.accounts to true"
            )
        if self.host not in LOOPBACK:
            raise ValueError(
                f"annotate.host {self.host!r} can be reached from other machines, and without accounts anybody could "
                "sign in under any name: set annotate.accounts to true, or use 127.0.0.1 and forward the port: "
                "ssh -L 7860:127.0.0.1:7860 THE_MACHINE"
            )
        return self

    @field_validator("rubric")
    @classmethod
    def _names_differ(cls, axes: list[RubricAxis]) -> list[RubricAxis]:
        names = [axis.name for axis in axes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two axes are called {twice!r}: give each a name of its own")
        return axes
