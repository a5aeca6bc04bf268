import { el, iconButton } from './dom.js';

export function mount({ host, props, send, onReply }) {
  const here = props.current;
  const links = props.pages.map((page) =>
    el('a', { href: page.href, class: 'cl-nav-link', 'aria-current': page.path === here ? 'page' : null }, page.name));
  const cluster = el('a', { class: 'cl-cluster', href: '/ui/runs', hidden: true });
  const toggle = iconButton('sun', 'Light or dark', () => {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem('chimera-theme', dark ? 'dark' : 'light');
  });
  host.replaceChildren(
    el('div', { class: 'cl-header' },
      el('a', { class: 'cl-brand', href: '/ui/', 'aria-label': 'Chimera Lab' },
        el('span', { class: 'cl-mark', 'aria-hidden': 'true' }, el('i'), el('i'), el('i')), el('span', {}, 'Chimera Lab')),
      el('nav', { class: 'cl-nav', 'aria-label': 'Pages' }, links),
      el('div', { class: 'cl-header-end' }, cluster, toggle)));
  const current = host.querySelector('[aria-current]'); // on a phone the list of pages scrolls
  if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 16;
  onReply((reply) => {
    cluster.hidden = false;
    cluster.textContent = reply.text;
    cluster.title = reply.title;
    cluster.classList.toggle('bad', !!reply.bad);
  });
  send('ask', { rev: 1 });
}
