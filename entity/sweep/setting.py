"""What the cells of a paper's table share, by name and value: its columns say what differs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from entity.config.fields import ExperimentConfig
from entity.dataset import source_of
from entity.distill.settings import StudentArgs
from entity.sweep.study import Study

Read = Callable[[ExperimentConfig], float | str | None]


def setting(study: Study, cells: Iterable[tuple[Mapping[str, str], ExperimentConfig]]) -> str:
    """Say what cells have in common, in a line: all of them, those attacked, those that distil.

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
    said = [f"The same in all cells: {'; '.join([*parts, *_shared(configs, _OF_ALL)])}."]
    for where, facts in (("attacked", _OF_ATTACKED), ("distilled", _OF_DISTILLED)):
        if shared := _shared(configs, facts):
            said.append(f"Where it is {where}: {'; '.join(shared)}.")
    return " ".join(said)


def _shared(configs: Sequence[ExperimentConfig], facts: Mapping[str, Read]) -> list[str]:
    parts = list[str]()
    for say, read in facts.items():
        found = _values(configs, read)
        if len(found) == 1 or (found and say in _RATES):
            parts.append(say.format(_listed(found)))
    return parts


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

_OF_ALL: Mapping[str, Read] = {
    "lr {}": lambda config: config.client.lr,
    "batch size {}": lambda config: config.client.batch_size,
    "epochs {}": lambda config: config.client.num_epochs,
    "split {}": _split,
    "N = {} clients": lambda config: config.federation.size,
    "{} a round": lambda config: config.federation.round_size,
    "{} rounds": lambda config: config.federation.rounds,
}
_OF_ATTACKED: Mapping[str, Read] = {
    "attack {}": _of_attack(lambda config: config.client.attacked_by),
    "MCR {} %": _of_attack(_malicious),
    _DPR: _of_attack(_rate_of_all),
    _FIELD_DPR: _of_attack(lambda config: config.client.attack and config.client.attack.DPR),
}
_OF_DISTILLED: Mapping[str, Read] = {
    "K = {}": _distilling("K"),
    "budget {} queries a distillation": _distilling("budget"),
}
"""Settings in the order in which they are named."""
