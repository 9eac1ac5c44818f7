import os
import threading

import pytest

import cnai
from cnai.errors import UsageError
from cnai.events import State
from run.waiting import until


def test_runs_here_and_leaves_the_process_as_it_was(home):
    before = dict(os.environ)

    def fit(factor):
        import torch

        ctx = cnai.context()
        for step in ctx.loop(3):
            ctx.report(loss=factor / step)
        assert torch.distributed.is_initialized()
        return os.getpid()

    run = cnai.train(fit, kwargs={"factor": 6.0}, backend="debug")
    assert run.state is State.SUCCEEDED
    assert run.result() == os.getpid()
    assert run.metrics["loss"].values == [6.0, 3.0, 2.0]
    assert dict(os.environ) == before
    import torch

    assert not torch.distributed.is_initialized()
    assert cnai.attach("fit").metrics == run.metrics


def test_the_exception_is_the_targets_own(home):
    def fit():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        cnai.train(fit, backend="debug")
    (run,) = cnai.runs()
    assert run.state is State.FAILED
    assert run.error.summary == "KeyError: 'mine'"


def test_one_rank_only(home):
    with pytest.raises(UsageError, match="the debug backend has 1 rank"):
        cnai.train(print, backend="debug", ranks=2)


def test_nothing_listens_to_a_run_that_is_over(home):
    cnai.train(lambda: None, backend="debug")
    assert not [thread for thread in threading.enumerate() if thread.name == "cnai-debug"]
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "cnai-link-hear"], "the rank's end")
