# syntax=docker/dockerfile:1
# The image of every process: API, orchestrator, worker. `docker build -t embeddery .`
# Debian 12 in both stages, so that the binary meets the glibc it was built with.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin embeddery \
    && install -D target/release/embeddery /out/usr/local/bin/embeddery \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
    && install -D -m 0644 LICENSE /out/usr/share/doc/embeddery/LICENSE \
    && install -d -o 10001 -g 10001 /out/app /out/app/Databases /out/app/Databases/user_databases \
        /out/app/models /out/app/models/embedding_models_data

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Embeddery" \
      org.opencontainers.image.description="Turns text into vectors" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out /
# Directories that volumes are mounted on belong to this user, so that new named volumes do, too.
USER 10001:10001
WORKDIR /app
ENV EMBEDDINGS_LISTEN=0.0.0.0:8000 \
    LOG_FORMAT=json
EXPOSE 8000 9090
# The binary asks the address it is configured for; there is no curl here.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s --retries=3 CMD ["embeddery", "health"]
ENTRYPOINT ["embeddery"]
CMD ["serve"]
