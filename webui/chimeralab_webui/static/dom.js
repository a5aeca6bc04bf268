// Building DOM. Names of layers, runs and plugins are data: they become text nodes and attributes, never markup.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value == null) continue;
    if (typeof value === 'boolean' && key in node) node[key] = value; // false too: unsaid, spellcheck is true
    else if (value === false) continue;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'data') Object.assign(node.dataset, value);
    else if (key === 'color') node.style.setProperty('--c', safeColor(value));
    else if (key in node && typeof value !== 'string') node[key] = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

// A colour comes from a plugin; anything but a plain hex colour is drawn grey.
export function safeColor(color) {
  return /^#[0-9a-f]{3,8}$/i.test(color || '') ? color : '#8b8d98';
}

export function button(label, onclick, props = {}) {
  return el('button', { type: 'button', class: 'cl-button', onclick, ...props }, label);
}

const PATHS = {
  undo: 'M6 5 2.5 8.5 6 12M3 8.5h6.5a4 4 0 0 1 0 8H7',
  redo: 'm12 5 3.5 3.5L12 12m3-3.5H8.5a4 4 0 0 0 0 8H11',
  left: 'M11 4 6 9l5 5',
  right: 'm7 4 5 5-5 5',
  copy: 'M7 7h8v8H7zM4 11H3V3h8v1',
  trash: 'M3 5h12M7 5V3h4v2M5 5l.7 10h6.6L13 5M8 8v4M10 8v4',
  close: 'm5 5 8 8M13 5l-8 8',
  sun: 'M9 6a3 3 0 1 1 0 6 3 3 0 0 1 0-6M9 2v1.5M9 14.5V16M2 9h1.5M14.5 9H16M4 4l1 1M13 13l1 1M14 4l-1 1M5 13l-1 1',
};

export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  for (const [key, value] of Object.entries({ viewBox: '0 0 18 18', width: 18, height: 18, class: 'cl-icon', 'aria-hidden': 'true' })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

export function iconButton(name, title, onclick, props = {}) {
  return el('button', { type: 'button', class: 'cl-icon-button', title, 'aria-label': title, onclick, ...props }, icon(name));
}

export function select(options, value, onchange, props = {}) {
  const node = el('select', { class: 'cl-input', onchange: () => onchange(node.value), ...props });
  offer(node, options, value);
  return node;
}

// Fills a select anew only when its choices have changed, so that a list that is open on a live page stays open.
export function offer(node, options, value) {
  const said = JSON.stringify(options);
  const changed = node.dataset.offered !== said;
  if (changed) {
    node.dataset.offered = said;
    node.replaceChildren(...options.map((option) => {
      const { value: key, label } = typeof option === 'object' ? option : { value: option, label: option };
      return el('option', { value: String(key) }, String(label));
    }));
  }
  if (changed || document.activeElement !== node) node.value = value ?? '';
}

export function debounce(wait, run) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}

// The address holds what is selected, so that a page can be shared. Empty values leave it.
export function writeQuery(values) {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(values)) {
    if (value == null || value === '') url.searchParams.delete(key);
    else url.searchParams.set(key, value);
  }
  if (url.href !== location.href) history.replaceState(null, '', url);
}
