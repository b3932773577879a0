//! buildah: builds whose RUN instructions are containers of the runtime under test.
//!
//! The settings and the storage are those of [`super::podman`], without podman.

use super::busybox_tar;
use super::podman::{Podman, User};
use crate::command::{Output, run};
use crate::runtime;
use crate::sandbox::{CgroupView, Sandbox};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The base image's name.
pub const IMAGE: &str = "localhost/base:latest";

/// A storage of buildah's own with the image [`IMAGE`], in a sandbox.
#[derive(Debug)]
pub struct Buildah {
    inner: Podman,
    user: User,
}

impl Buildah {
    /// Makes the sandbox and the base image.
    ///
    /// # Errors
    /// Why this machine cannot: a reason to skip.
    ///
    /// # Panics
    /// If buildah is installed but the image cannot be made.
    pub fn start(user: User, view: CgroupView) -> Result<Buildah, String> {
        let inner = Podman::without_image("buildah", user, view)?;
        let buildah = Buildah { inner, user };
        let tar = busybox_tar(buildah.sandbox()).display().to_string();
        buildah.call(["from", "--name", "base", "scratch"]).ok();
        buildah.call(["add", "base", &tar, "/"]).ok();
        buildah.call(["config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "base"]).ok();
        buildah.call(["commit", "--rm", "base", IMAGE]).ok();
        Ok(buildah)
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        self.inner.sandbox()
    }

    /// The storage and user, for what podman would do with them.
    pub fn podman(&self) -> &Podman {
        &self.inner
    }

    /// `buildah <args>`, not started.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.inner.program("buildah");
        command.env("BUILDAH_RUNTIME", runtime::binary());
        command.env("BUILDAH_ISOLATION", if self.user == User::Root { "oci" } else { "rootless" });
        command.args(args);
        command
    }

    /// Runs `buildah <args>`.
    pub fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(args))
    }

    /// Writes a build context whose only file besides `files` is a Dockerfile of this text.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn context(&self, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.sandbox().scratch().dir(name);
        fs::write(dir.join("Dockerfile"), dockerfile).expect("write a Dockerfile");
        for (file, text) in files {
            fs::write(dir.join(file), text).expect("write a file of the context");
        }
        dir
    }

    /// Runs `buildah bud --runtime <under test> --tag <name> <options> <context>`.
    pub fn build(&self, name: &str, dockerfile: &str, files: &[(&str, &str)], options: &[&str]) -> Output {
        let context = self.context(name, dockerfile, files);
        let mut command = self.command(["bud", "--pull-never", "--tag", name, "--runtime"]);
        command.arg(runtime::binary());
        if self.user == User::Root {
            command.arg(format!("--cgroup-parent=/{}", self.sandbox().tag()));
        }
        run(command.args(options).arg(context))
    }

    /// Runs a program in a new container of an image of this storage, and removes the container.
    pub fn run_image(&self, image: &str, options: &[&str], args: &[&str]) -> Output {
        let from = self.call(["from", "--pull-never", image]).ok();
        let container = from.text().to_owned();
        let runtime = runtime::binary().display().to_string();
        let mut all = vec!["run", "--runtime", &runtime];
        all.extend(options);
        all.extend(["--", &container]);
        all.extend(args);
        let out = self.call(all);
        self.call(["rm", &container]);
        out
    }
}
