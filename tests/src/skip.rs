//! Skipping a test loudly and countably.
//!
//! A test that cannot run here says so on the process's real standard error (libtest captures only the print macros,
//! so the line shows in every run), and adds a line to the file named by `DHOW_SKIPS`, from which `make test` counts
//! the skips and holds them against the number it expects.

use std::fs::OpenOptions;
use std::io::Write;

/// Ends the test with the reason why it cannot run here. Takes the arguments of `format!`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::record($crate::skip::test_name(&here), &format!($($reason)+));
        return;
    }};
}

/// Notes that a part of a test was left out, and goes on. Takes the arguments of `format!`.
#[macro_export]
macro_rules! skip_part {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::record($crate::skip::test_name(&here), &format!($($reason)+));
    }};
}

/// The path of the function that `skip!` stands in: libtest's thread name is `main` with one test thread.
#[doc(hidden)]
pub fn test_name<T>(_: &T) -> &'static str {
    let name = std::any::type_name::<T>();
    name.strip_suffix("::here").unwrap_or(name).trim_end_matches("::{{closure}}")
}

/// Prints and records one skip. One `write` per line: several test processes append to the same file.
#[doc(hidden)]
pub fn record(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("DHOW_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut f| f.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot record a skip in {path:?}: {e}"));
    }
}

/// The first of `programs` that is not installed, looked for as a shell does and in the `sbin` directories too.
pub fn missing_program<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|p| find_program(p).is_none())
}

/// Where a program is installed.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into));
    dirs.into_iter().map(|d| d.join(name)).find(|p| p.is_file())
}

/// True if this process is root: no container of a privileged kind runs otherwise.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_of_a_skipped_test_is_its_path() {
        fn here() {}
        assert_eq!(
            super::test_name(&here),
            "dhow_tests::skip::tests::the_name_of_a_skipped_test_is_its_path"
        );
    }

    #[test]
    fn programs_are_found() {
        assert_eq!(super::missing_program(&["sh", "dhow-no-such-program"]), Some("dhow-no-such-program"));
    }
}
