"""The filter between a viewer's page and a kernel, tested in isolation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai_hub.apps.server.messages import ALLOWED, CONTROL, Refused, admit, for_viewers, parse
from hub.apps.wire import PROTOCOLS, V1, encode, execute, message

SUBPROTOCOL = {"text": None, "binary": None, "v1": V1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_message_is_read_alike_in_each_protocol(protocol):
    sent = message("comm_msg", {"comm_id": "1", "data": {"method": "update"}})
    channel, read = parse(encode(sent, protocol), SUBPROTOCOL[protocol])
    assert channel == "shell"
    assert read["header"]["msg_id"] == sent["header"]["msg_id"]
    assert read["content"] == sent["content"]
    admit(channel, read)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("channel", ["shell", "control", "stdin", "iopub", "other"])
def test_code_is_refused_everywhere(protocol, channel):
    with pytest.raises(Refused):
        admit(*parse(encode(execute("1", channel), protocol), SUBPROTOCOL[protocol]))


@pytest.mark.parametrize(
    "kind", ["shutdown_request", "input_reply", "debug_request", "complete_request", "", None, ["comm_msg"]]
)
def test_only_what_widgets_need_is_admitted(kind):
    with pytest.raises(Refused):
        admit("shell", message(kind, {}))


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("channel", ["control", "stdin", "iopub"])
def test_what_is_admitted_is_so_on_the_shell_channel_only(kind, channel):
    with pytest.raises(Refused):
        admit(channel, message(kind, {"target_name": CONTROL}, channel))


@pytest.mark.parametrize("target", ["jupyter.widget", "my.comm", "", None])
def test_a_page_opens_no_comm_but_the_one_for_state(target):
    admit("shell", message("comm_open", {"target_name": CONTROL}))
    with pytest.raises(Refused):
        admit("shell", message("comm_open", {"target_name": target}))


@given(st.binary(max_size=200) | st.text(max_size=200), st.sampled_from([None, V1]))
def test_rubbish_is_refused_and_nothing_else_happens(raw, subprotocol):
    with pytest.raises(Refused):
        admit(*parse(raw, subprotocol))


@pytest.mark.parametrize(("subprotocol", "claim"), [(V1, b"\xff" * 7 + b"\0"), (None, b"\x7f\xff\xff\xff")])
def test_a_message_that_claims_billions_of_parts_takes_no_memory(subprotocol, claim):
    with pytest.raises(Refused, match="more parts than bytes"):
        parse(claim + b"{}", subprotocol)


def outgoing(kind, content):
    fields = [{"msg_type": kind}, {}, {}, content]
    return [b"signature", *(json.dumps(field).encode() for field in fields), b"buffer"]


def test_sources_and_warnings_stay_with_the_author():
    for kind, content in [("execute_input", {"code": "secret"}), ("stream", {"name": "stderr", "text": "secret"})]:
        assert for_viewers(outgoing(kind, content), lambda _: b"new") is None


@pytest.mark.parametrize("kind", ["error", "execute_reply"])
def test_an_error_says_nothing_about_the_app(kind):
    error = {"status": "error", "ename": "secret", "evalue": "secret", "traceback": ["secret"]}
    shown = for_viewers(outgoing(kind, error), lambda parts: b"signed" if len(parts) == 4 else b"")
    assert shown[0] == b"signed"
    assert shown[5:] == [b"buffer"]
    assert b"secret" not in b"".join(shown)


@pytest.mark.parametrize(
    ("kind", "content"),
    [("stream", {"name": "stdout", "text": "x"}), ("comm_msg", {"data": {}}), ("execute_reply", {"status": "ok"})],
)
def test_the_rest_passes_as_it_is(kind, content):
    parts = outgoing(kind, content)
    assert for_viewers(parts, lambda _: b"") is parts
