"""The library beside shap's explainers of images, as their users call them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imagexplain.attribution import shapley_sampling

shap = pytest.importorskip("shap")


def network() -> nn.Module:
    """A small seeded network."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)).eval()


@pytest.mark.upstream
def test_partition_explainers_rectangles_have_nearly_the_shapley_values_of_a_grid() -> None:
    """Owen values of halved rectangles are no Shapley values of a grid; sums are equal, and quarters nearly."""
    model, image = network(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def scores(rows: NDArray[np.float64]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: Tensor = model(torch.from_numpy(np.asarray(rows)).permute(0, 3, 1, 2).float())
        return found.numpy()

    masker = shap.maskers.Image(np.zeros((32, 32, 3)), (32, 32, 3))
    explainer = shap.PartitionExplainer(scores, masker)
    found = explainer(image.permute(0, 2, 3, 1).numpy(), max_evals=300, batch_size=50, outputs=[3], silent=True)
    theirs = torch.from_numpy(found.values[0, ..., 0]).sum(-1)
    quarters = (torch.arange(32) // 16)[:, None] * 2 + torch.arange(32) // 16
    ours = shapley_sampling(model, image, 3, groups=quarters, permutations=200)[0, 0]
    difference = (model(image) - model(0 * image))[0, 3].item()
    each = np.array([(theirs[quarters == part].sum(), ours[quarters == part][0]) for part in range(4)])
    assert each.sum(0) == pytest.approx([difference] * 2, abs=1e-6)
    assert np.corrcoef(each.T)[0, 1] > 0.99
