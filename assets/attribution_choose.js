// Choosing on the attribution page: inputs from the strip, by number or uploaded, classes beside the one explained, methods.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const { state, element } = page;

  // Inputs of the gallery are marked in the strip.
  page.marks = function () {
    if (!page.here()) return;
    const shown = new Set(state.gallery.rows.map((row) => "input:" + row.source));
    document.querySelectorAll(".dv-strip [data-dv-show]").forEach((thumb) => thumb.classList.toggle("chosen", shown.has(thumb.dataset.dvShow)));
    chips();
  };
  new MutationObserver(page.marks).observe(document.documentElement, { childList: true, subtree: true });

  // -- choosing -----------------------------------------------------------------------------------------------------
  const sources = () => [...new Set(state.gallery.rows.map((row) => row.source))];
  function choose(list) {
    dv.set("inputs", list.join(","));
    dv.set("by", "chosen");
  }
  const toggle = (source) => choose(sources().includes(source) ? sources().filter((s) => s !== source) : [...sources(), source]);
  function addNumber() {
    const field = document.getElementById("attribution-number");
    const number = Number(field.value);
    if (field.value === "" || !Number.isInteger(number) || number < 0 || number > Number(field.max)) return page.say(`Inputs have the numbers 0 to ${field.max}.`);
    if (!sources().includes(String(number))) toggle(String(number));
    return undefined;
  }
  // -- classes beside the one explained -----------------------------------------------------------------------------
  const others = () => state.selection.also.split(",").filter(Boolean);
  const beside = (number) => dv.set("also", (others().includes(number) ? others().filter((n) => n !== number) : [...others(), number]).join(","));
  function chips() {
    const list = document.getElementById("attribution-also-list");
    if (!list || list.dataset.shown === state.selection.also) return;
    list.dataset.shown = state.selection.also;
    list.replaceChildren(
      ...others().map((number) => {
        const option = document.querySelector(`#attribution-also option[value="${number}"]`);
        const name = option ? option.textContent : "class " + number;
        const chip = element("button", "dv-chip", element("span", "", name), "×");
        chip.type = "button";
        chip.title = name + ": explained too; click to leave it out";
        chip.setAttribute("aria-label", "Leave out " + name);
        chip.dataset.dvBeside = number;
        return chip;
      }),
    );
  }
  document.addEventListener("change", (event) => {
    if (!page.here()) return;
    if (event.target.id === "attribution-also" && event.target.value) {
      if (!others().includes(event.target.value)) beside(event.target.value);
      window.dash_clientside.set_props("attribution-also", { value: "" });
    }
    if (event.target.id === "attribution-towards") {
      const query = new URLSearchParams(window.location.search);
      query.set("target", event.target.value);
      dv.go(window.location.pathname + "?" + query.toString());
    }
  });

  // -- methods ------------------------------------------------------------------------------------------------------
  function preset(families) {
    for (const [family, names] of Object.entries(families)) window.dash_clientside.set_props({ type: "attribution-methods", family }, { value: names });
  }

  // -- inputs -------------------------------------------------------------------------------------------------------
  // The click of the strip means "show this input" elsewhere; here it adds the input or leaves it out.
  document.addEventListener(
    "click",
    (event) => {
      const thumb = event.target.closest(".dv-strip [data-dv-show]");
      if (!thumb || !page.here()) return;
      event.stopPropagation();
      toggle(thumb.dataset.dvShow.split(":")[1]);
    },
    true,
  );
  document.addEventListener("click", (event) => {
    if (!page.here()) return;
    const at = (selector) => event.target.closest(selector);
    if (at("#attribution-add")) addNumber();
    else if (at("[data-dv-leave]")) choose(sources().filter((s) => s !== at("[data-dv-leave]").dataset.dvLeave));
    else if (at("[data-dv-beside]")) beside(at("[data-dv-beside]").dataset.dvBeside);
    else if (at("[data-dv-methods]")) preset(JSON.parse(at("[data-dv-methods]").dataset.dvMethods));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.id === "attribution-number") addNumber();
  });

  dv.upload({
    button: "#attribution-upload",
    here: () => page.here(),
    run: () => state.gallery.run,
    say: (sentence) => page.say(sentence),
    take: function (key) {
      state.sentence = "";
      const before = state.selection.by === "chosen" ? sources() : [];
      choose([...before.filter((s) => s !== key), key]);
    },
  });
})();
