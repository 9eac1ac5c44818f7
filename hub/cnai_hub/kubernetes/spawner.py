"""The spawner of a cluster: a notebook server from the catalog or a published app, as a pod in its user's namespace."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from kubernetes_asyncio.client.rest import ApiException
from traitlets import Instance, default

from cnai import environment, podspec, reasons
from cnai.labels import FLAVOR
from cnai_hub import pages, profiles, tenants
from cnai_hub.kubernetes import capacity, given, notebook_pods, progress, tenancy
from cnai_hub.kubernetes.api import Api, Refused, refused
from cnai_hub.kubernetes.app_pods import app_pod
from cnai_hub.kubernetes.patience import PatientSpawner
from cnai_hub.kubernetes.recovery import Recovery
from cnai_hub.kubernetes.settings import Settings
from cnai_hub.kubernetes.survey import Survey
from cnai_hub.profiles import Choice
from cnai_hub.servers import CatalogServer, NotStarted, listens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from cnai.catalog import Catalog
    from cnai.foreign import Manifest, Traits

_LOOK_SECONDS = 0.5
_KNOCK_SECONDS = 0.1
# A claim is bound only some moments after its volume exists.
_BINDING_SECONDS = 5.0
# An administrator may set these variables in place of ours.
_ADJUSTABLE = {"OMP_NUM_THREADS", "JUPYTERHUB_ACTIVITY_INTERVAL"}
# Give up before JupyterHub does: its own message about a timeout doesn't say why.
_BEFORE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A choice that would start now: the values for the spawn page's form, and the flavor's title."""

    image: str
    flavor: str
    title: str


class NoPlace(NotStarted):
    """No node has room for the chosen flavor; the page offers the alternative."""

    def __init__(self, sentence: str, alternative: Alternative | None = None) -> None:
        super().__init__(sentence, reason="capacity", status_code=503)
        self.alternative = alternative


class CatalogKubeSpawner(CatalogServer, Recovery, PatientSpawner):
    """Starts a notebook server of a chosen image and flavor, or a published app, as a pod."""

    settings = Instance(Settings, help="The administrator's settings below `custom.cnai`.", config=True)

    # One for all spawners of the hub.
    _survey = Survey()
    _may_watch = False

    @property
    def _cluster_api(self) -> Api:
        return Api(self.api.api_client)

    @property
    def _shelf(self) -> Catalog:
        return self.settings.catalog.for_groups(tenancy.groups_of(self.user))

    @default("user_namespace_template")
    def _default_user_namespace_template(self) -> str:
        return tenants.namespace_name(self.user.name)

    @default("options_form")
    def _default_options_form(self) -> Callable[[CatalogKubeSpawner], Coroutine[Any, Any, str]]:
        return CatalogKubeSpawner._form

    async def _form(self) -> str:
        if self.is_app:
            return ""
        try:
            free = await self._survey.nodes(self._cluster_api)
            notes = {flavor.name: capacity.note(flavor, free) for flavor in self._shelf.flavors}
        except Refused as refusal:
            self.log.warning("the spawn page can't show free GPUs: %s", refusal)
            notes = {}
        return pages.options(profiles.offer(self._shelf, None, Choice.last(self.orm_spawner.user_options), notes))

    def settle(self, choice: Choice) -> None:
        """Configure this notebook server as chosen."""
        groups = tenancy.groups_of(self.user)
        profile = profiles.choose_for(choice, self.settings.catalog, groups)
        # Read the configuration, not the traits: those are of this server's previous start.
        added = given.settings(self.config)
        self._set_traits(notebook_pods.notebook(profile, self.settings, added))
        self._flavor, self._image = profile.flavor, profile.image.name
        self._chosen = notebook_pods.environment(profile, self._shelf, self.namespace)
        if (extras := added.extras()) != podspec.Extras():
            self._chosen[environment.EXTRAS.name] = json.dumps(self._expand_all(json.loads(extras.to_json())))

    def settle_app(self) -> None:
        """Configure this server as the app that its name denotes."""
        app = app_pod(self.name, self.user.name)
        if app is None:
            raise self.no_such_app()
        groups = tenancy.groups_of(self.user)
        flavor = profiles.choose_for(Choice(flavor=app.flavor), self.settings.catalog, groups).flavor
        added = given.settings(self.config)
        traits = {**notebook_pods.hardware(flavor, self.settings, added), **app.traits()}
        # Don't restart an app that exits during its start: its message is the reason that the hub shows.
        traits["extra_pod_config"] = {**added.pod, **traits["extra_pod_config"], "restartPolicy": "Never"}
        self._set_traits(traits)
        self.extra_labels = {**added.labels, **app.labels, FLAVOR: flavor.name}
        self._flavor, self._image = flavor, app.image_name
        self._chosen = {**app.environment, environment.FLAVOR.name: flavor.name}

    def _set_traits(self, traits: Traits) -> None:
        for name, value in traits.items():
            setattr(self, name, value)
        self.pvc_name = self._expand_user_properties(self.pvc_name_template)
        # KubeSpawner remembers that it created the claim, but an administrator may have deleted it since.
        self._pvc_exists = False

    async def load_user_options(self) -> None:
        """Do nothing: the options have already been applied, strictly."""

    def get_env(self) -> dict[str, str]:
        """Return the environment of the server; our own variables are not templates.

        The trait `environment` belongs to the administrator: the chart sets it from `singleuser.extraEnv`.
        """
        ours = {environment.HUB_URL.name: self.settings.inside, **podspec.without_gpus(self._flavor), **self._chosen}
        theirs = {name for name in self.environment if name in _ADJUSTABLE}
        return {**super().get_env(), **{name: value for name, value in ours.items() if name not in theirs}}

    async def _ensure_namespace(self) -> None:
        await tenancy.ensure(self._cluster_api, self.user.name, tenancy.groups_of(self.user), self.settings)

    async def _start(self) -> str:
        """Start the pod, and wait until it answers or can no longer start."""
        work = asyncio.ensure_future(self._work())
        watch = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            url: str = await (work if work.done() else watch)
        except ApiException as error:
            raise _refusal(refused(error.status or 0, str(error.body or error.reason))) from None
        except Refused as refusal:
            raise _refusal(refusal) from None
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        return url

    async def _work(self) -> str:
        # KubeSpawner ends the hub if it has no right to watch; test that first, and tell the user instead.
        if not CatalogKubeSpawner._may_watch:
            await self._cluster_api.get("/api/v1/pods", limit="1")
            await self._cluster_api.get("/api/v1/events", limit="1")
            CatalogKubeSpawner._may_watch = True
        url: str = await super()._start()
        # Wait here, beside the watch: JupyterHub would wait two minutes for a pod that has ended, and not know why.
        address = urlparse(url)
        deadline = time.monotonic() + self.http_timeout
        while not await listens(address.hostname or "", address.port or 0) and time.monotonic() < deadline:
            await asyncio.sleep(_KNOCK_SECONDS)
        return url

    async def _watch(self) -> str:
        """Raise as soon as the pod can no longer start, with the reason as a sentence."""
        begin = time.monotonic()
        unplaced_since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            pod = self._pod()
            reason = reasons.of_pod(pod, self.events) if pod else reasons.Reason()
            if reason and not reason.heals:
                raise NotStarted(str(reason), reason="pod", status_code=400)
            unplaced = bool(pod) and not (pod or {})["spec"].get("nodeName")
            unplaced_since = (unplaced_since or time.monotonic()) if unplaced and reason else None
            waited = time.monotonic() - unplaced_since if unplaced_since else 0
            if waited > min(_BINDING_SECONDS, self.settings.patience_seconds):
                await self._check_home()
            if waited > self.settings.patience_seconds:
                raise await self._no_place(str(reason))
            if time.monotonic() - begin > self.start_timeout - _BEFORE_TIMEOUT_SECONDS:
                why = reason or "its pod gives no reason"
                sentence = f"the server did not start within {self.start_timeout} s: {why}"
                raise NotStarted(sentence, reason="timeout", status_code=503)

    def _pod(self) -> Manifest | None:
        reflector = self.pod_reflector
        return reflector.pods.get(f"{self.namespace}/{self.pod_name}") if reflector else None

    async def _check_home(self) -> None:
        if self.storage_pvc_ensure:
            path = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{self.pvc_name}"
            if why := tenancy.why_without_volume(await self._cluster_api.get(path)):
                raise NotStarted(why, reason="storage", status_code=503)

    async def _no_place(self, reason: str) -> NoPlace:
        free = await self._survey.nodes(self._cluster_api, now=True)
        sentence = capacity.shortage(self._flavor, free) or reason
        fit = capacity.largest(self._shelf, self._flavor, free, self.settings)
        if fit is None or self.is_app:
            return NoPlace(f"{sentence}; try again later")
        alternative = Alternative(image=self._image, flavor=fit.name, title=fit.title)
        return NoPlace(f"{sentence}; the largest flavor that fits is {fit.title} ({fit})", alternative)

    async def progress(self) -> AsyncIterator[dict[str, int | str]]:
        """Yield each stage of the pod's start once, in plain words."""
        said: progress.Stage | None = None
        while self._start_future is None or not self._start_future.done():
            now = progress.stage(self._pod(), self.events)
            if now != said:
                percent = max(now.percent, said.percent if said else 0)
                yield {"progress": percent, "message": await self._with_free_gpus(now.sentence)}
                said = now
            await asyncio.sleep(_LOOK_SECONDS)

    async def _with_free_gpus(self, sentence: str) -> str:
        """Replace a sentence about missing GPUs by one that also says how many are free."""
        if not sentence.startswith("No node has"):
            return sentence
        try:
            short = capacity.shortage(self._flavor, await self._survey.nodes(self._cluster_api))
        except Refused:
            return sentence
        return f"N{short[1:]}; waiting for one" if short else sentence

    async def poll(self) -> int | None:
        """Return None while the pod runs or starts; stop it after its flavor's max_hours."""
        if self._start_future is not None and not CatalogKubeSpawner._may_watch:
            return 1  # JupyterHub is cleaning up after a start that created nothing
        status: int | None = await super().poll()
        pod = self._pod()
        if status is None and pod and notebook_pods.is_overdue(pod, datetime.now(UTC)):
            self.log.info("%s has run for its flavor's max_hours; stopping it", self._log_name)
            await self.stop()
            return 0
        if status is not None and pod and (pod.get("status") or {}).get("phase") == "Failed":
            # The node refused or evicted the pod. KubeSpawner keeps it, and the next start would take it for its own.
            await self.stop(now=True)
        return status


def _refusal(refusal: Refused) -> NotStarted:
    # These statuses mean that the request is invalid; otherwise the cluster is at fault.
    asked = refusal.status in {400, 403, 409, 422}
    return NotStarted(str(refusal), reason="cluster", status_code=400 if asked else 503)
