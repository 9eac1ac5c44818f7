"""The launchers: each starts two ranks of the same work from a running Python, as its documentation recommends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from bench import work


def free_port() -> int:
    """Return a port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Torchrun:
    """`torchrun` as a subprocess, as a notebook without any other launcher starts it."""

    name = "torchrun"

    def launch(self, out: str, steps: int, burn: int) -> None:
        """Run the ranks to their end."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", work.__file__]
        done = subprocess.run([*command, out, str(steps), str(burn)], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"torchrun failed:\n{done.stderr[-3000:]}")

    def close(self) -> None:
        """Stop the processes that `launch` started."""


class Accelerate:
    """accelerate's `notebook_launcher`: forks the kernel."""

    name = "accelerate notebook_launcher"

    def launch(self, out: str, steps: int, burn: int) -> None:
        """Run the ranks to their end."""
        os.environ["ACCELERATE_USE_CPU"] = "1"
        from accelerate import notebook_launcher

        notebook_launcher(work.train, (out, steps, burn), num_processes=2, use_port=str(free_port()))

    def close(self) -> None:
        """Stop the processes that `launch` started."""


class Lightning:
    """Lightning Fabric with `ddp_notebook`: forks the kernel."""

    name = "Lightning ddp_notebook"

    def launch(self, out: str, steps: int, burn: int) -> None:
        """Run the ranks to their end."""
        from lightning.fabric import Fabric

        Fabric(accelerator="cpu", devices=2, strategy="ddp_notebook").launch(_with_fabric, out, steps, burn)

    def close(self) -> None:
        """Stop the processes that `launch` started."""


def _with_fabric(_fabric: object, out: str, steps: int, burn: int) -> None:
    work.train(out, steps, burn)


class Cnai:
    """cnai without a running engine; the first launch includes the engine's start."""

    name = "cnai"
    target = staticmethod(work.train)

    def launch(self, out: str, steps: int, burn: int) -> None:
        """Run the ranks to their end."""
        import cnai

        cnai.train(self.target, (out, steps, burn), ranks=2).result()

    def close(self) -> None:
        """Stop the processes that `launch` started."""
        from cnai.backends.local import client as local

        local.stop()


class CnaiWarmedUp(Cnai):
    """cnai in a session that has loaded the extension and finished its warm-up."""

    name = "cnai after %load_ext"

    def prepare(self) -> None:
        """Load the modules that `%load_ext cnai` loads in the background, and start the engine."""
        from cnai.run import cluster, warm_up

        warm_up()
        cluster.start()


class CnaiContext(Cnai):
    """The same work through `cnai.context()`, with reports and checkpoints."""

    name = "cnai with context"
    target = staticmethod(work.train_with_context)


PEERS = {peer.__name__: peer for peer in (Torchrun, Accelerate, Lightning, Cnai, CnaiWarmedUp, CnaiContext)}
