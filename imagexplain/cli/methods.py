"""List the attribution methods: family, cost, and what each needs; of a model, which it supports, and why not others.

imagexplain methods
imagexplain methods --model vit
imagexplain methods --model bit --url https://explain.example.org --key KEY --json

The cost is the number of forward passes, and of passes forward and back, beyond the photo's own one of each: for one
224×224 photo with the default options and 50 groups. Of a model a method needs gradients of the scores, layers that it
can read, attention of a known kind, or non-linearities that it knows and that are not folded away. The reasons are the
server's own words where it runs; else they are those needs.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from imagexplain.attribution.registry import METHODS, Family, Method, Workload
from imagexplain.checkout import ROOT
from imagexplain.cli.connection import add_arguments, connect
from imagexplain.cli.models import ListedModel, listed
from imagexplain.cli.table import table
from imagexplain.client import Client, ClientError, ImpossibleError
from imagexplain.errors import unknown
from imagexplain.ops.server import ServerError

NEEDS: Mapping[str, str] = {
    "gradients": "gradients",
    "module": "layers",
    "attention": "attention",
    "nonlinearities": "non-linearities",
}
"""Words for what a method needs of a model."""

TAKES: Mapping[str, str] = {
    "baselines": "baseline",
    "fill": "baseline",
    "references": "reference images",
    "groups": "groups",
    "segments": "segments",
    "layer": "layer",
}
"""Words for the inputs of a method beside the photo and the class."""

SIZE, GROUPS = (224, 224), 50

GREY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM8YaPBgA0wMeAAg1MCAO+wATws8x7vAAAAAElFTkSuQmCC"
)
"""PNG of 8 by 8 pixels."""

REFUSED, LISTED = "is not supported by this model: ", ". Those that are: "
"""Words around the reason in a server's refusal."""


@dataclass(frozen=True)
class ListedMethod:
    """A method as it is listed, fit for JSON.

    Attributes:
        method: Name.
        family: Kind of the method.
        forward_passes: Number of forward passes without gradients; of a method by channel, beside one for each.
        gradient_passes: Number of passes forward and back.
        by_channel: Cost of one more forward pass for each channel of the layer.
        needs: Properties that it needs of a model.
        takes: Inputs beside the photo and the class.
        options: Default of each option.
        supported: Support by the model that is asked about; None without one, or where that is not known.
        reason: Reason why it is not supported.
    """

    method: str
    family: str
    forward_passes: int
    gradient_passes: int
    by_channel: bool
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    options: Mapping[str, object]
    supported: bool | None = None
    reason: str | None = None


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", help="name, or name/version, of a model of the server or the store")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="archives, where no server runs")
    made.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(made)
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        found = known()
        if given.model:
            model = _chosen(listed(given), given.model)
            if model.state == "READY":
                with connect(given) as client:
                    found = of_model(found, model, partial(reason_of, client, model.model))
            else:
                found = of_model(found, model)
    except (ClientError, ServerError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps([asdict(method) for method in found], indent=2) if given.json else text(found))
    return 0


def known() -> list[ListedMethod]:
    """All methods, family by family."""
    families = get_args(Family)
    return sorted(map(_described, METHODS.values()), key=lambda method: (families.index(method.family), method.method))


def _described(method: Method) -> ListedMethod:
    work = Workload(method.options, SIZE, groups=GROUPS)
    return ListedMethod(
        method=method.name,
        family=method.family,
        forward_passes=round(method.forward_passes(work)),
        gradient_passes=round(method.gradient_passes(work)),
        by_channel=method.by_channel,
        needs=tuple(words for need, words in NEEDS.items() if need in method.needs),
        takes=tuple(dict.fromkeys(TAKES[name] for name in method.parameters if name in TAKES)),
        options=dict(method.options),
    )


def of_model(
    methods: Iterable[ListedMethod], model: ListedModel, ask: Callable[[str], str | None] = lambda method: None
) -> list[ListedMethod]:
    """Methods with their support by a model.

    Args:
        methods: All methods.
        model: Model; of one that does not say what it supports, nothing is known.
        ask: Function that gives the server's reason for refusing a method, or None.
    """
    if model.methods is None:
        return list(methods)
    supported = set(model.methods)
    return [
        replace(method, supported=True)
        if method.method in supported
        else replace(method, supported=False, reason=ask(method.method) or _usual_reason(method))
        for method in methods
    ]


def _usual_reason(method: ListedMethod) -> str:
    if not method.needs:
        return "its archive was built before there was this method: make archives"
    return f"needs {', '.join(method.needs)}"


def _chosen(models: list[ListedModel], name: str) -> ListedModel:
    for model in models:
        if name in (model.model, f"{model.model}/{model.version}"):
            return model
    raise ValueError(unknown("model", name, sorted(model.model for model in models)))


def reason_of(client: Client, model: str, method: str) -> str | None:
    """The server's words on why it refuses a method, for which it computes nothing; None where it says something else.

    Args:
        client: Connection to the server.
        model: Name of a model in addresses.
        method: Name of a method that it does not support.
    """
    try:
        client.ask("explanations", GREY, model, options={"method": method})
    except ImpossibleError as error:
        _, told, reason = error.message.partition(REFUSED)
        return reason.partition(LISTED)[0] if told else None
    except ClientError:
        pass
    return None


def text(methods: list[ListedMethod]) -> str:
    """The list for a reader; of a model, the refused ones with their reasons below."""
    headings = ["method", "family", "forward", "and back", "needs", "takes"]
    rows = [
        [
            method.method,
            method.family,
            f"{method.forward_passes}{' + channels' if method.by_channel else ''}",
            str(method.gradient_passes),
            ", ".join(method.needs),
            ", ".join((*method.takes, *(f"{name}={value}" for name, value in method.options.items()))),
        ]
        for method in methods
        if method.supported is not False
    ]
    refused = [method for method in methods if method.supported is False]
    reasons = "\n".join(f"  {method.method}: {method.reason}" for method in refused)
    return table(headings, rows) + (f"\n\nnot supported:\n{reasons}" if refused else "")
