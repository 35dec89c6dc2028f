import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import deterministic
from imagexplain.models.checkpoints import swin_keys
from imagexplain.models.segmenters import mmcv_ext
from tests.models.reference import shapes

OLD, NEW = "swin/old_mmdet2_keys.json", "swin/mmdet3_keys.json"


def authors() -> dict[str, Tensor]:
    """The 189 tensors of the authors' backbone, under `backbone.`, without the largest tensors' memory."""
    return {
        name: deterministic.tensor(name, shape) if "downsample" in name else torch.empty(shape, device="meta")
        for name, shape in shapes(OLD).items()
    }


@pytest.mark.upstream
def test_names_and_shapes_equal_upstream() -> None:
    converted = swin_keys.from_authors(authors())
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == shapes(NEW)


@pytest.mark.upstream
def test_equals_mmdets_converter() -> None:
    mmcv_ext.install()
    from mmdet.models.backbones.swin import swin_converter

    state = authors()
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    wanted = swin_converter({name.removeprefix("backbone."): tensor for name, tensor in backbone.items()})
    given = swin_keys.from_authors(backbone)
    assert given.keys() == wanted.keys()
    values = [name for name, tensor in given.items() if not tensor.is_meta]
    assert len(values) == 9
    assert all(torch.equal(given[name], wanted[name]) for name in values)


def test_downsampling_computes_the_same() -> None:
    """Two channels, a 2×2 patch: the authors' layout is four strided slices, mmdet 3's is `unfold`."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 2, 2, 2, generator=generator)
    weight = torch.randn(3, 8, generator=generator)
    slices = [image[0, :, 0, 0], image[0, :, 1, 0], image[0, :, 0, 1], image[0, :, 1, 1]]
    name = "backbone.layers.0.downsample.reduction.weight"
    ((renamed, converted),) = swin_keys.from_authors({name: weight}).items()
    assert renamed == "backbone.stages.0.downsample.reduction.weight"
    torch.testing.assert_close(converted @ F.unfold(image, 2)[0, :, 0], weight @ torch.cat(slices))
    ((_, norm),) = swin_keys.from_authors({"backbone.layers.0.downsample.norm.bias": torch.arange(8)}).items()
    assert norm.tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_names_elsewhere_stay() -> None:
    state = {"neck.layers.0.attn.weight": torch.zeros(1), "roi_head.mlp.fc1.bias": torch.zeros(1)}
    assert swin_keys.from_authors(state).keys() == state.keys()


def test_which_names_are_the_authors() -> None:
    assert swin_keys.is_authors(authors())
    assert not swin_keys.is_authors(dict.fromkeys(shapes(NEW), torch.empty(0)))


def test_channels_of_something_else() -> None:
    with pytest.raises(ValueError, match=r"norm.weight: wanted a multiple of 4 channels, given \[6\]"):
        swin_keys.from_authors({"backbone.layers.0.downsample.norm.weight": torch.zeros(6)})
