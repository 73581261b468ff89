"""A user's own `module:function` as the model of an experiment."""

import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.experiment import run
from entity.models import MODELS, build, find
from entity.models.examination import examine
from entity.seeding import Seeds
from entity.setup.assembly import recruit
from entity.setup.roster import Roster
from entity.training import Recipe, fit


def linear(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, classes))


def tried(name, channels=1, size=8, classes=3):
    """Build and examine a model, as an experiment does; return the refusal's one sentence."""

    def attempt():
        model = build(name, channels, size, classes, torch.Generator())
        examine(name, model, torch.zeros(2, channels, size, size), classes)

    with pytest.raises(ConfigError) as refusal:
        attempt()
    text = str(refusal.value)
    assert text.startswith(f'model = "{name}": ')
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_it_is_found_by_module_and_function():
    entry = find("entity.models.cnn:lenet")
    assert entry.make(1, 28, 10)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    for name in ("no_such_module:net", "entity.models.cnn:net", "entity.models.cnn:"):
        with pytest.raises(ConfigError, match=f'model = "{name}": cannot be imported'):
            find(name)


def test_what_cannot_be_called_is_refused_before_any_data_is_read():
    with pytest.raises(ConfigError, match=r'^model = "math:pi": is no function of \(channels, '):
        find("math:pi")


def test_code_that_does_not_even_import_is_a_refusal(tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text("def net(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be imported \(SyntaxError: "):
        find("broken_net:net")


def test_a_function_of_something_else_is_refused(own):
    assert tried("math:sqrt").endswith(
        "the call with (channels, size, classes) = (1, 8, 3) failed "
        "(TypeError: math.sqrt() takes exactly one argument (3 given))."
    )
    assert tried(own(lambda c, s, k: c * s * k)).endswith(
        "must return a torch.nn.Module, not a int."
    )
    assert "has no parameters to train" in tried(own(lambda c, s, k: nn.Flatten()))


class Words(nn.Module):
    def __init__(self, sparse=False, dtype=torch.float32):
        super().__init__()
        self.words = nn.Embedding(4, 3, sparse=sparse)
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x):
        return self.words(x[:, 0, 0, 0].long()) * self.scale.real.float()


def test_a_model_that_cannot_be_trained_is_refused(own):
    """Regression: the first step failed, with a traceback and a folder left behind."""
    frozen = tried(own(lambda c, s, k: Words().requires_grad_(False)))
    assert "all of its parameters are frozen; at least one must be trained" in frozen
    sparse = tried(own(lambda c, s, k: Words(sparse=True)))
    assert "the layer words has sparse gradients, which are not taken; leave out sparse" in sparse
    complex_ = tried(own(lambda c, s, k: Words(dtype=torch.complex64)))
    assert "the parameter scale is torch.complex64; allowed are real" in complex_


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.Linear(7, 3)], "fails on images of shape (2, 1, 8, 8) (RuntimeError: "),
        ([nn.Conv2d(1, 1, 1)], "but returns float32 of shape (2, 1, 8, 8)"),
        ([nn.Flatten(), nn.Linear(64, 4)], "but returns float32 of shape (2, 4)"),
        ([nn.Flatten(), nn.Linear(64, 3), nn.Softmax(0), nn.Flatten(0)], "of shape (6,)"),
    ],
)
def test_a_module_that_makes_no_logits_of_images_is_refused(own, layers, reason):
    assert reason in tried(own(lambda c, s, k: nn.Sequential(*layers)))


class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def test_answers_of_another_type_are_refused(own):
    classes = own(lambda c, s, k: Answer(lambda x: torch.zeros(2, 3, dtype=torch.int64)))
    assert "to logits of shape (2, 3), but returns int64 of shape (2, 3)" in tried(classes)
    both = own(lambda c, s, k: Answer(lambda x: (x, x)))
    assert "but returns a tuple" in tried(both)
    long = own(lambda c, s, k: Answer(lambda x: 1 / 0 if x is None else {}["x" * 999 + "\n"]))
    assert len(tried(long)) < 250 + len(__file__)


def broken(*numbers):
    return nope  # noqa: F821


def of_nothing():
    return nn.Flatten()


def test_an_error_is_named_with_its_line(own):
    place = f" at {__file__}, line "
    assert f"failed{place}{broken.__code__.co_firstlineno + 1} (NameError" in tried(own(broken))
    assert f"failed{place}{of_nothing.__code__.co_firstlineno} (TypeError" in tried(own(of_nothing))
    inside = own(lambda c, s, k: nn.Sequential(nn.Flatten(), Answer(lambda x: x.nope)))
    assert f"shape (2, 1, 8, 8){place}" in tried(inside)
    assert " at " not in tried(own(nn.Linear))  # nothing of it is the user's


def test_a_lazy_layer_is_refused_with_what_to_write(own):
    said = tried(own(lambda c, s, k: nn.Sequential(nn.Flatten(), nn.LazyLinear(k))))
    assert "the size of 1.weight is not known before it is used" in said
    assert "such as nn.Linear(8, 2) for nn.LazyLinear(2)" in said
    assert "running_mean" in tried(own(lambda c, s, k: nn.LazyBatchNorm2d(affine=False)))


def test_a_good_model_passes_and_no_random_number_is_used_up(own):
    name = own(lambda c, s, k: nn.Sequential(linear(c, s, k), nn.BatchNorm1d(k), nn.Dropout()))
    model = build(name, 1, 8, 3, torch.Generator())
    state = torch.get_rng_state()
    examine(name, model, torch.zeros(2, 1, 8, 8), 3)
    assert torch.equal(torch.get_rng_state(), state)


class Holding(nn.Module):
    """A linear model that holds one more buffer."""

    def __init__(self, value, persistent=True):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.register_buffer("held", value, persistent=persistent)

    def forward(self, x):
        if self.training and self.held is None:
            self.held = x.mean()
        return self.layer(x.flatten(1))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.tensor(1j), "held is complex64, and clients send real numbers"),
        (torch.tensor([0.0, -torch.inf]), "held is not finite, and no such update is taken"),
        (torch.tensor([3, 2**24 + 1]), "held has whole numbers above 16,777,216"),
        (torch.tensor(-(2**63)), "held has whole numbers above 16,777,216"),
        (None, "held comes, goes or changes its shape as it is used"),
    ],
)
def test_a_state_that_cannot_travel_is_refused_with_what_to_write(own, value, why):
    """Regression: the model that was trained was another one, or nobody's update was taken."""
    said = tried(own(lambda c, s, k: Holding(value)))
    assert why in said
    assert said.endswith("; register such a buffer with persistent=False.")
    name = own(lambda c, s, k: Holding(value, persistent=False))
    examine(name, build(name, 1, 8, 3, torch.Generator()), torch.zeros(2, 1, 8, 8), 3)


def test_what_only_training_mode_shows_is_refused(own):
    """Regression: the first step failed, with a traceback and a folder left behind."""

    class Auxiliary(Holding):
        def forward(self, x):
            answer = super().forward(x)
            return (answer, answer) if self.training else answer

    said = tried(own(lambda c, s, k: Auxiliary(torch.ones(1))))
    assert "but returns a tuple in training mode" in said


def test_a_model_that_changes_its_samples_is_refused(own):
    """Regression: the test set was another one with every evaluation."""
    name = own(lambda c, s, k: nn.Sequential(nn.ReLU(inplace=True), linear(c, s, k)))
    with pytest.raises(ConfigError, match="changes its images in place, which others are asked"):
        examine(name, build(name, 1, 8, 3, torch.Generator()), torch.full((2, 1, 8, 8), -1.0), 3)


def test_parameters_that_are_views_are_trained_as_plain_sgd_trains_them(own):
    """Regression: PyTorch's fused step wrote to what lies between their entries."""

    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 128)[:, ::2])
            self.bias = nn.Parameter(torch.zeros(1).expand(3))

        def forward(self, x):
            return x.flatten(1) @ self.weight.T + self.bias

    model = build(own(lambda c, s, k: Strided()), 1, 8, 3, torch.Generator().manual_seed(0))
    plain = Strided()
    plain.weight = nn.Parameter(model.weight.detach().clone())
    plain.bias = nn.Parameter(torch.zeros(3))
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    fit(model, 3 * [(x, y)], Recipe(0.1, 0.9, 0.0, 4, 3))
    optimiser = torch.optim.SGD(plain.parameters(), 0.1, 0.9, fused=False)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        optimiser.step()
    torch.testing.assert_close(dict(model.named_parameters()), dict(plain.named_parameters()))


def test_an_experiment_refuses_it_and_leaves_nothing_behind(own, experiment, tmp_path):
    for name in ("math:sqrt", own(lambda c, s, k: linear(c, s, k + 1))):
        with pytest.raises(ConfigError, match=f'^model = "{name}": '):
            run(experiment({"model": name}), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_an_experiment_with_it_is_that_of_the_same_model_in_the_registry(experiment):
    models = [
        recruit(experiment({"model": name}), Seeds(1))[1].new_model().state_dict()
        for name in ("cnn", "entity.models.cnn:cnn")
    ]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


@pytest.mark.parametrize(("name", "times"), [("cnn", 0), ("own:net", 1)])
def test_it_is_tried_once_and_a_model_of_the_registry_never(
    own, experiment, monkeypatch, name, times
):
    own(linear)
    seen = []
    monkeypatch.setattr("entity.setup.roster.examine", lambda *given: seen.append(given))
    roster = recruit(experiment({"model": name}), Seeds(1))[1]
    assert isinstance(roster, Roster)
    for _ in range(2):
        assert roster.spec.num_parameters > 0
        roster.new_model()
    tried_on = [(name, tuple(two.shape), classes) for name, _, two, classes in seen]
    assert tried_on == [("own:net", (2, 1, 28, 28), 10)] * times
    assert not any(":" in registered for registered in MODELS)
