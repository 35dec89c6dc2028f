"""One step of ViT-B/16 on two images, by the recipe, in a process of its own: prints its peak of memory in bytes."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import torch

from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import TensorImages
from training.finetuning.start import starting_network
from training.finetuning.trainer import finetune


def main(out: Path) -> None:
    """Train for one step, and print what it took."""
    torch.manual_seed(0)
    network = starting_network("vit_base_patch16_224", {}, 2, drop_path=0.1).network
    images = TensorImages(torch.randn(2, 3, 224, 224), torch.arange(2), ("indoors", "outdoors"))
    config = replace(FinetuneConfig(), epochs=1, warmup_epochs=0, batch=2, accumulation=1)
    result = finetune(network, images, images, config, out, progress=False)
    assert len(result.losses) == 1 and result.epochs[0].step == 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
