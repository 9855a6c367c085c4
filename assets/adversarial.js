// The adversarial page: says what is known of a view, asks for what is missing, follows the job. The files beside it draw.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = (dv.adversarial = {});
  const BESIDE = ["detector", "layer", "unit"]; // keys of the address on which the answer does not depend
  const HEAR_EVERY = 500; // ms between two looks at what a job has made
  const state = (page.state = { host: null, known: null, selection: null, hearing: 0, heard: 0, drawn: "", nonce: null, asked: "", ended: null, progress: null });
  page.views = {}; // view → (known) → elements of what was found
  page.pictures = {}; // view → (known) → {svg, width, height, caption}
  const none = () => window.dash_clientside.no_update;

  page.element = function (tag, className, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  };
  const { element } = page;
  page.count = (n, one) => dv.count(n) + " " + one + (n === 1 ? "" : one.endsWith("ss") ? "es" : "s");
  page.percent = (p) => (p === null || p === undefined ? "–" : p === 0 ? "0 %" : p > 0 && p < 0.001 ? "<0.1 %" : p < 1 && p >= 0.9995 ? ">99.9 %" : (100 * p).toFixed(p >= 0.1 && (p < 0.99 || p === 1) ? 0 : 1) + " %");
  page.seconds = (s) => (s < 1 ? "under 1 s" : s < 90 ? `about ${Math.round(s)} s` : s < 5400 ? `about ${Math.round(s / 60)} min` : `about ${(s / 3600).toFixed(1)} h`);
  page.size = (value, norm) => (norm === "linf" ? Number((255 * value).toPrecision(3)) + "/255" : String(Number(value.toPrecision(3))));
  page.section = function (title, ...children) {
    const made = element("section", "adv-section", title ? element("h2", "dv-section-title", title) : null, ...children);
    if (title) made.setAttribute("aria-label", title);
    return made;
  };
  page.alert = function (text) {
    const box = element("div", "alert alert-warning", text);
    box.setAttribute("role", "alert");
    return box;
  };
  // A link within the app that keeps run and epoch; opened without loading the app anew.
  page.link = function (text, path, values) {
    const known = state.known;
    const search = new URLSearchParams({ run: known.run, epoch: known.epoch, ...values });
    const link = element("a", "", text);
    link.href = dv.prefix() + path.slice(1) + "?" + search.toString().replace(/%3A/g, ":");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      dv.go(link.href);
    });
    return link;
  };

  // -- what a view says before anything was found ------------------------------------------------------------------
  const empty = (title, ...text) => element("div", "dv-empty", element("h2", "", title), element("p", "", ...text));
  const ASKS = {
    attack: (known) => `What makes the network take this ${known.input.seen || "picture"} for ${known.target === null ? "something else" : known.target}?`,
    detection: () => "Can attacks be told from clean inputs by their activations?",
    robustness: () => "How small a change is enough?",
  };
  const WORDS = { attack: "Attack", detection: "Measure", robustness: "Measure" };
  function offer(known) {
    const cancelled = state.ended && state.ended.cancelled;
    const parts = [element("h2", "", cancelled ? "Cancelled" : ASKS[known.view](known))];
    if (known.input) {
      const image = element("img", "adv-input" + (Math.min(...known.input.size) < 100 ? " crisp" : ""));
      image.src = known.input.upload ? dv.uploadUrl(known.input.upload) : dv.dataUrl(known.run, "image/" + known.input.index + ".png");
      image.alt = page.inputName(known);
      parts.push(image, element("p", "", inputText(known)));
    }
    const of = known.view === "attack" ? "" : page.count(known.inputs, "input") + ", ";
    const cost = `${known.method}: ${of}up to ${page.count(known.passes, "evaluation")} of the network` + (known.seconds === null ? "." : `, ${page.seconds(known.seconds)}.`);
    const start = element("button", "dv-btn primary", WORDS[known.view]);
    start.type = "button";
    start.disabled = Boolean(state.nonce);
    start.addEventListener("click", send);
    parts.push(element("p", "mb-3", state.nonce ? "Computing…" : cost), start);
    return element("div", "dv-empty", ...parts);
  }
  page.inputName = (known) => (known.input.upload ? "Your picture" : `Input ${known.input.index}`);
  function inputText(known) {
    if (known.input.upload) return "Your picture, as the network sees it; what it takes it for is found out first.";
    const { index, seen, right, probability } = known.input;
    const said = `Input ${index}, predicted ${seen}` + (probability === null ? "" : ` (${page.percent(probability)})`);
    return said + (right ? "." : `; its true class is ${known.input.true}.`);
  }

  function body(known) {
    if (known.state === "choose") return [empty("Choose an input to attack", "Click an image in the strip below, choose “Input” above and give its number, or upload a picture of your own.")];
    if (known.state === "problem") return [empty("This cannot be attacked", known.sentence)];
    if (known.state === "offer") return [offer(known)];
    return page.views[known.view](known);
  }

  // -- jobs ----------------------------------------------------------------------------------------------------------
  function send() {
    const { known } = state;
    if (!known || !known.request || state.nonce) return;
    Object.assign(state, { nonce: Date.now() + "-" + Math.random().toString(36).slice(2), asked: JSON.stringify(known.request), ended: null, progress: null, drawn: "" });
    window.dash_clientside.set_props("job-request", { data: { ...known.request, nonce: state.nonce } });
    show();
  }
  function hear(what, at_once) {
    clearTimeout(state.hearing);
    const wait = at_once ? 0 : Math.max(0, state.heard + HEAR_EVERY - performance.now());
    state.hearing = setTimeout(() => {
      if (!document.getElementById("adversarial-body")) return;
      state.heard = performance.now();
      window.dash_clientside.set_props("adversarial-heard", { data: what });
    }, wait);
  }
  const partial = (known) => known.state === "found" && known.result.about.partial !== undefined;

  function show() {
    const { host, known } = state;
    if (!host || !host.isConnected || !known) return;
    const own = state.asked === JSON.stringify(known.request);
    const told = JSON.stringify([{ ...known, of: null }, own && state.ended, own && state.nonce, dv.theme(), dv.selection.detector, host.clientWidth > 0 && Math.round(host.clientWidth / 40)]);
    if (told !== state.drawn) {
      state.drawn = told;
      page.tip();
      const failed = own && state.ended && state.ended.error ? [page.alert(state.ended.error)] : [];
      host.replaceChildren(...failed, ...body(known));
    }
    const run = document.getElementById("adversarial-run");
    run.hidden = !partial(known) || Boolean(state.nonce) || Boolean(known.obstacle);
    run.textContent = "Go on";
    const status = document.getElementById("adversarial-status");
    if (state.nonce && own) status.textContent = (state.progress && state.progress.text) || "Computing…";
    else if (partial(known)) status.textContent = "Not done to the end.";
    else if (known.state === "found") status.textContent = `${known.method}, ${dv.number(known.result.about.seconds)} s of computing`;
    else status.textContent = "";
  }
  page.show = () => {
    state.drawn = "";
    show();
  };

  function draw(known, selection) {
    const host = document.getElementById("adversarial-body");
    if (!host || !known || !selection || selection.detector === undefined) return none();
    Object.assign(document.querySelector(".dv-page").dataset, { view: selection.view, upload: selection.image });
    // Whoever chooses an input of the run, leaves the picture of their own.
    if (state.host === host && selection.image && state.selection.image === selection.image && state.selection.show !== selection.show) dv.set("image", "");
    for (const box of document.querySelectorAll("[data-adv-method]")) box.hidden = box.dataset.advMethod !== selection.method;
    // Until the server has answered to the latest choice, what is shown is not what the controls say: nothing of it can be pressed.
    host.inert = Object.keys(selection).some((key) => !BESIDE.includes(key) && selection[key] !== known.of[key]);
    if (host.inert) return none();
    if (state.host !== host) {
      // A page that was laid out anew: what is known of a job stays (shown to its question only), and an answer still to come is heard.
      const nonce = (store) => window.dash_component_api.getLayout(store)?.props?.data?.nonce;
      const goes = nonce("job-request") === state.nonce && nonce("job-result") !== state.nonce;
      Object.assign(state, { host, drawn: "", progress: null, nonce: goes ? state.nonce : null });
    }
    Object.assign(state, { known, selection });
    show();
    return known.state;
  }

  const here = () => document.getElementById("adversarial-body");
  document.addEventListener("click", (event) => {
    if (!here()) return;
    if (event.target.closest("#adversarial-run")) send();
    else if (event.target.closest("#adversarial-leave, .dv-strip [data-dv-show]")) dv.set("image", "");
  });
  function take(key) {
    dv.set("image", key);
    dv.set("view", "attack");
  }
  dv.upload({ button: "#adversarial-upload", here, run: () => dv.selection.run, take, say: dv.toast });
  document.addEventListener("dnnviz:theme", show);
  window.addEventListener("resize", show);

  dv.picture.provide("/adversarial", () => {
    const { known } = state;
    if (!known || known.state !== "found" || !page.pictures[known.view]) throw new Error("There is nothing to save yet: run it first.");
    return page.pictures[known.view](known);
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_adversarial: {
      draw,
      progress: function (progress) {
        if (progress && progress.nonce && progress.nonce === state.nonce) {
          state.progress = progress;
          show();
          hear({ done: progress.done, of: progress.nonce });
        }
        return none();
      },
      answer: function (result) {
        if (result && result.nonce === state.nonce) {
          Object.assign(state, { nonce: null, ended: result });
          show();
          hear({ ended: result.nonce }, true);
        }
        return none();
      },
    },
  });
})();
