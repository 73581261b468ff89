"""What an attack and a poison may return: anything else is one sentence that names the method."""

from dataclasses import replace

import pytest
import torch

from entity.attacks import ATTACKS
from entity.client import Broadcast
from entity.client.own_code import checked_copies, checked_memory, checked_rows, checked_test
from entity.config.schema import ConfigError
from entity.dataset import Images
from entity.poisons import POISONS
from tests.fixtures.attackers import bench_of

BadNets, Pixel = ATTACKS["badnets"], POISONS["pixel"]


@pytest.mark.parametrize(
    ("craft", "said"),
    [
        (lambda state: None, "returned None; it must return an entity.layout.ModelState."),
        (lambda state: state.weights, "returned a tensor of float32"),
        (
            lambda state: state._replace(weights=state.weights[1:]),
            "returned weights that are a tensor of float32 and shape",
        ),
        (
            lambda state: state._replace(buffers=state.buffers.double()),
            "returned buffers that are a tensor of float64",
        ),
    ],
)
def test_what_is_sent_is_a_model_of_the_federation(craft, said):
    own = type("Mine", (BadNets,), {"craft": lambda self, trained, broadcast: craft(trained)})
    bench = bench_of(own, BadNets.hyperparameters())
    with pytest.raises(ConfigError, match=r"^Mine\.craft ") as error:
        bench.client.fit(bench.model, Broadcast(1, bench.start))
    assert said in str(error.value)


def test_a_craft_that_works_in_place_is_what_is_sent():
    def craft(self, trained, broadcast):
        trained.weights.mul_(-2)
        return trained

    bench = bench_of(type("Mine", (BadNets,), {"craft": craft}), BadNets.hyperparameters())
    plain = bench_of(BadNets, BadNets.hyperparameters()).fit()
    assert torch.equal(bench.fit().weights, -2 * plain.weights)


@pytest.mark.parametrize("vector", ["weights", "buffers"])
def test_what_changes_the_global_model_in_place_is_refused(vector):
    def craft(self, trained, broadcast):
        getattr(broadcast.state, vector).mul_(0)
        return trained

    bench = bench_of(type("Mine", (BadNets,), {"craft": craft}), BadNets.hyperparameters())
    with pytest.raises(ConfigError, match=r"^Mine changes broadcast\.state in place, which the"):
        bench.fit()


def test_what_changes_the_model_of_before_in_place_is_refused():
    def craft(self, trained, broadcast):
        broadcast.previous.mul_(0)
        return trained

    bench = bench_of(type("Mine", (BadNets,), {"craft": craft}), BadNets.hyperparameters())
    sent = Broadcast(1, bench.start, bench.start.weights.clone())
    with pytest.raises(ConfigError, match=r"^Mine changes broadcast\.previous in place, which"):
        bench.client.fit(bench.model, sent)


def test_what_is_sent_may_hold_any_numbers():
    own = type(
        "Mine",
        (BadNets,),
        {"craft": lambda self, t, broadcast: t._replace(weights=t.weights * torch.nan)},
    )
    bench = bench_of(own, BadNets.hyperparameters())
    bench.client.fit(bench.model, Broadcast(1, bench.start))
    assert bench.state.weights.isnan().all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: None, "returned None; it must return entity.dataset.Images."),
        (lambda images: (images.x, images.y), "returned a tuple; it must"),
        (lambda images: replace(images, x=None), "returned x that is None; it must be a tensor."),
        (lambda images: replace(images, x=images.x[..., 1:]), "returned x that is a tensor of"),
        (lambda images: replace(images, x=images.x.float()), "returned x that is a tensor of"),
        (lambda images: Images(images.x[1:], images.y[1:]), "returned x that is a tensor of"),
        (lambda images: replace(images, y=images.y[1:]), "returned y that is a tensor of"),
        (lambda images: replace(images, y=images.y.int()), "labels must be of int64."),
        (lambda images: replace(images, y=images.y + 97), "the label 99; allowed are 0 to 2."),
        (lambda images: replace(images, y=images.y - 3), "the label -1; allowed are 0 to 2."),
    ],
)
def test_poisoned_copies_take_the_place_of_what_was_chosen(change, said):
    class Mine(Pixel):
        def poison(self, chosen, rank, generator):
            return change(super().poison(chosen, rank, generator))

    bench = bench_of(BadNets, BadNets.hyperparameters(), poison=Mine)
    bench.client.plan = replace(bench.client.plan, classes=3)
    with pytest.raises(ConfigError, match=r"^Mine\.poison ") as error:
        bench.client.fit(bench.model, Broadcast(1, bench.start))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: None, "returned None; it must return entity.dataset.Images."),
        (
            lambda images: replace(images, x=images.x[..., 1:]),
            "it must be of the test set's samples, uint8 and shape (N, 1, 8, 8).",
        ),
        (lambda images: replace(images, x=images.x.float()), "x that is a tensor of float32"),
        (
            lambda images: replace(images, y=images.y[1:]),
            "returned 6 samples and y that is a tensor of int64 and shape (5,); it must have a "
            "label for each.",
        ),
        (lambda images: replace(images, y=images.y + 9), "the label 10; allowed are 0 to 9."),
    ],
)
def test_what_an_attack_is_judged_on_is_of_the_test_set(change, said):
    class Mine:
        pass

    test = Images(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.ones(6, dtype=torch.int64))
    assert checked_test(Mine(), test.subset(torch.tensor([0, 3])), test, 10).x.shape[0] == 2
    assert (
        len(checked_test(Mine(), test.subset(torch.tensor([], dtype=torch.int64)), test, 10)) == 0
    )
    with pytest.raises(ConfigError, match=r"^Mine\.test_set ") as error:
        checked_test(Mine(), change(test), test, 10)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "returned None; it must return a table of tensors, {} for none."),
        ([torch.zeros(2)], "returned a list; it must"),
        ({"a": 3.0}, "returned 'a': a float; allowed are tensors by name."),
        ({3: torch.zeros(2)}, "returned 3: a tensor of float32 and shape (2,); allowed are"),
    ],
)
def test_what_colluders_keep_is_tensors_by_name(found, said):
    with pytest.raises(ConfigError, match=r"^BadNets\.conspire ") as error:
        checked_memory(BadNets, "conspire", found)
    assert said in str(error.value)
    kept = {"a": torch.zeros(2)}
    assert checked_memory(BadNets, "conspire", kept) == kept
    assert checked_memory(BadNets, "conspire", {}) == {}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0, 1], "returned a list; it must be a tensor of int64 and shape (k,)."),
        (torch.tensor([True, False]), "returned a tensor of bool"),
        (torch.tensor([[0]]), "returned a tensor of int64 and shape (1, 1); it must"),
        (torch.tensor([1, 1]), "positions that do not increase, or are not from 0 to 4."),
        (torch.tensor([-1, 1]), "positions that do not increase"),
        (torch.tensor([1, 5]), "positions that do not increase"),
    ],
)
def test_what_is_chosen_is_positions_of_samples(found, said):
    class Mine:
        pass

    with pytest.raises(ConfigError, match=r"^Mine\.choose ") as error:
        checked_rows(Mine(), found, 5)
    assert said in str(error.value)
    for good in ([], [0, 4]):
        rows = torch.tensor(good, dtype=torch.int64)
        assert checked_rows(Mine(), rows, 5) is rows


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_samples_that_are_not_finite_are_refused(number):
    class Mine:
        pass

    images = Images(torch.zeros(3, 5), torch.ones(3, dtype=torch.int64))
    huge = replace(images, x=torch.full((3, 5), 3e38))  # whose sum is infinite
    spoilt = replace(images, x=images.x.index_fill(0, torch.tensor([1]), number))
    for method, check in (("poison", checked_copies), ("test_set", checked_test)):
        assert check(Mine(), huge, images, 2) is huge
        with pytest.raises(
            ConfigError, match=rf"^Mine\.{method} returned samples that are not fin"
        ):
            check(Mine(), spoilt, images, 2)
