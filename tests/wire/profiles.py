"""Small ICC profiles, made on the spot from published primaries, curves and inks."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chromaticity = tuple[float, float]

D65: Chromaticity = (0.3127, 0.3290)
D50 = np.array([0.9642, 1.0, 0.8249])
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""ICC's parametric curve of type 3: γ, a, b, c, d of ``(a·x + b)^γ from d on, c·x below``."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def matrix_profile(
    red: Chromaticity, green: Chromaticity, blue: Chromaticity, white: Chromaticity, curve: bytes
) -> bytes:
    """Profile of an RGB display: its primaries, adapted to D50 by Bradford's cones, and one curve for all three."""
    primaries = np.stack([_xyz(place) for place in (red, green, blue)], axis=1)  # (XYZ, RGB)
    cones = (_BRADFORD @ D50) / (_BRADFORD @ _xyz(white))
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    columns = adapted @ primaries @ np.diag(np.linalg.solve(primaries, _xyz(white)))
    tags = {b"wtpt": _triple(D50)}
    for name, column in zip((b"r", b"g", b"b"), columns.T, strict=True):
        tags |= {name + b"XYZ": _triple(column), name + b"TRC": curve}
    return assembled(tags)


def grey_profile(curve: bytes) -> bytes:
    """Profile of one grey channel."""
    return assembled({b"wtpt": _triple(D50), b"kTRC": curve}, b"GRAY")


def ink_profile(lab: Callable[[tuple[int, ...]], Sequence[float]]) -> bytes:
    """Profile of CMYK by the CIELAB colours of the 16 overprints, linear between them.

    It is one of an input device, whose black point is its darkest ink; a printer's would need the way back as well.

    Args:
        lab: Function from full inks (C, M, Y, K), 0 or 1 each, to L*, a*, b*.
    """
    corners = [lab(inks) for inks in itertools.product((0, 1), repeat=4)]
    table = bytes(round(value) for light, a, b in corners for value in (light * 2.55, a + 128, b + 128))
    ramp = bytes(range(256))
    unit = b"".join(map(_fixed, np.eye(3).ravel()))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit + ramp * 4 + table + ramp * 3
    return assembled({b"wtpt": _triple(D50), b"A2B0": lut, b"A2B1": lut}, b"CMYK", b"Lab ", b"scnr")


def gamma(exponent: float) -> bytes:
    """Curve of a power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def parametric(numbers: Sequence[float]) -> bytes:
    """Curve of type 3, see ``SRGB_CURVE``."""
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, numbers))


def stages(count: int) -> bytes:
    """Chain of so many floating-point stages, each of which swaps red and green."""
    swap = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0)
    place = 16 + 8 * count
    return b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, count) + struct.pack(">II", place, len(swap)) * count + swap


def assembled(
    tags: Mapping[bytes, bytes], space: bytes = b"RGB ", connection: bytes = b"XYZ ", kind: bytes = b"mntr"
) -> bytes:
    """Profile of version 4 with the given tags, and a description."""
    every = {b"desc": b"mluc" + bytes(4) + struct.pack(">II", 0, 12), **tags}
    place, table, content = 132 + 12 * len(every), struct.pack(">I", len(every)), b""
    for name, data in every.items():
        table += name + struct.pack(">II", place + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(content)
    head = struct.pack(">I4sI4s4s4s12s4s", size, bytes(4), 0x04300000, kind, space, connection, bytes(12), b"acsp")
    return head.ljust(68, b"\0") + b"".join(map(_fixed, D50)).ljust(60, b"\0") + table + content


def _xyz(place: Chromaticity) -> Floats:
    x, y = place
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _triple(values: Floats) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


SRGB = matrix_profile((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65, parametric(SRGB_CURVE))
DISPLAY_P3 = matrix_profile((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65, parametric(SRGB_CURVE))
ADOBE_RGB = matrix_profile((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65, gamma(563 / 256))
PROPHOTO = matrix_profile((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585), gamma(1.8))
