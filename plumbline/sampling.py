"""Sampling responses from a policy: batched by length under a token budget, repeatable, and resumable.

The batches are planned before the work, and each has its own random state, so a sampling that was killed goes on with
the batches that are missing and ends in the same file. Shapes: `batch` rows are responses, `(batch, seq)` token ids
padded on the left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from plumbline.conversations import Conversation, prompt_key
from plumbline.errors import UserError
from plumbline.generation import generate
from plumbline.models import context_window, identify, load_policy, load_tokenizer
from plumbline.seeds import derived_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from plumbline.datafiles import PromptRow
    from plumbline.recipe import SampleSection

RESPONSES = "responses.parquet"


@dataclass(frozen=True)
class Sampled:
    """One response.

    Attributes:
        prompt_index: of its prompt in the given sequence.
        text: the response without special tokens.
        token_ids: as they were sampled, the end-of-turn token at the end where there is one.
        finished: whether it ended by itself within the limit.
    """

    prompt_index: int
    text: str
    token_ids: list[int]
    finished: bool

    @property
    def token_count(self) -> int:
        """Tokens of the response; the end-of-turn token is not counted."""
        return len(self.token_ids) - self.finished


class Progress(Protocol):
    """Wraps the batches while they are worked on, such as `plumbline.console.track`."""

    def __call__(self, items: Iterable[Any], what: str, *, total: int | None = None) -> Iterable[Any]: ...


def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Conversation],
    *,
    n: int,
    temperature: float,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch_tokens: int,
    seed: int,
    scratch: Path | None = None,
    progress: Progress | None = None,
    what: str = "Sampling",
) -> list[Sampled]:
    """Sample `n` responses to each prompt.

    Args:
        model: the policy, in evaluation mode on its device.
        tokenizer: its tokenizer, with a chat template.
        prompts: conversations that end with a user's message.
        n: responses to each prompt.
        temperature: of the sampling; 0 takes the most probable token.
        top_p: keep the most probable tokens up to this mass.
        max_new_tokens: longest response.
        batch_tokens: most tokens of one batch, prompts and responses at their longest.
        seed: of the random state; each batch has its own from it.
        scratch: where finished batches are kept, to go on from when the process is killed; None keeps none.
        progress: draws the progress.
        what: what the progress bar says.

    Returns:
        The responses, in the order of the prompts, `n` for each.

    Raises:
        UserError: prompts that leave no room for a response in the model's window, with their numbers.
    """
    encoded = encode_prompts(tokenizer, prompts)
    _refuse_long(encoded, max_new_tokens, context_window(model))
    plan = _plan(encoded, n, max_new_tokens, batch_tokens)
    settings = [n, temperature, top_p, max_new_tokens, batch_tokens, seed, encoded]
    parts = _Parts(scratch, [_weights_sample(model), *settings] if scratch else [])
    stop = stop_token_ids(model, tokenizer)
    done: list[Sampled] = []
    numbered = list(enumerate(plan))
    for number, indices in progress(numbered, what, total=len(numbered)) if progress else numbered:
        part = parts.read(number)
        if part is None:
            generator = torch.Generator(device=model.device).manual_seed(derived_seed(seed, number))
            rows = [encoded[index] for index in indices]
            ids = generate(model, rows, n, tokenizer.pad_token_id, stop, temperature, top_p, max_new_tokens, generator)
            part = [_sampled(indices[row // n], response, stop, tokenizer) for row, response in enumerate(ids)]
            parts.write(number, part)
        done += part
    return sorted(done, key=lambda sampled: sampled.prompt_index)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Conversation]) -> list[list[int]]:
    """Token ids of prompts as the policy reads them, with the opening of the assistant's turn at the end."""
    if not prompts:
        return []
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"])


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a response: those of the model's generation configuration and the tokenizer's eos."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ids, tokenizer.eos_token_id] if token is not None})


def _refuse_long(encoded: Sequence[Sequence[int]], max_new_tokens: int, window: int | None) -> None:
    too_long = [(row, len(ids)) for row, ids in enumerate(encoded, 1) if window and len(ids) + max_new_tokens > window]
    if too_long:
        shown = ", ".join(f"{row} ({length} tokens)" for row, length in too_long[:5])
        more = f" and {len(too_long) - 5} more" if len(too_long) > 5 else ""
        raise UserError(
            f"prompts leave no room for a response: rows {shown}{more} and max_new_tokens {max_new_tokens} are "
            f"together more than the model's window of {window} tokens: shorten or remove them, or lower "
            "max_new_tokens."
        )


def _plan(encoded: Sequence[Sequence[int]], n: int, max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Batches of prompt indices, longest first, each within the token budget (one prompt at least)."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i)):
        if batches and (len(batches[-1]) + 1) * n * (longest + max_new_tokens) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = len(encoded[index])
    return batches


def _weights_sample(model: PreTrainedModel) -> str:
    """A hash over the beginning of every parameter: tells policies apart without reading all their weights."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().flatten()[:1024].float().cpu().numpy().tobytes())
    return digest.hexdigest()


class _Parts:
    """Finished batches in `scratch`, which count only for the same weights, prompts and settings."""

    def __init__(self, scratch: Path | None, settings: list[Any]) -> None:
        self.folder = None
        if scratch is not None:
            digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
            self.folder = scratch / f"sampled-{digest}"
            self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, number: int) -> list[Sampled] | None:
        path = self._path(number)
        if path is None or not path.exists():
            return None
        return [Sampled(**row) for row in json.loads(path.read_text(encoding="utf-8"))]

    def write(self, number: int, part: Sequence[Sampled]) -> None:
        path = self._path(number)
        if path is not None:
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps([asdict(row) for row in part], ensure_ascii=False), encoding="utf-8")
            partial.rename(path)

    def _path(self, number: int) -> Path | None:
        return self.folder / f"{number:06d}.json" if self.folder else None


def _sampled(index: int, ids: list[int], stop: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Sampled:
    finished = bool(ids) and ids[-1] in stop
    content = ids[:-1] if finished else ids
    return Sampled(index, tokenizer.decode(content, skip_special_tokens=True), ids, finished)


@dataclass(frozen=True)
class Response:
    """A row of `responses.parquet`.

    Attributes:
        prompt: the conversation it answers.
        prompt_key: key of the prompt, see `plumbline.conversations.prompt_key`.
        response: the text.
        policy, policy_hash: name of the policy and hash of its weights.
        token_count, finished: as in `Sampled`.
        temperature, seed: how it was sampled.
        meta: JSON object with what the prompt's file says about it (topics, style, …).
    """

    prompt: Conversation
    prompt_key: str
    response: str
    policy: str
    policy_hash: str
    token_count: int
    finished: bool
    temperature: float
    seed: int
    meta: str


def write_responses(responses: Iterable[Response], folder: Path) -> int:
    """Stream responses into `folder/responses.parquet`; return their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns = {"prompt": pa.list_(message), "token_count": pa.int32(), "finished": pa.bool_(), "seed": pa.int64()}
    columns["temperature"] = pa.float64()
    schema = pa.schema([(name, columns.get(name, pa.string())) for name in Response.__dataclass_fields__])
    count, block = 0, 1000
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(folder / RESPONSES, schema) as writer:
        for response in responses:
            rows.append(asdict(response))
            count += 1
            if len(rows) == block:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return count


def read_responses(folder: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of `folder/responses.parquet` as dictionaries with the fields of `Response`.

    Raises:
        UserError: there is no such file.
    """
    import pyarrow.parquet as pq

    path = folder / RESPONSES
    if not path.is_file():
        raise UserError(f"there are no responses in {folder}: run the stage `sample` first.")
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
        yield from batch.to_pylist()


def sample_to_folder(
    policies: dict[str, Path],
    rows: Sequence[PromptRow],
    section: SampleSection,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
    load: Callable[[Path], PreTrainedModel] = load_policy,
) -> dict[str, Any]:
    """Sample responses to the same prompts from one or several policies into `folder/responses.parquet`.

    The responses to one prompt stand together, whichever policy gave them.

    Args:
        policies: model folders by name.
        rows: prompts with what their file says about them.
        section: how to sample.
        folder: where the file goes.
        scratch: where finished batches are kept.
        seed: of the random state.
        load: loads a policy.

    Returns:
        `responses`, `prompts`, `finished` (share that ended by itself) and `mean_tokens`.

    Raises:
        UserError: prompts that leave no room for a response, a policy without chat template or pad token.
    """
    from plumbline.console import track

    prompts = [row.prompt for row in rows]
    by_prompt: list[list[Response]] = [[] for _ in rows]
    for name, path in policies.items():
        policy_hash = identify(path).weights_hash
        sampled = sample_responses(
            load(path),
            load_tokenizer(path),
            prompts,
            n=section.responses_per_prompt,
            temperature=section.temperature,
            top_p=section.top_p,
            max_new_tokens=section.max_new_tokens,
            batch_tokens=section.batch_tokens,
            seed=seed,
            scratch=scratch,
            progress=track,
            what=f"Sampling from {name}",
        )
        for one in sampled:
            by_prompt[one.prompt_index].append(
                _response(rows[one.prompt_index], one, name, policy_hash, section.temperature, seed)
            )
    count = write_responses((one for responses in by_prompt for one in responses), folder)
    everyone = [one for responses in by_prompt for one in responses]
    return {
        "responses": count,
        "prompts": len(rows),
        "finished": sum(one.finished for one in everyone) / max(count, 1),
        "mean_tokens": sum(one.token_count for one in everyone) / max(count, 1),
    }


def _response(
    row: PromptRow, sampled: Sampled, policy: str, policy_hash: str, temperature: float, seed: int
) -> Response:
    return Response(
        prompt=row.prompt,
        prompt_key=prompt_key(row.prompt),
        response=sampled.text,
        policy=policy,
        policy_hash=policy_hash,
        token_count=sampled.token_count,
        finished=sampled.finished,
        temperature=temperature,
        seed=seed,
        meta=json.dumps(row.meta, sort_keys=True, ensure_ascii=False),
    )
