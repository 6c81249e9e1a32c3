"""Explore a saved recommender in the browser: the same as python -m gtc_pyg.serve FOLDER.

python examples/lfm2k.py --root data/lfm2k --models gtc --save outputs/saved/lfm2k
python examples/explorer/serve.py outputs/saved/lfm2k        # then open http://127.0.0.1:8000
"""

from runpy import run_module

if __name__ == "__main__":
    run_module("gtc_pyg.serve", run_name="__main__")
