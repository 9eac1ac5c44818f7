"""Capture: freezes a target and everything it uses into bytes that any rank can run.

Functions, classes and values defined in the notebook travel in the payload; local modules travel as files in a zip.
"""

from __future__ import annotations

from cnai.engine.capture.cell import capture_cell
from cnai.engine.capture.fingerprints import fingerprint
from cnai.engine.capture.function import capture_function, unsteady
from cnai.engine.capture.payload import Captured
from cnai.engine.capture.script import capture_script
from cnai.engine.capture.tracebacks import user_traceback
from cnai.engine.capture.unpack import is_main, load, load_main, load_run, unzip

__all__ = [
    "Captured",
    "capture_cell",
    "capture_function",
    "capture_script",
    "fingerprint",
    "is_main",
    "load",
    "load_main",
    "load_run",
    "unsteady",
    "unzip",
    "user_traceback",
]
