//! dhow-runtime under buildah: the RUN instructions of a Dockerfile, and `buildah run`, as root and as a user.

use dhow_tests::callers::Steps;
use dhow_tests::callers::buildah::Buildah;
use dhow_tests::callers::podman::{SAILOR_ID, User};
use dhow_tests::sandbox::{CgroupLayout, CgroupView, cgroup_layout};
use dhow_tests::{leftovers, skip};

#[test]
fn buildah_as_root() {
    with_buildah("buildah", User::Root);
}

#[test]
fn buildah_rootless() {
    with_buildah("buildah rootless", User::Sailor);
}

fn with_buildah(name: &'static str, user: User) {
    let view = if cgroup_layout() == CgroupLayout::Unified { CgroupView::V2 } else { CgroupView::V1 };
    let buildah = match Buildah::start(user, view) {
        Ok(buildah) => buildah,
        Err(reason) => skip!("{reason}"),
    };
    let mut steps = Steps::new(name);
    builds(&buildah, &mut steps);
    runs(&buildah, &mut steps);
    if user == User::Root {
        limits(&buildah, &mut steps);
    }
    steps.step("nothing is left", || {
        assert!(buildah.podman().runtime_entries().is_empty(), "{:?}", buildah.podman().runtime_entries());
        let tag = buildah.sandbox().tag();
        let found = leftovers::find(tag);
        let below = format!("{tag}/");
        let cgroups: Vec<_> =
            found.iter().filter(|l| l.starts_with("cgroup") && l.contains(&below)).collect();
        assert!(cgroups.is_empty(), "{cgroups:#?}");
    });
    steps.finish();
}

fn builds(buildah: &Buildah, steps: &mut Steps) {
    steps.step("a Dockerfile with RUN", || {
        let dockerfile = "FROM localhost/base\n\
             ARG WORD=none\nENV GIVEN=env\nWORKDIR /work\nCOPY file /work/copied\n\
             RUN echo $WORD $GIVEN $(pwd) $(cat copied) >result && echo mate:x:1000:1000::/:/bin/sh >>/etc/passwd\n\
             RUN [\"touch\", \"exec-form\"]\n\
             USER mate\nRUN id -un >/tmp/user\n";
        let options = ["--build-arg", "WORD=arg"];
        buildah.build("built", dockerfile, &[("file", "content")], &options).ok();
        let out = buildah.run_image("localhost/built", &[], &["cat", "/work/result", "/tmp/user"]).ok();
        assert_eq!(out.stdout, "arg env /work content\nmate\n");
        let out = buildah
            .run_image("localhost/built", &[], &["stat", "-c", "%u", "/work/exec-form", "/tmp/user"])
            .ok();
        assert_eq!(out.stdout, "0\n1000\n");
    });
    steps.step("a stage that copies from another", || {
        let dockerfile = "FROM localhost/base AS one\nRUN echo made >/made\n\
             FROM localhost/base\nCOPY --from=one /made /got\nRUN test \"$(cat /got)\" = made\n";
        buildah.build("stages", dockerfile, &[], &[]).ok();
    });
    steps.step("RUN --mount: cache, bind, tmpfs, secret", || {
        let dockerfile = "FROM localhost/base\n\
             RUN --mount=type=cache,target=/cache echo kept >/cache/file\n\
             RUN --mount=type=cache,target=/cache cat /cache/file >/result\n\
             RUN --mount=type=bind,source=file,target=/bound cat /bound >>/result\n\
             RUN --mount=type=tmpfs,target=/scratch touch /scratch/x && df /scratch | grep -q tmpfs\n\
             RUN --mount=type=secret,id=word cat /run/secrets/word >>/result\n";
        let secret = buildah.sandbox().join("secret");
        std::fs::write(&secret, "hidden\n").unwrap();
        let option = format!("--secret=id=word,src={}", secret.display());
        buildah.build("mounts", dockerfile, &[("file", "bound\n")], &[&option]).ok();
        let out = buildah.run_image("localhost/mounts", &[], &["cat", "/result"]).ok();
        assert_eq!(out.stdout, "kept\nbound\nhidden\n");
    });
    steps.step("a RUN that fails stops the build with its code", || {
        let out = buildah.build("fails", "FROM localhost/base\nRUN exit 7\nRUN touch /never\n", &[], &[]);
        assert!(out.code == 7 && out.stderr.contains("exit status 7"), "{out}");
        let out = buildah.build("missing", "FROM localhost/base\nRUN [\"nocommand\"]\n", &[], &[]);
        assert!(!out.success(), "{out}");
    });
    steps.step("standard input of RUN is empty, its outputs are shown", || {
        let out =
            buildah.build("shown", "FROM localhost/base\nRUN cat; echo out; echo err >&2\n", &[], &[]).ok();
        assert!(out.stdout.lines().any(|l| l == "out") && out.stderr.lines().any(|l| l == "err"), "{out}");
    });
}

fn runs(buildah: &Buildah, steps: &mut Steps) {
    steps.step("run: outputs, code, user", || {
        let out =
            buildah.run_image("localhost/base", &[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).code(7);
        assert_eq!(out.stdout, "out\n");
        let out = buildah.run_image("localhost/base", &["--user", "1000:1000"], &["id", "-u"]).ok();
        assert_eq!(out.text(), "1000");
    });
    steps.step("run --tty", || {
        let options = ["--tty"];
        let out =
            buildah.run_image("localhost/base", &options, &["sh", "-c", "test -t 1 && echo terminal"]).ok();
        assert_eq!(out.text(), "terminal");
    });
    steps.step("run: capabilities, volumes", || {
        let status = ["cat", "/proc/self/status"];
        let out = buildah.run_image("localhost/base", &["--cap-drop", "all"], &status).ok();
        assert!(out.stdout.contains("CapBnd:\t0000000000000000"), "{out}");
        let dir = buildah.sandbox().scratch().dir("volume");
        std::fs::write(dir.join("file"), "volume\n").unwrap();
        let volume = format!("{}:/mnt:ro", dir.display());
        let out = buildah.run_image("localhost/base", &["-v", &volume], &["cat", "/mnt/file"]).ok();
        assert_eq!(out.text(), "volume");
    });
    steps.step("run: the user namespace", || {
        let out = buildah.run_image("localhost/base", &[], &["cat", "/proc/self/uid_map"]).ok();
        let words: Vec<u32> = out.stdout.split_whitespace().map(|w| w.parse().unwrap()).collect();
        let rootless = words[1] == SAILOR_ID;
        assert!(rootless || words[..2] == [0, 0], "{out}");
    });
}

fn limits(buildah: &Buildah, steps: &mut Steps) {
    steps.step("limits of a build", || {
        let (v1, v2) = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max");
        let dockerfile = format!("FROM localhost/base\nRUN cat {v1} 2>/dev/null || cat {v2}\n");
        let out = buildah.build("limited", &dockerfile, &[], &["--memory", "64m"]).ok();
        assert!(out.stdout.lines().any(|l| l == "67108864"), "{out}");
    });
}
