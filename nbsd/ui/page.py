"""What core widgets cannot do in the page: Ctrl+Enter in a prompt, words for pictures that are not seen, and ink that follows the hand.

A widget's HTML runs no script, but an image that cannot be loaded calls its `onerror`. Where a host forbids that, the panel works as
before, without these. The text is fixed: nothing that a user or a file says is in it.
"""

from __future__ import annotations

# One listener a page, however many panels there are. On `window` and in the capturing phase, so that it comes before JupyterLab's
# own Ctrl+Enter, which runs the cell.
_KEYS = """
window.addEventListener('keydown', event => {
  const prompt = event.key === 'Enter' && (event.ctrlKey || event.metaKey) && event.target.closest?.('.nbsd-prompt, .nbsd-negative');
  if (!prompt) return;
  event.preventDefault();
  event.stopPropagation();
  prompt.closest('.nbsd').querySelector('.nbsd-generate').click();
}, true);
"""

# An image's `load` event does not bubble and never reaches `window`, but `document` can capture it.
_WORDS = """
document.addEventListener('load', event => {
  const panel = event.target.tagName === 'IMG' && event.target.closest('.nbsd');
  if (!panel) return;
  const large = event.target.closest('.nbsd-preview');
  event.target.alt = large ? 'The picture: ' + (panel.querySelector('.nbsd-path')?.innerText || 'in the making') : '';
}, true);
"""

# On the mask's canvas a movement goes to the kernel, which tells the canvas what to draw. The same ink is drawn here at once. Whenever
# ipycanvas shows anew what it has (it calls drawImage), strokes that the kernel has not ended yet are drawn over it again. How the brush
# paints and how many strokes are ended the style sheet says: Editor._dress. Widths and points are pixels of the canvas. A stroke that the
# kernel never hears of is forgotten after 20 seconds.
_INK = """
const strokes = [];
let stroke = null;
const hand = canvas => getComputedStyle(canvas).getPropertyValue('--nbsd-hand').trim().split(' ');
const ink = (one, pen, colour, from) => {
  const [x, y] = one.points[from];
  pen.save();
  pen.globalCompositeOperation = one.does === 'erase' ? 'destination-out' : 'source-over';
  pen.strokeStyle = colour;
  pen.lineWidth = one.width;
  pen.lineCap = pen.lineJoin = 'round';
  pen.beginPath();
  pen.moveTo(x - 0.01, y);
  for (const point of one.points.slice(from)) pen.lineTo(...point);
  pen.stroke();
  pen.restore();
};
const again = (pen, top) => {
  const ended = Number(hand(top)[3]), now = performance.now();
  for (const one of [...strokes]) {
    if (one.top === top && (one.number <= ended || now - one.at > 20000)) strokes.splice(strokes.indexOf(one), 1);
    else for (const [other, colour] of one.layers) if (other === pen) ink(one, pen, colour, 0);
  }
};
const keep = (canvas, top) => {
  const pen = canvas.getContext('2d');
  if (!Object.hasOwn(pen, 'drawImage')) {
    pen.drawImage = (...what) => {
      CanvasRenderingContext2D.prototype.drawImage.apply(pen, what);
      again(pen, top);
    };
  }
  return pen;
};
const place = event => {
  const canvas = event.target, box = canvas.getBoundingClientRect();
  return [canvas.width * (event.clientX - box.left) / box.width, canvas.height * (event.clientY - box.top) / box.height];
};
document.addEventListener('pointerdown', event => {
  const top = event.target;
  if (!top.matches?.('.nbsd canvas.nbsd-pad-mask')) return;
  const [does, width, tint, ended, ...colour] = hand(top);
  stroke = null;
  if (!event.isPrimary || !ended) return;
  const layers = [[keep(top, top), tint]], sketch = top.parentElement.querySelector('canvas.nbsd-pad-sketch');
  if (does !== 'mask' && sketch) layers.push([keep(sketch, top), colour.join(' ')]);
  const waiting = strokes.filter(one => one.top === top).map(one => one.number);
  stroke = {top, does, layers, width: Number(width), points: [place(event)], number: Math.max(Number(ended), ...waiting) + 1, at: performance.now()};
  strokes.push(stroke);
  for (const [pen, colour] of layers) ink(stroke, pen, colour, 0);
}, true);
document.addEventListener('pointermove', event => {
  if (!stroke || event.target !== stroke.top || !event.isPrimary) return;
  stroke.points.push(place(event));
  stroke.at = performance.now();
  for (const [pen, colour] of stroke.layers) ink(stroke, pen, colour, stroke.points.length - 2);
}, true);
for (const end of ['pointerup', 'pointercancel', 'pointerout']) {
  document.addEventListener(end, event => { if (stroke && event.target === stroke.top) stroke = null; }, true);
}
"""
_SCRIPT = f"if (!window.nbsdPage) {{ window.nbsdPage = true; {_KEYS} {_WORDS} {_INK} }} this.remove();"
PAGE = f'<img alt="" src="data:," onerror="{" ".join(_SCRIPT.split())}">'
