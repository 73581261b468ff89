"""The server of a Flower federation, with the defense of an experiment."""

import logging
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result

from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.deployment.secret import server_secret
from entity.engine.allocator import keep_pages
from entity.engine.local_training import threads
from entity.flower.arrays import ArrayLayout, to_arrays
from entity.flower.round_report import OnRound
from entity.flower.run_config import RunConfig, experiment, run_config
from entity.flower.strategy import RobustStrategy
from entity.setup.assembly import assemble, initial_state

log = logging.getLogger("entity")


def server_app(path: Path) -> ServerApp:
    """Return the server app of an experiment, given as for `drop run --config`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        _log_with_flower()
        serve(grid, context, path)

    return app


def serve(
    grid: Grid, context: Context, path: Path, on_round: OnRound = lambda report: None
) -> Result:
    """Run the federation to its end.

    After every round the global model is judged on the data set's test images, which no defense
    sees: MTA and, where the experiment has an attack, ASR.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.
    context
        Holds the run config.
    path
        File of the experiment.
    on_round
        Called with the report of every round.

    Raises
    ------
    ConfigError
        If the experiment or the run config is not allowed.
    """
    keep_pages()
    options = run_config(context.run_config)
    config = experiment(path, context.run_config)
    with threads(config.settings.num_threads):
        return _serve(grid, config, options, on_round)


def _serve(grid: Grid, config: ExperimentConfig, options: RunConfig, on_round: OnRound) -> Result:
    secret = server_secret(user_path(options.secret)) if options.secret else b""
    world = assemble(config, secret)
    spec = world.roster.spec
    start = to_arrays(spec, initial_state(config, world.roster, world.server))
    layout = ArrayLayout.of(spec, start)

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        scores = world.judge(world.model(layout.read(arrays, layout.empty())))
        return MetricRecord({k: v for k, v in scores.items() if v == v})

    strategy = RobustStrategy(
        world.server,
        nodes_per_round=config.federation.round_size,
        min_nodes=options.min_nodes or None,
        min_survivors=options.min_survivors,
        trust_sample_counts=options.trust_sample_counts,
        state_folder=options.state or None,
        metrics_file=options.metrics or None,
        on_round=on_round,
    )
    return strategy.start(
        grid,
        start,
        num_rounds=config.federation.rounds,
        timeout=options.timeout,
        evaluate_fn=judged,
    )


def _log_with_flower() -> None:
    """Send this project's log to the handlers of Flower's."""
    if not log.handlers:
        for handler in logging.getLogger("flwr").handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


__all__ = ["serve", "server_app"]
