"""The looks of the modes: what each shows, the picture that is given, and the mask editor. See style.py."""

from __future__ import annotations

MODES_CSS = """
/* what belongs to a mode or a switch: the root says which are on */
.nbsd:not(.nbsd-in-inpaint) .nbsd-only-inpaint, .nbsd:not(.nbsd-in-img2img) .nbsd-only-img2img,
.nbsd:is(.nbsd-in-txt2img, .nbsd-in-extras) .nbsd-only-change, .nbsd.nbsd-in-txt2img .nbsd-given > :not(.nbsd-how),
.nbsd.nbsd-in-extras .nbsd-how,
.nbsd:not(.nbsd-in-txt2img) :is(.nbsd-hires-on, .nbsd-hires-group), .nbsd:not(.nbsd-with-hires) .nbsd-hires-group,
.nbsd:not(.nbsd-with-soft) .nbsd-soft-group, .nbsd:not(.nbsd-with-edit) .nbsd-only-edit,
.nbsd:not(.nbsd-with-loopback) .nbsd-loopback, .nbsd:not(.nbsd-with-sd-upscale) .nbsd-sd-upscale, .nbsd:not(.nbsd-with-folder) .nbsd-folder-of,
.nbsd:not(.nbsd-with-details) .nbsd-details,
.nbsd:not(.nbsd-in-extras) .nbsd-only-extras,
.nbsd.nbsd-in-extras :is(.nbsd-set, .nbsd-ask > :not(.nbsd-mode)) { display: none !important; }

/* the switch between the modes, and the tools */
.nbsd .widget-toggle-buttons, .nbsd .jupyter-widget-toggle-buttons { width: auto; margin: 0; min-width: 0; height: auto; overflow: visible; }
.nbsd .widget-toggle-buttons > .widget-label:empty, .nbsd .jupyter-widget-toggle-buttons > .widget-label:empty { display: none; }
.nbsd .widget-toggle-buttons .jupyter-widget-toggle-buttons, .nbsd .widget-toggle-buttons > div { display: flex; width: 100%; margin: 0; padding: 0;
  border: 1px solid var(--nb-line); border-radius: 6px; overflow: hidden; background: var(--nb-sunk); box-sizing: border-box; }
.nbsd .widget-toggle-buttons button.widget-toggle-button, .nbsd .widget-toggle-buttons button.jupyter-button { flex: 1 1 0; border: none;
  border-radius: 0; height: 30px; width: auto; margin: 0; padding: 0 6px; font-size: 13px; color: var(--nb-text); background: transparent;
  box-shadow: none; }
.nbsd .widget-toggle-buttons button.mod-active { color: #fff; background: var(--jp-brand-color0, #0b57d0); font-weight: 600; }
.nbsd .widget-toggle-buttons button:focus-visible { outline-offset: -3px; }

/* the given picture */
.nbsd .nbsd-body { grid-template-areas: "ask see" "run see" "given see" "set see"; grid-template-rows: auto auto auto 1fr; }
.nbsd .nbsd-given { grid-area: given; }
.nbsd .nbsd-given, .nbsd .nbsd-source, .nbsd .nbsd-editor, .nbsd .nbsd-column, .nbsd .nbsd-boxes {
  display: flex; flex-direction: column; gap: var(--nb-gap); min-width: 0; width: auto; overflow: visible; margin: 0; padding: 0; }
.nbsd .nbsd-body > .nbsd-given { padding: 12px; border: 1px solid var(--nb-line); border-radius: 8px; box-sizing: border-box; }
.nbsd.nbsd-in-txt2img .nbsd-body > .nbsd-given { padding: 0; border: none; }     /* there only a script is in it */
.nbsd.nbsd-in-txt2img .nbsd-script { grid-column: 1 / -1; }
.nbsd .nbsd-row.nbsd-source-row { grid-template-columns: auto minmax(0, 1fr) auto; }
.nbsd .nbsd-wide { grid-column: 1 / -1; }
.nbsd .nbsd-row.nbsd-tail-right { grid-template-columns: auto minmax(0, 1fr); }
.nbsd .nbsd-source-about { color: var(--nb-dim); font-size: 12px; }
.nbsd .nbsd-tail:has(> .nbsd-source-about) { align-items: center; }
.nbsd .nbsd-given:not(.nbsd-has-picture) :is(.nbsd-use-size, .nbsd-source-picture) { display: none; }
.nbsd .nbsd-source-picture, .nbsd .nbsd-boxes-picture { display: flex; justify-content: center; width: auto; margin: 0; padding: 6px;
  background: var(--nb-sunk); border-radius: 6px; overflow: hidden; box-sizing: border-box; }
.nbsd .nbsd-source-picture img, .nbsd .nbsd-boxes-picture img { max-width: 100%; max-height: 420px; width: auto; height: auto; margin: 0;
  object-fit: contain; }
.nbsd .nbsd-boxes-picture img { width: 100%; }
.nbsd .nbsd-row.nbsd-sides { grid-template-columns: minmax(84px, 1.4fr) repeat(4, auto) auto; }

/* the mask editor */
.nbsd .nbsd-row.nbsd-hand { grid-template-columns: minmax(0, 1fr); align-items: center; }
.nbsd .nbsd-colouring .nbsd-row.nbsd-hand { grid-template-columns: minmax(0, 1fr) auto; }
.nbsd .nbsd-row.nbsd-sliders { grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); }
.nbsd .nbsd-row.nbsd-steps { grid-template-columns: repeat(auto-fit, minmax(56px, 1fr)); }
.nbsd .nbsd-row.nbsd-below { display: flex; justify-content: space-between; align-items: center; }
.nbsd .nbsd-row.nbsd-zooming { grid-template-columns: 32px 48px 32px; align-items: center; }
.nbsd .nbsd-row.nbsd-zooming button.widget-button { padding: 0; }
.nbsd .nbsd-zoomed { text-align: center; font-variant-numeric: tabular-nums; }
.nbsd .nbsd-place { display: block; width: auto; margin: 0; padding: 0; max-height: min(75vh, 1000px); overflow: auto; border-radius: 6px;
  background: var(--nb-sunk); border: 1px solid var(--nb-line); box-sizing: border-box; }
.nbsd .nbsd-boxes-place { display: block; width: auto; margin: 0; padding: 0; overflow: visible; }
.nbsd .nbsd-editor:not(.nbsd-on-canvas) .nbsd-place, .nbsd .nbsd-editor:not(.nbsd-on-boxes) .nbsd-boxes-place { display: none; }
.nbsd .nbsd-pad { display: grid; overflow: visible; margin: 0; padding: 0; min-width: 0; height: auto; }
.nbsd .nbsd-pad > * { grid-area: 1 / 1; width: 100%; height: auto; max-width: none; max-height: none; margin: 0; display: block; min-width: 0; }
.nbsd .nbsd-pad > canvas { touch-action: none; cursor: crosshair; outline-offset: -2px; }
.nbsd .nbsd-pad > .nbsd-pad-sketch { pointer-events: none; }
.nbsd .nbsd-sketching :is(.nbsd-invert, .nbsd-opacity), .nbsd .nbsd-editor:not(.nbsd-on-canvas) :is(.nbsd-sliders > .nbsd-brush-size, .nbsd-zooming),
.nbsd .nbsd-editor:not(.nbsd-on-canvas):not(.nbsd-sketching) .nbsd-hand,
.nbsd .nbsd-editor:not(.nbsd-colouring) .nbsd-colour { display: none; }
.nbsd .nbsd-colour input[type=color] { padding: 2px; min-height: 30px; width: 48px; cursor: pointer; }
.nbsd .nbsd-colour .widget-label { display: none; }
.nbsd .nbsd-sliders > .nbsd-control { grid-template-columns: minmax(0, 1fr) auto; gap: 0 6px; }
.nbsd .nbsd-sliders .widget-label { grid-area: 1 / 1; }
.nbsd .nbsd-sliders .widget-readout { grid-area: 1 / 2; color: var(--nb-text); min-width: 0; width: auto; height: auto; margin: 0; padding: 0;
  line-height: 1.3; text-align: right; border: none; font-size: 12px; font-variant-numeric: tabular-nums; overflow: visible; }
.nbsd .nbsd-sliders .slider-container, .nbsd .nbsd-sliders .slider { grid-area: 2 / 1 / 3 / 3; min-width: 0; width: auto; margin: 6px 0 4px; }

@container (max-width: 700px) {
  .nbsd .nbsd-body { grid-template-areas: "ask" "given" "run" "see" "set"; grid-template-rows: none; }
}
@container (max-width: 430px) {
  .nbsd .nbsd-row.nbsd-sides { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .nbsd .nbsd-row.nbsd-sides > :is(.nbsd-extend-by, .nbsd-extend) { grid-column: 1 / -1; }
}
"""
