import math

import pytest
import torch
from torch import nn

from entity.models import build
from entity.models.vit import PATCH, Attention, Block, Patches
from entity.seeding import global_stream


def made(make):
    with global_stream(torch.Generator().manual_seed(0)):
        return make()


def test_attention_is_its_formula_head_by_head():
    layer = made(lambda: Attention(6, 2))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    q, k, v = (x @ layer.qkv.weight.T + layer.qkv.bias).split(6, dim=2)
    heads = []
    for own in (slice(0, 3), slice(3, 6)):
        weights = (q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(3)).softmax(2)
        heads.append(weights @ v[..., own])
    torch.testing.assert_close(layer(x), layer.out(torch.cat(heads, dim=2)))


def test_a_block_adds_what_it_makes_of_its_normalised_input():
    block = made(lambda: Block(6, 2, 8))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    first = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), first + block.mlp(block.norm2(first)))
    for last in (block.attention.out, block.mlp[2]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    assert torch.equal(block(x), x)


def test_a_token_is_the_projection_of_its_patch_and_its_position():
    layer = made(lambda: Patches(3, 8, 5))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    tokens = layer(x)
    assert tokens.shape == (2, 4, 5)
    for token, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        patch = x[:, :, row : row + PATCH, column : column + PATCH].flatten(1)
        expected = patch @ layer.project.weight.flatten(1).T + layer.project.bias
        torch.testing.assert_close(tokens[:, token], expected + layer.positions[token])


def test_only_positions_tell_where_a_patch_is():
    model = build("vit", 1, 8, 3, torch.Generator().manual_seed(0)).eval()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    moved = x.roll(4, 3)
    assert not torch.allclose(model(x), model(moved), atol=1e-5)
    nn.init.zeros_(model.features[0].positions)
    torch.testing.assert_close(model(x), model(moved), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [4, 30])
def test_pixels_beyond_the_last_whole_patch_are_cut(size):
    model = build("vit", 1, size, 3, torch.Generator().manual_seed(0)).eval()
    x = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(1))
    edge = x.clone()
    edge[..., size // 4 * 4 :] = 9
    assert torch.equal(model(x), model(edge))
