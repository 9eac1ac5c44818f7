"""Workers: implements nodes and agents with Dask workers and tasks, in the scheduler's process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from distributed import Client, KilledWorker, Status
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from cnai.engine.control.client import DOWN, Batch
from cnai.engine.control.cluster import NodeLost
from cnai.engine.messages import Report, plain
from cnai.engine.node import node
from cnai.engine.records import NodeStatus

if TYPE_CHECKING:
    from distributed import Future, Scheduler
    from distributed.scheduler import WorkerState

    from cnai.engine.messages import Dump, End, Order


class Topic:
    """Publishes journals to all clients over a Dask topic."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def take(self, run_id: str, position: int, text: str) -> None:
        """Publish whole lines of a run's journal."""
        batch: Batch = {"run": run_id, "at": position, "text": text}
        self._scheduler.log_event(DOWN, batch)


class Workers:
    """All nodes of the scheduler in this process. Runs on the scheduler's event loop."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    @property
    def address(self) -> str:
        """Return the scheduler's address."""
        return str(self.scheduler.address)

    def nodes(self) -> list[Worker]:
        """Return the connected nodes."""
        return [Worker(self, state) for state in self.scheduler.workers.values()]

    async def client(self) -> Client:
        """Return a Dask client of this process's scheduler."""
        async with self._connecting:
            if self._client is None:
                self._client = await Client(
                    self.scheduler.address,
                    security=self.scheduler.security,
                    asynchronous=True,
                    set_as_default=False,
                )
            return self._client

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()


class Worker:
    """A node: one Dask worker."""

    def __init__(self, workers: Workers, state: WorkerState) -> None:
        self._workers, self._state = workers, state
        self.address: str = state.address
        self.host = self.address.partition("://")[2].rpartition(":")[0]
        self.name = str(state.name)

    @property
    def there(self) -> bool:
        """Tell whether it is still connected; a worker that returns under the same address is a different node."""
        return self._workers.scheduler.workers.get(self.address) is self._state

    @property
    def open(self) -> bool:
        """Tell whether it accepts ranks; a closing node doesn't."""
        return self._state.status in {Status.init, Status.running}

    @property
    def load(self) -> int:
        """Return how many agents run or wait on it."""
        return len(self._state.processing)

    async def free_port(self) -> int:
        """Return a port for a rendezvous. Raises NodeLost."""
        return cast("int", await self._call("cnai_port", host=self.host))

    async def tell(self, message: End | Dump) -> None:
        """Send it a message about a generation. Raises NodeLost."""
        await self._call("cnai_tell", message=plain(message))

    async def about(self) -> NodeStatus:
        """Return its facts. Raises NodeLost."""
        found = await self._call("cnai_about")
        return NodeStatus(address=self.address, pid=found["pid"], memory_mib=found["memory_mib"])

    async def start(self, order: Order) -> Task:
        """Start an agent, which waits on the node until there is room."""
        client = await self._workers.client()
        key = f"cnai-{order.assignment.run_id}-{order.assignment.generation}-{order.node_rank}"
        future = client.submit(
            node.run_agent,
            order,
            key=key,
            workers=[self.address],
            allow_other_workers=False,
            resources={"node": 1},
            pure=False,
        )
        # Dask keeps a published task even if its client loses the connection.
        await client.publish_dataset(future, name=key, override=True)
        return Task(self, client, future, order.node_rank)

    async def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return await getattr(self._workers.scheduler.rpc(self.address), operation)(**arguments)
        except (OSError, CommClosedError) as gone:
            raise NodeLost(f"{operation} on {self.address}: {gone}") from None


class Task:
    """An agent: one Dask task."""

    def __init__(self, worker: Worker, client: Client, future: Future, node_rank: int) -> None:
        self._worker, self._client, self._future, self._node_rank = worker, client, future, node_rank

    @property
    def done(self) -> bool:
        """Tell whether its report has arrived."""
        return bool(self._future.done())

    async def report(self) -> Report:
        """Wait for its end and return its report; a lost node has a report, too."""
        try:
            return cast("Report", await self._future.result())
        except KilledWorker:
            return self._failed(f"node {self._node_rank} was lost")
        except FutureCancelledError:
            if not self._worker.there:
                return self._failed(f"node {self._node_rank} was lost")
            return self._failed(f"canceled before it started on node {self._node_rank}")
        except Exception as error:  # noqa: BLE001  a node that can't start an agent counts as lost
            return self._failed(f"node {self._node_rank}: {type(error).__name__}: {error}")
        finally:
            await self._client.unpublish_dataset(self._future.key)

    async def cancel(self) -> None:
        """Cancel an agent that has not started; its report says so."""
        await self._future.cancel()

    def _failed(self, why: str) -> Report:
        return Report(node_rank=self._node_rank, error=why)
