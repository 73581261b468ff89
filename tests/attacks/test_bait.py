import pytest
import torch

from entity.attacks.bait import Bait, BaitArgs
from entity.attacks.in_sight import InSight, InSightArgs


def test_baits_add_one_direction_for_good_and_the_others_are_in_sight(make_bench):
    bait, other = (make_bench(Bait, BaitArgs(bait_share=1.0), id=id, rank=id) for id in (0, 1))
    directions = []
    for bench, at in [(bait, 1), (bait, 2), (other, 1)]:
        sent = bench.fit(round=at).weights - bench.start.weights
        directions.append(torch.cat([_unit(slot.of(sent)) for slot in bench.spec.parameters]))
    for direction in directions[1:]:
        torch.testing.assert_close(direction, directions[0], atol=1e-4, rtol=0)
    last = make_bench(Bait, BaitArgs(), rank=2).fit().weights
    assert torch.equal(last, make_bench(InSight, InSightArgs(), rank=2).fit().weights)


def _unit(part):
    return part.flatten() / part.norm().clamp_min(1e-30)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_bait_trains_honestly_and_as_much_as_asked_is_of_the_direction(make_bench, share):
    bench = make_bench(Bait, BaitArgs(bait_share=share), rank=0)
    honest, sent = bench.honest().weights - bench.start.weights, bench.fit().weights
    sent = sent - bench.start.weights
    for slot in bench.spec.parameters:
        own, found = slot.of(honest), slot.of(sent)
        if own.numel() > 30:  # a random direction is nearly orthogonal there
            cosine = float((own * found).sum() / own.norm() / found.norm())
            assert cosine == pytest.approx((1 - share) ** 0.5, abs=0.2)
    if not share:
        torch.testing.assert_close(sent, honest, atol=1e-6, rtol=0)


def test_it_is_the_same_again(make_bench):
    for rank in (0, 3):
        bench = make_bench(Bait, BaitArgs(), rank=rank)
        assert torch.equal(bench.fit().weights, bench.fit().weights)
