"""FLIP, the server's side: FedAvg over clients that harden themselves.

Zhang et al., "FLIP: A Provable Defense Framework for Backdoor Mitigation in Federated Learning",
ICLR 2023, arXiv 2210.12873. Every benign client inverts triggers on the model it was sent and
trains on stamped samples with their true labels (`entity.client.flip`), and whoever uses the
model rejects predictions of low confidence: `server.low_confidence_threshold`, in the paper 0.4
against attacks in every round. The server needs nothing and refuses nobody.
"""

from dataclasses import dataclass

from entity.config.schema import ConfigError, Count, Fraction, Positive, Whole
from entity.defenses.undefended import Undefended, UndefendedArgs
from entity.server.contract import Needs, Setting
from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, Updates


@dataclass(frozen=True)
class FlipArgs:
    """Settings of FLIP; defaults are the authors' for CIFAR-10 but for the first `trigger_steps`.

    They cost a hundred times the training itself. For small grey images on a laptop, this takes
    four times as long as training (10 clients x 350 digits: 7 s of CPU time a round, not 1.7):
    `{"size_min": 1, "attack_succ_threshold": 0.9, "trigger_size_check_threshold": 0.125,
    "trigger_steps": [40, 60, 20], "init_mask_chunk": false, "trigger_lr": 0.3,
    "trigger_cost": 0.01}`.
    """

    size_min: Count = 5
    """A class takes part where a batch, or the client for the warm-up, has more samples of it.

    As many of each class make up the warm-up's images. Batches of 32 or fewer want 1 or 2.
    """
    defense_start_round: Whole = 0
    """First round with hardening; 10 (CIFAR-10) and 3 (EMNIST) in the original's configs."""
    attack_succ_threshold: Fraction = 0.85
    """Share of the samples that an inverted trigger must flip; 0.9 for MNIST."""
    trigger_size_check_threshold: Fraction = 0.25
    """Do not train on triggers over more than this share of the image; 0.125 for MNIST."""
    portion: Fraction = 0.9
    """Share of the source class's samples in a batch that is stamped; 0.5 for MNIST."""
    trigger_steps: tuple[Count, ...] = (600, 600, 200)
    """Adam steps of an inversion: from a random start, in the warm-up, from a known trigger.

    Without the third it is 200. The authors' code: 200, 600, 200, and 200, 400, 200 for MNIST; from
    a random start it has three times as many here.
    """
    init_mask_chunk: bool = True
    """Start inversions from a solid block in a weak random mask; false from a random mask."""
    trigger_lr: Positive = 0.1
    """Learning rate of the inversion's Adam."""
    trigger_cost: Positive = 1e-3
    """First weight c of the mask's size in an inversion's loss."""
    pairs_per_batch: Count = 1
    """Pairs of classes that a batch is hardened against, none in two; they share their cost."""
    max_steps: Whole = 100
    """Most hardened batches of a client in a round beside the warm-up, spread over the round."""
    random_pair: Fraction = 0.3
    """Chance that a batch's pair of classes is drawn instead of taken by its trigger's growth."""


class Flip(StreamingServer[FlipArgs]):
    """The mean of all models, of which the benign ones come hardened."""

    summary = "FLIP: benign clients unlearn inverted triggers; the server averages"
    paper = "Zhang et al. 2023, arXiv 2210.12873"
    hyperparameters = FlipArgs
    revision = 2
    robust = False

    @classmethod
    def needs(cls, args: FlipArgs) -> Needs:
        """Its clients invert triggers, which are patches of images."""
        return Needs(images=True)

    @classmethod
    def check(cls, args: FlipArgs, setting: Setting) -> None:
        """Refuse numbers of steps that leave open which inversion they are for."""
        if len(args.trigger_steps) not in (2, 3):
            raise ConfigError(
                f"server.defense.defense_args.trigger_steps = {list(args.trigger_steps)}: needs 2 "
                "or 3 numbers, for a random start, the warm-up and a known trigger; write "
                "[600, 600, 200]."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average everybody."""
        return Undefended(UndefendedArgs(), self.resources).aggregate(updates)
