"""Diagnoses: cause and fix of known failures of ranks, and the part of their output that shows the failure."""

from __future__ import annotations

import re

from cnai.engine.capture import frozen, sources

LINES = 10
_FATAL = "Fatal Python error: "
_FRAME = re.compile(r'  File "(.+)", line \d+ in ')

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
    (r"exited with code", "the code ended its own process, without an exception; --retries N starts it again"),
)


def hint(text: str) -> str:
    """Return cause and fix of a known pattern, "" for other texts."""
    return next((fix for pattern, fix in _HINTS if re.search(pattern, text)), "")


def tail(log: str) -> str:
    """Return a log's last lines; of a crash in native code also the stack of its thread, without cnai's frames."""
    said, fatal, dump = log.rpartition(_FATAL)
    if not fatal:
        return "\n".join(log.splitlines()[-LINES:])
    return "\n".join([*said.splitlines()[-LINES:], *_crash(fatal + dump)])


def _crash(dump: str) -> list[str]:
    """Return the first line and the current thread of faulthandler's dump, whose frames begin with the innermost."""
    first, _, rest = dump.partition("\n")
    before, _, stack = rest.partition("Current thread ")
    frames = [line for line in (stack or before).partition("\n\n")[0].splitlines() if _FRAME.match(line)]
    files = [found[1] for line in frames if (found := _FRAME.match(line))]
    end = files.index(frozen.__file__) if frozen.__file__ in files else len(files)
    return [first, *(line for line, file in zip(frames[:end], files, strict=False) if not sources.is_own(file))]
