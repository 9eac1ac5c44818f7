"""`%cnai` and `%%cnai` in a real kernel, on the real local engine."""

import re
import time

import pytest

from faces.conftest import FIT
from faces.kernels import WIDGET, of


def test_a_line_returns_the_run_at_once_and_shows_it(kernel):
    cell = kernel.run("run = %cnai train fit steps=1000 pause=0.1\nrun")
    assert cell.status == "ok"
    (shown,) = cell.displays
    assert {WIDGET, "text/html", "text/plain"} <= set(shown)
    assert cell.result == {}
    assert kernel.run("print(Out[max(Out)] is run, run.state.final)").stdout == "True False\n"
    assert kernel.run("%cnai stop").result["text/plain"].endswith(": stopping")
    assert kernel.run("print(run.wait(60).state)").stdout == "CANCELLED\n"


def test_parameters_are_python_of_the_notebook(kernel):
    code = """
    number = 4
    def add(a, b=(), c="", *, d=None):
        return repr((a, b, c, d))
    run = %cnai train add a=number*10 b=[1, 2] c='x y' d={"k": [i for i in range(number)]}
    print(run.result(60))
    """
    cell = kernel.run("\n".join(line[4:] for line in code.splitlines()))
    assert cell.stdout == "(40, [1, 2], 'x y', {'k': [0, 1, 2, 3]})\n"


def test_flags_reach_the_spec(kernel):
    kernel.run(
        "run = %cnai train fit --ranks 1:2 --name named --retries 3 --timeout 5m --env A=1 --env 'B=x y' "
        "--checkpoint-every 100"
    )
    code = "s = run.spec; print(s.ranks, s.name, s.retries, s.timeout_seconds, s.env, s.checkpoint_every.steps)"
    assert kernel.run(code).stdout == "1:2 named 3 300.0 {'A': '1', 'B': 'x y'} 100\n"
    assert kernel.run("print(run.result(60))").stdout == "20\n"


def test_waiting_ends_with_the_run_and_its_picture(kernel):
    cell = kernel.run("run = %cnai train fit --wait")
    assert cell.status == "ok"
    assert len(cell.displays) == 1
    assert kernel.run("print(run.state)").stdout == "SUCCEEDED\n"
    assert pictures(kernel)[-1]["text/plain"].startswith("fit-")
    cell = kernel.run("%cnai train fit --wait")
    assert len(cell.displays) == 1, "it is shown once, not again as the cell's value"
    assert cell.result == {}


def test_an_error_of_a_rank_is_in_the_cell_with_the_authors_lines_only(kernel):
    cell = kernel.run("%cnai train fit fail_at=7 --ranks 2 --wait")
    assert cell.status == "error"
    lines = cell.error.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert re.fullmatch(r' +File "Cell \[\d+\]", line 7, in fit', lines[1])
    assert lines[2].strip() == 'raise ValueError("loss exploded")'
    assert lines[3] == "ValueError: loss exploded"
    assert re.match(r"rank [01]: ValueError: loss exploded", lines[4])
    assert "cnai" not in cell.error.replace("%cnai", "")


def test_a_run_that_fails_later_shows_its_error_where_it_was_started(kernel):
    cell = kernel.run("run = %cnai train fit fail_at=7\nrun")
    assert cell.status == "ok"
    update = kernel.until(lambda m: m["msg_type"] == "update_display_data")
    html = update["content"]["data"]["text/html"]
    assert "FAILED" in html
    assert "ValueError: loss exploded" in html


def test_a_cell_runs_on_all_ranks_and_gives_names_back(kernel):
    cell = kernel.run(
        "%%cnai train --ranks 2 --return total, world\nimport os\nworld = os.environ['WORLD_SIZE']\ntotal = 40 + 2"
    )
    assert cell.status == "error", "blanks part words"
    cell = kernel.run(
        "%%cnai train --ranks 2 --return total,world\nimport os\nworld = os.environ['WORLD_SIZE']\ntotal = 40 + 2"
    )
    assert (cell.status, cell.error) == ("ok", "")
    assert kernel.run("print(total, world)").stdout == "42 2\n"


def test_a_cells_error_has_the_cells_own_line_numbers(kernel):
    cell = kernel.run("%%cnai train --wait\nx = 1\nx / 0")
    assert re.search(r'File "Cell \[\d+\]", line 3, in <module>\n +x / 0', cell.error)


def test_a_cell_without_names_to_return_does_not_wait(kernel):
    cell = kernel.run("%%cnai train\nimport time\ntime.sleep(1000)")
    assert cell.status == "ok"
    assert WIDGET in cell.displays[0]
    assert kernel.run("%cnai stop").status == "ok"


def test_debug_backend_runs_here(kernel):
    assert kernel.run("run = %cnai train fit steps=3 --backend debug\nprint(run.result())").stdout.endswith("3\n")


def test_interrupting_a_wait_leaves_the_run(kernel):
    sent = kernel.send("%cnai train fit steps=1000 pause=0.1 --wait")
    kernel.until(lambda m: of(m, sent, "display_data"))
    kernel.interrupt()
    kernel.until(lambda m: of(m, sent, "status") and m["content"]["execution_state"] == "idle")
    cell = kernel.cell(sent)
    assert re.fullmatch(r"detached; the run continues: %cnai attach \S+ shows it, %cnai stop \S+ stops it", cell.error)
    assert kernel.run("import cnai; print(cnai.attach().state.final)").stdout == "False\n"
    kernel.run("%cnai stop")


def test_lists_and_texts_are_readable(kernel):
    kernel.run("%cnai train fit --name listed --wait")
    table = kernel.run("%cnai runs --limit 2").result
    assert table["text/plain"].splitlines()[1].startswith("listed-")
    assert "<table>" in table["text/html"]
    assert kernel.run("%cnai logs listed --tail 1").result["text/plain"] == "at 10"
    assert '"address"' in kernel.run("%cnai cluster").result["text/plain"]
    assert '"name": "fit"' in kernel.run("%cnai train fit --dry-run").result["text/plain"]
    assert "usage: %cnai train" in kernel.run("%cnai train --help").stdout


def test_following_logs_prints_until_the_end(kernel):
    kernel.run("run = %cnai train fit steps=31 pause=0.01 --name chatty")
    assert kernel.run("%cnai logs chatty --follow").stdout == "at 0\nat 10\nat 20\nat 30\n"


def test_attaching_in_another_kernel_redraws_without_a_hole(kernel, another_kernel):
    kernel.run("run = %cnai train fit steps=60 pause=0.05 --name far")
    time.sleep(0.5)
    cell = another_kernel.run("%load_ext cnai\nrun = %cnai attach far\nrun")
    assert WIDGET in cell.displays[0]
    assert (
        another_kernel.run("print(run.result(60), run.metrics['loss'].steps == list(range(1, 61)))").stdout
        == "60 True\n"
    )


@pytest.mark.parametrize("verb", ["pause", "resume", "scale 2"])
def test_wishes_that_cannot_be_granted_say_why(kernel, verb):
    kernel.run("%cnai train fit --wait")
    cell = kernel.run(f"%cnai {verb}")
    assert len(cell.error.splitlines()) == 1
    assert "SUCCEEDED already" in cell.error


def pictures(kernel):
    """Return what replaced live views when their runs ended."""
    return [m["content"]["data"] for m in kernel.messages if m["msg_type"] == "update_display_data"]


def test_what_a_target_takes_along_is_warned_of_in_one_line(kernel):
    kernel.run("big = bytes(12_000_000)\ndef take():\n    return len(big)")
    for _ in range(2):  # each time, not only the first
        cell = kernel.run("run = %cnai train take")
        assert re.fullmatch(r"warning: take sends 'big' to every rank, 12 MB; .*\n", cell.stderr)


def test_an_exception_in_the_debug_backend_begins_in_the_target(kernel):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", kernel.run("%cnai train fit fail_at=2 --backend debug").error)
    assert 'raise ValueError("loss exploded")' in plain
    assert "/cnai/" not in plain
    shown = kernel.run("%cnai train fit fail_at=2 --backend debug --debug").error
    assert "/cnai/" in shown


def test_a_terminal_shows_text(terminal, engine, capsys):
    terminal.run_cell(FIT)
    terminal.run_cell("%cnai train fit steps=30 --wait")
    out = capsys.readouterr().out
    assert out.count("at 20\n") == 1
    assert re.search(r"fit-\S+ · SUCCEEDED · 1 rank · \S+\n +loss +[▁-█]+ 0\.05502\n", out)
    terminal.run_cell("%cnai train fit fail_at=3 --wait")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).endswith("rank 0: ValueError: loss exploded\n")
