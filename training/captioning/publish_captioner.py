"""Write a trained demonstration captioner as float16 safetensors, measured as it was written, with its words.

    python -m training.captioning.publish_captioner RUN --out archive_specs/weights/captioner_scenes.safetensors \
        --words archive_specs/labels/captioner.txt

Its scores, control and truth are those on 1,000 held-out scenes with two graphs each, by the float16 weights of
captioner and region encoder; all of it stands in the report beside the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.checkpoints import checkpoint
from training.captioning import demonstration
from training.captioning.command import REGION_ENCODER
from training.captioning.measuring import measured
from training.captioning.scores import BLEU, CIDER
from training.captioning.sources import scene_vocabulary
from training.captioning.train import WEIGHTS
from training.captioning.train_region_encoder import load_region_encoder
from training.finetuning.run_folder import BEST
from training.finetuning.whole_files import write_text
from training.publish import as_float16, publish


def measured_on_held_out(
    model: Captioner, region_encoder: Path, processes: int = 1, cache: Path | None = None
) -> dict[str, Any]:
    """Scores, control and truth of a captioner, in ``eval()``, on the held-out scenes, rounded to four places.

    Args:
        model: Captioner.
        region_encoder: Weights of the region encoder.
        processes: Number of processes that draw scenes.
        cache: Folder in which encoded scenes are kept.
    """
    encoder, seed = load_region_encoder(region_encoder), demonstration.HELD_OUT_SEED
    scenes = demonstration.encoded_scenes(encoder, seed, demonstration.HELD_OUT, processes, cache)
    items = demonstration.fixed_items(scenes, seed, demonstration.PER_SCENE)
    return _rounded(measured(model, scene_vocabulary(), items, scenes, seed))


def main() -> None:
    """Read the command line, write and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--words", type=Path, help="file for the words, one a line, in the order of their numbers")
    parser.add_argument("--region-encoder", type=Path, default=REGION_ENCODER, help="of the scenes (default: ours)")
    parser.add_argument("--processes", type=int, default=1, help="that draw scenes (default: %(default)s)")
    given = parser.parse_args()
    best = torch.load(given.run / BEST, map_location="cpu", weights_only=True)
    minutes = sum(json.loads(line)["seconds"] for line in (given.run / "epochs.jsonl").read_text().splitlines()) / 60
    weights = as_float16(checkpoint.read(given.run / WEIGHTS))
    model = captioner.build({name: tensor.float() for name, tensor in weights.items()})
    found = measured_on_held_out(model, given.region_encoder, given.processes, given.run)
    args, own = best["args"], found["scores"]["captioner"]
    report = {
        "architecture": "captioner",
        "dimensions": f"width {model.dimensions.hidden}, {model.dimensions.words} words, features of "
        f"{model.dimensions.region}",
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "cider": own[CIDER],
        "bleu4": own[BLEU[3]],
        "held_out": demonstration.HELD_OUT,
        "held_out_seed": demonstration.HELD_OUT_SEED,
        "seed": args["seed"],
        "recipe": f"Adam, cosine from {args['rate']:g}, {args['epochs']} epochs in batches of {args['batch']}, "
        f"of which epoch {best['epoch']} is the best",
        "minutes": round(minutes, 1),
        **found,
    }
    publish(given.out, weights, report)
    if given.words:
        write_text(given.words, "".join(f"{word}\n" for word in scene_vocabulary().words))
    print(f"{given.out}: {json.dumps(own)}; control {found['changes']['all']['answers']:.1%}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(own) for name, own in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
