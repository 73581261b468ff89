"""The project's defenses as a strategy of Flower, and its clients as a Flower app.

    from entity.flower import RobustStrategy
    strategy = RobustStrategy(server, min_survivors=3, state_folder="state")
    strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=50)

Any defense of `entity.defenses` is such a server, unchanged.
"""

from importlib.util import find_spec

from entity.config.schema import ConfigError

if find_spec("flwr") is None:
    raise ConfigError("entity.flower: needs Flower; pip install -e '.[flower]'.")

from entity.flower.arrays import ArrayLayout, Malformed
from entity.flower.round_report import RoundReport
from entity.flower.strategy import RobustStrategy

__all__ = ["ArrayLayout", "Malformed", "RobustStrategy", "RoundReport"]
