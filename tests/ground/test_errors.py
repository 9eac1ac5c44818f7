import inspect
import re

from cnai import errors
from cnai.errors import RunFailed, UnknownName


def test_the_drawn_tree_is_the_tree():
    drawn = re.findall(r"[├└]── (\w+)", inspect.getdoc(errors))
    defined = [name for name, _ in inspect.getmembers(errors, inspect.isclass) if name != "CnaiError"]
    assert sorted(drawn) == sorted(defined)


def test_notebooks_show_one_line():
    shown = UnknownName("flavor", "gpuu", ["gpu", "small"], "see the catalog")._render_traceback_()
    assert shown == ["unknown flavor 'gpuu'; did you mean 'gpu'? (allowed: gpu, small); see the catalog"]


def test_a_failed_run_shows_lines_summary_output_and_hint():
    failed = RunFailed("rank 1: E: x", rank=1, traceback="File a\n", log_tail="one\ntwo", hint="do this")
    assert str(failed) == "File a\nrank 1: E: x\nlast output:\n  one\n  two\nhint: do this"
