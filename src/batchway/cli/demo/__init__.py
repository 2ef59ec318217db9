"""`batchway demo`: a real batch on a real small model, with the gateway killed in the middle; no key, no network.

Read `run.py` for the story; `model.py` serves the model, `gateway.py` runs the gateway, `prompts.py` holds the
requests, `outcome.py` judges what came back, `show.py` puts it on the screen. The demo talks to the gateway through the
SDK, as any client does: it has no private way in.
"""
