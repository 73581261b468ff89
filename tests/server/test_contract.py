import torch
from torch import nn

from entity.server import Needs


def test_needs_read_as_words():
    assert str(Needs()) == "nothing"
    assert str(Needs(clean_data=True, honest_majority=True)) == "clean data, honest majority"


def test_a_module_of_the_resources_holds_the_given_state(make_resources):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    resources = make_resources(model)
    state = resources.spec.flatten(model)._replace(weights=torch.arange(26.0)[:23])
    made = resources.module(state)
    assert made is not model
    assert torch.equal(resources.spec.flatten(made).weights, state.weights)
