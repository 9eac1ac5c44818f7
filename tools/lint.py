"""All checks that need no test run: style, types, floors, generated pages. `--write` writes the pages instead."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PAGES = ["README.md", "docs/first-run.md", "docs/reference.md"]
CHECKS = {
    "ruff check": ["ruff", "check", "-q", "."],
    "ruff format": ["ruff", "format", "-q", "--check", "."],
    "mypy": ["mypy", "--no-error-summary"],
    "floors": ["lint-imports", "--no-cache"],
    "generated pages": ["cog", "--check", "--check-fail-msg=write it with `make format`", "-I", "tools", *PAGES],
}
WRITE = {"generated pages": ["cog", "-r", "-I", "tools", *PAGES]}


def main() -> None:
    """Run every check, show what the failing ones say."""
    failed = []
    for name, (command, *arguments) in (WRITE if "--write" in sys.argv[1:] else CHECKS).items():
        start = time.monotonic()
        done = subprocess.run([BIN / command, *arguments], cwd=ROOT, text=True, capture_output=True)
        print(f"  {name}: {'failed' if done.returncode else 'ok'} ({time.monotonic() - start:.1f} s)", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr)
    if failed:
        sys.exit(f"lint: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
