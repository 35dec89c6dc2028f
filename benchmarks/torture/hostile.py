"""Bodies and options that no honest client sends, drawn by a seed."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAMES = (
    *("target_class", "steps", "tolerance", "quadrature", "baseline", "segments", "masks", "pixels", "method", "layer"),
    *("combine", "smooth", "outputs", "picture", "picture_sigma", "detection", "threshold", "draws", "seed", "graph"),
)
VALUES = (
    *("", "-1", "0", "1e309", "NaN", "9" * 400, "true", "[]", "{}", "null", "\x00", "../../etc/passwd", "star; DROP"),
    *("[METRICS]explain_requests_total.Count:1|#model:bit", "%s%n%x", "zwölf", "\ud7ff", "a" * 5000, "1,2,3", "0x10"),
)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def body(rng: random.Random, photo: bytes) -> tuple[bytes, str]:
    """A body and its content type.

    Args:
        rng: Source of all choices.
        photo: Encoded photo that some of them are made of.
    """
    makers: tuple[Callable[[], tuple[bytes, str]], ...] = (
        lambda: (b"", "image/jpeg"),
        lambda: (rng.randbytes(rng.randrange(1, 4000)), "application/octet-stream"),
        lambda: (photo[: rng.randrange(len(photo))], "image/jpeg"),
        lambda: (_flipped(rng, photo), "image/jpeg"),
        lambda: (_bomb(rng), "image/png"),
        lambda: (_json(rng), "application/json"),
        lambda: (b'{"image": "' + rng.randbytes(200).hex().encode() + b'"}', "application/json"),
        lambda: (b"[" * rng.randrange(10, 20_000), "application/json"),
        lambda: (json.dumps({"img_data": _nested(rng)}).encode(), "application/json"),
        lambda: (_form(rng, photo), "multipart/form-data; boundary=limit"),
        lambda: (photo, rng.choice(("text/plain", "multipart/form-data", "application/json", "x" * 500, ""))),
        lambda: (b"GIF89a" + rng.randbytes(100), "image/gif"),
    )
    return rng.choice(makers)()


def options(rng: random.Random) -> str:
    """Options for the header, which takes no control characters and nothing beyond latin-1."""
    pairs = [f"{rng.choice(NAMES)}={rng.choice(VALUES)}" for _ in range(rng.randrange(4))]
    return "".join(character for character in "&".join(pairs) if " " <= character < "\x7f")[:6000]


def _flipped(rng: random.Random, photo: bytes) -> bytes:
    changed = bytearray(photo)
    for _ in range(rng.randrange(1, 50)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _bomb(rng: random.Random) -> bytes:
    """A small file that says it holds up to 2^62 pixels."""
    header = struct.pack(">IIBBBBB", rng.randrange(1, 2**31), rng.randrange(1, 2**31), 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _json(rng: random.Random) -> bytes:
    content = {rng.choice(NAMES): rng.choice(VALUES) for _ in range(rng.randrange(1, 6))}
    content |= {"image": rng.choice((None, 3, "", "AAAA", [], {}))}
    return json.dumps(content).encode()


def _nested(rng: random.Random) -> object:
    value: object = rng.choice((0, "x", None, -1, 1e300, []))
    for _ in range(rng.randrange(1, 5)):
        value = [value] * rng.randrange(0, 6)
    return value


def _form(rng: random.Random, photo: bytes) -> bytes:
    parts = []
    for _ in range(rng.randrange(4)):
        name, content = rng.choice((*NAMES, "image")), rng.choice((photo, b"", rng.randbytes(30)))
        parts.append(b'--limit\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + content)
    return b"\r\n".join(parts) + rng.choice((b"\r\n--limit--\r\n", b""))
