# Two images from one file, both as the user 10001 and without compilers or caches:
#
#   docker build --target driver -t skdtune-driver .     no torch: create, follow, dashboard
#   docker build --target worker -t skdtune-worker .     with torch: trains
#
# pip's own variables PIP_INDEX_URL and PIP_EXTRA_INDEX_URL may be given as build arguments, for
# a mirror, or for PyTorch's index of CPU wheels, which makes the worker several GB smaller.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The wheel, and an empty environment to install it into.
FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/skdtune

# REQUIREMENT is what gets installed: `skdtune`, or with its extra, `skdtune[train]`; always from
# the wheel above, never a package of that name from an index.
FROM build AS install-driver
ARG REQUIREMENT="skdtune"
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/skdtune/bin/pip install "${REQUIREMENT} @ file://$(echo /wheels/*.whl)"

FROM install-driver AS install-worker
ARG REQUIREMENT="skdtune[train]"
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/skdtune/bin/pip install "${REQUIREMENT} @ file://$(echo /wheels/*.whl)"

# What both images share: a user that owns nothing but SKDTUNE_HOME.
FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 skdtune \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/skdtune \
        --shell /usr/sbin/nologin skdtune \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/skdtune
ENV PATH="/opt/skdtune/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/skdtune \
    SKDTUNE_HOME=/var/lib/skdtune
WORKDIR /var/lib/skdtune
USER 10001:10001
ENTRYPOINT ["skdtune"]
CMD ["--help"]

FROM runtime AS worker
COPY --from=install-worker /opt/skdtune /opt/skdtune
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS driver
COPY --from=install-driver /opt/skdtune /opt/skdtune
