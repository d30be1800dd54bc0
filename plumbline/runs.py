"""The run folder: `runs/<name>/<stage>/`, each with a manifest, each complete or absent.

A stage is written beside its place (`.partial-<stage>/`) and renamed when it is whole, so that killing the process at
any moment leaves no half-written stage folder. What a stage needs to resume (checkpoints, part files) lies in the
partial folder's `scratch/` and is used again when the stage is started with the same inputs and configuration.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from plumbline.errors import RunLockedError, UserError

MANIFEST = "manifest.json"
REDO = ".redo.json"
FORMAT = 1
FREE_AT_LEAST = 1 << 20  # bytes; an error with less than this free is a full disk
NOT_HASHED = {MANIFEST, "README.md", "training_log.jsonl", "report.html", "overoptimization.svg"}
LIBRARIES = ("plumbline", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers")


class InputRef(BaseModel):
    """Something a stage read: another stage's output, a file, or a model."""

    kind: str = Field(description="stage, file, model or judgements")
    source: str = Field(description="Where it was: a stage's name, or a path or hub name.")
    hash: str = Field(description="SHA-256 of its content.")
    facts: dict[str, Any] = Field(
        default_factory=dict, description="What else is known of it: rows, simulated share, …"
    )


class Manifest(BaseModel):
    """What a finished stage was made from, how, and with which result."""

    format: int = FORMAT
    stage: str
    run: str
    run_folder: list[str] = Field(
        default_factory=list, description="Where the run folder was: as it was named, and without links."
    )
    fingerprint: str = Field(
        description="SHA-256 of stage, configuration, seed and input hashes: equal means up to date."
    )
    output_hash: str = Field(description="SHA-256 over the folder's files.")
    config: dict[str, Any]
    seed: int
    inputs: dict[str, InputRef]
    model: dict[str, Any] | None = Field(
        None, description="Identity of the model made: base, tokenizer and template hashes, pad and eos ids, adapter."
    )
    metrics: dict[str, Any] = Field(default_factory=dict)
    created: str
    wall_seconds: float
    libraries: dict[str, str]
    hardware: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a stage folder, or None where there is none.

        Raises:
            UserError: it is damaged, or was written by a newer plumbline.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(raw, dict) and raw.get("format", 0) > FORMAT:
                raise UserError(
                    f"{path} was written by a newer plumbline (format {raw['format']}, this one reads {FORMAT}): "
                    "upgrade plumbline, or use another run name."
                )
            return cls.model_validate(raw)
        except (ValueError, ValidationError) as error:
            raise UserError(f"{path} is damaged ({error}): delete the folder {folder} to redo that stage.") from None


@dataclass(frozen=True)
class StageContext:
    """Where a stage's body works: final files into `folder`, what it resumes from into `scratch`."""

    folder: Path
    scratch: Path
    resumed: bool


def fingerprint_of(stage: str, config: Mapping[str, Any], seed: int, inputs: Mapping[str, InputRef]) -> str:
    """The hash that decides whether a stage is up to date."""
    content = {
        "format": FORMAT,
        "stage": stage,
        "config": config,
        "seed": seed,
        "inputs": {name: reference.hash for name, reference in inputs.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """SHA-256 over a stage folder's files by name and content; manifest, cards, logs and reports of it do not count."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_HASHED):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


class Run:
    """One run folder.

    Args:
        root: `runs/<name>`.
        create: make it when it is missing.

    Raises:
        UserError: a file is in its way, or it cannot be made or written.
    """

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self.root = root
        place = next((path for path in (root, *root.parents) if path.exists()), root)
        if place.is_file():
            raise UserError(f"the run folder {root} cannot be made: {place} is a file; give a folder with --runs.")
        if not create:
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the run folder {root} cannot be made: {error.strerror}; give a place with --runs."
            ) from None
        if not os.access(root, os.W_OK):
            raise UserError(
                f"the run folder {root} cannot be written: change its permissions, or give a place with --runs."
            )

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.root.name

    def folder(self, stage: str) -> Path:
        """Where a stage's finished output is, or will be."""
        return self.root / stage

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of a finished stage."""
        return Manifest.read(self.folder(stage))

    def partial(self, stage: str) -> Path:
        """Where a stage is written until it is whole."""
        return self.root / f".partial-{stage}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder for this process; the lock goes with the process, however it ends.

        Raises:
            RunLockedError: another process holds it; the error names its process id.
        """
        with (self.root / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                pid = file.read().strip()
                raise RunLockedError(self.root, int(pid) if pid.isdigit() else None) from None
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            self._recover()
            try:
                yield
            finally:
                file.seek(0)
                file.truncate()

    def execute(
        self,
        stage: str,
        *,
        config: Mapping[str, Any],
        seed: int,
        inputs: Mapping[str, InputRef],
        body: Callable[[StageContext], dict[str, Any]],
        describe: Callable[[Path], dict[str, Any] | None] = lambda folder: None,
        finish: Callable[[Path, Manifest], None] = lambda folder, manifest: None,
    ) -> Manifest:
        """Run a stage's body and put its folder in place when it is whole.

        Args:
            stage: the folder's name.
            config: what of the recipe decides the result.
            seed: the seed the body uses.
            inputs: what it reads.
            body: writes into `context.folder`, resumes from `context.scratch`, returns metrics.
            describe: returns the identity of the model in a finished folder, for the manifest.
            finish: writes what needs the manifest (the model card) into the folder.
        """
        fingerprint = fingerprint_of(stage, config, seed, inputs)
        finished = self._finished_but_not_in_place(stage, fingerprint)
        if finished is not None:
            self._put_in_place(stage)
            return finished
        context = self._prepare(stage, fingerprint)
        started = time.monotonic()
        with _told_when_disk_is_full(self.root):
            metrics = body(context)
            manifest = Manifest(
                stage=stage,
                run=self.name,
                run_folder=[str(self.root), str(self.root.resolve())],
                fingerprint=fingerprint,
                output_hash=hash_folder(context.folder),
                config=json.loads(json.dumps(config, default=str)),
                seed=seed,
                inputs=dict(inputs),
                model=describe(context.folder),
                metrics=metrics,
                created=datetime.now(UTC).isoformat(timespec="milliseconds"),
                wall_seconds=round(time.monotonic() - started, 2),
                libraries=library_versions(),
                hardware=hardware(),
            )
            finish(context.folder, manifest)
            write_synced(context.folder / MANIFEST, manifest.model_dump_json(indent=2))
            _sync_folder(context.folder)
        self._put_in_place(stage)
        return manifest

    def discard(self, stage: str) -> None:
        """Forget a stage's unfinished work, so that it starts from nothing."""
        shutil.rmtree(self.partial(stage), ignore_errors=True)

    def begin_redo(self, stages: Collection[str]) -> set[str]:
        """Note which stages a forced run is to redo, or go on with it where it was interrupted; return those left.

        The note holds the manifests that are to be replaced: a stage with another one has been redone. Unfinished work
        from before the note is dropped; what is there when the same is asked again is the forced run's own. Other
        stages than noted, or none, give up what was left.
        """
        if not stages:
            self.end_redo()
            return set()
        note = self.root / REDO
        replaced = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        if replaced.keys() != set(stages):
            for stage in stages:
                self.discard(stage)
            replaced = {stage: self._manifest_hash(stage) for stage in sorted(stages)}
            write_synced(note, json.dumps(replaced, indent=2))
        return {stage for stage, manifest in replaced.items() if self._manifest_hash(stage) == manifest}

    def end_redo(self) -> None:
        """Forget a forced run that came to its end."""
        (self.root / REDO).unlink(missing_ok=True)

    def _manifest_hash(self, stage: str) -> str | None:
        path = self.folder(stage) / MANIFEST
        return hash_file(path) if path.is_file() else None

    def _finished_but_not_in_place(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of an output that was whole when the process was killed before the rename."""
        manifest = Manifest.read(self.partial(stage) / "output")
        return manifest if manifest and manifest.fingerprint == fingerprint else None

    def _prepare(self, stage: str, fingerprint: str) -> StageContext:
        partial = self.partial(stage)
        mark = partial / "fingerprint"
        resumed = mark.is_file() and mark.read_text() == fingerprint
        if not resumed:
            shutil.rmtree(partial, ignore_errors=True)
        folder, scratch = partial / "output", partial / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        write_synced(mark, fingerprint)
        return StageContext(folder=folder, scratch=scratch, resumed=resumed)

    def _put_in_place(self, stage: str) -> None:
        place, partial, old = self.folder(stage), self.partial(stage), self.root / f".old-{stage}"
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        (partial / "output").rename(place)
        _sync_folder(self.root)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

    def _recover(self) -> None:
        """Finish what a kill inside `_put_in_place` left, and drop what is no longer needed."""
        for old in self.root.glob(".old-*"):
            place = self.root / old.name.removeprefix(".old-")
            if not place.exists():
                old.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        for partial in self.root.glob(".partial-*"):
            mark, output = partial / "fingerprint", partial / "output"
            finished = self.manifest(partial.name.removeprefix(".partial-"))
            if not mark.is_file() or (
                finished and finished.fingerprint == mark.read_text() and not output.exists()
            ):  # it cannot be gone on with, or its output is in place
                shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _told_when_disk_is_full(root: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # torch.save and safetensors tell a full disk in words of their own
        if full or "No space left on device" in str(error) or shutil.disk_usage(root).free < FREE_AT_LEAST:
            raise UserError(
                f"the disk that holds {root} is full: free some space and run the same command again; "
                "finished stages and the last checkpoint are kept."
            ) from error
        raise


def write_synced(path: Path, text: str) -> None:
    """Write a file that is whole or not there, whenever the process is killed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _sync_folder(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide a result."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def hardware() -> dict[str, Any]:
    """Processor cores, memory and accelerators of this machine."""
    import torch

    found: dict[str, Any] = {"machine": platform.machine(), "cores": os.cpu_count()}
    with contextlib.suppress(ValueError, OSError):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found
