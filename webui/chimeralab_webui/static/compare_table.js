// The compared runs: which they are, their colours in the figures, and what was measured of each.

import { Asking } from './asking.js';
import { DataTable } from './data_table.js';
import { el, iconButton, offer, select, writeQuery } from './dom.js';
import * as format from './format.js';
import { Message } from './message.js';
import { miniStrip, statusBadge } from './run_parts.js';

const SHOW = {
  accuracy: (v) => (v == null ? '–' : `${(100 * v).toFixed(1)} %`), tokens_per_second: format.count, peak_memory_bytes: format.bytes, state_bytes: format.bytes, params: format.count,
};

class CompareTable {
  constructor(widget) {
    this.props = widget.props;
    const ids = (new URLSearchParams(location.search).get('runs') || '').split(',').map(Number).filter((id) => Number.isSafeInteger(id) && id > 0);
    this.adder = select([], '', (id) => {
      this.adder.value = '';
      this.pick([...this.asking.question.runs, +id]);
    }, { 'aria-label': 'Add a run', data: { action: 'add-run' } });
    this.contexts = select([], '', (context) => this.asking.ask('pick', { context: +context }), { class: 'cl-input cl-select-small', 'aria-label': 'Context length' });
    this.at = el('label', { class: 'cl-inline', hidden: true }, 'Decode, prefill and state at', this.contexts, 'tokens');
    this.csv = el('a', { class: 'cl-button', download: 'comparison.csv' }, 'CSV');
    this.json = el('a', { class: 'cl-button', download: 'comparison.json' }, 'JSON');
    this.message = new Message();
    this.table = new DataTable(this.columns(), { empty: 'Choose runs to compare: here, or on the page Runs.' });
    widget.host.replaceChildren(el('div', { class: 'cl-runs' },
      el('div', { class: 'cl-row' }, el('h1', {}, 'Compare'), el('div', { class: 'cl-select-bar' }, this.adder, this.csv, this.json)),
      this.message.node, this.table.node, this.at));
    this.asking = new Asking(widget, { runs: [], context: null }, (reply) => this.draw(reply));
    this.pick(ids);
  }

  columns() {
    const figures = this.props.measures.map(({ key, title }) => ({
      key, title, class: 'number', shows: (row) => [row[key], row.best.includes(key)],
      cell: (row) => el('span', { class: row.best.includes(key) ? 'cl-best' : null, title: row.best.includes(key) ? 'Best of these runs' : null }, (SHOW[key] || format.number)(row[key])),
    }));
    return [
      { key: 'name', title: 'Run', class: 'name', shows: (row) => [row.name, row.color, row.mixers], cell: (row) => [
        el('a', { href: `/ui/run?id=${row.id}`, class: 'cl-colored' }, el('i', { class: 'cl-swatch', color: row.color }), row.name),
        el('span', { class: 'cl-under' }, miniStrip(row.mixers, this.props.colors), `#${row.id}`)] },
      { key: 'status', title: 'Status', class: 'wide-only', cell: (row) => statusBadge(row) },
      ...figures,
      { key: 'id', title: '', class: 'tick', cell: (row) => iconButton('close', `Take run ${row.id} out`, () => this.pick(this.asking.question.runs.filter((id) => id !== row.id))) },
    ];
  }

  pick(runs) {
    const all = [...new Set(runs)], chosen = all.slice(0, this.props.most);
    const left = all.length - chosen.length;
    const said = left ? `${this.props.most} runs can be compared at once: the last ${left === 1 ? 'one is' : `${left} are`} left out` : '';
    writeQuery({ runs: chosen.join(',') });
    this.asking.ask('pick', { runs: chosen });
    this.message.show(this.asking.question.rev, said);
  }

  draw(reply) {
    this.message.show(reply.rev, '', { state: reply.error });
    this.table.draw(reply.rows);
    const runs = reply.rows.map((row) => row.id).join(',');
    this.csv.href = `/api/v1/compare.csv?runs=${runs}`;
    this.json.href = `/api/v1/compare?runs=${runs}`;
    this.csv.hidden = this.json.hidden = !runs;
    this.at.hidden = reply.contexts.length === 0;
    offer(this.contexts, reply.contexts, reply.context);
    const others = reply.recent.filter((run) => !reply.rows.some((row) => row.id === run.id));
    offer(this.adder, [{ value: '', label: 'Add a run …' }, ...others.map((run) => ({ value: run.id, label: `#${run.id} ${run.name}` }))], '');
  }
}

export function mount(widget) {
  return new CompareTable(widget);
}
