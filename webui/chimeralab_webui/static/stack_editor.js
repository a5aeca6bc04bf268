// The stack editor. It owns the draft `{rev, layers, text, settings}`: the user's last edit is `layers` or `text`,
// the other is null. The server reads the draft and answers in `reply`, so an answer to an old edit cannot
// overwrite a newer one.

import { debounce, el, iconButton, select, writeQuery } from './dom.js';
import { Inspector } from './inspector.js';
import { change, changeUse, duplicate, insert, move, newLayer, remove, same, shift, withFfn, withMixer, withUse } from './layers.js';
import { Palette } from './palette.js';
import { PatternField } from './pattern_field.js';
import { ruleForm } from './rule_form.js';
import { SchemaForm } from './schema_form.js';
import { Strip } from './strip.js';

const HISTORY = 200;
const IN_SIGHT = ['d_model', 'norm_eps', 'tie_embeddings']; // beside the presets; the other settings unfold

class StackEditor {
  constructor({ host, props, send, onReply, onValue }) {
    this.props = props;
    this.send = send;
    this.rev = 0;
    this.layers = [];
    this.settings = {};
    this.chosen = new Set();
    this.error = null;
    this.past = [];
    this.future = [];
    this.soon = debounce(120, () => this.post({ layers: this.layers }));
    this.build(host);
    onValue((value) => this.load(value)); // the server opens another stack: a fork, a page load
    onReply((reply) => this.take(reply));
    this.draw();
  }

  build(host) {
    this.palette = new Palette(this.props.palette, {
      onpick: (entry) => this.pick(entry),
      oncarry: (entry) => this.strip.carry(entry),
    });
    this.strip = new Strip({ palette: this.palette, on: this.stripCalls() });
    this.inspector = new Inspector({ palette: this.palette, on: this.inspectorCalls() });
    this.pattern = new PatternField((text) => this.post({ text }));
    this.rule = ruleForm(this.palette, (text) => { this.record(); this.post({ text }, true); });
    const form = (options) => new SchemaForm(this.props.schema, { prefix: 'stack.', labels: { d_model: 'Width', norm_eps: 'Norm ε' }, onchange: (key, value) => this.setting(key, value), ...options });
    this.form = form({ only: IN_SIGHT });
    this.forms = form({ except: ['layers', ...IN_SIGHT] });
    this.more = el('details', { class: 'cl-more' }, el('summary', {}, 'Norms, residual form, positions'), this.forms.node);
    this.bar = el('div', { class: 'cl-depth-bar', 'aria-hidden': 'true' });
    this.count = el('span', { class: 'cl-count' });
    host.replaceChildren(el('div', { class: 'cl-editor' },
      el('div', { class: 'cl-editor-head' }, this.presets(), this.form.node), this.more,
      this.pattern.node, this.palette.node, this.toolbar(), this.rule, this.bar, this.strip.node, this.inspector.node));
    host.addEventListener('keydown', (event) => this.shortcut(event));
    document.addEventListener('chimeralab:start', ({ detail }) => this.start(detail.text, detail.settings));
  }

  presets() {
    const choices = [{ value: '', label: 'Start from a preset …' }, ...this.props.presets.map((p, i) => ({ value: i, label: p.title || p.name }))];
    const field = (label, chooser) => el('label', { class: 'cl-field' }, el('span', { class: 'cl-label' }, label), chooser);
    const sizes = el('div', { hidden: true });
    const chooser = select(choices, '', (index) => {
      const preset = this.props.presets[index];
      chooser.value = '';
      this.start(preset.pattern, preset.settings);
      const named = Object.keys(preset.sizes);
      const size = select([{ value: '', label: `Size of ${preset.name} …` }, ...named], '', (name) => {
        const shape = preset.sizes[name] || {};
        this.start(shape.pattern || preset.pattern, { ...preset.settings, ...shape.settings });
      }, { 'aria-label': 'Size' });
      sizes.replaceChildren(field('Size', size));
      sizes.hidden = !named.length;
    }, { 'aria-label': 'Preset' });
    return el('div', { class: 'cl-presets' }, field('Preset', chooser), sizes);
  }

  // Another stack takes this one's place; undo brings it back.
  start(text, settings) {
    this.record();
    this.settings = { ...settings };
    this.chosen = new Set();
    this.post({ text }, true);
  }

  toolbar() {
    this.undoButton = iconButton('undo', 'Undo (Ctrl+Z)', () => this.undo());
    this.redoButton = iconButton('redo', 'Redo (Ctrl+Shift+Z)', () => this.redo());
    this.forChosen = [
      iconButton('left', 'Move earlier (Alt+←)', () => this.apply(shift(this.layers, this.chosen, -1))),
      iconButton('right', 'Move later (Alt+→)', () => this.apply(shift(this.layers, this.chosen, 1))),
      iconButton('copy', 'Duplicate (Ctrl+D)', () => this.apply(duplicate(this.layers, this.chosen))),
      iconButton('trash', 'Delete (Del)', () => this.apply(remove(this.layers, this.chosen))),
    ];
    const rule = el('button', {
      type: 'button', class: 'cl-button quiet', 'aria-expanded': 'false', data: { action: 'rule' },
      onclick: () => { this.rule.hidden = !this.rule.hidden; rule.setAttribute('aria-expanded', String(!this.rule.hidden)); },
    }, 'Every N layers …');
    return el('div', { class: 'cl-toolbar', role: 'toolbar', 'aria-label': 'Edit layers' },
      this.undoButton, this.redoButton, el('span', { class: 'cl-gap' }), this.forChosen, el('span', { class: 'cl-gap' }), rule, this.count);
  }

  stripCalls() {
    const which = (index) => (this.chosen.has(index) ? this.chosen : new Set([index]));
    const follow = (edited) => { this.apply(edited); this.strip.focus(Math.min(...this.chosen)); };
    return {
      choose: (index, how) => this.choose(index, how),
      chooseAll: () => { this.chosen = new Set(this.layers.keys()); this.draw(); },
      append: () => this.apply(insert(this.layers, this.layers.length, [this.nextLayer()])),
      insert: (at, mixer) => this.apply(insert(this.layers, at, [this.layerOf(mixer, this.layers[at - 1] || this.layers[at])])),
      move: (indices, to) => follow(move(this.layers, indices, to)),
      shift: (index, by) => follow(shift(this.layers, which(index), by)),
      remove: (index) => follow(remove(this.layers, which(index))),
      duplicate: (index) => follow(duplicate(this.layers, which(index))),
      digit: (index, n) => { if (this.palette.mixers[n]) this.apply(change(this.layers, which(index), this.mixed(this.palette.mixers[n].name))); },
      ffn: (indices, name) => this.apply(change(this.layers, indices, withFfn(name))),
    };
  }

  inspectorCalls() {
    const optionsOf = (kind) => (kind === 'mixer' ? 'options' : 'ffn_options');
    return {
      choose: (kind, order, name) => this.apply(change(this.layers, order, kind === 'mixer' ? this.mixed(name) : withFfn(name))),
      option: (kind, order, key, value) => {
        const options = optionsOf(kind);
        const edited = change(this.layers, order, (layer) => {
          const { [key]: _, ...rest } = layer[options];
          return { ...layer, [options]: value === undefined ? rest : { ...rest, [key]: value } };
        });
        this.apply(edited, { typing: `${kind}.${key}` });
      },
      branches: (order, branches, typing) => {
        const edited = change(this.layers, order, (layer) => ({ ...layer, options: { ...layer.options, branches } }));
        this.apply(edited, { typing: typing && `branch.${typing}` });
      },
      use: (order, values) => this.apply(changeUse(this.layers, order, withUse(values)), { typing: `use.${Object.keys(values)}` }),
      spread: (kind, from) => {
        const options = optionsOf(kind), source = this.layers[from];
        const alike = [...this.layers.keys()].filter((i) => this.layers[i][kind] === source[kind]);
        const edited = change(this.layers, alike, (layer) => ({ ...layer, [options]: { ...source[options] } }));
        this.apply({ ...edited, chosen: [...this.chosen] });
      },
    };
  }

  nextLayer() {
    const last = this.layers[this.layers.length - 1];
    return last ? structuredClone(last) : this.layerOf(this.palette.mixers[0].name);
  }

  layerOf(mixer, like) { return newLayer(mixer, this.palette.fresh(mixer), like); }

  mixed(name) { return withMixer(name, this.palette.fresh(name)); }

  pick(entry) {
    const mixer = entry.kind === 'mixer';
    if (this.chosen.size) this.apply(change(this.layers, this.chosen, mixer ? this.mixed(entry.name) : withFfn(entry.name)));
    else if (mixer) this.apply({ ...insert(this.layers, this.layers.length, [this.layerOf(entry.name, this.layers.at(-1))]), chosen: [] });
    else this.apply({ ...change(this.layers, this.layers.keys(), withFfn(entry.name)), chosen: [] });
  }

  choose(index, how) {
    if (index == null) this.chosen = new Set();
    else if (how === 'range' && this.chosen.size) {
      const anchor = this.anchor ?? Math.min(...this.chosen);
      const [from, to] = [Math.min(anchor, index), Math.max(anchor, index)];
      this.chosen = new Set(Array.from({ length: to - from + 1 }, (_, i) => from + i));
    } else if (how === 'toggle') {
      this.chosen = new Set(this.chosen);
      if (!this.chosen.delete(index)) this.chosen.add(index);
    } else this.chosen = new Set([index]);
    if (how !== 'range') this.anchor = index;
    this.draw();
  }

  setting(key, value) {
    this.record(`setting.${key}`);
    this.settings = { ...this.settings };
    if (value === undefined) delete this.settings[key];
    else this.settings[key] = value;
    this.rev++;
    this.soon();
  }

  // An edit of layers. `typing` names the field being typed in: its keystrokes are one step of undo.
  apply({ layers, chosen }, { typing = '' } = {}) {
    if (same(layers, this.layers)) { this.chosen = new Set(chosen); this.draw(); return; }
    this.record(typing);
    this.layers = layers;
    this.chosen = new Set(chosen);
    this.draw();
    if (typing) { this.rev++; this.soon(); } else this.post({ layers });
  }

  snapshot() {
    return { layers: this.layers, settings: this.settings };
  }

  record(typing = '') {
    if (typing && typing === this.typingIn) return;
    this.typingIn = typing;
    this.past.push(this.snapshot());
    if (this.past.length > HISTORY) this.past.shift();
    this.future = [];
  }

  undo() { this.travel(this.past, this.future); }

  redo() { this.travel(this.future, this.past); }

  travel(from, to) {
    if (!from.length) return;
    to.push(this.snapshot());
    ({ layers: this.layers, settings: this.settings } = from.pop());
    this.chosen = new Set([...this.chosen].filter((i) => i < this.layers.length));
    this.typingIn = '';
    this.draw();
    this.post({ layers: this.layers });
  }

  shortcut(event) {
    if (event.target.matches('input, textarea, select')) return;
    const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    if (key === 'escape') this.choose(null);
    else if (!control) return;
    else if (key === 'z' && event.shiftKey || key === 'y') this.redo();
    else if (key === 'z') this.undo();
    else return;
    event.preventDefault();
  }

  // Sends the draft. `rewrite`: the text may be replaced by the canonical one although the field is focused.
  post({ layers = null, text = null }, rewrite = false) {
    this.rewrite = rewrite || layers != null;
    this.rev++;
    this.send('revise', { rev: this.rev, layers, text, settings: this.settings });
  }

  take(reply) {
    if (reply.rev !== this.rev) return; // a newer edit is on its way
    this.error = reply.error;
    if (reply.layers && !same(reply.layers, this.layers)) {
      if (!this.rewrite && this.layers.length) this.record('text');
      this.layers = reply.layers;
      this.chosen = new Set([...this.chosen].filter((i) => i < this.layers.length));
    }
    this.pattern.set(reply.text, !this.rewrite && document.activeElement === this.pattern.area);
    if (reply.query) writeQuery(reply.query);
    this.draw();
  }

  load(value) {
    this.rev = value.rev || 0;
    this.layers = value.layers || [];
    this.settings = value.settings || {};
    this.chosen = new Set();
    this.rewrite = true;
    this.pattern.set(value.text);
    this.draw();
  }

  draw() {
    const { layers, chosen, error } = this;
    this.strip.draw(layers, chosen, error?.layer ?? null);
    this.inspector.draw(layers, chosen, error);
    this.palette.explain(chosen.size);
    this.pattern.showError(error?.setting ? null : error);
    for (const form of [this.form, this.forms]) {
      form.set(this.settings);
      form.errors(error?.setting ? { [error.setting]: error.reason } : {});
    }
    if (this.forms.fields.has(error?.setting)) this.more.open = true;
    this.bar.replaceChildren(...layers.map((layer) => el('i', { color: this.palette.mixer(layer.mixer).color })));
    this.count.textContent = `${layers.length} ${layers.length === 1 ? 'layer' : 'layers'}`;
    this.undoButton.disabled = !this.past.length;
    this.redoButton.disabled = !this.future.length;
    for (const each of this.forChosen) each.disabled = !chosen.size;
  }
}

export function mount(widget) {
  return new StackEditor(widget);
}
