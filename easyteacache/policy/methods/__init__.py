"""Published methods as mathematics: which steps each computes, and the rows of weights that its recurrence comes to.

Every function here is pure: step counts, noise levels and published numbers in, computed steps or rows out. A row holds the weights of
the latest computed steps up to and including its own step, oldest first; no tensor, no file and no model is involved.
"""
