"""Credentials: an engine's address and certificate, in files that only their owner can read."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from cnai.engine.records import known
from cnai.engine.store import writing
from cnai.errors import EngineError
from cnai.paths import engine_dir, private

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Security

FILE = "engine.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An engine's certificate and key, as PEM; `ca` is the authority that signed the certificate."""

    ca: str
    key: str
    cert: str

    @classmethod
    def of(cls, security: Security) -> Self:
        """Return the certificate of a scheduler's security settings."""
        return cls(ca=security.tls_ca_file, key=security.tls_scheduler_key, cert=security.tls_scheduler_cert)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """engine.json: the address of an engine's scheduler, and the certificate that gives access to it."""

    address: str
    tls: Certificate

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `write` wrote; raises ValueError for anything else."""
        content = json.loads(text)
        try:
            return cls(**{**known(cls, content), "tls": Certificate(**known(Certificate, content["tls"]))})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no engine's credentials: {error}") from None

    def write(self, folder: Path) -> None:
        """Replace the file in an engine's folder; at no moment can other accounts read it."""
        fresh = folder / f".{FILE}-{secrets.token_hex(4)}"
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file)
        fresh.replace(folder / FILE)

    def security(self) -> Security:
        """Return these as Dask's settings; without them other accounts and machines can't use the engine."""
        from distributed import Security

        key, cert = self.tls.key, self.tls.cert
        return Security(
            require_encryption=True,
            tls_ca_file=self.tls.ca,
            tls_client_key=key,
            tls_client_cert=cert,
            tls_scheduler_key=key,
            tls_scheduler_cert=cert,
            tls_worker_key=key,
            tls_worker_cert=cert,
        )


def issue(engine: str, address: str) -> None:
    """Create credentials for a named engine and write them with its address; its pods read the file when they start."""
    from distributed import Security

    folder = _folder(engine)
    with writing(folder):
        private(folder)
        Credentials(address=address, tls=Certificate.of(Security.temporary())).write(folder)
        _mark(engine).unlink(missing_ok=True)


def read(engine: str) -> Credentials:
    """Return a named engine's address and credentials."""
    try:
        return Credentials.from_json((_folder(engine) / FILE).read_text())
    except (OSError, ValueError):
        raise EngineError(f"engine {engine!r} is unknown here: its folder has no credentials") from None


def forget(engine: str) -> None:
    """Remove the files of an engine that was never created."""
    shutil.rmtree(_folder(engine), ignore_errors=True)


def mark_stopped(engine: str) -> None:
    """Note that a person stopped this engine, so that no process restarts it without a request."""
    with writing(_folder(engine)):
        private(_folder(engine))
        _mark(engine).touch()


def was_stopped(engine: str) -> bool:
    """Tell whether a person has stopped this engine since it last started."""
    return _mark(engine).exists()


def _folder(engine: str) -> Path:
    return engine_dir() / engine


def _mark(engine: str) -> Path:
    return _folder(engine) / "stopped"
