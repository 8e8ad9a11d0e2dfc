// The report's page: theme, printing, and the browser of single answers. It fetches nothing, and it writes
// what models said with textContent only: their output is not to be trusted.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);

  /** An element with properties and children; strings become text. */
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // --- theme: the system's, until the reader chooses another ---

  const theme = byId("theme");
  const root = document.documentElement;
  const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);
  const nameTheme = () => {
    theme.textContent = isDark() ? "Light colours" : "Dark colours";
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  systemIsDark.addEventListener("change", nameTheme);
  nameTheme();

  // --- printing: everything that is folded is shown ---

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });

  // --- contents: where the reader is ---

  const links = new Map([...document.querySelectorAll(".side a")].map((a) => [a.hash.slice(1), a]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const [id, link] of links) {
          const isHere = id === entry.target.id;
          link.classList.toggle("here", isHere);
          if (isHere) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    },
    { rootMargin: "-20% 0px -70% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

  // --- the answers ---

  const source = byId("data");
  if (!source) return;
  const PER_PAGE = 50;
  const NOT_COUNTED = new Set(["ENGINE_ERROR", "CONSTRAINT_NOT_APPLIED"]);
  const LANGUAGES = JSON.parse(byId("answers").dataset.languages);
  const data = JSON.parse(source.textContent);
  const text = (at) => (typeof at === "number" ? data.texts[at] : at.map((n) => data.texts[n]).join("\n"));
  const inWords = (name) => name.toLowerCase().replaceAll("_", " ");
  const languageName = (code) => LANGUAGES[code] || code;

  const asked = data.asked.map((row, number) => ({
    number,
    dataset: text(row[0]),
    item: text(row[1]),
    language: text(row[2]),
    variant: text(row[3]),
    verified: row[4] === 1,
    prompt: text(row[5]),
    format: text(row[6]),
    messages: row[7],
    options: row[8],
    gold: row[9],
    reply: row[10],
    answers: [],
    searched: null,
  }));
  const answers = data.answers.map((row) => {
    const answer = {
      key: row[0],
      asked: asked[row[1]],
      model: text(row[2]),
      arm: text(row[3]),
      output: row[4],
      finish: row[5],
      outcome: text(row[6]),
      slot: row[7],
      correct: row[8] === 1,
      reason: row[9],
      scores: row[10],
      flip: text(row[11]),
    };
    answer.asked.answers.push(answer);
    return answer;
  });

  const verdict = (answer) =>
    NOT_COUNTED.has(answer.outcome) ? "not counted" : answer.correct ? "right" : "wrong";
  // Bullets are all the same: the place then says which option is meant.
  const label = (question, slot) => {
    const name = question.options[slot][0];
    const isOwn = question.options.every((option, other) => other === slot || option[0] !== name);
    return isOwn ? text(name) : `#${slot + 1}`;
  };
  const chosen = (answer) => (answer.slot === null ? "none" : label(answer.asked, answer.slot));

  const FILTERS = [
    ["language", "Language", (a) => a.asked.language, languageName],
    ["dataset", "Data set", (a) => a.asked.dataset],
    ["model", "Model", (a) => a.model],
    ["variant", "Variant", (a) => a.asked.variant],
    ["prompt", "Prompt", (a) => a.asked.prompt],
    ["format", "Format", (a) => a.asked.format],
    ["arm", "Arm", (a) => a.arm],
    ["outcome", "Outcome", (a) => a.outcome, inWords],
    ["right", "Right or wrong", verdict],
    ["flip", "Flip against the original", (a) => a.flip || "none"],
  ];
  const COLUMNS = [
    ["Question", (a) => a.asked.item],
    ["Language", (a) => languageName(a.asked.language), "language"],
    ["Data set", (a) => a.asked.dataset, "dataset"],
    ["Variant", (a) => a.asked.variant + (a.asked.verified ? "" : " (unverified)"), "variant"],
    ["Prompt", (a) => a.asked.prompt, "prompt"],
    ["Model", (a) => a.model, "model"],
    ["Format · arm", (a) => `${a.asked.format} · ${a.arm}`],
    ["Outcome", (a) => inWords(a.outcome)],
    ["Answer (gold)", (a) => `${chosen(a)} (${label(a.asked, a.asked.gold)})`],
    ["Result", verdict],
    ["Flip", (a) => a.flip],
  ];

  const selects = new Map();
  const search = byId("search");
  const rows = byId("rows");
  let found = answers;
  let page = 0;
  let open = null;

  for (const [name, title, valueOf, shown] of FILTERS) {
    const values = [...new Set(answers.map(valueOf))].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    if (values.length < 2) continue;
    const select = make("select", { name }, make("option", { value: "", textContent: "all" }));
    if (name === "flip") select.append(make("option", { value: "any", textContent: "any flip" }));
    for (const value of values) {
      const words = name === "flip" && value === "none" ? "no flip" : shown ? shown(value) : value;
      select.append(make("option", { value, textContent: words }));
    }
    selects.set(name, { select, valueOf });
    byId("selects").append(make("label", {}, title + " ", select));
  }
  const columns = COLUMNS.filter(([, , filter]) => !filter || selects.has(filter));
  byId("heads").append(...columns.map(([title]) => make("th", { scope: "col", textContent: title })));

  const fold = (value) => value.normalize("NFC").toLocaleLowerCase("es");
  const searchedOf = (question) => {
    if (question.searched === null) {
      const parts = [question.item, ...question.messages.map(([, content]) => text(content))];
      question.searched = fold([...parts, ...question.options.map(([, words]) => text(words))].join("\n"));
    }
    return question.searched;
  };

  const matches = () => {
    const tests = [];
    for (const [name, { select, valueOf }] of selects) {
      const wanted = select.value;
      if (wanted === "") continue;
      tests.push(name === "flip" && wanted === "any" ? (a) => a.flip !== "" : (a) => valueOf(a) === wanted);
    }
    const words = fold(search.value.trim());
    if (words) {
      const hits = new Map();
      tests.push((a) => {
        if (!hits.has(a.asked)) hits.set(a.asked, searchedOf(a.asked).includes(words));
        return hits.get(a.asked) || fold(text(a.output)).includes(words);
      });
    }
    return tests.length ? answers.filter((a) => tests.every((test) => test(a))) : answers;
  };

  const rowOf = (answer) => {
    const cells = columns.map(([, shown], index) => {
      if (index > 0) return make("td", { textContent: shown(answer) });
      const button = make("button", { type: "button", textContent: shown(answer) });
      button.setAttribute("aria-haspopup", "dialog");
      return make("th", { scope: "row" }, button);
    });
    const row = make("tr", {}, ...cells);
    row.dataset.key = answer.key;
    row.addEventListener("click", () => show(answer));
    return row;
  };

  const render = () => {
    const last = Math.max(0, Math.ceil(found.length / PER_PAGE) - 1);
    page = Math.min(Math.max(0, page), last);
    const start = page * PER_PAGE;
    rows.replaceChildren(...found.slice(start, start + PER_PAGE).map(rowOf));
    const total = `${answers.length.toLocaleString("en")} ${answers.length === 1 ? "answer" : "answers"}`;
    byId("count").textContent =
      found.length === answers.length ? total : `${found.length.toLocaleString("en")} of ${total}`;
    byId("page").textContent = `Page ${page + 1} of ${last + 1}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === last;
  };

  // --- what is filtered and open stands behind the # of the address ---

  const HASH = "#answers?";
  const remember = () => {
    const state = new URLSearchParams();
    for (const [name, { select }] of selects) if (select.value) state.set(name, select.value);
    if (search.value.trim()) state.set("q", search.value.trim());
    if (page) state.set("page", page + 1);
    if (open) state.set("open", open.key);
    const query = state.toString();
    if (query) history.replaceState(null, "", HASH + query);
    else if (location.hash.startsWith(HASH)) history.replaceState(null, "", "#answers");
  };
  const recall = () => {
    if (!location.hash.startsWith(HASH)) return;
    const state = new URLSearchParams(location.hash.slice(HASH.length));
    for (const [name, { select }] of selects) {
      const value = state.get(name) || "";
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    search.value = state.get("q") || "";
    found = matches();
    page = (Number.parseInt(state.get("page"), 10) || 1) - 1;
    render();
    const answer = state.get("open") && answers.find((a) => a.key === state.get("open"));
    if (answer) show(answer);
    else byId("answers").scrollIntoView();
  };

  const filter = () => {
    found = matches();
    page = 0;
    render();
    remember();
  };
  const turn = (step) => {
    page += step;
    render();
    remember();
  };

  // --- one question, with all its answers side by side ---

  const dialog = byId("question");

  const messagesOf = (question) =>
    question.messages.flatMap(([role, content]) => [
      make("p", { className: "role", textContent: text(role) }),
      make("pre", { textContent: text(content) }),
    ]);

  const optionsOf = (question) => {
    const list = make("ul", { className: "options" });
    question.options.forEach(([name, words], slot) => {
      const item = make(
        "li",
        {},
        make("span", { className: "label", textContent: text(name) }),
        make("span", { textContent: ` ${text(words)}` }),
      );
      if (slot === question.gold) {
        item.className = "gold";
        item.append(make("span", { className: "is-gold", textContent: "✓ right option" }));
      }
      list.append(item);
    });
    return list;
  };

  const copy = async (command, button) => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      // Some browsers give no clipboard to a page from a file: the command is then selected.
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Selected";
    }
  };

  const cardOf = (answer, isChosen) => {
    const question = answer.asked;
    const signs = { right: "✓ Right", wrong: "✗ Wrong", "not counted": "– Not counted" };
    const named = answer.slot === null ? "none" : `${chosen(answer)} – ${text(question.options[answer.slot][1])}`;
    const card = make(
      "article",
      { className: isChosen ? "card chosen" : "card" },
      make("h4", { textContent: `${answer.model} · ${answer.arm}` }),
      make("p", { className: "verdict", textContent: signs[verdict(answer)] }),
      make("p", { textContent: `Answer: ${named}` }),
    );
    if (answer.scores.length) {
      const scores = answer.scores.map(([name, score]) => `${text(name)}  ${score === null ? "–" : score.toFixed(3)}`);
      card.append(
        make("p", { className: "role", textContent: "log-probability of each" }),
        make("pre", { textContent: scores.join("\n") }),
      );
    } else {
      card.append(
        make("p", { className: "role", textContent: "output as it came" }),
        make("pre", { textContent: text(answer.output) || "(nothing)" }),
      );
    }
    card.append(make("p", { className: "why", textContent: `${inWords(answer.outcome)}: ${text(answer.reason)}` }));
    card.append(make("p", { className: "why", textContent: `finish: ${text(answer.finish)}` }));
    if (answer.flip) card.append(make("p", { textContent: `Flip against the original: ${answer.flip}` }));
    const command = `medlocal show ${answer.key}`;
    const button = make("button", { type: "button", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy the command ${command}`);
    button.addEventListener("click", () => copy(command, button));
    card.append(make("div", { className: "command" }, make("code", { textContent: command }), button));
    return card;
  };

  /** The same item, prompt and format in its other variants. */
  const variantsOf = (question) => {
    const names = ["dataset", "item", "language", "prompt", "format"];
    const others = asked.filter((other) => names.every((name) => other[name] === question[name]));
    const select = make("select", { id: "other-variants" });
    for (const other of others) {
      const words = other.variant + (other.verified ? "" : " (unverified)");
      select.append(make("option", { value: other.number, textContent: words, selected: other === question }));
    }
    select.addEventListener("change", () => {
      const other = asked[Number(select.value)];
      show(other.answers.find((a) => a.model === open.model && a.arm === open.arm) || other.answers[0]);
      byId("other-variants").focus();
    });
    return make("label", {}, "Variant ", select);
  };

  /** Button to the question before or after this one among those found. */
  const stepTo = (answer, step, words) => {
    const at = found.indexOf(answer);
    let next = at;
    while (found[next] && found[next].asked === answer.asked) next += step;
    const button = make("button", { type: "button", textContent: words, disabled: at < 0 || !found[next] });
    button.addEventListener("click", () => {
      show(found[next]);
      const again = dialog.querySelector(`[data-step="${step}"]`);
      (again.disabled ? dialog.querySelector(".close") : again).focus();
    });
    button.dataset.step = step;
    return button;
  };

  function show(answer) {
    open = answer;
    const question = answer.asked;
    const close = make("button", { type: "button", className: "close", textContent: "Close" });
    close.addEventListener("click", () => dialog.close());
    const where = [languageName(question.language), question.variant, question.prompt, question.format];
    const title = make("h2", { id: "question-title", tabIndex: -1 }, `${question.dataset} · ${question.item}`);
    title.append(make("span", { textContent: where.join(" · ") }));
    const ordered = [...question.answers].sort((a, b) => (a.model + a.arm < b.model + b.arm ? -1 : 1));
    const right = make("div", {}, make("h3", { textContent: "Options" }), optionsOf(question));
    if (!question.verified) {
      right.append(make("p", { className: "note", textContent: "Unverified: nobody checked that the right option is still right." }));
    }
    right.append(make("p", { className: "note", textContent: `To be right, write: ${text(question.reply)}` }));
    dialog.replaceChildren(
      make("div", { className: "dialog-head" }, title,
        make("div", {}, variantsOf(question), stepTo(answer, -1, "Previous"), stepTo(answer, 1, "Next"), close)),
      make("div", { className: "dialog-body" },
        make("div", { className: "asked" },
          make("div", {}, make("h3", { textContent: "Prompt" }), ...messagesOf(question)), right),
        make("h3", { textContent: `Answers (${ordered.length})` }),
        make("div", { className: "cards" }, ...ordered.map((a) => cardOf(a, a === answer)))),
    );
    if (!dialog.open) {
      dialog.showModal();
      title.focus();
    }
    dialog.scrollTop = 0;
    remember();
  }
  dialog.addEventListener("close", () => {
    const key = open && open.key;
    open = null;
    remember();
    const row = [...rows.children].find((candidate) => candidate.dataset.key === key);
    if (row) row.querySelector("button").focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  for (const { select } of selects.values()) select.addEventListener("change", filter);
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(filter));
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", recall);

  byId("browser").hidden = false;
  render();
  recall();
  performance.mark("answers-shown");
})();
