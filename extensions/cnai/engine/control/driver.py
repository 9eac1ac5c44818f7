"""Driver: takes one run through its generations.

Crash, node loss, resize, pause and recovery are one path: end this generation, at a step boundary when possible, and
start the next one, with its own world size, port and rendezvous, from the last committed checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cnai.engine.commands import Verb, Wish, refusal
from cnai.engine.control import diagnoses, verdicts
from cnai.engine.control.generation import Generation, Interrupted, NoNodes
from cnai.engine.control.verdicts import Budget, Cause, Verdict
from cnai.engine.messages import Announced, Assignment, Ending, Events, Started
from cnai.engine.scribe import Scribe
from cnai.errors import StoreError
from cnai.events import Checkpoint, Diagnosis, Event, NewGeneration, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.control.cluster import Cluster
    from cnai.engine.messages import FromNode
    from cnai.engine.store import RunFolder

TICK_SECONDS = 1.0
_ENDINGS: dict[Verb, Ending] = {"stop": "terminate", "pause": "graceful", "scale": "graceful"}

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """A wish can't be granted; the message is the reason, for the person who asked."""


class Driver:
    """Drives one run and grants people's wishes for it. Runs on the scheduler's event loop."""

    def __init__(self, cluster: Cluster, folder: RunFolder, *, recovered: bool = False) -> None:
        self.folder, self.spec, self.record = folder, folder.spec, folder.record
        self._cluster = cluster
        self._scribe = Scribe(folder, cluster.sinks)
        self._recovered = recovered
        self._generation: Generation | None = None
        self._wish: Wish | None = None
        self._wished = asyncio.Event()
        self._impatient = False
        """Set by a second request to stop."""
        self._budget = Budget()

    @property
    def state(self) -> State:
        """Return the run's state."""
        return self._scribe.status.state

    async def drive(self) -> None:
        """Run until a final state, or until the engine rests and leaves the run to the next engine."""
        try:
            await self._drive()
        except Exception as error:
            logger.exception("run %s", self.folder.run_id)
            if not self._cluster.resting:
                if not self.state.final:
                    self._fail(Cause(summary=f"the engine failed: {type(error).__name__}: {error}", fault="infra"))
                raise
        finally:
            try:
                if not self.state.final:
                    self._rest()
            finally:
                self._scribe.close()

    async def _drive(self) -> None:
        self._begin()
        while not self.state.final and not self._cluster.resting:
            await self._next()
        while self._scribe.behind and not self._cluster.resting:  # only this driver knows how the run ended
            await asyncio.sleep(TICK_SECONDS)
            with self._despite_a_full_disk():
                self._scribe.catch_up()

    def wish(self, wish: Wish, *, only_ask: bool = False) -> None:
        """Note a person's wish, replacing an earlier wish; with `only_ask` only check it. Raises Refusal."""
        if why := refusal(wish, self.folder.run_id, self._scribe.status):
            raise Refusal(why)
        if only_ask:
            return
        if self.state is State.PAUSED and wish.ranks is not None:
            self._keep(world_size=wish.ranks)  # immediately: the next wish must not overtake this one
        if wish.verb == "resume":
            self._become(State.RESTARTING, "resumed")
        self._impatient = wish.verb == "stop" and self._wish is not None and self._wish.verb == "stop"
        self._wish = wish
        self._wished.set()

    def on(self, address: str) -> bool:
        """Tell whether a node holds ranks of this run."""
        return self._generation is not None and self._generation.on(address)

    def leave(self) -> None:
        """End the current generation at a step boundary, because its ranks must leave their nodes."""
        if self._generation is not None:
            self._generation.left = True
        self._wished.set()

    def hear(self, message: FromNode) -> None:
        """Handle a node's message about the current generation."""
        current, content = self._generation, message.content
        if current is None or message.generation != current.number:
            return
        if isinstance(content, Started):
            if current.started(message.node_rank):
                self._become(State.RUNNING)
        elif isinstance(content, Announced):
            current.announced(content.rank, content.abilities)
            if content.abilities.max_ranks not in {None, self._scribe.status.max_ranks}:
                self._keep(max_ranks=content.abilities.max_ranks)
        else:
            self._take(current, content)

    def _take(self, current: Generation, events: Events) -> None:
        self._scribe.take(events.text)
        current.last_heard = time.monotonic()
        for line in events.text.splitlines():
            # Parse only the few events that the supervisor acts on.
            if '"kind":"checkpoint"' in line:
                self._commit(Checkpoint.of(Event.from_json(line)).path)
            elif '"kind":"diagnosis"' in line and '"error":' in line:
                event = Event.from_json(line)
                current.diagnoses[event.rank or 0] = Diagnosis.of(event)

    def _commit(self, checkpoint: str) -> None:
        try:
            self.folder.commit_checkpoint(checkpoint)
        except StoreError as full:  # the previous checkpoint stays the latest
            self._scribe.note(Diagnosis(summary=f"checkpoint not kept: {full}"))
            return
        self._budget.progress()
        # Removing large files takes long and would block the scheduler's event loop.
        asyncio.get_running_loop().run_in_executor(None, self.folder.prune_checkpoints)

    def _begin(self) -> None:
        status, most = self._scribe.status, self.spec.ranks.maximum
        fields = {
            "engine": self._cluster.engine,
            "world_size": status.world_size or most,
            "first_world_size": status.first_world_size or most,
        }
        if not self._recovered:
            self._keep(**fields, generation=-1)
        elif status.state is State.PAUSED:
            self._keep(**fields)
        else:
            how = "stopped" if status.reason == verdicts.STOPPED else "lost"
            self._become(State.RESTARTING, f"the engine was {how} and started again", **fields)

    def _rest(self) -> None:
        """Leave the run to the next engine, after granting a pending wish."""
        self._grant()
        if not self.state.final and self.state is not State.PAUSED:
            state = State.PENDING if self.state is State.PENDING else State.RESTARTING
            self._become(state, self._cluster.resting or verdicts.STOPPED)

    async def _next(self) -> None:
        """Run one more generation, or wait while the run is paused."""
        if self.state is State.PAUSED:
            await self._wished.wait()
        if self._cluster.resting or not self._grant():
            return
        try:
            verdict = await self._run_generation()
        except Interrupted:
            return
        except NoNodes as why:
            self._fail(Cause(summary=str(why), fault="infra"))
            return
        finally:
            self._generation = None
        self._conclude(verdict)

    def _grant(self) -> bool:
        """Grant a wish between generations; tell whether the next generation may start."""
        wish, self._wish = self._wish, None
        self._wished.clear()
        if wish is not None and wish.ranks is not None:
            self._keep(world_size=wish.ranks)
        if wish is not None and wish.verb == "stop":
            self._become(State.CANCELLED, "stopped")
        elif wish is not None and wish.verb == "pause":
            self._become(State.PAUSED)
        return not self.state.final and self.state is not State.PAUSED

    async def _run_generation(self) -> Verdict:
        latest = self.folder.latest()
        self._keep(generation=self._scribe.status.generation + 1)
        status = self._scribe.status
        assignment = Assignment(
            run_id=self.folder.run_id,
            generation=status.generation,
            run_dir=self.folder.path,
            resume_from=latest,
            checkpoint_every=self.spec.checkpoint_every,
            timeout_seconds=self.spec.timeout_seconds,
            first_world_size=status.first_world_size or status.world_size,
        )
        self._generation = current = Generation(
            assignment=assignment,
            world_size=status.world_size,
            spec=self.spec,
            record=self.record,
            cluster=self._cluster,
        )
        from_step = int(latest.name.rpartition("-")[2]) if latest else 0
        self._scribe.note(NewGeneration(ranks=status.world_size, from_step=from_step))
        reports = await current.run(self._wished, self._granting)
        verdict = current.verdict or verdicts.judge(reports, current.diagnoses, current.world_size)
        return Verdict(ending="ended") if current.excuses(verdict) else verdict

    def _granting(self) -> Ending | None:
        """Return how the generation should end for the pending wish, None if it should continue."""
        wish, current = self._wish, self._generation
        leaving: Ending | None = "graceful" if current is not None and current.left else None
        if wish is None or current is None:
            return leaving
        if wish.verb == "scale":
            if wish.ranks == current.world_size and not current.ending:
                self._wish = None
                self._wished.clear()
                return leaving
            self._become(State.RESIZING, f"from {current.world_size} to {wish.ranks} ranks")
        return "kill" if self._impatient else _ENDINGS.get(wish.verb, leaving)

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.ending == "finished":
            self._succeed()
        elif verdict.ending == "failed" and self._wish is None:
            assert verdict.cause is not None
            self._fail_or_restart(verdict.cause)
        elif verdict.ending == "ended" and self._wish is None and not self._cluster.resting:
            self._become(State.RESTARTING, "its node is shutting down")

    def _succeed(self) -> None:
        result = self.folder.path / f"result-gen-{self._scribe.status.generation}"
        if result.exists():
            result.replace(self.folder.result)
        self._become(State.SUCCEEDED)

    def _fail_or_restart(self, cause: Cause) -> None:
        if not self._budget.allows(cause.fault, self.spec):
            self._fail(cause)
            return
        latest = self.folder.latest()
        where = f"from {latest.name}" if latest else "from the beginning"
        self._become(State.RESTARTING, f"{cause.summary}; continuing {where}")

    def _fail(self, cause: Cause) -> None:
        tail = self._log_tail(cause.rank) if not cause.traceback else ""
        diagnosis = Diagnosis(
            summary=cause.summary,
            final=True,
            traceback=cause.traceback,
            log_tail=tail,
            hint=diagnoses.hint(f"{cause.summary}\n{cause.traceback}\n{tail}"),
        )
        self._scribe.note(diagnosis, rank=cause.rank)
        self._become(State.FAILED, cause.summary)

    def _log_tail(self, rank: int | None) -> str:
        try:
            log = self.folder.log_file(self._scribe.status.generation, rank or 0).read_text(errors="replace")
        except OSError:
            return ""
        return diagnoses.tail(log.replace(f"{self.folder.path}/code/", ""))

    def _become(self, state: State, reason: str = "", **changes: Any) -> None:
        with self._despite_a_full_disk():
            self._scribe.become(state, reason, **changes)

    def _keep(self, **changes: Any) -> None:
        with self._despite_a_full_disk():
            self._scribe.keep(**changes)

    @contextmanager
    def _despite_a_full_disk(self) -> Iterator[None]:
        """Continue the run although the disk is full; the scribe keeps the unwritten state in memory."""
        try:
            yield
        except StoreError as full:
            logger.warning("run %s: %s", self.folder.run_id, full)
