//! `exec`: another process in a container.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use dhow_runtime::ExecOptions;
use oci_spec::runtime::{Capability, Process};

use super::args::{Flags, invalid};
use super::error::CliError;
use super::lifecycle::seal;
use super::{Session, foreground, relay};

/// `exec`.
pub fn exec(session: &Session, flags: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let id = session.id(operands)?;
    // Before anything is opened: this process will be seen by those of the container.
    seal()?;
    let container = session.runtime.container(id)?;
    let mut process = match flags.filled("process") {
        Some(path) => load(session, Path::new(path))?,
        None => {
            let configured = container.process().ok_or_else(|| CliError::NoProcess { id: id.to_owned() })?;
            from_flags(configured.clone(), flags, &operands[1..])?
        }
    };
    check(&process)?;
    let detach = flags.is_on("detach");
    if !detach && process.terminal() == Some(true) {
        if let Some((rows, columns)) = relay::size_of_caller() {
            let size = oci_spec::runtime::BoxBuilder::default().height(rows).width(columns).build();
            process.set_console_size(size.ok());
        }
    }
    let options = ExecOptions {
        process,
        detach,
        terminal_socket: session.path(flags, "console-socket"),
        foreground: !detach,
        pid_file: session.path(flags, "pid-file"),
        pidfd_socket: session.path(flags, "pidfd-socket"),
        preserve_fds: flags.number("preserve-fds")?.unwrap_or(0),
        cgroup: sub_cgroups(&flags.texts("cgroup")?)?,
        ignore_paused: flags.is_on("ignore-paused"),
    };
    let running = container.exec(&options)?;
    if detach { Ok(0) } else { foreground::wait(running, &session.log) }
}

fn load(session: &Session, path: &Path) -> Result<Process, CliError> {
    let text = fs::read(path).map_err(|source| CliError::Open { path: path.into(), source })?;
    let wrong = |mistakes| dhow_runtime::Error::Config { path: path.into(), mistakes };
    let (process, warnings) = dhow_runtime::config::parse_process(&text).map_err(wrong)?;
    session.warn_of(&warnings);
    Ok(process)
}

/// `base` with what `flags` say, running `command`.
fn from_flags(mut base: Process, flags: &Flags, command: &[OsString]) -> Result<Process, CliError> {
    if command.is_empty() {
        return Err(CliError::NoCommand);
    }
    let args = command.iter().map(|arg| argument(arg)).collect::<Result<_, _>>()?;
    base.set_args(Some(args));
    base.set_terminal(Some(flags.is_on("tty")));
    if let Some(cwd) = flags.filled("cwd") {
        base.set_cwd(cwd.into());
    }
    if let Some(profile) = flags.text("apparmor")? {
        base.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = flags.text("process-label")? {
        base.set_selinux_label(Some(label.to_owned()));
    }
    if flags.is_given("no-new-privs") {
        base.set_no_new_privileges(Some(flags.is_on("no-new-privs")));
    }
    for variable in flags.texts("env")? {
        base.env_mut().get_or_insert_default().push(variable.to_owned());
    }
    add_capabilities(&mut base, &flags.texts("cap")?)?;
    if let Some(user) = flags.text("user")? {
        let number = |text: &str| id(text).ok_or_else(|| invalid("user", user, "UID[:GID] in numbers"));
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(number(gid)?)),
            None => (user, None),
        };
        base.user_mut().set_uid(number(uid)?);
        if let Some(gid) = gid {
            base.user_mut().set_gid(gid);
        }
    }
    for gid in flags.texts("additional-gids")? {
        let gid = id(gid).ok_or_else(|| invalid("additional-gids", gid, "a group id"))?;
        base.user_mut().additional_gids_mut().get_or_insert_default().push(gid);
    }
    Ok(base)
}

/// A user or group id: digits and nothing else. What it may be is the library's business.
fn id(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn argument(arg: &OsStr) -> Result<String, CliError> {
    let text = || CliError::ArgumentNotText { argument: arg.to_string_lossy().into_owned() };
    arg.to_str().map(str::to_owned).ok_or_else(text)
}

/// Adds capabilities to the bounding, effective and permitted sets; to the ambient set only where there are inheritable
/// ones, because the kernel allows no others there.
fn add_capabilities(process: &mut Process, names: &[&str]) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut capabilities = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = oci_spec::runtime::LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_permitted(None)
            .set_inheritable(None)
            .set_ambient(None);
        none
    });
    for name in names {
        let capability: Capability = serde_json::from_value((*name).into())
            .map_err(|_| invalid("cap", name, "the name of a capability, such as CAP_SYS_ADMIN,"))?;
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let bounding = with(capabilities.bounding());
        let effective = with(capabilities.effective());
        let permitted = with(capabilities.permitted());
        capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        if capabilities.inheritable().is_some() {
            let ambient = with(capabilities.ambient());
            capabilities.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(capabilities));
    Ok(())
}

fn check(process: &Process) -> Result<(), CliError> {
    let wrong = |what, must| Err(CliError::Process { what, must });
    if process.cwd().as_os_str().is_empty() {
        return wrong("Cwd", "not be empty");
    }
    if !process.cwd().is_absolute() {
        return wrong("Cwd", "be an absolute path");
    }
    if process.args().as_ref().is_none_or(|args| args.is_empty()) {
        return wrong("args", "not be empty");
    }
    Ok(())
}

/// `--cgroup` as paths by controller: `PATH` alone (version 2), or any number of `CONTROLLER[,CONTROLLER...]:PATH`.
fn sub_cgroups(arguments: &[&str]) -> Result<BTreeMap<String, String>, CliError> {
    let mut paths = BTreeMap::new();
    for argument in arguments {
        let wrong = |reason| CliError::Cgroup { argument: (*argument).to_owned(), reason };
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() != 1 {
                return Err(wrong("missing <controller>: prefix"));
            }
            paths.insert(String::new(), (*argument).to_owned());
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(wrong("empty <controller> prefix"));
            }
            if paths.insert(controller.to_owned(), path.to_owned()).is_some() {
                return Err(CliError::CgroupTwice { controller: controller.to_owned() });
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs;

    fn flags(args: &[&str]) -> (Flags, Vec<OsString>) {
        verbs::parse_for_test("exec", args)
    }

    fn resolve(base: Process, args: &[&str]) -> Result<Process, CliError> {
        let (flags, operands) = flags(args);
        from_flags(base, &flags, &operands[1..])
    }

    #[test]
    fn flags_change_the_configured_process() {
        let mut base = Process::default();
        base.set_terminal(Some(true)).set_env(Some(vec!["A=1".into()]));
        let process = resolve(
            base,
            &[
                "--cwd",
                "/w",
                "-e",
                "B=2",
                "--env=C=3",
                "-u",
                "5:6",
                "-g",
                "7",
                "-g",
                "8",
                "--apparmor",
                "p",
                "--process-label",
                "l",
                "--no-new-privs=false",
                "id",
                "ls",
                "-l",
            ],
        )
        .unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["ls", "-l"]);
        assert_eq!(process.terminal(), Some(false));
        assert_eq!(process.cwd(), Path::new("/w"));
        assert_eq!(process.env().as_ref().unwrap(), &["A=1", "B=2", "C=3"]);
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.user().additional_gids().as_ref().unwrap(), &[7, 8]);
        assert_eq!(process.apparmor_profile().as_deref(), Some("p"));
        assert_eq!(process.selinux_label().as_deref(), Some("l"));
        assert_eq!(process.no_new_privileges(), Some(false));
        assert!(check(&process).is_ok());
    }

    #[test]
    fn the_user_alone_keeps_the_group() {
        let mut base = Process::default();
        base.user_mut().set_gid(9);
        let process = resolve(base, &["-u", "5", "-t", "id", "sh"]).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (5, 9));
        assert_eq!(process.terminal(), Some(true));
    }

    #[test]
    fn capabilities_are_added_to_the_sets_that_can_have_them() {
        let mut base = Process::default();
        base.set_capabilities(None);
        let process = resolve(base, &["-c", "CAP_SYS_ADMIN", "--cap=net_raw", "id", "sh"]).unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        let both = [Capability::SysAdmin, Capability::NetRaw].into_iter().collect();
        assert_eq!(capabilities.bounding().as_ref(), Some(&both));
        assert_eq!(capabilities.effective().as_ref(), Some(&both));
        assert_eq!(capabilities.permitted().as_ref(), Some(&both));
        assert_eq!(capabilities.inheritable(), &None);
        assert_eq!(capabilities.ambient(), &None);

        let base = Process::default(); // has an inheritable set
        let process = resolve(base, &["-c", "CAP_SYS_ADMIN", "id", "sh"]).unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        assert!(capabilities.ambient().as_ref().unwrap().contains(&Capability::SysAdmin));
        assert!(!capabilities.inheritable().as_ref().unwrap().contains(&Capability::SysAdmin));
    }

    #[test]
    fn mistakes() {
        let message = |args: &[&str]| resolve(Process::default(), args).unwrap_err().to_string();
        assert_eq!(message(&["id"]), "exec args cannot be empty");
        assert_eq!(
            message(&["-u", "root", "id", "sh"]),
            "invalid value \"root\" for flag --user: UID[:GID] in numbers expected"
        );
        assert_eq!(
            message(&["-u", "1:", "id", "sh"]),
            "invalid value \"1:\" for flag --user: UID[:GID] in numbers expected"
        );
        assert_eq!(
            message(&["-g", "-1", "id", "sh"]),
            "invalid value \"-1\" for flag --additional-gids: a group id expected"
        );
        assert_eq!(
            message(&["-c", "CAP_NONE", "id", "sh"]),
            "invalid value \"CAP_NONE\" for flag --cap: the name of a capability, such as CAP_SYS_ADMIN, expected"
        );
        let mut process = Process::default();
        process.set_cwd("w".into());
        assert_eq!(check(&process).unwrap_err().to_string(), "Cwd of the process must be an absolute path");
    }

    #[test]
    fn cgroups_by_controller() {
        let paths = |args: &[&str]| sub_cgroups(args).map_err(|error| error.to_string());
        let map = |pairs: &[(&str, &str)]| {
            Ok(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>())
        };
        assert_eq!(paths(&[]), map(&[]));
        assert_eq!(paths(&["sub"]), map(&[("", "sub")]));
        assert_eq!(
            paths(&["cpu,cpuacct:a", "memory:b"]),
            map(&[("cpu", "a"), ("cpuacct", "a"), ("memory", "b")])
        );
        assert_eq!(
            paths(&["a", "b"]),
            Err("invalid --cgroup argument: a (missing <controller>: prefix)".into())
        );
        assert_eq!(
            paths(&["cpu,:a"]),
            Err("invalid --cgroup argument: cpu,:a (empty <controller> prefix)".into())
        );
        assert_eq!(
            paths(&["cpu:a", "cpu:b"]),
            Err("invalid --cgroup argument(s): controller cpu specified multiple times".into())
        );
    }
}
