// What a widget asks of the server, and the answers. The question is the widget's value, with a growing `rev`. An
// answer to an older question is passed over, and so is one that says again what is drawn; `again` draws that too,
// for what tells how long ago something was.

export class Asking {
  constructor({ send, onReply }, question, draw, { again = false } = {}) {
    Object.assign(question, { rev: 0 });
    Object.assign(this, { send, question, draw, again });
    onReply((reply) => this.take(reply));
  }

  // `once` goes with this question alone.
  ask(event, changes = {}, once = {}) {
    Object.assign(this.question, changes);
    this.question.rev++;
    this.send(event, { ...this.question, ...once });
  }

  take(reply) {
    if (reply.rev < this.question.rev) return;
    const said = JSON.stringify({ ...reply, rev: 0 });
    if (said === this.said && !this.again) return;
    this.said = said;
    this.draw(reply, this.question);
  }
}
