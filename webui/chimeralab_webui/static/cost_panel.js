// What the stack costs before anything runs. The value holds what is asked (context, device); the report and,
// when a stack is pinned, its report under the same conditions come in `reply`.

import { button, el, iconButton, select } from './dom.js';
import * as format from './format.js';

const PARTS = {
  embedding: ['Embedding', 1], mixers: ['Mixers', 2], feed_forwards: ['Feed-forwards', 3], norms: ['Norms', 4], adapters: ['Adapters', 5], head: ['Head', 5],
  weights: ['Weights', 1], gradients: ['Gradients', 2], optimizer: ['Optimizer', 3], activations: ['Activations', 4], logits: ['Logits', 5], readout: ['Readout', 5],
};

class CostPanel {
  constructor({ host, props, send, onReply }) {
    Object.assign(this, { props, send });
    this.asked = { rev: 0, context: null, device: null, ...(props.value || {}) };
    this.pinned = el('div', { class: 'cl-pinned', hidden: true });
    this.pin = button('Pin this stack', () => this.send('pin', { ...this.asked, rev: ++this.asked.rev }), { class: 'cl-button quiet', data: { action: 'pin' } });
    this.cards = el('div', { class: 'cl-cards' });
    this.note = el('p', { class: 'cl-hint' });
    host.replaceChildren(el('section', { class: 'cl-costs' },
      el('div', { class: 'cl-panel-head' }, el('h2', {}, 'Cost'), this.pin), this.pinned, this.cards, this.note));
    onReply((reply) => {
      if (this.reply && reply.rev < this.reply.rev) return; // about an older draft
      this.reply = reply;
      this.draw();
    });
  }

  draw() {
    const { reply } = this;
    const { report, pinned } = reply;
    this.note.classList.toggle('bad', !!reply.error);
    if (!report) {
      this.cards.classList.add('stale');
      this.note.textContent = reply.error || '';
      return;
    }
    this.cards.classList.remove('stale');
    this.pinned.hidden = !pinned;
    if (pinned) {
      this.pinned.replaceChildren(el('span', { class: 'cl-label' }, 'Compared with'), el('code', {}, reply.pinned_text),
        iconButton('close', 'Unpin', () => this.send('unpin', { ...this.asked, rev: ++this.asked.rev }), { data: { action: 'unpin' } }));
    }
    const contexts = report.contexts;
    if (!contexts.includes(this.asked.context)) this.asked.context = contexts[Math.min(3, contexts.length - 1)];
    const devices = Object.keys(report.decode_tokens_per_second);
    if (!devices.includes(this.asked.device)) this.asked.device = devices.find((name) => name === 'H100') || devices[0];
    const at = contexts.indexOf(this.asked.context);
    const both = (read) => [read(report), pinned ? read(pinned) : null];
    const chooser = (list, key, label, show) => select(list.map((v) => ({ value: v, label: show(v) })), this.asked[key], (value) => {
      this.asked[key] = key === 'context' ? +value : value;
      this.draw();
    }, { class: 'cl-input cl-select-small', 'aria-label': label });
    const tokens = (n) => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}K` : n) + ' tokens';
    this.cards.replaceChildren(
      card('params', 'Parameters', both((r) => r.total_params), format.count, { wide: true, parts: report.params,
        lines: report.active_params < report.total_params ? [['Active on a token', both((r) => r.active_params)]] : [] }),
      card('state', 'State', both((r) => r.state_bytes[at]), format.bytes, { unit: 'per sequence', chooser: chooser(contexts, 'context', 'Context length', tokens) }),
      card('decode', 'Decode', both((r) => r.decode_tokens_per_second[this.asked.device]), format.rate,
        { unit: `at most, after ${tokens(contexts.at(-1))}`, chooser: chooser(devices, 'device', 'Device', (v) => v), more: true }),
      card('flops', 'Compute per token', both((r) => r.train_flops), format.flops, { wide: true, unit: 'to train', lines: [
        ['Prefill', both((r) => r.prefill_flops)], ['Decode', both((r) => r.decode_flops)]] }),
      card('memory', 'Training memory', both((r) => r.training_bytes), format.bytes, { wide: true, parts: report.memory }));
    const batches = report.batch_size ? `For batches of ${report.batch_size} × ${report.sequence_length} tokens.` : 'Activations are not counted: the batch size is unknown.';
    this.note.textContent = reply.error || `${batches} State in bfloat16, one sequence.`;
  }
}

function card(name, title, [value, other], show, { unit = '', parts, lines = [], chooser, more, wide } = {}) {
  return el('div', { class: wide ? 'cl-card wide' : 'cl-card', data: { card: name } },
    el('div', { class: 'cl-card-head' }, el('span', { class: 'cl-label' }, title), chooser),
    el('div', { class: 'cl-card-value' }, el('strong', {}, show(value)), unit ? el('span', { class: 'cl-hint' }, unit) : null),
    other == null ? null : against(value, other, show, more),
    parts ? breakdown(parts, show) : null,
    lines.length ? el('dl', { class: 'cl-pairs' }, lines.map(([label, [a, b]]) =>
      [el('dt', {}, label), el('dd', {}, show(a), b == null ? null : el('span', { class: 'cl-other' }, show(b)))])) : null);
}

// The pinned value and how far this stack is from it. `more`: higher is better.
function against(value, other, show, more) {
  const by = other ? (value - other) / other : 0;
  const tone = Math.abs(by) < 0.0005 ? '' : (by > 0) === !!more ? 'good' : 'worse';
  return el('div', { class: 'cl-against' }, el('span', { class: 'cl-other' }, show(other)), el('span', { class: `cl-delta ${tone}` }, format.percent(by)));
}

function breakdown(parts, show) {
  const shown = Object.entries(parts).filter(([, value]) => value > 0);
  return el('div', {},
    el('div', { class: 'cl-stacked', 'aria-hidden': 'true' }, shown.map(([key, value]) => {
      const piece = el('i', { class: `tone-${PARTS[key]?.[1] ?? 5}` });
      piece.style.flexGrow = value;
      return piece;
    })),
    el('dl', { class: 'cl-pairs' }, shown.map(([key, value]) =>
      [el('dt', {}, el('i', { class: `cl-key tone-${PARTS[key]?.[1] ?? 5}` }), PARTS[key]?.[0] ?? key), el('dd', {}, show(value))])));
}

export function mount(widget) {
  return new CostPanel(widget);
}
