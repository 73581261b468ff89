"""`client.attack.non_iid_equal_distribution`, from the config to the clients' data."""

import pytest
import torch

from entity.config.shipped import shipped
from entity.seeding import Seeds
from entity.setup import assembly, resolve

CONFIG = shipped("mnist5k/undefended")


def roster(pooled):
    changes = {
        "IID": "false",
        "dirichlet_alpha": "0.3",
        "non_iid_equal_distribution": pooled,
        "number_of_malicious_clients": "4",
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
