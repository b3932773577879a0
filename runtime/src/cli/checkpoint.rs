//! `checkpoint` and `restore`: options of CRIU.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dhow_runtime::{CgroupsMode, CheckpointOptions, RestoreOptions};

use super::args::{ArgError, Flags, invalid};
use super::error::CliError;
use super::{Session, absolute, foreground, lifecycle};

/// Where images are without `--image-path`, below the current directory.
const DEFAULT_IMAGES: &str = "checkpoint";

/// `checkpoint`.
pub fn checkpoint(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let image_path = image_path(flags)?;
    let options = CheckpointOptions {
        parent_path: parent_path(&image_path, flags)?,
        work_path: session.path(flags, "work-path"),
        leave_running: flags.is_on("leave-running"),
        tcp_established: flags.is_on("tcp-established"),
        tcp_skip_in_flight: flags.is_on("tcp-skip-in-flight"),
        link_remap: flags.is_on("link-remap"),
        ext_unix_sk: flags.is_on("ext-unix-sk"),
        shell_job: flags.is_on("shell-job"),
        lazy_pages: flags.is_on("lazy-pages"),
        status_fd: flags.number("status-fd")?.filter(|fd| *fd >= 0),
        page_server: page_server(flags)?,
        file_locks: flags.is_on("file-locks"),
        pre_dump: flags.is_on("pre-dump"),
        manage_cgroups_mode: cgroups_mode(flags)?,
        empty_network_ns: empty_network_ns(flags)?,
        auto_dedup: flags.is_on("auto-dedup"),
        image_path,
    };
    session.runtime.checkpoint(id, &options)?;
    Ok(0)
}

/// `restore`.
pub fn restore(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    let options = RestoreOptions {
        image_path: image_path(flags)?,
        work_path: session.path(flags, "work-path"),
        tcp_established: flags.is_on("tcp-established"),
        ext_unix_sk: flags.is_on("ext-unix-sk"),
        shell_job: flags.is_on("shell-job"),
        file_locks: flags.is_on("file-locks"),
        manage_cgroups_mode: cgroups_mode(flags)?,
        empty_network_ns: empty_network_ns(flags)?,
        auto_dedup: flags.is_on("auto-dedup"),
        lazy_pages: flags.is_on("lazy-pages"),
        lsm_profile: flags.text("lsm-profile")?.map(str::to_owned),
        lsm_mount_context: flags.text("lsm-mount-context")?.map(str::to_owned),
    };
    let detach = flags.is_on("detach");
    let create = lifecycle::create_options(session, flags, !detach)?;
    if !detach && !flags.is_on("no-subreaper") {
        foreground::become_subreaper(&session.log);
    }
    let running = session.runtime.restore(id, &options, &create)?;

    if detach {
        return Ok(0);
    }
    lifecycle::wait_and_delete(session, id, running, false)
}

/// The directory of images, made if it is not there.
fn image_path(flags: &Flags) -> Result<PathBuf, CliError> {
    let path = flags.filled("image-path").map_or(Path::new(DEFAULT_IMAGES), Path::new);
    let path = absolute(path)?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|source| CliError::MakeDirectory { path: path.clone(), source })?;
    Ok(path)
}

fn parent_path(image_path: &Path, flags: &Flags) -> Result<Option<PathBuf>, CliError> {
    let Some(parent) = flags.filled("parent-path").map(Path::new) else { return Ok(None) };
    if parent.is_absolute() {
        return Err(CliError::AbsoluteParentPath);
    }
    let path = image_path.join(parent);
    if !path.is_dir() {
        return Err(CliError::ParentPath { path });
    }
    Ok(Some(parent.to_owned()))
}

fn page_server(flags: &Flags) -> Result<Option<(String, u16)>, ArgError> {
    let Some(text) = flags.text("page-server")? else { return Ok(None) };
    let wrong = || invalid("page-server", text, "ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    // An IPv6 address stands in brackets.
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() {
        return Err(wrong());
    }
    Ok(Some((address.to_owned(), port.parse().map_err(|_| wrong())?)))
}

fn cgroups_mode(flags: &Flags) -> Result<Option<CgroupsMode>, ArgError> {
    Ok(Some(match flags.text("manage-cgroups-mode")? {
        None => return Ok(None),
        Some("soft") => CgroupsMode::Soft,
        Some("full") => CgroupsMode::Full,
        Some("strict") => CgroupsMode::Strict,
        Some("ignore") => CgroupsMode::Ignore,
        Some(other) => return Err(invalid("manage-cgroups-mode", other, "soft, full, strict or ignore")),
    }))
}

fn empty_network_ns(flags: &Flags) -> Result<bool, CliError> {
    let names = flags.texts("empty-ns")?;
    match names.iter().find(|name| **name != "network") {
        Some(name) => Err(CliError::EmptyNamespace { name: (*name).to_owned() }),
        None => Ok(!names.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs;

    fn flags(args: &[&str]) -> Flags {
        verbs::parse_for_test("checkpoint", args).0
    }

    #[test]
    fn page_servers() {
        let server = |text: &str| page_server(&flags(&["--page-server", text, "id"]));
        assert_eq!(server("127.0.0.1:27").unwrap(), Some(("127.0.0.1".into(), 27)));
        assert_eq!(server("[::1]:27").unwrap(), Some(("::1".into(), 27)));
        for text in ["host", ":27", "host:", "host:x", "host:70000"] {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_and_namespaces() {
        assert_eq!(cgroups_mode(&flags(&["id"])).unwrap(), None);
        let mode = |text| cgroups_mode(&flags(&["--manage-cgroups-mode", text, "id"]));
        assert_eq!(mode("full").unwrap(), Some(CgroupsMode::Full));
        assert!(mode("hard").is_err());
        assert!(!empty_network_ns(&flags(&["id"])).unwrap());
        assert!(empty_network_ns(&flags(&["--empty-ns", "network", "id"])).unwrap());
        let error = empty_network_ns(&flags(&["--empty-ns", "mount", "id"])).unwrap_err();
        assert_eq!(error.to_string(), "namespace \"mount\" is not supported");
    }

    #[test]
    fn parents_are_directories_below_the_images() {
        let images = std::env::temp_dir();
        assert!(matches!(
            parent_path(&images, &flags(&["--parent-path", "/p", "id"])),
            Err(CliError::AbsoluteParentPath)
        ));
        assert!(matches!(
            parent_path(&images, &flags(&["--parent-path", "nope", "id"])),
            Err(CliError::ParentPath { .. })
        ));
        assert_eq!(
            parent_path(&images, &flags(&["--parent-path", ".", "id"])).unwrap(),
            Some(PathBuf::from("."))
        );
    }
}
