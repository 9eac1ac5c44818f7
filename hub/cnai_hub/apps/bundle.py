"""Bundles: plain tar archives that carry files to the apps service, and from there to app pods."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def inside(path: str) -> str:
    """Return a path in its normal form; UsageError if it leads out of its folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path or "\0" in path:
        raise UsageError(f"{path!r} can't be included; only files in the notebook's folder can")
    return str(pure)


def members(file: IO[bytes], most_files: int, most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of a bundle's files; UsageError if it holds anything else, or too much."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for count, member in enumerate(tar, 1):
                most_bytes -= member.size
                if count > most_files or most_bytes < 0:
                    raise UsageError("the bundle holds more files or bytes than an app may have; include less")
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise UsageError(f"{member.name!r} is not a regular file; an app can include only files")
                yield inside(member.name), content.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"the upload is not a bundle of files ({error})") from None


def pack(file: IO[bytes], folder: Path, names: list[str]) -> None:
    """Write files of a folder, or all files of its subfolders, into a bundle, without their owners and modes."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(found for name in names for found in _files(folder / name)):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(member, content)


def unpack(file: IO[bytes], folder: Path, most_files: int, most_bytes: int) -> None:
    """Write a bundle's files into a folder."""
    for name, content in members(file, most_files, most_bytes):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
