"""The least that a network can take: its operations and bytes against two ceilings of the machine.

Of each convolution and matrix product, `ops / peak` or `bytes / bandwidth`, whichever is longer
(the roofline of Williams et al., Communications of the ACM 2009), and of all layers the sum. An
operation is a multiplication or an addition; bytes are those of inputs, weights and outputs, each
moved once. Peak is the best matrix product, bandwidth the best copy that this machine shows in
the same run. What is no convolution or product (cutting regions out, suppression, activations)
is not in it, nor does it know of algorithms with fewer multiplications.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from benchmarks.machine import cores

SECTIONS = {
    "backbone": ("backbone",),
    "pyramid": ("backbone.pyramid",),
    "rpn head": ("rpn.head",),
    "box head": ("roi_heads.box_head", "roi_heads.box_predictor"),
    "mask head": ("roi_heads.mask_predictor",),
}
"""Parts of a Mask R-CNN, and the modules that each of them is."""
DENSE = ("backbone", "pyramid", "rpn head")
"""Those that work on every pixel."""
REST = "rest"
ROWS = {"box head": "region", "mask head": "cell"}
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
SIZES = (1024, 2048, 3072)
"""Rows and columns of the matrices: from 2048 on the peak is reached."""
COPIED = 2**28
"""Bytes that are copied: more than caches hold."""
TRIES = 3
aten = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """A convolution or product: how many operations, and how many values it reads and writes."""

    section: str
    operations: float
    values: float


@dataclass
class Work:
    """What a network does with some images.

    Parameters
    ----------
    megapixels : float
        That it sees.
    layers : list of Layer
    rows : Counter
        Of each section, how many regions or cells it has worked on.
    """

    megapixels: float
    layers: list[Layer] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)

    def operations(self, *sections: str) -> float:
        """Return the operations of some sections, by default of all."""
        return sum(each.operations for each in self._of(sections))

    def values(self, *sections: str) -> float:
        """Return how many values some sections read and write, by default all."""
        return sum(each.values for each in self._of(sections))

    def seconds(self, peak: float, bandwidth: float, size: int, *sections: str) -> float:
        """Return the least seconds; `size` are the bytes of a value."""
        return sum(
            max(each.operations / peak, each.values * size / bandwidth)
            for each in self._of(sections)
        )

    def _of(self, sections: Sequence[str]) -> Iterator[Layer]:
        return (each for each in self.layers if not sections or each.section in sections)

    def each(self, section: str) -> tuple[str, float]:
        """Return of what a section does the same each time, and how often: a megapixel, a row."""
        if section in DENSE:
            return "megapixel", self.megapixels
        return ROWS.get(section, "image"), float(self.rows[section] or 1)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what the kernels do that run while this holds."""

    def __init__(self, work: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = work
        self.open: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count a call, and make it."""
        del types
        result = func(*args, **(kwargs or {}))
        count = KERNELS.get(func)
        if count is not None:
            tensors = [each for each in args if isinstance(each, Tensor)]
            values = sum(each.numel() for each in tensors) + result.numel()
            section = self.open[-1] if self.open else REST
            self.work.layers.append(Layer(section, count(args, result), values))
        return result


def _convolution(args: Sequence[Any], result: Tensor) -> float:
    image, weight, transposed = args[0], args[1], len(args) > 6 and args[6]
    values = image.numel() if transposed else result.numel()
    return float(2 * values * prod(weight.shape[1:]))


def _product(left: Tensor, result: Tensor) -> float:
    return 2.0 * left.shape[-1] * result.numel()


KERNELS: dict[Any, Callable[[Sequence[Any], Tensor], float]] = {
    aten.convolution.default: _convolution,
    aten.mkldnn_convolution.default: lambda args, out: 2.0 * out.numel() * prod(args[1].shape[1:]),
    aten.mm.default: lambda args, out: _product(args[0], out),
    aten.bmm.default: lambda args, out: _product(args[0], out),
    aten.addmm.default: lambda args, out: _product(args[1], out),
    aten.linear.default: lambda args, out: _product(args[0], out),
}
"""How many operations each kernel takes, given its arguments and its result."""


@contextmanager
def _sections(network: nn.Module, counting: Counting) -> Iterator[None]:
    """Have `counting` know which section is at work."""
    modules, handles = dict(network.named_modules()), list[RemovableHandle]()
    for section, names in SECTIONS.items():
        for number, name in enumerate(names):
            if name in modules:
                handles += _watch(modules[name], section, counting, first=number == 0)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(
    module: nn.Module, section: str, counting: Counting, *, first: bool
) -> tuple[RemovableHandle, RemovableHandle]:
    def begin(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counting.open.append(section)
        if first and isinstance(inputs[0], Tensor) and section not in DENSE:
            counting.work.rows[section] += len(inputs[0])

    def end(*_: Any) -> None:
        counting.open.pop()

    return module.register_forward_pre_hook(begin), module.register_forward_hook(end)


def count(network: nn.Module, images: Tensor) -> Work:
    """Return what a network does with images (B, C, H, W), in evaluation mode."""
    work = Work(images.shape[0] * images.shape[2] * images.shape[3] / 1e6)
    counting = Counting(work)
    # In inference mode torch keeps convolutions whole, of a kind that is not counted.
    with torch.no_grad(), _sections(network, counting), counting:
        network(images.to(next(network.parameters()).device))
    return work


@dataclass(frozen=True)
class Ceilings:
    """The most that a machine does.

    Parameters
    ----------
    peaks : dict
        Operations a second by precision, then by threads.
    bandwidth : dict
        Bytes a second, read and written, by threads.
    """

    peaks: dict[str, dict[int, float]]
    bandwidth: dict[int, float]

    def seconds(self, work: Work, precision: str, threads: int, *sections: str) -> float:
        """Return the least seconds for some sections of some work, by default for all of it."""
        peak, bandwidth = (
            max(rate for number, rate in rates.items() if number <= threads)
            for rates in (self.peaks[precision], self.bandwidth)
        )
        return work.seconds(peak, bandwidth, BYTES[precision], *sections)

    def precision(self, wanted: str) -> str:
        """Return a precision that was measured: the wanted one, else what decides on cells."""
        return wanted if wanted in self.peaks else "float32"

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "gigaops_s": {
                name: {str(n): round(rate / 1e9, 2) for n, rate in rates.items()}
                for name, rates in self.peaks.items()
            },
            "gigabytes_s": {str(n): round(r / 1e9, 2) for n, r in self.bandwidth.items()},
        }


def described(work: Work, limits: Ceilings, threads: int) -> list[dict[str, Any]]:
    """Return what each section does for a megapixel, a region or a cell, and the least ms of it."""
    rows = []
    for section in dict.fromkeys(layer.section for layer in work.layers):
        what, count = work.each(section)
        row = {
            "section": section,
            "for a": what,
            "of these": round(count, 2),
            "Gop": work.operations(section) / count / 1e9,
            "MB in float32": work.values(section) * BYTES["float32"] / count / 1e6,
        }
        least = {p: limits.seconds(work, p, threads, section) / count for p in limits.peaks}
        rows.append(row | {f"ms in {p}": 1e3 * seconds for p, seconds in least.items()})
    return rows


def ceilings(sizes: Sequence[int] = SIZES, copied: int = COPIED, tries: int = TRIES) -> Ceilings:
    """Measure the machine on one core and on all; int8 where torch has a product of it."""
    before, threads = torch.get_num_threads(), sorted({1, cores()})
    peaks: dict[str, dict[int, float]] = {name: {} for name in TYPES}
    bandwidth: dict[int, float] = {}
    try:
        for number in threads:
            torch.set_num_threads(number)
            for name in TYPES:
                rates = [_product_rate(name, size, tries) for size in sizes]
                peaks[name][number] = max(*rates, _convolution_rate(name, min(sizes), tries))
            bandwidth[number] = _copy_rate(copied, tries)
    finally:
        torch.set_num_threads(before)
    return Ceilings(
        {name: rates for name, rates in peaks.items() if min(rates.values())}, bandwidth
    )


def _product_rate(precision: str, size: int, tries: int) -> float:
    """Return the operations a second of a matrix product; 0 where there is none."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randint(-8, 8, (size, size), generator=generator).to(TYPES[precision])
        for _ in range(2)
    )
    product = torch._int_mm if precision == "int8" else torch.mm
    try:
        product(left, right)
    except RuntimeError:
        return 0.0
    return 2.0 * size**3 / _least(lambda: product(left, right), tries)


def _convolution_rate(precision: str, size: int, tries: int) -> float:
    """Return the operations a second of 3 x 3 convolutions of 64 channels; 0 of integers.

    Products in float32 are half as fast on some processors that are not the BLAS maker's.
    """
    if precision == "int8":
        return 0.0
    side = max(size // 8, 8)
    image = torch.ones(1, 64, side, side, dtype=TYPES[precision])
    image = image.contiguous(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, dtype=TYPES[precision])
    operations = 2.0 * weight.numel() * side**2
    return operations / _least(lambda: torch.conv2d(image, weight, padding=1), tries)


def _copy_rate(size: int, tries: int) -> float:
    source, target = torch.ones(size // 4), torch.zeros(size // 4)
    return 2.0 * size / _least(lambda: target.copy_(source), tries)


def _least(work: Callable[[], object], tries: int) -> float:
    """Return the least seconds of some tries, the first of which does not count."""
    work()
    found = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)
