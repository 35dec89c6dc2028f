"""The model as a game of groups: its answer when only some of the groups are there and the others are the baseline."""

from __future__ import annotations

import torch
from captum.attr import FeatureAblation
from torch import Tensor

from imagexplain.attribution.paths.path_integral import Forward

BATCH = 128


class CoalitionGame:
    """The model's scores of coalitions of groups. Each coalition is evaluated once and then cached.

    Attributes:
        groups: Number of groups.
        evaluations: Number of coalitions evaluated so far.
    """

    def __init__(self, forward: Forward, image: Tensor, baseline: Tensor, segments: Tensor, target: int) -> None:
        """The game of an image (C, H, W) whose groups are a label map (H, W) of 0 … G−1."""
        self.groups = int(segments.max()) + 1
        self._forward, self._image, self._baseline = forward, image, baseline
        self._segments, self._target = segments, target
        self._known: dict[bytes, tuple[float, float]] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def play(self, coalitions: Tensor) -> Tensor:
        """(N, 2) float64: the target's pre-softmax score and its softmax probability for coalitions (N, G) bool."""
        keys = [row.tobytes() for row in coalitions.numpy()]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        for rows in torch.tensor(list(new.values()), dtype=torch.int64).split(BATCH):
            if len(rows):
                present = coalitions[rows][:, self._segments].unsqueeze(1)  # (n, 1, H, W)
                with torch.no_grad():
                    scores = self._forward(torch.where(present, self._image, self._baseline)).double()
                pair = torch.stack([scores, scores.softmax(1)], 2)[:, self._target]
                self._known |= zip((keys[row] for row in rows.tolist()), map(tuple, pair.tolist()), strict=True)
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64).view(-1, 2)

    def scores(self, coalitions: Tensor) -> Tensor:
        """(N,) float64 pre-softmax scores of the target."""
        return self.play(coalitions)[:, 0]


def leave_one_out(game: CoalitionGame) -> Tensor:
    """(G,) float64 f(x) − f(x without the group): what taking each group away alone costs. Occlusion by segment."""
    everyone = torch.ones(1, game.groups, dtype=torch.bool)
    return game.scores(everyone) - game.scores(~torch.eye(game.groups, dtype=torch.bool))


def feature_ablation(forward: Forward, image: Tensor, baseline: Tensor, segments: Tensor, target: int) -> Tensor:
    """(G,) float64 Captum's FeatureAblation with the groups as its features: the same thing by another hand."""
    ablated = FeatureAblation(forward).attribute(
        image.unsqueeze(0),
        baselines=baseline.unsqueeze(0),
        target=target,
        feature_mask=segments.expand(1, *image.shape),
    )
    shares = torch.zeros(int(segments.max()) + 1, dtype=torch.float64)
    return shares.scatter(0, segments.flatten(), ablated[0, 0].flatten().double())
