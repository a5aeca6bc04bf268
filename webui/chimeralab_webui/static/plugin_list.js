// Every plugin with its package and state; what it provides, by kind, opens on a click.

import { el } from './dom.js';

const MANY = { mixer: 'mixers', 'feed-forward': 'feed-forwards', task: 'tasks', kernel: 'kernels', preset: 'presets', page: 'pages', study: 'studies' };
const LOOK = { active: 'cl-ok', broken: 'cl-problem' };

export function mount({ host, send, onReply }) {
  const list = el('div', { class: 'cl-plugins' }, el('div', { class: 'cl-empty' }, 'Looking …'));
  host.replaceChildren(el('div', { class: 'cl-runs' }, el('h1', {}, 'Plugins'),
    el('p', { class: 'cl-hint' }, 'Everything that can be swapped is a plugin. A broken one is listed here and harms no other.'), list));
  onReply((reply) => list.replaceChildren(...reply.plugins.map(plugin)));
  send('ask', { rev: 1 });
}

function plugin(info) {
  const kinds = Map.groupBy(info.parts, (part) => part.kind);
  return el('section', { class: 'cl-plugin', data: { plugin: info.name } },
    el('div', { class: 'cl-plugin-head' }, el('h2', {}, info.name), el('span', { class: LOOK[info.state] || 'cl-other' }, info.state),
      el('span', { class: 'cl-plugin-package' }, [info.package, info.version].filter(Boolean).join(' '))),
    info.error ? broken(info) : null,
    [...kinds].map(([kind, parts]) => el('details', { class: 'cl-parts', open: parts.length === 1 },
      el('summary', {}, `${parts.length} ${parts.length === 1 ? kind : MANY[kind] || kind}`,
        parts.length > 1 ? el('span', { class: 'cl-parts-names' }, parts.map((part) => part.title || part.name).join(' · ')) : null),
      el('ul', {}, (kind === 'kernel' ? byOp(parts) : parts).map(drawn)))));
}

// The last line of a traceback says what is wrong; the rest is for the author.
function broken({ error }) {
  const says = error.trim().split('\n').pop();
  return el('details', { class: 'cl-traceback' }, el('summary', { class: 'cl-problem' }, says), el('pre', { class: 'cl-mono' }, error));
}

function drawn(part) {
  return el('li', { class: 'cl-provided', data: { name: part.name } },
    el('div', { class: 'cl-provided-name' }, part.color ? el('i', { class: 'cl-swatch', color: part.color }) : null,
      el('strong', {}, part.title || part.name), part.title && part.title !== part.name ? el('code', {}, part.name) : null),
    el('div', { class: 'cl-provided-about' },
      part.summary ? (part.kind === 'preset' ? el('code', {}, part.summary) : el('span', {}, part.summary)) : null,
      part.sizes?.length ? el('span', { class: 'cl-hint' }, `Sizes: ${part.sizes.join(', ')}`) : null,
      part.options?.length ? el('details', {}, el('summary', { class: 'cl-hint' }, `${part.options.length} ${part.options.length === 1 ? 'option' : 'options'}`), options(part.options)) : null),
    el('div', { class: 'cl-provided-source' }, part.source ? source(part.source) : null));
}

// What has no default, or one that its description tells, stands alone.
const options = (list) => el('dl', { class: 'cl-options' }, list.map(({ name, default: value, description }) => [
  el('dt', {}, el('code', {}, value == null ? name : `${name} = ${JSON.stringify(value)}`)), el('dd', {}, description)]));

// A source is an address, words, or words with addresses in them. Only web addresses become links.
function source(text) {
  if (!/^https?:\/\/\S+$/.test(text)) return el('span', { class: 'cl-hint' }, text);
  const short = text.replace(/^https?:\/\/(www\.)?/, '').replace(/^arxiv\.org\/abs\//, 'arXiv ').replace(/\/$/, '');
  return el('a', { href: text, target: '_blank', rel: 'noopener noreferrer' }, short);
}

// Kernels are named op/tier: one line an op, with its tiers.
function byOp(parts) {
  const ops = Map.groupBy(parts, (part) => part.name.split('/')[0]);
  return [...ops].map(([op, kernels]) => ({ kind: 'kernel', name: op, summary: kernels.map((kernel) => kernel.name.split('/')[1]).join(', ') }));
}
