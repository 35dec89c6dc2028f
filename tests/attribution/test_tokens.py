import pytest
import torch
import torchvision
from torch import nn

from imagexplain.attribution.network.tokens import layout_of, stated_layout, stated_prefix
from tests.attribution.networks import tiny_cnn, to_maps, vit


def maps(h: int, w: int) -> torch.Tensor:
    return torch.arange(2 * 5 * h * w, dtype=torch.float64).view(2, 5, h, w)


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (32, 32)), ((14, 10), (224, 160)), ((2, 7), (16, 56))])
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("stated", [True, False])
def test_tokens_there_and_back(grid: tuple[int, int], size: tuple[int, int], prefix: int, stated: bool) -> None:
    expected = maps(*grid)
    tokens = torch.cat([torch.full((2, prefix, 5), -1.0).double(), expected.flatten(2).mT], dim=1)
    assert torch.equal(to_maps(tokens, (2, 3, *size), prefix if stated else None), expected)


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (32, 32)), ((14, 10), (224, 160)), ((2, 6), (16, 56))])
def test_maps_and_channels_last(grid: tuple[int, int], size: tuple[int, int]) -> None:
    expected = torch.randn(2, 48, *grid)
    assert torch.equal(to_maps(expected, (2, 3, *size)), expected)
    assert torch.equal(to_maps(expected.permute(0, 2, 3, 1), (2, 3, *size)), expected)


@pytest.mark.parametrize(("grid", "size"), [((5, 3), (64, 33)), ((10, 26), (16, 32)), ((1, 1), (8, 8))])
def test_sides_are_rounded_and_cut(grid: tuple[int, int], size: tuple[int, int]) -> None:
    assert layout_of((2, 10, *grid), (2, 3, *size)).channels == 1


def test_patches_that_do_not_fill_the_image() -> None:
    layout = layout_of((1, 19, 5), (1, 3, 100, 60), prefix=1)  # 6 × 3 patches of 16
    assert (layout.height, layout.width, layout.prefix) == (6, 3, 1)


def test_stated_prefix_settles_what_a_row_of_tokens_leaves_open() -> None:
    # 5 tokens: 2 × 2 with a class token, or one patch and four others
    assert layout_of((1, 5, 3), (1, 3, 8, 8)).prefix == 1
    assert layout_of((1, 5, 3), (1, 3, 8, 8), prefix=4).prefix == 4
    assert layout_of((1, 4, 3), (1, 3, 8, 8), prefix=1).prefix == 0  # before the class token is there


@pytest.mark.parametrize("shape", [(1, 60, 4), (1, 3), (1, 3, 17, 64), (1, 2, 3, 4, 5), (4, 16, 4), (1, 4, 64, 64), ()])
def test_impossible_layouts(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="layer: wanted an output"):
        layout_of(shape, (1, 3, 32, 32))


def test_number_of_prefix_tokens_is_the_models() -> None:
    assert stated_prefix(vit()) == 1
    assert stated_prefix(torch.nn.Sequential(vit(reg_tokens=4))) == 5
    assert stated_prefix(tiny_cnn()) is None


@pytest.mark.parametrize(
    ("options", "size", "grid", "prefix"),
    [
        ({"size": (224, 112), "patch_size": (16, 8)}, (224, 112), (14, 14), 1),
        ({"size": (64, 32), "reg_tokens": 4}, (64, 32), (8, 4), 5),
        ({"size": (32, 64), "dynamic_img_size": True}, (64, 32), (8, 4), 1),  # as many tokens, another grid
        ({"size": (48, 48), "patch_size": 16, "reg_tokens": 7}, (48, 48), (3, 3), 8),  # 17 tokens, not 4 × 4 and one
    ],
)
def test_what_a_transformer_states_is_its_layout(options, size, grid, prefix: int) -> None:
    model = vit(**options)
    images = torch.zeros(1, 3, *size).double()
    tokens = model.forward_features(images)
    layout = stated_layout(model, model.norm, tokens.shape, images.shape)
    assert (layout.height, layout.width, layout.prefix) == (*grid, prefix)


def test_learned_tokens_state_a_prefix() -> None:
    model = torch.nn.Module()
    for name in ("cls_token_0", "cls_token_1", "dist_token", "mask_token"):
        setattr(model, name, torch.nn.Parameter(torch.zeros(1, 1, 4)))
    model.register_tokens = torch.nn.Parameter(torch.zeros(1, 4, 4))
    assert stated_prefix(model) == 6  # each branch has its own class token
    assert stated_prefix(torchvision.models.VisionTransformer(32, 8, 1, 2, 24, 48)) == 1


def test_several_grids_and_none_stated() -> None:
    with pytest.raises(ValueError, match=r"grid the model states.* 3 and a grid of 3 × 3 or 8 and a grid of 2 × 2"):
        layout_of((1, 12, 5), (1, 3, 12, 12))
    assert layout_of((1, 12, 5), (1, 3, 12, 12), prefix=8).height == 2
    assert layout_of((1, 12, 5), (1, 3, 12, 12), grids=[(3, 3)]).prefix == 3


def test_the_order_of_channels_is_what_the_layer_states() -> None:
    shape, images, model = (1, 8, 8, 8), (1, 3, 32, 32), tiny_cnn()
    stating = {nn.Linear(8, 8): -1, nn.LayerNorm(8): -1, nn.Conv2d(3, 8, 1): 1, nn.BatchNorm2d(8): 1, nn.ReLU(): 1}
    for layer, expected in stating.items():
        assert stated_layout(model, layer, shape, images).channels == expected
    model.output_fmt = "NHWC"
    assert stated_layout(model, nn.Sequential(), shape, images).channels == -1
