// A form drawn from a JSON schema: numbers with their bounds, switches, choices, and what may be left empty.
// It reports `onchange(key, value)`; `undefined` means "back to the default".

import { el } from './dom.js';

// The plain type behind `$ref`, `allOf` and `anyOf [X, null]`.
export function resolve(field, root) {
  let found = { ...field }, nullable = false;
  for (let depth = 0; depth < 8; depth++) {
    const inner = found.$ref ? root.$defs?.[found.$ref.split('/').pop()] : found.allOf?.length === 1 ? found.allOf[0] : null;
    if (inner) { const { $ref, allOf, ...rest } = found; found = { ...inner, ...rest }; continue; }
    const choices = found.anyOf;
    if (choices) {
      nullable ||= choices.some((choice) => choice.type === 'null');
      const { anyOf, ...rest } = found;
      const first = choices.find((choice) => choice.type !== 'null') || {};
      found = { ...first, ...rest };
      continue;
    }
    break;
  }
  if (found.const !== undefined && !found.enum) found.enum = [found.const];
  return { ...found, nullable };
}

export const labelOf = (key) => (key.charAt(0).toUpperCase() + key.slice(1)).replaceAll('_', ' ');

export class SchemaForm {
  constructor(schema, { onchange, prefix = '', only = null, except = [], labels = {} }) {
    this.onchange = onchange;
    this.fields = new Map();
    this.node = el('div', { class: 'cl-form' });
    for (const [key, raw] of Object.entries(schema.properties || {})) {
      if ((only && !only.includes(key)) || except.includes(key)) continue;
      const field = this.draw(key, resolve(raw, schema), prefix + key, labels[key]);
      this.fields.set(key, field);
      this.node.append(field.node);
    }
  }

  // Shows values (a missing one shows its default) without disturbing the field that is being typed in.
  set(values) {
    for (const [key, field] of this.fields) field.set(values[key]);
  }

  // `errors` maps a key to what is wrong with it.
  errors(errors) {
    for (const [key, field] of this.fields) {
      field.message.textContent = errors[key] || '';
      field.message.hidden = !errors[key];
      field.node.classList.toggle('bad', !!errors[key]);
    }
  }

  draw(key, field, place, label) {
    const message = el('div', { class: 'cl-field-error', role: 'alert', hidden: true });
    const report = (value) => this.onchange(key, same(value, field.default) ? undefined : value);
    const control = controlFor(field, report);
    const toggle = field.type === 'boolean';
    const title = el('span', { class: 'cl-label' }, label || labelOf(key));
    const hint = field.description ? el('span', { class: 'cl-hint' }, field.description) : null;
    const node = el('label', { class: toggle ? 'cl-field cl-field-switch' : 'cl-field', data: { place } },
      ...(toggle ? [el('span', { class: 'cl-switch-text' }, title, hint), control.node] : [title, control.node, hint]), message);
    return { node, message, set: (value) => control.set(value === undefined ? field.default : value) };
  }
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const typing = (node) => document.activeElement === node;

function controlFor(field, report) {
  if (field.enum) return choice(field, report);
  if (field.type === 'boolean') return toggle(report);
  if (field.type === 'integer' || field.type === 'number') return numeric(field, report);
  if (field.type === 'string') return text(field, report);
  return json(field, report);
}

function choice(field, report) {
  const values = field.nullable && !field.enum.includes(null) ? [null, ...field.enum] : field.enum;
  const node = el('select', { class: 'cl-input', onchange: () => report(values[node.selectedIndex]) },
    values.map((value) => el('option', {}, value === null ? 'automatic' : String(value))));
  return { node, set: (value) => { node.selectedIndex = values.indexOf(value ?? null); } };
}

function toggle(report) {
  const node = el('input', { type: 'checkbox', class: 'cl-switch', role: 'switch', onchange: () => report(node.checked) });
  return { node, set: (value) => { node.checked = !!value; } };
}

function numeric(field, report) {
  const whole = field.type === 'integer';
  const step = field.multipleOf || (whole ? 1 : 'any');
  const node = el('input', {
    type: 'number', class: 'cl-input cl-number', inputmode: whole ? 'numeric' : 'decimal', step: String(step),
    min: bound(field.minimum ?? field.exclusiveMinimum), max: bound(field.maximum ?? field.exclusiveMaximum),
    placeholder: field.nullable ? 'automatic' : null,
    oninput: () => {
      if (node.value === '') report(node.validity.badInput ? '?' : field.nullable ? null : undefined);
      else report(Number(node.value)); // out of bounds too: the server says what is wrong with it
    },
  });
  return { node, set: (value) => { if (!typing(node)) node.value = written(value); } };
}

// Small numbers as people write them: 1e-5, not 0.00001.
const written = (value) => (typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : value ?? '');

const bound = (value) => (value == null ? null : String(value));

function text(field, report) {
  const node = el('input', {
    type: 'text', class: 'cl-input', spellcheck: false, placeholder: field.nullable ? 'automatic' : null,
    oninput: () => report(node.value === '' && field.nullable ? null : node.value),
  });
  return { node, set: (value) => { if (!typing(node)) node.value = value ?? ''; } };
}

// Lists and objects are written as JSON; a list of plain words may be written with commas.
function json(field, report) {
  const node = el('input', {
    type: 'text', class: 'cl-input cl-mono', spellcheck: false, placeholder: field.nullable ? 'automatic' : 'JSON',
    onchange: () => {
      const written = node.value.trim();
      if (written === '') return report(field.nullable ? null : undefined);
      try { return report(JSON.parse(written)); } catch { /* not JSON: a list of words, or the server's to refuse */ }
      return report(field.type === 'array' ? written.split(',').map((word) => word.trim()).filter(Boolean) : written);
    },
  });
  return { node, set: (value) => { if (!typing(node)) node.value = value == null ? '' : JSON.stringify(value); } };
}
