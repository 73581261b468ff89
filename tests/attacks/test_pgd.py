import pytest
import torch

from entity.attacks.badnets import BadNets
from entity.attacks.model_replacement import ModelReplacement
from entity.attacks.pgd import Pgd, PgdArgs, project
from entity.client.attacker import NoArgs
from entity.seeding import Seeds


def test_the_projection_of_a_hand_made_point():
    w = [torch.tensor([[3.0, 1.0]]), torch.tensor([5.0])]
    project(w, [torch.tensor([[0.0, 1.0]]), torch.tensor([1.0])], 2.5)
    torch.testing.assert_close(w, [torch.tensor([[1.5, 1.0]]), torch.tensor([3.0])])


def test_a_point_inside_the_ball_is_left_to_the_bit():
    w = [torch.tensor([0.1, 0.7])]
    project(w, [torch.zeros(2)], 1.0)
    assert w[0].tolist() == torch.tensor([0.1, 0.7]).tolist()


@pytest.mark.parametrize("frequency", [1, 3, 1000])
def test_what_is_sent_lies_in_the_ball_whenever_it_was_last_projected(make_bench, frequency):
    bench = make_bench(Pgd, PgdArgs(pgd_epsilon=0.1, project_frequency=frequency))
    bench.fit()
    # The unconstrained update is much longer, so the ball is reached.
    assert bench.delta.norm().item() == pytest.approx(0.1, rel=1e-5)


def test_projecting_on_the_way_leads_elsewhere_than_projecting_at_the_end(make_bench):
    every, last = (
        make_bench(Pgd, PgdArgs(pgd_epsilon=0.1, project_frequency=k)).fit().weights
        for k in (1, 1000)
    )
    assert not torch.allclose(every, last, atol=1e-4)


def test_a_wide_ball_changes_nothing_and_a_narrow_one_does_not_touch_the_buffers(make_bench):
    plain = make_bench(BadNets, NoArgs()).fit()
    wide = make_bench(Pgd, PgdArgs(pgd_epsilon=1e6, project_frequency=1)).fit()
    assert torch.equal(plain.weights, wide.weights)
    late = make_bench(Pgd, PgdArgs(pgd_epsilon=0.01, project_frequency=1000)).fit()
    assert torch.equal(plain.buffers, late.buffers)


def test_replacement_multiplies_the_projected_update(make_bench):
    bench = make_bench(Pgd, PgdArgs(pgd_epsilon=0.1, gamma=7.0))
    bench.fit()
    assert bench.delta.norm().item() == pytest.approx(0.7, rel=1e-5)


def test_replacement_by_round_size_is_model_replacements(make_round):
    ours, theirs = make_round([(1, 2), (0, 4), (0, 0)]), make_round([(1, 2), (0, 4), (0, 0)])
    args = PgdArgs(gamma="replace")
    Pgd.collude(args, ours, [1], Seeds(0))
    ModelReplacement.collude(args, theirs, [1], Seeds(0))
    assert torch.equal(ours.weights, theirs.weights)
    assert ours.deltas[1].tolist() == [0, 12]
