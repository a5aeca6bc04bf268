// What to train the stack on, for how long and where. The value is the form; `reply` brings the launched runs or
// the error, shown beside the field that its place names.

import { button, debounce, el, select } from './dom.js';
import { resolve, SchemaForm } from './schema_form.js';

class LaunchForm {
  constructor({ host, props, send, onReply, onValue }) {
    Object.assign(this, { host, props, send, rev: 0 });
    this.changed = debounce(200, () => this.post('revise'));
    this.root = el('div', { class: 'cl-launch' });
    host.replaceChildren(this.root);
    this.load({});
    onValue((value) => this.load(value));
    onReply((reply) => this.answer(reply));
  }

  load(value) {
    this.value = { name: '', task: { name: this.props.tasks[0]?.name, options: {} }, train: {}, start: {}, seeds: '0', resources: {}, kernels: {}, ...structuredClone(value) };
    this.draw();
  }

  draw() {
    const { value, props } = this;
    const run = props.schema;
    const part = (name) => ({ ...resolve(run.properties[name], run), $defs: run.$defs });
    const train = part('train'), resources = part('resources'), start = part('start');
    const edit = (target) => (key, given) => {
      if (given === undefined) delete target[key];
      else target[key] = given;
      this.changed();
    };
    this.basic = new SchemaForm(train, { prefix: 'train.', only: props.basic, labels: props.labels, onchange: edit(value.train) });
    this.more = new SchemaForm(train, { prefix: 'train.', except: props.basic, labels: props.labels, onchange: edit(value.train) });
    this.resources = new SchemaForm(resources, { prefix: 'resources.', onchange: edit(value.resources), labels: { cpus: 'CPUs', gpus: 'GPUs' } });
    this.start = new SchemaForm(start, { prefix: 'start.', onchange: edit(value.start) });
    const forms = [[this.basic, value.train], [this.more, value.train], [this.resources, value.resources], [this.start, value.start]];
    for (const [form, values] of forms) form.set(values);
    this.taskArea = el('div', { class: 'cl-contents' });
    this.taskMore = el('details', { class: 'cl-more' });
    this.message = el('div', { class: 'cl-message', role: 'status', 'aria-live': 'polite', hidden: true });
    this.launchButton = button('Launch', () => this.launch(), { class: 'cl-button primary large', data: { action: 'launch' } });
    this.root.replaceChildren(
      el('div', { class: 'cl-panel-head' }, el('h2', {}, 'Launch')),
      el('div', { class: 'cl-form' },
        plain('name', 'Name', 'Left empty, the run is named after its pattern', value.name, (text) => { value.name = text; }),
        field('task', 'Task', select(props.tasks.map((t) => ({ value: t.name, label: t.title || t.name })), value.task.name, (name) => {
          value.task = { name, options: {} };
          this.drawTask();
          this.changed();
        })),
        this.taskArea, ...this.basic.node.children,
        plain('seed', 'Seeds', 'One run for each: 0, 1, 2 or 0-4', value.seeds, (text) => { value.seeds = text; }),
        ...this.resources.node.children),
      this.taskMore,
      el('details', { class: 'cl-more' }, el('summary', {}, 'Optimizer, evaluation and checkpoints'), this.more.node),
      el('details', { class: 'cl-more' }, el('summary', {}, 'Weights to start from'), this.start.node),
      el('details', { class: 'cl-more' }, el('summary', {}, 'Kernels'), this.kernelFields()),
      el('div', { class: 'cl-launch-end' }, this.launchButton, this.message));
    this.drawTask();
  }

  // The first option and the length stand in sight, the others behind a fold.
  drawTask() {
    const { task } = this.value;
    const entry = this.props.tasks.find((t) => t.name === task.name);
    const schema = entry?.schema || {};
    const inSight = [...new Set([Object.keys(schema.properties || {})[0], 'sequence_length'])];
    const onchange = (key, given) => {
      if (given === undefined) delete task.options[key];
      else task.options[key] = given;
      this.changed();
    };
    const first = new SchemaForm(schema, { prefix: 'task.options.', only: inSight, onchange });
    const rest = new SchemaForm(schema, { prefix: 'task.options.', except: inSight, onchange });
    for (const form of [first, rest]) form.set(task.options);
    this.taskArea.replaceChildren(...first.node.children);
    this.taskMore.hidden = !rest.fields.size;
    this.taskMore.replaceChildren(el('summary', {}, `${entry?.title || task.name}: more options`), entry?.summary ? el('p', { class: 'cl-hint' }, entry.summary) : '', rest.node);
  }

  kernelFields() {
    const { kernels } = this.value;
    return el('div', { class: 'cl-form' }, Object.entries(this.props.kernels).map(([op, tiers]) =>
      field(`kernels.${op}`, op.replaceAll('_', ' '), select([{ value: '', label: 'best available' }, ...tiers], kernels[op] || '', (tier) => {
        if (tier) kernels[op] = tier;
        else delete kernels[op];
      }))));
  }

  post(event) {
    this.rev++;
    this.send(event, { rev: this.rev, ...structuredClone(this.value) });
  }

  launch() {
    this.launchButton.disabled = true;
    this.clear();
    this.post('launch');
  }

  clear() {
    this.message.hidden = true;
    this.root.querySelectorAll('.cl-field.bad').forEach((node) => node.classList.remove('bad'));
    this.root.querySelectorAll('.cl-field-error').forEach((node) => { node.hidden = true; });
  }

  answer(reply) {
    this.launchButton.disabled = false;
    this.clear();
    this.message.hidden = false;
    this.message.className = reply.error ? 'cl-message bad' : 'cl-message good';
    const { launched = [], error } = reply; // of several seeds the first may be queued although a later one is refused
    const said = error ? [launched.length ? 'The others are not queued. ' : 'Not queued. ', this.showError(error)] : [];
    this.message.replaceChildren(...queued(launched), ...said);
  }

  // Shows an error beside the field whose place is the longest beginning of the error's place; without such a field
  // gives its words for the message below.
  showError(error) {
    const fields = [...this.root.querySelectorAll('[data-place]')].filter((node) => error.place === node.dataset.place || error.place.startsWith(`${node.dataset.place}.`));
    const at = fields.sort((a, b) => b.dataset.place.length - a.dataset.place.length)[0];
    const text = [error.reason, error.remedy].filter(Boolean).join('. ');
    if (!at) return error.place ? `${error.place}: ${text}` : text;
    at.closest('details')?.setAttribute('open', '');
    at.classList.add('bad');
    const slot = at.querySelector('.cl-field-error');
    slot.hidden = false;
    slot.textContent = text;
    at.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
    return '';
  }
}

function queued(runs) {
  if (!runs.length) return [];
  const links = runs.flatMap((run, i) => [i ? ', ' : '', el('a', { href: `/ui/run?id=${run.id}` }, `${run.name} (${run.id})`)]);
  const compare = runs.length > 1 ? [' · ', el('a', { href: `/ui/compare?runs=${runs.map((run) => run.id).join(',')}` }, 'Compare')] : [];
  return [runs.length === 1 ? 'Queued: ' : `${runs.length} runs queued: `, ...links, ...compare, '. '];
}

function field(place, label, control, hint) {
  return el('label', { class: 'cl-field', data: { place } }, el('span', { class: 'cl-label' }, label), control,
    hint ? el('span', { class: 'cl-hint' }, hint) : null, el('div', { class: 'cl-field-error', role: 'alert', hidden: true }));
}

function plain(place, label, hint, value, onedit) {
  const node = el('input', { type: 'text', class: 'cl-input', spellcheck: false, oninput: () => onedit(node.value) });
  node.value = value ?? '';
  return field(place, label, node, hint);
}

export function mount(widget) {
  return new LaunchForm(widget);
}
