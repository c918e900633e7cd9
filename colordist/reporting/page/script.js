"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const runs = JSON.parse(document.getElementById("data").textContent).runs;

  // Survives a reload; a browser may refuse it to a file.
  const memory = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* not stored */ } },
  };

  const onChoice = (id, act) => {
    const box = document.getElementById(id);
    box?.addEventListener("change", (event) => act(event.target.value));
    return box;
  };

  // --- charts

  const plots = all(".plot").map((element) => {
    const root = element.querySelector("[data-root-id]").dataset.rootId;
    return { element, readout: element.querySelector(".readout"), digits: element.dataset.digits, root };
  });

  const color = (() => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.hidden = true;
    return (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  })();

  const runOf = (renderer) => (/^run-\d+$/.test(renderer.name ?? "") ? Number(renderer.name.slice(4)) : null);

  function paint() {
    const [soft, line, target] = ["soft", "line", "target"].map(color);
    const lines = runs.map((run) => color(`run-${run.color}`));
    for (const { figure } of plots) {
      for (const part of [...figure.below, ...figure.left, ...figure.center]) {
        if (part.name === "cursor") part.line_color = soft;
        else if (part.name === "label") part.text_color = soft;
        else if ("grid_line_color" in part) part.grid_line_color = part.dimension === 1 ? line : null;
        else if ("major_label_text_color" in part) {
          part.major_label_text_color = part.axis_label_text_color = soft;
          part.major_tick_line_color = line;
          part.major_label_text_font = part.axis_label_text_font = "system-ui, sans-serif";
        }
      }
      for (const renderer of figure.renderers) {
        const run = runOf(renderer), glyph = renderer.glyph;
        if (run !== null) {
          glyph.line_color = lines[run];
          if ("fill_color" in glyph) glyph.fill_color = lines[run];
        } else if (renderer.name === "target") { glyph.fill_color = target; glyph.line_color = null; }
        else if (renderer.name === "reference") glyph.line_color = soft;
      }
    }
  }

  const shown = runs.map(() => true);

  function show(run, visible) {
    shown[run] = visible;
    for (const box of all(`.legend input[data-run="${run}"]`)) box.checked = visible;
    for (const { figure } of plots)
      for (const renderer of figure.renderers) if (runOf(renderer) === run) renderer.visible = visible;
  }

  function setAxis(field) {
    hideCursor();
    for (const plot of plots.filter(({ figure }) => figure.tags.includes("curves"))) {
      plot.field = field;
      for (const renderer of plot.figure.renderers) if (runOf(renderer) !== null) renderer.glyph.x = { field };
    }
    resetZoom();
  }

  const curves = () => plots.filter((plot) => plot.figure.tags.includes("curves"));

  function resetZoom() {
    for (const { figure } of curves()) Bokeh.index.get_one(figure).reset_range();
    document.getElementById("zoom").hidden = true;
  }

  // --- the cursor, in all charts that share an axis; values in the one that has it

  const place = (values, x) => {
    let low = 0, high = values.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - values[low - 1] < values[low] - x ? low - 1 : low;
  };

  // A run that ended earlier has no value there.
  const reaches = (xs, x) => {
    const last = xs.length - 1;
    return last === 0 || (x >= xs[0] - (xs[1] - xs[0]) / 2 && x <= xs[last] + (xs[last] - xs[last - 1]) / 2);
  };

  const written = (value, digits) =>
    digits === undefined
      ? Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 })
      : value.toLocaleString("en", { minimumFractionDigits: Number(digits), maximumFractionDigits: Number(digits) });

  const series = (plot) => {
    const found = new Map();
    for (const renderer of plot.figure.renderers) {
      const run = runOf(renderer);
      if (run === null || !shown[run] || found.has(run)) continue;
      const data = renderer.data_source.data;
      found.set(run, { xs: data.get?.(plot.field) ?? data[plot.field], ys: data.get?.("y") ?? data.y });
    }
    return found;
  };

  const cursorOf = ({ figure }) => figure.center.find((part) => part.name === "cursor");

  function hideCursor() {
    for (const plot of plots) { cursorOf(plot).visible = false; plot.readout.hidden = true; plot.x = undefined; }
  }

  function point(plot, x) {
    const found = series(plot);
    const nearest = [...found].filter(([, { xs }]) => reaches(xs, x))
      .map(([run, { xs, ys }]) => { const at = place(xs, x); return { run, x: xs[at], y: ys[at] }; });
    if (!nearest.length) return;
    const best = nearest.reduce((one, other) => (Math.abs(other.x - x) < Math.abs(one.x - x) ? other : one));
    hideCursor();
    for (const other of plot.figure.tags.includes("curves") ? curves() : [plot]) {
      const cursor = cursorOf(other);
      cursor.location = best.x;
      cursor.visible = true;
    }
    const range = plot.figure.x_range;
    plot.x = best.x;
    plot.readout.hidden = false;
    plot.readout.className = `readout ${best.x > (range.start + range.end) / 2 ? "left" : "right"}`;
    const head = document.createElement("b");
    head.textContent = `${plot.field === "x" ? "at" : plot.field} ${best.x.toLocaleString("en")}`;
    const lines = nearest.sort((one, other) => other.y - one.y).map(({ run, y }) => {
      const line = document.createElement("div");
      const [mark, name, value] = ["mark", "name", "value"].map((kind) => {
        const part = line.appendChild(document.createElement("span"));
        part.className = kind;
        return part;
      });
      mark.style.background = `var(--run-${runs[run].color})`;
      name.textContent = runs[run].name;
      value.textContent = written(y, plot.digits);
      return line;
    });
    plot.readout.replaceChildren(head, ...lines);
  }

  function onKey(plot, event) {
    const [first] = series(plot).values();
    if (!first) return;
    const last = first.xs.length - 1, many = Math.max(1, Math.round(last / 10));
    const now = plot.x === undefined ? -1 : place(first.xs, plot.x);
    const next = { ArrowRight: now + 1, ArrowLeft: now < 0 ? last : now - 1, PageDown: now + many, PageUp: now - many,
      Home: 0, End: last }[event.key];
    if (event.key === "Escape") hideCursor();
    if (next === undefined) return;
    event.preventDefault();
    point(plot, first.xs[Math.min(last, Math.max(0, next))]);
  }

  function connect() {
    const document_ = Bokeh.documents[0];
    for (const plot of plots) {
      plot.figure = document_.get_model_by_id(plot.root);
      plot.field = plot.figure.tags.includes("curves") ? "step" : "x";
      plot.figure.on_event("mousemove", (event) => point(plot, event.x));
      plot.figure.on_event("tap", (event) => point(plot, event.x));
      plot.figure.on_event("mouseleave", hideCursor);
      plot.figure.on_event("doubletap", resetZoom);
      plot.element.addEventListener("keydown", (event) => onKey(plot, event));
      plot.element.addEventListener("focusout", hideCursor);
    }
    const zoom = document.getElementById("zoom");
    for (const { figure } of curves())
      figure.on_event("rangesupdate", () => { zoom.hidden = !figure.x_range.have_updated_interactively; });
    zoom?.addEventListener("click", resetZoom);
    for (const box of all(".legend input"))
      box.addEventListener("change", () => show(Number(box.dataset.run), box.checked));
    onChoice("axis", setAxis);
    paint();
  }

  // Bokeh lets its canvas be focused; one stop a chart is enough, and ours has a name.
  function unfocus(element) {
    for (const inner of element.querySelectorAll("*")) {
      if (inner.shadowRoot) unfocus(inner.shadowRoot);
      if (inner.tabIndex === 0) inner.tabIndex = -1;
    }
  }

  async function begin() {
    while (!globalThis.Bokeh?.documents?.[0]) await new Promise((done) => setTimeout(done, 5));
    connect();
    while (!Bokeh.documents[0].is_idle) await new Promise((done) => setTimeout(done, 10));
    for (const { element } of plots) unfocus(element);
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  }

  // --- theme

  function setTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    memory.set("colordist-theme", theme);
    if (plots[0]?.figure) paint();
  }

  const remembered = memory.get("colordist-theme");
  const themes = onChoice("theme", setTheme);
  if (remembered === "light" || remembered === "dark") {
    themes.querySelector(`[value="${remembered}"]`).checked = true;
    setTheme(remembered);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots[0]?.figure && paint());

  // --- samples

  const gallery = document.querySelector(".gallery");
  if (gallery) {
    const slider = document.getElementById("size");
    const columns = gallery.tHead.rows[0].cells.length - 1;
    const resize = (size) => {
      gallery.style.setProperty("--tile", `${size}px`);
      gallery.classList.toggle("small", size < 72); // headings upright
    };
    const fitting = Math.floor((gallery.parentElement.clientWidth - 40) / columns) - 4;
    slider.value = String(Math.max(40, Math.min(Number(gallery.dataset.widest ?? 112), fitting)));
    resize(slider.valueAsNumber);
    slider.addEventListener("input", () => resize(slider.valueAsNumber));
    onChoice("sort", (key) => {
      const sign = key === "index" ? 1 : -1;
      const rows = [...gallery.tBodies[0].rows];
      gallery.tBodies[0].append(...rows.sort((one, other) => sign * (one.dataset[key] - other.dataset[key])));
    });
  }

  // --- commands

  for (const button of all(".copy"))
    button.addEventListener("click", async () => {
      const command = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(command);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });

  if (plots.length) begin();
  else document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
