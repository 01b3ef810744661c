"""The version, where every part can read it without importing what the package offers."""

__version__ = "0.1.0"
