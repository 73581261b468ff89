"""What attackers know of a round in which not every update is finite."""

import pytest

from entity.attacks.alie import Alie, AlieArgs
from entity.attacks.ipm import Ipm, IpmArgs
from entity.attacks.min_max import MinMax, MinMaxArgs
from entity.client.untargeted import known_rows
from entity.seeding import Seeds

NAN = float("nan")
ROUND = [[1.0, 2.0], [NAN, 2.0], [3.0, 4.0], [2.0, 1.0], [NAN, NAN], [2.0, 5.0]]
BAD = [4, 5]


@pytest.mark.parametrize(
    ("malicious", "knowledge", "rows"),
    [
        (BAD, "omniscient", [0, 2, 3]),
        (BAD, "colluders", [5]),
        ([4], "colluders", [4]),  # it has nothing else to send
        ([4], "omniscient", [0, 2, 3, 5]),
        ([0, 2, 3, 5], "omniscient", [0, 2, 3, 5]),  # no benign update can be read
    ],
)
def test_updates_that_are_not_finite_are_nobody_s_knowledge(make_round, malicious, knowledge, rows):
    assert known_rows(make_round(ROUND), malicious, knowledge) == rows


@pytest.mark.parametrize("knowledge", ["omniscient", "colluders"])
@pytest.mark.parametrize(
    ("attack", "args"), [(Alie, AlieArgs), (Ipm, IpmArgs), (MinMax, MinMaxArgs)]
)
def test_a_client_that_diverged_does_not_end_the_attack(make_round, attack, args, knowledge):
    updates = make_round(ROUND)
    attack.collude(args(knowledge=knowledge), updates, BAD, Seeds(0))
    assert updates.weights[BAD].isfinite().all()
    assert updates.weights[1].isnan().any()  # nobody else's update is touched
