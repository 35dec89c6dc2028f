"""Files of classifiers as their users have them, written by the libraries' own writers, and the archives of these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from handlers.classifier import ClassifierHandler
from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.models.classifiers import own_module
from imagexplain.ops.unpack import unpack
from tests.serving.handlers import classifier_of

SIZE = 32
LABELS = ("cat", "dog", "fox", "owl", "yak")
CODE = '''"""A network of its user's own."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 16, 3, padding=1),
            nn.ReLU(),
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images).mean((2, 3)))
'''
PREPROCESS = {"size": [SIZE, SIZE], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def write_code(folder: Path, name: str = "net.py", code: str = CODE) -> Path:
    """A file of a user's own code."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    return path


def network_of(code: Path, **arguments: Any) -> nn.Module:
    """The network of the code, as after training."""
    torch.manual_seed(0)
    network = own_module.load(code).Net(**arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.2, 0.2)
    network.fc.weight.data *= 5
    return network.eval().requires_grad_(False)


def variables(folder: Path, **given: Path | str) -> dict[str, str]:
    """Variables of a build, with the files of labels and of the preprocessing that both kinds of specs name."""
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / "preprocess.yaml").write_text(yaml.safe_dump(PREPROCESS))
    named = {
        f"{kind}_{field}": str(folder / file)
        for kind in ("OWN", "PROGRAM")
        for field, file in (("LABELS", "labels.txt"), ("PREPROCESS", "preprocess.yaml"))
    }
    return named | {name: str(value) for name, value in given.items()}


def built(folder: Path, spec: str, environ: Mapping[str, str], **changes: Any) -> Path:
    """The archive of one of the repository's specs, or of a copy with changes."""
    path = ROOT / "archive_specs" / f"{spec}.yaml"
    if changes:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) | changes
        path = folder / f"{spec}.yaml"
        path.write_text(yaml.safe_dump(content))
    (archive,) = build_all([path], folder / "store", environ=environ)
    return archive


def unpacked(archive: Path) -> Path:
    """The archive's folder, but for the package's code."""
    folder = archive.with_suffix("")
    unpack(archive, folder)
    return folder


def served(folder: Path, spec: str, environ: Mapping[str, str], **changes: Any) -> ClassifierHandler:
    """The handler of that archive."""
    return classifier_of(unpacked(built(folder, spec, environ, **changes)))
