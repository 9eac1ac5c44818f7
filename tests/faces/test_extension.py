"""`%load_ext cnai`: what it imports, what it installs, what unloading takes away."""

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.usefixtures("starts_children")

GROUND = {f"cnai.{name}" for name in ("environment", "errors", "labels", "paths", "programs", "spec")}
LIGHT = {"cnai", "cnai.faces", "cnai.faces.completion", "cnai.faces.magics"} | GROUND
HEAVY = {
    "dask",
    "distributed",
    "torch",
    "numpy",
    "anywidget",
    "ipywidgets",
    "cloudpickle",
    "psutil",
    "httpx",
    "asyncssh",
}


def python(code, home):
    """Run code in a process of its own; returns what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "CNAI_HOME": str(home / "cnai")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOAD = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "cnai")
"""


def test_loading_imports_ipython_and_ground_only(tmp_path):
    loaded = set(python(LOAD + "print(json.dumps(sorted(set(sys.modules) - before)))", tmp_path))
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}
    own = {name for name in loaded if name.startswith("cnai")}
    assert own >= LIGHT
    assert not {name for name in own if name.startswith(("cnai.run", "cnai.engine", "cnai.backends", "cnai.faces.w"))}


def test_the_warm_up_begins_after_the_cell_that_loaded(tmp_path):
    code = """
    import json, sys, threading, time
    from IPython.core.interactiveshell import InteractiveShell
    import cnai.faces
    warmed = threading.Event()
    cnai.faces._warm_up = warmed.set  # the engine itself is tested elsewhere
    shell = InteractiveShell.instance()
    shell.push({"warmed": warmed})
    shell.run_cell("%load_ext cnai\\nimport time; time.sleep(0.3); early = warmed.is_set()")
    print(json.dumps([shell.user_ns["early"], warmed.wait(60)]))
    """
    assert python(code, tmp_path) == [False, True]


def test_unloading_takes_everything_away(tmp_path):
    code = """
    import json, sys
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    def installed():
        text = shell.display_formatter.formatters["text/plain"]
        return [
            *("cnai" in shell.magics_manager.magics[kind] for kind in ("line", "cell")),
            any(getattr(one, "of_cnai", False) for one in shell.Completer.custom_matchers),
            ("cnai.run", "Run") in text.deferred_printers,
        ]
    shell.run_line_magic("load_ext", "cnai")
    loaded = installed()
    shell.run_line_magic("unload_ext", "cnai")
    print(json.dumps([loaded, installed()]))
    """
    assert python(code, tmp_path) == [[True] * 4, [False] * 4]
