"use strict";
// What is read here was written by models and by anybody: it becomes text (textContent, values of controls), never markup.
(() => {
  const read = (id) => { const at = document.getElementById(id); return at ? JSON.parse(at.textContent) : null; };
  const make = (tag, props, ...children) => {
    const at = Object.assign(document.createElement(tag), props);
    at.append(...children);
    return at;
  };
  // Characters that nobody sees, or that turn a line's direction, are spelled out where they stand.
  const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;
  const said = (at, text) => {
    for (const part of text.split(new RegExp(`(${UNSEEN.source})`))) {
      if (UNSEEN.test(part)) {
        at.append(make("span", { className: "mark", textContent: "U+" + part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") }));
      } else if (part) at.append(part);
    }
    return at;
  };

  const texts = read("data-texts");
  const browse = texts ? browser(texts) : null;

  document.addEventListener("click", (event) => {
    const at = event.target.closest("[data-link]");
    if (at && browse) browse.lead(JSON.parse(at.dataset.link));
  });

  // Closed tables are printed, too.
  let closed = [];
  addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details:not([open])")]; closed.forEach((d) => { d.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));

  draw(read("data-plots"));

  async function draw(plots) {
    if (!plots) return;
    for (const at of document.querySelectorAll("[data-chart]")) {
      const { view } = await vegaEmbed(at, plots.specs[at.dataset.chart], {
        mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: plots.config,
        tooltip: { disableDefaultStyle: true },
      });
      view.addEventListener("click", (event, item) => {
        if (browse && item && item.datum && item.datum.link) browse.lead(item.datum.link);
      });
    }
    document.documentElement.dataset.plots = "drawn";
  }

  function browser(data) {
    const PAGE = 20, OWN = "own";
    const form = document.getElementById("filters"), list = document.getElementById("list");
    const count = document.getElementById("count"), pages = document.getElementById("pages");
    const field = (name) => form.elements.namedItem(name);
    const attributes = data.attributes.map(([, shown]) => shown), personas = data.personas, judges = data.judges;
    let found = data.texts, page = 0, opened = null;

    const options = (name, pairs) => field(name) && field(name).replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));
    options("set", [["", "all"], ...data.sets.map((name, i) => [String(i), name])]);
    options("persona", [["", "all"], ...personas.map(([, shown], i) => [String(i), shown])]);
    const weighted = new Set(data.texts.flatMap((t) => Object.keys(t.weights)));
    options("weight", [["", "any"], ...attributes.map((a, i) => [String(i), a]).filter(([i]) => weighted.has(i))]);
    const scored = new Set(data.texts.flatMap((t) => Object.keys(t.scores)));
    options("score", [[OWN, "the persona's own, mean"], ...attributes.map((a, i) => [String(i), a]).filter(([i]) => scored.has(i))]);
    const statuses = [...new Set(data.texts.flatMap((t) => t.judgments.map((j) => j[3])))].sort();
    options("status", [["", "any"], ...statuses.map((s) => ["s" + s, s]), ...(data.texts.some((t) => !t.judgments.length) ? [["none", "not judged"]] : [])]);

    // An input that can't be read is no limit.
    const limit = (name, otherwise) => { const value = field(name).value.trim(); return value === "" || Number.isNaN(Number(value)) ? otherwise : Number(value); };
    const NEAR = 1e-6; // weights are rounded to as much

    function passes(t, f) {
      if (f.set !== "" && t.set !== Number(f.set)) return false;
      if (f.persona !== "" && t.persona !== Number(f.persona)) return false;
      if (f.weight !== "") {
        // The reference alone has no weights, which is another thing than a weight of 0 among others.
        if (!Object.keys(t.weights).length) return false;
        const w = t.weights[f.weight] ?? 0;
        if (w < f.weightLow - NEAR || w > f.weightHigh + NEAR) return false;
      }
      if (f.score !== OWN || f.scoreLow > 0 || f.scoreHigh < 1) {
        const s = f.score === OWN ? t.score : t.scores[f.score] ?? null;
        if (s === null ? f.scoreLow > 0 || f.scoreHigh < 1 : s < f.scoreLow - NEAR || s > f.scoreHigh + NEAR) return false;
      }
      if (f.status === "none" ? t.judgments.length : f.status && !t.judgments.some((j) => "s" + j[3] === f.status)) return false;
      return !f.words || t.text.toLowerCase().includes(f.words) || data.prompts[t.prompt].toLowerCase().includes(f.words);
    }

    function filter() {
      const f = {
        set: field("set") ? field("set").value : "", persona: field("persona").value, weight: field("weight").value,
        weightLow: limit("weight-low", -Infinity), weightHigh: limit("weight-high", Infinity), score: field("score").value,
        scoreLow: limit("score-low", 0), scoreHigh: limit("score-high", 1), status: field("status").value,
        words: field("words").value.trim().toLowerCase(),
      };
      for (const name of ["weight-low", "weight-high"]) field(name).disabled = f.weight === "";
      found = data.texts.filter((t) => passes(t, f));
      page = 0;
      opened = null;
      show();
    }

    function show() {
      const first = page * PAGE, some = found.slice(first, first + PAGE), n = data.texts.length;
      count.textContent = found.length ? `${first + 1} to ${first + some.length} of ${found.length} text${found.length === 1 ? "" : "s"}` + (found.length < n ? ` (of ${n} in this report)` : "") : `No text of the ${n} in this report is like that.`;
      list.replaceChildren(...some.map(article));
      pages.hidden = found.length <= PAGE;
      document.getElementById("page").textContent = `page ${page + 1} of ${Math.max(1, Math.ceil(found.length / PAGE))}`;
      document.getElementById("back").disabled = page === 0;
      document.getElementById("on").disabled = first + PAGE >= found.length;
    }

    function article(t) {
      const id = "text-" + t.id, isOpen = opened && opened.id === t.id;
      const at = make("article", { id });
      at.setAttribute("aria-label", `Text for ${personas[t.persona][1]}`);
      const weights = Object.entries(t.weights).map(([a, w]) => `${attributes[a]} ${w.toFixed(2)}`).join(", ");
      at.append(make("h3", {}, make("bdi", { textContent: personas[t.persona][1] })));
      at.append(make("span", { className: "of", textContent: [weights || "the reference alone", data.sets.length > 1 ? data.sets[t.set] : "", t.split !== "train" ? t.split : ""].filter(Boolean).join(" · ") }));
      at.append(said(make("p", { className: "asked" }), data.prompts[t.prompt]));
      if (!isOpen) at.append(said(make("p", { className: "text short" }), t.text.slice(0, 600)));
      const scores = make("ul", { className: "scores" });
      for (const [a, s] of Object.entries(t.scores)) scores.append(make("li", {}, opener(t, a, `${attributes[a]} ${s === null ? "unscored" : s.toFixed(2)}`, a in t.weights)));
      if (!Object.keys(t.scores).length) scores.append(make("li", {}, opener(t, "", t.judgments.length ? "open" : "not judged", false)));
      at.append(scores);
      if (isOpen) at.append(detail(t, opened.attribute, id + "-open"));
      return at;
    }

    function opener(t, attribute, label, wanted) {
      const isOpen = Boolean(opened) && opened.id === t.id && opened.attribute === attribute;
      const at = make("button", { type: "button", textContent: label, className: wanted ? "wanted" : "" });
      at.setAttribute("aria-expanded", String(isOpen));
      if (isOpen) at.setAttribute("aria-controls", `text-${t.id}-open`);
      at.dataset.attribute = attribute;
      at.onclick = () => {
        opened = isOpen ? null : { id: t.id, attribute };
        const next = article(t);
        document.getElementById("text-" + t.id).replaceWith(next);
        [...next.querySelectorAll(".scores button")].find((b) => b.dataset.attribute === attribute)?.focus();
      };
      return at;
    }

    function detail(t, attribute, id) {
      const at = make("div", { className: "open", id });
      const whole = make("p", { className: "text" });
      if (t.colours) at.append(colours(t, attribute, whole));
      else said(whole, t.text);
      at.append(whole);
      if (t.cut) at.append(make("p", { className: "note", textContent: `The text goes on for ${t.cut} characters.` }));
      const mine = t.judgments.slice().sort((x, y) => (String(y[0]) === attribute) - (String(x[0]) === attribute));
      if (mine.length) {
        const body = make("tbody");
        for (const [a, judge, score, status, reason] of mine) {
          const cells = [make("td", { textContent: judges[judge][1] }), make("td", { className: "n", textContent: score === null ? "-" : score.toFixed(2) }), make("td", { textContent: status }), said(make("td", { className: "said" }), reason ?? "")];
          body.append(make("tr", {}, make("th", { scope: "row", textContent: attributes[a] }), ...cells));
        }
        const titles = ["attribute", "judge", "score", "status", "reason"].map((title) => make("th", { scope: "col", className: title === "score" ? "n" : "", textContent: title }));
        const box = make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("caption", { className: "quiet", textContent: "Judgments of this text" }), make("thead", {}, make("tr", {}, ...titles)), body));
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", "Judgments of this text");
        at.append(box);
      }
      const ratios = Object.entries(t.ratios).map(([a, r]) => `${attributes[a]} ${r.toFixed(2)}`).join(", ");
      const facts = [["tokens", t.tokens], ["ended by", t.finish], ["log-ratios, nats", ratios], ["row", t.id]].filter(([, value]) => value !== null && value !== "");
      at.append(make("dl", { className: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })))));
      return at;
    }

    // A token's log-ratio: blue and underlined where the attribute's model makes it likelier, orange and dotted where less.
    const MOST = 2;
    function colours(t, attribute, whole) {
      const names = Object.keys(t.colours), chosen = names.includes(attribute) ? attribute : names[0];
      const at = make("fieldset", { className: "colour" }, make("legend", { className: "quiet", textContent: "Colour of the tokens" }));
      const paint = (a) => {
        whole.replaceChildren(...t.pieces.map((piece, i) => {
          const r = t.colours[a]?.[i] ?? null, span = said(make("span", {}), piece);
          if (r === null || r === 0) return span;
          span.className = "t " + (r > 0 ? "up" : "down");
          span.title = `${r > 0 ? "+" : ""}${r.toFixed(2)} nats`;
          span.style.setProperty("--a", String(Math.round(Math.min(1, Math.abs(r) / MOST) * 48)));
          return span;
        }));
      };
      for (const a of names) {
        const radio = make("input", { type: "radio", name: "colour-" + t.id, value: a, checked: a === chosen, onchange: () => paint(a) });
        at.append(make("label", {}, radio, attributes[a]));
      }
      at.append(make("span", { className: "key" }, "each token: ", Object.assign(make("span", { className: "t up", textContent: "likelier" }), { style: "--a:40" }), " or ", Object.assign(make("span", { className: "t down", textContent: "less likely" }), { style: "--a:40" }), ` under the attribute's model; full at ${MOST} nats`));
      paint(chosen);
      return at;
    }

    const turn = (by) => { page += by; opened = null; show(); count.focus({ preventScroll: true }); document.getElementById("count").scrollIntoView(); };
    document.getElementById("back").onclick = () => turn(-1);
    document.getElementById("on").onclick = () => turn(1);
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    filter();

    const at = location.hash.startsWith("#text-") ? data.texts.findIndex((t) => "#text-" + t.id === location.hash) : -1;
    if (at >= 0) {
      page = Math.floor(at / PAGE);
      opened = { id: data.texts[at].id, attribute: Object.keys(data.texts[at].scores)[0] ?? "" };
      show();
      document.getElementById("text-" + data.texts[at].id).scrollIntoView();
    }

    // Filters as links of the tables and plots name them.
    function lead(link) {
      form.reset();
      const put = (name, value) => { if (field(name) && value !== undefined && value !== null) field(name).value = String(value); };
      const place = (names, name) => { const i = names.findIndex(([raw]) => raw === name); return i < 0 ? undefined : i; };
      put("set", link.set);
      if (link.persona !== undefined) put("persona", place(personas, link.persona) ?? "");
      if (link.attribute !== undefined) {
        put("weight", place(data.attributes, link.attribute) ?? "");
        put("weight-low", link.low);
        put("weight-high", link.high);
      }
      filter();
      const gone = link.persona !== undefined && place(personas, link.persona) === undefined;
      if (gone) { found = []; show(); }
      count.scrollIntoView();
      count.focus({ preventScroll: true });
    }
    return { lead };
  }
})();
