"""Did a retrain help? Each fired trigger gets one effect, judged from facts that are stored. `rules.py` judges."""
