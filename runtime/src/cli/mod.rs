//! The command line: global flags, the choice of the verb, and what becomes of an error.
//!
//! Each verb is a function of the [`Session`], its flags and its operands; [`verbs`] has them in one table with their flags
//! and their help. All work is done by the library; what is here parses, prints and waits.

mod arena;
mod args;
mod checkpoint;

mod error;
mod events;
mod exec;
mod foreground;
mod help;
mod lifecycle;
mod log;
mod mounts;
mod output;
mod relay;
mod signal;
mod spec;
mod sys;
mod update;
mod verbs;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use dhow_runtime::Runtime;
use lexopt::Parser;

use args::{ArgError, Flags, Parsed, invalid};
use error::CliError;
use log::{Format, Level, Log};

/// Where root's containers are.
const SYSTEM_ROOT: &str = "/run/dhow/runtime";
/// Where a user's are, below `$XDG_RUNTIME_DIR`.
const USER_ROOT: &str = "dhow/runtime";

/// What every verb works with.
pub struct Session {
    /// The library.
    pub runtime: Runtime,
    /// Where messages go.
    pub log: Log,
    /// The state directory is the default one of a user, which nobody else makes.
    root_is_of_user: bool,
}

/// The program.
/// Runs the command with these arguments, the program's name first, and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    if dhow_runtime::seal::runs_inside_a_container() {
        // A container executes the host's file: whatever it asks for, it gets nothing.
        return 1;
    }
    let mut parser = Parser::from_args(arguments.into_iter().skip(1));
    dispatch(&mut parser)
}

/// Exit code of a command that is not known.
const UNKNOWN_VERB: u8 = 3;

fn dispatch(parser: &mut Parser) -> u8 {
    let stderr = || Log::new(None, Format::Text, Level::Warning);
    let (flags, operands) = match args::globals(parser, verbs::GLOBALS) {
        Ok(Parsed::Flags(flags, operands)) => (flags, operands),
        Ok(Parsed::Help) => return help::print(None, &stderr()),
        Err(error) => return fail(&stderr(), None, &error.into()),
    };
    if flags.is_on("version") {
        return help::print_version(&stderr());
    }
    let log = match open_log(&flags) {
        Ok(log) => log,
        Err(error) => return fail(&stderr(), None, &error.into()),
    };
    let Some(name) = operands.first() else { return help::print(None, &log) };
    if name == "help" || name == "h" {
        return help_of(parser, &log);
    }
    let Some(verb) = verbs::find(name) else { return unknown(name, &log) };
    let (verb_flags, operands) = match args::verb(parser, verb.name, verb.flags, &verb.operands) {
        Ok(Parsed::Flags(flags, operands)) => (flags, operands),
        Ok(Parsed::Help) => return help::print(Some(verb), &log),
        Err(error) => return fail(&log, Some(verb), &error.into()),
    };
    let mut session = Session::new(log);
    if let Err(error) = session.configure(&flags) {
        return fail(&session.log, None, &error);
    }
    match (verb.run)(&session, &verb_flags, &operands) {
        Ok(code) => code,
        Err(error) => {
            fail(&session.log, Some(verb), &error);
            verb.failure
        }
    }
}

fn help_of(parser: &mut Parser, log: &Log) -> u8 {
    let Some(name) = parser.raw_args().ok().and_then(|mut raw| raw.next()) else {
        return help::print(None, log);
    };
    match verbs::find(&name) {
        Some(verb) => help::print(Some(verb), log),
        None => unknown(&name, log),
    }
}

fn unknown(name: &OsStr, log: &Log) -> u8 {
    let verb = name.to_string_lossy().into_owned();
    let nearest = args::nearest(&verb, verbs::VERBS.iter().map(|verb| verb.name));
    fail(log, None, &ArgError::UnknownVerb { verb, nearest }.into());
    UNKNOWN_VERB
}

/// Says what went wrong. The result is the exit code of most failures.
fn fail(log: &Log, verb: Option<&verbs::Verb>, error: &CliError) -> u8 {
    let mut message = error::message(error);
    if matches!(error, CliError::Args(_)) {
        let verb = verb.map_or_else(String::new, |verb| format!("{} ", verb.name));
        // On the same line, because callers read the last line of the log.
        message.push_str(&format!(" (see `dhow-runtime {verb}--help`)"));
    } else if let Some(prefix) =
        verb.and_then(|verb| verb.prefix).filter(|prefix| !message.starts_with(prefix))
    {
        message.insert_str(0, prefix);
    }
    log.error(&message);
    1
}

fn open_log(flags: &Flags) -> Result<Log, ArgError> {
    let format = match flags.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(invalid("log-format", other, "text or json")),
    };
    let least = match flags.text("log-level")? {
        _ if flags.is_on("debug") => Level::Debug,
        Some("debug" | "info") => Level::Debug,
        None | Some("warning" | "warn") => Level::Warning,
        Some("error") => Level::Error,
        Some(other) => return Err(invalid("log-level", other, "debug, warning or error")),
    };
    // crun takes `file:PATH` as well.
    let file =
        flags.filled("log").map(|path| match path.to_str().and_then(|path| path.strip_prefix("file:")) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(path),
        });
    Ok(Log::new(file, format, least))
}

impl Session {
    fn new(log: Log) -> Session {
        Session { runtime: Runtime::default(), log, root_is_of_user: false }
    }

    /// Takes the global flags.
    fn configure(&mut self, flags: &Flags) -> Result<(), CliError> {
        if flags.is_given("criu") {
            self.log.warn("--criu is ignored: criu is found on $PATH");
        }
        let runtime = &mut self.runtime;
        runtime.require_sealed = true;
        runtime.systemd_cgroup = flags.is_on("systemd-cgroup");
        match flags.text("cgroup-manager")? {
            None => {}
            Some("cgroupfs") => runtime.systemd_cgroup = false,
            Some("systemd") => runtime.systemd_cgroup = true,
            Some("disabled") => runtime.no_cgroups = true,
            Some(other) => {
                return Err(invalid("cgroup-manager", other, "cgroupfs, systemd or disabled").into());
            }
        }
        runtime.rootless = match flags.text("rootless")? {
            None => None,
            Some(text) if text.eq_ignore_ascii_case("auto") => None,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
            Some(other) => return Err(invalid("rootless", other, "true, false or auto").into()),
        };
        match flags.value("root") {
            Some(root) => {
                let root = if root.is_empty() { Path::new(".") } else { Path::new(root) };
                runtime.root = clean(&absolute(root)?);
                if runtime.root == Path::new("/") {
                    return Err(CliError::RootIsSlash);
                }
            }
            None => {
                match env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && is_ordinary_user()) {
                    Some(dir) => {
                        runtime.root = Path::new(&dir).join(USER_ROOT);
                        self.root_is_of_user = true;
                    }
                    None => runtime.root = SYSTEM_ROOT.into(),
                }
            }
        }
        Ok(())
    }

    /// Says what of a configuration is ignored or deprecated.
    pub fn warn_of(&self, warnings: &[dhow_runtime::Mistake]) {
        for warning in warnings {
            // Some are not about the config.
            match warning.pointer.as_str() {
                "" => self.log.warn(&warning.message),
                _ => self.log.warn(&format!("config.json {warning}")),
            }
        }
    }

    /// Makes the default state directory of a user, with the sticky bit that keeps it from being swept away.
    pub fn make_state_directory(&self) -> Result<(), CliError> {
        if !self.root_is_of_user {
            return Ok(());
        }
        let path = &self.runtime.root;
        let failed = |source| CliError::StateDirectory { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o1700)).map_err(failed)
    }

    /// The id of a container, the first of `operands`.
    pub fn id<'a>(&self, operands: &'a [OsString]) -> Result<&'a str, CliError> {
        match operands.first() {
            None => Err(CliError::EmptyId),
            Some(id) if id.is_empty() => Err(CliError::EmptyId),
            Some(id) => {
                id.to_str().ok_or_else(|| CliError::IdNotText { id: id.to_string_lossy().into_owned() })
            }
        }
    }

    /// The path that `flag` has. It stays relative if it is: the current directory is not changed, and the address of a
    /// socket has little room.
    pub fn path(&self, flags: &Flags, flag: &'static str) -> Option<PathBuf> {
        flags.filled(flag).map(PathBuf::from)
    }
}

/// `path` from the root on.
pub fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::CurrentDirectory { source })
}

/// `path`, which is absolute, without `..`, as text: what is asked is whether somebody wrote the root in a long way.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Whether state belongs to a user: not root, or root of a user namespace that somebody else runs.
fn is_ordinary_user() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let in_user_namespace = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps_every_id(&map));
    in_user_namespace && env::var_os("USER").is_none_or(|user| user != "root")
}

fn maps_every_id(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths() {
        for (path, want) in
            [("/", "/"), ("/../..", "/"), ("/a/../b/./c/", "/b/c"), ("/a/b", "/a/b"), ("/a/../../..", "/")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn user_namespaces_map_less_than_everything() {
        assert!(maps_every_id("         0          0 4294967295\n"));
        assert!(!maps_every_id("         0       1000          1\n         1     100000      65536\n"));
        assert!(!maps_every_id(""));
    }

    fn session(args: &[&str]) -> Result<Session, String> {
        let Ok(Parsed::Flags(flags, _)) = args::globals(&mut Parser::from_args(args), verbs::GLOBALS) else {
            panic!("{args:?}")
        };
        let log = open_log(&flags).map_err(|error| error.to_string())?;
        let mut session = Session::new(log);
        session.configure(&flags).map_err(|error| error.to_string())?;
        Ok(session)
    }

    #[test]
    fn global_flags() {
        let runtime = session(&["--root", "/r/../s", "--systemd-cgroup", "--rootless=true"]).unwrap().runtime;
        assert_eq!(runtime.root, Path::new("/s"));
        assert!(runtime.systemd_cgroup && !runtime.no_cgroups);
        assert_eq!(runtime.rootless, Some(true));
        let runtime =
            session(&["-root=/r", "--rootless", "auto", "--cgroup-manager", "disabled"]).unwrap().runtime;
        assert!(runtime.no_cgroups && runtime.rootless.is_none());
        assert!(session(&["--root=/r", "--cgroup-manager=systemd"]).unwrap().runtime.systemd_cgroup);
        assert!(session(&["--debug", "--root=/r"]).unwrap().log.is_debug());
        assert!(!session(&["--debug=false", "--root=/r"]).unwrap().log.is_debug());
    }

    #[test]
    fn wrong_global_flags() {
        let message = |args: &[&str]| session(args).err().unwrap();
        assert_eq!(message(&["--root", "/"]), "Option --root argument should not be set to /");
        assert_eq!(message(&["--root", "/a/.."]), "Option --root argument should not be set to /");
        assert_eq!(
            message(&["--log-format", "yaml"]),
            "invalid value \"yaml\" for flag --log-format: text or json expected"
        );
        assert_eq!(
            message(&["--root=/r", "--rootless=maybe"]),
            "invalid value \"maybe\" for flag --rootless: true, false or auto expected"
        );
        assert_eq!(
            message(&["--root=/r", "--cgroup-manager=x"]),
            "invalid value \"x\" for flag --cgroup-manager: cgroupfs, systemd or disabled expected"
        );
    }
}
