"""A real federation on loopback: one SuperLink and its SuperNodes, as processes.

    unshare -n sh -c 'ip link set lo up; exec python deployment.py plain FOLDER'

Run in a network namespace of its own. It carries out one scenario and leaves behind `nodes.json`
(client of every node id) and a state folder for each run; the tests look at those.
"""

import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
SIZE = 4
PORT = 9300


class Deployment:
    """The processes of one federation; as a context manager, they end with it."""

    def __init__(self, folder: Path, keys: Path | None = None) -> None:
        self.folder, self.keys = folder, keys
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        trust = "insecure = true" if keys is None else f'root-certificates = "{keys / "ca.pem"}"'
        (home / "config.toml").write_text(
            f'[superlink.test]\naddress = "127.0.0.1:{PORT}"\n{trust}\n'
        )
        self.env = os.environ | {
            "FLWR_HOME": str(home),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # Flower starts its own commands
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self.processes)[::-1]:
            self.stop(name)

    def start(self, name: str, *words: str) -> None:
        """Start a process in a group of its own; its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.folder,
                start_new_session=True,
            )

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a process and what it started."""
        process = self.processes.pop(name)
        for sign in (how, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def superlink(self) -> None:
        """Start the SuperLink and wait until it answers."""
        words = ["--insecure"]
        if self.keys is not None:
            words = ["--ssl-ca-certfile", str(self.keys / "ca.pem")]
            words += ["--ssl-certfile", str(self.keys / "server.pem")]
            words += ["--ssl-keyfile", str(self.keys / "server.key"), "--enable-supernode-auth"]
            words += ["--database", str(self.folder / "superlink.db")]
        self.start(
            "superlink",
            *("flower-superlink", *words, "--host", "127.0.0.1", "--port", str(PORT)),
            "--disable-runtime-dependency-installation",
        )
        scheme, context = "http", None
        if self.keys is not None:
            scheme, context = "https", ssl.create_default_context(cafile=self.keys / "ca.pem")

        def healthy() -> bool:
            try:
                url = f"{scheme}://127.0.0.1:{PORT}/health"
                return urllib.request.urlopen(url, context=context, timeout=5).status == 200
            except OSError:
                return False

        until(healthy, "the SuperLink answers")

    def node(self, client: int, *, fault: str | None = None, key: str | None = None) -> str:
        """Start the node of a client; return its name."""
        name = f"node-{client}" if key is None else key
        config = f"partition-id={client} num-partitions={SIZE}"
        words = ["--insecure"]
        if self.keys is not None:
            words = ["--root-certificates", str(self.keys / "ca.pem")]
            words += ["--auth-supernode-private-key", str(self.keys / name)]
        self.start(
            name,
            *("flower-supernode", *words, "--superlink", f"127.0.0.1:{PORT}"),
            *("--host", "127.0.0.1", "--port", str(9400 + len(self.processes))),
            *("--node-config", config + (f" fault='{fault}'" if fault else "")),
        )
        return name

    def identity(self, name: str) -> str:
        """Return the id that the SuperLink gave a node."""
        found: list[str] = []

        def known() -> bool:
            found[:] = re.findall(r"SuperNode ID: (\d+)", self.log(name))
            return bool(found)

        until(known, f"{name} is connected")
        return found[-1]

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def run(self, name: str, state: str, fields: str, timeout: float = 400) -> None:
        """Start a run of the app beside the processes, as process NAME."""
        options = f"fields='{fields}' state='{self.folder / state}' timeout={timeout}"
        options += " min-nodes=3"
        app = str(self.folder / "app")
        self.start(name, "flwr", "run", app, "test", "--stream", "--run-config", options)

    def finish(self, name: str) -> None:
        """Wait until a run has ended."""
        until(lambda: self.processes[name].poll() is not None, f"{name} has ended")
        self.stop(name)

    def flwr(self, *words: str) -> None:
        """Run a command of Flower."""
        subprocess.run(
            [str(BIN / "flwr"), *words],
            env=self.env,
            check=True,
            stdout=sys.stderr,
            cwd=self.folder,
        )

    def rounds(self, state: str) -> int:
        """Return how many rounds a state folder holds."""
        path = self.folder / state / "rounds.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0


def until(holds: Callable[[], bool], what: str, seconds: float = 500) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.5)


def plain(folder: Path) -> None:
    """DROP: four nodes, one of them an attacker."""
    with Deployment(folder) as deployment:
        deployment.superlink()
        names = [deployment.node(client) for client in range(SIZE)]
        nodes = {deployment.identity(name): client for client, name in enumerate(names)}
        (folder / "nodes.json").write_text(json.dumps(nodes))
        deployment.run("drop", "state", "rounds=2")
        deployment.finish("drop")


def secure(folder: Path) -> None:
    """TLS and keys: a node without one, a node of NaN, a node killed, a server restarted."""
    keys = folder / "keys"
    make = ["deploy", "keys", str(keys), "--nodes", str(SIZE + 1)]
    subprocess.run([sys.executable, "-m", "entity.cli", *make], check=True, stdout=sys.stderr)
    (keys / f"node-{SIZE}").rename(keys / "stranger")
    with Deployment(folder, keys) as deployment:
        deployment.superlink()
        for client in range(SIZE):
            deployment.flwr("supernode", "register", str(keys / f"node-{client}.pub"), "test")
        faults = {3: "nan"}
        names = [deployment.node(c, fault=faults.get(c)) for c in range(SIZE)]
        deployment.node(0, key="stranger")
        nodes = {deployment.identity(name): client for client, name in enumerate(names)}
        (folder / "nodes.json").write_text(json.dumps(nodes))
        fields = "server.defense.type=droplet rounds"
        deployment.run("first", "state", f"{fields}=1")
        deployment.finish("first")
        deployment.stop("superlink")
        deployment.superlink()
        line = json.loads((folder / "state" / "rounds.jsonl").read_text())
        patience = max(20.0, 2 * line["seconds"]["receive"])  # on this machine, at this load
        deployment.run("second", "state", f"{fields}=2", timeout=patience)
        seen = deployment.log("node-2").count("Received")
        until(lambda: deployment.log("node-2").count("Received") > seen, "node 2 has work")
        deployment.stop("node-2", signal.SIGKILL)
        deployment.finish("second")


def simulation(folder: Path) -> None:
    """Flower's own simulation engine, on Ray: the same apps without a network."""
    ray = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: its sockets lie there
    (ray / "token").write_text(secrets.token_hex(32))
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(folder / "home"),
    }
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from entity.flower.client_app import client_app
    from entity.flower.server_app import serve

    path = folder / "app" / "federation" / "experiment.json"
    server = ServerApp()

    @server.main()
    def main(grid, context) -> None:
        context.run_config |= {"state": str(folder / "state"), "timeout": 400.0}
        serve(grid, context, path)

    init = {"include_dashboard": False, "num_cpus": 2, "_temp_dir": str(ray)}
    backend = {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    try:
        run_simulation(server, client_app(path), SIZE, backend_config=backend)
    finally:
        shutil.rmtree(ray, ignore_errors=True)


if __name__ == "__main__":
    scenario, place = sys.argv[1:]
    {"plain": plain, "secure": secure, "simulation": simulation}[scenario](Path(place))
