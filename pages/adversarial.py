"""Adversarial: a small change that makes the network name another class, how it gets through the layers, and how to notice it."""

from __future__ import annotations

from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ClientsideFunction, Input, Output, callback, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.attack import METHODS
from dnnviz.attack.registry import BUDGET, STOP
from dnnviz.components.adversarial_cards import ANY, COUNTS, FIRST_METHOD, known
from dnnviz.components.method_settings import setting, setting_defaults, setting_key
from dnnviz.endpoints import context
from dnnviz.explain.uploads import is_upload
from dnnviz.urlstate import Selection

dash.register_page(__name__, path="/adversarial", name="Adversarial", title="Adversarial · DNNViz", order=6)

VIEWS = {"attack": "Attack", "detection": "Detection", "robustness": "Robustness"}
DEFAULTS = {"view": "attack", "method": FIRST_METHOD, "target": ANY, "image": "", "n": "100", "sizes": "", "detector": "0"}
DEFAULTS |= setting_defaults(METHODS)


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    run, extra = selection.run, dict(selection.extra)
    if run is None:
        return components.page(selection, problems, [])
    for name, allowed in {"view": VIEWS, "method": METHODS, "n": COUNTS}.items():
        if extra[name] not in allowed:
            problems.append(f"“{extra[name][:40]}” is no value of {name}; it must be one of {', '.join(allowed)}.")
            extra[name] = DEFAULTS[name]
    if extra["target"] != ANY and not (extra["target"].isdecimal() and int(extra["target"]) < len(run.classes)):
        problems.append(f"This run has classes 0 to {len(run.classes) - 1}; there is no class “{extra['target'][:40]}”.")
        extra["target"] = ANY
    if extra["image"] and not is_upload(extra["image"]):
        problems.append(f"“{extra['image'][:40]}” is no picture that was uploaded here.")
        extra["image"] = ""
    return components.page(selection, problems, _centre(extra), _left(selection, extra), bar=_bar(selection), strip=True, defaults=DEFAULTS)


def _bar(selection: Selection) -> list[Any]:
    shown = html.Div(components.show_controls(selection), className="d-flex align-items-center gap-2 dv-when-attack adv-shown")
    return [components.run_select(selection), shown, *components.epoch_controls(selection)]


def _left(selection: Selection, extra: dict[str, str]) -> list[Any]:
    run = selection.run
    assert run is not None
    classes = {ANY: "Any other class", **{str(i): name for i, name in enumerate(run.classes)}}
    titles = {name: method.title for name, method in METHODS.items()}
    sizes = dbc.Input(id=components.url_id("sizes"), type="text", value=extra["sizes"], debounce=True, size="sm", placeholder="as is usual")
    return [
        html.Div(
            components.section("Class to reach", components.select("target", classes, extra["target"], "Towards which class")),
            className="dv-when-attack",
        ),
        components.section(
            "Method", components.select("method", titles, extra["method"], "Method of the attack"), *[_method(name, extra) for name in METHODS]
        ),
        html.Div(components.section("Attacked", components.select("n", COUNTS, extra["n"], "How many inputs")), className="dv-unless-attack"),
        html.Div(
            components.section(
                "Sizes",
                components.labelled("Sizes of the perturbation", sizes),
                html.P("Numbers or fractions with commas between, such as 2/255, 8/255.", className="dv-small"),
            ),
            className="dv-when-robustness",
        ),
        *[html.Div(components.how_to_read(*texts), className=f"dv-when-{view}") for view, texts in _READING.items()],
    ]


def _method(name: str, extra: dict[str, str]) -> html.Div:
    """What a method does, and controls of its parameters; the browser shows those of the method chosen."""
    method = METHODS[name]
    return html.Div(
        [
            html.P(method.summary, className="dv-note"),
            html.P(f"{method.citation}.", className="dv-small mb-2"),
            *[
                html.Div(
                    setting(name, parameter, extra[setting_key(name, parameter)]),
                    # Robustness is measured at sizes of its own; many inputs are attacked to the end, or to the first success, as it needs.
                    className={BUDGET: "adv-budget", STOP: "dv-when-attack"}.get(parameter.name),
                )
                for parameter in method.parameters
            ],
        ],
        hidden=name != extra["method"],
        **{"data-adv-method": name},
    )


_READING = {
    "attack": (
        "The perturbation is shown around grey, magnified so that it can be seen at all: brighter where the pixel was raised, darker where it "
        "was lowered. In the table below, a layer's distance is how far the activations lie from those of the class first predicted, in units "
        "of what 95 % of the class's own inputs stay within; beyond 1 they have left it. Then the proof: in this layer alone, the units that "
        "carry 80 % of the difference are given the original's values back. If the class returns, it was they that fooled the network; that "
        "this is no accident is shown by as many units drawn at random.",
        "C. Szegedy et al., Intriguing properties of neural networks, ICLR 2014; patching: J. Vig et al., Investigating gender bias in "
        "language models using causal mediation analysis, NeurIPS 2020.",
    ),
    "detection": (
        "Half of the inputs, with attacks on them, are what the detectors learn from; on the other half each scores clean inputs and the attacks "
        "that succeeded. The curve shows which share of attacks is found at which share of false alarms; an area of 0.5 is guessing, 1 is perfect. "
        "“Layers weighted” has learnt from attacks of the same kind how much each layer says; “layers alike” has seen no attack. "
        "An attacker who knows the detector can evade it.",
        "K. Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS 2018; X. Ma et "
        "al., Characterizing adversarial subspaces using local intrinsic dimensionality, ICLR 2018; on evading them: N. Carlini and "
        "D. Wagner, Adversarial examples are not easily detected, AISec 2017.",
    ),
    "robustness": (
        "Inputs that withstand one size are attacked with the next; where a method looks for the smallest change, it is run once and says for "
        "which sizes that is enough. The line says which share is still classified correctly, the band is the 95 % interval for so many inputs. "
        "A weak attack flatters the network: the true accuracy lies at or below the line.",
        "N. Carlini et al., On evaluating adversarial robustness, 2019; interval: E. B. Wilson, Journal of the American Statistical "
        "Association, 1927.",
    ),
}


def _centre(extra: dict[str, str]) -> list[Any]:
    hint = "Attack a picture of your own; it stays on this server"
    own = html.Div(
        [
            html.Button(["Your picture ", html.Span("×")], id="adversarial-leave", className="dv-chip", type="button", title="Back to the inputs"),
            html.Button("Upload a picture…", id="adversarial-upload", className="dv-btn small", type="button", title=hint),
        ],
        className="d-flex align-items-center gap-2 dv-when-attack",
    )
    return [
        dcc.Store(id="adversarial-known"),
        dcc.Store(id="adversarial-heard"),
        components.hidden("detector", extra["detector"]),
        components.hidden("image", extra["image"]),
        html.Div(
            [
                components.segmented(components.url_id("view"), VIEWS, extra["view"], "View"),
                own,
                html.Span(id="adversarial-status", role="status", className="dv-note text-truncate"),
                html.Button("Attack", id="adversarial-run", className="dv-btn primary small", type="button", hidden=True),
            ],
            className="dv-centre-bar adv-bar",
        ),
        html.Div(id="adversarial-body"),
        html.Div(id="adversarial-drawn", hidden=True),
    ]


@callback(Output("adversarial-known", "data"), Input("selection", "data"), Input("adversarial-heard", "data"))
def look_up(data: dict[str, str] | None, heard: dict[str, Any] | None) -> Any:
    """What is in the cache for the view, or what a job would have to compute."""
    if not data or "detector" not in data or data.get("method") not in METHODS or data.get("view") not in VIEWS:
        return dash.no_update  # still the selection of the page before
    selection = urlstate.from_data(data, context().catalogue, DEFAULTS)
    return dash.no_update if selection.run is None else {**known(selection), "of": data}


clientside_callback(
    ClientsideFunction("dnnviz_adversarial", "draw"),
    Output("adversarial-drawn", "children"),
    Input("adversarial-known", "data"),
    Input("selection", "data"),
)
# What a job says goes on by way of the browser: in Dash's graph of callbacks, what hangs on a job waits until it has ended.
clientside_callback(
    ClientsideFunction("dnnviz_adversarial", "progress"),
    Output("adversarial-drawn", "title"),
    Input("job-progress", "data"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_adversarial", "answer"),
    Output("adversarial-drawn", "lang"),
    Input("job-result", "data"),
    prevent_initial_call=True,
)
