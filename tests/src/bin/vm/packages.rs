//! Debian packages, by apt, with sources and lists of its own: neither the machine's sources nor its
//! package lists change. The mirror is the one the machine's own sources name.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::Error;
use crate::options::Kernel;

/// Debian's archive keys, of the essential set's package of that name.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The release whose kernel is 6.1 and whose own QEMU would displace that of backports.
const DEBIAN_12: &str = "bookworm";

/// Programs needed on this machine and the packages that have them.
const PROGRAMS: [(&str, &str); 4] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("xz", "xz-utils"), ("zstd", "zstd")];

/// Installs QEMU and the few programs that this one calls, where they are missing.
///
/// # Errors
/// [`Error::Unsupported`] on a machine that is no amd64 Debian; [`Error::Failed`] when apt fails,
/// so when the installation would remove a package.
pub fn provide_programs() -> Result<(), Error> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = Apt::new(&std::env::temp_dir())?;
    let suite = match apt.release.as_str() {
        // QEMU 7.2 of Debian 12 conflicts with the qemu-utils of backports.
        DEBIAN_12 => format!("{DEBIAN_12}-backports"),
        release => release.to_owned(),
    };
    eprintln!("vm: installing {} from {suite}", missing.join(", "));
    let mut install = apt.command("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends", "--no-remove", "--target-release", &suite])
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    succeed(&mut install, "apt-get install").map(drop)
}

/// Unpacks a static busybox, for the initramfs, and AppArmor's parser, for the guest, into the cache.
///
/// # Errors
/// As of apt and of writing to the cache.
pub fn provide_tools(cache: &Path) -> Result<(), Error> {
    publish(cache, "tools", |directory| {
        let apt = Apt::new(directory)?;
        let busybox = apt.download(&apt.release, "busybox-static")?;
        unpack(&busybox, &directory.join("busybox"), &[])?;
        let parser = apt.download(&apt.release, "apparmor")?;
        unpack(&parser, &directory.join("layer"), &[])
    })
}

/// Downloads a kernel's image package into `directory`; returns the file's path.
///
/// # Errors
/// As of apt.
pub fn download_kernel(directory: &Path, kernel: Kernel) -> Result<PathBuf, Error> {
    let apt = Apt::new(directory)?;
    let suite = match kernel {
        Kernel::Backports => format!("{}-backports", apt.release),
        Kernel::V6_1 => DEBIAN_12.to_owned(),
    };
    // The package of this name is empty and depends on the one with the image.
    let output = succeed(
        apt.command("apt-cache").args([
            "depends",
            "--important",
            "--target-release",
            &suite,
            "linux-image-amd64",
        ]),
        "apt-cache depends linux-image-amd64",
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    let package =
        text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).ok_or_else(|| Error::Failed {
            program: "apt-cache depends linux-image-amd64".into(),
            why: format!("no kernel in {suite}"),
        })?;
    eprintln!("vm: downloading {package} from {suite}");
    let file = apt.download(&suite, package)?;
    let kept = directory.join("kernel.deb");
    fs::rename(&file, &kept).map_err(Error::file("move", &file))?;
    Ok(kept)
}

/// Unpacks a package below `target`, with `/bin`, `/lib` and `/sbin` as they are on a merged-/usr
/// system, leaving out members that match one of the patterns.
///
/// # Errors
/// [`Error::Failed`] when dpkg-deb or tar fails.
pub fn unpack(package: &Path, target: &Path, excluded: &[&str]) -> Result<(), Error> {
    fs::create_dir_all(target).map_err(Error::file("create", target))?;
    let start = |program: &str| {
        let program = program.to_owned();
        move |source| Error::Start { program, source }
    };
    let mut source = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start("dpkg-deb"))?;
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("-C").arg(target);
    tar.args([
        "--no-same-owner",
        "--transform=s,^\\./\\(bin\\|lib\\|sbin\\)\\(/\\|$\\),./usr/\\1\\2,",
        "--show-transformed-names",
    ]);
    tar.args(excluded.iter().map(|pattern| format!("--exclude={pattern}")));
    if let Some(archive) = source.stdout.take() {
        tar.stdin(archive);
    }
    let tar_status = tar.status().map_err(start("tar"))?;
    let source_status = source.wait().map_err(start("dpkg-deb"))?;
    for (program, status) in [("tar", tar_status), ("dpkg-deb", source_status)] {
        if !status.success() {
            return Err(Error::Failed {
                program: format!("{program} of {}", package.display()),
                why: status.to_string(),
            });
        }
    }
    Ok(())
}

/// Makes a directory of the cache appear whole or not at all, also when two processes make it.
///
/// # Errors
/// Those of `fill`, and of writing to the cache.
pub fn publish(cache: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let target = cache.join(name);
    if target.exists() {
        return Ok(());
    }
    let scratch = cache.join(format!(".{name}-{}", std::process::id()));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&scratch)
        .map_err(Error::file("create", &scratch))?;
    let result = fill(&scratch).and_then(|()| match fs::rename(&scratch, &target) {
        Err(_) if target.exists() => Ok(()), // another process was first
        other => other.map_err(Error::file("create", &target)),
    });
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(Error::file("remove", &scratch))?;
    }
    result
}

/// Runs a program to its end and returns what it wrote.
///
/// # Errors
/// [`Error::Start`], or [`Error::Failed`] with its own words when it fails.
pub fn succeed(command: &mut Command, what: &str) -> Result<Output, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: what.to_owned(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed { program: what.to_owned(), why: format!("{}: {}", output.status, words.trim()) })
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// apt with sources, lists and archives below a directory of its own, removed at the end.
struct Apt {
    directory: PathBuf,
    /// The code name of the machine's release.
    release: String,
}

impl Apt {
    /// Writes the sources (the machine's release, its backports, and Debian 12) and gets their lists.
    fn new(parent: &Path) -> Result<Self, Error> {
        let architecture = succeed(Command::new("dpkg").arg("--print-architecture"), "dpkg")?;
        if architecture.stdout.trim_ascii() != b"amd64" {
            return Err(Error::Unsupported("the guest needs an amd64 Debian".into()));
        }
        let os_release = Path::new("/etc/os-release");
        let text = fs::read_to_string(os_release).map_err(Error::file("read", os_release))?;
        let release = code_name(&text)
            .ok_or_else(|| Error::Unsupported("/etc/os-release names no release of Debian".into()))?;
        let apt = Self { directory: parent.join(format!("apt-{}", std::process::id())), release };
        for name in ["empty", "lists/partial", "archives/partial"] {
            let path = apt.directory.join(name);
            fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        }
        let mirror = apt.mirror()?;
        let mut suites = vec![apt.release.clone(), format!("{}-backports", apt.release)];
        if apt.release != DEBIAN_12 {
            suites.push(DEBIAN_12.into());
        }
        let path = apt.directory.join("sources.list");
        let mut file = fs::File::create(&path).map_err(Error::file("create", &path))?;
        for suite in suites {
            writeln!(file, "deb [signed-by={KEYRING}] {mirror} {suite} main")
                .map_err(Error::file("write", &path))?;
        }
        succeed(apt.command("apt-get").arg("update"), "apt-get update")?;
        Ok(apt)
    }

    /// The address of the archive that the machine's sources name for its release.
    fn mirror(&self) -> Result<String, Error> {
        let query = |command: &mut Command| {
            let arguments = ["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"];
            let output = succeed(command.args(arguments), "apt-get indextargets")?;
            Ok(mirror_of(&String::from_utf8_lossy(&output.stdout), &self.release))
        };
        if let Some(mirror) = query(&mut Command::new("apt-get"))? {
            return Ok(mirror);
        }
        // Before its first update apt knows no targets; that update need not be the machine's.
        let mut update = Command::new("apt-get");
        succeed(update.args(self.private_lists()).arg("update"), "apt-get update")?;
        query(Command::new("apt-get").args(self.private_lists()))?.ok_or_else(|| {
            Error::Unsupported(format!("the machine's package sources do not name {}", self.release))
        })
    }

    /// Downloads a package; returns the file's path.
    fn download(&self, suite: &str, package: &str) -> Result<PathBuf, Error> {
        let directory = self.directory.join(package);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let mut command = self.command("apt-get");
        command.args(["download", "--target-release", suite, package]).current_dir(&directory);
        succeed(&mut command, &format!("apt-get download {package}"))?;
        let mut entries = fs::read_dir(&directory).map_err(Error::file("read", &directory))?;
        match entries.next() {
            Some(Ok(entry)) => Ok(entry.path()),
            _ => Err(Error::Failed {
                program: format!("apt-get download {package}"),
                why: "it left no file".into(),
            }),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.private_lists());
        for (option, path) in [
            ("Etc::sourcelist", "sources.list"),
            ("Etc::sourceparts", "empty"),
            ("Cache::archives", "archives"),
        ] {
            command.arg("-o").arg(format!("Dir::{option}={}", self.directory.join(path).display()));
        }
        command
    }

    fn private_lists(&self) -> Vec<String> {
        let lists = format!("Dir::State::lists={}", self.directory.join("lists").display());
        let options = [
            lists.as_str(),
            // No cache of the lists: the machine's would be overwritten.
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "Acquire::Languages=none",
            // The directory is root's own.
            "APT::Sandbox::User=root",
        ];
        options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]).collect()
    }
}

impl Drop for Apt {
    fn drop(&mut self) {
        // Nothing that a later run would take up: what is left costs space only.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The release's code name, from the text of /etc/os-release.
fn code_name(os_release: &str) -> Option<String> {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    value("ID").filter(|id| id == "debian").and_then(|_| value("VERSION_CODENAME"))
}

/// The address of the first source of the release itself, from lines of "release address".
fn mirror_of(targets: &str, release: &str) -> Option<String> {
    let names = [release, "stable", "oldstable"];
    let lines: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
    names
        .iter()
        .find_map(|name| lines.iter().find(|(target, _)| target == name))
        .map(|(_, address)| (*address).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_debians() {
        assert_eq!(
            code_name("ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n").as_deref(),
            Some("bookworm")
        );
        assert_eq!(code_name("VERSION_CODENAME=\"trixie\"\nID=debian\n").as_deref(), Some("trixie"));
        assert_eq!(code_name("ID=other\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn the_mirror_is_that_of_the_release_not_of_other_sources() {
        let targets = "nodistro https://a.example/\nbookworm-security http://b.example/\nbookworm http://c.example/debian/\n";
        assert_eq!(mirror_of(targets, "bookworm").as_deref(), Some("http://c.example/debian/"));
        assert_eq!(mirror_of("stable http://d.example/\n", "trixie").as_deref(), Some("http://d.example/"));
        assert_eq!(mirror_of("", "trixie"), None);
    }

    #[test]
    fn a_directory_of_the_cache_is_whole_or_absent() {
        let cache = std::env::temp_dir().join(format!("dhow-test-vm-cache-{}", std::process::id()));
        let failure = publish(&cache, "kernel", |directory| {
            fs::write(directory.join("half"), b"").expect("a file");
            Err(Error::Unsupported("stop".into()))
        });
        assert!(failure.is_err());
        assert!(fs::read_dir(&cache).expect("the cache").next().is_none());
        publish(&cache, "kernel", |directory| {
            fs::write(directory.join("whole"), b"").expect("a file");
            Ok(())
        })
        .expect("the directory is made");
        assert!(cache.join("kernel/whole").exists());
        publish(&cache, "kernel", |_| Err(Error::Unsupported("made twice".into()))).expect("it is there");
        fs::remove_dir_all(&cache).expect("the cache to remove");
    }
}
