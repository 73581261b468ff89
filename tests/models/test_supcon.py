import pytest
import torch
from torch import nn

from entity.models import MODELS, SupConTwin, build, head_of
from entity.seeding import global_stream


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_of_any_classifier_gives_its_features_with_norm_1(name):
    model = build(name, 1, 28, 10, torch.Generator().manual_seed(0)).eval()
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    twin = SupConTwin(model)
    with torch.no_grad():
        z, penultimate = twin(x), model.features(x)
    assert z.shape == (2, model.head.in_features)
    torch.testing.assert_close(z, penultimate / penultimate.norm(dim=1, keepdim=True))
    torch.testing.assert_close(twin.features(x), penultimate)


class Foreign(nn.Module):
    """A model with other names, and a layer behind its last linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU())
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x)).log_softmax(1)


def test_a_model_with_other_names_will_do():
    with global_stream(torch.Generator().manual_seed(0)):
        model, x = Foreign(), torch.rand(5, 1, 8, 8)
    twin = SupConTwin(model)
    assert twin.head is model.fc
    torch.testing.assert_close(twin.features(x), model.body(x))
    assert not model.fc._forward_pre_hooks


def test_the_hook_is_gone_even_after_a_failure():
    model = Foreign()
    with pytest.raises(RuntimeError):
        SupConTwin(model)(torch.rand(5, 7))
    assert not model.fc._forward_pre_hooks


def test_the_parameters_are_the_classifiers_own_and_the_head_is_no_part_of_the_encoder():
    model = build("resnet8", 1, 8, 3, torch.Generator().manual_seed(0))
    twin = SupConTwin(model)
    ours, theirs = list(twin.parameters()), list(model.parameters())
    assert all(a is b for a, b in zip(ours, theirs, strict=True))
    assert twin.head is head_of(model)[1]
    assert all(a is b for a, b in zip(twin.encoder, model.features.parameters(), strict=True))
    twin.eval()
    assert not model.training
    loss = twin(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)))[:, 0].sum()
    loss.backward()
    assert all(p.grad is not None for p in model.features.parameters())
    assert model.head.weight.grad is None


def test_a_model_without_a_linear_layer_has_no_twin():
    with pytest.raises(ValueError, match="no linear layer"):
        SupConTwin(nn.Flatten())
