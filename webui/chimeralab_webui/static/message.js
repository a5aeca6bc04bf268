// A line of words on a page. What an action came to stands until the next question: a live page's tick answers the
// same question again and has nothing to say. What is wrong with the page itself, `state`, stands while it is so.

import { el } from './dom.js';

export class Message {
  constructor() {
    this.node = el('div', { class: 'cl-message', role: 'status', hidden: true });
  }

  // `rev`: of the question that this answers.
  show(rev, said = '', { bad = true, state = '' } = {}) {
    if (said || rev !== this.rev) Object.assign(this, { rev, said, bad });
    this.node.textContent = [state, this.said].filter(Boolean).join('. ');
    this.node.hidden = !this.node.textContent;
    this.node.className = `cl-message ${state || this.bad ? 'bad' : 'good'}`;
  }
}
