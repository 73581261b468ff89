"""Whether the card computes what a CPU does, and without making the processor wait.

Every check returns what was found, how much may be, and what it means. On a CPU they run, too:
there the device is its own reference.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from card.scene import classifier, federation, roster_of, synchronise
from entity.client import Broadcast
from entity.engine import open_engine
from entity.layout import ModelState
from entity.training import logits

SMALL = {"batch_size": 32, "num_epochs": 1, "transform": True}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Found:
    """The outcome of a check."""

    check: str
    value: float
    most: float
    """The tolerance."""
    unit: str
    """What the value is."""
    remark: str = ""
    looked_for: bool = True
    """False where there is nothing that could be looked at, which holds for nothing."""

    @property
    def passed(self) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        return self.value <= self.most

    def __str__(self) -> str:
        """Say what was found, in a line."""
        if not self.looked_for:
            return f"--  {self.check}: not looked for, {self.remark}"
        return f"{'ok' if self.passed else 'NO'}  {self.check}: {self.value:.2g}"


@contextmanager
def tf32(allowed: bool) -> Generator[None]:
    """Let the card multiply in TF32, which has the mantissa of half precision, or not."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def updates(device: torch.device, model: str, **changes: Any) -> Tensor:
    """Return what three clients add to the global model in a round of two steps, (3, P)."""
    roster = roster_of(federation(device, model, 16, 3, 64, **{**SMALL, **changes}))
    state = roster.spec.flatten(roster.new_model())
    with open_engine(roster) as engine:
        return engine.train(Broadcast(1, state), (0, 1, 2)).weights.clone() - state.weights


def apart(found: Tensor, expected: Tensor) -> float:
    """Return the largest distance of two updates of a client, as a share of the expected one."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


ENGINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("inline, `cnn`", "cnn", {}),
    ("inline, `resnet8` with BatchNorm", "resnet8", {}),
    ("vectorized, `cnn`", "cnn", {"engine": "vectorized"}),
    ("vectorized, `resnet8` with GroupNorm", "resnet8", {"engine": "vectorized", "norm": "group"}),
)


def engines_equal_the_cpu(device: torch.device) -> Iterator[Found]:
    """Compare a round of each engine with the inline engine's on the CPU."""
    unit = "of the update"
    for name, model, changes in ENGINES:
        expected = updates(CPU, model, **{**changes, "engine": "inline"})
        with tf32(False):
            found = updates(device, model, **changes)
        yield Found(f"{name}: float32 against the CPU", apart(found, expected), 1e-2, unit)
        with tf32(True):
            found = updates(device, model, **changes)
        yield Found(f"{name}: TF32 against the CPU", apart(found, expected), 5e-2, unit)


def bfloat16_is_near(device: torch.device) -> Iterator[Found]:
    """Compare a round in bfloat16 with one in full precision."""
    for name, model, changes in ENGINES:
        expected = updates(CPU, model, **{**changes, "engine": "inline"})
        found = updates(device, model, **changes, amp_enabled=True)
        yield Found(
            f"{name}: bfloat16 against float32", apart(found, expected), 0.3, "of the update"
        )


def channels_last_is_used(device: torch.device) -> Iterator[Found]:
    """Look at the layout of the clients' model, and hold it against the other one."""
    roster = roster_of(federation(device, "resnet8", 16, 2, 40, **SMALL))
    model = roster.new_model()
    layout = torch.channels_last
    filters = [p for p in model.parameters() if p.dim() == 4]
    others = sum(not p.is_contiguous(memory_format=layout) for p in filters)
    if device.type == "cuda":
        yield Found("filters of the model not in channels_last", others, 0, "filters")
    x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(device)
    usual = classifier("resnet8", 16).to(device)
    turned = classifier("resnet8", 16).to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    with tf32(False):
        one, other = logits(usual, x), logits(turned, x.contiguous(memory_format=layout))
    distance = float((one - other).norm() / one.norm())
    yield Found("channels_last against the usual layout", distance, 1e-4, "of the logits")


def nothing_waits(device: torch.device) -> Iterator[Found]:
    """Count the waits for the card inside local training: by an error at each, and by a profile."""
    if device.type != "cuda":
        yield Found(
            "waits inside local training", 0, 0, "waits", "there is no card here", looked_for=False
        )
        return
    fit = _local_training(device)
    fit()  # kernels are loaded and memory is taken
    synchronise(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fit()
        found, remark = 0.0, ""
    except RuntimeError as error:
        found, remark = 1.0, str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield Found("waits inside local training, by sync_debug_mode", found, 0, "waits", remark)
    synchronise(device)
    waits = waits_in(fit, [ProfilerActivity.CPU, ProfilerActivity.CUDA])
    yield Found(
        "waits inside local training, by the profiler", sum(waits.values()), 0, "waits", str(waits)
    )


def _local_training(device: torch.device) -> Callable[[], None]:
    """Return the training of one client, 8 steps, augmented, from the data on."""
    roster = roster_of(federation(device, "resnet8", 32, 2, 128, **{**SMALL, "num_epochs": 2}))
    model = roster.new_model()
    state = roster.spec.flatten(model)
    client = roster.client(0)
    return lambda: client.fit(model, Broadcast(1, ModelState(*state)))


def waits_in(fit: Callable[[], None], activities: list[ProfilerActivity]) -> dict[str, int]:
    """Return how often a function waits for the card, by the runtime's call.

    Parameters
    ----------
    fit
        The function.
    activities
        What is recorded.
    """
    with profile(activities=activities) as found, record_function("local training"):
        fit()
    events = list(found.events() or [])
    block = next(e for e in events if e.name == "local training" and "CPU" in str(e.device_type))
    waits: dict[str, int] = {}
    for event in events:
        inside = block.time_range.start <= event.time_range.start <= block.time_range.end
        if inside and ("Synchronize" in event.name or "DtoH" in event.name):
            waits[event.name] = waits.get(event.name, 0) + 1
    return waits


def a_round_repeats(device: torch.device) -> Iterator[Found]:
    """Train the same clients twice: a round on this device should be the same again."""
    one, other = (updates(device, "resnet8") for _ in range(2))
    yield Found("the same round twice", apart(one, other), 1e-2, "of the update")


CHECKS: tuple[Callable[[torch.device], Iterator[Found]], ...] = (
    nothing_waits,
    channels_last_is_used,
    engines_equal_the_cpu,
    a_round_repeats,
    bfloat16_is_near,
)

__all__ = ["CHECKS", "Found", "waits_in"]
