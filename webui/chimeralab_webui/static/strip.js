// The drawn stack: one tile a layer, in reading order. Mouse, keyboard and drag become calls on `on`.

import { el } from './dom.js';
import { marksOf, tile } from './tile.js';

const COMPACT_FROM = 40; // layers; above it tiles shrink to swatches so that a deep stack fits on a screen

export class Strip {
  constructor({ palette, on }) {
    this.palette = palette;
    this.on = on;
    this.dragged = null; // {layers: [index]} or {entry}
    this.list = el('div', { class: 'cl-contents', role: 'listbox', 'aria-label': 'Layers', 'aria-multiselectable': 'true' });
    const add = el('button', { type: 'button', class: 'cl-tile-add', title: 'Append a layer', 'aria-label': 'Append a layer', onclick: () => on.append() }, '+');
    this.node = el('div', { class: 'cl-strip' }, this.list, add);
    for (const [type, handler] of Object.entries({
      click: this.click, keydown: this.keydown, dragstart: this.dragstart, dragend: this.dragend, dragover: this.dragover,
      dragleave: this.dragleave, drop: this.drop,
    })) this.node.addEventListener(type, handler.bind(this));
  }

  draw(layers, chosen, errorAt) {
    const focused = this.list.contains(document.activeElement) ? Math.min(+document.activeElement.dataset.index, layers.length - 1) : null;
    // One tile takes the Tab key: the one in focus, or the first that is selected, or the first of all.
    const stop = focused ?? (chosen.size ? Math.min(...chosen) : 0);
    this.layers = layers;
    this.chosen = chosen;
    this.node.classList.toggle('compact', layers.length >= COMPACT_FROM);
    const marks = marksOf(layers);
    this.list.replaceChildren(...layers.map((layer, i) => tile(this.palette, layer, i, marks, {
      class: `${chosen.has(i) ? ' chosen' : ''}${i === errorAt ? ' bad' : ''}`, draggable: true, tabIndex: i === stop ? 0 : -1,
      role: 'option', 'aria-selected': String(chosen.has(i)),
    })));
    if (focused != null) this.focus(focused);
  }

  focus(index) {
    for (const tile of this.list.children) tile.tabIndex = +tile.dataset.index === index ? 0 : -1;
    this.list.children[index]?.focus();
  }

  at(event) {
    const tile = event.target.closest?.('.cl-tile');
    return tile ? +tile.dataset.index : null;
  }

  click(event) {
    const index = this.at(event);
    if (index == null) {
      if (event.target === this.node) this.on.choose(null);
      return;
    }
    this.on.choose(index, event.shiftKey ? 'range' : event.ctrlKey || event.metaKey ? 'toggle' : 'one');
    this.focus(index);
  }

  keydown(event) {
    const index = this.at(event);
    if (index == null) return;
    const control = event.ctrlKey || event.metaKey;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && event.altKey) this.on.shift(index, step);
    else if (step || event.key === 'Home' || event.key === 'End') {
      const to = event.key === 'Home' ? 0 : event.key === 'End' ? this.layers.length - 1 : index + step;
      if (to < 0 || to >= this.layers.length) return;
      if (!control) this.on.choose(to, event.shiftKey ? 'range' : 'one');
      this.focus(to);
    } else if (event.key === 'Delete' || event.key === 'Backspace') this.on.remove(index);
    else if (event.key === ' ' || event.key === 'Enter') this.on.choose(index, 'toggle');
    else if (/^[1-9]$/.test(event.key) && !control && !event.altKey) this.on.digit(index, +event.key - 1);
    else if (event.key.toLowerCase() === 'd' && control) this.on.duplicate(index);
    else if (event.key.toLowerCase() === 'a' && control) this.on.chooseAll();
    else return;
    event.preventDefault();
  }

  // A palette entry that is being dragged; the strip then takes it where it is dropped.
  carry(entry) {
    this.dragged = entry ? { entry } : null;
    if (!entry) this.unmark();
  }

  dragstart(event) {
    const index = this.at(event);
    if (index == null) return;
    const moving = this.chosen.has(index) ? [...this.chosen] : [index];
    this.dragged = { layers: moving };
    event.dataTransfer.setData('text/plain', `layer ${index}`);
    event.dataTransfer.effectAllowed = 'move';
    for (const i of moving) this.list.children[i].classList.add('dragging');
  }

  dragend() {
    this.dragged = null;
    this.node.querySelectorAll('.dragging').forEach((tile) => tile.classList.remove('dragging'));
    this.unmark();
  }

  unmark() {
    this.node.querySelectorAll('.before, .after, .onto').forEach((tile) => tile.classList.remove('before', 'after', 'onto'));
  }

  // Where a drop would go: a gap between tiles, or the tile itself for a feed-forward.
  target(event) {
    const tile = event.target.closest?.('.cl-tile');
    if (!tile) return { gap: this.layers.length };
    const box = tile.getBoundingClientRect();
    const after = event.clientX > box.left + box.width / 2;
    return { tile, after, gap: +tile.dataset.index + (after ? 1 : 0) };
  }

  dragover(event) {
    if (!this.dragged) return;
    event.preventDefault();
    this.unmark();
    const { tile, after } = this.target(event);
    if (tile) tile.classList.add(this.dragged.entry?.kind === 'feed_forward' ? 'onto' : after ? 'after' : 'before');
    else this.node.lastElementChild.classList.add('onto');
  }

  dragleave(event) {
    if (!this.node.contains(event.relatedTarget)) this.unmark();
  }

  drop(event) {
    if (!this.dragged) return;
    event.preventDefault();
    const { tile, gap } = this.target(event);
    const dragged = this.dragged;
    this.dragend();
    if (dragged.layers) this.on.move(dragged.layers, gap);
    else if (dragged.entry.kind === 'mixer') this.on.insert(gap, dragged.entry.name);
    else if (tile) this.on.ffn([+tile.dataset.index], dragged.entry.name);
  }
}
