"""Controls and small parts: what is part of the address, sections, notes, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import dcc, html

from dnnviz import urlstate


def url_id(key: str) -> dict[str, str]:
    """Id of a control whose value is part of the address."""
    return {"type": "url", "key": key}


def hidden(key: str, value: str) -> dcc.Input:
    """Part of the address without a visible control."""
    return dcc.Input(id=url_id(key), type="hidden", value=value)


def segmented(id: Any, options: Mapping[str, str], value: str, label: str) -> html.Div:
    """A row of choices of which one holds."""
    choices = dbc.RadioItems(id=id, options=_options(options), value=value, class_name="dv-segment")
    return html.Div(choices, role="group", **{"aria-label": label})


def radios(key: str, options: Mapping[str, str], value: str) -> dbc.RadioItems:
    """A column of choices of which one holds, part of the address; the section around it names it."""
    return dbc.RadioItems(id=url_id(key), options=_options(options), value=value)


def checklist(key: str, options: Mapping[str, str], value: Sequence[str]) -> dbc.Checklist:
    """A column of choices that may hold together, part of the address (joined with commas)."""
    return dbc.Checklist(id=url_id(key), options=_options(options), value=list(value))


def select(key: str, options: Mapping[str, str], value: str, label: str) -> html.Label:
    """A drop-down choice, part of the address."""
    return labelled(label, dbc.Select(id=url_id(key), options=_options(options), value=value))


def labelled(text: str, control: Any) -> html.Label:
    """A control with a name that only screen readers see."""
    return html.Label([html.Span(text, className="visually-hidden"), control], className="d-block")


def _options(options: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"label": text, "value": name} for name, text in options.items()]


def section(title: str, *children: Any) -> html.Div:
    """A titled group of controls or details."""
    return html.Div([html.H2(title, className="dv-section-title"), *children], className="dv-section", role="group", **{"aria-label": title})


def note(*children: Any) -> html.P:
    """A line of explanation."""
    return html.P(list(children), className="dv-note")


def how_to_read(text: str, source: str) -> html.Details:
    """The note on every page that says how to read it, with the paper it comes from."""
    return html.Details(
        [html.Summary("How to read this"), html.P(text, className="dv-note"), html.P(source, className="dv-small")], className="dv-how", open=True
    )


def empty(title: str, *text: Any) -> html.Div:
    """A place with nothing in it, and what to do next."""
    return html.Div([html.H2(title), html.P(list(text))], className="dv-empty")


def page_link(text: str, path: str, **values: object) -> dcc.Link:
    """A button that leads to another page with a selection."""
    return dcc.Link(text, href=dash.get_relative_path(path) + urlstate.query(**values), className="dv-btn soft")
