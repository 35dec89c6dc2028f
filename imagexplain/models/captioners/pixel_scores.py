"""Scores of a caption's words as a function of the photo's pixels: through the features to the captioner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.models.captioners.features import FeatureExtractor
from imagexplain.models.captioners.word_scores import WordScores


class PixelScores(nn.Module):
    """Scores of some words of a caption: photos (P, 3, H, W) of 0 … 1 to scores (P, K).

    Args:
        scores: Scores of the words as a function of packed features, for a graph of N nodes.
        extractor: Network that makes the features.
        boxes: Boxes (R, 4) in the photo's pixels, left, top, right, bottom.
        places: Place (N,) of each node's box among them.
    """

    boxes: Tensor
    places: Tensor

    def __init__(self, scores: WordScores, extractor: FeatureExtractor, boxes: Tensor, places: Tensor) -> None:
        super().__init__()
        self.scores = scores
        self.extractor = extractor
        self.register_buffer("boxes", boxes)
        self.register_buffer("places", places)

    def forward(self, photos: Tensor) -> Tensor:
        regions, image = self.extractor(photos, self.boxes)
        packed = torch.cat([regions[:, self.places].flatten(1), image], 1)
        found: Tensor = self.scores(packed[:, None, None])
        return found
