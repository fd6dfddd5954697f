"""Stories on real programs: a real Gunicorn, a real fault, and the chain of events that Reflex makes of it."""
