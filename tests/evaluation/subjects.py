"""Small networks and few scenes, as the evaluation takes them."""

from __future__ import annotations

import torch
from torch import nn

from evaluation.evaluated_model import EvaluatedModel
from evaluation.settings import Settings
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.vision.preprocess_settings import Preprocess
from training.scenes import scene

PREPROCESS = Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SEED, DRAWN = 0, 11  # of ten scenes in a row each is of another class; the eleventh is of a class once more
FEW = Settings(removals=8, noisy=2)


def subject_of(network: nn.Module) -> EvaluatedModel:
    """A network of the scenes' size as the evaluation takes it."""
    return EvaluatedModel(
        "toy", network.eval().requires_grad_(False), PREPROCESS, quadrature("gauss_legendre", 5), "zero"
    )


def convolutional_subject() -> EvaluatedModel:
    """A network that says the last drawn scene's class whatever it sees."""
    torch.manual_seed(0)
    head = nn.Linear(8, 10)
    with torch.no_grad():
        head.bias[scene(SEED, DRAWN - 1).label] += 10
    first = (nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    second = (nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
    return subject_of(nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head))
