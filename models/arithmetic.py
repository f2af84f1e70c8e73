"""Arithmetic whose bits depend neither on the number of threads nor on what else is in a batch.

A sum of floats has other bits in another order, and torch chooses the order by
the number of threads and the shape: a 1 x 1 convolution of one image goes to
oneDNN on several threads and to the BLAS on one; the BLAS splits a matrix by
its rows and the threads; `sigmoid` takes the last elements of a thread's share
one by one, with another exponential. Each is done here in one way only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = int | Sequence[int]


@contextmanager
def steady(device: str) -> Iterator[None]:
    """Compute the same bits for any number of threads and any batch, on one device.

    On the CPU what depends on either is replaced while this holds, for results
    within rounding of torch's; on a GPU cuDNN neither tries algorithms out nor
    takes one whose order of sums is left to chance.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if device == "cpu":
        with _Steady():
            yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


class _Steady(TorchFunctionMode):
    """Sends the calls of `FORMS` to their steady form, whoever makes them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        return FORMS.get(func, func)(*args, **(kwargs or {}))


def _convolution(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Return `torch.conv2d`, by oneDNN whatever the size and the threads."""
    if isinstance(padding, str) or not _chosen_by_size(image):
        return functional.conv2d(image, weight, bias, stride, padding, dilation, groups)
    # Called directly it reads a bias as if it were contiguous, and takes any layout for its own.
    image, weight = (each.contiguous(memory_format=torch.channels_last) for each in (image, weight))
    bias = None if bias is None else bias.contiguous()
    return torch.mkldnn_convolution(
        image, weight, bias, _pair(padding), _pair(stride), _pair(dilation), groups
    )


def _transposed(image: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """Return `torch.conv_transpose2d`; a small image alone would not go to oneDNN."""
    batch = torch.cat([image, image]) if len(image) == 1 else image
    return functional.conv_transpose2d(batch, *arguments, **named)[: len(image)]


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `torch.nn.functional.linear` as a convolution over rows laid side by side."""
    if rows.ndim != 2 or not len(rows):
        return functional.linear(rows, weight, bias)
    line = rows.contiguous()[None, None].permute(0, 3, 1, 2)
    return _convolution(line, weight[:, :, None, None], bias)[0, :, 0].T


def _sigmoid(x: Tensor) -> Tensor:
    """Return `torch.sigmoid`, from an exponential that is the same for any position."""
    return 1 / (1 + torch.exp(-x))


def _softmax(x: Tensor, dim: int, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """Return `torch.softmax`, its sum in the order of the classes."""
    x = x.to(dtype or x.dtype)
    powers = torch.exp(x - x.amax(dim, keepdim=True))
    return powers / reduce(torch.add, powers.unbind(dim)).unsqueeze(dim)


def _chosen_by_size(x: Tensor) -> bool:
    """Return whether torch would choose by size and threads, as for float32 where oneDNN is."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


def _pair(value: Pair) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: _convolution,
    torch.conv_transpose2d: _transposed,
    functional.linear: _linear,
    torch.sigmoid: _sigmoid,
    Tensor.sigmoid: _sigmoid,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    functional.softmax: _softmax,
}
"""What is replaced, and by what."""
