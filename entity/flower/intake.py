"""The intake of a round: each reply becomes a row of one matrix, or a reason of refusal.

A malformed reply costs only its own node the round. Rows are ordered by the clients' ids, never by
arrival, so that the aggregate does not depend on which node was fast.
"""

import logging
import string
from collections.abc import Mapping

import torch
from flwr.app import Message, MetricRecord, RecordDict

from entity.config.schema import show
from entity.flower.arrays import ArrayLayout, Malformed
from entity.layout import ModelState
from entity.server.gate import MOST_SAMPLES
from entity.updates import Updates

log = logging.getLogger("entity")

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""Names of the records in a message: Flower's own defaults."""

SAMPLES = "num-examples"
"""The self-reported number of samples among a reply's metrics, as Flower's strategies name it."""


class Intake:
    """The replies of one round.

    Parameters
    ----------
    layout
        The model.
    asked
        Node ids that were sent the global model, by the id of the client that each one is; a client
        is the node that it was before its key was replaced.
    trust_sample_counts
        Take the numbers of samples that nodes report themselves; otherwise all count 1.
    """

    def __init__(
        self, layout: ArrayLayout, asked: Mapping[int, int], *, trust_sample_counts: bool = False
    ) -> None:
        self.layout = layout
        self.names = {asked[client]: str(client) for client in sorted(asked)}
        """Clients by their nodes."""
        self.rows = {node: row for row, node in enumerate(self.names)}
        self.trust_sample_counts = trust_sample_counts
        self.refusals: dict[str, str] = {}
        """Reasons of refusal by client, also of nodes that were not asked."""
        self._samples: dict[int, float] = {}
        self._matrix = layout.empty(len(self.rows))  # untouched rows take no memory

    def take(self, message: Message) -> None:
        """Read one reply and free its arrays; a fault becomes a refusal."""
        node = message.metadata.src_node_id
        client = self.names.get(node, str(node))
        try:
            if node not in self.rows:
                raise Malformed("was not asked in this round")
            if node in self._samples or client in self.refusals:
                # The first reply counts: whoever answers twice cannot take it back.
                raise Malformed("repeated reply")
            if message.has_error():
                raise Malformed(f"error reply: {_printable(message.error.reason)}")
            if not message.has_content():
                raise Malformed("empty reply")
            content = message.content
            samples = self._sample_count(content)
            self._read(content, self.rows[node])
            self._samples[node] = samples
        except Malformed as reason:
            # A client that was asked under a new key is not refused for what its old one sends.
            taken = node not in self.rows and client in self.names.values()
            if taken or node in self._samples or client in self.refusals:
                log.warning("node %d: %s, ignored", node, reason)
            else:
                self.refusals[client] = str(reason)

    def close(self) -> None:
        """Refuse the nodes that have not answered."""
        for node, client in self.names.items():
            if node not in self._samples:
                self.refusals.setdefault(client, "no reply in time")

    def updates(self, round: int, start: ModelState) -> Updates:
        """Return the well-formed updates; the intake is used up then.

        Rows of refused nodes are closed up in place: a copy would need the matrix twice.
        """
        nodes = [node for node in self.rows if node in self._samples]
        matrix = self._matrix
        for target, node in enumerate(nodes):
            row = self.rows[node]
            if row != target:
                matrix.weights[target] = matrix.weights[row]
                matrix.buffers[target] = matrix.buffers[row]
        return Updates(
            round,
            tuple(self.names[node] for node in nodes),
            matrix.weights[: len(nodes)],
            matrix.buffers[: len(nodes)],
            torch.tensor([self._samples[node] for node in nodes], dtype=torch.float64),
            *start,
            spec=self.layout.spec,
            asked=len(self.rows),
        )

    def _read(self, content: RecordDict, row: int) -> None:
        records = content.array_records
        if list(records) != [ARRAYS]:
            names = ", ".join(show(name) for name in list(records)[:3]) or "none"
            raise Malformed(f'record of arrays should be "{ARRAYS}" alone, found {names}')
        out = ModelState(self._matrix.weights[row], self._matrix.buffers[row])
        try:
            self.layout.read(records[ARRAYS], out)
        finally:
            del content[ARRAYS]

    def _sample_count(self, content: RecordDict) -> float:
        if not self.trust_sample_counts:
            return 1.0
        metrics = content.metric_records.get(METRICS, MetricRecord())
        count = metrics.get(SAMPLES)
        if not isinstance(count, int | float) or not 0 < count <= MOST_SAMPLES:
            raise Malformed(f"{SAMPLES} is {show(count)}, not a number above 0 and up to 2**53")
        return float(count)


def _printable(reason: str | None) -> str:
    """Return the last line of a peer's message, shortened, with nothing that moves a cursor."""
    lines = (reason or "no reason given").strip().splitlines() or [""]
    return "".join(c for c in lines[-1][:160] if c in string.printable)
