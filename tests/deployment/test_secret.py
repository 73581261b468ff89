"""The secret of a server: made once, for its owner alone, and read again."""

import stat

import pytest
import torch

from entity.config.schema import ConfigError
from entity.deployment.secret import server_secret
from entity.seeding import Seeds


def drawn(secret):
    return torch.rand(3, generator=Seeds(42, secret).generator("dnc", round=1)).tolist()


def test_a_secret_is_made_once_and_read_again(tmp_path):
    path = tmp_path / "secret"
    first = server_secret(path)
    assert len(first) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) == 64
    assert server_secret(path) == first
    assert server_secret(tmp_path / "another") != first


def test_what_is_drawn_depends_on_it(tmp_path):
    first, second = (server_secret(tmp_path / name) for name in "ab")
    assert drawn(first) == drawn(first)
    assert len({tuple(drawn(secret)) for secret in (b"", first, second)}) == 3
    assert drawn(b"") == torch.rand(3, generator=Seeds(42).generator("dnc", round=1)).tolist()
    assert "secret" not in repr(Seeds(42, first))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "holds 5 bytes; a secret has at least 16"),
        (b"", "holds 0 bytes; a secret has at least 16"),
        (b"x" * 70_000, "cannot be read (More than 65,536 bytes)"),
    ],
)
def test_a_file_that_is_no_secret_is_refused(content, said, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        server_secret(path)
    assert said in str(refused.value)
    assert path.read_bytes() == content


def test_a_secret_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        server_secret(tmp_path / "nowhere" / "secret")
