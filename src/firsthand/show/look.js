"use strict";
(() => {
  const tokens = JSON.parse(document.querySelector("main").dataset.tokens);
  const size = tokens.length;
  const weights = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const draw = (canvas, values) => {
    const context = canvas.getContext("2d");
    const step = canvas.width / size;
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let row = 0; row < size; row += 1) {
      for (let column = 0; column <= row; column += 1) {
        context.fillStyle = `rgba(30, 110, 220, ${values[row * size + column] / 255})`;
        context.fillRect(column * step, row * step, Math.ceil(step), Math.ceil(step));
      }
    }
  };
  const large = document.querySelector(".large");
  for (const button of document.querySelectorAll(".heads button")) {
    const values = weights(button.dataset.weights);
    draw(button.querySelector("canvas"), values);
    button.addEventListener("click", () => {
      large.hidden = false;
      large.querySelector("figcaption").textContent = button.dataset.name;
      draw(large.querySelector("canvas"), values);
      const list = large.querySelector("ol");
      list.replaceChildren(...tokens.map((token, row) => {
        const seen = values.subarray(row * size, row * size + row + 1);
        const best = seen.indexOf(Math.max(...seen));
        const item = document.createElement("li");
        item.textContent = `${JSON.stringify(token)} looks at ${JSON.stringify(tokens[best])} ${(seen[best] / 255).toFixed(2)}`;
        return item;
      }));
    });
  }
})();
