"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const find = (selector) => viewer.querySelector(selector);
  const slider = find("input"), sides = ["left", "right"];
  const chosen = { left: 0, right: 0 }; // pictures, counted from the left; they stay when the example changes
  const images = Object.fromEntries(["right", "left"].map((side) => [side, document.createElement("img")])); // left above
  let current, pictures;

  const examples = () => [...document.querySelectorAll(".example")]; // as they are sorted now

  function divide() {
    const [left, right] = sides.map((side) => pictures[chosen[side]].dataset.label);
    viewer.style.setProperty("--divider", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left}, the rest ${right}`);
  }

  function draw() {
    for (const side of sides) {
      const source = pictures[chosen[side]], image = images[side];
      image.src = source.src;
      image.alt = source.alt;
      find(`span.${side}`).textContent = source.dataset.note;
      image.classList.toggle("exact", source.classList.contains("exact"));
      viewer.style.setProperty("--ratio", source.naturalWidth / source.naturalHeight);
    }
    divide();
  }

  function show(example) {
    current = example;
    pictures = [...example.querySelectorAll(".open img")];
    for (const side of sides) {
      const options = pictures.map((each) => new Option(each.dataset.label));
      chosen[side] = Math.min(chosen[side], pictures.length - 1);
      find(`select.${side}`).replaceChildren(...options);
      find(`select.${side}`).selectedIndex = chosen[side];
    }
    const all = examples();
    document.getElementById("viewer-name").textContent = example.dataset.name;
    document.getElementById("viewer-caption").textContent = example.dataset.caption ?? "";
    document.getElementById("viewer-position").textContent = `${all.indexOf(example) + 1} of ${all.length}`;
    draw();
  }

  function turn(by) {
    const all = examples();
    show(all[(all.indexOf(current) + by + all.length) % all.length]);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (!button) return;
    const example = button.closest(".example"), all = [...example.querySelectorAll(".open")];
    const last = all.length - 1, at = all.indexOf(button);
    Object.assign(chosen, { left: at < last ? at : Math.max(0, last - 1), right: last }); // beside the last, the target
    show(example);
    viewer.showModal();
  });

  viewer.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT") return;
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key], move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) turn(by);
    else if (move && event.target !== slider) { slider.value = slider.valueAsNumber + move; divide(); }
    else return;
    event.preventDefault();
  });

  for (const side of sides) {
    images[side].className = side;
    find(`select.${side}`).addEventListener("change", (event) => { chosen[side] = event.target.selectedIndex; draw(); });
  }
  slider.before(...Object.values(images));
  slider.addEventListener("input", divide);
  document.getElementById("viewer-previous").addEventListener("click", () => turn(-1));
  document.getElementById("viewer-next").addEventListener("click", () => turn(1));
  document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => current.querySelector(".open:not([tabindex])").focus());
})();
