// The attribution page: draws the gallery on canvases from the maps themselves, so that overlay, colours, signs and
// clipping change without the server; asks for what is missing. The files beside it paint, choose, enlarge, rank and save.
(function () {
  "use strict";
  const dv = window.dnnviz;
  // What the page's files share: state, element, fill, ask, say; each file adds its own functions.
  const page = (dv.attribution = dv.attribution || {});
  // Evaluations × pixels up to which missing tiles are computed without asking: some seconds of a small network.
  const UNASKED = 12e6;
  const HEAR_EVERY = 400; // ms between two looks at what a job has made
  const AROUND = 500; // pixels around the window within which tiles are painted

  const fresh = () => ({ structure: "", cells: [], asked: "", nonce: null, ended: null, progress: null, open: null, sentence: "", other: null, foreign: null });
  const state = (page.state = { host: null, gallery: null, selection: null, timer: 0, hearing: 0, heard: 0, ...fresh() });

  function element(tag, className, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((c) => c !== null && c !== undefined));
    return made;
  }
  page.element = element;
  page.button = function (text, className, act) {
    const made = element("button", className, text);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  // Text in a saved picture; room: the letters it may have.
  page.words = (x, y, text, { size = 11.5, fill = dv.colour("ink"), bold = false, end = false, room = 1000 } = {}) =>
    `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="600"' : ""}${end ? ' text-anchor="end"' : ""}>` +
    dv.escape(text.length > room ? text.slice(0, room - 1) + "…" : text) +
    "</text>";
  page.pictures = {}; // by view: how it draws itself to be saved
  const share = (page.share = (p) => (p === null || p === undefined ? "" : p > 0 && p < 0.001 ? "<0.001" : p < 0.0995 ? p.toFixed(3) : p.toFixed(2)));
  const count = (page.count = (n, one) => dv.count(n) + " " + one + (n === 1 ? "" : one.endsWith("s") ? "es" : "s"));
  page.duration = (seconds) => (seconds < 1 ? "under 1 s" : seconds < 90 ? `about ${Math.round(seconds)} s` : seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${(seconds / 3600).toFixed(1)} h`);
  // Address of a map; one that still grows is another one with every share.
  page.mapUrl = (tile) => dv.prefix() + "data/result/" + tile.key + "/heatmap" + (growing(tile.about) ? "?part=" + tile.about.partial : "");
  const growing = (about) => Boolean(about) && about.partial !== undefined;
  page.complete = (about) => Boolean(about) && !about.error && !growing(about);
  // Whether an input has several rows.
  const several = (gallery, row) => gallery.rows.filter((other) => other.source === row.source).length > 1;

  // -- the gallery --------------------------------------------------------------------------------------------------
  // The classes beside a row; the first row of an input also says which input it is.
  function rowText(gallery, row, first) {
    const box = element("div", "dv-row-text" + (first ? " first" : ""));
    const many = several(gallery, row);
    const [name, probability, plain] = row.explained;
    if (first) {
      const line = element("div", "dv-row-name", row.name);
      if (row.truth !== null) line.append(element("span", "dv-small", ", true: "), element("span", row.right ? "dv-right-class" : "dv-wrong-class", row.truth));
      line.title = row.truth === null ? row.name : row.name + ", true class " + row.truth;
      const drop = element("button", "dv-row-drop", "×");
      drop.type = "button";
      drop.title = "Leave this input out";
      drop.setAttribute("aria-label", "Leave out " + row.name);
      drop.dataset.dvLeave = row.source;
      line.append(drop);
      box.append(line);
    }
    if (many || !plain) {
      const line = element("div", "dv-row-explained", element("span", "dv-small", "Explained"), element("b", "", name, plain && probability !== null ? element("span", "dv-num", " " + share(probability)) : null));
      line.title = "Explained: " + name;
      box.append(line);
    }
    if (!first) return box;
    const list = row.top.map((entry) => [...entry]);
    if (plain && !many && list.length && !list.some((entry) => entry[2])) list.push([name, probability, true, null]);
    const beside = state.selection.also.split(",");
    for (const [label, p, explained, index] of list) {
      const line = element(index === null ? "div" : "button", "dv-row-class" + (explained && !many ? " explained" : ""), element("span", "name", label), element("span", "dv-num", share(p)));
      line.title = label + (explained ? ": the class explained" : "");
      if (index !== null) {
        line.type = "button";
        line.dataset.dvBeside = index;
        line.setAttribute("aria-pressed", String(beside.includes(String(index))));
        if (!explained) line.title += beside.includes(String(index)) ? ": explained too; click to leave it out" : ": click to explain it too";
      }
      box.append(line);
    }
    if (!row.top.length) box.append(element("div", "dv-small", "its classes come with the first tile"));
    return box;
  }

  function build(gallery) {
    const [height, width] = gallery.size;
    const grid = element("div", "dv-gallery" + (Math.min(height, width) < 100 ? " small" : ""));
    grid.style.setProperty("--dv-columns", gallery.columns.length);
    grid.style.setProperty("--dv-ratio", width + " / " + height);
    grid.append(element("div", "dv-gallery-head dv-fixed-text"), element("div", "dv-gallery-head dv-fixed-input", "Input"));
    for (const column of gallery.columns) {
      const head = element("div", "dv-gallery-head", column.title);
      if (column.settings) head.append(element("span", "dv-small", " " + column.settings));
      head.title = column.title + ". " + column.summary + " " + column.citation + ".";
      grid.append(head);
    }
    state.cells = gallery.rows.map((row, r) => {
      const first = r === 0 || gallery.rows[r - 1].source !== row.source;
      const text = rowText(gallery, row, first);
      text.classList.add("dv-fixed-text");
      const shown = first ? element("canvas", "dv-input") : null;
      const input = element("div", "dv-cell dv-fixed-input", shown);
      if (first && r) for (const cell of [text, input]) cell.classList.add("apart");
      grid.append(text, input);
      const tiles = gallery.columns.map((column, c) => {
        const canvas = element("canvas");
        canvas.width = canvas.height = 1;
        const button = element("button", "dv-tile waiting", canvas);
        button.type = "button";
        button.dataset.dvTile = r + "," + c;
        const mark = element("div", "dv-trust");
        grid.append(element("div", "dv-cell" + (first && r ? " apart" : ""), button, mark));
        return { canvas, button, mark, told: "", drawn: "" };
      });
      return { text, shown, tiles };
    });
    state.host.replaceChildren(grid);
  }

  const structure = (gallery) =>
    JSON.stringify([gallery.run, gallery.size, gallery.columns.map((column) => [column.name, column.title, column.settings]), gallery.rows, state.selection.also]);

  function isNear(box) {
    const at = box.getBoundingClientRect();
    return at.width > 0 && at.bottom > -AROUND && at.top < window.innerHeight + AROUND && at.right > -AROUND && at.left < window.innerWidth + AROUND;
  }

  // Say what is known of every tile and paint those in and around the window (all of them for a picture that is saved).
  async function fill(everything) {
    const { gallery, cells } = state;
    if (!gallery || !cells.length) return;
    const how = page.look(state.selection);
    const [height, width] = gallery.size;
    await Promise.all(
      gallery.rows.map(async (row, r) => {
        gallery.columns.forEach((column, c) => tell(cells[r].tiles[c], gallery.tiles[r][c].about, row, column));
        const wanted = gallery.columns.map((_, c) => c).filter((c) => everything || isNear(cells[r].tiles[c].button));
        const own = cells[r].shown && !cells[r].shown.dataset.drawn && (everything || isNear(cells[r].shown));
        if (!wanted.length && !own) return;
        let input;
        try {
          input = await page.picture(row.picture, height, width);
        } catch (_) {
          if (!cells[r].text.querySelector(".dv-gone")) cells[r].text.append(element("div", "dv-small dv-gone", "This image is no longer stored; upload it again."));
          return;
        }
        if (own) {
          Object.assign(cells[r].shown, { width, height });
          cells[r].shown.getContext("2d").drawImage(input, 0, 0);
          cells[r].shown.dataset.drawn = "1";
        }
        await Promise.all(wanted.map((c) => paintTile(cells[r].tiles[c], gallery.tiles[r][c], column(gallery, c), input, how)));
      }),
    );
  }
  const column = (gallery, c) => gallery.columns[c];
  page.fill = fill;
  const refill = () => fill(false).catch((error) => dv.toast(error.message));

  // Words, mark and state of a tile.
  function tell(cell, about, row, column) {
    const told = JSON.stringify([about, page.complete(about) || Boolean(state.nonce)]);
    if (cell.told === told) return;
    Object.assign(cell, { told, known: JSON.stringify(about) });
    const { button, mark } = cell;
    button.disabled = !page.complete(about);
    button.querySelectorAll("span, i").forEach((old) => old.remove());
    let said = ": not computed yet";
    if (!about) button.className = "dv-tile " + (state.nonce ? "waiting" : "absent");
    else if (about.error) {
      said = ": " + about.error;
      button.className = "dv-tile failed";
      button.append(element("span", "dv-tile-text", about.error));
    } else if (growing(about)) {
      said = `: growing, ${Math.round(100 * about.partial)} % done`;
      button.className = "dv-tile growing" + (state.nonce ? "" : " stopped");
      const bar = element("i", "dv-tile-share");
      bar.style.width = 100 * about.partial + "%";
      button.append(bar);
    } else {
      said = ` for ${about.target}: ${about.note.text}`;
      button.className = "dv-tile" + (cell.drawn ? "" : " unpainted");
    }
    if (!page.complete(about)) {
      mark.replaceChildren(...(growing(about) ? [element("i", "dv-dot"), `${Math.round(100 * about.partial)} % done`] : []));
      mark.title = growing(about) ? "What is known of the map so far" : "";
      if (!growing(about)) cell.drawn = "";
    } else {
      mark.replaceChildren(element("i", "dv-dot " + about.note.state), about.note.text);
      mark.title = (about.note.why || about.note.text) + (about.layer ? " Layer: " + about.layer + "." : "");
    }
    button.setAttribute("aria-label", column.title + " of " + row.name + said);
  }

  async function paintTile(cell, tile, column, input, how) {
    const about = tile.about;
    if (!about || about.error) return;
    const wanted = tile.key + (growing(about) ? about.partial : "") + JSON.stringify(how);
    if (cell.drawn === wanted) return;
    let map;
    try {
      map = await dv.fetchFloats(page.mapUrl(tile));
    } catch (error) {
      if (growing(about)) return; // it is complete, or has failed, by now
      throw error;
    }
    if (cell.known !== JSON.stringify(about)) return; // something newer is known
    page.paint(cell.canvas, input, map, tile.key + (growing(about) ? about.partial : ""), column, how);
    if (!growing(about)) cell.button.className = "dv-tile";
    cell.drawn = wanted;
  }

  let moved = 0;
  function move() {
    if (!state.host || !state.host.isConnected) return;
    cancelAnimationFrame(moved);
    moved = requestAnimationFrame(refill);
  }
  document.addEventListener("scroll", move, true);
  window.addEventListener("resize", move);

  // -- asking for what is missing -----------------------------------------------------------------------------------
  // Have the server look which tiles there are now; not at every step of a job.
  function hear(what, at_once) {
    clearTimeout(state.hearing);
    const wait = at_once ? 0 : Math.max(0, state.heard + HEAR_EVERY - performance.now());
    state.hearing = setTimeout(() => {
      if (!document.getElementById("attribution-tiles")) return;
      state.heard = performance.now();
      window.dash_clientside.set_props("attribution-heard", { data: what });
    }, wait);
  }
  const request = (kind, params, nonce) => window.dash_clientside.set_props("job-request", { data: { kind, page: "/attribution", params, nonce } });
  const nonce = () => Date.now() + "-" + Math.random().toString(36).slice(2);

  function send() {
    const gallery = state.gallery;
    if (!gallery || !gallery.request) return;
    state.nonce = nonce();
    state.asked = JSON.stringify(gallery.request);
    state.ended = state.progress = null;
    request("attribution", gallery.request, state.nonce);
    refill();
    report();
  }
  page.send = send;

  // Start another job; the browser has one at a time, so that of the gallery gives way and goes on later.
  page.ask = function (kind, params, heard, done) {
    giveWay();
    state.other = { nonce: nonce(), heard, done };
    request(kind, params, state.other.nonce);
  };
  function giveWay() {
    if (!state.nonce) return;
    Object.assign(state, { nonce: null, asked: "", progress: null });
    refill();
    report();
  }

  function consider() {
    const gallery = state.gallery;
    clearTimeout(state.timer);
    if (state.other || state.foreign || state.selection.view !== "gallery" || !document.getElementById("attribution-tiles")) return;
    if (!gallery.missing || gallery.problem || gallery.work.pixels > UNASKED || JSON.stringify(gallery.request) === state.asked) return;
    // A moment's patience: a slider that is dragged asks once.
    state.timer = setTimeout(send, 150);
  }

  function report() {
    const { gallery, progress } = state;
    const [title, status, run] = ["title", "status", "run"].map((name) => document.getElementById("attribution-" + name));
    if (!title || !gallery) return;
    const inputs = new Set(gallery.rows.map((row) => row.source)).size;
    const total = gallery.rows.length * gallery.columns.length;
    title.textContent = total ? `${count(inputs, "input")}, ${count(gallery.columns.length, "method")}` : "";
    const left = gallery.missing;
    let text = "";
    status.title = "";
    if (total && state.nonce && left) text = `${total - left} of ${total} tiles` + (progress && progress.nonce === state.nonce && progress.text ? ", " + progress.text : "");
    else if (total && left) {
      const { evaluations, seconds } = gallery.work;
      const passes = dv.count(evaluations) + " evaluations of the network";
      text = `${left} of ${total} tiles left: ${seconds === null ? passes : page.duration(seconds)}`;
      status.title = `${left} of ${total} tiles to compute, ${passes}` + (seconds === null ? "" : ", " + page.duration(seconds));
      if (state.ended && state.ended.cancelled) text = `Cancelled. ${text}`;
    } else if (total) {
      const seconds = gallery.tiles.flat().reduce((sum, tile) => sum + ((tile.about && tile.about.seconds) || 0), 0);
      text = `${count(total, "tile")}, ${seconds < 0.1 ? "under 0.1" : seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)} s of computing`;
    }
    status.textContent = text;
    run.hidden = Boolean(state.nonce) || Boolean(gallery.problem) || !(left || gallery.failed);
    run.textContent = left ? "Run" : "Run again";
    const maps = document.getElementById("attribution-maps");
    maps.disabled = !gallery.tiles.flat().some((tile) => page.complete(tile.about));
    // What each method will cost on these rows stands beside its name.
    for (const place of document.querySelectorAll("[data-dv-cost]")) {
      const cost = gallery.costs[place.dataset.dvCost];
      const seconds = cost && cost.seconds !== null ? cost.seconds * Math.max(gallery.rows.length, 1) : null;
      place.textContent = !cost || (cost.passes < 4 && !(seconds >= 1)) ? "" : count(cost.passes, "pass") + (seconds === null ? "" : " · " + page.duration(seconds));
    }
  }

  function emptiness(gallery, selection) {
    const epoch = "epoch " + gallery.epoch;
    if (gallery.problem && !gallery.rows.length) return ["Nothing to explain", gallery.problem];
    if (!gallery.rows.length)
      return {
        wrong: ["No mistakes", `At ${epoch} the network is right on every input kept. Choose inputs by class, or an earlier epoch.`],
        chosen: ["No input chosen", "Click images in the strip below, add one by its number, or upload an image of your own."],
      }[selection.by] || ["No inputs", "This run keeps no input of this class. Choose another class."];
    if (!gallery.columns.length) return ["No method chosen", "Tick one or more methods at the left."];
    return null;
  }

  page.alert = function (text) {
    const box = element("div", "alert alert-warning", text);
    box.setAttribute("role", "alert");
    return box;
  };

  function draw(gallery, selection) {
    const host = document.getElementById("attribution-tiles");
    if (!host || !gallery || !selection || selection.overlay === undefined || selection.run !== gallery.run) return window.dash_clientside.no_update;
    if (state.host !== host) Object.assign(state, fresh(), { host });
    Object.assign(state, { gallery, selection });
    const frame = document.querySelector(".dv-page");
    Object.assign(frame.dataset, { view: selection.view, by: selection.by, target: /^(unit|layer|direction):/.test(selection.target) ? "layer" : selection.target });
    const nothing = emptiness(gallery, selection);
    const sentences = [gallery.rows.length ? gallery.problem : "", state.ended && state.ended.error, state.sentence].filter(Boolean);
    const now = structure(gallery) + JSON.stringify([nothing, sentences]);
    if (now !== state.structure) {
      state.structure = now;
      if (nothing) {
        host.replaceChildren(element("div", "dv-empty", element("h2", "", nothing[0]), element("p", "", nothing[1])));
        state.cells = [];
      } else build(gallery);
      host.prepend(...sentences.map(page.alert));
    }
    if (!nothing) refill();
    page.legend(selection, nothing ? { columns: [] } : gallery);
    consider();
    report();
    page.marks();
    if (selection.view === "ranking") page.ranking();
    if (state.open) page.enlarge(...state.open);
    return String(gallery.missing);
  }
  page.say = function (sentence) {
    state.sentence = sentence;
    draw(state.gallery, state.selection);
  };
  page.here = () => document.getElementById("attribution-tiles") && state.gallery;

  document.addEventListener("click", (event) => {
    if (page.here() && event.target.closest("#attribution-run")) send();
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_attribution: {
      draw,
      progress: function (progress) {
        if (progress && progress.nonce) {
          if (progress.nonce === state.nonce) {
            state.progress = progress;
            report();
            hear({ done: progress.done, of: progress.nonce });
          } else if (state.other && progress.nonce === state.other.nonce) state.other.heard(progress);
          else if (page.here()) {
            // Somebody else on this page asked for a job of theirs.
            state.foreign = progress.nonce;
            giveWay();
          }
        }
        return window.dash_clientside.no_update;
      },
      answer: function (result) {
        if (result && result.nonce === state.nonce) {
          Object.assign(state, { nonce: null, ended: result });
          hear({ ended: result.nonce }, true);
        } else if (result && page.here()) {
          const { other } = state;
          if (other && result.nonce === other.nonce) {
            state.other = null;
            other.done(result);
          }
          if (result.nonce === state.foreign) state.foreign = null;
          hear({ ended: result.nonce }, true);
        }
        return window.dash_clientside.no_update;
      },
      methods: (lists) => lists.flat().join(",") || "none",
      // Select and slider of the layer follow each other.
      depth: function (layer, place, options) {
        const names = (options || []).map((option) => option.value);
        const none = window.dash_clientside.no_update;
        const asked = window.dash_clientside.callback_context.triggered_id;
        if (asked === "attribution-depth") return [names[Number(place)] === layer ? none : names[Number(place)], none];
        return [none, names.indexOf(layer) === Number(place) ? none : names.indexOf(layer)];
      },
    },
  });
})();
