"""`understudy demo`: real models, real servers, real traffic, on one machine.

Needs the `demo` extra (scikit-learn). Nothing else in Understudy imports this package but the
command itself.
"""
