#!/usr/bin/env bash
# Makes .venv with everything in it. Safe to interrupt and to repeat: what is done is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
say() { printf '\n[setup] %s\n' "$*"; }

if [ ! -x .venv/bin/pip ]; then
    say "1/3 creating .venv ($("$python" --version))"
    rm -rf .venv
    "$python" -m venv .venv
else
    say "1/3 .venv is there"
fi

say "2/3 installing packages: about 6 minutes the first time on 2 cores, most of it compiling llama.cpp"
# One resolver run, so that torch, torchvision and torchaudio fit each other. llama.cpp without its image part.
CMAKE_ARGS="${CMAKE_ARGS:--DLLAVA_BUILD=OFF}" \
    .venv/bin/pip install --disable-pip-version-check -q --progress-bar off -e '.[dev]' -c constraints.txt &
install=$!
trap 'kill "$install" 2>/dev/null || true' EXIT
seconds=0
while kill -0 "$install" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ $((seconds % 30)) -eq 0 ]; then echo "        … $seconds s"; fi
done
wait "$install"
trap - EXIT

say "3/3 fetching llama.cpp's converter (77 MB) and the built-in model (93 MB), once for this machine"
.venv/bin/orchestrator model fetch
