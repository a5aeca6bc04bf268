// Mounts a widget: joins a module that draws to the component that Gradio keeps.
//
// `send(event, value)` gives the server a new value; `onReply(run)` runs when it answers, and at once if it has;
// `onValue(run)` runs when the server itself sets a value, never for one that was sent from here.

export async function mount(module, { element, props, trigger, watch }) {
  const { mount: draw } = await import(`./${module}.js`);
  let sent;
  draw({
    host: element.firstElementChild,
    props,
    send(event, value) {
      sent = JSON.stringify(value);
      props.value = value;
      if (event) trigger(event);
    },
    onReply(run) {
      const answer = () => { if (props.reply) run(props.reply); };
      watch('reply', answer);
      answer();
    },
    onValue(run) {
      const take = () => { if (props.value && JSON.stringify(props.value) !== sent) run(props.value); };
      watch('value', take);
      take();
    },
  });
  element.firstElementChild.dataset.ready = 'true';
}
