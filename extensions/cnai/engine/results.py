"""Results: a target's return value as a file of its run."""

from __future__ import annotations

import io
import pickle
import sys
from functools import cache
from typing import Any

from cnai.errors import ResultError

RESULT_FORMAT = "cnai-result-1"


def pack(value: Any) -> bytes:
    """Pickle the target's return value; a value that can't be pickled becomes the ResultError of `run.result()`.

    Wherever they are in the value, tensors travel on the CPU and without gradient history, a view without the rest of
    its storage, and models without their DDP wrapper.
    """
    import cloudpickle

    try:
        with io.BytesIO() as file:
            _pickler()(file).dump((RESULT_FORMAT, True, value))
            return file.getvalue()
    except Exception as error:  # noqa: BLE001  pickling an object may raise any exception
        reason = f"the target returned a {type(value).__name__}, which can't travel back ({error}); return plain data"
        return bytes(cloudpickle.dumps((RESULT_FORMAT, False, reason)))


@cache
def _pickler() -> type[Any]:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            torch: Any = sys.modules.get("torch")
            if torch is not None:
                if type(obj) is torch.Tensor:
                    return _plain(obj).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
                if isinstance(obj, torch.nn.parallel.DistributedDataParallel):
                    return _same, (obj.module,)
                if isinstance(obj, torch.UntypedStorage) and obj.device.type != "cpu":
                    return obj.cpu().__reduce__()
            return super().reducer_override(obj)

    return Pickler


def _same(value: Any) -> Any:
    return value


def _plain(tensor: Any) -> Any:
    """Return a tensor as it travels; leaves keep `requires_grad`."""
    if tensor.layout is not sys.modules["torch"].strided or tensor.device.type == "meta":
        return tensor.detach() if not tensor.is_leaf else tensor
    plain = tensor.detach().cpu()
    if plain.numel() * plain.element_size() < plain.untyped_storage().nbytes():
        plain = plain.clone()
    return plain.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def unpack(data: bytes) -> Any:
    """Return the target's return value. Raises ResultError."""
    import cloudpickle

    _, travelled, value = cloudpickle.loads(data)
    if not travelled:
        raise ResultError(value)
    return value
