"""The panel's looks: one style sheet inside the panel, because every output of Colab is a page of its own.

Colours come from the host's variables, so that a change of theme needs no Python. Columns follow the width of the panel, not of the
window (a container query): a panel in a side view of 400 px is narrow on any screen.
"""

from __future__ import annotations

NARROW = 700    # pixels of the panel's width below which there is one column

CSS = """
.nbsd {
  --nb-bg: var(--jp-layout-color1, var(--colab-primary-surface-color, #fff));
  --nb-sunk: var(--jp-layout-color2, var(--colab-secondary-surface-color, #f1f3f4));
  --nb-text: var(--jp-ui-font-color1, var(--colab-primary-text-color, #1f1f1f));
  --nb-dim: var(--jp-ui-font-color2, var(--colab-secondary-text-color, #5f6368));
  --nb-line: var(--jp-border-color1, var(--colab-border-color, #c4c7c5));
  --nb-accent: var(--jp-brand-color1, #1a73e8);
  --nb-error: var(--jp-error-color1, #b3261e);
  --nb-gap: 10px;
  container-type: inline-size;
  width: auto; max-width: 1500px; padding: 14px 16px 16px; margin: 2px; overflow: hidden;
  color: var(--nb-text); background: var(--nb-bg); border: 1px solid var(--nb-line); border-radius: 10px;
  font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: 13px; color-scheme: light;
}
[data-jp-theme-light="false"] .nbsd, [theme="dark"] .nbsd, .vscode-dark .nbsd { color-scheme: dark; }
.nbsd .nbsd-sheet { display: none; }
.nbsd .widget-html, .nbsd .widget-html-content, .nbsd .jupyter-widget-html-content {
  color: inherit; line-height: 1.45; height: auto; margin: 0; font-size: inherit; overflow-wrap: anywhere; min-width: 0;
}
.nbsd .nbsd-title b { font-size: 16px; margin-right: 8px; }
.nbsd .nbsd-title span, .nbsd .nbsd-label { color: var(--nb-dim); }

/* two columns: what is asked on the left, what came of it on the right */
.nbsd .nbsd-body {
  display: grid; gap: 12px 18px; grid-template-columns: minmax(300px, 5fr) minmax(0, 7fr); overflow: visible;
  grid-template-areas: "ask see" "run see" "set see"; grid-template-rows: auto auto 1fr; align-items: start; margin-top: 8px;
}
.nbsd .nbsd-ask { grid-area: ask; } .nbsd .nbsd-run { grid-area: run; }
.nbsd .nbsd-set { grid-area: set; } .nbsd .nbsd-see { grid-area: see; }
.nbsd .nbsd-ask, .nbsd .nbsd-run, .nbsd .nbsd-set, .nbsd .nbsd-see, .nbsd .nbsd-page,
.nbsd .nbsd-fills, .nbsd .nbsd-dialects, .nbsd .nbsd-again {
  display: flex; flex-direction: column; gap: var(--nb-gap); min-width: 0; width: auto; overflow: visible; margin: 0; padding: 0;
}

/* rows of controls */
.nbsd .nbsd-row { display: grid; gap: var(--nb-gap); align-items: end; width: auto; min-width: 0; overflow: visible; margin: 0;
  grid-template-columns: repeat(auto-fit, minmax(84px, 1fr)); }
.nbsd .nbsd-row.nbsd-tail { grid-template-columns: minmax(0, 1fr) auto; }
.nbsd .nbsd-row.nbsd-tails { grid-template-columns: minmax(0, 1fr) auto auto; }
.nbsd .nbsd-row.nbsd-size { grid-template-columns: minmax(0, 1fr) auto minmax(0, 1fr) minmax(0, 1.4fr); }
.nbsd .nbsd-row.nbsd-files { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
.nbsd .nbsd-row.nbsd-buttons { grid-template-columns: minmax(0, 2fr) minmax(92px, 1fr) minmax(60px, 1fr); }
.nbsd .nbsd-group { display: grid; gap: var(--nb-gap); grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); align-items: end;
  width: auto; margin: 0; overflow: visible; }
.nbsd .nbsd-heading { font-weight: 600; margin: 4px 0 -4px; grid-column: 1 / -1; }

/* one control: its label above it */
.nbsd .nbsd-control { display: grid; grid-template-columns: minmax(0, 1fr); gap: 3px; width: auto; height: auto; min-width: 0; margin: 0;
  overflow: visible; }
.nbsd .nbsd-control > .widget-label, .nbsd .nbsd-control > label.widget-label {
  width: auto; min-width: 0; height: auto; line-height: 1.3; text-align: left; justify-content: start; margin: 0; padding: 0;
  color: var(--nb-dim); font-size: 12px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
}
.nbsd .nbsd-control > input, .nbsd .nbsd-control > select, .nbsd .nbsd-control > textarea, .nbsd .nbsd-control > .widget-inline-hbox {
  width: 100%; min-width: 0; max-width: none; margin: 0; box-sizing: border-box;
}
.nbsd input:not([type=checkbox]):not([type=file]), .nbsd select, .nbsd textarea {
  color: var(--nb-text) !important; background-color: var(--jp-layout-color0, var(--nb-bg)) !important; font-size: 13px;
  border: 1px solid var(--nb-line) !important; border-radius: 5px; padding: 4px 7px; min-height: 32px; height: auto;
  font-family: inherit; box-sizing: border-box;
}
.nbsd select { appearance: auto; background-image: none; text-overflow: ellipsis; padding-right: 2px; }
.nbsd textarea { resize: vertical; line-height: 1.4; }
.nbsd .nbsd-yes { display: flex; align-items: center; min-height: 32px; }
.nbsd .nbsd-yes label { display: flex; align-items: center; gap: 6px; width: auto; margin: 0; color: var(--nb-text); white-space: normal;
  font-size: 12px; line-height: 1.25; }
.nbsd .nbsd-yes input[type=checkbox] { margin: 0; flex: none; }

/* buttons */
.nbsd button.widget-button, .nbsd button.jupyter-button, .nbsd .widget-upload {
  height: 32px; line-height: 1; box-sizing: border-box; width: auto; min-width: 0; margin: 0;
  padding: 0 12px; border-radius: 5px; box-shadow: none; font-size: 13px;
  color: var(--nb-text); background: var(--nb-sunk); border: 1px solid var(--nb-line);
}
.nbsd button.nbsd-generate { font-weight: 600; height: 36px; }
.nbsd button.nbsd-interrupt, .nbsd button.nbsd-skip { height: 36px; }
.nbsd button.nbsd-generate { color: #fff; background: var(--jp-brand-color0, #0b57d0); border-color: transparent; }
.nbsd button:hover:enabled { filter: brightness(1.08); box-shadow: none; }
.nbsd button:disabled { opacity: 0.5; }
.nbsd :is(button, input, select, textarea):focus-visible { outline: 2px solid var(--nb-accent) !important; outline-offset: 1px; }

/* progress, messages */
.nbsd :is(.nbsd-progress, .nbsd-fetched) { width: auto; height: 8px; margin: 0; }
.nbsd :is(.nbsd-progress, .nbsd-fetched) .progress { height: 8px; border-radius: 4px; background: var(--nb-sunk); border: none;
  box-shadow: none; overflow: hidden; }
.nbsd :is(.nbsd-progress, .nbsd-fetched) .progress-bar { background-color: var(--nb-accent); transition: width 0.1s linear; }
.nbsd :is(.nbsd-progress, .nbsd-fetched) .progress-bar-danger { background-color: var(--nb-error); }
.nbsd .nbsd-status { min-height: 19px; color: var(--nb-dim); font-variant-numeric: tabular-nums; }
.nbsd .nbsd-error [role=alert] { white-space: pre-wrap; padding: 8px 10px; border-radius: 5px; color: var(--nb-text);
  border: 1px solid var(--nb-error); border-left-width: 4px; background: color-mix(in srgb, var(--nb-error) 10%, var(--nb-bg)); }
.nbsd .nbsd-notes div div, .nbsd .nbsd-hint div div { padding: 6px 10px; border-radius: 5px; background: var(--nb-sunk);
  border-left: 4px solid var(--nb-accent); margin-top: 4px; }
.nbsd .nbsd-filled:not(:has(div div)),
.nbsd .nbsd-error:not(:has([role])), .nbsd .nbsd-notes:not(:has(div div)), .nbsd .nbsd-hint:not(:has(div div)) { display: none; }

/* files */
.nbsd .nbsd-list select { font-family: inherit; min-height: 190px; padding: 4px; }
.nbsd .nbsd-list option { padding: 2px 4px; }
.nbsd .nbsd-about code { font-size: 12px; background: none; color: var(--nb-dim); padding: 0; user-select: all; }
.nbsd .nbsd-fetch-status { color: var(--nb-dim); font-variant-numeric: tabular-nums; }
.nbsd .nbsd-fetch-status [role=alert] { padding: 8px 10px; border-radius: 5px; color: var(--nb-text); border: 1px solid var(--nb-error);
  border-left-width: 4px; background: color-mix(in srgb, var(--nb-error) 10%, var(--nb-bg)); }

/* tabs */
.nbsd .widget-tab, .nbsd .jupyter-widget-tab { width: auto; margin: 0; overflow: visible; }
.nbsd .nbsd-page { padding: 2px; }
.nbsd .widget-tab-contents { padding: 10px; overflow: visible; color: var(--nb-text); background: var(--nb-bg);
  border-color: var(--nb-line); }
.nbsd .lm-TabBar, .nbsd .p-TabBar { font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: 13px; }
.nbsd .lm-TabBar-tab, .nbsd .p-TabBar-tab { color: var(--nb-dim); background: var(--nb-sunk); }
.nbsd .lm-mod-current, .nbsd .p-mod-current { color: var(--nb-text); background: var(--nb-bg); }

/* the picture */
.nbsd .nbsd-preview { display: flex; align-items: center; justify-content: center; min-height: 300px; padding: 8px; margin: 0; width: auto;
  background: var(--nb-sunk); border: 1px solid var(--nb-line); border-radius: 8px; overflow: hidden; box-sizing: border-box; }
.nbsd .nbsd-preview img { min-width: min(100%, 256px); max-width: 100%; max-height: 80vh; height: auto; object-fit: contain; margin: 0; }
.nbsd .nbsd-empty { color: var(--nb-dim); text-align: center; }
.nbsd .nbsd-tail:has(> .nbsd-path), .nbsd .nbsd-tail:has(> .nbsd-kept) { align-items: center; }
.nbsd .nbsd-path code { font-size: 12px; background: none; color: var(--nb-dim); padding: 0; user-select: all; }
.nbsd .nbsd-infotext textarea { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.nbsd .nbsd-gallery { display: grid; gap: 6px; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); width: auto; margin: 0;
  max-height: 300px; overflow-y: auto; overflow-x: hidden; padding: 3px; }
.nbsd .nbsd-thumb { position: relative; aspect-ratio: 1; width: auto; margin: 0; overflow: hidden; border-radius: 5px; }
.nbsd .nbsd-thumb img { width: 100%; height: 100%; max-width: none; object-fit: cover; margin: 0; display: block; }
.nbsd .nbsd-thumb button.widget-button { position: absolute; inset: 0; width: 100%; height: 100%; padding: 0; margin: 0; border: none;
  background: transparent; color: transparent; font-size: 1px; overflow: hidden; cursor: zoom-in; }
.nbsd .nbsd-thumb button.widget-button:hover { background: color-mix(in srgb, var(--nb-accent) 22%, transparent); }
.nbsd .nbsd-thumb button.widget-button:focus-visible { outline-offset: -3px; }
.nbsd .nbsd-spellings table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.nbsd .nbsd-spellings :is(td, th) { padding: 3px 8px 3px 0; vertical-align: top; text-align: left; border-top: 1px solid var(--nb-sunk); }
.nbsd .nbsd-spellings td:first-child { color: var(--nb-dim); width: 64px; }
.nbsd .nbsd-spellings code { background: none; color: var(--nb-text); padding: 0; white-space: pre-wrap; font-size: 12px; }
.nbsd .nbsd-spellings p { margin: 6px 0 0; color: var(--nb-dim); }
.nbsd .nbsd-understood table { border-collapse: collapse; width: 100%; }
.nbsd .nbsd-understood td { padding: 2px 8px 2px 0; vertical-align: top; border-top: 1px solid var(--nb-sunk); text-align: left; }
.nbsd .nbsd-understood td:first-child { color: var(--nb-dim); white-space: nowrap; width: 1%; }
.nbsd .nbsd-understood p { margin: 6px 0 0; }
.nbsd .nbsd-pager { align-items: center; gap: var(--nb-gap); margin: 6px 0 0; }

@container (max-width: NARROWpx) {
  .nbsd .nbsd-body { grid-template-columns: minmax(0, 1fr); grid-template-areas: "ask" "run" "see" "set"; grid-template-rows: none; }
  .nbsd .nbsd-gallery { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); max-height: 168px; }
  .nbsd .nbsd-preview { min-height: 200px; }
}
@container (max-width: 430px) {
  .nbsd .nbsd-row.nbsd-size { grid-template-columns: minmax(0, 1fr) auto minmax(0, 1fr); }
  .nbsd .nbsd-sizes { grid-column: 1 / -1; }
}
""".replace("NARROW", str(NARROW))
