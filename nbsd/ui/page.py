"""What core widgets cannot do in the page: Ctrl+Enter in a prompt, and words for pictures that are not seen.

A widget's HTML runs no script, but an image that cannot be loaded calls its `onerror`. Where a host forbids that, the panel works as
before, without these two. The text is fixed: nothing that a user or a file says is in it.
"""

from __future__ import annotations

# One listener a page, however many panels there are. On `window` and in the capturing phase, so that it comes before JupyterLab's
# own Ctrl+Enter, which runs the cell. An image's `load` event does not bubble and never reaches `window`, but `document` can capture it.
_SCRIPT = """
if (!window.nbsdPage) {
  window.nbsdPage = true;
  window.addEventListener('keydown', event => {
    const prompt = event.key === 'Enter' && (event.ctrlKey || event.metaKey) && event.target.closest?.('.nbsd-prompt, .nbsd-negative');
    if (!prompt) return;
    event.preventDefault();
    event.stopPropagation();
    prompt.closest('.nbsd').querySelector('.nbsd-generate').click();
  }, true);
  document.addEventListener('load', event => {
    const panel = event.target.tagName === 'IMG' && event.target.closest('.nbsd');
    if (!panel) return;
    const large = event.target.closest('.nbsd-preview');
    event.target.alt = large ? 'The picture: ' + (panel.querySelector('.nbsd-path')?.innerText || 'in the making') : '';
  }, true);
}
this.remove();
"""
PAGE = f'<img alt="" src="data:," onerror="{" ".join(_SCRIPT.split())}">'
