"""What the operator of a real federation sees and decides, beside the strategy that runs it.

Files in the strategy's state folder and next to it; nothing here imports Flower, so that the
command line follows a federation from any machine that shares the folder.
"""
