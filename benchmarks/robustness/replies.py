"""Hostile replies of a node: refused with a reason or accepted, and the round goes on."""

import logging
import math
from collections import Counter
from functools import cache
from random import Random

import numpy as np
from flwr.app import ArrayRecord
from loopback import SETTINGS, Federation, Loopback

from entity.flower import RobustStrategy, RoundReport
from robustness.hostile_replies import hostile_node
from robustness.tally import ENOUGH, Case, Tally

DEFENSES = (
    *("undefended", "median", "trimmed_mean", "krum", "multikrum", "norm_clipping", "rfa"),
    *("flame", "droplet", "foolsgold", "deepsight", "flare", "rlr", "fltrust", "multi_metrics"),
    *("freqfed", "rflbat", "crfl", "finetuning", "bulyan", "drop"),
)
HONEST = (17, 2**63 + 11, 5, 2**60, 40)
HOSTILE = 7
ROUNDS = 2
LONGEST = 400
"""Characters that a reason may have."""

LEAST = {"refused": 0.5, "accepted": 0.05}
"""Share of the cases that must be refused, and accepted: huge numbers are sound replies."""


class Replies:
    """The figure."""

    in_process = True

    def case(self, seed: int) -> Case:
        """Let one node answer with nonsense among honest ones."""
        logging.getLogger("entity").setLevel(logging.ERROR)
        rng = Random(f"replies {seed}")
        federation, defense = federation_of_this_process(), rng.choice(DEFENSES)
        trust = rng.random() < 0.5
        options = SETTINGS.get(defense, {}) | ({"weighting": "samples"} if trust else {})
        reports: list[RoundReport] = []
        strategy = RobustStrategy(
            federation.server(defense, **options),
            trust_sample_counts=trust,
            on_round=reports.append,
        )
        what, node = hostile_node(rng, federation)
        nodes = {number: federation.honest() for number in HONEST} | {HOSTILE: node}
        try:
            result = strategy.start(
                Loopback(nodes), federation.arrays, num_rounds=ROUNDS, timeout=0
            )
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            return Case(Counter(["crashed"]), f"{defense}, {what}: {ascii(failure)[:300]}")
        outcome = "refused" if str(HOSTILE) in reports[0].refused else "accepted"
        wrong = next(filter(None, map(unsound, reports)), "") or deformed(
            result.arrays, federation.arrays
        )
        return Case(Counter([outcome]), f"{defense}, {what}: {ascii(wrong)[:300]}" if wrong else "")

    def shortfall(self, tally: Tally) -> str:
        """Say that too few were refused, or accepted."""
        for name, least in LEAST.items():
            if tally.cases >= ENOUGH and tally.share(name) < least:
                return f"{tally.share(name):.0%} are {name}; at least {least:.0%} should be"
        return ""


@cache
def federation_of_this_process() -> Federation:
    return Federation()


def unsound(report: RoundReport) -> str:
    """Say what is wrong with a round; "" if nothing is."""
    if not report.aggregated:
        return "the honest replies were not aggregated"
    judged = {verdict.client for verdict in report.verdicts}
    if missing := {str(node) for node in (*HONEST, HOSTILE)} - judged:
        return f"no verdict on node {min(missing)}"
    for node, reason in report.refused.items():
        if not reason or len(reason) > LONGEST or not reason.isprintable():
            return f"the reason of node {node} is {reason[:LONGEST]!r}, of {len(reason)} characters"
    if not all(math.isfinite(value) for value in report.metrics().values()):
        return "a metric is not finite"
    return ""


def deformed(arrays: ArrayRecord, before: ArrayRecord) -> str:
    """Say how a global model is no model any more; "" if it is one."""
    described = [{k: (a.dtype, a.shape) for k, a in each.items()} for each in (arrays, before)]
    if described[0] != described[1]:
        return "the global model has other arrays"
    broken = [name for name, array in arrays.items() if not np.isfinite(array.numpy()).all()]
    return f"{broken[0]} of the global model is not finite" if broken else ""
