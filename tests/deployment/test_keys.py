"""Keys and certificates: what is made, what is renewed, and that nothing is lost."""

import ssl
import stat

import pytest

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from entity.cli import main
from entity.config.schema import ConfigError
from entity.deployment.keys import make_keys, renew


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def handshake(folder, host, trusted=None):
    """Let a client that trusts `ca.pem` meet a server with the folder's certificate, in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=trusted or folder / "ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does of itself
    wires = [ssl.MemoryBIO() for _ in range(2)]
    ours = client.wrap_bio(wires[0], wires[1], server_hostname=host)
    theirs = server.wrap_bio(wires[1], wires[0], server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "keys"
    make_keys(folder, 2, ["10.0.0.1", "fl.example.org"])
    return folder


@pytest.fixture
def keys(first, tmp_path):
    """A copy of the keys of two nodes and a server."""
    import shutil

    return shutil.copytree(first, tmp_path / "keys")


def test_the_keys_are_those_that_tls_and_flower_take(keys):
    files = ["ca.key", "ca.pem", "node-0", "node-0.pub", "node-1", "node-1.pub"]
    assert names_in(keys) == [*files, "server.key", "server.pem"]
    for host in ("10.0.0.1", "fl.example.org"):
        assert handshake(keys, host)["subjectAltName"]
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(keys, "elsewhere.example.org")
    private = serialization.load_ssh_private_key((keys / "node-0").read_bytes(), None)
    public = serialization.load_ssh_public_key((keys / "node-0.pub").read_bytes())
    assert isinstance(public.curve, ec.SECP384R1)
    assert private.public_key() == public
    secret = [
        stat.S_IMODE((keys / name).stat().st_mode) for name in ("node-0", "ca.key", "server.key")
    ]
    assert secret == [0o600] * 3


def test_what_is_there_is_left_and_what_lacks_is_made(keys):
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert make_keys(keys, 2, []) == []
    assert [path.name for path in make_keys(keys, 3, [])] == ["node-2", "node-2.pub"]
    assert {name: (keys / name).read_bytes() for name in before} == before
    with pytest.raises(
        ConfigError, match=r"server\.pem: is there already, with its hosts; --renew"
    ):
        make_keys(keys, 2, ["10.0.0.2"])


def test_a_renewed_server_is_trusted_by_nodes_as_they_are(keys):
    before = x509.load_pem_x509_certificate((keys / "server.pem").read_bytes())
    renew(keys, "server", [])
    after = x509.load_pem_x509_certificate((keys / "server.pem").read_bytes())
    assert before.public_key() != after.public_key()
    assert handshake(keys, "fl.example.org")["subjectAltName"]  # its hosts are those of before
    renew(keys, "server", ["new.example.org"])
    assert handshake(keys, "new.example.org")
    assert {"server.pem.old", "server.key.old"} < set(names_in(keys))


def test_a_renewed_node_has_another_key_and_the_old_one_is_kept(keys):
    before = (keys / "node-1.pub").read_bytes()
    renew(keys, "node-1", [])
    assert (keys / "node-1.pub").read_bytes() != before
    assert (keys / "node-1.pub.old").read_bytes() == before
    private = serialization.load_ssh_private_key((keys / "node-1").read_bytes(), None)
    assert private.public_key() == serialization.load_ssh_public_key(
        (keys / "node-1.pub").read_bytes()
    )


def test_a_node_whose_secret_is_where_it_belongs_is_renewed(keys, tmp_path):
    (keys / "node-0").rename(tmp_path / "node-0")
    before = (keys / "node-0.pub").read_bytes()
    assert make_keys(keys, 2, []) == []
    assert [path.name for path in renew(keys, "node-0", [])] == ["node-0", "node-0.pub"]
    assert (keys / "node-0.pub.old").read_bytes() == before
    assert not (keys / "node-0.old").exists()
    (keys / "node-0").unlink()
    with pytest.raises(ConfigError, match=r"node-0\.pub\.old: is kept from the last renewal"):
        renew(keys, "node-0", [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--renew", "node-7"], "has no node-7 that could be renewed"),
        (["--renew", "ca"], "has no ca that could be renewed"),
        (["--renew", "../keys/node-0"], "allowed is server, or the name of a node"),
        (["--renew", "node-0", "--host", "a.b"], "hosts belong to the server's certificate alone"),
        (["--renew", "node-1"], "node-1.old: is kept from the last renewal; delete it once"),
        (["--renew", "server", "--host", "ü.example"], "is neither an address nor a name"),
        (["--renew", "server", "--host", ""], '--host "": is neither an address nor a name; ports'),
        (["--renew", "server", "--host", "10.0.0.1:93"], "is neither an address nor a name; ports"),
        (["--renew", "server", "--host", "https://a.b"], "is neither an address nor a name; ports"),
    ],
)
def test_what_cannot_be_renewed_is_a_sentence_and_moves_nothing(words, message, keys, capsys):
    renew(keys, "node-1", [])
    before = names_in(keys)
    assert main(["deploy", "keys", str(keys), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert names_in(keys) == before


def test_a_server_is_not_renewed_without_the_authority_s_key(keys, capsys):
    (keys / "ca.key").unlink()
    before = names_in(keys)
    assert main(["deploy", "keys", str(keys), "--renew", "server"]) == 2
    assert "ca.key: is not there, and signs" in " ".join(capsys.readouterr().err.split())
    assert names_in(keys) == before


def test_another_authority_s_key_signs_nothing(keys, tmp_path, capsys):
    make_keys(tmp_path / "other", 0, [])
    (tmp_path / "other" / "ca.key").replace(keys / "ca.key")
    before = names_in(keys)
    assert main(["deploy", "keys", str(keys), "--renew", "server"]) == 2
    assert "ca.key: is not the key of the authority in ca.pem." in capsys.readouterr().err
    assert names_in(keys) == before


@pytest.mark.parametrize("name", ["server.pem", "server.key", "node-1.pub"])
def test_half_of_a_pair_is_a_sentence(keys, name, capsys):
    (keys / name).unlink()
    before = names_in(keys)
    assert main(["deploy", "keys", str(keys), "--nodes", "3"]) == 2
    assert f"is there without {name}; put that back, or move" in capsys.readouterr().err
    assert names_in(keys) == before


def test_what_went_elsewhere_is_not_made_again(keys):
    """The authority's key is off the network, and the nodes have their own."""
    for name in ("ca.key", "node-0", "node-1"):
        (keys / name).unlink()
    assert make_keys(keys, 2, []) == []


def test_the_command_says_what_it_made_and_what_comes_next(tmp_path, capsys):
    folder = tmp_path / "new"
    assert main(["deploy", "keys", str(folder), "--nodes", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit("/", 1)[-1] for line in said] == [
        *("ca.pem", "ca.key", "server.pem", "server.key", "node-0", "node-0.pub")
    ]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert main(["deploy", "keys", str(folder), "--nodes", "1"]) == 0
    assert "has all of it" in capsys.readouterr().out
    assert main(["deploy", "keys", str(folder), "--renew", "node-0"]) == 0
    assert f"flwr supernode register {folder / 'node-0.pub'}" in capsys.readouterr().out
    for wrong in ("0", "x", "1e3"):
        with pytest.raises(SystemExit):
            main(["deploy", "keys", str(folder), "--nodes", wrong])
