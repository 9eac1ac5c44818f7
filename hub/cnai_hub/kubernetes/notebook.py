"""The first program in a notebook server's pod: it prepares the home folder and then executes JupyterLab.

If no files can be written to the home, JupyterLab still starts: it keeps its own files in the pod and opens a page that
explains the problem, next to a link to the home, where its owner can delete files.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from cnai import paths
from cnai_hub.seeding import JUPYTER_CONFIG, seed

_NEEDED_BYTES = 1 << 20
_NOTICE = "YOUR HOME IS FULL.md"

# Variables for the folders where JupyterLab, IPython and others write unasked; by default they are below the home.
_OWN_FOLDERS = {
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "JUPYTER_DATA_DIR": "data",
    "IPYTHONDIR": "ipython",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "cache",
}


def main() -> None:
    """Replace this process by the server, in an environment that works even with a full home."""
    own = Path(tempfile.gettempdir()) / "jupyter"
    environment = {**os.environ, **plain(own)}
    if why := unwritable(Path.home()):
        environment |= rescued(Path.home(), own, why)
    else:
        seed(Path.home() / "notebooks", paths.private(paths.home()))
    # Trash would take up space on the same volume.
    command = ["jupyterhub-singleuser", "--FileContentsManager.delete_to_trash=False", *sys.argv[1:]]
    os.execvpe(command[0], command, environment)  # noqa: S606 - replaces this process


def unwritable(home: Path) -> str:
    """Return why a home folder is not writable; empty if it is."""
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".cnai-") as probe:
            probe.write(b"\0" * _NEEDED_BYTES)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def plain(own: Path) -> dict[str, str]:
    """Return variables for every server: no sockets or locks on the shared volume, and no requests to the internet."""
    quiet = str(JUPYTER_CONFIG)
    given = os.environ.get("JUPYTER_CONFIG_PATH")
    return {
        "JUPYTER_RUNTIME_DIR": str(paths.private(own / "runtime")),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, (quiet, given))),
    }


def rescued(home: Path, own: Path, why: str) -> dict[str, str]:
    """Return variables with which a server starts without writing to the home; write the page that it opens."""
    root = paths.private(own / "root")
    link = root / "home"
    if not link.is_symlink():
        link.symlink_to(home)
    (root / _NOTICE).write_text(
        f"# No more files can be written to your home folder\n\n{why}: `{home}`.\n\n"
        "Notebooks can't be saved and runs can't write checkpoints until you free some space.\n\n"
        "1. Open the folder `home` on the left, or a terminal, and delete what you don't need;\n"
        "   `du -h -d 3 ~ | sort -h | tail -20` shows what is large. Old runs are in `home/cnai/runs`.\n"
        "2. Stop this server (File, Hub Control Panel) and start it again.\n\n"
        "If you need all of it, ask your administrator for a larger home.\n"
    )
    return {
        **{name: str(paths.private(own / folder)) for name, folder in _OWN_FOLDERS.items()},
        "JUPYTERHUB_ROOT_DIR": str(root),
        "JUPYTERHUB_DEFAULT_URL": f"/lab/tree/{_NOTICE.replace(' ', '%20')}",
    }


if __name__ == "__main__":
    main()
