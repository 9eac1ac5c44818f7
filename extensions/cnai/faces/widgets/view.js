// The live view: inserts the pieces of HTML that the kernel sends, advances the clock, sends clicks to the kernel.

// The kernel sends the time at least every 5 s until the run ends.
const SILENT_MILLISECONDS = 20_000;
const SILENCE = "This page's kernel doesn't answer. The run continues without it: %cnai attach shows it again.";

function element(tag, name, parent, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  parent.append(made);
  return made;
}

function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function addControls(model, parent) {
  const bar = element("span", "cnai-controls", parent);
  const button = (label, title, message) => {
    const made = element("button", "cnai-button", bar, label);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", () => model.send(message()));
    return made;
  };
  const ranks = () => model.get("controls").ranks;
  const pause = button("Pause", "checkpoint and free the machine", () => ({ do: "pause" }));
  const resume = button("Resume", "continue from the last checkpoint", () => ({ do: "resume" }));
  const fewer = button("−", "one rank fewer", () => ({ do: "scale", ranks: ranks() - 1 }));
  const count = element("span", "cnai-count", bar);
  const more = button("+", "one rank more", () => ({ do: "scale", ranks: ranks() + 1 }));
  const stop = button("Stop", "stop the run; its checkpoints stay", () => ({ do: "stop" }));
  stop.classList.add("cnai-stop");
  return () => {
    const able = model.get("controls");
    bar.hidden = !("ranks" in able);
    pause.hidden = !able.pause;
    resume.hidden = !able.resume;
    count.textContent = `${able.ranks} rank${able.ranks === 1 ? "" : "s"}`;
    fewer.disabled = !(able.ranks > 1);
  };
}

function render({ model, el }) {
  const root = element("div", "cnai-run", el);
  const top = element("div", "cnai-head", root);
  const head = element("span", "cnai-what", top);
  const clock = element("span", "cnai-clock", top);
  const refreshControls = addControls(model, top);
  const notice = element("div", "cnai-notice", root);
  const silence = element("div", "cnai-notice", root, SILENCE);
  const error = element("div", "", root);
  const charts = element("div", "cnai-charts", root);
  const log = element("div", "cnai-log", root);
  const readOut = hover(charts);
  let updated = performance.now();
  let atEnd = true; // whether the log is scrolled to its end
  log.addEventListener("scroll", ({ target }) => {
    atEnd = target.scrollTop + target.clientHeight >= target.scrollHeight - 8;
  }, true);

  const draw = {
    head: () => (head.innerHTML = model.get("head")),
    error: () => (error.innerHTML = model.get("error")),
    charts: () => {
      charts.innerHTML = model.get("charts");
      readOut();
    },
    log: () => {
      const position = log.firstElementChild?.scrollTop ?? 0;
      log.innerHTML = model.get("log");
      const text = log.firstElementChild;
      if (text) text.scrollTop = atEnd ? text.scrollHeight : position;
    },
    notice: () => (notice.textContent = model.get("notice")),
    controls: refreshControls,
    clock: () => {
      updated = performance.now();
      tick();
    },
  };
  const tick = () => {
    const { seconds = 0, running = false } = model.get("clock");
    const since = performance.now() - updated;
    clock.textContent = clockText(seconds + (running ? since / 1000 : 0));
    silence.hidden = !running || since < SILENT_MILLISECONDS;
    top.classList.toggle("cnai-silent", !silence.hidden);
  };
  for (const [name, redraw] of Object.entries(draw)) {
    model.on(`change:${name}`, redraw);
    redraw();
  }
  const timer = setInterval(tick, 1000);
  requestAnimationFrame(draw.log); // the log can be scrolled only once it is on the page
  return () => {
    clearInterval(timer);
    for (const [name, redraw] of Object.entries(draw)) model.off(`change:${name}`, redraw);
  };
}

export default { render };
