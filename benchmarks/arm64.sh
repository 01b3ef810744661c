#!/bin/sh
# What docs/raspberry-pi.md rests on: the base install in an emulated 64-bit ARM Debian, and what a board does with it.
#
#     sudo sh benchmarks/arm64.sh FOLDER model.onnx photos/
#
# FOLDER is made if it isn't there, takes 2 GB, and is kept for the next run; model.onnx is an exported model. Needs
# debootstrap and qemu-user-static (apt install), and the network; without systemd, in a container for instance, also
# `mount -t binfmt_misc none /proc/sys/fs/binfmt_misc` and qemu-aarch64.conf of /usr/lib/binfmt.d written to its
# `register`. It says whether things work, and that resizing gives the bytes it gives here, not how fast: emulation takes
# a hundred times as long. FOLDER/home/out/predict/detections.json can be compared with this computer's. (eval needs
# PyTorch, and is not run.)
set -eu

[ $# = 3 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
root=$1 model=$(realpath "$2") photos=$(realpath "$3") checkout=$(realpath "$(dirname "$0")/..")
limit=${LIMIT:-8}

if [ ! -e "$root/ready" ]; then
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv,ca-certificates,libgl1,libglib2.0-0 bookworm "$root"
    touch "$root/ready"
fi
root=$(realpath "$root")
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # with those of a proxy, if this network has one
rm -rf "$root/home/checkout" "$root/home/out" "$root/home/photos"
mkdir -p "$root/home/checkout" "$root/home/out" "$root/home/photos"
find "$photos" -name '*.jpg' | sort | head -n "$limit" | xargs -d '\n' cp -t "$root/home/photos"
(cd "$checkout" && git archive HEAD) | tar -x -C "$root/home/checkout"
cp "$model" "$root/home/model.onnx"

# ONNX Runtime and psutil read /proc; /sys would show this computer's processor.
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
trap 'exit 1' INT TERM HUP

chroot "$root" /bin/sh -eux <<STEPS
cd /home
[ -e venv/bin/pip ] || python3 -m venv venv
venv/bin/pip install --quiet "./checkout[serve]"
uname -m
venv/bin/python - <<'PYTHON'
import zlib
import numpy as np
from mobiledet.preprocess import resize_image
image = np.random.default_rng(0).integers(0, 256, (301, 448, 3), dtype=np.uint8)
assert zlib.crc32(resize_image(image, (300, 447))) == 1848190667, "resizing gives other bytes than on x86"
PYTHON
venv/bin/mobiledet predict model.onnx photos -o out/predict
venv/bin/mobiledet webcam --model model.onnx --source photos --no-window --max-frames $limit --report out/webcam.json
STEPS

ls "$root/home/out"
