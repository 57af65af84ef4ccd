"""Synthetic people in synthetic rooms: pictures with the class of every pixel, made by rule and seed."""
