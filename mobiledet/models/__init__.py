"""The network: MobileNetV1, the heads, and the detector that joins them."""
