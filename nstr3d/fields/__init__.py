"""Fields: trainable functions of points on the unit box [-1, 1]^d.

A new field is one file: a config dataclass with ``build`` and ``restore`` beside a subclass of
`nstr3d.fields.base.Field`. `nstr3d.fields.nstr` holds ours, `nstr3d.fields.baselines` the others,
`nstr3d.fields.closed` the closed forms for pictures and sounds, and `nstr3d.fields.start` what
training starts from.
"""
