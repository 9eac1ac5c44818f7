"""Capture of a script."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cnai.engine.capture import frozen, payload
from cnai.errors import UsageError
from cnai.spec import Target


def capture_script(path: str | Path, argv: tuple[str, ...] = ()) -> payload.Captured:
    """Freeze a script and the local modules it imports; later edits don't change the run."""
    file = Path(path).expanduser()
    try:
        source = importlib.util.decode_source(file.read_bytes())
        code = compile(source, str(file.absolute()), "exec", dont_inherit=True)
    except OSError as error:
        raise UsageError(
            f"script {str(path)!r} can't be read ({error.strerror}) in {Path.cwd()}; give the path of a Python file"
        ) from None
    except (SyntaxError, UnicodeError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"script {str(path)!r}{where}: {what}; a script must be a Python file") from None
    full = str(file.absolute())
    packed = payload.pack(frozen.FrozenScript(source, full, tuple(map(str, argv)), str(path)))
    packed.codes.append(code)
    packed.sources[full] = source
    target = Target(kind="script", name=payload.target_name(file.stem), source=str(path))
    return payload.captured(target, packed, [str(file.resolve().parent)], ())
