// Detection and robustness: what attacks on many inputs say about a network.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.adversarial;
  const PAIR = [440, 560, 380]; // widths of the two charts of a saved detection, their height
  const LONG = [860, 400];
  const COLOURS = ["accent", "div-low", "ok", "warn", "muted"];
  const whole = (v) => Math.round(100 * v) + " %";
  const area = (detector) => `${dv.number(detector.area)} (${dv.number(detector.low)} to ${dv.number(detector.high)})`;

  // -- detection -------------------------------------------------------------------------------------------------------
  const chosen = (known) => Math.min(Math.max(0, Number(dv.selection.detector) || 0), known.result.detectors.length - 1);
  function roc(known, [width, height]) {
    const { false_rate, detectors } = known.result;
    const at = chosen(known);
    const series = detectors.map((detector, i) => ({ colour: dv.colour(COLOURS[i % COLOURS.length]), at: false_rate, values: detector.true_rate, wide: i === at }));
    const legend = ({ x1, y0 }) => detectors.map((detector, i) => page.words(x1 - 6, y0 - 10 - 17 * (detectors.length - 1 - i), `${detector.name}  ${dv.number(detector.area)}`, { fill: series[i].colour, bold: i === at, anchor: "end" })).join("");
    const under = (box) => `<line x1="${box.X(0)}" y1="${box.Y(0)}" x2="${box.X(1)}" y2="${box.Y(1)}" stroke="${dv.colour("bar")}" stroke-dasharray="3 3"/>` + legend(box);
    return page.lines({ width, height, at: false_rate, series, under, x: [0, 1], y: [0, 1], xTicks: [0, 0.25, 0.5, 0.75, 1], yTicks: [0, 0.25, 0.5, 0.75, 1], xText: whole, yText: whole, xTitle: "clean inputs flagged", yTitle: "attacked inputs found" });
  }
  function scores(known, [width, height]) {
    const detector = known.result.detectors[chosen(known)];
    const groups = [
      { name: `clean (${known.result.clean})`, colour: dv.colour("div-low"), counts: detector.clean },
      { name: `attacked (${known.result.attacked})`, colour: dv.colour("accent"), counts: detector.attacked },
    ];
    const xText = detector.logarithmic ? (v) => dv.number(10 ** v) : undefined;
    return page.histogram({ width, height, edges: detector.edges, groups, ...(xText ? { xText } : {}), xTitle: `score of ${detector.name}` + (detector.logarithmic ? ", logarithmic" : ""), yTitle: "share of each" });
  }
  function nearRate(known) {
    const { false_rate, detectors } = known.result;
    return (x) => {
      const i = false_rate.reduce((best, rate, k) => (Math.abs(rate - x) < Math.abs(false_rate[best] - x) ? k : best), 0);
      return `<b>${page.percent(false_rate[i])} of clean inputs flagged</b><br>` + detectors.map((detector) => `${dv.escape(detector.name)}: ${page.percent(detector.true_rate[i])} of attacks found`).join("<br>");
    };
  }
  function detectorTable(known) {
    const body = page.element("tbody");
    known.result.detectors.forEach((detector, i) => {
      const button = page.element("button", "adv-pick", detector.name);
      button.type = "button";
      button.title = detector.citation;
      button.setAttribute("aria-pressed", String(i === chosen(known)));
      button.addEventListener("click", () => dv.set("detector", String(i)));
      const dot = page.element("i", "adv-dot");
      dot.style.background = dv.colour(COLOURS[i % COLOURS.length]);
      const name = page.element("th", "", dot, button);
      name.scope = "row";
      const at5 = known.result.false_rate.reduce((found, rate, k) => (rate <= 0.05 ? k : found), 0);
      body.append(page.element("tr", "", name, page.element("td", "", area(detector)), page.element("td", "", page.percent(detector.true_rate[at5])), page.element("td", "adv-cited", detector.citation)));
    });
    const heads = ["Detector", "Area under ROC (95 % interval)", "Found at 5 % false alarms", "From"].map((text) => Object.assign(page.element("th", "", text), { scope: "col" }));
    return page.element("table", "adv-table dv-num", page.element("thead", "", page.element("tr", "", ...heads)), body);
  }
  function layerTable(known) {
    const body = page.element("div", "dv-bars");
    for (const [name, value] of known.result.layers) {
      const bar = page.element("div", "bar" + (value >= 0.9 ? " strong" : ""));
      bar.style.width = 100 * Math.max(0, value || 0) + "%";
      body.append(Object.assign(page.element("span", "name", name), { title: name }), page.element("div", "", bar), page.element("span", "value", value === null ? "–" : dv.number(value)));
    }
    return body;
  }
  const titleOf = (known) => page.element("p", "adv-sentence", known.result.about.sentence || "");

  page.views.detection = function (known) {
    const { result } = known;
    if (!result.detectors.length) return [titleOf(known), page.element("p", "dv-note", result.about.partial === undefined ? "" : "The curves are drawn when every input was attacked.")];
    const at = chosen(known);
    const room = page.room(24, 1240);
    return [
      titleOf(known),
      page.element(
        "div",
        "adv-charts",
        page.section("ROC curve", page.chart(roc(known, [0.44 * room, 380]), `ROC curves: ${result.detectors.map((d) => d.name + " area " + dv.number(d.area)).join(", ")}`, nearRate(known))),
        page.section("Scores of " + result.detectors[at].name, page.chart(scores(known, [0.56 * room, 380]), `Histogram of the scores of ${result.detectors[at].name}, clean and attacked inputs`)),
      ),
      page.section("Detectors", page.element("div", "adv-path", detectorTable(known))),
      ...(result.layers.length ? [page.section("Each layer by itself: area under its ROC", page.element("div", "adv-layers", layerTable(known)))] : []),
    ];
  };
  page.pictures.detection = function (known) {
    if (!known.result.detectors.length) throw new Error("There is nothing to save yet: let it finish first.");
    const [left, right] = [roc(known, [PAIR[0], PAIR[2]]), scores(known, [PAIR[1], PAIR[2]])];
    const areas = known.result.detectors.map((detector) => `${detector.name}: area ${area(detector)}`).join("; ");
    return {
      svg: `<g transform="translate(12 12)">${left.svg}</g><g transform="translate(${left.width + 32} 12)">${right.svg}</g>`,
      width: left.width + right.width + 44,
      height: left.height + 16,
      caption: `${known.run}, epoch ${known.epoch}. ${known.result.about.sentence || known.method} ${areas}.`,
    };
  };

  // -- robustness ------------------------------------------------------------------------------------------------------
  function accuracy(known, [width, height]) {
    const { sizes, accuracy: values, low, high, about } = known.result;
    const linf = about.norm === "linf";
    // The axis reaches to the last size from the start, while a job goes from one to the next.
    const most = Math.max(...sizes, ...known.request.params.sizes);
    // Sizes double from one to the next: places on the axis are even in their square root, so that small ones stay apart.
    const place = (v) => Math.sqrt(v / most);
    const at = sizes.map(place);
    const series = [{ colour: dv.colour("accent"), values, low, high, wide: true, dots: true }];
    const keep = sizes.filter((_, i) => i === 0 || at[i] - at[i - 1] > 0.02);
    return page.lines({ width, height, at, series, x: [0, 1], y: [0, 1], xTicks: keep.map(place), xText: (p) => (p === 0 ? "0" : page.size(p * p * most, about.norm)), yTicks: [0, 0.25, 0.5, 0.75, 1], yText: whole, xTitle: linf ? "largest change of a pixel (L∞)" : "length of the change (L2, pixels from 0 to 1)", yTitle: "classified correctly" });
  }
  function sizeTable(known) {
    const { sizes, accuracy: values, low, high, about } = known.result;
    const body = page.element("tbody");
    sizes.forEach((size, i) => {
      const name = Object.assign(page.element("th", "", size === 0 ? "none" : page.size(size, about.norm)), { scope: "row" });
      body.append(page.element("tr", "", name, page.element("td", "", page.percent(values[i])), page.element("td", "", `${page.percent(low[i])} to ${page.percent(high[i])}`)));
    });
    const heads = ["Size", "Correct", "95 % interval"].map((text) => Object.assign(page.element("th", "", text), { scope: "col" }));
    return page.element("table", "adv-table dv-num", page.element("thead", "", page.element("tr", "", ...heads)), body);
  }
  function weakest(known) {
    const { weakest: inputs, about } = known.result;
    const values = { view: "attack", method: known.request.params.method };
    return page.element(
      "div",
      "adv-weakest",
      ...inputs.map(([index, size]) => {
        const link = page.link("", "/adversarial", { ...values, show: "input:" + index });
        const image = Object.assign(document.createElement("img"), { src: dv.dataUrl(known.run, "thumb/" + index + ".png", { size: 64 }), alt: "" });
        link.append(image, page.element("span", "", page.size(size, about.norm)));
        link.title = `Input ${index}: misclassified at ${page.size(size, about.norm)}; attack it`;
        link.setAttribute("aria-label", link.title);
        return link;
      }),
    );
  }
  page.views.robustness = function (known) {
    const { result } = known;
    if (!result.sizes.length) return [titleOf(known)];
    const said = result.sizes.map((size, i) => `${page.size(size, result.about.norm)}: ${page.percent(result.accuracy[i])}`).join(", ");
    return [
      titleOf(known),
      page.section("Accuracy under attack", page.element("div", "adv-side", page.chart(accuracy(known, [page.room(300, 860), 400]), "Accuracy against the size of the perturbation. " + said), sizeTable(known))),
      ...(result.weakest.length ? [page.section("Fooled by the smallest changes", weakest(known))] : []),
    ];
  };
  page.pictures.robustness = function (known) {
    if (!known.result.sizes.length) throw new Error("There is nothing to save yet: let it finish first.");
    const made = accuracy(known, LONG);
    return { svg: `<g transform="translate(12 12)">${made.svg}</g>`, width: made.width + 24, height: made.height + 16, caption: `${known.run}, epoch ${known.epoch}. ${known.result.about.sentence || known.method} The band is the 95 % interval over ${known.result.inputs} inputs.` };
  };
})();
