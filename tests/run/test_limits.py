"""What ends ranks from outside: requests to stop, with their grace, and the limit of one collective."""

from __future__ import annotations

import time

import pytest

import cnai
from cnai.errors import RunFailed
from cnai.events import State
from run.test_survival import wait_for

WAIT = 120
LONG_SECONDS = 1000


def saves(seconds, path):
    """Save for some seconds when asked to end, then end as a program that has finished."""
    import signal
    import sys
    import time
    from pathlib import Path

    def save(*_):
        time.sleep(seconds)
        Path(path).write_text("saved")
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    print("on", flush=True)
    while True:
        time.sleep(0.1)


@pytest.mark.parametrize(("grace", "seconds", "saved"), [(30, 6, True), (1, LONG_SECONDS, False)])
def test_a_stopped_run_is_cancelled_after_its_grace(engine, tmp_path, grace, seconds, saved):
    run = cnai.train(saves, (seconds, str(tmp_path / "saved")), grace_seconds=grace)
    wait_for(lambda run: "on" in run.logs(), run)
    run.stop()
    assert run.wait(WAIT).state is State.CANCELLED
    assert (tmp_path / "saved").exists() is saved


def test_a_second_stop_kills(engine, tmp_path):
    run = cnai.train(saves, (LONG_SECONDS, str(tmp_path / "saved")), grace_seconds=LONG_SECONDS)
    wait_for(lambda run: "on" in run.logs(), run)
    run.stop()
    time.sleep(0.5)
    run.stop()
    assert run.wait(WAIT).state is State.CANCELLED


def of_the_default_group(dist):
    return None


def of_a_new_group(dist):
    return dist.new_group()


def of_a_mesh(dist):
    return dist.init_device_mesh("cpu", (1, 2)).get_group(1)


def waits(group):
    """Wait for a rank that never comes, in a group of the program itself."""
    import time

    import torch.distributed as dist

    dist.init_process_group("gloo")
    found = group(dist)
    if dist.get_rank():
        time.sleep(1000)
    dist.barrier(found)


@pytest.mark.parametrize("group", [of_the_default_group, of_a_new_group, of_a_mesh])
def test_the_limit_of_a_collective_reaches_the_programs_own_groups(engine, group):
    run = cnai.train(waits, (group,), ranks=2, timeout_seconds=3, infra_retries=0)
    with pytest.raises(RunFailed, match=r"rank 0: .*[Tt]imed out|wait timeout"):
        run.result(WAIT)


def test_without_a_limit_own_groups_have_those_of_torch(engine):
    def defaults():
        from torch.distributed import constants, distributed_c10d

        return [
            getattr(distributed_c10d, name) == getattr(constants, name)
            for name in ("default_pg_timeout", "default_pg_nccl_timeout")
        ]

    assert cnai.train(defaults).result(WAIT) == [True, True]
