"""The panel: plain ipywidgets, the same code for versions 7.7.1 and 8. Imports neither torch nor diffusers nor transformers."""
