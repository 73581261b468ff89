"""Data-free distillation of an ensemble into a student, in the manner of MAZE.

Kariyappa et al., "MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient Estimation",
CVPR 2021, arXiv 2005.03161; with true gradients through the teachers, as DROP (arXiv 2502.07011)
uses it. A generator looks for images on which student and teachers disagree, a Wasserstein critic
keeps them near a few clean ones, and the student learns the teachers' answers on them and on a
replay of earlier ones.

Where we leave the original code, and why:

- progress is measured on held-out data of the server; the original stops by the test set;
- with `alpha_gan = 0` there is no critic, no clean image is touched, and the replay starts empty;
  the original crashes;
- the replay is a ring of fixed size; the original's grows without bound and is copied in every
  iteration. Zero student or replay steps mean zero;
- the generator learns against the student in evaluation mode throughout, so its steps never
  touch the student's BatchNorm statistics;
- teachers that stop giving finite, bounded logits are left out during the run, too;
- what is there for speed is off by default: narrower networks, fewer critic steps, another memory
  layout, and a budget in cycles that ends where one changed nothing. `benchmarks/distill.py`
  compares it with the algorithm as it is specified.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from entity.devices import to_device
from entity.distill.held_out import Labelled
from entity.distill.losses import gradient_penalty
from entity.distill.replay import Replay
from entity.distill.settings import MazeArgs
from entity.distill.training import Batch, Distillation, Networks, Run

Augment = Callable[[Tensor, torch.Generator], Tensor]


def distill(
    networks: Networks,
    seed_images: Tensor,
    args: MazeArgs,
    rng: torch.Generator,
    *,
    holdout: Labelled | None = None,
    augment: Augment | None = None,
) -> Distillation:
    """Train the student to answer as the teachers do, on images of the generator's making.

    Parameters
    ----------
    networks
        Teachers, student, generator, and a critic but for the data-free mode.
    seed_images
        (S, C, H, W) clean images in [-1, 1]; not used without a critic.
    args
        Settings.
    rng
        Source of all randomness.
    holdout
        What accuracy is measured on, if at all.
    augment
        Applied to the clean images that the critic sees, with `args.augment`.
    """
    maze = Maze(networks, args, rng)
    if not maze.prepare(seed_images, holdout, augment if args.augment else None):
        return maze.report
    for iteration in range(1, maze.iterations + 1):
        batch = maze.improve_generator()
        for turn in range(args.iter_clone):
            if turn or batch is None:  # the first turn learns from the generator's own batch
                batch = maze.new_batch()
            maze.teach(batch)
            if turn < maze.critic_steps:
                maze.improve_critic(batch)
        maze.replay(batch)
        if maze.ends(iteration, None if batch is None else batch[0]):
            break
    return maze.conclude()


class Maze(Run):
    """MAZE's four steps, and what they work on."""

    memory: Replay
    """Images that the student has seen."""
    clean: Iterator[Tensor]
    """Batches of clean images for the critic."""

    def __init__(self, networks: Networks, args: MazeArgs, rng: torch.Generator) -> None:
        self.critic_steps = args.iter_clone if args.iter_dis is None else args.iter_dis
        steps = {"student": args.iter_clone + args.iter_exp, "generator": args.iter_gen}
        if networks.critic is None:
            self.critic_steps = 0
        else:
            steps["critic"] = self.critic_steps
        queries = args.queries_per_iteration
        super().__init__(
            networks, args, rng, iterations=args.iterations, queries=queries, steps=steps
        )

    def prepare(self, images: Tensor, holdout: Labelled | None, augment: Augment | None) -> bool:
        """Look at the teachers for the first time and fill the replay; false if none is left.

        Parameters
        ----------
        images
            (S, C, H, W) clean ones.
        holdout
            What is measured on.
        augment
            Applied to the clean images that the critic sees.
        """
        self.generator.eval()
        with torch.no_grad():  # noise where there are no clean images
            probe = self.sample() if self.critic is None else images.to(self.device)
        if not self.begin(probe, holdout):
            return False
        capacity = self.args.replay_capacity
        self.memory = Replay(
            capacity or len(images) + self.iterations * self.args.batch_size,
            probe.shape[1:],
            self.answers(probe[:1]).shape[1],
            self.device,
        )
        if self.critic is not None:
            for x in probe.split(self.args.batch_size):
                self.memory.add(x, self.answers(x))
            self.clean = _clean_batches(probe, self.args, self.rng, augment)
        return True

    def improve_generator(self) -> Batch | None:
        """Move the generator to where student and teachers disagree; return its last batch.

        It minimises `-disagreement - alpha_gan * critic`. None if it takes no step.
        """
        batch: Batch | None = None
        with self.watch("generator"):
            self.generator.train()
            self.student.eval()
            for _ in range(self.args.iter_gen):
                x = self.sample()
                answers = self.teachers(x)
                loss = -self.disagreement(answers, self.student(x))
                if self.critic is not None:
                    loss = loss - self.args.alpha_gan * self.critic(x).mean()
                self.descend("generator", loss)
                batch = x.detach(), answers.detach()
            self.generator.eval()
            self.student.train()
        return batch

    def teach(self, batch: Batch) -> None:
        """Take one step of the student towards the teachers' answers."""
        with self.watch("student"):
            self.learn(*batch)

    def improve_critic(self, batch: Batch) -> None:
        """Take one step of the critic, which tells generated images from clean ones."""
        assert self.critic is not None, "without one it takes no step"
        with self.watch("critic"):
            x, clean = batch[0], next(self.clean)
            score = self.critic(x).mean() - self.critic(clean).mean()
            penalty = gradient_penalty(self.critic, x, clean, self.rng)
            self.descend("critic", score + self.args.lambda1 * penalty)

    def replay(self, batch: Batch | None) -> None:
        """Remember the newest batch, and teach the student images of the past."""
        with self.watch("replay"):
            if batch is not None:
                self.memory.add(*batch)
            for _ in range(self.args.iter_exp if len(self.memory) else 0):
                self.learn(*self.memory.draw(self.args.batch_size, self.rng))


def _clean_batches(
    images: Tensor, args: MazeArgs, rng: torch.Generator, augment: Augment | None
) -> Iterator[Tensor]:
    """Yield clean batches for ever, in shuffled passes over the repeated seed images."""
    while True:
        order = torch.randperm(len(images) * args.num_repeat_real, generator=rng) % len(images)
        for batch in order.split(args.batch_size):
            if len(batch) == args.batch_size:
                x = images[to_device(batch, images.device)]
                yield x if augment is None else augment(x, rng)
