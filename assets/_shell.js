// The shell: URL, theme, pictures, keyboard. Pages add their own files beside this one.
(function () {
  "use strict";
  const dv = (window.dnnviz = window.dnnviz || {});
  const COMMON = ["run", "epoch", "show", "layer", "unit"];

  // -- addresses and fetching ---------------------------------------------------------------------------------------
  dv.prefix = function () {
    const config = document.getElementById("_dash-config");
    return (config && JSON.parse(config.textContent).requests_pathname_prefix) || "/";
  };
  dv.dataUrl = function (run, path, query) {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query || {})) if (value !== undefined && value !== null && value !== "") search.set(key, value);
    const text = search.toString();
    return dv.prefix() + "data/" + encodeURIComponent(run) + "/" + path + (text ? "?" + text : "");
  };

  const held = new Map(); // url → promise; oldest first, so the first key is the one to drop
  function remember(url, load) {
    if (!held.has(url)) {
      held.set(
        url,
        load().catch((error) => {
          held.delete(url);
          throw error;
        }),
      );
      if (held.size > 200) held.delete(held.keys().next().value);
    }
    return held.get(url);
  }
  async function answer(url) {
    const response = await fetch(url);
    if (!response.ok) {
      let text = "The server answered " + response.status + ".";
      try {
        text = (await response.json()).error || text;
      } catch (_) {
        // Not JSON: the status says it.
      }
      throw new Error(text);
    }
    return response;
  }
  dv.fetchJson = (url) => remember(url, async () => (await answer(url)).json());
  const fetchArray = (url, Numbers) =>
    remember(url, async () => {
      const response = await answer(url);
      const shape = (response.headers.get("X-Shape") || "").split(",").map(Number);
      return { data: new Numbers(await response.arrayBuffer()), shape };
    });
  dv.fetchFloats = (url) => fetchArray(url, Float32Array);
  dv.fetchShorts = (url) => fetchArray(url, Int16Array);

  // -- small things -------------------------------------------------------------------------------------------------
  dv.escape = (text) => String(text).replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
  dv.number = function (value) {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1).replace("-", "−");
    return (size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toFixed(3)).replace("-", "−");
  };
  dv.count = (value) => value.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  dv.set = function (key, value) {
    window.dash_clientside.set_props({ type: "url", key: key }, { value: value });
  };
  dv.selection = {}; // what the URL says, as the shell last collected it
  let toastTimer = 0;
  dv.toast = function (text) {
    const box = document.getElementById("dv-toast");
    if (!box) return;
    box.textContent = text;
    box.classList.add("shown");
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => box.classList.remove("shown"), 2600);
  };

  // -- theme --------------------------------------------------------------------------------------------------------
  const stored = (key) => {
    try {
      return localStorage.getItem(key);
    } catch (_) {
      return null; // storage can be forbidden
    }
  };
  const store = (key, value) => {
    try {
      localStorage.setItem(key, value);
    } catch (_) {
      // The choice lasts as long as the page.
    }
  };
  dv.theme = () => document.documentElement.getAttribute("data-bs-theme") || "light";
  dv.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--dv-" + name).trim();
  // Figures that the server draws take their colours from the store; it can be set once a page is laid out.
  let sent = "light";
  function sendTheme() {
    if (sent === dv.theme() || !dv.selection.run) return;
    sent = dv.theme();
    window.dash_clientside.set_props("theme-store", { data: sent });
  }
  function applyTheme(theme, palette) {
    document.documentElement.setAttribute("data-bs-theme", theme);
    document.documentElement.setAttribute("data-dv-palette", palette);
    sendTheme();
    document.dispatchEvent(new CustomEvent("dnnviz:theme"));
  }
  dv.palette = () => document.documentElement.getAttribute("data-dv-palette") || "red";
  dv.setTheme = function (theme, palette) {
    store("dnnviz-theme", theme);
    store("dnnviz-palette", palette);
    applyTheme(theme, palette);
  };
  const preferred = window.matchMedia && window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  applyTheme(stored("dnnviz-theme") || preferred, stored("dnnviz-palette") || "red");

  // -- pictures -----------------------------------------------------------------------------------------------------
  const providers = {};
  dv.picture = {
    // provide(path, async () => ({svg, width, height, caption})): how the page at `path` draws itself.
    provide: (path, draw) => {
      providers[path] = draw;
    },
    // The picture with its caption under it, as SVG text with its size.
    compose: async function () {
      const base = dv.prefix();
      const path = "/" + window.location.pathname.slice(base.length).replace(/\/$/, "");
      const draw = providers[path];
      if (!draw) throw new Error("This page has nothing to save yet.");
      const picture = await draw();
      const width = Math.max(picture.width, 480);
      const lines = wrap(picture.caption, Math.floor((width - 24) / 6));
      const height = picture.height + 18 + 16 * lines.length;
      const inner = picture.svg.replace(/^<\?xml[^>]*\?>\s*/, "");
      const text = lines
        .map((line, i) => `<text x="12" y="${picture.height + 16 + 16 * i}" font-size="11.5" fill="${dv.colour("muted")}">${dv.escape(line)}</text>`)
        .join("");
      return {
        width,
        height,
        svg:
          `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
          `font-family="Liberation Sans, Arial, Helvetica, sans-serif"><rect width="100%" height="100%" fill="${dv.colour("bg")}"/>${inner}${text}</svg>`,
      };
    },
    save: async function (format) {
      const picture = await dv.picture.compose();
      const name = ["dnnviz", dv.selection.run, window.location.pathname.split("/").pop() || "layers"].filter(Boolean).join("-");
      const blob = new Blob([picture.svg], { type: "image/svg+xml" });
      if (format === "svg") return download(blob, name + ".svg");
      return download(await raster(blob, picture, format === "png4" ? 4 : 2), name + ".png");
    },
  };
  function wrap(text, width) {
    const lines = [""];
    for (const word of String(text).split(/\s+/)) {
      if (lines[lines.length - 1].length + word.length + 1 > width && lines[lines.length - 1]) lines.push("");
      lines[lines.length - 1] += (lines[lines.length - 1] ? " " : "") + word;
    }
    return lines;
  }
  async function raster(blob, picture, wanted) {
    const url = URL.createObjectURL(blob);
    try {
      const image = new Image();
      image.src = url;
      await image.decode();
      // Browsers refuse canvases beyond about 16,000 pixels a side.
      const scale = Math.min(wanted, 16000 / picture.width, 16000 / picture.height);
      if (scale < wanted) dv.toast("The picture is large: saved at " + scale.toFixed(1) + "×.");
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(picture.width * scale);
      canvas.height = Math.round(picture.height * scale);
      const context = canvas.getContext("2d");
      context.scale(scale, scale);
      context.drawImage(image, 0, 0, picture.width, picture.height);
      return await new Promise((resolve, reject) => canvas.toBlob((b) => (b ? resolve(b) : reject(new Error("The browser could not draw the picture."))), "image/png"));
    } finally {
      URL.revokeObjectURL(url);
    }
  }
  function download(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    document.body.appendChild(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    dv.toast("Saved " + name + ".");
  }
  async function copyLink() {
    try {
      await navigator.clipboard.writeText(window.location.href);
    } catch (_) {
      // No clipboard permission (plain http on another host): the old way.
      const area = document.createElement("textarea");
      area.value = window.location.href;
      document.body.appendChild(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    dv.toast("Link to this view copied.");
  }

  // -- one place for clicks and keys --------------------------------------------------------------------------------
  dv.show = function (show) {
    const [kind, index] = show.split(":");
    if (document.getElementById("show-kind")) {
      if (kind === "class") window.dash_clientside.set_props("show-class", { value: index });
      if (kind === "input") window.dash_clientside.set_props("show-input", { value: Number(index) });
      window.dash_clientside.set_props("show-kind", { value: kind });
    } else dv.set("show", show);
  };
  dv.choose = function (layer, unit) {
    dv.set("layer", layer);
    dv.set("unit", unit === null || unit === undefined ? "" : String(unit));
  };
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.dv-menu[open]")) if (!menu.querySelector("summary").contains(event.target)) menu.open = false;
    const target = event.target.closest("[data-dv-show],[data-dv-unit],[data-dv-save],[data-dv-action]");
    if (!target) return;
    const data = target.dataset;
    if (data.dvShow) dv.show(data.dvShow);
    if (data.dvUnit) {
      const at = data.dvUnit.lastIndexOf("|");
      dv.choose(data.dvUnit.slice(0, at), data.dvUnit.slice(at + 1));
    }
    if (data.dvSave) dv.picture.save(data.dvSave).catch((error) => dv.toast(error.message));
    if (data.dvAction === "copy-link") copyLink();
    if (data.dvAction === "theme") dv.setTheme(dv.theme() === "dark" ? "light" : "dark", dv.palette());
    if (data.dvAction === "palette") dv.setTheme(dv.theme(), dv.palette() === "red" ? "cividis" : "red");
    if (data.dvAction === "help") document.getElementById("help-dialog").showModal();
    if (data.dvAction === "close-dialog") target.closest("dialog").close();
  });
  // Another run: a new page, as if its link had been clicked. Only a person's choice gets here, never a new layout.
  document.addEventListener("change", (event) => {
    if (event.target.id === "run-select") dv.go(window.location.pathname + "?run=" + encodeURIComponent(event.target.value));
  });
  dv.go = function (address) {
    window.history.pushState({}, "", address);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  };
  const editing = (element) =>
    element.closest && element.closest("input:not([type=radio]):not([type=checkbox]),select,textarea,[contenteditable],dialog,[role=slider]");
  dv.keys = {}; // key → function of a page; tried before the shell's own
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || editing(event.target)) return;
    const own = dv.keys[event.key];
    if (own && own(event) !== false) {
      event.preventDefault();
      return;
    }
    const radio = event.target.matches && event.target.matches("input[type=radio]");
    if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !radio) {
      const slider = document.getElementById("epoch-slider");
      if (!slider || slider.disabled) return;
      const to = Number(slider.value) + (event.key === "ArrowLeft" ? -1 : 1);
      if (to >= Number(slider.min) && to <= Number(slider.max)) {
        window.dash_clientside.set_props("epoch-slider", { value: to });
        event.preventDefault();
      }
    } else if (event.key === "?") document.getElementById("help-dialog").showModal();
    else if (event.key === "t") dv.setTheme(dv.theme() === "dark" ? "light" : "dark", dv.palette());
  });

  // -- the strip of inputs ------------------------------------------------------------------------------------------
  const STRIP_LIMIT = 120;
  let stripKey = "";
  async function strip(selection) {
    const box = document.getElementById("strip");
    if (!box || !selection.run || !document.querySelector(".dv-page.with-strip")) return;
    const inputs = await dv.fetchJson(dv.dataUrl(selection.run, "inputs.json", { epoch: selection.epoch }));
    if (selection !== dv.selection) return;
    const [kind, text] = (selection.show || "data").split(":");
    const label = kind === "class" ? Number(text) : kind === "input" ? inputs.labels[Number(text)] : null;
    const members = inputs.labels.map((_, i) => i).filter((i) => label === null || inputs.labels[i] === label);
    const step = Math.max(1, members.length / STRIP_LIMIT);
    let shown = members.length <= STRIP_LIMIT ? members : Array.from({ length: STRIP_LIMIT }, (_, i) => members[Math.floor(i * step)]);
    const chosen = kind === "input" ? Number(text) : -1;
    if (chosen >= 0 && !shown.includes(chosen)) shown = [chosen, ...shown.slice(0, -1)];
    const wrong = (i) => inputs.predictions[i] !== inputs.labels[i];
    const key = selection.run + "|" + shown.join(",");
    if (key !== stripKey || !box.firstChild) {
      stripKey = key;
      const described = document.createElement("div");
      described.className = "dv-strip-text";
      const list = document.createElement("div");
      list.className = "dv-strip-list";
      list.append(
        ...shown.map((i) => {
          const button = document.createElement("button");
          const name = inputs.classes[inputs.labels[i]];
          button.type = "button";
          button.title = "input " + i + ", " + name;
          button.setAttribute("aria-label", button.title);
          button.dataset.dvShow = "input:" + i;
          const image = document.createElement("img");
          image.loading = "lazy";
          image.alt = "";
          image.src = dv.dataUrl(selection.run, "thumb/" + i + ".png", { size: 64 });
          button.append(image);
          return button;
        }),
      );
      box.replaceChildren(described, list);
    }
    const missed = members.filter(wrong).length;
    const of = (shown.length < members.length ? shown.length + " of " : "") + dv.count(members.length) + " of " + (label === null ? "the data set" : "“" + inputs.classes[label] + "”");
    const line = (content, className) => Object.assign(document.createElement("div"), { textContent: content, className: className, title: content });
    box.firstChild.replaceChildren(
      line("Inputs", "fw-semibold"),
      line(of, "dv-small text-truncate"),
      line(missed ? dv.count(missed) + " wrong, outlined" : "all predicted right", "dv-small"),
    );
    [...box.lastChild.children].forEach((button, n) => {
      button.className = "dv-thumb" + (wrong(shown[n]) ? " wrong" : "") + (shown[n] === chosen ? " chosen" : "");
      if (wrong(shown[n])) button.title = "input " + shown[n] + ", " + inputs.classes[inputs.labels[shown[n]]] + ", taken for " + inputs.classes[inputs.predictions[shown[n]]];
    });
  }

  // -- clientside callbacks of the shell ----------------------------------------------------------------------------
  const none = () => window.dash_clientside.no_update;
  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_shell: {
      // Values of all URL controls → selection store, address bar, links of the bar.
      collect: function (values, ids, defaults, links) {
        const base = dv.prefix();
        const path = "/" + window.location.pathname.slice(base.length);
        const selection = {};
        ids.forEach((id, i) => {
          const value = values[i];
          selection[id.key] = value === undefined || value === null ? "" : Array.isArray(value) ? value.join(",") || "none" : String(value);
        });
        const plain = Object.assign({}, ...(defaults || []));
        if (ids.length) {
          const search = new URLSearchParams();
          for (const [key, value] of Object.entries(selection)) if (value !== (plain[key] === undefined ? "" : String(plain[key]))) search.set(key, value);
          const text = search.toString().replace(/%3A/g, ":").replace(/%2C/g, ",");
          const wanted = window.location.pathname + (text ? "?" + text : "");
          if (wanted !== window.location.pathname + window.location.search) window.history.replaceState(window.history.state, "", wanted);
          dv.selection = selection;
          sendTheme();
          strip(selection).catch((error) => dv.toast(error.message));
        }
        const common = new URLSearchParams();
        for (const key of COMMON) if (dv.selection[key] && !(key === "show" && dv.selection[key] === "data")) common.set(key, dv.selection[key]);
        const tail = common.toString() ? "?" + common.toString().replace(/%3A/g, ":") : "";
        const here = path.replace(/\/$/, "") || "/";
        return [
          ids.length ? selection : none(),
          links.map((id) => base + id.path.replace(/^\//, "") + tail),
          links.map((id) => "dv-nav-link" + (id.path === here ? " active" : "")),
        ];
      },
      epoch: function (position, epochs) {
        if (position === undefined || position === null || !epochs) return [none(), none()];
        const epoch = epochs.epochs[Math.min(Math.max(Number(position), 0), epochs.epochs.length - 1)];
        return [String(epoch), [String(epoch)]];
      },
      show: function (kind, label, input) {
        if (kind === "class") return label === undefined || label === null || label === "" ? none() : "class:" + label;
        if (kind === "input") return input === undefined || input === null || input === "" ? none() : "input:" + Math.max(0, Math.floor(Number(input)));
        return "data";
      },
    },
  });
})();
