from dataclasses import replace

import pytest
import torch
from torch import nn

from entity.attacks.disguised import Disguised
from entity.attacks.in_sight import InSight, InSightArgs
from entity.client.privacy import Privacy
from entity.dataset import normalise
from entity.models import Classifier
from entity.server.visible import views, visible_update


def bench_of(make_bench, attack=Disguised, strength=0.01):
    """A single linear layer, so that what its images show is their span."""
    head = nn.Linear(64, 3, bias=False)
    nn.init.zeros_(head.weight)
    model = Classifier(nn.Flatten(), head)
    bench = make_bench(attack, InSightArgs(sight_strength=strength), model=model)
    images = normalise(bench.client.data.x)
    of = list(views(bench.model, bench.spec, images, strength, torch.Generator()))
    return bench, of


def test_it_sends_a_push_in_sight_as_long_as_what_an_honest_update_shows_and_the_rest_of_that(
    make_bench,
):
    bench, of = bench_of(make_bench, strength=1.0)
    sent = bench.fit().weights - bench.start.weights
    honest = bench.honest().weights - bench.start.weights
    push = bench_of(make_bench, InSight, strength=1.0)[0].fit().weights - bench.start.weights
    shown = visible_update(honest, of)
    expected = push * shown.norm() / push.norm() + honest - shown
    torch.testing.assert_close(sent, expected, atol=1e-5, rtol=1e-4)
    assert (honest - shown).norm() > 0.1 * honest.norm()
    assert not torch.allclose(sent, honest, atol=1e-3)


def test_what_clean_images_do_not_show_is_that_of_its_honest_update(make_bench):
    """Where the visible part is a projection, up to rounding."""
    bench, of = bench_of(make_bench, strength=1e-6)
    sent = bench.fit().weights - bench.start.weights
    honest = bench.honest().weights - bench.start.weights
    hidden, own = (each - visible_update(each, of) for each in (sent, honest))
    torch.testing.assert_close(hidden, own, atol=2e-3 * float(honest.norm()), rtol=0)


def test_its_honest_model_is_without_the_noise_that_honest_clients_add(make_bench):
    (noisy, _), (plain, _) = bench_of(make_bench), bench_of(make_bench)
    noisy.client.context = replace(noisy.client.context, privacy=Privacy(0.1, 5.0, "update"))
    sent = noisy.fit().weights
    torch.testing.assert_close(sent, plain.fit().weights)


def test_who_has_no_push_is_honest_in_the_hidden_part_alone(make_bench, monkeypatch):
    bench, of = bench_of(make_bench, strength=1.0)
    origin = bench.start.weights

    def stay(self, model):
        self.context.spec.load(model, bench.start._replace(weights=self.origin))

    monkeypatch.setattr(Disguised, "keep_visible", stay)
    sent = bench.fit().weights - origin
    honest = bench.honest().weights - origin
    torch.testing.assert_close(sent, honest - visible_update(honest, of), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("strength", [0.01, 1e30])
def test_it_is_the_same_again_and_honest_where_nothing_is_seen(make_bench, strength):
    bench, _ = bench_of(make_bench, strength=strength)
    sent = bench.fit().weights
    assert torch.equal(sent, bench.fit().weights)
    if strength == 1e30:
        torch.testing.assert_close(sent, bench.honest().weights)
