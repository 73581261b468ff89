"""`client.attack.non_iid_equal_distribution`, from the config to the clients' data."""

import io
import pickle

import pytest
import torch

from entity.config.shipped import shipped
from entity.seeding import Seeds
from entity.setup import assembly, resolve

CONFIG = shipped("mnist5k/undefended")


def roster(pooled, malicious=4):
    changes = {
        "IID": "false",
        "dirichlet_alpha": "0.3",
        "non_iid_equal_distribution": pooled,
        "number_of_malicious_clients": str(malicious),
    }
    config = resolve.experiment(resolve.read(CONFIG), list(changes.items()))
    return assembly.recruit(config, Seeds(config.settings.seed))[1]


@pytest.fixture(scope="module")
def apart():
    return roster("false")


@pytest.fixture(scope="module")
def shared():
    return roster("true")


def test_the_poisoned_samples_are_the_same_ones_shared_out_evenly(apart, shared):
    def poisoned(of):
        return [of.samples(client)[of.targets(client)] for client in sorted(of.malicious)]

    before, after = poisoned(apart), poisoned(shared)
    assert sorted(torch.cat(before).tolist()) == sorted(torch.cat(after).tolist())
    sizes = [len(part) for part in after]
    assert max(sizes) - min(sizes) <= 1
    assert len({len(part) for part in before}) > 1  # it was uneven


def test_clients_keep_their_clean_samples_and_register_what_they_hold(apart, shared):
    for client in sorted(apart.malicious):
        clean = torch.ones(len(apart.samples(client)), dtype=torch.bool)
        clean[apart.targets(client)] = False
        rest = torch.ones(len(shared.samples(client)), dtype=torch.bool)
        rest[shared.targets(client)] = False
        kept = shared.samples(client)[rest].tolist()
        assert sorted(kept) == sorted(apart.samples(client)[clean].tolist())
        assert int(shared.num_samples((client,))) == len(shared.client(client).data)


def test_benign_clients_are_left_alone(apart, shared):
    honest = next(c for c in range(10) if c not in apart.malicious)
    assert torch.equal(apart.samples(honest), shared.samples(honest))


class Counting(pickle.Pickler):
    """Counts tensors: each that is sent to a worker costs a descriptor, of which there are 1024."""

    def __init__(self):
        super().__init__(io.BytesIO())
        self.tensors = 0

    def reducer_override(self, what):
        self.tensors += isinstance(what, torch.Tensor)
        return NotImplemented


def test_many_clients_that_pool_are_sent_in_as_few_tensors_as_two():
    sent = []
    for malicious in (2, 9):
        of = roster("true", malicious)
        assert len(of.targets(min(of.malicious)))
        pickler = Counting()
        pickler.dump(of)
        sent.append(pickler.tensors)
    assert sent[0] == sent[1]


def test_a_worker_finds_the_same_pool(shared):
    before = [shared.samples(client) for client in sorted(shared.malicious)]
    copy = pickle.loads(pickle.dumps(shared))
    assert all(map(torch.equal, before, map(copy.samples, sorted(copy.malicious))))
