// One study: its question, how it ran at a scale, and its tables beside published values.

import { Asking } from './asking.js';
import { button, el, offer, select, writeQuery } from './dom.js';
import { Message } from './message.js';
import { table } from './plain_table.js';

class StudyPage {
  constructor(widget) {
    const query = new URLSearchParams(location.search);
    this.study = select([], '', (name) => this.pick({ study: name, scale: '' }), { 'aria-label': 'Study', data: { action: 'choose-study' } });
    this.scale = select([], '', (name) => this.pick({ scale: name }), { 'aria-label': 'Scale', data: { action: 'choose-scale' } });
    this.run = button('Run', () => this.asking.ask('act'), { hidden: true, data: { action: 'run-study' } });
    this.message = new Message();
    this.body = el('div');
    widget.host.replaceChildren(el('div', { class: 'cl-runs' },
      el('div', { class: 'cl-row' }, el('h1', {}, 'Studies'), el('div', { class: 'cl-select-bar' }, this.study, this.scale, this.run)),
      this.message.node, this.body));
    this.asking = new Asking(widget, { study: query.get('study') || '', scale: query.get('scale') || '' }, (reply, question) => this.draw(reply, question));
    this.asking.ask('pick');
  }

  pick(changes) {
    this.asking.ask('pick', changes);
    const { study, scale } = this.asking.question;
    writeQuery({ study, scale });
  }

  draw(reply, question) {
    this.message.show(reply.rev, reply.error, { state: reply.missing });
    offer(this.study, reply.studies, reply.study);
    offer(this.scale, reply.scales || [], reply.scale);
    for (const chooser of [this.study, this.scale]) chooser.hidden = !chooser.options.length;
    this.run.hidden = !reply.study || reply.status === 'active' || reply.needs.length > 0;
    if (!reply.study) return this.body.replaceChildren(el('div', { class: 'cl-empty' }, 'No plugin ships a study'));
    Object.assign(question, { study: reply.study, scale: reply.scale });
    this.body.replaceChildren(el('div', { class: 'cl-study' },
      el('h2', {}, reply.title), el('p', {}, el('strong', {}, reply.question)), el('p', {}, reply.text),
      el('p', { class: 'cl-hint' }, reply.about),
      reply.sources.map((source) => el('div', { class: 'cl-hint' }, source)),
      reply.needs.length ? el('p', {}, `Run it with: chimeralab study run ${reply.study} --scale ${reply.scale} ${reply.needs.join(' ')}`) : '',
      el('p', { data: { part: 'summary' } }, reply.summary || 'It has not run at this scale.'),
      reply.tables.map(titled), reply.remarks.map(remarks)));
  }
}

const titled = ({ title, head, rows }) => [el('h3', {}, title), table(head, rows.map((row) => row.map(lines)))];

const lines = (text) => text.split('\n').map((line) => el('div', {}, line));

const remarks = (part) => [el('h3', {}, part.title), el('ul', {}, part.lines.map((line) => el('li', {}, line)))];

export function mount(widget) {
  return new StudyPage(widget);
}
