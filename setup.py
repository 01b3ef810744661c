"""Packaging. Tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "mobiledet" / "version.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

# Lower bounds are promises: `make test-lowest` runs the tests at them.

# What running a model needs; no torch, so that it fits on a Raspberry Pi.
RUN = [
    "filelock>=4.0",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "numpy>=1.26",
    "onnxruntime>=1.22",
    "opencv-python>=4.10",
    "pillow>=10.3",
    "psutil>=5.9",
    "tqdm>=4.66",
]

# What the browser view of webcam needs beyond RUN.
SERVE = ["aiohttp>=3.10"]

# What webcam --track needs beyond RUN, and --mqtt.
TRACK = ["trackers>=2.6", "pyyaml>=6.0"]
MQTT = ["paho-mqtt>=2.1"]

# What training, scoring and running checkpoints need. albumentations 2.0.8 is its last MIT release.
TRAIN = [
    "torch>=2.10",
    "torchvision>=0.25",
    "pydantic>=2.10",
    "albumentations==2.0.8",
    "pycocotools>=2.0.8",
    "faster-coco-eval>=1.6.5",
    "pyyaml>=6.0",
    "requests>=2.32",
    "safetensors>=0.6",
    "tflite>=2.18",
]

# What eval needs beyond RUN to score an exported model, on a Raspberry Pi for instance.
SCORE = ["pycocotools>=2.0.8", "pydantic>=2.10", "pyyaml>=6.0"]

# What export needs beyond TRAIN.
EXPORT = ["onnx>=1.17", "onnxscript>=0.7"]
OPENVINO = ["openvino>=2025.0"]
NCNN = ["ncnn>=1.0.20260114"]
# The converter's schema comes with the runtime; requests fetches the pretrained detector.
LITERT = ["ai-edge-litert>=2.1", "flatbuffers>=24.3.25", "requests>=2.32"]
EXPORT_ALL = [*EXPORT, *OPENVINO, *NCNN, "nncf>=2.14", "pnnx>=20260112"]

# What `make docs` needs; ruff sets the signatures.
DOCS = ["mkdocs-material>=9.7", "mkdocstrings[python]>=1.0.8; python_version >= '3.11'", "ruff>=0.9"]

DEV = [
    *DOCS,
    "ai-edge-litert>=2.1; platform_system == 'Linux'",
    "mypy>=1.15",
    "pre-commit>=4.0",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "ruff==0.17.5",
    "setuptools>=77",
    "tensorboard>=2.18",
    "types-psutil>=5.9",
]

setup(
    name="mobiledet",
    version=VERSION,
    description="Object detection around a MobileNetV1 backbone, small enough to own",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # The recipes lie beside the package, where a reader looks for them; in the wheel they are inside it.
    packages=[*find_packages(include=["mobiledet", "mobiledet.*"]), "mobiledet.configs"],
    package_dir={"mobiledet.configs": "configs"},
    entry_points={"console_scripts": ["mobiledet = mobiledet.cli.main:main"]},
    package_data={"mobiledet": ["py.typed"], "mobiledet.apps.live.web": ["page/*"]},
    install_requires=RUN,
    extras_require={
        "serve": SERVE,
        "track": TRACK,
        "mqtt": MQTT,
        "score": SCORE,
        "train": TRAIN,
        "export": TRAIN + EXPORT,
        "export-all": TRAIN + EXPORT_ALL,
        "openvino": OPENVINO,
        "ncnn": NCNN,
        "litert": LITERT,
        "docs": DOCS,
        "dev": TRAIN + EXPORT_ALL + SERVE + TRACK + MQTT + DEV,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
