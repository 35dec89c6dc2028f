"""List the models of the server on this machine, or of another by its front door's address: state, input, labels.

imagexplain models
imagexplain models --url https://explain.example.org --json

Archives of the store that are not served are listed, too. A front door tells what its OpenAPI document has.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

from imagexplain.archive.spec import CaptionerSpec, ClassifierSpec, ModelSpec, SegmenterSpec
from imagexplain.checkout import ROOT
from imagexplain.cli.connection import add_arguments, connect
from imagexplain.cli.table import table
from imagexplain.client import ClientError, StatusError
from imagexplain.client.loopback import stays_here
from imagexplain.ops.observation import observe
from imagexplain.ops.server import Server, ServerError, find
from imagexplain.ops.store import StoredModel, addressed, stored

KINDS: Mapping[str, str] = {
    "ClassPrediction": "classifier",
    "InstancePrediction": "segmenter",
    "CaptionPrediction": "captioner",
}
"""Kinds of models, by the type of their predictions."""

READINESS_SECONDS = 10.0
"""Time without a byte after which a front door's word on its models is given up."""


@dataclass(frozen=True)
class ListedModel:
    """A model as it is listed, fit for JSON; None for what is not known.

    Attributes:
        model: Name in addresses.
        version: Version.
        kind: Kind of the model.
        state: READY, LOADING or UNAVAILABLE; "not served" for an archive of the store alone.
        workers: State of each worker: READY, LOADING, STOPPED or DEAD.
        input: Size of the input, in words.
        labels: Number of labels; of a captioner, of words.
        method: Default method of explanations.
        methods: Names of the supported methods.
        description: Words of the spec.
    """

    model: str
    version: str | None = None
    kind: str | None = None
    state: str | None = None
    workers: tuple[str, ...] | None = None
    input: str | None = None
    labels: int | None = None
    method: str | None = None
    methods: tuple[str, ...] | None = None
    description: str = ""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="archives, where no server runs")
    made.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(made)
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        found = listed(given)
    except (ClientError, ServerError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps([asdict(model) for model in found], indent=2) if given.json else text(found))
    return 0


def listed(options: argparse.Namespace) -> list[ListedModel]:
    """The models of a front door, or else of the server on this machine and of its store, by name.

    Args:
        options: Values of this command's arguments.

    Raises:
        ClientError: no front door's answer.
        ServerError: no key file.
        OSError, ValueError: an archive that cannot be read, or a server that does not answer.
    """
    if options.url:
        with connect(options) as client:
            try:
                document = client.document()
            except StatusError as error:
                wanted = "wanted an OpenAPI document, which a front door has (make serve-edge)"
                raise ClientError(f"{client.url}: {wanted}, got {error}") from None
            return of_document(document, readiness(client.url, options.certificate))
    server = find(options.run.resolve())
    models = stored(Path(server.store) if server and server.store else options.store)
    if not server:
        return [of_archive(address, model) for address, model in addressed(models).items()]
    return of_server(server, models)


def of_server(server: Server, models: list[StoredModel]) -> list[ListedModel]:
    """The models that a server serves, and those that its store holds beside them.

    Raises:
        OSError, ValueError: the server does not answer, or something else.
        ServerError: no key file.
    """
    known = addressed(models) | {f"{model.spec.name}/{model.spec.version}": model for model in models}
    found = {
        model.address: of_archive(
            model.address, known.get(model.address), model.state, tuple(worker.state for worker in model.workers)
        )
        for model in observe(server)
    }
    served = {f"{model.model.partition('/')[0]}/{model.version}" for model in found.values()}
    for address, model in addressed(models).items():
        if f"{model.spec.name}/{model.spec.version}" not in served:
            found.setdefault(address, of_archive(address, model))
    return [found[address] for address in sorted(found)]


def of_archive(
    address: str,
    model: StoredModel | None,
    state: str = "not served",
    workers: tuple[str, ...] = (),
) -> ListedModel:
    """A model as its archive describes it; None for an archive without a description."""
    if model is None:
        return ListedModel(address, address.partition("/")[2] or None, state=state, workers=workers)
    spec = model.spec
    return ListedModel(
        model=address,
        version=spec.version,
        kind=spec.handler,
        state=state,
        workers=workers,
        input=input_of(spec),
        labels=len(spec.labels),
        method=spec.explain.method,
        methods=model.methods,
        description=spec.description,
    )


def input_of(spec: ModelSpec) -> str | None:
    """The size of a model's input, in words; None where its own pipeline says."""
    match spec:
        case ClassifierSpec():
            return "{}×{}".format(*spec.preprocess.size)
        case SegmenterSpec() if spec.resize:
            return f"shorter side {spec.resize.shorter}, longer up to {spec.resize.longer}"
        case CaptionerSpec() if spec.features:
            return f"boxes, longer side {spec.features.longer}"
    return None


def readiness(url: str, certificate: Path | None) -> dict[str, Any]:
    """The answer of a front door's ``/readyz``, whose 503 says as much as its 200; empty where there is none."""
    handlers: list[BaseHandler] = [ProxyHandler({})] if stays_here(url) else []
    if certificate:
        handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=certificate)))
    try:
        try:
            with build_opener(*handlers).open(f"{url.rstrip('/')}/readyz", timeout=READINESS_SECONDS) as answer:
                found = json.load(answer)
        except HTTPError as error:
            found = json.load(error)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def of_document(document: Mapping[str, Any], ready: Mapping[str, Any]) -> list[ListedModel]:
    """The models of an OpenAPI document, and of what ``/readyz`` answers."""
    found = []
    states = ready.get("models", {})
    for path in document["paths"]:
        address = path.removeprefix("/predictions/")
        if address == path or "{" in address:
            continue
        post = document["paths"][path]["post"]
        prediction = post["responses"]["200"]["content"]["application/json"]["schema"].get("$ref", "")
        schemas, name = document["components"]["schemas"], address.replace("/", "-")
        options = schemas.get(f"{name}.ExplanationOptions", {}).get("properties", {})
        method = options.get("method", {})
        tags = {tag["name"]: tag.get("description", "") for tag in document.get("tags", ())}
        found.append(
            ListedModel(
                model=address,
                version=address.partition("/")[2] or None,
                kind=KINDS.get(prediction.rpartition("/")[2]),
                state=states.get(address),
                method=method.get("default"),
                methods=tuple(method["enum"]) if "enum" in method else None,
                description=tags.get(address, ""),
            )
        )
    return sorted(found, key=lambda model: model.model)


def text(models: list[ListedModel]) -> str:
    """The list for a reader."""
    rows = [
        [
            model.model,
            model.version or "",
            model.kind or "",
            model.state or "",
            "" if model.workers is None else str(len(model.workers)),
            model.input or "",
            "" if model.labels is None else str(model.labels),
            model.method or "",
        ]
        for model in models
    ]
    return table(["model", "version", "kind", "state", "workers", "input", "labels", "method by default"], rows)
