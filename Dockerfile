# One image for the dashboard and every Ray node, so that all run the same versions.
#   TORCH_INDEX   a package index that holds the build of torch you want (a CPU build is ten times smaller);
#                 empty: pip's own, which serves the CUDA build
FROM python:3.11.14-slim-bookworm

# torch.compile and triton call a C++ compiler while a run goes on.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/chimeralab

# torch comes first: this layer, by far the largest, stays when only the project changes.
ARG TORCH_INDEX=""
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY plugins plugins
COPY kernels kernels
COPY webui webui
RUN pip install --constraint constraints.txt '.[datasets,images,sweeps]'

# A named volume mounted at /data takes over its owner.
RUN useradd --uid 1000 --create-home lab && install --directory --owner=lab --group=lab /data
USER lab
WORKDIR /home/lab
ENV CHIMERALAB_HOME=/data RAY_USAGE_STATS_ENABLED=0
VOLUME /data
EXPOSE 7860
ENTRYPOINT ["chimeralab"]
CMD ["--help"]
