"""Fields: trainable functions of points on the unit box [-1, 1]^d.

A new field is one file with a config dataclass that has ``build`` and ``restore``, and a subclass
of `nstr3d.fields.base.Field`. `nstr3d.fields.nstr` holds the neural spectral transport field,
`nstr3d.fields.baselines` the fields it is compared with, `nstr3d.fields.closed` the closed-form
fields for pictures and sounds, and `nstr3d.fields.start` the ways to initialise a field before
training.
"""
