"""Preload of the node's forkserver: imports the modules of agents and ranks once, instead of once per rank.

The first optimizer of a process imports torch._dynamo, a second of every cold launch. Never initializes CUDA:
forked ranks could not use it.
"""

# ruff: noqa: E402 - these settings must precede the imports
import gc
import os
import weakref
from typing import Any

gc.disable()  # collections during these imports find nothing and take a quarter of the time
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import cloudpickle
import numpy
import torch
import torch._dynamo
import torch.distributed.checkpoint.state_dict
import torch.nn.parallel
import torch.utils.data

import cnai.engine.node.elastic
import cnai.engine.training.context

__all__ = ["cloudpickle", "cnai", "numpy", "torch"]

finalizers: Any = weakref.finalize
for finalizer in list(finalizers._registry):
    finalizer.atexit = False  # torch's own unregister its operators, 30 ms for what ends with the process

torch.set_num_threads(1)  # no thread pool may exist when ranks are forked
gc.freeze()  # keeps these pages shared: a rank's garbage collector doesn't touch them
gc.enable()
