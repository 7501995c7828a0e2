# syntax=docker/dockerfile:1
# Builds the service and puts nothing else into the image: no shell, no package manager, no root.

FROM rust:1-bookworm AS build
WORKDIR /build
# The dependencies change less often than the sources: build them in a layer of their own.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests \
 && echo 'fn main() {}' > src/main.rs && touch src/lib.rs tests/suite.rs \
 && cargo build --release --locked --bin countersign \
 && rm -rf src tests
COPY src src
COPY migrations migrations
COPY openapi openapi
COPY tests/suite.rs tests/suite.rs
# The stand-ins above are newer than the copied sources: touch, so that cargo sees the change.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin countersign \
 && mkdir -p /out/data && cp target/release/countersign /out/countersign

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.description="Stateless JWT auth and token introspection" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/countersign /usr/local/bin/countersign
COPY --from=build --chown=65532:65532 /out/data /var/lib/countersign
WORKDIR /var/lib/countersign
USER 65532:65532
# Inside a container every address is somebody else's: listen on all of them, and publish the operations port to nobody.
ENV COUNTERSIGN_PUBLIC__LISTEN=0.0.0.0:8080 \
    COUNTERSIGN_OPERATIONS__LISTEN=0.0.0.0:9090 \
    COUNTERSIGN_DATABASE__URL=sqlite:///var/lib/countersign/countersign.db
EXPOSE 8080 9090
VOLUME /var/lib/countersign
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/countersign", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/countersign"]
CMD ["serve"]
