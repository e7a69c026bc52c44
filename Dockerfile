# One image for every role: sliceway api | worker | flower | migrate | emulator.

FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock ./
# Everything that the lock names, each file by its hash.
RUN python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement requirements.lock --dest /wheels
COPY pyproject.toml README.md LICENSE ./
COPY api ./api
COPY worker ./worker
COPY migrations ./migrations
# From those files alone: first the tools that build the wheel, then what runs, without the tools.
RUN python -m venv /build/tools \
 && /build/tools/bin/pip install --quiet --disable-pip-version-check --no-index --find-links /wheels hatchling \
 && /build/tools/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/sliceway \
 && /opt/sliceway/bin/pip install --quiet --disable-pip-version-check --no-index --find-links /wheels sliceway

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin sliceway \
 && install --directory --owner sliceway --group sliceway /data
COPY --from=build /opt/sliceway /opt/sliceway
ENV PATH=/opt/sliceway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SLICEWAY_LOG_FORMAT=json
USER sliceway
WORKDIR /data
EXPOSE 8080 5555
# For the API, which is the default role; docker-compose.yml has the others'.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
  "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SLICEWAY_API_PORT', '8080') + '/readyz')"]
ENTRYPOINT ["sliceway"]
CMD ["api"]
