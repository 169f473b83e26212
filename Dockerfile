# An image of the service: Python, the pinned dependencies and the remediator, run by a user without rights.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /build
# A directory `wheels/` beside this file makes the build work without a network; pyproject.toml is named so that a
# missing directory is no error.
COPY pyproject.toml wheel[s] /wheels/
COPY pyproject.toml README.md LICENSE constraints.tx[t] ./
COPY app app
# Constraints are taken where there are some, and an index is asked only where there are no wheels.
RUN set -eu; \
    if [ -f constraints.txt ]; then export PIP_CONSTRAINT=/build/constraints.txt; fi; \
    set -- /wheels/*.whl; \
    if [ -e "$1" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; fi; \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    python -m pip wheel --no-deps --wheel-dir /dist .; \
    python -m pip install --prefix /install /dist/*.whl; \
    mkdir -p /state/data /state/remediations

FROM ${BASE}
LABEL org.opencontainers.image.title="remediator" \
      org.opencontainers.image.description="Turns Prometheus alerts into safe, verified, audited remediations." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
# Where `serve` looks when nothing is configured: /data and /remediations, from the root directory.
COPY --from=build --chown=65532:65532 /state /
USER 65532:65532
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/-/healthy', timeout=4)"]
ENTRYPOINT ["remediator"]
CMD ["serve"]
# Last, because it is the large one: what is above need not be built again for a new release.
COPY --from=build /install /usr/local
