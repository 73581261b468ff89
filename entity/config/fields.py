"""The schema of an experiment.

The tables and names are those of the original DROP code, so a configuration written for it loads
here. The fields of one attack, data poison or defense alone are declared beside its algorithm
(`attacks/`, `poisons/`, `defenses/`), and `setup/resolve.py` reads them.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from entity.config.field_help import show_fields
from entity.config.schema import Count, Fraction, NonNegative, Positive, Range, Whole

NEVER = "never"
"""Strategy of attackers that poison in no round: what is left of the attack is how it is judged."""

FalseVotes = Literal["accept", "invert", "split", "none"]
"""How malicious clients vote."""


@dataclass(frozen=True)
class AttackConfig:
    """What the malicious clients do. Fields of one attack alone stand beside these in JSON."""

    type: str
    """Attack: how malicious clients train and what they send; see `drop list attacks`."""
    target_class: Whole
    """Class that triggered images should be sent to."""
    DPR: Fraction = 0.5
    """Data poisoning ratio: share of a malicious client's victim-class samples that is poisoned.

    With `victim_class` null, the share of all its samples that are not of the target class. The
    rate of DROP's paper is of all clean samples: this one divided by the number of balanced
    classes, 0.125 for 1.25 % with ten.
    """
    victim_class: Whole | None = None
    """Class whose triggered images are attacked; null attacks all but the target class."""
    poison: str = "pixel"
    """Data poison: what is done to the poisoned samples; combines freely with `type`."""
    trigger_pattern: str | tuple[tuple[int, ...], ...] = "4pixel"
    """1pixel, 4pixel, an image file, or a list of pixels [row, col] or [row, col, value...]."""
    trigger_position: Literal["top_left", "top_right", "bottom_left", "bottom_right"] = "top_left"
    """Corner that a named pattern sits in."""
    non_iid_equal_distribution: bool = False
    """Pool the malicious clients' poisoned samples and share them out evenly among them."""
    participation_strategy: Literal["consistent", "after_convergence", "never"] = "consistent"
    """Poison in every round, only inside the window of the next two fields, or never: the run
    without attack that the same trigger is judged on."""
    poisoning_start_round: Count | None = None
    """First round that is poisoned (after_convergence)."""
    poisoning_end_round: Count | None = None
    """First round that is no longer poisoned; null never stops (after_convergence)."""
    poisoning_every: Count = 1
    """Poison in one of so many rounds, from the first one on that may be poisoned; in the others
    malicious clients train as benign ones. 1 poisons all."""
    false_votes: FalseVotes = "accept"
    """What malicious clients say, in rounds that are poisoned, to a defense that lets clients vote
    on one another's models: all are benign; their own are and all others are not (invert); half of
    them that all are and half that none is (split); or what their clean data say (none)."""
    args: Any = None
    """The hyper-parameters of this attack, typed by the attack."""
    poison_args: Any = None
    """The hyper-parameters of this data poison, typed by it."""

    @property
    def takes_place(self) -> bool:
        """Whether any round may be poisoned."""
        return self.participation_strategy != NEVER


@dataclass(frozen=True)
class ClientConfig:
    """How every client holds its data and trains."""

    num_epochs: Count
    """Local epochs in a round."""
    lr: Positive
    """Learning rate of local SGD."""
    batch_size: Count
    """Samples in a local batch. The last one of a pass is smaller where it must be; a single sample
    that is left over sits this pass out, as BatchNorm cannot be trained on one."""
    IID: bool = True
    """Share the training data out evenly by class; otherwise by `partition`."""
    partition: Literal[
        "dirichlet_class", "dirichlet_client", "drop_noniid", "shards", "quantity", "natural"
    ] = "dirichlet_class"
    """How to split when not IID: each class over the clients (drop_noniid: as the original does,
    from equally much of every class); each client over the classes; shards of the samples sorted
    by class; all classes alike and only the sizes skewed; or as the data set has it (natural: each
    client is a writer of femnist).

    Equal alphas of these conventions are not comparable.
    """
    dirichlet_alpha: Annotated[float, Range(0, 1e9, above=True)] = 1.0
    """Concentration of the Dirichlet splits (all but shards); smaller is more skewed."""
    shards_per_client: Count = 2
    """Shards that a client gets (shards): the number of classes it holds, more or less."""
    min_samples: Count = 10
    """Fewest samples a client may get; a Dirichlet split is drawn anew until it holds, and natural
    clients with fewer are left out."""
    momentum: Fraction = 0.9
    """Momentum of local SGD."""
    weight_decay: NonNegative = 0.005
    """Weight decay of local SGD."""
    prox_mu: Annotated[float, Range(0, 1e30)] = 0.0
    """mu of FedProx: honest training minimises the loss plus mu/2 of the squared distance to the
    global model (paper: 0.001 to 1). Attackers train without while they poison."""
    dp_clip: Annotated[float, Range(1e-30, 1e30)] | None = None
    """Local differential privacy: largest norm of a sample's gradient, or of the update, in honest
    training; null for none. Attackers do as they like while they poison."""
    dp_noise: Annotated[float, Range(0, 1e6)] = 1.0
    """Its noise: the standard deviation, as a multiple of dp_clip."""
    dp_unit: Literal["sample", "update"] = "sample"
    """What it protects: samples, as clients train by DP-SGD, or the client, as its whole update is
    cut and noised."""
    batchwise_poison: bool = False
    """Put poisoned samples into every batch instead of wherever the shuffle puts them."""
    ADR: Fraction = 1.0
    """Share of the training data that is used at all."""
    transform: bool = True
    """Augment local batches as the data set prescribes; poisoned samples are left as they are."""
    amp_enabled: bool = False
    """Train in bfloat16 where the device gains from it."""
    amp_enabled_only_for_clean: bool = False
    """With amp_enabled, keep malicious clients in full precision."""
    attack: AttackConfig | None = None
    """The attack; null for a federation without one."""

    @property
    def attacked_by(self) -> str:
        """Name of the attack that takes place, or `none`."""
        return self.attack.type if self.attack and self.attack.takes_place else "none"


@dataclass(frozen=True)
class DefenseConfig:
    """The rule that turns updates into the next global model."""

    type: str = "undefended"
    """Defense; see `drop list defenses`. `maze` is the original's name of `drop`."""
    defense_args: Any = None
    """The hyper-parameters of this defense, typed by the defense."""
    pretrain: bool = False
    """Train the first global model on the server's clean data before round 1."""


@dataclass(frozen=True)
class ServerConfig:
    """The server around the defense."""

    server_lr: Positive = 1.0
    """Step from the old global model towards the aggregate; 1 takes the aggregate. With an
    `optimiser`, its rate: FedAdam and FedYogi move every weight by about as much in a round, and
    so want 0.001 to 0.1."""
    optimiser: Literal["none", "fedavgm", "fedadam", "fedyogi"] = "none"
    """What steps by the defense's answer: momentum (FedAvgM), FedAdam or FedYogi; none takes it."""
    optimiser_beta1: Annotated[float, Range(0, 0.9999)] = 0.9
    """What the optimiser's velocity, or first moment, keeps of itself in a round."""
    optimiser_beta2: Annotated[float, Range(0, 0.9999)] = 0.99
    """What the second moment of FedAdam and FedYogi keeps of itself."""
    optimiser_tau: Positive = 1e-3
    """Added to the root of their second moment; the larger, the less adaptive (papers: 1e-5 to
    0.1)."""
    optimiser_nesterov: bool = False
    """Nesterov's momentum in FedAvgM."""
    weighting: Literal["uniform", "samples"] = "uniform"
    """Weigh accepted clients alike, or by their registered numbers of samples."""
    bn_policy: Literal["auto", "median", "weighted", "keep", "recalibrate", "original"] = "auto"
    """BatchNorm statistics: the accepted clients' median; averaged with the clients' weights; left
    as they were; re-estimated on the server's clean data; or averaged as plain floats with the
    counters (original's code). Auto is the median, and weighted without a robust defense. FLTrust,
    FoolsGold and BackdoorIndicator, which need no majority, weigh it by the clients' weights."""
    low_confidence_threshold: Fraction | None = None
    """Reject test predictions with at most this confidence in the conditional metrics."""
    held_out: Whole | None = None
    """Clean samples the server holds, in no client's data, the same for every defense.

    Null takes the data set's own number.
    """
    gpu_poor: bool = False
    """Without effect, kept for the original's files: models are on the device while they train."""
    defense: DefenseConfig = field(default_factory=DefenseConfig)
    """The defense; null is undefended."""


@dataclass(frozen=True)
class FederationConfig:
    """Who takes part."""

    size: Count
    """N, clients in the federation."""
    number_of_malicious_clients: Whole = 0
    """How many of them are malicious."""
    round_size: Count = 10
    """n, clients selected for a round."""
    rounds: Count = 100
    """Number of rounds."""
    malicious_client_strategy: Literal["random", "enforced"] = "random"
    """Select uniformly, or with the federation's exact share of malicious clients each round."""


@dataclass(frozen=True)
class SettingsConfig:
    """How to run it.

    The seed and the number of threads change a result; so do the vectorized engine, `compile` and
    `streaming`, in its last bits. Nothing else here does.
    """

    seed: Whole = 42
    """Seed of every random number in the experiment."""
    cuda: int | Literal["mps"] = 0
    """Number of the CUDA device, or mps for Apple's; the CPU is used where there is none, or for
    -1."""
    engine: Literal["auto", "inline", "pool", "ray", "vectorized"] = "auto"
    """Where clients train: in this process, in worker processes, in Ray's actors, or stacked on
    one device; auto picks between the first two."""
    ray_address: str | None = None
    """Ray cluster to train on, as auto (the one of this machine) or host:port; null starts Ray on
    this machine for the run."""
    compile: bool = False
    """Compile the clients' model with torch.compile. The first step takes long; it pays for large
    models on a GPU."""
    streaming: bool = False
    """Aggregate each model as it comes instead of holding all models of a round, for defenses that
    can (`drop list defenses`)."""
    workers: Whole = 0
    """Worker processes of the pool, or actors of Ray; 0 takes one for each core."""
    num_threads: Annotated[int, Range(0, 1024)] = 0
    """Threads of the server's own computations; 0 takes one for each core, and is then recorded."""
    datasets_path: str = "data"
    """Folder that holds the data sets.

    The environment variable DROP_DATA goes before it, and `--data_root` before both.
    """
    eval_every: Count = 1
    """Evaluate every this many rounds, and in the last one."""
    checkpoint_every: Whole = 10
    """Rounds between checkpoints, from which `drop run --resume` goes on; with 0 there is one
    only when a run ends or is interrupted."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that get every round, from the record; each needs the extra of its name."""
    verbose: bool = True
    """Show progress."""
    flush_print: bool = True
    """Without effect, kept for the original's files: output is always flushed."""
    parallel_client_training: bool = False
    """True asks for the pool engine, as in the original's files."""
    num_parallel_max: Count = 16
    """Most worker processes or actors that are started, and clients that are stacked."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment."""

    dataset: str
    """Data set; see `drop list datasets`. `imagefolder:NAME` is a folder of your own images."""
    model: str
    """Classifier; see `drop list models`."""
    client: ClientConfig
    federation: FederationConfig
    image_size: Count | None = None
    """Height and width of an imagefolder's images, which are stretched to it; null takes their
    own. Other data sets have theirs."""
    image_channels: Literal[1, 3] | None = None
    """1 makes an imagefolder's images grey, 3 RGB; null takes what the first image has."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation of the model's convolutions; group has GroupNorm for every BatchNorm2d."""
    server: ServerConfig = field(default_factory=ServerConfig)
    settings: SettingsConfig = field(default_factory=SettingsConfig)
    name: str | None = None
    """Name of the run and its folder; null builds one from data set, defense, attack and seed."""
    initial: str | None = None
    """Model that the first round starts from: a .safetensors file of a `state_dict`, or the folder
    of a finished run; null draws it by the seed. The record has the file's hash."""
    plugins: tuple[str, ...] = ()
    """Python files (`my_defense.py`), folders of them (`my_methods/`) and modules that bring
    defenses, attacks, data poisons, data sets and models of your own. They are run. The command
    line and the environment variable DROP_PLUGINS add to them; the record has those that are used,
    with hashes."""


WITHOUT_EFFECT = (
    "server.gpu_poor",
    "server.defense.defense_args.disable_pbar",
    "settings.flush_print",
)
"""Fields that are accepted, without effect, because the original's files contain them: left out of
an experiment's identity."""

RUNTIME_SETTINGS = (
    "cuda",
    "engine",
    "ray_address",
    "workers",
    "datasets_path",
    "checkpoint_every",
    "trackers",
    "verbose",
    "parallel_client_training",
    "num_parallel_max",
)
"""Settings that say how to run an experiment, not which: left out of its identity."""

APPROXIMATE: dict[str, object] = {"engine": "vectorized", "compile": True, "streaming": True}
"""Settings that change a result in its last bits, at these values alone: only then are they a
part of an experiment's identity."""

OF_VECTORIZED = ("num_parallel_max",)
"""Settings that change last bits where clients are trained as one (`engine: vectorized`), and are a
part of an experiment's identity there."""

for _table in (
    AttackConfig,
    ClientConfig,
    DefenseConfig,
    ServerConfig,
    FederationConfig,
    SettingsConfig,
    ExperimentConfig,
):
    show_fields(_table)
