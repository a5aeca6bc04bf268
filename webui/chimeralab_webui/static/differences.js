// Where the specs of compared runs differ: a line for each field, a column for each run.

import { el } from './dom.js';

export function mount({ host, onReply }) {
  let drawn = '';
  onReply((reply) => {
    if (JSON.stringify(reply) === drawn) return;
    drawn = JSON.stringify(reply);
    const { names, fields } = reply;
    const body = fields.length
      ? el('div', { class: 'cl-table-scroll' }, el('table', { class: 'cl-table' },
        el('thead', {}, el('tr', {}, el('th', {}, 'Field'), names.map((name) => el('th', {}, name)))),
        el('tbody', {}, fields.map(({ field, values }) => el('tr', {}, el('td', { class: 'cl-mono' }, field), values.map((value) => el('td', {}, show(value))))))))
      : el('div', { class: 'cl-empty' }, names.length < 2 ? 'Two runs or more can differ' : 'The specs differ in nothing but their layers and names');
    host.replaceChildren(el('div', { class: 'cl-runs' }, el('h2', {}, 'What differs'), body));
  });
}

const show = (value) => (value == null ? '–' : typeof value === 'string' ? value : JSON.stringify(value));
