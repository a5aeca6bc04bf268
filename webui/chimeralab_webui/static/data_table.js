// A table that is redrawn in place: a cell is replaced only when what it shows has changed, so that a click or a
// focus survives a live update. A column is `{key, title, cell(row) → node or text, sort?, class?}`.

import { el } from './dom.js';

export class DataTable {
  constructor(columns, { onsort, key = (row) => row.id, empty = 'Nothing here' } = {}) {
    Object.assign(this, { columns, key, rows: new Map() });
    this.heads = columns.map((column) => this.head(column, onsort));
    this.body = el('tbody');
    this.empty = el('div', { class: 'cl-empty', hidden: true }, empty);
    this.node = el('div', { class: 'cl-table-scroll' },
      el('table', { class: 'cl-table' }, el('thead', {}, el('tr', {}, this.heads)), this.body), this.empty);
  }

  head(column, onsort) {
    const title = column.headNode || column.title;
    if (!column.sort || !onsort) return el('th', { class: column.class, scope: 'col' }, title);
    const toggle = el('button', { type: 'button', class: 'cl-sort', onclick: () => onsort(column.sort) }, title);
    return el('th', { class: column.class, scope: 'col', data: { sort: column.sort } }, toggle);
  }

  // `order` as the server names it: "name", "-created".
  sorted(order) {
    const name = order.replace(/^-/, '');
    for (const head of this.heads) {
      const on = head.dataset.sort === name;
      head.setAttribute('aria-sort', on ? (order.startsWith('-') ? 'descending' : 'ascending') : 'none');
    }
  }

  draw(rows) {
    this.empty.hidden = rows.length > 0;
    const kept = new Map();
    const nodes = rows.map((row) => {
      const old = this.rows.get(this.key(row));
      const drawn = old || { node: el('tr', { data: { id: this.key(row) } }, this.columns.map((c) => el('td', { class: c.class }))), seen: [] };
      this.columns.forEach((column, i) => {
        const seen = JSON.stringify(column.shows ? column.shows(row) : row[column.key]);
        if (drawn.seen[i] === seen) return;
        drawn.seen[i] = seen;
        const content = column.cell(row);
        drawn.node.children[i].replaceChildren(...(content == null ? [] : [content].flat()));
      });
      kept.set(this.key(row), drawn);
      return drawn.node;
    });
    this.rows = kept;
    if (nodes.length !== this.body.children.length || nodes.some((node, i) => node !== this.body.children[i])) this.body.replaceChildren(...nodes);
  }
}
