"""How long experiments take of which no finished run can tell, guessed by their model and data."""

from collections.abc import Sequence

from entity.config.fields import ExperimentConfig
from entity.sweep import core_hours, gpu_hours


def seconds(config: ExperimentConfig) -> float | None:
    """Guess the seconds of an experiment, of a GPU or of one core; None where nothing is known."""
    hours = gpu_hours.gpu_hours(config) if for_gpu(config) else core_hours.core_hours(config)
    return None if hours is None else 3600 * hours


def for_gpu(config: ExperimentConfig) -> bool:
    """Say whether the hours of an experiment are those of a GPU."""
    return config.model in gpu_hours.MODELS


def guess(configs: Sequence[ExperimentConfig]) -> tuple[str, list[ExperimentConfig]]:
    """Say how long some experiments may take, and which defense takes most of it.

    Returns
    -------
    tuple[str, list[ExperimentConfig]]
        The text, empty if nothing is known, and the experiments that it leaves out.
    """
    on = {True: dict[str, float](), False: dict[str, float]()}
    left: list[ExperimentConfig] = []
    for config in configs:
        if (found := seconds(config)) is None:
            left.append(config)
        else:
            hours, defense = on[for_gpu(config)], config.server.defense.type
            hours[defense] = hours.get(defense, 0.0) + found / 3600
    parts: list[str] = []
    for hours, said in ((on[True], gpu_hours), (on[False], core_hours)):
        if hours:
            most, total = max(hours, key=hours.__getitem__), said.shown(sum(hours.values()))
            longest = said.shown(hours[most]).removesuffix(total[total.index(" ") :])
            of_it = f", {longest} of them {most}'s" if len(hours) > 1 else ""
            parts.append(f"about {total}{of_it}: {said.BASIS}")
    return "; and ".join(parts), left
