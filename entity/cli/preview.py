"""The split of the data under a configuration, before anything is trained.

`drop data preview` shows which client holds how much of which class, who is malicious and how
many samples they poison, and how far the split is from an even one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.style import Style
from rich.text import Text

from entity.config.fields import ClientConfig, ExperimentConfig
from entity.dataset import source_of
from entity.seeding import Seeds
from entity.setup.assembly import recruit
from entity.setup.roster import Roster

WIDTH = 80
"""Columns of the terminal that the map fits in."""
ROWS = 40
"""Clients that are drawn."""
SHADES = " ░▒▓█"
"""A cell without samples, and four steps up to the largest; distinct without colours, too."""
COLOURS = ("default", "#9ecae1", "#6baed6", "#3182bd", "#08519c")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def preview(config: ExperimentConfig) -> RenderableType:
    """Split the data as an experiment would, and draw who holds what; no model is built.

    Parameters
    ----------
    config
        A checked config, as `resolve.experiment` returns it.

    Raises
    ------
    ConfigError
        If the data is missing, or cannot be split as configured.
    """
    split, roster = recruit(config, Seeds(config.settings.seed))
    labels = roster.images.y.numpy()
    counts = np.stack(
        [
            np.bincount(labels[roster.samples(id).numpy()], minlength=roster.classes)
            for id in range(config.federation.size)
        ]
    )
    poisoned = _poisoned(roster)
    facts = [
        ("data", f"{config.dataset}, seed {config.settings.seed}"),
        ("partition", convention(config.client)),
        *described(counts),
        *_attack(roster, poisoned),
        (
            "samples",
            f"{counts.sum()} of {len(split.train)} are the clients', {len(split.server)} held out "
            "for the server",
        ),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [Text.assemble((f"{name:<{width}}  ", "bold"), value) for name, value in facts]
    return Group(drawn(counts, poisoned), Text(), *lines)


def convention(client: ClientConfig) -> str:
    """Return the name of the split and the parameter that it has.

    Examples
    --------
    >>> convention(ClientConfig(1, 0.1, 8, IID=False, partition="shards"))
    'shards, 2 per client'
    """
    if client.IID:
        name = "iid"
    elif client.partition == "natural":
        name = "natural, the data set's own clients"
    elif client.partition == "shards":
        name = f"shards, {client.shards_per_client} per client"
    else:
        name = f"{client.partition}, alpha {client.dirichlet_alpha:g}"
    return name if client.ADR == 1 else f"{name}, of {client.ADR:.3g} of the training data (ADR)"


def described(counts: Ints) -> list[tuple[str, str]]:
    """Return the statistics of a split as names and values.

    Parameters
    ----------
    counts
        (clients, classes) samples.
    """
    sizes, distance = counts.sum(axis=1), total_variation(counts)
    return [
        ("clients", f"{len(counts)} of {spread(sizes)} samples, Gini {gini(sizes):.3f}"),
        ("classes", f"{spread(classes_held(counts))} of {counts.shape[1]} in a client's data"),
        (
            "distance",
            f"{np.nanmean(distance):.3f} on average, {np.nanmax(distance):.3f} at most (total "
            "variation to all data)",
        ),
    ]


def spread(values: Ints | Sequence[int]) -> str:
    """Return minimum, maximum and median in words.

    Examples
    --------
    >>> spread([4, 1, 3, 10])
    '1 to 10 (median 3.5)'
    """
    return f"{np.min(values)} to {np.max(values)} (median {np.median(values):g})"


def classes_held(counts: Ints) -> Ints:
    """Return (clients,) in how many classes each client has a sample; `counts` as elsewhere."""
    return (counts > 0).sum(axis=1)


def gini(sizes: Ints) -> float:
    """Return the Gini coefficient Σ_ij |x_i - x_j| / (2 n² mean): 0 for equal sizes, up to 1.

    Examples
    --------
    >>> gini(np.array([1, 3])), gini(np.array([0, 0, 0, 8]))
    (0.25, 0.75)
    """
    ordered = np.sort(sizes)
    n, total = len(ordered), ordered.sum()
    # Σ_i (2i - n - 1) x_i of the sorted sizes is half the sum over all pairs.
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def total_variation(counts: Ints) -> Floats:
    """Return (clients,) ½ Σ_c |q_i(c) - q(c)|, of a client's mix of classes and that of all.

    0 for the same mix, 1 for none in common; NaN for a client without samples.

    Examples
    --------
    >>> total_variation(np.array([[2, 0], [1, 1]]))
    array([0.25, 0.25])
    """
    overall = counts.sum(axis=0) / counts.sum()
    sizes = counts.sum(axis=1, keepdims=True)
    mixes = np.divide(counts, sizes, out=np.full(counts.shape, np.nan), where=sizes > 0)
    return np.abs(mixes - overall).sum(axis=1) / 2


def _poisoned(roster: Roster) -> dict[int, int | None]:
    """Return for each malicious client the number of samples it poisons.

    None stands for an attack on the model alone.
    """
    attack = roster.config.client.attack
    if attack is None or not attack.takes_place:
        return {}
    on_data = roster.attacker is not None and roster.attacker.needs_samples
    return {id: len(roster.targets(id)) if on_data else None for id in sorted(roster.malicious)}


def _attack(roster: Roster, poisoned: dict[int, int | None]) -> list[tuple[str, str]]:
    attack, of_all = roster.config.client.attack, roster.poisoned_share
    if attack is None:
        return [("attack", "none")]
    if not attack.takes_place:
        return [("attack", f"none, judged as {attack.type} would be")]
    if not poisoned:
        return [("attack", f"{attack.type}, but no client is malicious")]
    named = source_of(roster.config).named
    victim = "all others" if attack.victim_class is None else f"class {named(attack.victim_class)}"
    target = named(attack.target_class)
    text = f"{attack.type} by {len(poisoned)} (!), {victim} to be read as {target}"
    amounts = [amount for amount in poisoned.values() if amount is not None]
    if not amounts:
        return [("attack", f"{attack.type} by {len(poisoned)} (!), on the model alone")]
    return [
        ("attack", text),
        (
            "poisoned",
            f"{sum(amounts)} samples, {spread(amounts)} by one malicious client: DPR "
            f"{attack.DPR:g} of the victims, {100 * (of_all or 0):.2f} % of all",
        ),
    ]


def drawn(counts: Ints, poisoned: dict[int, int | None]) -> Text:
    """Draw the clients (rows) by the classes (columns), at most 80 columns wide.

    Parameters
    ----------
    counts
        (clients, classes) samples.
    poisoned
        For each malicious client the number of samples it poisons; None for an attack on the
        model alone.
    """
    id_width = max(len(str(len(counts) - 1)), 2)
    size_width = max(len(str(counts.sum(axis=1).max())), 4)
    poison_width = max(map(len, ["poisons", *map(str, poisoned.values())]))
    rest = f" {'size':>{size_width}}" + (f" {'poisons':>{poison_width}}" if poisoned else "")
    room = WIDTH - (id_width + 3) - len(rest)
    cells, per_column = binned(counts, room)
    width = max(min(room // cells.shape[1], 6), 1)
    numbers = max(len(str(cells.max())), len(str(counts.shape[1] - 1))) < width
    width = width if numbers else min(width, 2)
    text = Text(no_wrap=True)
    note = f" ({per_column} classes a column)" if per_column > 1 else ""
    text.append(f"{'':{id_width}}   {'class' + note}\n", "dim")
    ticks = _ticks(cells.shape[1], per_column, width, numbers)
    text.append(f"{'id':>{id_width}}   {ticks}{rest}\n", "dim")
    for id, row in enumerate(cells[:ROWS]):
        bad = id in poisoned
        text.append(f"{id:>{id_width}} {'!' if bad else ' '} ", "bold red" if bad else "")
        for count in row.tolist():
            text.append(*_cell(count, int(cells.max()), width, numbers))
        text.append(f" {counts[id].sum():>{size_width}}")
        if bad:
            amount = poisoned[id]
            text.append(f" {'-' if amount is None else amount:>{poison_width}}", "red")
        text.append("\n")
    if (hidden := len(counts) - ROWS) > 0:
        among = sum(id >= ROWS for id in poisoned)
        text.append(f"... and {hidden} more" + (f", {among} of them malicious" if among else ""))
        text.append("\n")
    text.rstrip()
    return text


def binned(counts: Ints, columns: int) -> tuple[Ints, int]:
    """Add neighbouring classes up where there are more than columns to draw them in.

    Returns
    -------
    tuple
        (clients, at most `columns`) samples, and the number of classes in a column.

    Examples
    --------
    >>> binned(np.array([[1, 2, 3, 4, 5]]), 3)
    (array([[3, 7, 5]]), 2)
    """
    per_column = -(-counts.shape[1] // columns)
    starts = np.arange(0, counts.shape[1], per_column)
    return np.add.reduceat(counts, starts, axis=1), per_column


def _ticks(columns: int, per_column: int, width: int, numbers: bool) -> str:
    """Return the number of the first class of every column, or of every tenth or fifth."""
    if numbers:
        return "".join(f"{column * per_column:>{width - 1}} " for column in range(columns))
    step = 10 if columns > 10 or width == 1 else 5
    labels = [f"{column * per_column:<{width * step}}" for column in range(0, columns, step)]
    return "".join(labels)[: width * columns]


def _cell(count: int, largest: int, width: int, numbers: bool) -> tuple[str, Style]:
    shade = -(-4 * count // largest) if count else 0
    colour = COLOURS[shade]
    if numbers:
        ink = "white" if shade > 2 else "black"
        style = Style(color=ink, bgcolor=colour) if count else Style(dim=True)
        return f"{count or '·':>{width - 1}} ", style
    return SHADES[shade] * width, Style(color=colour)
