// Numbers as people read them. Every page formats here, so the server sends plain values with their unit's name.

const THIN = '\u202f';

function scaled(value, base, units) {
  if (value == null || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  let size = Math.abs(value), unit = 0;
  while (size >= base * 0.9995 && unit < units.length - 1) { size /= base; unit++; }
  const digits = size >= 100 || (unit === 0 && Number.isInteger(size)) ? 0 : size >= 10 ? 1 : 2;
  return (value < 0 ? '−' : '') + size.toFixed(digits) + (units[unit] ? THIN + units[unit] : '');
}

export const count = (value) => scaled(value, 1000, ['', 'K', 'M', 'B', 'T']);
export const flops = (value) => scaled(value, 1000, ['FLOP', 'KFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP']);
export const bytes = (value) => scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
export const rate = (value) => (value ? count(value) + '/s' : '–');

export function number(value, digits = 4) {
  if (value == null || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : Number(value.toPrecision(digits)).toString();
}

// A mean with its interval and the number of measurements: {mean, low, high, n}.
export function estimate(value) {
  if (!value) return '–';
  const interval = value.low == null ? '' : ` [${number(value.low)}, ${number(value.high)}]`;
  return `${number(value.mean)}${interval} n=${value.n}`;
}

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return '–';
  if (seconds < 10) return seconds.toFixed(1) + THIN + 's';
  if (seconds < 60) return Math.round(seconds) + THIN + 's';
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes + THIN + 'min ' + Math.round(seconds % 60) + THIN + 's';
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? hours + THIN + 'h ' + (minutes % 60) + THIN + 'min' : Math.floor(hours / 24) + THIN + 'd ' + (hours % 24) + THIN + 'h';
}

// `time` in Unix seconds.
export function ago(time) {
  if (time == null) return '–';
  const seconds = Date.now() / 1000 - time;
  if (seconds < 5) return 'just now';
  if (seconds < 90) return Math.round(seconds) + THIN + 's ago';
  if (seconds < 5400) return Math.round(seconds / 60) + THIN + 'min ago';
  if (seconds < 129600) return Math.round(seconds / 3600) + THIN + 'h ago';
  return new Date(time * 1000).toLocaleDateString(undefined, { year: 'numeric', month: 'short', day: 'numeric' });
}

export const clock = (time) => (time == null ? '–' : new Date(time * 1000).toLocaleString());

export const percent = (value) => (value > 0 ? '+' : value < 0 ? '−' : '±') + Math.abs(value * 100).toFixed(Math.abs(value) < 0.1 ? 1 : 0) + THIN + '%';
