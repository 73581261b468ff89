"""Any defense of the project as a strategy of Flower's message API.

A client's identity across rounds is Flower's node id. Which nodes train is drawn from the server's
own seed. A node's own number of samples is ignored unless `trust_sample_counts` is set, and so are
its metrics, always. Nothing that a node sends ends a round.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from entity import __version__
from entity.config.schema import CannotGoOn, ConfigError, dump
from entity.deployment import status
from entity.deployment.decisions import Decisions
from entity.deployment.status import Status
from entity.flower import arguments
from entity.flower.arrays import ArrayLayout
from entity.flower.exchange import exchange
from entity.flower.intake import ARRAYS, CONFIG, Intake
from entity.flower.round_report import OnRound, RoundReport, in_order
from entity.flower.selection import choose
from entity.layout import ModelState
from entity.record.checkpoint import Snapshot
from entity.record.lock import locked
from entity.seeding import Seeds
from entity.server import Server, admit
from entity.server.gate import undecided_for
from entity.updates import Aggregation, Stopwatch

log = logging.getLogger("entity")

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class _Sent(NamedTuple):
    """The global model of a round."""

    arrays: ArrayRecord
    """As the nodes are sent it."""
    state: ModelState
    """What they read from that: updates are steps from here."""
    exact: ModelState
    """What it was before it was rounded to the arrays' dtypes, so that steps smaller than these
    can hold add up over the rounds."""

    @classmethod
    def of(cls, layout: ArrayLayout, exact: ModelState) -> "_Sent":
        """Return what is sent of a model."""
        arrays = layout.write(exact)
        rounded = layout.read(arrays, layout.empty()) if layout.rounds else exact
        return cls(arrays, rounded, exact)


class RobustStrategy(Strategy):
    """A defense of `entity.defenses` as the server of a federation of Flower nodes.

    Parameters
    ----------
    server
        The defense, with its resources.
    nodes_per_round
        Nodes that train in a round, drawn from the server's seed; None asks all connected ones.
    min_nodes
        A round begins once so many nodes are connected; by default `nodes_per_round`, or else
        `min_survivors`.
    min_survivors
        With fewer well-formed replies than this the global model stays, and the defense does not
        see the round.
    trust_sample_counts
        Believe the numbers of samples that nodes report; an attacker can inflate its own.
    state_folder
        Where the state is written after every round, and read when the server process is started
        again; None writes none. The operator's decisions (`drop deploy pardon`, `rekey`) are read
        from it before every round, and what the strategy is doing is in its `status.json`.
    metrics_file
        File whose name ends in `.prom`, rewritten after every round for the textfile collector of
        Prometheus' node_exporter; None writes none.
    on_round
        Called with the report of every round.

    Raises
    ------
    ConfigError
        If an argument is not allowed, or the settings contradict each other, or the state folder
        or the file of metrics cannot be written; the folder is made here.
    """

    def __init__(
        self,
        server: Server[Any],
        *,
        nodes_per_round: int | None = None,
        min_nodes: int | None = None,
        min_survivors: int = 2,
        trust_sample_counts: bool = False,
        state_folder: Path | str | None = None,
        metrics_file: Path | str | None = None,
        on_round: OnRound = lambda report: None,
    ) -> None:
        arguments.check(
            server,
            nodes_per_round=nodes_per_round,
            min_nodes=min_nodes,
            min_survivors=min_survivors,
            trust_sample_counts=trust_sample_counts,
            on_round=on_round,
        )
        self.server = server
        self.nodes_per_round = nodes_per_round
        self.min_nodes = min_nodes or nodes_per_round or min_survivors
        self.min_survivors = min_survivors
        self.trust_sample_counts = trust_sample_counts
        self.on_round = on_round
        self.journal = arguments.journal(state_folder)
        self.metrics_file = arguments.metrics_file(metrics_file)
        self.status = Status(self.journal.folder)
        self.decisions = Decisions(self.journal.folder)
        self.report: RoundReport | None = None
        """The report of the last round."""
        self._layout: ArrayLayout | None = None
        self._global: _Sent | None = None
        self._asked: dict[int, int] = {}
        """The nodes of the round, by the client that each one is."""
        self._names: dict[str, str] = {}
        self._carried_out: tuple[Mapping[str, str], ...] = ()

    @property
    def seeds(self) -> Seeds:
        """The source of the server's randomness."""
        return self.server.resources.seeds

    def summary(self) -> None:
        """Log the defense and the sizes of a round."""
        log.info(
            "%s: %s; %s of at least %d nodes a round, at least %d sound replies",
            type(self).__name__,
            self.server.summary,
            self.nodes_per_round or "all",
            self.min_nodes,
            self.min_survivors,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Choose the nodes of a round and address the global model to them.

        What the operator has decided since the last round is carried out before.

        Parameters
        ----------
        server_round
            Number of the round, from 1.
        arrays
            The global model.
        config
            Sent along to the nodes.
        grid
            Flower's connection to the nodes.
        """
        self._set_global(arrays)
        nodes = self._connected(grid, server_round)
        chosen = choose(list(nodes), self.nodes_per_round, server_round, self.seeds)
        self._asked = {client: nodes[client] for client in chosen}
        log.info("round %d: %d of %d nodes", server_round, len(self._asked), len(nodes))
        self.status.stage(
            status.TRAINING, server_round, asked=len(chosen), connected=len(nodes), replies=0
        )
        sent = ConfigRecord({**config, "server-round": server_round})
        content = RecordDict({ARRAYS: arrays, CONFIG: sent})
        return [
            Message(content, node, MessageType.TRAIN, group_id=str(server_round))
            for node in self._asked.values()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the server judge and combine the replies, and write the state to disk.

        `replies` may be a generator: each is read and let go before the next one is taken.
        """
        if self._layout is None or self._global is None:
            raise RuntimeError("aggregate_train comes after configure_train")
        watch = Stopwatch()
        arrays, start, exact = self._global
        intake = Intake(self._layout, self._asked, trust_sample_counts=self.trust_sample_counts)
        with watch("receive"):
            for reply in self.status.counted(replies):
                intake.take(reply)
            intake.close()
            updates = intake.updates(server_round, start)
        enough = len(updates) >= self.min_survivors
        self.status.stage(status.AGGREGATING, server_round, sound=len(updates))
        with watch("aggregate"):
            answer = (
                admit(self.server, updates)
                if enough
                else Aggregation(
                    *start, tuple(undecided_for(c, _TOO_FEW) for c in updates.client_ids)
                )
            )
        renewed = enough and not _kept(answer, start)
        with watch("send"):
            if renewed:
                self._global = _Sent.of(self._layout, _moved(exact, start, answer.state))
                arrays = self._global.arrays
        self.report = RoundReport(
            server_round,
            in_order(tuple(self._asked), answer.verdicts, intake.refusals),
            renewed,
            {k: v for k, v in answer.diagnostics.items() if math.isfinite(v)},
            {**watch.seconds, **{f"aggregate {k}": v for k, v in answer.seconds.items()}},
            {node: name for node, name in self._names.items() if int(node) in self._asked},
            self._carried_out,
            time.time(),
        )
        self._carried_out = ()
        self._log(self.report)
        line = asdict(self.report)
        self.journal.keep(line, Snapshot(server_round, self._global.exact, server=self._state()))
        self.metrics_file.add(line)
        self.on_round(self.report)
        return arrays if renewed else None, self.report.metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return no messages: what nodes report of their own accuracy is no evidence."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return None, as no node evaluates."""
        return None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run a federation, or go on with the one that the state folder holds.

        Parameters
        ----------
        grid
            Flower's connection to the nodes.
        initial_arrays
            The global model before round 1; a state folder's model takes precedence.
        num_rounds
            Rounds in all, those before a restart included.
        timeout
            Seconds to wait for the replies of a round; later ones are refused.
        train_config
            Sent along to the nodes.
        evaluate_config
            Not used: nodes are not asked to evaluate.
        evaluate_fn
            Called with round and global model before the first round and after each one.

        Raises
        ------
        ConfigError
            If an argument is not allowed, or the state folder holds another federation or is in
            use.
        """
        arguments.check_start(self.server, num_rounds, timeout, evaluate_fn)
        result = Result(arrays=initial_arrays)
        folder = self.journal.folder
        with nullcontext() if folder is None else locked(folder):
            done = self._resume(initial_arrays)
            if self._global is not None:
                result.arrays = self._global.arrays
            self.summary()
            with self._shown(done, num_rounds):
                self._judge(evaluate_fn, done, result)
                for number in range(done + 1, num_rounds + 1):
                    messages = self.configure_train(
                        number, result.arrays, train_config or ConfigRecord(), grid
                    )
                    assert self._layout is not None
                    replies = exchange(grid, messages, timeout, most=self._layout.room)
                    arrays, metrics = self.aggregate_train(number, replies)
                    if arrays is not None:
                        result.arrays = arrays
                    if metrics is not None:
                        result.train_metrics_clientapp[number] = metrics
                    self._judge(evaluate_fn, number, result)
        return result

    @contextmanager
    def _shown(self, done: int, num_rounds: int) -> Generator[None]:
        """Show to the operator that a run goes on, and how it ended."""
        defense = type(self.server).__name__
        self.status.begin(defense=defense, remembers=self.server.remembers, rounds=num_rounds)
        self.metrics_file.begin(self.journal.rounds, num_rounds, defense, __version__)
        try:
            yield
        except BaseException as error:
            if not _stopped(error):
                number = done if self.report is None else self.report.round
                known = isinstance(error, ConfigError | CannotGoOn)
                reason = str(error) if known else f"{type(error).__name__}: {error}".rstrip(": ")
                self.status.stage(status.FAILED, number, reason=reason[:500])
            self.metrics_file.write(running=False)
            raise
        self.status.stage(status.FINISHED, max(done, num_rounds))
        self.metrics_file.write(running=False)

    def _state(self) -> dict[str, Any]:
        """Return the defense's state, and what of the operator's decisions has been carried out."""
        decided = self.decisions.state_dict()
        return {**self.server.snapshot(), **({_DECISIONS: decided} if decided else {})}

    def _judge(self, evaluate_fn: EvaluateFn | None, number: int, result: Result) -> None:
        if evaluate_fn is None:
            return
        self.status.stage(status.EVALUATING, number)
        metrics = evaluate_fn(number, result.arrays)
        if metrics is not None:
            log.info("round %d: %s", number, dict(metrics))
            result.evaluate_metrics_serverapp[number] = metrics
            self.metrics_file.scored(metrics)

    def _resume(self, arrays: ArrayRecord) -> int:
        """Restore the state after the last finished round, and return that round's number."""
        self._set_global(arrays)
        assert self._layout is not None
        origin = {
            "defense": type(self.server).__name__,
            "settings": dump(self.server.args),
            "model": [[p.name, p.dtype.str, list(p.shape)] for p in self._layout.places],
        }
        if self.server.revision > 1:
            origin["revision"] = self.server.revision
        origin["averaging"] = asdict(self.server.resources.averaging)
        origin["seed"] = self.seeds.number("federation")
        if self.server.looks_ahead(self.server.args):
            origin["number of rounds"] = self.server.resources.rounds
        if (optimiser := self.server.optimiser) is not None:
            origin["optimiser"] = {"rate": optimiser.rate, **asdict(optimiser.args)}
        snapshot = self.journal.resume(origin)
        if snapshot is None:
            return 0
        state = dict(snapshot.server)
        self.decisions.load_state_dict(state.pop(_DECISIONS, {}))
        self.server.restore(state)
        self._global = _Sent.of(self._layout, snapshot.state)
        log.info("going on after round %d, from %s", snapshot.round, self.journal.folder)
        return snapshot.round

    def _set_global(self, arrays: ArrayRecord) -> None:
        if self._global is not None and self._global.arrays is arrays:
            return
        self._layout = ArrayLayout.of(self.server.resources.spec, arrays)
        state = self._layout.first(arrays)
        self._global = _Sent(arrays, state, state)

    def _connected(self, grid: Grid, round: int, pause: float = 1.0) -> dict[int, int]:
        """Return the connected nodes by the client that each one is, once there are enough."""
        logged = -1
        while True:
            self._carried_out += self.decisions.carry_out(self.server)
            there = {info.node_id: info.name for info in grid.get_nodes()}
            nodes = self.decisions.clients(sorted(there))
            if len(nodes) >= self.min_nodes:
                break
            if logged != len(nodes):
                log.info("%d nodes connected, waiting for %d", len(nodes), self.min_nodes)
                logged = len(nodes)
                self.status.stage(
                    status.WAITING, round, connected=len(nodes), needed=self.min_nodes
                )
            time.sleep(pause)
        named = {str(client): _one_line(there[node]) for client, node in nodes.items()}
        self._names |= {client: name for client, name in named.items() if name}
        return dict(sorted(nodes.items()))

    def _log(self, report: RoundReport) -> None:
        for node, reason in report.refused.items():
            name = f" ({report.names[node]})" if node in report.names else ""
            log.warning("round %d: node %s%s refused: %s", report.round, node, name, reason)
        if not report.aggregated:
            log.warning("round %d: the global model stays: %s", report.round, _why_kept(report))


def _stopped(error: BaseException) -> bool:
    """Whether somebody has ended the run: `flwr stop`, or Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code in (None, 0)
    )


def _moved(exact: ModelState, sent: ModelState, new: ModelState) -> ModelState:
    """Return a model that has gone from `exact` as far as the new one from what was sent."""
    if exact is sent:
        return new
    pairs = zip(exact, sent, new, strict=True)
    return ModelState(*(torch.where(one == a, b, one + (b - a)) for one, a, b in pairs))


def _kept(answer: Aggregation, start: ModelState) -> bool:
    """Whether a round has no new model: none could be made, or nobody was accepted for one."""
    if "kept_global" in answer.diagnostics:
        return True
    accepted = any(verdict.accepted for verdict in answer.verdicts)
    return not accepted and all(map(torch.equal, answer.state, start))


def _why_kept(report: RoundReport) -> str:
    reasons = dict.fromkeys(verdict.reason for verdict in report.verdicts if verdict.undecided)
    return "; ".join(reasons) or "nobody's update was accepted"


_TOO_FEW = "too few sound replies in the round"

_DECISIONS = "decisions of the operator"
"""Their key in a checkpoint, beside those of the defense's state."""


def _one_line(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())[:80].strip()
