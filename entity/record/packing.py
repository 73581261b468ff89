"""State as JSON and named tensors, so that it can be stored without pickle."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a tree of dicts, lists, tensors, numbers and strings into JSON and named tensors.

    Keys are strings or integers and keep their type; tuples become lists.

    Raises
    ------
    TypeError
        For anything else in the tree; the message begins with its path.

    Examples
    --------
    >>> import torch
    >>> tree, tensors = pack({"points": {7: 0.5}, "models": [torch.ones(2)]})
    >>> tree
    {'table': [['points', {'table': [[7, 0.5]]}], ['models', [{'tensor': '/models/0'}]]]}
    >>> tensors
    {'/models/0': tensor([1., 1.])}
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()

    def packed(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            name = path
            while name in tensors:  # 7 and "7" are two keys, and one may hold a slash
                name += "'"
            own = value.detach().cpu().contiguous()
            memory = own.untyped_storage().data_ptr()
            tensors[name] = own.clone() if memory in storages else own  # safetensors shares none
            storages.add(memory)
            return {"tensor": name}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(value)}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, list | tuple):
            return [packed(item, f"{path}/{i}") for i, item in enumerate(value)]
        if isinstance(value, Mapping) and all(isinstance(key, int | str) for key in value):
            return {"table": [[key, packed(item, f"{path}/{key}")] for key, item in value.items()]}
        raise TypeError(f"{path}: a checkpoint cannot hold {type(value).__name__}")

    return packed(state, ""), tensors


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Reverse `pack`; every tensor gets memory of its own."""
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]].clone()
    if "float" in tree:
        return float(tree["float"])
    return {key: unpack(item, tensors) for key, item in tree["table"]}
