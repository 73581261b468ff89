"""Small data sets in the real formats."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _no_cache_at_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def idx() -> Callable[[np.ndarray], bytes]:
    """Return an array as an idx file of unsigned bytes."""

    def encode(array: np.ndarray) -> bytes:
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        return header + array.astype(np.uint8).tobytes()

    return encode


@pytest.fixture(scope="session")
def write_idx(idx) -> Callable[..., Arrays]:
    """Write the four files of an MNIST: random images, and labels that go round."""

    def write(folder: Path, names: Iterable[str], sizes=(40, 10), classes=10, pack=None) -> Arrays:
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True)
        arrays = {}
        for i, name in enumerate(names):
            n = sizes[i // 2]
            images = rng.integers(256, size=(n, 28, 28))
            arrays[name] = np.arange(n) % classes if i % 2 else images
            data = idx(arrays[name])
            if pack is None:
                (folder / name).write_bytes(data)
            else:
                (folder / f"{name}.gz").write_bytes(pack(data))
        return arrays

    return write


@pytest.fixture(scope="session")
def write_tree() -> Callable[..., Arrays]:
    """Write random images `<part>/<class>/<i>.png`; return their pixels by path."""

    def write(folder: Path, parts, classes, n=2, shape=(32, 32, 3), suffix="png") -> Arrays:
        rng = np.random.default_rng(1)
        arrays = {}
        for part in parts:
            for name in classes:
                (folder / part / name).mkdir(parents=True)
                for i in range(n):
                    path = f"{part}/{name}/{i}.{suffix}"
                    arrays[path] = rng.integers(256, size=shape, dtype=np.uint8)
                    Image.fromarray(arrays[path]).save(folder / path)
        return arrays

    return write
