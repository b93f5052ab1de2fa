"""The teacher server: `python -m reopold_vl.serve_teacher`.

`wire.py` is the format that server and client share, `requests.py` what a request may hold, `desk.py` makes prompts of
it, `worker.py` owns the model, `app.py` and `stream.py` speak HTTP,
`settings.py` and `launch.py` are the command.
"""
