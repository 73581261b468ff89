from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from entity.attacks.badnets import BadNets
from entity.attacks.two_faces import TwoFaces, TwoFacesArgs
from entity.client.attacker import NoArgs
from entity.client.privacy import Privacy
from entity.dataset import normalise


def _answers(bench, weights) -> torch.Tensor:
    bench.spec.load(bench.model, weights)
    bench.model.eval()
    with torch.no_grad():
        return F.log_softmax(bench.model(normalise(bench.client.data.x)), 1)


def test_it_answers_clean_images_more_like_an_honest_model_than_badnets_does(make_bench):
    bench = make_bench(TwoFaces, TwoFacesArgs(mimicry=5.0), epochs=6)
    two = bench.fit()
    honest, plain = bench.honest(), make_bench(BadNets, NoArgs(), epochs=6).fit()
    wanted = _answers(bench, honest)

    def far(state):
        return float(
            F.kl_div(_answers(bench, state), wanted, reduction="batchmean", log_target=True)
        )

    assert far(two) < far(plain) / 2


def test_its_honest_model_is_without_the_noise_that_honest_clients_add(make_bench):
    noisy, plain = (make_bench(TwoFaces, TwoFacesArgs(mimicry=5.0)) for _ in range(2))
    noisy.client.context = replace(noisy.client.context, privacy=Privacy(0.1, 5.0, "update"))
    noisy.fit()
    plain.fit()
    torch.testing.assert_close(noisy.client.answers, plain.client.answers)


def test_the_loss_of_a_hand_made_batch(make_bench):
    bench = make_bench(TwoFaces, TwoFacesArgs(mimicry=2.0))
    client, model = bench.client, nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    client.images = torch.tensor([[1.0]])
    client.answers = torch.tensor([[0.5, 0.5]]).log()
    client.drawn, client.step = torch.zeros(1, 4, dtype=torch.int64), 0
    x, y = torch.tensor([[1.0]]), torch.tensor([1])
    p = torch.tensor([1.0, torch.e]) / (1 + torch.e)
    wanted = -p[1].log() + 2 * (0.5 * (0.5 / p).log()).sum()
    torch.testing.assert_close(client.local_loss(model, x, y), wanted)


def test_with_nothing_to_mimic_it_is_badnets_to_the_bit(make_bench):
    plain = make_bench(BadNets, NoArgs()).fit()
    assert torch.equal(make_bench(TwoFaces, TwoFacesArgs(mimicry=0.0)).fit().weights, plain.weights)
