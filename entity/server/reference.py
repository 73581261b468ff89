"""A model that the server trains on its clean data in every round, beside the clients."""

import torch

from entity.seeding import global_stream
from entity.server.contract import Resources
from entity.training import Recipe, fit, shuffled
from entity.updates import Updates

RECIPE = Recipe(lr=0.025, momentum=0.9, weight_decay=5e-4, batch_size=256, epochs=5)
"""How it is trained, from the global model of the round."""


def add_reference(updates: Updates, resources: Resources) -> Updates:
    """Return the round with the reference model as a last client, "reference"."""
    clean = resources.clean
    assert clean is not None, "needs() asks for clean data"
    model = resources.module(updates.global_state)
    x, y = clean.x.to(resources.device), clean.y.to(resources.device)
    order = resources.seeds.generator("reference", round=updates.round)
    batches = shuffled(len(y), RECIPE.batch_size, RECIPE.epochs, order)
    stream = resources.seeds.generator("reference dropout", round=updates.round)
    with global_stream(stream):  # dropout draws from it
        fit(model, ((x[batch], y[batch]) for batch in batches), RECIPE)
    trained = resources.spec.flatten(model)
    return Updates(
        updates.round,
        (*updates.client_ids, "reference"),
        torch.cat([updates.weights, trained.weights[None]]),
        torch.cat([updates.buffers, trained.buffers[None]]),
        torch.cat([updates.num_samples, torch.tensor([len(y)])]),
        *updates.global_state,
        spec=updates.spec,
    )
