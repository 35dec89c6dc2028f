from pathlib import Path

import numpy as np
from PIL import Image

from training.export_scenes import export
from training.scenes import CLASSES, SceneSettings, scene


def test_the_folder_of_a_picture_is_its_class(tmp_path: Path) -> None:
    settings = SceneSettings(size=(40, 48))
    export(tmp_path, 10, 3, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CLASSES)
    for index in range(10):
        (path,) = tmp_path.glob(f"*/{index:06d}.png")
        drawn = scene(3, index, settings)
        assert path.parent.name == CLASSES[drawn.label]
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), drawn.image)
