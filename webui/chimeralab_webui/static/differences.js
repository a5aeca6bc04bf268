// Where the specs of compared runs differ: a line for each field, a column for each run.

import { el } from './dom.js';
import { table } from './plain_table.js';

export function mount({ host, onReply }) {
  let drawn = '';
  onReply((reply) => {
    if (JSON.stringify(reply) === drawn) return;
    drawn = JSON.stringify(reply);
    const { names, fields } = reply;
    const body = fields.length
      ? table(['Field', ...names], fields.map(({ field, values }) => [el('span', { class: 'cl-mono' }, field), ...values.map(show)]))
      : el('div', { class: 'cl-empty' }, names.length < 2 ? 'Two runs or more can differ' : 'The specs differ in nothing but their layers and what they are called');
    host.replaceChildren(el('div', { class: 'cl-runs' }, el('h2', {}, 'What differs'), body));
  });
}

const show = (value) => (value == null ? '–' : typeof value === 'string' ? value : JSON.stringify(value));
