// One study: its question, how it ran at a scale, and its tables beside published values.

import { button, el, select, writeQuery } from './dom.js';

class StudyPage {
  constructor({ host, send, onReply }) {
    this.send = send;
    const query = new URLSearchParams(location.search);
    this.value = { rev: 0, study: query.get('study') || '', scale: query.get('scale') || '' };
    this.study = select([], '', (name) => this.pick({ study: name, scale: '' }), { 'aria-label': 'Study', data: { action: 'choose-study' } });
    this.scale = select([], '', (name) => this.pick({ scale: name }), { 'aria-label': 'Scale', data: { action: 'choose-scale' } });
    this.run = button('Run', () => this.ask('act'), { hidden: true, data: { action: 'run-study' } });
    this.message = el('div', { class: 'cl-message bad', hidden: true });
    this.body = el('div');
    host.replaceChildren(el('div', { class: 'cl-runs' },
      el('div', { class: 'cl-row' }, el('h1', {}, 'Studies'), el('div', { class: 'cl-select-bar' }, this.study, this.scale, this.run)),
      this.message, this.body));
    onReply((reply) => this.take(reply));
    this.ask();
  }

  pick(changes) {
    Object.assign(this.value, changes);
    writeQuery({ study: this.value.study, scale: this.value.scale });
    this.ask();
  }

  ask(event = 'pick') {
    this.value.rev++;
    this.send(event, { ...this.value });
  }

  take(reply) {
    if (reply.rev < this.value.rev) return;
    const seen = JSON.stringify({ ...reply, rev: 0 });
    if (seen === this.seen) return;
    this.seen = seen;
    this.message.textContent = reply.error;
    this.message.hidden = !reply.error;
    offer(this.study, reply.studies.map((name) => ({ value: name, label: name })), reply.study);
    offer(this.scale, reply.scales || [], reply.scale);
    this.run.hidden = !reply.study || reply.status === 'active' || reply.needs.length > 0;
    if (!reply.study) return this.body.replaceChildren(el('div', { class: 'cl-empty' }, 'No plugin ships a study'));
    Object.assign(this.value, { study: reply.study, scale: reply.scale });
    this.body.replaceChildren(el('div', {},
      el('h2', {}, reply.title), el('p', {}, el('strong', {}, reply.question)), el('p', {}, reply.text),
      el('p', { class: 'cl-hint' }, reply.about),
      reply.sources.map((source) => el('div', { class: 'cl-hint' }, source)),
      reply.needs.length ? el('p', {}, `Run it with: chimeralab study run ${reply.study} --scale ${reply.scale} ${reply.needs.join(' ')}`) : '',
      el('p', { data: { part: 'summary' } }, reply.summary || 'It has not run at this scale.'),
      reply.tables.map(table), reply.remarks.map(remarks)));
  }
}

const offer = (node, options, value) => {
  node.hidden = options.length === 0;
  node.replaceChildren(...options.map((option) => el('option', { value: option.value }, option.label)));
  node.value = value || '';
};

const table = ({ title, head, rows }) => [
  el('h3', {}, title),
  el('div', { class: 'cl-table-scroll' }, el('table', { class: 'cl-table' },
    el('thead', {}, el('tr', {}, head.map((text) => el('th', { scope: 'col' }, text)))),
    el('tbody', {}, rows.map((row) => el('tr', {}, row.map((text) => el('td', {}, lines(text)))))))),
];

const lines = (text) => text.split('\n').map((line) => el('div', {}, line));

const remarks = (part) => [el('h3', {}, part.title), el('ul', {}, part.lines.map((line) => el('li', {}, line)))];

export function mount(widget) {
  return new StudyPage(widget);
}
