"""Attribution: which pixels a score depends on; a gallery of inputs × methods, a ranking of the methods, and shortcuts of classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ALL, ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.components.method_settings import setting, setting_defaults, setting_key, settings_given
from dnnviz.endpoints import context
from dnnviz.errors import DNNVizError
from dnnviz.explain.gallery import Wish, costs, first_methods, gallery, map_layers, quick_methods
from dnnviz.explain.plan import MOST_TARGETS, resolve_target, target_name
from dnnviz.explain.registry import FAMILIES, METHODS
from dnnviz.store import Run
from dnnviz.urlstate import Selection

dash.register_page(__name__, path="/attribution", name="Attribution", title="Attribution · DNNViz", order=4)

VIEWS = {"gallery": "Gallery", "ranking": "Ranking", "shortcuts": "Shortcuts"}
BY = {"class": "By class", "wrong": "Wrong", "unsure": "Least sure", "chosen": "Chosen"}
TARGETS = {"predicted": "Predicted class", "true": "True class", "class": "A class…"}
AGAINST = {"none": "Its score alone", "second": "The runner-up"}
COLOURS = {"inferno": "Inferno", "viridis": "Viridis", "red": "Red", "grey": "Grey"}
SIGNS = {"auto": "Signed", "absolute": "Absolute value", "positive": "Positive only"}
CLIPS = {"100": "the largest value", "99.5": "99.5th percentile", "98": "98th percentile", "95": "95th percentile"}
LAST = "last"  # the last feature map before pooling
COUNTS = {str(n): f"{n} inputs" for n in (2, 4, 6, 8, 12, 24)}


DEFAULTS = {
    "view": "gallery",
    "by": "",
    "inputs": "",
    "n": "4",
    "methods": "",
    "target": "predicted",
    "of": "0",
    "against": "none",
    "also": "",
    "at": LAST,
    "overlay": "85",
    "colours": "inferno",
    "sign": "auto",
    "clip": "99.5",
    **setting_defaults(METHODS),
}


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    run, extra = selection.run, dict(selection.extra)
    if run is None:
        return components.page(selection, problems, [])
    first = first_methods(run)
    chosen = [name for name in extra["methods"].split(",") if name]
    problems += [f"There is no method “{name[:40]}”." for name in chosen if name not in METHODS and name != "none"]
    methods = [name for name in METHODS if name in chosen] or ([] if chosen == ["none"] else first)
    if not extra["by"]:
        # Coming from another page with an input in hand: that input is what one wants explained.
        extra["by"] = "chosen" if selection.show_kind == "input" else "class"
        extra["inputs"] = extra["inputs"] or (str(selection.show_index) if selection.show_kind == "input" else "")
    layers = map_layers(run)
    if extra["at"] != LAST and extra["at"] not in layers:
        problems.append(f"Layer “{extra['at'][:60]}” has no map over the image, or is not in this run; the last feature map is used.")
        extra["at"] = LAST
    for name, allowed in {"view": VIEWS, "by": BY, "colours": COLOURS, "sign": SIGNS, "clip": CLIPS, "n": COUNTS}.items():
        if extra[name] not in allowed:
            problems.append(f"“{extra[name][:40]}” is no value of {name}; it must be one of {', '.join(allowed)}.")
            extra[name] = DEFAULTS[name] or "class"
    if not extra["overlay"].isdecimal() or int(extra["overlay"]) > 100:
        extra["overlay"] = DEFAULTS["overlay"]
    problems += _check_targets(selection, extra)
    defaults = {**DEFAULTS, "by": "class", "methods": ",".join(first)}
    return components.page(
        selection,
        problems,
        _centre(selection, extra),
        _left(selection, extra, methods, layers),
        bar=_bar(selection, extra),
        strip=True,
        defaults=defaults,
    )


def _check_targets(selection: Selection, extra: dict[str, str]) -> list[str]:
    """Put defaults where what is explained does not exist in this run; returns a sentence for each."""
    run = selection.run
    assert run is not None
    problems = []
    if extra["target"] not in TARGETS:
        try:
            if extra["target"].partition(":")[0] not in ("unit", "layer", "direction"):
                raise DNNVizError(f"“{extra['target'][:60]}” is no value of target; it must be one of {', '.join(TARGETS)}, unit:…, layer:….")
            resolve_target(run, selection.epoch, "0", extra["target"])
        except DNNVizError as error:
            problems.append(f"{error} The predicted class is explained.")
            extra["target"] = DEFAULTS["target"]
    also = [text for text in extra["also"].split(",") if text]
    wrong = [text for text in (extra["of"], *also) if not _is_class(run, text)]
    if extra["against"] not in AGAINST and not _is_class(run, extra["against"]):
        wrong.append(extra["against"])
        extra["against"] = DEFAULTS["against"]
    if not _is_class(run, extra["of"]):
        extra["of"] = DEFAULTS["of"]
    extra["also"] = ",".join(list(dict.fromkeys(text for text in also if _is_class(run, text)))[: MOST_TARGETS - 1])
    return problems + [f"This run has classes 0 to {len(run.classes) - 1}; there is no class “{text[:40]}”." for text in wrong]


def _is_class(run: Run, text: str) -> bool:
    return text.isdecimal() and int(text) < len(run.classes)


def _bar(selection: Selection, extra: dict[str, str]) -> list[Any]:
    hint = "Explain an image of your own; it stays on this server"
    return [
        components.run_select(selection),
        html.Div(
            [
                components.segmented(components.url_id("by"), BY, extra["by"], "Inputs"),
                html.Button("Upload…", id="attribution-upload", className="dv-btn", type="button", title=hint),
            ],
            className="d-flex gap-2 dv-unless-shortcuts",
        ),
        *components.epoch_controls(selection),
        components.hidden("inputs", extra["inputs"]),
        components.hidden("also", extra["also"]),
    ]


def _inputs(selection: Selection, extra: dict[str, str]) -> html.Div:
    run = selection.run
    assert run is not None
    classes = {"data": "One of each class", **{f"class:{i}": name for i, name in enumerate(run.classes)}}
    number = dbc.Input(id="attribution-number", type="number", min=0, max=run.kept - 1, step=1, placeholder=f"0 to {run.kept - 1}")
    return components.section(
        "Inputs",
        html.Div(components.select("show", classes, selection.show if selection.show in classes else "data", "Class"), className="dv-when-by-class"),
        html.Div(components.select("n", COUNTS, extra["n"], "How many inputs"), className="dv-unless-chosen"),
        html.Div(
            [components.labelled("Number of an input", number), html.Button("Add", id="attribution-add", className="dv-btn small", type="button")],
            className="dv-when-chosen",
        ),
        html.P("Click images in the strip below to add them or leave them out.", className="dv-small dv-when-chosen"),
    )


def _left(selection: Selection, extra: dict[str, str], methods: list[str], layers: list[str]) -> list[Any]:
    depth = {**{name: name for name in layers}, LAST: "Last feature map"}
    ranged = {"type": "range", "min": 0, "step": 1, "class_name": "form-range"}
    overlay = dbc.Input(id=components.url_id("overlay"), max=100, value=int(extra["overlay"]), **ranged)
    slider = dbc.Input(id="attribution-depth", max=len(layers), value=list(depth).index(extra["at"]), **ranged)
    return [
        # Shortcuts look at inputs of every class, each for its own class, by a method of their own.
        html.Div([_inputs(selection, extra), *_explained(selection, extra), _methods(selection, methods)], className="dv-unless-shortcuts"),
        components.section(
            "CAM family at", components.select("at", depth, extra["at"], "Layer of the CAM family"), components.labelled("Depth of the layer", slider)
        ),
        components.section(
            "Overlay",
            components.labelled("Strength of the overlay", overlay),
            components.select("colours", COLOURS, extra["colours"], "Colours"),
            html.Div(components.select("sign", SIGNS, extra["sign"], "Signs"), className="dv-unless-shortcuts"),
            html.Div("Strongest colour at", className="dv-small mt-2"),
            components.select("clip", CLIPS, extra["clip"], "Strongest colour at"),
        ),
        html.Details(
            [html.Summary("Settings of the methods"), *[_settings(name, extra) for name in METHODS if METHODS[name].parameters]],
            className="dv-how",
        ),
        html.Div(
            components.how_to_read(
                "Bright pixels are those on which the score of the explained class depends most; every tile has its own scale. Where a method "
                "is signed, red speaks for the class and blue against it. The dot under a tile says how far to believe it.",
                "On what such maps show and what they do not: J. Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018.",
            ),
            className="dv-unless-shortcuts",
        ),
    ]


def _explained(selection: Selection, extra: dict[str, str]) -> list[Any]:
    """What is explained: a class, against which, and which others beside it; or a unit or direction of a layer."""
    run = selection.run
    assert run is not None
    classes = {str(i): name for i, name in enumerate(run.classes)}
    targets = dict(TARGETS)
    towards: list[Any] = []
    if extra["target"] not in TARGETS:
        targets[extra["target"]] = target_name(run, extra["target"])
        kind, _, rest = extra["target"].partition(":")
        if kind != "unit":
            layer = rest if kind == "layer" else rest.rpartition(":")[0]
            ways = {
                f"layer:{layer}": "Its own direction",
                **{f"direction:{layer}:{i}": f"Towards {name}" for i, name in enumerate(run.classes)},
            }
            choice = dbc.Select(
                id="attribution-towards", options=[{"label": text, "value": way} for way, text in ways.items()], value=extra["target"]
            )
            towards = [components.labelled("Direction of the layer", choice)]
    against = {**AGAINST, **classes}
    more = dbc.Select(id="attribution-also", options=_options(classes), placeholder="Add a class…")
    return [
        components.section(
            "Explain",
            components.radios("target", targets, extra["target"]),
            html.Div(components.select("of", classes, extra["of"], "Class explained"), className="dv-when-target-class"),
            *towards,
        ),
        html.Div(
            [
                components.section("Why it, not…", components.select("against", against, extra["against"], "Against which class")),
                components.section("A second target", html.Div(id="attribution-also-list"), components.labelled("Explain another class too", more)),
            ],
            className="dv-when-target-score",
        ),
    ]


def _options(names: dict[str, str]) -> list[dict[str, str]]:
    return [{"label": text, "value": value} for value, text in names.items()]


def _methods(selection: Selection, chosen: list[str]) -> html.Div:
    """The methods by family, each with what it costs (filled in by the browser), and buttons for several at once."""
    run = selection.run
    assert run is not None
    presets = {"quick": quick_methods(run), "all": list(METHODS), "none": []}
    hints = {"quick": "Those that answer at once", "all": "Every method", "none": "No method"}
    buttons = [
        html.Button(
            name.capitalize(),
            type="button",
            className="dv-btn small",
            title=hints[name],
            **{"data-dv-methods": json.dumps(_by_family(names)), "aria-label": hints[name]},
        )
        for name, names in presets.items()
    ]
    lists = [
        html.Div(
            [
                html.Div(title, className="dv-family"),
                dbc.Checklist(
                    id={"type": "attribution-methods", "family": family},
                    options=[{"label": _method_label(name), "value": name} for name in known],
                    value=_by_family(chosen)[family],
                ),
            ],
            role="group",
            **{"aria-label": title},
        )
        for (family, known), title in zip(_by_family(list(METHODS)).items(), FAMILIES.values(), strict=True)
    ]
    return components.section("Methods", html.Div(buttons, className="dv-presets"), *lists, components.hidden("methods", ",".join(chosen) or "none"))


def _by_family(names: list[str]) -> dict[str, list[str]]:
    return {family: [name for name in names if METHODS[name].family == family] for family in FAMILIES}


def _method_label(name: str) -> html.Span:
    method = METHODS[name]
    return html.Span([method.title, html.Span(className="dv-small", **{"data-dv-cost": name})], title=f"{method.summary} {method.citation}.")


def _settings(name: str, extra: dict[str, str]) -> html.Div:
    """Controls of a method's parameters, built from its description."""
    controls = [setting(name, parameter, extra[setting_key(name, parameter)]) for parameter in METHODS[name].parameters]
    return html.Div([html.Div(METHODS[name].title, className="dv-note fw-semibold mt-2"), *controls])


def _centre(selection: Selection, extra: dict[str, str]) -> list[Any]:
    return [
        dcc.Store(id="attribution-gallery"),
        dcc.Store(id="attribution-heard"),
        html.Div(
            [
                components.segmented(components.url_id("view"), VIEWS, extra["view"], "View"),
                html.Div(
                    [
                        html.Span(id="attribution-title", className="fw-semibold"),
                        html.Span(id="attribution-status", role="status"),
                        html.Button("Run", id="attribution-run", className="dv-btn primary small", type="button", hidden=True),
                    ],
                    className="dv-attribution-state dv-when-gallery",
                ),
                html.Div(id="attribution-legend", className="dv-legend dv-when-gallery"),
                html.Button(
                    "Maps (.npz)",
                    id="attribution-maps",
                    className="dv-btn small dv-when-gallery",
                    type="button",
                    title="The raw maps of this gallery, unscaled, with what each of them shows",
                ),
            ],
            className="dv-centre-bar dv-attribution-bar",
        ),
        html.Div(id="attribution-tiles", className="dv-when-gallery"),
        html.Div(id="attribution-ranking", className="dv-when-ranking"),
        html.Div(id="attribution-shortcuts", className="dv-when-shortcuts"),
        html.Dialog(id="attribution-dialog", className="dv-dialog dv-attribution-dialog", **{"aria-label": "Tile"}),
        html.Div(id="attribution-drawn", hidden=True),
    ]


def _targets(extra: Mapping[str, str]) -> tuple[str, ...]:
    """Texts of the targets: the one explained, held against another class where that is asked for, then the classes beside it."""
    first = f"class:{extra['of']}" if extra["target"] == "class" else extra["target"]
    if extra["target"] not in TARGETS:
        return (first,)
    if extra["against"] != "none":
        first += f"-{extra['against']}" if extra["against"] in AGAINST else f"-class:{extra['against']}"
    return (first, *(f"class:{number}" for number in extra["also"].split(",") if number))


def _wish(selection: Selection) -> Wish:
    extra = selection.extra
    return Wish(
        run_id=selection.run_id,
        epoch=selection.epoch,
        by=extra["by"],
        show=selection.show,
        sources=tuple(source for source in extra["inputs"].split(",") if source),
        count=int(extra["n"]) if extra["n"] in COUNTS else 4,
        methods={name: settings_given(name, METHODS[name].parameters, extra) for name in METHODS if name in extra["methods"].split(",")},
        targets=_targets(extra),
        layer=None if extra["at"] == LAST else extra["at"],
    )


@callback(Output("attribution-gallery", "data"), Input("selection", "data"), Input("attribution-heard", "data"))
def look_up(data: dict[str, str] | None, heard: dict[str, Any] | None) -> Any:
    """The gallery as it stands: what is in the cache, and what a job would have to compute."""
    if not data or "overlay" not in data:
        return dash.no_update  # still the selection of the page before
    selection = urlstate.from_data(data, context().catalogue, DEFAULTS)
    if selection.run is None:
        return dash.no_update
    found = gallery(selection.run, _wish(selection), context().results, context().settings.allow)
    given = {name: settings_given(name, METHODS[name].parameters, selection.extra) for name in METHODS}
    return {**found, "costs": costs(selection.run, selection.epoch, given, context().results)}


clientside_callback(
    ClientsideFunction("dnnviz_attribution", "draw"),
    Output("attribution-drawn", "children"),
    Input("attribution-gallery", "data"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
# What a job says goes on by way of the browser: in Dash's graph of callbacks, what hangs on a job waits until it has ended.
clientside_callback(
    ClientsideFunction("dnnviz_attribution", "progress"),
    Output("attribution-drawn", "title"),
    Input("job-progress", "data"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_attribution", "answer"),
    Output("attribution-drawn", "lang"),
    Input("job-result", "data"),
    prevent_initial_call=True,
)
# The lists of the families make up one part of the address.
clientside_callback(
    ClientsideFunction("dnnviz_attribution", "methods"),
    Output({"type": "url", "key": "methods"}, "value"),
    Input({"type": "attribution-methods", "family": ALL}, "value"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_attribution", "depth"),
    Output({"type": "url", "key": "at"}, "value"),
    Output("attribution-depth", "value"),
    Input({"type": "url", "key": "at"}, "value"),
    Input("attribution-depth", "value"),
    State({"type": "url", "key": "at"}, "options"),
    prevent_initial_call=True,
)
