"""Results: what a target returned, as a file of its run."""

from __future__ import annotations

from typing import Any

from cnai.errors import ResultError

RESULT_FORMAT = "cnai-result-1"


def pack(value: Any) -> bytes:
    """Pickle what the target returned; a value that can't travel becomes the ResultError that `run.result()` raises."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps((RESULT_FORMAT, True, value)))
    except Exception as error:  # noqa: BLE001  objects may raise anything when pickled
        reason = f"the target returned a {type(value).__name__}, which can't travel back ({error}); return plain data"
        return bytes(cloudpickle.dumps((RESULT_FORMAT, False, reason)))


def unpack(data: bytes) -> Any:
    """Return what the target returned."""
    import cloudpickle

    _, travelled, value = cloudpickle.loads(data)
    if not travelled:
        raise ResultError(value)
    return value
