"""Where weights come from: TensorFlow Lite files, timm's ImageNet backbones, names; and how they enter a new model."""
