import pytest
import torch

from entity.server.output_layer import normalised_energies, threshold_exceedings

CLASSES, WIDTH = 4, 5


def test_the_energies_and_exceedings_by_hand():
    weights = torch.tensor([[[1.0, -1.0]], [[0.5, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    weights = weights.transpose(0, 1)  # one client, K = 4, H = 2
    biases = torch.tensor([[-1.0, 0.5, 0.0, 1.0]])
    neup = normalised_energies(weights, biases)
    torch.testing.assert_close(neup, torch.tensor([[9.0, 1, 1, 1]]) / 12)
    assert threshold_exceedings(neup, 0.01).tolist() == [1]  # the limit is .25 * .75 = .1875
    assert threshold_exceedings(neup, 0.05).tolist() == [1]
    assert threshold_exceedings(torch.full((1, 4), 0.25), 0.01).tolist() == [4]


def test_the_published_factor_is_a_floor_for_many_classes():
    neup = torch.full((1, 200), 0.5 / 199).double()
    neup[0, 0] = 0.5
    assert threshold_exceedings(neup, 0.01).tolist() == [1]  # .00251 is below .01 * .5
    assert threshold_exceedings(neup, 0.0).tolist() == [200]  # but above .5 / 200


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_energies_do_not_depend_on_the_scale(scale):
    weights = torch.rand(3, CLASSES, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    scaled = normalised_energies(scale * weights, None)
    torch.testing.assert_close(scaled, normalised_energies(weights, None))
    torch.testing.assert_close(scaled.sum(1), torch.ones(3).double())


def test_an_untouched_output_layer_is_concentrated_on_nothing():
    neup = normalised_energies(torch.zeros(1, 4, 2), torch.zeros(1, 4))
    assert neup.tolist() == [[0.25] * 4]
