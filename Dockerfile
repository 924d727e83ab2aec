# Retinue with one project, for every node of a cluster: the head, the workers and whoever submits a job.
#
#   docker build --build-arg PROJECT=examples/research --tag registry.example/retinue-research:1 .
#
# Every package comes from requirements.lock, by its hash. The image holds no compiler, no tests and nothing to build
# with, and runs as user 1000. For an image that is the same tomorrow, give PYTHON with its digest.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /build

# What the rest is built with: uv and hatchling. pick.awk copies from the lock the packages whose names it reads.
COPY requirements.lock ./
RUN echo 'NR == FNR { wanted[$1]; next } /^[^ ]/ { split($1, pin, "=="); keep = pin[1] in wanted } keep' > pick.awk \
    && printf '%s\n' uv hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    | awk -f pick.awk - requirements.lock > tools.lock \
    && python -m venv /tools \
    && /tools/bin/pip install --quiet --require-hashes --no-deps --requirement tools.lock

# What a node needs of the lock: the resolver says which packages, the lock which versions and hashes.
COPY pyproject.toml ./
RUN /tools/bin/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --constraints requirements.lock \
        --extra postgres --extra s3 --extra otlp pyproject.toml | awk -F '[ =;[]' '{ print $1 }' > names \
    && awk -f pick.awk names requirements.lock > node.lock \
    && test "$(grep -c '^[^ ]' node.lock)" -ge "$(wc -l < names)" \
    && python -m venv --without-pip /opt/retinue \
    && /tools/bin/uv pip sync --quiet --python /opt/retinue/bin/python --require-hashes node.lock

COPY . .
RUN /tools/bin/python -m hatchling build --target wheel --directory dist \
    && /tools/bin/uv pip install --quiet --python /opt/retinue/bin/python --no-deps --offline dist/*.whl

FROM python:${PYTHON}
# KubeRay starts Ray in a login shell, which sets PATH anew.
RUN groupadd --gid 1000 retinue \
    && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash retinue \
    && install --directory --owner=1000 --group=1000 /var/lib/retinue \
    && echo 'export PATH=/opt/retinue/bin:$PATH' > /etc/profile.d/retinue.sh
COPY --from=build /opt/retinue /opt/retinue
ARG PROJECT=examples/research
COPY ${PROJECT} /home/retinue/project
ENV PATH=/opt/retinue/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 RETINUE_DATA=/var/lib/retinue
USER 1000:1000
WORKDIR /home/retinue/project
CMD ["retinue", "--help"]
