"""A count of what makes a GPU and its host wait for each other: copies between devices, and
questions whose answer decides what the host does next."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that need a value, or whose result has a size that depends on values.
ASKING = {
    "aten._local_scalar_dense",
    "aten.equal",
    "aten.masked_select",
    "aten.nonzero",
    "aten.repeat_interleave",
    "aten._unique2",
    "aten.unique_dim",
    "aten.unique_consecutive",
}
COPYING = {"aten._to_copy", "aten.copy_"}
MASKED = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"}


class Transfers(TorchDispatchMode):
    """A context that counts, of the operations of torch in the calling thread, the ``copies``
    between devices and the ``waits`` of the host for a device, each by the operation's name.

    A copy to the host is also a wait. An operation on the CPU alone is neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The number of copies and of waits that are no copies."""
        return self.copies.total() + self.waits.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).rpartition(".")[0]
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if name in COPYING and len({_device(each) for each in (*given, result)}) > 1:
            self.copies[f"{name} to {_device(result)}"] += 1
        elif any(_device(each) != "cpu" for each in given) and (
            name in ASKING or (name in MASKED and _masks(args[1]))
        ):
            self.waits[name] += 1
        return result


def _device(tensor: Tensor) -> str:
    return tensor.device.type


def _masks(indices: Any) -> bool:
    """Whether one of ``indices`` is a mask, whose places must be counted first."""
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)
