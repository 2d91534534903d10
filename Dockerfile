# CPU:  docker build -t orchestrator .
# CUDA: docker build -t orchestrator --build-arg BASE=nvidia/cuda:13.0.2-base-ubuntu24.04 --build-arg TORCH= .
# Run:  docker run --rm -it -v "$PWD":/project -v orchestrator-cache:/cache [--gpus all] orchestrator run
#
# BASE is any Debian or Ubuntu with Python 3.11 to 3.13 in its archive (bookworm, noble); TORCH is a build from PyTorch's
# index (cpu, cu126), or empty for PyPI's, which brings CUDA 13 and wants only the driver from outside.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG TORCH=cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ make python3 python3-venv python3-dev \
    && rm -rf /var/lib/apt/lists/*

# llama.cpp compiles for the CPU that it is compiled on, unless told that the image goes elsewhere: then AVX2 is asked of it.
ENV CMAKE_ARGS=-DGGML_NATIVE=OFF ORCHESTRATOR_CACHE=/opt/cache
WORKDIR /opt/orchestrator
COPY . .
RUN UV_CACHE_DIR=/tmp/uv make setup TORCH=${TORCH} && rm -rf /tmp/uv /opt/cache/wheels

# The built-in model and llama.cpp's converter are in the image; what is downloaded later goes to a volume.
ENV PATH=/opt/orchestrator/.venv/bin:$PATH HF_HOME=/cache/hf
WORKDIR /project
ENTRYPOINT ["orchestrator"]
CMD ["--help"]
