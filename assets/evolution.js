// The evolution page: all epochs are fetched once, turned into levels once, and played in the browser.
// The server hears of an epoch only when playback stops there.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const EMPTY = 255; // level of a value that is not a number, as in grid.js
  const EVENTS = { 1: "died", 2: "came alive", 3: "changed class" };
  let order = 0; // number of the latest request: an answer that comes late is dropped
  let view = null; // what is on the page: {grid, description, selection, values, levels, events, preferred, E, U, …}
  const play = { position: 0, running: false, last: 0, shown: -1, epoch: null };

  const onPage = () => view && view.grid && document.contains(view.grid.host);
  const on = (key) => String(view.selection[key]) === "true";

  // -- data ---------------------------------------------------------------------------------------------------------
  async function load(selection) {
    const mine = ++order;
    const { run, show, stat } = selection;
    const split = selection.split === "all" ? "" : selection.split;
    const [description, epochs] = await Promise.all([dv.fetchJson(dv.dataUrl(run, "layers.json")), dv.fetchFloats(dv.dataUrl(run, "epochs", { show, stat, split }))]);
    const host = document.getElementById("evolution-grid");
    if (mine !== order || !host) return;
    const before = onPage() && view.grid.host === host ? view : null;
    const [E, U] = epochs.shape;
    const same = before && before.values === epochs.data && before.selection.scale === selection.scale;
    const next = before || { grid: makeGrid(host), columns: [] };
    Object.assign(next, { description, selection, E, U, values: epochs.data });
    if (!before || before.run !== run) {
      next.run = run;
      next.events = new Uint8Array(E * U);
      next.preferred = null;
      // The first time, the server works them out; the grid need not wait.
      loadEvents(next).catch((error) => dv.toast(error.message));
    }
    if (!same) {
      next.ranges = ranges(epochs.data, description.layers, E, U, selection.scale);
      next.levels = quantise(epochs.data, description.layers, E, U, next.ranges);
      next.blend = new Uint8Array(U);
    }
    view = next;
    layOut(before);
    if (play.epoch !== selection.epoch || !before) {
      // The epoch came from outside: the slider, a key, the address.
      play.epoch = selection.epoch;
      if (before && play.running) stop(false);
      play.running = false;
      play.position = Math.max(0, description.epochs.indexOf(Number(selection.epoch)));
    }
    play.shown = -1;
    draw();
    attachCharts();
  }

  async function loadEvents(next) {
    const found = await dv.fetchShorts(dv.dataUrl(next.run, "events"));
    const half = found.data.length / 2;
    next.events = Uint8Array.from(found.data.subarray(0, half));
    next.preferred = found.data.subarray(half);
    if (next !== view || !onPage()) return;
    countEvents();
    drawTimeline();
    play.shown = -1;
    draw();
  }

  // One [low, high] per layer for all epochs, or per epoch and layer (mode `layer`): as long as E × L.
  function ranges(values, layers, E, U, mode) {
    const own = [];
    for (let e = 0; e < E; e++) {
      const row = values.subarray(e * U, (e + 1) * U);
      own.push(dv.ranges(row, layers, "layer"));
    }
    if (mode === "layer") return own;
    let shared = layers.map((_, i) => [Math.min(...own.map((r) => r[i][0]).filter(Number.isFinite), 0), Math.max(...own.map((r) => r[i][1]).filter(Number.isFinite))]);
    if (mode === "clip")
      shared = layers.map((layer, i) => {
        const all = new Float32Array(E * layer.units);
        for (let e = 0; e < E; e++) all.set(values.subarray(e * U + layer.offset, e * U + layer.offset + layer.units), e * layer.units);
        const sorted = all.filter(Number.isFinite).sort();
        const high = sorted.length ? sorted[Math.floor(0.98 * (sorted.length - 1))] : 0;
        return [shared[i][0], high > shared[i][0] ? high : shared[i][1]];
      });
    if (mode === "all") {
      const finite = shared.filter((r) => Number.isFinite(r[1]));
      const both = [Math.min(...finite.map((r) => r[0])), Math.max(...finite.map((r) => r[1]))];
      shared = layers.map(() => both);
    }
    return own.map(() => shared);
  }

  function quantise(values, layers, E, U, found) {
    const levels = new Uint8Array(E * U);
    for (let e = 0; e < E; e++) levels.set(dv.levels(values.subarray(e * U, (e + 1) * U), layers, found[e]), e * U);
    return levels;
  }

  // -- the grid -----------------------------------------------------------------------------------------------------
  function makeGrid(host) {
    return new dv.Grid(host, {
      onPick: (layer, unit) => dv.choose(layer, unit),
      onFold: (folded) => dv.set("fold", [...folded].join(",")),
      meta: (layer) => describe(layer),
      tip: (layer, unit) => tip(layer, unit),
    });
  }

  function describe(layer) {
    const at = Math.max(0, play.shown);
    const dead = (view.description.dead[at] || [])[view.description.layers.indexOf(layer)];
    const share = dead ? ", " + ((100 * dead).toFixed(dead < 0.01 ? 1 : 0)) + " % dead" : "";
    return `${layer.kind}, ${dv.count(layer.units)} units${share}`;
  }

  function tip(layer, unit) {
    const at = Math.max(0, play.shown);
    const column = layer.offset + unit;
    const value = view.values[at * view.U + column];
    const classes = view.description.classes;
    const name = (label) => (label < 0 ? "none, it is dead" : "“" + dv.escape(classes[label]) + "”");
    const lines = [`${dv.number(value)} at epoch ${view.description.epochs[at]}`];
    if (view.preferred) lines.push("preferred class: " + name(view.preferred[at * view.U + column]));
    const event = view.events[at * view.U + column];
    if (event === 3) lines.push("changed from " + name(view.preferred[(at - 1) * view.U + column]));
    else if (event) lines.push(EVENTS[event] + " since epoch " + view.description.epochs[at - 1]);
    return `<b>${dv.escape(layer.name)} · unit ${unit}</b><br>` + lines.join("<br>");
  }

  function layOut(before) {
    const { grid, description, selection } = view;
    const state = { panels: [{ title: title(), values: view.values.subarray(0, view.U), levels: view.levels.subarray(0, view.U), map: "sequential", marks: null }] };
    const picked = selection.layer ? { layer: selection.layer, unit: selection.unit === "" ? null : Number(selection.unit) } : null;
    const moved = picked && JSON.stringify(picked) !== JSON.stringify(grid.picked);
    const shape = [selection.run, selection.kinds, selection.fold, selection.cell].join("|");
    if (!before || view.shape !== shape) {
      view.shape = shape;
      Object.assign(state, { layers: description.layers, kinds: new Set((selection.kinds || "").split(",")), cell: Number(selection.cell) || 0 });
      state.folded = new Set((selection.fold || "").split(",").filter(Boolean));
    }
    grid.set(Object.assign(state, { picked }));
    for (const label of grid.labels.querySelectorAll(".dv-grid-label")) label.classList.toggle("chosen", Boolean(picked) && label.dataset.layer === picked.layer);
    if (moved) grid.reveal(picked.layer);
    document.getElementById("evolution").classList.toggle("no-charts", !on("charts"));
    countEvents();
    drawTimeline();
    legend();
    playButton();
  }

  function title() {
    const [kind, index] = view.selection.show.split(":");
    if (kind === "class") return "Class “" + view.description.classes[Number(index)] + "”";
    return kind === "input" ? "Input " + index : "All inputs";
  }

  function legend() {
    const ends = { epochs: "layer's maximum, all epochs", clip: "layer's 98th percentile, all epochs", layer: "layer's maximum at this epoch" };
    const all = view.ranges[0][0];
    const high = view.selection.scale === "all" ? dv.number(all[1]) + ", all layers and epochs" : ends[view.selection.scale] || ends.epochs;
    const low = Math.min(...view.ranges.flatMap((row) => row.map((r) => r[0])));
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    ramp.style.background = dv.gradient("sequential");
    document.getElementById("evolution-legend").replaceChildren(low < 0 ? (view.selection.scale === "all" ? dv.number(low) : "≤ 0") : "0", ramp, high);
  }

  // -- events over the epochs ---------------------------------------------------------------------------------------
  function countEvents() {
    const kinds = (view.selection.kinds || "").split(",");
    const layers = view.description.layers.filter((layer) => kinds.includes(layer.kind));
    view.counts = Array.from({ length: view.E }, (_, e) => {
      const count = [0, 0, 0, 0];
      for (const layer of layers) for (let u = e * view.U + layer.offset, end = u + layer.units; u < end; u++) count[view.events[u]]++;
      return count;
    });
  }

  function drawTimeline() {
    const host = document.getElementById("evolution-timeline");
    const tallest = Math.max(1, ...view.counts.map((c) => c[1] + c[2] + c[3]));
    const stride = Math.ceil(view.E / Math.max(1, Math.floor((host.clientWidth || 400) / 26)));
    view.columns = view.counts.map((count, e) => {
      const column = document.createElement("div");
      column.className = "evo-column";
      const bars = document.createElement("div");
      bars.className = "evo-bars";
      for (const kind of [3, 2, 1]) {
        if (!count[kind]) continue;
        const bar = document.createElement("i");
        bar.className = "kind-" + kind;
        bar.style.height = Math.max(4, (100 * count[kind]) / tallest) + "%";
        bars.append(bar);
      }
      const label = document.createElement("span");
      label.textContent = e % stride === 0 ? view.description.epochs[e] : "";
      column.title = `Epoch ${view.description.epochs[e]}: ` + summary(e);
      column.append(bars, label);
      column.addEventListener("click", () => goTo(e));
      return column;
    });
    view.head = document.createElement("div");
    view.head.className = "evo-head";
    host.replaceChildren(...view.columns, view.head);
  }

  const summary = (e) => (e === 0 ? "first snapshot" : [1, 2, 3].map((kind) => `${dv.count(view.counts[e][kind])} ${EVENTS[kind]}`).join(", "));

  // -- playback -----------------------------------------------------------------------------------------------------
  function draw() {
    if (!onPage()) return;
    const { grid, E, U, levels } = view;
    const position = Math.min(play.position, E - 1);
    const low = Math.floor(position);
    const share = play.running && on("smooth") && low < E - 1 ? position - low : 0;
    const nearest = Math.min(E - 1, share ? Math.round(position) : low);
    const panel = grid.panels[0];
    if (share) {
      const a = low * U;
      const b = a + U;
      const weight = Math.round(share * 256);
      for (let u = 0; u < U; u++) {
        const from = levels[a + u];
        const to = levels[b + u];
        view.blend[u] = from === EMPTY || to === EMPTY ? EMPTY : from + (((to - from) * weight) >> 8);
      }
      panel.levels = view.blend;
    } else panel.levels = levels.subarray(nearest * U, (nearest + 1) * U);
    panel.values = view.values.subarray(nearest * U, (nearest + 1) * U);
    panel.marks = on("marks") ? view.events.subarray(nearest * U, (nearest + 1) * U) : null;
    if (nearest !== play.shown) {
      play.shown = nearest;
      labels(nearest);
    }
    // First the grid, which reads the layout, then what changes it.
    grid.paint();
    const along = share ? position : nearest;
    if (view.head) view.head.style.left = ((along + 0.5) / E) * 100 + "%";
    markCharts(along);
  }

  function labels(e) {
    const epoch = view.description.epochs[e];
    document.getElementById("evolution-title").textContent = `${title()}, epoch ${epoch}`;
    const note = document.createElement("span");
    note.className = "dv-small";
    note.textContent = summary(e);
    document.getElementById("evolution-title").append(note);
    view.columns.forEach((column, i) => column.classList.toggle("now", i === e));
    const notes = view.grid.labels.querySelectorAll(".dv-grid-label i");
    view.grid.rows.forEach((row, i) => {
      if (notes[i]) notes[i].textContent = describe(row.layer);
    });
    if (view.grid.hovered) view.grid.tip.innerHTML = view.grid.describe(view.grid.hovered);
    // React owns these two: its text node is kept, and it sets them itself when playback stops.
    const number = document.getElementById("epoch-value");
    if (number && number.firstChild) number.firstChild.nodeValue = String(epoch);
    const slider = document.getElementById("epoch-slider");
    if (slider && document.activeElement !== slider) slider.value = String(e);
  }

  function tick(now) {
    if (!play.running) return;
    if (!onPage()) {
      play.running = false;
      return;
    }
    // A frame's time may lie before the click that started playback; a tab that slept does not leap.
    const elapsed = Math.min(0.25, Math.max(0, now - play.last) / 1000);
    play.last = now;
    play.position += elapsed * (Number(view.selection.speed) || 3);
    // The last snapshot is held as long as the others before playback ends or starts again.
    if (play.position >= view.E) {
      if (!on("loop")) return stop(true);
      play.position %= view.E;
    }
    draw();
    requestAnimationFrame(tick);
  }

  function start() {
    if (play.running || !onPage()) return;
    if (play.position >= view.E - 1) play.position = 0;
    play.running = true;
    play.last = performance.now();
    playButton();
    requestAnimationFrame(tick);
  }

  // Stop on a snapshot; `tell`: put it into the address.
  function stop(tell) {
    play.running = false;
    play.position = Math.max(0, Math.min(view.E - 1, play.shown));
    playButton();
    draw();
    if (tell) goTo(play.position);
  }

  function goTo(position) {
    if (!onPage()) return;
    const to = Math.max(0, Math.min(view.E - 1, position));
    play.running = false;
    play.position = to;
    play.epoch = String(view.description.epochs[to]);
    playButton();
    draw();
    window.dash_clientside.set_props("epoch-slider", { value: to });
    // The slider may hold this value already, having been moved by playback only on the screen.
    dv.set("epoch", play.epoch);
  }

  function playButton() {
    const button = document.getElementById("evolution-play");
    if (!button) return;
    button.textContent = play.running ? "❚❚ Pause" : "▶ Play";
    button.setAttribute("aria-pressed", String(play.running));
    document.getElementById("evolution").classList.toggle("playing", play.running);
  }

  const toggle = () => (play.running ? stop(true) : start());
  const here = (event) => onPage() && !event.target.closest("button,a,summary,input,label,select");
  dv.keys[" "] = (event) => (here(event) ? toggle() : false);
  for (const [key, by] of [
    ["ArrowLeft", -1],
    ["ArrowRight", 1],
  ]) {
    // Only while it plays: a paused page leaves the arrows to the shell.
    const shells = dv.keys[key];
    dv.keys[key] = (event) => (onPage() && play.running && !event.target.matches("input[type=radio]") ? goTo(play.shown + by) : shells ? shells(event) : false);
  }
  document.addEventListener("click", (event) => {
    if (!onPage() || !event.target.closest) return;
    if (event.target.closest("#evolution-play")) toggle();
    if (event.target.closest("#evolution-back")) goTo(play.shown - 1);
    if (event.target.closest("#evolution-forward")) goTo(play.shown + 1);
  });

  // -- charts -------------------------------------------------------------------------------------------------------
  // A line over each chart says where playback is; it is an element of the page, so that a frame costs no redrawing.
  const charts = () => ["evolution-metrics", "evolution-layers"].map((id) => document.querySelector(`#${id} .js-plotly-plot`)).filter(Boolean);

  function attachCharts() {
    for (const graph of charts()) {
      if (graph.dvAttached || !graph.on) continue;
      graph.dvAttached = true;
      graph.on("plotly_afterplot", () => draw());
      graph.on("plotly_click", (event) => {
        const point = event.points && event.points[0];
        if (!point || !onPage()) return;
        const layers = graph.closest("#evolution-layers");
        goTo(layers ? Number(point.x) : point.pointNumber);
        if (layers) {
          const name = point.data.type === "heatmap" ? visibleLayers()[point.y] : point.data.name;
          if (name) dv.choose(name, null);
        }
      });
    }
  }

  const visibleLayers = () => view.description.layers.filter((l) => (view.selection.kinds || "").split(",").includes(l.kind)).map((l) => l.name);

  // Where the charts' x axes have `along` (a position among the snapshots): pixels from the left of the graph.
  function places(graph, along) {
    const layout = graph._fullLayout;
    if (!layout) return [];
    const epochs = view.description.epochs;
    const low = Math.floor(along);
    const epoch = low < view.E - 1 ? epochs[low] + (epochs[low + 1] - epochs[low]) * (along - low) : epochs[view.E - 1];
    const at = graph.closest("#evolution-layers") ? along : epoch;
    return ["xaxis", "xaxis2"].map((name) => layout[name]).filter((axis) => axis && axis.l2p).map((axis) => ({ left: axis._offset + axis.l2p(at), top: layout._size.t, height: layout._size.h, at, axis: axis._id }));
  }

  function markCharts(along) {
    for (const graph of charts()) {
      const box = graph.closest(".evo-graph-box");
      const wanted = places(graph, along);
      const lines = [...box.querySelectorAll(".evo-now")];
      while (lines.length < wanted.length) {
        const line = document.createElement("div");
        line.className = "evo-now";
        box.append(line);
        lines.push(line);
      }
      lines.forEach((line, i) => {
        const place = wanted[i];
        line.style.display = place ? "" : "none";
        if (!place) return;
        line.style.transform = `translateX(${place.left.toFixed(1)}px)`;
        line.style.top = place.top + "px";
        line.style.height = place.height + "px";
      });
    }
  }

  // Charts are drawn some time after the page, and again when they are resized or recoloured.
  const watch = new MutationObserver(() => onPage() && attachCharts());
  document.addEventListener("dnnviz:theme", () => {
    if (!onPage()) return;
    legend();
    draw();
    // Another palette in the same theme: no callback hears of it.
    const request = chartRequest(view.selection, dv.theme());
    if (request) window.dash_clientside.set_props("evolution-request", { data: request });
  });

  // -- picture ------------------------------------------------------------------------------------------------------
  async function chartPicture(graph, width, height) {
    const marks = places(graph, play.shown).map((place) => ({
      type: "line",
      xref: place.axis,
      yref: "paper",
      x0: place.at,
      x1: place.at,
      y0: 0,
      y1: 1,
      line: { color: dv.colour("ink"), width: 1, dash: "dot" },
    }));
    const layout = Object.assign({}, graph.layout, { shapes: marks, width, height, autosize: false });
    const url = await window.Plotly.toImage({ data: graph.data, layout }, { format: "svg", width, height });
    return decodeURIComponent(url.slice(url.indexOf(",") + 1));
  }

  function splitLegend(left, top, words) {
    let x = left;
    let svg = "";
    for (const item of document.querySelectorAll("#evolution-splits > span")) {
      const style = item.firstChild.style;
      const dash = { dotted: "2 2", dashed: "5 3" }[style.borderTopStyle] || "";
      svg += `<line x1="${x}" x2="${x + 18}" y1="${top}" y2="${top}" stroke="${style.borderTopColor}" stroke-width="2" stroke-dasharray="${dash}"/>` + words(x + 24, top + 4, item.textContent, "muted");
      x += 40 + item.textContent.length * 7;
    }
    return svg;
  }

  dv.picture.provide("/evolution", async () => {
    if (!onPage()) throw new Error("There is nothing to save: this run has one snapshot.");
    if (play.running) stop(true);
    const { selection, description, grid } = view;
    const picture = grid.svg();
    let { svg, height } = picture;
    const words = (x, y, text, colour) => `<text x="${x}" y="${y}" font-size="12" fill="${dv.colour(colour)}">${dv.escape(text)}</text>`;
    const marked = on("marks") && play.shown > 0;
    if (marked) {
      const colours = { 1: dv.colour("ink"), 2: dv.colour("ok"), 3: dv.colour("warn") };
      let x = 22;
      for (const kind of [1, 2, 3]) {
        const text = `${dv.count(view.counts[play.shown][kind])} ${EVENTS[kind]}`;
        svg += `<path fill="${colours[kind]}" d="M${x} ${height + 1}h9v9z"/>` + words(x + 15, height + 10, text, "muted");
        x += 40 + text.length * 6.4;
      }
      svg += words(x, height + 10, `since epoch ${description.epochs[play.shown - 1]}`, "muted");
      height += 30;
    }
    const found = on("charts") ? charts() : [];
    let left = 12;
    for (const [i, graph] of found.entries()) {
      const width = Math.round((picture.width - 36) * (i ? 0.52 : 0.48));
      const drawn = await chartPicture(graph, width, 260);
      const head = i ? document.querySelector('#evolution [id*="figure"] option:checked').textContent : "Accuracy and loss";
      svg += `<text x="${left + 8}" y="${height + 14}" font-size="13" font-weight="600" fill="${dv.colour("ink")}">${dv.escape(head)}</text>`;
      if (!i) svg += splitLegend(left + 150, height + 10, words);
      svg += drawn.replace(/^<svg /, `<svg x="${left}" y="${height + 22}" `);
      left += width + 12;
    }
    if (found.length) height += 290;
    const scales = {
      epochs: "each layer, one scale for all epochs",
      clip: "each layer, one scale for all epochs, cut at the 98th percentile",
      all: "one scale for all layers and epochs",
      layer: "each layer on its own scale at this epoch",
    };
    const marks = marked ? " Corners: what happened to units since the snapshot before." : "";
    const caption = `${selection.run}, epoch ${description.epochs[play.shown]}. ${title()}: ${VALUES[selection.stat] || VALUES.mean} of every unit; colour: ${scales[selection.scale] || scales.epochs}, from zero (light) to the maximum (dark).${marks}`;
    return { svg, width: picture.width, height, caption };
  });

  // -- the callback -------------------------------------------------------------------------------------------------
  const VALUES = { mean: "mean activation", max: "largest activation", active: "share of inputs on which it fires" };
  const SCALES = {
    epochs: "Full colour is the layer's strongest unit at any epoch, so epochs can be compared.",
    clip: "Full colour is the layer's 98th percentile over all epochs, so that one loud unit does not hide the others.",
    all: "One scale for all layers and epochs: pale layers are weak ones.",
    layer: "Each epoch has its own scale: patterns show, growth does not.",
  };
  let asked = "";
  // What the charts depend on, or null where they have been drawn for it.
  function chartRequest(selection, theme) {
    const request = { theme, palette: dv.palette() };
    for (const key of ["run", "kinds", "figure", "form"]) request[key] = selection[key];
    const text = JSON.stringify(request);
    const graph = document.querySelector("#evolution-layers .js-plotly-plot");
    const drawn = text === asked && graph && graph.data && graph.data.length;
    asked = text;
    return drawn ? null : request;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_evolution: {
      // The selection → the grid; the explanation; and what the charts depend on (not the epoch), when that changed.
      draw: function (selection, theme) {
        const none = window.dash_clientside.no_update;
        if (!selection || !selection.run || selection.speed === undefined || !document.getElementById("evolution-grid")) return [none, none];
        load(selection).catch((error) => dv.toast(error.message));
        watch.observe(document.getElementById("evolution"), { childList: true, subtree: true });
        const request = chartRequest(selection, theme || dv.theme());
        const how =
          `Each cell is one unit: its ${VALUES[selection.stat] || VALUES.mean}. ${SCALES[selection.scale] || SCALES.epochs} ` +
          "A corner marks what happened since the snapshot before: a unit died when it fires on no input any more, and changed class when another class " +
          "clearly excites it more than the one it preferred. Smooth playback blends the colours between snapshots.";
        return [how, request || none];
      },
    },
  });
  // For benchmarks: the grid that is on the page.
  dv.evolutionGrid = () => (onPage() ? view.grid : null);
})();
