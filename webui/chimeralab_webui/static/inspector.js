// The selected layers' mixer and feed-forward, with forms for their options.

import { button, el, select } from './dom.js';
import { SchemaForm } from './schema_form.js';

export class Inspector {
  constructor({ palette, on }) {
    this.palette = palette;
    this.on = on;
    this.shown = '';
    this.node = el('section', { class: 'cl-inspector', 'aria-label': 'Selected layers' });
  }

  // Redraws only when other layers, mixers or feed-forwards are shown, so that typing in a form is not disturbed.
  draw(layers, chosen, error) {
    const order = [...chosen].sort((a, b) => a - b).filter((i) => i < layers.length);
    this.node.hidden = order.length === 0;
    if (!order.length) { this.shown = ''; return; }
    const first = layers[order[0]];
    const alike = (key) => order.every((i) => layers[i][key] === first[key]);
    const key = JSON.stringify([order, first.mixer, first.ffn, alike('mixer'), alike('ffn')]);
    if (key !== this.shown) {
      this.shown = key;
      this.parts = [this.part('mixer', order, layers, alike('mixer')), this.part('ffn', order, layers, alike('ffn'))];
      const title = order.length === 1 ? `Layer ${order[0]}` : `${order.length} layers`;
      this.node.replaceChildren(el('h3', {}, title), el('div', { class: 'cl-inspector-parts' }, this.parts.map((part) => part.node)));
    }
    for (const part of this.parts) {
      part.form?.set(first[part.options]);
      const here = error && error.layer != null && order.includes(error.layer) && error.part === first[part.kind];
      part.form?.errors(here && error.field ? { [error.field]: [error.reason, error.remedy].filter(Boolean).join('. ') } : {});
    }
  }

  part(kind, order, layers, alike) {
    const mixers = kind === 'mixer';
    const options = mixers ? 'options' : 'ffn_options';
    const entries = mixers ? this.palette.mixers : this.palette.ffns;
    const name = layers[order[0]][kind];
    const entry = mixers ? this.palette.mixer(name) : this.palette.ffn(name);
    const choices = entries.map((e) => ({ value: e.name, label: e.title }));
    if (!alike) choices.unshift({ value: '', label: 'various' });
    else if (!entries.includes(entry)) choices.unshift({ value: name, label: `${name} (not installed)` });
    const chooser = select(choices, alike ? name : '', (value) => value && this.on.choose(kind, order, value), { 'aria-label': mixers ? 'Mixer' : 'Feed-forward' });
    const head = el('label', { class: 'cl-field' }, el('span', { class: 'cl-label' }, mixers ? 'Mixer' : 'Feed-forward'), chooser,
      alike && entry.summary ? el('span', { class: 'cl-hint' }, entry.summary) : null);
    const fields = Object.keys(entry.schema?.properties || {});
    if (!alike || !fields.length) {
      return { kind, options, node: el('div', { class: 'cl-part', color: entry.color }, head, alike ? el('p', { class: 'cl-hint' }, 'It has no options.') : null) };
    }
    const form = new SchemaForm(entry.schema, { onchange: (key, value) => this.on.option(kind, order, key, value) });
    const spread = button(`Apply to all ${entry.title} layers`, () => this.on.spread(kind, order[0]), { class: 'cl-button quiet', data: { action: `spread-${kind}` } });
    return { kind, options, form, node: el('div', { class: 'cl-part', color: entry.color }, head, form.node, spread) };
  }
}
