"""The embedded pair: a tiny teacher and student, and the visual reasoning benchmark they are trained and tested on."""
