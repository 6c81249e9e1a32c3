// The page: a user, their history, the list made of it, and why. All that it shows comes from api/.

const $ = (id) => document.getElementById(id);
const state = {
  user: null, original: [], history: [], edited: false, list: [], request: 0,
  reasons: null, sources: [],
};
let explained = true;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(`api/${path}`, options).catch(() => {
    throw new Error("The server does not answer: is it still running?");
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

const query = (path, values) => `${path}?${new URLSearchParams(values)}`;

// Runs what may fail; the reason is shown and read out.
const attempt = (action) => async (...given) => {
  try {
    $("problem").textContent = "";
    await action(...given);
  } catch (error) {
    $("problem").textContent = error.message;
  }
};

const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const rounded = (x) => x.toFixed(2).replace("-", "−");
const name = (item) => `item ${item.id}`;

function described(item) {
  const label = make("span", { class: "label", title: item.label }, item.label);
  return make("div", { class: "described" }, make("b", {}, String(item.id)), label);
}

function button(text, item, action) {
  const label = `${text} ${name(item)}`;
  return make("button", { type: "button", "aria-label": label, onclick: action }, text);
}

// A text field with suggestions: arrows, Enter and Escape, as ARIA's combobox has it.
function combobox(input, suggest, choose) {
  const box = $(input.getAttribute("aria-controls"));
  let found = [], active = -1, latest = 0;

  function show(entries) {
    found = entries;
    box.replaceChildren(...found.map((entry, i) =>
      make("li", { id: `${box.id}-${i}`, role: "option", onclick: (e) => pick(e, i) },
        described(entry))));
    input.setAttribute("aria-expanded", found.length > 0);
    mark(-1);
  }
  function mark(i) {
    active = i;
    [...box.children].forEach((option, j) => option.setAttribute("aria-selected", i === j));
    if (i < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", box.children[i].id);
    box.children[i]?.scrollIntoView({ block: "nearest" });
  }
  function pick(event, i) {
    event.preventDefault();
    latest += 1;
    const entry = found[i];
    show([]);
    input.value = "";
    choose(entry);
  }
  const refresh = attempt(async () => {
    const mine = ++latest;
    const entries = await suggest(input.value);
    if (mine === latest) show(entries);
  });
  box.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays
  input.addEventListener("input", refresh);
  input.addEventListener("click", refresh);
  input.addEventListener("blur", () => { latest += 1; show([]); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (found.length === 0) refresh();
      else mark((Math.max(active, step < 0 ? 0 : -1) + step + found.length) % found.length);
    } else if (event.key === "Escape") {
      latest += 1;
      show([]);
    }
  });
  input.form.addEventListener("submit", attempt(async (event) => {
    event.preventDefault();
    const mine = ++latest;
    if (active >= 0) return pick(event, active);
    const entries = await suggest(input.value);
    if (mine !== latest) return;
    if (!entries.length) throw new Error(`Nothing is found for “${input.value}”.`);
    if (entries.length > 1 && String(entries[0].id) !== input.value.trim()) return show(entries);
    found = entries;
    pick(event, 0);
  }));
}

async function pickUser(user) {
  const mine = ++state.request;
  const history = await ask(query("history", { user }));
  if (mine !== state.request) return;
  Object.assign(state, { user, original: history, history, list: [], edited: false });
  document.querySelector("main").hidden = false;
  await refreshList(`User ${user}`);
}

async function edit(history, what) {
  const edited = history !== state.original;
  Object.assign(state, { history, edited });
  await refreshList(what);
}

const who = () =>
  state.edited ? { interactions: state.history.map((item) => item.id) } : { user: state.user };

async function refreshList(what) {
  const mine = ++state.request;
  const before = new Set(state.list.map((item) => item.id));
  showHistory();
  let list = [];
  if (state.history.length || !state.edited) {
    list = await ask("recommendations", { ...who(), k: Number($("k").value) });
    if (mine !== state.request) return;
  }
  const isNew = (item) => before.size > 0 && !before.has(item.id);
  state.list = list;
  $("list").replaceChildren(...list.map((item, i) => card(item, i + 1, isNew(item))));
  $("legend").replaceChildren();
  let of = "list as trained";
  if (state.edited) of = `list folded in from ${plural(state.history.length, "item")}`;
  if (state.edited && !state.history.length) of = "no list without an item: add one";
  const fresh = list.filter(isNew).length;
  if (before.size && list.length) of += `, ${fresh} new in it`;
  $("status").textContent = `${what}: ${of}.`;
  if (list.length && explained) await (state.reasons = showReasons(mine, list));
}

function showHistory() {
  $("history-title").textContent = `History of ${state.user} (${state.history.length})`;
  $("reset").hidden = !state.edited;
  $("history").replaceChildren(...state.history.map((item) =>
    make("li", { class: "row" }, described(item),
      button("Drop", item, attempt(() => drop(item))))));
}

async function drop(item) {
  const position = state.history.indexOf(item);
  const done = edit(state.history.filter((other) => other !== item), `Dropped ${name(item)}`);
  const buttons = $("history").querySelectorAll("button");
  (buttons[Math.min(position, buttons.length - 1)] ?? $("add")).focus();
  await done;
}

async function add(item) {
  if (state.history.some((other) => other.id === item.id)) {
    throw new Error(`The history holds ${name(item)} already.`);
  }
  await edit([{ id: item.id, label: item.label }, ...state.history], `Added ${name(item)}`);
}

function card(item, rank, isNew) {
  const details = make("div", { class: "details" });
  const title = make("div", { class: "row" },
    make("span", { class: "rank" }, String(rank)), described(item),
    ...(isNew ? [make("span", { class: "new" }, "new")] : []));
  const buttons = make("div", { class: "row buttons" });
  if (explained) buttons.append(disclosure("Why", item, details, why));
  buttons.append(disclosure("Similar", item, details, similar));
  buttons.append(button("Add", item, attempt(async () => {
    $("history-title").focus();
    await add(item);
  })));
  const because = make("p", { class: "because quiet" });
  return make("li", {}, title, make("div", { class: "bar" }), because, buttons, details);
}

// A button that shows or hides something below it.
function disclosure(text, item, details, content) {
  const panel = make("div", { hidden: "" });
  details.append(panel);
  const opener = button(text, item, attempt(async () => {
    const open = opener.getAttribute("aria-expanded") !== "true";
    if (open) panel.replaceChildren(...(await content(item)));
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", open);
  }));
  opener.setAttribute("aria-expanded", "false");
  return opener;
}

const valued = (title, items) => !items.length ? [] : [
  make("h3", {}, title),
  make("ul", {}, ...items.map((item) =>
    make("li", { class: "row" }, described(item), make("span", {}, rounded(item.value))))),
];

async function similar(item) {
  return valued("Similar items, by cosine", await ask(query("similar", { item: item.id, k: 5 })));
}

async function why(item) {
  await state.reasons;
  const parts = Object.entries(item.why.sources).map(([source, value]) =>
    make("li", { class: "row" }, swatch(source), make("span", { class: "described" }, source),
      make("span", {}, rounded(value))));
  return [
    make("h3", {}, `Score ${rounded(item.why.score)}, made of`), make("ul", {}, ...parts),
    ...valued("Their items that speak for it", item.why.past_items),
    ...valued("Similar items it gets from", item.why.similar_items),
  ];
}

const colour = (source) => `s${Math.max(0, state.sources.indexOf(source)) % 8}`;
const swatch = (source) => make("span", { class: `swatch ${colour(source)}` });

async function showReasons(mine, list) {
  const all = await ask("explanations", { ...who(), items: list.map((item) => item.id) });
  if (mine !== state.request) return;
  const names = new Set(all.flatMap((found) => Object.keys(found.sources)));
  state.sources = [...names];
  $("legend").replaceChildren(
    ...state.sources.map((source) => make("li", {}, swatch(source), source)),
    make("li", {}, make("span", { class: "swatch against" }), "against"));
  [...$("list").children].forEach((entry, i) => {
    list[i].why = all[i];
    const parts = Object.entries(all[i].sources);
    const whole = parts.reduce((sum, part) => sum + Math.abs(part[1]), 0) || 1;
    const text = parts.map(([source, value]) => `${source} ${rounded(value)}`).join(", ");
    entry.querySelector(".bar").replaceWith(
      make("div", { class: "bar", role: "img", "aria-label": text, title: text },
        ...parts.map(([source, value]) => {
          const part = make("span", { class: `${colour(source)}${value < 0 ? " against" : ""}` });
          part.style.flexGrow = Math.abs(value) / whole;
          return part;
        })));
    const past = all[i].past_items.filter((other) => other.value > 0).slice(0, 3);
    const short = (other) => (other.label && other.label.length <= 40 ? other.label : other.id);
    const because = past.map(short).join(", ");
    entry.querySelector(".because").textContent = because && `because of ${because}`;
  });
}

combobox($("user"), async (text) =>
  (await ask(query("users", { query: text }))).map((id) => ({ id, label: "" })),
attempt((entry) => pickUser(entry.id)));
combobox($("add"), (text) => ask(query("items", { query: text })), attempt(add));
$("random").addEventListener("click", attempt(async () => pickUser(await ask("random-user"))));
$("k").addEventListener("change", attempt(() => refreshList("Another length")));
$("reset").addEventListener("click", attempt(async () => {
  $("history-title").focus();
  await edit(state.original, "All edits undone");
}));
attempt(async () => {
  const about = await ask("about");
  explained = about.reasons;
  const counts = ["users", "items"].map((what) => `${about[what].toLocaleString("en")} ${what}`);
  $("about").textContent = `${about.model}, ${counts.join(", ")}`;
})();
