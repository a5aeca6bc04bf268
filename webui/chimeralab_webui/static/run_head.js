// A run's name, state and figures, and what can be done with it. The value names the run; `reply` describes it.

import { Asking } from './asking.js';
import { button, el, writeQuery } from './dom.js';
import * as format from './format.js';
import { Message } from './message.js';
import { RunLabels } from './run_labels.js';
import { miniStrip, progressBar, statusBadge } from './run_parts.js';

const ACTIVE = ['queued', 'starting', 'running'];

class RunHead {
  constructor(widget) {
    Object.assign(this, { props: widget.props, send: widget.send });
    const id = new URLSearchParams(location.search).get('id');
    this.title = el('h1');
    this.badge = el('span');
    this.under = el('div', { class: 'cl-under' });
    this.progress = el('div', { class: 'cl-run-progress' });
    this.figures = el('div', { class: 'cl-figures' });
    this.labels = new RunLabels((action, text) => this.act(action, text));
    this.message = new Message();
    this.buttons = {
      cancel: button('Cancel', () => this.act('cancel'), { data: { action: 'cancel' } }),
      retry: button('Retry', () => this.act('retry'), { data: { action: 'retry' } }),
      archive: button('Archive', () => this.act(this.run.archived ? 'restore' : 'archive'), { data: { action: 'archive' } }),
      compare: button('Compare', () => { location.href = `/ui/compare?runs=${this.run.id}`; }),
      fork: button('Open in Compose', () => { location.href = `/ui/?fork=${this.run.id}`; }, { class: 'cl-button primary', data: { action: 'fork' } }),
    };
    this.known(false);
    widget.host.replaceChildren(el('div', { class: 'cl-run-head' },
      el('div', { class: 'cl-row' }, el('div', { class: 'cl-run-title' }, this.title, this.badge), el('div', { class: 'cl-select-bar' }, Object.values(this.buttons))),
      this.under, this.labels.node, this.message.node, this.progress, this.figures));
    this.asking = new Asking(widget, { id: id || null, act: null }, (reply, question) => this.draw(reply, question), { again: true });
    this.asking.ask('ask');
  }

  act(action, text = '') {
    this.asking.ask('act', {}, { act: { action, text, ids: [this.run.id] } });
  }

  // Until a run is known there is nothing to show or to do.
  known(known) {
    for (const part of [...Object.values(this.buttons), this.labels.node, this.progress, this.figures]) part.hidden = !known;
  }

  draw(reply, question) {
    const { error } = reply;
    this.message.show(reply.rev, error ? [error.place, error.reason, error.remedy].filter(Boolean).join('. ') : reply.message, { bad: !!error });
    if (!reply.run || (question.id && reply.run.id !== +question.id)) return;
    const run = this.run = reply.run;
    this.known(true);
    if (!question.id) { // the newest run when the page was opened is shown from then on
      question.id = run.id;
      this.send(null, { ...question });
      writeQuery({ id: run.id });
    }
    document.title = `${run.name} · Chimera Lab`;
    this.title.textContent = run.name;
    this.badge.replaceChildren(statusBadge(run));
    this.under.replaceChildren(miniStrip(run.mixers, this.props.colors), el('code', {}, run.pattern), el('span', {}, `#${run.id} · ${run.project} · ${run.task} · seed ${run.seed}`));
    this.labels.draw(run);
    const active = ACTIVE.includes(run.status);
    this.buttons.cancel.hidden = !active;
    this.buttons.cancel.disabled = run.cancelling;
    this.buttons.retry.hidden = !['failed', 'cancelled', 'pruned'].includes(run.status);
    this.buttons.archive.textContent = run.archived ? 'Restore' : 'Archive';
    const left = run.status === 'running' && run.step > 0 ? (run.seconds / run.step) * (run.total_steps - run.step) : null;
    const says = [`Step ${run.step} of ${run.total_steps}`, run.status === 'running' ? run.phase : '', left ? `about ${format.duration(left)} left` : '',
      run.attempt > 1 ? `attempt ${run.attempt} of ${run.max_attempts}` : '', run.reason];
    this.progress.replaceChildren(progressBar(run.step, run.total_steps, run.status), el('div', { class: 'cl-hint' }, says.filter(Boolean).join(' · ')));
    const figure = (label, value) => el('div', { class: 'cl-figure' }, el('span', { class: 'cl-label' }, label), el('strong', {}, value));
    this.figures.replaceChildren(...[
      figure('Loss', format.number(run.loss)),
      run.bits_per_byte != null ? figure('Bits per byte', format.number(run.bits_per_byte)) : null,
      run.accuracy != null ? figure('Accuracy', `${(100 * run.accuracy).toFixed(1)} %`) : null,
      figure('Tokens/s', run.tokens_per_second ? format.count(run.tokens_per_second) : '–'),
      figure('Parameters', format.count(run.params)),
      figure('Width', String(run.d_model ?? '–')),
      figure('Trained for', format.duration(run.seconds)),
      figure('Created', format.ago(run.created_at)),
    ].filter(Boolean));
  }
}

export function mount(widget) {
  return new RunHead(widget);
}
