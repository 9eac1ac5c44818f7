"""Driver: takes one run through its generations.

Crash, node loss, resize, pause and recovery are one path: end this generation, at a step boundary when possible, and
start the next one, with its own world size, port and rendezvous, from the last committed checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from cnai.engine.control import verdicts
from cnai.engine.control.generation import Generation, Interrupted, NoNodes
from cnai.engine.control.verdicts import Budget, Cause, Verdict
from cnai.engine.messages import Assignment
from cnai.engine.records import Status
from cnai.engine.store import Journal
from cnai.errors import StoreError
from cnai.events import TRANSITIONS, Event, Kind, State

if TYPE_CHECKING:
    from cnai.engine.control.supervisor import Supervisor
    from cnai.engine.store import RunFolder

LOG_TAIL_LINES = 10

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """A wish that can't be granted, with the reason for the person who asked."""


class Driver:
    """One run: its state, its journal and the wishes of people. Lives on the scheduler's event loop."""

    def __init__(self, supervisor: Supervisor, folder: RunFolder, *, recovered: bool = False) -> None:
        self.folder, self.spec, self.record = folder, folder.spec, folder.record
        self._supervisor = supervisor
        self._journal = Journal(folder)
        status = folder.status()
        self.state: State = status.state
        self._reason: str = status.reason
        self._number: int = status.generation if recovered else -1
        self._first_world = status.first_world_size or self.spec.ranks.maximum
        self._world = status.world_size or self.spec.ranks.maximum
        self._recovered = recovered
        self._generation: Generation | None = None
        self._wish: tuple[str, int | None] | None = None
        self._wished = asyncio.Event()
        self._max_ranks: int | None = status.max_ranks
        self._budget = Budget()

    async def drive(self) -> None:
        """Run until a final state, or until the engine ends, which leaves the run to the next one."""
        try:
            self._begin()
            while not self.state.final and not self._supervisor.resting:
                await self._next()
        except Exception as error:
            logger.exception("run %s", self.folder.run_id)
            if not self._supervisor.resting:
                self._become(State.FAILED, f"the engine failed: {type(error).__name__}: {error}")
                raise
        finally:
            if not self.state.final:
                self._rest()
            self._journal.close()

    def wish(self, verb: str, value: int | None, *, only_ask: bool = False) -> None:
        """Note what a person wants, unless they only ask; the newest wish counts. Raises Refusal."""
        if self.state.final:
            raise Refusal(f"run {self.folder.run_id} is {self.state} already")
        if verb == "resume" and self.state is not State.PAUSED:
            raise Refusal(f"run {self.folder.run_id} is {self.state}, not PAUSED; there is nothing to resume")
        if verb == "pause" and self.state is State.PAUSED:
            raise Refusal(f"run {self.folder.run_id} is PAUSED already")
        if verb in {"pause", "scale"} or value is not None:
            self._refuse_unless_resumable(verb, value)
        if only_ask:
            return
        if verb == "resume":
            self._become(State.RESTARTING, "resumed")
        self._wish = (verb, value)
        self._wished.set()

    def on(self, address: str) -> bool:
        """Tell whether a node holds ranks of this run."""
        return self._generation is not None and self._generation.on(address)

    def leave(self) -> None:
        """End the present generation at a step boundary; where its ranks are, they can't stay."""
        if self._generation is not None:
            self._generation.left = True
        self._wished.set()

    def hear(self, message: dict[str, Any]) -> None:
        """Take what a node says about the current generation."""
        current = self._generation
        if current is None or message["generation"] != current.number:
            return
        if "started" in message:
            if current.started(message["node"]):
                self._become(State.RUNNING)
        elif "announce" in message:
            current.announced(message["rank"], message["announce"])
            self._max_ranks = message["announce"].get("max_ranks", self._max_ranks)
        else:
            self._take_events(current, message["events"])

    def _take_events(self, current: Generation, text: str) -> None:
        self._publish(text)
        current.last_heard = time.monotonic()
        for line in text.splitlines():
            # Only the few facts that the supervisor acts on are worth parsing here.
            if '"kind":"checkpoint"' in line:
                self._commit(Event.from_json(line).payload["path"])
            elif '"kind":"diagnosis"' in line and '"error":' in line:
                event = Event.from_json(line)
                current.diagnoses[event.rank or 0] = event.payload

    def _commit(self, checkpoint: str) -> None:
        try:
            self.folder.commit_checkpoint(checkpoint)
        except StoreError as full:  # the one before stays the last
            self._emit(Kind.DIAGNOSIS, {"summary": f"checkpoint not kept: {full}"})
            return
        self._budget.progress()
        # Removing large files takes long; the scheduler's loop has other things to do.
        asyncio.get_running_loop().run_in_executor(None, self.folder.prune_checkpoints)

    def _refuse_unless_resumable(self, verb: str, value: int | None) -> None:
        if verb != "pause" and (value is None or value < 1):
            raise Refusal(f"ranks must be a number from 1; given: {value}")
        if self._max_ranks is None:
            raise Refusal(
                f"can't {verb} run {self.folder.run_id}: its code has not reached ctx.steps(); code without "
                "cnai.context() can't go on where it was, only be stopped"
            )
        if value is not None and value > self._max_ranks:
            raise Refusal(
                f"this run splits each step into {self._max_ranks} shards; ranks may be 1 to {self._max_ranks}"
            )

    def _begin(self) -> None:
        if not self._recovered:
            self._save_status()
        elif self.state is not State.PAUSED:
            how = "stopped" if self._reason == verdicts.STOPPED else "lost"
            self._become(State.RESTARTING, f"the engine was {how} and started again")

    def _rest(self) -> None:
        """Leave the run to the next engine, with what people have asked for in the meantime."""
        self._grant()
        if not self.state.final and self.state is not State.PAUSED:
            state = State.PENDING if self.state is State.PENDING else State.RESTARTING
            self._become(state, self._supervisor.resting or verdicts.STOPPED)

    async def _next(self) -> None:
        """Take the run one generation further, or wait while it is paused."""
        if self.state is State.PAUSED:
            await self._wished.wait()
        if self._supervisor.resting or not self._grant():
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
        """Grant a wish between generations; tell whether the next one may start."""
        verb, value = self._wish or ("", None)
        self._wish = None
        self._wished.clear()
        if value is not None:
            self._world = value
        if verb == "stop":
            self._become(State.CANCELLED, "stopped")
        elif verb == "pause":
            self._become(State.PAUSED)
        return not self.state.final and self.state is not State.PAUSED

    async def _run_generation(self) -> Verdict:
        latest = self.folder.latest()
        self._number += 1
        self._generation = current = Generation(
            number=self._number, world_size=self._world, spec=self.spec, supervisor=self._supervisor
        )
        self._save_status()
        from_step = int(latest.name.rpartition("-")[2]) if latest else 0
        self._emit(Kind.GENERATION, {"ranks": self._world, "from_step": from_step})
        assignment = Assignment(
            run_id=self.folder.run_id,
            generation=self._number,
            run_dir=self.folder.path,
            resume_from=latest,
            checkpoint_every=self.spec.checkpoint_every,
            timeout_seconds=self.spec.timeout_seconds,
            first_world_size=self._first_world,
        )
        reports = await current.run(assignment, self.record, self._wished, self._granting)
        verdict = current.verdict or verdicts.judge(reports, current.diagnoses, self._world)
        return Verdict(ending="ended") if current.excuses(verdict) else verdict

    def _granting(self) -> str:
        """Name how the generation should end for the present wish, "" if it needn't."""
        verb, value = self._wish or ("", None)
        leaving = "graceful" if self._generation is not None and self._generation.left else ""
        if verb == "scale" and value == self._world:
            self._wish = None
            self._wished.clear()
            return leaving
        if verb == "scale":
            self._become(State.RESIZING, f"from {self._world} to {value} ranks")
        return {"stop": "terminate", "pause": "graceful", "scale": "graceful"}.get(verb, leaving)

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.ending == "finished":
            self._succeed()
        elif verdict.ending == "failed" and self._wish is None:
            assert verdict.cause is not None
            self._fail_or_restart(verdict.cause)
        elif verdict.ending == "ended" and self._wish is None and not self._supervisor.resting:
            self._become(State.RESTARTING, "asked to leave its node")

    def _succeed(self) -> None:
        result = self.folder.path / f"result-gen-{self._number}"
        if result.exists():
            result.replace(self.folder.result)
        self._become(State.SUCCEEDED)

    def _fail_or_restart(self, cause: Cause) -> None:
        if not self._budget.allows(cause.fault, self.spec):
            self._fail(cause)
            return
        latest = self.folder.latest()
        where = f"from {latest.name}" if latest else "from the beginning"
        self._become(State.RESTARTING, f"{cause.summary}; going on {where}")

    def _fail(self, cause: Cause) -> None:
        tail = self._log_tail(cause.rank) if not cause.traceback else ""
        payload = {
            "summary": cause.summary,
            "final": True,
            "traceback": cause.traceback,
            "log_tail": tail,
            "hint": cause.hint or verdicts.hint(tail),
        }
        self._emit(Kind.DIAGNOSIS, payload, rank=cause.rank)
        self._become(State.FAILED, cause.summary)

    def _log_tail(self, rank: int | None) -> str:
        try:
            log = self.folder.log_file(self._number, rank or 0).read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(log.splitlines()[-LOG_TAIL_LINES:])

    def _become(self, state: State, reason: str = "") -> None:
        if state is self.state and not reason:
            return
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise AssertionError(f"{self.state} can't become {state}")
        self.state, self._reason = state, reason
        self._emit(Kind.STATE, {"state": state, "reason": reason})
        self._save_status()

    def _save_status(self) -> None:
        try:
            self.folder.write_status(
                Status(
                    state=self.state,
                    reason=self._reason,
                    generation=self._number,
                    world_size=self._world,
                    first_world_size=self._first_world,
                    max_ranks=self._max_ranks,
                    engine=self._supervisor.engine,
                )
            )
        except StoreError as full:  # the run itself goes on; the journal keeps the state until there is room
            logger.warning("run %s: %s", self.folder.run_id, full)

    def _emit(self, kind: Kind, payload: dict[str, Any], rank: int | None = None) -> None:
        event = Event(
            run_id=self.folder.run_id,
            generation=max(0, self._number),
            kind=kind,
            time=time.time(),
            rank=rank,
            payload=payload,
        )
        self._publish(event.to_json() + "\n")

    def _publish(self, text: str) -> None:
        self._supervisor.publish(self.folder.run_id, self._journal.append(text), text)
