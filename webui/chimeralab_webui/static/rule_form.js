// "Every N layers" as a sentence with gaps. It writes pattern text, which the server reads like any other.

import { button, el, select } from './dom.js';

export function ruleForm(palette, onapply) {
  const names = palette.mixers.map((entry) => ({ value: entry.name, label: entry.title }));
  const number = (value, min, label) => el('input', { type: 'number', class: 'cl-input cl-number', value: String(value), min: String(min), step: '1', 'aria-label': label });
  const period = number(3, 1, 'Layers in a cycle'), offset = number(2, 0, 'Starting at layer'), layers = number(12, 1, 'Number of layers');
  const nothing = () => {};
  const chosen = (name, fallback, label) => select(names, names.some((n) => n.value === name) ? name : fallback, nothing, { 'aria-label': label });
  const mixer = chosen('attention', names[0]?.value, 'Mixer of the rule');
  const base = chosen('mamba2', names[1]?.value ?? names[0]?.value, 'Mixer of the other layers');
  const partial = el('input', { type: 'checkbox', class: 'cl-switch', role: 'switch' });
  const apply = () => onapply(
    `every(${period.value}, ${mixer.value}, offset=${offset.value}, base=${base.value}${partial.checked ? ', truncate=true' : ''}) x${layers.value}`);
  period.addEventListener('input', () => { offset.value = String(Math.max(0, period.value - 1)); });
  return el('div', { class: 'cl-rule', hidden: true },
    el('div', { class: 'cl-sentence' }, 'Every', period, 'layers', mixer, 'starting at layer', offset, ', otherwise', base, ', on', layers, 'layers'),
    el('div', { class: 'cl-row' },
      el('label', { class: 'cl-inline' }, partial, 'Allow a partial cycle'),
      button('Apply', apply, { class: 'cl-button primary', data: { action: 'apply-rule' } })));
}
