import { DataTable } from './data_table.js';
import { el } from './dom.js';
import { number } from './format.js';

export function mount({ host, send, onReply }) {
  const table = new DataTable([
    { key: 'op', title: 'Op', class: 'name', shows: (k) => [k.op, k.first], cell: (k) => (k.first ? el('code', {}, breakable(k.op)) : '') },
    { key: 'tier', title: 'Kernel', cell: (k) => k.tier },
    { key: 'reason', title: 'On this machine', shows: (k) => JSON.stringify([k.reason, k.taken, k.times]), cell: (k) => el('div', {}, k.reason
      ? el('span', { class: 'cl-other' }, k.reason) : el('span', { class: 'cl-ok' }, k.taken ? 'taken' : 'can serve'),
      el('div', { class: 'cl-hint narrow-only' }, times(k))) },
    { key: 'times', title: 'Forward and backward pass', class: 'wide-only', shows: (k) => JSON.stringify(k.times), cell: (k) => el('div', {}, times(k)) },
    { key: 'package', title: 'Package', class: 'wide-only', cell: (k) => k.package },
  ], { key: (k) => `${k.op} ${k.tier}`, empty: 'Trying each kernel with a small call …' });
  host.replaceChildren(el('div', { class: 'cl-runs' }, el('h1', {}, 'Kernels'),
    el('p', { class: 'cl-hint' }, 'Implementations of each op, best first. The first that can serve is taken; a run can pin another. ',
      el('code', {}, 'chimeralab kernels --bench'), ' times them on this machine.'), table.node));
  onReply((reply) => {
    const seen = new Set(), served = new Set();
    table.draw(reply.kernels.map((kernel) => {
      const first = !seen.has(kernel.op), taken = !kernel.reason && !served.has(kernel.op);
      seen.add(kernel.op);
      if (taken) served.add(kernel.op);
      return { ...kernel, first, taken };
    }));
  });
  send('ask', { rev: 1 });
}

const times = (kernel) => kernel.times.filter((t) => t.both_ms).map((t) => el('div', {}, measured(t)));

// Milliseconds, and times the least that the bytes allow.
const measured = (t) => `${t.form ? t.form + ': ' : ''}${number(t.both_ms, 3)} ms at ${t.size}, ${number(t.both_ms / t.floor_both_ms, 2)} × floor`;

// A long name may be broken after an underscore.
const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, el('wbr')]);
