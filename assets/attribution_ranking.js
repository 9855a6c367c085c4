// The ranking of the attribution page: the methods on the inputs of the gallery, by what their maps foretell.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const { state, element, button } = page;

  const COLUMNS = [
    { name: "title", title: "Method", value: (row) => row.title },
    { name: "difference", title: "Difference", hint: "Insertion less deletion area; larger is better", value: (row) => mean(row.difference), best: -1 },
    { name: "deletion", title: "Deletion", hint: "Area under the score as the most important pixels are taken away; smaller is better", value: (row) => mean(row.deletion), best: 1 },
    { name: "insertion", title: "Insertion", hint: "Area under the score as the most important pixels come in; larger is better", value: (row) => mean(row.insertion), best: -1 },
    { name: "seconds", title: "Seconds a map", hint: "Mean time of the maps of this gallery", value: (row) => row.seconds, best: 1 },
    { name: "marks", title: "Marks", hint: "What the dots under the tiles say: good, warning, degenerate", value: (row) => (row.marks ? row.marks.good : null), best: -1 },
  ];
  const mean = (pair) => (pair ? pair[0] : null);
  let [sort, found, running, problem, asked] = [{ name: "difference", up: false }, null, "", "", ""];

  const host = () => document.getElementById("attribution-ranking");
  const request = () => ({ what: "ranking", ...state.gallery.request });

  // Draw what is known; ask the server where the gallery is another one than before.
  page.ranking = function () {
    if (!host() || !state.gallery) return;
    const { gallery } = state;
    if (!gallery.request || !gallery.rows.length || !gallery.columns.length) {
      host().replaceChildren(element("div", "dv-empty", element("h2", "", "Nothing to rank"), element("p", "", "Choose inputs and methods at the left.")));
      return;
    }
    const now = JSON.stringify(gallery.request);
    if (now !== asked) {
      host().replaceChildren();
      [asked, found, problem] = [now, null, ""];
      look();
    } else draw();
  };

  async function look() {
    const wanted = asked;
    try {
      const answer = await page.fresh(state.gallery.run, "ranking.json", request());
      if (wanted !== asked) return;
      found = answer;
      problem = "";
    } catch (error) {
      if (wanted !== asked) return;
      problem = error.message;
    }
    draw();
  }

  function start() {
    running = asked;
    draw();
    page.ask("trust", request(), () => {}, (result) => {
      running = "";
      problem = result.error || "";
      look();
    });
  }

  function draw() {
    const { gallery } = state;
    const box = host();
    if (!box || !gallery) return;
    const inputs = new Set(gallery.rows.map((row) => row.source)).size;
    const title = `${page.count(gallery.columns.length, "method")} on ${page.count(gallery.rows.length, inputs < gallery.rows.length ? "row" : "input")}`;
    const parts = [element("h2", "dv-title", title)];
    parts.push(
      element(
        "p",
        "dv-note",
        "Which maps foretell the network? The pixels that a map calls most important are taken away first (deletion), or come in first (insertion), and the target’s score is followed. " +
          "A good map lets it fall at once and rise at once.",
      ),
    );
    if (problem) parts.push(page.alert(problem));
    const ranking = found && found.ranking;
    if (ranking && ranking.error) parts.push(page.alert(ranking.error));
    if (ranking && ranking.complete) parts.push(table(ranking), ...footnotes(ranking));
    else if (running === asked) parts.push(element("p", "dv-note", "Ranking…"));
    else if (found && !gallery.problem) {
      const cost = found.seconds === null ? dv.count(Math.round(found.work)) + " evaluations of the network" : page.duration(found.seconds);
      parts.push(element("div", "dv-actions", button(`Rank ${gallery.columns.length === 1 ? "this method" : "these methods"}`, "dv-btn primary", start), element("span", "dv-small align-self-center", cost)));
    }
    if (gallery.problem) parts.push(page.alert(gallery.problem));
    box.replaceChildren(...parts);
  }

  // What the tiles of the gallery say of a method.
  function seen(name) {
    const c = state.gallery.columns.findIndex((column) => column.name === name);
    const known = state.gallery.tiles.map((row) => row[c] && row[c].about).filter((about) => page.complete(about));
    if (!known.length) return {};
    const marks = { good: 0, warning: 0, degenerate: 0 };
    for (const about of known) marks[about.note.state] += 1;
    return { seconds: known.reduce((sum, about) => sum + about.seconds, 0) / known.length, marks };
  }

  // Rows in the order chosen, and the largest difference, which the bars are drawn against.
  function ordered(ranking) {
    const rows = [...ranking.rows.map((row) => ({ ...row, ...seen(row.method) })), { ...ranking.random, random: true }];
    const { value } = COLUMNS.find((column) => column.name === sort.name);
    const order = (a, b) => (a === b ? 0 : a === null || a === undefined ? 1 : b === null || b === undefined ? -1 : (a < b ? -1 : 1) * (sort.up ? 1 : -1));
    rows.sort((a, b) => order(value(a), value(b)));
    return [rows, Math.max(...rows.map((row) => Math.abs(mean(row.difference) || 0)), 1e-9)];
  }

  function table(ranking) {
    const [rows, largest] = ordered(ranking);
    const head = element("tr", "");
    for (const column of COLUMNS) {
      const cell = element("th", "");
      cell.scope = "col";
      cell.title = column.hint || "";
      cell.setAttribute("aria-sort", sort.name !== column.name ? "none" : sort.up ? "ascending" : "descending");
      cell.append(
        button(column.title + (sort.name !== column.name ? "" : sort.up ? " ▲" : " ▼"), "dv-sort", () => {
          sort = { name: column.name, up: sort.name === column.name ? !sort.up : column.best !== -1 };
          draw();
          document.querySelector(`#attribution-ranking th[aria-sort]:not([aria-sort=none]) button`).focus();
        }),
      );
      head.append(cell);
    }
    const made = element("table", "dv-ranking", element("caption", "visually-hidden", "Methods by deletion and insertion"), element("thead", "", head));
    made.append(element("tbody", "", ...rows.map((row) => line(row, largest))));
    return made;
  }

  function line(row, largest) {
    const name = element("th", "", row.title);
    name.scope = "row";
    if (row.failed) {
      name.append(element("span", "dv-small fw-normal", row.count ? " failed on some" : " not defined here"));
      name.title = row.failed;
    }
    const pair = (found) => element("td", "dv-num", found ? found[0].toFixed(3) : "–", found && found[1] !== null ? element("span", "dv-small", " ± " + found[1].toFixed(3)) : null);
    const bar = element("i", "dv-rank-bar" + (mean(row.difference) < 0 ? " below" : ""));
    bar.style.width = (100 * Math.abs(mean(row.difference) || 0)) / largest + "%";
    const difference = pair(row.difference);
    difference.prepend(element("span", "dv-rank-place", bar));
    const marks = element("td", "");
    for (const [state, n] of Object.entries(row.marks || {})) if (n) marks.append(element("span", "dv-mark", element("i", "dv-dot " + state), String(n)));
    marks.setAttribute("aria-label", row.marks ? `${row.marks.good} good, ${row.marks.warning} warnings, ${row.marks.degenerate} degenerate` : "not known");
    return element("tr", row.random ? "random" : "", name, difference, pair(row.deletion), pair(row.insertion), element("td", "dv-num", time(row)), marks);
  }
  const time = (row) => (row.seconds === undefined ? "–" : row.seconds < 0.01 ? "<0.01" : row.seconds.toFixed(2));

  page.pictures.ranking = async () => {
    const ranking = found && found.ranking;
    if (!ranking || !ranking.complete) throw new Error("There is no ranking to save yet.");
    const { words } = page;
    const muted = dv.colour("muted");
    const [rows, largest] = ordered(ranking);
    const at = [12, 190, 410, 520, 630, 720];
    const parts = COLUMNS.map((column, c) => words(at[c], 22, column.title, { fill: muted, bold: column.name === sort.name }));
    rows.forEach((row, r) => {
      const y = 48 + 24 * r;
      const ink = { size: 12, fill: dv.colour(row.random ? "muted" : "ink") };
      const pair = (x, pair) => words(x, y, pair ? pair[0].toFixed(3) + (pair[1] === null ? "" : " ± " + pair[1].toFixed(3)) : "–", ink);
      parts.push(words(at[0], y, row.title, { ...ink, bold: !row.random, room: 26 }));
      const width = (90 * Math.abs(mean(row.difference) || 0)) / largest;
      parts.push(`<rect x="${at[1]}" y="${y - 9}" width="${width}" height="8" rx="2" fill="${dv.colour(row.random || mean(row.difference) < 0 ? "muted" : "accent")}"/>`);
      parts.push(pair(at[1] + 100, row.difference), pair(at[2], row.deletion), pair(at[3], row.insertion), words(at[4], y, time(row), ink));
      let x = at[5];
      for (const [state, n] of Object.entries(row.marks || {})) {
        if (!n) continue;
        parts.push(`<circle cx="${x + 4}" cy="${y - 4}" r="3.2" fill="${dv.colour({ good: "ok", warning: "warn", degenerate: "accent" }[state])}"/>`, words(x + 12, y, String(n), ink));
        x += 36;
      }
      parts.push(`<line x1="12" x2="820" y1="${y + 8}" y2="${y + 8}" stroke="${dv.colour("line")}"/>`);
    });
    const { gallery } = state;
    return { svg: parts.join(""), width: 832, height: 48 + 24 * rows.length, caption: `${gallery.run}, epoch ${gallery.epoch}. Methods by the area under insertion less that under deletion. ${basis(ranking)}` };
  };

  const basis = (ranking) =>
    `${page.count(ranking.count, "map")} of each method; ± standard error of the mean. Areas under the ` +
    (ranking.reading === "probability" ? "target’s probability" : "target’s score, as a share of the way from the empty picture to the whole one") +
    ".";
  const footnotes = (ranking) => [
    element("p", "dv-small", `${basis(ranking)} Computed in ${ranking.seconds.toFixed(ranking.seconds < 10 ? 1 : 0)} s.`),
    element("p", "dv-small", "Petsiuk et al., RISE: randomized input sampling for explanation of black-box models, BMVC 2018."),
  ];
})();
