"""Diagnoses: cause and fix of known failures of ranks, found by what their summary or traceback says."""

from __future__ import annotations

import re

_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"CUDA out of memory|OutOfMemoryError",
        "the GPU's memory is full: use a smaller batch_size, more shards, or a larger flavor",
    ),
    (
        r"SIGKILL",
        "nobody asked for this kill; usually the machine ran out of memory: use fewer ranks or a smaller batch_size",
    ),
    (r"SIGSEGV|SIGABRT|SIGBUS", "native code crashed; the rank's log may hold the stack of each thread"),
    (r"No module named", "put the module next to the notebook, or install it in the environment the engine runs in"),
    (r"get_ipython", "magics and IPython functions don't exist in a rank; use plain Python in the target"),
    (
        r"does not require grad",
        "the loss doesn't depend on the model's parameters; look for .detach(), no_grad() or .item() before it",
    ),
    (
        r"Expected more than 1 value per channel",
        "BatchNorm needs two samples per shard: use fewer shards or a larger batch_size",
    ),
    (
        r"[Tt]imed out|wait timeout",
        "a rank waited too long for the others; a branch that only some ranks take is the usual cause",
    ),
    (r"Address already in use|EADDRINUSE", "another process took the port; train again"),
    (r"No space left on device", "the disk is full: free some space, or checkpoint less often"),
)


def hint(text: str) -> str:
    """Return cause and fix of a known pattern, "" for other texts."""
    return next((fix for pattern, fix in _HINTS if re.search(pattern, text)), "")
