"""A small vision transformer.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
ICLR 2021, arXiv 2010.11929. Patches of 4x4 pixels become tokens with learned positions; four
blocks, each normalised before its attention and before its MLP; a last normalisation. Where we
leave the paper: the features are the mean of the tokens instead of a class token's (both work
in its appendix D.3, at different rates); width 96 and MLPs of twice that, so that two cores can
train it; no dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.models.classifier import Classifier

PATCH, WIDTH, DEPTH, HEADS = 4, 96, 4, 4
MLP = 2 * WIDTH


class Attention(nn.Module):
    """Every token gathers from all tokens, with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(d)) v of every head, mixed: (b, T, D) from (b, T, D)."""
        split = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind()  # (b, heads, T, D / heads) each
        gathered = F.scaled_dot_product_attention(q, k, v)
        return self.out(gathered.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then an MLP on each token, both normalised first and added to their input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, T, D)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """Images to tokens, each a patch's linear projection plus its position."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, PATCH, PATCH)
        self.positions = nn.Parameter(torch.empty((size // PATCH) ** 2, width))
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, T, D), T patches in rows; pixels beyond the last patch are cut."""
        return self.project(x).flatten(2).transpose(1, 2) + self.positions


class Mean(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, D) from (b, T, D)."""
        return x.mean(1)


def vit(channels: int, size: int, classes: int) -> Classifier:
    """Build four blocks of width 96 with four heads on patches of 4x4 pixels.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    blocks = [Block(WIDTH, HEADS, MLP) for _ in range(DEPTH)]
    patches = Patches(channels, size, WIDTH)
    features = nn.Sequential(patches, *blocks, nn.LayerNorm(WIDTH), Mean())
    return Classifier(features, nn.Linear(WIDTH, classes))
