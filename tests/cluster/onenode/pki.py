"""Certificates and keys of the cluster's components, and their kubeconfigs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from onenode.place import API_SERVER, NODE, NODE_IP

if TYPE_CHECKING:
    from pathlib import Path

    from onenode.place import Place

_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
_SERVICE_IP = "10.96.0.1"
# name: common name, organization (a group to Kubernetes), uses, names and addresses
LEAVES: dict[str, tuple[str, str, list[x509.ObjectIdentifier], list[str]]] = {
    "apiserver": ("kube-apiserver", "", [_SERVER], [*_NAMES, "localhost", _SERVICE_IP, "127.0.0.1", NODE_IP]),
    "kubelet-client": ("kube-apiserver-kubelet-client", "system:masters", [_CLIENT], []),
    "kubelet": (f"system:node:{NODE}", "system:nodes", [_SERVER, _CLIENT], [NODE, NODE_IP, "127.0.0.1"]),
    "admin": ("admin", "system:masters", [_CLIENT], []),
    "controller-manager": ("system:kube-controller-manager", "", [_CLIENT], []),
    "scheduler": ("system:kube-scheduler", "", [_CLIENT], []),
    "proxy": ("system:kube-proxy", "", [_CLIENT], []),
}
USERS = ("admin", "controller-manager", "scheduler", "proxy", "kubelet")


def write(place: Place) -> None:
    """Write everything once; what exists stays as it is."""
    folder = place.state / "pki"
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    ca = _authority(folder, "ca", "cnai-ca")
    for name, (common, group, uses, hosts) in LEAVES.items():
        _leaf(folder, name, ca, _subject(common, group), uses, hosts)
    front = _authority(folder, "front-ca", "cnai-front-proxy-ca")
    _leaf(folder, "front", front, _subject("front-proxy-client"), [_CLIENT], [])
    _service_accounts(folder)
    for user in USERS:
        _private(place.state / "config" / f"{user}.kubeconfig", json.dumps(kubeconfig(folder, user), indent=1).encode())
    (folder / "done").touch()


def kubeconfig(folder: Path, user: str) -> dict[str, object]:
    """Return a kubeconfig that needs no other file."""

    def data(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cnai", "cluster": {"server": API_SERVER, "certificate-authority-data": data("ca.crt")}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")},
            }
        ],
        "contexts": [{"name": "cnai", "context": {"cluster": "cnai", "user": user}}],
        "current-context": "cnai",
    }


def _authority(folder: Path, name: str, common: str) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    key = _key(folder / f"{name}.key")
    subject = _subject(common)
    extensions: list[x509.ExtensionType] = [x509.BasicConstraints(ca=True, path_length=None), _usage(signs=True)]
    _sign(folder / f"{name}.crt", subject, key.public_key(), (subject, key), extensions)
    return subject, key


def _leaf(
    folder: Path,
    name: str,
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey],
    subject: x509.Name,
    uses: list[x509.ObjectIdentifier],
    hosts: list[str],
) -> None:
    extensions: list[x509.ExtensionType] = [_usage(signs=False), x509.ExtendedKeyUsage(uses)]
    if hosts:
        extensions.append(x509.SubjectAlternativeName([_host(host) for host in hosts]))
    _sign(folder / f"{name}.crt", subject, _key(folder / f"{name}.key").public_key(), issuer, extensions)


def _sign(
    path: Path,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey],
    extensions: list[x509.ExtensionType],
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer[0], subject, public, x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=365))
    for extension in extensions:
        critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(issuer[1], hashes.SHA256())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _service_accounts(folder: Path) -> None:
    """Write the pair of keys that signs and checks the tokens of service accounts."""
    public = _key(folder / "sa.key").public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "sa.pub").write_bytes(public.public_bytes(serialization.Encoding.PEM, form))


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    _private(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return key


def _private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _subject(common: str, group: str = "") -> x509.Name:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
