"""Set up this checkout: `.venv` from the locks, Node.js packages for the proxy, and for tests a Chromium.

Standard library only. A stamp makes the second time instant. Packages come from wherever pip, uv and npm are configured
to look.
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
"""A folder of its own: uv takes itself out of an environment that it made when it syncs it."""
UV = TOOLS / "bin" / "uv"
LOCKS = ROOT / "locks"
OLDEST_NODE = 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What pip is told applies to uv too, which reads neither pip's variables nor its files.
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
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits, then finds it done
        if not any(stamp(done).is_file() and stamp(done).read_text() == fingerprint() for done in {kind, "dev"}):
            install(kind)
    if kind == "dev":
        browser()


def install(kind: str) -> None:
    """Do every step and leave the stamp."""
    for old in ("run", "dev"):
        stamp(old).unlink(missing_ok=True)
    step("virtual environment", environment)
    step("uv", bootstrap)
    step(f"packages of locks/{kind}.lock", lambda: packages(kind))
    step("cnai itself", itself)
    step("proxy", proxy)
    stamp(kind).write_text(fingerprint())


def step(name: str, action: object) -> None:
    """Run one step and print its time; an error ends with one line."""
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
    """Return the file that says what `.venv` was made from."""
    return VENV / f"cnai-{kind}.stamp"


def fingerprint() -> str:
    """Return a hash of all that decides what gets installed, and where."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode())
    names = ["pyproject.toml", "package.json", "package-lock.json", "tools/setup.py"]
    for path in [*(ROOT / name for name in names), *sorted(LOCKS.glob("*.lock"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def environment() -> None:
    """Make `.venv` unless there is one of this Python version that works."""
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
    if not works(PYTHON, "-m", "pip", "--version"):  # an environment that uv made, or that it has synced
        call(PYTHON, "-m", "ensurepip")
    uv_settings()  # asks pip, which the sync may remove
    if works(UV, "--version") and call(UV, "--version").split()[1] == pinned[1]:
        return
    # --no-deps: the lock also pins what builds cnai, which goes into an environment of its own.
    pip = [PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--upgrade", "--target", TOOLS]
    call(*pip, "-r", LOCKS / "tools.lock")


def packages(kind: str) -> None:
    """Make the environment hold exactly what the lock says."""
    call(
        UV,
        "pip",
        "sync",
        "-q",
        "--require-hashes",
        # Where Python may not keep what it compiles (PYTHONDONTWRITEBYTECODE), torch costs every process 5 s more.
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
    """Return pip's configuration in uv's words, without what uv is told already."""
    found = {}
    for line in call(PYTHON, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        variable = PIP_TO_UV.get(key.rpartition(".")[2])
        if variable and variable not in os.environ:
            found[variable] = value.strip("'\"").replace("\\n", " ")
    return found


def proxy() -> None:
    """Install the hub's proxy with npm; Node.js from PATH if it is new enough, else the one in `.venv`."""
    path = os.environ.get("PATH", "")
    version = 0
    if shutil.which("node") and shutil.which("npm"):
        version = int((re.search(r"v(\d+)", call("node", "--version")) or ["", "0"])[1])
    if version < OLDEST_NODE:
        print(
            f" (Node.js {version or 'is missing'} in PATH, {OLDEST_NODE} needed: taking the packaged one)",
            end="",
            flush=True,
        )
        path = f"{VENV / 'bin'}{os.pathsep}{path}"
    npm = shutil.which("npm", path=path)
    if npm is None:
        sys.exit(f" failed\nnpm is missing; install Node.js {OLDEST_NODE} or newer, then run make again")
    call(npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", PATH=path)


def browser() -> None:
    """Find a Chromium for the tests, on Debian as root by installing it."""
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
    """Install a Debian package if that is possible here, and tell whether it was."""
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
