//! The command line and the environment of `vm`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: vm [OPTION]... -- COMMAND [ARGUMENT]...
       vm [OPTION]... --test NAME... [-- ARGUMENT OF THE TEST PROGRAMS...]
       vm [OPTION]... --prepare
Runs COMMAND, or test programs of the workspace, in a QEMU guest that sees this
machine's files, and ends with their exit status (124: time was up, 125: no guest).

  --cgroup v2|v1          the guest's cgroups: pure v2 (default), or v1
  --kernel backports|6.1  Debian's kernel; default: backports, for v1 6.1 (the
                          backports kernel has no v1 memory and cpuset controllers)
  --memory MB             the guest's memory, default 3072
  --cpus N                default 2
  --timeout S             stops the guest after S seconds; default 600
  --share DIR             shows a directory below /dev, /proc, /run, /sys or /tmp
                          too; those that the command's words or DHOW_* variables
                          name, the working and target directories are anyhow
  --env NAME=VALUE        sets a variable; DHOW_*, RUST_*, CARGO_* and PATH of
                          this environment are passed on
  --test NAME             an integration test of the package, built and run; several
                          run one after the other in one guest
  --lib                   the unit tests of the package's library
  --package NAME          the package of --test and --lib, default dhow-tests
  --append WORDS          further parameters of the kernel
  --console               shows the kernel's console on standard error
  --quiet                 only the command's output
  --prepare               only downloads and installs what is missing

Environment: DHOW_VM_CACHE (default /var/cache/dhow-test/vm), DHOW_VM_TIMEOUT,
DHOW_VM_MEMORY: defaults of the options.
";

/// A kernel package of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// That of the backports suite of the machine's release.
    Backports,
    /// Debian 12's, where the newest system calls are missing.
    V6_1,
}

impl Kernel {
    /// Its name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backports => "backports",
            Self::V6_1 => "6.1",
        }
    }
}

/// How the guest's cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// One tree of version 2 with every controller.
    V2,
    /// A tree of version 1 for each controller.
    V1,
}

impl Cgroup {
    /// Its name on the command line and in the guest's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
        }
    }
}

/// Test programs to build and run.
#[derive(Debug, PartialEq, Eq)]
pub struct TestSelection {
    /// The workspace's package.
    pub package: String,
    /// Its integration tests.
    pub tests: Vec<String>,
    /// Whether the library's unit tests are wanted.
    pub lib: bool,
}

/// All that the command line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where downloads are kept unpacked.
    pub cache: PathBuf,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// The guest's cgroups.
    pub cgroup: Cgroup,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// The guest's processors.
    pub cpus: u32,
    /// How long the guest may run.
    pub timeout: Duration,
    /// Further directories to show in the guest.
    pub shares: Vec<PathBuf>,
    /// Variables to set, each `NAME=VALUE`.
    pub env: Vec<OsString>,
    /// Test programs to run instead of a command.
    pub tests: Option<TestSelection>,
    /// Further parameters of the kernel.
    pub append: String,
    /// Show the kernel's console.
    pub console: bool,
    /// Say nothing of one's own.
    pub quiet: bool,
    /// What follows `--`: the command, or the test programs' arguments.
    pub command: Vec<OsString>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Print the usage.
    Help,
    /// Fill the cache.
    Prepare(Options),
    /// Run something in a guest.
    Run(Options),
}

/// Reads the arguments (without the program's name) and the `DHOW_VM_*` variables.
///
/// # Errors
/// [`Error::Usage`] for an unknown option, a missing or bad value, or nothing to run.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Request, Error> {
    let mut kernel = None;
    let mut selection = TestSelection { package: "dhow-tests".into(), tests: Vec::new(), lib: false };
    let mut prepare = false;
    let mut options = Options {
        cache: std::env::var_os("DHOW_VM_CACHE").map_or("/var/cache/dhow-test/vm".into(), PathBuf::from),
        kernel: Kernel::Backports,
        cgroup: Cgroup::V2,
        memory_mib: from_environment("DHOW_VM_MEMORY", 3072)?,
        cpus: 2,
        timeout: Duration::from_secs(from_environment("DHOW_VM_TIMEOUT", 600)?),
        shares: Vec::new(),
        env: Vec::new(),
        tests: None,
        append: String::new(),
        console: false,
        quiet: false,
        command: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (text, None),
        };
        let mut value = || {
            inline
                .clone()
                .map(OsString::from)
                .or_else(|| arguments.next())
                .ok_or_else(|| Error::Usage(format!("{name} needs a value")))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Request::Help),
            "--cgroup" => {
                options.cgroup = match string(value()?)?.as_str() {
                    "v2" => Cgroup::V2,
                    "v1" => Cgroup::V1,
                    other => return Err(Error::Usage(format!("--cgroup is v2 or v1, not {other:?}"))),
                }
            }
            "--kernel" => {
                kernel = Some(match string(value()?)?.as_str() {
                    "backports" => Kernel::Backports,
                    "6.1" => Kernel::V6_1,
                    other => {
                        return Err(Error::Usage(format!("--kernel is backports or 6.1, not {other:?}")));
                    }
                })
            }
            "--memory" => options.memory_mib = number(&name, &string(value()?)?)?,
            "--cpus" => options.cpus = number(&name, &string(value()?)?)?,
            "--timeout" => options.timeout = Duration::from_secs(number(&name, &string(value()?)?)?),
            "--share" => options.shares.push(value()?.into()),
            "--env" => options.env.push(value()?),
            "--test" => selection.tests.push(string(value()?)?),
            "--lib" => selection.lib = true,
            "--package" => selection.package = string(value()?)?,
            "--append" => options.append = string(value()?)?,
            "--console" => options.console = true,
            "--quiet" => options.quiet = true,
            "--prepare" => prepare = true,
            "--" => {
                options.command = arguments.collect();
                break;
            }
            _ => return Err(Error::Usage(format!("unknown argument {name:?}; the command follows --"))),
        }
    }
    options.kernel = kernel.unwrap_or(match options.cgroup {
        Cgroup::V2 => Kernel::Backports,
        Cgroup::V1 => Kernel::V6_1,
    });
    if selection.lib || !selection.tests.is_empty() {
        options.tests = Some(selection);
    }
    if prepare {
        return Ok(Request::Prepare(options));
    }
    if options.command.is_empty() && options.tests.is_none() {
        return Err(Error::Usage("nothing to run".into()));
    }
    Ok(Request::Run(options))
}

fn string(value: OsString) -> Result<String, Error> {
    value.into_string().map_err(|value| Error::Usage(format!("{value:?} is not UTF-8")))
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Usage(format!("{name} needs a whole number, not {text:?}")))
}

fn from_environment<T: FromStr>(name: &str, default: T) -> Result<T, Error> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => number(name, &text),
        _ => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Request, Error> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_end_at_the_double_dash() {
        let Ok(Request::Run(options)) = parsed(&["--memory", "512", "--timeout=7", "--", "ls", "--memory"])
        else {
            panic!("a command line to run");
        };
        assert_eq!(options.memory_mib, 512);
        assert_eq!(options.timeout, Duration::from_secs(7));
        assert_eq!(options.command, ["ls", "--memory"]);
        assert_eq!((options.kernel, options.cgroup), (Kernel::Backports, Cgroup::V2));
    }

    #[test]
    fn v1_takes_the_kernel_that_has_it_unless_told() {
        let Ok(Request::Run(options)) = parsed(&["--cgroup", "v1", "--", "true"]) else { panic!() };
        assert_eq!(options.kernel, Kernel::V6_1);
        let Ok(Request::Run(options)) = parsed(&["--kernel", "backports", "--cgroup", "v1", "--", "true"])
        else {
            panic!("a command line to run");
        };
        assert_eq!(options.kernel, Kernel::Backports);
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for words in
            [&[][..], &["ls"], &["--cgroup", "v3", "--", "ls"], &["--memory", "x", "--", "ls"], &["--memory"]]
        {
            assert!(matches!(parsed(words), Err(Error::Usage(_))), "{words:?}");
        }
    }

    #[test]
    fn tests_need_no_command() {
        let Ok(Request::Run(options)) = parsed(&["--test", "cgroup", "--", "--test-threads=1"]) else {
            panic!("a command line to run");
        };
        assert_eq!(options.tests.map(|tests| tests.tests), Some(vec!["cgroup".to_owned()]));
        assert_eq!(options.command, ["--test-threads=1"]);
    }
}
