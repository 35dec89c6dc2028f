"""The page of all endpoints, options and answers, from the OpenAPI document: no script draws it, search finds it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from imagexplain.api.openapi import document
from imagexplain.serving.interface import GENERIC

PLACE = "reference/http.md"

Schema = dict[str, Any]

_INTRODUCTION = """# Endpoints, options and answers

Made from the OpenAPI {openapi} document that [`imagexplain openapi --generic`](../http-api.md#as-openapi) writes and
`/openapi.json` at the front door has for the models that are served: there, defaults are those of each model.
[HTTP API](../http-api.md) explains what stands here as a list. Of a name of several versions, `{{model}}` alone means
the newest.
"""
_OPTIONS = """## Options

As fields of JSON, where null is as good as nothing. As text, in a form, the query or `X-Explain-Options`, a number is
its digits, and a list or an object its JSON.
"""
_KINDS = ("classifier", "segmenter", "captioner")
_UNITS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " entries"))
_MANY = 12
"""Number of words of an enumeration above which it is not spelled out within a list."""


def pages() -> dict[str, str]:
    """The page's text by its place on the site."""
    made = document(GENERIC, generic=True)
    lines = [_INTRODUCTION.format(openapi=made["openapi"])]
    for tag, heading in (("classifier", "Predictions and explanations"), ("protocols", None), ("server", None)):
        lines.append(f"## {heading or _described(made, tag)}\n")
        lines += _operations(made, tag)
    lines += [_OPTIONS, *_options(made), "## Answers and their parts\n", *_types(made), *_errors(made)]
    return {PLACE: "\n".join(lines)}


def _described(made: Schema, tag: str) -> str:
    return next(str(each["description"]).rstrip(".") for each in made["tags"] if each["name"] == tag)


def _operations(made: Schema, tag: str) -> Iterator[str]:
    for path, item in made["paths"].items():
        if "{version}" in path:
            continue
        found = {verb: each for verb, each in item.items() if verb != "parameters" and tag in each["tags"]}
        if not found:
            continue
        operation = next(iter(found.values()))
        yield f"### `{' or '.join(map(str.upper, found))} {path}`\n"
        yield f"{operation['summary']}. {operation.get('description', '')}".rstrip() + "\n"
        versioned = (each for each in made["paths"] if re.sub(r"(/versions)?/{version}", "", each) == path != each)
        yield from (f"Of one version: `{each}`.\n" for each in versioned)
        if operation.get("security") == []:
            yield "Needs no key.\n"
        yield from _bodies(operation)
        yield from _statuses(made, operation)


def _bodies(operation: Schema) -> Iterator[str]:
    if content := operation.get("requestBody", {}).get("content"):
        yield "| body | of |\n| --- | --- |"
        held: dict[str, list[str]] = {}
        for media, each in content.items():
            held.setdefault(_type(each["schema"]), []).append(f"`{media}`")
        yield from (f"| {', '.join(media)} | {of} |" for of, media in held.items())
        yield ""


def _statuses(made: Schema, operation: Schema) -> Iterator[str]:
    yield "| status | answer |\n| --- | --- |"
    for status, response in operation["responses"].items():
        if "$ref" in response:
            continue
        forms = [f"`{media}`: {_type(each['schema'])}" for media, each in response.get("content", {}).items()]
        yield f"| {status} | {_cell(response['description'])} {'; '.join(forms)} |"
    refused = [status for status, response in operation["responses"].items() if "$ref" in response]
    if refused:
        yield f"| {', '.join(refused)} | [refused](#refusals) |"
    yield ""


def _options(made: Schema) -> Iterator[str]:
    schemas = made["components"]["schemas"]
    for kind in _KINDS:
        for request in ("Prediction", "Explanation"):
            properties = dict(schemas[f"{kind}.{request}Json"]["properties"])
            photo = [properties.pop(name) for name in ("image", "img_data") if name in properties]
            yield f"### {request}s of a {kind}\n"
            if not properties:
                yield "None, beside the photo.\n" if photo else "None.\n"
                continue
            yield "| option | meaning |\n| --- | --- |"
            for name, schema in properties.items():
                yield _row(name, f"{_type(_given(schema))}{_default(schema)}", schema)
            yield ""


def _given(schema: Schema) -> Schema:
    """A schema without null, which in an option says that it is not given."""
    kinds, values = schema.get("type"), schema.get("enum")
    found = dict(schema)
    if isinstance(kinds, list):
        kept = [kind for kind in kinds if kind != "null"]
        found["type"] = kept[0] if len(kept) == 1 else kept
    if values:
        found["enum"] = [value for value in values if value is not None]
    for name in ("anyOf", "oneOf"):
        if name in found:
            found[name] = [_given(each) for each in found[name] if each.get("type") != "null"]
    return found


def _types(made: Schema) -> Iterator[str]:
    for name, schema in made["components"]["schemas"].items():
        if "." in name:
            continue
        yield f"### {name}\n\n{_cell(schema.get('description', ''))}\n"
        required = schema.get("required", ())
        yield "| field | meaning |\n| --- | --- |"
        for field, each in schema.get("properties", {}).items():
            yield _row(field, _type(each) + ("" if field in required else ", not always there"), each)
        yield ""


def _row(name: str, kind: str, schema: Schema) -> str:
    """Row of an option or a field: its meaning, and below that its type."""
    meaning = _cell(schema.get("description", ""))
    return f"| `{name}` | {meaning}{'<br>' * bool(meaning)}*{kind}* |"


def _errors(made: Schema) -> Iterator[str]:
    yield "## Refusals\n\nThe answer is a [Refusal](#refusal).\n\n| status | | when |\n| --- | --- | --- |"
    for name, response in made["components"]["responses"].items():
        (status,) = (each for each in HTTPStatus if each.phrase.replace(" ", "") == name)
        yield f"| {status.value} | {status.phrase} | {_cell(response['description'])} |"
    yield ""


def _type(schema: Schema) -> str:
    """A schema in words, with links to the types that it names."""
    if "$ref" in schema:
        return _named(schema["$ref"].rpartition("/")[2])
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        said = (
            _cell(each["description"]).rstrip(".") if "description" in each else _type(each) for each in alternatives
        )
        between = "; or " if any("description" in each for each in alternatives) else " or "
        return between.join(dict.fromkeys(said))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`".replace('"', "") for value in schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(kind) + _bounds(schema)
    if kind == "array":
        parts = schema.get("prefixItems") or [schema.get("items") or {"description": "values"}]
        return f"list of {' and '.join(dict.fromkeys(map(_held, parts)))}{_bounds(schema)}"
    if kind == "object" and (properties := schema.get("properties")):
        return f"object of {', '.join(f'`{name}`' for name in properties)}"
    if kind is None:
        return _cell(schema.get("description", "any value"))
    words = "base64 of a file" if schema.get("contentEncoding") == "base64" else str(kind)
    return words + _bounds(schema)


def _named(name: str) -> str:
    kind, _, form = name.rpartition(".")
    if not kind:
        return f"[{name}](#{name.lower()})"
    request = "predictions" if form.startswith("Prediction") else "explanations"
    return f"[{kind}'s options](#{request}-of-a-{kind})"


def _held(schema: Schema) -> str:
    """An entry of a list in words."""
    if len(schema.get("enum", ())) > _MANY:
        return f"one of {len(schema['enum'])} words, as `{schema['enum'][0]}`"
    words = _type(schema)
    return f"({words})" if " or " in words else words


def _bounds(schema: Schema) -> str:
    said = [f"above {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
    said += [f"below {schema['exclusiveMaximum']}"] if "exclusiveMaximum" in schema else []
    for low, high, unit in _UNITS:
        least, most = schema.get(low), schema.get(high)
        if least is not None and least == most:
            said.append(f"{least}{unit}")
        elif least is not None and most is not None and not unit:
            said.append(f"{least} … {most}")
        else:
            said += [f"at least {least}{unit}"] if least is not None and not (unit and least <= 1) else []
            said += [f"at most {most}{unit}"] if most is not None else []
    return f" ({', '.join(said)})" if said else ""


def _default(schema: Schema) -> str:
    return f"; `{schema['default']}` if not given" if "default" in schema else ""


def _cell(text: str) -> str:
    """Words within a table; the lines of a list stay lines."""
    return "<br>".join(" ".join(line.split()) for line in text.replace("|", "\\|").removeprefix("- ").split("\n- "))
