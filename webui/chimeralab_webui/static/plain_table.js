// A table that is drawn once: titles of columns, and rows of cells that are words or nodes.

import { el } from './dom.js';

export const table = (heads, rows) => el('div', { class: 'cl-table-scroll' }, el('table', { class: 'cl-table' },
  el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
  el('tbody', {}, rows.map((cells) => el('tr', {}, cells.map((cell) => el('td', {}, cell)))))));
