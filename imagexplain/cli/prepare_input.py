"""Write a photo as the JSON of nested lists that the original servers took.

    prepare_input.py IMAGE CLASS OUT.json                    for classifiers: H×W×3 RGB, with target_class
    prepare_input.py IMAGE OUT.json [--layout hwc|chw]       for mask servers: BGR; each takes both layouts

The photo is read as the server reads encoded files: upright (EXIF orientation applied), in RGB, transparency over
white. The original script wrote grey photos as H×W and ignored orientation; this one always writes three channels of
the photo as people see it. The original Swin server took H×W×3 alone and the original TensorMask server 3×H×W alone;
these tell the two apart by where the 3 is, but for 3×N×3, which each takes for its own. Such JSON is more than twenty
times the size of a JPEG and slower to send; the server also takes the encoded file itself as the body.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.progress import say
from imagexplain.vision.decode import Layout, Photo, decode


def classifier_input(photo: Photo, target: str) -> bytes:
    """``{"img_data": H×W×3 RGB, "target_class": target}``."""
    return msgspec.json.encode({"img_data": np.asarray(photo.image).tolist(), "target_class": target})


def mask_input(photo: Photo, layout: Layout) -> bytes:
    """``{"img_data": …}`` in BGR, H×W×3 or 3×H×W."""
    pixels = np.asarray(photo.image)[..., ::-1]
    if layout == "chw":
        pixels = pixels.transpose(2, 0, 1)
    return msgspec.json.encode({"img_data": pixels.tolist()})


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="Write a photo as the JSON of nested lists that the original servers took.",
        usage="%(prog)s IMAGE CLASS OUT.json\n       %(prog)s IMAGE OUT.json [--layout hwc|chw]",
    )
    made.add_argument("image", type=Path, metavar="IMAGE", help="a JPEG, PNG or WebP file")
    made.add_argument(
        "rest", nargs="+", metavar="[CLASS] OUT.json", help="label of the class to explain; file to write"
    )
    made.add_argument("--layout", choices=("hwc", "chw"), help="mask servers: channels last (default) or first")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line; exits with 2 on wrong usage and 1 on a file that cannot be read or written."""
    made = parser(prog)
    given = made.parse_args(arguments)
    if len(given.rest) > 2:
        made.error(f"wanted IMAGE CLASS OUT.json or IMAGE OUT.json, got {1 + len(given.rest)} arguments")
    if len(given.rest) == 2 and given.layout:
        made.error("--layout is for the mask servers' form, IMAGE OUT.json; with CLASS the layout is H×W×3")
    limits = Limits()
    out = Path(given.rest[-1])
    try:
        photo = decode(given.image.read_bytes(), limits)
        classifier = len(given.rest) == 2
        if not classifier and not given.layout and photo.size[0] == 3:
            wanted = "say --layout hwc for Swin or --layout chw for TensorMask"
            sys.exit(f"{given.image}: a list of three rows of pixels fits both layouts: {wanted}")
        text = classifier_input(photo, given.rest[0]) if classifier else mask_input(photo, given.layout or "hwc")
        out.write_bytes(text)
    except RequestError as error:
        sys.exit(f"{given.image}: {error.message}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    say(f"{out}: {photo.size[1]} × {photo.size[0]} pixels, {len(text):,} bytes")
    if len(text) > limits.max_bytes:
        note = (
            f"the server takes at most {limits.max_bytes:,} bytes; send {given.image.name} itself as the body instead"
        )
        print(f"note: {note}", file=sys.stderr)
