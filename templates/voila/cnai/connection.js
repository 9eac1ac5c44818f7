// Tells viewers when their page no longer works, which Voila doesn't: its kernel has ended, or the network is gone.
// Inlined before Voila's scripts, because it must see every websocket that they open.
(function (mostBytes) {
  const ENDED = "This page has ended: the app was stopped or updated, or its program ended. Reload it to start again.";
  const LOST = "The connection to this app is lost. This page goes on when the connection is back.";
  const GIVEN_UP = "The connection to this app was lost for too long. Reload the page to start again.";
  const TOO_LARGE = (bytes) =>
    `${Math.ceil(bytes / 1e6)} MB are too much at once; this app takes up to ${Math.floor(mostBytes / 1e6)} MB.`;
  const LOOK_MILLISECONDS = 2000;
  const ANSWER_MILLISECONDS = 10000;
  // JupyterLab's client tries to connect seven times, with growing pauses of two minutes together, and never again.
  const GIVE_UP_MILLISECONDS = 150000;

  const kernelSockets = new Set();
  let over = false, watching = false, checkAgain = false, silent = false, answerTimer = 0;

  function notify(text, label, action) {
    const notice = document.getElementById("cnai-notice");
    notice.querySelector("span").textContent = text;
    const button = notice.querySelector("button");
    button.textContent = label;
    button.onclick = action;
    notice.hidden = false;
  }

  function hide() {
    const notice = document.getElementById("cnai-notice");
    if (notice) notice.hidden = true;
  }

  function end(text) {
    over = true;
    notify(text, "Reload", () => location.reload());
  }

  function isConnected() {
    return !silent && [...kernelSockets].some((socket) => socket.readyState === WebSocket.OPEN);
  }

  // Returns "alive", "ended" or "unreachable".
  async function kernelState() {
    const config = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    const token = document.cookie.match(/\b_xsrf=([^;]*)/);
    try {
      const reply = await fetch(`${config.baseUrl}api/kernels/${config.kernelId}`, {
        cache: "no-store",
        headers: { Accept: "application/json", ...(token && { "X-XSRFToken": token[1] }) },
        signal: AbortSignal.timeout(ANSWER_MILLISECONDS),
      });
      return reply.ok ? "alive" : reply.status >= 500 ? "unreachable" : "ended";
    } catch {
      return "unreachable";
    }
  }

  // Follows a page without a connection until it is connected again or over.
  async function watch() {
    if (watching || over) return;
    watching = true;
    const since = Date.now();
    let failures = 0;
    while (!isConnected()) {
      const state = await kernelState();
      if (state === "ended") return end(ENDED);
      if (Date.now() - since > GIVE_UP_MILLISECONDS) return end(GIVEN_UP);
      failures = state === "alive" ? 0 : failures + 1;
      if (state === "alive") silent = false;
      // One failure may be a request that was canceled because the viewer is leaving the page.
      if (failures === 2) notify(LOST, "Reload", () => location.reload());
      if (!isConnected()) await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
    }
    watching = false;
    hide();
    if (checkAgain) check();
  }

  // Checks a page that seems connected: a broken network doesn't close a websocket for minutes.
  async function check() {
    checkAgain = watching;
    if (over || watching) return;
    const state = await kernelState();
    if (state === "ended") end(ENDED);
    if (state === "unreachable") {
      silent = true;
      watch();
    }
  }

  class WatchedSocket extends WebSocket {
    constructor(...parameters) {
      super(...parameters);
      if (!/\/api\/kernels\/[^/]+\/channels/.test(this.url)) return;
      kernelSockets.add(this);
      this.addEventListener("message", () => {
        clearTimeout(answerTimer);
        answerTimer = 0;
      });
      this.addEventListener("close", () => {
        kernelSockets.delete(this);
        watch();
      });
    }

    send(data) {
      if (kernelSockets.has(this)) {
        const bytes = data.byteLength ?? data.size ?? data.length;
        // The server closes the connection on a larger message.
        if (bytes > mostBytes + 2 ** 20) return notify(TOO_LARGE(bytes), "Close", hide);
        answerTimer ||= setTimeout(() => { answerTimer = 0; check(); }, ANSWER_MILLISECONDS);
      }
      super.send(data);
    }
  }
  window.WebSocket = WatchedSocket;

  // A widget that has tried to send too much sends nothing from then on, so files are refused before it sees them.
  function refuseLargeFiles(event) {
    if (event.target.type !== "file") return;
    const bytes = [...event.target.files].reduce((sum, file) => sum + file.size, 0);
    if (bytes <= mostBytes) return hideUnlessOver();
    event.stopImmediatePropagation();
    notify(TOO_LARGE(bytes), "Close", hide);
  }
  function hideUnlessOver() {
    if (!over && !watching) hide();
  }
  document.addEventListener("change", refuseLargeFiles, true);
  // ipywidgets' input is not part of the page, so its events don't reach the document.
  const click = HTMLInputElement.prototype.click;
  HTMLInputElement.prototype.click = function () {
    if (this.type === "file" && !this.isConnected) this.addEventListener("change", refuseLargeFiles, true);
    click.call(this);
  };

  window.addEventListener("load", watch);
  window.addEventListener("offline", check);
  window.addEventListener("online", check);
  document.addEventListener("visibilitychange", () => document.hidden || check());
})
