//! Every verb with its flags, its help and the function that does it: one static table, which parsing, help text and the
//! manual page are made from.

use std::ffi::{OsStr, OsString};

use super::args::{Flag, Flags, Operands, switch, value};
use super::error::CliError;
use super::{Session, checkpoint, events, exec, lifecycle, mounts, spec, update};

/// One verb.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// More help, in lines that are short enough.
    pub details: &'static str,
    /// Command lines, without the name of the program, and what each does.
    pub examples: &'static [(&'static str, &'static str)],
    /// Its flags.
    pub flags: &'static [Flag],
    /// Its operands.
    pub operands: Operands,
    /// Stands before its errors.
    pub prefix: Option<&'static str>,
    /// Its exit code when it fails.
    pub failure: u8,
    /// Does it. The result is the exit code.
    pub run: fn(&Session, &Flags, &[OsString]) -> Result<u8, CliError>,
}

/// The verb called `name`.
pub fn find(name: &OsStr) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| name == verb.name)
}

/// The flags before the verb.
pub static GLOBALS: &[Flag] = &[
    value("root", "DIR", "where the state of containers is kept (should be a tmpfs)"),
    value("log", "FILE", "append messages to FILE instead of standard error"),
    value("log-format", "FORMAT", "form of messages: text (default) or json"),
    value("log-level", "LEVEL", "least severe message to write: error, warning (default) or debug"),
    switch("debug", "write debug messages too"),
    switch("systemd-cgroup", "make cgroups through systemd; cgroupsPath is then slice:prefix:name"),
    value("cgroup-manager", "NAME", "cgroupfs (default), systemd, or disabled for no cgroups at all"),
    value("rootless", "MODE", "ignore cgroup permission errors: true, false or auto (default)"),
    value("criu", "PATH", "ignored: criu is found on $PATH").hidden(),
    switch("version", "print the version").or('v'),
];

const BUNDLE: Flag = value("bundle", "DIR", "bundle with config.json (default: current directory)").or('b');
const CONSOLE_SOCKET: Flag =
    value("console-socket", "SOCKET", "send the master of the terminal to this Unix socket");
const PIDFD_SOCKET: Flag = value("pidfd-socket", "SOCKET", "send a pidfd of the process to this Unix socket");
const PID_FILE: Flag = value("pid-file", "FILE", "write the pid of the process to FILE");
const PRESERVE_FDS: Flag =
    value("preserve-fds", "N", "pass N more descriptors on, after stdio and $LISTEN_FDS");
const NO_PIVOT: Flag =
    switch("no-pivot", "chroot instead of pivot_root (for a root on a ramdisk; less safe)");
const NO_NEW_KEYRING: Flag = switch("no-new-keyring", "keep the caller's session keyring");
const DETACH: Flag = switch("detach", "return once the process runs").or('d');
const NO_SUBREAPER: Flag = switch("no-subreaper", "do not adopt and reap orphans of the container");
const PLAN: Flag = switch("plan", "print what would be done, and do nothing");
const FORMAT: Flag = value("format", "FORMAT", "table (default) or json").or('f');
const ID: Operands = Operands { usage: "CONTAINER", min: 1, max: 1, first_ends_flags: false };
const NONE: Operands = Operands { usage: "", min: 0, max: 0, first_ends_flags: false };

const IMAGE_PATH: Flag = value("image-path", "DIR", "directory of CRIU's images (default: ./checkpoint)");
const WORK_PATH: Flag = value("work-path", "DIR", "directory of CRIU's logs and work files");
const TCP_ESTABLISHED: Flag = switch("tcp-established", "allow open TCP connections");
const EXT_UNIX_SK: Flag = switch("ext-unix-sk", "allow Unix sockets whose other end is outside");
const SHELL_JOB: Flag = switch("shell-job", "allow a process of a terminal's session outside");
const FILE_LOCKS: Flag = switch("file-locks", "keep file locks");
const CGROUPS_MODE: Flag = value("manage-cgroups-mode", "MODE", "cgroups: soft, full, strict or ignore");
const EMPTY_NS: Flag = value("empty-ns", "NAMESPACE", "make the namespace anew, empty (only: network)");
const AUTO_DEDUP: Flag = switch("auto-dedup", "deduplicate memory images");
const LAZY_PAGES: Flag = switch("lazy-pages", "move memory pages later, when they are used");

/// A verb with nothing special about it.
const PLAIN: Verb = Verb {
    name: "",
    about: "",
    details: "",
    examples: &[],
    flags: &[],
    operands: ID,
    prefix: None,
    failure: 1,
    run: lifecycle::state,
};

/// Every verb.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "create",
        about: "create a container",
        details: "Makes the container that config.json of a bundle describes. Its process waits for `start`.",
        examples: &[
            ("create --bundle /b web", "create the container web"),
            ("create --plan -b /b web", "show what that would do"),
        ],
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            PRESERVE_FDS,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PLAN,
            // Only `run` needs it, but crun takes it here as well.
            NO_SUBREAPER.hidden(),
        ],
        prefix: Some("dhow-runtime create failed: "),
        run: lifecycle::create,
        ..PLAIN
    },
    Verb {
        name: "start",
        about: "start the process of a created container",
        examples: &[("start web", "start the container web")],
        run: lifecycle::start,
        ..PLAIN
    },
    Verb {
        name: "run",
        about: "create a container and start it",
        details: "Stays until the process ends, then deletes the container and exits with the status of the\n\
                  process, or 128 and the number of the signal that ended it. Signals are passed on.",
        examples: &[
            ("run -b /b web", "run the container web and wait for it"),
            ("run -d -b /b --pid-file /p web", "run it in the background"),
        ],
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            DETACH,
            switch("keep", "do not delete the container after it ends"),
            PID_FILE,
            NO_SUBREAPER,
            PRESERVE_FDS,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PLAN,
        ],
        prefix: Some("dhow-runtime run failed: "),
        run: lifecycle::run,
        ..PLAIN
    },
    Verb {
        name: "state",
        about: "print the state of a container as JSON",
        examples: &[("state web", "print the state of the container web")],
        run: lifecycle::state,
        ..PLAIN
    },
    Verb {
        name: "kill",
        about: "send a signal to the process of a container",
        details: "SIGNAL is a name (TERM, SIGTERM, RTMIN+3) or a number; SIGTERM if it is left out.",
        examples: &[("kill web KILL", "kill the process of the container web")],
        flags: &[switch("all", "send it to every process of the container").or('a')],
        operands: Operands { usage: "CONTAINER [SIGNAL]", min: 1, max: 2, first_ends_flags: false },
        run: lifecycle::kill,
        ..PLAIN
    },
    Verb {
        name: "delete",
        about: "delete what is left of a container",
        details: "The container must have stopped, or not have been started, unless --force is given.",
        examples: &[("delete --force web", "kill the container web and delete it")],
        flags: &[switch("force", "kill it first if it runs; success if it does not exist").or('f')],
        run: lifecycle::delete,
        ..PLAIN
    },
    Verb {
        name: "exec",
        about: "run another process in a container",
        details: "The process is like the container's own, changed by flags, or the one of a file. Without --detach\n\
                  this stays until it ends, and exits with its status. Flags end at CONTAINER.",
        examples: &[
            ("exec -t web sh", "a shell with a terminal"),
            ("exec -d -p process.json web", "the process of a file, in the background"),
        ],
        flags: &[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            value("cwd", "DIR", "working directory in the container"),
            value("env", "NAME=VALUE", "add an environment variable").or('e'),
            switch("tty", "give the process a terminal").or('t'),
            value("user", "UID[:GID]", "user, and group if given").or('u'),
            value("additional-gids", "GID", "add a group").or('g'),
            value("process", "FILE", "take the process from FILE, in the form of config.json").or('p'),
            DETACH,
            PID_FILE,
            value("process-label", "LABEL", "SELinux label of the process"),
            value("apparmor", "PROFILE", "AppArmor profile of the process"),
            switch("no-new-privs", "no program gains privileges by being executed"),
            value("cap", "CAPABILITY", "add a capability").or('c'),
            PRESERVE_FDS,
            value("cgroup", "[CONTROLLER:]PATH", "existing cgroup below the container's"),
            switch("ignore-paused", "also in a paused container, where it waits for `resume`"),
            NO_SUBREAPER.hidden(),
        ],
        operands: Operands {
            usage: "CONTAINER COMMAND [ARGUMENT...]",
            min: 1,
            max: usize::MAX,
            first_ends_flags: true,
        },
        prefix: Some("exec failed: "),
        failure: 255,
        run: exec::exec,
    },
    Verb {
        name: "ps",
        about: "print the processes of a container",
        details: "A table is made by the host's ps with the options given (default: -ef), less the lines of others.",
        examples: &[
            ("ps web", "the processes of the container web"),
            ("ps --format json web", "only their pids"),
            ("ps web -o pid,rss,args", "with other columns"),
        ],
        flags: &[FORMAT],
        operands: Operands {
            usage: "CONTAINER [PS-OPTION...]",
            min: 1,
            max: usize::MAX,
            first_ends_flags: true,
        },
        run: lifecycle::ps,
        ..PLAIN
    },
    Verb {
        name: "list",
        about: "print the containers below --root",
        examples: &[("list --format json", "as JSON"), ("list -q", "only their ids")],
        flags: &[FORMAT, switch("quiet", "print only ids").or('q')],
        operands: NONE,
        run: lifecycle::list,
        ..PLAIN
    },
    Verb {
        name: "pause",
        about: "suspend all processes of a container",
        examples: &[("pause web", "suspend the container web")],
        run: lifecycle::pause,
        ..PLAIN
    },
    Verb {
        name: "resume",
        about: "let the processes of a paused container go on",
        examples: &[("resume web", "go on with the container web")],
        run: lifecycle::resume,
        ..PLAIN
    },
    Verb {
        name: "update",
        about: "change resource limits of a container",
        details: "With --resources all other flags about resources are ignored. Sizes take units: 512m, 1.5g.",
        examples: &[
            ("update --memory 512m --pids-limit 100 web", "set two limits"),
            ("update -r - web < limits.json", "set those of linux.resources in a file"),
        ],
        flags: &[
            value("resources", "FILE", "take them from FILE, or standard input for -, as JSON").or('r'),
            value("blkio-weight", "WEIGHT", "share of block I/O, 10 to 1000"),
            value("cpu-period", "MICROSECONDS", "period of the CPU limit, 0 for the system's default"),
            value("cpu-quota", "MICROSECONDS", "CPU time in a period, -1 for no limit"),
            value("cpu-burst", "MICROSECONDS", "CPU time that may be saved up for later periods"),
            value("cpu-share", "SHARES", "share of CPU time, relative to other containers"),
            value("cpu-rt-period", "MICROSECONDS", "period of the realtime CPU limit"),
            value("cpu-rt-runtime", "MICROSECONDS", "realtime CPU time in a period"),
            value("cpu-idle", "0|1", "1: only CPU time that nobody else wants"),
            value("cpuset-cpus", "LIST", "CPUs, such as 0-3,7"),
            value("cpuset-mems", "LIST", "memory nodes"),
            value("memory", "SIZE", "memory limit, -1 for none"),
            value("memory-reservation", "SIZE", "memory that is left when others need it"),
            value("memory-swap", "SIZE", "limit of memory and swap together, -1 for none"),
            value("pids-limit", "N", "how many processes and threads"),
            value("l3-cache-schema", "SCHEMA", "Intel RDT: L3 cache schema"),
            value("mem-bw-schema", "SCHEMA", "Intel RDT: memory bandwidth schema"),
            value("kernel-memory", "SIZE", "ignored").hidden(),
            value("kernel-memory-tcp", "SIZE", "ignored").hidden(),
        ],
        run: update::update,
        ..PLAIN
    },
    Verb {
        name: "events",
        about: "print usage figures and out-of-memory events",
        details: "One JSON object a line, until the container is gone.",
        examples: &[("events --stats web", "usage of the container web, once")],
        flags: &[
            value("interval", "DURATION", "time between figures (default: 5s)"),
            switch("stats", "print the figures once"),
        ],
        run: events::events,
        ..PLAIN
    },
    Verb {
        name: "mounts",
        about: "add mounts to a running container, or remove them",
        details: "FILE has an array of mounts in the form of config.json; for `remove` only destinations count.",
        examples: &[("mounts add web mounts.json", "add the mounts of a file")],
        operands: Operands { usage: "add|remove CONTAINER FILE", min: 3, max: 3, first_ends_flags: false },
        run: mounts::mounts,
        ..PLAIN
    },
    Verb {
        name: "checkpoint",
        about: "save a running container to files, with CRIU",
        examples: &[("checkpoint --image-path /i web", "save the container web and stop it")],
        flags: &[
            IMAGE_PATH,
            WORK_PATH,
            value("parent-path", "DIR", "images of an earlier --pre-dump, relative to --image-path"),
            switch("leave-running", "do not stop the container"),
            TCP_ESTABLISHED,
            switch("tcp-skip-in-flight", "leave out TCP connections that are being made"),
            switch("link-remap", "link files back that were unlinked but are open"),
            EXT_UNIX_SK,
            SHELL_JOB,
            LAZY_PAGES,
            value("status-fd", "FD", "CRIU writes a zero byte here when --lazy-pages is ready"),
            value("page-server", "ADDRESS:PORT", "send memory pages to this page server"),
            FILE_LOCKS,
            switch("pre-dump", "save memory only, and let the container go on"),
            CGROUPS_MODE,
            EMPTY_NS,
            AUTO_DEDUP,
        ],
        run: checkpoint::checkpoint,
        ..PLAIN
    },
    Verb {
        name: "restore",
        about: "bring a container back from a checkpoint, with CRIU",
        examples: &[("restore -d -b /b --image-path /i web", "bring the container web back")],
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            IMAGE_PATH,
            WORK_PATH,
            DETACH,
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            TCP_ESTABLISHED,
            EXT_UNIX_SK,
            SHELL_JOB,
            FILE_LOCKS,
            CGROUPS_MODE,
            EMPTY_NS,
            AUTO_DEDUP,
            LAZY_PAGES,
            value("lsm-profile", "TYPE:NAME", "security profile to restore with"),
            value("lsm-mount-context", "CONTEXT", "SELinux context of mounts to restore with"),
            // conmon passes what it passes to `create`.
            PIDFD_SOCKET.hidden(),
            PRESERVE_FDS.hidden(),
            NO_NEW_KEYRING.hidden(),
        ],
        run: checkpoint::restore,
        ..PLAIN
    },
    Verb {
        name: "spec",
        about: "write a config.json to start from",
        details: "The file is never overwritten.",
        examples: &[("spec --bundle /b", "write /b/config.json")],
        flags: &[
            value("bundle", "DIR", "where to write config.json (default: current directory)").or('b'),
            switch("rootless", "for a container of an ordinary user"),
        ],
        operands: NONE,
        run: spec::spec,
        ..PLAIN
    },
    Verb {
        name: "features",
        about: "print what this runtime supports, as JSON",
        examples: &[("features", "print the document")],
        operands: NONE,
        run: spec::features,
        ..PLAIN
    },
];

#[cfg(test)]
pub fn parse_for_test(name: &str, args: &[&str]) -> (Flags, Vec<OsString>) {
    let verb = find(OsStr::new(name)).expect("a verb");
    let parsed =
        super::args::verb(&mut lexopt::Parser::from_args(args), verb.name, verb.flags, &verb.operands);
    match parsed.unwrap_or_else(|error| panic!("{name} {args:?}: {error}")) {
        super::args::Parsed::Flags(flags, operands) => (flags, operands),
        super::args::Parsed::Help => panic!("{name} {args:?}: help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runc 1.5 has: names of verbs and of their flags, with one-letter names.
    const RUNC: &[(&str, &str)] = &[
        (
            "checkpoint",
            "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap ext-unix-sk \
             shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns auto-dedup",
        ),
        ("create", "bundle/b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds"),
        ("delete", "force/f"),
        ("events", "interval stats"),
        (
            "exec",
            "console-socket pidfd-socket cwd env/e tty/t user/u additional-gids/g process/p detach/d pid-file \
             process-label apparmor no-new-privs cap/c preserve-fds cgroup ignore-paused",
        ),
        ("features", ""),
        ("kill", "all/a"),
        ("list", "format/f quiet/q"),
        ("pause", ""),
        ("ps", "format/f"),
        (
            "restore",
            "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode \
             bundle/b detach/d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile \
             lsm-mount-context",
        ),
        ("resume", ""),
        (
            "run",
            "bundle/b console-socket pidfd-socket detach/d keep pid-file no-subreaper no-pivot no-new-keyring \
             preserve-fds",
        ),
        ("spec", "bundle/b rootless"),
        ("start", ""),
        ("state", ""),
        (
            "update",
            "resources/r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime \
             cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap \
             pids-limit l3-cache-schema mem-bw-schema",
        ),
    ];

    fn split(flag: &str) -> (&str, Option<char>) {
        match flag.split_once('/') {
            Some((long, short)) => (long, short.chars().next()),
            None => (flag, None),
        }
    }

    #[test]
    fn every_verb_and_flag_of_runc_is_there() {
        for (name, flags) in RUNC {
            let verb = find(OsStr::new(name)).unwrap_or_else(|| panic!("{name}"));
            for flag in flags.split_whitespace() {
                let (long, short) = split(flag);
                assert!(verb.flags.iter().any(|f| f.long == long && f.short == short), "{name} --{flag}");
            }
        }
        for flag in ["debug", "log", "log-format", "root", "systemd-cgroup", "rootless"] {
            assert!(GLOBALS.iter().any(|f| f.long == flag), "--{flag}");
        }
    }

    #[test]
    fn every_flag_of_every_verb_parses_in_each_form() {
        for verb in VERBS {
            let operands: Vec<String> = (0..verb.operands.min).map(|n| format!("operand{n}")).collect();
            for flag in verb.flags {
                let word = if flag.value.is_some() { "7" } else { "true" };
                let mut forms =
                    vec![vec![format!("--{}={word}", flag.long)], vec![format!("-{}={word}", flag.long)]];
                let mut names = vec![format!("--{}", flag.long), format!("-{}", flag.long)];
                names.extend(flag.short.map(|short| format!("-{short}")));
                for name in names {
                    forms.push(match flag.value {
                        Some(_) => vec![name, word.to_owned()],
                        None => vec![name],
                    });
                }
                for form in forms {
                    let args: Vec<&str> = form.iter().chain(&operands).map(String::as_str).collect();
                    let (flags, given) = parse_for_test(verb.name, &args);
                    assert_eq!(flags.value(flag.long).unwrap(), word, "{} {args:?}", verb.name);
                    assert!(given.iter().eq(operands.iter().map(OsStr::new)), "{} {args:?}", verb.name);
                }
            }
        }
    }

    #[test]
    fn names_are_unique_and_help_is_reserved() {
        for (index, verb) in VERBS.iter().enumerate() {
            assert!(VERBS[..index].iter().all(|other| other.name != verb.name), "{}", verb.name);
            assert!(!verb.about.is_empty() && !verb.name.is_empty());
            for table in [verb.flags, GLOBALS] {
                for (index, flag) in table.iter().enumerate() {
                    let twin = |other: &Flag| {
                        other.long == flag.long || (flag.short.is_some() && other.short == flag.short)
                    };
                    assert!(!table[..index].iter().any(twin), "{} --{}", verb.name, flag.long);
                    assert!(flag.long != "help" && flag.short != Some('h'), "{} --{}", verb.name, flag.long);
                }
            }
        }
    }

    #[test]
    fn command_lines_of_callers() {
        // conmon, for podman and CRI-O.
        let (flags, operands) = parse_for_test(
            "create",
            &[
                "--bundle",
                "/b",
                "--pid-file",
                "/p",
                "--no-new-keyring",
                "--preserve-fds",
                "2",
                "--console-socket",
                "/s",
                "id",
            ],
        );
        assert_eq!(operands, ["id"]);
        assert_eq!(flags.number::<u32>("preserve-fds").unwrap(), Some(2));
        let (flags, _) = parse_for_test(
            "exec",
            &["--pid-file", "/p", "--process", "/f", "--detach", "--console-socket", "/s", "id"],
        );
        assert!(flags.is_on("detach"));
        parse_for_test(
            "restore",
            &[
                "--bundle",
                "/b",
                "--pid-file",
                "/p",
                "--no-new-keyring",
                "--detach",
                "--image-path",
                "/i",
                "--work-path",
                "/w",
                "--tcp-established",
                "id",
            ],
        );
        // go-runc, for containerd and dockerd.
        let (flags, _) =
            parse_for_test("restore", &["--image-path", "/i", "-no-subreaper", "--bundle", "/b", "id"]);
        assert!(flags.is_on("no-subreaper"));
        let (flags, operands) = parse_for_test("kill", &["--all", "id", "9"]);
        assert!(flags.is_on("all"));
        assert_eq!(operands, ["id", "9"]);
        let (flags, _) = parse_for_test("events", &["--interval=10s", "id"]);
        assert_eq!(flags.text("interval").unwrap(), Some("10s"));
        let (_, operands) = parse_for_test("ps", &["--format", "table", "id", "-o", "pid,--f"]);
        assert_eq!(operands, ["id", "-o", "pid,--f"]);
        // CRI-O.
        let (flags, _) = parse_for_test("kill", &["-a", "id", "15"]);
        assert!(flags.is_on("all"));
        parse_for_test("update", &["--resources=/tmp/podman1", "id"]);
    }
}
