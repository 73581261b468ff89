"""What a field needs in order to do anything: the one table of fields that others make idle.

A field that is not listed here always has an effect. What is listed is refused by `effect` where
it is given by name while a need of it is not met, and is left out of what tells runs apart. Every
value stays valid in a file, which may be extended by one that meets the need.

Defaults that leave something off (null, false and 0) ask for nothing, and so need nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import NEVER
from entity.config.schema import show
from entity.dataset import DATASETS
from entity.defenses import DEFENSES
from entity.distill.settings import StudentArgs
from entity.models import ALIASES, MODELS
from entity.models.user_model import Make
from entity.server import Server
from entity.setup.field_list import ARGS, ATTACK

Values = Mapping[str, Any]
"""The fields of an experiment by their dotted paths, as `schema.flatten` gives them."""


@dataclass(frozen=True)
class Need:
    """A value that another field must have."""

    path: str
    met_by: Callable[[Any], bool]
    mend: str
    """What meets it, in words."""

    def __call__(self, values: Values) -> bool:
        """Say whether it is met; it is where nothing is known, as in the record of a damaged run.

        Examples
        --------
        >>> split = Need("client.IID", lambda value: value is False, "client.IID = false")
        >>> split({"client.IID": True}), split({"client.IID": False}), split({})
        (False, True, True)
        """
        if self.path and self.path not in values:
            return True
        try:
            return bool(self.met_by(values.get(self.path)))
        except (TypeError, ValueError):
            return True


@dataclass(frozen=True)
class Either:
    """Any one of several lists of needs, each met as a whole."""

    ways: tuple[tuple["Need | Either", ...], ...]

    def missing(self, values: Values) -> list[list[Need]]:
        """Return the ways to meet it that ask for the fewest changes, as what they still lack."""
        ways = [lacking for way in self.ways for lacking in _lacking(way, values)]
        fewest = min(map(len, ways))
        return [way for way in ways if len(way) == fewest]

    def __call__(self, values: Values) -> bool:
        """Say whether it is met."""
        return any(all(need(values) for need in way) for way in self.ways)


Needs = tuple[Need | Either, ...]
"""All of them must be met."""


def _lacking(needs: Needs, values: Values) -> list[list[Need]]:
    """Return the lists of needs, any one of which is all that is not met yet.

    A field that is not there, such as a setting of another data poison, has to be given, too.
    """
    found: list[list[Need]] = [[]]
    for need in needs:
        if isinstance(need, Either):
            found = [[*one, *other] for one in found for other in need.missing(values)]
        elif need.path not in values or not need(values):
            found = [[*one, need] for one in found]
    return found


def mend_of(need: Need | Either, values: Values) -> str:
    """Return what still has to be given so that a need is met, by the shortest ways, in words.

    Examples
    --------
    >>> both = (is_("client.IID", False), is_("client.partition", "shards"))
    >>> either = Either((both, (is_("norm", "group"), is_("model", "vit"), is_("seed", 1))))
    >>> mend_of(either, {"client.IID": False, "client.partition": "quantity"})
    'client.partition = shards'
    """
    if isinstance(need, Need):
        return need.mend
    ways = need.missing(values)
    return " or ".join(" and ".join(one.mend for one in way) for way in ways)


def is_(path: str, *allowed: object) -> Need:
    """Need one of some values."""
    words = " or ".join(value if isinstance(value, str) else show(value) for value in allowed)
    return Need(path, lambda value: value in allowed, f"{path} = {words}")


def is_not(path: str, value: object, words: str) -> Need:
    """Need another value than one.

    Parameters
    ----------
    path
        The field.
    value
        What it must not be.
    words
        What it may be, after the field's name: `above 0`.
    """
    return Need(path, lambda found: found != value, f"{path} {words}")


def above(path: str, bound: float) -> Need:
    """Need a number above a bound."""
    return Need(path, lambda value: value > bound, f"{path} above {bound:g}")


def _arg(name: str) -> str:
    return f"{ARGS}.{name}"


def _of_attack(name: str) -> str:
    return f"{ATTACK}.{name}"


def _has_batch_norm(model: str) -> bool:
    """Say whether a classifier has BatchNorm; a user's own may always have it."""
    entry = MODELS.get(ALIASES.get(model, model))
    return entry is None or entry.own or _has_buffers(entry.make)


@cache
def _has_buffers(make: Make) -> bool:
    with torch.device("meta"):  # no memory, no random numbers
        return next(make(3, 32, 10).buffers(), None) is not None


def _is_augmented(dataset: str) -> bool:
    return dataset not in DATASETS or DATASETS[dataset].augmentation is not None


def _asks_for_votes(entry: type[Server[Any]]) -> bool:
    return entry.needs(entry.hyperparameters()).client_votes


NOTHING = Need("", lambda value: False, "")
"""Met by nothing: the field is there for the original's files."""

ATTACKED = Need(ATTACK, lambda value: value is not None, f"an attack ({ATTACK}.type)")
ATTACKERS = (ATTACKED, above("federation.number_of_malicious_clients", 0))
POISONERS = (
    *ATTACKERS,
    Need(
        _of_attack("participation_strategy"),
        lambda strategy: strategy != NEVER,
        f"{ATTACK}.participation_strategy = consistent or after_convergence",
    ),
)
_POISONED = Need(
    _of_attack("type"),
    lambda name: name not in ATTACKS or ATTACKS[name].needs_samples,
    f"{ATTACK}.type = an attack that trains on poisoned data",
)
_BATCHES = Need(
    _of_attack("type"),
    lambda name: name != "three_dfed",
    f"{ATTACK}.type = another attack: 3DFed pairs clean and poisoned batches itself",
)
_NON_IID = is_("client.IID", False)
_OPTIMISER = "server.optimiser"
_PRIVATE = is_not("client.dp_clip", None, "set")
_WINDOW = is_(_of_attack("participation_strategy"), "after_convergence")
_STAMPED = Either(
    (
        (is_(_of_attack("poison"), "pixel"),),
        (is_(_of_attack("poison"), "dba"), is_(_of_attack("dba_trigger"), "pattern")),
        (is_(_of_attack("poison"), "blended"), is_(_of_attack("blend_with"), "pattern")),
    )
)
_IN_A_CORNER = Either(
    (
        (is_(_of_attack("poison"), "dba"), is_(_of_attack("dba_trigger"), "bars")),
        (
            _STAMPED,
            Need(
                _of_attack("trigger_pattern"),
                lambda pattern: pattern in ("1pixel", "4pixel"),
                f"{ATTACK}.trigger_pattern = 1pixel or 4pixel",
            ),
        ),
    )
)
_BATCH_NORM = Need("model", _has_batch_norm, "model = one that has BatchNorm")
_AUGMENTED = Need("dataset", _is_augmented, "dataset = one that is augmented")
_WEIGHED = Need(
    "server.defense.type",
    lambda name: name not in UNWEIGHTED,
    "server.defense.type = one that averages clients",
)

_VOTES = Need(
    "server.defense.type",
    lambda name: name not in DEFENSES or _asks_for_votes(DEFENSES[name]),
    "server.defense.type = one in which clients vote (crowdguard)",
)

UNWEIGHTED = frozenset(
    {
        *("bulyan", "flare", "fldetector", "fltrust", "foolsgold", "krum", "median"),
        *("random_aggregation", "trimmed_mean"),
    }
)
"""Defenses that weigh clients by a rule of their own, or do not weigh them."""

FIELDS: dict[str, Needs] = {
    "client.partition": (_NON_IID,),
    "client.dirichlet_alpha": (
        _NON_IID,
        is_("client.partition", "dirichlet_class", "dirichlet_client", "drop_noniid", "quantity"),
    ),
    "client.shards_per_client": (_NON_IID, is_("client.partition", "shards")),
    "client.min_samples": (_NON_IID,),
    "client.dp_noise": (_PRIVATE,),
    "client.dp_unit": (_PRIVATE,),
    "client.batchwise_poison": (*POISONERS, _POISONED, _BATCHES),
    "client.transform": (_AUGMENTED,),
    "client.amp_enabled_only_for_clean": (is_("client.amp_enabled", True), *POISONERS),
    "client.attack.target_class": (ATTACKED,),
    "client.attack.false_votes": (*POISONERS, _VOTES),
    "client.attack.victim_class": (ATTACKED,),
    "client.attack.poison": (ATTACKED,),
    "client.attack.DPR": (
        *POISONERS,
        Either(((_POISONED,), (is_(_of_attack("non_iid_equal_distribution"), True),))),
    ),
    "client.attack.trigger_pattern": (ATTACKED, _STAMPED),
    "client.attack.trigger_position": (ATTACKED, _IN_A_CORNER),
    "client.attack.non_iid_equal_distribution": POISONERS,
    "client.attack.participation_strategy": ATTACKERS,
    "client.attack.poisoning_start_round": (*ATTACKERS, _WINDOW),
    "client.attack.poisoning_end_round": (*ATTACKERS, _WINDOW),
    "client.attack.poisoning_every": POISONERS,
    "server.weighting": (_WEIGHED,),
    "server.bn_policy": (_BATCH_NORM, is_("norm", "batch")),
    "server.optimiser_beta1": (is_(_OPTIMISER, "fedavgm", "fedadam", "fedyogi"),),
    "server.optimiser_beta2": (is_(_OPTIMISER, "fedadam", "fedyogi"),),
    "server.optimiser_tau": (is_(_OPTIMISER, "fedadam", "fedyogi"),),
    "server.optimiser_nesterov": (is_(_OPTIMISER, "fedavgm"),),
    "server.gpu_poor": (NOTHING,),
    "federation.number_of_malicious_clients": (ATTACKED,),
    "federation.malicious_client_strategy": ATTACKERS,
    "settings.ray_address": (is_("settings.engine", "ray"),),
    "settings.workers": (is_("settings.engine", "auto", "pool", "ray"),),
    "settings.num_parallel_max": (is_("settings.engine", "auto", "pool", "ray", "vectorized"),),
    "settings.parallel_client_training": (is_("settings.engine", "auto"),),
    "settings.flush_print": (NOTHING,),
    "norm": (_BATCH_NORM,),
}
"""Fields that every experiment has."""

_SCALED: dict[str, Needs] = {"replace_server_lr": (is_(_of_attack("gamma"), "replace"),)}
_UNBOUND = is_(_of_attack("norm_bound"), None)
_UNLEARNS = above(_of_attack("a3fl_lambda"), 0)

OF_ATTACKS: dict[str, dict[str, Needs]] = {
    "chameleon": {
        "poisoned_projection_norm": (is_(_of_attack("poisoned_is_projection_grad"), True),),
        "malicious_lr_gamma": (
            is_not(_of_attack("malicious_milestones"), [], "with an epoch at least"),
        ),
    },
    "constrain_and_scale": {
        "anomaly": (is_not(_of_attack("alpha"), 1.0, "below 1"),),
        "gamma": (_UNBOUND,),
        "replace_server_lr": (_UNBOUND, *_SCALED["replace_server_lr"]),
    },
    "fang": {
        "fang_b": (
            is_(_of_attack("fang_rule"), "trimmed_mean", "median"),
            is_(_of_attack("knowledge"), "omniscient"),
        ),
        "fang_epsilon": (is_(_of_attack("fang_rule"), "krum"),),
    },
    "model_replacement": _SCALED,
    "pgd": _SCALED,
}
"""Fields of one attack, beside that there must be attackers."""

OF_POISONS: dict[str, dict[str, Needs]] = {
    "a3fl": dict.fromkeys(
        ("a3fl_unlearn_every", "a3fl_unlearn_epochs", "a3fl_unlearn_lr"), (_UNLEARNS,)
    ),
}
"""Fields of one data poison, beside that there must be an attack."""

_FILTERS = is_(_arg("client_cluster_filtering"), True)
_CLUSTERING: dict[str, Needs] = {
    **dict.fromkeys(("penalty", "reward", "blacklist_threshold", "reference_model"), (_FILTERS,)),
    "min_separation": (_FILTERS, is_(_arg("reference_model"), False)),
}
_DISTILS = is_not(_arg("K"), -1, "at least 1")
_MAZE = is_(_arg("stealing_method"), "maze")
_CRITIC = (_MAZE, above(_arg("alpha_gan"), 0))
_FINETUNES = is_(_arg("finetune"), True)
_STOPS_EARLY = is_(_arg("early_stopping"), True)
_FROM_GLOBAL = _arg("clone_init_with_global")
_DISTILLATION: dict[str, Needs] = {
    "budget": (is_(_arg("distill_iters"), None),),
    "num_seed": (Either((_CRITIC, (_FINETUNES,))),),
    **dict.fromkeys(
        ("model_dis", "dis_width", "num_repeat_real", "lambda1", "iter_dis", "lr_dis"), _CRITIC
    ),
    "random_weight_D": _CRITIC,
    "augment": (*_CRITIC, _AUGMENTED),
    **dict.fromkeys(("loss_type", "alpha_gan", "iter_exp", "replay_capacity"), (_MAZE,)),
    "temperature": (_MAZE, is_(_arg("loss_type"), "kl_div")),
    "cycles": (
        Either(((is_(_arg("lr_scheduler"), "cosine"),), (is_not(_arg("plateau"), None, "set"),))),
    ),
    "plateau": (above(_arg("cycles"), 1),),
    "frac_recover_acc": (_STOPS_EARLY,),
    "log_iter": (_STOPS_EARLY,),
    "teacher_reduce": (is_(_arg("ensemble"), True),),
    "random_S_alpha": (is_(_FROM_GLOBAL, True),),
    "random_weight_S": (is_(_FROM_GLOBAL, False),),
    "finetune_lr": (_FINETUNES,),
    "finetune_epochs": (_FINETUNES,),
    "reschedule": (above(_arg("K"), 1),),
    "disable_pbar": (NOTHING,),
}
_TUNES = above(_arg("epochs"), 0)
_LOOKS = is_not(_arg("coalition"), None, "set")

OF_DEFENSES: dict[str, dict[str, Needs]] = {
    "droplet": _CLUSTERING,
    "drop": {
        **_CLUSTERING,
        **{
            name: (_DISTILS, *_DISTILLATION.get(name, ()))
            for name in schema.hints(StudentArgs)
            if name not in ("K", "disable_pbar")
        },
        "disable_pbar": (NOTHING,),
    },
    "drop_plus": {
        **dict.fromkeys(("effect", "patience", "clearly", "memory"), (_LOOKS,)),
        "classes": (_LOOKS, is_not(_arg("effect"), None, "set")),
    },
    "trimmed_mean": {"f": (is_(_arg("beta"), None),)},
    "crfl": {
        "final_round": (above(_arg("sigma"), 0),),
        "certified_images": (above(_arg("sigma"), 0),),
        "certified_votes": (above(_arg("sigma"), 0), above(_arg("certified_images"), 0)),
    },
    "finetuning": {
        **dict.fromkeys(("lr", "momentum", "weight_decay", "batch_size"), (_TUNES,)),
        **dict.fromkeys(("num_seed", "every", "final_round"), (_TUNES,)),
        "augment": (_TUNES, _AUGMENTED),
    },
    "fltrust": {"augment": (_AUGMENTED,)},
    "fldetector": {"restart": (is_(_arg("removal"), "for_good"),)},
}
"""Settings of one defense."""
