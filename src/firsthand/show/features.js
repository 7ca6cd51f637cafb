"use strict";
(() => {
  const controls = document.querySelector(".controls");
  const list = document.querySelector(".list");
  const features = [...list.querySelectorAll(".feature")];
  const words = new Map(features.map((each) => [each, each.textContent.toLowerCase()]));
  const search = controls.querySelector("input");
  const order = controls.querySelector("select");
  const told = controls.querySelector("output");
  const update = () => {
    const wanted = search.value.toLowerCase();
    let shown = 0;
    for (const each of features) {
      each.hidden = !words.get(each).includes(wanted);
      shown += each.hidden ? 0 : 1;
    }
    told.textContent = `${shown} of ${features.length}`;
  };
  order.addEventListener("change", () => {
    const key = order.value;
    const sorted = [...features].sort((a, b) => Number(b.dataset[key]) - Number(a.dataset[key]));
    list.append(...sorted);
  });
  search.addEventListener("input", update);
  for (const each of list.querySelectorAll(".steer")) {
    const slider = each.querySelector("input");
    const texts = [...each.querySelectorAll("p")];
    const show = () => {
      texts.forEach((text, place) => { text.hidden = place !== Number(slider.value); });
      slider.setAttribute("aria-valuetext", texts[Number(slider.value)].textContent);
    };
    slider.addEventListener("input", show);
    slider.parentElement.hidden = false;
    show();
  }
  controls.hidden = false;
  update();
})();
