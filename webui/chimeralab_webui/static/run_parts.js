// Small drawings of a run that several pages share.

import { el } from './dom.js';

export function statusBadge(run) {
  const text = run.cancelling ? 'cancelling' : run.status;
  return el('span', { class: `cl-status ${run.status}`, title: run.reason || null }, text);
}

// A stack as a row of thin coloured bars.
export function miniStrip(mixers, colors) {
  return el('span', { class: 'cl-mini', 'aria-hidden': 'true' }, mixers.map((name) => el('i', { color: colors[name] || '' })));
}

export function progressBar(done, total, status) {
  const share = total ? Math.min(1, done / total) : 0;
  const bar = el('i');
  bar.style.width = `${(100 * share).toFixed(1)}%`;
  return el('span', { class: `cl-progress ${status}`, role: 'progressbar', 'aria-valuenow': String(Math.round(100 * share)), 'aria-valuemin': '0', 'aria-valuemax': '100' }, bar);
}
