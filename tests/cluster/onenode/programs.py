"""The programs of the cluster, built from Go modules into the cache, once per version."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from onenode import debian
from onenode.place import ClusterError, Place
from onenode.shell import call

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)
MODULES = Path(__file__).resolve().parents[1] / "go"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
# Commands whose modules have no `replace` directives, which `go install` refuses.
TOOLS = {
    "coredns": "github.com/coredns/coredns@v1.14.2",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok@v0.8.0",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.20.2",
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server@v0.9.0",
    "cyclonus": "github.com/mattfenwick/cyclonus/cmd/cyclonus@v0.5.6",
}
NEEDED = ("kube", "pause", "coredns", "cyclonus")
ALLOWED = ("kube", "pause", "kueue", *TOOLS)
_GO = {"CGO_ENABLED": "0", "GOFLAGS": ""}
_SMALL = ("-trimpath", "-ldflags")


def build(place: Place, names: Iterable[str] = NEEDED) -> None:
    """Build the programs that are not in the cache; the first build of Kubernetes takes minutes."""
    for name in names:
        if name not in ALLOWED:
            raise ClusterError(f"unknown program {name!r}; allowed: {', '.join(ALLOWED)}")
        _BUILDERS.get(name, _tool)(place, name)


def version(module: str, path: str) -> str:
    """Return the version of a module that one of our modules requires."""
    found = re.search(rf"^\s*{re.escape(path)} (v\S+)", (MODULES / module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{MODULES / module}/go.mod does not need {path}")
    return found[1]


def _kubernetes(place: Place, _: str) -> None:
    release = version("kube", "k8s.io/kubernetes")
    done = place.cache / f"kube-{release}"
    if not (done / "kubectl").exists():
        new = place.cache / f"kube-{release}.building"
        new.mkdir(parents=True, exist_ok=True)
        _log.info("building Kubernetes %s, which takes minutes the first time", release)
        packages = [f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES]
        _go("build", "-buildvcs=false", *_SMALL, _stamps(release), "-o", f"{new}/", *packages, cwd=MODULES / "kube")
        new.rename(done)
    for name in KUBERNETES:
        _link(place, name, done / name)


def _stamps(release: str) -> str:
    """Return linker flags that set the version; a server without one reports v0.0.0, which clients refuse."""
    facts = {
        "gitVersion": release,
        "gitMajor": "1",
        "gitMinor": release.split(".")[1],
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {package}.{key}={fact}" for package in packages for key, fact in facts.items())])


def _pause(place: Place, _: str) -> None:
    """Compile Kubernetes' own pause, the program that holds a pod's namespaces open."""
    release = version("kube", "k8s.io/kubernetes")
    done = place.programs / f"pause-{release}"
    if not done.exists():
        debian.need(debian.COMPILER)
        _go("mod", "download", "k8s.io/kubernetes", cwd=MODULES / "kube")
        module = _go("list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes", cwd=MODULES / "kube").strip()
        place.programs.mkdir(parents=True, exist_ok=True)
        call("gcc", "-Os", "-static", "-s", "-o", f"{done}.new", f"{module}/build/pause/linux/pause.c")
        Path(f"{done}.new").rename(done)
    _link(place, "pause", done)


def _kueue(place: Place, _: str) -> None:
    """Build Kueue within a module: `go install` first requests its newest version, which may not be available."""
    done = place.programs / f"kueue-{version('kueue', 'sigs.k8s.io/kueue')}"
    if not done.exists():
        new = f"{done}.new"
        _log.info("building Kueue")
        _go(
            "build",
            "-buildvcs=false",
            *_SMALL,
            "-s -w",
            "-o",
            new,
            "sigs.k8s.io/kueue/cmd/kueue",
            cwd=MODULES / "kueue",
        )
        Path(new).rename(done)
    _link(place, "kueue", done)


def _tool(place: Place, name: str) -> None:
    done = place.programs / f"{name}-{TOOLS[name].partition('@')[2]}"
    if not done.exists():
        new = place.programs / ".new"
        _log.info("building %s", TOOLS[name])
        _go("install", *_SMALL, "-s -w", TOOLS[name], cwd=MODULES, GOBIN=str(new))
        (new / name).rename(done)
        shutil.rmtree(new)
    _link(place, name, done)


_BUILDERS = {"kube": _kubernetes, "pause": _pause, "kueue": _kueue}


def _go(*arguments: str, cwd: Path, **more: str) -> str:
    if shutil.which("go") is None:
        raise ClusterError("the cluster's programs are built with Go, which is not in PATH; install Go 1.25 or newer")
    return call("go", *arguments, cwd=cwd, env={**_GO, **more})


def _link(place: Place, name: str, program: Path) -> None:
    link = place.programs / name
    if link.is_symlink() and link.resolve() == program:
        return
    place.programs.mkdir(parents=True, exist_ok=True)
    new = place.programs / f"{name}.link"
    new.unlink(missing_ok=True)
    new.symlink_to(program)
    new.rename(link)
