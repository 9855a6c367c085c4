// Background jobs: the toast of a failure, cancelling, and the banner of a lost connection.
(function () {
  "use strict";
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.dnnviz_jobs = {
    // A job's answer → [toast is open, its text].
    failure: (result) => (result && result.error ? [true, result.error] : [false, ""]),
  };

  // Dash can cancel a job once the server has said that it started; a click before that is repeated until the job has ended.
  const AGAIN = 400; // milliseconds
  const read = (id) => window.dash_component_api.getLayout(id)?.props || {};
  function cancelUntilEnded(nonce) {
    if (document.getElementById("job-panel")?.hidden !== false || read("job-request").data?.nonce !== nonce) return;
    window.dash_clientside.set_props("job-cancel", { n_clicks: (read("job-cancel").n_clicks || 0) + 1 });
    setTimeout(cancelUntilEnded, AGAIN, nonce);
  }

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
    if (event.target.id === "job-cancel") setTimeout(cancelUntilEnded, AGAIN, read("job-request").data?.nonce);
  });
})();
