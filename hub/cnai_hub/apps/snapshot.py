"""Snapshots: the notebook and files that an author uploads, checked, and written to a folder without outputs."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cnai.appwire import Pins, Request
from cnai.errors import UsageError
from cnai.publication import MOST_BYTES, MOST_FILES, MOST_RUN_BYTES, RUN_FILES, checked_slug
from cnai.tables import Mistake
from cnai_hub.apps import bundle

MOST_RUNS = 50
LONGEST_TITLE = 100
_LONGEST_PATH = 4096
_MOST_PACKAGES = 3000
_MOST_PINS = 3000
_NOTEBOOK_BYTES = 25 * 2**20
_MARGIN_BYTES = 2**20

MOST_MEMBERS = MOST_FILES + 5 * MOST_RUNS + 10
LONGEST = MOST_BYTES + MOST_RUN_BYTES + _NOTEBOOK_BYTES + MOST_MEMBERS * 2048 + _MARGIN_BYTES
"""The limits of a bundle: MOST_MEMBERS files and LONGEST bytes."""

_RUN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The request that an author sends before the upload: name, viewers, and the app's image and flavor."""

    slug: str
    title: str
    name: str
    share: tuple[str, ...] = ()
    keep_share: bool = False
    source: str = ""
    replace: bool = False
    flavor: str = ""
    image: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Wanted):
    """A notebook with the files it needs; `files` are relative to the notebook's folder.

    `python` and `packages` are the versions of the trial run as the author's client reports them; `runs` has the files
    of the runs that the app shows (`<run>/<file>`).
    """

    notebook: Any
    files: dict[str, bytes]
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    runs: dict[str, bytes] = field(default_factory=dict)
    pins: Pins | None = None

    @property
    def run_names(self) -> tuple[str, ...]:
        """Return the names of the runs."""
        return tuple(dict.fromkeys(path.partition("/")[0] for path in self.runs))

    def write(self, stage: Path) -> None:
        """Write `files/` and `runs/` to a new folder, and free their memory, since publishing may take minutes more."""
        import nbformat

        for relative, content in [*_below("files", self.files), *_below("runs", self.runs)]:
            path = stage / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (stage / "files").mkdir(exist_ok=True)
        nbformat.write(self.notebook, stage / "files" / self.name)
        self.files.clear()
        self.runs.clear()


def read(body: IO[bytes]) -> Snapshot:
    """Read an uploaded bundle; UsageError if it is invalid."""
    found = dict(bundle.members(body, MOST_MEMBERS, LONGEST))
    request = request_of(found.pop("request.json", b""))
    asked = wanted(request)
    try:
        files = _part("files", found)
        notebook = json.loads(files.pop(asked.name))
        snapshot = Snapshot(
            **asdict(asked),
            notebook=clean(notebook, asked.name, asked.title),
            files=files,
            python=request.python[:20],
            packages=_packages(request.packages),
            runs=_part("runs", found),
            pins=request.pins,
        )
    except UsageError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"this is not a publish request ({type(error).__name__}: {error})") from None
    _check_runs(snapshot)
    _check_pins(snapshot.pins)
    _check_size(f"{len(snapshot.files)} files", snapshot.files, MOST_FILES, MOST_BYTES)
    _check_size(f"the {len(snapshot.runs)} files of its runs", snapshot.runs, 5 * MOST_RUNS, MOST_RUN_BYTES)
    return snapshot


def request_of(text: bytes) -> Request:
    """Parse a request; UsageError if it is not one."""
    try:
        return Request.from_json(text)
    except Mistake as mistake:
        raise UsageError(f"this is not a publish request ({mistake})") from None


def wanted(request: Request) -> Wanted:
    """Check a request; UsageError if a value is invalid."""
    slug, name = request.slug, request.name
    checked_slug(slug)
    if PurePosixPath(name).name != name or not name.endswith(".ipynb"):
        raise UsageError(f"{name!r} is not a notebook's file name; it must end in .ipynb")
    if "" in request.share:
        raise UsageError("share must be a list of names of users or groups; one of the given names is empty")
    return Wanted(
        slug=slug,
        title=(" ".join(request.title.split()) or slug)[:LONGEST_TITLE],
        name=name,
        share=tuple(dict.fromkeys(request.share)),
        keep_share=request.keep_share,
        source=request.source[:_LONGEST_PATH],
        replace=request.replace,
        flavor=request.flavor,
        image=request.image,
        reference=request.reference,
    )


def _part(folder: str, found: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files below a folder of a request."""
    return {path.removeprefix(f"{folder}/"): data for path, data in found.items() if path.startswith(f"{folder}/")}


def _below(folder: str, files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{folder}/{path}", content) for path, content in files.items()]


def _packages(given: dict[str, str]) -> dict[str, str]:
    if len(given) > _MOST_PACKAGES:
        raise UsageError(f"packages must be at most {_MOST_PACKAGES} names with their versions")
    return {name[:200]: version[:200] for name, version in given.items()}


def _check_runs(snapshot: Snapshot) -> None:
    for path in snapshot.runs:
        run, _, file = path.partition("/")
        if not _RUN.fullmatch(run) or file not in RUN_FILES:
            raise UsageError(f"{path!r} can't be included; the allowed files of a run are {', '.join(RUN_FILES)}")
    for run in snapshot.run_names:
        if missing := [file for file in RUN_FILES[:2] if f"{run}/{file}" not in snapshot.runs]:
            raise UsageError(f"run {run!r} lacks {missing[0]}; publish the notebook again")


def _check_pins(pins: Pins | None) -> None:
    if pins and len(pins.names) + len(pins.inputs) > _MOST_PINS:
        raise UsageError(f"the notebook looks up more than {_MOST_PINS} runs; an app can't keep so many; look up fewer")


def _check_size(what: str, files: dict[str, bytes], most: int, most_bytes: int) -> None:
    size = sum(map(len, files.values()))
    if len(files) > most or size > most_bytes:
        raise UsageError(
            f"{what} of {size / 2**20:.0f} MiB are too much for an app; "
            f"allowed: {most} files, {most_bytes // 2**20} MiB; include less, read large data from where it is"
        )


def clean(content: Any, name: str, title: str) -> Any:
    """Return a notebook without outputs and without metadata of the author's machine."""
    import nbformat  # importing it takes a second, and the hub waits for this service to start

    try:
        with warnings.catch_warnings(action="ignore"):  # nbformat adds missing ids of cells, with a warning
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            nbformat.validate(notebook)
    except Exception as error:  # noqa: BLE001 - nbformat doesn't document its exceptions for invalid JSON
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
