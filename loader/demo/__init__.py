"""``uihkv demo``: the main job end to end, on a real event log that ships with the package.

From the ground up: ``eventlog`` (the data), ``examples`` (slim examples from it), ``model``, ``train``, ``evaluate``,
``fatrows`` (the baseline's bytes), ``report`` (table and picture), ``progress`` (bars), ``run`` (all of it, in
order), ``command`` (the command line).
"""
