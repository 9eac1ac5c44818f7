import json

from cnai.engine.node.tail import LIMIT_BYTES, SKIP_BYTES, Tail


def texts(lines):
    return [json.loads(line)["payload"]["text"] for line in lines.splitlines()]


def test_whole_lines_and_the_rest_at_the_end(tmp_path):
    log = tmp_path / "rank-0.log"
    tail = Tail(log, "r", 0, 3)
    assert tail.read() == ""
    with log.open("ab", buffering=0) as file:
        file.write("é one\ntw".encode())
        assert texts(tail.read()) == ["é one\n"]
        assert tail.read() == ""
        file.write(b"o\rthree")
        assert texts(tail.read()) == ["two\r"]
    assert texts(tail.finish()) == ["three"]


def test_a_flood_is_cut_and_says_so(tmp_path):
    log = tmp_path / "rank-0.log"
    tail = Tail(log, "r", 0, 0)
    log.write_bytes(b"x" * 99 + b"\n")
    tail.read()
    with log.open("ab") as file:
        file.write((b"y" * 99 + b"\n") * (SKIP_BYTES // 50))
    (text,) = texts(tail.read())
    assert text.startswith("… ")
    assert "bytes omitted here, see" in text.splitlines()[0]
    assert len(text) < LIMIT_BYTES + 1000
