// Background jobs: the toast of a failure, and the banner of a lost connection.
(function () {
  "use strict";
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.dnnviz_jobs = {
    // A job's answer → [toast is open, its text].
    failure: (result) => (result && result.error ? [true, result.error] : [false, ""]),
  };

  const config = () => document.getElementById("_dash-config");
  async function look() {
    const banner = document.getElementById("job-offline");
    if (!banner || !config() || document.hidden) return;
    let lost = false;
    try {
      lost = !(await fetch(JSON.parse(config().textContent).requests_pathname_prefix + "health", { cache: "no-store" })).ok;
    } catch (_) {
      lost = true;
    }
    // A server that was started again knows nothing of the jobs this page waits for: the page must be loaded anew.
    if (!lost && !banner.hidden) window.location.reload();
    banner.hidden = !lost;
  }
  setInterval(look, 5000);
  document.addEventListener("visibilitychange", look);
  document.addEventListener("click", (event) => {
    if (event.target.id === "job-reload") look();
  });
})();
