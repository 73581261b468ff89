"""Tensors on their way to the device that computes, without the processor waiting for it."""

import torch
from torch import Tensor, nn


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; what comes from the CPU goes to CUDA without a wait.

    The copy starts from pinned memory, which PyTorch does not give away before it is done, and
    what is computed next on the device comes after it.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to a device, on CUDA in the layout that its convolutions are fastest in.

    With weights in another layout than the images, every convolution of every step would first
    turn its weights. On a CPU the layout stays, and with it every bit of a result.
    """
    module = module.to(device)
    if device.type == "cuda":
        module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return module
