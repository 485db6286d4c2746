//! A VPS with Docker and the image, in an internet of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::docker::{self, Docker};
use crate::first_evening::internet::{self, Internet};
use crate::first_evening::namespace;
use crate::first_evening::vps::Vps;
use crate::support::poll;

/// The container of the compose files, in the folder that they are in.
const CONTAINER: &str = "deltapush-deltapush-1";

pub(super) struct Scene {
    pub(super) vps: Vps,
    pub(super) internet: Internet,
    pub(super) docker: Docker,
    /// The folder in which commands are typed, `deltapush`.
    pub(super) folder: PathBuf,
}

impl Scene {
    /// Starts it inside of a namespace.
    pub(super) async fn start(inside: &Path) -> Self {
        namespace::make_files_private(inside);
        let folder = inside.join("deltapush");
        fs::create_dir(&folder).unwrap();
        let [own, others] = internet::addresses();
        let vps = Vps::start(&folder, &own, &others).await;
        let internet = Internet::start().await;
        let docker = Docker::start(&vps, inside).await;
        docker::take_archive(&folder);
        Self { vps, internet, docker, folder }
    }

    /// The same with the image loaded.
    pub(super) async fn with_image(inside: &Path) -> Self {
        let scene = Self::start(inside).await;
        scene.vps.expect(&format!("docker load --input {}", docker::archive()));
        scene
    }

    /// Writes a file that people write, in a folder that may be new.
    pub(super) fn write(&self, name: &str, text: &str) {
        let file = self.folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Waits until a line of all containers' logs has these words.
    pub(super) async fn logs(&self, words: &[&str]) {
        let mut shown = String::new();
        let came = poll(Duration::from_secs(60), || {
            shown = self.vps.output_of("docker compose logs");
            shown.lines().any(|line| words.iter().all(|words| line.contains(words)))
        });
        assert!(came.await, "no line with {words:?} in {shown}");
    }

    /// A value that Docker has of the container.
    pub(super) fn inspect(&self, form: &str) -> String {
        let line = format!("docker inspect {CONTAINER} --format '{{{{{form}}}}}'");
        self.vps.output_of(&line).trim().to_owned()
    }
}
