// The view “Shortcuts” of the attribution page: asks for the computation, and tells the server when it has ended.
(function () {
  "use strict";
  const none = () => window.dash_clientside.no_update;
  let nonce = null;

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-shortcuts-request]");
    if (!button) return;
    nonce = Date.now() + "-" + Math.random().toString(36).slice(2);
    button.disabled = true;
    button.textContent = "Computing…";
    window.dash_clientside.set_props("job-request", { data: { ...JSON.parse(button.dataset.shortcutsRequest), nonce: nonce } });
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_shortcuts: {
      answer: function (result) {
        if (result && result.kind === "shortcuts" && nonce && result.nonce === nonce && document.getElementById("shortcuts-cards")) {
          nonce = null;
          window.dash_clientside.set_props("shortcuts-heard", { data: result });
        }
        return none();
      },
    },
  });
})();
