"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Colours: as the system, light, dark. A page of the file system may not be allowed to remember.
  const remembered = {
    get() { try { return localStorage.getItem("theme"); } catch { return null; } },
    set(value) { try { if (value) localStorage.setItem("theme", value); else localStorage.removeItem("theme"); } catch { /* not kept */ } },
  };
  function colour(theme) {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    for (const button of document.querySelectorAll(".theme")) button.setAttribute("aria-label", `Colours: ${theme || "as the system"}`);
  }
  function themeSwitch() {
    const order = ["", "light", "dark"];
    let theme = order.includes(remembered.get()) ? remembered.get() : "";
    colour(theme);
    for (const button of document.querySelectorAll(".theme")) button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      remembered.set(theme);
      colour(theme);
    });
  }

  async function copied(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* asked the old way */ }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
  function copyButtons() {
    document.addEventListener("click", async (event) => {
      const button = event.target.closest(".copy");
      if (!button) return;
      const done = await copied(button.parentElement.querySelector("code").textContent);
      button.textContent = done ? "Copied" : "Select it";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // One box says what is pointed at or focused: a word's meaning, a dot's setting.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  function show(anchor, ...content) {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const box = anchor.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left + box.width / 2 - own.width / 2, root.clientWidth - own.width - 8));
    const above = box.top - own.height - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 4 ? above : box.bottom + 8) + scrollY}px`;
  }
  const hide = () => { tip.hidden = true; };
  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function glossary() {
    document.body.append(tip);
    let places = 0;
    for (const word of document.querySelectorAll(".term")) {
      word.removeAttribute("title");
      const meaning = element("span", "", word.dataset.meaning);
      meaning.id = `meaning-${places += 1}`;
      meaning.hidden = true;
      document.body.append(meaning);
      word.setAttribute("aria-describedby", meaning.id);
      const tell = () => show(word, document.createTextNode(word.dataset.meaning));
      word.addEventListener("pointerenter", tell);
      word.addEventListener("focus", tell);
      word.addEventListener("click", tell);
      word.addEventListener("pointerleave", hide);
      word.addEventListener("blur", hide);
    }
    addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    addEventListener("scroll", hide, { passive: true });
  }

  function reveal(id) {
    const found = id && document.getElementById(id);
    if (!found) return null;
    for (let around = found; around; around = around.parentElement) if (around.matches("details")) around.open = true;
    return found;
  }
  function chooseSetting(id) {
    for (const one of document.querySelectorAll(".chosen")) one.classList.remove("chosen");
    const found = reveal(id);
    if (!found) return;
    found.classList.add("chosen");
    for (const dot of document.querySelectorAll(".dot")) dot.classList.toggle("chosen", dot.getAttribute("href") === `#${id}`);
  }
  function fragments() {
    const follow = () => chooseSetting(decodeURIComponent(location.hash.slice(1)));
    addEventListener("hashchange", follow);
    if (location.hash) { follow(); reveal(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView(); }
  }

  function factorText(value) { return `${Number(value).toPrecision(3).replace(/\.?0+$/, "")}×`; }
  function tellDot(dot) {
    const lines = [element("strong", "", factorText(dot.dataset.speed) + (dot.dataset.figure ? ` · ${dot.dataset.figure}` : ""))];
    lines.push(element("div", "", dot.dataset.label));
    const strip = document.getElementById(dot.getAttribute("href").slice(1))?.querySelector("summary .strip");
    if (strip) lines.push(strip.cloneNode(true));
    show(dot.querySelector(".hit"), ...lines);
  }
  function chart(figure) {
    const dots = [...figure.querySelectorAll(".dot")];
    dots.forEach((dot, place) => {
      dot.tabIndex = place ? -1 : 0;
      dot.addEventListener("pointerenter", () => tellDot(dot));
      dot.addEventListener("focus", () => tellDot(dot));
      dot.addEventListener("pointerleave", hide);
      dot.addEventListener("blur", hide);
      dot.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: 0, End: 0 }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        const kept = dots.filter((one) => !one.hasAttribute("hidden")), here = kept.indexOf(dot);
        const to = event.key === "Home" ? 0 : event.key === "End" ? kept.length - 1 : here + step;
        const next = kept[Math.max(0, Math.min(kept.length - 1, to))];
        dot.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      });
    });
    const slider = figure.querySelector(".slider"), runs = figure.querySelector(".runs select");
    const shown = () => dots.filter((dot) => !runs || !runs.value || dot.dataset.run === runs.value);
    const drawn = slider ? sliderOf(figure, slider) : () => {};
    drawn(shown());
    if (runs) runs.addEventListener("change", () => {
      const kept = shown();
      for (const dot of dots) dot.toggleAttribute("hidden", !kept.includes(dot));
      dots.forEach((dot) => { dot.tabIndex = dot === kept[0] ? 0 : -1; });
      if (figure.dataset.more !== undefined) frontier(figure, kept);
      drawn(kept);
    });
  }
  // The line through the dots that no other shown one beats.
  function frontier(figure, dots) {
    const more = figure.dataset.more === "1", lines = figure.querySelector(".frontier");
    const sorted = [...dots].sort((a, b) => b.dataset.speed - a.dataset.speed || (more ? -1 : 1) * (a.dataset.quality - b.dataset.quality));
    const best = [];
    for (const dot of sorted) {
      const quality = Number(dot.dataset.quality), last = best.length ? Number(best.at(-1).dataset.quality) : null;
      if (last === null || (more ? quality > last : quality < last)) best.push(dot);
    }
    for (const dot of figure.querySelectorAll(".dot")) dot.classList.toggle("best", best.includes(dot));
    const at = best.reverse().map((dot) => { const place = dot.querySelector("svg"); return [place.getAttribute("x"), place.getAttribute("y")]; });
    const line = (x1, y1, x2, y2) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", "line");
      for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) made.setAttribute(name, value);
      return made;
    };
    lines.replaceChildren(...at.slice(1).flatMap(([x, y], i) => [line(at[i][0], at[i][1], at[i][0], y), line(at[i][0], y, x, y)]));
  }
  function sliderOf(figure, slider) {
    const more = figure.dataset.more === "1", input = slider.querySelector("input");
    const better = (a, b) => (more ? a > b : a < b);
    let dots = [], stops = [];
    const good = (dot, limit) => !better(limit, Number(dot.dataset.quality));
    const tell = () => {
      const [limit, figureText] = stops[Number(input.value)];
      let best = null;
      for (const dot of dots) {
        dot.classList.toggle("beyond", !good(dot, limit));
        const faster = !best || Number(dot.dataset.speed) > Number(best.dataset.speed);
        const asFast = best && dot.dataset.speed === best.dataset.speed && better(Number(dot.dataset.quality), Number(best.dataset.quality));
        if (good(dot, limit) && (faster || asFast)) best = dot;
      }
      slider.querySelector(".limit").textContent = figureText;
      const link = element("a", "", `${factorText(best.dataset.speed)}: ${best.dataset.label}`);
      link.href = best.getAttribute("href");
      slider.querySelector(".found").replaceChildren(link, document.createTextNode(` (${best.dataset.figure})`));
      input.setAttribute("aria-valuetext", `${figureText}: ${factorText(best.dataset.speed)}`);
    };
    input.addEventListener("input", tell);
    return (shown) => {
      dots = shown;
      stops = [...new Map(dots.map((dot) => [Number(dot.dataset.quality), dot.dataset.figure]))];
      stops.sort((a, b) => (better(a[0], b[0]) ? -1 : 1));
      input.max = String(stops.length - 1);
      input.value = String(Math.floor((stops.length - 1) / 2));
      tell();
    };
  }
  function metrics() {
    for (const group of document.querySelectorAll(".metrics")) {
      const buttons = [...group.querySelectorAll("button")], figures = [...document.querySelectorAll("[data-panel]")];
      const choose = (name) => {
        for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === name));
        for (const figure of figures) figure.hidden = figure.dataset.panel !== name;
      };
      for (const button of buttons) button.addEventListener("click", () => choose(button.value));
      choose(buttons[0].value);
    }
  }

  // The table of all models and records: what the page holds is drawn anew from the data of records.js.
  const CHUNK = 100;
  function table() {
    const place = document.querySelector("table.all"), data = window.easyteacacheCatalogue;
    if (!place || !data) return;
    const body = place.tBodies[0], query = document.querySelector("#search"), more = document.querySelector(".more");
    const filters = [...document.querySelectorAll("select[data-filter]")], kinds = [...document.querySelectorAll(".switch button")];
    const state = { kind: "models", sort: "evidence", down: true, shown: CHUNK };
    const sets = {};
    for (const kind of ["models", "records"]) sets[kind] = data[kind].map((row) => Object.assign(
      { said: [row.title, row.key, row.method, row.evidence, row.names, row.engines.map((i) => data.engines[i]).join(" ")].join(" ").toLowerCase() }, row));
    const collator = new Intl.Collator("en", { numeric: true });
    for (const kind of Object.keys(sets)) sets[kind].sort((a, b) => collator.compare(a.title, b.title)).forEach((row, place) => { row.place = place; });
    const rank = { verified: 4, submitted: 3, reported: 2, published: 1, unstated: 0 };
    const value = { title: (r) => r.place, method: (r) => r.method, evidence: (r) => rank[r.evidence], speedup: (r) => r.speedup ?? -1,
      settings: (r) => r.settings, engines: (r) => r.engines.length };
    const chosen = (name) => filters.find((one) => one.dataset.filter === name).value;
    function matching() {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      const method = chosen("method"), engine = chosen("engine"), evidence = chosen("evidence");
      const rows = sets[state.kind].filter((row) => words.every((word) => row.said.includes(word))
        && (!method || row.method.split(", ").includes(method)) && (!evidence || row.evidence === evidence)
        && (!engine || row.engines.includes(Number(engine))));
      const by = value[state.sort], way = state.down ? -1 : 1;
      rows.sort((a, b) => {
        const x = by(a), y = by(b);
        return (x < y ? -way : x > y ? way : a.place - b.place);
      });
      return rows;
    }
    function cell(name, className, ...content) {
      const made = element("td", className);
      made.dataset.name = name;
      made.append(...content);
      return made;
    }
    function line(row) {
      const made = document.createElement("tr"), head = document.createElement("th"), link = document.createElement("a");
      head.scope = "row";
      link.href = row.page;
      link.append(element("bdi", "text", row.title));
      head.append(link, element("span", "key", row.key));
      const mark = document.querySelector(`template[data-tier="${row.evidence}"]`).content.cloneNode(true);
      const engines = row.engines.map((i) => data.engines[i]).join(" · ");
      made.append(head, cell("Method", "", row.method), cell("Evidence", "", mark), cell("Speed-up", row.speedup ? "num" : "num none", row.speedup ? factorText(row.speedup) : "–"),
        cell("Settings", "num", String(row.settings)), cell("Exports to", engines ? "" : "none", engines || "–"));
      return made;
    }
    function draw() {
      const rows = matching();
      body.replaceChildren(...rows.slice(0, state.shown).map(line));
      more.hidden = rows.length <= state.shown;
      document.querySelector("#count").textContent = `${rows.length.toLocaleString("en")} of ${sets[state.kind].length.toLocaleString("en")} ${state.kind}`;
      for (const head of place.querySelectorAll("thead th")) {
        const button = head.querySelector("button");
        if (button && button.value === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      for (const button of kinds) button.setAttribute("aria-pressed", String(button.value === state.kind));
    }
    const again = () => { state.shown = CHUNK; draw(); };
    query.addEventListener("input", again);
    for (const filter of filters) filter.addEventListener("change", again);
    for (const button of kinds) button.addEventListener("click", () => { state.kind = button.value; again(); });
    for (const button of place.querySelectorAll("thead button")) button.addEventListener("click", () => {
      state.down = state.sort === button.value ? !state.down : !["title", "method"].includes(button.value);
      state.sort = button.value;
      again();
    });
    more.addEventListener("click", () => { const first = state.shown; state.shown += 2 * CHUNK; draw(); body.rows[first]?.querySelector("a").focus(); });
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => {
    themeSwitch();
    copyButtons();
    glossary();
    metrics();
    document.querySelectorAll(".chart").forEach(chart);
    fragments();
    table();
  });
})();
