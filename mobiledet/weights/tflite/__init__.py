"""Reading TensorFlow Lite files of MobileNetV1 networks, without TensorFlow."""
