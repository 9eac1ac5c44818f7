"""A pad to draw a digit on, in the format of scikit-learn's digits: 32 × 32 dots, counted in blocks of 4 × 4."""

import anywidget
import numpy as np
import traitlets

DOTS, BLOCKS = 32, 8


class DrawingPad(anywidget.AnyWidget):
    """`dots` is the drawing: 32 rows of 32 characters, "1" where there is ink."""

    dots = traitlets.Unicode("0" * DOTS * DOTS).tag(sync=True)
    brush = traitlets.Int(3).tag(sync=True)

    _esm = """
    const DOTS = 32, SCALE = 7;
    export default {
      render({ model, el }) {
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = DOTS * SCALE;
        canvas.className = "drawing-pad";
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", "Draw a digit here");
        el.append(canvas);
        const pen = canvas.getContext("2d");
        let dots = [];
        const paint = () => {
          const style = getComputedStyle(canvas);
          pen.clearRect(0, 0, canvas.width, canvas.height);
          pen.fillStyle = style.color;
          dots.forEach((ink, i) => {
            if (ink) pen.fillRect((i % DOTS) * SCALE, Math.floor(i / DOTS) * SCALE, SCALE, SCALE);
          });
        };
        const load = () => { dots = [...model.get("dots")].map(c => c === "1"); paint(); };
        const draw = event => {
          const box = canvas.getBoundingClientRect(), radius = model.get("brush") / 2;
          const x = (event.clientX - box.left) / box.width * DOTS, y = (event.clientY - box.top) / box.height * DOTS;
          for (let row = 0; row < DOTS; row++)
            for (let column = 0; column < DOTS; column++)
              if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) dots[row * DOTS + column] = true;
          paint();
        };
        canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); draw(event); });
        canvas.addEventListener("pointermove", event => { if (event.buttons) draw(event); });
        canvas.addEventListener("pointerup", () => {
          model.set("dots", dots.map(ink => (ink ? "1" : "0")).join(""));
          model.save_changes();
        });
        model.on("change:dots", load);
        requestAnimationFrame(load); // by then the canvas is on the page, whose text color it uses
      },
    };
    """
    _css = """
    .drawing-pad { width: 224px; height: 224px; touch-action: none; cursor: crosshair; border-radius: 8px;
      color: var(--jp-ui-font-color1, currentColor); border: 1px solid var(--jp-border-color1, #8888); }
    """

    def picture(self):
        """Return the drawing as 64 numbers from 0 to 16, moved and stretched to fill the picture like the examples."""
        ink = np.array(list(self.dots), dtype=int).reshape(DOTS, DOTS)
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        if not len(rows):
            return np.zeros(BLOCKS * BLOCKS, dtype=np.float32)
        cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height = DOTS
        width = min(DOTS, max(8, round(DOTS * cut.shape[1] / cut.shape[0])))
        taken = cut[np.arange(height) * cut.shape[0] // height][:, np.arange(width) * cut.shape[1] // width]
        full = np.zeros((DOTS, DOTS), dtype=int)
        left = (DOTS - width) // 2
        full[:, left : left + width] = taken
        blocks = full.reshape(BLOCKS, DOTS // BLOCKS, BLOCKS, DOTS // BLOCKS).sum(axis=(1, 3))
        return blocks.reshape(-1).astype(np.float32)

    def show(self, picture):
        """Show an example (64 numbers from 0 to 16) on the pad."""
        dark = np.asarray(picture).reshape(BLOCKS, BLOCKS) >= 6
        self.dots = "".join("1" if dot else "0" for dot in np.kron(dark, np.ones((4, 4), dtype=bool)).reshape(-1))

    def clear(self):
        """Remove all ink."""
        self.dots = "0" * DOTS * DOTS
