// How far to believe a map: what the measures of one tile say, and the job that makes them.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const { element, button } = page;
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDE, TALL] = [148, 92];

  // An answer of the server that changes while a job runs.
  page.fresh = async function (run, path, request) {
    const response = await fetch(dv.dataUrl(run, path, { request: JSON.stringify(request) }), { cache: "no-store" });
    const found = await response.json();
    if (!response.ok) throw new Error(found.error || "The server answered " + response.status + ".");
    return found;
  };

  // {words, stages}: the section at the side of the dialog, and the row of maps below the large one. Both follow the job.
  page.trust = function (gallery, row, column, about, input) {
    const asked = {
      what: "tile",
      run: gallery.run,
      epoch: gallery.epoch,
      source: row.source,
      method: column.name,
      parameters: gallery.request.methods[column.name],
      target: row.target,
      layer: gallery.request.layer,
    };
    const body = element("div", "");
    const words = element("section", "dv-believe", element("h3", "dv-section-title", "How far to believe it"), body);
    words.setAttribute("aria-label", "How far to believe it");
    const stages = element("div", "dv-stages");
    let running = false;
    const say = (text) => body.append(element("p", "dv-small", text));
    async function look() {
      let found;
      try {
        found = await page.fresh(gallery.run, "trust.json", asked);
      } catch (error) {
        body.replaceChildren(element("p", "dv-small", error.message));
        return;
      }
      const measured = found.measures;
      if (measured && !measured.error) {
        body.replaceChildren(...told(measured));
        await showStages(stages, found, column, input, measured);
        if (measured.complete) return;
      } else body.replaceChildren();
      if (measured && measured.error) say(measured.error);
      if (running) say("Measuring…");
      else {
        if (!measured) say("Take the pixels away that the map calls important, and see whether the score follows; set the weights at random, and see whether the map changes.");
        const start = button(measured ? "Measure again" : "Measure", "dv-btn small", () => measure());
        body.append(element("div", "dv-actions", start, element("span", "dv-small", found.seconds === null ? dv.count(Math.round(found.work)) + " evaluations of the network" : page.duration(found.seconds))));
      }
    }
    function measure() {
      running = true;
      look();
      page.ask("trust", asked, look, (result) => {
        running = false;
        look().then(() => result.error && say(result.error));
      });
    }
    look();
    return { words, stages };
  };

  const fixed = (value) => (value === null || value === undefined ? "–" : dv.number(value));
  function told(measured) {
    const parts = [];
    const curves = [
      ["Deletion", measured.deletion, "AGAINST", "smaller is better"],
      ["Insertion", measured.insertion, "FOR", "larger is better"],
    ].filter(([, curve]) => curve);
    if (curves.length) {
      const values = curves.flatMap(([, curve]) => curve.value || []);
      const reading = measured.reading === "probability" ? "probability" : "share of the score";
      parts.push(
        element(
          "div",
          "dv-curves",
          ...curves.map(([title, curve, colour, better]) =>
            element(
              "figure",
              "",
              curve.value ? chart(title, curve, page.colours[colour], values, reading) : element("div", "dv-small", "The whole picture scores no more than the empty one: there is nothing to take away."),
              element("figcaption", "dv-small", element("b", "dv-num", `${title} ${fixed(curve.area)}`), ` (random ${fixed(curve.random)}); ${better}`),
            ),
          ),
        ),
        element("p", "dv-small", `The ${reading} of the target as the most important pixels are taken away, or come in, first.`),
      );
    }
    const facts = [];
    const infidelity = (name, found) => found && facts.push([name, `${fixed(found.share)} of the score’s changes not foretold (0 is best)`, `normalised ${fixed(found.normalised)}, plain ${fixed(found.plain)}; ${found.samples} perturbations`]);
    infidelity("Infidelity, squares", measured.infidelity);
    infidelity("Infidelity, noise", measured.noise_infidelity);
    if (measured.sensitivity) facts.push(["Sensitivity", `the map changes by ${fixed(measured.sensitivity.value)} of itself under noise of ${Math.round(100 * measured.sensitivity.radius)} %`, `largest of ${measured.sensitivity.samples} noisy copies`]);
    const list = element("dl", "dv-facts");
    for (const [name, text, hint] of facts) {
      const value = element("dd", "", text);
      value.title = hint;
      list.append(element("dt", "", name), value);
    }
    if (facts.length) parts.push(list);
    if (measured.randomisation && measured.randomisation.verdict)
      parts.push(element("div", "dv-trust", element("i", "dv-dot " + measured.randomisation.state), measured.randomisation.verdict));
    return parts;
  }

  function chart(title, curve, [red, green, blue], all, reading) {
    const low = Math.min(0, ...all);
    const high = Math.max(...all, low + 1e-9);
    const [left, bottom, top] = [26, TALL - 15, 6];
    const x = (s) => left + s * (WIDE - left - 4);
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDE} ${TALL}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${title}: ${reading} from ${fixed(curve.value[0])} to ${fixed(curve.value[curve.value.length - 1])}, area ${fixed(curve.area)}`);
    const draw = (tag, attributes, text) => {
      const made = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      if (text !== undefined) made.textContent = text;
      svg.append(made);
    };
    const colour = `rgb(${red},${green},${blue})`;
    const line = curve.share.map((s, i) => x(s).toFixed(1) + "," + y(curve.value[i]).toFixed(1)).join(" ");
    draw("polygon", { points: `${x(0)},${y(Math.max(low, 0))} ${line} ${x(1)},${y(Math.max(low, 0))}`, fill: colour, "fill-opacity": 0.16 });
    draw("path", { d: `M${left} ${top}V${bottom}H${WIDE - 4}`, fill: "none", class: "axis" });
    draw("polyline", { points: line, fill: "none", stroke: colour, "stroke-width": 1.8 });
    draw("text", { x: left - 4, y: top + 6, "text-anchor": "end" }, high.toFixed(high < 0.1 ? 2 : 1));
    draw("text", { x: left - 4, y: bottom, "text-anchor": "end" }, low === 0 ? "0" : low.toFixed(1));
    draw("text", { x: left, y: TALL - 3 }, "0 %");
    draw("text", { x: WIDE - 4, y: TALL - 3, "text-anchor": "end" }, "100 %");
    return svg;
  }

  // The map itself and those after each stage of setting weights at random, with their correlations.
  async function showStages(box, found, column, input, measured) {
    const stages = (measured.randomisation && measured.randomisation.stages) || [];
    if (!stages.length) return;
    const how = page.look(page.state.selection);
    const maps = [{ stage: "as trained", array: measured.original, correlation: 1 }, ...stages];
    const figures = await Promise.all(
      maps.map(async (stage) => {
        const map = await dv.fetchFloats(`${dv.prefix()}data/result/${found.key}/${stage.array}`);
        const canvas = element("canvas", Math.min(...map.shape) < 100 ? "small" : "");
        page.paint(canvas, input, map, found.key + stage.array, column, how);
        const figure = element("figure", "", canvas, element("figcaption", "", element("b", "dv-num", stage === maps[0] ? "" : fixed(stage.correlation)), element("span", "", stage.stage)));
        figure.title = stage === maps[0] ? "The map of the trained network" : `Weights from the output to ${stage.stage} set at random. Rank correlation ${fixed(stage.correlation)} (signed ${fixed(stage.signed)}), similarity ${fixed(stage.similarity)}.`;
        return figure;
      }),
    );
    const row = element("div", "dv-stage-row", ...figures);
    box.replaceChildren(element("p", "dv-small", "Weights set at random from the output backwards; below each map its rank correlation with the first."), row);
  }
})();
