"""The cost of the request parser and the encoders, beside the alternatives they were chosen over.

    python -m benchmarks.bench_wire [--repeat N]

Prints three tables: nested JSON lists into pixels, tensors into files, files into gzip. Times are the best of N runs on
one thread, in milliseconds.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import platform
import time
import zlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import orjson
import safetensors.torch
import torch
from isal import igzip
from PIL import Image
from torch import Tensor

from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, parse
from imagexplain.api.response import encode
from imagexplain.vision.decode import from_list
from imagexplain.vision.heatmap import overlay

_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


def best(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """The shortest of ``repeat`` runs in milliseconds, and what the call returned."""
    shortest, value = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        value = call()
        shortest = min(shortest, time.perf_counter() - start)
    return 1000 * shortest, value


def result(steps: int = 50, side: int = 32) -> dict[str, Any]:
    """An explanation in the original servers' form, with gradients as noisy as real ones."""
    generator = torch.Generator().manual_seed(0)
    gradients = 1e-3 * torch.randn(steps, 3, side, side, generator=generator)
    image = torch.rand(3, side, side, generator=generator)
    return {
        "integrated_grads": (image * gradients.mean(dim=0))[None],
        "integrated_directional_grads": gradients,
        "step_sizes": torch.full((steps, 1), 1 / steps),
        "intermediates": torch.linspace(0, 1, steps)[:, None, None, None] * image,
        "output": torch.randn(1, 10, generator=generator),
        "target_class": 3,
    }


def lists(repeat: int) -> None:
    """A photo of 480×640×3 as nested lists, from the body's bytes to a uint8 array."""
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    body = json.dumps({"img_data": pixels.tolist(), "target_class": "cat"}).encode()
    ways: dict[str, Callable[[], Any]] = {
        "json + np.array": lambda: np.array(json.loads(body)["img_data"], dtype=np.uint8),
        "orjson + np.array": lambda: np.array(orjson.loads(body)["img_data"], dtype=np.uint8),
        "msgspec + np.array": lambda: np.array(msgspec.json.decode(body)["img_data"], dtype=np.uint8),
        "msgspec.Raw + from_list": lambda: np.asarray(from_list(_RAW.decode(body)["img_data"]).image),
        "parse, whole": lambda: np.asarray(parse({"body": body}, {}, kind="explanation").photo.image),
    }
    print(f"\nnested list of 480×640×3, {len(body):,} bytes of JSON\n{'':26}{'ms':>8}{'ratio':>8}")
    first = None
    for name, way in ways.items():
        took, array = best(way, repeat)
        if not np.array_equal(array, pixels):
            raise AssertionError(f"{name} read other pixels")
        first = first or took
        print(f"{name:26}{took:8.1f}{first / took:7.1f}×")


def files(repeat: int) -> None:
    """The same explanation in every form that leaves."""
    values = result()
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    photo = Image.effect_noise((640, 480), 60).convert("RGB")
    picture = overlay(photo, values["integrated_grads"])

    def saved() -> bytes:
        file = io.BytesIO()
        torch.save(values, file)
        return file.getvalue()

    def png(level: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, format="PNG", compress_level=level)
        return file.getvalue()

    ways: dict[str, Callable[[], bytes]] = {
        "torch.save": saved,
        "safetensors": lambda: safetensors.torch.save(tensors),
        "encode, application/gzip": lambda: encode(values, GZIP).body,
        "encode, safetensors": lambda: encode(values, SAFETENSORS).body,
        "encode, application/json": lambda: encode(values, JSON).body,
        "encode, image/png 640×480": lambda: encode(values, PNG, picture=picture).body,
        "PNG level 6": lambda: png(6),
        "PNG level 3": lambda: png(3),
        "overlay 640×480": lambda: overlay(photo, values["integrated_grads"]).tobytes(),
    }
    print(f"\nexplanation of 50 steps at 32×32\n{'':26}{'ms':>8}{'bytes':>12}")
    for name, way in ways.items():
        took, data = best(way, repeat)
        print(f"{name:26}{took:8.2f}{len(data):12,}")


def compressors(repeat: int) -> None:
    """``torch.save`` of an explanation through every gzip that is installed."""
    file = io.BytesIO()
    torch.save(result(), file)
    data = file.getvalue()
    ways: dict[str, Callable[[], bytes]] = {}
    ways |= {f"igzip {level}": partial(igzip.compress, data, level, mtime=0) for level in range(4)}
    ways |= {f"gzip {level}": partial(gzip.compress, data, level, mtime=0) for level in (1, 6, 9)}
    ways |= {f"zlib {level}": partial(zlib.compress, data, level, wbits=31) for level in (1, 6)}
    print(f"\ngzip of {len(data):,} bytes\n{'':26}{'ms':>8}{'bytes':>12}{'share':>8}{'MB/s':>8}")
    for name, way in ways.items():
        took, packed = best(way, repeat)
        if gzip.decompress(packed) != data:
            raise AssertionError(f"{name} lost something")
        print(f"{name:26}{took:8.2f}{len(packed):12,}{len(packed) / len(data):8.3f}{len(data) / took / 1000:8.0f}")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description="Measure parsing and encoding.")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, of which the best counts (default: 5)")
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    packages = ("torch", "numpy", "msgspec", "orjson", "isal", "safetensors", "pillow")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}")
    lists(repeat)
    files(repeat)
    compressors(repeat)


if __name__ == "__main__":
    main()
