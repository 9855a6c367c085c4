// The view “Pruning” of the diagnosis page: asks for computations, tells the server when they have ended, draws what is to be saved.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const none = () => window.dash_clientside.no_update;
  const waiting = new Map(); // nonce → what was asked for
  const next = []; // requests that wait for the one before
  const STARTS = 2000; // ms within which a job that was asked for shows itself
  let needed = 0;
  let sent = 0;

  // The shell runs one job at a time and a second one ends the first: what the view looks at by itself must not end what was asked for.
  function busy() {
    const last = window.dash_component_api.getLayout("job-request")?.props?.data?.nonce;
    return waiting.has(last) && (performance.now() - sent < STARTS || document.getElementById("job-panel")?.hidden === false);
  }
  function ask(request) {
    if (busy()) {
      next.push(request);
      return;
    }
    const nonce = Date.now() + "-" + Math.random().toString(36).slice(2);
    waiting.set(nonce, request.params.what);
    sent = performance.now();
    window.dash_clientside.set_props("job-request", { data: { ...request, nonce } });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pruning-request]");
    if (button) {
      button.disabled = true;
      button.textContent = "Computing…";
      ask(JSON.parse(button.dataset.pruningRequest));
    }
  });

  // -- the picture --------------------------------------------------------------------------------------------------
  const words = (x, y, text, { fill = dv.colour("ink"), bold = false, end = false, size = 11.5 } = {}) =>
    `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="600"' : ""}${end ? ' text-anchor="end"' : ""}>${dv.escape(text)}</text>`;
  const ROW = 19;

  // A table of the page as SVG at (left, top), its bars with it: [svg, height].
  function table(node, left, top, widths) {
    const parts = [];
    let y = top + 14;
    for (const row of node.querySelectorAll("tr")) {
      let x = left;
      const head = row.parentNode.tagName === "THEAD";
      [...row.cells].forEach((cell, i) => {
        const bar = cell.querySelector(".bar");
        if (bar) {
          const signed = cell.classList.contains("signed");
          const length = ((widths[i] - 16) * parseFloat(bar.style.width)) / 100;
          const middle = x + (widths[i] - 16) / 2;
          const low = bar.classList.contains("low");
          const fill = signed ? dv.colour(low ? "div-low" : "div-high") : dv.colour("bar");
          const [top, tall] = signed ? [y - 8, 8] : [y + 2.5, 2.5];
          parts.push(`<rect x="${signed ? middle - (low ? length : 0) : x}" y="${top}" width="${length}" height="${tall}" fill="${fill}"/>`);
        }
        const course = cell.querySelector(".course");
        if (course) {
          const across = (a) => (x + ((widths[i] - 24) * a) / 100).toFixed(1);
          const down = (b) => (y + 3 + 0.55 * b).toFixed(1);
          const points = course.dataset.points.split(" ").map((point) => across(point.split(",")[0]) + "," + down(point.split(",")[1]));
          const dot = course.querySelector("i").style;
          parts.push(`<circle cx="${across(parseFloat(dot.left))}" cy="${down(parseFloat(dot.top) / 5)}" r="2" fill="${dv.colour("accent")}"/>`);
          parts.push(`<polyline points="${points.join(" ")}" fill="none" stroke="${dv.colour("muted")}" stroke-width="1.2"/>`);
        }
        const room = Math.floor((widths[i] - 8) / 6);
        const text = cell.textContent.trim();
        const shown = text.length > room ? text.slice(0, room - 1) + "…" : text;
        parts.push(words(x, y, shown, { bold: head, fill: head ? dv.colour("muted") : dv.colour("ink") }));
        x += widths[i];
      });
      y += row.querySelector(".course") ? ROW + 11 : ROW;
    }
    return [parts.join(""), y - top];
  }

  dv.diagnosis.pictures.pruning = async () => {
    const layers = document.querySelector(".dv-pruning-table");
    if (!layers) throw new Error("The layers are not drawn yet.");
    const pad = 14;
    const parts = [];
    let y = pad;
    const titled = (text) => {
      parts.push(words(pad, y + 12, text, { bold: true, size: 14 }));
      y += 26;
    };
    titled("Units of every layer");
    const [drawn, tall] = table(layers, pad, y, [190, 56, 60, 80, 86, 60, 116, 76, 90]);
    parts.push(drawn);
    y += tall + 16;
    const said = [...document.querySelectorAll("#pruning-layers > p, #pruning-proposal > p:first-child, #pruning-curve [role=status], #pruning-ablation [role=status]")];
    const graph = document.querySelector("#pruning-graph .js-plotly-plot");
    if (graph) {
      titled("Accuracy against units removed");
      const layout = Object.assign({}, graph.layout, { width: 800, height: 320, autosize: false });
      const url = await window.Plotly.toImage({ data: graph.data, layout }, { format: "svg", width: 800, height: 320 });
      const svg = decodeURIComponent(url.slice(url.indexOf(",") + 1));
      parts.push(`<g transform="translate(${pad} ${y})">${svg}</g>`);
      y += 334;
    }
    const classes = document.querySelector(".dv-pruning-classes");
    if (classes) {
      titled("Units switched off");
      const grid = dv.pruning.grid().svg();
      const scale = Math.min(1, 814 / grid.width);
      parts.push(`<g transform="translate(${pad} ${y}) scale(${scale})">${grid.svg}</g>`);
      y += grid.height * scale + 12;
      const [changes, height] = table(classes, pad, y, [200, 60, 64, 64, 100, 160, 166]);
      parts.push(changes);
      y += height + 10;
    }
    const caption = `${dv.selection.run}, epoch ${dv.selection.epoch}. ` + said.map((p) => p.textContent).join(" ");
    return { svg: parts.join(""), width: 842, height: y, caption };
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_pruning: {
      answer: function (result) {
        if (result && result.kind === "pruning" && waiting.has(result.nonce)) {
          const what = waiting.get(result.nonce);
          waiting.delete(result.nonce);
          const there = document.getElementById("pruning-layers");
          const following = result.cancelled || !there ? undefined : next[0];
          next.splice(0, following ? 1 : next.length);
          if (following) ask(following);
          if (there) window.dash_clientside.set_props("pruning-heard", { data: { ...result, what } });
        }
        return none();
      },
      asked: function (selection, before) {
        if (!selection || selection.view !== "pruning") return none();
        const rest = Object.fromEntries(Object.entries(selection).filter(([key]) => !key.startsWith("ablate")));
        return JSON.stringify(rest) === JSON.stringify(before) ? none() : rest;
      },
      grid: function (selection, told) {
        if (selection && selection.run && selection.view === "pruning" && document.getElementById("pruning-grid")) dv.pruning.draw(selection, told).catch((error) => dv.toast(error.message));
        return none();
      },
      need: function (request) {
        // Whoever drags through the epochs wants to know it of the last one.
        clearTimeout(needed);
        if (request) needed = setTimeout(() => document.getElementById("pruning-layers") && ask(request), 300);
        return none();
      },
    },
  });
})();
