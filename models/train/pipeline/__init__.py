"""Training, distillation, quantisation, export and evaluation of the parsing network."""
