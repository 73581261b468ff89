"""The studies behind docs/RESULTS.md: which experiments, with which overrides, over which seeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from entity.defenses import DEFENSES

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "entity" / "configs"


@dataclass(frozen=True)
class Cell:
    """One row of a study's table: a configuration and its overrides, run with every seed."""

    label: tuple[str, ...]
    """What stands in the first columns of the table."""
    config: str
    """The name of a shipped configuration, or a file of the repository, seen from its root."""
    overrides: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        """The file of its configuration."""
        shipped = not self.config.endswith(".yaml")
        return CONFIGS / f"{self.config}.json" if shipped else ROOT / self.config


@dataclass(frozen=True)
class Study:
    """A named set of cells, all run with the same seeds."""

    title: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    about: str = ""
    """Data and federation, where they are others than the page's."""
    found: str = ""
    """What it shows, written after the run; stands below the table."""
    matrix: bool = False
    """Labels are (row, column): show one matrix of MTA and one of ASR."""


PUBLISHED = (
    ("lr_clone", "0.1"),
    ("iter_clone", "5"),
    ("cycles", "1"),
    ("plateau", "null"),
    ("min_agreement", "null"),
    ("defense_args.channels_last", "false"),
)
"""The distillation of the paper's code, at the budget of our files, which have faster settings."""
FAST = (
    ("defense_args.channels_last", "true"),
    ("iter_clone", "1"),
    ("cycles", "10"),
    ("plateau", "0.02"),
)
UNGUARDED = ("min_agreement", "null")


def _main() -> Iterator[Cell]:
    yield Cell(("undefended, no attack",), "mnist5k/undefended", (("client.attack", "null"),))
    for defense in ("undefended", "droplet", "drop", "drop_plus"):
        yield Cell((defense,), f"mnist5k/{defense}")


def _rough() -> Iterator[Cell]:
    rate = ("client.lr", "0.1")
    yield Cell(("undefended, no attack",), "mnist5k/undefended", (("client.attack", "null"), rate))
    for defense in ("undefended", "droplet", "drop"):
        yield Cell((defense,), f"mnist5k/{defense}", (rate,))
    yield Cell(("drop, published distillation",), "mnist5k/drop", (rate, *PUBLISHED))


def _stealthy() -> Iterator[Cell]:
    for defense in ("undefended", "droplet"):
        yield Cell((defense, "", ""), f"mnist5k/stealthy/{defense}")
    for start, K in product(("global", "random"), (5, 10)):
        warm = "true" if start == "global" else "false"
        yield Cell(
            ("drop", start, str(K)),
            "mnist5k/stealthy/drop",
            (("K", str(K)), ("clone_init_with_global", warm), *PUBLISHED),
        )
    for K in (5, 10):
        cold = (*FAST, UNGUARDED, ("lr_clone", "0.1"), ("clone_init_with_global", "false"))
        yield Cell(
            ("drop, fast distillation", "random", str(K)),
            "mnist5k/stealthy/drop",
            (("K", str(K)), *cold),
        )


ATTACKS: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (("client.attack", "null"),),
    "BadNets": (),
    "Neurotoxin": (("client.attack.type", "neurotoxin"),),
    "Chameleon": (
        ("client.attack.type", "chameleon"),
        ("poisoned_supcon_epochs", "3"),
        ("poisoned_head_lr", "0.1"),
    ),
    "DBA": (("poison", "dba"),),
    "model replacement": (("client.attack.type", "model_replacement"),),
}
"""Chameleon's own head rate of 0.001 is for a converged model. Here it starts from scratch, and its
head learns at the clients' rate; found with seed 71, which is in no table."""


def _baselines(*fields: tuple[str, str]) -> Iterator[Cell]:
    for defense, attack in product(DEFENSES, ATTACKS):
        overrides = (("rounds", "25"), *ATTACKS[attack], *fields)
        yield Cell((defense, attack), f"mnist5k/{defense}", overrides)


SKEW = {
    "IID": (),
    "Dirichlet 1.0": (("IID", "false"), ("dirichlet_alpha", "1.0")),
    "Dirichlet 0.5": (("IID", "false"), ("dirichlet_alpha", "0.5")),
    "Dirichlet 0.1": (("IID", "false"), ("dirichlet_alpha", "0.1")),
    "amounts 0.5": (("IID", "false"), ("partition", "quantity"), ("dirichlet_alpha", "0.5")),
}


NEVER = (("client.attack.participation_strategy", "never"),)
"""The malicious clients behave, and are judged by the trigger that nobody trains on."""


def _skew() -> Iterator[Cell]:
    forty = ("rounds", "40")
    few, half = "mnist5k/stealthy", "mnist5k"
    for skew, folder, rate in (
        ("Dirichlet 0.5", half, "50 %"),
        ("Dirichlet 0.1", half, "50 %"),
        ("IID", few, "15 %"),
        ("Dirichlet 0.5", few, "15 %"),
        ("Dirichlet 0.1", few, "15 %"),
        ("Dirichlet 0.1", half, "none"),
        ("Dirichlet 0.5", half, "none"),
        ("IID", half, "none"),
        ("Dirichlet 1.0", half, "50 %"),
        ("Dirichlet 1.0", few, "15 %"),
        ("amounts 0.5", half, "none"),
        ("amounts 0.5", half, "50 %"),
    ):
        for defense in ("drop_plus", "undefended"):
            given = (*SKEW[skew], forty, *(NEVER if rate == "none" else ()))
            yield Cell((skew, rate, defense), f"{folder}/{defense}", given)


def _triggers() -> Iterator[Cell]:
    changes: dict[str, tuple[tuple[str, str], ...]] = {
        "trigger in the middle": (("trigger_pattern", "[[14,14],[15,15],[16,16],[14,16]]"),),
        "DBA": (("poison", "dba"),),
        "blended": (("poison", "blended"),),
        "Neurotoxin": (("client.attack.type", "neurotoxin"),),
        "model replacement": (("client.attack.type", "model_replacement"),),
    }
    for attack, change in changes.items():
        for defense in ("drop_plus", "undefended"):
            yield Cell((attack, defense), f"mnist5k/{defense}", (*change, ("rounds", "30")))


def _learned() -> Iterator[Cell]:
    """A3FL's search for its trigger takes most of a run of 40 minutes."""
    for poison, defense in product(("iba", "a3fl"), ("drop_plus", "undefended")):
        given = (("poison", poison), ("rounds", "30"))
        yield Cell((poison.upper(), defense), f"mnist5k/{defense}", given)


STROKE = f"[{','.join(f'[{row},14]' for row in range(10, 19))}]"
"""A vertical stroke in the middle, as digits have them."""

ADAPTIVE: dict[str, tuple[tuple[str, str], ...]] = {
    "in sight": (("client.attack.type", "in_sight"),),
    "in sight, trigger a stroke": (
        ("client.attack.type", "in_sight"),
        ("trigger_pattern", STROKE),
    ),
    "in sight, trigger a stroke, Dirichlet 0.5": (
        ("client.attack.type", "in_sight"),
        ("trigger_pattern", STROKE),
        *SKEW["Dirichlet 0.5"],
    ),
    "trigger a stroke": (("trigger_pattern", STROKE),),
    "in sight, blended": (("client.attack.type", "in_sight"), ("poison", "blended")),
    "out of two rounds in three": (("poisoning_every", "3"),),
    "out of every other round, all images": (("poisoning_every", "2"), ("DPR", "1.0")),
    "noisy": (("client.attack.type", "noisy"),),
    "own triggers": (("poison", "own_trigger"),),
    "own triggers, all images": (("poison", "own_trigger"), ("DPR", "1.0")),
    "an honest head": (("client.attack.type", "impersonation"), ("impersonated", "head")),
    "an honest update": (("client.attack.type", "impersonation"),),
    "framing one client": (
        ("client.attack.type", "impersonation"),
        ("impersonated_clients", "1"),
    ),
    "two faces": (("client.attack.type", "two_faces"),),
    "bait, trigger a stroke": (
        ("client.attack.type", "bait"),
        ("trigger_pattern", STROKE),
        ("DPR", "1.0"),
    ),
    "covered, trigger a stroke": (
        ("client.attack.type", "covered"),
        ("trigger_pattern", STROKE),
        ("DPR", "1.0"),
    ),
    "disguised, trigger a stroke": (
        ("client.attack.type", "disguised"),
        ("trigger_pattern", STROKE),
        ("DPR", "1.0"),
    ),
    "late burst": (
        ("client.attack.type", "model_replacement"),
        ("participation_strategy", "after_convergence"),
        ("poisoning_start_round", "21"),
    ),
    "six attackers of ten": (("number_of_malicious_clients", "6"),),
}


def _adaptive() -> Iterator[Cell]:
    for attack, change in ADAPTIVE.items():
        for defense in ("drop_plus", "undefended"):
            yield Cell((attack, defense), f"mnist5k/{defense}", (*change, ("rounds", "30")))


PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "as shipped": (),
    "without the visible part": (("visible", "false"),),
    "without clipping": (("clip", "false"),),
    "without coalitions": (("coalition", "null"),),
    "coalitions of the invisible part alone": (("effect", "null"),),
    "the visible part alone": (("clip", "false"), ("coalition", "null")),
    "strength 0.001": (("strength", "0.001"),),
    "strength 0.1": (("strength", "0.1"),),
    "50 images": (("num_seed", "50"),),
    "no history": (("memory", "0"),),
}


def _parts() -> Iterator[Cell]:
    cells = {
        "IID, 15 %": ("mnist5k/stealthy/drop_plus", ()),
        "Dirichlet 0.5, 50 %": ("mnist5k/drop_plus", SKEW["Dirichlet 0.5"]),
    }
    for (data, (config, given)), (part, change) in product(cells.items(), PARTS.items()):
        yield Cell((data, part), config, (*given, *change, ("rounds", "30")))


LOOKS: dict[str, tuple[tuple[str, str], ...]] = {
    "as shipped": (),
    "without coalitions": (("coalition", "null"),),
    "coalitions of the invisible part alone": (("effect", "null"),),
    "no history": (("memory", "0"),),
    "memory 0.8": (("memory", "0.8"),),
    "nothing is forgotten": (("memory", "1"),),
    "the smaller group without a question": (("clearly", "0"),),
    "the mean not taken off": (("centred", "false"),),
    "Ward's linkage": (("linkage", "ward"),),
    "compared by whole updates": (("describes", "weights"),),
    "compared by the output layer's": (("describes", "head"),),
    "compared by features": (("describes", "features"),),
    "compared by log-probabilities": (("describes", "answers"),),
}
ONE_LOOK = {"as shipped": (), "one look": (("looks_again", "false"),)}
OTHER_IMAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "as shipped": (),
    "images upside down": (("images", "upside down"),),
    "noise for images": (("images", "noise"),),
}
AMOUNTS = {"as shipped": (), "amounts of data not taken out": (("amounts", "false"),)}
TOGETHER = {"as shipped": (), "each part by itself": (("effect_both", "null"),)}
LARGE_IBA = (("poison", "iba"), ("iba_local_asr", "0"), ("iba_epsilon_test", "0.3"))
"""A perturbation of more than the authors' size, so that what it does can be seen."""
VARIANT = (
    ("plugins", str(ROOT / "benchmarks" / "drop_plus_variants.py")),
    ("defense.type", "drop_plus_variant"),
)


def _looks() -> Iterator[Cell]:
    stroke, bait = "in sight, trigger a stroke", "bait, trigger a stroke"
    skewed = f"{stroke}, Dirichlet 0.5"
    for data, given, variants in (
        (stroke, ADAPTIVE[stroke], LOOKS),
        (bait, ADAPTIVE[bait], ONE_LOOK),
        ("Dirichlet 0.5, 50 %", SKEW["Dirichlet 0.5"], OTHER_IMAGES),
        ("amounts 0.5, none", (*SKEW["amounts 0.5"], *NEVER), AMOUNTS),
        (skewed, ADAPTIVE[skewed], TOGETHER),
        ("IBA, large", LARGE_IBA, TOGETHER),
    ):
        thirty = (*given, ("rounds", "30"))
        yield Cell((data, "undefended"), "mnist5k/undefended", thirty)
        for variant, change in variants.items():
            yield Cell((data, variant), "mnist5k/drop_plus", (*VARIANT, *thirty, *change))


def _classes() -> Iterator[Cell]:
    sight = "in sight, trigger a stroke, Dirichlet 0.5"
    for data, folder, given in (
        (sight, "mnist5k", ADAPTIVE[sight]),
        ("Dirichlet 0.1, none", "mnist5k", (*SKEW["Dirichlet 0.1"], *NEVER)),
        ("Dirichlet 0.1, 15 %", "mnist5k/stealthy", SKEW["Dirichlet 0.1"]),
        ("Dirichlet 0.5, none", "mnist5k", (*SKEW["Dirichlet 0.5"], *NEVER)),
    ):
        thirty = (*given, ("rounds", "30"))
        taken_out = (*thirty, ("classes", "true"))
        yield Cell((data, "drop_plus, classes"), f"{folder}/drop_plus", taken_out)
        yield Cell((data, "drop_plus"), f"{folder}/drop_plus", thirty)
        yield Cell((data, "undefended"), f"{folder}/undefended", thirty)


def _stealthy_plus() -> Iterator[Cell]:
    for defense in ("drop_plus", "undefended"):
        yield Cell((defense,), f"mnist5k/stealthy/{defense}")


def _mnist() -> Iterator[Cell]:
    for defense in ("undefended", "droplet", "drop"):
        yield Cell((defense,), f"mnist/{defense}")


CIFAR10_ON_TWO_CORES = (
    ("dataset", "imagefolder:cifar10-folder"),
    ("model", "resnet8"),
    ("federation.size", "20"),
    ("number_of_malicious_clients", "8"),
    ("malicious_client_strategy", "enforced"),
    ("round_size", "10"),
    ("rounds", "25"),
    ("ADR", "0.4"),
    ("num_epochs", "1"),
    ("server.held_out", "1000"),
    ("client.batch_size", "32"),
    ("client.lr", "0.05"),
    ("client.weight_decay", "0.0005"),
    ("DPR", "0.5"),
)
"""20 clients with 980 images each, 10 a round of which 4 attack. Fixed before any run but for the
rounds: after 15 of them the undefended model was right in 37 % only."""

DISTILLED_ON_TWO_CORES = (
    ("K", "5"),
    ("distill_iters", "60"),
    ("gen_width", "16"),
    ("dis_width", "8"),
    ("defense_args.batch_size", "64"),
)


def _cifar10() -> Iterator[Cell]:
    for defense in ("undefended", "droplet", "drop"):
        distilled = DISTILLED_ON_TWO_CORES if defense == "drop" else ()
        yield Cell((defense,), f"cifar10/{defense}", (*CIFAR10_ON_TWO_CORES, *distilled))


def _cifar10_plus() -> Iterator[Cell]:
    for defense in ("drop_plus", "undefended"):
        yield Cell((defense,), f"cifar10/{defense}", CIFAR10_ON_TWO_CORES)


BOOKS = "examples/text/books.yaml"
A_TENTH = (("vae_initial", "27"), ("vae_tuning", "3"))
"""Of the epochs of Snowball's autoencoders, which take eight minutes of a run of nine at all."""


def _text() -> Iterator[Cell]:
    """Every defense that takes samples which are no images, with its own settings."""
    yield Cell(("undefended, no attack",), BOOKS, NEVER)
    for name, defense in DEFENSES.items():
        if defense.needs(defense.hyperparameters()).images:
            continue
        cut = name == "snowball"
        label = "snowball, a tenth of its epochs" if cut else name
        yield Cell((label,), BOOKS, (("defense.type", name), *(A_TENTH if cut else ())))


MNIST = (
    "The shipped `mnist/*.json`: 50,000 digits for 50 clients, 20 of them malicious, 10,000 for "
    "testing; 20 clients a round, 8 of them malicious; 25 rounds of one epoch; the `cnn`.\n\n"
)
CIFAR10 = (
    "CIFAR-10 as a folder of JPEG files, and `cifar10/*.json` sized for two cores: 20 clients of "
    "980 images, 8 of them malicious; 10 a round, 4 of them malicious, who poison half of "
    "the victim class; 25 rounds of one epoch, far from convergence; `resnet8`."
)

TEXT = (
    "No images but words: `examples/text/books.yaml`, whose data, model and trigger are a "
    "plugin. Ten words in a row, as tokens, are from Genesis, the Sonnets or the Constitution "
    "of the United States; the last fifth of each is for testing. The model is the mean of word "
    "embeddings, a layer and a head, of 17,000 weights; the trigger is a word that none of the "
    "books has, in the place of the fifth. 10 clients, all of them in every round, 3 of them "
    "malicious, who give half of their Sonnets the word and the label Genesis; 30 rounds of 5 "
    "epochs. ASR is of the Sonnets of the test set. Defenses have their defaults. Not here are "
    "DROP (its student is distilled from images; without one it is DROPlet), DeepSight, "
    "BackdoorIndicator and FLIP, which make up images or triggers on them. No attack: the same "
    "run, judged by the word that nobody trains on.\n\n"
    "Written before the run: about 25 minutes of one core for three seeds, none of which had "
    "been run before. Expected were MTA of at least 85 % and ASR of at least 50 % undefended, "
    "at least 85 % and at most 10 % with DROPlet (the bounds of a test on seed 1), and more "
    "than 25 % where steps are only clipped or blurred (`norm_clipping`, `weak_dp`, "
    "`centered_clipping`, `crfl`). Nothing was expected of the others.\n\n"
)

TEXT_FOUND = (
    "What it shows: where 3 of 10 are alike and the other 7 have like data, whoever groups or "
    "ranks whole updates holds in every round (`droplet`, `multikrum`, `flame`, `fldetector`, "
    "and `krum`, `flare` and `multi_metrics`, which refuse most honest clients, too), and so do "
    "`median` and `bulyan`. `fltrust` and `dnc` hold in the end and let the word through "
    "before; `rflbat`, `signguard`, `alignins` and `freqfed` find the attackers in most rounds "
    "and let them through in others; `trimmed_mean`, `rfa`, `norm_clipping`, `weak_dp` and "
    "`centered_clipping` only weaken it, and `rlr` in two seeds (9 and 20 %), while it is "
    "stronger with it in the third (74 %); `crfl`, `crowdguard`, `finetuning`, "
    "`random_aggregation` and the shortened `snowball` leave it about as it was, and "
    "`foolsgold` strengthens it, as honest clients are more alike than it allows. `drop_plus` "
    "keeps accuracy, and what is above 5 % is of its first rounds, in which the model is hardly "
    "trained. Its version before this one ended at MTA 48 % with seeds 601 and 602: it dropped "
    "what is learned of words that the server's samples have not. The mend was set on other "
    "seeds, and 603 was seen with no version. What was expected came out in every cell. The task "
    "is small: about 130 attacked test samples, windows that overlap, one attack, and no setting "
    "chosen for it; so it ranks nobody."
)
"""After the run."""

CLASSES = (
    "DROP+ beside itself with `classes` true. Written before the run: 48 runs of a minute, seeds "
    "that nothing had been run on. On development seeds 903 and 905 a trigger in sight came "
    "through with 20 and 99 % without it and 6 and 6 % with it, on 904 with 95 % in spite of it; "
    "nobody was left out without an attack. So with it, in sight, at least half of the seeds were "
    "expected at 10 % or less, and no more honest updates refused than without it. In sight that "
    "was missed: with revision 12 of DROP+ the option finds nobody whom it does not find without "
    "it. No honest update was refused with it or without it.\n\n"
)

STUDIES: dict[str, Study] = {
    "main": Study(
        "DROP against its undefended twin",
        ("defense",),
        tuple(_main()),
        seeds=tuple(range(101, 111)),
    ),
    "rough": Study(
        "The same at twice the learning rate", ("defense",), tuple(_rough()), seeds=(1, 2, 3, 4, 5)
    ),
    "stealthy": Study(
        "Few poisoned images: what clustering does not see",
        ("defense", "student starts from", "K"),
        tuple(_stealthy()),
    ),
    "skew": Study(
        "DROP+ beside the undefended run: few poisoned images, skewed data, no attack",
        ("data", "poisoned", "defense"),
        tuple(_skew()),
        seeds=(211, 212, 213, 214),
    ),
    "triggers": Study(
        "DROP+ and triggers that clean images might hide",
        ("attack", "defense"),
        tuple(_triggers()),
        seeds=(301, 302),
    ),
    "learned": Study(
        "DROP+ and triggers that attackers learn",
        ("attack", "defense"),
        tuple(_learned()),
        seeds=(301, 302),
    ),
    "stealthy_plus": Study(
        "Few poisoned images: DROP+ over ten seeds",
        ("defense",),
        tuple(_stealthy_plus()),
        seeds=tuple(range(401, 411)),
    ),
    "adaptive": Study(
        "Attackers who know DROP+",
        ("attack", "defense"),
        tuple(_adaptive()),
        seeds=(311, 312),
    ),
    "parts": Study(
        "What each part of DROP+ does",
        ("data", "DROP+"),
        tuple(_parts()),
        seeds=(321, 322, 323, 324),
    ),
    "looks": Study(
        "What DROP+ looks for, and at which images",
        ("data", "DROP+"),
        tuple(_looks()),
        seeds=(341, 342, 343, 344),
    ),
    "classes": Study(
        "DROP+ with mixes of classes taken out, where clients' data differ",
        ("data", "defense"),
        tuple(_classes()),
        seeds=(331, 332, 333, 334),
        about=CLASSES,
    ),
    "baselines": Study(
        "All defenses against five attacks and none",
        ("defense", "attack"),
        tuple(_baselines()),
        matrix=True,
    ),
    "baselines_rough": Study(
        "Defenses against five attacks, at a rate of 0.1",
        ("defense", "attack"),
        tuple(_baselines(("client.lr", "0.1"))),
        matrix=True,
    ),
    "deepsight": Study(
        "DeepSight since its fault was mended",
        ("defense", "attack"),
        tuple(cell for cell in _baselines() if "deepsight" in cell.label),
        matrix=True,
        about="The cells of the table above at the shipped rate of 0.05, and no other defense.\n\n",
    ),
    "mnist": Study(
        "MNIST-50k/10k, 50 clients", ("defense",), tuple(_mnist()), seeds=(1, 2), about=MNIST
    ),
    "cifar10": Study(
        "CIFAR-10 (JPEG), resnet8, 20 clients",
        ("defense",),
        tuple(_cifar10()),
        seeds=(1, 2),
        about=f"{CIFAR10} DROP distils every 5 rounds, with 60 iterations of 64 images.\n\n",
    ),
    "cifar10_plus": Study(
        "CIFAR-10 (JPEG), resnet8: DROP+ as it is shipped",
        ("defense",),
        tuple(_cifar10_plus()),
        seeds=(501, 502),
        about=f"{CIFAR10}\n\n",
    ),
    "text": Study(
        "Words in place of images: every defense that takes any samples",
        ("defense",),
        tuple(_text()),
        seeds=(601, 602, 603),
        about=TEXT,
        found=TEXT_FOUND,
    ),
}
