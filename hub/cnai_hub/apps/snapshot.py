"""Snapshots: what an author sends, checked, and written to a folder without outputs."""

from __future__ import annotations

import base64
import binascii
import json
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cnai.errors import UsageError
from cnai_hub.apps.releases import LONGEST_SLUG, valid_slug

MOST_FILES = 500
MOST_BYTES = 50 * 2**20
LONGEST_TITLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A notebook with the files it needs; `files` are relative to the notebook's folder."""

    slug: str
    title: str
    name: str
    notebook: Any
    files: dict[str, bytes]
    share: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write all files to a new folder."""
        import nbformat

        folder.mkdir()
        for relative, content in self.files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        nbformat.write(self.notebook, folder / self.name)


def read(body: bytes) -> Snapshot:
    """Return what a publish request asks for; UsageError says what is wrong with it."""
    try:
        request: dict[str, Any] = json.loads(body)
        snapshot = _read(request)
    except UsageError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise UsageError(f"this is not a publish request ({type(error).__name__}: {error})") from None
    size = sum(map(len, snapshot.files.values()))
    if len(snapshot.files) > MOST_FILES or size > MOST_BYTES:
        raise UsageError(
            f"{len(snapshot.files)} files of {size / 2**20:.0f} MiB are too much for an app; "
            f"allowed: {MOST_FILES} files, {MOST_BYTES // 2**20} MiB; include less, read large data from where it is"
        )
    return snapshot


def _read(request: dict[str, Any]) -> Snapshot:
    slug, name = str(request["slug"]), str(request["name"])
    if not valid_slug(slug):
        raise UsageError(
            f"{slug!r} can't be an app's name; allowed: lowercase letters, digits and single '-' between them, "
            f"at most {LONGEST_SLUG} characters"
        )
    if PurePosixPath(name).name != name or not name.endswith(".ipynb"):
        raise UsageError(f"{name!r} is not a notebook's file name; it must end in .ipynb")
    share = request.get("share") or []
    if not isinstance(share, list) or not all(isinstance(who, str) and who for who in share):
        raise UsageError("share must be a list of names of users or groups")
    title = " ".join(str(request.get("title") or "").split()) or slug
    files = {_inside(path): base64.b64decode(data, validate=True) for path, data in request.get("files", {}).items()}
    return Snapshot(
        slug=slug,
        title=title[:LONGEST_TITLE],
        name=name,
        notebook=clean(request["notebook"], name, title),
        files={path: data for path, data in files.items() if path != name},
        share=tuple(dict.fromkeys(share)),
    )


def clean(content: Any, name: str, title: str) -> Any:
    """Return a notebook without outputs and without what only its author's machine knows."""
    import nbformat  # takes a second, and the hub waits for this service to start

    try:
        with warnings.catch_warnings(action="ignore"):  # cells without ids get some
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            nbformat.validate(notebook)
    except Exception as error:  # noqa: BLE001 - what nbformat raises for a stranger's JSON is not documented
        raise UsageError(f"{name} is not a notebook: {str(error).splitlines()[0]}") from None
    language = notebook.metadata.get("kernelspec", {}).get("language") or "python"
    if language != "python":
        raise UsageError(f"{name} is a {language} notebook; only Python notebooks can be published")
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in {"tags", "jupyter"}}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = nbformat.from_dict({"title": title, "kernelspec": kernel, "language_info": {"name": "python"}})
    return notebook


def _inside(path: str) -> str:
    """Return the path in its normal form; it must stay inside the snapshot."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path or "\0" in path:
        raise UsageError(f"{path!r} can't be included; only files in the notebook's folder can")
    return str(pure)
