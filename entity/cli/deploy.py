"""The command `drop deploy`: a Flower app of one experiment, and what its operator does next."""

import argparse
import contextlib
import json
import shlex
import shutil
from pathlib import Path
from string import Template
from typing import Any

from entity.cli import console
from entity.cli.deploy_decisions import add_pardon_command, add_rekey_command
from entity.cli.deploy_keys import add_keys_command
from entity.cli.deploy_watch import add_deploy_watch_command
from entity.cli.options import CONFIG_HELP, add_commands, configured
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.defenses import DEFENSES
from entity.record.atomic import writing
from entity.server.votes import no_voters
from entity.setup.plugin_files import MARK, is_path, split
from entity.setup.plugin_source import read
from entity.setup.resolve import to_json

_PYPROJECT = Template("""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "1.0.0"
description = "$dataset, defended by $defense"
license = "MIT"
dependencies = ["drop-fl[flower]"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "local"

[tool.flwr.app.components]
serverapp = "federation.server_app:app"
clientapp = "federation.client_app:app"

[tool.flwr.app.config]
# Fields of federation/experiment.json that are to be different: "NAME=VALUE NAME=VALUE".
fields = ""
# Seconds to wait for the replies of a round; who is later is refused.
timeout = 600.0
# A round begins once so many nodes are connected; 0 waits for federation.round_size.
min-nodes = 0
# With fewer well-formed replies the global model stays as it is.
min-survivors = 2
# Believe the numbers of samples that nodes report.
trust-sample-counts = false
# Folder on the server that a restarted run goes on from; "" keeps nothing.
state = ""
# File on the server that its draws depend on, made where there is none; "" draws from the
# experiment's seed alone, which every node has.
secret = ""
# File on the server, NAME.prom, for the textfile collector of Prometheus' node_exporter.
metrics = ""
""")

_APP = Template('''\
"""The $side of the federation; the experiment is the file beside this one."""

from pathlib import Path

from entity.flower.${side}_app import ${side}_app

app = ${side}_app(Path(__file__).with_name("experiment.json"))
''')

SUPERLINK = (
    "flower-superlink --insecure --host 127.0.0.1 --port 9300 "
    "--disable-runtime-dependency-installation"
)

_README = Template("""\
# $name

A Flower app made by `drop deploy init`: $size nodes, data set $dataset, model $model, defense
$defense$attack.

Every machine needs the project `drop-fl` with its extra `flower` (`pip install -e '.[flower]'` in a
clone of it), and the data set in the folder that the environment variable DROP_DATA names.$modules
The commands below run it on one machine, from this folder, in this order. First one SuperLink, and
a SuperNode for each client:

```sh
flower-superlink --insecure --host 127.0.0.1 --port 9300 \\
    --disable-runtime-dependency-installation > superlink.log 2>&1 &
until python -c 'import socket; socket.create_connection(("127.0.0.1", 9300))' 2> /dev/null; do
    sleep 1
done
for i in $numbers; do
    flower-supernode --insecure --superlink 127.0.0.1:9300 --host 127.0.0.1 --port $$((9400 + i)) \\
        --node-config "partition-id=$$i num-partitions=$size" > "node-$$i.log" 2>&1 &
done
```

Flower's commands find that SuperLink by a name in `~/.flwr/config.toml`:

```sh
mkdir -p ~/.flwr
cat >> ~/.flwr/config.toml << 'END'

[superlink.here]
address = "127.0.0.1:9300"
insecure = true
END
```

Then the run. Its state is kept outside of this folder, which is sent to every node as it is:

```sh
flwr run . here --stream --run-config "state='$$HOME/$name-state'"
```

While it runs, `drop deploy watch ~/$name-state` in another terminal follows it; afterwards it says
what came of it. The log names every node that was refused and why; so does `rounds.jsonl` there.

```sh
drop deploy watch ~/$name-state --once
```

The run config takes any field of the experiment, and a run with the same state goes on after its
last round: `--run-config 'fields="rounds=10 DPR=0.25" state="/var/lib/federation"'`. Where
nodes may be malicious, add `secret="/var/lib/federation.secret"`: without it the server draws from
the experiment's seed alone, which every node has. To end all of it:

```sh
kill $$(jobs -pr)
```

Without node authentication a node that starts again has a new id and a clean slate.
`docs/DEPLOY.md` of the project has the way with TLS and keys, metrics for Prometheus, and what to
do when a client is refused wrongly.
""")


def add_deploy_command(commands: Any) -> None:
    """Add `drop deploy`."""
    deploy = commands.add_parser(
        "deploy", help="take a defense to a real federation", allow_abbrev=False
    )
    kinds = add_commands(deploy, "what")
    init = kinds.add_parser(
        "init",
        help="write a ready Flower app",
        description="Write a Flower app that trains and defends an experiment: see its README.md.",
        usage="%(prog)s DIR [--config FILE] [--FIELD VALUE ...]",
        allow_abbrev=False,
        takes_fields=True,
    )
    init.add_argument("folder", type=user_path, metavar="DIR", help="folder to write, new or empty")
    init.add_argument(
        "--config",
        type=user_path,
        metavar="FILE",
        default=shipped("mnist5k/droplet"),
        help=f"{CONFIG_HELP} (default: mnist5k/droplet)",
    )
    init.set_defaults(go=_deploy)
    for add in (
        add_keys_command,
        add_deploy_watch_command,
        add_pardon_command,
        add_rekey_command,
    ):
        add(kinds)


def _deploy(options: argparse.Namespace) -> int:
    config = configured(options)
    for path in write_app(options.folder, config):
        console.say(str(path))
    folder = shlex.quote(str(options.folder))
    console.say(f"Next, as {options.folder / 'README.md'} says in full: a SuperLink,")
    console.say(f"  {SUPERLINK}")
    console.say(f"{config.federation.size} SuperNodes, and, once they run,")
    console.say(f"  flwr run {folder} here --stream")
    return 0


def write_app(folder: Path, config: ExperimentConfig) -> list[Path]:
    """Write a Flower app for an experiment.

    Parameters
    ----------
    folder
        Where; made if need be.
    config
        The experiment, as `resolve.experiment` returns it.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If the folder holds anything, or cannot be written, or the defense asks for votes.
    """
    defense = config.server.defense
    if DEFENSES[defense.type].needs(defense.defense_args).client_votes:
        raise no_voters(f"server.defense.type = {defense.type}")
    files = _files(folder.resolve().name, config)
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: is not empty; choose a new folder.")
        try:
            for path, text in files.items():
                place = folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(text if isinstance(text, bytes) else text.encode())
        except OSError:
            for made in folder.iterdir() if folder.is_dir() else ():  # it was empty before
                shutil.rmtree(made, ignore_errors=True)
                with contextlib.suppress(OSError):
                    made.unlink()
            raise
    return [folder / path for path in files]


def _files(folder: str, config: ExperimentConfig) -> dict[str, str | bytes]:
    attack, tables = config.client.attacked_by, to_json(config)
    plugins = _plugins(tables)
    words: dict[str, Any] = {
        "name": "".join(c if c.isalnum() and c.isascii() else "-" for c in folder).strip("-")
        or "federation",
        "size": config.federation.size,
        "numbers": _numbers(config.federation.size),
        "dataset": config.dataset,
        "model": config.model,
        "defense": config.server.defense.type,
        "attack": "" if attack == "none" else f", a drill with the attack {attack}",
        "modules": _modules(config),
    }
    return {
        "pyproject.toml": _PYPROJECT.substitute(words),
        "README.md": _README.substitute(words),
        "federation/__init__.py": '"""A federation with a defense."""\n',
        "federation/server_app.py": _APP.substitute(side="server"),
        "federation/client_app.py": _APP.substitute(side="client"),
        **plugins,
        "federation/experiment.json": json.dumps(tables, indent=2) + "\n",
    }


def _numbers(size: int) -> str:
    """Return what a loop of the shell runs over."""
    short = size <= 20
    return " ".join(map(str, range(size))) if short else f"$(seq 0 {size - 1})"


def _modules(config: ExperimentConfig) -> str:
    """Say which plugins are no files, and so do not come along."""
    names = [split(entry)[0] for entry in config.plugins if not is_path(split(entry)[0])]
    return f"\nEach must have the plugins {', '.join(names)} installed, too." if names else ""


def _plugins(tables: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of plugins, which come along; `tables` names them by where they will lie.

    Raises
    ------
    ConfigError
        If a folder has a file that Flower would not send.
    """
    files: dict[str, bytes] = {}
    for place, entry in enumerate(tables["plugins"]):
        name, digest = split(entry)
        if is_path(name):
            own, source = f"plugin_{place + 1}_{Path(name).name}", read(Path(name))
            if isinstance(source, bytes):
                own = f"{own.removesuffix('_test.py')}.py" if own.endswith("_test.py") else own
                held = {own: source}
            else:
                held = {f"{own}/{file}": content for file, content in source.items()}
            if left_out := sorted(file for file in held if _is_test(file)):
                raise ConfigError(
                    f"plugins = {name}: Flower sends no files named test_*.py or *_test.py, as is "
                    f"{left_out[0].partition('/')[2]}; rename it, or move it out of the folder."
                )
            files |= {f"federation/{file}": content for file, content in held.items()}
            tables["plugins"][place] = f"./{own}{MARK}{digest}"
    return files


def _is_test(file: str) -> bool:
    name = file.rpartition("/")[2]
    return name.startswith("test_") or name.endswith("_test.py")
