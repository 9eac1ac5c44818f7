"""Outputs of a saved notebook, from a kernel's messages."""

from __future__ import annotations

from cnai_hub.local.execution import Outputs


def outputs_of(*messages):
    outputs = Outputs()
    current = outputs.begin()
    for kind, content in messages:
        outputs.take(kind, content)
    return current


def stream(text, name="stdout"):
    return "stream", {"name": name, "text": text}


def shown(text, display_id=None):
    transient = {"display_id": display_id} if display_id else {}
    return "display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


def test_lines_of_one_stream_become_one_output():
    assert outputs_of(stream("a\n"), stream("b\n"), stream("c", "stderr")) == [
        {"output_type": "stream", "name": "stdout", "text": "a\nb\n"},
        {"output_type": "stream", "name": "stderr", "text": "c"},
    ]


def test_pictures_results_and_errors_are_kept_without_what_is_transient():
    error = {"ename": "E", "evalue": "no", "traceback": ["line"]}
    result = {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}
    assert outputs_of(shown("x", "id"), ("execute_result", result), ("error", error), ("status", {})) == [
        {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3},
        {"output_type": "error", **error},
    ]


def test_an_update_changes_what_was_shown_also_in_an_earlier_cell():
    outputs = Outputs()
    first = outputs.begin()
    outputs.take(*shown("0 %", "bar"))
    second = outputs.begin()
    kind, content = shown("100 %", "bar")
    outputs.take("update_display_data", content)
    assert first == [{"output_type": kind, "data": {"text/plain": "100 %"}, "metadata": {}}]
    assert second == []


def test_clearing_may_wait_for_the_next_output():
    assert outputs_of(stream("a"), ("clear_output", {"wait": False})) == []
    assert outputs_of(stream("a"), ("clear_output", {"wait": True})) == outputs_of(stream("a"))
    assert outputs_of(stream("a"), ("clear_output", {"wait": True}), stream("b")) == outputs_of(stream("b"))
