"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // --- theme: the system's choice until the reader makes one ---------------------------------
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = { get: () => null, set: () => {} };
  try {
    localStorage.getItem("theme");
    kept.get = () => localStorage.getItem("theme");
    kept.set = (value) => localStorage.setItem("theme", value);
  } catch { /* a browser may refuse storage to files */ }
  const toggle = byId("theme");
  const setTheme = (name) => {
    root.dataset.theme = name;
    toggle.textContent = name === "dark" ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Switch to ${toggle.textContent.toLowerCase()} colours`);
    redraw();
  };
  const drawn = new Map();
  const redraw = () => drawn.forEach((spec, plot) => draw(plot, spec));

  // --- figures -------------------------------------------------------------------------------
  const DATA = new Set(["x", "y", "z", "text", "customdata", "name", "ticktext", "tickvals"]);
  const coloured = (value, style) => {
    if (typeof value === "string") {
      const named = /^(--[a-z0-9-]+)(?:\/([\d.]+))?$/.exec(value);
      if (!named) return value;
      const colour = style.getPropertyValue(named[1]).trim();
      return named[2] ? colour + Math.round(255 * named[2]).toString(16).padStart(2, "0") : colour;
    }
    if (Array.isArray(value)) return value.map((one) => coloured(one, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, one]) => [key, DATA.has(key) ? one : coloured(one, style)]),
    );
  };

  const withDefaults = (layout, style) => {
    const colour = (name) => style.getPropertyValue(name).trim();
    const family = getComputedStyle(document.body).fontFamily;
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--rule"), tickcolor: colour("--rule"),
      showline: true, zeroline: false, ticks: "outside", ticklen: 4, fixedrange: coarse,
      tickfont: { color: colour("--muted"), size: 12 },
      showspikes: false, spikethickness: 1, spikecolor: colour("--muted"), spikedash: "solid",
    };
    const full = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family, size: 13, color: colour("--ink") }, dragmode: coarse ? false : "zoom",
      hoverlabel: {
        bgcolor: colour("--surface"), bordercolor: colour("--rule"), align: "left",
        font: { family, size: 13, color: colour("--ink") }, namelength: -1,
      },
      ...layout,
    };
    for (const key of Object.keys(full)) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      full[key] = { ...axis, ...full[key] };
      const title = full[key].title;
      if (title) full[key].title = { font: { size: 12, color: colour("--muted") }, standoff: 8, ...title };
    }
    return full;
  };

  // Signs shrink with the cells they stand in, and go where they would be specks.
  const fit = (figure, [rows, columns]) => {
    const { margin: { l, r, t, b }, width, height } = figure.layout;
    const wide = (width - l - r) / columns;
    const cell = Math.min(wide, (height - t - b) / rows);
    for (const trace of figure.data) {
      if (trace.type === "heatmap") trace.xgap = wide > 4 ? 1 : 0;
      else {
        trace.marker.size = Math.min(10, 0.5 * cell);
        trace.visible = cell >= 6;
      }
    }
  };

  // A legend above bars: as many names in a line as have room, each as wide as the longest.
  const legendHeight = (width, names, longest) => {
    const across = Math.max(1, Math.floor((width - 26) / (42 + 6.6 * longest)));
    return 19 * Math.ceil(names / across);
  };

  const coarse = matchMedia("(pointer: coarse)").matches;
  const LINES = ["curves", "durability", "roc"];
  const hidden = new Set();
  const config = {
    displaylogo: false, responsive: false,
    modeBarButtons: [["toImage", "resetScale2d"]], displayModeBar: false,
    toImageButtonOptions: { format: "svg" },
  };
  function draw(plot, spec, width = plot.clientWidth, height = plot.clientHeight) {
    const style = getComputedStyle(root);
    const data = spec.data.map((trace) => coloured(trace, style));
    const layout = withDefaults(coloured(spec.layout, style), style);
    const figure = { data, layout: { ...layout, width, height } };
    if (spec.cells) fit(figure, spec.cells);
    if (layout.meta?.below) {
      figure.layout.height = layout.meta.below + legendHeight(width, data.length, layout.meta.longest);
      plot.style.height = `${figure.layout.height}px`;
    }
    if (LINES.includes(plot.id)) {
      for (const trace of data) trace.visible = !hidden.has(String(trace.meta));
    }
    drawn.set(plot, spec);
    return window.Plotly.react(plot, figure.data, figure.layout, config);
  }

  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  // --- paper: light colours, every figure, and as wide as the sheet ------------------------------
  const SHEET = 680;
  const LOWER = 0.72;
  const FULL = /^(phases|heat-|ranks-)/; // their height is their text's
  const GAP = 16;
  const printable = (plots, specs) => {
    let before = null;
    const width = (plot) => {
      if (plot.closest(".heats")) return (SHEET - 2 * GAP) / 3;
      return plot.closest(".beside, .trees, .pairs") ? (SHEET - GAP) / 2 : SHEET;
    };
    addEventListener("beforeprint", () => {
      before ??= root.dataset.theme;
      root.dataset.theme = "light";
      plots.forEach((plot) => {
        if (!plot.clientWidth) return;
        plot.dataset.height = plot.style.height;
        const lower = FULL.test(plot.id) ? 1 : LOWER;
        const height = Math.round(lower * parseFloat(plot.style.height));
        plot.style.height = `${height}px`;
        draw(plot, specs[plot.id], width(plot), height);
      });
    });
    addEventListener("afterprint", () => {
      plots.forEach((plot) => { plot.style.height = plot.dataset.height ?? plot.style.height; });
      setTheme(before);
      before = null;
    });
  };

  // --- the round of a tree ---------------------------------------------------------------------
  const choosable = (specs) => document.querySelectorAll("[data-tree]").forEach((slider) => {
    const plot = byId(slider.dataset.tree);
    const rounds = slider.dataset.rounds.split(" ");
    const last = specs[plot.id];
    slider.parentElement.hidden = false;
    slider.addEventListener("input", () => {
      const round = rounds[slider.value];
      const spec = specs[`${plot.id}@${round}`] ?? last;
      slider.nextElementSibling.textContent = `round ${round}`;
      plot.closest("figure").querySelector("figcaption").textContent = spec.note;
      plot.setAttribute("aria-label", spec.alt);
      specs[plot.id] = spec;
      if (drawn.has(plot)) draw(plot, spec);
    });
  });

  const start = async () => {
    const plots = document.querySelectorAll(".plot");
    if (!plots.length) return;
    const [code, json] = await Promise.all([unpack("plotly-gz"), unpack("figures-gz")]);
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    const specs = JSON.parse(json);
    choosable(specs);
    const resized = new ResizeObserver((changes) => {
      for (const { target } of changes) {
        const now = target.clientWidth;
        if (drawn.has(target) && now && now !== target.layout?.width) draw(target, drawn.get(target));
      }
    });
    const seen = new IntersectionObserver((changes) => {
      for (const { target, isIntersecting } of changes) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        draw(target, specs[target.id]);
        resized.observe(target);
      }
    }, { rootMargin: "800px 0px" });
    plots.forEach((plot) => seen.observe(plot));
    printable(plots, specs);
  };

  // --- which runs the curves show --------------------------------------------------------------
  const groups = [...document.querySelectorAll(".legend [data-group]")];
  const show = (button, on) => {
    button.setAttribute("aria-pressed", String(on));
    hidden[on ? "delete" : "add"](button.dataset.group);
  };
  const redrawCurves = () => LINES.map(byId).forEach((plot) => {
    if (drawn.has(plot)) draw(plot, drawn.get(plot));
  });
  groups.forEach((button) => button.addEventListener("click", () => {
    show(button, hidden.has(button.dataset.group));
    redrawCurves();
  }));
  document.querySelector(".legend [data-all]")?.addEventListener("click", () => {
    const on = hidden.size > 0;
    groups.forEach((button) => show(button, on));
    redrawCurves();
  });

  // --- sorting: numbers by value, absent ones last -----------------------------------------------
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", (event) => {
      const before = head.getAttribute("aria-sort");
      const first = event.currentTarget.dataset.first;
      const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const numeric = head.classList.contains("num");
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)));
      table.tBodies[0].append(...rows);
    }));
  });

  // --- filtering: all words must occur in a row; mta>90 and the like compare ---------------------
  const filter = byId("filter");
  if (filter) {
    const table = document.querySelector("table.results");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const compared = {
      "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
    };
    const column = (key) => [...table.tHead.rows[0].cells].findIndex((one) => one.dataset.key === key);
    const test = (word) => {
      const found = /^(mta|asr|tpr|fpr)(<=?|>=?)([\d.]+)%?$/.exec(word);
      if (!found) return (place) => texts[place].includes(word);
      const [, key, order, number] = found;
      const value = (place) => rows[place].cells[column(key)].dataset.value;
      // As they are shown: 100 * 0.07 is a bit more than 7.
      const shown = (place) => Math.round(1e8 * value(place)) / 1e6;
      return (place) => value(place) !== "" && compared[order](shown(place), Number(number));
    };
    const apply = () => {
      const tests = filter.value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
      const kept = new Set();
      rows.forEach((row, place) => tests.every((holds) => holds(place)) && kept.add(row.dataset.run));
      document.querySelectorAll("[data-run]").forEach((one) => {
        one.hidden = !kept.has(one.dataset.run);
      });
      byId("filtered").textContent = tests.length ? `${kept.size} of ${rows.length} runs` : "";
    };
    filter.addEventListener("input", apply);
    filter.parentElement.hidden = false;
    apply();
  }

  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    kept.set(name);
    setTheme(name);
  });
  system.addEventListener("change", () => kept.get() || setTheme(system.matches ? "dark" : "light"));
  setTheme(kept.get() || (system.matches ? "dark" : "light"));
  start().catch((error) => {
    console.error(error);
    const note = byId("trouble");
    note.textContent = "This browser could not unpack the figures; tables, images and configurations are complete. Any browser from 2023 on draws them.";
    note.hidden = false;
  });
})();
