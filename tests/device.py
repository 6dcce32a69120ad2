"""A device that stands in for a GPU: its tensors say that they are on the device meta, and hold
their values on the CPU. What may only be done on the CPU, such as `Tensor.numpy`, fails."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")


class Remote(Tensor):
    """A tensor on the device, with its ``inner`` tensor on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Remote:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(func, args, dict(kwargs or {}))

    def __repr__(self, **_: Any) -> str:
        return f"Remote({self.inner!r})"


class Making(TorchFunctionMode):
    """Makes tensors of numbers on the CPU and copies them, which torch does by itself for a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.get("device")
        if func not in (torch.tensor, torch.as_tensor) or wanted is None:
            return func(*args, **kwargs)
        if torch.device(wanted) != DEVICE or isinstance(args[0], Remote):
            return func(*args, **kwargs)
        del kwargs["device"]
        return func(*args, **kwargs).to(DEVICE)


class Device(TorchDispatchMode):
    """A context in which torch makes tensors on the device, and moves them there and back.

    With ``double=False``, the device has no float64, like Apple's: TypeError if one is made.
    """

    def __init__(self, double: bool = True) -> None:
        super().__init__()
        self.double, self.making = double, Making()

    def __enter__(self) -> Any:
        self.making.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.making.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = perform(func, args, dict(kwargs or {}))
        if not self.double and isinstance(result, Remote) and result.dtype == torch.float64:
            raise TypeError(f"{func} makes a tensor of float64, which the device does not have")
        return result


def perform(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation; an operand or an order to be on the device puts it there."""
    seen: list[Tensor] = []

    def inner(value: Any) -> Any:
        if isinstance(value, Remote):
            seen.append(value)
            return value.inner
        if isinstance(value, Tensor) and value.device == DEVICE:
            raise NotImplementedError(f"{func} got a tensor on meta that holds no values")
        return value

    plain_args, plain_kwargs = tree_map(inner, args), tree_map(inner, kwargs)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        plain_kwargs["device"] = torch.device("cpu")
    else:
        there = bool(seen)
    if str(func).startswith("aten._local_scalar_dense"):
        return func(*plain_args, **plain_kwargs)
    result = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and args and result is plain_args[0]:
        return args[0]
    return tree_map(lambda each: wrap(each) if isinstance(each, Tensor) and there else each, result)


def wrap(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, Remote) else Remote(tensor)
