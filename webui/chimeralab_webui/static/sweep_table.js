// One sweep: which it is, how far it is, and its points with means and intervals over seeds.

import { Asking } from './asking.js';
import { DataTable } from './data_table.js';
import { button, el, offer, select, writeQuery } from './dom.js';
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
    offer(this.chooser, reply.sweeps, reply.sweep);
    this.chooser.hidden = reply.sweeps.length === 0;
    question.sweep = reply.sweep;
    this.stop.hidden = reply.status !== 'active';
    const runs = reply.rows.flatMap((row) => row.runs.map(([, run]) => run));
    this.compare.hidden = runs.length === 0;
    this.compare.href = `/ui/compare?runs=${runs.slice(0, 1000).join(',')}`;
    this.said.textContent = reply.status ? [`${reply.status}: ${counts(reply.members)} of ${reply.wanted} runs`, reply.reason].filter(Boolean).join('. ') : '';
    if (reply.rows.length) return this.drawPoints(reply);
    this.heads = '';
    this.points.replaceChildren(el('div', { class: 'cl-empty' }, 'Queue a sweep with: chimeralab sweep run FILE'));
  }

  // A new table only where its columns are others: those of another sweep, or of the first test.
  drawPoints({ axes, metric, testMetric, rows }) {
    const heads = [...axes, metric, rows.some((row) => row.test) ? testMetric : ''];
    if (JSON.stringify(heads) !== this.heads) {
      this.heads = JSON.stringify(heads);
      this.table = new DataTable(columns(axes, metric, heads.at(-1)));
      this.points.replaceChildren(this.table.node);
    }
    this.table.draw(rows);
  }
}

const columns = (axes, metric, testMetric) => [
  ...axes.map((axis, i) => ({ key: axis, title: axis, shows: (row) => row.values[i], cell: (row) => String(row.values[i]) })),
  { key: 'validation', title: metric, shows: (row) => [row.validation, row.best], cell: (row) => (row.best
    ? el('span', { class: 'cl-best', title: 'Best on validation' }, format.estimate(row.validation)) : format.estimate(row.validation)) },
  ...(testMetric ? [{ key: 'test', title: testMetric, cell: (row) => format.estimate(row.test) }] : []),
  { key: 'statuses', title: 'Runs', cell: (row) => counts(row.statuses) },
  { key: 'runs', title: 'Seeds', cell: (row) => row.runs.map(([seed, run]) => el('a', { href: `/ui/run?id=${run}`, title: `Run ${run}` }, `${seed} `)) },
];

const counts = (statuses) => Object.entries(statuses).map(([status, count]) => `${count} ${status}`).join(', ');

export function mount(widget) {
  return new SweepTable(widget);
}
