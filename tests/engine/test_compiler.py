"""A compiled model trains as the plain one, and is the plain one where there is no compiler."""

import logging
import shutil

import pytest
import torch
from torch import nn

from entity.client import Broadcast, Client
from entity.config.schema import ConfigError
from entity.engine import Inline, open_engine
from entity.engine.compiler import compile_model


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_trains_the_same(make_roster):
    """One client, with dropout and BatchNorm: 7 samples, so that all batches are of one size."""
    changes = {"settings.compile": True, "federation.round_size": 1}
    roster = make_roster(changes, benign=Client)
    state = roster.spec.flatten(roster.new_model())
    engine = Inline(roster)
    assert engine.trainer.model._compiled_call_impl is not None
    found = engine.train(Broadcast(1, state), (0,))
    expected = Inline(make_roster(benign=Client)).train(Broadcast(1, state), (0,))
    torch.testing.assert_close(found.weights, expected.weights[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.buffers, expected.buffers[:1], rtol=1e-4, atol=1e-5)


def test_without_a_compiler_a_sentence_is_said_and_the_plain_model_trains(
    make_roster, ids, monkeypatch, caplog
):
    def missing(*args, **options):
        raise RuntimeError("no working C++\n compiler")

    monkeypatch.setattr(nn.Module, "compile", missing)
    roster = make_roster({"settings.compile": True})
    state = roster.spec.flatten(roster.new_model())
    with caplog.at_level(logging.WARNING, "entity"), open_engine(roster) as engine:
        found = engine.train(Broadcast(1, state), ids).weights.clone()
    assert caplog.messages == [
        "settings.compile = true: nothing is compiled here (no working C++ compiler)"
    ]
    assert torch.equal(found, Inline(make_roster()).train(Broadcast(1, state), ids).weights)


def test_nothing_is_compiled_unless_it_is_asked_for(make_roster):
    with open_engine(make_roster()) as engine:
        assert engine.trainer.model._compiled_call_impl is None


def test_compiling_renames_nothing():
    plain, compiled = nn.Linear(2, 2), nn.Linear(2, 2)
    compile_model(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_what_is_stacked_cannot_be_compiled(experiment):
    with pytest.raises(ConfigError, match=r"^settings\.compile = true: the vectorized engine"):
        experiment({"settings.compile": True, "settings.engine": "vectorized"})
