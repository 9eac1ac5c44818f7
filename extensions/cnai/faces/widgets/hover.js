// Shows a read-out for the chart below the pointer: a line, a dot and the numbers of the nearest point.
// Listens on `root`, so that charts can be replaced while the pointer rests on one. Also used in saved notebooks.
function hover(root) {
  const [WIDTH, HEIGHT] = [340, 170];
  let pointer = null;
  const text = (value) => Number(value.toPrecision(5)).toString();

  const clear = () => root.querySelectorAll(".cnai-readout").forEach((old) => old.remove());

  const show = () => {
    clear();
    const chart = pointer && document.elementFromPoint(pointer.x, pointer.y)?.closest(".cnai-chart");
    if (!chart || !root.contains(chart)) return;
    const points = JSON.parse(chart.dataset.points || "[]");
    if (!points.length) return;
    const box = chart.getBoundingClientRect();
    const at = ((pointer.x - box.left) / box.width) * WIDTH;
    const near = points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
    const [x, y, step, mean, low, high] = near;
    const readout = document.createElement("div");
    readout.className = "cnai-readout";
    readout.innerHTML = '<i class="cnai-line"></i><i class="cnai-dot"></i><b></b>';
    const [line, dot, label] = readout.children;
    line.style.left = dot.style.left = `${(x / WIDTH) * 100}%`;
    dot.style.top = `${(y / HEIGHT) * 100}%`;
    label.style[x < WIDTH / 2 ? "left" : "right"] = `${((x < WIDTH / 2 ? x : WIDTH - x) / WIDTH) * 100 + 2}%`;
    label.textContent = `step ${step}: ${text(mean)}` + (low < high ? ` (${text(low)} to ${text(high)})` : "");
    chart.append(readout);
  };

  root.addEventListener("pointermove", (event) => {
    pointer = { x: event.clientX, y: event.clientY };
    show();
  });
  root.addEventListener("pointerleave", () => {
    pointer = null;
    clear();
  });
  return show;
}
