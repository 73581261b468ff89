"""What the cells of a paper's table share, by name and value: its columns say what differs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from entity.config.fields import ExperimentConfig
from entity.dataset import source_of
from entity.distill.settings import StudentArgs
from entity.sweep.study import Study

Read = Callable[[ExperimentConfig], float | str | None]


def setting(study: Study, cells: Iterable[tuple[Mapping[str, str], ExperimentConfig]]) -> str:
    """Say what some cells have in common, in a line.

    Rates of poisoned data are named where they differ, too, in the order of the cells: the paper's,
    of all samples of a malicious client, beside the field DPR, of those of the victim class.

    Parameters
    ----------
    study
        A study of a paper's table.
    cells
        Labels and configuration of each.
    """
    cells = list(cells)
    configs = [config for _, config in cells]
    parts = [
        f"{axis.name} {labels.pop()}"
        for axis in study.grid.axes
        if axis.name not in study.axes
        if len(labels := {of[axis.name] for of, _ in cells if axis.name in of}) == 1
    ]
    for say, read in _FACTS.items():
        found = _values(configs, read)
        if len(found) == 1 or (found and say in _RATES):
            parts.append(say.format(_listed(found)))
    return f"The same in all cells: {'; '.join(parts)}."


def _values(configs: Sequence[ExperimentConfig], read: Read) -> list[float | str]:
    found = (read(config) for config in configs)
    return list(dict.fromkeys(value for value in found if value is not None))


def _listed(values: Sequence[float | str]) -> str:
    *first, last = (each if isinstance(each, str) else f"{each:,.10g}" for each in values)
    return f"{', '.join(first)} and {last}" if first else last


def _of_attack(read: Read) -> Read:
    """Leave out cells that nobody attacks."""
    return lambda config: None if config.client.attacked_by == "none" else read(config)


def _rate_of_all(config: ExperimentConfig) -> float | None:
    """Return the paper's rate in percent; its data sets are balanced."""
    attack = config.client.attack
    return attack and round(100 * attack.DPR / source_of(config).num_classes, 2)


def _distilling(name: str) -> Read:
    def read(config: ExperimentConfig) -> float | None:
        args = config.server.defense.defense_args
        return getattr(args, name) if isinstance(args, StudentArgs) and args.K > 0 else None

    return read


def _split(config: ExperimentConfig) -> str:
    client = config.client
    return "IID" if client.IID else f"Dirichlet (alpha {client.dirichlet_alpha:g})"


def _malicious(config: ExperimentConfig) -> float:
    federation = config.federation
    return round(100 * federation.number_of_malicious_clients / federation.size, 2)


_DPR = "DPR {} % of all samples of a malicious client"
_FIELD_DPR = "field DPR {}"
_RATES = (_DPR, _FIELD_DPR)

_FACTS: Mapping[str, Read] = {
    "lr {}": lambda config: config.client.lr,
    "batch size {}": lambda config: config.client.batch_size,
    "epochs {}": lambda config: config.client.num_epochs,
    "split {}": _split,
    "N = {} clients": lambda config: config.federation.size,
    "{} a round": lambda config: config.federation.round_size,
    "{} rounds": lambda config: config.federation.rounds,
    "attack {}": _of_attack(lambda config: config.client.attacked_by),
    "MCR {} %": _of_attack(_malicious),
    _DPR: _of_attack(_rate_of_all),
    _FIELD_DPR: _of_attack(lambda config: config.client.attack and config.client.attack.DPR),
    "K = {}": _distilling("K"),
    "budget {} queries a distillation": _distilling("budget"),
}
"""Settings in the order in which they are named."""
