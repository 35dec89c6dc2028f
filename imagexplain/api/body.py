"""Bodies and options of requests, from wherever a client puts them: a file, JSON, a multipart form or the header.

Values stay as they came until somebody needs them: a field of JSON is ``msgspec.Raw``, a part of a form its bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from imagexplain.api.options import AMOUNTS, COUNTS, FILES, SWITCHES
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import RequestError, listed, shown, unknown
from imagexplain.limits import Limits

HEADER = "x-explain-options"
"""Name of the header with form-encoded options, in lower case."""

IMAGE_KEYS = ("image", "img_data")
"""Names under which a body holds a photo."""

MAX_OPTIONS = 32
MAX_OPTION_BYTES = 10_000

_JSON = "application/json"
_BODY_KEYS = ("image", "body", "data")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")
_ROW = re.compile(r"[+-]?[0-9]{1,18}")
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check_bytes(row: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a body, or parts of a form, of more bytes than the limit. Raises RequestError 413."""
    size = sum(len(value) for value in row.values() if isinstance(value, bytes | bytearray | str))
    if size > limits.max_bytes:
        raise RequestError(413, "body", f"wanted at most {limits.max_bytes:,} bytes, got {size:,}")


def body_fields(
    row: Mapping[str, Any], headers: Mapping[str, str], *, needs_image: bool = True
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields of the body, and the option parts of a multipart form, from wherever they are.

    An encoded file counts as the field ``image`` in bytes, so that everything after this sees one form only. A value
    of a JSON field is ``msgspec.Raw`` until somebody needs it.

    Raises:
        RequestError: 400 for a body that is none of these, or for none at all.
    """
    sources = [key for key in _BODY_KEYS if row.get(key) is not None]
    if not sources and row and not needs_image:
        return {}, row
    if not sources:
        wanted = "wanted the encoded image as the body, JSON with img_data or image, or a multipart part named image"
        got = f"only the parts {listed(row)}" if row else "an empty body"
        hint = "" if row else "; curl's -d sends a form: use -T FILE, or --data-binary with a content type"
        raise RequestError(400, "image", f"{wanted}, got {got}{hint}")
    if len(sources) > 1:
        raise RequestError(400, "image", f"wanted one image, got the parts {' and '.join(sources)}")
    source = sources[0]
    parts = {key: value for key, value in row.items() if key != source}
    body = row[source]
    if isinstance(body, Mapping):
        return body, parts
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    if not isinstance(body, bytes | bytearray):
        raise RequestError(400, "body", f"wanted bytes or a JSON object, got {shown(body)}")
    if source != "image" and _is_json(body, headers.get("content-type", "")):
        return _object(bytes(body)), parts
    return {"image": bytes(body)}, parts


def _is_json(body: bytes | bytearray, content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return bool(body) and (name == _JSON or name.endswith("+json") or body[:64].lstrip()[:1] in (b"{", b"["))


def _object(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(400, "body", f"wanted a JSON object: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "body", f"wanted JSON: {error}") from error


def header_options(header: str) -> dict[str, str]:
    """The options in the header, by name. Raises RequestError 400 for one that is not form-encoded, or that repeats."""
    if not header.strip():
        return {}
    wanted = "wanted form-encoded options such as target_class=cat&steps=50"
    try:
        pairs = parse_qsl(
            header.strip(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_OPTIONS
        )
    except ValueError as error:
        raise RequestError(400, "X-Explain-Options", f"{wanted}, got {shown(header)}: {error}") from error
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise RequestError(400, "X-Explain-Options", f"wanted each option once, got {shown(twice[0])} more than once")
    return dict(pairs)


def merge(
    fields: Mapping[str, Any],
    parts: Mapping[str, Any],
    header: Mapping[str, str],
    known: tuple[str, ...],
    *,
    strict: bool = True,
) -> dict[str, Any]:
    """All options by name, plain values; null counts as not given. If ``strict``, one that is not known is an error."""
    options: dict[str, Any] = {}
    sources: tuple[tuple[Mapping[str, Any], Any], ...] = ((fields, plain), (parts, _from_form), (header, _from_form))
    for source, convert in sources:
        for name, value in source.items():
            if source is fields and name in IMAGE_KEYS:
                continue
            if name not in known:
                if not strict:
                    continue
                raise RequestError(400, str(name), unknown("option", name, known))
            if name in options:
                raise RequestError(400, name, "wanted the option once, got it in two places")
            options[name] = convert(name, value)
    return {name: value for name, value in options.items() if value is not None}


def plain(name: str, value: Any) -> Any:
    """The value of a field, decoded where it is still JSON. Raises RequestError 400."""
    if not isinstance(value, msgspec.Raw):
        return value
    if name not in (*IMAGE_KEYS, *FILES) and len(bytes(value)) > MAX_OPTION_BYTES:
        raise RequestError(400, name, f"wanted at most {MAX_OPTION_BYTES:,} bytes, got {len(bytes(value)):,}")
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, name, f"wanted a JSON value: {error}") from error


def _from_form(name: str, value: Any) -> Any:
    """An option out of text, as JSON would have carried it; a file as its bytes."""
    if not isinstance(value, bytes | bytearray | str):
        raise RequestError(400, name, f"wanted text, got {shown(value)}")
    if name in FILES:
        return _file(name, value)
    if len(value) > MAX_OPTION_BYTES:
        raise RequestError(400, name, f"wanted at most {MAX_OPTION_BYTES:,} bytes, got {len(value):,}")
    if not isinstance(value, str):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(400, name, f"wanted text in UTF-8: {error}") from error
    value = value.strip()
    if name == "target_class" and value[:1] == "[":
        return _list_or_label(value)
    if name in ("combine", "smooth") and value[:1] in ("[", "{"):
        return plain(name, msgspec.Raw(value.encode()))
    if name in ("outputs", "combine"):
        return [part.strip() for part in value.split(",") if part.strip()]
    if name == "absent":
        return [int(row) if _ROW.fullmatch(row) else row for row in map(str.strip, value.strip("[]").split(",")) if row]
    kind = METHODS.options.get(name)
    if (name in COUNTS or kind is int) and re.fullmatch(r"[+-]?[0-9]{1,19}", value):
        return int(value)
    if (name in AMOUNTS or kind is float) and _NUMBER.fullmatch(value):
        return float(value)
    if (name in SWITCHES or kind is bool) and value in ("true", "false"):
        return value == "true"
    return value


def _list_or_label(value: str) -> Any:
    """Several classes as a list of JSON; a label may begin with a bracket, too."""
    try:
        return plain("target_class", msgspec.Raw(value.encode()))
    except RequestError:
        return value


def _file(name: str, value: bytes | bytearray | str) -> Any:
    """A part of a form that is a file: bytes, or what its JSON says."""
    start = value[:64].lstrip()[:1]
    if start in (b"[", b"{", "[", "{"):
        return plain(name, msgspec.Raw(value if isinstance(value, str) else bytes(value)))
    return value if isinstance(value, str) else bytes(value)
