# docker build -t understudy .
# The README's "In a container" says how to run it.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
# The compiler is for the data plane, which mypyc turns into C; it stays in this stage.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && python -m venv /opt/understudy \
 && HATCH_BUILD_HOOK_ENABLE_MYPYC=1 /opt/understudy/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/understudy /opt/understudy
# A numeric user, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 understudy \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/understudy understudy \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/understudy
# The templates of `understudy init` listen where UNDERSTUDY_LISTEN says; loopback would be of no use here.
ENV PATH=/opt/understudy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    UNDERSTUDY_LISTEN=0.0.0.0:8080
USER 10001:10001
# Commands find the instance by ./state, so `docker exec NAME understudy kill --reason TEXT` just works.
WORKDIR /var/lib/understudy
VOLUME ["/var/lib/understudy"]
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Ready: at least one worker serves. Change the port with `admin.listen`.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/readyz', timeout=2)"]
ENTRYPOINT ["understudy"]
CMD ["serve", "/etc/understudy/understudy.yaml"]
