// Runs that differ by seed alone, a line for each stack and task; and stacks against each other.

import { el } from './dom.js';
import * as format from './format.js';
import { table } from './plain_table.js';

export function mount({ host, onReply }) {
  let drawn = '';
  onReply((reply) => {
    if (JSON.stringify(reply) === drawn) return;
    drawn = JSON.stringify(reply);
    const { metrics, groups, pairs } = reply;
    const body = groups.length
      ? [table(['Stack', 'Task', 'Runs', ...metrics], groups.map((group) => [group.pattern, group.task, group.runs, ...group.values.map(format.estimate)])),
        pairs.length ? table(['a', 'b', `${pairs[0].metric}: a − b`, 'p', 'p (Holm)'], pairs.map((pair) => [pair.a, pair.b, format.estimate(pair.difference), format.number(pair.p, 3), format.number(pair.adjusted, 3)])) : null,
        el('div', { class: 'cl-hint' }, 'Means with 95 % bootstrap intervals over the seeds that were completed; p of paired sign flips over tasks and seeds')]
      : el('div', { class: 'cl-empty' }, 'Runs that differ by seed alone are shown here as one');
    host.replaceChildren(el('div', { class: 'cl-runs' }, el('h2', {}, 'Over seeds'), body));
  });
}
