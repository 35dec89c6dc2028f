"""Check a classifier before it is served: what it is, what it says of a photo, what can be explained, and the cost.

check folder                                        a folder that save_pretrained of transformers wrote
check timm/resnet50.a1_in1k --weights model.safetensors
check torchvision/resnet50 --weights resnet50.pth --labels labels.txt
check model.pt2 --labels labels.txt --preprocess "{size: [224, 224], mean: [0, 0, 0], std: [1, 1, 1]}"
check net.py --factory Net --weights net.pth --labels labels.txt --preprocess "{…}" --write archive_specs/net.yaml
check archive_specs/bit.yaml                        any spec

Nothing is added to the store. --write keeps the spec, from which `make archives` builds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imagexplain.archive.spec import ClassifierSpec, SpecError, select
from imagexplain.errors import ArgumentError
from imagexplain.ops.unpack import unpack
from imagexplain.plain_text import printable
from imagexplain.progress import with_progress

LISTED = 5
"""Number of labels and classes that are printed."""

OPTIONS = ("labels", "preprocess", "head", "arguments", "factory")


@dataclass(frozen=True)
class Report:
    """Findings of a check, fit for JSON.

    Attributes:
        source: Source as it was given.
        architecture: Architecture of the spec.
        parameters: Number of the network's parameters.
        size: Height and width of its input.
        preprocess: Preprocessing of photos.
        labels: Labels.
        score: Kind of the score that is explained.
        activation: Activation that makes its probabilities.
        predictions: Best classes of the photo.
        supported: Names of the methods that the network supports.
        refused: Reasons why it does not support the others.
        explained: Class that was explained.
        steps: Number of steps of the explanation that was timed, by the spec's options.
        evaluations: Number of evaluations of the network in it.
        prediction_s, explanation_s: Seconds of an answer, once the model is loaded.
        peak_mib: Largest memory of the process meanwhile, MiB.
        residuals: Relative residuals of paths from black, by the number of steps.
        enough_steps: Number of steps that leaves a residual of 5 % at most; None where none that was tried does.
    """

    source: str
    architecture: str
    parameters: int
    size: tuple[int, int]
    preprocess: dict[str, Any]
    labels: tuple[str, ...]
    score: str
    activation: str
    predictions: list[dict[str, Any]]
    supported: tuple[str, ...]
    refused: dict[str, str]
    explained: str
    steps: int
    evaluations: int
    prediction_s: float
    explanation_s: float
    peak_mib: int
    residuals: dict[int, float]
    enough_steps: int | None

    def text(self) -> str:
        """The report for a reader."""
        listed = "; ".join(printable(label) for label in self.labels[:LISTED])
        more = f" and {len(self.labels) - LISTED} more" if len(self.labels) > LISTED else ""
        residuals = ", ".join(f"{steps}: {own:.1%}" for steps, own in self.residuals.items())
        enough = f"{self.enough_steps} steps" if self.enough_steps else "more steps than were tried"
        return "\n".join(
            [
                f"{self.source}: {self.architecture}, {self.parameters:,} parameters",
                f"input        {self.size[0]} × {self.size[1]}: {_stated(self.preprocess)}",
                f"labels       {len(self.labels)}: {listed}{more}",
                f"head         {self.activation}; explained is the {self.score.replace('_', '-')}",
                f"prediction   {'; '.join(map(_ranked, self.predictions[:LISTED]))}",
                f"explanation  {self.explanation_s:.2f} s of {printable(self.explained)} ({self.steps} steps, "
                f"{self.evaluations} evaluations); a prediction {self.prediction_s:.3f} s; at most {self.peak_mib} MiB",
                f"residual     from black, by steps: {residuals}; {enough} for 5 %",
                f"methods      {len(self.supported)}: {', '.join(self.supported)}",
                *(f"not          {name}: {reason}" for name, reason in self.refused.items()),
            ]
        )


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", help="folder, program, Python file, LIBRARY/NAME, or spec")
    made.add_argument("--weights", help="checkpoint of a model of timm, torchvision or your own")
    made.add_argument("--labels", help="file of the labels, one a line")
    made.add_argument("--preprocess", type=_fields, metavar="YAML", help="fields of the spec's preprocess")
    made.add_argument("--head", type=_fields, metavar="YAML", help="fields of the spec's head")
    made.add_argument("--arguments", type=_fields, metavar="YAML", help="arguments of the network")
    made.add_argument("--factory", help="class or function of an own Python file")
    made.add_argument("--photo", type=Path, help="photo to answer (default: three ramps)")
    made.add_argument("--write", type=Path, metavar="SPEC", help="keep the spec in this file")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """Check what the command line names; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        spec = spec_of(given.source, given.weights, {name: getattr(given, name) for name in OPTIONS})
        photo = given.photo.read_bytes() if given.photo else _example()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(given.source) if spec is None else Path(folder, "checked.yaml")
            if spec is not None:
                file.write_text(_yaml(spec), encoding="utf-8")
            report = check(given.source, file, photo, Path(folder))
        if given.write and spec is not None:
            given.write.write_text(_yaml(spec | {"name": given.write.stem}), encoding="utf-8")
    except (SpecError, ArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(vars(report), indent=2) if given.json else report.text())
    return 0


def check(source: str, file: Path, photo: bytes, work: Path) -> Report:
    """Build the archive of a spec into a folder, and try it as a worker would have it.

    Args:
        source: Name for the report.
        file: File of the spec.
        photo: Encoded photo.
        work: Directory for files.

    Raises:
        SpecError: what cannot be built, naming file and field.
        ArgumentError: the model refuses the photo or the explanation.
    """
    from imagexplain.archive.build import build  # which imports torch, and takes seconds
    from imagexplain.archive.classifier_network import of_sources
    from imagexplain.archive.supported_methods import example_input, find_refusals, read
    from imagexplain.attribution import METHODS
    from imagexplain.models.head import Head
    from imagexplain.serving.trial import try_out

    found = select([file])
    if not found:
        raise SpecError(f"{file}: weights: the environment variable that names them is not set")
    archive = found[-1]
    if not isinstance(archive.model, ClassifierSpec):
        raise SpecError(f"{file}: handler: wanted a classifier, got a {archive.model.handler}")
    packed, unpacked = build(archive, work), work / "unpacked"
    unpack(packed, unpacked)
    trial = with_progress("trying it", lambda: try_out(unpacked, photo))
    network = of_sources(archive).network
    supported = read(unpacked) or ()
    refused = find_refusals(network, example_input(trial.spec), [name for name in METHODS if name not in supported])
    head, told = Head(**trial.spec.head.model_dump()), trial.explanation
    return Report(
        source=source,
        architecture=trial.spec.architecture,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        size=trial.spec.preprocess.size,
        preprocess=trial.spec.preprocess.model_dump(mode="json"),
        labels=trial.spec.labels,
        score=head.score_kind,
        activation=head.activation,
        predictions=trial.prediction["predictions"],
        supported=supported,
        refused=refused,
        explained=told["target_label"],
        steps=told["steps"],
        evaluations=told["evaluations"],
        prediction_s=round(trial.prediction_s, 4),
        explanation_s=round(trial.explanation_s, 3),
        peak_mib=trial.peak_mib,
        residuals={steps: round(own, 5) for steps, own in trial.residuals.items()},
        enough_steps=trial.enough_steps,
    )


def spec_of(source: str, weights: str | None, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of the spec that serves a source; None for a source that is a spec's own file.

    Args:
        source: Source as the command line has it.
        weights: Checkpoint, where the source is none itself.
        options: Values of :data:`OPTIONS`, None for those that were not given.

    Raises:
        ArgumentError: a source that is none, or lacks its weights.
    """
    path, given = Path(source), {name: value for name, value in options.items() if value is not None}
    if path.suffix in (".yaml", ".yml"):
        if weights or given:
            raise ArgumentError(next(iter(given), "weights"), f"stands in the spec itself: {source}")
        return None
    spec: dict[str, Any] = {"name": "checked", "handler": "classifier", "labels": {"from_weights": True}}
    if "labels" in given:
        spec["labels"] = str(Path(given.pop("labels")).resolve())
    factory = given.pop("factory", None)
    if path.is_dir():
        spec |= {"architecture": "huggingface", "weights": str(path.resolve())}
    elif path.suffix == ".py":
        spec |= {"architecture": "module", "module": {"path": str(path.resolve())}}
        spec["module"] |= {"factory": factory} if factory else {}
        factory = None
    elif path.suffix in PROGRAMS and path.is_file():
        spec |= {"architecture": PROGRAMS[path.suffix], "weights": str(path.resolve())}
    elif not path.exists() and "/" in source:
        spec["architecture"] = source
    else:
        wanted = "wanted a folder, a program (.pt2, .pt, .onnx), a Python file, LIBRARY/NAME, or a spec (.yaml)"
        raise ArgumentError("source", f"{wanted}, got {source}")
    if factory is not None:
        raise ArgumentError("factory", f"goes with a Python file, got {source}")
    if weights is not None:
        if "weights" in spec:
            raise ArgumentError("weights", f"are in the source itself: {source}")
        spec["weights"] = str(Path(weights).resolve())
    if "weights" not in spec:
        raise ArgumentError("weights", f"wanted the checkpoint of {source}: --weights FILE")
    return spec | given


PROGRAMS = {".pt2": "exported", ".pt": "torchscript", ".pth": "torchscript", ".ts": "torchscript", ".onnx": "onnx"}
"""Architectures of files that are networks by themselves, by their suffix."""


def _example() -> bytes:
    import io

    from PIL import Image

    from imagexplain.models.example_photo import example_photo

    file = io.BytesIO()
    Image.fromarray(example_photo()).save(file, "PNG")
    return file.getvalue()


def _fields(text: str) -> dict[str, Any]:
    value = yaml.safe_load(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"wanted fields and values, such as '{{a: 1}}', got {text!r}")
    return value


def _yaml(spec: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)


def _stated(preprocess: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in preprocess.items() if name != "size")


def _ranked(row: Mapping[str, Any]) -> str:
    label = printable(str(row["label"]))
    return f"{label} {row['probability']:.1%}" if row.get("probability") is not None else f"{label} {row['score']:.4g}"
