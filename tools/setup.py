"""Sets up this checkout: `.venv` from the locks, Node.js packages for the proxy, and a Chromium for the tests.

Standard library only. A stamp makes the second run instant. Packages come from the indexes that pip, uv and npm are
configured to use.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TOOLS = VENV / "tools"
"""A separate folder, because uv removes itself when it syncs an environment that contains it."""
UV = TOOLS / "bin" / "uv"
LOCKS = ROOT / "locks"
OLDEST_NODE = 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# pip's settings must apply to uv, too, which reads neither pip's variables nor its files.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def main() -> None:
    """Set up for `run` or for `dev`."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    if kind not in ("run", "dev"):
        sys.exit(f"tools/setup.py: unknown kind {kind!r}; allowed: run, dev")
    with (ROOT / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two concurrent `make`, the second waits and then finds the work done
        if not any(stamp(done).is_file() and stamp(done).read_text() == fingerprint() for done in {kind, "dev"}):
            install(kind)
    if kind == "dev":
        browser()


def install(kind: str) -> None:
    """Execute every step and write the stamp."""
    for old in ("run", "dev"):
        stamp(old).unlink(missing_ok=True)
    step("virtual environment", environment)
    step("uv", bootstrap)
    step(f"packages of locks/{kind}.lock", lambda: packages(kind))
    step("cnai itself", itself)
    step("proxy", proxy)
    stamp(kind).write_text(fingerprint())


def step(name: str, action: object) -> None:
    """Run one step and print its time; on an error exit with one line."""
    print(f"  setting up: {name} …", end="", flush=True)
    start = time.monotonic()
    try:
        action()  # type: ignore[operator]
    except subprocess.CalledProcessError as error:
        tail = "\n".join((error.stderr or error.stdout or "").strip().splitlines()[-15:])
        sys.exit(f" failed\n{tail}\n{name}: `{shlex.join(map(str, error.cmd))}` failed; fix that and run make again")
    except OSError as error:
        sys.exit(f" failed\n{name}: {error}; fix that and run make again")
    print(f" {time.monotonic() - start:.1f} s", flush=True)


def call(*command: str | Path, **more: str) -> str:
    """Run a command in the checkout and return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **more},
        text=True,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def works(*command: str | Path) -> bool:
    """Tell whether a command succeeds."""
    try:
        call(*command)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def stamp(kind: str) -> Path:
    """Return the file that holds the fingerprint of `.venv`."""
    return VENV / f"cnai-{kind}.stamp"


def fingerprint() -> str:
    """Return a hash of everything that determines the installed packages and their place."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode())
    names = ["pyproject.toml", "package.json", "package-lock.json", "tools/setup.py"]
    for path in [*(ROOT / name for name in names), *sorted(LOCKS.glob("*.lock"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def environment() -> None:
    """Create `.venv` unless a working one with this Python version exists."""
    version = ".".join(map(str, sys.version_info[:2]))
    if works(PYTHON, "-c", f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if works(sys.executable, "-m", "venv", VENV):
        return
    # Debian's python3 has neither ensurepip nor venv.
    for command in (
        ["uv", "venv", "-q", "--seed", "--python", sys.executable],
        [sys.executable, "-m", "virtualenv", "-q"],
    ):
        shutil.rmtree(VENV, ignore_errors=True)
        if works(*command, VENV):
            return
    shutil.rmtree(VENV, ignore_errors=True)
    if apt_get(f"python{version}-venv"):
        call(sys.executable, "-m", "venv", VENV)
        return
    sys.exit(
        f" failed\n{sys.executable} -m venv doesn't work here; install it "
        f"(Debian: apt-get install python{version}-venv) and run make again"
    )


def bootstrap() -> None:
    """Install the uv of locks/tools.lock."""
    pinned = re.search(r"^uv==(\S+)", (LOCKS / "tools.lock").read_text(), re.MULTILINE)
    assert pinned is not None, "locks/tools.lock pins no uv"
    if not works(PYTHON, "-m", "pip", "--version"):  # an environment that uv created or synced
        call(PYTHON, "-m", "ensurepip")
    uv_settings()  # reads pip's settings now, because the sync may remove pip
    if works(UV, "--version") and call(UV, "--version").split()[1] == pinned[1]:
        return
    # --no-deps: the lock also pins the tools that build cnai, in a separate environment.
    pip = [PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--upgrade", "--target", TOOLS]
    call(*pip, "-r", LOCKS / "tools.lock")


def packages(kind: str) -> None:
    """Install exactly the packages of the lock."""
    call(
        UV,
        "pip",
        "sync",
        "-q",
        "--require-hashes",
        # If Python may not write bytecode (PYTHONDONTWRITEBYTECODE), importing torch takes 5 s longer in every process.
        *(["--compile-bytecode"] if sys.dont_write_bytecode else []),
        "--python",
        PYTHON,
        LOCKS / f"{kind}.lock",
        **uv_settings(),
    )


def itself() -> None:
    """Install the checkout, editable, built with pinned tools."""
    uv = [UV, "pip", "install", "-q", "--no-deps", "--python", PYTHON]
    call(*uv, "--build-constraints", LOCKS / "tools.lock", "-e", ROOT, **uv_settings())


@functools.cache
def uv_settings() -> dict[str, str]:
    """Return pip's configuration as variables of uv, except those that are already set."""
    found = {}
    for line in call(PYTHON, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        variable = PIP_TO_UV.get(key.rpartition(".")[2])
        if variable and variable not in os.environ:
            found[variable] = value.strip("'\"").replace("\\n", " ")
    return found


def proxy() -> None:
    """Install the hub's proxy with npm, using Node.js from PATH if it is new enough, otherwise from `.venv`."""
    path = os.environ.get("PATH", "")
    version = 0
    if shutil.which("node") and shutil.which("npm"):
        version = int((re.search(r"v(\d+)", call("node", "--version")) or ["", "0"])[1])
    if version < OLDEST_NODE:
        print(
            f" (Node.js {version or 'is missing'} in PATH, {OLDEST_NODE} needed: using the packaged one)",
            end="",
            flush=True,
        )
        path = f"{VENV / 'bin'}{os.pathsep}{path}"
    npm = shutil.which("npm", path=path)
    if npm is None:
        sys.exit(f" failed\nnpm is missing; install Node.js {OLDEST_NODE} or newer, then run make again")
    call(npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", PATH=path)


def browser() -> None:
    """Find a Chromium for the tests; on Debian, root installs it."""
    if any(map(shutil.which, BROWSERS)):
        return
    print("  setting up: Chromium …", end="", flush=True)
    if not apt_get("chromium"):
        sys.exit(
            f" failed\nthe browser tests need one of {', '.join(BROWSERS)} in PATH; install one "
            "(Debian: apt-get install chromium) and run make again"
        )
    print(" done", flush=True)


def apt_get(package: str) -> bool:
    """Install a Debian package if possible; tell whether it was installed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        call("apt-get", "update", "-qq", **quiet)
        call("apt-get", "install", "-y", "-qq", "--no-install-recommends", package, **quiet)
    except subprocess.CalledProcessError as error:
        print(f"\n{error.stderr.strip()}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
