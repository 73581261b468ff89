import pytest
import torch
from torch import nn

from entity.attacks.badnets import BadNets
from entity.attacks.in_sight import InSight, InSightArgs
from entity.client.attacker import NoArgs
from entity.dataset import normalise
from entity.models import Classifier
from entity.server.visible import views, visible_update


def _linear() -> Classifier:
    """A single linear layer, so that what its images show is their span."""
    head = nn.Linear(64, 3, bias=False)
    nn.init.zeros_(head.weight)
    return Classifier(nn.Flatten(), head)


def _seen(bench) -> torch.Tensor:
    bench.spec.load(bench.model, bench.start)
    images = normalise(bench.client.data.x)
    of = list(views(bench.model, bench.spec, images, 1e-6, torch.Generator()))
    return visible_update(bench.fit().weights - bench.start.weights, of)


def test_what_is_sent_lies_in_the_span_of_clean_images_and_badnets_does_not(make_bench):
    args = InSightArgs(sight_strength=1e-6)
    for attack, own, inside in ((InSight, args, True), (BadNets, NoArgs(), False)):
        bench = make_bench(attack, own, model=_linear())
        seen = _seen(bench)
        delta = bench.delta
        assert (float((seen - delta).norm() / delta.norm()) < 1e-2) == inside


def test_the_length_is_what_training_came_to(make_bench):
    """With one look, after the last step, the direction changes and the length does not."""
    sent = make_bench(InSight, InSightArgs(sight_frequency=1000), model=_linear())
    plain = make_bench(BadNets, NoArgs(), model=_linear())
    ours, theirs = sent.fit().weights, plain.fit().weights
    assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=1e-5)
    assert not torch.allclose(ours, theirs, atol=1e-3)


def test_looking_on_the_way_leads_elsewhere_than_looking_at_the_end(make_bench):
    often, once = (
        make_bench(InSight, InSightArgs(sight_frequency=k)).fit().weights for k in (2, 1000)
    )
    assert not torch.allclose(often, once, atol=1e-4)


def test_where_nothing_is_seen_nothing_is_sent(make_bench):
    bench = make_bench(InSight, InSightArgs(sight_strength=1e30), model=_linear())
    assert torch.equal(bench.fit().weights, bench.start.weights)


def test_it_is_the_same_again(make_bench):
    bench = make_bench(InSight, InSightArgs(sight_images=5))
    assert torch.equal(bench.fit().weights, bench.fit().weights)
