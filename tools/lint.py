"""Runs all checks except tests: style, types, floors, generated pages. `--write` writes the pages instead."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PAGES = ["README.md", "docs/first-run.md", "docs/reference.md"]
CHECKS = {
    "mypy": ["mypy", "--no-error-summary"],
    "floors": ["lint-imports", "--no-cache"],
    "generated pages": ["cog", "--check", "--check-fail-msg=write it with `make format`", "-I", "tools", *PAGES],
    "dependencies": ["deptry", "--no-ansi", "extensions", "hub", "images"],
    "ruff check": ["ruff", "check", "-q", "."],
    "ruff format": ["ruff", "format", "-q", "--check", "."],
}
"""Longest first; the checks run in parallel."""
WRITE = {"generated pages": ["cog", "-r", "-I", "tools", *PAGES]}


def check(name: str, command: list[str]) -> str:
    """Run a check and print its result, with its output if it fails; return its name if it fails, otherwise ""."""
    start = time.monotonic()
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, text=True, capture_output=True)
    line = f"  {name}: {'failed' if done.returncode else 'ok'} ({time.monotonic() - start:.1f} s)\n"
    sys.stdout.write(line + (done.stdout + done.stderr + "\n" if done.returncode else ""))
    sys.stdout.flush()
    return name if done.returncode else ""


def main() -> None:
    """Run every check; exit with the names of those that fail."""
    checks = WRITE if "--write" in sys.argv[1:] else CHECKS
    with ThreadPoolExecutor() as pool:
        failed = [name for name in pool.map(check, checks, checks.values()) if name]
    if failed:
        sys.exit(f"lint: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
