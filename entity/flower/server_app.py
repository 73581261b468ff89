"""The server of a Flower federation, with the defense of an experiment."""

import logging
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result

from entity.engine.allocator import keep_pages
from entity.flower.arrays import to_arrays
from entity.flower.run_config import experiment, run_config
from entity.flower.strategy import OnRound, RobustStrategy
from entity.seeding import Seeds
from entity.setup.assembly import initial_state, open_judge, open_server, recruit

log = logging.getLogger("entity")


def server_app(path: Path) -> ServerApp:
    """Return the server app of an experiment, given as for `drop run --config`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        _speak()
        serve(grid, context, path)

    return app


def serve(
    grid: Grid, context: Context, path: Path, on_round: OnRound = lambda report: None
) -> Result:
    """Run the federation to its end.

    The global model is judged after every round on the data set's test images, MTA and, where the
    experiment has an attack, ASR. No defense sees them.

    Raises
    ------
    ConfigError
        If the experiment or the run config is not allowed.
    """
    keep_pages()
    config, options = experiment(path, context.run_config), run_config(context.run_config)
    split, roster = recruit(config, Seeds(config.settings.seed))
    server = open_server(config, split, roster)
    judge = open_judge(config, split, roster)
    start = to_arrays(roster.spec, initial_state(config, roster, server))
    model = roster.new_model()

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        scores = judge(model)
        return MetricRecord({k: v for k, v in scores.items() if v == v})

    strategy = RobustStrategy(
        server,
        nodes_per_round=config.federation.round_size,
        min_nodes=options.min_nodes or None,
        min_survivors=options.min_survivors,
        trust_sample_counts=options.trust_sample_counts,
        state_folder=options.state or None,
        on_round=on_round,
    )
    return strategy.start(
        grid,
        start,
        num_rounds=config.federation.rounds,
        timeout=options.timeout,
        evaluate_fn=judged,
    )


def _speak() -> None:
    """Let this project's log go where Flower's goes."""
    if not log.handlers:
        for handler in logging.getLogger("flwr").handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


__all__ = ["serve", "server_app"]
