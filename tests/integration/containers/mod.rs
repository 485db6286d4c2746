//! The container image, started as docs/containers.md and the compose files say, in the namespaces and the internet of
//! `first_evening`. `scripts/test-image` brings the image, Docker, Compose and Podman, and starts these tests; no other run does.

mod beside;
mod client;
mod docker;
mod page;
mod scene;
mod walk;
