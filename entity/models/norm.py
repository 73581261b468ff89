"""Models without BatchNorm: GroupNorm in the place of every BatchNorm2d.

Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine Learning", ICML 2020, arXiv
1910.00189: the statistics of a client's batches are those of its own few classes, and GroupNorm
(Wu and He, "Group Normalization", ECCV 2018, arXiv 1803.08494), which normalises every image by
itself, recovers much of what BatchNorm loses there. The model has no buffers then.
"""

from torch import nn

GROUPS = 32
"""Groups of a layer, as Wu and He have them, where its channels allow."""


def groups_of(channels: int) -> int:
    """Return the largest number of groups up to 32 that divides the channels.

    Examples
    --------
    >>> [groups_of(channels) for channels in (512, 16, 48, 37)]
    [32, 16, 24, 1]
    """
    return next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)


def with_group_norm(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d of a model in place; return the model.

    Names, order and initial values of the parameters stay, as the layers' own scale and shift
    are kept. A model without BatchNorm2d is left as it is.

    Examples
    --------
    >>> model = with_group_norm(nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)))
    >>> type(model[1]).__name__, model[1].num_groups, len(list(model.buffers()))
    ('GroupNorm', 32, 0)
    """
    twins: dict[nn.Module, nn.GroupNorm] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if name and isinstance(layer, nn.BatchNorm2d):
            if layer not in twins:
                twins[layer] = _twin(layer)
            model.set_submodule(name, twins[layer])
    return model


def _twin(layer: nn.BatchNorm2d) -> nn.GroupNorm:
    channels = layer.num_features
    twin = nn.GroupNorm(groups_of(channels), channels, layer.eps, layer.affine)
    twin.weight, twin.bias = layer.weight, layer.bias
    return twin.train(layer.training)
