// Choosing units for the ablation bench in the grid: by click, by dragging, by keyboard; the text in the address says the same.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const KINDS = ["dead", "alike", "hyperactive", "always fires"]; // the order in which the server counts them
  const MARKS = { 1: 3, 2: 2 }; // kind → mark of the grid's corner
  let grid = null;
  let mine = 0; // number of the latest drawing: an answer that comes late is dropped
  let chosen = new Uint8Array(0); // [U]
  let pending = null; // text that is on its way into the address
  let drag = null; // {from, before, adding}: a range that is being drawn
  let anchor = null; // global number from which a range with Shift goes
  let writing = 0;

  async function draw(selection, told) {
    const order = ++mine;
    const { run, epoch } = selection;
    const threshold = selection["prune-alike"];
    const facts = dv.prefix() + "pruning-data/" + encodeURIComponent(run) + "/facts.json?" + new URLSearchParams({ epoch, threshold });
    const [description, values, said] = await Promise.all([
      dv.fetchJson(dv.dataUrl(run, "layers.json")),
      dv.fetchFloats(dv.dataUrl(run, "values", { epoch, show: "data", stat: "mean" })),
      dv.fetchJson(facts),
    ]);
    const host = document.getElementById("pruning-grid");
    if (order !== mine || !host) return;
    const layers = description.layers;
    if (!grid || grid.host !== host) make(host);
    if (chosen.length !== description.units) chosen = new Uint8Array(description.units);
    if (pending === (selection.ablate || "")) pending = null;
    if (told && pending === null && !drag && told.text === (selection.ablate || "")) {
      chosen.fill(0);
      for (const layer of layers) for (const unit of told.units[layer.name] || []) chosen[layer.offset + unit] = 1;
    }
    grid.facts = { ...said, classes: description.classes };
    grid.total = layers.filter((layer) => layer.kind !== "block").reduce((sum, layer) => sum + layer.units, 0);
    // Blocks repeat what their layers show; they are there where one of their units is named.
    const kinds = new Set(layers.filter((layer) => layer.kind !== "block" || (told && told.units[layer.name])).map((layer) => layer.kind));
    const marks = Uint8Array.from(said.kinds, (kind) => (kind & 1 ? MARKS[1] : kind & 2 ? MARKS[2] : 0));
    const levels = dv.levels(values.data, layers, dv.ranges(values.data, layers, "layer"));
    grid.set({ layers, kinds, chosen, panels: [{ title: "Mean over all inputs", values: values.data, levels, map: "sequential", marks }] });
    legend(marks);
    count();
  }

  function make(host) {
    drag = anchor = pending = null;
    grid = new dv.Grid(host, {
      scroller: document.getElementById("pruning-scroll"),
      fit: true,
      meta: (layer) => `${layer.kind}, ${dv.count(layer.units)} units`,
      onFold: (folded) => grid.set({ folded }),
      onPick: (layer, unit) => unit === null && whole(layer),
      tip: (layer, unit) => tip(layer, unit),
    });
    host.setAttribute("aria-label", "Units to switch off. Arrow keys move, Space chooses, Shift with an arrow key chooses a range.");
    host.addEventListener("pointerdown", down);
    host.addEventListener("pointermove", (event) => drag && over(event));
    host.addEventListener("keydown", key);
  }

  const globally = (hit) => grid.layers.find((layer) => layer.name === hit.layer).offset + hit.unit;
  // The cells between two, in the order in which they are shown, in the layers that are shown.
  function fill(from, to, before, value) {
    chosen.set(before);
    const [low, high] = from < to ? [from, to] : [to, from];
    for (const { layer } of grid.rows) for (let at = Math.max(low, layer.offset); at <= Math.min(high, layer.offset + layer.units - 1); at++) chosen[at] = value;
    grid.request();
    count();
  }

  function down(event) {
    const hit = event.button === 0 && grid.hit(event);
    if (!hit) return;
    const at = globally(hit);
    const range = event.shiftKey && anchor !== null;
    drag = { from: range ? anchor : at, before: chosen.slice(), adding: range || !chosen[at] ? 1 : 0 };
    if (!range) anchor = at;
    fill(drag.from, at, drag.before, drag.adding);
    window.addEventListener("pointerup", up, { once: true });
    window.addEventListener("pointercancel", up, { once: true });
  }

  function over(event) {
    const hit = grid.hit(event);
    if (hit) fill(drag.from, globally(hit), drag.before, drag.adding);
  }

  function up() {
    drag = null;
    write();
  }

  // All units of a layer; none of them where all are chosen.
  function whole(name) {
    const layer = grid.layers.find((each) => each.name === name);
    const all = chosen.subarray(layer.offset, layer.offset + layer.units).every(Boolean);
    chosen.fill(all ? 0 : 1, layer.offset, layer.offset + layer.units);
    grid.request();
    count();
    write();
  }

  function key(event) {
    if (event.target !== grid.host || !(event.key === " " || event.key === "Enter" || event.key.startsWith("Arrow"))) return;
    if (!grid.picked) {
      // Where the keyboard begins.
      event.preventDefault();
      if (grid.rows.length) grid.set({ picked: { layer: grid.rows[0].layer.name, unit: 0 } });
      return;
    }
    const at = globally(grid.picked);
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      anchor = at;
      fill(at, at, chosen.slice(), chosen[at] ? 0 : 1);
      write();
    } else if (event.shiftKey && anchor !== null) {
      // The grid has moved already.
      fill(anchor, at, chosen.slice(), 1);
      write();
    } else anchor = at;
  }

  // The units as the server reads them: LAYER:0,2-4; …
  function text() {
    const parts = [];
    for (const layer of grid.layers) {
      const ranges = [];
      for (let u = 0; u < layer.units; u++) {
        if (!chosen[layer.offset + u]) continue;
        const first = u;
        while (u + 1 < layer.units && chosen[layer.offset + u + 1]) u++;
        ranges.push(first === u ? String(u) : first + "-" + u);
      }
      if (ranges.length) parts.push(layer.name + ":" + (ranges[0] === "0-" + (layer.units - 1) ? "all" : ranges.join(",")));
    }
    return parts.join("; ");
  }

  // Clicks that follow each other closely change the address once.
  function write(now) {
    pending = now === undefined ? text() : now;
    clearTimeout(writing);
    writing = setTimeout(
      () => {
        if (pending === (dv.selection.ablate || "")) pending = null;
        else dv.set("ablate", pending);
      },
      now === undefined ? 250 : 0,
    );
  }

  function count() {
    const box = document.getElementById("pruning-count");
    const own = grid.layers.map((layer) => chosen.subarray(layer.offset, layer.offset + layer.units).reduce((sum, one) => sum + one, 0));
    const all = own.reduce((sum, one) => sum + one, 0);
    const layers = own.filter(Boolean).length;
    box.textContent = all ? `${dv.count(all)} of ${dv.count(grid.total)} units chosen, in ${layers} ${layers === 1 ? "layer" : "layers"}` : "No unit is chosen";
  }

  function tip(layer, unit) {
    const at = layer.offset + unit;
    const { kinds, follows, correlation, prefers, classes } = grid.facts;
    const lines = [`mean ${dv.number(grid.panels[0].values[at])}`];
    if (prefers[at] >= 0) lines.push(`prefers ${dv.escape(classes[prefers[at]])}`);
    KINDS.forEach((kind, i) => kinds[at] & (1 << i) && kind !== "alike" && lines.push(kind));
    if (follows[at] >= 0) lines.push(`follows unit ${follows[at]}, r = ${correlation[at]}`);
    return `<b>${dv.escape(layer.name)} · unit ${unit}</b><br>${lines.join("<br>")}${chosen[at] ? "<br><i>chosen</i>" : ""}`;
  }

  function legend(marks) {
    const box = document.getElementById("pruning-legend");
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    ramp.style.background = dv.gradient("sequential");
    const parts = ["silent", ramp, "layer's strongest"];
    for (const [mark, colour, title] of [[3, "warn", "dead"], [2, "ok", "follows another"]]) {
      if (!marks.includes(mark)) continue;
      const corner = document.createElement("span");
      corner.className = "dv-pruning-corner";
      corner.style.background = `var(--dv-${colour})`;
      parts.push(corner, title);
    }
    box.replaceChildren(...parts);
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-pruning-clear]")) write("");
    if (!event.target.closest("[data-pruning-add]")) return;
    // All units of a layer that prefer a class or are of a kind, behind what is named already.
    const value = (id) => document.getElementById(id).value;
    const kind = value("pruning-kind");
    const part = value("pruning-of") + ":" + (kind === "prefers" ? "prefers " + value("pruning-prefer") : kind);
    const before = (pending === null ? dv.selection.ablate || "" : pending).trim().replace(/;$/, "");
    if (!before.split(/;\s*/).includes(part)) write(before ? before + "; " + part : part);
  });

  dv.pruning = { draw, grid: () => grid };
})();
