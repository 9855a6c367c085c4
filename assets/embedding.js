// The embedding page: composes the figure from what the server sent and what is chosen here; thumbnails, legend, lasso, playback.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const OWN = ["method", "dims", "colour", "split", "seed", "n_neighbors", "min_dist", "perplexity", "iterations", "exaggeration"];
  const LEGEND_ROWS = 200;
  const FADED = 0.12; // opacity
  const STEP_MS = 800; // an epoch of the playback
  const nothing = () => window.dash_clientside.no_update;
  const page = () => document.querySelector(".dv-page");
  const graph = () => document.querySelector("#embedding-graph .js-plotly-plot");

  // What is on the screen: the drawing of the server, its points turned like those before, what is chosen.
  const state = { drawing: null, points: null, look: {}, marks: null, lasso: null, hidden: new Set(), mode: "pan", playing: false, view: "" };

  // -- what the server sends ----------------------------------------------------------------------------------------
  const TYPES = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, i4: Int32Array, u4: Uint32Array };
  function decode(packed) {
    if (!packed || packed.bdata === undefined) return packed || [];
    const text = atob(packed.bdata);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new TYPES[packed.dtype](bytes.buffer);
  }

  // The drawing with its arrays unpacked once, so that every change of what is chosen costs no decoding.
  function unpack(drawing) {
    if (drawing.ready) return drawing;
    const trace = drawing.figure.data[0];
    const flat = trace.type !== "scatter3d";
    const points = (flat ? ["x", "y"] : ["x", "y", "z"]).map((axis) => Float32Array.from(decode(trace[axis])));
    return { ...drawing, ready: true, flat, points, colours: decode(trace.marker.color) };
  }

  // -- one orientation for all epochs -------------------------------------------------------------------------------
  // UMAP and t-SNE have no up and no left: points are turned (or mirrored) to lie as near as they can to where they lay
  // before (orthogonal Procrustes in the plane). Axes of PCA mean something, and are at most mirrored.
  function align(points, before, turn) {
    const centred = (axes) => axes.map((axis) => {
      const mean = axis.reduce((sum, v) => sum + v, 0) / axis.length;
      return axis.map((v) => v - mean);
    });
    const [now, then] = [centred(points), centred(before)];
    const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
    if (!turn || points.length === 3) return points.map((axis, d) => (dot(now[d], then[d]) < 0 ? axis.map((v) => -v) : axis));
    const [a, b, c, d] = [dot(now[0], then[0]), dot(now[0], then[1]), dot(now[1], then[0]), dot(now[1], then[1])];
    const straight = Math.hypot(a + d, b - c);
    const mirrored = Math.hypot(a - d, b + c);
    const [cos, sin, flip] = straight >= mirrored ? [(a + d) / (straight || 1), (b - c) / (straight || 1), 1] : [(a - d) / mirrored, (b + c) / mirrored, -1];
    return [now[0].map((x, i) => x * cos - flip * now[1][i] * sin), now[0].map((x, i) => x * sin + flip * now[1][i] * cos)];
  }

  // -- the figure ---------------------------------------------------------------------------------------------------
  const groupsOf = (drawing) => (drawing.colour === "prediction" ? drawing.predictions : drawing.labels);
  const isWrong = (drawing, i) => drawing.labels[i] !== drawing.predictions[i];

  const outlines = (drawing) => state.look.outline !== "false" && drawing.colour !== "right";
  // Row → whether others are brought out instead of it; null where nothing is.
  function fading() {
    const { drawing, lasso, marks } = state;
    if (lasso && lasso.length) {
      const gathered = new Set(lasso);
      return (i) => !gathered.has(drawing.inputs[i]);
    }
    return marks && marks.class !== undefined ? (i) => drawing.labels[i] !== marks.class : null;
  }

  function figure() {
    const { drawing, points, hidden, marks } = state;
    const source = drawing.figure;
    const groups = groupsOf(drawing);
    const count = groups.length;
    const shown = points.map((axis) => Float32Array.from(axis, (v, i) => (hidden.has(groups[i]) ? NaN : v)));
    const outline = outlines(drawing);
    const faded = fading();
    const marker = { ...source.data[0].marker, color: drawing.colours };
    if ((drawing.flat && state.look.as === "images") || painted(drawing)) marker.opacity = 0;
    else {
      const each = (value) => Float32Array.from({ length: count }, (_, i) => value(i));
      if (faded) marker.opacity = each((i) => (faded(i) ? FADED : 0.9));
      if (outline && drawing.flat) marker.line = { ...marker.line, width: each((i) => (isWrong(drawing, i) && !(faded && faded(i)) ? 1.4 : 0)) };
    }
    const trace = { ...source.data[0], marker, x: shown[0], y: shown[1] };
    if (!drawing.flat) trace.z = shown[2];
    const layout = { ...source.layout };
    const data = [trace];
    const row = marks && marks.input !== undefined ? drawing.inputs.indexOf(marks.input) : -1;
    const near = row >= 0 ? (marks.rows || []).filter((i) => i < count) : [];
    if (drawing.flat) {
      layout.dragmode = state.mode;
      // The frame is that of all points: hiding a class moves nothing.
      layout.xaxis = { ...layout.xaxis, range: span(points[0]) };
      layout.yaxis = { ...layout.yaxis, range: span(points[1]) };
      layout.shapes = row < 0 ? [] : [...near.map((i) => line(points, row, i)), ring(points, row)];
      layout.newselection = { line: { color: dv.colour("accent"), width: 1.5, dash: "dot" } };
    } else {
      data.push(...spatial(points, row, near, outline ? drawing : null, hidden, groups));
      // A note stays in front of the points that would hide a mark.
      const colour = dv.colour("accent");
      const note = { text: "input " + marks?.input, font: { color: colour }, arrowcolor: colour, arrowhead: 0, ax: 24, ay: -36 };
      layout.scene = { ...layout.scene, annotations: row < 0 ? [] : [{ ...note, x: points[0][row], y: points[1][row], z: points[2][row] }] };
    }
    return { data, layout };
  }
  function span(axis) {
    let [low, high] = [Infinity, -Infinity];
    for (const v of axis) [low, high] = [Math.min(low, v), Math.max(high, v)];
    const margin = (high - low) * 0.06 || 1;
    return [low - margin, high + margin];
  }
  const ring = (points, i) => ({
    type: "circle", xref: "x", yref: "y", xsizemode: "pixel", ysizemode: "pixel", xanchor: points[0][i], yanchor: points[1][i],
    x0: -10, x1: 10, y0: -10, y1: 10, line: { color: dv.colour("accent"), width: 2.4 },
  });
  const line = (points, from, to) => ({
    type: "line", layer: "below", x0: points[0][from], y0: points[1][from], x1: points[0][to], y1: points[1][to], line: { color: dv.colour("muted"), width: 1 },
  });
  function spatial(points, row, near, outlined, hidden, groups) {
    const common = { type: "scatter3d", hoverinfo: "skip", showlegend: false };
    const at = (list) => Object.fromEntries(["x", "y", "z"].map((axis, d) => [axis, list.map((i) => (i === null ? null : points[d][i]))]));
    const wrong = outlined ? outlined.labels.map((_, i) => i).filter((i) => isWrong(outlined, i) && !hidden.has(groups[i])) : [];
    const size = state.drawing.figure.data[0].marker.size;
    return [
      { ...common, ...at(wrong), mode: "markers", marker: { symbol: "circle-open", size: size + 1.5, color: dv.colour("ink"), line: { width: 1 } } },
      { ...common, ...at(near.flatMap((i) => [row, i, null])), mode: "lines", line: { color: dv.colour("muted"), width: 2 } },
    ];
  }

  // What embedding_canvas.js draws by.
  const painted = (drawing) => drawing.flat && Boolean(drawing.figure.data[0].marker.maxdisplayed);
  dv.embedding = { state, groupsOf, isWrong, outlines, fading, painted, FADED };

  // -- legend -------------------------------------------------------------------------------------------------------
  function drawLegend() {
    const box = document.getElementById("embedding-legend");
    const { drawing, hidden } = state;
    if (!box || !drawing) return;
    const groups = groupsOf(drawing);
    const counts = new Map();
    for (const group of groups) counts.set(group, (counts.get(group) || 0) + 1);
    const legend = drawing.legend;
    const parts = [];
    const heading = (text) => parts.push(`<h2 class="dv-section-title">${dv.escape(text)}</h2>`);
    const coloured = drawing.colour === "class" || drawing.colour === "prediction";
    if (legend.ramp) {
      heading(legend.title);
      parts.push(
        `<div class="dv-legend"><span class="dv-num">${dv.number(legend.low)}</span><span class="ramp" style="background:linear-gradient(90deg,${legend.ramp.join(",")})"></span><span class="dv-num">${dv.number(legend.high)}</span></div>`,
      );
    } else if (!coloured) {
      heading(legend.title);
      const wrong = groups.reduce((sum, _, i) => sum + (isWrong(drawing, i) ? 1 : 0), 0);
      const numbers = [groups.length - wrong, wrong];
      parts.push('<div class="dv-classes">' + legend.entries.map(([name, colour], i) => entry(name, colour, numbers[i], "disabled")).join("") + "</div>");
    }
    heading(drawing.colour === "prediction" ? "Predicted class" : "Classes");
    const present = drawing.classes.map((_, i) => i).filter((i) => counts.get(i));
    const rows = present.slice(0, LEGEND_ROWS).map((i) => {
      const colour = coloured ? legend.entries[i][1] : "var(--dv-bar)";
      return entry(drawing.classes[i], colour, counts.get(i), `data-dv-class="${i}" aria-pressed="${!hidden.has(i)}" title="Click: hide or show. Double click: only this one."`, hidden.has(i));
    });
    parts.push('<div class="dv-classes">' + rows.join("") + "</div>");
    if (present.length > LEGEND_ROWS) parts.push(`<p class="dv-small">${present.length - LEGEND_ROWS} more classes.</p>`);
    if (hidden.size) parts.push('<button type="button" class="dv-btn small mt-2" data-dv-embedding="all">Show all</button>');
    const html = parts.join("");
    if (box.dataset.html !== html) {
      box.innerHTML = html;
      box.dataset.html = html;
    }
  }
  const entry = (name, colour, n, attributes, off) =>
    `<button type="button" class="${off ? "off" : ""}" ${attributes}><span class="dot" style="background:${colour}"></span><span class="name">${dv.escape(name)}</span><span class="n">${n === undefined ? "" : dv.count(n)}</span></button>`;

  function toggle(index, only) {
    const present = [...new Set(groupsOf(state.drawing))];
    let hidden = new Set(state.hidden);
    if (only) hidden = new Set(present.filter((i) => i !== index));
    else if (hidden.has(index)) hidden.delete(index);
    else hidden.add(index);
    dv.set("hide", [...hidden].sort((a, b) => a - b).join(","));
  }

  // -- the canvas under the plot ------------------------------------------------------------------------------------
  const drawCanvas = () => dv.paintEmbedding(graph());
  // plotly is loaded when the first picture is drawn: until it is there, look again.
  let watched = null;
  let waiting = 0;
  function watch(tries = 400) {
    clearTimeout(waiting);
    const plot = graph();
    if (!plot || !plot.on || !plot._fullLayout) {
      if (tries && document.getElementById("embedding-graph")) waiting = setTimeout(() => watch(tries - 1), 50);
      return;
    }
    if (plot !== watched) {
      watched = plot;
      for (const event of ["plotly_afterplot", "plotly_relayouting", "plotly_relayout"]) plot.on(event, drawCanvas);
    }
    drawCanvas();
  }

  // -- playback -----------------------------------------------------------------------------------------------------
  let timer = 0;
  function setPlaying(on) {
    state.playing = on;
    for (const button of document.querySelectorAll('[data-dv-embedding="play"]')) {
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? "❚❚ Epochs" : "▶ Epochs";
    }
    clearTimeout(timer);
    if (on) step(true);
  }
  function step(first) {
    const slider = document.getElementById("epoch-slider");
    if (!state.playing || !slider) return;
    const at = Number(slider.value);
    if (at >= Number(slider.max) && !first) return setPlaying(false);
    window.dash_clientside.set_props("epoch-slider", { value: at >= Number(slider.max) ? Number(slider.min) : at + 1 });
  }

  // -- clicks and keys ----------------------------------------------------------------------------------------------
  function setMode(mode) {
    state.mode = mode;
    for (const button of document.querySelectorAll('[data-dv-embedding="lasso"]')) button.setAttribute("aria-pressed", String(mode === "lasso"));
    const plot = graph();
    if (plot && window.Plotly && state.drawing && state.drawing.flat) window.Plotly.relayout(plot, { dragmode: mode });
  }
  function clear() {
    window.dash_clientside.set_props("embedding-lasso", { data: null });
    const plot = graph();
    if (plot && window.Plotly && state.drawing && state.drawing.flat) window.Plotly.relayout(plot, { selections: [] });
  }
  document.addEventListener("click", (event) => {
    const target = event.target.closest && event.target.closest("[data-dv-embedding],[data-dv-class],[data-dv-show]");
    if (!target || !document.getElementById("embedding-graph")) return;
    const what = target.dataset.dvEmbedding;
    if (what === "lasso") setMode(state.mode === "lasso" ? "pan" : "lasso");
    if (what === "clear") clear();
    if (what === "play") setPlaying(!state.playing);
    if (what === "all") dv.set("hide", "");
    if (what === "again") window.dash_clientside.set_props("embedding-again", { n_clicks: Date.now() });
    if (target.dataset.dvClass) toggle(Number(target.dataset.dvClass), event.detail > 1);
    // A thumbnail of the group that the lasso gathered: its card takes the group's place.
    if (target.dataset.dvShow && state.lasso) clear();
  });
  document.addEventListener("keydown", (event) => {
    const idle = !event.target.closest || !event.target.closest("input,select,textarea,button,summary,a,dialog");
    if (event.key === " " && idle && document.querySelector('[data-dv-embedding="play"]')) {
      event.preventDefault();
      setPlaying(!state.playing);
    }
    if (event.key === "Escape" && document.getElementById("embedding-graph") && !document.querySelector("dialog[open]")) {
      if (state.lasso) clear();
      else if (dv.selection.show && dv.selection.show !== "data") dv.show("data");
    }
  });
  document.addEventListener("dnnviz:theme", () => requestAnimationFrame(drawCanvas));

  // -- saving -------------------------------------------------------------------------------------------------------
  dv.picture.provide("/embedding", async () => {
    const plot = graph();
    if (!plot || !state.drawing) throw new Error("There is no picture to save yet.");
    const { width, height } = plot.getBoundingClientRect();
    const [w, h] = [Math.round(width), Math.round(height)];
    const url = await window.Plotly.toImage(plot, { format: "svg", width: w, height: h });
    let inner = decodeURIComponent(url.slice(url.indexOf(",") + 1));
    const canvas = document.getElementById("embedding-canvas");
    if (painted(state.drawing) || (state.look.as === "images" && state.drawing.flat)) {
      // plotly's own points are invisible here; what the canvas shows lies under the rest as one image.
      inner = inner.replace(/<svg[^>]*>/, (tag) => `${tag}<image width="${w}" height="${h}" xlink:href="${canvas.toDataURL("image/png")}"/>`);
    }
    const legend = savedLegend(w);
    return { svg: inner + legend.svg, width: w + legend.width, height: Math.max(h, legend.height), caption: state.drawing.caption };
  });
  function savedLegend(left) {
    const legend = state.drawing.legend;
    const text = (x, y, content, weight) => `<text x="${x}" y="${y}" font-size="12" ${weight ? 'font-weight="600" ' : ""}fill="${dv.colour("ink")}">${dv.escape(content)}</text>`;
    const parts = [text(left + 8, 24, legend.title, true)];
    let y = 46;
    if (legend.ramp) {
      const stops = legend.ramp.map((colour, i) => `<stop offset="${i / (legend.ramp.length - 1)}" stop-color="${colour}"/>`).join("");
      parts.push(`<defs><linearGradient id="dv-ramp">${stops}</linearGradient></defs><rect x="${left + 8}" y="${y - 10}" width="120" height="8" fill="url(#dv-ramp)"/>`);
      parts.push(text(left + 8, y + 16, dv.number(legend.low)), text(left + 104, y + 16, dv.number(legend.high)));
      y += 30;
    } else {
      const groups = new Set(state.drawing.colour === "right" ? [0, 1] : groupsOf(state.drawing));
      for (const [i, [name, colour]] of legend.entries.entries()) {
        if (!groups.has(i) || state.hidden.has(i) || y > 1200) continue;
        parts.push(`<circle cx="${left + 14}" cy="${y - 4}" r="5" fill="${colour}"/>`, text(left + 26, y, name.length > 20 ? name.slice(0, 19) + "…" : name));
        y += 19;
      }
    }
    return { svg: parts.join(""), width: 180, height: y };
  }

  // -- clientside callbacks -----------------------------------------------------------------------------------------
  const pick = (selection, keys) => Object.fromEntries(keys.filter((key) => selection[key] !== undefined && selection[key] !== "").map((key) => [key, selection[key]]));
  let sent = {};
  function changed(name, value) {
    const text = JSON.stringify(value);
    if (sent[name] === text) return nothing();
    sent[name] = text;
    return value;
  }
  let layerBefore = null;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_embedding: {
      // The selection → what decides the picture, what decides the card; each only when it changes.
      reduce: function (selection) {
        const host = page();
        if (!selection || !host || !document.getElementById("embedding-graph") || !("min_dist" in selection)) return Array(3).fill(nothing());
        const fresh = !host.dataset.method; // the page was made anew: its stores are empty
        if (fresh) {
          sent = {};
          Object.assign(state, { drawing: null, points: null, marks: null, lasso: null, playing: false, mode: "pan" });
        }
        for (const key of ["method", "dims", "colour"]) host.dataset[key] = selection[key] || "";
        const view = pick(selection, ["run", "epoch", "layer", ...OWN]);
        if (selection.colour === "unit" && selection.unit !== "") view.unit = selection.unit;
        const parts = [];
        for (const box of document.querySelectorAll(".dv-embedding-parameters > div")) {
          if (box.dataset.method && box.dataset.method !== selection.method) continue;
          const field = box.querySelector("label");
          if (field) parts.push(field.textContent.toLowerCase() + " " + field.querySelector("input").value);
        }
        const summary = document.getElementById("embedding-parameters");
        if (summary && parts.length) summary.textContent = parts.join(", ").replace(/^./, (c) => c.toUpperCase());
        return [
          changed("view", { ...view, theme: dv.theme() }),
          changed("picked", pick(selection, ["run", "epoch", "layer", "show", ...OWN])),
          changed("look", pick(selection, ["hide", "outline", "as", "epoch", "method"])),
        ];
      },
      answer: function (result) {
        if (result && result.kind === "projection") window.dash_clientside.set_props("embedding-result", { data: result });
        return nothing();
      },
      ask: function (request) {
        if (request) window.dash_clientside.set_props("job-request", { data: request });
        return nothing();
      },
      // Choice and depth of the layer say the same; a change goes into the address.
      layer: function (name, depth, layers) {
        const cause = (window.dash_clientside.callback_context.triggered[0] || {}).prop_id || "";
        const at = cause.startsWith("embedding-depth") ? Number(depth) : layers.findIndex((entry) => entry[0] === name);
        const [chosen, note] = layers[Math.max(at, 0)];
        if (cause && layerBefore && layerBefore !== chosen && layers.some((entry) => entry[0] === layerBefore)) {
          dv.set("layer", chosen);
          dv.set("unit", "");
          window.dash_clientside.set_props("embedding-unit", { value: "" });
        }
        layerBefore = chosen;
        return [chosen, Math.max(at, 0), note, Number((note.match(/([\d,]+) unit/) || ["", "1"])[1].replace(/,/g, "")) - 1];
      },
      unit: function (value) {
        if (value === null || value === undefined || value === "") return "";
        // A unit is one of a layer: the layer that the page opened with has to be named now.
        if (!dv.selection.layer) dv.set("layer", document.getElementById("embedding-layer").value);
        return String(value);
      },
      compose: function (drawing, look, marks, lasso) {
        const host = document.querySelector(".dv-embedding");
        if (!host) return nothing();
        state.look = look || {};
        state.marks = marks || null;
        state.lasso = lasso || null;
        state.hidden = new Set(String(state.look.hide || "").split(",").filter(Boolean).map(Number));
        const cause = window.dash_clientside.callback_context.triggered.map((entry) => entry.prop_id.split(".")[0]);
        const stale = drawing && (String(drawing.epoch) !== state.look.epoch || drawing.method !== state.look.method);
        host.classList.toggle("stale", Boolean(stale && cause.includes("embedding-look") && drawing.method === state.look.method));
        if (!drawing) {
          state.drawing = null;
          return { data: [], layout: { xaxis: { visible: false }, yaxis: { visible: false }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" } };
        }
        if (!state.drawing || state.drawing.source !== drawing) {
          const before = state.drawing;
          const unpacked = unpack(drawing);
          unpacked.source = drawing;
          const same = before && before.where === unpacked.where && before.inputs.length === unpacked.inputs.length;
          state.points = same ? align(unpacked.points, state.points, unpacked.method !== "pca") : unpacked.points;
          state.drawing = unpacked;
        }
        const key = JSON.stringify([["hide", "outline", "as"].map((name) => state.look[name]), marks, lasso, state.mode]);
        if (cause.length === 1 && cause[0] === "embedding-look" && key === state.view) return nothing();
        state.view = key;
        drawLegend();
        requestAnimationFrame(() => watch());
        if (cause.includes("embedding-drawing")) {
          host.classList.remove("stale");
          clearTimeout(timer);
          if (state.playing && state.drawing.method === state.look.method && String(drawing.epoch) === state.look.epoch) timer = setTimeout(() => step(false), STEP_MS);
        }
        return figure();
      },
      click: function (data) {
        const point = data && data.points && data.points.find((p) => p.curveNumber === 0);
        if (!point || !state.drawing) return nothing();
        if (state.lasso) clear();
        return "input:" + state.drawing.inputs[point.pointNumber];
      },
      hover: function (data) {
        const point = data && data.points && data.points.find((p) => p.curveNumber === 0);
        const { drawing } = state;
        let tip = document.getElementById("embedding-tip");
        if (!tip) {
          tip = document.createElement("div");
          tip.id = "embedding-tip";
          tip.className = "dv-tip";
          document.body.appendChild(tip);
        }
        const plot = graph();
        if (!point || !drawing || !plot || !point.bbox) {
          tip.style.display = "none";
          return nothing();
        }
        const i = point.pointNumber;
        const [truth, told] = [drawing.classes[drawing.labels[i]], drawing.classes[drawing.predictions[i]]];
        const url = dv.dataUrl(drawing.run, "thumb/" + drawing.inputs[i] + ".png", { size: 96 });
        tip.innerHTML =
          `<img src="${dv.escape(url)}" alt=""><b>${dv.escape(truth)}</b> · input ${drawing.inputs[i]}<br>` +
          (truth === told ? "predicted so" : `taken for <b>${dv.escape(told)}</b>`) + ` (${drawing.confidence[i].toFixed(2)})`;
        tip.style.display = "block";
        const at = plot.getBoundingClientRect();
        const [x, y] = [at.left + (point.bbox.x0 + point.bbox.x1) / 2, at.top + (point.bbox.y0 + point.bbox.y1) / 2];
        const size = tip.getBoundingClientRect();
        tip.style.left = (x + 16 + size.width > window.innerWidth ? x - 16 - size.width : x + 16) + "px";
        tip.style.top = Math.min(Math.max(y - size.height / 2, 8), window.innerHeight - size.height - 8) + "px";
        return nothing();
      },
      // What a lasso gathered, as numbers of inputs.
      select: function (data) {
        // Drawing the picture anew ends plotly's own selection, which it reports as one of no points.
        if (!data || !data.points || !data.points.length) return nothing();
        const rows = [...new Set(data.points.filter((p) => p.curveNumber === 0).map((p) => p.pointNumber))];
        return state.drawing && rows.length ? rows.map((i) => state.drawing.inputs[i]) : null;
      },
    },
  });
  dv.keys["l"] = () => (document.querySelector('[data-dv-embedding="lasso"]') ? setMode(state.mode === "lasso" ? "pan" : "lasso") : false);
})();
