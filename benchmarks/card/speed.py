"""Samples a second of local training: the engine's, a bare loop's, and what the card could do."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from card.scene import Scale, classifier, federation, roster_of, synchronise
from entity.client import Broadcast
from entity.devices import placed
from entity.engine import open_engine
from entity.training import Recipe, autocast, cross_entropy, fit, new_optimiser

PRECISIONS = (("float32 (TF32 convolutions)", False), ("bfloat16", True))


@dataclass(frozen=True)
class Speed:
    """Samples a second at one batch size and precision."""

    model: str
    batch: int
    precision: str
    bare: float
    """Of optimiser steps alone, on batches that lie ready on the card."""
    ours: float
    """Of the inline engine's clients: models in and out, gathering and augmenting included."""
    share: float
    """Ours of the bare loop's; the median over pairs."""
    limit: float
    """What the card's matrix products would allow, see `limits`."""
    replayed: float | None
    """Of a bare loop whose step is one CUDA graph: what is left without the cost of launching
    kernels one by one. None on a CPU, and where the graph cannot be captured."""


def limits(device: torch.device, scale: Scale) -> dict[str, float]:
    """Return the samples a second that nothing on this card could exceed, by precision.

    The rate of one large square matrix product, divided by the multiplications and additions of
    one sample's forward and backward pass (PyTorch's FlopCounterMode). No network of small images
    comes near it: normalisation and the like move memory and multiply nothing.
    """
    model = classifier(scale.model, scale.size).train()
    x = torch.zeros(2, 3, scale.size, scale.size)
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    per_sample = counter.get_total_flops() / len(x)
    found: dict[str, float] = {}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, half in PRECISIONS:
        dtype = torch.bfloat16 if half else torch.float32
        a, b = (torch.randn(scale.product, scale.product, device=device).to(dtype) for _ in "ab")
        seconds = median(_seconds(lambda a=a, b=b: a @ b, device) for _ in range(7))
        found[name] = 2 * scale.product**3 / seconds / per_sample
    torch.backends.cuda.matmul.allow_tf32 = before
    return found


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def speeds(device: torch.device, scale: Scale) -> Iterator[Speed]:
    """Measure at each batch size and precision, engine and bare loop in turn."""
    most = limits(device, scale)
    for batch in scale.batches:
        for name, half in PRECISIONS:
            yield _speed(device, scale, batch, name, half, most[name])


def _speed(
    device: torch.device, scale: Scale, batch: int, precision: str, half: bool, limit: float
) -> Speed:
    """Measure one line.

    Parameters
    ----------
    device, scale
        Where, and how much.
    batch
        Images in a step.
    precision, half
        Its name, and whether it is bfloat16.
    limit
        The card's.
    """
    config = federation(
        device,
        scale.model,
        scale.size,
        scale.clients,
        scale.samples,
        batch_size=batch,
        num_epochs=scale.epochs,
        transform=True,
        amp_enabled=half,
    )
    roster = roster_of(config)
    state = roster.spec.flatten(roster.new_model())
    ids = tuple(range(scale.clients))
    bare = bare_loop(device, scale, roster.recipe)
    images = scale.clients * scale.samples * scale.epochs
    pairs: list[tuple[float, float]] = []
    with open_engine(roster) as engine:
        for turn in range(1 + scale.turns):  # the first one warms up
            ours = _seconds(lambda turn=turn: engine.train(Broadcast(turn + 1, state), ids), device)
            pairs.append((_seconds(bare, device), ours))
    pairs = pairs[1:]
    return Speed(
        scale.model,
        batch,
        precision,
        images / median(floor for floor, _ in pairs),
        images / median(ours for _, ours in pairs),
        median(floor / ours for floor, ours in pairs),
        limit,
        replayed(device, scale, roster.recipe) if device.type == "cuda" else None,
    )


def bare_loop(device: torch.device, scale: Scale, recipe: Recipe) -> Callable[[], None]:
    """Return the steps of the same clients, model and optimiser on batches that lie ready."""
    model = placed(classifier(scale.model, scale.size), device)
    sizes = batch_sizes(scale.samples, recipe.batch_size)
    rng = torch.Generator().manual_seed(1)
    batches = [
        (
            (torch.rand(size, 3, scale.size, scale.size, generator=rng) * 2 - 1)
            .contiguous(memory_format=torch.channels_last)
            .to(device),
            (torch.arange(size) % 10).to(device),
        )
        for size in sizes
    ]

    def steps() -> None:
        for _ in range(scale.clients):
            fit(model, batches * scale.epochs, recipe)

    return steps


def replayed(device: torch.device, scale: Scale, recipe: Recipe) -> float | None:
    """Return the samples a second of a step that is captured once and replayed.

    Parameters
    ----------
    device
        A CUDA device.
    scale
        Model and images.
    recipe
        Rates, batch size and precision.
    """
    model = placed(classifier(scale.model, scale.size), device).train()
    optimiser = new_optimiser(model, recipe)
    x = torch.rand(recipe.batch_size, 3, scale.size, scale.size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.arange(recipe.batch_size, device=device) % 10
    fresh, labels = x.clone(), y.clone()

    def step() -> None:
        with autocast(device, recipe.amp_enabled):
            loss = cross_entropy(model, x, y)
        loss.backward()
        optimiser.step()

    try:
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(3):
                optimiser.zero_grad(set_to_none=True)
                step()
        torch.cuda.current_stream(device).wait_stream(aside)
        optimiser.zero_grad(set_to_none=True)  # the captured backward pass writes, and adds nothing
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        print(f"  no CUDA graph: {str(error).splitlines()[0]}")
        return None

    def many() -> None:
        for _ in range(50):
            x.copy_(fresh)
            y.copy_(labels)
            graph.replay()

    _seconds(many, device)
    return 50 * recipe.batch_size / median(_seconds(many, device) for _ in range(scale.turns))


def batch_sizes(samples: int, batch: int) -> Sequence[int]:
    """Return the sizes of a pass's batches; a last batch of one image is left out.

    Examples
    --------
    >>> batch_sizes(1000, 256), batch_sizes(129, 64)
    ([256, 256, 256, 232], [64, 64])
    """
    full, rest = divmod(samples, batch)
    return [batch] * full + [rest] * (rest > 1)


def line_of(speed: Speed) -> dict[str, object]:
    """Return a speed as a line of the ledger."""
    return asdict(speed)
