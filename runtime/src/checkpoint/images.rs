//! The directory of a checkpoint: CRIU's images, which may come from somebody else, and `descriptors.json` with the
//! standard streams that led outside (runc's file).
//!
//! An image is a program with all its memory and rights: whoever restores one runs it as root, in the limits of the
//! container's cgroup. What is checked here is that an image takes nothing of the host beyond what `config.json`
//! gives: CRIU follows symbolic links when it opens images and logs (a link to a host file would become memory of the
//! container, or be overwritten), and puts external mounts where the image says. A directory that somebody can
//! change during the restore is not made safe by a check.

use super::error::Error;
use super::protobuf::Reader;
use super::streams::{Inherited, inherited};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Pre-dumps before a dump.
const MOST_PARENTS: usize = 256;
/// Far above what a mount table needs.
const MOST_IMAGE_BYTES: u64 = 16 << 20;
const MOST_DESCRIPTORS_BYTES: u64 = 64 << 10;
/// What descriptors 0, 1 and 2 were.
const DESCRIPTORS: &str = "descriptors.json";
/// The link to the images of an earlier pre-dump.
const PARENT: &str = "parent";

/// A directory of images, or the one for logs.
pub(crate) struct Images {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

/// A mount in the images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageMount {
    /// The file it stands in.
    pub image: String,
    /// Where it goes, without a leading `.`.
    pub mountpoint: Vec<u8>,
    /// Its name, if it is external.
    pub key: Option<Vec<u8>>,
    /// `MS_*` flags.
    pub flags: u32,
}

impl Images {
    /// Opens a directory; the last component of its path may not be a link.
    pub(crate) fn open(path: &Path) -> Result<Images, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let fd = opened.map_err(|e| file_error("opening directory", path)(e))?;
        Ok(Images { fd, path: path.to_path_buf() })
    }

    /// Opens a directory, made if it is not there.
    pub(crate) fn create(path: &Path) -> Result<Images, Error> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Images::open(path),
            Err(e) => Err(file_error("making directory", path)(e)),
        }
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        // Not to wait for the other end of a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(file_error("opening", &path)(e)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(file_error("checking", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::ImageEntry { path, what: "not a regular file" });
        }
        let mut bytes = Vec::new();
        File::from(fd).take(most_bytes + 1).read_to_end(&mut bytes).map_err(|source| Error::File {
            action: "reading",
            path: path.clone(),
            source,
        })?;
        if bytes.len() as u64 > most_bytes {
            return Err(Error::Image { path, what: "is too large" });
        }
        Ok(Some(bytes))
    }

    /// Refuses links and special files here and in the parents: CRIU would follow them.
    pub(crate) fn check_entries(&self) -> Result<(), Error> {
        let mut parent = check_directory(self.fd.as_fd(), &self.path)?;
        let mut parents = 0;
        while let Some(images) = parent {
            parents += 1;
            if parents > MOST_PARENTS {
                let path = self.path.join(PARENT);
                return Err(Error::ImageEntry { path, what: "the first of too many parents" });
            }
            parent = check_directory(images.fd.as_fd(), &images.path)?;
        }
        Ok(())
    }

    /// The mounts of every mount namespace in the images.
    pub(crate) fn mounts(&self) -> Result<Vec<ImageMount>, Error> {
        let mut mounts = Vec::new();
        for name in names(self.fd.as_fd(), &self.path)? {
            let Ok(name) = std::str::from_utf8(&name) else { continue };
            if !name.starts_with("mountpoints-") || !name.ends_with(".img") {
                continue;
            }
            if let Some(bytes) = self.read(name, MOST_IMAGE_BYTES)? {
                parse_mounts(&bytes, name, &self.path, &mut mounts)?;
            }
        }
        Ok(mounts)
    }

    /// Remembers what the standard streams were.
    pub(crate) fn save_descriptors(&self, list: &[String; 3]) -> Result<(), Error> {
        let path = self.path.join(DESCRIPTORS);
        let failed = |source| Error::File { action: "writing", path: path.clone(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            openat(&self.fd, DESCRIPTORS, flags, Mode::from_raw_mode(0o600)).map_err(|e| failed(e.into()))?;
        let text = serde_json::to_vec(list).map_err(|e| failed(e.into()))?;
        File::from(fd).write_all(&text).map_err(failed)
    }

    /// The standard streams that led outside.
    pub(crate) fn streams(&self) -> Result<Vec<Inherited>, Error> {
        let Some(bytes) = self.read(DESCRIPTORS, MOST_DESCRIPTORS_BYTES)? else { return Ok(Vec::new()) };
        let path = || self.path.join(DESCRIPTORS);
        let list: Vec<String> = serde_json::from_slice(&bytes).map_err(|source| Error::File {
            action: "parsing",
            path: path(),
            source: source.into(),
        })?;
        let mut streams: Vec<Inherited> = Vec::new();
        for stream in (0..3).zip(list).filter_map(|(number, name)| inherited(number, &name)) {
            // Standard output and error may be one pipe.
            if streams.iter().all(|known| known.key != stream.key) {
                streams.push(stream);
            }
        }
        Ok(streams)
    }

    /// The lines of a log that tell what went wrong: errors, or the last ones.
    pub(crate) fn log_lines(&self, name: &str) -> String {
        const LINES: usize = 6;
        // What cannot be read is missing in a message that is about something else.
        let Ok(Some(bytes)) = self.read(name, u64::MAX - 1) else { return String::new() };
        let text = String::from_utf8_lossy(&bytes);
        // Its own ones: the programs it runs write there too. That it could not raise its own limit, which an
        // ordinary root may not, is never the reason.
        let tells = |line: &&str| line.contains("Error (") && !line.contains("Can't setup RLIMIT_NOFILE");
        let mut lines: Vec<&str> = text.lines().filter(tells).collect();
        if lines.is_empty() {
            lines = text.lines().collect();
        }
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

fn file_error(action: &'static str, path: &Path) -> impl Fn(Errno) -> Error + use<> {
    let path = path.to_path_buf();
    move |e| Error::File { action, path: path.clone(), source: e.into() }
}

fn names(fd: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd).map_err(file_error("listing", path))? {
        let entry = entry.map_err(file_error("listing", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Checks one directory; returns its parent.
fn check_directory(fd: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<Option<Images>, Error> {
    let mut parent = None;
    for name in names(fd, path)? {
        let at = path.join(std::ffi::OsStr::from_bytes(&name));
        let failed = file_error("checking", &at);
        let stat = rustix::fs::statat(fd, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            // Directories and sockets are there where engines keep images beside their own things, or a lazy
            // restore's in the same directory.
            FileType::RegularFile | FileType::Directory | FileType::Socket => continue,
            FileType::Symlink if name == PARENT.as_bytes() => {
                let target = rustix::fs::readlinkat(fd, PARENT, Vec::new()).map_err(&failed)?;
                if target.as_bytes().starts_with(b"/") {
                    return Err(Error::ImageEntry { path: at, what: "a link to an absolute path" });
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = openat(fd, PARENT, flags, Mode::empty()).map_err(&failed)?;
                parent = Some(Images { fd: opened, path: at });
                continue;
            }
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            _ => "a device",
        };
        return Err(Error::ImageEntry { path: at, what });
    }
    Ok(parent)
}

/// `IMG_COMMON_MAGIC` and `MNTS_MAGIC`.
const MAGIC: [u32; 2] = [0x5456_4319, 0x5556_3928];

fn parse_mounts(
    bytes: &[u8],
    name: &str,
    directory: &Path,
    mounts: &mut Vec<ImageMount>,
) -> Result<(), Error> {
    let image = |what| Error::Image { path: directory.join(name), what };
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| {
        let (word, after) = rest.split_first_chunk::<4>().ok_or_else(|| image("is cut off"))?;
        *rest = after;
        Ok::<_, Error>(u32::from_le_bytes(*word))
    };
    for magic in MAGIC {
        if word(&mut rest)? != magic {
            return Err(image("is not a table of mounts"));
        }
    }
    while !rest.is_empty() {
        let length = word(&mut rest)? as usize;
        let (entry, after) = rest.split_at_checked(length).ok_or_else(|| image("is cut off"))?;
        rest = after;
        let mount = parse_mount(entry, name)
            .map_err(|source| Error::ImageMessage { path: directory.join(name), source })?;
        mounts.push(mount);
    }
    Ok(())
}

/// `mnt_entry` of CRIU's `images/mnt.proto`.
fn parse_mount(entry: &[u8], name: &str) -> Result<ImageMount, super::protobuf::Malformed> {
    let mut mount = ImageMount { image: name.to_owned(), ..ImageMount::default() };
    let mut root = Vec::new();
    let mut key_is_root = false;
    for field in Reader::new(entry) {
        match field? {
            (5, value) => mount.flags = value.number(5)? as u32,
            (6, value) => root = value.bytes(6)?.to_vec(),
            (7, value) => {
                let text = value.bytes(7)?;
                mount.mountpoint = text.strip_prefix(b".").unwrap_or(text).to_vec();
            }
            // An older CRIU put the name in the place of the root.
            (13, value) => key_is_root = value.number(13)? != 0,
            (18, value) => mount.key = Some(value.bytes(18)?.to_vec()),
            _ => {}
        }
    }
    if key_is_root {
        mount.key = Some(root);
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::Writer;
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("dhow-test-images-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&path));
            std::fs::create_dir(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn table(entries: &[Writer]) -> Vec<u8> {
        let mut bytes: Vec<u8> = MAGIC.iter().flat_map(|m| m.to_le_bytes()).collect();
        for entry in entries {
            bytes.extend((entry.as_bytes().len() as u32).to_le_bytes());
            bytes.extend(entry.as_bytes());
        }
        bytes
    }

    #[test]
    fn mounts_are_read() {
        let mut new = Writer::default();
        new.number(5, 1);
        new.bytes(6, b"/x");
        new.bytes(7, b"./data");
        new.bytes(18, b"/data");
        let mut old = Writer::default();
        old.bytes(6, b"name");
        old.bytes(7, b"/old");
        old.boolean(13, true);
        let mut plain = Writer::default();
        plain.bytes(7, b"./");
        let mut mounts = Vec::new();
        parse_mounts(&table(&[new, old, plain]), "m", Path::new("/i"), &mut mounts).unwrap();
        let mount = |mountpoint: &[u8], key: Option<&[u8]>, flags| ImageMount {
            image: "m".into(),
            mountpoint: mountpoint.to_vec(),
            key: key.map(<[u8]>::to_vec),
            flags,
        };
        assert_eq!(
            mounts,
            [mount(b"/data", Some(b"/data"), 1), mount(b"/old", Some(b"name"), 0), mount(b"/", None, 0)]
        );
        let cut = &table(&[Writer::default()])[..10];
        assert!(parse_mounts(cut, "m", Path::new("/i"), &mut mounts).is_err());
        assert!(parse_mounts(&[0; 8], "m", Path::new("/i"), &mut mounts).is_err());
    }

    #[test]
    fn links_and_special_files_are_refused() {
        let scratch = Scratch::new("links");
        let images = scratch.0.join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::create_dir(scratch.0.join("before")).unwrap();
        std::fs::write(images.join("core-1.img"), "").unwrap();
        let check = || Images::open(&images).unwrap().check_entries().map_err(|e| e.to_string());
        check().unwrap();
        std::os::unix::fs::symlink("../before", images.join("parent")).unwrap();
        check().unwrap();
        // In the parent too.
        let inner = scratch.0.join("before/pages-1.img");
        std::os::unix::fs::symlink("/etc/shadow", &inner).unwrap();
        assert!(check().unwrap_err().contains("parent/pages-1.img is a symbolic link"));
        std::fs::remove_file(&inner).unwrap();
        std::fs::remove_file(images.join("parent")).unwrap();
        std::os::unix::fs::symlink(&scratch.0, images.join("parent")).unwrap();
        assert!(check().unwrap_err().contains("absolute path"));
        std::fs::remove_file(images.join("parent")).unwrap();
        std::os::unix::fs::symlink("../images", images.join("parent")).unwrap();
        assert!(check().unwrap_err().contains("too many"));
        std::fs::remove_file(images.join("parent")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", images.join("restore.log")).unwrap();
        assert!(check().unwrap_err().contains("restore.log is a symbolic link"));
        std::os::unix::fs::symlink(&images, scratch.0.join("link")).unwrap();
        assert!(Images::open(&scratch.0.join("link")).is_err());
    }

    #[test]
    fn descriptors_are_what_leads_outside_or_nothing() {
        let scratch = Scratch::new("descriptors");
        let images = Images::open(&scratch.0).unwrap();
        assert_eq!(images.streams().unwrap(), []);
        images.save_descriptors(&["/dev/null".into(), "pipe:[12]".into(), "pipe:[12]".into()]).unwrap();
        let pipe = Inherited { key: "pipe:[12]".into(), number: Some(1) };
        assert_eq!(images.streams().unwrap(), [pipe]);
        let more = r#"["pipe:[]", "extRootNetNS", "pipe:[1]x", "pipe:[5]"]"#;
        std::fs::write(scratch.0.join(DESCRIPTORS), more).unwrap();
        assert_eq!(images.streams().unwrap(), []);
        std::fs::write(scratch.0.join(DESCRIPTORS), "{}").unwrap();
        assert!(images.streams().is_err());
    }
}
