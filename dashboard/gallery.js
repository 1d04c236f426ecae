// The gallery in the page: a listbox of pictures, called by their seeds or by names of their own. Python sends the pictures once (`data`, the same
// bytes until something changes, recognised by `stamp`); a click marks a picture here and is reported as `pick`.

const VIEWS = [["pair", "Side by side"], ["before", "Before"], ["after", "After"], ["difference", "Difference"]];
const galleries = new WeakMap();
const picks = (globalThis.palimpsestPicks ??= new Map()); // outlives a gallery that is taken off the page and put back

export default function ({ data, parentElement, setStateValue }) {
  const gallery = galleries.get(parentElement) ?? { view: data.view };
  galleries.set(parentElement, gallery);
  gallery.report = setStateValue;
  if (gallery.stamp !== data.stamp) draw(gallery, data, parentElement);
}

function draw(gallery, data, parent) {
  gallery.stamp = data.stamp;
  const grid = make("div", "grid", { role: "listbox", "aria-label": "pictures" });
  grid.style.setProperty("--side", `${data.side}px`);
  grid.style.setProperty("--columns", data.columns ?? 999);
  grid.classList.toggle("pixelated", data.pixelated);
  grid.append(...data.pictures.map(option));
  const paired = data.pictures.some((picture) => picture.after);
  parent.querySelector(".gallery").replaceChildren(...(paired ? [views(gallery, grid)] : []), grid);
  if (paired) show(gallery, grid, gallery.view);
  mark(grid, picks.get(data.stamp) ?? data.selected);
  listen(grid, (seed) => {
    picks.set(data.stamp, seed);
    mark(grid, seed);
    gallery.report("pick", { stamp: data.stamp, at: Date.now(), selected: seed });
  });
}

function option({ seed, name, before, after, note }) {
  const called = name ?? `seed ${seed}`;
  const cell = make("div", "cell", { role: "option", tabindex: "-1", "aria-label": note ? `${called}, ${note}` : called });
  cell.picture = seed;
  const pictures = make("div", "pictures", {});
  const stack = make("div", "stack", {});
  stack.append(picture(before, after ? `${called} before` : called, "before"));
  if (after) stack.append(picture(after, `${called} after`, "after"));
  pictures.append(stack);
  const label = make("div", "label", {});
  label.append(text("span", "seed", name ?? seed), ...(note ? [text("span", "note", note)] : []));
  if (name) label.title = name;
  cell.append(pictures, label);
  return cell;
}

function picture(src, alt, part) {
  return make("img", part, { src, alt, loading: "lazy", decoding: "async", draggable: "false" });
}

function views(gallery, grid) {
  const bar = make("div", "views", { role: "group", "aria-label": "view" });
  for (const [view, label] of VIEWS) {
    const button = text("button", "view", label);
    button.type = "button";
    button.dataset.view = view;
    if (view === "difference") button.title = "|after − before| in each channel, twice as bright";
    button.onclick = () => show(gallery, grid, view);
    bar.append(button);
  }
  bar.append(text("span", "hint", "press a picture to flip it"));
  return bar;
}

function show(gallery, grid, view) {
  gallery.view = grid.dataset.view = view;
  for (const button of grid.parentElement.querySelectorAll(".view")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
}

function mark(grid, seed) {
  const cells = [...grid.children];
  const chosen = cells.find((cell) => cell.picture === seed);
  for (const cell of cells) {
    cell.setAttribute("aria-selected", String(cell === chosen));
    cell.tabIndex = cell === (chosen ?? cells[0]) ? 0 : -1;
  }
}

function listen(grid, select) {
  const cellOf = (event) => event.target.closest(".cell");
  const unflip = () => grid.querySelector(".flipped")?.classList.remove("flipped");
  grid.onclick = (event) => cellOf(event) && select(cellOf(event).picture);
  grid.onpointerdown = (event) => event.button === 0 && cellOf(event)?.classList.add("flipped");
  grid.onpointerup = grid.onpointerleave = grid.onpointercancel = unflip;
  grid.onkeydown = (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") select(cell.picture);
    else if (!move(grid, cell, event.key)) return;
    event.preventDefault();
  };
}

function move(grid, cell, key) {
  const cells = [...grid.children];
  const row = cells.filter((other) => other.offsetTop === cells[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -cells.length, End: cells.length }[key];
  if (!step) return false;
  const ends = key === "Home" || key === "End";
  const at = cells.indexOf(cell) + step;
  const next = cells[ends ? Math.min(Math.max(at, 0), cells.length - 1) : at];
  if (next) {
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
  return true;
}

function make(tag, name, attributes) {
  const element = document.createElement(tag);
  element.className = name;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(tag, name, content) {
  const element = make(tag, name, {});
  element.textContent = content;
  return element;
}
