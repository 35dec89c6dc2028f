"""Explainers of KServe's that asked a predictor, alibi's anchors and ART's attack, beside this service's own answer.

They ask the front door as they asked KServe's predictor: instances of nested lists of numbers, at ``:predict``. alibi
wants an older NumPy than the service, so that both run in an environment of their own, which has neither torch nor
anything of this repository:

python -m venv others && others/bin/pip install alibi adversarial-robustness-toolbox click requests
others/bin/python benchmarks/other_explainers.py --url https://127.0.0.1:8443 --key KEY --model bit --photo photo.png
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import requests
from alibi.explainers import AnchorImage
from art.attacks.evasion import SquareAttack
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from PIL import Image

AT_ONCE = 32
"""Number of instances of one request."""


class Predictor:
    """A model behind KServe's V1 protocol; called with (N, H, W, 3) pixels, it gives (N, classes) probabilities.

    Args:
        url: Address of the front door.
        model: Name of the model.
        key: Key of a client.
        certificate: Certificate of the front door.
    """

    def __init__(self, url: str, model: str, key: str, certificate: str) -> None:
        self.path, self.requests, self.instances = f"{url}/v1/models/{model}", 0, 0
        self.session = requests.Session()
        self.session.headers["Authorization"], self.certificate = f"Bearer {key}", certificate

    def ask(self, verb: str, pixels: np.ndarray, **parameters: object) -> dict:
        """The answer to one request."""
        body = {"instances": np.clip(np.rint(pixels), 0, 255).tolist(), "parameters": parameters}
        answer = self.session.post(f"{self.path}:{verb}", json=body, timeout=60, verify=self.certificate)
        answer.raise_for_status()
        self.requests, self.instances = self.requests + 1, self.instances + len(pixels)
        found: dict = answer.json()
        return found

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        rows = []
        for start in range(0, len(pixels), AT_ONCE):
            for one in self.ask("predict", pixels[start : start + AT_ONCE])["predictions"]:
                row = np.zeros(CLASSES)
                for best in one["predictions"]:  # the best five; the others have what is left
                    row[best["index"]] = best["probability"]
                rows.append(row)
        return np.array(rows)


CLASSES = 10


def anchors(predictor: Predictor, pixels: np.ndarray) -> dict:
    """An anchor, and the mean attribution of its superpixels and of the others by this service's Shapley values."""
    explainer = AnchorImage(
        predictor, pixels.shape, segmentation_fn="slic", segmentation_kwargs={"n_segments": 12, "compactness": 20}
    )
    predictor.requests = predictor.instances = 0
    found = explainer.explain(pixels, threshold=0.95, p_sample=0.9, seed=0)
    segments = found.data["segments"]
    kept = np.any(found.data["anchor"] != 0, axis=2)
    inside = sorted({int(label) for label in np.unique(segments) if kept[segments == label].mean() > 0.5})
    asked = {"requests": predictor.requests, "instances": predictor.instances}
    (own,) = predictor.ask(
        "explain", pixels[None], method="shapley_sampling", baseline="black", segments="slic", n_segments=12
    )["explanations"]
    map_of = np.array(own["attributions"])[0]
    _, sizes = np.unique(map_of, return_counts=True)
    each = {int(label): float(map_of[segments == label].mean()) for label in np.unique(segments)}
    ranked = sorted(each, key=each.__getitem__, reverse=True)
    return {
        "precision": float(np.mean(found.data["precision"])),
        "coverage": float(found.data["coverage"]),
        "segments": len(each),
        "anchor": inside,
        "ranks of the anchor's segments by this service": [ranked.index(label) + 1 for label in inside],
        "parts here": len(sizes),
        **asked,
    }


def attack(predictor: Predictor, pixels: np.ndarray) -> dict:
    """An adversarial example, and how far it lies from the photo."""
    classifier = BlackBoxClassifierNeuralNetwork(
        lambda rows: predictor(255 * rows), pixels.shape, CLASSES, clip_values=(0, 1), channels_first=False
    )
    predictor.requests = predictor.instances = 0
    photo = (pixels / 255).astype(np.float32)[None]
    found = SquareAttack(classifier, eps=0.1, max_iter=60, nb_restarts=1, verbose=False).generate(photo)
    before, after = predictor(255 * photo)[0], predictor(255 * found)[0]
    return {
        "largest change": float(np.abs(found - photo).max()),
        "class before and after": [int(before.argmax()), int(after.argmax())],
        "requests": predictor.requests,
    }


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="https://127.0.0.1:8443")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="bit")
    parser.add_argument("--certificate", default="run/edge/certificate.pem")
    parser.add_argument("--photo", type=Path, required=True, help="an image of the model's own size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results_other_explainers.json"))
    given = parser.parse_args()
    predictor = Predictor(given.url, given.model, given.key, given.certificate)
    pixels = np.asarray(Image.open(given.photo).convert("RGB"), np.float32)
    packages = ("alibi", "adversarial-robustness-toolbox", "numpy")
    found = {
        "versions": {name: version(name) for name in packages},
        "alibi, AnchorImage": anchors(predictor, pixels),
        "ART, SquareAttack": attack(predictor, pixels),
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(given.out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
