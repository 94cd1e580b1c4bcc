# The service and its models; nothing that only training needs.
#
# TORCH_INDEX_URL chooses the build of torch. Empty: pip's own configuration decides, which on Linux x86-64 and the
# public index means the CUDA build (several GB). For a small CPU image give the address of PyTorch's CPU index, which
# its installation page names:  docker build --build-arg TORCH_INDEX_URL=<address> .

# A stage of its own, so that only another list of dependencies, not every change of pyproject.toml, installs them again.
FROM python:3.11-slim AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > /requirements.txt


FROM python:3.11-slim AS packages
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/venv

# --no-deps: PyTorch's index does not carry our pinned versions of what torch needs; those come with the rest below.
# What torch ships only for compiling against it, and its own tests, are 200 MB.
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install --no-deps -c constraints.txt \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch \
    && torch=/opt/venv/lib/python3.11/site-packages/torch \
    && rm -rf "$torch/include" "$torch/share" "$torch/test" \
    && find "$torch/bin" -type f ! -name torch_shm_manager -delete

COPY --from=requirements /requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt


# Our code apart from the packages: a change of it is a layer of kilobytes, not another copy of torch.
FROM packages AS service
# --no-build-isolation: torch brings the setuptools that builds us, so this step needs no network.
COPY LICENSE pyproject.toml ./
COPY service ./service
RUN pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --no-cache-dir --target /srv .

# Whatever the umask was under which a bundle was exported, the user below can read it.
COPY models /models
RUN chmod -R a+rX /models


FROM python:3.11-slim
LABEL org.opencontainers.image.title="vitrine" \
      org.opencontainers.image.description="Pictures from your own generator, over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
# The root file system may be read-only: bytecode was written when the packages were installed.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VITRINE_HOST=0.0.0.0 \
    VITRINE_MODELS_DIR=/models
RUN groupadd --gid 10001 vitrine \
    && useradd --uid 10001 --gid vitrine --home-dir /tmp --no-create-home --shell /usr/sbin/nologin vitrine
COPY --from=packages /opt/venv /opt/venv
COPY --from=service /srv /srv
COPY --from=service /models /models
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client: unlike urllib.request it takes no notice of proxy settings, and it comes with Python.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('VITRINE_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]
