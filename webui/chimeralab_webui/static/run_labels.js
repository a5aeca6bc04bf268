// A run's tags and notes, to read and to change; `act(action, text)` asks the server.

import { el, iconButton } from './dom.js';

export class RunLabels {
  constructor(act) {
    this.act = act;
    this.tags = el('span', { class: 'cl-tags' });
    this.tag = el('input', {
      type: 'text', class: 'cl-input cl-add-tag', placeholder: 'Add a tag', 'aria-label': 'Add a tag', maxlength: '60', autocomplete: 'off',
      onchange: () => this.add(),
    });
    this.notes = el('textarea', {
      class: 'cl-input cl-run-notes', rows: 1, placeholder: 'Notes', 'aria-label': 'Notes', maxlength: '20000',
      onchange: () => act('note', this.notes.value.trim()),
    });
    this.node = el('div', { class: 'cl-run-labels' }, el('div', { class: 'cl-tags' }, this.tags, this.tag), this.notes);
  }

  // What is being typed in is left alone, and so are tags that have not changed.
  draw({ tags, notes }) {
    if (document.activeElement !== this.notes) this.notes.value = notes;
    if (JSON.stringify(tags) === this.shown) return;
    this.shown = JSON.stringify(tags);
    this.tags.replaceChildren(...tags.map((tag) => el('span', { class: 'cl-tag' }, tag, iconButton('close', `Remove the tag ${tag}`, () => this.remove(tag)))));
  }

  add() {
    const tag = this.tag.value.trim();
    this.tag.value = '';
    if (tag) this.act('tag', tag);
  }

  remove(tag) {
    this.tag.focus();
    this.act('untag', tag);
  }
}
