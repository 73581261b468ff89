"""Numbers and names as the page has them."""

from collections.abc import Iterable, Sequence

from claim.design import CIFAR10, CONFIGURATIONS, Labels, design
from claim.lines import Line
from claim.results import Results

NAMES = {
    **{"undefended": "undefended", "droplet": "DROPlet", "drop": "DROP", "median": "Median"},
    **{"drop_plus": "DROP+", "multikrum": "Multi-Krum", "flame": "FLAME", "fltrust": "FLTrust"},
    **{"foolsgold": "FoolsGold", "flare": "FLARE", "rfa": "RFA"},
    "drop published": "DROP, published",
}
NONE = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """Write a share in percent, without the sign.

    Examples
    --------
    >>> percent(0.0312), percent(None)
    ('3.1', '–')
    """
    return NONE if share is None else f"{100 * share:.1f}"


def by_seed(results: Results, study: str, labels: Labels, metric: str) -> str:
    """Write a metric of a cell, a seed beside the other; a void one stands in brackets."""
    seeds = design(study).seeds.get(labels)
    if seeds is None:
        return ""
    return " / ".join(_one(results, results.at(study, labels, seed), metric) for seed in seeds)


def _one(results: Results, line: Line | None, metric: str) -> str:
    if line is None:
        return NONE
    value = getattr(line, metric)
    text = str(value) if isinstance(value, int) else percent(value)
    return f"({text})" if results.attacked(line) is False and metric == "worst_asr" else text


def where(study: str, labels: Labels) -> str:
    """Name a cell by all but its defense.

    Examples
    --------
    >>> where("configurations", ("C4", "1.25%", "20%", "drop"))
    'C4 at 1.25 %/20 %'
    >>> where("configurations-cifar10", ("C4", "drop"))
    'C4'
    """
    if study != CONFIGURATIONS:
        return labels[0]
    configuration, rate, mcr, _ = labels
    return f"{configuration} at {rate[:-1]} %/{mcr[:-1]} %"


def listed(words: Iterable[str]) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listed("a"), listed("ab"), listed("abc")
    ('a', 'a and b', 'a, b and c')
    """
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def counted(number: int, word: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "cell"), counted(2, "cell")
    ('1 cell', '2 cells')
    """
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def defenses(study: str) -> Sequence[str]:
    """Return the defenses of a study, in its order."""
    return design(study).labels_of("defense") if study in (CONFIGURATIONS, CIFAR10) else ()
