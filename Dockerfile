# The package with its configs, on a CPU or on GPUs.
#   docker build --tag viker-lightning .
#   docker build --tag viker-lightning:cuda --build-arg TORCH=cu126 --build-arg EXTRAS=quant .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" viker-lightning \
#     fit --config viker_lightning:mini/viker.yaml
#   docker run --rm --gpus all --volume "$PWD:/data" viker-lightning:cuda fit --config viker_lightning:mllmu/viker.yaml
# Runs are written to /data/runs; models and what is built once are in /data/.cache.
FROM python:3.12-slim

# Where torch comes from: cpu, or a CUDA that it has wheels for (https://pytorch.org/get-started/locally). These bring
# CUDA's libraries along; the machine needs a driver and NVIDIA's container toolkit.
ARG TORCH=cpu
# Extras of pyproject.toml, separated by commas.
ARG EXTRAS=tensorboard

# torch is a layer of its own: a change of the package does not download it again
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/${TORCH} "torch>=2.6" "torchvision>=0.21"

COPY pyproject.toml README.md LICENSE /src/
COPY configs /src/configs
COPY src /src/src
RUN pip install --no-cache-dir "/src[${EXTRAS}]" && rm -r /src

ENV VIKER_LIGHTNING_CACHE=/data/.cache/viker-lightning HF_HOME=/data/.cache/huggingface \
    HOME=/tmp USER=viker
WORKDIR /data
ENTRYPOINT ["viker-lightning"]
CMD ["--help"]
