"""Store: runs on disk, at a root that every node reaches under the same path.

The files are enough to rebuild a Run without the process that started it. All files are written by rename, except the
journal of events, to which only one process at a time appends.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cnai import environment
from cnai.engine.records import Environment, Record, Status
from cnai.errors import StoreError
from cnai.events import Event
from cnai.paths import private
from cnai.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cnai.engine.records import Fingerprint

KEEP_CHECKPOINTS = 2
NOTICE_SECONDS = 60.0


class RunFolder:
    """One run's files: spec.json, record.json, state.json, payload, code.zip, events.jsonl, logs/, and checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name

    @property
    def spec(self) -> RunSpec:
        """Return the run's spec; without the values of `env` if they are not here, as in an app."""
        spec = RunSpec.from_json((self.path / "spec.json").read_text())
        found = self.environment if spec.env else None
        return replace(spec, env=found.given) if found else spec

    @property
    def environment(self) -> Environment | None:
        """Return the variables with which the run was started, None if it has no such file."""
        try:
            return Environment.from_json((self.path / "environment").read_text())
        except FileNotFoundError:
            return None

    @property
    def record(self) -> Record:
        """Return who started the run, when, from which code and versions."""
        return Record.from_json((self.path / "record.json").read_text())

    def note(self, fingerprint: Fingerprint) -> None:
        """Add the fingerprint to the record."""
        write(self.path / "record.json", replace(self.record, fingerprint=fingerprint).to_json())

    @property
    def payload(self) -> Path:
        """Return the captured target's file."""
        return self.path / "payload"

    @property
    def result(self) -> Path:
        """Return the file of the target's return value; it exists after SUCCEEDED."""
        return self.path / "result"

    @property
    def journal(self) -> Path:
        """Return the file of all events, one JSON fact per line."""
        return self.path / "events.jsonl"

    def log_file(self, generation: int, rank: int) -> Path:
        """Return the file of a rank's output."""
        return self.path / "logs" / f"gen-{generation}" / f"rank-{rank}.log"

    def events(self) -> list[Event]:
        """Read the journal."""
        return parse(self.read_journal())

    def read_journal(self, start: int = 0) -> bytes:
        """Return the journal's complete lines from a byte position on."""
        try:
            with self.journal.open("rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    @property
    def begun(self) -> bool:
        """Tell whether an engine has begun the run."""
        return (self.path / "state.json").exists()

    def status(self) -> Status:
        """Return the run's last written status."""
        try:
            return Status.from_json((self.path / "state.json").read_text())
        except FileNotFoundError:
            return Status()

    def write_status(self, status: Status) -> None:
        """Replace the status."""
        write(self.path / "state.json", status.to_json())

    @property
    def notice(self) -> str:
        """Return what the run waits for, "" if no follower has written it within a minute."""
        path = self.path / "notice"
        try:
            fresh = time.time() - path.stat().st_mtime < NOTICE_SECONDS
            return path.read_text() if fresh else ""
        except OSError:
            return ""

    def write_notice(self, text: str) -> None:
        """Write what the run waits for; call it repeatedly while the run waits. "" removes the notice."""
        path = self.path / "notice"
        try:
            if not text:
                path.unlink(missing_ok=True)
            elif self.notice != text or time.time() - path.stat().st_mtime > NOTICE_SECONDS / 3:
                write(path, text)
        except (OSError, StoreError):
            return  # a full disk: the run itself doesn't need this

    def latest(self) -> Path | None:
        """Return the last committed checkpoint, None if there is none."""
        link = self.path / "checkpoints" / "latest"
        try:
            return self.path / link.read_text()
        except FileNotFoundError:
            return None

    def commit_checkpoint(self, relative: str) -> None:
        """Move `latest` to a complete checkpoint; only the supervisor calls it."""
        write(self.path / "checkpoints" / "latest", relative)

    def prune_checkpoints(self) -> None:
        """Remove all but the last two checkpoints; an unfinished checkpoint is newer and stays."""
        latest = self.latest()
        found = sorted((self.path / "checkpoints").glob("gen-*/step-*"), key=lambda p: p.stat().st_mtime)
        older = found[: found.index(latest)] if latest in found else []
        for old in older[: 1 - KEEP_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)

    @property
    def code_zip(self) -> Path:
        """Return the file of the run's local modules; it exists if there are any."""
        return self.path / "code.zip"


class Store:
    """All runs below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(
        self, spec: RunSpec, record: Record, payload: bytes, code_zip: bytes, environment: Environment | None = None
    ) -> RunFolder:
        """Write a new run; on failure no part of it remains."""
        created = record.created or time.time()
        run_id = f"{spec.name}-{time.strftime('%m%d-%H%M%S', time.localtime(created))}-{secrets.token_hex(2)}"
        fresh, path = self.root / f".{run_id}", self.root / run_id
        with writing(path):
            try:
                private(self.root)
                fresh.mkdir(mode=0o700)  # the root may be open to others
                if environment is not None:
                    _write_secret(fresh / "environment", replace(environment, given=spec.env).to_json())
                    spec = replace(spec, env=dict.fromkeys(spec.env, ""))
                (fresh / "spec.json").write_text(spec.to_json())
                (fresh / "record.json").write_text(replace(record, created=created).to_json())
                (fresh / "payload").write_bytes(payload)
                if code_zip:
                    (fresh / "code.zip").write_bytes(code_zip)
                (fresh / "logs").mkdir()
                (fresh / "checkpoints").mkdir()
                fresh.rename(path)
            except OSError:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        return RunFolder(path)

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run that exists."""
        path = self.root / run_id
        if self._is_foreign(path) or not (path / "spec.json").exists():
            raise StoreError(f"no run {run_id} in {self.root}")
        return RunFolder(path)

    def folders(self) -> list[RunFolder]:
        """Return all runs except other accounts' runs, newest first."""
        if not self.root.exists():
            return []
        mine = [path for path in self.root.iterdir() if not path.name.startswith(".") and not self._is_foreign(path)]
        found = [RunFolder(path) for path in mine if (path / "record.json").exists()]
        return sorted(found, key=lambda folder: folder.record.created, reverse=True)

    def _is_foreign(self, path: Path) -> bool:
        """Tell whether neither we, root nor the store's owner own the run; loading its pickles would run its code."""
        try:
            owner = path.lstat().st_uid
        except FileNotFoundError:
            return False
        return owner not in {0, os.geteuid(), self.root.stat().st_uid}


class Journal:
    """Appends events to a run's journal and returns the byte position of each batch.

    While the disk is full, batches are kept in memory and written when there is room again; nothing is lost while the
    process runs.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._fd = os.open(folder.journal, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._written = os.fstat(self._fd).st_size
        self._waiting = b""

    @property
    def behind(self) -> bool:
        """Tell whether batches wait for room on the disk."""
        return bool(self._waiting)

    def append(self, text: str) -> int:
        """Write complete lines; return the byte position of the first."""
        position = self._written + len(self._waiting)
        self._waiting += text.encode()
        try:
            while self._waiting:
                count = os.write(self._fd, self._waiting)
                self._written += count
                self._waiting = self._waiting[count:]
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
        return position

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def parse(lines: bytes) -> list[Event]:
    """Read complete journal lines."""
    return [Event.from_json(line.decode()) for line in lines.splitlines()]


def write(path: Path, content: str | bytes) -> None:
    """Write a file by rename, so that readers see either the old or the new content."""
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with writing(path):
        try:
            fresh.write_bytes(content.encode() if isinstance(content, str) else content)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


def _write_secret(path: Path, content: str) -> None:
    """Write a new file that only this account can open, whatever becomes of its folder."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of a write into a StoreError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(
                f"the disk of {path} is full; free some space and try again, nothing was started"
            ) from None
        raise StoreError(
            f"can't write {path}: {error.strerror}; check the folder, or set {environment.HOME} to another folder"
        ) from None
