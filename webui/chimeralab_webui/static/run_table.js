// The list of runs. Filters, order and page are the value and stand in the address; rows come in `reply`.

import { Asking } from './asking.js';
import { DataTable } from './data_table.js';
import { button, debounce, el, select, writeQuery } from './dom.js';
import * as format from './format.js';
import { Message } from './message.js';
import { miniStrip, progressBar, statusBadge } from './run_parts.js';

const STATUSES = [['', 'All runs'], ['active', 'Active'], ['queued', 'Queued'], ['running', 'Running'], ['completed', 'Completed'], ['failed', 'Failed'], ['cancelled', 'Cancelled'], ['pruned', 'Pruned']];

class RunTable {
  constructor(widget) {
    Object.assign(this, { props: widget.props, chosen: new Set(), rows: [], total: 0 });
    const address = new URLSearchParams(location.search);
    this.wanted = {
      text: address.get('text') || '', status: address.get('status') || '', task: address.get('task') || '', archived: address.get('archived') === 'true',
      order_by: address.get('order_by') || '-created', page: Math.max(0, (+address.get('page') || 1) - 1), per_page: 25, act: null,
    };
    this.build(widget.host);
    this.asking = new Asking(widget, this.wanted, (reply) => this.draw(reply), { again: true });
    this.ask();
  }

  build(host) {
    const { wanted, props } = this;
    const search = el('input', { type: 'search', class: 'cl-input', placeholder: 'Name, pattern or note', 'aria-label': 'Search', spellcheck: false, oninput: debounce(200, () => this.want({ text: search.value })) });
    search.value = wanted.text;
    const status = select(STATUSES.map(([value, label]) => ({ value, label })), wanted.status, (value) => this.want({ status: value }), { 'aria-label': 'Status' });
    const task = select([{ value: '', label: 'All tasks' }, ...props.tasks], wanted.task, (value) => this.want({ task: value }), { 'aria-label': 'Task' });
    const archived = select([{ value: 'false', label: 'Not archived' }, { value: 'true', label: 'Archived' }], String(wanted.archived), (value) => this.want({ archived: value === 'true' }), { 'aria-label': 'Archive' });
    this.table = new DataTable(this.columns(), { onsort: (name) => this.sort(name), empty: 'No run fits. Compose a stack and launch it.' });
    this.message = new Message();
    this.acts = {
      compare: button('Compare', () => { location.href = `/ui/compare?runs=${[...this.chosen].join(',')}`; }, { class: 'cl-button primary', data: { action: 'compare' } }),
      cancel: button('Cancel', () => this.act('cancel'), { data: { action: 'cancel' } }),
      retry: button('Retry', () => this.act('retry'), { data: { action: 'retry' } }),
      archive: button('Archive', () => this.act(this.wanted.archived ? 'restore' : 'archive'), { data: { action: 'archive' } }),
    };
    this.selected = el('span', { class: 'cl-count' });
    this.bar = el('div', { class: 'cl-select-bar' }, Object.values(this.acts), this.selected);
    this.summary = el('span', { class: 'cl-hint' });
    this.before = button('Previous', () => this.want({ page: this.wanted.page - 1 }, false));
    this.after = button('Next', () => this.want({ page: this.wanted.page + 1 }, false));
    host.replaceChildren(el('div', { class: 'cl-runs' },
      el('div', { class: 'cl-row' }, el('h1', {}, 'Runs'), this.bar),
      el('div', { class: 'cl-filters' }, search, status, task, archived),
      this.message.node, this.table.node,
      el('div', { class: 'cl-row' }, this.summary, el('div', { class: 'cl-pager' }, this.before, this.after))));
    this.refresh();
  }

  columns() {
    const all = el('input', { type: 'checkbox', class: 'cl-check', 'aria-label': 'Select all on this page', onchange: () => {
      for (const row of this.rows) all.checked ? this.chosen.add(row.id) : this.chosen.delete(row.id);
      this.refresh();
    } });
    this.all = all;
    const figure = (key, title, sort, show) => ({ key, title, sort, class: 'number', cell: (row) => show(row[key]) });
    return [
      { key: 'id', headNode: all, class: 'tick', cell: (row) => this.tick(row) },
      { key: 'status', title: 'Status', sort: 'status', class: 'status', shows: (row) => [row.status, row.cancelling, row.reason], cell: (row) => statusBadge(row) },
      { key: 'name', title: 'Run', sort: 'name', class: 'name', shows: (row) => [row.name, row.mixers, row.tags], cell: (row) => [
        el('a', { href: `/ui/run?id=${row.id}`, title: row.name }, row.name),
        el('span', { class: 'cl-under' }, miniStrip(row.mixers, this.props.colors), el('span', { class: 'cl-under-id' }, `#${row.id}`), row.tags.map((tag) => el('span', { class: 'cl-tag' }, tag)))] },
      { key: 'task', title: 'Task', sort: 'task', class: 'wide-only', cell: (row) => row.task },
      { key: 'progress', title: 'Progress', sort: 'step', class: 'progress', shows: (row) => [row.step, row.total_steps, row.status], cell: (row) => [
        progressBar(row.step, row.total_steps, row.status), el('span', { class: 'cl-under' }, `${row.step} / ${row.total_steps}`)] },
      figure('loss', 'Loss', 'metric:validation/loss', (v) => format.number(v, 4)),
      figure('bits_per_byte', 'Bits/byte', 'metric:validation/bits_per_byte', (v) => format.number(v, 4)),
      { ...figure('accuracy', 'Accuracy', 'metric:validation/accuracy', (v) => (v == null ? '–' : (100 * v).toFixed(1) + ' %')), class: 'number wide-only' },
      figure('tokens_per_second', 'Tokens/s', 'tokens_per_second', (v) => (v ? format.count(v) : '–')),
      { ...figure('params', 'Params', null, format.count), class: 'number wide-only' },
      { key: 'created_at', title: 'Created', sort: 'created', class: 'number wide-only', shows: (row) => format.ago(row.created_at), cell: (row) => el('time', { title: format.clock(row.created_at) }, format.ago(row.created_at)) },
    ];
  }

  tick(row) {
    const box = el('input', { type: 'checkbox', class: 'cl-check', 'aria-label': `Select run ${row.id}`, onchange: () => {
      box.checked ? this.chosen.add(row.id) : this.chosen.delete(row.id);
      this.refresh();
    } });
    box.checked = this.chosen.has(row.id);
    return box;
  }

  sort(name) {
    const now = this.wanted.order_by;
    const falling = ['created', 'step', 'tokens_per_second', 'metric:validation/accuracy'].includes(name);
    this.want({ order_by: now === name ? `-${name}` : now === `-${name}` ? name : falling ? `-${name}` : name });
  }

  // Over pages and orders the selection stands; what another filter hides is not to be acted on.
  want(change, fromFirst = true) {
    if (['text', 'status', 'task', 'archived'].some((filter) => filter in change)) this.chosen.clear();
    Object.assign(this.wanted, fromFirst ? { page: 0 } : {}, change);
    this.refresh();
    this.ask();
  }

  ask() {
    const { text, status, task, archived, order_by, page } = this.wanted;
    writeQuery({ text, status, task, archived: archived ? 'true' : '', order_by: order_by === '-created' ? '' : order_by, page: page ? page + 1 : '' });
    this.asking.ask('query');
  }

  act(action) {
    this.asking.ask('act', {}, { act: { action, ids: [...this.chosen] } });
    if (action === 'archive' || action === 'restore') this.chosen.clear(); // they leave the list
    this.refresh();
  }

  draw(reply) {
    if (reply.rows) {
      this.rows = reply.rows;
      this.total = reply.total;
      this.table.draw(reply.rows);
    }
    this.message.show(reply.rev, [reply.message, reply.error?.reason].filter(Boolean).join('. '), { bad: !!reply.error });
    this.refresh();
  }

  refresh() {
    const { page, per_page: per, order_by: order, archived } = this.wanted;
    this.table.sorted(order);
    this.summary.textContent = this.total ? `${page * per + 1}–${Math.min(this.total, (page + 1) * per)} of ${this.total}` : '';
    this.before.disabled = page === 0;
    this.after.disabled = (page + 1) * per >= this.total;
    this.bar.classList.toggle('idle', !this.chosen.size);
    this.selected.textContent = this.chosen.size ? `${this.chosen.size} selected` : '';
    for (const act of Object.values(this.acts)) act.disabled = !this.chosen.size;
    this.acts.archive.textContent = archived ? 'Restore' : 'Archive';
    this.all.checked = this.rows.length > 0 && this.rows.every((row) => this.chosen.has(row.id));
    for (const box of this.table.body.querySelectorAll('.cl-check')) box.checked = this.chosen.has(+box.closest('tr').dataset.id);
  }
}

export function mount(widget) {
  return new RunTable(widget);
}
