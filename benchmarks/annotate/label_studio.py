"""Label Studio 1.23.2 under the same load: an environment, a server and annotators of its own, on its own SQLite file.

Its telemetry, error reports and version checks are off. Annotators ask its API for the next task and post a pairwise
choice, which is what its page does.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.annotate.client import PAUSE, Connection, Outcome
from benchmarks.annotate.levels import words
from benchmarks.annotate.server import free_port

VERSION = "1.23.2"
CACHE = Path(__file__).parent / ".cache" / "label-studio"
CONSTRAINTS = Path(__file__).parent / "label-studio-constraints.txt"
ADMIN_TOKEN = "0123456789abcdef0123456789abcdef01234567"
SECONDS_TO_START = 240
TASKS = 2_000
CONFIGURATION = """<View><Text name="prompt" value="$prompt"/>
<Pairwise name="comparison" toName="answer1,answer2"/>
<Text name="answer1" value="$answer1"/><Text name="answer2" value="$answer2"/></View>"""
MAKE_ACCOUNTS = """
import json, os, sys, pathlib
import label_studio
sys.path.insert(0, str(pathlib.Path(label_studio.__file__).parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "label_studio.core.settings.label_studio")
import django
django.setup()
from organizations.models import Organization
from rest_framework.authtoken.models import Token
from users.models import User
organization = Organization.objects.first()
tokens = []
for number in range(int(sys.argv[1])):
    user = User.objects.create_user(email=f"annotator{number}@example.com", password="local-only-1")
    organization.add_user(user)
    user.active_organization = organization
    user.save()
    tokens.append(Token.objects.get_or_create(user=user)[0].key)
print("TOKENS", json.dumps(tokens))
"""


def make_environment() -> Path:
    """Install Label Studio into an environment of its own, once; returns its folder of programs."""
    programs, ready = CACHE / "bin", CACHE / ".ready"
    if not ready.exists():
        print(f"making an environment with label-studio {VERSION} (some minutes) …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
        pins = ["--constraint", CONSTRAINTS] if CONSTRAINTS.exists() else []
        install = [programs / "python", "-m", "pip", "install", "--quiet", *pins, f"label-studio=={VERSION}"]
        subprocess.run(install, check=True)
        ready.touch()
    return programs


class LabelStudio:
    """A running Label Studio on an empty folder; a context manager that ends it."""

    def __init__(self, folder: Path, annotators: int) -> None:
        self.folder, self.annotators = folder, annotators
        self.port = free_port()
        self.tokens: list[str] = []
        self.environment = os.environ | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
            "COLLECT_ANALYTICS": "false",
            "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
            "LABEL_STUDIO_USERNAME": "admin@example.com",
            "LABEL_STUDIO_PASSWORD": "local-only-1",
            "LABEL_STUDIO_USER_TOKEN": ADMIN_TOKEN,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        self.environment.pop("PYTHONPATH", None)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> LabelStudio:
        programs = make_environment()
        command = [programs / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait()
        made = subprocess.run(
            [programs / "python", "-c", MAKE_ACCOUNTS, str(self.annotators)],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        self.tokens = json.loads(made.stdout.split("TOKENS", 1)[1])
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS_TO_START:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/user/login/", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        raise RuntimeError(f"Label Studio did not start; its output is in {self.folder / 'server.log'}")

    def _api(self, path: str, message: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(message).encode(),
            {"Authorization": f"Token {ADMIN_TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def project(self) -> int:
        """A new project with tasks of about 300 characters a text, one annotation each; returns its id."""
        values = {"title": uuid.uuid4().hex[:8], "label_config": CONFIGURATION, "maximum_annotations": 1}
        number: int = self._api("/api/projects/", values)["id"]
        rng = random.Random(0)
        names = ("prompt", "answer1", "answer2")
        tasks = [{"data": {name: words(rng) for name in names}} for _ in range(TASKS)]
        self._api(f"/api/projects/{number}/import", tasks)
        return number

    def load(self, annotators: int, seconds: float) -> tuple[Outcome, dict[str, int]]:
        """Annotate without pause; returns what it came to and what is wrong in its database.

        `times` are those of a submit together with the next task, as in plumbline, where one answer carries both.
        """
        project = self.project()
        outcome = Outcome()

        async def all_together() -> None:
            began = time.monotonic()
            until = began + seconds
            people = [self._annotate(token, project, outcome, until) for token in self.tokens[:annotators]]
            await asyncio.gather(*people)
            outcome.seconds = time.monotonic() - began

        asyncio.run(all_together())
        return outcome, self._faults(project, outcome)

    async def _annotate(self, token: str, project: int, outcome: Outcome, until: float) -> None:
        connection = Connection(self.port, {"Authorization": f"Token {token}"})
        submitted: float | None = None  # when the answer was sent after which we wait for the next task
        task = None
        while time.monotonic() < until:
            try:
                if task is None:
                    status, _, body = await connection.request("GET", f"/api/projects/{project}/next")
                    if status != 200:
                        outcome.refusals[f"next {status}"] += 1
                        await asyncio.sleep(PAUSE)
                        continue
                    task = json.loads(body)["id"]
                    if submitted is not None:
                        outcome.times.append(time.perf_counter() - submitted)
                key = uuid.uuid4().hex
                choice = {"selected": random.choice(["left", "right"])}
                result = {"id": key, "from_name": "comparison", "to_name": "comparison", "type": "pairwise"}
                message = json.dumps({"result": [{**result, "value": choice}], "lead_time": 1.0}).encode()
                submitted = time.perf_counter()
                outcome.sent[key] = token
                path = f"/api/tasks/{task}/annotations/?project={project}"
                status, _, body = await connection.request("POST", path, message, "application/json")
                task = None
                if status == 201:
                    outcome.acknowledged[key] = token
                else:
                    outcome.refusals[f"submit {status}"] += 1
                    submitted = None
            except (OSError, EOFError, TimeoutError) as fault:
                outcome.errors[type(fault).__name__] += 1
                submitted = None
                await asyncio.sleep(PAUSE)
        connection.close()

    def _faults(self, project: int, outcome: Outcome) -> dict[str, int]:
        connection = sqlite3.connect(f"file:{self.folder / 'label_studio.sqlite3'}?mode=ro", uri=True, timeout=30)
        rows = connection.execute("SELECT task_id, result FROM task_completion WHERE project_id = ?", (project,))
        keys, tasks = Counter[str](), Counter[int]()
        for task, result in rows:
            result = json.loads(result)
            keys[(json.loads(result) if isinstance(result, str) else result)[0]["id"]] += 1
            tasks[task] += 1
        connection.close()
        return {
            "acknowledged and lost": sum(key not in keys for key in outcome.acknowledged),
            "there twice": sum(number - 1 for number in keys.values()),
            "over the overlap": sum(number - 1 for number in tasks.values()),
        }
