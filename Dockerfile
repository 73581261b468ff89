# DROP in a container, on a processor or a graphics card:
#
#   docker build -t drop .
#   docker build -t drop:cuda --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run --rm -v "$PWD/runs:/work/runs" drop run --config mnist5k/drop --out runs/mine
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/runs:/work/runs" -v "$PWD/data:/work/data" \
#     drop:cuda run --config cifar10/drop --cuda 0 --out runs/cifar10
#
# Worker processes share memory: give --shm-size, or train with --engine inline. tests/fixtures/dockerfile.py
# carries out these steps without Docker.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=store,figures
ENV VIRTUAL_ENV=/opt/drop PATH=/opt/drop/bin:$PATH PYTHONUNBUFFERED=1
# A base without Python, such as CUDA's, gets the one of its distribution; Ubuntu 24.04 has 3.12.
RUN command -v python3 >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv "$VIRTUAL_ENV"
RUN python -m pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
COPY pyproject.toml README.md LICENSE /src/
COPY entity /src/entity
RUN python -m pip install --no-cache-dir "/src[$EXTRAS]"
RUN useradd --create-home drop && mkdir -p /work/runs /work/data && chown -R drop /work
USER drop
WORKDIR /work
ENTRYPOINT ["drop"]
CMD ["list"]
