"""Results: a target's return value as a file of its run."""

from __future__ import annotations

from typing import Any

from cnai.errors import ResultError

RESULT_FORMAT = "cnai-result-1"


def pack(value: Any) -> bytes:
    """Pickle the target's return value; a value that can't be pickled becomes the ResultError of `run.result()`."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps((RESULT_FORMAT, True, value)))
    except Exception as error:  # noqa: BLE001  pickling an object may raise any exception
        reason = f"the target returned a {type(value).__name__}, which can't travel back ({error}); return plain data"
        return bytes(cloudpickle.dumps((RESULT_FORMAT, False, reason)))


def unpack(data: bytes) -> Any:
    """Return the target's return value. Raises ResultError."""
    import cloudpickle

    _, travelled, value = cloudpickle.loads(data)
    if not travelled:
        raise ResultError(value)
    return value
