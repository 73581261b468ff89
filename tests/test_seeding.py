import ast
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import entity
from entity.seeding import Seeds, global_stream


def test_a_stream_is_named_by_experiment_purpose_round_and_client():
    names = [(71, "fit", 3, 7), (72, "fit", 3, 7), (71, "noise", 3, 7), (71, "fit", 4, 7)]
    names += [(71, "fit", 3, 8), (71, "fit", 37, 0), (71, "fit", 0, 37), (71, "fit", 0, "3/7")]
    numbers = [Seeds(e).number(p, round=r, client=c) for e, p, r, c in names]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers)


def test_the_seed_of_a_stream_never_changes_or_published_runs_could_not_be_repeated():
    digest = hashlib.blake2b(b"71/fit/3/7", digest_size=8).digest()
    expected = int.from_bytes(digest, "big") // 2
    assert Seeds(71).number("fit", round=3, client=7) == expected == 8309765036277980817


SHARED = {
    "fit": {"client/client.py", "attacks/chameleon.py"},  # which trains in place of the client
    "select": {"federation.py", "flower/selection.py"},  # the simulator's draw, or the strategy's
    "scratch": {"server/contract.py", "defenses/foolsgold.py"},  # weights that are written over
}
"""Streams that several files draw from, never two of them in one run."""


def test_with_a_secret_the_whole_state_of_the_twister_is_drawn():
    """Against NumPy's Mersenne Twister with the same words."""
    seeds = Seeds(71, b"s" * 16)
    words = seeds._state("fit", 3, 7)[24 : 24 + 8 * 624].view(torch.int64).numpy()
    assert len(set(words.tolist())) > 600
    numpy = np.random.MT19937()
    numpy.state = {"bit_generator": "MT19937", "state": {"key": words.astype("u4"), "pos": 624}}
    drawn = torch.rand(2000, generator=seeds.generator("fit", round=3, client=7))
    raw = numpy.random_raw(2000) & ((1 << 24) - 1)
    assert drawn.tolist() == (raw / 2**24).tolist()
    again = torch.rand(2000, generator=seeds.generator("fit", round=3, client=7))
    assert torch.equal(drawn, again)
    for other in (seeds.generator("fit", round=4, client=7), Seeds(71, b"t" * 16).generator("fit")):
        assert not torch.equal(torch.rand(2000, generator=other), drawn)
    seed = seeds.number("fit", round=3, client=7)  # not one of the 2^32 that torch has
    assert not torch.equal(torch.rand(2000, generator=torch.Generator().manual_seed(seed)), drawn)


def test_a_stream_serves_one_purpose():
    """The reference model, the distillation and client 0 had one stream for their dropout."""
    package, used = Path(entity.__file__).parent, defaultdict(set)
    for file in package.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in ("generator", "numpy", "number")
                and call.args
                and isinstance(call.args[0], ast.Constant)
            ):
                used[call.args[0].value].add(str(file.relative_to(package)))
    assert len(used) > 25
    assert {purpose: files for purpose, files in used.items() if len(files) > 1} == SHARED


def test_generators_are_fresh_and_leave_the_global_stream_alone():
    before = torch.get_rng_state()
    seeds = Seeds(5)
    first = torch.rand(4, generator=seeds.generator("a", round=1))
    again = torch.rand(4, generator=seeds.generator("a", round=1))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(4, generator=seeds.generator("a", round=2)))
    assert (seeds.numpy("a").random(3) == seeds.numpy("a").random(3)).all()
    assert torch.equal(before, torch.get_rng_state())


def test_constructors_inside_a_global_stream_draw_from_the_generator_alone():
    def build(seed):
        with global_stream(torch.Generator().manual_seed(seed)):
            return nn.Linear(5, 3).weight.detach()

    torch.manual_seed(1)
    one = build(8)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(build(8), one)
    assert not torch.equal(build(9), one)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_generator_gives_two_blocks_different_numbers():
    generator = torch.Generator().manual_seed(0)
    with global_stream(generator):
        first = torch.rand(3)
    with global_stream(generator):
        second = torch.rand(3)
    assert not torch.equal(first, second)


def test_the_global_stream_is_put_back_after_an_exception():
    state = torch.get_rng_state()
    with pytest.raises(TypeError), global_stream(torch.Generator()):
        nn.Linear(torch.rand(2, 2), 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_stream_of_an_mps_device_is_seeded_and_put_back(monkeypatch):
    stream = {"state": "before"}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: stream["state"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: stream.update(state=state))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: stream.update(state=seed))
    with global_stream(torch.Generator().manual_seed(4)):
        first = stream["state"]
    assert isinstance(first, int)
    assert stream["state"] == "before"
    with global_stream(torch.Generator().manual_seed(4)):
        assert stream["state"] == first
