import { el } from './dom.js';

export function mount({ host, props }) {
  host.replaceChildren(el('div', { class: 'cl-panel cl-broken' },
    el('h1', {}, `The page “${props.name}” is broken`),
    el('p', { class: 'cl-hint' }, 'Its plugin raised an error while the page was built. The other pages are not affected.'),
    el('pre', { class: 'cl-mono' }, props.traceback)));
}
