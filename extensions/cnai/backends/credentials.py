"""Credentials: how an engine is reached, and what proves that it is its person's own; files that nobody else reads."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any

from cnai.engine.store import writing
from cnai.errors import EngineError
from cnai.paths import engine_dir, private

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Security


def security(status: dict[str, Any]) -> Security:
    """Return the credentials of a running engine: without them nobody else on its machine or network can use it."""
    from distributed import Security

    ca, key, cert = (status["tls"][part] for part in ("ca", "key", "cert"))
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_key=key,
        tls_client_cert=cert,
        tls_scheduler_key=key,
        tls_scheduler_cert=cert,
        tls_worker_key=key,
        tls_worker_cert=cert,
    )


def issue(engine: str, address: str) -> None:
    """Make new credentials for a named engine and write them with its address, before its pods read them."""
    from distributed import Security

    made = Security.temporary()
    tls = {"ca": made.tls_ca_file, "key": made.tls_scheduler_key, "cert": made.tls_scheduler_cert}
    folder = _folder(engine)
    fresh = folder / f".engine.json-{secrets.token_hex(4)}"
    with writing(folder):
        private(folder)
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            json.dump({"address": address, "tls": tls}, file)
        fresh.replace(folder / "engine.json")
        _mark(engine).unlink(missing_ok=True)


def read(engine: str) -> dict[str, Any]:
    """Return a named engine's address and credentials."""
    try:
        status: dict[str, Any] = json.loads((_folder(engine) / "engine.json").read_text())
    except (OSError, ValueError):
        raise EngineError(f"nothing is known of an engine {engine!r} here") from None
    return status


def forget(engine: str) -> None:
    """Remove what was written for an engine that never came to be."""
    shutil.rmtree(_folder(engine), ignore_errors=True)


def mark_stopped(engine: str) -> None:
    """Note that a person ended this engine, so that nobody starts it again unasked."""
    with writing(_folder(engine)):
        private(_folder(engine))
        _mark(engine).touch()


def was_stopped(engine: str) -> bool:
    """Tell whether a person ended this engine since it was started last."""
    return _mark(engine).exists()


def _folder(engine: str) -> Path:
    return engine_dir() / engine


def _mark(engine: str) -> Path:
    return _folder(engine) / "stopped"
