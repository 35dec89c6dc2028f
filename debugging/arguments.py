"""Arguments that several steps of debugging share, and what they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from debugging.examiner import Examiner, InProcess, Served, encoded
from debugging.model import BASELINES, DEFAULT_BASELINE, DebuggedModel, open_model
from debugging.segmentation import Grid, Instances, LabelMaps, Segmentation, Superpixels
from imagexplain.checkout import ROOT
from imagexplain.cli.connection import add_arguments, connect
from imagexplain.client import Client
from imagexplain.errors import ArgumentError
from imagexplain.vision.decode import Photo
from imagexplain.vision.superpixels import GridSettings, SlicSettings

SPECS = ROOT / "archive_specs"
N_SEGMENTS = 12
"""Approximate number of superpixels of a photo: parts of things, not of textures."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the model, its segments and its server."""
    parser.add_argument("--model", required=True, help="classifier: its name in archive_specs/, a spec file or a .mar")
    parser.add_argument(
        "--segments", default="slic", help="slic, grid, or a segmenter that a server has (default: slic)"
    )
    parser.add_argument(
        "--n-segments", type=int, default=N_SEGMENTS, help=f"number of superpixels (default: {N_SEGMENTS})"
    )
    parser.add_argument("--masks", type=Path, help="folder of label maps instead, <masks>/<class>/<image>.png")
    add_path_arguments(parser)
    parser.add_argument("--served", action="store_true", help="ask a server that serves the model")
    add_arguments(parser)


def model_of(given: argparse.Namespace) -> DebuggedModel:
    """The model that the arguments name. Raises like :func:`debugging.model.open_model`."""
    return open_model(given.model, SPECS, given.baseline, given.steps)


def segmentation_of(given: argparse.Namespace) -> Segmentation:
    """The source of segments that the arguments name.

    Raises:
        ArgumentError: a folder of masks that is none.
        ClientError: no server for the segmenter that is named.
    """
    if given.masks is not None:
        if not given.masks.is_dir():
            raise ArgumentError("masks", f"wanted a folder of label maps, got {given.masks}")
        return LabelMaps(given.masks)
    if given.segments == "slic":
        return Superpixels(SlicSettings(n_segments=given.n_segments))
    if given.segments == "grid":
        return Grid(GridSettings())
    client = connect(given)

    def find(photo: Photo) -> dict[str, Any]:
        body = json.dumps({"image": encoded(photo)}).encode()
        answer = client.post(f"predictions/{given.segments}", body, "application/json", accept="application/json")
        found: dict[str, Any] = answer.json()
        if "detections" not in found:
            raise ArgumentError("segments", f"wanted slic, grid or a segmenter of the server, got {given.segments}")
        return found

    return Instances(find)


def examiner_of(given: argparse.Namespace, model: DebuggedModel, segmentation: Segmentation) -> Examiner:
    """The network here, or the server that serves it."""
    if not given.served:
        return InProcess(model, segmentation)
    client: Client = connect(given)
    steps = {} if given.steps is None else {"steps": given.steps}
    return Served(client, model.served.name, segmentation, {"baseline": given.baseline, **steps})


def settings_of(given: argparse.Namespace, **further: Any) -> dict[str, Any]:
    """Settings on which a step's results depend; with others they are not the same results."""
    masks = None if given.masks is None else str(given.masks.resolve())
    names = ("model", "segments", "n_segments", "baseline", "steps", "served")
    return {name: getattr(given, name) for name in names} | {"masks": masks} | further


def add_path_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of paths and of replaced segments."""
    parser.add_argument(
        "--baseline",
        choices=BASELINES,
        default=DEFAULT_BASELINE,
        help=f"of paths and replaced segments (default: {DEFAULT_BASELINE})",
    )
    parser.add_argument("--steps", type=int, help="points on the path (default: the archive's)")
