// One sweep: which it is, how far it is, and its points with means and intervals over seeds.

import { Asking } from './asking.js';
import { button, el, select, writeQuery } from './dom.js';
import * as format from './format.js';
import { Message } from './message.js';

class SweepTable {
  constructor(widget) {
    this.chooser = select([], '', (name) => this.pick(name), { 'aria-label': 'Sweep', data: { action: 'choose-sweep' } });
    this.stop = button('Cancel', () => this.asking.ask('act'), { hidden: true, data: { action: 'cancel-sweep' } });
    this.compare = el('a', { class: 'cl-button', hidden: true }, 'Compare');
    this.message = new Message();
    this.said = el('div', { class: 'cl-hint' });
    this.points = el('div');
    widget.host.replaceChildren(el('div', { class: 'cl-runs' },
      el('div', { class: 'cl-row' }, el('h1', {}, 'Sweeps'), el('div', { class: 'cl-select-bar' }, this.chooser, this.compare, this.stop)),
      this.message.node, this.said, this.points));
    this.asking = new Asking(widget, { sweep: new URLSearchParams(location.search).get('sweep') || '' }, (reply, question) => this.draw(reply, question));
    this.asking.ask('pick');
  }

  pick(name) {
    this.asking.ask('pick', { sweep: name });
    writeQuery({ sweep: name });
  }

  draw(reply, question) {
    this.message.show(reply.rev, reply.error, { state: reply.missing });
    this.chooser.replaceChildren(...reply.sweeps.map((name) => el('option', { value: name }, name)));
    this.chooser.value = reply.sweep;
    this.chooser.hidden = reply.sweeps.length === 0;
    question.sweep = reply.sweep;
    this.stop.hidden = reply.status !== 'active';
    const runs = reply.rows.flatMap((row) => row.runs.map(([, run]) => run));
    this.compare.hidden = runs.length === 0;
    this.compare.href = `/ui/compare?runs=${runs.slice(0, 1000).join(',')}`;
    this.said.textContent = reply.status ? [`${reply.status}: ${counts(reply.members)} of ${reply.wanted} runs`, reply.reason].filter(Boolean).join('. ') : '';
    this.points.replaceChildren(reply.rows.length ? this.table(reply) : el('div', { class: 'cl-empty' }, 'Queue a sweep with: chimeralab sweep run FILE'));
  }

  table({ axes, metric, testMetric, rows }) {
    const tested = rows.some((row) => row.test);
    const heads = [...axes, metric, ...(tested ? [testMetric] : []), 'Runs', 'Seeds'];
    return el('div', { class: 'cl-table-scroll' }, el('table', { class: 'cl-table' },
      el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
      el('tbody', {}, rows.map((row) => el('tr', { data: { id: row.id } },
        row.values.map((value) => el('td', {}, String(value))),
        el('td', { class: row.best ? 'best' : null, title: row.best ? 'Best on validation' : null }, format.estimate(row.validation)),
        tested ? el('td', {}, format.estimate(row.test)) : null,
        el('td', {}, counts(row.statuses)),
        el('td', {}, row.runs.map(([seed, run]) => el('a', { href: `/ui/run?id=${run}`, title: `Run ${run}` }, `${seed} `))))))));
  }
}

const counts = (statuses) => Object.entries(statuses).map(([status, count]) => `${count} ${status}`).join(', ');

export function mount(widget) {
  return new SweepTable(widget);
}
