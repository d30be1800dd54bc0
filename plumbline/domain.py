"""A recipe in a run folder: its models, prompts, pairs and store, as the stages' bodies and the commands need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.conversations import Conversation, Part, Split, part_of, prompt_key, question_key, split_of
from plumbline.datafiles import Notices, PromptRow, load_conversations, load_corpus, load_prompts
from plumbline.errors import UserError
from plumbline.models import ModelIdentity, check_fits, identify, resolve_model
from plumbline.recipe import Recipe
from plumbline.runs import Run

if TYPE_CHECKING:
    from datasets import Dataset

    from plumbline.preferences.service import PreferenceService


class Domain:
    """A recipe in a run folder: what every stage's body needs."""

    def __init__(self, recipe: Recipe, run: Run, notify: Callable[[str], None]) -> None:
        self.recipe, self.run, self.notify = recipe, run, notify
        self._prompts: list[PromptRow] | None = None

    @property
    def given_model(self) -> Path:
        """The folder of the base model as it came."""
        return resolve_model(self.recipe.model.name, revision=self.recipe.model.revision)

    @property
    def base_model(self) -> Path:
        """The base model's folder: as it came, or with the recipe's chat template and pad token."""
        if self.recipe.model.chat_template or self.recipe.model.pad_token:
            return self.run.folder("base")
        return self.given_model

    @property
    def start_of_sft(self) -> Path:
        """The model that SFT starts from: the adapted one where there is an adaptation stage."""
        return self.run.folder("adapt") if self.recipe.adapt else self.base_model

    def model_of(self, stage: str) -> Path:
        """The model folder that a finished stage made.

        Raises:
            MismatchError: the folder's tokenizer, template or base is not the one its manifest names.
        """
        folder = self.run.folder(stage)
        manifest = self.run.manifest(stage)
        if manifest is None or manifest.model is None:
            raise UserError(f"{folder} holds no finished model: run the stage {stage!r} first.")
        expected = ModelIdentity.from_json(manifest.model)
        check_fits(expected, identify(folder), expected_name=f"{stage}'s manifest", found_name=str(folder))
        return folder

    def prompts(self, *splits: Split) -> list[PromptRow]:
        """The recipe's prompts of some splits; those of the snapshot where it names no prompt file."""
        if self._prompts is None:
            notices = Notices()
            if self.recipe.data.prompts:
                self._prompts = load_prompts(self.recipe.data.prompts, notices)
            else:
                self._prompts = self._those_that_fit(self._prompts_of_snapshot())
            for line in notices.lines:
                self.notify(line)
        data = self.recipe.data
        return [
            row for row in self._prompts if split_of(row.prompt, validation=data.validation, test=data.test) in splits
        ]

    def unseen_benchmark(self) -> list[PromptRow]:
        """The benchmark's prompts, less those that a stage trained on; how many were left out is said."""
        notices = Notices()
        rows = load_prompts(self.recipe.data.benchmark, notices)
        if not rows:
            return []
        trained_on = [
            *load_conversations(self.recipe.data.demonstrations),
            *(entry.messages for entry in load_corpus(self.recipe.data.corpus) if entry.messages),
            *(row.prompt for row in self.prompts("train", "validation")),
            *(row.prompt for row in self._prompts_of_snapshot()),
        ]
        seen = {question_key(messages) for messages in trained_on}
        unseen = [row for row in rows if question_key(row.prompt) not in seen]
        if len(unseen) < len(rows):
            notices.add(f"{len(rows) - len(unseen)} benchmark prompts were left out: they begin like training data.")
        for line in notices.lines:
            self.notify(line)
        return unseen

    def _prompts_of_snapshot(self) -> list[PromptRow]:
        """The prompts of the snapshot, each once, in the order of their keys."""
        from plumbline.preferences.snapshot import read_snapshot, snapshot_rows

        snapshot = read_snapshot(self.run.folder("preferences"))
        rows = {prompt_key(row["prompt"]): PromptRow(row["prompt"]) for row in snapshot_rows(snapshot)}
        return [rows[key] for key in sorted(rows)]

    def _those_that_fit(self, rows: list[PromptRow]) -> list[PromptRow]:
        """Imported prompts that leave room for a response of the comparison; how many were left out is said."""
        from plumbline.models import context_window, load_tokenizer
        from plumbline.sampling import encode_prompts

        window = context_window(self.model_of("sft"))
        if window is None:
            return rows
        room = window - self.recipe.compare.max_new_tokens
        encoded = encode_prompts(load_tokenizer(self.model_of("sft")), [row.prompt for row in rows])
        kept = [row for row, ids in zip(rows, encoded, strict=True) if len(ids) <= room]
        if len(kept) < len(rows):
            self.notify(
                f"{len(rows) - len(kept)} of {len(rows)} imported prompts are too long for the model: left out."
            )
        return kept

    @property
    def store(self) -> str | Path:
        """The preference store: a database's address, or a file."""
        return self.recipe.annotate.store or self.run.root / "preferences.db"

    @contextmanager
    def service(self, *, create: bool = True) -> Iterator[PreferenceService]:
        """The preference service of this domain, on the recipe's store, which is closed at the end.

        Args:
            create: make the store where there is none; false for those who only read.

        Raises:
            NoStoreError: there is none, and `create` is false.
        """
        from datetime import timedelta

        from plumbline.preferences.rules import Rules
        from plumbline.preferences.service import PreferenceService
        from plumbline.preferences.store import Store
        from plumbline.preferences.webhooks import outbox_of

        store = Store.open(self.store, create=create)
        store.subscriptions = outbox_of(self.recipe.annotate.webhooks)
        try:
            annotate = self.recipe.annotate
            lease = timedelta(minutes=annotate.lease_minutes)
            yield PreferenceService(store, project=self.recipe.name, lease=lease, rules=Rules.of(self.recipe))
        finally:
            store.close()

    def part_of(self, prompt: Conversation) -> Part:
        """Which part of the preferences a prompt belongs to, by the recipe's shares."""
        reward = self.recipe.reward
        return part_of(prompt, judge=reward.judge_share, watch=reward.watch_share)

    def held_out_pairs(self, part: Part) -> Dataset | None:
        """The validation pairs of one part; None where there are none."""
        data = self.recipe.data
        prompts = [row.prompt for row in self._prompts_of_snapshot() if self.part_of(row.prompt) == part]
        if all(split_of(prompt, validation=data.validation, test=data.test) != "validation" for prompt in prompts):
            self.notify(f"no preferences of the {part} part are held out, so accuracy is not measured.")
            return None
        return self.pairs(part, "validation")

    def pairs(self, part: Part, split: Split) -> Dataset:
        """Chosen and rejected responses of one part and split of the snapshot."""
        from plumbline.preferences.pairs import load_pairs

        data, reward = self.recipe.data, self.recipe.reward
        return load_pairs(
            self.run.folder("preferences"),
            part=part,
            split=split,
            judge_share=reward.judge_share,
            watch_share=reward.watch_share,
            validation=data.validation,
            test=data.test,
        )
