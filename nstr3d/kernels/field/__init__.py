"""A field's levels, waves and decoder, evaluated with and without gradients."""
