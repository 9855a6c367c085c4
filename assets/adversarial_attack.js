// One attack: the three pictures, probabilities as they change, norms, and the path through the layers with its proof.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.adversarial;
  const [BACK, TALL] = [104, 20]; // width of the drawn patching, height of a row of the table
  const ALIKE = 0.8; // share of the layers that the carrying units restore, from which on random ones do as well
  const SHOWN = 0.05; // probability from which the line of a class has its name beside it
  const names = { original: "Original", perturbation: "Perturbation", adversarial: "Result" };
  const magnified = ({ factor, cut }) => (factor === 1 ? "not magnified" : `magnified × ${dv.count(factor)}`) + "; grey: unchanged" + (cut ? `; ${page.percent(cut)} of the values go further` : "");

  // Words under each of the three pictures.
  function captions(known) {
    const { about, pictures, classes, probabilities } = known.result;
    const last = probabilities[probabilities.length - 1];
    const sure = (number, row) => {
      const at = classes.findIndex((entry) => entry.number === number);
      return at < 0 ? "" : `${classes[at].name} (${page.percent(row[at])})`;
    };
    return {
      original: sure(about.before, probabilities[0]),
      perturbation: magnified(pictures),
      adversarial: about.after === undefined ? "" : sure(about.after, last),
    };
  }
  function figures(known) {
    const { pictures } = known.result;
    const words = captions(known);
    return Object.entries(names).map(([name, title]) => {
      const image = page.element("img", pictures.crisp ? "crisp" : "");
      image.src = pictures[name];
      image.alt = `${title}: ${words[name]}`;
      return page.element("figure", "adv-figure", image, page.element("figcaption", "", page.element("b", "", title), page.element("span", "", words[name])));
    });
  }

  function facts(known) {
    const { about } = known.result;
    const { norms } = about;
    const rows = norms
      ? [
          ["L∞, largest change", `${dv.number(norms.linf_255)} of 255`, `${dv.number(norms.linf)} with pixels from 0 to 1`],
          ["L2, length", `${dv.number(norms.l2)}`, `with pixels from 0 to 1; ${dv.number(norms.l2_255)} from 0 to 255`],
          ["L0, pixels changed", page.percent(norms.l0), ""],
        ]
      : [];
    if (about.steps !== undefined) rows.push(["Steps", dv.count(about.steps), about.evaluations === undefined ? "" : `${page.count(about.evaluations, "pass")} forward, ${dv.count(about.gradients)} back`]);
    if (about.rounded !== undefined && about.rounded !== null && about.success)
      rows.push(["Rounded to 256 levels", about.rounded === about.after ? "holds" : "no longer holds", about.rounded === about.after ? "" : "saved as an 8-bit image, the network names another class"]);
    const list = page.element("dl", "adv-facts dv-num");
    for (const [name, value, more] of rows) list.append(page.element("dt", "", name), page.element("dd", "", value, more ? page.element("span", "dv-small", more) : null));
    return list;
  }

  // -- probabilities ---------------------------------------------------------------------------------------------------
  const steps = (known) => known.result.probabilities.length - 1;
  const named = (known, entry, k) => [known.result.about.before, known.result.about.after, known.result.about.target].includes(entry.number) || known.result.probabilities.some((row) => row[k] > SHOWN);
  function curve(known, [width, height]) {
    const { classes, probabilities, about } = known.result;
    const series = classes.map((entry, k) => ({ name: named(known, entry, k) ? entry.name : "", colour: entry.colour, wide: [about.before, about.after].includes(entry.number), values: probabilities.map((row) => row[k]) }));
    return page.lines({ width, height, at: probabilities.map((_, i) => i), series, x: [0, Math.max(1, steps(known))], y: [0, 1], xTicks: page.ticks(0, Math.max(1, steps(known)), 6).filter(Number.isInteger), yText: (v) => Math.round(100 * v) + " %", xTitle: "step" });
  }
  function nearStep(known) {
    const { classes, probabilities } = known.result;
    return (x) => {
      const step = Math.min(Math.max(Math.round(x), 0), steps(known));
      const rows = classes.map((entry, k) => [entry.name, probabilities[step][k]]).sort((a, b) => b[1] - a[1]);
      return `<b>Step ${step}</b><br>` + rows.map(([name, p]) => `${dv.escape(name)} ${page.percent(p)}`).join("<br>");
    };
  }
  function table(known) {
    const { classes, probabilities } = known.result;
    const [first, last] = [probabilities[0], probabilities[probabilities.length - 1]];
    const body = page.element("tbody");
    classes.forEach((entry, k) => {
      const dot = page.element("i", "adv-dot");
      dot.style.background = entry.colour;
      const head = page.element("th", "", dot, entry.name);
      head.scope = "row";
      head.title = entry.name;
      body.append(page.element("tr", "", head, page.element("td", "", page.percent(first[k])), page.element("td", "", page.percent(last[k]))));
    });
    const heads = ["Class", "before", "after"].map((text) => Object.assign(page.element("th", "", text), { scope: "col" }));
    return page.element("table", "adv-table dv-num", page.element("thead", "", page.element("tr", "", ...heads)), body);
  }

  // -- the path through the layers -------------------------------------------------------------------------------------
  // Places of distances, in units of the limit: even up to 6, then logarithmic, since late layers go far.
  function scale(layers, width) {
    const all = layers.flatMap((layer) => [layer.before / layer.limit, layer.after / layer.limit]).filter(Number.isFinite);
    const most = Math.max(1.5, ...all);
    const [left, right] = [8, width - 8];
    if (most <= 6) return { X: (v) => left + (v / most) * (right - left), ticks: page.ticks(0, most, 4), width };
    const low = Math.min(0.5, Math.max(0.05, Math.min(...all)));
    const X = (v) => left + (Math.log(Math.max(v, low) / low) / Math.log(most / low)) * (right - left);
    return { X, ticks: [0.1, 0.3, 1, 3, 10, 30, 100, 300].filter((v) => v >= low && v <= most), width };
  }
  function distanceMark(layer, { X }, y = 0) {
    const [muted, accent] = [dv.colour("bar"), dv.colour("accent")];
    const middle = y + TALL / 2;
    const parts = [`<line x1="${X(1).toFixed(1)}" x2="${X(1).toFixed(1)}" y1="${y}" y2="${y + TALL}" stroke="${dv.colour("muted")}" stroke-dasharray="2 2"/>`];
    const [before, after] = [layer.before / layer.limit, layer.after / layer.limit];
    if (Number.isFinite(before) && Number.isFinite(after)) {
      const out = after > 1;
      parts.push(`<line x1="${X(before).toFixed(1)}" x2="${X(after).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="${out ? accent : muted}" stroke-width="1.6"/>`);
      parts.push(`<circle cx="${X(before).toFixed(1)}" cy="${middle}" r="3.4" fill="${dv.colour("bg")}" stroke="${muted}" stroke-width="1.6"/>`);
      parts.push(`<circle cx="${X(after).toFixed(1)}" cy="${middle}" r="3.8" fill="${out ? accent : muted}"/>`);
    }
    return parts.join("");
  }
  function backMark(layer, y = 0) {
    const X = (p) => 1 + p * (BACK - 2);
    const parts = [`<rect x="1" y="${y + 7}" width="${BACK - 2}" height="6" rx="2" fill="${dv.colour("soft")}"/>`];
    if (Number.isFinite(layer.patched)) parts.push(`<rect x="1" y="${y + 7}" width="${Math.max(1, X(layer.patched) - 1).toFixed(1)}" height="6" rx="2" fill="${dv.colour(layer.restored ? "ok" : "bar")}"/>`);
    if (Number.isFinite(layer.control)) parts.push(`<line x1="${X(layer.control).toFixed(1)}" x2="${X(layer.control).toFixed(1)}" y1="${y + 3}" y2="${y + 17}" stroke="${dv.colour("ink")}" stroke-width="1.6"/>`);
    return parts.join("");
  }
  const drawing = (width, inner, said) => `<svg width="${width}" height="${TALL}" viewBox="0 0 ${width} ${TALL}" role="img" aria-label="${dv.escape(said)}">${inner}</svg>`;
  const short = (value) => (value < 9.95 ? value.toFixed(value < 0.995 ? 2 : 1) : dv.count(Math.round(value)));
  // What a bar of the last column stands for, beside it and beside all units of the layer.
  const backText = (layer) => `${page.percent(layer.patched)} with these units, ${page.percent(layer.control)} with as many random ones` + (layer.whole === null ? "" : `, ${page.percent(layer.whole)} with all units of the layer`);
  const ratio = (layer, value) => (layer.limit > 0 && Number.isFinite(value / layer.limit) ? short(value / layer.limit) : "–");
  const cell = (className, ...children) => page.element("td", className, ...children);
  function svgCell(className, text) {
    const made = cell(className);
    made.innerHTML = text;
    return made;
  }

  function path(known) {
    const { layers, about } = known.result;
    const where = scale(layers, Math.max(150, Math.min(220, page.state.host.clientWidth - 900)));
    const before = className(known, about.before);
    const heads = [
      ["Layer", ""],
      ["Distance from " + (about.spread === "data" ? "all inputs" : before), "Of the original (ring) and of the result (dot), in units of what 95 % of the inputs stay within (dashed line)"],
      ["", ""],
      ["Units with 80 %", "The fewest units that carry 80 % of the squared difference of their feature maps"],
      ["Strongest of them", "Their cards are on the layers page"],
      ["Put back: " + before, `Probability of ${before} when these units get the original’s values back, in this layer alone; upright mark: as many random units`],
      ["", ""],
      ["random", `Probability of ${before} when as many units drawn at random get the original’s values back`],
    ].slice(0, changed(known) ? 8 : 5);
    const head = page.element("tr", "", ...heads.map(([text, hint]) => Object.assign(page.element("th", "", text), { scope: "col", title: hint })));
    const axis = page.element("tr", "adv-axis", cell(""), svgCell("", drawing(where.width, where.ticks.map((v) => page.words(where.X(v), 12, String(v), { size: 10.5, fill: dv.colour("muted"), anchor: "middle" })).join(""), "scale")), ...Array.from({ length: heads.length - 2 }, () => cell("")));
    axis.setAttribute("aria-hidden", "true");
    const body = page.element("tbody");
    layers.forEach((layer, i) => body.append(row(known, layer, i, where)));
    return page.element("div", "adv-path", page.element("table", "adv-table dv-num", page.element("thead", "", head, axis), body));
  }
  function row(known, layer, i, where) {
    const { about } = known.result;
    const notes = [about.leaves === i ? "leaves here" : "", about.arrives === i ? "nearer to " + className(known, about.after) : ""].filter(Boolean);
    const name = page.element("th", "", page.element("span", "adv-layer", layer.name), notes.length ? page.element("span", "adv-mark", notes.join("; ")) : null);
    name.scope = "row";
    name.title = `${layer.name}: ${layer.kind}, ${page.count(layer.units, "unit")}`;
    const said = `distance ${ratio(layer, layer.before)} before, ${ratio(layer, layer.after)} after`;
    const links = layer.strongest.map((unit) => {
      const show = known.input.upload ? "class:" + about.before : "input:" + known.input.index;
      const link = page.link(String(unit.unit), "/", { show, layer: layer.name, unit: unit.unit });
      link.title = `Unit ${unit.unit} of ${layer.name}: ${page.percent(unit.share)} of the layer’s difference; activation ${dv.number(unit.before)} before, ${dv.number(unit.after)} after`;
      return link;
    });
    const carried = layer.carrying ? `${dv.count(layer.carrying)} of ${dv.count(layer.units)}` : "–";
    return page.element(
      "tr",
      about.leaves === i ? "leaves" : "",
      name,
      svgCell("", drawing(where.width, distanceMark(layer, where), said)),
      cell("adv-value", page.element("span", "dv-small", ratio(layer, layer.before) + " → "), ratio(layer, layer.after)),
      cell("adv-value", carried),
      cell("adv-units", ...links.flatMap((link, k) => (k ? [", ", link] : [link]))),
      !changed(known) ? null : Object.assign(svgCell("", layer.patched === null ? "" : drawing(BACK, backMark(layer), backText(layer))), { title: layer.patched === null ? "" : backText(layer) }),
      !changed(known) ? null : cell("adv-value", layer.patched === null ? "–" : page.percent(layer.patched), layer.restored ? Object.assign(page.element("span", "adv-back", " ✓"), { title: "predicted again" }) : null),
      !changed(known) ? null : cell("adv-value dv-small", layer.control === null ? "" : page.percent(layer.control)),
    );
  }
  function className(known, number) {
    const found = known.result.classes.find((entry) => entry.number === number);
    return found ? found.name : "class " + number;
  }

  // Whether there is anything to prove: where the prediction never left its class, it cannot return.
  const changed = (known) => known.result.about.after !== known.result.about.before;

  // What the table says, in sentences: where the class's spread is left, and what the units put back prove.
  function whereItLeaves(known) {
    const { layers, about } = known.result;
    const own = about.spread !== "data";
    const of = own ? `“${className(known, about.before)}”` : "the run’s inputs (it holds too few of the class for a spread of its own)";
    const mean = `their mean (${page.count(about.spread_inputs, "input")})`;
    const far = (layer, value) => `${ratio(layer, value)} times`;
    const within = `what 95 % of the inputs stay within`;
    const outside = layers.filter((layer) => layer.before > layer.limit).length;
    const itself = outside ? ` The original itself is outside in ${outside} of ${layers.length} layers.` : "";
    if (!Number.isInteger(about.leaves)) {
      const next = layers.reduce((best, layer) => (layer.after / layer.limit > best.after / best.limit ? layer : best));
      return `The activations nowhere leave the spread of ${of}: furthest out, in ${next.name}, their distance from ${mean} is ${far(next, next.after)} ${within}.${itself}`;
    }
    const layer = layers[about.leaves];
    const behind = layers.slice(about.leaves + 1);
    const still = behind.filter((each) => each.after > each.limit).length;
    const on = behind.length ? ` Behind it they are outside in ${still} of ${page.count(behind.length, "layer")}.` : "";
    return `The activations leave the spread of ${of} at ${layer.name}, layer ${about.leaves + 1} of ${layers.length}: there their distance from ${mean} is ${far(layer, layer.after)} ${within}, that of the original ${far(layer, layer.before)}.${on}${itself}`;
  }
  function proof(known) {
    const { layers, about } = known.result;
    const before = className(known, about.before);
    const restored = layers.filter((layer) => layer.restored);
    if (!restored.length) return `With the carrying units of one layer put back the prediction does not return to “${before}” in any layer: what fools the network is spread more widely.`;
    const random = Math.round(layers.reduce((sum, layer) => sum + layer.control_restored, 0));
    const said = `With the carrying units of a single layer given the original’s values back, the network says “${before}” again in ${restored.length} of ${layers.length} layers; with as many random units, in ${random}.`;
    if (random >= ALIKE * restored.length) {
      const further = known.request.params.parameters.stop ? "; switch “Stop when reached” off, and the attack goes further beyond the boundary, which tells more." : ".";
      return `${said} Random units do ${random < restored.length ? "nearly " : ""}as well, so this proves little${further}`;
    }
    // The scores themselves, put back, prove nothing: the clearest case is looked for before them.
    const best = restored.filter((layer) => layer !== layers[layers.length - 1]).sort((a, b) => b.patched - b.control - (a.patched - a.control))[0];
    return `The proof: ${said[0].toLowerCase()}${said.slice(1)}` + (best ? ` Clearest in ${best.name}: ${best.carrying} of ${best.units} units bring it from ${page.percent(about.baseline)} to ${page.percent(best.patched)}, as many random ones to ${page.percent(best.control)}.` : "");
  }
  function story(known) {
    const { layers, about } = known.result;
    const found = [whereItLeaves(known)];
    if (Number.isInteger(about.arrives)) found.push(`From ${layers[about.arrives].name} on they lie nearer to “${className(known, about.after)}”.`);
    if (changed(known) && about.partial === undefined) found.push(proof(known));
    return found;
  }
  const key = (known) =>
    "Ring: the original; dot: the result; dashed line: what 95 % of the inputs stay within." +
    (changed(known) ? " Bar: how sure the network is of the class when the units with 80 % get their values back, green and ✓ where it is predicted again; upright mark: as many random units." : "");

  const outcome = (known) => known.result.about.sentence || "";
  page.views.attack = function (known) {
    const { about, layers, tips, probabilities } = known.result;
    const parts = [];
    if (outcome(known)) parts.push(Object.assign(page.element("p", "adv-sentence", outcome(known))));
    if (about.success === false && about.partial === undefined && tips.length) {
      const box = page.alert("The attack did not reach its goal. To try:");
      box.append(page.element("ul", "", ...tips.map((tip) => page.element("li", "", tip + "."))));
      parts.push(box);
    }
    parts.push(page.element("div", "adv-pictures", ...figures(known), facts(known)));
    if (probabilities.length)
      parts.push(
        page.section(
          "Probabilities",
          page.element("div", "adv-side", page.chart(curve(known, [page.room(300, 860), 250]), `Probabilities over ${page.count(steps(known), "step")}: ${outcome(known)}`, nearStep(known)), table(known)),
        ),
      );
    const unread = page.state.nonce ? (layers.length ? "The units’ values are being put back…" : "The layers are being read…") : "The layers were not read to the end; “Go on” above does the rest.";
    const told = layers.length ? [...story(known).map((text) => page.element("p", "adv-story", text.replaceAll(" %", "\u00a0%"))), page.element("p", "dv-small", key(known)), path(known)] : [];
    parts.push(page.section("The path through the layers", about.partial === undefined ? null : page.element("p", "dv-note adv-story", unread), ...told));
    return parts;
  };

  // -- the picture -----------------------------------------------------------------------------------------------------
  page.pictures.attack = function (known) {
    const { pictures, layers, about } = known.result;
    const words = captions(known);
    const [side, gap] = [200, 20];
    const tall = (side * pictures.size[0]) / pictures.size[1];
    const crisp = pictures.crisp ? ' style="image-rendering:pixelated"' : "";
    const muted = dv.colour("muted");
    const parts = [];
    const under = Object.fromEntries(Object.keys(names).map((name) => [name, words[name].split("; ")]));
    Object.entries(names).forEach(([name, title], i) => {
      const x = gap + i * (side + gap);
      parts.push(`<image x="${x}" y="12" width="${side}" height="${tall}" preserveAspectRatio="none"${crisp} href="${pictures[name]}"/>`);
      parts.push(page.words(x, tall + 30, title, { bold: true }), ...under[name].map((line, k) => page.words(x, tall + 46 + 16 * k, line, { fill: muted, room: side })));
    });
    const width = layers.length ? 890 : 700;
    let y = tall + 50 + 16 * Math.max(...Object.values(under).map((lines) => lines.length));
    if (known.result.probabilities.length) {
      parts.push(`<g transform="translate(0 ${y})">${curve(known, [width - gap, 220]).svg}</g>`);
      y += 236;
    }
    if (layers.length) {
      const where = scale(layers, 220);
      const at = [gap, 250, 486, 560, 690, 836];
      const before = className(known, about.before);
      const head = (x, text, anchor) => page.words(x, y + 12, text, { size: 11, fill: muted, bold: true, anchor });
      parts.push(head(at[0], "Layer"), head(at[1], "Distance from " + (about.spread === "data" ? "all inputs" : before)), head(at[3] - 6, "80 % in units", "start"));
      if (changed(known)) parts.push(head(at[4], "Put back: " + before));
      y += 20;
      for (const v of where.ticks) parts.push(page.words(at[1] + where.X(v), y + 10, String(v), { size: 10, fill: muted, anchor: "middle" }));
      y += 16;
      layers.forEach((layer, i) => {
        const leaves = about.leaves === i;
        parts.push(page.words(at[0], y + 14, layer.name + (leaves ? " (leaves here)" : ""), { bold: leaves, fill: dv.colour(leaves ? "accent" : "ink"), room: 225 }));
        parts.push(`<g transform="translate(${at[1]} ${y})">${distanceMark(layer, where)}</g>`, page.words(at[2] + 40, y + 14, ratio(layer, layer.after), { anchor: "end" }));
        parts.push(page.words(at[3], y + 14, layer.carrying ? `${layer.carrying} of ${layer.units}` : "–"));
        if (changed(known) && layer.patched !== null) parts.push(`<g transform="translate(${at[4]} ${y})">${backMark(layer)}</g>`, page.words(at[5] + 28, y + 14, page.percent(layer.patched), { anchor: "end" }));
        y += TALL;
      });
      y += 8;
    }
    const caption = `${known.run}, epoch ${known.epoch}, ${page.inputName(known).toLowerCase()}. ${about.title || known.method}. ${outcome(known)} Perturbation ${magnified(pictures)}. ` + (layers.length ? [...story(known), key(known)].join(" ") : "");
    return { svg: parts.join(""), width, height: y, caption };
  };
})();
