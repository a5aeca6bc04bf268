// The selected layers' mixer and feed-forward, with forms for their options.

import { BranchList } from './branches.js';
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
      this.use = this.sharing(order);
      this.node.replaceChildren(el('div', { class: 'cl-inspector-head' }, el('h3', {}, title), this.use.node),
        el('div', { class: 'cl-inspector-parts' }, this.parts.map((part) => part.node)));
    }
    this.use.set(first);
    const use = error && order.includes(error.layer) && ['share', 'lora'].includes(error.part);
    this.use.error(use ? [error.reason, error.remedy].filter(Boolean).join('. ') : '', error?.part);
    for (const part of this.parts) {
      part.form?.set(first[part.options]);
      part.branches?.draw(this.palette.branches(first));
      const here = error && error.layer != null && order.includes(error.layer) && error.part === first[part.kind];
      const says = here ? [error.reason, error.remedy].filter(Boolean).join('. ') : '';
      part.form?.errors(here && error.field ? { [error.field]: says } : {});
      part.branches?.errors(here ? error.place.split(': ').slice(1) : [], says);
    }
  }

  // What a use of a shared layer has: the label of what it shares, and the rank of its own adapter.
  sharing(order) {
    const field = (label, hint, input) => el('label', { class: 'cl-inline', title: hint }, label, input);
    const share = el('input', {
      type: 'text', class: 'cl-input cl-mono', spellcheck: false, autocomplete: 'off', placeholder: 'not shared', 'aria-label': 'Shared as',
      oninput: () => this.on.use(order, { share: share.value.trim() }),
    });
    const lora = el('input', {
      type: 'number', class: 'cl-input cl-number', min: '0', step: '1', placeholder: 'none', 'aria-label': 'Rank of its adapter',
      oninput: () => this.on.use(order, { lora: Number(lora.value) }),
    });
    const message = el('div', { class: 'cl-field-error', role: 'alert', hidden: true });
    const node = el('div', { class: 'cl-use' },
      field('Shared as', 'Layers with one label are one layer, used at several depths', share),
      field('Adapter', 'Rank of the low-rank adapter that this use has for itself', lora), message);
    const shown = (input, value) => { if (document.activeElement !== input) input.value = value; };
    return {
      node,
      set: (layer) => { shown(share, layer.share || ''); shown(lora, layer.lora || ''); lora.disabled = !layer.share; },
      error: (says, part) => {
        message.textContent = says;
        message.hidden = !says;
        for (const [name, input] of Object.entries({ share, lora })) input.setAttribute('aria-invalid', String(!!says && name === part));
      },
    };
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
    const { branches: inner, ...fields } = mixers ? entry.schema?.properties || {} : { ...entry.schema?.properties };
    if (!alike || !(inner || Object.keys(fields).length)) {
      return { kind, options, node: el('div', { class: 'cl-part', color: entry.color }, head, alike ? el('p', { class: 'cl-hint' }, 'It has no options.') : null) };
    }
    const branches = inner ? new BranchList(this.palette, inner, (value, typing) => this.on.branches(order, value, typing)) : null;
    const form = new SchemaForm({ ...entry.schema, properties: fields }, { onchange: (key, value) => this.on.option(kind, order, key, value) });
    const spread = button(`Apply to all ${entry.title} layers`, () => this.on.spread(kind, order[0]), { class: 'cl-button quiet', data: { action: `spread-${kind}` } });
    return { kind, options, form, branches, node: el('div', { class: 'cl-part', color: entry.color }, head, branches?.node, form.node, spread) };
  }
}
