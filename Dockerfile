# syntax=docker/dockerfile:1
# Builds the service and puts nothing else into the image: no shell, no package manager, no root.
# `deploy/check-dockerfile` carries out what can be carried out without a container.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# The dependencies change less often than the sources: build them in a layer of their own, with an empty program in the
# place of every target that the manifest names.
COPY Cargo.toml Cargo.lock ./
RUN sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml | while read -r target; do \
      mkdir -p "$(dirname "$target")" && echo 'fn main() {}' > "$target"; \
    done \
 && touch src/lib.rs \
 && cargo build --profile dist --locked --bin countersign \
 && rm -r src
COPY src src
COPY migrations migrations
# The stand-ins were written after the sources that replace them: touch, so that cargo sees the change.
RUN touch src/main.rs src/lib.rs \
 && cargo build --profile dist --locked --bin countersign \
 && mkdir -p /out/data && cp target/dist/countersign /out/countersign

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.description="Stateless JWT auth and token introspection" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/countersign /usr/local/bin/countersign
COPY --from=build --chown=65532:65532 /out/data /var/lib/countersign
# The embedded database and its master key are made here, unless database.url says otherwise.
WORKDIR /var/lib/countersign
VOLUME /var/lib/countersign
USER 65532:65532
# Inside a container every address is somebody else's: listen on all of them, and publish the operations port to nobody.
ENV COUNTERSIGN_PUBLIC__LISTEN=0.0.0.0:8080 \
    COUNTERSIGN_OPERATIONS__LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/countersign", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/countersign"]
CMD ["serve"]
