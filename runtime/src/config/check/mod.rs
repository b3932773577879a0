//! The rules for a configuration that need neither the host nor a privilege.
//!
//! Each rule names the field by its JSON pointer. Where runc 1.5 refuses, dhow refuses; where runc only warns,
//! dhow warns; where the specification demands an error that runc does not give, the specification counts.
//! Seccomp rules and resource values are checked by the modules that compile them.

mod linux;
mod mounts;
mod process;

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use crate::error::Mistake;

pub use linux::device_name_is_valid;

/// The version of the runtime specification that dhow implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// The oldest version of the specification whose configurations are accepted.
pub const MIN_VERSION: &str = "1.0.0";

/// Longest host or domain name, in bytes (`__NEW_UTS_LEN`).
const MAX_UTS_NAME_BYTES: usize = 64;

/// The search for mistakes in one configuration.
struct Check<'a> {
    /// Values that were replaced because of their type; rules that would only stumble over them are not applied.
    known: &'a [Mistake],
    mistakes: &'a mut Vec<Mistake>,
    warnings: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    fn mistake(&mut self, pointer: impl Display, message: impl Into<String>) {
        let pointer = pointer.to_string();
        if !super::is_covered(&pointer, self.known) {
            self.mistakes.push(Mistake::new(pointer, message));
        }
    }

    fn warning(&mut self, pointer: impl Display, message: impl Into<String>) {
        self.warnings.push(Mistake::new(pointer.to_string(), message));
    }

    /// Whether all values at and below `pointer` are those of the file, so that they may be compared with
    /// each other.
    fn trusted(&self, pointer: &str) -> bool {
        !self.known.iter().any(|m| {
            m.pointer.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || super::is_covered(pointer, std::slice::from_ref(m))
        })
    }

    /// A string that the kernel takes must not hold the byte that ends it.
    fn no_nul(&mut self, pointer: impl Display, value: &[u8]) {
        if value.contains(&0) {
            self.mistake(pointer, "contains a NUL byte");
        }
    }

    fn no_nul_path(&mut self, pointer: impl Display, value: &Path) {
        self.no_nul(pointer, value.as_os_str().as_bytes());
    }

    fn absolute(&mut self, pointer: impl Display, path: &Path) {
        self.no_nul_path(&pointer, path);
        if !path.is_absolute() {
            self.mistake(pointer, format!("{path:?} is not an absolute path"));
        }
    }
}

/// The namespaces that a configuration asks for: new ones and joined ones.
struct Namespaces<'a> {
    list: &'a [oci_spec::runtime::LinuxNamespace],
    /// False if the list itself has mistakes: then nothing is said about what is missing from it.
    trusted: bool,
}

impl Namespaces<'_> {
    fn get(&self, typ: LinuxNamespaceType) -> Option<&oci_spec::runtime::LinuxNamespace> {
        self.list.iter().find(|n| n.typ() == typ)
    }

    fn lacks(&self, typ: LinuxNamespaceType) -> bool {
        self.trusted && self.get(typ).is_none()
    }
}

/// Searches a specification for mistakes that need no host to be seen.
///
/// `known` are the values that parsing replaced ([`super::Config::mistakes`]); what only follows from them is
/// not reported again.
pub fn check(spec: &Spec, known: &[Mistake], mistakes: &mut Vec<Mistake>, warnings: &mut Vec<Mistake>) {
    let mut check = Check { known, mistakes, warnings };
    let linux = spec.linux().as_ref();
    let namespaces = Namespaces {
        list: linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default(),
        trusted: check.trusted("/linux/namespaces"),
    };
    check.version(spec.version());
    match spec.root() {
        None => check.mistake("/root", "is required"),
        Some(root) if root.path().as_os_str().is_empty() => check.mistake("/root/path", "is required"),
        Some(root) => check.no_nul_path("/root/path", root.path()),
    }
    match spec.process() {
        None => check.mistake("/process", "is required to create a container"),
        Some(process) => check.process(process, "/process"),
    }
    check.uts_name("/hostname", spec.hostname().as_deref(), &namespaces);
    check.uts_name("/domainname", spec.domainname().as_deref(), &namespaces);
    check.mounts(spec, &namespaces);
    if let Some(hooks) = spec.hooks() {
        check.hooks(hooks);
    }
    if spec.annotations().as_ref().is_some_and(|a| a.contains_key("")) {
        check.mistake("/annotations/", "a key must not be empty");
    }
    if let Some(linux) = linux {
        check.linux(linux, &namespaces);
    }
}

/// Searches a process object for mistakes; `at` is the pointer of the object, empty for a whole file.
pub fn check_process(
    process: &Process,
    at: &str,
    known: &[Mistake],
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    Check { known, mistakes, warnings }.process(process, at);
}

impl Check<'_> {
    fn version(&mut self, version: &str) {
        if version.is_empty() {
            return self.mistake("/ociVersion", "is required");
        }
        match major(version) {
            None => self.mistake(
                "/ociVersion",
                format!("{version:?} is not a version: expected MAJOR.MINOR.PATCH, as in {SPEC_VERSION:?}"),
            ),
            Some(1) => {}
            Some(_) => self.mistake(
                "/ociVersion",
                format!("version {version} is not supported: {MIN_VERSION} to {SPEC_VERSION} are"),
            ),
        }
    }

    fn uts_name(&mut self, pointer: &str, name: Option<&str>, namespaces: &Namespaces<'_>) {
        let Some(name) = name else { return };
        self.no_nul(pointer, name.as_bytes());
        if name.len() > MAX_UTS_NAME_BYTES {
            self.mistake(pointer, format!("has {} bytes, more than {MAX_UTS_NAME_BYTES}", name.len()));
        }
        if namespaces.lacks(LinuxNamespaceType::Uts) {
            self.mistake(pointer, "needs a uts namespace in /linux/namespaces");
        }
    }
}

/// The major number of a version in the form of SemVer 2.0.0.
fn major(version: &str) -> Option<u64> {
    let version = version.split_once('+').map_or(version, |(version, _build)| version);
    let (core, pre) = version.split_once('-').map_or((version, None), |(core, pre)| (core, Some(pre)));
    let numbers: Vec<u64> = core
        .split('.')
        .map(|n| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse().ok()).flatten())
        .collect::<Option<_>>()?;
    (numbers.len() == 3 && pre != Some("")).then(|| numbers[0])
}

/// Parses a list such as `0-3,7` as cpusets and NUMA nodes use it; `None` if it is not one, or names a number
/// of `limit` or more. The ranges are inclusive and in the order of the text.
pub fn parse_list(list: &str, limit: u32) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|&n| n < limit)
    };
    list.split(',')
        .map(|part| match part.split_once('-') {
            None => number(part).map(|n| (n, n)),
            Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.3.0", "1.0.2-dev", "1.0.0-rc5", "1.2.0+dev", "1.3.0-rc.1+x-y", "1.99.7"] {
            assert_eq!(major(good), Some(1), "{good}");
        }
        for bad in [
            "1",
            "1.0",
            "v1.0.0",
            "1.0.0.0",
            "1.0.x",
            "",
            "1..0",
            "+1.0.0",
            "1.0.0-",
            "1.0.99999999999999999999",
        ] {
            assert_eq!(major(bad), None, "{bad}");
        }
        assert_eq!(major("2.0.0"), Some(2));
    }

    #[test]
    fn lists() {
        assert_eq!(parse_list("0-3,7", 64), Some(vec![(0, 3), (7, 7)]));
        for bad in ["", ",", "1-", "-1", "3-1", "a", "1,,2", " 1", "64", "0x1", "99999999999"] {
            assert_eq!(parse_list(bad, 64), None, "{bad}");
        }
    }
}
