FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build
WORKDIR /src
COPY requirements/base.txt requirements/tools.txt requirements/
RUN python -m pip install --no-cache-dir --require-hashes -r requirements/tools.txt \
    && python -m venv --without-pip /opt/gateway \
    && uv pip sync --no-cache --python /opt/gateway/bin/python --require-hashes --compile-bytecode requirements/base.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY mlflow-spool mlflow-spool
RUN python -m hatchling build --target wheel \
    && env --chdir=mlflow-spool python -m hatchling build --target wheel --directory ../dist \
    && uv pip install --no-cache --python /opt/gateway/bin/python --no-deps --compile-bytecode dist/*.whl

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Trigger Gateway" \
      org.opencontainers.image.description="Alerts in, exactly one Airflow DAG run out, and the memory of why" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/gateway /opt/gateway
# A volume that is mounted here gets the owner of this directory, so the user below may write to it.
RUN install --directory --owner=10001 --group=10001 /var/lib/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8090 \
    GATEWAY_DATA_DIR=/var/lib/gateway \
    GATEWAY_POLICY_FILE=/etc/gateway/policy.yaml
# A number, because Kubernetes can check only a number against runAsNonRoot.
USER 10001:10001
WORKDIR /var/lib/gateway
EXPOSE 8090
# Without urllib, which would ask through a proxy of the environment. The address is read as `serve` reads it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as c; from app.bootstrap.settings import read_address; a = read_address(); g = c.HTTPConnection('127.0.0.1' if a.is_everywhere else a.host, a.port, timeout=4); g.request('GET', '/livez'); raise SystemExit(g.getresponse().status != 200)"]
CMD ["trigger-gateway", "serve"]
