"""Local training of many clients at once on one device: their models stacked by `torch.func`.

For small models on a GPU, which one client at a time leaves idle. Clients see the same batches in
the same order as on any engine, but sums are taken in another order, so weights do not agree with
those of `inline` to the bit: within 1e-4 after two short rounds of the `cnn` and, at a rate of
0.02, of `lenet` (some ten steps a client). Every step makes more of the rounding, so more steps and
deeper networks part further: 7e-4 in a round of `mnist5k/drop`, 4e-3 on `resnet8` with GroupNorm
(in double precision 1e-9). On a CPU this is no faster, and `auto` never chooses it.
"""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from entity.client import Attacker, Broadcast, Client, LocalData
from entity.client.own_code import checked_model
from entity.engine.inline import Inline
from entity.engine.local_training import single_threaded
from entity.engine.stacked import Batch, fit_stacked
from entity.layout import ModelState
from entity.seeding import global_stream, is_ours
from entity.setup.roster import Roster
from entity.training import Recipe

log = logging.getLogger("entity")

_PLAIN_LOOP = ("train", "batches", "local_loss")
"""Methods that a client must have from `Client` to be stacked; others may be an attacker's."""
_PLAIN_ATTACK = ("fit", "corrupt", "state_dict")


class Vectorized(Inline):
    """Stacks the clients that train by the plain loop; the others train one after another."""

    def __init__(self, roster: Roster) -> None:
        self.most = roster.config.settings.num_parallel_max
        super().__init__(roster, window=self.most)
        self._logged: set[str] = set()
        self._architecture: str | None = None
        """Why the model cannot be stacked; "" if it can, None until it has been tried."""

    def run(
        self, broadcast: Broadcast, client_ids: tuple[int, ...], deliver: Callable[[int], None]
    ) -> None:
        """Train the clients, at most `settings.num_parallel_max` at once."""
        rows = range(len(client_ids))
        for start in rows[:: self.most]:
            together = rows[start : start + self.most]
            self._train({row: client_ids[row] for row in together}, broadcast)
            for row in together:
                deliver(row)

    def _train(self, client_ids: Mapping[int, int], broadcast: Broadcast) -> None:
        """Train clients, given by their rows: each recipe's in a stack."""
        stacks: dict[Recipe, dict[int, Client]] = {}
        for row, id in client_ids.items():
            client = acting(self.roster.client(id), broadcast)
            why = obstacle(client, broadcast, self.trainer.model)
            if why or (why := self._tried(client, broadcast)):
                self._log_once(f"engine vectorized: {why}, so one trains after another")
                self.train_one(broadcast, id, row)
            else:
                stacks.setdefault(training_recipe(client), {})[row] = client
        for recipe, stack in stacks.items():
            with single_threaded():
                self._fit(broadcast, stack, recipe)

    def _tried(self, client: Client, broadcast: Broadcast) -> str:
        """Say why the model cannot be stacked, by its first batch; "" if it can."""
        if self._architecture is None:
            recipe = training_recipe(client)
            batch = next(client.batches(broadcast, training_data(client), recipe), None)
            if batch is None:
                return ""
            model = self.trainer.fresh()
            self.roster.spec.load(model, broadcast.state)
            with global_stream(torch.Generator()):
                self._architecture = obstacle_of(model.train(), batch, recipe)
        return self._architecture

    def _log_once(self, text: str) -> None:
        if text not in self._logged:
            log.info(text)
            self._logged.add(text)

    def _fit(self, broadcast: Broadcast, stack: Mapping[int, Client], recipe: Recipe) -> None:
        model, spec = self.trainer.fresh(), self.roster.spec
        spec.load(model, broadcast.state)
        model.train()
        start = {name: value.detach() for name, value in model.named_parameters()}
        batches = [
            client.batches(broadcast, training_data(client), recipe) for client in stack.values()
        ]
        trained = fit_stacked(model, start, batches, recipe)
        for (row, client), parameters in zip(stack.items(), trained, strict=True):
            out = self.out(row)
            for slot, value in zip(spec.parameters, parameters.values(), strict=True):
                out.weights[slot.start : slot.stop].view(slot.shape).copy_(value)
            trained = ModelState(out.weights.clone(), out.buffers)
            if isinstance(client, Attacker):
                sent = checked_model(client, client.craft(trained, broadcast), trained)
            else:
                sent = client.released(trained, broadcast)
            if sent is not trained:
                out.weights.copy_(sent.weights)


def acting(client: Client, broadcast: Broadcast) -> Client:
    """Return who trains for a client: an attacker that does not attack in a round is benign."""
    if isinstance(client, Attacker) and not client.attacks(broadcast):
        return client.honest
    return client


def obstacle_of(model: nn.Module, batch: Batch, recipe: Recipe) -> str:
    """Say why a model cannot be stacked that has neither buffers nor layers of dropout.

    Parameters
    ----------
    model
        In training mode.
    batch
        Some client's, to try it on.
    recipe
        Of the training.

    Returns
    -------
    str
        "" if it can.
    """
    parameters = dict(model.named_parameters())
    norm = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
    if any(isinstance(module, norm) for module in model.modules()):
        return "the model has BatchNorm, which would see how batches are filled up"
    if not all(parameter.requires_grad for parameter in parameters.values()):
        return "the model has frozen parameters"
    start = {name: value.detach() for name, value in parameters.items()}
    try:
        fit_stacked(model, start, [iter([batch])], recipe)
    except RuntimeError as error:
        return f"the model cannot be stacked ({str(error).splitlines()[0][:100]})"
    if next(model.buffers(), None) is not None:
        return "the model has buffers once it is used"
    x, y = batch
    with torch.no_grad():
        alone, beside = model(x), model(torch.cat([x, torch.zeros_like(x[:1])]))[:-1]
    if not torch.allclose(alone, beside, rtol=1e-3, atol=1e-4 * float(alone.abs().max())):
        return "what the model answers to a sample depends on the others of its batch"
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    unused = any(each.grad is None for each in parameters.values())  # weight decay would move them
    model.zero_grad()
    return "the model has parameters without a gradient" if unused else ""


def obstacle(client: Client, broadcast: Broadcast, model: nn.Module) -> str:
    """Say why a client cannot be stacked; an empty text if it can.

    Parameters
    ----------
    client
        A client of the round.
    broadcast
        The round: attackers that do not attack in it train as benign clients do.
    model
        The architecture.
    """
    if next(model.buffers(), None) is not None:
        return "the model has buffers, as BatchNorm has (norm: group has none)"
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # pyright: ignore[reportPrivateUsage]
            return "the model has dropout"
    client = acting(client, broadcast)
    privacy = client.context.privacy
    if privacy is not None and privacy.unit == "sample" and not isinstance(client, Attacker):
        return "privacy of samples takes the gradient of each"
    kind = type(client)
    plain = all(getattr(kind, name) is getattr(Client, name) for name in _PLAIN_LOOP)
    if isinstance(client, Attacker):
        plain = plain and all(getattr(kind, n) is getattr(Attacker, n) for n in _PLAIN_ATTACK)
        if not (is_ours(kind) and is_ours(type(client.plan.poison))):
            return "an attack of the user's own may draw random numbers of its own"
    else:
        plain = plain and kind.fit is Client.fit and kind.state_dict is Client.state_dict
    if plain and not client.watches_steps:
        return ""
    return f"clients of {kind.__name__} train in a way of their own"


def training_data(client: Client) -> LocalData:
    """Return the data that a client trains on, an attacker where it attacks."""
    return client.poisoned() if isinstance(client, Attacker) else client.data


def training_recipe(client: Client) -> Recipe:
    """Return how a client trains, an attacker where it attacks."""
    return client.attack_recipe if isinstance(client, Attacker) else client.honest_recipe
