"""Latents and other arrays: .npy, .npz, .pt and .safetensors through their own libraries, with nothing unpickled but tensors."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easyteacache.compare.source import MAX_FRAMES, MAX_ITEMS, Frame, Pixels, Source, check_size, reading, refuse

if TYPE_CHECKING:
    import torch

NUMPY_SUFFIXES, TORCH_SUFFIXES, SAFETENSORS_SUFFIXES = (".npy", ".npz"), (".pt", ".pth"), (".safetensors",)
SUFFIXES = (*NUMPY_SUFFIXES, *TORCH_SUFFIXES, *SAFETENSORS_SUFFIXES)
AXES = "BFCHW"
MAX_BYTES = 8 * MAX_ITEMS
_MOST_NAMES = 20


def open_array(path: Path, *, tensor: str | None, layout: str | None, data_range: float | None) -> Source:
    """A source over one array: the whole of it, or its frames where ``layout`` names its axes.

    Args:
        path: the file, of one of ``SUFFIXES``.
        tensor: which array of a file that holds several; ``a.b`` is ``b`` in the dictionary ``a``.
        layout: its axes in order, from B, F, C, H, W, each at most once, H and W among them; None: one whole.
        data_range: largest minus smallest possible value; None: that of an unsigned integer type, else unknown.

    Raises:
        UnreadableFrames: damaged, too large, not numbers, no or several arrays, or a layout that does not fit.
    """
    load = _LOADERS[path.suffix.lower()]
    with reading(path, f"a {path.suffix.lower()} file"):
        values = load(path, tensor)
    kind = values.dtype.kind
    if kind not in "buif":
        refuse(path, f"values of type {values.dtype}; expected real numbers")
    if values.size == 0:
        refuse(path, f"an array of shape {values.shape}, which holds nothing")
    peak = data_range
    if peak is None and kind in "bu":
        peak = 1.0 if kind == "b" else float(np.iinfo(values.dtype).max)
    details = {"tensor": tensor, "shape": list(values.shape), "dtype": str(values.dtype), "layout": layout}
    if layout is None:
        return Source(path, "array", lambda: iter([Frame(values, peak)]), 1, pictures=False, details=details)
    shaped = _shaped(path, values, layout)
    leading = shaped.shape[:-3]
    count = math.prod(leading)
    if count > MAX_FRAMES:
        refuse(path, f"{count} frames; at most {MAX_FRAMES} are read")
    return Source(path, "array", lambda: _cut(shaped, peak), count, details=details)


def _cut(shaped: Pixels, peak: float | None) -> Iterator[Frame]:
    for place in itertools.product(*map(range, shaped.shape[:-3])):
        yield Frame(shaped[place], peak, label=",".join(map(str, place)) if len(place) > 1 else None)


def _shaped(path: Path, values: Pixels, layout: str) -> Pixels:
    """The array as a view ``(B, F, H, W, C)`` without the leading axes that ``layout`` does not name."""
    if len(layout) != values.ndim or not {"H", "W"} <= set(layout) <= set(AXES) or len(set(layout)) != len(layout):
        refuse(
            path,
            f"shape {values.shape} and layout {layout!r}; expected one letter of {', '.join(AXES)} for each of the "
            f"{values.ndim} axes, H and W among them, for example FHWC or BCFHW",
        )
    order = [layout.index(axis) for axis in "BFHWC" if axis in layout]
    shaped: Pixels = values.transpose(order)
    if "C" not in layout:
        shaped = shaped[..., None]
    check_size(path, shaped.shape[-2], shaped.shape[-3])
    return shaped


def _bounded(path: Path, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MAX_ITEMS:
        refuse(path, f"an array of shape {shape}; at most {MAX_ITEMS} values are read")


def _choose(path: Path, names: list[str], tensor: str | None) -> str:
    listed = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
    if tensor is not None:
        if tensor not in names:
            refuse(path, f"no array named {tensor!r}; it holds {listed or 'none'}")
        return tensor
    if len(names) != 1:
        refuse(path, f"{len(names)} arrays ({listed}); choose one with --tensor NAME" if names else "holds no array")
    return names[0]


def _npy(path: Path, tensor: str | None) -> Pixels:
    if tensor is not None:
        refuse(path, f"holds one array without a name; leave out --tensor {tensor}")
    # Mapped, so that a long video is not read into memory, and a header that promises more than there is is noticed.
    values: Pixels = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    _bounded(path, values.shape)
    return values


def _npz(path: Path, tensor: str | None) -> Pixels:
    with zipfile.ZipFile(path) as archive:
        members = {
            one.filename.removesuffix(".npy"): one for one in archive.infolist() if one.filename.endswith(".npy")
        }
        member = members[_choose(path, list(members), tensor)]
        # A member is unpacked whole. A header that promises more than the member holds is noticed by numpy.
        if member.file_size > MAX_BYTES:
            refuse(path, f"{member.filename} unfolds to {member.file_size} bytes; at most {MAX_BYTES} are read")
        with archive.open(member) as file:
            values: Pixels = np.load(file, allow_pickle=False)
    _bounded(path, values.shape)
    return values


def _torch(path: Path, tensor: str | None) -> Pixels:
    import torch

    if not zipfile.is_zipfile(path):
        refuse(path, "not a file of torch.save since 1.6; save it again with a current release, or as .safetensors")
    with zipfile.ZipFile(path) as archive:
        # Tensors are mapped where they lie: torch stores, it never compresses.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            refuse(path, "compressed parts, which torch.save never writes")
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = dict(_tensors(content, torch.Tensor))
    return _values(path, found[_choose(path, list(found), tensor)])


def _tensors(content: Any, kind: type, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, kind):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, kind, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for place, value in enumerate(content):
            yield from _tensors(value, kind, f"{name}.{place}" if name else str(place))


def _values(path: Path, tensor: torch.Tensor) -> Pixels:
    import torch

    _bounded(path, tuple(tensor.shape))
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        refuse(path, f"a tensor that is {tensor.layout} on {tensor.device}; expected a plain, dense one")
    plain = tensor.detach()
    if plain.is_floating_point() and plain.dtype not in (torch.float16, torch.float32, torch.float64):
        plain = plain.float()  # numpy has no bfloat16 and no 8-bit floats
    values: Pixels = plain.resolve_conj().resolve_neg().numpy()
    return values


def _safetensors(path: Path, tensor: str | None) -> Pixels:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        name = _choose(path, list(file.keys()), tensor)
        _bounded(path, tuple(file.get_slice(name).get_shape()))
        return _values(path, file.get_tensor(name))


_LOADERS: dict[str, Callable[[Path, str | None], Pixels]] = {
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys(TORCH_SUFFIXES, _torch),
    ".safetensors": _safetensors,
}
