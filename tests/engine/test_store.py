import errno
import os
from pathlib import Path

import pytest

from cnai.engine.records import Record, Status
from cnai.engine.store import Journal, Store, write
from cnai.errors import StoreError
from cnai.events import Event, Kind, State
from cnai.spec import RunSpec, Target

SPEC = RunSpec(target=Target("function", "fit"))


@pytest.fixture
def folder(tmp_path):
    return Store(tmp_path).create(SPEC, Record(who="me"), b"payload", b"")


def line(number):
    return Event(run_id="r", generation=0, kind=Kind.METRIC, time=0.0, step=number, payload={}).to_json() + "\n"


def test_a_run_is_all_there_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="is full; free some space"):
        Store(tmp_path).create(SPEC, Record(), b"payload", b"")
    assert list(tmp_path.iterdir()) == []


def test_newest_first_and_nothing_hidden(tmp_path):
    store = Store(tmp_path)
    made = [store.create(SPEC, Record(created=float(number + 1)), b"", b"").run_id for number in range(3)]
    (tmp_path / ".fit-unfinished").mkdir()
    assert [found.run_id for found in store.folders()] == made[::-1]
    assert store.folder(made[0]).spec == SPEC
    with pytest.raises(StoreError, match="no run nothing"):
        store.folder("nothing")


def test_status_before_and_after(folder):
    assert folder.status().state is State.PENDING
    folder.write_status(Status(state=State.RUNNING, generation=3))
    assert folder.status() == Status(state=State.RUNNING, generation=3)


def test_journal_positions_are_bytes(folder):
    journal = Journal(folder)
    first, second = "é" + line(1), line(2)
    assert journal.append(first) == 0
    assert journal.append(second) == len(first.encode())
    assert folder.read_journal(len(first.encode())) == second.encode()
    journal.close()
    again = Journal(folder)
    assert again.append(line(3)) == len((first + second).encode())
    again.close()


def test_half_a_line_is_not_read(folder):
    folder.journal.write_text(line(1) + line(2)[:10])
    assert [event.step for event in folder.events()] == [1]


def test_full_disk_keeps_events_until_there_is_room(folder, monkeypatch):
    journal, real = Journal(folder), os.write

    def full(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert journal.append(line(1)) == 0
    assert journal.append(line(2)) == len(line(1))
    assert journal.behind
    monkeypatch.setattr(os, "write", real)
    journal.append(line(3))
    assert not journal.behind
    assert [event.step for event in folder.events()] == [1, 2, 3]
    journal.close()


def test_write_replaces_whole_files(tmp_path):
    write(tmp_path / "file", "old")
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_checkpoints_stay(folder):
    for step in (5, 10, 15):
        relative = f"checkpoints/gen-0/step-{step}"
        (folder.path / relative).mkdir(parents=True)
        os.utime(folder.path / relative, (step, step))
        folder.commit_checkpoint(relative)
        folder.prune_checkpoints()
    assert folder.latest() == folder.path / "checkpoints/gen-0/step-15"
    being_written = folder.path / "checkpoints/gen-0/step-20"
    being_written.mkdir()
    folder.prune_checkpoints()
    left = sorted(path.name for path in (folder.path / "checkpoints/gen-0").iterdir())
    assert left == ["step-10", "step-15", "step-20"]
