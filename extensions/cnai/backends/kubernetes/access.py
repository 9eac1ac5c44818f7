"""Access: the API server's address and this process's credentials, from its pod's service account or KUBECONFIG."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnai import environment
from cnai.errors import EngineError, UsageError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ADVICE = "start a server on the cluster, set KUBECONFIG, or use --backend local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An API server and the credentials of one account. Paths are read on use; texts are PEM or the token itself."""

    url: str
    namespace: str = ""
    token: Path | str = ""
    authority: Path | str = ""
    certificate: str = ""
    """The client's certificate and key, as PEM."""
    trusts_anyone: bool = False
    inside: bool = False
    """Whether this process runs in a pod of the cluster, where it must not use the environment's proxies."""

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request; reads the token each time, since kubelet renews the file."""
        try:
            token = _text(self.token).strip()
        except OSError:
            raise EngineError(f"found no service account token in {Path(self.token).parent}") from None
        return {"Authorization": f"Bearer {token}"} if token else {}

    def trust(self) -> ssl.SSLContext | bool:
        """Return the TLS context that verifies the API server."""
        if not self.url.startswith("https"):
            return False
        context = ssl.create_default_context(cadata=_text(self.authority) or None)
        # Set by default from Python 3.13 on; the authorities of many clusters lack the extensions that it requires.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.trusts_anyone:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate:
            with tempfile.NamedTemporaryFile("w") as file:  # ssl reads files only
                file.write(self.certificate)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def here() -> Access:
    """Return this process's access: from KUBECONFIG if it is set, otherwise from its pod, or from ~/.kube/config."""
    if (ACCOUNT / "token").exists() and "KUBECONFIG" not in os.environ:
        return of_pod()
    return of_kubeconfig(Path(os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser())


def of_pod(account: Path = ACCOUNT) -> Access:
    """Return the access of the pod's service account; outside a pod the first use fails."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = account / "namespace"
    return Access(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=_namespace(namespace.read_text().strip() if namespace.exists() else ""),
        token=account / "token",
        authority=account / "ca.crt",
        inside=True,
    )


def of_kubeconfig(file: Path) -> Access:
    """Return the access of a kubeconfig's current context."""
    import yaml

    try:
        config = yaml.safe_load(file.read_text())
        context = _named(config, "context", config["current-context"])
        cluster, user = _named(config, "cluster", context["cluster"]), _named(config, "user", context["user"])
        _check_login(file, user)
        return Access(
            url=cluster["server"],
            namespace=_namespace(context.get("namespace") or "default"),
            token=user.get("token") or (file.parent / user["tokenFile"] if "tokenFile" in user else ""),
            authority=_pem(cluster, "certificate-authority", file.parent),
            certificate=_pem(user, "client-certificate", file.parent) + _pem(user, "client-key", file.parent),
            trusts_anyone=bool(cluster.get("insecure-skip-tls-verify")),
        )
    except UsageError:  # which is a ValueError
        raise
    except OSError as error:
        raise UsageError(f"no Kubernetes here: {error.filename} can't be read ({error.strerror}); {_ADVICE}") from None
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        lacks = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"no Kubernetes here: {file} is not a usable kubeconfig ({lacks}); {_ADVICE}") from None


def _namespace(otherwise: str) -> str:
    return environment.NAMESPACE.get() or otherwise


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in config[f"{kind}s"]:
        if entry["name"] == name:
            return dict(entry[kind])
    raise LookupError(f"no {kind} {name!r}")


def _check_login(file: Path, user: dict[str, Any]) -> None:
    if given := sorted({"exec", "auth-provider", "username"} & set(user)):
        allowed = "token, tokenFile or client-certificate"
        raise UsageError(f"{file} authenticates with {' and '.join(given)}; allowed: {allowed}; {_ADVICE}")


def _pem(entry: dict[str, Any], key: str, folder: Path) -> str:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return (folder / entry[key]).read_text() if entry.get(key) else ""


def _text(given: Path | str) -> str:
    return given.read_text() if isinstance(given, Path) else given
