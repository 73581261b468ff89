"""Make what TLS and node authentication need, for a federation on one machine.

    python examples/flower/make_keys.py keys --nodes 4

`ca.pem` goes to every node and to whoever starts runs; `server.pem` and `server.key` stay with the
SuperLink; `node-I` is the secret of node I, and `node-I.pub` is what the SuperLink's operator
registers. For more than loopback, name the SuperLink's addresses by `--host` (repeat it).
"""

import argparse
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public

DAYS = 365


def main() -> int:
    """Write the keys and certificates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--host", action="append", help="address of the SuperLink (127.0.0.1)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make_certificates(options.folder, options.host or ["127.0.0.1"])
    for number in range(options.nodes):
        make_node_key(options.folder, f"node-{number}")
    return 0


def make_certificates(folder: Path, hosts: list[str]) -> None:
    """Write a certificate authority of our own and the server certificate it signs."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "federation CA")])
    authority = (
        _certificate(issuer, issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    server = (
        _certificate(subject, issuer, server_key.public_key())
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    (folder / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(Encoding.PEM))
    _secret(folder / "server.key", server_key, PrivateFormat.PKCS8)


def make_node_key(folder: Path, name: str) -> None:
    """Write a node's private key and the public one, in OpenSSH's formats as Flower reads them."""
    key = ec.generate_private_key(ec.SECP384R1())
    _secret(folder / name, key, PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(Encoding.OpenSSH, Public.OpenSSH)
    (folder / f"{name}.pub").write_bytes(public + b"\n")


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


def _usage(signs: bool) -> x509.KeyUsage:
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
        return x509.DNSName(host)


def _secret(path: Path, key: ec.EllipticCurvePrivateKey, style: PrivateFormat) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, style, NoEncryption()))


if __name__ == "__main__":
    raise SystemExit(main())
