import pytest
import torch
from torch import nn

from entity.experiment import run
from entity.models import build
from entity.models.norm import groups_of, with_group_norm
from entity.seeding import Seeds
from entity.setup.assembly import open_server, recruit


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 2), (16, 16), (31, 31), (32, 32), (33, 11), (37, 1), (48, 24), (64, 32), (96, 32)],
)
def test_groups_are_as_many_as_divide_the_channels_up_to_32(channels, groups):
    assert groups_of(channels) == groups


def test_parameters_keep_names_order_and_initial_values():
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    batch = build("resnet8", 3, 8, 10, generators[0])
    group = build("resnet8", 3, 8, 10, generators[1], "group")
    theirs, ours = dict(batch.named_parameters()), dict(group.named_parameters())
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


class Odd(nn.Module):
    """One normalisation in two places, one whose scale starts at 0, one without a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.BatchNorm2d(6, eps=0.1)
        self.blocks = nn.ModuleList([nn.Sequential(self.twice), nn.BatchNorm2d(6)])
        self.plain = nn.BatchNorm2d(6, affine=False)
        self.flat = nn.BatchNorm1d(6)
        nn.init.zeros_(self.blocks[1].weight)
        self.twice.bias.requires_grad_(False)
        self.twice.eval()


def test_every_layer_is_replaced_wherever_it_stands_and_as_it_was():
    model = Odd()
    scale, shift = model.twice.weight, model.twice.bias
    assert with_group_norm(model) is model
    assert isinstance(model.twice, nn.GroupNorm)
    assert model.blocks[0][0] is model.twice
    assert model.twice.weight is scale
    assert model.twice.bias is shift
    assert not model.twice.bias.requires_grad
    assert model.twice.eps == 0.1
    assert not model.twice.training
    assert model.blocks[1].training
    assert model.blocks[1].weight.tolist() == [0] * 6
    assert model.plain.weight is None
    assert isinstance(model.flat, nn.BatchNorm1d)  # of vectors: not ours to replace


def test_an_image_is_normalised_by_itself_in_groups_of_its_channels():
    layer = with_group_norm(nn.Sequential(nn.BatchNorm2d(64)))
    x = torch.randn(3, 64, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    grouped = x.view(3, 32, 2 * 16)
    expected = (grouped - grouped.mean(2, keepdim=True)) / grouped.std(2, False, keepdim=True)
    torch.testing.assert_close(layer(x), expected.view_as(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


def test_a_model_without_batch_norm_is_left_as_it_is():
    plain, grouped = (
        build("vit", 1, 8, 3, torch.Generator().manual_seed(0), norm) for norm in ("batch", "group")
    )
    assert str(plain) == str(grouped)
    states = plain.state_dict(), grouped.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def with_batch_norm(channels: int, size: int, classes: int) -> nn.Module:
    """A user's own model of 28x28 images."""
    layers = [nn.Conv2d(channels, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(144, classes))


@pytest.mark.parametrize("model", ["resnet8", "own:net"])
def test_clients_and_server_train_the_same_model_without_batch_norm(experiment, own, model):
    own(with_batch_norm)
    config = experiment({"model": model, "norm": "group"})
    split, roster = recruit(config, Seeds(1))
    server = open_server(config, split, roster)
    assert roster.spec.num_buffers == 0
    for made in (roster.new_model(), server.resources.build(torch.Generator())):
        kinds = [type(m) for m in made.modules()]
        assert nn.GroupNorm in kinds
        assert nn.BatchNorm2d not in kinds


def test_an_experiment_without_batch_norm_runs(experiment, own):
    changes = {"model": own(with_batch_norm), "federation.rounds": 1}
    group = run(experiment({**changes, "norm": "group"}))
    batch = run(experiment(changes))
    assert group.state.buffers.numel() == 0
    assert batch.state.buffers.numel() == 9
    assert not torch.equal(group.state.weights, batch.state.weights)
