//! CRIU's requests and answers (`images/rpc.proto` of CRIU): the fields that a container runtime needs.

use super::protobuf::{Malformed, Reader, Writer};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    /// Its name in the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
            Kind::FeatureCheck => "FEATURE_CHECK",
            Kind::Version => "VERSION",
        }
    }
}

/// `criu_cg_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    Default = 6,
}

/// An external mount. In a dump: the mount point in the container and the name it gets in the images. In a
/// restore: that name, and the path on the host that is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// `criu_opts`. Descriptors are those of this process, in `inherit_fds` those of CRIU's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub images_dir_fd: i32,
    pub work_dir_fd: Option<i32>,
    pub pid: Option<i32>,
    pub leave_running: bool,
    pub ext_unix_sk: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub evasive_devices: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub log_file: &'static str,
    pub page_server: Option<(String, u16)>,
    pub root: Vec<u8>,
    pub parent_images: Option<Vec<u8>>,
    pub external_mounts: Vec<External>,
    pub cgroup_mode: Option<CgroupMode>,
    pub cgroup_roots: Vec<(String, String)>,
    pub restore_as_sibling: bool,
    pub inherit_fds: Vec<(String, i32)>,
    pub external: Vec<String>,
    pub empty_namespaces: u32,
    /// Kind and file.
    pub join_namespaces: Vec<(&'static str, Vec<u8>)>,
    pub freeze_cgroup: Option<Vec<u8>>,
    pub status_fd: Option<i32>,
    pub config_file: Option<String>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// Everything that is worth a line in its log.
const LOG_LEVEL: i32 = 4;

impl Options {
    fn encode(&self) -> Writer {
        let mut w = Writer::default();
        w.int32(1, self.images_dir_fd);
        if let Some(pid) = self.pid {
            w.int32(2, pid);
        }
        w.boolean(3, self.leave_running);
        w.boolean(4, self.ext_unix_sk);
        w.boolean(5, self.tcp_established);
        w.boolean(6, self.evasive_devices);
        w.boolean(7, self.shell_job);
        w.boolean(8, self.file_locks);
        w.int32(9, LOG_LEVEL);
        w.bytes(10, self.log_file.as_bytes());
        if let Some((address, port)) = &self.page_server {
            let mut server = Writer::default();
            server.bytes(1, address.as_bytes());
            server.int32(2, (*port).into());
            w.message(11, &server);
        }
        // notify_scripts
        w.boolean(12, true);
        w.bytes(13, &self.root);
        if let Some(parent) = &self.parent_images {
            w.bytes(14, parent);
            // track_mem: without it nothing tells the pages that changed since.
            w.boolean(15, true);
        }
        w.boolean(16, self.auto_dedup);
        if let Some(fd) = self.work_dir_fd {
            w.int32(17, fd);
        }
        w.boolean(18, self.link_remap);
        for External { key, value } in &self.external_mounts {
            let mut mount = Writer::default();
            mount.bytes(1, key);
            mount.bytes(2, value);
            w.message(23, &mount);
        }
        if let Some(mode) = self.cgroup_mode {
            // manage_cgroups, for a CRIU that does not know modes.
            w.boolean(24, mode != CgroupMode::Ignore);
            w.number(34, mode as u64);
        }
        for (controller, path) in &self.cgroup_roots {
            let mut root = Writer::default();
            root.bytes(1, controller.as_bytes());
            root.bytes(2, path.as_bytes());
            w.message(25, &root);
        }
        w.boolean(26, self.restore_as_sibling);
        for (key, fd) in &self.inherit_fds {
            let mut inherit = Writer::default();
            inherit.bytes(1, key.as_bytes());
            inherit.int32(2, *fd);
            w.message(27, &inherit);
        }
        for text in &self.external {
            w.bytes(37, text.as_bytes());
        }
        if self.empty_namespaces != 0 {
            w.number(38, self.empty_namespaces.into());
        }
        for (kind, file) in &self.join_namespaces {
            let mut namespace = Writer::default();
            namespace.bytes(1, kind.as_bytes());
            namespace.bytes(2, file);
            w.message(39, &namespace);
        }
        if let Some(path) = &self.freeze_cgroup {
            w.bytes(44, path);
        }
        w.boolean(46, self.tcp_skip_in_flight);
        w.boolean(48, self.lazy_pages);
        if let Some(fd) = self.status_fd {
            w.int32(49, fd);
        }
        // orphan_pts_master
        w.boolean(50, true);
        let texts = [(51, &self.config_file), (53, &self.lsm_profile), (63, &self.lsm_mount_context)];
        for (field, text) in texts {
            if let Some(text) = text {
                w.bytes(field, text.as_bytes());
            }
        }
        w
    }
}

/// What is asked of `criu_features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    MemoryTracking = 1,
    LazyPages = 2,
}

impl Feature {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Feature::MemoryTracking => "memory tracking",
            Feature::LazyPages => "lazy pages",
        }
    }
}

/// A request with options.
pub(crate) fn request(kind: Kind, options: &Options) -> Writer {
    let mut w = Writer::default();
    w.number(1, kind as u64);
    w.message(2, &options.encode());
    w
}

/// A request after which CRIU waits for the next one.
fn question(kind: Kind) -> Writer {
    let mut w = Writer::default();
    w.number(1, kind as u64);
    // keep_open
    w.boolean(4, true);
    w
}

pub(crate) fn version_request() -> Writer {
    question(Kind::Version)
}

pub(crate) fn feature_request(feature: Feature) -> Writer {
    let mut w = question(Kind::FeatureCheck);
    let mut features = Writer::default();
    features.boolean(feature as u32, true);
    w.message(5, &features);
    w
}

/// The answer to a notification: go on.
pub(crate) fn notify_success() -> Writer {
    let mut w = Writer::default();
    w.number(1, Kind::Notify as u64);
    w.boolean(3, true);
    w
}

/// `criu_resp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    /// The number of its kind.
    pub kind: u64,
    pub success: bool,
    /// Name and pid of a notification.
    pub notify: Option<(String, i32)>,
    /// The pid of the restored process.
    pub restored: Option<i32>,
    pub errno: i32,
    pub message: String,
    /// The numbers of the features that CRIU and the kernel have.
    pub features: Vec<u32>,
    /// major * 10000 + minor * 100 + sublevel.
    pub version: Option<u32>,
}

impl Response {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Response, Malformed> {
        let mut out = Response::default();
        let (mut kind, mut success) = (None, None);
        for field in Reader::new(bytes) {
            match field? {
                (1, value) => kind = Some(value.number(1)?),
                (2, value) => success = Some(value.number(2)? != 0),
                (4, value) => {
                    for field in Reader::new(value.bytes(4)?) {
                        if let (1, value) = field? {
                            out.restored = Some(value.int32(1)?);
                        }
                    }
                }
                (5, value) => {
                    let (mut script, mut pid) = (String::new(), 0);
                    for field in Reader::new(value.bytes(5)?) {
                        match field? {
                            (1, value) => script = value.text(1)?.to_owned(),
                            (2, value) => pid = value.int32(2)?,
                            _ => {}
                        }
                    }
                    out.notify = Some((script, pid));
                }
                (7, value) => out.errno = value.int32(7)?,
                (8, value) => {
                    for field in Reader::new(value.bytes(8)?) {
                        let (number, value) = field?;
                        if value.number(number)? != 0 {
                            out.features.push(number);
                        }
                    }
                }
                (9, value) => out.message = String::from_utf8_lossy(value.bytes(9)?).into_owned(),
                (10, value) => out.version = Some(version(value.bytes(10)?)?),
                _ => {}
            }
        }
        out.kind = kind.ok_or(Malformed::Field(1))?;
        out.success = success.ok_or(Malformed::Field(2))?;
        Ok(out)
    }
}

fn version(bytes: &[u8]) -> Result<u32, Malformed> {
    let (mut major, mut minor, mut sublevel) = (None, None, 0);
    for field in Reader::new(bytes) {
        match field? {
            (1, value) => major = Some(value.int32(1)?),
            (2, value) => minor = Some(value.int32(2)?),
            (4, value) => sublevel = value.int32(4)?,
            _ => {}
        }
    }
    let part = |n: i32| u32::try_from(n).ok().filter(|n| *n < 100);
    let major = major.and_then(part).ok_or(Malformed::Field(1))?;
    let minor = minor.and_then(part).ok_or(Malformed::Field(2))?;
    Ok(major * 10_000 + minor * 100 + part(sublevel).ok_or(Malformed::Field(4))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_and_told() {
        assert_eq!(version_request().as_bytes(), [0x08, 10, 0x20, 1]);
        // What CRIU 4.1.1 answers: type, success, version { 4, 1, sublevel 1, name }.
        let answer = b"\x08\x0a\x10\x01\x52\x0b\x08\x04\x10\x01\x20\x01\x32\x03abc";
        let response = Response::decode(answer).unwrap();
        assert_eq!(response.version, Some(40_101));
        assert_eq!((response.kind, response.success), (Kind::Version as u64, true));
    }

    #[test]
    fn features() {
        let bytes = feature_request(Feature::LazyPages);
        assert_eq!(bytes.as_bytes(), [0x08, 9, 0x20, 1, 0x2a, 2, 0x10, 1]);
        let answer = [0x08, 9, 0x10, 1, 0x42, 4, 0x08, 1, 0x10, 0];
        assert_eq!(Response::decode(&answer).unwrap().features, [1]);
    }

    #[test]
    fn notifications() {
        assert_eq!(notify_success().as_bytes(), [0x08, 6, 0x18, 1]);
        let answer = b"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\x80\x02";
        let response = Response::decode(answer).unwrap();
        assert_eq!(response.notify, Some(("post-restore".into(), 256)));
    }

    #[test]
    fn refusals() {
        let answer = b"\x08\x01\x10\x00\x38\x03\x4a\x02no";
        let response = Response::decode(answer).unwrap();
        assert_eq!((response.success, response.errno, response.message.as_str()), (false, 3, "no"));
        assert_eq!(Response::decode(b"\x08\x01"), Err(Malformed::Field(2)));
        assert_eq!(Response::decode(b"\x0a\x01x\x10\x01"), Err(Malformed::Field(1)));
    }

    #[test]
    fn options() {
        let options = Options {
            images_dir_fd: 7,
            pid: Some(300),
            log_file: "dump.log",
            root: b"/r".to_vec(),
            external_mounts: vec![External { key: b"/d".to_vec(), value: b"/s".to_vec() }],
            cgroup_mode: Some(CgroupMode::Ignore),
            external: vec!["net[5]:k".into()],
            ..Options::default()
        };
        let writer = request(Kind::Dump, &options);
        let bytes = writer.as_bytes();
        assert_eq!(&bytes[..3], [0x08, 1, 0x12]);
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
        assert!(holds(b"\x08\x07\x10\xac\x02\x18\x00"), "{bytes:x?}");
        assert!(holds(b"\x52\x08dump.log"));
        assert!(holds(b"\x6a\x02/r"));
        assert!(holds(b"\xba\x01\x08\x0a\x02/d\x12\x02/s"));
        assert!(holds(b"\xc0\x01\x00\x90\x02\x00"));
        assert!(holds(b"\xaa\x02\x08net[5]:k"));
    }
}
