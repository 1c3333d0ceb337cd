# The cache in an image of its own: one static binary, no shell, no root.
#
#   docker build -t scache .
#   install -d -o 65532 -g 65532 -m 0700 DIRECTORY
#   docker run --read-only --network none -v DIRECTORY:/run/scache scache
#
# Where no registry can be reached, scripts/base-images makes GO_IMAGE out of Debian
# packages and the Go at hand; any other image with Go and a shell does, too.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
ARG VERSION
WORKDIR /src
COPY . .
# As in the Makefile: the same source and the same Go make the same bytes, wherever.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X main.version=${VERSION:-$(cat VERSION)}" -o /out/scache .
# The directory that is shared with the agents; a new volume takes owner and mode
# from here. Nobody but the cache's own user gets in.
RUN install -d -m 0700 /out/directories/run/scache

FROM scratch
LABEL org.opencontainers.image.title="scache" \
	org.opencontainers.image.description="A shared connection cache for Postfix" \
	org.opencontainers.image.licenses="MIT"
COPY --from=build /out/scache /scache
COPY --from=build --chown=65532:65532 /out/directories/ /
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["/scache", "check"]
ENTRYPOINT ["/scache"]
CMD ["serve", "-socket", "/run/scache/socket"]
