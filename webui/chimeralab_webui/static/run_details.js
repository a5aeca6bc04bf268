// What is recorded of a run, under tabs. Events arrive bit by bit: the value says which the browser has.

import { Catalogue } from './catalogue.js';
import { button, el } from './dom.js';
import * as format from './format.js';
import { table } from './plain_table.js';
import { marksOf, tile } from './tile.js';

const TABS = [['stack', 'Stack'], ['samples', 'Samples'], ['history', 'History'], ['log', 'Log'], ['spec', 'Spec'], ['environment', 'Environment'], ['checkpoints', 'Checkpoints']];

class RunDetails {
  constructor({ host, props, send, onReply }) {
    Object.assign(this, { props, send, events: new Map(), shown: {}, tab: location.hash.slice(1) });
    if (!TABS.some(([name]) => name === this.tab)) this.tab = 'stack';
    this.areas = Object.fromEntries(TABS.map(([name]) => [name, el('div', { role: 'tabpanel', id: `panel-${name}`, 'aria-labelledby': `tab-${name}` })]));
    this.tabs = Object.fromEntries(TABS.map(([name, title]) => [name, el('button', {
      type: 'button', role: 'tab', class: 'cl-tab', id: `tab-${name}`, 'aria-controls': `panel-${name}`, onclick: () => this.open(name) }, title)]));
    host.replaceChildren(el('div', { class: 'cl-details' }, el('div', { class: 'cl-tabs', role: 'tablist', 'aria-label': 'What is recorded', onkeydown: (event) => this.walk(event) }, Object.values(this.tabs)), Object.values(this.areas)));
    this.open(this.tab);
    onReply((reply) => this.take(reply));
  }

  open(name) {
    this.tab = name;
    for (const [key, area] of Object.entries(this.areas)) {
      area.hidden = key !== name;
      this.tabs[key].setAttribute('aria-selected', String(key === name));
      this.tabs[key].tabIndex = key === name ? 0 : -1;
    }
    if (location.hash.slice(1) !== name && (location.hash || name !== 'stack')) history.replaceState(null, '', `${location.pathname}${location.search}#${name}`);
  }

  // Arrow keys go from tab to tab; Tab goes on to what the tab shows.
  walk(event) {
    const at = TABS.findIndex(([name]) => name === this.tab), last = TABS.length - 1;
    const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.open(TABS[to][0]);
    this.tabs[this.tab].focus();
  }

  take(reply) {
    if (reply.id !== this.id) this.events.clear();
    this.id = reply.id;
    for (const event of reply.events) this.events.set(event.id, event);
    if (reply.events.length) this.send(null, { id: this.id, after: Math.max(...this.events.keys()) });
    const events = [...this.events.values()];
    this.once('stack', reply.layers, () => this.stack(reply.layers));
    this.once('spec', reply.spec, () => this.spec(reply.spec));
    this.once('environment', [reply.environment, reply.plugins], () => this.environment(reply));
    this.once('checkpoints', reply.checkpoints, () => this.checkpoints(reply));
    this.once('history', [reply.attempts, events.length], () => this.history(reply.attempts, events.filter((e) => e.kind === 'status')));
    this.once('log', events.length, () => this.log(events.filter((e) => e.kind === 'log')));
    this.once('samples', events.length, () => this.samples(events.filter((e) => e.kind === 'sample')));
  }

  // Redraws an area when what it shows has changed.
  once(name, what, draw) {
    const seen = JSON.stringify(what);
    if (this.shown[name] === seen) return;
    this.shown[name] = seen;
    this.areas[name].replaceChildren(...[draw()].flat());
  }

  stack(layers) {
    const catalogue = new Catalogue(this.props.palette), marks = marksOf(layers);
    return el('div', { class: 'cl-strip' }, layers.map((layer, i) => {
      const { branches, ...options } = { ...layer.options, ...layer.ffn_options };
      const says = Object.entries(options).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(', ');
      return tile(catalogue, layer, i, marks, { class: ' still', ...(says ? { title: says } : {}) });
    }));
  }

  spec(text) {
    const code = el('pre', { class: 'cl-mono' }, text);
    const copy = button('Copy', async () => {
      getSelection().selectAllChildren(code);
      await navigator.clipboard?.writeText(text); // browsers offer it on secure addresses only; elsewhere: Ctrl+C
      if (navigator.clipboard) copy.textContent = 'Copied';
      setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    }, { class: 'cl-button cl-copy' });
    return el('div', { class: 'cl-code' }, copy, code);
  }

  environment({ environment, plugins }) {
    if (!Object.keys(environment).length) return empty('The run has not started yet');
    const { kernels = {}, ...rest } = environment;
    return el('div', { class: 'cl-two-columns' },
      el('div', {}, el('h3', {}, 'Where and with what'), pairs(flat(rest))),
      el('div', {}, el('h3', {}, 'Kernels taken'), pairs(Object.entries(kernels)),
        plugins.length ? [el('h3', {}, 'Plugins'), pairs(plugins.map((p) => [p.name, `${p.package} ${p.version}`]))] : null));
  }

  checkpoints({ checkpoints }) {
    if (!checkpoints.length) return empty('No checkpoint is complete yet');
    return table(['Kept as', 'Step', 'Size', 'Written', 'Folder'], checkpoints.map((c) => [c.role, c.step, format.bytes(c.bytes), format.ago(c.time), el('code', {}, c.path)]));
  }

  history(attempts, changes) {
    return [
      attempts.length ? table(['Attempt', 'Outcome', 'Began', 'Lasted', 'Worker', 'Reason'], attempts.map((a) => [
        a.attempt, a.outcome || 'under way', format.clock(a.began_at), a.began_at ? format.duration((a.ended_at ?? Date.now() / 1000) - a.began_at) : '–', a.worker?.host || '–', a.reason || ''])) : empty('No worker has taken it yet'),
      el('ol', { class: 'cl-timeline' }, changes.map((e) => el('li', { class: e.payload.to }, el('time', {}, format.clock(e.time)),
        el('span', {}, e.payload.from ? `${e.payload.from} → ${e.payload.to}` : e.payload.to), e.payload.reason ? el('span', { class: 'cl-hint' }, e.payload.reason) : null))),
    ];
  }

  log(lines) {
    if (!lines.length) return empty('Nothing was logged');
    return el('div', { class: 'cl-log cl-mono', role: 'log' }, lines.map((e) => el('div', { class: e.payload.level },
      el('time', {}, new Date(e.time * 1000).toLocaleTimeString()), ' ', e.payload.message)));
  }

  samples(samples) {
    if (!samples.length) return empty('Samples are written at evaluations');
    const steps = [...new Set(samples.map((e) => e.payload.step))].sort((a, b) => b - a);
    return steps.map((step) => el('div', { class: 'cl-sample' }, el('h3', {}, `Step ${step}`),
      samples.filter((e) => e.payload.step === step).map((e) => (e.payload.image ? drawn(e.payload) : written(e.payload)))));
  }
}

const written = ({ prompt, text }) => el('pre', { class: 'cl-mono' }, el('span', { class: 'cl-prompt' }, prompt), text);
const drawn = ({ prompt, text, image }) => el('figure', { class: 'cl-drawn' }, el('img', { src: `data:image/png;base64,${image}`, alt: prompt }), el('figcaption', { class: 'cl-hint' }, `${prompt} ${text}`));
const empty = (text) => el('div', { class: 'cl-empty' }, text);
const pairs = (entries) => el('dl', { class: 'cl-pairs cl-pairs-wide' }, entries.map(([key, value]) => [el('dt', {}, key), el('dd', {}, show(value))]));
const show = (value) => (typeof value === 'number' ? format.number(value, 5) : typeof value === 'string' ? value : JSON.stringify(value));
const flat = (object, prefix = '') => Object.entries(object).flatMap(([key, value]) => (value && typeof value === 'object' && !Array.isArray(value) ? flat(value, `${prefix}${key}: `) : [[prefix + key, value]]));

export function mount(widget) {
  return new RunDetails(widget);
}
