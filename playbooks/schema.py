"""The JSON Schema of a playbook, for editors: made of the same lists that the reader checks by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.wire import ACTS, KINDS, METRICS, ActSpec, Param
from playbooks.model import MODES, PLACES, TARGETS

_DURATION = {"$ref": "#/$defs/duration"}
_KIND = {"$ref": "#/$defs/kind"}
_ANY_ACT = [{"$ref": f"#/$defs/{name}"} for name in ACTS]
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
_CONDITION = {
    "type": "string",
    "minLength": 1,
    "description": "A condition in CEL: event, worker, service, run, outcome.",
}
_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}


def schema() -> dict[str, Any]:
    """Draft 2020-12, as a JSON object."""
    step = {"anyOf": [*_ANY_ACT, {"$ref": "#/$defs/together"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Playbook of Reflex",
        "$defs": {
            "duration": {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h|d)$"},
            "kind": _named(KINDS),
            "together": _together(),
            **{act.name: _act(act) for act in ACTS.values()},
        },
        **_object(
            {
                "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"},
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "on": {"type": "array", "minItems": 1, "items": {"anyOf": [_on_event(), _on_metric()]}},
                "if": _CONDITION,
                "target": {"enum": list(TARGETS)},
                "steps": {"type": "array", "minItems": 1, "maxItems": 50, "items": step},
                "verify": _verify(),
                "else": {"type": "array", "minItems": 1, "maxItems": 50, "items": step},
                "limits": _object(
                    {
                        "cooldown": _DURATION,
                        "per_hour": {"type": "integer", "minimum": 1},
                        "fleet_per_hour": {"type": "integer", "minimum": 1},
                    }
                ),
                "recurring": _object({"times": {"type": "integer", "minimum": 2, "maximum": 100}, "within": _DURATION}),
                "priority": {"type": "integer", "minimum": 0, "maximum": 100},
                "approval": _object({"within": _DURATION}),
                "windows": {"type": "array", "items": _window()},
                "mode": {"enum": list(MODES)},
                "runs_on": {"enum": list(PLACES)},
            },
            ("name", "title", "on", "steps"),
        ),
    }


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": dict(properties)}
    return {**made, "required": list(required)} if required else made


def _named(names: Mapping[str, str]) -> dict[str, Any]:
    return {"anyOf": [{"const": name, "description": meaning} for name, meaning in names.items()]}


def _on_event() -> dict[str, Any]:
    counted = {"times": {"type": "integer", "minimum": 2, "maximum": 100}, "within": _DURATION}
    return _object({"event": _KIND, "where": _CONDITION, **counted}, ("event",))


def _on_metric() -> dict[str, Any]:
    bounds = {"above": {"type": "number"}, "below": {"type": "number"}}
    return _object({"metric": _named(METRICS), **bounds, "for": _DURATION}, ("metric",))


def _act(act: ActSpec) -> dict[str, Any]:
    must = tuple(name for name, param in act.params.items() if param.required)
    given = _object({name: _param(param) for name, param in act.params.items()}, must)
    properties = {
        "id": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,40}$"},
        "action": {"const": act.name, "description": act.text},
        "with": given,
        "when": _CONDITION,
        **({"each": {"type": "boolean"}} if act.on_worker else {}),
        "timeout": _DURATION,
        "retry": _object({"times": {"type": "integer", "minimum": 1, "maximum": 5}, "pause": _DURATION}, ("times",)),
    }
    return _object(properties, ("action", "with") if must else ("action",))


def _param(param: Param) -> dict[str, Any]:
    value: dict[str, Any] = {"type": _TYPES[param.type], "description": param.text}
    if param.choices:
        value["enum"] = list(param.choices)
    value |= {} if param.least is None else {"minimum": param.least}
    value |= {} if param.most is None else {"maximum": param.most}
    return {"anyOf": [value, {"type": "string", "pattern": r"\{\{.*\}\}"}]}


def _together() -> dict[str, Any]:
    acts = {"type": "array", "minItems": 2, "items": {"anyOf": _ANY_ACT}}
    return _object({"id": _TEXT, "together": acts}, ("together",))


def _verify() -> dict[str, Any]:
    expected = [_object({key: _KIND, "where": _CONDITION}, (key,)) for key in ("event", "never")]
    expect = {"type": "array", "minItems": 1, "items": {"anyOf": expected}}
    return _object({"within": _DURATION, "expect": expect}, ("within", "expect"))


def _window() -> dict[str, Any]:
    minute = {"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$"}
    return _object({"days": _TEXT, "from": minute, "until": minute, "zone": _TEXT}, ("from", "until"))
