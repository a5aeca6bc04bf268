import { DataTable } from './data_table.js';
import { el } from './dom.js';

export function mount({ host, send, onReply }) {
  const table = new DataTable([
    { key: 'name', title: 'Plugin', class: 'name', cell: (p) => p.name },
    { key: 'state', title: 'State', cell: (p) => el('span', { class: p.state === 'active' ? 'cl-ok' : p.state === 'broken' ? 'cl-problem' : 'cl-other' }, p.state) },
    { key: 'package', title: 'Package', class: 'nowrap', shows: (p) => [p.package, p.version], cell: (p) => `${p.package} ${p.version}` },
    { key: 'provides', title: 'Provides', shows: (p) => [p.provides, p.error], cell: (p) => [
      p.provides.join(', ') || '–',
      p.error ? el('details', {}, el('summary', {}, p.error.trim().split('\n').pop()), el('pre', { class: 'cl-mono' }, p.error)) : ''] },
  ], { key: (p) => p.name, empty: 'Looking …' });
  host.replaceChildren(el('div', { class: 'cl-runs' }, el('h1', {}, 'Plugins'),
    el('p', { class: 'cl-hint' }, 'Everything that can be swapped is a plugin. A broken one is listed here and harms no other.'), table.node));
  onReply((reply) => table.draw(reply.plugins));
  send('ask', { rev: 1 });
}
