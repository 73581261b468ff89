"""Keys and certificates for TLS and node authentication of a Flower federation.

`ca.pem` goes to every node and to whoever starts runs; `ca.key` signs the next certificate of the
server and belongs on a machine without network; `server.pem` and `server.key` stay with the
SuperLink; `node-I` is the secret of node I, and `node-I.pub` is what the SuperLink's operator
registers. What a renewal replaces is kept as `NAME.old`, of the server what it replaced last.
"""

import datetime
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from cryptography.x509.oid import ExtendedKeyUsageOID

from entity.config.schema import ConfigError
from entity.record.atomic import writing

DAYS = 365
"""Of the server's certificate."""
DAYS_OF_AUTHORITY = 3650

SERVER = "server"

LOOPBACK = "127.0.0.1"


def make_keys(folder: Path, nodes: int, hosts: Sequence[str]) -> list[Path]:
    """Make what a folder of keys does not have yet.

    Parameters
    ----------
    folder
        Where; made if need be, for its owner alone.
    nodes
        How many nodes there are in all: `node-0` and so on.
    hosts
        Addresses of the SuperLink, for its certificate; without any, loopback.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If the server has a certificate and hosts are given, or half of a pair; a host is none; or
        the authority's key is lost or another one's.
    CannotWrite
        If the folder cannot be written.
    """
    server = [folder / "server.pem", folder / "server.key"]
    if hosts and any(path.exists() for path in server):
        raise ConfigError(
            f"{server[0]}: is there already, with its hosts; --renew server makes another one."
        )
    for host in hosts:
        _name(host)
    wanted = [("ca.pem", "ca.key"), ("server.pem", "server.key")]
    wanted += [(f"node-{number}.pub", f"node-{number}") for number in range(nodes)]
    lacks = [pair for pair in wanted if not _has(folder, *pair)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made: list[Path] = []
        for shown, secret in lacks:
            if shown == "ca.pem":
                files = _authority()
            elif shown == "server.pem":
                files = _server(folder, hosts or [LOOPBACK])
            else:
                files = _node(secret)
            made += _write(folder, files)
    return made


def renew(folder: Path, name: str, hosts: Sequence[str]) -> list[Path]:
    """Replace the certificate of the server, or the key of a node.

    Parameters
    ----------
    folder
        Made by `make_keys`.
    name
        `server`, or a node's.
    hosts
        Addresses of the SuperLink; without any, those of the certificate that is replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If there is nothing of that name to renew, hosts are given for a node, or one is none.
    CannotWrite
        If the folder cannot be written.
    """
    if name != SERVER and not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
        raise ConfigError(f"{name}: allowed is server, or the name of a node, such as node-0.")
    both = ("server.pem", "server.key") if name == SERVER else (name, f"{name}.pub")
    files = [folder / each for each in both]
    missing = [path.name for path in files if not path.is_file()]
    if missing and (name == SERVER or f"{name}.pub" in missing):  # a secret may be on its node
        raise ConfigError(f"{folder}: has no {missing[0]} that could be renewed.")
    if name != SERVER and hosts:
        raise ConfigError(f"{name}: hosts belong to the server's certificate alone.")
    kept = [old for each in both if (old := folder / f"{each}.old").exists()]
    if name != SERVER and kept:
        raise ConfigError(
            f"{kept[0]}: is kept from the last renewal; delete it once the new key works, then "
            "renew."
        )
    # Made whole before anything is moved: what is wrong shows there.
    new = _server(folder, hosts or _hosts_of(files[0])) if name == SERVER else _node(name)
    with writing(folder):
        for path in filter(Path.is_file, files):
            path.replace(path.with_name(f"{path.name}.old"))
        return _write(folder, new)


def _has(folder: Path, shown: str, secret: str) -> bool:
    """Whether a folder has a pair; of an authority, whose key lies elsewhere, the certificate."""
    there = {name: (folder / name).exists() for name in (shown, secret)}
    if shown == "ca.pem" and there[shown]:
        return True
    if any(there.values()) and not all(there.values()):
        has, lacks = sorted(there, key=lambda name: not there[name])
        if has == shown and shown.endswith(".pub"):
            return True  # the node has its secret, and the server needs it no more
        raise ConfigError(
            f"{folder / has}: is there without {lacks}; put that back, or move {has} away for a "
            "new pair."
        )
    return all(there.values())


def _authority() -> dict[str, bytes]:
    """Return the files of a certificate authority of our own."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "federation CA")])
    certificate = (
        _certificate(name, name, key.public_key(), DAYS_OF_AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(_identifier(key), critical=False)
        .sign(key, hashes.SHA384())
    )
    return {
        "ca.pem": certificate.public_bytes(Encoding.PEM),
        "ca.key": _private(key, PrivateFormat.PKCS8),
    }


def _server(folder: Path, hosts: Sequence[str]) -> dict[str, bytes]:
    """Return the files of a server whose certificate is signed by the folder's authority."""
    issuer, authority = _issuer(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    names = [_name(host) for host in hosts]
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _certificate(subject, issuer.subject, key.public_key(), DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_identifier(key), critical=False)
        .add_extension(_identifier_of(issuer, authority), critical=False)
        .sign(authority, hashes.SHA384())
    )
    return {
        "server.pem": certificate.public_bytes(Encoding.PEM),
        "server.key": _private(key, PrivateFormat.PKCS8),
    }


def _node(name: str) -> dict[str, bytes]:
    """Return a node's private key and the public one, in OpenSSH's formats as Flower reads them."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, Public.OpenSSH)
    return {name: _private(key, PrivateFormat.OpenSSH), f"{name}.pub": public + b"\n"}


def _issuer(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = folder / "ca.key"
    try:
        key = load_pem_private_key(path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename}: is not there, and signs the server's certificate; put it back for "
            "this command."
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is no key of an authority ({error}).") from error
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"{path}: is not the key of the authority in ca.pem.")
    return certificate, cast("ec.EllipticCurvePrivateKey", key)


def _hosts_of(path: Path) -> list[str]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ConfigError(f"{path}: names no hosts; give them by --host.") from error
    return [str(name.value) for name in names]


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    """Return the identifier of a certificate's own key, which strict verification asks for."""
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _identifier_of(
    issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> x509.AuthorityKeyIdentifier:
    """Return the identifier of the authority's key, as its certificate has it, if it has one."""
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # an authority of an earlier version
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9]([\w.-]*\w)?", host, re.ASCII):
        raise ConfigError(
            f'--host "{host}": is neither an address nor a name; ports and schemes are no part of '
            "it."
        )
    return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey, style: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, style, NoEncryption())


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write new files, those that are secret for their owner alone from their first byte on."""
    for name, content in files.items():
        mode = 0o644 if name.endswith((".pem", ".pub")) else 0o600
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    return [folder / name for name in files]
