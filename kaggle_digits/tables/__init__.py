"""A table of digits in whatever form people have it: another place, another form, a wrong value."""
