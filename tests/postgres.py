"""A PostgreSQL server of the tests' own: made in a temporary folder, reached by a Unix socket, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest


def _programs() -> Path | None:
    """The newest folder of PostgreSQL's server programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _owner() -> str | None:
    """Whom the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")


@contextlib.contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[Path]:
    """Run a server; gives the folder of its socket. Skips the test where there are no server programs."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs are installed (Debian: apt install postgresql)")
    owner = _owner()
    folder = Path(tempfile.mkdtemp(prefix="pl-pg-"))
    if owner:
        shutil.chown(folder, owner)
    try:
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            user=owner,
            cwd=folder,
        )
        settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "on" if fsync else "off"}
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        control(folder, "start")
        try:
            yield folder
        finally:
            control(folder, "stop", "--mode=immediate")  # nothing in it is kept
    finally:
        shutil.rmtree(folder)


def control(folder: Path, *command: str) -> None:
    """Stop, start or restart the server of this folder, as `pg_ctl` does."""
    programs = _programs()
    assert programs is not None
    log = ["--log", str(folder / "log")] if command[0] != "stop" else []
    arguments = [programs / "pg_ctl", *command, "-D", folder / "data", "--wait", *log]
    subprocess.run(arguments, check=True, capture_output=True, user=_owner(), cwd=folder)


def new_database(folder: Path, like: str | None = None) -> str:
    """Make an empty database, or a copy of another one; gives its URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    template = f" TEMPLATE {like}" if like else ""
    with psycopg.connect(host=str(folder), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{template}".encode())
    return f"postgresql://postgres@/{name}?host={folder}"


def database_of(url: str) -> str:
    """The name of the database that a URL of `new_database` leads to."""
    return url.split("@/")[1].split("?")[0]
