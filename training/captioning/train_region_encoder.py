"""Train the region encoder of the demonstration captioner, and write its weights as float16 safetensors.

    python -m training.captioning.train_region_encoder --out archive_specs/weights/region_encoder_scenes.safetensors

The shares that are reported are those of the file as written, on held-out scenes: the layers that read the names off
the features are not in it, and were trained with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from imagexplain.models.captioners.region_encoder import RegionEncoder
from imagexplain.models.checkpoints.checkpoint import COUNTER
from training.captioning.drawn_scenes import draw
from training.captioning.region_encoder import (
    Heads,
    Regions,
    RegionTraining,
    all_regions,
    attribute_accuracy,
    object_regions,
    train_region_encoder,
)
from training.publish import as_float16, publish

HELD_OUT_SEED = 1_000_003  # the series that no training reads
HELD_OUT = 1000
STANDARDISED = 300  # scenes by which features are standardised


def load_region_encoder(file: Path) -> RegionEncoder:
    """The region encoder of a weights file, in ``eval()``; its width follows from the shapes."""
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()}
    encoder = RegionEncoder(len(state["last.bias"]))
    counters = {name: tensor for name, tensor in encoder.state_dict().items() if name.endswith(COUNTER)}
    encoder.load_state_dict({**counters, **state})
    return encoder.eval()


def main() -> None:
    """Read the command line, train, write and report."""
    usual = RegionTraining()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--scenes", type=int, default=1500, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=usual.steps, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="series of the scenes (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that draw scenes (default: %(default)s)")
    given = parser.parse_args()
    config = RegionTraining(steps=given.steps, seed=given.seed)
    began = time.monotonic()
    scenes = list(draw(config.seed, given.scenes, given.processes))
    regions, everything = object_regions(scenes, jittered_by=config.seed), all_regions(scenes[:STANDARDISED])
    encoder, heads = train_region_encoder(regions, everything, config)
    minutes = (time.monotonic() - began) / 60
    held_out = object_regions(draw(HELD_OUT_SEED, HELD_OUT, given.processes))
    found = write(given.out, encoder, heads, held_out, config, given.scenes, minutes)
    print(f"{given.out}: " + ", ".join(f"{name} {value:.2%}" for name, value in found.items()))


def write(
    out: Path,
    encoder: RegionEncoder,
    heads: Heads,
    held_out: Regions,
    config: RegionTraining,
    scenes: int,
    minutes: float,
) -> dict[str, float]:
    """Write an encoder's weights with their report; returns the share of right names, by attribute.

    Args:
        out: File to write.
        encoder: Encoder; it ends with the weights as they were written.
        heads: Layers that read the names off its features.
        held_out: Objects to measure on.
        config: Settings of its training.
        scenes: Number of scenes that it was trained on.
        minutes: Minutes that the training took.
    """
    own = encoder.state_dict()
    weights = as_float16({name: tensor for name, tensor in own.items() if not name.endswith(COUNTER)})
    encoder.load_state_dict({name: weights.get(name, tensor).to(tensor.dtype) for name, tensor in own.items()})
    found = attribute_accuracy(encoder, heads, held_out)
    report: dict[str, Any] = {
        "architecture": "region_encoder",
        "dimensions": "6 convolutions of 16 to 128 channels on crops of 32×32 pixels, 64 values and 7 of geometry",
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "accuracy": round(min(found.values()), 4),
        "attributes": {name: round(value, 4) for name, value in found.items()},
        "held_out": HELD_OUT,
        "held_out_seed": HELD_OUT_SEED,
        "seed": config.seed,
        "recipe": f"AdamW, one cycle to {config.rate:g}, {config.steps} steps of {config.batch} regions, "
        f"{scenes:,} scenes",
        "minutes": round(minutes, 1),
    }
    publish(out, weights, report)
    return found


if __name__ == "__main__":
    main()
