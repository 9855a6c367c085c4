"""Controls of the parameters of methods (attributions, attacks), built from their descriptions; each has its own key in the address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_bootstrap_components as dbc
from dash import html

from dnnviz.components.controls import url_id
from dnnviz.parameters import Parameter


def setting_key(method: str, parameter: Parameter) -> str:
    """Key of the address of a method's parameter."""
    return f"{method}-{parameter.name}"


def setting_defaults(methods: Mapping[str, Any]) -> dict[str, str]:
    """Key of the address → default, as text; methods: name → description with `parameters`."""
    return {
        setting_key(name, parameter): str(parameter.default).lower() if parameter.kind == "flag" else str(parameter.default)
        for name, method in methods.items()
        for parameter in method.parameters
    }


def setting(method: str, parameter: Parameter, text: str) -> Any:
    """Control of one parameter with its present value."""
    id = url_id(setting_key(method, parameter))
    if parameter.kind == "flag":
        return dbc.Switch(id=id, label=parameter.title, value=text == "true")
    if parameter.kind == "choice":
        control: Any = dbc.Select(id=id, options=list(parameter.choices), value=text if text in parameter.choices else parameter.default, size="sm")
    else:
        step = 1 if parameter.kind == "integer" else "any"
        control = dbc.Input(id=id, type="number", min=parameter.low, max=parameter.high, step=step, value=text, debounce=True, size="sm")
    return html.Label([html.Span(parameter.title, title=parameter.text), control], className="dv-setting", title=parameter.text)


def settings_given(method: str, parameters: tuple[Parameter, ...], extra: Mapping[str, str]) -> dict[str, Any]:
    """Parameters that differ from their defaults, from the keys of the address; numbers stay text, which `Parameter.check` reads."""
    given: dict[str, Any] = {}
    for parameter in parameters:
        text = (extra.get(setting_key(method, parameter)) or "").lower()
        default = str(parameter.default).lower()
        if text and text != default:
            given[parameter.name] = text == "true" if parameter.kind == "flag" else extra[setting_key(method, parameter)]
    return given
