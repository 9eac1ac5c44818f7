"""Verdicts: decides how a generation ended, from its reports, and whether to retry. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cnai.engine.echoes import is_echo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnai.engine.messages import LastWord, Report
    from cnai.events import Diagnosis
    from cnai.spec import RunSpec

Fault = Literal["user", "infra", "deadline"]
Outcome = Literal["finished", "ended", "failed"]

STOPPED = "the engine was stopped; attach resumes the run"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The reason why a generation failed, as one line for people; `traceback` holds the user's own lines."""

    summary: str
    fault: Fault
    rank: int | None = None
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a generation ended."""

    ending: Outcome
    cause: Cause | None = None


@dataclass
class Budget:
    """Counts failures without progress; a new checkpoint resets the count."""

    spent: dict[Fault, int] = field(default_factory=lambda: {"user": 0, "infra": 0})

    def progress(self) -> None:
        """Forget past failures."""
        self.spent = {"user": 0, "infra": 0}

    def allows(self, fault: Fault, spec: RunSpec) -> bool:
        """Count a failure and tell whether the run may try again."""
        if fault == "deadline":
            return False
        self.spent[fault] += 1
        return self.spent[fault] <= (spec.retries if fault == "user" else spec.infra_retries)


def judge(reports: Sequence[Report], diagnoses: Mapping[int, Diagnosis], world_size: int) -> Verdict:
    """Decide how a generation ended, from its nodes' reports and its ranks' diagnoses."""
    said: dict[int, LastWord] = {}
    for report in reports:
        said.update(report.said)
    if len(said) == world_size:
        return Verdict(ending="ended" if "ended" in said.values() else "finished")
    return Verdict(ending="failed", cause=_cause(reports, diagnoses))


def _cause(reports: Sequence[Report], diagnoses: Mapping[int, Diagnosis]) -> Cause:
    """Return the earliest failure that isn't merely the echo of another failure."""
    causes = [(found.at or 0.0, _exception(rank, found)) for rank, found in diagnoses.items()]
    causes += [
        (failure.time, _exit(failure.rank, failure.exit_code, failure.signal_name))
        for report in reports
        for failure in report.failures
        if failure.rank not in diagnoses
    ]
    causes.sort(key=lambda item: item[0])
    own = [cause for _, cause in causes if not is_echo(cause.summary)]
    if own:
        return own[0]
    lost = [report.error for report in reports if report.error and "SignalException" not in report.error]
    if lost:
        return Cause(summary=lost[0], fault="infra")
    if causes:
        return causes[0][1]
    return Cause(summary="the ranks ended without a reason", fault="infra")


def _exception(rank: int, diagnosis: Diagnosis) -> Cause:
    return Cause(
        summary=f"rank {rank}: {diagnosis.summary}",
        # Losing a peer isn't the user's fault; it is the cause only if no other rank failed.
        fault="infra" if is_echo(diagnosis.summary) else "user",
        rank=rank,
        traceback=diagnosis.traceback or "",
    )


def _exit(rank: int, exit_code: int, signal_name: str) -> Cause:
    if signal_name:
        return Cause(summary=f"rank {rank} was killed by {signal_name}", fault="infra", rank=rank)
    return Cause(summary=f"rank {rank} exited with code {exit_code}", fault="user", rank=rank)


def spread(ranks: int, nodes: int) -> list[int]:
    """Return how many ranks each node holds: as even as possible, the first nodes hold more."""
    return [ranks // nodes + (node < ranks % nodes) for node in range(nodes)]
