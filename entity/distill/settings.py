"""Settings of a distillation, and of what the server does with its student."""

from dataclasses import dataclass
from typing import Literal

from entity.config.schema import Count, Fraction, NonNegative, Positive, Whole
from entity.distill.ensemble import Norm, Reduce
from entity.distill.losses import LossType

_DIRECTIONS = 10
"""Zeroth-order directions that the nominal budget counts, though true gradients are used."""


@dataclass(frozen=True)
class MazeArgs:
    """Settings of the distillation; names and defaults are the original's unless said."""

    budget: Positive = 5e6
    """Nominal queries: divided by their nominal number in an iteration gives the iterations."""
    distill_iters: Count | None = None
    """Number of iterations; null takes it from the budget (ours)."""
    model_gen: str = "conv3_gen"
    """Generator: conv3_gen, or conv3_cgen, which is given a class."""
    model_dis: str = "conv3_dis"
    """Critic."""
    gen_width: Count = 128
    """Channels of the generator; its cost grows with the square (ours)."""
    dis_width: Count = 32
    """Channels of the critic's first layer (ours)."""
    latent_dim: Count = 100
    """Length of the generator's noise."""
    batch_size: Count = 128
    """Images in every batch of the distillation."""
    num_seed: Count = 100
    """Clean images of the server that the critic compares with and the replay starts from."""
    num_repeat_real: Count = 10
    """How often the clean images are repeated in a pass; times num_seed at least one batch."""
    augment: bool = False
    """Augment the clean images that the critic sees."""
    loss_type: LossType = "kl_div"
    """What student and teachers are compared by; DROP's paper and all its configurations: l1."""
    temperature: Positive = 1.0
    """Temperature of kl_div."""
    alpha_gan: NonNegative = 0.5
    """Weight of the critic in the generator's loss; 0 is truly data-free."""
    lambda1: NonNegative = 10.0
    """Weight of the critic's gradient penalty."""
    iter_gen: Whole = 1
    """Generator steps in an iteration."""
    iter_clone: Whole = 5
    """Student steps on new images in an iteration, and critic steps."""
    iter_dis: Whole | None = None
    """Critic steps in an iteration, at most iter_clone; null is as many (ours)."""
    iter_exp: Whole = 10
    """Student steps on replayed images in an iteration."""
    replay_capacity: Whole = 0
    """Images kept for replay; 0 keeps all (ours)."""
    lr_clone: Positive = 0.1
    """Learning rate of the student."""
    lr_gen: Positive = 1e-3
    """Learning rate of the generator."""
    lr_dis: Positive = 1e-4
    """Learning rate of the critic."""
    opt: Literal["sgd", "adam"] = "sgd"
    """Optimiser of all three: SGD with momentum 0.9 and weight decay 5e-4, or Adam, which has no
    weight decay and keeps its rates."""
    lr_scheduler: Literal["cosine", "cosine_warm", "none"] = "cosine"
    """SGD's learning rates fall to zero once, or again and again in a hundredth of the iterations,
    or stay. DROP's code lets them fall within an iteration, too; below 200 iterations they stay."""
    teacher_norm: Norm = "none"
    """What is done to a teacher's logits so that none dominates (ours)."""
    teacher_reduce: Reduce = "mean"
    """How the teachers' logits become one answer (ours)."""
    cycles: Count = 1
    """Parts of the budget, as equal as can be, in each of which a cosine falls to zero (ours)."""
    plateau: Fraction | None = None
    """End after a cycle that changed the agreement with the teachers by at most this (ours)."""
    early_stopping: bool = False
    """Stop once the student has the target accuracy on held-out server data."""
    frac_recover_acc: Positive = 1.0
    """Target accuracy, as a share of the teachers' own."""
    log_iter: Positive = 1e5
    """Nominal queries between two looks at the held-out data."""
    amp_enabled: bool = False
    """Run students and teachers in bfloat16, but in float32 where the generator learns from both;
    DROP's code has bfloat16 there, too."""
    channels_last: bool = False
    """Run all but the critic in the layout fastest on a CPU, equal up to rounding (ours)."""
    disable_pbar: bool = False
    """Without effect, kept for the original's files: distillation draws no bar of its own."""

    @property
    def queries_per_iteration(self) -> int:
        """Nominal queries of an iteration, as the original counts them."""
        steps = max(0, self.iter_clone - 1) + (1 + _DIRECTIONS) * self.iter_gen
        return self.batch_size * max(1, steps)

    @property
    def iterations(self) -> int:
        """Number of iterations.

        Examples
        --------
        >>> MazeArgs(budget=5e6, batch_size=512).iterations
        651
        """
        return self.iterations_of(self.queries_per_iteration)

    def iterations_of(self, queries: int) -> int:
        """Return the number of iterations that take this many nominal queries each."""
        return self.distill_iters or int(self.budget // queries)

    def cycle_ends(self, iterations: int) -> list[int]:
        """Return the last iteration (from 1) of every cycle; lengths differ by at most one.

        Examples
        --------
        >>> MazeArgs(cycles=4).cycle_ends(60), MazeArgs(cycles=4).cycle_ends(30)
        ([15, 30, 45, 60], [7, 15, 22, 30])
        """
        count = max(1, min(self.cycles, iterations))
        return [iterations * (number + 1) // count for number in range(count)]


@dataclass(frozen=True)
class StudentArgs(MazeArgs):
    """When to distil, where the networks start, and when the student becomes the global model."""

    K: int = 5
    """Distil every K rounds; -1 never, which is DROPlet."""
    K_start: Whole = 0
    """First round that may distil."""
    reschedule: bool = False
    """Make up for a distillation that found nobody admitted, or no update that could be judged, in
    the next round (ours)."""
    ensemble: bool = True
    """Teach from the admitted clients' models; false teaches from their average."""
    clone_init_with_global: bool = False
    """Start the student from the global model before this round, else from random weights."""
    random_S_alpha: Fraction = 0.0
    """Share of random weights mixed into that global model."""
    random_weight_S: Fraction = 1.0
    """Share of random weights in a student that does not start from the global model;
    the rest is the student of the distillation before."""
    random_weight_G: Fraction = 1.0
    """The same for the generator."""
    random_weight_D: Fraction = 1.0
    """The same for the critic."""
    prev_global_weight: Fraction = 0.0
    """Share of the averaged model in the new global model; the rest is the student."""
    min_agreement: Fraction | None = None
    """Keep the averaged model where the student agrees with its teachers on a smaller share of the
    clean images, or of generated ones where the server is granted none; null never does (ours)."""
    finetune: bool = False
    """Fine-tune the student on the labelled clean images."""
    finetune_lr: Positive = 0.01
    """Learning rate of the fine-tuning (ours)."""
    finetune_epochs: Whole = 5
    """Epochs of the fine-tuning (ours)."""
    stealing_method: Literal["maze", "dfme"] = "maze"
    """Method of the distillation: MAZE, or DFME, which touches no clean image."""

    @property
    def uses_critic(self) -> bool:
        """Whether generated images are compared with clean ones."""
        return self.stealing_method == "maze" and self.alpha_gan > 0

    def times(self, rounds: int) -> int:
        """Return in how many of some rounds it distils, if somebody is admitted in each.

        Examples
        --------
        >>> StudentArgs(K=5).times(23), StudentArgs(K=5, K_start=11).times(23)
        (4, 2)
        """
        due = range(max(1, self.K_start), rounds + 1) if self.K > 0 else ()
        return sum(round % self.K == 0 for round in due)

    @property
    def seeds_used(self) -> int:
        """Number of clean images that take part; the rest is held out."""
        return self.num_seed if self.uses_critic or self.finetune else 0

    @property
    def queries(self) -> int:
        """Nominal queries of an iteration of the chosen method."""
        return self.queries_per_iteration if self.stealing_method == "maze" else self.batch_size
