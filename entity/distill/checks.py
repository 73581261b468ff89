"""Refuses settings with which nothing can be distilled."""

from entity.config.schema import ConfigError, unknown
from entity.distill.settings import StudentArgs
from entity.models import CRITICS, GENERATORS
from entity.models.critics import SMALLEST
from entity.server import Setting

_WHERE = "server.defense.defense_args"


def check_distillation(args: StudentArgs, setting: Setting) -> None:
    """Refuse settings that cannot distil in this federation.

    Raises
    ------
    ConfigError
        With the field, its value and the way out.
    """
    if args.K == 0 or args.K < -1:
        raise ConfigError(f"{_WHERE}.K = {args.K}: allowed is -1 (never) or at least 1.")
    for name, known in (("model_gen", GENERATORS), ("model_dis", CRITICS)):
        value = getattr(args, name)
        if value not in known:
            raise ConfigError(unknown(f"{_WHERE}.{name} {value}", value, known))
    if args.K != -1:
        _check_images(args, setting)
        _check_steps(args)
        _check_clean_data(args, setting)


def _check_images(args: StudentArgs, setting: Setting) -> None:
    size = setting.image[1]
    if size % 4:
        raise ConfigError(
            f"{_WHERE}.model_gen = {args.model_gen}: generates sizes that are a multiple of 4, "
            f"the data set has {size}; choose another, or set K to -1 (DROPlet)."
        )
    if args.uses_critic and size < SMALLEST:
        raise ConfigError(
            f"{_WHERE}.model_dis = {args.model_dis}: needs images of at least {SMALLEST} "
            f"pixels, the data set has {size}; set alpha_gan to 0."
        )


def _check_steps(args: StudentArgs) -> None:
    if args.iterations_of(args.queries) < 1:
        raise ConfigError(
            f"{_WHERE}.budget = {args.budget:g}: is less than the {args.queries} queries of one "
            "iteration; raise it or lower batch_size."
        )
    if args.uses_critic and (args.iter_dis or 0) > args.iter_clone:
        raise ConfigError(
            f"{_WHERE}.iter_dis = {args.iter_dis}: the critic learns beside the student, at "
            f"most iter_clone = {args.iter_clone} times an iteration; lower it."
        )
    if args.opt == "adam" and args.cycles > 1:
        raise ConfigError(
            f"{_WHERE}.cycles = {args.cycles}: a cycle ends where the learning rate has fallen, "
            "and opt = adam keeps its rate; use sgd, or set cycles to 1 and plateau to null."
        )
    if args.plateau is not None and args.cycles == 1:
        raise ConfigError(
            f"{_WHERE}.plateau = {args.plateau:g}: is looked for between cycles, and there is "
            "one cycle; raise cycles to at least 2."
        )


def _check_clean_data(args: StudentArgs, setting: Setting) -> None:
    images = args.num_seed * args.num_repeat_real
    if args.seeds_used > setting.clean_samples:
        raise ConfigError(
            f"{_WHERE}.num_seed = {args.num_seed}: the server holds {setting.clean_samples} clean "
            "samples; lower it or raise server.held_out."
        )
    if args.uses_critic and images < args.batch_size:
        raise ConfigError(
            f"{_WHERE}.batch_size = {args.batch_size}: is more than num_seed x num_repeat_real = "
            f"{images}; lower it or raise one of those."
        )
    if args.early_stopping and setting.clean_samples <= args.seeds_used:
        raise ConfigError(
            f"{_WHERE}.early_stopping = true: is measured on held-out server data beside the "
            f"{args.seeds_used} of num_seed, and the server holds {setting.clean_samples} "
            "in all; raise server.held_out or lower num_seed."
        )
