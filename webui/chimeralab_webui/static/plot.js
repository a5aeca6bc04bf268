// A Plotly figure that keeps the reader's zoom and hidden curves while it is redrawn, with choices above it.
// The value holds the choices, the figure comes in `reply`.

import { el, offer, select, writeQuery } from './dom.js';

let loading;
function plotly() {
  loading ||= new Promise((resolve, reject) => {
    const source = new URL('./plotly.min.js', import.meta.url).href;
    document.head.append(el('script', { src: source, onload: () => resolve(window.Plotly), onerror: () => reject(new Error('plotly.js is missing')) }));
  });
  return loading;
}

const token = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

function themed(layout) {
  const axis = {
    gridcolor: token('--cl-line'), zerolinecolor: token('--cl-line'), linecolor: token('--cl-line-strong'), tickcolor: token('--cl-line-strong'),
    ticks: 'outside', ticklen: 4, automargin: true, tickfont: { color: token('--cl-muted') }, exponentformat: 'SI',
  };
  const standoff = 8; // of a title from the labels, however long they are
  const font = { family: token('--cl-font'), size: 12, color: token('--cl-text') };
  const out = {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font, autosize: true, uirevision: 'kept',
    hovermode: 'x unified', showlegend: true,
    legend: { orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom', font: { size: 12 } },
    hoverlabel: { bgcolor: token('--cl-surface'), bordercolor: token('--cl-line-strong'), font }, ...layout,
    margin: { l: 56, r: 12, t: 8, b: 44, ...layout.margin },
  };
  for (const name of new Set(['xaxis', 'yaxis', ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))])) {
    out[name] = { ...axis, ...layout[name], title: { standoff, ...layout[name]?.title } };
  }
  return out;
}

// A title over a `share` of the figure's width loses its middle where it would reach into the next one's.
function fitted(note, width) {
  const most = Math.max(5, Math.floor((note.share * width) / 7));
  const letters = note.text.match(/&#?\w+;|./gsu); // an entity is one
  if (!note.share || letters.length <= most) return note;
  return { ...note, hovertext: note.text, text: [...letters.slice(0, most - 4), '…', ...letters.slice(-3)].join('') };
}

class Plot {
  constructor({ host, props, send, onReply }) {
    Object.assign(this, { props, send, rev: 0 });
    this.choices = { ...(props.value?.choices || {}) };
    this.area = el('div', { class: 'cl-plot-area', style: `height:${props.height || 320}px` });
    this.empty = el('div', { class: 'cl-empty' }, props.waiting || 'Nothing to draw yet');
    this.controls = el('div', { class: 'cl-plot-controls' });
    host.replaceChildren(el('section', { class: 'cl-plot' },
      el('div', { class: 'cl-plot-head' }, el('h3', {}, props.title || ''), this.controls), el('div', { class: 'cl-plot-body' }, this.empty, this.area)));
    this.fields = {};
    for (const control of props.controls || []) this.addControl(control);
    send(null, { rev: 0, choices: { ...this.choices } }); // what the address chose
    onReply((reply) => {
      if (reply.rev < this.newest) return;
      this.newest = reply.rev;
      this.reply = reply;
      this.draw();
    });
    new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ['class'] });
    this.draw();
  }

  addControl(control) {
    const fromAddress = new URLSearchParams(location.search).get(control.name);
    if (fromAddress) this.choices[control.name] = fromAddress;
    const chosen = this.choices[control.name] ?? control.value;
    this.choices[control.name] = chosen;
    const node = select(control.options || [], chosen, (value) => {
      this.choices[control.name] = value;
      writeQuery({ [control.name]: value });
      this.ask();
    }, { data: { control: control.name } });
    this.fields[control.name] = node;
    this.controls.append(el('label', { class: 'cl-inline', hidden: !control.options?.length }, el('span', { class: 'cl-label' }, control.label), node));
  }

  // The server may say which choices there are (the metrics of a run).
  offer(options) {
    for (const [name, list] of Object.entries(options || {})) {
      offer(this.fields[name], list, this.choices[name]);
      this.fields[name].parentElement.hidden = list.length === 0;
    }
  }

  ask() {
    this.rev++;
    this.send('choose', { rev: this.rev, choices: { ...this.choices } });
  }

  async draw() {
    const { reply } = this;
    Object.assign(this.choices, reply?.choices);
    this.offer(reply?.options);
    const figure = reply?.figure;
    const drawable = !!figure?.data?.length;
    this.empty.hidden = drawable;
    this.area.hidden = !drawable;
    if (reply?.message) this.empty.textContent = reply.message;
    if (!drawable || this.busy) { this.again = drawable; return; }
    this.busy = true;
    try {
      const Plotly = await plotly();
      const layout = themed(figure.layout || {}), within = this.area.clientWidth - 130; // margins, colours
      layout.annotations = layout.annotations?.map((note) => fitted(note, within));
      await Plotly.react(this.area, figure.data.map((trace) => ({ ...trace })), layout, {
        responsive: true, displaylogo: false, displayModeBar: 'hover', modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
        toImageButtonOptions: { format: 'svg', filename: 'chimera' },
      });
      this.area.dataset.drawn = String(+(this.area.dataset.drawn || 0) + 1);
    } finally {
      this.busy = false;
    }
    if (this.again) { this.again = false; this.draw(); }
  }
}

export function mount(widget) {
  return new Plot(widget);
}
