"""How critical points come and go: with noise, with any parameter, while a model trains."""
