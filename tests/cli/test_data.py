"""`drop data`, and runs on data that it tells of."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from entity.cli import main, preview
from entity.cli.data import data_root
from entity.dataset import DATASETS
from entity.dataset.mnist import NAMES
from entity.setup import resolve


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No data folder and no cache but those of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DROP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def mnist(tmp_path):
    """A data folder with 40 + 10 digits."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, n in zip(NAMES, (40, 40, 10, 10), strict=True):
        array = rng.integers(256, size=(n, 28, 28)) if "images" in name else np.arange(n) % 10
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        packed = gzip.compress(header + array.astype(np.uint8).tobytes())
        (raw / f"{name}.gz").write_bytes(packed)
    return tmp_path / "data"


@pytest.fixture
def own(tmp_path):
    """A data folder with a folder of images: two classes, one of them darker."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("test", 10)):
        for level, name in enumerate(("dark", "light")):
            folder = tmp_path / "data" / "own" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(100, size=(28, 28)) + 150 * level
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def words(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [first]]
    return line.split()


# --- drop data list


def test_the_list_has_every_data_set_and_fits_in_80_columns(mnist, capsys):
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for name, source in DATASETS.items():
        assert words(text, name)[1] == str(source.num_classes)
    built_in = ["mnist5k", "10", "4,000+1,000", "1x28x28", "built", "in"]
    assert words(text, "mnist5k") == built_in
    assert words(text, "mnist") == ["mnist", "10", "60,000+10,000", "1x28x28", "here", "MNIST/raw"]
    missing = ["cifar10", "10", "50,000+10,000", "3x32x32", "missing", "cifar-10-batches-py"]
    assert words(text, "cifar10") == missing


def test_what_is_cached_is_listed_with_the_images_it_really_has(mnist, capsys):
    DATASETS["mnist"].files.read(mnist)
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert words(text, "mnist") == ["mnist", "10", "40+10", "1x28x28", "cached", "MNIST/raw"]


def test_image_folders_are_listed_by_the_name_they_are_used_with(own, capsys):
    assert main(["data", "list", "--data_root", str(own)]) == 0
    line = words(capsys.readouterr().out, "imagefolder:own")
    assert line == ["imagefolder:own", "2", "1x28x28", "here"]
    assert main(["data", "verify", "imagefolder:own"]) == 0
    assert main(["data", "list"]) == 0
    line = words(capsys.readouterr().out.split("image folders")[1], "imagefolder:own")
    assert line == ["imagefolder:own", "2", "80+20", "1x28x28", "cached"]


def test_an_image_folder_that_needs_settings_does_not_spoil_the_list(own, capsys):
    Image.new("L", (20, 28)).save(own / "own" / "train" / "dark" / "0.png")
    assert main(["data", "list"]) == 0
    assert words(capsys.readouterr().out, "imagefolder:own") == ["imagefolder:own", "here"]


# --- drop data verify


def test_verify_counts_hashes_and_compares_with_the_published_numbers(mnist, capsys):
    assert main(["data", "verify", "mnist"]) == 2
    shown = capsys.readouterr()
    assert words(shown.out, "7") == ["7", "4", "1"]
    assert words(shown.out, "all") == ["all", "40", "10"]
    train, test = DATASETS["mnist"].files.read(mnist)
    assert words(shown.out, "training")[-1] == train.sha256()
    assert words(shown.out, "test") == ["test", test.sha256()]
    assert "published set has 60,000+10,000" in " ".join(shown.err.split())


def test_verify_is_content_with_what_is_whole(own, capsys):
    assert main(["data", "verify", "mnist5k"]) == 0
    assert "All is as it should be." in capsys.readouterr().out
    assert main(["data", "verify", "imagefolder:own", "--image_size", "14"]) == 0
    assert "imagefolder:own: 1x14x14" in capsys.readouterr().out


@pytest.mark.usefixtures("forget_plugins")
def test_what_is_no_image_is_called_a_sample(tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    plugin = tmp_path / "numbers.py"
    plugin.write_text(
        "import numpy as np\n"
        "from entity.dataset import Arrays\n"
        "x, y = np.zeros((6, 3)), np.arange(6) % 2\n"
        "DATASETS = {'numbers': lambda: Arrays((x, y), (x, y), ('a', 'b')),\n"
        "            'lacking': lambda: Arrays((x, y), (x, y * 0), ('a', 'b'))}\n"
    )
    assert main(["data", "verify", "numbers", "--plugins", str(plugin)]) == 0
    assert "own-numbers: 12 samples decoded into" in caplog.text
    shown = capsys.readouterr()
    assert "sha256 of the samples" in shown.out
    assert "image" not in shown.out
    assert main(["data", "verify", "lacking", "--plugins", str(plugin)]) == 2
    assert "lacking: no test sample is of class b." in capsys.readouterr().err


def test_verify_mends_a_spoilt_cache(own, capsys):
    assert main(["data", "verify", "imagefolder:own"]) == 0
    assert "damaged" not in capsys.readouterr().out
    (path,) = (own / ".drop-cache").glob("*/train-x.npy")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["data", "verify", "imagefolder:own"]) == 0
    assert "The cache was damaged, and has been made anew." in capsys.readouterr().out
    assert path.read_bytes() == data


def test_verify_names_a_damaged_image(own, capsys):
    path = own / "own" / "test" / "light" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    assert main(["data", "verify", "imagefolder:own"]) == 2
    assert "data/own/test/light/3.png is damaged, image file is" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "fetch"])
def test_an_unknown_name_gets_the_nearest(command, capsys):
    assert main(["data", command, "mnits"]) == 2
    assert "Did you mean mnist?" in capsys.readouterr().err


def test_verifying_what_is_missing_tells_how_to_get_it(capsys):
    assert main(["data", "verify", "cinic10"]) == 2
    error = capsys.readouterr().err
    assert "data/cinic-10" in error
    assert "drop data fetch cinic10" in error


# --- drop data fetch


def test_fetch_leaves_what_is_here(mnist, capsys):
    assert main(["data", "fetch", "mnist"]) == 0
    assert "MNIST is in data/MNIST/raw already." in capsys.readouterr().out
    assert main(["data", "fetch", "mnist5k"]) == 0
    assert "comes with the installation" in capsys.readouterr().out


def test_fetch_downloads_decodes_and_says_where(mnist, tmp_path, monkeypatch, capsys):
    def pretend(root: Path, download: bool) -> None:
        (root / "MNIST").mkdir(parents=True)
        (mnist / "MNIST" / "raw").rename(root / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", pretend)
    assert main(["data", "fetch", "mnist", "--data_root", "new"]) == 0
    assert "MNIST is in new/MNIST/raw: 40+10 images." in capsys.readouterr().out
    assert len(list((tmp_path / "new" / ".drop-cache").iterdir())) == 1


# --- drop data where, and where data is looked for


def test_where_tells_folder_reason_and_caches(mnist, monkeypatch, capsys):
    DATASETS["mnist"].files.read(mnist)
    assert main(["data", "where"]) == 0
    text = capsys.readouterr().out
    assert words(text, "data") == ["data", "folder", str(mnist)]
    assert "the default" in text
    assert str(mnist / ".drop-cache") in text
    assert words(text, "all") == ["all", "0.0"]
    (name,) = [path.name for path in (mnist / ".drop-cache").iterdir()]
    assert words(text, name)[1] == "0.0"
    monkeypatch.setenv("DROP_DATA", "/elsewhere")
    assert main(["data", "where"]) == 0
    text = capsys.readouterr().out
    assert "/elsewhere (not there)" in text
    assert "DROP_DATA says so" in text
    assert main(["data", "where", "--data_root", str(mnist)]) == 0
    assert "--data_root says so" in capsys.readouterr().out


def test_option_before_environment_before_settings(tables, monkeypatch):
    data = tables({"settings.datasets_path": "file"})

    def path(*overrides):
        return resolve.experiment(data, overrides).settings.datasets_path

    assert path() == "file"
    monkeypatch.setenv("DROP_DATA", "environment")
    assert path() == "environment"
    assert path(("datasets_path", "option")) == "option"
    assert data_root(None)[0] == Path("environment")
    assert data_root("option")[0] == Path("option")
    monkeypatch.setenv("DROP_DATA", "")
    assert path() == "file"


def test_data_commands_refuse_what_they_do_not_know(capsys):
    assert main(["data", "list", "--rounds", "3"]) == 2
    assert "--rounds is not an option of drop data" in capsys.readouterr().err


# --- runs


def test_a_run_on_anyones_images(own, tmp_path, tables, capsys):
    data = tables(
        {
            "dataset": "imagefolder:own",
            "client.ADR": 1,
            "client.attack": None,
            "server.held_out": None,
            "federation.rounds": 1,
            "federation.number_of_malicious_clients": 0,
        }
    )
    Path("own.json").write_text(json.dumps(data))
    (own).rename(tmp_path / "elsewhere")
    assert main(["run", "--config", "own.json", "--data_root", "elsewhere"]) == 0
    folder = Path("runs/own-undefended-no-attack-seed1")
    assert f"Written to {folder}" in capsys.readouterr().out
    told = json.loads((folder / "config.json").read_text())
    assert told["settings"]["datasets_path"] == "elsewhere"
    assert told["image_size"] is None
    assert json.loads((folder / "summary.json").read_text())["mta"]["final"] > 0.4
    assert main(["run", "--config", "own.json", "--quiet"]) == 2
    assert "there is no folder data/own" in capsys.readouterr().err


def test_a_class_that_an_image_folder_has_not_is_refused(own, tables):
    data = tables({"dataset": "imagefolder:own", "client.attack.target_class": 1})
    assert resolve.experiment(data).client.attack.target_class == 1
    with pytest.raises(ValueError, match=r"imagefolder:own has the classes 0 .*to 1"):
        resolve.experiment(data, [("target_class", "2")])


def test_size_and_channels_belong_to_image_folders(own, tables):
    data = tables({"dataset": "imagefolder:own", "image_size": 14, "client.attack": None})
    assert resolve.experiment(data, [("image_channels", "3")]).image_size == 14
    with pytest.raises(ValueError, match=r"image_channels = 2: allowed is"):
        resolve.experiment(data, [("image_channels", "2")])
    with pytest.raises(ValueError, match=r"^image_size = 14: allowed is 28 or null"):
        resolve.experiment(data, [("dataset", "mnist5k")])


def test_preview_gets_the_configuration_with_its_overrides(tables, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(preview, "preview", lambda config: asked.append(config) or "a map")
    Path("c.json").write_text(json.dumps(tables()))
    words = ["data", "preview", "--config", "c.json", "--DPR", "0.25", "--data_root", "there"]
    assert main(words) == 0
    assert capsys.readouterr().out == "a map\n"
    assert asked[0].client.attack.DPR == 0.25
    assert asked[0].settings.datasets_path == "there"
