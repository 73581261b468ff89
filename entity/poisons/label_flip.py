"""Label flipping: the victim class's images, unchanged, under the target label.

Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020,
arXiv 2007.08432. There is no trigger. What is reported as attack success is the flip rate: the
share of clean test images of the victim class (without one: of all other classes) that the model
takes for the target class. A clean model's is not zero.
"""

import torch

from entity.client.poison import Poison
from entity.dataset.images import Images


class LabelFlip(Poison):
    """Relabel, and leave the pixels."""

    summary = "label flipping: victim-class images under the target label, no trigger"
    paper = "Tolpegin et al. 2020, arXiv 2007.08432"
    any_samples = True

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Relabel."""
        return self.relabelled(chosen.x.clone())

    def test_set(self, test: Images) -> Images:
        """Return all eligible test images as they are, under the target label."""
        return self.relabelled(self.eligible(test).x)
