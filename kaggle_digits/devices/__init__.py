"""What computes under Keras, and on which device."""
