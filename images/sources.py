"""Sources: a build gets packages from the same places as pip and npm here, through secrets that no image keeps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")
_LINE = re.compile(r"(?:global|install|:env:)\.([a-z-]+)='(.*)'")


def secrets(folder: Path) -> list[str]:
    """Write pip's configuration to a folder that only its owner can read, and return the build's options."""
    folder.chmod(0o700)
    known = configuration()
    text = render(known)
    options = [_secret("pip", _written(folder / "pip.conf", text))] if text else []
    if authorities := known.get("cert"):
        options.append(_secret("ca", Path(authorities)))
    if (npm := Path("~/.npmrc").expanduser()).is_file():
        options.append(_secret("npm", npm))
    return options


def configuration() -> dict[str, str]:
    """Return pip's settings; those from the environment override the others, as in pip."""
    for python in (sys.executable, "python3"):
        done = subprocess.run([python, "-m", "pip", "config", "list"], text=True, capture_output=True)
        if done.returncode == 0:
            found = [match for line in done.stdout.splitlines() if (match := _LINE.fullmatch(line))]
            ordered = sorted(found, key=lambda match: match[0].startswith(":env:"))
            return {match[1]: match[2].replace("\\n", "\n") for match in ordered}
    return {}


def render(known: dict[str, str]) -> str:
    """Return the text of pip.conf, with the path of the certificate authorities inside the build."""
    lines = [f"{name} = {value.replace(chr(10), ' ')}" for name, value in known.items() if name in SETTINGS]
    if "cert" in known:
        lines.append("cert = /run/secrets/ca")
    return "\n".join(["[global]", *lines, ""]) if lines else ""


def _secret(name: str, source: Path) -> str:
    return f"--secret=id={name},src={source}"


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
